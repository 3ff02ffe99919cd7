"""Exceptions of `replicate` 1.x.

`ReplicateException` is that of `replicate_async`, so it also catches what has no shape in 1.x: network errors,
lost creates, expired files.
"""

from __future__ import annotations

from typing import Any

from .._codec import error_text
from .._json import shown
from .._redaction import without_surrogates
from ..exceptions import ReplicateException

__all__ = ("ModelError", "ReplicateError", "ReplicateException")


class ModelError(ReplicateException):
    """The model failed."""

    prediction: Any
    """The failed `Prediction`."""

    def __init__(self, prediction: Any) -> None:
        self.prediction = prediction
        super().__init__(error_text(prediction.error))


class ReplicateError(ReplicateException):
    """The API returned an error.

    An error that the API returned has the typed exception of `replicate_async` as its `__cause__`.
    """

    type: str | None
    """URI of the type of the problem."""
    title: str | None
    """Short name of the problem."""
    status: int | None
    """HTTP status code."""
    detail: str | None
    """Explanation of this occurrence."""
    instance: str | None
    """URI of this occurrence."""

    def __init__(
        self,
        type: str | None = None,
        title: str | None = None,
        status: int | None = None,
        detail: str | None = None,
        instance: str | None = None,
    ) -> None:
        super().__init__()
        self.type = type
        self.title = title
        self.status = status
        self.detail = detail
        self.instance = instance

    @classmethod
    def from_response(cls, response: Any) -> ReplicateError:
        """Make the error of a response.

        Args:
            response: Anything with `status_code` and `json()`, such as an `httpx.Response`.

        Returns:
            The error; without details if the body is not a JSON object.
        """
        try:
            data = response.json()
        except ValueError:
            data = None
        said = data if isinstance(data, dict) else {}
        return cls(
            type=said.get("type"),
            title=said.get("title"),
            status=response.status_code,
            detail=said.get("detail"),
            instance=said.get("instance"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the facts that are known."""
        facts = {name: getattr(self, name) for name in _FACTS}
        return {name: fact for name, fact in facts.items() if fact is not None}

    def __str__(self) -> str:
        lines = [
            f"{name}: {fact if isinstance(fact, str) else shown(fact)}"
            for name, fact in self.to_dict().items()
        ]
        return without_surrogates("\n".join(["ReplicateError Details:", *lines]))

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={shown(getattr(self, name))}" for name in _FACTS)
        return f"{type(self).__name__}({facts})"


_FACTS = ("type", "title", "status", "detail", "instance")
