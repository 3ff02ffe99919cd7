"""Pages of lists."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from types import EllipsisType
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from ._objects import Resource

__all__ = ("Page", "async_paginate", "paginate")

T = TypeVar("T")

Cursor: TypeAlias = str | EllipsisType | None
"""`next` or `previous` of another page; `...` for the first page."""


@attrs.define(slots=False, init=False, eq=False, repr=False)
class Page(Resource, Generic[T]):
    """A page of a list."""

    previous: str | None = attrs.field(default=None, kw_only=True)
    """URL of the previous page, or None."""
    next: str | None = attrs.field(default=None, kw_only=True)
    """URL of the next page, or None."""
    results: list[T] = attrs.field(kw_only=True)
    """The objects on this page."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> T:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)


def paginate(list_method: Callable[[Cursor], Page[T]]) -> Generator[Page[T], None, None]:
    """Yield all pages of a list.

    Args:
        list_method: A `list` method.

    Yields:
        The pages.
    """
    cursor: Cursor = ...
    while cursor is not None:
        page = list_method(cursor)
        yield page
        cursor = page.next


async def async_paginate(
    list_method: Callable[[Cursor], Awaitable[Page[T]]],
) -> AsyncGenerator[Page[T], None]:
    """Yield all pages of a list.

    Args:
        list_method: An `async_list` method.

    Yields:
        The pages.
    """
    cursor: Cursor = ...
    while cursor is not None:
        page = await list_method(cursor)
        yield page
        cursor = page.next
