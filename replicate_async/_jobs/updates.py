"""Updates of a job: its status, new log text and progress, as an async iterator."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Protocol, Self, TypeVar

import anyio

from .. import _arguments, exceptions
from .._concurrency import BatchIterator
from .._http.obstacles import Obstacles
from .._http.session import Pool
from .._unpicklable import Unpicklable
from ..types import Job, Progress, Status, Update
from .policy import has_ended

T = TypeVar("T")


class Followed(Protocol):
    """What is followed: one job, or a run that may have several, one after the other."""

    @property
    def job(self) -> Job:
        """The current job."""
        ...

    @property
    def pool(self) -> Pool:
        """The connections of the client, which are closed after the job was abandoned."""
        ...

    async def next_state(self) -> None:
        """Wait until the current job was polled again."""
        ...

    async def conclude(self, job: Job) -> bool:
        """Do what follows the end of a job: return whether it was the last one, or raise why it has no result."""
        ...

    async def abandon(self) -> None:
        """Cancel the current job, within a limited time."""
        ...

    def timed_out(self, seconds: float) -> Exception:
        """Return the exception for a timeout."""
        ...


class Updates(Unpicklable, BatchIterator[Update]):
    """The updates of a prediction or training: first its current state, then each change, up to its end.

    An async iterator and async context manager. If waiting for the next update is cancelled, a later step of the
    iteration goes on where it was.
    """

    _resumes = True

    # No cancel scope may be open between two steps, since another task may make the next one.

    def __init__(self, followed: Followed, timeout: float | None, *, cancels: bool) -> None:
        """Make an iterator; its time begins with the first step.

        Args:
            followed: What is followed.
            timeout: Seconds for all of it; None for 24 hours.
            cancels: Whether the job is cancelled if the iteration is not brought to its end.
        """
        self._followed: Followed = followed
        self._timeout: float | None = timeout
        self._cancels: bool = cancels
        self._ends_at: float | None = None
        self._obstacles: Obstacles = Obstacles()
        self._is_over: bool = False
        self._is_abandoned: bool = False
        """Whether waiting for an update was cancelled or interrupted, and the job was cancelled for that."""
        self._shown: tuple[Status, str, Progress | None] | None = None
        """The state of the job at the last update."""
        self._logs: str = ""
        """The logs that were yielded."""
        self._job: Job | None = None
        """The job of the last update."""
        self._guard: AsyncGenerator[None, None] | None = None
        """Abandons the job when this iterator is closed, or dropped before its end."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        if self._is_over:
            raise StopAsyncIteration
        if self._is_abandoned:
            raise exceptions.StreamAbandoned(self._followed.job)
        if self._ends_at is None:
            await self._begin()
        followed = self._followed
        while True:
            job = followed.job
            if (update := self._change(job)) is not None:
                return update
            if not has_ended(job):
                await self._in_time(followed.next_state)
            elif await self._in_time(partial(followed.conclude, job)):
                await self._end()
                raise StopAsyncIteration

    def _change(self, job: Job) -> Update | None:
        """Return what has changed since the last update; None if nothing has."""
        if job is not self._job:
            self._job, self._shown, self._logs = job, None, ""
        state = (job.status, job.logs, job.progress)
        if state == self._shown:
            return None
        self._shown = state
        new_logs = job.logs.removeprefix(self._logs)
        self._logs = job.logs or self._logs
        return Update(job.status, new_logs, job.progress)

    async def _begin(self) -> None:
        self._ends_at = time.monotonic() + (self._timeout or _arguments.MAX_WAIT)
        if self._cancels:
            self._guard = _abandon_at_end(self._followed)
            await anext(self._guard)

    async def _in_time(self, step: Callable[[], Awaitable[T]]) -> T:
        """Await one step, until the timeout at most."""
        assert self._ends_at is not None
        try:
            left = max(self._ends_at - time.monotonic(), 0)
            with anyio.move_on_after(left), self._obstacles.noted():
                return await step()
            await self._abandon()
            late = self._followed.timed_out(self._timeout or _arguments.MAX_WAIT)
            raise late from late.__cause__ or self._obstacles.failure
        except Exception:
            await self._end()
            raise
        except BaseException:
            if self._cancels:
                self._is_abandoned = True
                await self._abandon()
            raise

    async def _end(self) -> None:
        """End the iteration, and leave the job as it is."""
        self._is_over = True
        guard, self._guard = self._guard, None
        if guard is not None:
            await anext(guard, None)

    async def _abandon(self) -> None:
        """Cancel the job, if it is to be cancelled."""
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()

    async def aclose(self) -> None:
        """End the iteration. May be called more than once.

        The job is cancelled if `on_abandon` is `"cancel"` and it has not ended.
        """
        self._is_over = True
        await self._abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def _abandon_at_end(followed: Followed) -> AsyncGenerator[None, None]:
    """Abandon a job when this generator is closed; not if it is exhausted."""
    unregister = followed.pool.before_close(followed.abandon)
    try:
        yield
    except GeneratorExit:
        await followed.abandon()
        raise
    finally:
        unregister()
