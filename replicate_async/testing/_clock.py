"""The emulator's time: one clock for timestamps, limits, deadlines and retention.

Time can be advanced by hand and can run faster than the wall clock, so that a test sees an hour of
retention or a minute of rate limiting pass in no time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

NANOSECONDS = 1_000_000_000
_COMPACT_ABOVE = 256


class Clock:
    """A clock that can run faster than real time and can be moved forward.

    All methods may be called from any thread.

    Args:
        speed: Emulated seconds per real second. Defaults to 1.
        start: Time to start at, in seconds since the epoch. Defaults to the present.

    Raises:
        ValueError: *speed* is not positive.
    """

    def __init__(self, *, speed: float = 1.0, start: float | None = None) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be positive, not {speed!r}")
        self._lock = threading.Lock()
        self._speed: float = speed
        self._real: int = time.monotonic_ns()
        self._emulated: int = time.time_ns() if start is None else int(start * NANOSECONDS)
        self._listeners: list[Callable[[], None]] = []

    @property
    def speed(self) -> float:
        """Emulated seconds per real second."""
        return self._speed

    def time_ns(self) -> int:
        """Return the emulated time in nanoseconds since the epoch."""
        with self._lock:
            return self._time_ns()

    def _time_ns(self) -> int:
        elapsed = time.monotonic_ns() - self._real
        return self._emulated + (elapsed if self._speed == 1.0 else int(elapsed * self._speed))

    def time(self) -> float:
        """Return the emulated time in seconds since the epoch."""
        return self.time_ns() / NANOSECONDS

    def now(self) -> datetime:
        """Return the emulated time as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.time_ns() // 1000 / 1_000_000, UTC)

    def advance(self, seconds: float) -> None:
        """Move the clock forward. Everything that becomes due happens at once.

        Requests that arrive after this call see its effects.

        Args:
            seconds: Emulated seconds to move by.

        Raises:
            ValueError: *seconds* is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back: {seconds!r}")
        with self._lock:
            self._emulated += int(seconds * NANOSECONDS)
            listeners = list(self._listeners)
        for wake in listeners:
            wake()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Register a function to be called after each `advance`.

        Args:
            wake: The function. It is called in the thread that calls `advance`.

        Returns:
            A function that unregisters it.
        """
        with self._lock:
            self._listeners.append(wake)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.remove(wake)

        return unsubscribe


class Timer:
    """A callback that waits for its time."""

    __slots__ = ("_owner", "callback", "when")

    def __init__(self, owner: Timers, when: int, callback: Callable[[], None]) -> None:
        self._owner = owner
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback."""
        if self.callback is not None:
            self.callback = None
            self._owner._forgotten()


class Timers:
    """Callbacks on one event loop that become due on a `Clock`.

    Must be made and used in the loop's thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = itertools.count()
        self._cancelled = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = 0
        self._unsubscribe = clock.subscribe(self._wake)

    def at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Call *callback* in the loop once the clock shows *when* (nanoseconds)."""
        timer = Timer(self, when, callback)
        heapq.heappush(self._heap, (when, next(self._sequence), timer))
        if self._handle is None or when < self._armed_for:
            self._arm()
        return timer

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* after *seconds* of emulated time."""
        return self.at(self._clock.time_ns() + int(seconds * NANOSECONDS), callback)

    async def sleep(self, seconds: float) -> None:
        """Wait for *seconds* of emulated time."""
        await self.sleep_until(self._clock.time_ns() + int(seconds * NANOSECONDS))

    async def sleep_until(self, when: int) -> None:
        """Wait until the clock shows *when* (nanoseconds)."""
        if when <= self._clock.time_ns():
            return
        due: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not due.done():
                due.set_result(None)

        timer = self.at(when, wake)
        try:
            await due
        finally:
            timer.cancel()

    def close(self) -> None:
        """Drop all callbacks."""
        self._unsubscribe()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._heap.clear()

    def _wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._run()
            return
        try:
            self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # the loop was closed while another thread moved the clock
            return

    def _run(self) -> None:
        now = self._clock.time_ns()
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, timer = heapq.heappop(heap)
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._cancelled -= 1
            else:
                callback()
        self._arm()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._armed_for = self._heap[0][0]
            wait = (self._armed_for - self._clock.time_ns()) / NANOSECONDS / self._clock.speed
            self._handle = self._loop.call_later(max(wait, 0.0), self._run)

    def _forgotten(self) -> None:
        self._cancelled += 1
        if self._cancelled > _COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0


class Signal:
    """Wakes all tasks that wait for the next change of something."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        """Wake those who wait now."""
        if self._waiters:
            waiters, self._waiters = self._waiters, set()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the next `fire`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
