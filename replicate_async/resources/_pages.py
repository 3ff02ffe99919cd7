"""Listings and their pages (:api:`pagination`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, overload

import anyio
import attrs

from .. import exceptions
from .._codec import structure, structure_all
from .._http.call import Call
from .._jobs.context import Context, R, T, is_link


@attrs.frozen(eq=False)
class Page(Generic[T]):
    """One page of a listing (:api:`pagination`): a sequence of its items."""

    results: list[T]
    """Items on this page."""
    next: str | None
    """URL of the next page, or `None` if this is the last one."""
    previous: str | None
    """URL of the previous page, or `None`."""
    _fetch: Callable[[str], Coroutine[Any, Any, Page[T]]] = attrs.field(repr=False)

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
        return None if self.next is None else await self._fetch(self.next)

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

        return _ItemIterator(here)


class _ItemIterator(AsyncIterator[T]):
    """Iterator over the items of a page and of all pages after it.

    After an error, the next step fetches the same page again.
    """

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Page[T] | None]]) -> None:
        self._fetch = fetch
        self._items: Iterator[T] = iter(())
        self._lock = anyio.Lock()

    async def __anext__(self) -> T:
        for item in self._items:
            return item
        # Tasks that share the iterator fetch each page once.
        async with self._lock:
            while True:
                for item in self._items:
                    return item
                self._items = iter(await self._batch())

    async def _batch(self) -> list[T]:
        """Fetch the next page and return its items; the sync facade takes them at once.

        Raises:
            StopAsyncIteration: There are no more pages.
        """
        page = await self._fetch()
        if page is None:
            raise StopAsyncIteration
        self._fetch = page.next_page
        return page.results


class Listing(Generic[T]):
    """A listing, as the `list` methods return it; nothing is requested before it is used.

    `await` it for its first page, or iterate over it with `async for` for the items of all pages, which are fetched
    as they are needed.
    """

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Page[T]]]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self._fetch().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return _ItemIterator(self._fetch)


async def paginate(listing: Listing[T] | Callable[[], Listing[T]]) -> AsyncIterator[Page[T]]:
    """Iterate over the pages of a listing.

    Args:
        listing: A listing such as `client.models.list()`, or a method that returns one.

    Yields:
        The pages, which are fetched as they are needed.

    Raises, from the iteration:
        ReplicateError: The API returned an error.
        TransportError: No usable response was received.
    """
    page: Page[T] | None = await (listing if isinstance(listing, Listing) else listing())
    while page is not None:
        yield page
        page = await page.next_page()


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
            return await _page(context, call, kind)
        following = context.next_call(call, cursor) if "?" in cursor else None
        if following is None:
            raise exceptions.ArgumentError(
                "cursor", f"expected `next` or `previous` of a page, got {cursor!r}"
            )
        return await _page(context, following, kind)

    return Listing(first)


async def _page(context: Context, call: Call, kind: type[R]) -> Page[R]:
    answer = await context.transport.send(call)
    data = answer.data
    try:
        if not isinstance(data, dict) or not isinstance(data.get("results"), list):
            raise ValueError("expected a page with a list of results")
        results = structure_all(data["results"], kind)
    except ValueError as error:
        raise answer.unreadable(error) from error
    for item in results:
        context.bind(item)
    here = context.next_call(call, data.get("next"))

    async def fetch(url: str) -> Page[R]:
        following = context.next_call(call, url)
        if following is None:
            raise exceptions.ArgumentError("url", f"expected `next` of a page, got {url!r}")
        return await _page(context, following, kind)

    return Page(
        results,
        # A server that returns the same link again would be asked forever.
        data["next"] if here is not None and here.path != call.path else None,
        data["previous"] if is_link(data.get("previous")) else None,
        fetch,
    )


async def objects(context: Context, call: Call, kind: type[R]) -> list[R]:
    """Fetch a JSON array of objects, which is not paginated."""
    answer = await context.transport.send(call)
    try:
        if not isinstance(answer.data, list):
            raise ValueError("expected a list")
        return [context.bind(structure(item, kind)) for item in answer.data]
    except ValueError as error:
        raise answer.unreadable(error) from error
