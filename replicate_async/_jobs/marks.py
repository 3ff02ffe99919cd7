"""Marks on creates, so that a create that got no answer is recognised in the list.

The mark is the deadline: the API echoes `Cancel-After` as the time between `created_at` and `deadline`
(:api:`deadline`), and the number of seconds is ours to choose within bounds. A create without a deadline
gets one of about a day. To a deadline that a user gives, up to a tenth is added, and to one that is only the
net beneath a timeout up to a half; at least three seconds.
"""

from __future__ import annotations

import os
import random
import threading
from datetime import datetime
from typing import Final, Protocol

LONGEST_DEADLINE: Final = 24 * 3600
"""The longest deadline in seconds that the API is assumed to take."""

DAY_MARKS: Final = 7200
"""How many marks there are for a create without a deadline: none is ended within 22 hours."""

_FEWEST: Final = 4
_MOST: Final = 600

_STEP: Final = 4799
"""Marks follow each other in steps of so many, a prime, so that any number of them in a row differ."""

_TOLERANCE: Final = 0.25
"""By how many seconds `deadline` may differ from `created_at` plus the mark."""


class _Dated(Protocol):
    @property
    def created_at(self) -> datetime | None: ...
    @property
    def deadline(self) -> datetime | None: ...


class _Counter:
    """Counts the marks of this process; it starts at random, after a fork, too."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start anew."""
        self._lock = threading.Lock()
        self._next = random.randrange(1 << 32)

    def take(self) -> int:
        """Return the next number."""
        with self._lock:
            self._next += _STEP
            return self._next


_counter: Final = _Counter()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_counter.restart)


def marked_deadline(seconds: int | None, *, is_net: bool) -> int | None:
    """Return the seconds of a deadline that carries a mark, never fewer than those asked for.

    Args:
        seconds: The deadline that was asked for; None if there is none.
        is_net: Whether it is only the net beneath a timeout.

    Returns:
        The seconds to send; None if no mark fits, because the deadline is too long.
    """
    if seconds is None:
        return LONGEST_DEADLINE - DAY_MARKS + _counter.take() % DAY_MARKS
    # More for the net, since this package keeps the timeout itself.
    wanted = min(max(seconds // (2 if is_net else 10), _FEWEST), _MOST)
    marks = min(wanted, LONGEST_DEADLINE - seconds)
    return None if marks < _FEWEST else seconds + _counter.take() % marks


def carries(job: _Dated, seconds: int) -> bool:
    """Tell whether a job in the list carries a mark: its deadline is so many seconds after its creation."""
    if job.created_at is None or job.deadline is None:
        return False
    return abs((job.deadline - job.created_at).total_seconds() - seconds) <= _TOLERANCE
