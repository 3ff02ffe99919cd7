"""`map`: a model over many inputs. So many at a time, each paid for once, and its files saved before it is told.

One task owns a fan-out, and a task group in it owns the items. The iterator takes outcomes out of a buffer; it
holds nothing open between two of them, so it may be left at any point, and then cancels the owner.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import math
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import attrs

from . import _policy, _runs, exceptions
from ._codec import encode_json, structure
from ._concurrency import for_each, in_thread
from ._files import FileOutput, ready_directory, to_output
from ._functions import ModelFunction, StreamingFunction
from ._inputs import is_file
from ._journal import Entry, Fingerprint, Journal, fingerprint, sent_hash
from ._limits import Slots
from ._media import safe_name
from ._runs import Begun
from ._transport import Call, load_anyio, sleep
from .resources import _jobs
from .resources._creates import Wanted
from .resources.predictions import (
    Options,
    Order,
    Output,
    Prediction,
    Target,
    check_events,
    check_webhook,
    create,
    prepare,
)

if TYPE_CHECKING:
    import anyio
    import anyio.abc

    from .resources._base import Context
    from .resources.deployments import Deployment
    from .resources.models import Model, Version

__all__ = ("Outcome", "Outcomes")

_logger = logging.getLogger("replicate_async")

Inputs = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]

CONCURRENCY: Final = 64
"""How many predictions are in flight where the user names no number."""

_CREATING: Final = 16
"""How many creates are under way at a time: so many are uncertain after a sudden end."""

_LAG: Final = 20.0
"""Seconds for which a create that may have happened is looked for in the list."""
_MARGIN: Final = 60.0
"""Seconds by which clocks may differ, when it is looked for."""
_LONGEST_CREATE: Final = 2 * 3600.0
"""Seconds after the intention within which a create must have happened: the rate limit may delay it."""

_SAVED_AT_ONCE: Final = 4
_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.part")
_PARTIAL_LIVES: Final = 3600.0
_GRACE: Final = 2 * _policy.CANCEL_GRACE


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

    target: Target | str
    shown: str
    """What the journal calls the target."""
    wanted: Wanted
    """How the list shows what was created."""
    options: Options
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
    options: Options,
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
    target = _runs.target_of(ref)
    seconds = _policy.timeout_seconds(timeout)
    if concurrency is None:
        concurrency = CONCURRENCY
    for name, number, least in (("concurrency", concurrency, 1), ("retry_failed", retry_failed, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise exceptions.ArgumentError(name, f"{number!r} is no number from {least} on")
    if on_abandon is not None:
        _policy.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    check_webhook(options.webhook)
    check_events(options.webhook_events_filter)
    if options.cancel_after is not None:
        _policy.cancel_after_seconds(options.cancel_after)
    elif seconds is not None and on_abandon != "leave":
        # So that a process that is killed stops paying, too.
        options = attrs.evolve(options, cancel_after=max(5, math.ceil(seconds)))
    wanted = Wanted(target, model=target) if isinstance(target, str) else target.wanted
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


# -- The iterator ------------------------------------------------------------------------------


class Outcomes:
    """The outcomes of a fan-out, as they come: an async iterator and async context manager.

    Nothing is read or sent before the first one is asked for. Leaving the loop early ends the fan-out.
    """

    def __init__(self, context: Context, plan: Plan, inputs: Inputs) -> None:
        self._fan = Fan(context, plan, inputs)
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
                await load_anyio()
                if self._task is None:
                    self._task = asyncio.create_task(fan.run(), name="replicate_async.map")
                    fan.context.tasks.add(self._task)
                    self._task.add_done_callback(fan.context.tasks.discard)
            while not fan.ready and not fan.over:
                await fan.changed()
        except BaseException:
            await self.aclose()
            raise
        if not fan.ready:
            await self.aclose()
            raise fan.end()

    async def collect(self) -> list[Outcome]:
        """Return the outcomes of all inputs, in the order of the inputs. It raises none of their errors."""
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
    import anyio

    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    mine = [task for task in list(tasks) if task.get_loop() is loop and task is not this]
    for task in mine:
        task.cancel()
    if mine:
        with anyio.CancelScope(shield=True):
            await asyncio.wait(mine, timeout=_GRACE)


# -- The owner ---------------------------------------------------------------------------------


class _Stopped(Exception):
    """Nothing more is to be created."""


class Fan:
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
        import anyio

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
        import anyio

        while not self.stopping:
            await self._window.acquire()
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
        item = _Item(index, value, entry, mark, Begun(self.context, self.plan.on_abandon))
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
            prediction = getattr(error, "prediction", None) or item.begun.prediction
            outcome = Outcome(item.index, item.value, prediction, error=error)
        except BaseException:
            await _finished(self._abandon, item)
            raise
        finally:
            self._places.release()
        self._emit(item.index, outcome)

    # One item

    async def _outcome(self, item: _Item) -> Outcome:
        prediction = await self._known(item)
        while True:
            if prediction is None:
                prediction = await self._create(item)
            if not _jobs.is_over(prediction):
                await self._wait(item, prediction)
            if self._journal is not None and item.entry.record is None:
                await self._journal.ended(item.index, prediction._raw)
            error = _error_of(prediction)
            if error is None or not error.retryable or item.attempt >= self.plan.retry_failed:
                break
            item.attempt += 1
            self.context.stats.retried += 1
            _logger.warning("%s; it is created again", error)
            prediction, item.entry = None, Entry()
            item.begun = Begun(self.context, self.plan.on_abandon)
        output = self._output(prediction) if error is None else None
        saved: tuple[Path, ...] = ()
        if self.plan.save_to is not None:
            try:
                saved = await self._save(item, prediction, output, self.plan.save_to)
            except (exceptions.ReplicateException, OSError) as failure:
                if isinstance(failure, exceptions.JournalError):
                    raise
                if error is None:
                    failures = (
                        [failure] if isinstance(failure, exceptions.ReplicateException) else []
                    )
                    error = exceptions.OutputNotSaved(prediction, str(failure), failures)
                    error.__cause__ = failure
        return Outcome(item.index, item.value, prediction, output, error, saved)

    async def _known(self, item: _Item) -> Prediction | None:
        """Return the prediction that a run before has created for an input, if there is one."""
        entry, index = item.entry, item.index
        item.attempt = entry.attempt
        match entry.state:
            case "intended":
                # Only its id: lists may leave things out.
                raw = {"id": await self._reconcile(item)}
            case "running" | "ended" | "saved":
                raw = entry.record or {"id": entry.prediction}
            case _:
                return None
        if raw["id"] is None:
            return None
        prediction = self.context.bind(structure(raw, Prediction))
        _logger.debug("input %d has prediction %s from a run before", index, prediction.id)
        item.begun.prediction = prediction
        item.found = True
        self.context.creations.own(prediction.id)
        prediction._files = self.plan.options.use_file_output
        return prediction

    async def _create(self, item: _Item) -> Prediction:
        """Create a prediction: the intention is on the disk before, and the id after it."""
        order = item.order
        if order is None:
            value = item.value
            if self.plan.function is not None:
                value = await self.plan.function._given(value)
            order = item.order = await prepare(self.context, value, self.plan.options)
        await self._creating.acquire()
        try:
            if self.stopping:
                raise _Stopped
            return await self._send(item, order)
        finally:
            self._creating.release()
            if not self._is_warm:
                # The first one finds out whether the model is an official one, for all others.
                self._is_warm = True
                for _ in range(min(_CREATING, self.plan.concurrency) - 1):
                    self._creating.release()

    async def _send(self, item: _Item, order: Order) -> Prediction:
        journal, begun, target = self._journal, item.begun, self.plan.target
        if journal is not None:
            sent = order.input
            hashed = await in_thread(sent_hash, sent) if order.large else sent_hash(sent)
            assert item.mark is not None
            item.intended = True
            await journal.intend(item.index, item.mark, hashed, item.attempt)
        try:
            made = await create(self.context, target, order, begun.creation)
        except exceptions.AmbiguousCreateError:
            raise  # and the intention stands, for the next run to look again
        except Exception:
            if journal is not None:
                await journal.refused(item.index)
            raise
        begun.prediction = made
        if journal is not None:
            await journal.created(item.index, made.id)
            item.intended = False
        return made

    async def _wait(self, item: _Item, prediction: Prediction) -> None:
        self.in_flight += 1
        try:
            await _jobs.wait(prediction, prediction._poll, self.plan.timeout, at_once=item.found)
        except exceptions.RunTimeout:
            if not self.plan.cancel_when_late or self.plan.timeout is None:
                raise
            with suppress(exceptions.ReplicateException):
                await prediction.cancel()
            if prediction.status not in ("canceled", "aborted"):
                if _jobs.is_over(prediction):
                    return  # it was in time after all
                raise
            if self._journal is not None:
                await self._journal.ended(item.index, prediction._raw)
            raise exceptions.RunTimeout(prediction, self.plan.timeout, canceled=True) from None
        except exceptions.ReplicateException as error:
            _logger.warning("prediction %s lost: %s", prediction.id, error)
            raise exceptions.ContactLost(prediction, str(error)) from error
        finally:
            self.in_flight -= 1

    def _output(self, prediction: Prediction) -> Output:
        if self.plan.function is not None:
            return self.plan.function._convert(prediction._raw.get("output"))
        return prediction.output

    async def _abandon(self, item: _Item) -> None:
        """Give up an item: cancel its prediction, or see to it that the next run finds it."""
        begun, journal = item.begun, self._journal
        await _runs._abandon(begun)
        if journal is None:
            return
        prediction = begun.prediction
        if prediction is None:
            if item.intended and not begun.creation.lost:
                await journal.refused(item.index)
        elif begun.on_abandon == "cancel" and prediction.status in ("canceled", "aborted"):
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
            await for_each(save, list(files.items()), at_once=_SAVED_AT_ONCE)
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
    begun: Begun
    order: Order | None = None
    attempt: int = 0
    """How many predictions of it have failed."""
    intended: bool = False
    """Whether the journal has the intention to create, and not yet what came of it."""
    found: bool = False
    """Whether its prediction is from a run before."""


def _error_of(prediction: Prediction) -> exceptions.ModelError | None:
    error = _jobs.failure(prediction)
    if error is None and prediction.data_removed and prediction._raw.get("output") is None:
        return exceptions.OutputRemoved(prediction)
    return error


async def _finished(function: Callable[..., Any], *arguments: Any) -> None:
    """Await a clean-up to its end, also if the task is being cancelled once more; bounded."""
    import anyio

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


# -- Creates that may have happened in a run before --------------------------------------------


class _Uncertain:
    """Finds what was created by creates that a run before has sent, and of which nothing more is known."""

    def __init__(self, context: Context, wanted: Wanted, journal: Journal) -> None:
        self._context = context
        self._wanted = wanted
        self._journal = journal
        self._spans: list[tuple[float, float]] | None = None
        self._hashes: set[str] = set()
        self._found: dict[str, dict[str, None]] = {}  # ids, by the hash of the input
        self._read_at = float("-inf")
        self._ahead = 0.0
        """Seconds by which the server's clock is ahead of this machine's."""
        self._reading = asyncio.Lock()

    async def find(self, entry: Entry) -> str | None:
        """Return the id of what a create has created, and claim it; wait out the lag of the list."""
        assert entry.sent is not None
        while True:
            asked = time.monotonic()
            is_late = not 0 <= time.time() - entry.intended < _LAG
            async with self._reading:
                if self._read_at < asked - 0.5:
                    self._read_at = time.monotonic()
                    await self._read()
                for found in self._found.get(entry.sent, ()):
                    if not await self._journal.owns(found) and self._context.creations.own(found):
                        return found
            if is_late:
                return None
            await sleep(1.0)

    async def _read(self) -> None:
        if self._spans is None:
            uncertain = await self._journal.uncertain()
            self._hashes = {sent for _, sent, _ in uncertain}
            self._spans = []
            for intended in sorted(intended for _, _, intended in uncertain):
                if self._spans and intended - _MARGIN <= self._spans[-1][1]:
                    self._spans[-1] = self._spans[-1][0], intended + _LONGEST_CREATE
                else:
                    self._spans.append((intended - _MARGIN, intended + _LONGEST_CREATE))
        self._found = {}
        for start, end in self._spans:
            before = self._ahead
            await self._read_span(start, end)
            if abs(self._ahead - before) > _MARGIN / 3:
                await self._read_span(start, end)  # now by the right clock

    async def _read_span(self, start: float, end: float) -> None:
        call: Call | None = Call(
            "GET",
            "/predictions",
            params={
                "created_after": _timestamp(start + self._ahead),
                "created_before": _timestamp(end + self._ahead),
            },
        )
        while call is not None:
            answer = await self._context.transport.send(call)
            with suppress(TypeError, ValueError):
                said = parsedate_to_datetime(answer.headers.get("Date", ""))
                self._ahead = said.replace(tzinfo=said.tzinfo or UTC).timestamp() - time.time()
            data = answer.data if isinstance(answer.data, dict) else {}
            entries = data.get("results")
            entries = entries if isinstance(entries, list) else []
            for sent, found in await in_thread(self._matching, entries):
                self._found.setdefault(sent, {})[found] = None
            following = self._context.next_call(call, data.get("next")) if entries else None
            call = None if following is None or following.path == call.path else following

    def _matching(self, entries: list[Any]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for entry in entries:
            try:
                job = structure(entry, Prediction)
                sent = sent_hash(job.input)
            except ValueError:
                continue
            if sent in self._hashes and self._wanted.matches(job):
                found.append((sent, job.id))
        return found


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


# -- Inputs ------------------------------------------------------------------------------------


class _Reader:
    """Reads inputs one by one, without holding up the event loop."""

    async def next(self) -> Any:
        """Return the next input.

        Raises:
            StopAsyncIteration: There is none.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Read no more."""


def _reader(inputs: Inputs) -> _Reader:
    if isinstance(inputs, (Mapping, str, bytes)):
        raise exceptions.ArgumentTypeError(
            "inputs", f"expected many inputs, got a {type(inputs).__name__}: for one, use `run`"
        )
    if isinstance(inputs, AsyncIterable):
        return _Asynchronous(inputs)
    if isinstance(inputs, (list, tuple)):
        return _InMemory(inputs)
    try:
        return _InThread(iter(inputs))
    except TypeError:
        raise exceptions.ArgumentTypeError(
            "inputs", f"a {type(inputs).__name__} cannot be iterated over"
        ) from None


class _InMemory(_Reader):
    def __init__(self, inputs: Iterable[Any]) -> None:
        self._inputs = iter(inputs)
        self._count = 0

    async def next(self) -> Any:
        self._count += 1
        if self._count % 64 == 0:
            await asyncio.sleep(0)  # others have their turn, also if nothing else awaits
        for value in self._inputs:
            return value
        raise StopAsyncIteration


class _Asynchronous(_Reader):
    def __init__(self, inputs: AsyncIterable[Any]) -> None:
        self._inputs: AsyncIterator[Any] = aiter(inputs)

    async def next(self) -> Any:
        return await anext(self._inputs)

    async def aclose(self) -> None:
        close = getattr(self._inputs, "aclose", None)
        if close is not None:
            with suppress(Exception):  # the user's
                await close()


class _InThread(_Reader):
    """An iterator that may block: a thread of its own calls it. It ends with the process at the latest."""

    def __init__(self, inputs: Iterator[Any]) -> None:
        self._inputs = inputs
        self._asked: SimpleQueue[asyncio.Future[tuple[bool, Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def next(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run,
                args=(self._serve, loop),
                name="replicate_async.inputs",
                daemon=True,
            )
            self._thread.start()
        answer: asyncio.Future[tuple[bool, Any]] = loop.create_future()
        self._asked.put(answer)
        good, value = await answer
        if good:
            return value
        raise StopAsyncIteration if isinstance(value, StopIteration) else value

    async def aclose(self) -> None:
        self._asked.put(None)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (answer := self._asked.get()) is not None:
            try:
                result = True, next(self._inputs)
            except BaseException as error:  # noqa: BLE001  (raised where it is awaited)
                result = False, error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_answer, answer, result)
            del answer, result
        close = getattr(self._inputs, "close", None)
        if close is not None:
            with suppress(Exception):  # the user's
                close()


def _answer(future: asyncio.Future[tuple[bool, Any]], result: tuple[bool, Any]) -> None:
    if not future.done():
        future.set_result(result)


# -- Files on the disk -------------------------------------------------------------------------


def _prefix(index: int) -> str:
    return f"{index:06d}-"


def _record_name(index: int) -> str:
    return f"{_prefix(index)}prediction.json"


def planned(
    output: Output, raw: Any, context: Context, prefix: str
) -> tuple[dict[str, FileOutput], dict[str, bytes]]:
    """Return what is to be downloaded, and what is to be written, by file name."""
    found: list[FileOutput] = []
    tree = to_output(raw, context.transport, files=True)

    def walk(value: Any) -> None:
        if isinstance(value, FileOutput):
            found.append(value)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)

    walk(output)
    if not found:
        walk(tree)
    names: dict[FileOutput, str] = {}
    taken = {"prediction.json"}
    for file in found:
        if file not in names:
            names[file] = prefix + _free(safe_name(file.name), taken)
    files = {name: file for file, name in names.items()}
    if raw is None or _is_files(tree):
        return files, {}
    if output is not None and isinstance(output, str):
        return files, {prefix + _free("output.txt", taken): output.encode()}
    if isinstance(raw, str) or (
        isinstance(raw, list) and raw and all(isinstance(i, str) for i in raw)
    ):
        # The pieces that language models write; the record has them as they came.
        text = raw if isinstance(raw, str) else "".join(raw)
        return files, {prefix + _free("output.txt", taken): text.encode()}

    def named(value: Any) -> Any:
        if isinstance(value, FileOutput):
            return names.get(value, value.url)
        if isinstance(value, list):
            return [named(item) for item in value]
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        return value

    return files, {prefix + _free("output.json", taken): encode_json(named(tree))}


def _is_files(tree: Any) -> bool:
    """Tell whether there is nothing but files in it."""
    if isinstance(tree, list):
        return bool(tree) and all(_is_files(item) for item in tree)
    return isinstance(tree, FileOutput)


def _free(name: str, taken: set[str]) -> str:
    path, number, found = Path(name), 2, name
    while found.lower() in taken:
        found, number = f"{path.stem}-{number}{path.suffix}", number + 1
    taken.add(found.lower())
    return found


def _begin_saving(
    directory: Path, index: int, raw: Mapping[str, Any], names: tuple[str, ...]
) -> None:
    """Write the record; from then on, what is there under these names is complete, and belongs to it."""
    record = directory / _record_name(index)
    known: object = None
    with suppress(OSError, ValueError):
        known = json.loads(record.read_bytes())
    if known == raw:
        return
    if not (isinstance(known, dict) and known.get("id") == raw.get("id")):
        stale = [directory / name for name in names]
        if known is not None:
            stale += directory.glob(f"{_prefix(index)}*")
        for path in stale:
            with suppress(OSError):
                path.unlink()
    _write(record, json.dumps(raw, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))


def _sweep(directory: Path) -> None:
    """Remove the beginnings of files that a process has left behind when it was killed."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - _PARTIAL_LIVES:
                        Path(entry.path).unlink()


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears when it is complete."""
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
