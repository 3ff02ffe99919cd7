"""Gates that requests pass: how many at a time, and how many in a minute."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal
from weakref import WeakValueDictionary

import anyio

from ..types import RateLimit

RateClass = Literal["creates", "others"]
"""The classes of requests that the API counts apart (:api:`rate-limits`)."""


class Slots:
    """A number of places for which tasks queue, first come first served.

    Taking a free place costs no suspension, so an idle gate costs next to nothing.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._queue: deque[anyio.Event] = deque()

    def try_acquire(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._free > 0 and not self._queue:
            self._free -= 1
            return True
        return False

    async def acquire(self, *, first: bool = False) -> None:
        """Take a place, or wait for one.

        Args:
            first: Stand in front of the queue: for who has had a place before, and was sent away.
        """
        if self.try_acquire():
            return

        turn = anyio.Event()
        if first:
            self._queue.appendleft(turn)
        else:
            self._queue.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release()  # it was handed over at the very moment of the cancellation
            else:
                self._queue.remove(turn)
            raise

    def release(self) -> None:
        """Give the place to who has waited longest, or back."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1


class Gate:
    """A token bucket for one account and class of requests, in the order of arrival.

    Bucket and queue belong to the process: clients on several threads and loops share them. Who waits
    sleeps until its turn is due and looks again, so nobody has to be woken across loops.
    """

    _LONGEST_SLEEP: Final = 1.0

    def __init__(
        self, limit: float, per: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a full bucket.

        Args:
            limit: How many requests it holds, and how many it gains in `per` seconds.
            per: Seconds.
            clock: Tells the time.
        """
        self._limit = self._capacity = max(limit, 1.0)
        self._per = per
        self._rate = limit / per
        self._clock = clock
        self._tokens = self._capacity
        self._filled = clock()
        self._closed_until = 0.0
        self._queue: OrderedDict[object, int] = OrderedDict()  # ticket: number, ascending
        self._arrived = 0
        self._lock = threading.Lock()

    def tighten(self, limit: float, per: float) -> None:
        """Take over a stricter limit, of another client of the same account."""
        with self._lock:
            if limit / per < self._limit / self._per:
                self._limit, self._per = max(limit, 1.0), per
                self._capacity = min(self._capacity, self._limit)
                self._rate = min(self._rate, limit / per)
                self._tokens = min(self._tokens, self._capacity)

    def try_pass(self) -> bool:
        """Pass if nobody waits and there is room."""
        with self._lock:
            now = self._clock()
            if self._queue or now < self._closed_until:
                return False
            tokens = self._tokens + (now - self._filled) * self._rate
            if tokens > self._capacity:
                tokens = self._capacity
            self._filled = now
            passed = tokens > 1 - 1e-9
            self._tokens = tokens - passed
            return passed

    def force(self) -> None:
        """Pass without waiting; those who come later wait for it."""
        with self._lock:
            self._fill()
            self._tokens -= 1

    async def wait(
        self, sleep: Callable[[float], Awaitable[None]], *, first: bool = False
    ) -> float:
        """Pass in the order of arrival; return the seconds that it took.

        Args:
            sleep: Sleeps.
            first: Stand in front of the queue: for who has waited before, and was sent away.
        """
        began = self._clock()
        ticket = object()
        with self._lock:
            head = next(iter(self._queue.values()), self._arrived)
            if first:
                number = head - 1
                self._queue[ticket] = number
                self._queue.move_to_end(ticket, last=False)
            else:
                number = self._queue[ticket] = self._arrived
                self._arrived += 1
        try:
            while True:
                with self._lock:
                    due = self._due()
                    # Who was cancelled in between makes this too high; then it looks again too late,
                    # by a second at most.
                    ahead = number - next(iter(self._queue.values()))
                    if ahead <= 0 and due <= 0:
                        self._tokens -= 1
                        return self._clock() - began
                pause = max(due, 0.0) + ahead / self._rate
                await sleep(min(max(pause, 0.001), self._LONGEST_SLEEP))
        finally:
            with self._lock:
                del self._queue[ticket]

    def learn(self, headers: Mapping[str, str]) -> None:
        """Go by what an answer says is left (:api:`response-headers`)."""
        said = headers.get("ratelimit-remaining")
        if said is None or len(said) > 9 or not said.isascii() or not said.isdigit():
            return
        left = int(said)
        if left >= self._tokens and self._capacity >= self._limit:
            return  # nothing new, and no need for the lock
        with self._lock:
            if left >= self._capacity < self._limit:
                # The account's limit has been raised again.
                self._capacity, self._rate = self._limit, self._limit / self._per
            self._fill()
            self._tokens = min(self._tokens, float(left))

    def refused(self, seconds: float, detail: str | None) -> None:
        """Close the gate after a 429.

        Args:
            seconds: For how long.
            detail: What the answer said: it may name a lower limit.
        """
        with self._lock:
            self._fill()
            if found := re.search(_LOWER, detail or ""):
                rate = int(found[1]) / 60
                self._capacity = min(self._limit, max(float(found[2] or 1), 1.0))
                self._rate = min(self._limit / self._per, max(rate, 1 / 600))
            # Other processes were sent away, too: they shall not come back all at once.
            pause = seconds * (1 + random.random() / 10) + random.random() * 0.05
            self._closed_until = max(self._closed_until, self._clock() + pause)
            self._tokens = 1 - pause * self._rate  # so that one passes then, and the rest in turn

    def after_fork(self) -> None:
        """Forget, in a child, who waited in the parent, and the lock that a thread of it may hold."""
        self._lock = threading.Lock()
        self._queue.clear()

    # With the lock held

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled) * self._rate)
        self._filled = now

    def _due(self) -> float:
        """Return the seconds until there is room for the next."""
        self._fill()
        missing = (1 - self._tokens) / self._rate if self._tokens < 1 - 1e-9 else 0.0
        return max(missing, self._closed_until - self._filled)


_LOWER: Final = r"(\d{1,9}) requests per minute(?: with a burst of (\d{1,9}))?"


class Gates:
    """The gates of one account."""

    def __init__(self, limit: RateLimit) -> None:
        self.creates = Gate(limit.creates, limit.per)
        self.others = Gate(limit.others, limit.per)

    def of(self, rate_class: RateClass) -> Gate:
        """Return the gate of a class of requests."""
        return self.creates if rate_class == "creates" else self.others


_gates: WeakValueDictionary[object, Gates] = WeakValueDictionary()


_gates_lock = threading.Lock()


def gates_for(account: object, limit: RateLimit) -> Gates:
    """Return the gates of an account (origin and token), which the whole process shares."""
    with _gates_lock:
        found = _gates.get(account)
        if found is None:
            found = _gates[account] = Gates(limit)
        else:
            found.creates.tighten(limit.creates, limit.per)
            found.others.tighten(limit.others, limit.per)
        return found


def _after_fork() -> None:
    global _gates_lock
    _gates_lock = threading.Lock()
    for gates in _gates.values():
        gates.creates.after_fork()
        gates.others.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
