"""A fan-out under way: reads the inputs, runs a limited number at a time, and passes on their outcomes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .. import exceptions
from .._files.disk import ready_directory, remove_partial_files
from .._jobs.context import Context
from .._jobs.run_state import RunState
from .._threads import in_thread
from .map_fingerprint import Fingerprint, fingerprint_of
from .map_inputs import Inputs, read
from .map_item import Item, Shared, Stopped, own_error
from .map_journal import Journal
from .map_plan import Plan
from .map_rows import Entry
from .map_secrets import Secrets
from .map_uncertain import UncertainCreates
from .outcome import Outcome

_logger = logging.getLogger("replicate_async")


class FanOut:
    """A fan-out under way, on the event loop on which it was made.

    `run` is the task that owns it. Any number of tasks may take its outcomes.
    """

    def __init__(self, context: Context, plan: Plan, inputs: Inputs) -> None:
        self._plan = plan
        self._inputs = inputs
        self._reading = anyio.CancelScope()
        self._shared = Shared(context, plan, self._reading, Secrets(context, plan))
        # Its buffer needs no bound of its own: an input is read when there is room in the window, in which it stays
        # until its outcome is taken.
        self._sender, self._receiver = anyio.create_memory_object_stream[Outcome](math.inf)
        self._window = anyio.Semaphore(plan.concurrency * (4 if plan.ordered else 2))
        self._places = anyio.Semaphore(plan.concurrency)
        self._arrived_early: dict[int, Outcome | None] = {}
        """With `ordered`: outcomes that arrived before earlier ones."""
        self._next_index = 0
        """With `ordered`: the index of the next outcome."""
        self._failure: Exception | None = None

    # What the iterator uses

    @property
    def in_flight(self) -> int:
        """Number of predictions that are running."""
        return self._shared.in_flight

    async def take(self) -> Outcome:
        """Wait for the next outcome, and make room for another input.

        Raises:
            EndOfStream: There is none.
            ClosedResourceError: The stream of outcomes was closed.
        """
        outcome = await self._receiver.receive()
        self._window.release()
        return outcome

    def take_ready(self) -> list[Outcome]:
        """Take the outcomes that are there already."""
        found: list[Outcome] = []
        with suppress(anyio.WouldBlock, anyio.EndOfStream):
            while True:
                found.append(self._receiver.receive_nowait())
                self._window.release()
        return found

    def stop(self) -> None:
        """Read and create nothing more."""
        self._shared.stop()

    def end(self) -> Exception:
        """Return the exception that ends the iteration."""
        failure, self._failure = self._failure, None
        return StopAsyncIteration() if failure is None else failure

    def close_sender(self) -> None:
        """Let the iteration end when all outcomes have been taken."""
        self._sender.close()

    def close_receiver(self) -> None:
        """Drop the outcomes that were not taken."""
        self._receiver.close()

    # The task that owns it

    async def run(self) -> None:
        """Read the inputs, and complete each."""
        try:
            await self._run()
        except Exception as error:  # noqa: BLE001  (it is raised where the outcomes are awaited)
            self._failure = self._failure or own_error(error, None)

    async def _run(self) -> None:
        shared, plan = self._shared, self._plan
        shared.context.transport.token()
        if plan.save_to is not None:
            await in_thread(remove_partial_files, await ready_directory(plan.save_to))
        values = read(self._inputs)
        if plan.interface is not None and (plan.journal or plan.save_to) is not None:
            with suppress(exceptions.ReplicateException):  # the items tell why
                await plan.interface.load()  # what is to be kept secret
        if plan.journal is None:
            await self._complete_all(values)
            return
        journal = shared.journal = Journal(plan.journal)
        try:
            await journal.open(plan.match.label)
            shared.uncertain = UncertainCreates(shared.context, plan.match, journal)
            await self._complete_all(values)
        finally:
            await _finish_cleanup(journal.aclose, self._grace)
        if shared.journal_failure is not None:
            self._failure = self._failure or shared.journal_loss()

    @property
    def _grace(self) -> float:
        """Seconds for the clean-up after a cancellation."""
        return 2 * self._shared.context.timings.cancel

    async def _complete_all(self, values: AsyncGenerator[Any, None]) -> None:
        async with anyio.create_task_group() as group:
            with self._reading:
                try:
                    await self._feed(values, group)
                except exceptions.JournalError as error:
                    self._fail(error, group)
                except Exception as error:  # noqa: BLE001  (of the inputs: raised when all that runs has ended)
                    self._failure = error

    def _fail(self, error: exceptions.JournalError, group: TaskGroup) -> None:
        """Create nothing more without the journal.

        What is in flight is paid for: it is awaited if the journal cannot be written, and else left to the next run.
        """
        if error.kind == "failed":
            self._shared.lose_journal(error)
        else:
            self._failure = self._failure or error
            group.cancel_scope.cancel()

    async def _feed(self, values: AsyncGenerator[Any, None], group: TaskGroup) -> None:
        """Read one input after the other, never more than the window ahead."""
        index = 0
        async with aclosing(values):
            await self._window.acquire()
            async for value in values:
                await self._begin(index, value, group)
                index += 1
                await self._window.acquire()

    async def _begin(self, index: int, value: Any, group: TaskGroup) -> None:
        entry: Entry = Entry()
        fingerprint: Fingerprint | None = None
        journal = self._shared.journal
        try:
            if isinstance(value, Exception):
                raise value
            if not isinstance(value, Mapping):
                raise exceptions.ArgumentTypeError(
                    f"inputs[{index}]", f"expected a mapping, got {type(value).__name__}"
                )
            if journal is not None:
                interface = self._plan.interface
                fingerprint = await fingerprint_of(
                    value, frozenset() if interface is None else interface.secrets_of(value)
                )
                entry = await journal.find(index, fingerprint)
        except exceptions.JournalError:
            raise
        except Exception as error:  # noqa: BLE001  (that of the item)
            self._emit(
                index,
                Outcome(
                    index, value if isinstance(value, Mapping) else {}, error=own_error(error, None)
                ),
            )
            return
        await self._places.acquire()
        run = RunState(
            self._shared.context,
            self._plan.target,
            self._plan.on_abandon,
            retry_failed=self._plan.retry_failed,
            failed_before=entry.attempt,
        )
        item = Item(self._shared, index, value, fingerprint, entry, run)
        group.start_soon(self._complete, item, group)

    async def _complete(self, item: Item, group: TaskGroup) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await item.complete()
        except Stopped:
            pass
        except exceptions.JournalError as error:
            self._fail(error, group)
            await _finish_cleanup(item.abandon, self._grace)
        except Exception as error:  # noqa: BLE001  (one failure harms no other item)
            if not isinstance(error, exceptions.ReplicateException):
                await _finish_cleanup(item.abandon, self._grace)  # what it may have created
            outcome = item.failed_outcome(error)
        except BaseException:
            await _finish_cleanup(item.abandon, self._grace)
            raise
        finally:
            self._places.release()
        self._emit(item.index, outcome)

    def _emit(self, index: int, outcome: Outcome | None) -> None:
        """Pass on the outcome of an input; None if there is none."""
        if not self._plan.ordered:
            self._pass_on(outcome)
            return
        self._arrived_early[index] = outcome
        while self._next_index in self._arrived_early:
            self._pass_on(self._arrived_early.pop(self._next_index))
            self._next_index += 1

    def _pass_on(self, outcome: Outcome | None) -> None:
        if outcome is None:
            self._window.release()
            return
        with suppress(anyio.BrokenResourceError):  # nobody takes it any more
            self._sender.send_nowait(outcome)


async def _finish_cleanup(clean_up: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Await a clean-up to its end, also if the task is cancelled once more.

    Args:
        clean_up: Does what is to be done; it is called again if a cancellation has interrupted it.
        seconds: For how long it is repeated.
    """
    until = time.monotonic() + seconds
    with anyio.CancelScope(shield=True):
        while True:
            try:
                await clean_up()
                return
            except asyncio.CancelledError:
                # At its end, `asyncio.run` cancels each task, and no shield holds that off.
                if time.monotonic() > until:
                    raise
            except (exceptions.ReplicateException, MemoryError) as error:
                _logger.warning("%s", str(error) or "not cleaned up: there is not enough memory")
                return
