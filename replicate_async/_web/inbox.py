"""The inbox of a receiver: passes deliveries on to handlers, and to the runs that wait in any process of the app."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

import anyio
import attrs

from .. import exceptions
from .._codec import decode_json
from .._jobs.context import Context
from .._jobs.policy import has_ended
from .._jobs.prediction import Prediction
from .._jobs.training import Training
from .._threads import in_own_thread
from .backplane import Backplane, LocalBackplane
from .deliveries import Contents, contents_of, events_of, job_in, rank_of

_logger = logging.getLogger("replicate_async")

Job: TypeAlias = Prediction | Training
Handler: TypeAlias = Callable[[Any], object]

_CHANNEL: Final = "deliveries"

_CLAIM_LIFETIME: Final = 3600.0
"""Seconds for which deliveries are remembered; they are repeated for about a minute (:api:`webhook-delivery`)."""

_BACKPLANE_TIMEOUT: Final = 2.0
"""Seconds to wait for the backplane: the service expects its answer soon."""

_GRACE: Final = 10.0
"""Seconds for handlers to finish when the client is closed."""

_MAX_PAUSE: Final = 15.0
"""Longest pause in seconds before the inbox subscribes to its backplane again."""

_MAX_RUNNING: Final = 10_000
"""Number of running jobs whose output and logs are remembered."""

_MAX_RECENT_BYTES: Final = 16 * 2**20
"""Bytes of recent deliveries to keep for runs that have not begun to wait for them."""


@attrs.define(eq=False)
class _Waiter:
    """A run that waits for the end of a job."""

    loop: asyncio.AbstractEventLoop
    """The event loop on which it waits."""
    ended: Callable[[Job], None]
    """Called on this loop with the job that has ended."""


class Inbox:
    """The deliveries of a receiver, and those who wait for them. Its tasks end with the client."""

    def __init__(self, context: Context, url: str, backplane: Backplane | None) -> None:
        self._context = context
        self._url = url
        self._local = LocalBackplane()
        self._backplane = backplane
        self._handlers: list[tuple[frozenset[str], Handler]] = []
        self._waiters: dict[str, set[_Waiter]] = {}
        self._recent: OrderedDict[str, tuple[Job, int]] = OrderedDict()
        """The jobs that have ended, with the size of each delivery, oldest first."""
        self._recent_bytes = 0
        self._running: OrderedDict[str, Contents] = OrderedDict()
        """What is remembered of the jobs that run, oldest first."""
        self._is_reached = False
        """Whether a delivery has ever arrived."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        """By job: held while handlers are called with it, so that they are called in order."""
        self._subscription: asyncio.Task[None] | None = None
        self._subscribed: anyio.Event | None = None
        self._loops: set[asyncio.AbstractEventLoop] = set()

    async def open(self) -> None:
        """Have the client end this inbox's tasks on the running event loop before it closes.

        Raises:
            ClientClosed: The client is closed.
        """
        pool, loop = self._context.transport.pool, asyncio.get_running_loop()
        await pool.session()
        if pool.closing:
            raise exceptions.ClientClosed
        if loop not in self._loops:
            self._loops = {each for each in self._loops if not each.is_closed()} | {loop}
            pool.before_close(self._end_tasks)

    async def add(self, job: Job, id: str, timestamp: str, body: bytes) -> str:
        """Add a delivery whose signature is right, and return a text about its result for the sender.

        Args:
            job: The job that was delivered.
            id: ID of the delivery.
            timestamp: Time of the delivery: seconds since the epoch.
            body: Body of the delivery.
        """
        self._is_reached = True
        if not await self._claim(f"delivery:{id}", 1):
            return "received before"
        if not await self._claim(f"job:{job.id}", rank_of(job, timestamp, body)):
            return "older than what was received before"
        self._spawn(self._publish(body))
        self._arrived(job, len(body))
        self._call_handlers(job)
        return "received"

    def register(self, events: frozenset[str], handler: Handler) -> None:
        """Have a function called with the jobs that are delivered for some events; none means all."""
        self._handlers.append((events, handler))

    # Runs that wait

    async def listen(self) -> None:
        """Subscribe to what other processes receive, if there is a backplane, and wait up to two seconds for that."""
        await self.open()
        if self._backplane is None:
            return
        if self._subscription is None or self._subscription.done():
            self._subscribed = anyio.Event()
            self._subscription = self._spawn(self._subscribe(self._backplane, self._subscribed))
        assert self._subscribed is not None
        with anyio.move_on_after(_BACKPLANE_TIMEOUT):
            await self._subscribed.wait()

    def watch(self, id: str, ended: Callable[[Job], None]) -> Callable[[], None]:
        """Have a function called with a job when a delivery says that it has ended, or has said so before.

        Args:
            id: ID of the job.
            ended: Called on the running event loop.

        Returns:
            A function that undoes this.
        """
        waiter = _Waiter(asyncio.get_running_loop(), ended)
        waiters = self._waiters.setdefault(id, set())
        waiters.add(waiter)
        if id in self._recent:
            waiter.loop.call_soon(ended, self._recent[id][0])

        def unwatch() -> None:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(id) is waiters:
                del self._waiters[id]

        return unwatch

    def report_missing(self, job: Job) -> None:
        """Log that a job has ended without a delivery."""
        reason = (
            "deliveries for others have arrived: perhaps this one went to another process, which needs a `backplane`"
            if self._is_reached
            else "nothing has ever arrived: check that the receiver is mounted there, that the URL can be reached from"
            " outside without a redirect, and that proxies let it through"
        )
        _logger.error(
            "prediction %s has ended, but no delivery to %s has arrived: %s",
            job.id,
            self._url,
            reason,
        )

    def _arrived(self, job: Job, size: int) -> None:
        """If a job has ended, wake the runs that wait for it, and keep it for runs that will wait."""
        if not has_ended(job):
            return
        self._recent_bytes += size - self._recent.pop(job.id, (job, 0))[1]
        self._recent[job.id] = job, size
        while self._recent_bytes > _MAX_RECENT_BYTES:
            self._recent_bytes -= self._recent.popitem(last=False)[1][1]
        for waiter in list(self._waiters.get(job.id, ())):
            waiter.loop.call_soon_threadsafe(waiter.ended, job)

    # The backplane

    async def _claim(self, key: str, rank: int) -> bool:
        """Claim a key for all processes, or at least for this one."""
        claimed = await self._local.claim(key, rank=rank, seconds=_CLAIM_LIFETIME)
        if self._backplane is None or not claimed:
            return claimed
        try:
            with anyio.fail_after(_BACKPLANE_TIMEOUT):
                return await self._backplane.claim(key, rank=rank, seconds=_CLAIM_LIFETIME)
        except Exception as error:  # noqa: BLE001 - whatever the backplane raises
            _logger.warning("the backplane is not available: %r", error)
            return True

    async def _publish(self, body: bytes) -> None:
        """Send a delivery to the other processes."""
        if self._backplane is None:
            return
        try:
            with anyio.fail_after(_BACKPLANE_TIMEOUT):
                await self._backplane.publish(_CHANNEL, body)
        except Exception as error:  # noqa: BLE001 - whatever the backplane raises
            _logger.warning("the backplane is not available: %r; polls go on", error)

    async def _subscribe(self, backplane: Backplane, subscribed: anyio.Event) -> None:
        """Receive what the other processes send, and subscribe again when the backplane was not available."""
        pause = 0.1
        while True:
            try:
                async with backplane.subscribe(_CHANNEL) as messages:
                    subscribed.set()
                    pause = 0.1
                    async for body in messages:
                        self._receive(body)
            except Exception as error:  # noqa: BLE001 - whatever the backplane raises
                _logger.warning("the backplane is not available: %r; polls go on", error)
            await anyio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)

    def _receive(self, body: bytes) -> None:
        """Note a delivery to another process."""
        try:
            self._arrived(job_in(self._context, decode_json(body)), len(body))
        except ValueError as error:
            _logger.warning("a message of the backplane is not readable: %s", error)

    # Handlers

    def _call_handlers(self, job: Job) -> None:
        events = events_of(job, self._running.pop(job.id, None))
        if not has_ended(job):
            self._running[job.id] = contents_of(job)
            if len(self._running) > _MAX_RUNNING:
                self._running.popitem(last=False)
        called = [handler for wanted, handler in self._handlers if not wanted or wanted & events]
        if called:
            self._spawn(self._call(called, job))

    async def _call(self, handlers: Sequence[Handler], job: Job) -> None:
        """Call handlers with a job, after those that were called with it before."""
        async with self._locks.setdefault(job.id, anyio.Lock()):
            for handler in handlers:
                try:
                    if inspect.iscoroutinefunction(handler):
                        await handler(job)
                    else:
                        result = await in_own_thread(handler, job)
                        if inspect.isawaitable(result):
                            await result
                except Exception:
                    _logger.exception("handler %r failed for %s", handler, job.id)

    # Tasks

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not in a task group: a delivery is answered before its handlers have run. The client owns the task.
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end_tasks(self) -> None:
        """Wait for handlers, and cancel what remains."""
        loop = asyncio.get_running_loop()
        if self._subscription is not None and self._subscription.get_loop() is loop:
            self._subscription.cancel()
        tasks = {task for task in self._tasks if task.get_loop() is loop}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_GRACE)
            for task in late:
                task.cancel()
