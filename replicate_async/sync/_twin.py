"""The base class of the generated twins, and their methods that are not generated."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

import attrs

from .. import exceptions
from .._files.display import Gallery
from .._files.holders import ModelFile
from .._files.output import FileOutput as AsyncFileOutput
from .._files.output import fetch_to_display
from .._json import mapped
from ..types import ServerSentEvent
from ..types._plain import Plain, to_json
from ._errors import boundary
from ._lease import Lease
from ._streams import Stream

if TYPE_CHECKING:
    from ._facade import (
        Client,
        FileOutput,
        Outcome,
        Outcomes,
        OutputStream,
        Page,
        Prediction,
    )

A = TypeVar("A")
T = TypeVar("T")

TWINS: Final[dict[type[Any], type[Twin[Any]]]] = {}
"""The twin of each active class. The generated module fills it."""

# The containers that `mapped` goes through, and what copies each of them.
_INPUT_TREES: Final[Mapping[type, Callable[[Any], Any]]] = {
    dict: dict,
    list: list,
    tuple: list,
    Gallery: list,
}
_OUTPUT_TREES: Final[Mapping[type, Callable[[Any], Any]]] = {
    dict: dict,
    list: list,
    Gallery: Gallery,
}

_BOUNDARIES: Final = frozenset({"__init__", "__call__", "__iter__", "__exit__"})
"""Special methods that raise exceptions of the wrapped object."""


class Twin(Plain, Generic[A]):
    """A sync view of an object of the async client."""

    __slots__ = ("__weakref__", "_async", "_lease")

    _async: A
    _lease: Lease

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Here, and not by a decorator at each method: type checkers and readers see the plain methods.
        for name, member in list(vars(cls).items()):
            if inspect.isfunction(member) and (not name.startswith("_") or name in _BOUNDARIES):
                setattr(cls, name, boundary(member))

    def __init__(self, lease: Lease, wrapped: A, /) -> None:
        self._lease = lease
        self._async = wrapped

    @classmethod
    def _of(cls, lease: Lease, wrapped: A, /) -> Self:
        """Make a twin; the constructors of some twins, such as `Client`, take other arguments."""
        made = object.__new__(cls)
        Twin.__init__(made, lease, wrapped)
        return made

    def _to_plain(self) -> Any:
        return to_json(self._async)

    @classmethod
    def _from_plain(cls, value: Any) -> Any:
        wrapped = cls._wrapped()
        if isinstance(value, Mapping) and issubclass(wrapped, Plain):
            return _restore(cls, wrapped._from_plain(value))
        return super()._from_plain(value)

    @classmethod
    def _wrapped(cls) -> type[Any]:
        return next(kind for kind, twin in TWINS.items() if twin is cls)

    @classmethod
    def _plain_schema(cls) -> dict[str, Any]:
        wrapped = cls._wrapped()
        if issubclass(wrapped, Plain):
            return wrapped._plain_schema()
        return super()._plain_schema()

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

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._async)


def _restore(kind: type[Twin[A]], wrapped: A) -> Twin[A]:
    """Return the twin of an unpickled object, which belongs to the default client."""
    from .client import default_client  # which needs the twins

    client = default_client()
    context = client._async._context
    if isinstance(wrapped, AsyncFileOutput):
        wrapped = attrs.evolve(wrapped, transport=context.transport)
    return kind._of(client._lease, context.bind(wrapped))


def unwrap(value: Any) -> Any:
    """Return the async object behind a twin, and anything else as it is."""
    return value._async if isinstance(value, Twin) else value


def unwrap_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a model, with the async objects in the place of their twins at any depth."""
    return {key: mapped(value, unwrap, _INPUT_TREES) for key, value in inputs.items()}


def wrap(lease: Lease, value: Any) -> Any:
    """Return the twin of an async object, also within lists and dicts, and anything else as it is."""
    if type(value) in _OUTPUT_TREES:
        return mapped(value, partial(_wrap_object, lease), _OUTPUT_TREES)
    return _wrap_object(lease, value)


def _wrap_object(lease: Lease, value: Any) -> Any:
    twin = TWINS.get(type(value))
    return value if twin is None else twin._of(lease, value)


def wrap_all(lease: Lease, items: Sequence[Any]) -> Sequence[Any]:
    """Return the items of an iteration, with twins in the place of async objects."""
    if items and type(items[0]) is ServerSentEvent:  # plain data, but for its output
        for event in items:
            if event._output is not None:
                event._output = wrap(lease, event._output)
        return items
    return [wrap(lease, item) for item in items]


class StreamTwin(Twin[A], Stream[T]):
    """The twin of an async iterator."""

    def __init__(self, lease: Lease, wrapped: Any, /) -> None:
        Twin.__init__(self, lease, wrapped)
        self._begin(wrapped, wrap_all)

    @classmethod
    def _of(cls, lease: Lease, wrapped: A, /) -> Self:
        return cls(lease, wrapped)


# The functions below are methods of twins (see `_tools/facade.py`), which pass `self` first.


def paginate(_: Client, listing: Page[T] | Callable[[], Page[T]]) -> Iterator[Page[T]]:
    """Return an iterator over a page, or the first page of a `list` method, and the pages after it."""
    return _Pages(listing if callable(listing) else lambda: listing)


class _Pages(Iterator["Page[T]"]):
    """The pages of a listing. After an error, the next step fetches the same page again."""

    def __init__(self, fetch: Callable[[], Page[T] | None]) -> None:
        self._fetch = fetch

    def __next__(self) -> Page[T]:
        page = self._fetch()
        if page is None:
            raise StopIteration
        self._fetch = page.next_page
        return page


def collect_output(stream: OutputStream) -> Any:
    """Return the rest of a stream, including the items that the facade has ready."""
    inner = stream._async
    inner._ready = chain([unwrap(item) for item in stream._ready], inner._ready)
    stream._ready.clear()
    return wrap(stream._lease, stream._lease.call(inner.collect))


def collect_outcomes(stream: Outcomes) -> list[Outcome]:
    """Return the remaining outcomes, in the order of the inputs."""
    return sorted(stream, key=attrgetter("index"))


def save_file(file: FileOutput, *args: Any, **options: Any) -> Path:
    """Save a file, which is a path from then on."""
    from ._saved import SavedFile  # which needs the twins

    saved = file._lease.call(file._async.save, *args, **options)
    file.__class__ = SavedFile
    return saved


def show_file(file: FileOutput, include: object, exclude: object) -> dict[str, str]:
    """Return what a notebook displays of a file: a picture is downloaded before."""
    _fetch_to_display(file, [file._async])
    return file._async._repr_mimebundle_(include, exclude)


def show_files(twin: Prediction | Outcome) -> str:
    """Return what a notebook displays of a prediction: the pictures of its output are downloaded before."""
    _fetch_to_display(twin, twin._async._shown_files())
    return twin._async._repr_html_()


def _fetch_to_display(twin: Twin[Any], files: list[AsyncFileOutput]) -> None:
    with suppress(exceptions.ReplicateException):  # such as a closed client: then links are shown
        twin._lease.call(fetch_to_display, files)


# -- Base classes of single twins ---------------------------------------------------------------


class FileMixin(ModelFile, Twin[AsyncFileOutput]):
    """The base of the twin of a file, which becomes a path when the file is saved."""

    __slots__ = ()

    @classmethod
    def _of(cls, lease: Lease, wrapped: AsyncFileOutput, /) -> Self:
        from ._saved import FileOutput, SavedFile  # which needs the twins

        made = super()._of(lease, wrapped)
        made.__class__ = cast("type[Self]", FileOutput if wrapped.path is None else SavedFile)
        return made


class _ModelAttribute:
    """An attribute of a model function that depends on the model. On the class, it is *default*.

    `help()` and `inspect.signature()` look for such attributes without `__getattribute__`.
    """

    def __init__(self, name: str, default: Any = None) -> None:
        self._name = name
        self._default = default

    def __get__(self, function: Twin[Any] | None, owner: type[Any]) -> Any:
        if function is None:
            return self._default
        value = getattr(function._async, self._name)
        return value.replace("`await ", "`") if self._name == "__doc__" else value


class FunctionMixin:
    """The name, signature and documentation of a model function, which depend on the model."""

    __slots__ = ()

    __name__: _ModelAttribute = _ModelAttribute("__name__")
    __signature__: _ModelAttribute = _ModelAttribute("__signature__")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__doc__ = cast("str", _ModelAttribute("__doc__", cls.__doc__))
