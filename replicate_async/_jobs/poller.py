"""One poller for each client, account and event loop: it sees to all predictions that are awaited there.

It has no task of its own. `_schedule` decides what is to be looked at; one of the tasks that wait does it,
while the others wait to be told. Whoever is cancelled gives the work back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime

import attrs

from .. import exceptions
from .._codec import parse_datetime
from .._http.call import Call
from .._http.transport import Transport
from ..types import Job, RateLimit
from . import policy
from .schedule import ENDS_SHARE, SHARE, Learned, Look, Read, Schedule, Share, Shown, Watched

_MOST_ACCOUNTS = 1024
_PATIENCE = 0.0  # a page that cannot be read is read later, or not at all


class Pollers:
    """The pollers of one client and its views."""

    def __init__(self) -> None:
        self._learned = Learned()
        self._shares: dict[Hashable, tuple[Share, Share]] = {}
        self._pollers: dict[tuple[asyncio.AbstractEventLoop, Hashable], Poller] = {}
        self._pid = os.getpid()

    def of(self, transport: Transport) -> Poller:
        """Return the poller of an account on the running loop."""
        if self._pid != os.getpid():
            self._pollers.clear()  # those of the parent's loops
            self._pid = os.getpid()
        config = transport.config
        account: Hashable = (config.base_url, transport.token())
        key = (asyncio.get_running_loop(), account)
        found = self._pollers.get(key)
        if found is None:
            shares = self._shares.get(account)
            if shares is None:
                rate = rate_of(config.rate_limit)
                shares = Share(SHARE * rate), Share(ENDS_SHARE * rate)
                self._shares[account] = shares
                while len(self._shares) > _MOST_ACCOUNTS:
                    del self._shares[next(iter(self._shares))]
            for other in [key for key in self._pollers if key[0].is_closed()]:
                self._pollers.pop(other, None)
            found = Poller(
                key[0], transport, Schedule(self._learned, *shares), lambda: self._forget(key)
            )
            self._pollers[key] = found
        return found

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._pollers)

    def _forget(self, key: tuple[asyncio.AbstractEventLoop, Hashable]) -> None:
        self._pollers.pop(key, None)


def rate_of(limit: RateLimit | None) -> float:
    """Return how many requests a second an account may make; without a limit, the usual number."""
    limit = limit or RateLimit()
    return limit.others / limit.per


@attrs.define(eq=False)
class _Waiter:
    """A task that waits for a prediction."""

    job: Job
    adopt: Callable[[Job], None]
    """Takes over the state of another object for the same job."""
    turn: asyncio.Future[Look | Read | None] | None = None
    """Resolved with something to do, or with None when the prediction has been updated."""

    def is_idle(self) -> bool:
        return self.turn is not None and not self.turn.done()


class Poller:
    """Sees to the predictions that one account awaits on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        schedule: Schedule,
        forget: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._schedule = schedule
        self._forget = forget
        self._waiters: dict[Watched, list[_Waiter]] = {}
        self._watched: dict[str, Watched] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def wait(
        self,
        job: Job,
        look: Callable[[], Awaitable[None]],
        adopt: Callable[[Job], None],
        *,
        since: float,
        poll_interval: float | None,
        is_listed: bool,
    ) -> None:
        """Return when a prediction or training has ended; it is updated in place.

        Args:
            job: What to wait for.
            look: Updates it, and repeats failed requests.
            adopt: Takes over the state of another object for the same job.
            since: When it was created or first seen (monotonic).
            poll_interval: Seconds between two polls; None: adaptive.
            is_listed: Whether the list of predictions shows it.

        Raises:
            ReplicateError: The API refuses.
        """
        watched = self._watched.get(job.id) or self._watch(job, since, poll_interval, is_listed)
        waiter = _Waiter(job, adopt)
        waiters = self._waiters[watched]
        waiters.append(waiter)
        try:
            while not _is_over(job):
                waiter.turn = self._loop.create_future()
                self._arrange()
                work = await self._turn(waiter.turn)
                if isinstance(work, Look):
                    await self._look(work, waiter, look)
                elif isinstance(work, Read):
                    await self._read(work)
        finally:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[watched]
                self._watched.pop(watched.id, None)
                self._schedule.remove(watched)
            if self._waiters:
                self._arrange()
            else:
                if self._timer is not None:
                    self._timer.cancel()
                self._forget()

    def _watch(
        self, job: Job, since: float, poll_interval: float | None, is_listed: bool
    ) -> Watched:

        now = self._loop.time()
        age = max(time.monotonic() - since, 0.0)
        created = job.created_at
        is_new = created is not None and abs(time.time() - created.timestamp() - age) < 5.0
        watched = self._schedule.add(
            job.id,
            model=f"{getattr(job, 'deployment', None)} {job.model} {job.version}",
            now=now,
            began=now - age,
            created=created.timestamp() if created is not None and is_listed else None,
            fixed=poll_interval,
            is_new=is_new,
        )
        self._watched[job.id] = watched
        self._waiters[watched] = []
        return watched

    async def _turn(self, turn: asyncio.Future[Look | Read | None]) -> Look | Read | None:
        try:
            return await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and (work := turn.result()) is not None:
                # It was handed over at the very moment of the cancellation.
                self._schedule.release(work, self._loop.time())
            turn.cancel()
            raise

    async def _look(self, work: Look, waiter: _Waiter, look: Callable[[], Awaitable[None]]) -> None:
        """Ask for one prediction, and tell the others who wait for the same."""
        job, watched = waiter.job, work.watched
        try:
            await look()
        except BaseException:
            self._schedule.release(work, self._loop.time())
            raise
        now = self._loop.time()
        over = _is_over(job)
        self._schedule.looked(watched, now, over=over)
        if not over:
            return
        running = job.metrics.get("predict_time")
        total = now - watched.began if watched.is_new else None
        if job.completed_at is not None and job.created_at is not None:
            total = (job.completed_at - job.created_at).total_seconds()
        self._schedule.ended(watched, running if isinstance(running, (int, float)) else None, total)
        for other in self._waiters.get(watched, ()):
            if other is not waiter:
                if not _is_over(other.job):
                    other.adopt(job)
                if other.turn is not None and not other.turn.done():
                    other.turn.set_result(None)

    async def _read(self, work: Read) -> None:
        """Read a page of the list for all who are on it."""
        call = Call(
            "GET",
            "/predictions",
            params={
                "created_after": _timestamp(work.after),
                "created_before": _timestamp(work.before),
            },
        )
        try:
            answer = await self._transport.send(call, None, _PATIENCE)
            page = answer.data
            if not isinstance(page, dict) or not isinstance(page.get("results"), list):
                raise answer.unreadable(ValueError("this is no page: it has no list of results"))
        except exceptions.ReplicateException as error:
            if isinstance(error, exceptions.ClientClosed):
                self._schedule.release(work, self._loop.time())
                raise
            self._schedule.failed(work, self._loop.time())
            return
        except BaseException:
            self._schedule.release(work, self._loop.time())
            raise
        shown = [each for entry in page["results"] if (each := _shown(entry)) is not None]
        more = isinstance(page.get("next"), str)
        self._schedule.read(work, self._loop.time(), shown, more=more)

    def _arrange(self) -> None:
        """Hand out what is to be done now, and come back when something else is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while True:
            now = self._loop.time()
            found = self._schedule.next(now)
            if found is None:
                return
            if not isinstance(found, (Look, Read)):
                # The clock of the loop may wake a little too early.
                self._timer = self._loop.call_at(max(found, now) + 0.001, self._arrange)
                return
            for each in [found.watched, *(found.claimed if isinstance(found, Read) else ())]:
                idle = next((w for w in self._waiters.get(each, ()) if w.is_idle()), None)
                if idle is not None and idle.turn is not None:
                    idle.turn.set_result(found)
                    break
            else:
                # All of them are on their way out, and come by here again.
                self._schedule.release(found, now, pause=0.01)


def _is_over(job: Job) -> bool:
    return policy.is_over(job.status, job.completed_at is not None)


def _shown(entry: object) -> Shown | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return None
    try:
        created = parse_datetime(entry["created_at"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        created = None
    over = policy.is_over(str(entry.get("status")), entry.get("completed_at") is not None)
    return Shown(entry["id"], created, over)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
