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

    is_queued: bool = False
    """Whether a request waits for the rate limit."""
    failure: exceptions.ReplicateException | None = None
    """The failure of the last attempt, if another one follows."""

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


def note_queue(*, is_queued: bool) -> None:
    """Note that a request waits for the rate limit, or no longer does."""
    if (obstacles := _current.get()) is not None:
        obstacles.is_queued = is_queued
