"""Runs that are abandoned: what they have created is found, and cancelled or left, as the user has said."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from .. import exceptions
from .._concurrency import shielded
from .context import Context
from .finding import find
from .job import LiveJob, cancel_in_time
from .pending import PendingCreate
from .policy import has_ended
from .prediction import Prediction
from .run_state import RunState

_logger = logging.getLogger("replicate_async")

T = TypeVar("T")
J = TypeVar("J", bound=LiveJob)


async def abandon_if_interrupted(state: RunState, work: Callable[[], Awaitable[T]]) -> T:
    """Await the work of a run; abandon the run if that is cancelled, the client is closed, or it fails unexpectedly.

    The client closes its connections only after that. Errors of this package are passed on: they name the prediction.

    Raises:
        ClientClosed: The client was closed.
        ContactLost: Something unexpected was raised after the create.
        AmbiguousCreateError: Something unexpected was raised before the create was answered.
    """

    async def guarded() -> T:
        try:
            return await work()
        except exceptions.ReplicateException:
            raise
        except Exception as error:
            # A bug, a deep stack or no memory: what has been created is named, and cancelled if it still runs.
            await abandon(state)
            explained = _explained(state, error)
            if explained is error:
                raise
            raise explained from error
        except BaseException:
            # Cancelled or interrupted.
            await abandon(state)
            raise

    try:
        return await until_closed(state.context, guarded)
    except exceptions.ClientClosed as error:
        if state.prediction is not None and not has_ended(state.prediction):
            error.add_note(f"Prediction {state.prediction.id} may still be running.")
        raise
    except MemoryError as error:
        raise _explained(state, error) from error


def _explained(state: RunState, error: Exception) -> Exception:
    """Return an unexpected exception as it is, or one of this package that says what it has left behind."""
    if state.prediction is not None:
        _logger.warning("prediction %s lost: %r", state.prediction.id, error)
        return exceptions.ContactLost(state.prediction, repr(error)[:500])
    if state.pending.lost:
        url = state.context.transport.config.base_url
        return state.pending.ambiguous(url, repr(error)[:500])
    if isinstance(error, MemoryError):
        return exceptions.ReplicateException("nothing was created: there is not enough memory")
    return error


async def until_closed(
    context: Context, work: Callable[[], Awaitable[T]], *, grace: float = 0.0
) -> T:
    """Await some work; cancel it if the client is closed meanwhile, which waits for its end.

    Args:
        context: The client.
        work: The work.
        grace: Seconds that it may continue when the client is closed.

    Raises:
        ClientClosed: The client was closed.
    """
    pool = context.transport.pool
    cleanups = (await pool.session()).cleanups
    if pool.closing:
        raise exceptions.ClientClosed
    done = anyio.Event()

    async def stop() -> None:
        with anyio.move_on_after(grace):
            await done.wait()
            return
        scope.cancel()
        await done.wait()

    cleanups.add(stop)
    try:
        with anyio.CancelScope() as scope:
            return await work()
        # Here only if `stop` has cancelled the scope.
        raise exceptions.ClientClosed
    finally:
        cleanups.discard(stop)
        done.set()


async def abandon(state: RunState) -> None:
    """Do what `on_abandon` says with the prediction of a run, even if its ID is not known yet; once only."""
    if state.prediction is None:
        state.prediction = state.pending.found
    prediction = state.prediction
    if prediction is None and not state.pending.lost:
        return  # nothing was created
    if prediction is not None and has_ended(prediction):
        return
    if state.abandoning is None:
        state.abandoning = anyio.Lock()
    await shielded(partial(_abandon_once, state, state.abandoning))


async def _abandon_once(state: RunState, lock: anyio.Lock) -> None:
    async with lock:
        if state.is_abandoned:
            return
        prediction = state.prediction
        name = prediction.id if prediction else f"of {state.pending.label}"
        _logger.info("prediction %s abandoned", name, extra=state.context.log_extra(prediction))
        if state.on_abandon != "leave":
            await _cancel_abandoned(state, name)
        state.is_abandoned = True


async def _cancel_abandoned(state: RunState, name: str) -> None:
    """Find a prediction if its ID is not known, and cancel it, within a limited time."""
    limit = state.context.timings.cancel
    ends_at = time.monotonic() + limit
    if state.prediction is None:
        try:
            with anyio.move_on_after(limit):
                state.prediction = await find_soon(state.context, state.pending, Prediction)
        except Exception as error:  # noqa: BLE001  (without memory, too: the caller says what is lost)
            _logger.warning("prediction %s lost: it could not be looked for (%r)", name, error)
            return
    if state.prediction is None:
        _logger.warning("prediction %s lost: %s", name, state.pending.search_result)
        return
    await cancel_in_time(state.prediction, ends_at - time.monotonic())


async def find_soon(context: Context, pending: PendingCreate, job_type: type[J]) -> J | None:
    """Look for what a create without an answer has made, and count it; None if it cannot be found soon."""
    timings = context.timings
    patience = timings.last_try
    for pause in timings.last_searches:
        # A single request that hangs must not use up the time.
        with anyio.move_on_after(pause + patience) as scope:
            found = await find(context, pending, job_type, (pause,))
            if found is not None:
                context.count(created=1, adopted=1)
                return found
        if scope.cancelled_caught:
            patience *= 2  # or the API is slow, as it is with lists of large inputs
    return None
