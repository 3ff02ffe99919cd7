"""`start`: a run whose prediction, progress and logs can be seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal

from .. import _arguments
from .._jobs import running
from .._jobs.context import Context
from .._jobs.prediction import Output, Prediction
from .._jobs.request import CreateOptions, CreateRequest, CreateTarget, prepare
from .._jobs.run_state import OnAbandon, RunState
from .._jobs.stepwise import StepwiseRun
from .._jobs.updates import Updates
from ..types import Update
from .chaining import RunHandle
from .run import Ref, check_retries, fallbacks_of, target_of, with_schema_of


class Run(RunHandle):
    """A run that is under way: it ends with the `async with` block that began it.

    It can be an input of another function.
    """

    def __init__(self, steps: StepwiseRun) -> None:
        self._steps: StepwiseRun = steps

    @property
    def id(self) -> str:
        """ID of the prediction."""
        return self.prediction.id

    @property
    def prediction(self) -> Prediction:
        """The prediction; the last one if there are several, because of `retry_failed` or `fallback`."""
        return self._steps.job

    @property
    def metrics(self) -> dict[str, Any]:
        """Measurements of the prediction, such as `predict_time` in seconds."""
        return self.prediction.metrics

    async def result(self) -> Output:
        """Wait for the end of the run, and return its output. May be called more than once, also at the same time.

        Cancelling this call cancels no prediction; leaving the block does. Calls the operations of `Client.run`.

        Returns:
            The final output, as `Client.run` or the model function returns it.

        Raises:
            PredictionFailed: The model failed.
            PredictionCanceled: The prediction was cancelled, or its deadline has passed.
            PredictionAborted: The prediction ended before it started.
            RunTimeout: The timeout has passed.
            StartTimeout: The prediction did not start in time.
            ContactLost: The prediction could not be followed to its end; it may still be running.
            ReplicateException: As `Client.run`.
        """
        return await self._steps.result()

    def updates(
        self,
        *,
        timeout: float | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "leave",
    ) -> AsyncIterator[Update]:
        """Follow the status, new log text and progress: first the current ones, then each change.

        Ends with the run. If another prediction is created, its updates follow, from its `starting` on. If waiting
        for an update is cancelled, the iteration can continue afterwards, unless `on_abandon` is `"cancel"`. Calls
        :api:`predictions.get`.

        Args:
            timeout: Seconds, or a timedelta, from the request for the first update to the end of the run; `None`
                for the timeout of the run alone.
            on_abandon: What happens to the prediction if the iteration is left before its end: `"leave"` leaves it
                running, until the block is left; `"cancel"` cancels it at once.

        Returns:
            The updates.

        Raises, from the iteration:
            ReplicateException: As `result`.
        """
        _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
        seconds = _arguments.timeout_seconds(timeout)
        return Updates(self._steps, seconds, cancels=on_abandon == "cancel")

    def _pending_output(self) -> Awaitable[Output]:
        return self.result()


def start(
    context: Context,
    ref: Ref,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    start_timeout: float | timedelta | None,
    fallback: Sequence[str],
    on_abandon: OnAbandon,
    retry_failed: int,
    options: CreateOptions,
) -> StepwiseRun:
    """Return a run that has not begun, as `Client.start`."""
    seconds = _arguments.timeout_seconds(timeout)
    options = running.with_deadline(options, seconds, on_abandon)
    options = with_schema_of(ref, options, has_fallback=bool(fallback))

    async def make_request() -> CreateRequest:
        return await prepare(context, input, options)

    return stepwise(
        context,
        target_of(ref),
        make_request,
        timeout=seconds,
        start_timeout=start_timeout,
        fallback=fallback,
        on_abandon=on_abandon,
        retry_failed=retry_failed,
    )


def stepwise(
    context: Context,
    target: CreateTarget | str,
    make_request: Callable[[], Awaitable[CreateRequest]],
    *,
    timeout: float | None,
    start_timeout: float | timedelta | None,
    fallback: Sequence[str],
    on_abandon: OnAbandon,
    retry_failed: int,
    convert: Callable[[Any, str], Output] | None = None,
) -> StepwiseRun:
    """Return a run that has not begun; its arguments are checked."""
    _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    check_retries(retry_failed)
    state = RunState(
        context,
        target,
        on_abandon,
        retry_failed=retry_failed,
        start_timeout=_arguments.timeout_seconds(start_timeout, "start_timeout"),
        fallback=fallbacks_of(fallback),
        convert=convert,
    )
    return StepwiseRun(state, make_request, timeout=timeout)


@asynccontextmanager
async def started(steps: StepwiseRun) -> AsyncIterator[Run]:
    """Start a run, and abandon it at the end unless it has its result."""
    await steps.start()
    try:
        yield Run(steps)
    finally:
        await steps.leave()
