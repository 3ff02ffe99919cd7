"""A run in single steps, which are made by those who follow it, so that they see its state in between."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from .. import _arguments, exceptions
from .._http.session import Pool
from ..types import Job
from . import running
from .abandoning import abandon, until_closed
from .job import next_state, run_timeout
from .policy import has_ended
from .prediction import Output, Prediction
from .request import CreateRequest
from .run_state import RunState, begin_span, end_span


class StepwiseRun:
    """A run that several tasks may follow. Its waits can be cancelled and begun again; `leave` abandons it."""

    # No cancel scope is open between two steps, since each may be made by another task.

    def __init__(
        self,
        state: RunState,
        make_request: Callable[[], Awaitable[CreateRequest]],
        *,
        timeout: float | None,
    ) -> None:
        """Make a run; nothing is sent before `start`.

        Args:
            state: The run, which has not begun.
            make_request: Checks the options, and encodes the input.
            timeout: Seconds for all of it; None for 24 hours.
        """
        self._state = state
        self._make_request = make_request
        self._timeout = timeout or _arguments.MAX_WAIT
        self._ends_at = 0.0
        self._request: CreateRequest | None = None
        self._latest: Prediction | None = None
        """The last prediction, also while the next one is created."""
        self._error: Exception | None = None
        """Why the run has ended, unless by a result."""
        self._has_result = False
        self._concluding = anyio.Lock()
        self._unregister: Callable[[], None] | None = None
        """Removes what was registered with the client, to abandon the run before the client is closed."""

    @property
    def job(self) -> Prediction:
        """The last prediction."""
        assert self._latest is not None
        return self._latest

    @property
    def pool(self) -> Pool:
        """The connections of the client."""
        return self._state.context.transport.pool

    async def start(self) -> None:
        """Create the prediction. If that fails or is cancelled, nothing is left behind."""
        self._ends_at = time.monotonic() + self._timeout
        begin_span(self._state)
        try:
            await self._in_time(self._begin)
        except BaseException as error:
            end_span(self._state, error)
            raise
        self._unregister = self.pool.before_close(self.abandon)

    async def _begin(self) -> None:
        self._request = await self._make_request()
        await self._begin_next()

    async def _begin_next(self) -> None:
        assert self._request is not None
        self._latest = await running.start(self._state, self._request)

    async def result(self) -> Output:
        """Wait for the end of the run, and return its output."""
        while True:
            job = self.job
            if self._error is None and not has_ended(job):
                await self._step(partial(running.wait_for_result, self._state, job))
            if await self.conclude(job):
                return running.output_of(self._state, job)

    async def next_state(self) -> None:
        """Wait until the current prediction was polled again."""
        state, job = self._state, self.job
        if self._error is not None:
            raise self._error
        if state.start_timeout is not None and running.is_starting(job):
            await self._step(partial(running.next_state_of_start, state, job, state.start_timeout))
        else:
            await self._step(partial(next_state, job))

    async def _step(self, step: Callable[[], Awaitable[None]]) -> None:
        """Await a step that follows the current prediction, until the timeout at most."""
        work = partial(until_closed, self._state.context, step)
        try:
            await self._in_time(partial(running.follow_closely, self.job, work))
        except (exceptions.ContactLost, exceptions.StartTimeout) as error:
            self._error = error
            raise

    async def conclude(self, job: Job) -> bool:
        """Do what follows the end of a prediction.

        Returns:
            Whether the run has a result; False if another prediction was created.

        Raises:
            Exception: Why the run has no result.
        """
        async with self._concluding:
            if self._error is not None:
                raise self._error
            if self._has_result:
                return True
            if job is not self._state.prediction:
                return False  # another task was quicker
            failure = running.failure_of_run(self._state)
            if failure is None:
                self._has_result = True
                return True
            if running.tries_again(self._state, failure):
                await self._go_on()
                return False
            self._error = failure
            raise failure

    async def _go_on(self) -> None:
        """Create another prediction after one that failed."""
        try:
            await self._in_time(self._begin_next)
        except Exception as error:
            self._error = error
            raise
        except BaseException:
            # No other one must be created, since the create that was interrupted may have made one.
            reason = "creating another prediction was cancelled or interrupted"
            self._error = exceptions.ContactLost(self.job, reason)
            raise

    async def _in_time(self, step: Callable[[], Awaitable[None]]) -> None:
        """Await one step, until the timeout at most; a prediction that has succeeded by then is a result."""
        left = max(self._ends_at - time.monotonic(), 0)
        with anyio.move_on_after(left), self._state.obstacles.noted():
            await step()
            return
        await self.abandon()
        if await running.has_succeeded_late(self._state):
            self._latest = self._state.prediction
            return
        self._error = running.timed_out(self._state, self._timeout)
        raise self._error from self._error.__cause__

    async def abandon(self) -> None:
        """Do with the prediction what `on_abandon` says, unless it has ended."""
        await abandon(self._state)

    async def leave(self) -> None:
        """Abandon the run, unless it has ended. An error that was raised has said what became of it."""
        try:
            if self._error is None:
                await self.abandon()
        finally:
            if self._unregister is not None:
                self._unregister()
            end_span(self._state, self._error)

    def timed_out(self, seconds: float) -> Exception:
        """Return the exception for a timeout of those who follow the run."""
        return run_timeout(self.job, seconds, self._state.obstacles.failure)
