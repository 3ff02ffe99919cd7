"""Runs: create a prediction, wait for its end, and cancel it if it is abandoned."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import anyio
import attrs

from .. import _arguments, exceptions
from .._concurrency import shielded
from .._files.output import save_all
from .context import Context
from .creating import create
from .finding import find
from .job import failure_of, wait_for_end
from .pending import PendingCreate
from .policy import has_ended
from .prediction import Output, Prediction
from .request import CreateOptions, CreateRequest, CreateTarget, prepare
from .streaming import StreamFollower

_logger = logging.getLogger("replicate_async")

T = TypeVar("T")

OnAbandon: TypeAlias = Literal["cancel", "leave"]
"""What becomes of a prediction whose caller gives up: it is cancelled, or left running."""


@attrs.define(eq=False, repr=False)
class RunState:
    """How far a run has come, which decides what abandoning it takes."""

    context: Context
    on_abandon: OnAbandon
    prediction: Prediction | None = None
    """The prediction, once its create was answered."""
    pending: PendingCreate = attrs.field(factory=PendingCreate)
    """The create."""
    failed: tuple[Prediction, ...] = ()
    """Earlier predictions of this run, which failed."""
    failed_before: int = 0
    """Number of predictions of the same input that failed in an earlier run."""
    directory: Path | None = None
    """The directory for the files of the output."""

    @property
    def attempt(self) -> int:
        """Number of predictions of the same input that have failed."""
        return self.failed_before + len(self.failed)


async def run(
    context: Context,
    target: CreateTarget | str,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None = None,
    options: CreateOptions | None = None,
    on_abandon: OnAbandon = "cancel",
    retry_failed: int = 0,
    directory: Path | None = None,
) -> Output:
    """Create a prediction, wait for its end, and return its output.

    Args:
        context: The client.
        target: What to run: a target, or the name of a model that may not be an official one.
        input: The input of the model.
        timeout: Seconds, or a timedelta, for all of it.
        options: The options of the create; by default the server waits for the result.
        on_abandon: What to do with the prediction if the caller gives up.
        retry_failed: How often to create again after a transient failure.
        directory: An existing directory for the files of the output.

    Raises:
        ReplicateException: As `Client.run`.
    """
    options = options or CreateOptions(wait=True)
    seconds = _arguments.timeout_seconds(timeout)
    state = RunState(context, on_abandon, directory=directory)
    if seconds is None:
        request = await prepare(context, input, options)
        return await _output(state, target, request, retry_failed)
    options = with_deadline(options, seconds, on_abandon)
    if options.wait is True:
        held = min(60, math.floor(seconds))
        options = attrs.evolve(options, wait=held if held >= 1 else False)
    with anyio.move_on_after(seconds):
        request = await prepare(context, input, options)
        return await _output(state, target, request, retry_failed)
    late = timed_out(state, seconds)
    raise late from late.__cause__


def with_deadline(
    options: CreateOptions, seconds: float | None, on_abandon: OnAbandon
) -> CreateOptions:
    """Return options with a deadline for the server, so that a killed process stops paying, too."""
    _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    if seconds is None or options.cancel_after is not None or on_abandon == "leave":
        return options
    return attrs.evolve(options, net=max(5, math.ceil(seconds)))


def timed_out(state: RunState, seconds: float) -> exceptions.ReplicateException:
    """Return the error for a run whose time is over."""
    prediction = state.prediction
    if prediction is not None:
        if state.directory is not None and prediction.status == "succeeded":
            return exceptions.OutputNotSaved(prediction, f"the {seconds:g} s for the run were over")
        canceled = prediction.status in ("canceled", "aborted")
        return exceptions.RunTimeout(prediction, seconds, canceled=canceled)
    pending = state.pending
    fact = f"nothing was created within {seconds:g} s"
    if pending.lost:
        fact = f"no answer to the create within {seconds:g} s, and {pending.fate}; its deadline ends it"
    elif pending.is_queued:
        fact += ": the create was waiting for the rate limit, or for a connection"
    if pending.failure is not None:
        fact += f"; the last attempt failed: {pending.failure}"
    error = exceptions.TransportTimeout("POST", state.context.transport.config.base_url, fact)
    error.__cause__ = pending.failure
    return error


async def _output(
    state: RunState, target: CreateTarget | str, request: CreateRequest, retry_failed: int
) -> Output:
    """Return the output; create again after transient failures, as often as requested."""
    request = attrs.evolve(request, may_skip_hold=True)

    async def create_prediction() -> None:
        state.prediction = await create(state.context, target, request, state.pending)

    async def wait(prediction: Prediction) -> None:
        # Sync mode may answer `processing` with all outputs in place (:api:`sync-mode`): poll
        # again at once, since it has mostly ended meanwhile.
        await wait_for_end(prediction, None, poll_first=prediction.status == "processing")

    async def work() -> tuple[Prediction, exceptions.ModelError | None]:
        return await complete(state, create=create_prediction, wait=wait, retry_failed=retry_failed)

    prediction, error = await or_abandon(state, work)
    if error is not None:
        raise error
    if state.directory is not None:
        await _save(prediction, state.directory)
    return prediction.output


async def complete(
    state: RunState,
    *,
    create: Callable[[], Awaitable[None]],
    wait: Callable[[Prediction], Awaitable[None]],
    ended: Callable[[Prediction], Awaitable[None]] | None = None,
    retry_failed: int,
) -> tuple[Prediction, exceptions.ModelError | None]:
    """Create a prediction and wait for its end; after a transient failure, do so again.

    Args:
        state: The run. If it has a prediction already, that one is waited for.
        create: Creates a prediction, and sets `state.prediction`.
        wait: Waits for the end of a prediction.
        ended: Takes note of a prediction that has ended.
        retry_failed: How many predictions to create after failed ones.

    Returns:
        The last prediction, and its error.

    Raises:
        ContactLost: A prediction could not be followed to its end.
        Exception: Whatever `create` and `ended` raise.
    """
    while True:
        if state.prediction is None:
            await create()
        prediction = state.prediction
        assert prediction is not None
        if not has_ended(prediction):
            try:
                await wait(prediction)
            except exceptions.ModelError:
                raise
            except Exception as error:  # also one that nobody expects: the prediction must be named
                _logger.warning("prediction %s lost: %s", prediction.id, error)
                raise exceptions.ContactLost(prediction, str(error) or repr(error)) from error
        if ended is not None:
            await ended(prediction)
        failure = _failure_or_loss(prediction)
        if failure is None:
            if state.failed:
                _logger.info("prediction %s succeeded, %s", prediction.id, _costs(state.failed))
            return prediction, None
        if not failure.retryable or state.attempt >= retry_failed:
            if state.failed:
                failure.add_note(f"This was the last try, {_costs(state.failed)}.")
            return prediction, failure
        state.context.stats.retried += 1
        _logger.warning("%s; it is created again", failure)
        state.failed = (*state.failed, prediction)
        state.prediction, state.pending = None, PendingCreate()


def _failure_or_loss(prediction: Prediction) -> exceptions.ModelError | None:
    """Return the error of a prediction that has ended without an output, or whose output is deleted."""
    failure = failure_of(prediction)
    if failure is None and prediction.data_removed and prediction.output is None:
        return exceptions.OutputRemoved(prediction)
    return failure


async def _save(prediction: Prediction, directory: Path) -> None:
    """Save the files of an output, as many as possible."""
    failures = await save_all(prediction.output, directory)
    if failures:
        _logger.warning("prediction %s: its files could not be saved", prediction.id)
        raise exceptions.OutputNotSaved(prediction, str(failures[0]), failures) from failures[0]


async def start(state: RunState, target: CreateTarget | str, request: CreateRequest) -> Prediction:
    """Create a prediction that somebody else awaits; cancel it if this is abandoned before the answer."""

    async def work() -> Prediction:
        state.prediction = await create(state.context, target, request, state.pending)
        return state.prediction

    return await or_abandon(state, work)


def follow(
    context: Context,
    target: CreateTarget | str,
    make_request: Callable[[], Awaitable[CreateRequest]],
    *,
    timeout: float | None,
    on_abandon: OnAbandon,
    use_file_output: bool | None,
) -> StreamFollower[Prediction]:
    """Return the follower of a prediction that it creates, and cancels if it is abandoned."""
    _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    state = RunState(context, on_abandon)

    async def create_it() -> Prediction:
        return await start(state, target, await make_request())

    async def give_up() -> None:
        await abandon(state)

    def late(seconds: float) -> exceptions.ReplicateException:
        return timed_out(state, seconds)

    return StreamFollower(
        context.transport,
        create=create_it,
        abandon=give_up,
        late=late,
        timeout=timeout,
        files=context.use_file_output if use_file_output is None else use_file_output,
    )


# -- Abandoned runs ----------------------------------------------------------------------------


async def or_abandon(state: RunState, work: Callable[[], Awaitable[T]]) -> T:
    """Await the work of a run; abandon the run if this is cancelled, or if the client is closed meanwhile.

    The connections stay open until that is done.

    Raises:
        ClientClosed: The client was closed.
    """
    pool = state.context.transport.pool
    await pool.session()
    if pool.closing:
        raise exceptions.ClientClosed
    done = anyio.Event()

    async def give_up() -> None:
        scope.cancel()
        await done.wait()

    let_go = pool.before_close(give_up)
    try:
        with anyio.CancelScope() as scope:
            try:
                return await work()
            except Exception:
                raise
            except BaseException:
                # Cancelled or interrupted.
                await abandon(state)
                raise
    finally:
        let_go()
        done.set()
    raise exceptions.ClientClosed


async def abandon(state: RunState) -> None:
    """Cancel a prediction that nobody waits for any more, even if its ID is not known yet."""
    pending = state.pending
    if state.prediction is None:
        state.prediction = pending.found
    prediction = state.prediction
    if prediction is None and not pending.lost:
        return  # nothing was created
    name = prediction.id if prediction else f"of {pending.wanted and pending.wanted.shown}"
    _logger.info("prediction %s abandoned", name)
    if state.on_abandon == "leave" or (prediction is not None and has_ended(prediction)):
        return
    await shielded(partial(_cancel_abandoned, state, name))


async def _cancel_abandoned(state: RunState, name: str) -> None:
    """Find a prediction, if need be, and cancel it, within the time for it."""
    prediction, timings = state.prediction, state.context.timings
    try:
        with anyio.fail_after(timings.cancel):
            for pause in () if prediction is not None else timings.last_searches:
                # No single answer that stalls may use up the time.
                with anyio.move_on_after(pause + timings.last_try):
                    prediction = await find(state.context, state.pending, Prediction, (pause,))
                if prediction is not None:
                    state.prediction = prediction
                    break
            if prediction is None:
                _logger.warning("prediction %s lost: %s", name, state.pending.fate)
            while prediction is not None and not has_ended(prediction):
                with anyio.move_on_after(timings.last_try):
                    await prediction.cancel()
                    break
    except TimeoutError:
        _logger.warning("prediction %s lost: it could not be cancelled in time", name)
    except exceptions.ReplicateException as error:
        _logger.warning("prediction %s lost: it could not be cancelled (%s)", name, error)


def _costs(failed: tuple[Prediction, ...]) -> str:
    spent = sum(
        time
        for prediction in failed
        if isinstance(time := prediction.metrics.get("predict_time"), (int, float))
    )
    ids = ", ".join(prediction.id for prediction in failed)
    times = "once" if len(failed) == 1 else f"{len(failed)} times"
    return f"after it had failed {times} ({ids}) at a cost of {spent:.2f} predict seconds"
