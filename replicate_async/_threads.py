"""Calls in worker threads.

They also work when the system has no thread, or no memory for one, left: what was paid for still has to be saved.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

try:
    # asyncio imports it at its first look-up of a host, when there may be no file descriptor left to import with.
    import concurrent.futures.thread  # noqa: F401  (see above)
except RuntimeError as error:
    from .exceptions import LoopClosed

    raise LoopClosed(
        "the main thread has ended, after which Python cannot start to use threads; make a client before that, or let"
        f" the main thread wait for its threads ({error})"
    ) from error

T = TypeVar("T")

NO_THREAD_MEMORY: Final = "there is not enough memory for a thread"
"""Why a thread cannot be started."""

_THREAD_MEMORY: Final = 2**24
"""Bytes that a thread may need: its stack, and what it allocates."""

LOST_AFTER: Final = 1.0
"""Seconds after which to check whether a thread, or an event, was lost."""

REPORT_TIME: Final = 0.1
"""Seconds in which the report of a thread that is done arrives, unless it was lost."""

_POLL_INTERVAL: Final = 0.01
"""Seconds between two checks of a thread that cannot report its end."""

_QUICK_CALLS: Final = 16
"""Number of quick calls at a time on each event loop. They do not wait for calls that may block."""

_limiters: Final = RunVar[anyio.CapacityLimiter]("replicate_async.quick_calls")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Return the result of *function*, called in a worker thread; if none can be started, in the thread of the event loop.

    If the task is cancelled, the thread is abandoned: *function* runs to its end, and its result is lost.
    """
    # A read from a pipe may never return, and must not hold up a cancellation.
    if not has_room_for_thread():
        return function(*arguments)
    return await _Once(function, arguments).in_worker()


async def in_own_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Do what `in_thread` does for a function that may block: if no thread can be started, this fails.

    Raises:
        OSError: The system has no thread left, or no memory for one.
    """
    if not has_room_for_thread():
        raise OSError(errno.EAGAIN, NO_THREAD_MEMORY)
    return await _Once(function, arguments, may_block=True).in_worker()


async def awaited_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Do what `in_thread` does, but wait for the end of *function* before a cancellation is raised."""
    result: list[T] = []
    with anyio.CancelScope(shield=True):
        result.append(await in_thread(function, *arguments))
    return result[0]


async def shielded_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Return the result of *function*, called in a worker thread; wait for its end even if cancelled.

    A cancellation that arrives meanwhile is raised afterwards, and the result is lost. *function* must be quick: if no
    thread can be started, it is called in the thread of the event loop.
    """
    if not has_room_for_thread():
        return function(*arguments)
    once = _Once(function, arguments)
    result: list[T] = []
    with anyio.CancelScope(shield=True):
        try:
            result.append(await once.in_worker(_quick_calls()))
        except asyncio.CancelledError:
            # `asyncio.run` cancels each task at its end, in spite of the shield.
            with suppress(Exception):  # lost, as the result is
                await once.settled_despite_cancellations()
            raise
    return result[0]


def _quick_calls() -> anyio.CapacityLimiter:
    """Return the limiter of quick calls in threads on this event loop."""
    try:
        return _limiters.get()
    except LookupError:
        _limiters.set(anyio.CapacityLimiter(_QUICK_CALLS))
        return _limiters.get()


class _Once(Generic[T]):
    """A call that is made exactly once, in a worker thread if possible.

    Without memory, a thread may end before it has made the call, or before it has reported the outcome. Then the event
    loop takes the outcome from here, or makes the call itself.
    """

    def __init__(
        self, function: Callable[..., T], arguments: tuple[Any, ...], *, may_block: bool = False
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._may_block = may_block
        self._claim = threading.Lock()
        """Acquired, for good, by the thread that makes the call."""
        self.is_done: bool = False
        """Whether the call has ended."""
        self._result: list[T] = []
        self._error: BaseException | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a thread makes the call, or has made it."""
        return self._claim.locked()

    def __call__(self) -> T:
        if not self._claim.acquire(blocking=False):
            raise RuntimeError("the call was made elsewhere")
        try:
            result = self._function(*self._arguments)
            self._result.append(result)
            return result
        except BaseException as error:
            self._error = error
            raise
        finally:
            self.is_done = True

    async def in_worker(self, limiter: anyio.CapacityLimiter | None = None) -> T:
        """Make the call in a worker thread, which is abandoned if the task is cancelled."""
        limiter = limiter or anyio.to_thread.current_default_thread_limiter()
        try:
            return await self._in_watched_worker(limiter)
        except (RuntimeError, MemoryError) as error:
            if not self._was_refused(error):
                raise
            return self._without_thread(error)
        finally:
            # It refers to this object: its arguments, which may be large, would stay until the next garbage collection.
            self._error = None

    async def _in_watched_worker(self, limiter: anyio.CapacityLimiter) -> T:
        watch = _Watch(self, limiter)
        try:
            with watch.scope:
                watch.start()
                return await anyio.to_thread.run_sync(self, abandon_on_cancel=True, limiter=limiter)
        finally:
            watch.stop()
        # Only reached if the thread was lost.
        return await self.settled()

    async def settled(self) -> T:
        """Return the result of the call: wait for the thread that has begun it, or make it here."""
        if self._claim.acquire(blocking=False):
            return self._without_thread(None)
        while not self.is_done:  # noqa: ASYNC110  (the thread has no memory to set an event with)
            await asyncio.sleep(_POLL_INTERVAL)
        if self._error is not None:
            raise self._error
        return self._result[0]

    async def settled_despite_cancellations(self) -> None:
        """Do what `settled` does, however often the task is cancelled meanwhile."""
        while True:
            with suppress(asyncio.CancelledError):
                await self.settled()
                return

    def _without_thread(self, error: Exception | None) -> T:
        """Make the call here, since no thread will make it, unless it may block."""
        if self._may_block:
            raise OSError(errno.EAGAIN, str(error or NO_THREAD_MEMORY)) from error
        return self._function(*self._arguments)

    def _was_refused(self, error: Exception) -> bool:
        """Return whether no thread will make the call, since the system has no thread or memory left."""
        no_thread = any(each in str(error) for each in ("new thread", "allocate lock"))
        return (no_thread or isinstance(error, MemoryError)) and self._claim.acquire(blocking=False)


class _Watch:
    """Cancels the wait for a worker thread that was lost, in whose place the event loop then has to act."""

    def __init__(self, call: _Once[Any], limiter: anyio.CapacityLimiter) -> None:
        self.scope: anyio.CancelScope = anyio.CancelScope()
        """What is cancelled: the wait for the thread."""
        self._call = call
        self._limiter = limiter
        self._borrower = asyncio.current_task()
        self._is_suspected = False
        """Whether the thread seemed to be lost at the last check."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Check from now on, now and then."""
        self._check_after(LOST_AFTER)

    def stop(self) -> None:
        """End the checks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        """Give the thread up if it was lost at this check and the last one; otherwise check again later."""
        is_done = self._call.is_done
        if is_done or self._is_waiting_for_thread():
            if self._is_suspected:
                self.scope.cancel()
                return
            self._is_suspected = True  # the report may be on its way
        try:
            self._check_after(REPORT_TIME if is_done else LOST_AFTER)
        except MemoryError:
            self.scope.cancel()

    def _is_waiting_for_thread(self) -> bool:
        """Return whether a thread should have begun the call. It need not while the call waits for the limiter."""
        return not self._call.has_begun and self._borrower in self._limiter.statistics().borrowers


def has_room_for_thread() -> bool:
    """Return whether there is memory for one more thread.

    Otherwise it may end before it has begun, and Python's `Thread.start` would wait forever for its begin.
    """
    if sys.platform == "win32":
        return True
    try:
        mmap.mmap(-1, _THREAD_MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return False
    return True


def start_thread(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        RuntimeError: The system has no thread left, or no memory for one.
    """
    if not has_room_for_thread():
        raise RuntimeError(NO_THREAD_MEMORY)
    thread.start()
