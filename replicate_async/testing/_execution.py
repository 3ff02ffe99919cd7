"""Runs the functions of a version: arguments from JSON, threads, outputs as JSON.

The emulator runs functions where Replicate runs Cog containers. Calls never block the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import enum
import functools
import mimetypes
import pathlib
import queue
import re
import shutil
import tempfile
import threading
import types
import typing
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar, cast

from ._authoring import (
    LISTS,
    OutputFile,
    Parameter,
    Signature,
    alternatives,
    current_log,
    is_enum,
    is_file,
    members_of,
    plain,
)
from ._schema import Document, Schemas, to_json
from ._validation import Schema, Violation, violations

_T = TypeVar("_T")

_END = object()
_SCALARS = (str, int, float, bool, types.NoneType, OutputFile)


class Run(Protocol):
    """The prediction or training that runs a function."""

    async def fetch(self, url: str) -> bytes:
        """Return the content of the input file at *url*."""
        ...

    def log(self, text: str) -> None:
        """Append *text* to the logs; called from any thread."""

    async def emit(self, value: object) -> None:
        """Add one item to the output; *value* is JSON with `OutputFile`s anywhere inside it."""


class Code:
    """The code of one version: its functions, and the document that describes them.

    Args:
        predict: The function that makes predictions: plain, async, generator or async generator.
            Its type hints become the schemas `Input` and `Output`.
        train: The function that trains, plain or async; None if the version cannot be trained.
        cog_version: Version of Cog that the document appears to come from. Below 0.3.9, it lacks the
            markers of iterators.

    Raises:
        TypeError: A function, a hint or a limit cannot be expressed.
        ValueError: A default is not a valid input.
    """

    def __init__(
        self,
        predict: Callable[..., object],
        *,
        train: Callable[..., object] | None = None,
        cog_version: str = "0.16.7",
    ) -> None:
        self.cog_version: str = cog_version
        self._predictor: _Function = _Function(predict)
        self._trainer: _Function | None = None if train is None else _Function(train)
        trained = None if self._trainer is None else self._trainer.signature
        if trained is not None and trained.iterates:
            raise TypeError("train must not be a generator")
        document = Document(self._predictor.signature, trained, cog_version=cog_version)
        self._components: dict[str, Schema] = document.components
        self.openapi_schema: dict[str, Any] = document.openapi
        """The OpenAPI document of :api:`version-schema`."""
        self.iterates: bool = self._predictor.signature.iterates
        """Whether the output grows item by item."""
        self.output_is_file: bool = document.output_is_file
        """Whether the output is a file, or a list or iterator of files."""
        self.output_is_text: bool = document.output_is_text
        """Whether the output is a text, at once or in pieces."""
        self.trainable: bool = trained is not None
        """Whether there is a function that trains."""

    def violations(self, value: object, *, component: str = "Input") -> list[Violation]:
        """Return what is wrong with an input, in the order of the schema; empty if nothing is.

        Keys that the schema does not name are ignored; see :api:`input-validation`.

        Args:
            value: The JSON value sent as `input`.
            component: `Input`, or `TrainingInput` for a training.
        """
        return list(violations(self._components[component], value, self._components))

    async def predict(self, input: Mapping[str, Any], run: Run) -> object:
        """Make a prediction.

        Args:
            input: A valid input. Defaults are filled in, files are fetched, and values are converted
                to the types of the hints.
            run: The prediction.

        Returns:
            The output as JSON with `OutputFile`s anywhere inside it. None if the code iterates: then
            the items went through `run.emit`.

        Raises:
            Exception: Any error of the function; its text becomes the prediction's `error`.
        """
        return await self._predictor.call(input, run)

    async def train(self, input: Mapping[str, Any], run: Run) -> object:
        """Train, and return the output.

        A file alone is returned as `{"weights": file}`, as in :api:`training-object`. Arguments and
        errors are those of `predict`.
        """
        if self._trainer is None:
            raise TypeError("this version cannot be trained")
        output = await self._trainer.call(input, run)
        return {"weights": output} if isinstance(output, OutputFile) else output


class _Function:
    """One function of a version, ready to be called with JSON."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.signature: Signature = Signature.of(function)
        self._function: Callable[..., Any] = function

    async def call(self, input: Mapping[str, Any], run: Run) -> object:
        """Call the function for *run*; see `Code.predict`."""
        token = current_log.set(run.log)
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
            current_log.reset(token)

    async def _execute(self, bound: Callable[[], Any], run: Run, thread: _Thread) -> object:
        if self.signature.yields_in_loop:
            async with aclosing(_closable(bound())) as items:
                async for item in items:
                    await run.emit(await _to_json_in(thread, item))
            return None
        if self.signature.iterates:
            generator = await thread.call(lambda: iter(bound()))
            try:
                while (item := await thread.call(lambda: _next_json(generator))) is not _END:
                    await run.emit(item)
            finally:
                close = getattr(generator, "close", None)
                if close is not None:
                    thread.later(close)
            return None
        if self.signature.is_coroutine:
            return await _to_json_in(thread, await bound())
        return await thread.call(lambda: to_json(bound()))

    async def _arguments(
        self, input: Mapping[str, Any], files: _InputFiles
    ) -> tuple[list[Any], dict[str, Any]]:
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        parameters = self.signature.parameters
        if self.signature.takes_all:
            known = {parameter.name for parameter in parameters}
            for key, value in input.items():
                if key not in known:
                    keywords[key] = await _converted(self.signature.rest, value, files)
        for parameter in parameters:
            value = await _argument(parameter, input, files)
            if parameter.is_positional:
                arguments.append(value)
            else:
                keywords[parameter.name] = value
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


# --- arguments -------------------------------------------------------------------------------------


async def _argument(parameter: Parameter, input: Mapping[str, Any], files: _InputFiles) -> Any:
    """Return the argument for a parameter."""
    if parameter.name in input:
        return await _converted(parameter.hint, input[parameter.name], files)
    if parameter.required:
        raise ValueError(f"{parameter.name} is required")
    value = copy.deepcopy(parameter.default)
    is_json = isinstance(value, str | int | float | list | dict)
    if is_json and not isinstance(value, enum.Enum):
        return await _converted(parameter.hint, value, files)
    return value


async def _converted(hint: Any, value: Any, files: _InputFiles) -> Any:
    """Return the JSON *value* as what *hint* says: a path, a member of an enum, a set and so on."""
    members = [member for member in alternatives(hint) if member is not types.NoneType]
    if value is None and len(members) < len(alternatives(hint)):
        return None
    if len(members) > 1:
        hint = next((member for member in members if _fits(member, value)), Any)
    else:
        hint = members[0] if members else Any
    hint = plain(hint)
    origin = typing.get_origin(hint) or hint
    arguments = typing.get_args(hint)
    if isinstance(value, str) and is_file(hint):
        return await files.save(value)
    if is_enum(hint):
        return hint(value)
    if hint is float and isinstance(value, int):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and origin in LISTS:
        item_hint = arguments[0] if arguments else Any
        items = [await _converted(item_hint, item, files) for item in value]
        return origin(items) if origin in (tuple, set, frozenset) else items
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        if origin in (dict, Mapping) and arguments:
            return {key: await _converted(arguments[1], each, files) for key, each in given.items()}
        structure = members_of(hint)
        if structure is not None:
            keywords = {
                name: await _converted(member, given[name], files)
                for name, (member, _) in structure.items()
                if name in given
            }
            return hint(**keywords)
    return value


def _fits(hint: Any, value: Any) -> bool:
    schemas = Schemas()
    return not any(violations(schemas.of(hint), value, schemas.components))


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


# --- outputs ---------------------------------------------------------------------------------------


def _closable(items: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """Return *items* itself if it can be closed, else a generator over it."""
    if hasattr(items, "aclose"):
        return cast("AsyncGenerator[Any, None]", items)

    async def generate() -> AsyncGenerator[Any, None]:
        async for item in items:
            yield item

    return generate()


def _next_json(iterator: Iterator[object]) -> object:
    item = next(iterator, _END)
    return item if item is _END else to_json(item)


async def _to_json_in(thread: _Thread, value: object) -> object:
    """Return `to_json(value)`, made in *thread* if that could read files."""
    if type(value) in _SCALARS:
        return to_json(value)
    return await thread.call(lambda: to_json(value))
