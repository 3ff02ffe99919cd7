"""Models as functions: `use("owner/name")`, then call it (:api:`version-schema`)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import attrs

from .. import _arguments
from .._files.output import FileOutput
from .._jobs import running
from .._jobs.context import Context
from .._jobs.job import failure_of
from .._jobs.prediction import Output, OutputStream, Prediction
from .._jobs.request import CreateRequest, prepare
from .._jobs.run_state import RunState
from .._jobs.streaming import StreamFollower
from .._unpicklable import Unpicklable
from .chaining import RunHandle
from .interface import FunctionOptions, ModelInterface
from .run import Ref, check_retries, fallbacks_of, run
from .start import Run, started, stepwise

_ANY: Final = inspect.Signature(
    [inspect.Parameter("inputs", inspect.Parameter.VAR_KEYWORD, annotation=Any)],
    return_annotation=Any,
)
"""The signature of a function whose inputs are not known."""


class _Function(Unpicklable):
    """A model to be called."""

    _instead = "call `use` where it is needed"

    def __init__(self, context: Context, ref: Ref, options: FunctionOptions) -> None:
        self._interface: ModelInterface = ModelInterface(context, ref, options, self._describe)
        _arguments.timeout_seconds(options.timeout)
        _arguments.one_of(options.on_abandon, ("cancel", "leave"), "on_abandon")
        _arguments.timeout_seconds(options.start_timeout, "start_timeout")
        check_retries(options.retry_failed)
        fallbacks_of(options.fallback)
        name = self._interface.name
        self.__signature__: inspect.Signature = _ANY
        self.__name__: str = _identifier(name)
        self.__qualname__: str = self.__name__
        self.__doc__ = f"{name}: its inputs are not known yet. Call it once, or `await load()`, and look again."

    @property
    def signature(self) -> inspect.Signature:
        """The inputs with types and defaults, as far as they are known: after `load()` or the first call."""
        return self.__signature__

    async def load(self) -> Self:
        """Fetch the model's schema, unless it is known. The first call does the same.

        Afterwards `signature` and `help()` show the inputs. Calls :api:`models.get` or
        :api:`models.versions.get`.

        Returns:
            The function itself.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        await self._interface.load()
        return self

    def _describe(self) -> None:
        name, schema = self._interface.name, self._interface.schema
        if schema is None:
            self.__doc__ = f"{name}: its inputs cannot be known; any are passed on."
        else:
            self.__doc__ = f"{name}\n\n{schema.described()}"
            self.__signature__ = schema.signature(Path | FileOutput | str, FileOutput)

    def check(self, /, **inputs: Any) -> None:
        """Check inputs as a call does, without sending anything.

        Inputs are compared with the model's schema as far as it is known: call `load()` before.

        Args:
            inputs: Inputs of the model.

        Raises:
            ArgumentTypeError: An input is unknown, missing or of a wrong type.
            ArgumentError: The value of an input is not allowed.
        """
        self._interface.check(inputs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._interface.name}>"

    async def _make_request(self, inputs: Mapping[str, Any]) -> CreateRequest:
        """Check the inputs, and return the request for a prediction that the server does not wait for."""
        interface = self._interface
        options = running.with_deadline(
            attrs.evolve(interface.options.create, wait=None),
            _arguments.timeout_seconds(interface.options.timeout),
            interface.options.on_abandon,
        )
        given = await interface.prepare_inputs(inputs)
        options = attrs.evolve(options, secrets=interface.secrets_of(given))
        return await prepare(interface.context, given, options)

    async def _start(self, inputs: Mapping[str, Any]) -> Prediction:
        interface = self._interface
        request = await self._make_request(inputs)
        state = RunState(interface.context, interface.target, interface.options.on_abandon)
        return await running.start(state, request)

    def start(self, /, **inputs: Any) -> AbstractAsyncContextManager[Run]:
        """Start the model as a run whose prediction, progress and logs can be seen, as `Client.start`.

        ```python
        async with painter.start(prompt="a red square") as run:
            async for update in run.updates():
                print(update.status)
            image = await run.result()
        ```

        Args:
            inputs: Inputs of the model.

        Returns:
            An async context manager, which gives a `Run`. Its result is converted as the schema describes it.

        Raises, when the block is entered:
            ArgumentTypeError: An input is unknown, missing or of a wrong type; nothing was sent.
            ArgumentError: The value of an input is not allowed; nothing was sent.
            ReplicateException: As `Client.start`.
        """
        interface = self._interface
        options = interface.options
        return started(
            stepwise(
                interface.context,
                interface.target,
                partial(self._make_request, inputs),
                timeout=_arguments.timeout_seconds(options.timeout),
                start_timeout=options.start_timeout,
                fallback=options.fallback,
                on_abandon=options.on_abandon,
                retry_failed=options.retry_failed,
                convert=interface.convert,
            )
        )


class ModelFunction(_Function):
    """A model as a function: await a call to get the final output.

    Keyword arguments are the model's inputs. None stands for an input that is not given, unless the model
    accepts `null`. The output of another function can be an input, even while it is still running: pass
    what `create` returns, a stream, or the call itself without `await`. If the model expects a single file and
    the output is a list of one, that one is passed.
    """

    async def __call__(self, /, **inputs: Any) -> Output:
        """Run the model and wait for its final output. Calls the same operations as `Client.run`.

        Args:
            inputs: Inputs of the model.

        Returns:
            The final output as the model's schema describes it: text joined, files as `FileOutput`.

        Raises:
            ArgumentTypeError: An input is unknown, missing or of a wrong type; nothing was sent.
            ArgumentError: The value of an input is not allowed; nothing was sent.
            ReplicateException: As `Client.run`.
        """
        interface = self._interface
        options = interface.options
        given = await interface.prepare_inputs(inputs, in_time=True)
        secrets = interface.secrets_of(given)
        return await run(
            interface.context,
            interface.ref,
            given,
            timeout=options.timeout,
            options=attrs.evolve(options.create, secrets=secrets),
            on_abandon=options.on_abandon,
            retry_failed=options.retry_failed,
            start_timeout=options.start_timeout,
            fallback=options.fallback,
            convert=interface.convert,
        )

    async def create(self, /, **inputs: Any) -> FunctionRun:
        """Create a prediction without waiting for it. It runs until it ends.

        Args:
            inputs: Inputs of the model.

        Returns:
            The run.

        Raises:
            ReplicateException: As a call.
        """
        return FunctionRun(await self._start(inputs), self._interface)


class StreamingFunction(_Function):
    """A model as a function whose calls are streams: text while it is written, images as they are made.

    ```python
    writer = client.use("owner/name", streaming=True)
    async for text in writer(prompt="a poem"):
        print(text, end="")
    ```

    Inputs are those of `ModelFunction`.
    """

    def __call__(self, /, **inputs: Any) -> OutputStream:
        """Return the pieces of the output: an async iterator and async context manager.

        Nothing is sent before the first piece is requested. Leaving early cancels the prediction.

        Args:
            inputs: Inputs of the model.

        Returns:
            The stream.

        Raises, from the iteration:
            ArgumentTypeError: An input is unknown, missing or of a wrong type; nothing was sent.
            ArgumentError: The value of an input is not allowed; nothing was sent.
            ReplicateException: As `Client.stream`.
        """
        interface = self._interface

        async def make_request() -> CreateRequest:
            request = await self._make_request(inputs)
            _convert_items(follower, interface)
            return request

        follower = running.follow(
            interface.context,
            interface.target,
            make_request,
            timeout=_arguments.timeout_seconds(interface.options.timeout),
            on_abandon=interface.options.on_abandon,
            use_file_output=interface.makes_files,
        )
        return OutputStream(follower)

    async def create(self, /, **inputs: Any) -> StreamingRun:
        """Create a prediction without waiting for it. It runs until it ends.

        Args:
            inputs: Inputs of the model.

        Returns:
            The run.

        Raises:
            ReplicateException: As a call of a `ModelFunction`.
        """
        return StreamingRun(await self._start(inputs), self._interface)


class _CreatedRun(RunHandle):
    """A run that was created without waiting for it."""

    def __init__(self, prediction: Prediction, interface: ModelInterface) -> None:
        self._prediction: Prediction = prediction
        self._interface: ModelInterface = interface

    @property
    def prediction(self) -> Prediction:
        """The prediction."""
        return self._prediction


class FunctionRun(_CreatedRun):
    """A run of a `ModelFunction`. It can be an input of another function."""

    def _pending_output(self) -> Awaitable[Output]:
        return self.output()

    async def output(self, *, timeout: float | timedelta | None = None) -> Output:
        """Wait until the prediction has ended, and return the output. May be called more than once.

        Args:
            timeout: Seconds, or a timedelta; None means 24 hours. The prediction goes on afterwards.

        Returns:
            The final output as the model's schema describes it.

        Raises:
            PredictionFailed: The model failed.
            PredictionCanceled: The prediction was cancelled, or its deadline has passed.
            PredictionAborted: The prediction ended before it started.
            RunTimeout: The time was over first.
            ReplicateError: The API returned an error.
        """
        prediction = await self._prediction.wait(timeout=timeout)
        error = failure_of(prediction)
        if error is not None:
            raise error
        return self._interface.convert(prediction._raw.get("output"), prediction.id)


class StreamingRun(_CreatedRun):
    """A run of a `StreamingFunction`. It can be an input of another function."""

    def _pending_output(self) -> OutputStream:
        return self.output()

    def output(self) -> OutputStream:
        """Return the pieces of the output, from its beginning. Leaving early does not cancel the prediction.

        Returns:
            The stream.
        """
        interface = self._interface
        follower = StreamFollower(
            interface.context.transport, job=self._prediction, files=interface.makes_files
        )
        _convert_items(follower, interface)
        return OutputStream(follower)


def _convert_items(follower: StreamFollower[Prediction], interface: ModelInterface) -> None:
    """Let a stream convert the items of the output as the schema describes them."""
    follower.convert, follower.joined = interface.convert_item, interface.joins


def _identifier(name: str) -> str:
    """Return the name of a model as a name of a Python function."""
    last = name.partition(":")[0].rpartition("/")[2]
    found = "".join(c if c.isalnum() else "_" for c in last)
    return f"_{found}" if found[:1].isdigit() else found or "model"
