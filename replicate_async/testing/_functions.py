"""A Python function as a model: schema from its hints, validation of its input, execution.

The emulator runs functions where Replicate runs Cog containers. `Code` is what a version consists
of: the OpenAPI document that such a container would publish (HTTP API, section 9.5), the checks
that the prediction service makes with it (HTTP API, section 2.4), and calls that never block the
event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import datetime
import enum
import functools
import inspect
import json
import math
import mimetypes
import pathlib
import queue
import re
import shutil
import sys
import tempfile
import threading
import types
import typing
import urllib.parse
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
from contextlib import aclosing, suppress
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, cast

import attrs

__all__ = (
    "AsyncConcatenateIterator",
    "Code",
    "ConcatenateIterator",
    "Input",
    "OutputFile",
    "Run",
    "Violation",
    "log",
)

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_Schema = dict[str, Any]
_Path = tuple[str, ...]
_REF = "#/components/schemas/"


# What the authors of models use


@attrs.frozen
class OutputFile:
    """A file that a model returns or yields, where a `pathlib.Path` would need a file on disk."""

    content: bytes = attrs.field(repr=lambda content: f"<{len(content)} bytes>")
    """The bytes of the file."""
    name: str
    """Its name, without directories; the last part of its URL."""
    content_type: str | None = None
    """Its media type; guessed from the name if None."""


class ConcatenateIterator(Iterator[_T_co], Protocol[_T_co]):
    """Say, as a return hint, that a generator yields pieces of one text.

    `ConcatenateIterator[str]` becomes an array with `x-cog-array-display: concatenate`
    (HTTP API, section 9.5).
    """


class AsyncConcatenateIterator(AsyncIterable[_T_co], Protocol[_T_co]):
    """Say of an asynchronous generator what `ConcatenateIterator` says of a plain one."""

    def __anext__(self) -> Awaitable[_T_co]: ...


@attrs.frozen
class _Constraints:
    """What a call of `Input` says about a parameter."""

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
        description: Text for people.
        default: Value when the input is missing. `...` (the default): the input is required,
            unless it may be None or the parameter has a plain default.
        ge: Least number.
        le: Greatest number.
        min_length: Least number of characters, or of items in a list.
        max_length: Greatest number of characters, or of items in a list.
        regex: Pattern that must be found somewhere in a text.
        choices: The only values allowed.
        deprecated: Marks the input as deprecated.

    """
    return _Constraints(
        description, default, ge, le, min_length, max_length, regex, choices, deprecated
    )


def log(text: str) -> None:
    r"""Append *text* to the logs of the prediction that runs the calling function.

    No line end is added: pass `"loading\n"`. Outside of a prediction, as in a direct call of the
    function, the text is printed.
    """
    run = _current_run.get()
    if run is None:
        print(text, end="")
    else:
        run.log(text)


# What the server uses


@attrs.frozen
class Violation:
    """One entry of `invalid_fields` (HTTP API, section 2.4)."""

    type: str
    """Kind of violation, such as `number_lte`."""
    field: str
    """Where: `input`, or a dotted path such as `input.width` or `input.tags.0`."""
    description: str
    """A sentence for people."""


class Run(Protocol):
    """What the code of a version needs of the prediction or training that runs it."""

    async def fetch(self, url: str) -> bytes:
        """Return the content of the input file at *url*."""
        ...

    def log(self, text: str) -> None:
        """Append *text* to the logs; called from any thread."""

    async def emit(self, value: object) -> None:
        """Add one item to the output; *value* is JSON with `OutputFile`s anywhere inside it."""


_current_run: contextvars.ContextVar[Run | None] = contextvars.ContextVar("run", default=None)


class Code:
    """The code of one version.

    Args:
        predict: The function that makes predictions: plain, async, generator or async generator.
            Its type hints become the schemas `Input` and `Output`.
        train: The function that trains, plain or async; None if the version cannot be trained.
        cog_version: The version of Cog to appear as. Documents of versions below 0.3.9 lack the
            markers of iterators (HTTP API, section 9.5).

    Raises:
        TypeError: If a function, a hint or a constraint cannot be expressed.
        ValueError: If a default is not a valid input.

    """

    def __init__(
        self,
        predict: Callable[..., object],
        *,
        train: Callable[..., object] | None = None,
        cog_version: str = "0.16.7",
    ) -> None:
        self.cog_version: str = cog_version
        components = _container_components(trainable=train is not None)
        schemas = _Schemas(components)
        self._components: dict[str, _Schema] = components
        self._predictor: _Function = _Function(predict, schemas, input_name="Input")
        self._trainer: _Function | None = None

        output = self._predictor.output_schema(schemas, "Output")
        components["Output"] = output
        item = _resolved(output.get("items", output), components)
        is_list = output.get("type") == "array"
        self.iterates: bool = self._predictor.iterates
        """Whether the output grows item by item."""
        self.output_is_file: bool = item.get("format") == "uri"
        """Whether the output is a file, or a list or iterator of files."""
        self.output_is_text: bool = (
            output.get("x-cog-array-display") == "concatenate"
            if is_list
            else item.get("type") == "string" and not self.output_is_file
        )
        """Whether the output is a text, at once or in pieces."""
        self.trainable: bool = train is not None
        """Whether there is a function that trains."""
        if train is not None:
            self._trainer = _Function(train, schemas, input_name="TrainingInput")
            if self._trainer.iterates:
                raise TypeError("train must not be a generator")
            components["TrainingOutput"] = _training_output(
                self._trainer.output_schema(schemas, "TrainingOutput")
            )
        if _is_below(cog_version, (0, 3, 9)):
            output.pop("x-cog-array-type", None)
            output.pop("x-cog-array-display", None)
        self.openapi_schema: dict[str, Any] = {
            "openapi": "3.0.2",
            "info": {"title": "Cog", "version": "0.1.0"},
            "paths": _container_paths(trainable=self.trainable),
            "components": {"schemas": components},
        }
        """The OpenAPI document of the version (HTTP API, section 9.5)."""
        for name in ("Input", "TrainingInput") if self.trainable else ("Input",):
            self._check_defaults(name)

    def violations(self, value: object, *, component: str = "Input") -> list[Violation]:
        """Return what is wrong with an input, in the order of the schema; empty if nothing is.

        Keys that the schema does not name are ignored (HTTP API, section 2.4).

        Args:
            value: The JSON value sent as `input`.
            component: `Input`, or `TrainingInput` for a training.

        """
        return list(_violations(self._components[component], value, (), self._components))

    async def predict(self, input: Mapping[str, Any], run: Run) -> object:
        """Make a prediction.

        Args:
            input: A valid input; defaults are filled in, files fetched, values converted to what
                the hints say.
            run: The prediction.

        Returns:
            The output as JSON with `OutputFile`s anywhere inside it; None if the code iterates:
            then the items have gone through `run.emit`.

        Raises:
            Exception: Whatever the function raises; its text is the prediction's `error`.

        """
        return await self._predictor.call(input, run)

    async def train(self, input: Mapping[str, Any], run: Run) -> object:
        """Train, and return the output: a file alone is returned as `{"weights": file}`.

        Arguments and errors are those of `predict`. HTTP API, section 11.1.
        """
        if self._trainer is None:
            raise TypeError("this version cannot be trained")
        output = await self._trainer.call(input, run)
        return {"weights": output} if isinstance(output, OutputFile) else output

    def _check_defaults(self, component: str) -> None:
        for name, schema in self._components[component]["properties"].items():
            if "default" not in schema:
                continue
            for violation in _violations(schema, schema["default"], (name,), self._components):
                raise ValueError(f"default of {name}: {violation.description}")


# Execution


_MISSING = inspect.Parameter.empty
_END = object()
_SCALARS = (str, int, float, bool, types.NoneType, OutputFile)


class _Function:
    """One function of a version: its parameters as fields of a schema, and its call."""

    def __init__(
        self, function: Callable[..., object], schemas: _Schemas, *, input_name: str
    ) -> None:
        if not callable(function):
            raise TypeError(f"a model is a function, not {type(function).__name__}")
        self._function: Callable[..., Any] = function
        hints = _hints_of(_annotated(function))
        self._fields: list[_Field] = []
        self._takes_all: bool = False
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                self._takes_all = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                self._fields.append(_Field.of(parameter, hints.get(name, Any)))
        self._result: Any = _plain(hints.get("return", Any))
        origin = typing.get_origin(self._result) or self._result
        is_generator = _is(inspect.isgeneratorfunction, function)
        self._is_coroutine: bool = _is(inspect.iscoroutinefunction, function)
        self._yields_in_loop: bool = _is(inspect.isasyncgenfunction, function) or (
            origin in _ASYNC_ITERATORS and not self._is_coroutine
        )
        self.iterates: bool = (
            is_generator
            or self._yields_in_loop
            or (origin in _ITERATORS and not self._is_coroutine)
        )
        schema: _Schema = {"type": "object", "title": input_name}
        required = [field.name for field in self._fields if field.required]
        if required:
            schema["required"] = required
        schema["properties"] = {
            field.name: field.schema(schemas, order) for order, field in enumerate(self._fields)
        }
        schemas.components[input_name] = schema

    def output_schema(self, schemas: _Schemas, title: str) -> _Schema:
        """Return the schema of what the function returns or yields."""
        if self.iterates:
            origin = typing.get_origin(self._result) or self._result
            known = (*_ITERATORS, *_ASYNC_ITERATORS, Iterable, AsyncIterable)
            arguments = typing.get_args(self._result) if origin in known else ()
            schema: _Schema = {
                "type": "array",
                "items": schemas.of(arguments[0] if arguments else Any),
                "x-cog-array-type": "iterator",
            }
            if origin in (ConcatenateIterator, AsyncConcatenateIterator):
                schema["x-cog-array-display"] = "concatenate"
        else:
            schema = _resolved(schemas.of(self._result), schemas.components)
        return {**schema, "title": title}

    async def call(self, input: Mapping[str, Any], run: Run) -> object:
        """Call the function for *run*; see `Code.predict`."""
        token = _current_run.set(run)
        thread = _Thread()
        files = _InputFiles(run, thread)
        try:
            try:
                arguments, keywords = await self._arguments(input, files)
                bound = functools.partial(self._function, *arguments, **keywords)
                output = await self._execute(bound, run, thread)
            except SystemExit as error:
                await files.remove()
                # It would end the event loop, and with it the whole emulator.
                raise RuntimeError(f"the model ended with {error!r}") from error
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                await files.remove()
                # Nobody asked for it: passed on, it would look as if somebody had.
                raise RuntimeError(f"the model ended with {error!r}") from error
            except Exception:
                await files.remove()
                raise
            await files.remove()
            return output
        finally:
            # After a cancellation the thread may still run the function: it tidies up when done.
            thread.end(files.delete)
            _current_run.reset(token)

    async def _execute(self, bound: Callable[[], Any], run: Run, thread: _Thread) -> object:
        if self._yields_in_loop:
            async with aclosing(_closable(bound())) as items:
                async for item in items:
                    await run.emit(await _portable_in(thread, item))
            return None
        if self.iterates:
            generator = await thread.call(lambda: iter(bound()))
            try:
                while (item := await thread.call(lambda: _next_portable(generator))) is not _END:
                    await run.emit(item)
            finally:
                close = getattr(generator, "close", None)
                if close is not None:
                    thread.later(close)
            return None
        if self._is_coroutine:
            return await _portable_in(thread, await bound())
        return await thread.call(lambda: _portable(bound()))

    async def _arguments(
        self, input: Mapping[str, Any], files: _InputFiles
    ) -> tuple[list[Any], dict[str, Any]]:
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        if self._takes_all:
            known = {field.name for field in self._fields}
            keywords.update((key, value) for key, value in input.items() if key not in known)
        for field in self._fields:
            value = await field.value(input, files)
            if field.is_positional:
                arguments.append(value)
            else:
                keywords[field.name] = value
        return arguments, keywords


class _Thread:
    """The daemon thread of one prediction: it does one piece of work after the other.

    Started at the first piece. Daemonic, because a function that hangs must not keep the process
    from ending; of its own, because a shared pool could be used up by functions that hang.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._context: contextvars.Context = contextvars.copy_context()
        self._work: queue.SimpleQueue[
            tuple[Callable[[], object], asyncio.Future[Any] | None] | None
        ] = queue.SimpleQueue()
        self._is_started: bool = False

    async def call(self, work: Callable[[], _T]) -> _T:
        """Return the result of *work*; a cancellation does not wait for it."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._work.put((work, future))
        if not self._is_started:
            self._is_started = True
            threading.Thread(
                target=self._context.run, args=(self._serve,), name="model", daemon=True
            ).start()
        return await future

    def later(self, work: Callable[[], object]) -> None:
        """Do *work* when all that was asked before is done; its errors are dropped."""
        self._work.put((work, None))

    def end(self, work: Callable[[], object]) -> None:
        """Do *work* as the last, then let the thread end."""
        if self._is_started:
            self.later(work)
            self._work.put(None)

    def _serve(self) -> None:
        while (task := self._work.get()) is not None:
            work, future = task
            if future is not None and future.cancelled():
                continue
            result: object = None
            failure: Exception | None = None
            try:
                result = work()
            except StopIteration as error:
                failure = RuntimeError("the model raised StopIteration")
                failure.__cause__ = error
            except Exception as error:  # noqa: BLE001 - handed to the caller
                failure = error
            except BaseException as error:  # noqa: BLE001 - as KeyboardInterrupt it would stop the loop
                failure = RuntimeError(f"the model ended with {error!r}")
                failure.__cause__ = error
            if future is not None:
                # RuntimeError: the loop is closed, so nobody waits any more.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_settle, future, result, failure)
            # Nothing of a prediction is kept alive while waiting for more work.
            del task, work, future, result, failure


def _settle(future: asyncio.Future[object], result: object, failure: Exception | None) -> None:
    if future.done():  # cancelled
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


class _InputFiles:
    """The files given to one call, in a temporary directory that goes with it."""

    def __init__(self, run: Run, thread: _Thread) -> None:
        self._run: Run = run
        self._thread: _Thread = thread
        self._directory: pathlib.Path | None = None
        self._count: int = 0

    async def save(self, url: str) -> pathlib.Path:
        """Fetch *url* and return the path of a file with its content and a fitting suffix."""
        content = await self._run.fetch(url)
        self._count += 1
        return await self._thread.call(functools.partial(self._write, content, url, self._count))

    async def remove(self) -> None:
        """Remove the files and wait until they are gone."""
        if self._directory is not None:
            await self._thread.call(self.delete)

    def delete(self) -> None:
        """Remove the files, at once."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, content: bytes, url: str, number: int) -> pathlib.Path:
        if self._directory is None:
            self._directory = pathlib.Path(tempfile.mkdtemp(prefix="replicate-input-"))
        # A directory each, since two inputs may have the same name.
        path = self._directory / str(number) / _file_name(url)
        path.parent.mkdir()
        path.write_bytes(content)
        return path


def _file_name(url: str) -> str:
    """Return a name for the file at *url*: its own, or `file` with the suffix of its type."""
    if url[:5].lower() == "data:":
        media_type = url[5:300].partition(",")[0].partition(";")[0].strip().lower()
        return "file" + (mimetypes.guess_extension(media_type, strict=False) or "")
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    name = re.sub(r"[^\w.+ -]", "_", name).strip(". ")
    stem, dot, suffix = name.rpartition(".")
    # File names have at most 255 bytes; a character has at most four.
    return f"{stem[:40]}{dot}{suffix[:20]}" if name else "file"


def _media_type(name: str) -> str | None:
    # Not strict: Python 3.11 and 3.12 count WebP among the unofficial types.
    return mimetypes.guess_type(name, strict=False)[0]


def _closable(items: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """Return *items* itself if it can be closed, else a generator over it."""
    if hasattr(items, "aclose"):
        return cast("AsyncGenerator[Any, None]", items)

    async def generate() -> AsyncGenerator[Any, None]:
        async for item in items:
            yield item

    return generate()


def _next_portable(iterator: Iterator[object]) -> object:
    item = next(iterator, _END)
    return item if item is _END else _portable(item)


async def _portable_in(thread: _Thread, value: object) -> object:
    """Return `_portable(value)`, made in *thread* if that could read files."""
    if type(value) in _SCALARS:
        return _portable(value)
    return await thread.call(lambda: _portable(value))


def _portable(value: object) -> object:
    """Return *value* as JSON in which every path has become an `OutputFile`.

    Raises:
        TypeError: If something in it has no place in JSON.
        ValueError: If a number is infinite or not a number.
        OSError: If a file cannot be read.

    """
    if isinstance(value, enum.Enum):
        return _portable(value.value)
    if value is None or isinstance(value, bool | int | str | OutputFile):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the output contains {value}, which JSON cannot express")
        return value
    if isinstance(value, pathlib.PurePath):
        path = pathlib.Path(value)
        return OutputFile(path.read_bytes(), path.name, _media_type(path.name))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {
            str(_portable(key)): _portable(item)
            for key, item in cast("Mapping[object, object]", value).items()
        }
    if isinstance(value, list | tuple | AbstractSet):
        return [_portable(item) for item in cast("Collection[object]", value)]
    kind = type(value)
    if attrs.has(kind):
        return {field.name: _portable(getattr(value, field.name)) for field in attrs.fields(kind)}
    if is_dataclass(kind):
        return {
            field.name: _portable(getattr(value, field.name)) for field in dataclass_fields(kind)
        }
    hint = "; return an OutputFile" if isinstance(value, bytes | bytearray) else ""
    raise TypeError(f"the output contains a value of type {kind.__name__}, which is not JSON{hint}")


# Hints


_ITERATORS = (Iterator, Generator, ConcatenateIterator)
_ASYNC_ITERATORS = (AsyncIterator, AsyncGenerator, AsyncConcatenateIterator)
_SETS = (set, frozenset, AbstractSet)
_LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable, AbstractSet)

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


def _annotated(function: Callable[..., object]) -> Callable[..., object]:
    """Return the function with the annotations: below decorators, `partial` and `__call__`."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not inspect.isroutine(function) and not isinstance(function, type):
        return cast("Callable[..., object]", type(function).__call__)
    return function


def _is(kind: Callable[[object], bool], function: Callable[..., object]) -> bool:
    """Say whether *function*, its `__call__` or what it decorates is of a kind."""
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


def _names_around(qualified_name: str) -> dict[str, Any]:
    """Return the variables of the calling functions inside which *qualified_name* is defined."""
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


def _members_of(kind: Any) -> dict[str, tuple[Any, bool]] | None:
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


def _plain(hint: Any) -> Any:
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


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; a hint that is none is its only member."""
    hint = _plain(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _is_file(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, pathlib.PurePath | OutputFile)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


@attrs.frozen
class _Field:
    """One parameter of a function: an input."""

    name: str
    hint: Any
    default: Any
    constraints: Sequence[_Constraints]
    is_positional: bool

    @classmethod
    def of(cls, parameter: inspect.Parameter, hint: Any) -> _Field:
        """Make the field of a parameter of a function."""
        constraints = _constraints_in(hint)
        default = parameter.default
        if isinstance(default, _Constraints):
            constraints.append(default)
            default = _MISSING
        for each in constraints:
            if default is _MISSING and each.default is not ...:
                default = each.default
        # As in Cog, what may be None need not be given.
        if default is _MISSING and types.NoneType in _alternatives(hint):
            default = None
        is_positional = parameter.kind is parameter.POSITIONAL_ONLY
        return cls(parameter.name, hint, default, constraints, is_positional)

    @property
    def required(self) -> bool:
        """Whether the input must be given."""
        return self.default is _MISSING

    def schema(self, schemas: _Schemas, order: int) -> _Schema:
        """Return the field's schema as a property of `Input`."""
        schema = schemas.of(self.hint, self.name, constrain=False)
        for constraints in self.constraints:
            schema = schemas.constrained(schema, constraints, self.name)
        schema = _wrapped(schema)
        result: _Schema = {key: schema[key] for key in ("type", "allOf") if key in schema}
        if "allOf" not in schema:
            result["title"] = _title(self.name)
        result |= schema
        if self.default is None:
            result["nullable"] = True
        elif not self.required and not isinstance(self.default, pathlib.PurePath):
            result["default"] = copy.deepcopy(_portable(self.default))
        result["x-order"] = order
        return result

    async def value(self, input: Mapping[str, Any], files: _InputFiles) -> Any:
        """Return the argument for this parameter."""
        if self.name in input:
            return await _converted(self.hint, input[self.name], files)
        if self.required:
            raise ValueError(f"{self.name} is required")
        value = copy.deepcopy(self.default)
        is_json = isinstance(value, str | int | float | list | dict)
        if is_json and not isinstance(value, enum.Enum):
            return await _converted(self.hint, value, files)
        return value


def _constraints_in(hint: Any) -> list[_Constraints]:
    """Return what calls of `Input` in the annotations of *hint* say, not in those of its items."""
    found: list[_Constraints] = []
    if typing.get_origin(hint) is Annotated:
        inner, *metadata = typing.get_args(hint)
        found = _constraints_in(inner)
        found.extend(each for each in metadata if isinstance(each, _Constraints))
    elif len(members := _alternatives(hint)) > 1:
        for member in members:
            found.extend(_constraints_in(member))
    return found


async def _converted(hint: Any, value: Any, files: _InputFiles) -> Any:
    """Return the JSON *value* as what *hint* says: a path, a member of an enum, a set and so on."""
    members = [member for member in _alternatives(hint) if member is not types.NoneType]
    if value is None and len(members) < len(_alternatives(hint)):
        return None
    if len(members) > 1:
        hint = next((member for member in members if _fits(member, value)), Any)
    else:
        hint = members[0] if members else Any
    hint = _plain(hint)
    origin = typing.get_origin(hint) or hint
    arguments = typing.get_args(hint)
    if isinstance(value, str) and _is_file(hint):
        return await files.save(value)
    if _is_enum(hint):
        return hint(value)
    if hint is float and isinstance(value, int):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and origin in _LISTS:
        item_hint = arguments[0] if arguments else Any
        items = [await _converted(item_hint, item, files) for item in value]
        return origin(items) if origin in (tuple, set, frozenset) else items
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        if origin in (dict, Mapping) and arguments:
            return {key: await _converted(arguments[1], each, files) for key, each in given.items()}
        structure = _members_of(hint)
        if structure is not None:
            keywords = {
                name: await _converted(member, given[name], files)
                for name, (member, _) in structure.items()
                if name in given
            }
            return hint(**keywords)
    return value


def _fits(hint: Any, value: Any) -> bool:
    schemas = _Schemas()
    return not any(_violations(schemas.of(hint), value, (), schemas.components))


# Schemas


_TYPES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


class _Schemas:
    """Makes schemas from hints, and keeps the components that they refer to."""

    def __init__(self, components: dict[str, _Schema] | None = None) -> None:
        self.components: dict[str, _Schema] = {} if components is None else components
        self._names: dict[Any, str] = {}

    def of(self, hint: Any, name: str | None = None, *, constrain: bool = True) -> _Schema:
        """Return a new schema for *hint*.

        Args:
            hint: A type hint. What JSON cannot express counts as anything.
            name: The name of the input, which becomes that of its component if it is a choice.
            constrain: Whether calls of `Input` in the annotations of the hint apply.

        """
        if constrain:
            schema = self.of(hint, name, constrain=False)
            for constraints in _constraints_in(hint):
                schema = self.constrained(schema, constraints, name)
            return schema
        alternatives = _alternatives(hint)
        members = [member for member in alternatives if member is not types.NoneType]
        if len(members) < len(alternatives):
            if len(members) > 1:
                schema = {"anyOf": [self.of(member, name) for member in members]}
            else:
                schema = self.of(members[0], name, constrain=False) if members else {}
            return {**_wrapped(schema), "nullable": True} if schema else {}
        if len(members) > 1:
            return {"anyOf": [self.of(member, name) for member in members]}
        return self._of_one(_plain(hint), name)

    def _of_one(self, hint: Any, name: str | None) -> _Schema:
        origin = typing.get_origin(hint) or hint
        arguments = typing.get_args(hint)
        if origin is Literal:
            return self._choice([_portable(value) for value in arguments], name)
        if _is_enum(hint):
            return self._choice([_portable(member) for member in hint], name or hint.__name__)
        if _is_file(hint):
            return {"type": "string", "format": "uri"}
        if origin in _LISTS:
            # The length of a tuple is left out: OpenAPI 3.0 has no means to say it for each item.
            schema: _Schema = {"type": "array"}
            schema["items"] = self.of(arguments[0], name) if arguments else {}
            return {**schema, "uniqueItems": True} if origin in _SETS else schema
        if origin in (dict, Mapping):
            values = self.of(arguments[1], name) if arguments else {}
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        if isinstance(hint, type) and hint in _TYPES:
            return {"type": _TYPES[hint]}
        return self._object(hint)

    def constrained(self, schema: _Schema, constraints: _Constraints, name: str | None) -> _Schema:
        """Return *schema* with what a call of `Input` adds to it."""
        result = dict(schema)
        kind = schema.get("type")

        def add(key: str, value: object, *kinds: str) -> None:
            if value is None:
                return
            if kind is not None and kind not in kinds:
                raise TypeError(f"{name or 'output'}: {key} does not apply to {kind}")
            result[key] = value

        is_list = kind == "array"
        add("minimum", constraints.ge, "integer", "number")
        add("maximum", constraints.le, "integer", "number")
        add("minItems" if is_list else "minLength", constraints.min_length, "string", "array")
        add("maxItems" if is_list else "maxLength", constraints.max_length, "string", "array")
        add("pattern", constraints.regex, "string")
        if constraints.regex is not None:
            re.compile(constraints.regex)
        if constraints.choices is not None:
            choice = self._choice(list(constraints.choices), name)
            nullable = {"nullable": True} if result.get("nullable") else {}
            if is_list:
                result["items"] = choice
            else:
                result = {**_wrapped(choice), **nullable}
        if constraints.description is not None:
            result = {**_wrapped(result), "description": constraints.description}
        if constraints.deprecated is not None:
            result = {**_wrapped(result), "deprecated": constraints.deprecated}
        return result

    def _choice(self, values: Sequence[object], name: str | None) -> _Schema:
        kinds = {_type_name(value) for value in values}
        schema: _Schema = {"type": kinds.pop()} if len(kinds) == 1 else {}
        schema["enum"] = list(values)
        if name is None:
            return schema
        component = {**schema, "title": name, "description": "An enumeration."}
        return {"$ref": _REF + self._add(name, component)}

    def _object(self, kind: Any) -> _Schema:
        members = _members_of(kind)
        if members is None:
            return {}
        if kind not in self._names:
            properties: dict[str, _Schema] = {}
            component: _Schema = {"type": "object", "title": kind.__name__}
            component["properties"] = properties
            # Known before its members are, for one of them may be of the same kind.
            self._names[kind] = self._add(kind.__name__, component)
            for member, (hint, _) in members.items():
                schema = self.of(hint)
                is_reference = "$ref" in schema or "allOf" in schema
                properties[member] = {
                    **schema,
                    **({} if is_reference else {"title": _title(member)}),
                }
            required = [member for member, (_, is_required) in members.items() if is_required]
            if required:
                component["required"] = required
        return {"$ref": _REF + self._names[kind]}

    def _add(self, name: str, component: _Schema) -> str:
        """Add a component and return its name: *name*, unless another one has it already."""
        while self.components.get(name, component) != component or name in _RESERVED:
            name += "_"
        self.components[name] = component
        return name


def _title(name: str) -> str:
    return name.replace("_", " ").title()


def _wrapped(schema: _Schema) -> _Schema:
    """Return a schema that may get keys of its own: beside `$ref` there must be none."""
    return {"allOf": [schema]} if "$ref" in schema else schema


def _resolved(schema: _Schema, components: Mapping[str, _Schema]) -> _Schema:
    """Return *schema*, or the component that it refers to."""
    while "$ref" in schema:
        schema = components[schema["$ref"].removeprefix(_REF)]
    return schema


def _training_output(schema: _Schema) -> _Schema:
    """Return the component `TrainingOutput`: a file alone stands for an object with `weights`."""
    if schema.get("format") != "uri":
        return schema
    weights = {"type": "string", "format": "uri", "title": "Weights"}
    return {"type": "object", "properties": {"weights": weights}, "title": "TrainingOutput"}


def _is_below(version: str, limit: tuple[int, ...]) -> bool:
    """Say whether *version* comes before the release *limit* in the order of PEP 440.

    A local part is ignored; a version that does not parse is not below (HTTP API, section 9.5).
    """
    parsed = re.fullmatch(
        r"v?(\d+(?:\.\d+)*)([-_.]?(?:a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?\d*)*"
        r"(?:[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:\+[a-z0-9.]+)?",
        version.strip().lower(),
    )
    if parsed is None:
        return False
    release = tuple(int(part) for part in parsed[1].split("."))
    width = max(len(release), len(limit))
    padded, bound = (part + (0,) * (width - len(part)) for part in (release, limit))
    return padded < bound or (padded == bound and parsed[2] is not None)


# Validation


def _type_name(value: object) -> str:
    """Return the JSON type of *value* as the checker of the prediction service names it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def _violations(
    schema: _Schema, value: Any, path: _Path, components: Mapping[str, _Schema]
) -> Iterator[Violation]:
    """Yield what is wrong with *value*, with the texts of HTTP API, section 2.4.

    *path* leads from the input to the value. A choice is one entry, although it is written as
    `allOf`.
    """
    schema = _resolved(schema, components)
    if value is None and schema.get("nullable"):
        return
    given = _type_name(value)
    expected = schema.get("type", given)
    if given != expected and (given, expected) != ("integer", "number"):
        text = f"Invalid type. Expected: {expected}, given: {given}"
        yield Violation("invalid_type", _field(path), text)
        return
    for part in schema.get("allOf", ()):
        yield from _violations(part, value, path, components)
    any_of = schema.get("anyOf", ())
    if any_of and all(any(_violations(part, value, path, components)) for part in any_of):
        text = "Must validate at least one schema (anyOf)"
        yield Violation("number_any_of", _field(path), text)
    if "enum" in schema and not _is_one_of(value, schema["enum"]):
        values = ", ".join(json.dumps(each, ensure_ascii=False) for each in schema["enum"])
        name = ".".join(path) or "(root)"
        text = f"{name} must be one of the following: {values}"
        yield Violation("enum", _field(path), text)
    if given == "object":
        yield from _object_violations(schema, cast("Mapping[str, Any]", value), path, components)
    elif given == "array":
        yield from _array_violations(schema, cast("Sequence[Any]", value), path, components)
    else:
        for kind, text in _scalar_problems(schema, value, given):
            yield Violation(kind, _field(path), text)


def _object_violations(
    schema: _Schema, value: Mapping[str, Any], path: _Path, components: Mapping[str, _Schema]
) -> Iterator[Violation]:
    for name in schema.get("required", ()):
        if name not in value:
            yield Violation("required", _field(path), f"{name} is required")
    properties: Mapping[str, _Schema] = schema.get("properties", {})
    for name, part in properties.items():
        if name in value:
            yield from _violations(part, value[name], (*path, name), components)
    others: _Schema | None = schema.get("additionalProperties")
    if others is not None:
        for name in value:
            if name not in properties:
                yield from _violations(others, value[name], (*path, name), components)


def _array_violations(
    schema: _Schema, value: Sequence[Any], path: _Path, components: Mapping[str, _Schema]
) -> Iterator[Violation]:
    items: _Schema = schema.get("items", {})
    if items:
        for index, item in enumerate(value):
            yield from _violations(items, item, (*path, str(index)), components)
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        text = f"Array must have at least {least} items"
        yield Violation("array_min_items", _field(path), text)
    if most is not None and len(value) > most:
        text = f"Array must have at most {most} items"
        yield Violation("array_max_items", _field(path), text)
    if schema.get("uniqueItems"):
        seen: dict[str, int] = {}
        for index, item in enumerate(value):
            first = seen.setdefault(json.dumps(item, sort_keys=True), index)
            if first != index:
                text = f"array items[{first},{index}] must be unique"
                yield Violation("unique", _field(path), text)
                return


def _scalar_problems(schema: _Schema, value: Any, given: str) -> Iterator[tuple[str, str]]:
    if given == "string":
        length = len(value)
        if length < schema.get("minLength", 0):
            least = schema["minLength"]
            yield "string_gte", f"String length must be greater than or equal to {least}"
        if length > schema.get("maxLength", length):
            most = schema["maxLength"]
            yield "string_lte", f"String length must be less than or equal to {most}"
        if "pattern" in schema and re.search(schema["pattern"], value) is None:
            yield "pattern", f"Does not match pattern '{schema['pattern']}'"
        if schema.get("format") == "uri" and _URI.match(value) is None:
            yield "format", "Does not match format 'uri'"
    elif given in ("integer", "number"):
        # The checker writes numbers with at most ten digits.
        if value > schema.get("maximum", math.inf):
            yield "number_lte", f"Must be less than or equal to {schema['maximum']:.10g}"
        if value < schema.get("minimum", -math.inf):
            yield "number_gte", f"Must be greater than or equal to {schema['minimum']:.10g}"


_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\\\x00-\x1f\x7f]*\Z")


def _field(path: _Path) -> str:
    return ".".join(("input", *path))


def _is_one_of(value: Any, choices: Sequence[Any]) -> bool:
    # True == 1 in Python, but not in JSON.
    return any(
        each == value and isinstance(each, bool) is isinstance(value, bool) for each in choices
    )


# The rest of a container's document


# Components with a fixed role, whose names no choice or class of a model may take.
_RESERVED = frozenset(
    {
        "HTTPValidationError", "Input", "Output", "PredictionRequest", "PredictionResponse",
        "Status", "TrainingInput", "TrainingOutput", "TrainingRequest", "TrainingResponse",
        "ValidationError", "WebhookEvent",
    }
)  # fmt: skip


def _reference(name: str) -> _Schema:
    return {"$ref": _REF + name}


def _container_components(*, trainable: bool) -> dict[str, _Schema]:
    """Return the components that every container's document has."""

    def choice(name: str, *values: str) -> _Schema:
        schema = {"type": "string", "title": name, "enum": list(values)}
        return {**schema, "description": "An enumeration."}

    components: dict[str, _Schema] = {
        "Input": {},
        "Output": {},
        "Status": choice("Status", "starting", "processing", "succeeded", "canceled", "failed"),
        "WebhookEvent": choice("WebhookEvent", "start", "output", "logs", "completed"),
        "ValidationError": {
            "type": "object",
            "title": "ValidationError",
            "required": ["loc", "msg", "type"],
            "properties": {
                "loc": {
                    "type": "array",
                    "title": "Location",
                    "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                },
                "msg": {"type": "string", "title": "Message"},
                "type": {"type": "string", "title": "Error Type"},
            },
        },
        "HTTPValidationError": {
            "type": "object",
            "title": "HTTPValidationError",
            "properties": {
                "detail": {
                    "type": "array",
                    "title": "Detail",
                    "items": _reference("ValidationError"),
                }
            },
        },
    }
    kinds = [("Prediction", "")] + ([("Training", "Training")] if trainable else [])
    for kind, prefix in kinds:
        components[f"{kind}Request"] = {
            "type": "object",
            "title": f"{kind}Request",
            "properties": {
                "id": {"type": "string", "title": "Id"},
                "input": _reference(f"{prefix}Input"),
                "webhook": {"type": "string", "title": "Webhook", "format": "uri"},
                "webhook_events_filter": {
                    "type": "array",
                    "title": "Webhook Events Filter",
                    "items": _reference("WebhookEvent"),
                },
                "created_at": {"type": "string", "title": "Created At", "format": "date-time"},
                "output_file_prefix": {"type": "string", "title": "Output File Prefix"},
            },
        }
        components[f"{kind}Response"] = {
            "type": "object",
            "title": f"{kind}Response",
            "properties": {
                "id": {"type": "string", "title": "Id"},
                "version": {"type": "string", "title": "Version"},
                "input": _reference(f"{prefix}Input"),
                "output": _reference(f"{prefix}Output"),
                "status": _reference("Status"),
                "error": {"type": "string", "title": "Error"},
                "logs": {"type": "string", "title": "Logs", "default": ""},
                "metrics": {"type": "object", "title": "Metrics"},
                "created_at": {"type": "string", "title": "Created At", "format": "date-time"},
                "started_at": {"type": "string", "title": "Started At", "format": "date-time"},
                "completed_at": {"type": "string", "title": "Completed At", "format": "date-time"},
            },
        }
    return components


def _container_paths(*, trainable: bool) -> dict[str, Any]:
    """Return the paths that a container serves."""
    anything: _Schema = {}

    def operation(
        summary: str, result: _Schema, *, body: _Schema | None = None, parameter: str | None = None
    ) -> dict[str, Any]:
        def content(schema: _Schema) -> dict[str, Any]:
            return {"content": {"application/json": {"schema": schema}}}

        made: dict[str, Any] = {"summary": summary}
        if parameter is not None:
            schema = {"type": "string", "title": _title(parameter)}
            made["parameters"] = [
                {"in": "path", "name": parameter, "required": True, "schema": schema}
            ]
        if body is not None:
            made["requestBody"] = content(body)
        made["responses"] = {"200": {"description": "Successful Response", **content(result)}}
        if body is not None or parameter is not None:
            error = content(_reference("HTTPValidationError"))
            made["responses"]["422"] = {"description": "Validation Error", **error}
        return made

    paths: dict[str, Any] = {
        "/": {"get": operation("Root", anything)},
        "/health-check": {"get": operation("Healthcheck", anything)},
        "/shutdown": {"post": operation("Start Shutdown", anything)},
    }
    for kind in ("prediction", "training") if trainable else ("prediction",):
        request = _reference(f"{kind.title()}Request")
        response = _reference(f"{kind.title()}Response")
        parameter = f"{kind}_id"
        one = f"/{kind}s/{{{parameter}}}"
        verb = "Predict" if kind == "prediction" else "Train"
        paths[f"/{kind}s"] = {"post": operation(verb, response, body=request)}
        paths[one] = {
            "put": operation(f"{verb} Idempotent", response, body=request, parameter=parameter)
        }
        paths[f"{one}/cancel"] = {"post": operation("Cancel", anything, parameter=parameter)}
    return paths
