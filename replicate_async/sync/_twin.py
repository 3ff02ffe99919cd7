"""What the generated twins have in common, and what no wrapper can express."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import chain
from operator import attrgetter
from typing import IO, TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast

import attrs

from .._files.output import FileOutput as AsyncFileOutput
from .._jobs.context import Bound
from ..types import ServerSentEvent
from ._portal import Lease, Stream, crosses

if TYPE_CHECKING:
    from ._facade import Client, Outcome, Outcomes, OutputStream, Page

A = TypeVar("A")
T = TypeVar("T")

TWINS: dict[tuple[str, str], type[Twin[Any]]] = {}
"""Module and name of each active class, and its twin; the generated module fills it in.

By name, since the modules of the async client are imported when they are needed.
"""

_found: dict[type[Any], type[Twin[Any]] | None] = {}


_CROSSING = frozenset({"__init__", "__call__", "__iter__", "__exit__"})


class Twin(Generic[A]):
    """A sync view of one object of the async client."""

    __slots__ = ("__weakref__", "_async", "_lease")

    _async: A
    _lease: Lease

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Here, and not by a decorator at each method: type checkers and readers see the plain methods.
        for name, member in list(vars(cls).items()):
            if inspect.isfunction(member) and (not name.startswith("_") or name in _CROSSING):
                setattr(cls, name, crosses(member))

    def __init__(self, lease: Lease, wrapped: A, /) -> None:
        self._lease = lease
        self._async = wrapped

    @classmethod
    def _of(cls, lease: Lease, wrapped: A, /) -> Self:
        """Make a twin also where the constructor is the user's."""
        made = object.__new__(cls)
        Twin.__init__(made, lease, wrapped)
        return made

    @classmethod
    def _all(cls, lease: Lease, items: list[Any], /) -> list[Any]:
        """Make the twins of a whole page: a call for each would be half of what that costs."""
        made: list[Any] = []
        new = object.__new__
        for item in items:
            twin: Any = new(cls)
            twin._lease = lease
            twin._async = item
            made.append(twin)
        return made

    def __repr__(self) -> str:
        return repr(self._async)

    def __str__(self) -> str:
        return str(self._async)

    def __eq__(self, other: object) -> bool:
        return bool(self._async == other._async) if isinstance(other, Twin) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._async)

    def __copy__(self) -> Self:
        return self._of(self._lease, copy.copy(self._async))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._of(self._lease, copy.deepcopy(self._async, memo))

    if not TYPE_CHECKING:  # it would hide misspelled names from type checkers

        def __getattr__(self, name: str) -> Any:
            if name.startswith("async_") and hasattr(type(self._async), name[6:]):
                return _for_a_loop(self._lease, getattr(self._async, name[6:]))
            raise AttributeError(f"a {type(self).__name__} has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        if not isinstance(self._async, (Bound, AsyncFileOutput)):
            raise TypeError(
                f"a {type(self).__name__} cannot be pickled: make one where it is needed"
            )
        return _restore, (type(self), self._async)


def _restore(kind: type[Twin[A]], wrapped: A) -> Twin[A]:
    """Make an unpickled object one of the default client's."""
    from . import default_client

    client = default_client()
    context = client._async._context
    if isinstance(wrapped, AsyncFileOutput):
        wrapped = attrs.evolve(wrapped, transport=context.transport)
    return kind._of(client._lease, context.bind(wrapped))


def unwrap(value: Any) -> Any:
    """Return the async object behind a twin; anything else as it is."""
    return value._async if isinstance(value, Twin) else value


def _for_a_loop(
    lease: Lease, method: Callable[..., Any]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a method as the `async_` methods of `replicate` 1.x are: for the caller's own event loop."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        """Do the same as the method without `async_`, in the caller's event loop."""
        given = {name: unwrap(value) for name, value in kwargs.items()}
        result = method(*[unwrap(value) for value in args], **given)
        return wrap(lease, await result if inspect.isawaitable(result) else result)

    return call


def unwrap_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a model with the async objects in place of their twins, however deep."""
    return {key: _unwrap_tree(value) for key, value in inputs.items()}


def _unwrap_tree(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _unwrap_tree(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_unwrap_tree(item) for item in value]
    return unwrap(value)


def wrap(lease: Lease, value: Any) -> Any:
    """Return the twin of an async object; also in lists and dicts; anything else as it is."""
    kind = type(value)
    if kind is list:
        return [wrap(lease, item) for item in value]
    if kind is dict:
        return {key: wrap(lease, item) for key, item in value.items()}
    twin = _found[kind] if kind in _found else _twin_of(kind)
    return value if twin is None else twin._of(lease, value)


def _twin_of(kind: type[Any]) -> type[Twin[Any]] | None:
    try:
        return _found[kind]
    except KeyError:
        twin = _found[kind] = TWINS.get((kind.__module__, kind.__name__))
        return twin


def wrap_all(lease: Lease, items: list[Any]) -> list[Any]:
    """Return items of an iteration with the twins in their places."""
    if items and type(items[0]) is ServerSentEvent:
        for event in items:
            if event._output is not None:
                event._output = wrap(lease, event._output)
        return items
    kinds = set(map(type, items))
    if len(kinds) == 1:
        twin = _twin_of(kinds.pop())
        if twin is not None:
            return twin._all(lease, items)
    return [wrap(lease, item) for item in items]


class StreamTwin(Twin[A], Stream[T]):
    """A twin that is iterated over."""

    def __init__(self, lease: Lease, wrapped: Any, /) -> None:
        Twin.__init__(self, lease, wrapped)
        self._begin(wrapped, wrap_all)

    @classmethod
    def _of(cls, lease: Lease, wrapped: A, /) -> Self:
        return cls(lease, wrapped)

    @classmethod
    def _all(cls, lease: Lease, items: list[Any], /) -> list[Any]:
        return [cls._of(lease, item) for item in items]


def paginate(_: Client, listing: Page[T] | Callable[[], Page[T]]) -> Iterator[Page[T]]:
    """Yield the pages: the first, of a `list` method or what it returned, and those after it."""
    page: Page[T] | None = listing() if callable(listing) else listing
    while page is not None:
        yield page
        page = page.next_page()


def collect_output(stream: OutputStream) -> Any:
    """Return the rest of a stream, also what the facade holds ready."""
    inner = stream._async
    inner._ready = chain([unwrap(item) for item in stream._ready], inner._ready)
    stream._ready.clear()
    return wrap(stream._lease, stream._lease.call(inner.collect))


def collect_outcomes(stream: Outcomes) -> list[Outcome]:
    """Return the outcomes that are left, in the order of the inputs."""
    return sorted(stream, key=attrgetter("index"))


# -- What only the sync world has --------------------------------------------------------------


class _Chunks(Protocol):
    def __iter__(self) -> Iterator[bytes]: ...


class FileLike:
    """The way from a `FileOutput` to a real file, for what needs to seek in one."""

    __slots__ = ()

    _IN_MEMORY = 8 * 2**20

    @crosses
    def open(self: _Chunks) -> IO[bytes]:
        """Download it, and return it as a file that is open for reading and can seek. Close it.

        Up to 8 MiB are held in memory, more in a temporary file that is gone when it is closed.

        ```python
        with output.open() as file, zipfile.ZipFile(file) as archive:
            archive.extractall("results")
        ```

        Raises:
            FileExpired: It is gone.
            IncompleteFile: The download broke off.
            TransportError: There was no answer.
        """
        import tempfile  # it takes a while, and few need it

        file = tempfile.SpooledTemporaryFile(FileLike._IN_MEMORY)  # noqa: SIM115 - returned
        try:
            for chunk in self:
                file.write(chunk)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return cast("IO[bytes]", file)


class FunctionLike:
    """What makes a model's function look like one: its name, its signature and its documentation."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__doc__":
            doc: str = object.__getattribute__(self, "_async").__doc__
            return doc.replace("`await load()`", "`load()`")
        if name in ("__name__", "__signature__"):
            return getattr(object.__getattribute__(self, "_async"), name)
        return object.__getattribute__(self, name)
