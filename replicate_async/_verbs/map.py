"""`map`: runs a model on many inputs. Each is paid for once, and its files are saved before its outcome is yielded.

One task owns a fan-out, and a task group in it owns the inputs in progress. The iterator holds nothing open between
two outcomes: it may be left at any point, and then cancels the owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

import anyio

from .. import exceptions
from .._bars import Bar
from .._concurrency import BatchIterator, shielded
from .._jobs.context import Context
from .._unpicklable import Unpicklable
from .map_fan_out import FanOut
from .map_inputs import Inputs
from .map_item import own_error
from .map_plan import Plan
from .outcome import Outcome

__all__ = ("Outcomes",)


class Outcomes(Unpicklable, BatchIterator[Outcome]):
    """The outcomes of a batch as they arrive: an async iterator and async context manager.

    Nothing is read or sent before the first outcome is requested. Leaving the loop early ends the batch, and so
    does a wait for an outcome that is cancelled or interrupted.

    Raises, from the iteration:
        StreamAbandoned: The batch ended before, when waiting for an outcome was cancelled or interrupted.
        ClientClosed: The client was closed before the last outcome.
        JournalError: The journal cannot be used.
    """

    def __init__(
        self, context: Context, plan: Plan, inputs: Inputs, bar: Bar | None = None
    ) -> None:
        self._context: Context = context
        self._plan: Plan = plan
        self._inputs: Inputs = inputs
        self._bar: Bar | None = bar
        self._failed: int = 0
        self._fan_out: FanOut | None = None
        self._owner: asyncio.Task[None] | None = None
        self._is_stopped: bool = False
        self._is_over: bool = False
        self._is_abandoned: bool = False
        """Whether waiting for an outcome was cancelled or interrupted, which has ended the fan-out."""
        self._is_cut_off: bool = False
        """Whether the client was closed, which has ended the fan-out."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        if self._is_over:
            raise self._abandonment() or StopAsyncIteration
        try:
            fan_out = self._fan_out or self._start()
        except MemoryError as error:
            raise own_error(error, None) from error
        try:
            outcome = await fan_out.take()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            assert self._owner is not None
            self._is_cut_off = self._owner.cancelled() and not self._is_over
            await self.aclose()
            raise self._abandonment() or fan_out.end() from None
        except BaseException:
            self._is_abandoned = not self._is_over
            await self.aclose()
            raise
        self._count(outcome)
        return outcome

    def _count(self, outcome: Outcome) -> None:
        if self._bar is not None:
            self._failed += outcome.error is not None
            self._bar.describe(failed=self._failed, running=self.in_flight)
            self._bar.add(1)

    def _abandonment(self) -> exceptions.ReplicateException | None:
        """Return the exception for the next outcome, if the fan-out was abandoned."""
        if self._is_abandoned:
            return exceptions.StreamAbandoned(None, self._plan.left_behind)
        if not self._is_cut_off:
            return None
        closed = exceptions.ClientClosed()
        closed.add_note(self._plan.left_behind)
        return closed

    def _start(self) -> FanOut:
        fan_out = FanOut(self._context.without_max_queue(), self._plan, self._inputs)
        # A task of its own, not of a group: a group has to be left by the task that has entered it, but the
        # iterator may be left at any point.
        self._owner = asyncio.create_task(fan_out.run(), name="replicate_async.map")
        self._owner.add_done_callback(lambda _: fan_out.close_sender())
        self._context.fan_outs.add(self._owner)
        self._owner.add_done_callback(self._context.fan_outs.discard)
        self._fan_out = fan_out
        if self._is_stopped:
            fan_out.stop()
        return fan_out

    async def _batch(self) -> list[Outcome]:
        """Wait for an outcome, and return all that are there."""
        first = await self.__anext__()
        further = [] if self._fan_out is None else self._fan_out.take_ready()
        for outcome in further:
            self._count(outcome)
        return [first, *further]

    @property
    def in_flight(self) -> int:
        """Number of predictions that are running."""
        return 0 if self._fan_out is None else self._fan_out.in_flight

    def stop(self) -> None:
        """Create no further predictions, and read no further inputs.

        The iteration continues until all predictions that were created have ended. May be called more than
        once, from any thread, and from signal handlers.
        """
        self._is_stopped = True
        if self._fan_out is not None and self._owner is not None:
            with suppress(RuntimeError):  # the event loop is closed
                self._owner.get_loop().call_soon_threadsafe(self._fan_out.stop)

    async def collect(self) -> list[Outcome]:
        """Wait for all outcomes. Does not raise the errors of single inputs.

        Returns:
            The outcomes of all inputs, in the order of the inputs.
        """
        found = [outcome async for outcome in self]
        return sorted(found, key=lambda outcome: outcome.index)

    async def aclose(self) -> None:
        """End the batch: create nothing more, and cancel the predictions in flight or leave them running.

        `on_abandon` of `map` decides which. May be called more than once.
        """
        self._is_over = True
        try:
            if self._owner is not None:
                await end_fan_outs(self._context, [self._owner])
        finally:
            if self._fan_out is not None:
                self._fan_out.close_receiver()
            if self._bar is not None:
                self._bar.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Left without `aclose`, as by a `break` out of the loop: like an asynchronous generator, it is ended on
        # its event loop.
        if self._fan_out is not None:
            self._fan_out.close_receiver()
        if self._owner is not None and not self._owner.done():
            with suppress(RuntimeError):  # the event loop is closed
                self._owner.get_loop().call_soon_threadsafe(self._owner.cancel)


async def end_fan_outs(context: Context, owners: Iterable[asyncio.Task[None]]) -> None:
    """Cancel fan-outs of the running event loop, and wait for their ends; bounded.

    Args:
        context: The client.
        owners: The tasks that own them.
    """
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    ours = [
        owner
        for owner in list(owners)
        if not owner.done() and owner.get_loop() is loop and owner is not this
    ]
    for owner in ours:
        owner.cancel()

    async def wait() -> None:
        await asyncio.wait(ours, timeout=2 * context.timings.cancel)

    if ours:
        await shielded(wait)
