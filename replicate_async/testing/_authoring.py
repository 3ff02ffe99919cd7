"""The vocabulary of models: functions with type hints, `Input`, output files, logs.

`Signature` holds the inputs and the output that a function declares. The meaning of a hint is decided
here alone: schemas and the conversion of values both go by it.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import inspect
import pathlib
import sys
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Annotated, Any, Protocol, Self, TypeVar, Union, cast

import attrs

_T_co = TypeVar("_T_co", covariant=True)


@attrs.frozen
class OutputFile:
    """A file in memory that a model returns or yields.

    A model can return a `pathlib.Path` as well, if the file is on disk.
    """

    content: bytes = attrs.field(repr=lambda content: f"<{len(content)} bytes>")
    """The bytes of the file."""
    name: str
    """File name without directories; the last part of the file's URL."""
    content_type: str | None = None
    """Media type. Guessed from the name if None."""


class ConcatenateIterator(Iterator[_T_co], Protocol[_T_co]):
    """Return hint of a generator that yields the pieces of one text.

    `ConcatenateIterator[str]` becomes an array with `x-cog-array-display: concatenate`; see
    :api:`version-schema`.
    """


class AsyncConcatenateIterator(AsyncIterable[_T_co], Protocol[_T_co]):
    """Return hint of an asynchronous generator that yields the pieces of one text.

    The counterpart of `ConcatenateIterator`.
    """

    def __anext__(self) -> Awaitable[_T_co]:
        """Return the next piece."""
        ...


@attrs.frozen
class Constraints:
    """The arguments of one call of `Input`."""

    description: str | None
    default: Any
    ge: float | None
    le: float | None
    min_length: int | None
    max_length: int | None
    regex: str | None
    choices: Sequence[str | int | float] | None
    deprecated: bool | None


def Input(  # noqa: N802 - the name that authors of Cog models know
    *,
    description: str | None = None,
    default: Any = ...,
    ge: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    regex: str | None = None,
    choices: Sequence[str | int | float] | None = None,
    deprecated: bool | None = None,
) -> Any:
    """Describe and limit an input.

    Use it in the annotation, `steps: Annotated[int, Input(ge=1)] = 4`, or as the default,
    `steps: int = Input(default=4, ge=1)`.

    Args:
        description: Human-readable description.
        default: Value of a missing input. By default the input is required, unless its type
            allows None or the parameter has a plain default.
        ge: Minimum of a number.
        le: Maximum of a number.
        min_length: Minimum number of characters, or of items in a list.
        max_length: Maximum number of characters, or of items in a list.
        regex: Regular expression that must match somewhere in the text.
        choices: Allowed values.
        deprecated: Whether the input is deprecated.

    Returns:
        A marker that the emulator reads; typed as `Any`, so that it can be a default.

    Raises:
        TypeError: When the model is added, if a limit does not apply to the type of the input.
    """
    return Constraints(
        description, default, ge, le, min_length, max_length, regex, choices, deprecated
    )


def log(text: str) -> None:
    r"""Append *text* to the logs of the running prediction.

    Call it from the function of a model. No newline is added: pass `"loading\n"`. Outside of a
    prediction, for example in a direct call of the function, the text is printed.

    Args:
        text: The text to append.
    """
    append = current_log.get()
    if append is None:
        print(text, end="")
    else:
        append(text)


current_log: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar(
    "current_log", default=None
)
"""Appends to the logs of the prediction that runs in this context; None outside of one."""


MISSING: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""


# --- functions -------------------------------------------------------------------------------------


@attrs.frozen
class Parameter:
    """One parameter of a function: an input of the model."""

    name: str
    hint: Any
    default: Any
    """Default value; `MISSING` if there is none."""
    constraints: Sequence[Constraints]
    """The calls of `Input` in annotation and default, in that order."""
    is_positional: bool
    """Whether it can be passed by position only."""

    @classmethod
    def of(cls, parameter: inspect.Parameter, hint: Any) -> Self:
        """Return the input that a parameter of a Python function declares."""
        constraints = constraints_in(hint)
        default = parameter.default
        if isinstance(default, Constraints):
            constraints.append(default)
            default = MISSING
        for each in constraints:
            if default is MISSING and each.default is not ...:
                default = each.default
        # As in Cog, what may be None need not be given.
        if default is MISSING and types.NoneType in alternatives(hint):
            default = None
        is_positional = parameter.kind is parameter.POSITIONAL_ONLY
        return cls(parameter.name, hint, default, constraints, is_positional)

    @property
    def required(self) -> bool:
        """Whether the input must be given."""
        return self.default is MISSING


@attrs.frozen
class Signature:
    """The inputs and the output that a function declares."""

    parameters: Sequence[Parameter]
    takes_all: bool
    """Whether it takes inputs that it does not name, as `**kwargs`."""
    rest: Any
    """Hint of the inputs that it does not name."""
    result: Any
    """Hint of what it returns."""
    is_coroutine: bool
    """Whether it is an `async def` without `yield`."""
    yields_in_loop: bool
    """Whether it returns an asynchronous iterator."""
    iterates: bool
    """Whether it returns an iterator of either kind: the output grows item by item."""

    @classmethod
    def of(cls, function: Callable[..., object]) -> Self:
        """Return the signature of *function*.

        Raises:
            TypeError: *function* is not callable.
        """
        if not callable(function):
            raise TypeError(f"a model is a function, not {type(function).__name__}")
        hints = _hints_of(_annotated(function))
        parameters: list[Parameter] = []
        takes_all, rest = False, Any
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_all, rest = True, hints.get(name, Any)
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                parameters.append(Parameter.of(parameter, hints.get(name, Any)))
        result = plain(hints.get("return", Any))
        origin = typing.get_origin(result) or result
        is_coroutine = _is(inspect.iscoroutinefunction, function)
        yields_in_loop = _is(inspect.isasyncgenfunction, function) or (
            origin in ASYNC_ITERATORS and not is_coroutine
        )
        yields = _is(inspect.isgeneratorfunction, function) or (
            origin in ITERATORS and not is_coroutine
        )
        return cls(
            parameters,
            takes_all,
            rest,
            result,
            is_coroutine,
            yields_in_loop,
            yields or yields_in_loop,
        )


def _annotated(function: Callable[..., object]) -> Callable[..., object]:
    """Return the function with the annotations: below decorators, `partial` and `__call__`."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not inspect.isroutine(function) and not isinstance(function, type):
        return cast("Callable[..., object]", type(function).__call__)
    return function


def _is(kind: Callable[[object], bool], function: Callable[..., object]) -> bool:
    """Return whether *function*, its `__call__` or what it decorates is of a kind."""
    return kind(function) or kind(_annotated(function))


def _hints_of(function: Callable[..., object]) -> dict[str, Any]:
    """Return the hints of *function*; one that cannot be resolved counts as missing."""
    annotations: dict[str, Any] = dict(getattr(function, "__annotations__", {}))
    global_names = {**_WELL_KNOWN, **getattr(function, "__globals__", {})}
    local_names = _names_around(getattr(function, "__qualname__", ""))
    code = getattr(function, "__code__", None)
    for name, cell in zip(
        getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False
    ):
        with suppress(ValueError):  # a variable that is not set yet
            local_names[name] = cell.cell_contents
    hints: dict[str, Any] = {}
    for name, annotation in annotations.items():

        def holder() -> None: ...

        holder.__annotations__ = {name: annotation}
        try:
            hints.update(
                typing.get_type_hints(holder, global_names, local_names, include_extras=True)
            )
        except (NameError, AttributeError):
            hints[name] = Any
    return hints


# --- hints -----------------------------------------------------------------------------------------

ITERATORS: tuple[Any, ...] = (Iterator, Generator, ConcatenateIterator)
ASYNC_ITERATORS: tuple[Any, ...] = (AsyncIterator, AsyncGenerator, AsyncConcatenateIterator)
SETS: tuple[Any, ...] = (set, frozenset, AbstractSet)
LISTS: tuple[Any, ...] = (list, tuple, set, frozenset, Sequence, Collection, Iterable, AbstractSet)

# Names that linters move below `if TYPE_CHECKING:`, but the hints of a model need at run time.
_WELL_KNOWN: dict[str, Any] = {
    "Any": Any,
    "AsyncGenerator": AsyncGenerator,
    "AsyncIterator": AsyncIterator,
    "Generator": Generator,
    "Iterable": Iterable,
    "Iterator": Iterator,
    "Mapping": Mapping,
    "Path": pathlib.Path,
    "Sequence": Sequence,
    "pathlib": pathlib,
}


def _names_around(qualified_name: str) -> dict[str, Any]:
    """Return the variables of the callers inside which *qualified_name* is defined."""
    parts = qualified_name.split(".<locals>")[:-1]
    outer = {".<locals>".join(parts[: end + 1]) for end in range(len(parts))}
    frames: list[types.FrameType] = []
    frame = inspect.currentframe()
    while frame is not None and outer:
        if frame.f_code.co_qualname in outer:
            frames.append(frame)
        frame = frame.f_back
    names: dict[str, Any] = {}
    for found in reversed(frames):
        names.update(found.f_locals)
    return names


def members_of(kind: Any) -> dict[str, tuple[Any, bool]] | None:
    """Return name → (hint, required) of an attrs class, dataclass or TypedDict, else None."""
    if not isinstance(kind, type) and not typing.is_typeddict(kind):
        return None
    required: dict[str, bool]
    if typing.is_typeddict(kind):
        names: frozenset[str] = kind.__required_keys__
        required = {name: name in names for name in kind.__annotations__}
    elif attrs.has(kind):
        required = {f.name: f.default is attrs.NOTHING for f in attrs.fields(kind)}
    elif is_dataclass(kind):
        required = {
            f.name: f.default_factory is f.default  # both are MISSING, else one is set
            for f in dataclass_fields(kind)
        }
    else:
        return None
    module = sys.modules.get(kind.__module__)
    try:
        hints = typing.get_type_hints(
            kind,
            {**_WELL_KNOWN, **vars(module)} if module else None,
            _names_around(getattr(kind, "__qualname__", "")),
        )
    except (NameError, AttributeError):
        hints = {}
    return {name: (hints.get(name, Any), needed) for name, needed in required.items()}


def plain(hint: Any) -> Any:
    """Return *hint* without `Annotated`, aliases and `NewType`."""
    while True:
        if typing.get_origin(hint) is Annotated:
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # `type X = ...`, from Python 3.12 on
            hint = hint.__value__
        else:
            return hint


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; a hint that is none is its only member."""
    hint = plain(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def is_file(hint: Any) -> bool:
    """Return whether *hint* stands for a file."""
    return isinstance(hint, type) and issubclass(hint, pathlib.PurePath | OutputFile)


def is_enum(hint: Any) -> bool:
    """Return whether *hint* is an enumeration."""
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def constraints_in(hint: Any) -> list[Constraints]:
    """Return the calls of `Input` in the annotations of *hint*, without those of its items."""
    found: list[Constraints] = []
    if typing.get_origin(hint) is Annotated:
        inner, *metadata = typing.get_args(hint)
        found = constraints_in(inner)
        found.extend(each for each in metadata if isinstance(each, Constraints))
    elif len(members := alternatives(hint)) > 1:
        for member in members:
            found.extend(constraints_in(member))
    return found
