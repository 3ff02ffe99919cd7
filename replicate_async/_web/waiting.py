"""Waits for the end of a job by its delivery, and also polls it slowly."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import anyio

from .._jobs.job import adopt, wait_for_end
from .._jobs.policy import has_ended
from .inbox import Job
from .receiver import Receiver

_DELIVERY_TIME: Final = 2.0
"""Seconds after the end of a job in which its delivery may still arrive."""


async def wait_for_delivery(receiver: Receiver, job: Job) -> None:
    """Wait until a job has ended.

    Args:
        receiver: Receives its delivery.
        job: The job, which is updated in place.

    Raises:
        RunTimeout: The job did not end within 24 hours.
        ReplicateError: The API returned an error.
    """
    scope = anyio.CancelScope()
    delivered = False

    def ended(other: Job) -> None:
        nonlocal delivered
        delivered = True
        if not has_ended(job):
            adopt(job, other)
        scope.cancel()

    stop = receiver._inbox.watch(job.id, ended)
    try:
        with scope:
            await wait_for_end(job, None, poll_interval=receiver.poll_interval)
    finally:
        stop()
    if not delivered and _is_late(job):
        receiver._inbox.report_missing(job)


def _is_late(job: Job) -> bool:
    """Return whether the delivery for a job that has ended should have arrived."""
    if job.completed_at is None:
        return True
    return (datetime.now(UTC) - job.completed_at).total_seconds() > _DELIVERY_TIME
