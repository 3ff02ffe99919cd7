"""Runs that are abandoned, and creates whose client is closed: what they have created is found.

The predictions of runs are cancelled, or left, as the user has said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

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

_ALMOST: Final = 1.0
"""Seconds for which a client that is being closed waits for the answer to a create."""


async def abandon_if_cancelled(state: RunState, work: Callable[[], Awaitable[T]]) -> T:
    """Await the work of a run; abandon the run if the task is cancelled, or the client is closed meanwhile.

    The client closes its connections only after that.

    Raises:
        ClientClosed: The client was closed.
    """

    async def guarded() -> T:
        try:
            return await work()
        except exceptions.ReplicateException:
            raise
        except Exception as error:
            # A bug, a deep stack or no memory: what has been created is named, and cancelled if it still runs.
            await abandon(state)
            if state.prediction is None:
                raise
            _logger.warning("prediction %s lost: %r", state.prediction.id, error)
            raise exceptions.ContactLost(state.prediction, repr(error)[:500]) from error
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


async def until_closed(
    context: Context,
    work: Callable[[], Awaitable[T]],
    *,
    grace: float = 0.0,
    settle: Callable[[], Awaitable[T]] | None = None,
) -> T:
    """Await some work; cancel it if the client is closed meanwhile, which waits for its end.

    Args:
        context: The client.
        work: The work.
        grace: Seconds that it has when the client is closed.
        settle: What to do instead of it after that, while there still are connections.

    Raises:
        ClientClosed: The client was closed.
    """
    pool = context.transport.pool
    await pool.session()
    if pool.closing:
        raise exceptions.ClientClosed
    done = anyio.Event()

    async def stop() -> None:
        with anyio.move_on_after(grace):
            await done.wait()
            return
        scope.cancel()
        await done.wait()

    unregister = pool.before_close(stop)
    try:
        with anyio.CancelScope() as scope:
            return await work()
        if settle is not None:
            return await settle()
    finally:
        unregister()
        done.set()
    raise exceptions.ClientClosed


async def create_unfollowed(
    context: Context,
    pending: PendingCreate,
    job_type: type[J],
    send: Callable[[], Awaitable[J]],
) -> J:
    """Create something that runs on by itself; if the client is closed before the answer, look for it in the list.

    Args:
        context: The client.
        pending: The create.
        job_type: Class of what it creates.
        send: Sends the create.

    Raises:
        AmbiguousCreateError: There was no answer, and the list does not show what was created.
        ClientClosed: The client was closed; nothing was created.
    """

    async def settle() -> J:
        found: J | None = pending.found
        if found is None and not pending.lost:
            raise exceptions.ClientClosed
        reason = "the client was closed"
        try:
            with anyio.move_on_after(context.timings.cancel - _ALMOST):
                found = found or await _find_soon(context, pending, job_type)
        except exceptions.ReplicateException as error:
            reason += f", and the list cannot be read: {error}"
        if found is not None:
            return found
        match = pending.match
        assert match is not None
        sent_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - pending.began)
        url = context.transport.config.base_url + match.list_path
        raise exceptions.AmbiguousCreateError(
            "POST", url, match.label, reason, sent_at, pending.candidates
        )

    return await until_closed(context, send, grace=_ALMOST, settle=settle)


async def abandon(state: RunState) -> None:
    """Do what `on_abandon` says with the prediction of a run, even if its ID is not known yet."""
    pending = state.pending
    if state.prediction is None:
        state.prediction = pending.found
    prediction = state.prediction
    if prediction is None and not pending.lost:
        return  # nothing was created
    if prediction is not None and has_ended(prediction):
        return
    name = prediction.id if prediction else f"of {pending.match and pending.match.label}"
    _logger.info("prediction %s abandoned", name, extra=state.context.log_extra(prediction))
    if state.on_abandon == "leave":
        return
    await shielded(partial(_cancel_abandoned, state, name))


async def _cancel_abandoned(state: RunState, name: str) -> None:
    """Find a prediction if its ID is not known, and cancel it, within a limited time."""
    limit = state.context.timings.cancel
    ends_at = time.monotonic() + limit
    if state.prediction is None:
        try:
            with anyio.move_on_after(limit):
                state.prediction = await _find_soon(state.context, state.pending, Prediction)
        except exceptions.ReplicateException as error:
            _logger.warning("prediction %s lost: it could not be looked for (%s)", name, error)
            return
    if state.prediction is None:
        _logger.warning("prediction %s lost: %s", name, state.pending.search_result)
        return
    await cancel_in_time(state.prediction, ends_at - time.monotonic())


async def _find_soon(context: Context, pending: PendingCreate, job_type: type[J]) -> J | None:
    """Look for what a create has made that got no answer; None if it cannot be found soon."""
    timings = context.timings
    for pause in timings.last_searches:
        # A single request that hangs must not use up the time.
        with anyio.move_on_after(pause + timings.last_try):
            found = await find(context, pending, job_type, (pause,))
            if found is not None:
                context.count(created=1, adopted=1)
                return found
    return None
