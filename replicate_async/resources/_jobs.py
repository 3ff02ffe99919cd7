"""Waiting for predictions and trainings: they share their life cycle (HTTP API, section 4.2)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from .. import _policy, exceptions, types
from .._transport import load_anyio, sleep

if TYPE_CHECKING:
    from ..types import Update
    from .predictions import Prediction
    from .trainings import Training

J = TypeVar("J", bound="Prediction | Training")

_logger = logging.getLogger("replicate_async")


def is_over(job: Prediction | Training) -> bool:
    """Tell whether a prediction or training has ended."""
    return _policy.is_over(job.status, job.completed_at is not None)


async def wait(
    job: J,
    look: Callable[[], Awaitable[None]],
    timeout: float | timedelta | None,
    *,
    at_once: bool = False,
) -> J:
    """Look at a job until it is over; it is updated in place.

    Args:
        job: What to wait for.
        look: Updates it, and repeats failed requests until the time is over.
        timeout: Seconds, or a timedelta; None: 24 hours.
        at_once: Whether to look before the first pause.

    Raises:
        RunTimeout: The time was over first. The job goes on.
    """
    if is_over(job):
        return job
    seconds = _policy.timeout_seconds(timeout)
    limit = _policy.LONGEST_WAIT if seconds is None else seconds
    await load_anyio()
    import anyio

    with anyio.move_on_after(limit):
        if at_once:
            await look()
        if not is_over(job):
            context = job._context
            await context.pollers.of(context.transport).wait(job, look)
        return job
    raise exceptions.RunTimeout(job, limit)


async def updates(
    job: Prediction | Training, look: Callable[[], Awaitable[None]]
) -> AsyncIterator[Update]:
    """Yield what a job shows at first, and what is new after each look; raise its failure at the end."""
    seen = ""
    before: tuple[object, ...] | None = None
    while True:
        progress = _policy.progress(job.logs)
        fresh = job.logs.removeprefix(seen)
        now = (job.status, job.logs, progress)
        if now != before:
            before = now
            seen = job.logs or seen
            yield types.Update(job.status, fresh, progress)
        if is_over(job):
            error = failure(job)
            if error is not None:
                raise error
            return
        await sleep(pause(job))
        await look()


def pause(job: Prediction | Training) -> float:
    """Return the seconds until the next look."""
    fixed = job._context.poll_interval
    return _policy.poll_delay(time.monotonic() - job._since) if fixed is None else fixed


def log_end(job: Prediction | Training) -> None:
    """Note that a job is over."""
    if _logger.isEnabledFor(logging.INFO) and is_over(job):
        _logger.info("%s %s %s", type(job).__name__.lower(), job.id, job.status)


def failure(job: Prediction | Training) -> exceptions.ModelError | None:
    """Return the error for a job that ended without a result; None if it succeeded."""
    match job.status:
        case "succeeded":
            return None
        case "canceled":
            return exceptions.PredictionCanceled(job)
        case "aborted":
            return exceptions.PredictionAborted(job)
        case "failed":
            return _failed(job)
        case _:
            # An end that this version does not know: a result if there is one.
            return None if job.output is not None else _failed(job)


def _failed(job: Prediction | Training) -> exceptions.PredictionFailed:
    code, kind, retryable = _policy.failure_kind(job.error)
    return exceptions.PredictionFailed(job, code=code, kind=kind, retryable=retryable)
