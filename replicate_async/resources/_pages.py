"""Listings and their pages (:api:`pagination`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar, overload

import attrs

from .. import exceptions
from .._codec import structure, structure_all
from .._concurrency import StepIterator
from .._display import listing, name_of, short, value_of
from .._http.call import Call
from .._jobs.context import Context, R, T, is_link, with_answer, with_response
from .._unpicklable import Unpicklable
from ..types import Response
from ..types._plain import Plain, described, tree_to_plain
from ..types._response import ResponseHolder

S = TypeVar("S")


@attrs.frozen(eq=False, repr=False)
class Page(Plain, Unpicklable, Generic[T]):
    """One page of a listing (:api:`pagination`): a sequence of its items."""

    results: list[T]
    """Items on this page."""
    next: str | None
    """URL of the next page, or `None` if this is the last one."""
    previous: str | None
    """URL of the previous page, or `None`."""
    _response: Response = attrs.field(repr=False)
    _context: Context = attrs.field(repr=False)
    _next_call: Call | None = attrs.field(repr=False)
    _kind: type[Any] = attrs.field(repr=False)

    def __repr__(self) -> str:
        kind = self._kind.__name__
        more = ", …" if len(self.results) > 3 else ""
        shown = ", ".join(short(name_of(item)) for item in self.results[:3])
        has_next = self.next is not None
        return f"Page({len(self.results)} of {kind}: [{shown}{more}], has_next={has_next})"

    def _repr_html_(self) -> str:
        """Return what a notebook displays: a table of the items."""
        columns = [name for name in _COLUMNS if any(value_of(item, name) for item in self.results)]
        more = "" if self.next is None else ", and there are more pages"
        return listing(
            f"Page: {self._kind.__name__}, {len(self.results)}{more}",
            ["", *(name.replace("_", " ") for name in columns)],
            ([name_of(item), *(value_of(item, name) for name in columns)] for item in self.results),
        )

    def _to_plain(self) -> dict[str, Any]:
        return {
            "results": [tree_to_plain(item) for item in self.results],
            "next": self.next,
            "previous": self.previous,
        }

    @classmethod
    def _plain_schema(cls) -> dict[str, Any]:
        link = {"anyOf": [{"type": "string"}, {"type": "null"}]}
        return {
            "type": "object",
            **described(cls),
            "properties": {
                "results": {"type": "array", "items": {"type": "object"}},
                "next": link,
                "previous": link,
            },
            "required": ["results"],
        }

    @property
    def response(self) -> Response:
        """The response that it was made of."""
        return self._response

    def __iter__(self) -> Iterator[T]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.results[index]

    async def next_page(self) -> Page[T] | None:
        """Fetch the next page.

        Returns:
            The next page, or `None` if this is the last one.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        if self._next_call is None:
            return None
        return await _fetch_page(self._context, self._next_call, self._kind)

    def auto_paging_iter(self) -> AsyncIterator[T]:
        """Iterate over the items of this page and of all following ones.

        Pages are fetched as they are needed. If that fails, the next step of the iteration fetches the same
        page again.

        Returns:
            An iterator over the items.

        Raises, from the iteration:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """

        async def here() -> Page[T]:
            return self

        return _iterate(here, _results)


_COLUMNS: Final = ("status", "model", "description", "run_count", "created_at", "error")
"""Facts of items that a notebook shows, if they have them."""


def _iterate(
    fetch: Callable[[], Coroutine[Any, Any, Page[T] | None]],
    items_of: Callable[[Page[T]], Sequence[S]],
) -> AsyncIterator[S]:
    """Return an iterator over the items of a page and of all pages after it.

    After an error, the next step fetches the same page again.

    Args:
        fetch: Fetches the first page.
        items_of: Returns the items of a page.
    """

    async def next_items() -> Sequence[S]:
        nonlocal fetch
        page = await fetch()
        if page is None:
            raise StopAsyncIteration
        fetch = page.next_page
        return items_of(page)

    return StepIterator(next_items)


def _results(page: Page[T]) -> list[T]:
    return page.results


class Listing(Unpicklable, Generic[T]):
    """A listing, as the `list` methods return it; nothing is requested before it is used.

    `await` it for its first page, or iterate over it with `async for` for the items of all pages, which are fetched
    as they are needed.
    """

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Page[T]]]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self._fetch().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return _iterate(self._fetch, _results)


def paginate(listing: Listing[T] | Callable[[], Listing[T]]) -> AsyncIterator[Page[T]]:
    """Iterate over the pages of a listing.

    If a page cannot be fetched, the next step of the iteration fetches the same page again.

    Args:
        listing: A listing such as `client.models.list()`, or a method that returns one.

    Returns:
        An iterator over the pages, which are fetched as they are needed.

    Raises, from the iteration:
        ReplicateError: The API returned an error.
        TransportError: No usable response was received.
    """

    async def first() -> Page[T]:
        found = listing if isinstance(listing, Listing) or not callable(listing) else listing()
        if not isinstance(found, Listing):
            raise exceptions.ArgumentTypeError(
                "listing", f"expected a `list` method or what it returns, got {listing!r}"
            )
        return await found

    return _iterate(first, lambda page: [page])


def pages(context: Context, call: Call, kind: type[R], cursor: str | None = None) -> Listing[R]:
    """Return a listing.

    Args:
        context: State of the client.
        call: Request for the first page.
        kind: Class of the items.
        cursor: Link to another page to start at.
    """

    async def first() -> Page[R]:
        if cursor is None:
            return await _fetch_page(context, call, kind)
        if not isinstance(cursor, str):
            raise exceptions.ArgumentTypeError("cursor", f"expected a string, got {cursor!r}")
        there = context.next_call(call, cursor) if "?" in cursor else None
        if there is None:
            raise exceptions.ArgumentError(
                "cursor", f"expected `next` or `previous` of a page, got {cursor!r}"
            )
        return await _fetch_page(context, there, kind)

    return Listing(first)


async def _fetch_page(context: Context, call: Call, kind: type[R]) -> Page[R]:
    answer = await context.transport.send(attrs.evolve(call, is_page=True))
    data = answer.data
    try:
        results = structure_all(data["results"], kind)
    except ValueError as error:
        raise answer.unreadable(error) from error
    response = answer.response
    holder = ResponseHolder(response)
    for item in results:
        context.bind(with_response(item, holder))
    next_call = context.next_call(call, data.get("next"))
    return Page(
        results,
        None if next_call is None else data["next"],
        data["previous"] if is_link(data.get("previous")) else None,
        response,
        context,
        next_call,
        kind,
    )


async def objects(context: Context, call: Call, kind: type[R]) -> list[R]:
    """Fetch a JSON array of objects, which is not paginated."""
    answer = await context.transport.send(call)
    try:
        if not isinstance(answer.data, list):
            raise ValueError("expected a list")
        return [context.bind(with_answer(structure(item, kind), answer)) for item in answer.data]
    except ValueError as error:
        raise answer.unreadable(error) from error
