"""Polls a job on behalf of all that follow its progress: one request for each poll, however many follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from typing import Final

import anyio
import attrs

from .._http.transport import Transport
from ..types import Job
from .poller import PolledJob, RateShares, account_of

_SHARE: Final = 0.5
"""Share of the account's rate limit that these polls may use."""


@attrs.define(eq=False)
class _Viewed:
    """A job that is followed on one event loop."""

    viewers: int = 0
    """Number of tasks that follow it."""
    is_polled: bool = False
    """Whether one of them polls the job, or waits to do so."""
    polled: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when that task has polled the job, or was cancelled."""
    latest: Job | None = None
    """State at the last poll; None if the task was cancelled instead."""


class Viewers:
    """The tasks that follow jobs with a client and its views."""

    def __init__(self) -> None:
        self._viewed: dict[tuple[asyncio.AbstractEventLoop, Hashable, str], _Viewed] = {}
        self._shares = RateShares(_SHARE)

    async def next_state(self, transport: Transport, polled: PolledJob, delay: float) -> None:
        """Wait until the job was polled again, by this task or by another one; the object is updated in place.

        Args:
            transport: Tells the account and its rate limit.
            polled: The job.
            delay: Seconds before it is polled.

        Raises:
            ReplicateError: The API returned an error.
        """
        account = account_of(transport)
        key = asyncio.get_running_loop(), account, polled.job.id
        viewed = self._viewed.setdefault(key, _Viewed())
        viewed.viewers += 1
        try:
            while viewed.is_polled:
                await viewed.polled.wait()
                if viewed.latest is not None:
                    polled.adopt(viewed.latest)
                    return
            viewed.is_polled, viewed.latest = True, None
            try:
                await anyio.sleep(delay)
                share = self._shares.of(account, transport.config.rate_limit)
                # Not an event: the share is refilled by time.
                while wait := share.take(time.monotonic()):  # noqa: ASYNC110
                    await anyio.sleep(wait)
                await polled.poll()
                viewed.latest = polled.job
            finally:
                viewed.is_polled = False
                viewed.polled.set()
                viewed.polled = anyio.Event()
        finally:
            viewed.viewers -= 1
            if not viewed.viewers:
                self._viewed.pop(key, None)
