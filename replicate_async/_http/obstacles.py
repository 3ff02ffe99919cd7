"""What keeps the requests of a run from being answered: for the error of one whose time is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from .. import exceptions


@attrs.define(eq=False, repr=False)
class Obstacles:
    """What the requests of a run, such as uploads and the create, have met last."""

    is_queued: bool = False
    """Whether one waits for the rate limit."""
    failure: exceptions.ReplicateException | None = None
    """The failure of an attempt that is to be repeated."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Return a context in which requests note what they meet."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Obstacles | None] = ContextVar("obstacles", default=None)


def note_failure(failure: exceptions.ReplicateException | None) -> None:
    """Note that an attempt has failed, or that the one after it has not."""
    if (obstacles := _current.get()) is not None:
        obstacles.failure = failure


def note_queue(*, is_queued: bool) -> None:
    """Note that a request waits for the rate limit, or does so no longer."""
    if (obstacles := _current.get()) is not None:
        obstacles.is_queued = is_queued
