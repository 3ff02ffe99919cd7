"""Notes why the requests of a run were not answered, for the message of its timeout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from .. import exceptions


@attrs.define(eq=False, repr=False)
class Obstacles:
    """What the requests of a run, such as its uploads and its create, wait for, or last failed with."""

    queue_wait: float | None = None
    """Seconds that a request was expected to wait for the rate limit when it began to; None if none waits."""
    failure: exceptions.ReplicateException | None = None
    """The failure of the last attempt, if another one follows."""

    @property
    def is_queued(self) -> bool:
        """Whether a request waits for the rate limit."""
        return self.queue_wait is not None

    def queue_full(self, seconds: float) -> exceptions.QueueFull | None:
        """Return the exception for a request that has waited for the rate limit for *seconds*; None if none waits."""
        return None if self.queue_wait is None else exceptions.QueueFull(self.queue_wait, seconds)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Have the requests that are made within the context note their obstacles here."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Obstacles | None] = ContextVar("obstacles", default=None)


def note_failure(failure: exceptions.ReplicateException | None) -> None:
    """Note the failure of an attempt; None if the attempt after it has succeeded."""
    if (obstacles := _current.get()) is not None:
        obstacles.failure = failure


def note_queue(wait: float | None) -> None:
    """Note for how many seconds a request will probably wait for the rate limit; None if it no longer does."""
    if (obstacles := _current.get()) is not None:
        obstacles.queue_wait = wait
