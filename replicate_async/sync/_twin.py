"""What the generated twins have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ._portal import Lease, Stream, crosses

if TYPE_CHECKING:
    from ._facade import Page

A = TypeVar("A")
T = TypeVar("T")

TWINS: dict[type[Any], type[Twin[Any]]] = {}
"""The twin of each active class; the generated module fills it in."""


class Twin(Generic[A]):
    """A sync view of one object of the async client."""

    __slots__ = ("__weakref__", "_async", "_lease")

    _async: A
    _lease: Lease

    def __init__(self, lease: Lease, wrapped: A, /) -> None:
        self._lease = lease
        self._async = wrapped

    @classmethod
    def _of(cls, lease: Lease, wrapped: A, /) -> Self:
        """Make a twin of a class whose constructor is the user's."""
        made = object.__new__(cls)
        Twin.__init__(made, lease, wrapped)
        return made

    def __repr__(self) -> str:
        return repr(self._async)

    def __str__(self) -> str:
        return str(self._async)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Twin):
            return NotImplemented
        return bool(self._async == unwrap(other))

    def __hash__(self) -> int:
        return hash(self._async)

    def __copy__(self) -> Self:
        return self._of(self._lease, copy.copy(self._async))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._of(self._lease, copy.deepcopy(self._async, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._async)


def _restore(kind: type[Twin[A]], wrapped: A) -> Twin[A]:
    """Make an unpickled object one of the default client's."""
    from . import default_client

    client = default_client()
    return kind._of(client._lease, client._async._context.bind(wrapped))


def unwrap(value: Any) -> Any:
    """Return the async object behind a twin; anything else as it is."""
    return value._async if isinstance(value, Twin) else value


def wrap(lease: Lease, value: Any) -> Any:
    """Return the twin of an async object; also in lists and dicts; anything else as it is."""
    kind = type(value)
    if kind is list:
        return [wrap(lease, item) for item in value]
    if kind is dict:
        return {key: wrap(lease, item) for key, item in value.items()}
    twin = TWINS.get(kind)
    return value if twin is None else twin._of(lease, value)
