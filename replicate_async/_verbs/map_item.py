"""One input of a fan-out, from its create to its saved output."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import attrs

from .. import exceptions
from .._codec import structure
from .._files.disk import is_unusable
from .._files.output_trees import to_output
from .._jobs import running
from .._jobs.abandoning import abandon
from .._jobs.context import Context
from .._jobs.creating import choose_deadline, create
from .._jobs.job import cancel_in_time, look_last, run_timeout, wait_for_end
from .._jobs.pending import PendingCreate
from .._jobs.policy import has_ended
from .._jobs.prediction import Output, Prediction
from .._jobs.request import CreateRequest, prepare
from .._jobs.run_state import RunState, part_of, spanned
from .._json import mapped
from .._redaction import REDACTED, recorded_input, redacted_names, secret_texts
from .._threads import in_thread
from .map_fingerprint import Fingerprint, sent_hash
from .map_journal import Journal
from .map_outputs import are_saved, save_output, saved_names
from .map_plan import Plan, RedoReason
from .map_rows import Entry
from .map_secrets import Secrets
from .map_uncertain import UncertainCreates, UnprovenError, sent_text
from .outcome import Outcome

_logger = logging.getLogger("replicate_async")

_NO_MEMORY = "there is not enough memory"

_CREATING: Final = 16
"""Number of creates that may be under way at a time. After a sudden end, that many are uncertain."""


class Stopped(Exception):
    """Nothing more is to be created."""


@attrs.define(eq=False)
class Shared:
    """State that the inputs of a fan-out share."""

    context: Context
    plan: Plan
    reading: anyio.CancelScope
    """Cancelled when no more inputs are to be read."""
    secrets: Secrets
    journal: Journal | None = None
    uncertain: UncertainCreates | None = None
    """The creates of earlier runs; with a journal."""
    stopping: bool = False
    """Whether nothing more is to be created."""
    disk_failure: int | None = None
    """The error number, once nothing more can be saved."""
    in_flight: int = 0
    """Number of predictions that are running."""
    journal_failure: exceptions.JournalError | None = None
    """Why the journal cannot be written any more."""
    unfinished: dict[str, None] = attrs.field(factory=dict)
    """IDs of the predictions that have no outcome yet, and of all that the journal may have missed."""
    creating: anyio.Semaphore = attrs.field(factory=lambda: anyio.Semaphore(1))
    """Limits the creates under way: to one at first, which finds out for all whether the model is official."""
    _is_warm: bool = attrs.field(default=False, init=False)
    """Whether the first create is over."""

    def stop(self) -> None:
        """Read and create nothing more."""
        self.stopping = True
        self.reading.cancel()

    def lose_journal(self, error: exceptions.JournalError) -> None:
        """Create nothing more, and go on with what is in flight without the journal."""
        if self.journal_failure is None:
            self.journal_failure = error
            _logger.error("%s; nothing more is created, and what is in flight is awaited", error)
            self.stop()

    def journal_loss(self) -> exceptions.JournalError:
        """Return the exception for a journal that could not be written any more."""
        failure = self.journal_failure
        assert failure is not None
        for each in self.unfinished:
            self.context.creates.disown(each)  # for a further run of the journal, which may lack it
        loss = exceptions.JournalError(
            failure.kind, failure.path, failure.fact, tuple(self.unfinished)
        )
        loss.__cause__ = failure
        return loss

    async def note(self, write: Callable[[Journal], Awaitable[None]]) -> None:
        """Write to the journal about a prediction, if there is one: it is paid for, so no failure may end it."""
        if self.journal is None or self.journal_failure is not None:
            return
        try:
            await write(self.journal)
        except exceptions.JournalError as error:
            self.lose_journal(error)

    def warm_up(self) -> None:
        """Allow further creates at a time, since the first one is over."""
        if not self._is_warm:
            self._is_warm = True
            for _ in range(min(_CREATING, self.plan.concurrency) - 1):
                self.creating.release()


@attrs.define(eq=False)
class Item:
    """One input in progress: its prediction is created, awaited, and saved.

    With a journal, that has its state at any moment (`map_rows.State`): `intended` from before its create is sent, `running`
    once that was answered, `ended` with the record of the prediction, and `saved` with the names of its files. A
    prediction that an earlier run has created is taken up by `_resume`, and goes on from its state.
    """

    _shared: Shared
    index: int
    """Zero-based index of the input."""
    value: Mapping[str, Any]
    """The input."""
    _fingerprint: Fingerprint | None
    """Its fingerprint; with a journal."""
    _entry: Entry
    """What the journal has of a prediction of an earlier run; nothing once this run creates one."""
    _run: RunState
    """The state of its run."""
    _request: CreateRequest | None = attrs.field(default=None, init=False)
    """What it sends, once that is prepared; the same at each try."""
    _is_intended: bool = attrs.field(default=False, init=False)
    """Whether the journal has the intention to create, and not yet what became of it."""
    _late: exceptions.RunTimeout | None = attrs.field(default=None, init=False)
    """The error of a prediction that was cancelled because its time was over."""

    async def complete(self) -> Outcome:
        """Create a prediction unless there is one, wait for its end, and save its output.

        Raises:
            Stopped: Nothing more is to be created.
            JournalError: The journal cannot be used any more.
            Exception: The input has failed.
        """
        await self._resume()
        earlier = self._run.prediction
        try:
            outcome = await self._complete_once()
            if not self._is_redone(earlier, outcome.error):
                return outcome
            error = outcome.error
        except Exception as failure:
            if not self._is_redone(earlier, failure):
                raise
            error = failure
        _logger.info("input %d is run again: %s", self.index, error)
        self._run.prediction, self._run.pending = None, PendingCreate()
        self._run.failed, self._run.failed_before = (), 0
        self._late = None
        return await self._complete_once()

    def _is_redone(self, earlier: Prediction | None, error: Exception | None) -> bool:
        """Return whether the option `redo` asks for another prediction in the place of an earlier run's."""
        if earlier is None or self._run.prediction is not earlier:
            return False
        return _redo_reason(error) in self._shared.plan.redo

    async def _complete_once(self) -> Outcome:
        with spanned(self._run):
            return await self._outcome()

    async def _outcome(self) -> Outcome:
        """Do what `complete` says, within the span; a prediction of an earlier run is followed and saved only."""
        plan = self._shared.plan
        prediction, error = await running.complete(
            self._run,
            create=self._create,
            wait=self._wait,
            ended=self._note_end,
        )
        if self._entry.timeout is not None:  # that of an earlier run
            self._late = exceptions.RunTimeout(prediction, self._entry.timeout, canceled=True)
        if self._late is not None:
            raise self._late
        output = self._output(prediction) if error is None else None
        saved: tuple[Path, ...] = ()
        if plan.save_to is not None:
            try:
                with part_of(self._run, "download"):
                    saved = await self._save(prediction, output, plan.save_to)
            except exceptions.JournalError:
                raise
            except (exceptions.ReplicateException, OSError, MemoryError) as failure:
                await self._note_disk_failure(plan.save_to, failure)
                if error is None:
                    failures = (
                        [failure] if isinstance(failure, exceptions.ReplicateException) else []
                    )
                    reason = str(failure) or _NO_MEMORY
                    error = exceptions.OutputNotSaved(prediction, reason, failures)
                    error.__cause__ = failure
        return Outcome(self.index, self.value, prediction, output, error, saved, self._secrets)

    async def _note_disk_failure(self, directory: Path, failure: Exception) -> None:
        """Let nothing more be created if its output could not be saved either."""
        number = failure.errno if isinstance(failure, OSError) else None
        if number is not None and await in_thread(is_unusable, directory, number):
            self._shared.disk_failure = number

    def failed_outcome(self, error: Exception) -> Outcome:
        """Return the outcome of an input that has failed with an error."""
        prediction = getattr(error, "prediction", None) or self._run.prediction
        error = own_error(error, prediction)
        return Outcome(self.index, self.value, prediction, error=error, secrets=self._secrets)

    async def abandon(self) -> None:
        """Cancel the prediction, or let the journal have it for the next run."""
        run, journal = self._run, self._shared.journal
        is_lost = self._shared.journal_failure is not None
        if is_lost and self._shared.plan.cancels_late:
            run.on_abandon = "cancel"  # no run will collect it
        await abandon(run)
        if journal is None or is_lost:
            return
        prediction = run.prediction
        if prediction is None:
            if self._is_intended and not run.pending.lost:
                await journal.refused(self.index)  # nothing was created
        elif run.on_abandon == "cancel" and prediction.status in ("canceled", "aborted"):
            # If the journal does not have its end yet, the next run creates it again.
            if self._entry.record is None:
                await journal.refused(self.index)
        elif self._is_intended:
            await journal.created(self.index, prediction.id)

    # The steps

    async def _resume(self) -> None:
        """Take up the prediction that an earlier run has created for the input, if there is one."""
        shared, entry = self._shared, self._entry
        if entry.state == "new":
            return
        if entry.state == "intended":
            found = await self._find_uncertain()
            if found is None:
                return
            raw: dict[str, Any] = {"id": found}  # only its ID: lists may leave things out
        else:
            raw = entry.record or {"id": entry.prediction}
        context = shared.context.with_file_output(shared.plan.options.use_file_output)
        context = context.with_secrets(self._secrets)
        prediction = context.bind(structure(raw, Prediction))
        _logger.debug("input %d has prediction %s of an earlier run", self.index, prediction.id)
        shared.context.creates.own(prediction.id)
        self._run.prediction = prediction

    async def _find_uncertain(self) -> str | None:
        """Return the ID of the prediction that a create of an earlier run has made, if there is one."""
        shared = self._shared
        assert shared.journal is not None
        assert shared.uncertain is not None
        try:
            found = await shared.uncertain.find(self._entry)
        except (UnprovenError, exceptions.TransportError, exceptions.ReplicateError) as error:
            if isinstance(error, UnprovenError) and "lost" in shared.plan.redo:
                _logger.warning(
                    "input %d is run again, although it may exist: %s", self.index, error
                )
                return None
            candidates: tuple[str, ...] = ()
            reason = f"now the list cannot be read: {error}"
            if isinstance(error, UnprovenError):
                reason, candidates = error.reason, tuple(error.candidates)
            raise exceptions.AmbiguousCreateError(
                "POST",
                shared.context.transport.config.base_url,
                shared.plan.match.label,
                f"it was sent in an earlier run; {reason}",
                datetime.fromtimestamp(self._entry.intended, UTC),
                candidates,
            ) from error
        if found is None:
            return None
        await shared.note(lambda journal: journal.created(self.index, found))
        shared.context.count(created=1, adopted=1)
        _logger.warning("prediction %s of %s adopted", found, shared.plan.match.label)
        return found

    async def _create(self) -> None:
        """Create a prediction; with a journal, its intention is on the disk before, and its ID after it."""
        shared = self._shared
        self._entry = Entry()
        if shared.stopping:
            raise Stopped
        await shared.secrets.learn()
        if self._request is None:
            value = self.value
            if shared.plan.interface is not None:
                value = await shared.plan.interface.prepare_inputs(value)
            options = attrs.evolve(shared.plan.options, secrets=self._secrets)
            self._request = await prepare(shared.context, value, options)
        async with shared.creating:
            try:
                if shared.stopping:
                    raise Stopped
                if shared.disk_failure is not None:
                    raise exceptions.DirectoryNotWritable(
                        str(shared.plan.save_to),
                        shared.disk_failure,
                        os.strerror(shared.disk_failure),
                    )
                await self._send(self._request)
            finally:
                shared.warm_up()

    async def _send(self, request: CreateRequest) -> None:
        run, journal = self._run, self._shared.journal
        if journal is not None:
            sent = request.input
            hashed = await in_thread(sent_hash, sent) if request.large else sent_hash(sent)
            choose_deadline(self._shared.context, request, run.pending)
            marked = run.pending.deadline if run.pending.proof == "mark" else None
            assert self._fingerprint is not None
            self._is_intended = True
            await journal.intend(
                self.index,
                self._fingerprint.without(self._secrets),
                sent_text(hashed, marked),
                run.attempt,
                self._shared.context.transport.pool.clock.now(),
            )
        try:
            with part_of(run, "create"):
                made = await create(
                    self._shared.context, self._shared.plan.target, request, run.pending
                )
        except exceptions.AmbiguousCreateError:
            raise  # the intention stands, for the next run to search again
        except Exception:
            if run.pending.lost:
                raise  # likewise
            await self._shared.note(lambda journal: journal.refused(self.index))
            raise
        run.prediction = made
        await self._shared.note(lambda journal: journal.created(self.index, made.id))
        self._is_intended = False

    async def _wait(self, prediction: Prediction) -> None:
        timeout = self._shared.plan.timeout
        self._shared.in_flight += 1
        if self._shared.journal is not None:
            self._shared.unfinished[prediction.id] = None
        try:
            # One of an earlier run may have ended long ago.
            await wait_for_end(prediction, timeout, poll_first=self._entry.state != "new")
        except exceptions.RunTimeout as late:
            if timeout is None:
                raise
            cancels = self._shared.plan.cancels_late
            if cancels:
                await cancel_in_time(prediction)
            await look_last(prediction)  # it was left alone, or it may have refused to be cancelled
            if not has_ended(prediction):
                raise
            if cancels and prediction.status in ("canceled", "aborted"):
                # Otherwise it has ended in time after all.
                self._late = run_timeout(prediction, timeout, late.__cause__)
        finally:
            self._shared.in_flight -= 1

    async def _note_end(self, prediction: Prediction) -> None:
        if self._shared.journal is not None and self._entry.record is None:
            await self._shared.secrets.learn()
            timeout = None if self._late is None else self._late.timeout
            record = self._record(prediction)
            await self._shared.note(lambda journal: journal.ended(self.index, record, timeout))
            if self._shared.journal_failure is None:
                self._shared.unfinished.pop(prediction.id, None)

    @property
    def _secrets(self) -> frozenset[str] | None:
        known = self._shared.secrets.of(self.value)
        return None if known is None else known | redacted_names(self._entry.record)

    def _record(self, prediction: Prediction) -> Mapping[str, Any]:
        """Return the record of a prediction, without what is to be kept secret."""
        record = dict(prediction._raw)
        given = record.get("input")
        if isinstance(given, dict):
            record["input"] = recorded_input(given, self._shared.secrets.of(given))
        if texts := secret_texts(self.value, self._shared.secrets.of(self.value)):
            for name in ("error", "logs"):  # in which a model may quote them
                if name in record:
                    record[name] = mapped(record[name], partial(_without_texts, texts))
        return record

    def _output(self, prediction: Prediction) -> Output:
        interface = self._shared.plan.interface
        if interface is not None:
            return interface.convert(prediction._raw.get("output"), prediction.id)
        return prediction.output

    def _tree(self, prediction: Prediction) -> Any:
        """Return the output with all its files, even if users see their URLs."""
        plan, raw = self._shared.plan, prediction._raw.get("output")
        if plan.interface is not None:
            return plan.interface.with_files(raw, prediction.id)
        transport = self._shared.context.transport
        return to_output(raw, transport, files=not plan.makes_text, prediction=prediction.id)

    async def _save(
        self, prediction: Prediction, output: Output, directory: Path
    ) -> tuple[Path, ...]:
        """Put the output and the record on the disk, and return the paths of the output's files."""
        known, plan = self._entry.files, self._shared.plan
        files = known
        is_complete = bool(known) and await in_thread(are_saved, directory, known)
        if not is_complete:
            await self._shared.secrets.learn()
            files = await save_output(
                directory,
                self.index,
                prediction,
                output,
                await in_thread(self._tree, prediction),
                record=self._record(prediction),
                known=known,
                durable=plan.durable,
            )
            await self._shared.note(lambda journal: journal.saved(self.index, files))
        return tuple(directory / name for name in saved_names(self.index, files))


def _without_texts(texts: Iterable[str], leaf: object) -> object:
    if isinstance(leaf, str):
        for text in texts:
            leaf = leaf.replace(text, REDACTED)
    return leaf


def _redo_reason(error: Exception | None) -> RedoReason | None:
    """Return why a prediction has no output that is of use; None if it may still get one."""
    match error:
        case exceptions.PredictionFailed():
            return "failed"
        case exceptions.RunTimeout(prediction=prediction):
            return "timeout" if has_ended(prediction) else None
        case exceptions.PredictionCanceled() | exceptions.PredictionAborted():
            return "canceled"
        case exceptions.OutputRemoved():
            return "expired"
        case exceptions.OutputNotSaved(failures=[*failures]):
            is_expired = any(isinstance(failure, exceptions.FileExpired) for failure in failures)
            return "expired" if is_expired else None
        case exceptions.ContactLost(__cause__=exceptions.NotFoundError()):
            return "lost"
    return None


def own_error(error: Exception, prediction: Prediction | None) -> Exception:
    """Return an error of an input as it is; for a `MemoryError`, an exception of this package in its place."""
    if not isinstance(error, MemoryError):
        return error
    own: exceptions.ReplicateException
    if prediction is None:
        own = exceptions.ReplicateException(f"nothing was created: {_NO_MEMORY}")
    else:
        own = exceptions.ContactLost(prediction, _NO_MEMORY)
    own.__cause__ = error
    return own
