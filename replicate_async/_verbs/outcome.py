"""The outcome of one input of a fan-out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from .._display import card, input_html, link, short_repr
from .._files.display import output_html
from .._files.output import FileOutput
from .._files.output_trees import files_in
from .._jobs.prediction import Output, Prediction
from .._redaction import recorded_input, shown_input
from ..types._plain import Plain, described, error_to_plain, schema_of_fields, tree_to_plain

__all__ = ("Outcome",)


@attrs.frozen(eq=False, repr=False)
class Outcome(Plain):
    """The outcome of one input."""

    index: int
    """Zero-based index of the input."""
    input: Mapping[str, Any]
    """The input, as it was given."""
    prediction: Prediction | None = None
    """The prediction; None if none was created."""
    output: Output = None
    """The final output, as `run` returns it; None if there is none."""
    error: Exception | None = None
    """The error; None if the input succeeded."""
    saved: tuple[Path, ...] = ()
    """The paths of the output's files, if `save_to` was given."""
    _secrets: frozenset[str] | None = attrs.field(default=None, alias="secrets")
    """Names of the inputs that the `repr` does not show; None if they are not known: then it shows no texts."""

    def __repr__(self) -> str:
        prediction = self.prediction
        return short_repr(
            "Outcome",
            {
                "index": self.index,
                "input": shown_input(self.input, self._secrets),
                "prediction": None if prediction is None else prediction.id,
                "output": self.output,
                "error": self.error,
                "saved": [str(path) for path in self.saved],
            },
        )

    def _repr_html_(self) -> str:
        """Return what a notebook displays: a table of what is known, with the output."""
        prediction = self.prediction
        shown = "" if prediction is None else f"{prediction.id} ({prediction.status})"
        return card(
            f"Outcome {self.index}",
            [
                ("prediction", shown if prediction is None else link(prediction.urls.web, shown)),
                ("input", input_html(shown_input(self.input, self._secrets))),
                ("output", output_html(self.output)),
                ("error", None if self.error is None else str(self.error)),
                ("saved", ", ".join(map(str, self.saved))),
            ],
        )

    def _shown_files(self) -> list[FileOutput]:
        """Return the files of the output, which a notebook displays."""
        return list(files_in(self.output))

    def _to_plain(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "input": tree_to_plain(recorded_input(self.input, self._secrets)),
            "prediction": None if self.prediction is None else self.prediction._to_plain(),
            "output": tree_to_plain(self.output),
            "error": None if self.error is None else error_to_plain(self.error),
            "saved": [str(path) for path in self.saved],
        }

    @classmethod
    def _plain_schema(cls) -> dict[str, Any]:
        error = {"type": "string"}
        return {
            "type": "object",
            **described(cls),
            "properties": {
                "index": {"type": "integer"},
                "input": {"type": "object"},
                "prediction": {"anyOf": [schema_of_fields(Prediction), {"type": "null"}]},
                "output": {},
                "error": {
                    "anyOf": [
                        {"type": "object", "properties": {"type": error, "message": error}},
                        {"type": "null"},
                    ]
                },
                "saved": {"type": "array", "items": {"type": "string"}},
            },
        }

    def result(self) -> Output:
        """Return the output, or raise the error.

        Returns:
            The final output.

        Raises:
            Exception: The error in `error`, if there is one.
        """
        if self.error is not None:
            raise self.error
        return self.output
