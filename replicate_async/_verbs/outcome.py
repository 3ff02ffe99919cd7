"""The outcome of one input of a fan-out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from .._jobs.prediction import Output, Prediction
from .._json import shown
from .._redaction import shortened, without_secrets

__all__ = ("Outcome",)


@attrs.frozen(eq=False, repr=False)
class Outcome:
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
    _secrets: frozenset[str] = attrs.field(default=frozenset(), alias="secrets")
    """Names of the inputs that the `repr` does not show."""

    def __repr__(self) -> str:
        given = without_secrets(self.input, self._secrets)
        return (
            f"Outcome(index={self.index!r}, input={shown(shortened(given))}, prediction={self.prediction!r},"
            f" output={shown(shortened(self.output))}, error={self.error!r}, saved={self.saved!r})"
        )

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
