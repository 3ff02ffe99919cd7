"""Base class of the namespaces."""

from __future__ import annotations

from .._jobs.context import Context


class Namespace:
    """Operations on one kind of object."""

    def __init__(self, context: Context) -> None:
        self._context = context
