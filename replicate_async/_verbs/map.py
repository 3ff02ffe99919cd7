"""`map`: a model over many inputs. So many at a time, each paid for once, and its files saved before it is told.

One task owns a fan-out, and a task group in it owns the items. The iterator takes outcomes out of a buffer; it
holds nothing open between two of them, so it may be left at any point, and then cancels the owner.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self

import anyio
import attrs

from .. import _arguments, exceptions
from .._arguments import check_events, check_webhook
from .._codec import structure
from .._concurrency import gather_limited, in_thread
from .._files.disk import ready_directory
from .._files.inputs import is_file
from .._files.output import FileOutput
from .._http.limits import Slots
from .._jobs import running
from .._jobs.context import Context
from .._jobs.creating import create
from .._jobs.job import has_ended
from .._jobs.pending import ListMatch
from .._jobs.policy import Timings
from .._jobs.request import CreateOptions, CreateRequest, CreateTarget, prepare
from .._jobs.running import RunState
from .._unpicklable import Unpicklable
from ..resources.deployments import Deployment
from ..resources.models import Model
from ..resources.predictions import Output, Prediction
from ..resources.versions import Version
from .map_inputs import Inputs, _Reader, _reader
from .map_journal import Entry, Fingerprint, Journal, fingerprint, sent_hash
from .map_outputs import _begin_saving, _prefix, _record_name, _sweep, _write, planned
from .map_uncertain import _Uncertain
from .run import target_of
from .use import ModelFunction, StreamingFunction

__all__ = ("Outcome", "Outcomes")


_logger = logging.getLogger("replicate_async")


CONCURRENCY: Final = 64
"""How many predictions are in flight where the user names no number."""


_CREATING: Final = 16
"""How many creates are under way at a time: so many are uncertain after a sudden end."""


_SAVED_AT_ONCE: Final = 4


_GRACE: Final = 2 * Timings().cancel


@attrs.frozen(eq=False)
class Outcome:
    """What became of one input."""

    index: int
    """Which input it was, counted from 0."""
    input: Mapping[str, Any]
    """The input, as it was given."""
    prediction: Prediction | None = None
    """The prediction; None if none was created."""
    output: Output = None
    """The final output, as `run` returns it; None without one."""
    error: Exception | None = None
    """What went wrong; None if nothing did."""
    saved: tuple[Path, ...] = ()
    """The files of the output on the disk, if `save_to` was given."""

    def result(self) -> Output:
        """Return the output, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.output


@attrs.frozen
class Plan:
    """How a fan-out is carried out: the options of `map`, checked."""

    target: CreateTarget | str
    shown: str
    """What the journal calls the target."""
    wanted: ListMatch
    """How the list shows what was created."""
    options: CreateOptions
    concurrency: int
    ordered: bool
    save_to: Path | None
    journal: Path | None
    timeout: float | None
    retry_failed: int
    on_abandon: Literal["cancel", "leave"]
    cancel_when_late: bool
    function: ModelFunction | None = None


def plan(
    ref: str | Model | Version | Deployment | ModelFunction | StreamingFunction,
    *,
    options: CreateOptions,
    concurrency: int | None,
    ordered: bool,
    save_to: str | os.PathLike[str] | None,
    journal: str | os.PathLike[str] | None,
    timeout: float | timedelta | None,
    retry_failed: int,
    on_abandon: Literal["cancel", "leave"] | None,
) -> Plan:
    """Return the options of `map` in one, after a look at them.

    Raises:
        ArgumentError: One of them is impossible.
    """
    function: ModelFunction | None = None
    if isinstance(ref, StreamingFunction):
        raise exceptions.ArgumentTypeError("ref", "a streaming function has no final output to map")
    if isinstance(ref, ModelFunction):
        function, ref = ref, ref._ref
        theirs = function._options
        options = attrs.evolve(
            theirs.create,
            webhook=options.webhook,
            webhook_events_filter=options.webhook_events_filter,
            **{
                name: value
                for name in ("cancel_after", "file_encoding_strategy", "use_file_output")
                if (value := getattr(options, name)) is not None
            },
        )
        timeout = theirs.timeout if timeout is None else timeout
        retry_failed = retry_failed or theirs.retry_failed
    target = target_of(ref)
    seconds = _arguments.timeout_seconds(timeout)
    if concurrency is None:
        concurrency = CONCURRENCY
    for name, number, least in (("concurrency", concurrency, 1), ("retry_failed", retry_failed, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise exceptions.ArgumentError(name, f"{number!r} is no number from {least} on")
    if on_abandon is not None:
        _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    check_webhook(options.webhook)
    check_events(options.webhook_events_filter)
    if options.cancel_after is not None:
        _arguments.cancel_after_seconds(options.cancel_after)
    elif seconds is not None and on_abandon != "leave":
        # So that a process that is killed stops paying, too.
        options = attrs.evolve(options, cancel_after=max(5, math.ceil(seconds)))
    wanted = ListMatch(target, model=target) if isinstance(target, str) else target.wanted
    return Plan(
        target=target,
        shown=wanted.shown,
        wanted=wanted,
        options=attrs.evolve(options, wait=None),
        concurrency=concurrency,
        ordered=bool(ordered),
        save_to=_path(save_to, "save_to"),
        journal=_path(journal, "journal"),
        timeout=seconds,
        retry_failed=retry_failed,
        on_abandon=on_abandon or ("cancel" if journal is None else "leave"),
        cancel_when_late=on_abandon != "leave",
        function=function,
    )


def _path(value: str | os.PathLike[str] | None, argument: str) -> Path | None:
    if value is None:
        return None
    try:
        return Path(value)
    except TypeError:
        raise exceptions.ArgumentTypeError(argument, f"expected a path, got {value!r}") from None


class Outcomes(Unpicklable):
    """The outcomes of a fan-out, as they come: an async iterator and async context manager.

    Nothing is read or sent before the first one is asked for. Leaving the loop early ends the fan-out.
    """

    def __init__(self, context: Context, plan: Plan, inputs: Inputs) -> None:
        self._fan = FanOut(context, plan, inputs)
        self._task: asyncio.Task[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        fan = self._fan
        while not fan.ready:
            await self._wait()
        return fan.take()

    async def _batch(self) -> list[Outcome]:
        """Return all that are there by now, one at least; the sync facade takes them at one go."""
        found = [await self.__anext__()]
        while self._fan.ready:
            found.append(self._fan.take())
        return found

    async def _wait(self) -> None:
        fan = self._fan
        try:
            if self._task is None and not fan.over:
                self._task = asyncio.create_task(fan.run(), name="replicate_async.map")
                fan.context.fan_outs.add(self._task)
                self._task.add_done_callback(fan.context.fan_outs.discard)
            while not fan.ready and not fan.over:
                await fan.changed()
        except BaseException:
            await self.aclose()
            raise
        if not fan.ready:
            await self.aclose()
            raise fan.end()

    @property
    def in_flight(self) -> int:
        """Number of predictions that are running."""
        return self._fan.in_flight

    def stop(self) -> None:
        """Create no further predictions, and read no further inputs.

        The iteration goes on until all predictions that were created have ended. May be called more than
        once, from any thread, and from signal handlers.
        """
        self._fan.stopping = True
        if self._task is not None:
            with suppress(RuntimeError):  # the event loop is closed
                self._task.get_loop().call_soon_threadsafe(self._fan.stop)

    async def collect(self) -> list[Outcome]:
        """Return the outcomes of all inputs, in the order of the inputs. Raises none of their errors."""
        found = [outcome async for outcome in self]
        return sorted(found, key=lambda outcome: outcome.index)

    async def aclose(self) -> None:
        """End the fan-out: nothing more is created. What is in flight is cancelled, or left to run.

        Which of the two, `on_abandon` says. It may be called twice.
        """
        self._fan.over = True
        self._fan.ready.clear()
        if self._task is not None and not self._task.done():
            await end([self._task])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Left without `aclose`, as a `break` out of the loop does: as an asynchronous generator would,
        # end it in its loop.
        task = getattr(self, "_task", None)
        if task is not None and not task.done():
            with suppress(RuntimeError):  # the loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel fan-outs of the running loop, and wait for their ends; bounded."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    mine = [task for task in list(tasks) if task.get_loop() is loop and task is not this]
    for task in mine:
        task.cancel()
    if mine:
        with anyio.CancelScope(shield=True):
            await asyncio.wait(mine, timeout=_GRACE)


class _Stopped(Exception):
    """Nothing more is to be created."""


class FanOut:
    """A fan-out under way."""

    def __init__(self, context: Context, plan: Plan, inputs: Inputs) -> None:
        self.context = context
        self.plan = plan
        self.inputs = inputs
        self.ready: deque[Outcome] = deque()
        """What can be taken."""
        self.over = False
        """Whether nothing more will come."""
        self.stopping = False
        """Whether nothing more shall be created; what has been is awaited."""
        self.in_flight = 0
        """How many predictions are awaited."""
        self.failure: BaseException | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._early: dict[int, Outcome | None] = {}
        self._following = 0
        self._window = Slots(plan.concurrency * (4 if plan.ordered else 2))
        self._places = Slots(plan.concurrency)
        self._creating = Slots(1)
        self._reading: anyio.CancelScope | None = None
        self._is_warm = False
        self._journal: Journal | None = None
        self._uncertain: _Uncertain | None = None

    # What the iterator uses

    def take(self) -> Outcome:
        """Return the next outcome, and make room for another input."""
        outcome = self.ready.popleft()
        self._window.release()
        return outcome

    async def changed(self) -> None:
        """Wait until there is an outcome, or the end."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            with suppress(ValueError):
                self._waiting.remove(future)

    def end(self) -> BaseException:
        """Return what the iterator ends with."""
        failure, self.failure = self.failure, None
        return StopAsyncIteration() if failure is None else failure

    def _change(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _emit(self, index: int, outcome: Outcome | None) -> None:
        """Hand an outcome over; None if there is none for this index."""
        if self.plan.ordered:
            self._early[index] = outcome
            while self._following in self._early:
                self._pass_on(self._early.pop(self._following))
                self._following += 1
        else:
            self._pass_on(outcome)

    def _pass_on(self, outcome: Outcome | None) -> None:
        if outcome is None:
            self._window.release()
            return
        self.ready.append(outcome)
        self._change()

    def stop(self) -> None:
        """Create nothing more; what has been created is awaited."""
        self.stopping = True
        if self._reading is not None:
            self._reading.cancel()

    # The owner's task

    async def run(self) -> None:
        """Read the inputs, and see to each."""
        try:
            await self._run()
        except Exception as error:  # noqa: BLE001  (it is raised where the outcomes are awaited)
            self.failure = self.failure or error
        finally:
            self.over = True
            self._change()

    async def _run(self) -> None:

        plan = self.plan
        self.context.transport.token()
        if plan.save_to is not None:
            await in_thread(_sweep, await ready_directory(plan.save_to))
        if plan.journal is not None:
            self._journal = Journal(plan.journal)
        reader = _reader(self.inputs)
        try:
            if self._journal is not None:
                await self._journal.open(plan.shown)
            async with anyio.create_task_group() as group:
                try:
                    await self._feed(reader, group)
                except exceptions.JournalError as error:
                    self.failure = error
                    group.cancel_scope.cancel()
        finally:
            await _finished(self._close, reader)

    async def _close(self, reader: _Reader) -> None:
        await reader.aclose()
        if self._journal is not None:
            await self._journal.aclose()

    async def _feed(self, reader: _Reader, group: anyio.abc.TaskGroup) -> None:
        """Read one input after the other, never more than the window ahead."""
        index = 0

        while True:
            await self._window.acquire()
            if self.stopping:
                return
            value: Any = None
            with anyio.CancelScope() as self._reading:
                try:
                    value = await reader.next()
                except StopAsyncIteration:
                    return
                except Exception as error:  # noqa: BLE001  (the user's: raised when all that runs has ended)
                    self.failure = error
                    return
            if self._reading.cancelled_caught:
                return
            await self._begin(index, value, group)
            index += 1

    async def _begin(self, index: int, value: Any, group: anyio.abc.TaskGroup) -> None:
        entry, mark = Entry(), None
        try:
            if isinstance(value, Exception):
                raise value
            if not isinstance(value, Mapping):
                raise exceptions.ArgumentTypeError(
                    f"inputs[{index}]", f"expected a mapping, got {type(value).__name__}"
                )
            if self._journal is not None:
                mark = await _mark(value)
                entry = await self._journal.find(index, mark)
        except exceptions.JournalError:
            raise
        except Exception as error:  # noqa: BLE001  (that of the item)
            self._emit(
                index, Outcome(index, value if isinstance(value, Mapping) else {}, error=error)
            )
            return
        await self._places.acquire()
        item = _Item(index, value, entry, mark, RunState(self.context, self.plan.on_abandon))
        group.start_soon(self._see_to, item, group)

    async def _see_to(self, item: _Item, group: anyio.abc.TaskGroup) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await self._outcome(item)
        except _Stopped:
            pass
        except exceptions.JournalError as error:
            # Without its journal, nothing must be created any more.
            self.failure = self.failure or error
            await _finished(self._abandon, item)
            group.cancel_scope.cancel()
            return
        except Exception as error:  # noqa: BLE001  (one failure harms no other item)
            prediction = getattr(error, "prediction", None) or item.state.prediction
            outcome = Outcome(item.index, item.value, prediction, error=error)
        except BaseException:
            await _finished(self._abandon, item)
            raise
        finally:
            self._places.release()
        self._emit(item.index, outcome)

    # One item

    async def _outcome(self, item: _Item) -> Outcome:
        await self._find_known(item)
        prediction, error = await running.complete(
            item.state,
            create=partial(self._create, item),
            wait=partial(self._wait, item),
            ended=partial(self._note_end, item),
            retry_failed=self.plan.retry_failed,
        )
        if item.late is not None:
            raise item.late
        output = self._output(prediction) if error is None else None
        saved: tuple[Path, ...] = ()
        if self.plan.save_to is not None:
            try:
                saved = await self._save(item, prediction, output, self.plan.save_to)
            except exceptions.JournalError:
                raise
            except (exceptions.ReplicateException, OSError) as failure:
                if error is None:
                    failures = (
                        [failure] if isinstance(failure, exceptions.ReplicateException) else []
                    )
                    error = exceptions.OutputNotSaved(prediction, str(failure), failures)
                    error.__cause__ = failure
        return Outcome(item.index, item.value, prediction, output, error, saved)

    async def _find_known(self, item: _Item) -> None:
        """Take up the prediction that an earlier run has created for an input, if there is one."""
        entry, index = item.entry, item.index
        item.state.failed_before = entry.attempt
        match entry.state:
            case "intended":
                # Only its id: lists may leave things out.
                raw = {"id": await self._reconcile(item)}
            case "running" | "ended" | "saved":
                raw = entry.record or {"id": entry.prediction}
            case _:
                return
        if raw["id"] is None:
            return
        prediction = self.context.bind(structure(raw, Prediction))
        _logger.debug("input %d has prediction %s from a run before", index, prediction.id)
        item.state.prediction = prediction
        self.context.creates.own(prediction.id)
        prediction._files = self.plan.options.use_file_output

    async def _create(self, item: _Item) -> None:
        """Create a prediction: the intention is on the disk before, and the id after it."""
        item.entry = Entry()
        request = item.request
        if request is None:
            value = item.value
            if self.plan.function is not None:
                value = await self.plan.function._given(value)
            request = item.request = await prepare(self.context, value, self.plan.options)
        await self._creating.acquire()
        try:
            if self.stopping:
                raise _Stopped
            await self._send(item, request)
        finally:
            self._creating.release()
            if not self._is_warm:
                # The first one finds out whether the model is an official one, for all others.
                self._is_warm = True
                for _ in range(min(_CREATING, self.plan.concurrency) - 1):
                    self._creating.release()

    async def _send(self, item: _Item, request: CreateRequest) -> None:
        journal, state, target = self._journal, item.state, self.plan.target
        if journal is not None:
            sent = request.input
            hashed = await in_thread(sent_hash, sent) if request.large else sent_hash(sent)
            assert item.mark is not None
            item.intended = True
            await journal.intend(item.index, item.mark, hashed, state.attempt)
        try:
            made = await create(self.context, target, request, state.pending)
        except exceptions.AmbiguousCreateError:
            raise  # and the intention stands, for the next run to look again
        except Exception:
            if journal is not None:
                await journal.refused(item.index)
            raise
        state.prediction = made
        if journal is not None:
            await journal.created(item.index, made.id)
            item.intended = False

    async def _wait(self, item: _Item, prediction: Prediction) -> None:
        timeout = self.plan.timeout
        self.in_flight += 1
        try:
            # One from an earlier run may have ended long ago.
            await prediction._wait(timeout, at_once=item.entry.state != "new")
        except exceptions.RunTimeout:
            if not self.plan.cancel_when_late or timeout is None:
                raise
            with suppress(exceptions.ReplicateException):
                await prediction.cancel()
            if not has_ended(prediction):
                raise
            if prediction.status in ("canceled", "aborted"):  # else it has ended in time after all
                item.late = exceptions.RunTimeout(prediction, timeout, canceled=True)
        finally:
            self.in_flight -= 1

    async def _note_end(self, item: _Item, prediction: Prediction) -> None:
        if self._journal is not None and item.entry.record is None:
            await self._journal.ended(item.index, prediction._raw)

    def _output(self, prediction: Prediction) -> Output:
        if self.plan.function is not None:
            return self.plan.function._convert(prediction._raw.get("output"))
        return prediction.output

    async def _abandon(self, item: _Item) -> None:
        """Give up an item: cancel its prediction, or see to it that the next run finds it."""
        state, journal = item.state, self._journal
        await running.abandon(state)
        if journal is None:
            return
        prediction = state.prediction
        if prediction is None:
            if item.intended and not state.pending.lost:
                await journal.refused(item.index)
        elif state.on_abandon == "cancel" and prediction.status in ("canceled", "aborted"):
            if item.entry.record is None:
                await journal.refused(item.index)
        elif item.intended:
            await journal.created(item.index, prediction.id)

    async def _reconcile(self, item: _Item) -> str | None:
        """Return the id of what a create of a run before has created; None if it is not to be found."""
        assert self._journal is not None
        if self._uncertain is None:
            self._uncertain = _Uncertain(self.context, self.plan.wanted, self._journal)
        try:
            found = await self._uncertain.find(item.entry)
        except (exceptions.TransportError, exceptions.ReplicateError) as error:
            raise exceptions.AmbiguousCreateError(
                "POST",
                self.context.transport.config.base_url,
                self.plan.shown,
                f"it was sent in a run before; now the list cannot be read: {error}",
                datetime.fromtimestamp(item.entry.intended, UTC),
            ) from error
        if found is None:
            return None
        await self._journal.created(item.index, found)
        self.context.stats.created += 1
        self.context.stats.adopted += 1
        _logger.warning("prediction %s of %s adopted", found, self.plan.shown)
        return found

    # Files

    async def _save(
        self, item: _Item, prediction: Prediction, output: Output, directory: Path
    ) -> tuple[Path, ...]:
        """Put the output and the record on the disk; return where the output is."""
        entry = item.entry
        if entry.state == "saved":
            paths = tuple(directory / name for name in entry.files)
            record = directory / _record_name(item.index)
            if await in_thread(lambda: all(path.is_file() for path in (*paths, record))):
                return paths
        files, texts = await in_thread(
            planned, output, prediction._raw.get("output"), self.context, _prefix(item.index)
        )
        names = (*files, *texts)
        await in_thread(_begin_saving, directory, item.index, prediction._raw, names)

        async def save(job: tuple[str, FileOutput]) -> None:
            name, file = job
            path = directory / name
            if await in_thread(path.is_file):
                file._path = path
            elif await in_thread(path.is_dir):
                raise exceptions.FileNotSaved(
                    file.url, str(path), IsADirectoryError("it is a directory")
                )
            else:
                await file.save(path)

        if files:
            await gather_limited(save, list(files.items()), at_once=_SAVED_AT_ONCE)
        for name, content in texts.items():
            await in_thread(_write, directory / name, content)
        if self._journal is not None:
            await self._journal.saved(item.index, names)
        return tuple(directory / name for name in names)


@attrs.define(eq=False)
class _Item:
    """One input on its way."""

    index: int
    value: Mapping[str, Any]
    entry: Entry
    """What the journal knows of it."""
    mark: Fingerprint | None
    """Its fingerprint, with a journal."""
    state: RunState
    request: CreateRequest | None = None
    intended: bool = False
    """Whether the journal has the intention to create, and not yet what came of it."""
    late: exceptions.RunTimeout | None = None
    """The error of a prediction that was cancelled since its time was over."""


async def _finished(function: Callable[..., Any], *arguments: Any) -> None:
    """Await a clean-up to its end, also if the task is being cancelled once more; bounded."""
    until = time.monotonic() + _GRACE
    with anyio.CancelScope(shield=True):
        while True:
            try:
                await function(*arguments)
                return
            except asyncio.CancelledError:
                # At the end of `asyncio.run`, each task is cancelled by itself. It may be repeated.
                if time.monotonic() > until:
                    raise
            except exceptions.ReplicateException as error:
                _logger.warning("%s", error)
                return


async def _mark(value: Mapping[str, Any]) -> Fingerprint:
    """Return the fingerprint of an input; in a thread, unless it is plain and small."""
    size = 0
    for item in value.values():
        kind = item.__class__
        if kind is str:
            size += len(item)
        elif kind is not int and kind is not float and kind is not bool and item is not None:
            size += 100_000
    if size < 10_000:
        return fingerprint(value, is_file)
    return await in_thread(fingerprint, value, is_file)
