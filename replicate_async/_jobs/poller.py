"""Polls all jobs that are awaited: one poller for each account and event loop.

A poller has no task of its own. The schedule decides which request is due, and one of the waiting tasks makes
it on behalf of all that wait. A task that is cancelled returns its request to the schedule.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import anyio
import attrs

from .. import exceptions
from .._codec import format_datetime, parse_datetime
from .._http.call import Call
from .._http.transport import Transport
from .._telemetry import measured_seconds
from ..types import Job, RateLimit
from .policy import has_ended, is_over
from .schedule import (
    ENDED_SHARE,
    POLL_SHARE,
    Awaited,
    Durations,
    ListEntry,
    Poll,
    RateShare,
    ReadPage,
    Request,
    Schedule,
)

_logger = logging.getLogger("replicate_async")

_MAX_ACCOUNTS: Final = 1024

_PAGE_PATIENCE: Final = 0.0
"""Seconds for which a failed read of a page is repeated: its jobs are polled one by one instead."""

_POLLS_PER_SECOND: Final = 50.0
"""Most requests per second if client-side rate limiting is disabled. Pages of the list show many jobs, so that
more of them would show nothing new."""

_CLOCK_ERROR: Final = 5.0
"""Seconds by which the clocks of the server and of this machine may differ."""

_PollerKey: TypeAlias = tuple[asyncio.AbstractEventLoop, Hashable]
"""Event loop and account. The loop is asyncio's: anyio has a token for it since 4.11 only."""


@attrs.frozen(eq=False)
class PolledJob:
    """A job, and how to update it."""

    job: Job
    since: float
    """When it was created or first seen (monotonic)."""
    poll: Callable[[], Awaitable[None]]
    """Fetches its state into the object; repeats failed requests."""
    adopt: Callable[[Job], None]
    """Takes over the state of another object for the same job."""


def account_of(transport: Transport) -> tuple[str, str]:
    """Return a key for the account that a request would be made with now: base URL and token."""
    return transport.config.base_url, transport.token()


class RateShares:
    """A share of the rate limit of each account. Of very many accounts, the oldest are forgotten."""

    def __init__(self, fraction: float, *, without_limit: float = math.inf) -> None:
        """Make a share for each account.

        Args:
            fraction: The share of the rate limit.
            without_limit: Requests per second if client-side rate limiting is disabled.
        """
        self._fraction = fraction
        self._without_limit = without_limit
        self._shares: dict[Hashable, RateShare] = {}

    def of(self, account: Hashable, limit: RateLimit | None) -> RateShare:
        """Return the share of an account."""
        found = self._shares.get(account)
        if found is None:
            rate = self._without_limit
            if limit is not None:
                rate = self._fraction * limit.others / limit.per
            found = self._shares[account] = RateShare(rate)
            while len(self._shares) > _MAX_ACCOUNTS:
                del self._shares[next(iter(self._shares))]
        return found


class Pollers:
    """The pollers of a client and its views."""

    def __init__(self) -> None:
        self._durations = Durations()
        self._poll_shares = RateShares(POLL_SHARE, without_limit=_POLLS_PER_SECOND)
        self._ended_shares = RateShares(ENDED_SHARE)
        self._pollers: dict[_PollerKey, Poller] = {}
        self._pid = os.getpid()

    def of(self, transport: Transport) -> Poller:
        """Return the poller of an account on the running event loop."""
        if self._pid != os.getpid():
            self._pollers.clear()  # they belong to the event loops of the parent process
            self._pid = os.getpid()
        loop, account = asyncio.get_running_loop(), account_of(transport)
        key = loop, account
        found = self._pollers.get(key)
        if found is None:
            for other in list(self._pollers):
                if other[0].is_closed():
                    self._pollers.pop(other, None)
            limit = transport.config.rate_limit
            schedule = Schedule(
                self._durations,
                self._poll_shares.of(account, limit),
                self._ended_shares.of(account, limit),
            )
            found = Poller(loop, transport, schedule, lambda: self._forget(key))
            self._pollers[key] = found
        return found

    @property
    def waiting(self) -> bool:
        """Whether any task waits."""
        return bool(self._pollers)

    def _forget(self, key: _PollerKey) -> None:
        self._pollers.pop(key, None)


@attrs.define(eq=False)
class _Turn:
    """What a waiting task waits for."""

    event: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when there is a request to make, or when the job was updated."""
    request: Request | None = None
    """The request to make."""


@attrs.define(eq=False)
class _Waiter:
    """A task that waits for the end of a job."""

    polled: PolledJob
    turn: _Turn | None = None
    """None while the task makes a request."""
    failure: exceptions.ReplicateError | None = None
    """What the polls of two other tasks have met, one after the other."""


class Poller:
    """Polls the jobs of one account that are awaited on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        schedule: Schedule,
        forget: Callable[[], None],
    ) -> None:
        """Make a poller.

        Args:
            loop: The event loop, whose time is the clock of the schedule.
            transport: Makes the requests for pages of the list.
            schedule: An empty schedule.
            forget: Called when no task waits any more.
        """
        self._loop = loop
        self._transport = transport
        self._schedule = schedule
        self._forget = forget
        self._waiters: dict[Awaited, list[_Waiter]] = {}
        self._awaited: dict[str, Awaited] = {}
        self._failures: dict[Awaited, exceptions.ReplicateError] = {}
        """The jobs whose last poll has failed."""
        # Of asyncio, since anyio has no timer without a task.
        self._timer: asyncio.TimerHandle | None = None

    async def wait(
        self, polled: PolledJob, *, poll_interval: float | None, is_listed: bool
    ) -> None:
        """Wait until a job has ended; the object is updated in place.

        Args:
            polled: The job.
            poll_interval: Fixed polling interval in seconds; None: adaptive.
            is_listed: Whether the list of predictions shows it.

        Raises:
            ReplicateError: The API returned an error, to this task or to two others, one after the other.
        """
        awaited = self._awaited.get(polled.job.id)
        if awaited is None:
            awaited = self._add(polled, poll_interval, is_listed)
        waiter = _Waiter(polled)
        waiters = self._waiters[awaited]
        waiters.append(waiter)
        try:
            while not has_ended(polled.job):
                if waiter.failure is not None:
                    raise copy.copy(waiter.failure) from waiter.failure
                request = await self._next_request(waiter)
                if isinstance(request, Poll):
                    await self._poll(request, polled)
                elif isinstance(request, ReadPage):
                    await self._read(request)
        finally:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[awaited]
                self._awaited.pop(awaited.id, None)
                self._failures.pop(awaited, None)
                self._schedule.remove(awaited)
            if self._waiters:
                self._assign()
            else:
                if self._timer is not None:
                    self._timer.cancel()
                self._forget()

    def _add(self, polled: PolledJob, poll_interval: float | None, is_listed: bool) -> Awaited:
        """Add a job to the schedule."""
        job = polled.job
        now = self._loop.time()
        age = max(time.monotonic() - polled.since, 0.0)
        created = _created(job)
        awaited = self._schedule.add(
            job.id,
            model=f"{getattr(job, 'deployment', None)} {job.model} {job.version}",
            now=now,
            began=now - age,
            created=created if is_listed else None,
            poll_interval=poll_interval,
            is_new=created is not None and abs(time.time() - created - age) < _CLOCK_ERROR,
        )
        self._awaited[job.id] = awaited
        self._waiters[awaited] = []
        return awaited

    async def _next_request(self, waiter: _Waiter) -> Request | None:
        """Wait for a request to make; return None if another task has updated the job."""
        turn = waiter.turn = _Turn()
        try:
            self._assign()
            await turn.event.wait()
        except BaseException:
            if turn.request is not None:
                # It was assigned at the moment of the cancellation.
                self._schedule.release(turn.request, self._loop.time())
            raise
        finally:
            waiter.turn = None
        return turn.request

    async def _poll(self, request: Poll, polled: PolledJob) -> None:
        """Poll one job; if it has ended, update the objects of all tasks that wait for it."""
        job, awaited = polled.job, request.awaited
        try:
            await polled.poll()
        except BaseException as error:
            self._schedule.release(request, self._loop.time())
            if isinstance(error, exceptions.ReplicateError):
                self._note_failure(awaited, polled, error)
            raise
        self._failures.pop(awaited, None)
        now = self._loop.time()
        ended = has_ended(job)
        self._schedule.polled(awaited, now, ended=ended)
        if not ended:
            return
        running = measured_seconds(job, "predict_time")
        total = now - awaited.began if awaited.is_new else None
        if job.completed_at is not None and job.created_at is not None:
            total = (job.completed_at - job.created_at).total_seconds()
        self._schedule.add_duration(awaited, running, total)
        for other in self._waiters.get(awaited, ()):
            if other.polled is not polled:
                if not has_ended(other.polled.job):
                    other.polled.adopt(job)
                if other.turn is not None:
                    other.turn.event.set()

    def _note_failure(
        self, awaited: Awaited, polled: PolledJob, error: exceptions.ReplicateError
    ) -> None:
        """Tell all tasks that wait for a job that it cannot be polled, if another poll has met the same before."""
        earlier = self._failures.get(awaited)
        self._failures[awaited] = error
        if earlier is None or earlier.status != error.status:
            return  # it may concern that task only
        for other in self._waiters.get(awaited, ()):
            if other.polled is not polled:
                other.failure = error
                if other.turn is not None:
                    other.turn.event.set()

    async def _read(self, request: ReadPage) -> None:
        """Read a page of the list, which shows many jobs."""
        try:
            call = Call(
                "GET",
                "/predictions",
                is_page=True,
                params={
                    "created_after": _timestamp(request.after),
                    "created_before": _timestamp(request.before),
                },
            )
            page = (await self._transport.send(call, None, _PAGE_PATIENCE)).data
            entries = [entry for raw in page["results"] if (entry := _list_entry(raw)) is not None]
            more = isinstance(page.get("next"), str)
        except exceptions.ClientClosed:
            self._schedule.release(request, self._loop.time())
            raise
        except Exception as error:  # noqa: BLE001  (it is no matter of the job whose task has read the page)
            _logger.debug("a page of the list cannot be read: %r", error)
            self._schedule.failed(request, self._loop.time())
            return
        except BaseException:
            self._schedule.release(request, self._loop.time())
            raise
        self._schedule.page_read(request, self._loop.time(), entries, more=more)

    def _assign(self) -> None:
        """Assign all requests that are due to waiting tasks, and set the timer for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while True:
            now = self._loop.time()
            found = self._schedule.next(now)
            if found is None:
                return
            if not isinstance(found, Request):
                # The event loop may wake a little too early.
                self._timer = self._loop.call_at(max(found, now) + 0.001, self._assign)
                return
            turn = self._open_turn(found)
            if turn is None:
                # All of its tasks are being cancelled, or have not been resumed yet.
                self._schedule.release(found, now, pause=0.01)
            else:
                turn.request = found
                turn.event.set()

    def _open_turn(self, request: Request) -> _Turn | None:
        """Return the turn of a task that waits for one of the jobs of a request; None if there is none."""
        for awaited in request.claimed:
            for waiter in self._waiters.get(awaited, ()):
                if waiter.turn is not None and not waiter.turn.event.is_set():
                    return waiter.turn
        return None


def _created(job: Job) -> float | None:
    """Return when a job was created, in seconds since the epoch; None at the ends of the calendar, which have no margin."""
    created = job.created_at
    return None if created is None or created.year in (1, 9999) else created.timestamp()


def _list_entry(raw: Any) -> ListEntry | None:
    """Return what an entry of the list shows; None if it is not readable."""
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
        return None
    try:
        created = parse_datetime(raw["created_at"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        created = None
    status = raw.get("status")
    ended = is_over(status if isinstance(status, str) else "", raw.get("completed_at") is not None)
    return ListEntry(raw["id"], created, ended)


def _timestamp(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))
