"""Polls a job on behalf of all that follow its progress: one request for each poll, however many follow."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Hashable
from typing import Final

import anyio
import attrs

from .. import exceptions
from .._http.transport import Transport
from ..types import Job
from .poller import PolledJob, RateShares, account_of

_SHARE: Final = 0.5
"""Share of the account's rate limit that these polls may use."""


@attrs.define(eq=False)
class _SharedPoll:
    """A poll that one of the tasks that follow a job makes for all of them."""

    done: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when the job was polled, and if the poll failed or its task was cancelled."""
    state: Job | None = None
    """The job after the poll; None if it failed."""
    failure: exceptions.ReplicateError | None = None
    """The error that the API returned."""


class Viewers:
    """The tasks that follow jobs with a client and its views."""

    def __init__(self) -> None:
        # By event loop as asyncio names it: anyio has a token for it since 4.11 only.
        self._polls: dict[tuple[asyncio.AbstractEventLoop, Hashable, str], _SharedPoll] = {}
        self._shares = RateShares(_SHARE)

    async def next_state(self, transport: Transport, polled: PolledJob, delay: float) -> None:
        """Wait until a job was polled again, by this task or by another one; the object is updated in place.

        Args:
            transport: Tells the account and its rate limit.
            polled: The job.
            delay: Seconds before it is polled.

        Raises:
            ReplicateError: The API returned an error, to this task or to two others, one after the other.
        """
        account = account_of(transport)
        key = asyncio.get_running_loop(), account, polled.job.id
        failure: exceptions.ReplicateError | None = None
        while (other := self._polls.get(key)) is not None:
            await other.done.wait()
            if other.state is not None:
                polled.adopt(other.state)
                return
            if other.failure is not None:
                if failure is not None and failure.status == other.failure.status:
                    raise copy.copy(other.failure) from other.failure
                failure = other.failure  # it may concern that task only: another tries at once
        own = self._polls[key] = _SharedPoll()
        try:
            await anyio.sleep(delay if failure is None else 0)
            share = self._shares.of(account, transport.config.rate_limit)
            # What ends the wait is time, of which no event tells.
            while wait := share.take(time.monotonic()):  # noqa: ASYNC110  (see above)
                await anyio.sleep(wait)
            await polled.poll()
            own.state = polled.job
        except exceptions.ReplicateError as error:
            own.failure = error
            raise
        finally:
            del self._polls[key]
            own.done.set()
