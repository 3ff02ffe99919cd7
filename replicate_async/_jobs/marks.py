"""Marks on creates, by which the result of a create without an answer is recognised in the list.

The mark of a create is its deadline: the API shows `Cancel-After` as the time between `created_at` and `deadline`
(:api:`deadline`), and the number of seconds can be chosen within bounds. A create without a deadline gets one of
about a day. A deadline that the user requested is extended by up to a tenth, and one that only backs up a timeout
by up to a half, since it is what ends the prediction of a process that was killed; for both, the range is three seconds
at least.
"""

from __future__ import annotations

import os
import random
import threading
from datetime import datetime
from typing import Final, Protocol

MAX_DEADLINE: Final = 24 * 3600
"""Longest deadline in seconds that the API is assumed to accept."""

DAY_MARKS: Final = 7200
"""Number of different marks for creates without a deadline, none of which is shorter than 22 hours."""

_MIN_MARKS: Final = 4

_MAX_MARKS: Final = 600

_TOLERANCE: Final = 0.25
"""Seconds by which `deadline` may differ from `created_at` plus the mark."""


class _Dated(Protocol):
    @property
    def created_at(self) -> datetime | None: ...
    @property
    def deadline(self) -> datetime | None: ...


def _random_prime() -> int:
    """Return a prime that is larger than any number of marks."""
    while True:
        number = random.randrange(10_001, 100_000, 2)
        if all(number % divisor for divisor in range(3, 317, 2)):
            return number


class _Counter:
    """Counts the marks of this process. It starts at random, again after a fork.

    The difference between successive marks is a prime, so that as many in a row as there are marks all differ. Each
    process has another step: with equal ones, two processes that create in turns would share all marks once they
    share one.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start at a random number, with a random step."""
        self._lock = threading.Lock()
        self._step = _random_prime()
        self._next = random.randrange(1 << 32)

    def take(self) -> int:
        """Return the next number."""
        with self._lock:
            self._next += self._step
            return self._next


_counter: Final = _Counter()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_counter.restart)


def marked_deadline(seconds: int | None, *, is_backup: bool) -> int | None:
    """Return a deadline that carries a mark, and is not shorter than the requested one.

    Args:
        seconds: The requested deadline in seconds; None for none.
        is_backup: Whether it only backs up a timeout.

    Returns:
        The deadline in seconds; None if there is no room for a mark, because the deadline is too long.
    """
    if seconds is None:
        return MAX_DEADLINE - DAY_MARKS + _counter.take() % DAY_MARKS
    # A backup may be extended further, since the client itself cancels the prediction after the timeout.
    wanted = min(max(seconds // (2 if is_backup else 10), _MIN_MARKS), _MAX_MARKS)
    marks = min(wanted, MAX_DEADLINE - seconds)
    return None if marks < _MIN_MARKS else seconds + _counter.take() % marks


def carries(job: _Dated, seconds: int) -> bool:
    """Return whether a job carries a mark: its deadline is that number of seconds after its creation."""
    if job.created_at is None or job.deadline is None:
        return False
    return abs((job.deadline - job.created_at).total_seconds() - seconds) <= _TOLERANCE
