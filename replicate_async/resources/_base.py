"""Base classes of the namespaces."""

from __future__ import annotations

from .._jobs.context import Context
from .._references import identifier
from .._unpicklable import Unpicklable


class Namespace(Unpicklable):
    """Operations on one kind of object."""

    _instead = "use that of a client where it is needed"

    def __init__(self, context: Context) -> None:
        self._context = context


class ModelNamespace(Namespace):
    """Operations on the parts of one model."""

    def __init__(self, context: Context, owner: str, name: str) -> None:
        super().__init__(context)
        self._path = model_path(owner, name)


def model_path(owner: str, name: str) -> str:
    """Return the path of a model."""
    return f"/models/{identifier(owner, 'model')}/{identifier(name, 'model')}"
