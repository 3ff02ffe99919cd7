"""Creates of jobs that continue by themselves: nothing cancels them, even if nothing waits for them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import anyio

from .. import exceptions
from .._concurrency import shielded
from .abandoning import find_soon, until_closed
from .context import Context
from .creating import create
from .job import LiveJob, poll, wait_for_end
from .pending import PendingCreate
from .prediction import Prediction
from .request import CreateOptions, CreateTarget, prepare

_logger = logging.getLogger("replicate_async")

J = TypeVar("J", bound=LiveJob)

_GRACE: Final = 1.0
"""Seconds that a create has for its answer when the client is closed. The rest of `timings.cancel` is for the search."""


async def create_prediction(
    context: Context,
    target: CreateTarget | str,
    input: Mapping[str, Any] | None,
    options: CreateOptions,
) -> Prediction:
    """Create a prediction that continues by itself, as `Predictions.create`.

    If the server holds so many creates already that it was not asked to hold this one, too, the prediction is polled
    for as long.

    Args:
        context: The client.
        target: What to run, or the name of a model.
        input: Input of the model.
        options: Options of the create.

    Raises:
        ReplicateException: As `Predictions.create`.
    """
    pending = PendingCreate()
    request = await prepare(context, input, options)
    send = partial(create, context, target, request, pending)
    prediction = await create_unfollowed(context, pending, Prediction, send)
    if request.held and not pending.is_held:
        try:
            await _wait_instead(context, prediction, request.held)
        except anyio.get_cancelled_exc_class():
            _log_cancelled(pending, prediction)
            raise
    return prediction


async def _wait_instead(context: Context, prediction: Prediction, seconds: float) -> None:
    """Wait until a prediction has ended, for as long as the server would have held its answer. Does not raise.

    If the client is closed, the wait ends.
    """

    async def wait() -> None:
        try:
            await wait_for_end(prediction, seconds)
        except exceptions.RunTimeout:
            patience = context.timings.last_try
            with anyio.move_on_after(patience):
                await poll(prediction, patience)

    try:
        await until_closed(context, wait)
    except Exception as error:  # noqa: BLE001  (the prediction is created: its ID must reach the caller)
        _logger.debug("prediction %s cannot be read now: %s", prediction.id, error)


async def create_unfollowed(
    context: Context,
    pending: PendingCreate,
    job_type: type[J],
    send: Callable[[], Awaitable[J]],
) -> J:
    """Create something that nothing cancels, and return it.

    If the client is closed before the answer, it is looked for in the list, and returned. If the task is cancelled before
    the answer, it is looked for briefly, and its ID is logged.

    Args:
        context: The client.
        pending: The create.
        job_type: Class of what it creates.
        send: Sends the create.

    Raises:
        AmbiguousCreateError: There was no answer, and the list does not show what was created.
        ClientClosed: The client was closed; nothing was created.
    """

    async def send_or_look() -> J:
        try:
            return await send()
        except anyio.get_cancelled_exc_class():
            if pending.lost:
                await shielded(partial(_look, context, pending, job_type))
            raise

    try:
        return await until_closed(context, send_or_look, grace=_GRACE)
    except exceptions.ClientClosed:
        # It was cancelled; `send_or_look` has searched for what it created.
        if pending.found is not None:
            found: J = pending.found
            return found
        if not pending.lost:
            raise
        assert pending.match is not None
        url = context.transport.config.base_url + pending.match.list_path
        raise pending.ambiguous(url, f"the client was closed{pending.search_failure}") from None
    except anyio.get_cancelled_exc_class():
        if pending.lost or pending.found is not None:
            _log_cancelled(pending, pending.found)
        raise


async def _look(context: Context, pending: PendingCreate, job_type: type[LiveJob]) -> None:
    """Search for what a create without an answer has made, within a limited time. Does not raise if that fails."""
    timings = context.timings
    is_closing = context.transport.pool.closing
    try:
        with anyio.move_on_after(timings.cancel - _GRACE if is_closing else 2 * timings.last_try):
            if pending.found is None:
                pending.found = await find_soon(context, pending, job_type)
    except Exception as error:  # noqa: BLE001  (the caller says what is lost)
        pending.search_failure = f", and the list cannot be read: {error}"


def _log_cancelled(pending: PendingCreate, created: LiveJob | None) -> None:
    """Log what a cancelled create has created, since its caller gets no result."""
    result = (
        pending.search_result
        if created is None
        else f"it made {created.id}, which is not cancelled"
    )
    _logger.warning("create of %s: cancelled before it returned; %s", pending.label, result)
