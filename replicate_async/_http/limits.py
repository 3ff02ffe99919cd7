"""Client-side limits: requests at the same time, and requests per period."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final, Literal
from weakref import WeakValueDictionary

import anyio
import attrs

from .. import exceptions
from ..types import QueueState, RateLimit, RateLimitState
from .retry import MIN_PAUSE

RateClass = Literal["creates", "others"]
"""Classes of requests, each with a rate limit of its own (:api:`rate-limits`)."""

_MAX_SLEEP: Final = 1.0
"""Seconds after which a waiting request checks its gate again, even if its turn is later."""

_MAX_PAUSE: Final = 8.0
"""Upper bound in seconds of a gate's shortest pause, which begins with `MIN_PAUSE` and doubles with each 429 in a row."""

_REMAINING: Final = re.compile(r"\d{1,9}", re.ASCII)

_LOWER_LIMIT: Final = re.compile(
    r"(\d{1,9}) requests per minute(?: with a burst of (\d{1,9}))?", re.ASCII
)


class Slots:
    """A limited number of slots, given to tasks in the order of their arrival.

    Unlike with `anyio.Semaphore`, a task can go to the front of the queue, as one does that had a slot before.
    """

    def __init__(self, number: int) -> None:
        self.number: Final = number
        """Number of slots, free or not."""
        self._free = number
        self._queue: deque[anyio.Event] = deque()

    def try_acquire(self) -> bool:
        """Take a slot if one is free."""
        if self._free > 0 and not self._queue:
            self._free -= 1
            return True
        return False

    async def acquire(self, *, first: bool = False) -> None:
        """Take a slot; wait for one if none is free.

        Args:
            first: Whether to go to the front of the queue.
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
                self.release()  # the slot arrived together with the cancellation
            else:
                self._queue.remove(turn)
            raise

    def release(self) -> None:
        """Give the slot back, or pass it on to the first task in the queue."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1


@attrs.define(eq=False, repr=False)
class TokenBucket:
    """The arithmetic of a token bucket, for callers that have a clock and a lock."""

    capacity: float
    """Number of tokens that fit in."""
    rate: float
    """Number of tokens added per second."""
    tokens: float = attrs.field(init=False)
    """Number of tokens in it; negative if tokens were taken in advance."""
    filled: float = attrs.field(default=float("-inf"), init=False)
    """Time of the last refill."""

    def __attrs_post_init__(self) -> None:
        self.tokens = self.capacity

    def fill(self, now: float) -> None:
        """Add the tokens for the time since the last refill."""
        if now > self.filled:
            self.tokens = min(self.capacity, self.tokens + (now - self.filled) * self.rate)
            self.filled = now

    def due(self, now: float) -> float:
        """Refill, and return the number of seconds until there is a token."""
        self.fill(now)
        return (1 - self.tokens) / self.rate if self.tokens < 1 - 1e-9 else 0.0


class Gate:
    """A token bucket for one account and class of requests, with a queue in the order of arrival.

    Bucket and queue belong to the process: clients on several threads and event loops share them. A waiting
    request sleeps until its turn is due and checks again, since it cannot be woken from another event loop.
    """

    def __init__(
        self, limit: float, per: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make a full bucket.

        Args:
            limit: Capacity of the bucket in requests, which is regained every `per` seconds.
            per: Length of the period in seconds.
            clock: Returns the current time in seconds.
        """
        self._limit = max(limit, 1.0)
        self._per = per
        self._clock = clock
        self._bucket = TokenBucket(self._limit, limit / per)
        self._closed_until = float("-inf")
        self._least_pause = MIN_PAUSE
        self._queue: OrderedDict[object, int] = OrderedDict()
        """The tickets of waiting requests with their numbers, which ascend from the head of the queue."""
        self._arrived = 0
        """Number of the next request that arrives."""
        self._lock = threading.Lock()

    def tighten(self, limit: float, per: float) -> None:
        """Adopt a stricter limit, of another client of the same account."""
        with self._lock:
            if limit / per < self._limit / self._per:
                self._limit, self._per = max(limit, 1.0), per
                bucket = self._bucket
                bucket.capacity = min(bucket.capacity, self._limit)
                bucket.rate = min(bucket.rate, limit / per)
                bucket.tokens = min(bucket.tokens, bucket.capacity)

    def try_pass(self) -> bool:
        """Pass if the queue is empty and the bucket is not; return whether it did."""
        with self._lock:
            if self._queue or self._due() > 0:
                return False
            self._bucket.tokens -= 1
            return True

    def force(self) -> None:
        """Pass without waiting; later requests wait longer for it."""
        with self._lock:
            self._bucket.fill(self._clock())
            self._bucket.tokens -= 1

    def state(self) -> QueueState:
        """Return how many requests may pass now, and how many wait."""
        with self._lock:
            due, queued = self._due(), len(self._queue)
            wait = 0.0 if not queued and due <= 0 else due + queued / self._bucket.rate
            remaining = max(self._bucket.tokens - queued, 0.0) if due <= 0 else 0.0
            return QueueState(remaining, queued, wait)

    async def wait(self, *, first: bool = False, longest: float | None = None) -> float:
        """Pass in the order of arrival, and return the number of seconds waited.

        Args:
            first: Whether to go to the front of the queue.
            longest: Longest wait in seconds; None for any.

        Raises:
            QueueFull: The wait would be longer.
        """
        began = self._clock()
        ticket = object()
        with self._lock:
            if longest is not None:
                ahead = 0 if first else len(self._queue)
                wait = self._due() + ahead / self._bucket.rate
                if wait > longest:
                    raise exceptions.QueueFull(wait, longest)
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
                    # This also counts requests ahead that were cancelled: then this one checks again too late, by
                    # at most `_MAX_SLEEP`.
                    ahead = number - next(iter(self._queue.values()))
                    if ahead <= 0 and due <= 0:
                        self._bucket.tokens -= 1
                        return self._clock() - began
                    pause = due + ahead / self._bucket.rate
                await anyio.sleep(min(max(pause, 0.001), _MAX_SLEEP))
        finally:
            with self._lock:
                del self._queue[ticket]

    def learn(self, headers: Mapping[str, str]) -> None:
        """Adopt the number of remaining requests that an answer states (:api:`response-headers`)."""
        self._least_pause = MIN_PAUSE
        stated = headers.get("ratelimit-remaining")
        if stated is None or not _REMAINING.fullmatch(stated):
            return
        remaining = float(stated)
        bucket = self._bucket
        with self._lock:
            if remaining >= bucket.capacity < self._limit:
                # The account's limit has been raised again.
                bucket.capacity, bucket.rate = self._limit, self._limit / self._per
            bucket.fill(self._clock())
            bucket.tokens = min(bucket.tokens, remaining)

    def refused(self, seconds: float, detail: str | None) -> None:
        """Close the gate after a 429.

        Args:
            seconds: How long the server asks to wait. If that is next to nothing, the gate closes for longer.
            detail: Text of the answer, which may state a lower limit.
        """
        with self._lock:
            now = self._clock()
            bucket = self._bucket
            bucket.fill(now)
            if found := _LOWER_LIMIT.search(detail or ""):
                rate = int(found[1]) / 60
                bucket.capacity = min(self._limit, max(float(found[2] or 1), 1.0))
                bucket.rate = min(self._limit / self._per, max(rate, 1 / 600))
            if seconds < self._least_pause:
                seconds = self._least_pause
                if now >= self._closed_until:  # else it was sent before the last refusal
                    self._least_pause = min(2 * seconds, _MAX_PAUSE)
            # Other processes were refused, too: without jitter, all would come back at once.
            pause = seconds * (1 + random.random() / 10) + random.random() * 0.05
            self._closed_until = max(self._closed_until, now + pause)
            bucket.tokens = 1 - pause * bucket.rate  # one request passes then, the rest in turn

    def after_fork(self) -> None:
        """Forget the queue of the parent process, and the lock that one of its threads may hold."""
        self._lock = threading.Lock()
        self._queue.clear()

    def _due(self) -> float:
        """Return the number of seconds until the next request may pass; called with the lock held."""
        now = self._clock()
        return max(self._bucket.due(now), self._closed_until - now)


@attrs.define(eq=False, repr=False)
class Gates:
    """The gates of one account."""

    creates: Gate
    others: Gate

    def state(self) -> RateLimitState:
        """Return the state of both."""
        return RateLimitState(self.creates.state(), self.others.state())

    def of(self, rate_class: RateClass) -> Gate:
        """Return the gate of a class of requests."""
        return self.creates if rate_class == "creates" else self.others


_gates: WeakValueDictionary[object, Gates] = WeakValueDictionary()
_gates_lock = threading.Lock()


def gates_for(account: object, limit: RateLimit) -> Gates:
    """Return the gates of an account (origin and token), which all clients of the process share."""
    with _gates_lock:
        found = _gates.get(account)
        if found is None:
            found = _gates[account] = Gates(
                Gate(limit.creates, limit.per), Gate(limit.others, limit.per)
            )
        else:
            found.creates.tighten(limit.creates, limit.per)
            found.others.tighten(limit.others, limit.per)
        return found


class RecentGates:
    """The gates of the accounts that a client and its views have used last.

    An app may make a view for each request, as with the tokens of its users. This keeps the gates of an account, and
    what they have learnt of its limits, alive between two views.
    """

    _MAX: Final = 256

    def __init__(self) -> None:
        self._by_account: OrderedDict[object, Gates] = OrderedDict()

    def of(self, account: object, limit: RateLimit) -> Gates:
        """Return the gates of an account (origin and token)."""
        gates = gates_for(account, limit)
        with _gates_lock:
            self._by_account[account] = gates
            self._by_account.move_to_end(account)
            if len(self._by_account) > self._MAX:
                self._by_account.popitem(last=False)
        return gates


def _after_fork() -> None:
    global _gates_lock
    _gates_lock = threading.Lock()
    for gates in _gates.values():
        gates.creates.after_fork()
        gates.others.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
