"""Runs: create a prediction, wait for its end, and cancel it if it is abandoned."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import attrs

from .. import _arguments, exceptions
from .._concurrency import shielded
from .._files.output_trees import save_all
from .._telemetry import measured_seconds
from . import policy
from .abandoning import abandon, abandon_if_interrupted
from .context import Context
from .creating import create
from .job import cancel_in_time, failure_of, look_last, next_state, run_timeout, wait_for_end
from .pending import PendingCreate
from .policy import has_ended
from .prediction import Output, Prediction
from .request import CreateOptions, CreateRequest, CreateTarget, prepare
from .run_state import OnAbandon, RunState, begin_span, end_span, part_of, spanned
from .streaming import StreamFollower

_logger = logging.getLogger("replicate_async")

T = TypeVar("T")


async def run(
    state: RunState,
    input: Mapping[str, Any] | None,
    options: CreateOptions,
    timeout: float | None = None,
) -> Output:
    """Create a prediction, wait for its end, and return its output.

    Args:
        state: The run, which has not begun.
        input: Input of the model.
        options: Options of the create.
        timeout: Maximum time for the whole run in seconds; None for no limit.

    Raises:
        ReplicateException: As `Client.run`.
    """
    if state.start_timeout is not None:
        # An answer that is held would not show the start.
        options = attrs.evolve(options, wait=False)
    with spanned(state):
        if timeout is None:
            return await _output(state, await prepare(state.context, input, options))
        options = with_deadline(options, timeout, state.on_abandon)
        # The answer to the create, with the ID, comes a moment before the end: else the prediction would have to be searched for.
        longest = min(60, math.floor(timeout - 0.5))
        asked = options.wait
        if asked is True or (isinstance(asked, (int, float)) and asked > longest):
            options = attrs.evolve(options, wait=longest if longest >= 1 else False)
        with anyio.move_on_after(timeout), state.obstacles.noted():
            return await _output(state, await prepare(state.context, input, options))
        return await _output_after_timeout(state, timeout)


async def _output_after_timeout(state: RunState, seconds: float) -> Output:
    """Return the output of a run whose time is over, if it has succeeded nevertheless.

    Raises:
        RunTimeout: It has not; and the others that `timed_out` makes.
    """
    if await has_succeeded_late(state) and state.directory is None:
        assert state.prediction is not None
        return output_of(state, state.prediction)
    failure = timed_out(state, seconds)
    raise failure from failure.__cause__


async def has_succeeded_late(state: RunState) -> bool:
    """Return whether the prediction of a run whose time is over has succeeded nevertheless, so that it is paid for."""
    prediction = state.prediction
    if prediction is None:
        return False
    await look_last(prediction)  # it was left alone, or it may have refused to be cancelled
    if not has_ended(prediction) or _failure_or_loss(prediction) is not None:
        return False
    _logger.info("prediction %s succeeded when its time was over", prediction.id)
    return True


def with_deadline(
    options: CreateOptions, seconds: float | None, on_abandon: OnAbandon
) -> CreateOptions:
    """Return options with a deadline that backs up a timeout: it ends the prediction if this process is killed."""
    if seconds is None or options.cancel_after is not None or on_abandon == "leave":
        return options
    return attrs.evolve(options, backup_deadline=max(5, math.ceil(seconds)))


def timed_out(state: RunState, seconds: float) -> exceptions.ReplicateException:
    """Return the exception for a run that did not end within its timeout."""
    prediction = state.prediction
    if prediction is not None:
        if state.directory is not None and prediction.status == "succeeded":
            return exceptions.OutputNotSaved(prediction, f"the timeout of {seconds:g} s is over")
        return run_timeout(prediction, seconds, state.obstacles.failure)
    pending, obstacles = state.pending, state.obstacles
    url = state.context.transport.config.base_url
    cause = obstacles.failure
    fact = f"nothing was created within {seconds:g} s"
    if pending.lost:
        fact = f"no response to the create within {seconds:g} s, and {pending.search_result}"
        reason = "it did not come in time" if cause is None else str(cause)
        cause = pending.ambiguous(url, reason)
        cause.__cause__ = obstacles.failure
    elif pending.is_queued:
        place = "the rate limit" if obstacles.is_queued else "a free connection"
        fact += f": the create was waiting for {place}"
    elif obstacles.is_queued:
        fact += ": a request before the create was waiting for the rate limit"
    elif pending.awaits_first_run:
        fact += ": another first run of the model had no response yet"
    elif cause is None and pending.began and not pending.sent:
        fact += ": the create was waiting until it could connect"
    elif cause is None:
        fact += ": an upload, or another request before the create, was in progress"
    if obstacles.failure is not None:
        fact += f"; the last attempt failed: {obstacles.failure}"
    error = exceptions.TransportTimeout("POST", url, fact)
    error.__cause__ = cause or obstacles.queue_full(seconds)
    return error


async def _output(state: RunState, request: CreateRequest) -> Output:
    """Create a prediction, wait for its end, and return its output."""
    work = partial(
        complete,
        state,
        create=partial(create_prediction, state, request),
        wait=partial(wait_for_result, state),
    )
    prediction, error = await abandon_if_interrupted(state, work)
    if error is not None:
        raise error
    try:
        if state.directory is not None:
            with part_of(state, "download"):
                await _save(
                    prediction,
                    state.directory,
                    durable=state.durable,
                    progress=state.shows_progress,
                )
        return output_of(state, prediction)
    except exceptions.ReplicateException:
        raise
    except Exception as error:  # an unexpected one: the prediction must be named
        raise exceptions.ContactLost(prediction, repr(error)[:500]) from error


def output_of(state: RunState, prediction: Prediction) -> Output:
    """Return the output of a run, whose last prediction has succeeded."""
    if state.convert is not None:
        return state.convert(prediction._raw.get("output"), prediction.id)
    return prediction.output


async def create_prediction(state: RunState, request: CreateRequest) -> None:
    """Create the prediction of a run."""
    with part_of(state, "create"):
        state.prediction = await create(state.context, state.target, request, state.pending)


async def wait_for_result(state: RunState, prediction: Prediction) -> None:
    """Wait until the prediction of a run has ended, or is given up because it does not start."""
    while state.start_timeout is not None and is_starting(prediction):
        await next_state_of_start(state, prediction, state.start_timeout)
    if has_ended(prediction):
        return
    if state.wait is not None:
        await state.wait(prediction)
    else:
        # In sync mode the answer may be `processing`, with the output complete (:api:`sync-mode`): mostly
        # the prediction has ended meanwhile.
        await wait_for_end(prediction, None, poll_first=prediction.status == "processing")


def is_starting(prediction: Prediction) -> bool:
    """Return whether a prediction has not started."""
    return prediction.status == "starting" and not has_ended(prediction)


async def next_state_of_start(state: RunState, prediction: Prediction, seconds: float) -> None:
    """Poll a prediction that is starting; cancel it if it has not started in time.

    Raises:
        StartTimeout: It has not started in time, and could not be cancelled.
    """
    left = prediction._since + seconds - time.monotonic()
    if left > 0:
        with anyio.move_on_after(left):
            await next_state(prediction)
            return
    await look_last(prediction)
    if not is_starting(prediction):
        return
    state.late = prediction
    await shielded(partial(cancel_in_time, prediction))
    if not has_ended(prediction):
        # Nothing else is paid for while it may still run.
        raise exceptions.StartTimeout(prediction, seconds)


async def complete(
    state: RunState,
    *,
    create: Callable[[], Awaitable[None]],
    wait: Callable[[Prediction], Awaitable[None]],
    ended: Callable[[Prediction], Awaitable[None]] | None = None,
) -> tuple[Prediction, exceptions.ModelError | None]:
    """Create a prediction and wait for its end; repeat that after transient failures.

    Args:
        state: The run. If it already has a prediction, the first one is not created.
        create: Creates a prediction, and sets `state.prediction`.
        wait: Waits for the end of a prediction.
        ended: Called with each prediction that has ended.

    Returns:
        The last prediction, and the exception for its failure.

    Raises:
        ContactLost: A prediction could not be followed to its end.
        Exception: `create` or `ended` raised it.
    """
    while True:
        prediction = await begin(state, create)
        if not has_ended(prediction):
            await follow_closely(prediction, partial(wait, prediction))
        if ended is not None:
            await ended(prediction)
        failure = failure_of_run(state)
        if failure is None or not tries_again(state, failure):
            return prediction, failure


async def begin(state: RunState, create: Callable[[], Awaitable[None]]) -> Prediction:
    """Create the prediction of a run, unless it has one; run the next fallback if a model is out of service."""
    while state.prediction is None:
        try:
            await create()
        except (exceptions.ReplicateError, exceptions.TransportError) as error:
            if not policy.is_outage(error) or not _fall_back(state, error):
                raise
    return state.prediction


async def follow_closely(prediction: Prediction, step: Callable[[], Awaitable[T]]) -> T:
    """Await a step that follows a prediction, whose errors must name the prediction.

    Raises:
        ContactLost: The step failed.
    """
    try:
        return await step()
    except (exceptions.ModelError, exceptions.ClientClosed):
        raise
    except Exception as error:  # also an unexpected one: the prediction must be named
        extra = prediction._context.log_extra(prediction)
        _logger.warning("prediction %s lost: %s", prediction.id, error, extra=extra)
        raise exceptions.ContactLost(prediction, str(error) or repr(error)) from error


def failure_of_run(state: RunState) -> exceptions.ModelError | None:
    """Return the exception for the prediction of a run, which has ended; None if it has succeeded."""
    prediction = state.prediction
    assert prediction is not None
    failure = _failure_or_loss(prediction)
    if failure is None:
        if state.failed:
            _logger.info(
                "prediction %s succeeded, %s",
                prediction.id,
                _cost_of(state.failed),
                extra=state.context.log_extra(prediction),
            )
        return None
    if prediction is state.late and not isinstance(failure, exceptions.PredictionFailed):
        assert state.start_timeout is not None
        return exceptions.StartTimeout(prediction, state.start_timeout, canceled=True)
    return failure


def tries_again(state: RunState, failure: exceptions.ModelError) -> bool:
    """Return whether a run creates another prediction after a failure, of the same model or of a fallback.

    If so, it has none afterwards, and is ready for the next one.
    """
    if failure.retryable and state.attempt < state.retry_failed:
        state.context.count(retried=1)
        extra = state.context.log_extra(state.prediction)
        _logger.warning("%s; creating a new one", failure, extra=extra)
        _forget_prediction(state)
        return True
    if policy.is_unavailable(failure) and _fall_back(state, failure):
        return True
    if state.failed:
        failure.add_note(f"This was the last try, {_cost_of(state.failed)}.")
    return False


def _fall_back(state: RunState, error: exceptions.ReplicateException) -> bool:
    """Continue a run with the next fallback; return False if there is none."""
    if not state.fallback:
        return False
    state.target, *rest = state.fallback
    state.fallback = tuple(rest)
    state.context = attrs.evolve(state.context, is_fallback=True)
    name = state.target if isinstance(state.target, str) else state.target.match.label
    state.context.count(fell_back=1)
    extra = state.context.log_extra(state.prediction)
    _logger.warning("%s; falling back to %s", error, name, extra=extra)
    _forget_prediction(state)
    state.given_up = len(state.failed)
    return True


def _forget_prediction(state: RunState) -> None:
    """Let a run create another prediction."""
    if state.prediction is not None:
        state.failed = (*state.failed, state.prediction)
    state.prediction, state.pending = None, PendingCreate()


def _failure_or_loss(prediction: Prediction) -> exceptions.ModelError | None:
    """Return the exception for a prediction that has ended without output, or whose output was deleted."""
    failure = failure_of(prediction)
    if failure is None and prediction.data_removed and prediction.output is None:
        return exceptions.OutputRemoved(prediction)
    return failure


async def _save(prediction: Prediction, directory: Path, *, durable: bool, progress: bool) -> None:
    """Save the files of an output, as many as possible.

    Raises:
        OutputNotSaved: A file could not be saved.
    """
    failures = await save_all(prediction.output, directory, durable=durable, progress=progress)
    if failures:
        _logger.warning("prediction %s: not all files could be saved", prediction.id)
        raise exceptions.OutputNotSaved(prediction, str(failures[0]), failures) from failures[0]


async def start(state: RunState, request: CreateRequest) -> Prediction:
    """Create the prediction of a run without waiting for its end; abandon it if this is cancelled before the answer."""
    work = partial(begin, state, partial(create_prediction, state, request))
    return await abandon_if_interrupted(state, work)


def follow(
    context: Context,
    target: CreateTarget | str,
    make_request: Callable[[], Awaitable[CreateRequest]],
    *,
    timeout: float | None,
    on_abandon: OnAbandon,
    use_file_output: bool | None,
) -> StreamFollower[Prediction]:
    """Return a follower that creates a prediction, and abandons it if the stream is not read to its end.

    Args:
        context: The client.
        target: What to run, or the name of a model.
        make_request: Checks the options, and encodes the input.
        timeout: Maximum time for all of it in seconds; None for no limit.
        on_abandon: What to do with the prediction if it is abandoned.
        use_file_output: Whether files become `FileOutput`; None for the choice of the client.
    """
    _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    state = RunState(context, target, on_abandon)

    async def create_job() -> Prediction:
        begin_span(state)
        with state.obstacles.noted():
            return await start(state, await make_request())

    async def abandon_prediction() -> Prediction | None:
        await abandon(state)
        return state.prediction

    return StreamFollower(
        context.transport,
        create=create_job,
        abandon=abandon_prediction,
        timed_out=partial(timed_out, state),
        ended=partial(end_span, state),
        timeout=timeout,
        files=context.use_file_output if use_file_output is None else use_file_output,
    )


def _cost_of(failed: tuple[Prediction, ...]) -> str:
    """Return what failed predictions have cost, for messages."""
    spent = sum(measured_seconds(prediction, "predict_time") or 0.0 for prediction in failed)
    ids = ", ".join(prediction.id for prediction in failed)
    times = "once" if len(failed) == 1 else f"{len(failed)} times"
    return f"after it had failed {times} ({ids}) at a cost of {spent:.2f} predict seconds"
