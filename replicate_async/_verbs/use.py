"""Models as functions: `use("owner/name")`, then call it (:api:`version-schema` says what they take)."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self
from weakref import WeakKeyDictionary, WeakValueDictionary

import anyio
import attrs

from .. import _arguments, exceptions
from .._concurrency import gather_limited
from .._files.output import FileOutput, to_output
from .._http.call import Call
from .._jobs import running
from .._jobs.context import Context
from .._jobs.job import failure_of, has_ended
from .._jobs.prediction import EventStream, Output, OutputStream, Prediction
from .._jobs.request import CreateOptions, CreateRequest, prepare
from .._references import parse_reference
from .._unpicklable import Unpicklable
from ..resources.deployments import Deployment
from ..resources.models import Model
from ..resources.versions import Version
from .run import run, target_of
from .schema import ModelSchema, Problem, read_schema

_SCHEMA_LIVES: Final = 3600.0
"""Seconds for which the schema of a model's latest version is remembered; that of a version is for good."""


_MOST_SCHEMAS: Final = 256


_ANY: Final = inspect.Signature(
    [inspect.Parameter("inputs", inspect.Parameter.VAR_KEYWORD, annotation=Any)],
    return_annotation=Any,
)


_AT_ONCE: Final = 64
"""How many outputs are awaited at a time."""


_DEEPEST: Final = 64
"""How deep in an input the output of another function is looked for."""


@attrs.frozen
class FunctionOptions:
    """How the predictions of a function are made."""

    validate: bool
    timeout: float | timedelta | None
    on_abandon: Literal["cancel", "leave"]
    retry_failed: int
    create: CreateOptions


class _Function(Unpicklable):
    """A model to be called."""

    _instead = "call `use` where it is needed"

    def __init__(
        self,
        context: Context,
        ref: str | Model | Version | Deployment,
        options: FunctionOptions,
    ) -> None:
        self._context: Context = context
        self._ref: str | Model | Version | Deployment = ref
        self._options: FunctionOptions = options
        self._target = target_of(ref)
        _arguments.timeout_seconds(options.timeout)
        _arguments.one_of(options.on_abandon, ("cancel", "leave"), "on_abandon")
        self._schema: ModelSchema | None = None
        self._loaded: bool = False
        self.__signature__: inspect.Signature = _ANY
        self.__name__: str = _name(ref)
        self.__qualname__: str = self.__name__
        self.__doc__ = f"{_shown(ref)}: its inputs are not known yet. Call it once, or `await load()`, and look again."

    @property
    def signature(self) -> inspect.Signature:
        """Its inputs with types and defaults, as far as known: after `load()` or the first call."""
        return self.__signature__

    async def load(self) -> Self:
        """Fetch the model's schema, unless it is known, and return the function itself.

        Afterwards `signature` and `help()` show the inputs. The first call does the same. Calls :api:`models.get` and :api:`models.versions.get`.

        Raises:
            ReplicateError: The API refuses.
            TransportError: There was no usable answer.
        """
        if not self._loaded:
            self._schema = await _schema_of(self._context, self._ref)
            self._loaded = True
            schema = self._schema
            if schema is None:
                self.__doc__ = (
                    f"{_shown(self._ref)}: its inputs cannot be known; any are passed on."
                )
            else:
                self.__doc__ = f"{_shown(self._ref)}\n\n{schema.described()}"
                self.__signature__ = schema.signature(Path | FileOutput | str, FileOutput)
        return self

    def check(self, /, **inputs: Any) -> None:
        """Check inputs as a call does, without sending anything.

        Inputs are compared with the model's schema as far as it is known: call `load()` before.

        Args:
            inputs: Inputs of the model.

        Raises:
            ArgumentTypeError: An input is unknown, missing or of a wrong type.
            ArgumentError: The value of an input is not allowed.
        """
        if self._schema is not None:
            self._check(self._schema, self._without_nulls(inputs))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_shown(self._ref)}>"

    async def _given(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs that have been checked, with the outputs of other functions in their places."""
        await self.load()
        schema = self._schema if self._options.validate else None
        given = self._without_nulls(inputs)
        if schema is not None:
            try:
                self._check(schema, given)
            except exceptions.ReplicateException:
                _forget(given)
                raise
        later = {id(value): value for value in _all_later(given)}
        if not later:
            return given
        outputs = await gather_limited(_output_of, list(later.values()), at_once=_AT_ONCE)
        known = dict(zip(later, outputs, strict=True))
        awaited = {name: _replaced(value, known) for name, value in given.items()}
        for name, value in awaited.items():
            if id(given[name]) in known:
                awaited[name] = self._single(name, value)
        if schema is not None:
            self._check(schema, awaited)
        return awaited

    def _check(self, schema: ModelSchema, given: Mapping[str, Any]) -> None:
        problems = schema.problems(given, _is_later)
        if problems:
            raise _bad_inputs(_shown(self._ref), problems)

    def _without_nulls(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in inputs.items() if not self._is_left_out(name, value)}

    def _is_left_out(self, name: str, value: Any) -> bool:
        """Tell whether an input is None and the API would refuse `null` (:api:`requests`)."""
        if value is not None:
            return False
        field = None if self._schema is None else self._schema.inputs.get(name)
        return field is not None and not field.nullable

    def _single(self, name: str, value: Any) -> Any:
        """Return the only item of a list, where the output of one model meets an input for one."""
        field = None if self._schema is None else self._schema.inputs.get(name)
        alone = isinstance(value, list) and len(value) == 1
        return value[0] if alone and field is not None and field.type == "string" else value

    @property
    def _files(self) -> bool:
        chosen = self._options.create.use_file_output
        return self._context.use_file_output if chosen is None else chosen

    def _convert(self, raw: Any) -> Output:
        return _converted(self._context, self._schema, raw, files=self._files)

    def _convert_item(self, raw: Any) -> Output:
        return _converted(self._context, self._schema, raw, files=self._files, item=True)

    async def _start(self, inputs: Mapping[str, Any]) -> Prediction:
        options = running.with_deadline(
            attrs.evolve(self._options.create, wait=None),
            _arguments.timeout_seconds(self._options.timeout),
            self._options.on_abandon,
        )
        request = await prepare(self._context, await self._given(inputs), options)
        return await running.start(
            running.RunState(self._context, self._options.on_abandon), self._target, request
        )


class ModelFunction(_Function):
    """A model as a function: `await` a call of it for the final output.

    Keyword arguments are the model's inputs. None stands for an input that is not given, where the model
    knows no `null`. The output of another function can be an input, also of one that still runs: pass
    what `create` returns, a stream, or the call itself without `await`. Where one file is wanted and a list
    of one comes, it is taken out of the list.
    """

    async def __call__(self, /, **inputs: Any) -> Output:
        """Run the model and return its final output, as its schema says: text joined, files as files.

        Raises:
            ArgumentTypeError: An input is unknown, missing or of a wrong type; nothing was sent.
            ArgumentError: The value of an input is not allowed; nothing was sent.
            ReplicateException: As `run`.
        """
        options = self._options
        given = await self._given(inputs)
        raw = await run(
            self._context,
            self._ref,
            given,
            timeout=options.timeout,
            options=attrs.evolve(options.create, use_file_output=False),
            on_abandon=options.on_abandon,
            retry_failed=options.retry_failed,
        )
        return self._convert(raw)

    async def create(self, /, **inputs: Any) -> FunctionRun:
        """Start the model and return at once; it then runs until it ends. Raises what a call raises."""
        return FunctionRun(await self._start(inputs), self)


class StreamingFunction(_Function):
    """A model as a function whose calls are streams: text as it is written, images as they are made.

    ```python
    writer = client.use("owner/name", streaming=True)
    async for text in writer(prompt="a poem"):
        print(text, end="")
    ```

    Inputs are those of `ModelFunction`.
    """

    def __call__(self, /, **inputs: Any) -> OutputStream:
        """Return the pieces of the output: an async iterator and async context manager.

        Nothing is sent before the first piece is asked for; it raises what `stream` raises, and what a call of
        a `ModelFunction` raises. Leaving early cancels the prediction.
        """

        async def make_request() -> CreateRequest:
            given = await self._given(inputs)
            stream._convert_with(self._convert_item, self._joined)
            options = running.with_deadline(
                attrs.evolve(self._options.create, wait=None), seconds, self._options.on_abandon
            )
            return await prepare(self._context, given, options)

        seconds = _arguments.timeout_seconds(self._options.timeout)
        follower = running.follow(
            self._context,
            self._target,
            make_request,
            timeout=seconds,
            on_abandon=self._options.on_abandon,
            use_file_output=self._files,
        )
        stream = OutputStream(follower)
        return stream

    async def create(self, /, **inputs: Any) -> StreamingRun:
        """Start the model and return at once; it then runs until it ends. Raises what a call raises."""
        return StreamingRun(await self._start(inputs), self)

    @property
    def _joined(self) -> bool | None:
        return None if self._schema is None else self._schema.concatenates


class _Handle(Unpicklable):
    """A prediction that a function has started."""

    _instead = "use its `prediction`, which can"

    def __init__(self, prediction: Prediction) -> None:
        self._prediction: Prediction = prediction

    @property
    def prediction(self) -> Prediction:
        """The prediction."""
        return self._prediction

    async def logs(self) -> str:
        """Return what the model has logged so far.

        Raises:
            ReplicateError: The API refuses.
            TransportError: There was no usable answer.
        """
        if not has_ended(self._prediction):
            await self._prediction.reload()
        return self._prediction.logs

    async def cancel(self) -> Prediction:
        """Stop it, and return the prediction. One that has ended stays as it is."""
        return await self._prediction.cancel()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._prediction.id} {self._prediction.status}>"


class FunctionRun(_Handle):
    """A run of a `ModelFunction`. It can be an input of another function."""

    def __init__(self, prediction: Prediction, function: ModelFunction) -> None:
        super().__init__(prediction)
        self._function: ModelFunction = function

    async def output(self, *, timeout: float | timedelta | None = None) -> Output:
        """Wait for the end and return the output, as often as asked for.

        Args:
            timeout: Seconds, or a timedelta; None: 24 hours. The model runs on when it is over.

        Raises:
            PredictionFailed: The model failed; likewise PredictionCanceled and PredictionAborted.
            RunTimeout: The time was over first.
            ReplicateError: The API refuses.
        """
        await self._prediction.wait(timeout=timeout)
        error = failure_of(self._prediction)
        if error is not None:
            raise error
        return self._function._convert(self._prediction._raw.get("output"))


class StreamingRun(_Handle):
    """A run of a `StreamingFunction`. It can be an input of another function."""

    def __init__(self, prediction: Prediction, function: StreamingFunction) -> None:
        super().__init__(prediction)
        self._function: StreamingFunction = function

    def output(self) -> OutputStream:
        """Return the pieces of the output from the beginning on. Leaving early leaves the model running."""
        return self._prediction._stream_output(
            self._function._convert_item, self._function._joined, files=self._function._files
        )


def _is_later(value: Any) -> bool:
    """Tell whether a value stands for an output that has yet to come."""
    return isinstance(value, (_Handle, OutputStream, EventStream)) or (
        inspect.iscoroutine(value) or asyncio.isfuture(value)
    )


def _all_later(value: Any, depth: int = 0) -> Iterator[Any]:
    if _is_later(value):
        yield value
    elif depth < _DEEPEST:
        if isinstance(value, Mapping):
            for item in value.values():
                yield from _all_later(item, depth + 1)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from _all_later(item, depth + 1)


def _replaced(value: Any, known: Mapping[int, Any], depth: int = 0) -> Any:
    if id(value) in known:
        return known[id(value)]
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {key: _replaced(item, known, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [_replaced(item, known, depth + 1) for item in value]
    return value


async def _output_of(value: Any) -> Any:
    if isinstance(value, FunctionRun):
        return await value.output()
    if isinstance(value, StreamingRun):
        return await value.output().collect()
    if isinstance(value, OutputStream):
        return await value.collect()
    if isinstance(value, EventStream):
        async with value:
            pieces = [event.output async for event in value if event.event == "output"]
        return "".join(pieces) if all(isinstance(piece, str) for piece in pieces) else pieces
    return await value


def _forget(value: Any) -> None:
    """Close coroutines that will not be awaited."""
    for later in _all_later(value):
        if inspect.iscoroutine(later):
            later.close()


def _bad_inputs(shown: str, problems: list[Problem]) -> exceptions.ReplicateException:
    first = problems[0]
    rest = "".join(f"\n{problem.name}: {problem.text}" for problem in problems[1:])
    kind = exceptions.ArgumentTypeError if first.is_type else exceptions.ArgumentError
    return kind(first.name, f"{first.text} ({shown}){rest}")


_Locks = WeakKeyDictionary[asyncio.AbstractEventLoop, "WeakValueDictionary[Any, anyio.Lock]"]


_locks: _Locks = WeakKeyDictionary()


async def _schema_of(
    context: Context, ref: str | Model | Version | Deployment
) -> ModelSchema | None:
    """Return the schema of what a reference leads to; None if it cannot be known."""
    if isinstance(ref, Version):
        return read_schema(ref.openapi_schema, ref.cog_version)
    if isinstance(ref, Deployment):
        release = ref.current_release
        if release is None or release.model is None or release.version is None:
            return None
        ref = f"{release.model}:{release.version}"
    if isinstance(ref, Model):
        if ref.latest_version is not None and ref.latest_version.openapi_schema:
            version = ref.latest_version
            return read_schema(version.openapi_schema, version.cog_version)
        ref = ref.full_name
    if parse_reference(ref).full_name is None:
        return None  # the API finds no version without its model
    if (known := _known(context, ref)) is not None:
        return known[1]

    # Of many first calls at a time, one fetches.
    of_loop = _locks.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    lock = of_loop.setdefault((id(context.schemas), ref), anyio.Lock())
    async with lock:
        if (known := _known(context, ref)) is not None:
            return known[1]
        return await _fetched(context, ref)


def _known(context: Context, ref: str) -> tuple[float, ModelSchema | None] | None:
    known = context.schemas.get(ref)
    return known if known is not None and known[0] > time.monotonic() else None


async def _fetched(context: Context, ref: str) -> ModelSchema | None:
    reference = parse_reference(ref)
    path = f"/models/{reference.full_name}"
    if reference.version is not None:
        path += f"/versions/{reference.version}"
    try:
        data = (await context.transport.send(Call("GET", path))).data
    except exceptions.NotFoundError:
        return None  # the create will say why, or may do without
    version = data if reference.version is not None else _get(data, "latest_version")
    cog_version = _get(version, "cog_version")
    schema = read_schema(
        _get(version, "openapi_schema"), cog_version if isinstance(cog_version, str) else None
    )
    lives = _SCHEMA_LIVES if reference.version is None else float("inf")
    if len(context.schemas) >= _MOST_SCHEMAS:
        del context.schemas[next(iter(context.schemas))]
    context.schemas[ref] = time.monotonic() + lives, schema
    latest = _get(version, "id")
    if data is not version and _get(data, "is_official") is False and isinstance(latest, str):
        # The version whose schema this is; it spares the runs the search for it.
        context.models.learn(context.transport, ref, latest)
    return schema


def _get(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _converted(
    context: Context, schema: ModelSchema | None, raw: Any, *, files: bool, item: bool = False
) -> Output:
    transport = context.transport

    def file(url: str) -> Any:
        return FileOutput(url, transport=transport) if files else url

    def guess(value: Any) -> Any:
        return to_output(value, transport, files=files)

    if schema is None:
        return guess(raw)
    return (schema.convert_item if item else schema.convert)(raw, file, guess)


def _shown(ref: str | Model | Version | Deployment) -> str:
    found = getattr(ref, "full_name", None) or getattr(ref, "id", None) or ref
    return str(found)


def _name(ref: str | Model | Version | Deployment) -> str:
    """Return a name for a function: the model's, as an identifier."""
    last = _shown(ref).partition(":")[0].rpartition("/")[2]
    name = "".join(c if c.isalnum() else "_" for c in last)
    return f"_{name}" if name[:1].isdigit() else name or "model"
