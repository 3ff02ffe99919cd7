"""What all namespaces and live objects share: their context, pages, and how objects are bound."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

import attrs

from .. import _policy, exceptions
from .._codec import structure, structure_all
from .._policy import Kind
from .._transport import Call, Param, Transport
from ..types import FileEncodingStrategy, Record, Stats
from ._creates import Creations

if TYPE_CHECKING:
    from .._inputs import Uploads
    from ._poller import Pollers

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class Later(Generic[T]):
    """Something that a client and its views share, made when it is first asked for."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[None, T] = {}

    def __call__(self) -> T:
        """Return it: the same one in all threads."""
        if not self._made:
            self._made.setdefault(None, self._make())
        return self._made[None]


def _no_uploads() -> Uploads:
    from .._inputs import Uploads

    return Uploads()


def _no_pollers() -> Pollers:
    from ._poller import Pollers

    return Pollers()


@attrs.define(eq=False, repr=False)
class Context:
    """What a namespace needs of its client."""

    transport: Transport
    use_file_output: bool
    """Whether file URLs in outputs become `FileOutput`."""
    file_encoding_strategy: FileEncodingStrategy
    """How files in inputs are sent."""
    poll_interval: float | None
    """Seconds between two looks at a prediction; None: adaptive."""
    rebind: Callable[[type[Any], dict[str, Any]], Any]
    """How an unpickled object finds a client; an importable function."""
    run: Callable[[Context, Any, Mapping[str, Any]], Awaitable[Any]]
    """Runs a model, a version or a deployment, for what stands below `run`."""
    on_ambiguous: Literal["raise", "repeat"]
    """What to do about a create that got no answer and is not found."""
    creations: Creations = attrs.field(factory=Creations)
    """The creates of this client and its views."""
    latest_versions: dict[str, tuple[float, str]] = attrs.field(
        factory=dict[str, tuple[float, str]]
    )
    """Of models that are not official: when it was looked up (monotonic), and the id."""
    shared_uploads: Later[Uploads] = attrs.field(factory=lambda: Later(_no_uploads))
    """What this client and its views have uploaded for inputs."""
    schemas: dict[str, tuple[float, Any]] = attrs.field(factory=dict[str, tuple[float, Any]])
    """Of models and versions: until when it is good (monotonic), and what their schema says."""
    shared_pollers: Later[Pollers] = attrs.field(factory=lambda: Later(_no_pollers))
    """Who sees to the predictions that this client and its views await."""
    tasks: set[asyncio.Task[None]] = attrs.field(factory=set[asyncio.Task[None]])
    """What is under way and needs the connections to end in an orderly way, on any event loop."""

    async def fetch(self, kind: type[R], call: Call, patience: float = _policy.LONGEST_WAIT) -> R:
        """Send a call and return the object in its answer, bound to this client."""
        answer = await self.transport.send(call, kind, patience)
        made: R = answer.data
        return self.bind(made)

    @property
    def uploads(self) -> Uploads:
        """What this client and its views have uploaded for inputs."""
        return self.shared_uploads()

    @property
    def pollers(self) -> Pollers:
        """Who sees to the predictions that this client and its views await."""
        return self.shared_pollers()

    @property
    def stats(self) -> Stats:
        """What this client and its views have done so far."""
        return self.transport.pool.stats

    def next_call(self, call: Call, link: object) -> Call | None:
        """Return the call for the next page of a listing; None if the link leads to none.

        The link is used as it is if it leads to the API. Otherwise, as behind a gateway of another
        name, its query is: the token goes nowhere else (HTTP API, section 1.7).
        """
        if not isinstance(link, str) or not _is_link(link):
            return None
        if not self.transport.is_api(link):
            path = call.path.partition("?")[0]
            link = f"{path}?{link.partition('#')[0].partition('?')[2]}"
        return attrs.evolve(call, path=link, params=None)

    async def command(self, method: str, path: str) -> None:
        """Send a call that changes something and answers with nothing."""
        await self.transport.send(Call(method, path, Kind.WRITE, expects="nothing"))

    def bind(self, made: T) -> T:
        """Return a live object bound to this client; plain data as it is."""
        if isinstance(made, Bound):
            made._bind(self)
        return made


class Namespace:
    """Operations that belong together."""

    def __init__(self, context: Context) -> None:
        self._context = context


@attrs.define(eq=False)
class Bound(Record):
    """An object that can make requests about itself."""

    _client: Context | None = attrs.field(default=None, repr=False, init=False)

    def _bind(self, context: Context) -> None:
        self._client = context

    @property
    def _context(self) -> Context:
        if self._client is None:
            raise exceptions.ArgumentError("self", f"this {type(self).__name__} has no client")
        return self._client

    def _replace(self, fresh: Bound) -> None:
        """Take over the state of another object of the same kind."""
        for field in attrs.fields(type(self)):
            if field.name != "_client":
                setattr(self, field.name, getattr(fresh, field.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return self._context.rebind, (type(self), self._raw)

    def __copy__(self) -> Self:
        return self._context.bind(structure(self._raw, type(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._context.bind(structure(self.to_dict(), type(self)))


# -- Pages -------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Page(Generic[T]):
    """One page of a listing (HTTP API, section 1.7); a sequence of what is on it."""

    results: list[T]
    """What is on this page."""
    next: str | None
    """The URL of the next page."""
    previous: str | None
    """The URL of the page before."""
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
        """Fetch the page after this one; None if this is the last."""
        return None if self.next is None else await self._fetch(self.next)

    def auto_paging_iter(self) -> AsyncIterator[T]:
        """Yield what is on this page and on all that follow, fetching them as they are needed."""

        async def here() -> Page[T]:
            return self

        return _Items(here)


class _Place(Generic[T]):
    """Where an iteration over pages is."""

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Page[T] | None]]) -> None:
        self.fetch: Callable[[], Coroutine[Any, Any, Page[T] | None]] = fetch
        self.ready: Iterator[T] = iter(())
        self.failed = False
        """Whether the next page could not be fetched."""

    async def batch(self) -> list[T]:
        """Return what is on the next page."""
        page = await self.fetch()
        if page is None:
            raise StopAsyncIteration
        self.fetch = page.next_page
        return page.results

    async def items(self) -> AsyncGenerator[T, None]:
        """Yield all items from here on."""
        while True:
            for item in self.ready:
                yield item
            try:
                self.ready = iter(await self.batch())
            except StopAsyncIteration:
                return
            except BaseException:
                self.failed = True
                raise


class _Items(AsyncIterator[T]):
    """All items from one page on; a batch is a page.

    A generator makes them, which is resumed for a third of what a coroutine for each item costs. After an
    error another one goes on from the same place.
    """

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Page[T] | None]]) -> None:
        # The place does not know of the generator: they are no circle for the garbage collector.
        self._place = _Place(fetch)
        self._items = self._place.items()

    def __anext__(self) -> Coroutine[Any, Any, T]:
        if self._place.failed:
            self._place.failed = False
            self._items = self._place.items()
        return self._items.__anext__()

    async def _batch(self) -> list[T]:
        """Return what is on the next page; the sync facade takes it at one go."""
        return await self._place.batch()


class Listing(Generic[T]):
    """What a `list` method returns.

    `await` it for the first page; `async for` it for all items of all pages.
    """

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Page[T]]]) -> None:
        self._fetch = fetch

    def __await__(self) -> Generator[Any, None, Page[T]]:
        return self._fetch().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return _Items(self._fetch)


async def paginate(listing: Listing[T] | Callable[[], Listing[T]]) -> AsyncIterator[Page[T]]:
    """Yield the pages of a listing: `paginate(client.models.list)`, or `paginate(client.models.list())`."""
    page: Page[T] | None = await (listing if isinstance(listing, Listing) else listing())
    while page is not None:
        yield page
        page = await page.next_page()


def pages(context: Context, call: Call, kind: type[R], cursor: str | None = None) -> Listing[R]:
    """Return the listing that a call gives the first page of.

    Args:
        context: The client.
        call: Fetches the first page.
        kind: What is on the pages.
        cursor: The link to another page to begin with.
    """

    async def first() -> Page[R]:
        if cursor is None:
            return await _page(context, call, kind)
        following = context.next_call(call, cursor) if "?" in cursor else None
        if following is None:
            raise exceptions.ArgumentError("cursor", f"{cursor!r} is no link to a page")
        return await _page(context, following, kind)

    return Listing(first)


async def _page(context: Context, call: Call, kind: type[R]) -> Page[R]:
    answer = await context.transport.send(call)
    data = answer.data
    try:
        if not isinstance(data, dict) or not isinstance(data.get("results"), list):
            raise ValueError("this is no page: it has no list of results")
        results = structure_all(data["results"], kind)
    except ValueError as error:
        raise answer.unreadable(error) from error
    if issubclass(kind, Bound):
        for item in results:
            item._bind(context)  # type: ignore[attr-defined]  # all are of `kind`
    here = context.next_call(call, data.get("next"))

    async def fetch(url: str) -> Page[R]:
        following = context.next_call(call, url)
        if following is None:
            raise exceptions.ArgumentError("url", f"{url!r} is no link to a page")
        return await _page(context, following, kind)

    return Page(
        results,
        # A server that gives the same link again would be asked for ever.
        data["next"] if here is not None and here.path != call.path else None,
        data["previous"] if _is_link(data.get("previous")) else None,
        fetch,
    )


def _is_link(value: object) -> bool:
    return isinstance(value, str) and value not in ("", "null")


async def objects(context: Context, call: Call, kind: type[R]) -> list[R]:
    """Return the objects of a bare array."""
    answer = await context.transport.send(call)
    try:
        if not isinstance(answer.data, list):
            raise ValueError("this is no list")
        return [context.bind(structure(item, kind)) for item in answer.data]
    except ValueError as error:
        raise answer.unreadable(error) from error


# -- Bodies ------------------------------------------------------------------------------------


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: the API refuses `null` (HTTP API, section 1.3)."""
    return {name: value for name, value in fields.items() if value is not None}


def query(**fields: Param) -> Mapping[str, Param]:
    """Return the parameters of a query; None is left out when it is sent."""
    return fields
