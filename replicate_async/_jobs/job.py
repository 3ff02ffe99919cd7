"""Jobs that are bound to a client: what predictions and trainings have in common."""

# Annotations are not postponed here: attrs copies those of the fields into the `__init__` of the subclasses in other
# modules, where `typing.get_type_hints` would not find the names.

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeVar

import anyio
import attrs

from .. import _arguments, exceptions
from .._codec import error_code, error_text, structure, structure_part
from .._concurrency import shielded
from .._display import Html, as_html, card, folded, input_html, link, short_repr
from .._http.call import Call
from .._http.obstacles import Obstacles
from .._http.retry import Kind
from .._http.session import Pool
from .._redaction import shown_input, without_secrets
from .._references import identifier, plain_identifier
from .._telemetry import measured_seconds
from ..types import Job, PredictionUrls, Progress, Status, Update
from ..types._record import copied
from . import policy
from .context import Bound, Context, default_context
from .policy import has_ended
from .poller import PolledJob
from .updates import Updates

_logger = logging.getLogger("replicate_async")

J = TypeVar("J", bound="LiveJob")


@attrs.define(eq=False, repr=False)
class LiveJob(Bound):
    """A prediction or training that is bound to a client.

    `reload()`, `wait()` and `cancel()` update the object in place.
    """

    _path: ClassVar[str]
    """Path of the collection."""
    _computed: ClassVar[frozenset[str]] = frozenset({"error", "output", "urls"})

    id: str
    """Unique ID."""
    status: Status = ""
    """Current status (:api:`status`)."""
    model: str | None = None
    """Model, `owner/name`."""
    version: str | None = None
    """ID of the version; `"hidden"` for official models."""
    input: dict[str, Any] = attrs.field(factory=dict)
    """Input."""
    logs: str = ""
    """Logs so far."""
    metrics: dict[str, Any] = attrs.field(factory=dict)
    """Measurements: `predict_time` and `total_time` in seconds, counts of tokens and images (:api:`metrics`)."""
    source: str | None = None
    """Where it was created: `"api"` or `"web"`."""
    created_at: datetime | None = None
    """Time at which it was created."""
    started_at: datetime | None = None
    """Time at which it started to run."""
    completed_at: datetime | None = None
    """Time at which it ended."""
    webhook: str | None = None
    """URL that receives webhooks."""
    webhook_events_filter: list[str] = attrs.field(factory=list)
    """Events that trigger the webhook."""
    _since: float = attrs.field(factory=time.monotonic, repr=False, init=False)
    """Time at which this process first saw it (monotonic)."""
    _seen_at: float = attrs.field(factory=time.monotonic, repr=False, init=False)
    """Time at which this process got its state (monotonic)."""
    _is_unconfirmed: bool = attrs.field(default=False, repr=False, init=False)
    """Whether only its ID is known, which the caller gave, so that there may be no such job."""

    def __repr__(self) -> str:
        return short_repr(
            type(self).__name__,
            {
                "id": self.id,
                "status": self.status,
                "model": self.model,
                "version": None if self.model else self.version,
                "error": self.error,
                "input": self._shown_input,
                "output": self._raw.get("output"),
                "metrics": self.metrics,
                "created_at": self.created_at,
            },
        )

    @property
    def _shown_input(self) -> Mapping[str, Any]:
        """Input without its secrets."""
        context = self._client
        known = None if context is None or context.is_fallback else context.secrets
        return shown_input(self.input, known)

    def _repr_html_(self) -> str:
        """Return what a notebook displays: a table of what is known."""
        raw = self._raw.get("output")
        return self._card(as_html("" if raw is None else raw))

    def _card(self, output: Html) -> str:
        title = f"{type(self).__name__} {self.id}"
        took = measured_seconds(self, "predict_time")
        progress = self.progress
        model = self.model or self.version
        return card(
            link(self.urls.web, title),
            [
                ("status", self.status),
                ("model", model),
                (
                    "progress",
                    "" if progress is None or has_ended(self) else f"{progress.percentage:.0%}",
                ),
                ("error", self.error),
                ("created", self.created_at),
                ("ran for", "" if took is None else f"{took:.2f} s"),
                ("input", input_html(self._shown_input)),
                ("output", output),
                ("logs", folded(f"{self.logs.count(chr(10))} lines", self.logs)),
            ],
        )

    def _to_plain(self) -> dict[str, Any]:
        plain = self.to_dict()
        if self._client is not None and isinstance(given := plain.get("input"), dict):
            plain["input"] = without_secrets(given, self._client.secrets or frozenset())
        return plain

    @classmethod
    def _from_plain(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return job_from(default_context(), cls, value)
        return super()._from_plain(value)

    def _replace(self, fresh: Bound) -> None:
        super()._replace(fresh)
        self._seen_at = time.monotonic()

    @property
    def output(self) -> Any:
        """Output so far, or `None` if there is none."""
        return self._raw.get("output")

    @property
    def error(self) -> str | None:
        """Error text, if it failed. Of an error object, its message and code; `to_dict()` has it as it was sent."""
        return error_text(self._raw.get("error"))

    @property
    def urls(self) -> PredictionUrls:
        """URLs of the API and of the web page."""
        return structure_part(self._raw.get("urls"), PredictionUrls)

    @property
    def progress(self) -> Progress | None:
        """Progress that the logs show, or `None` if they show none (:api:`logs-and-progress`)."""
        return policy.progress(self.logs)

    async def reload(self) -> Self:
        """Fetch the current state. Calls :api:`predictions.get` or :api:`trainings.get`.

        Returns:
            This object, updated.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        await fetch_state(self, Kind.READ)
        return self

    async def wait(self, *, timeout: float | timedelta | None = None) -> Self:
        """Wait until it has ended. Does not raise if it failed; check `status`.

        Failed requests are repeated until the timeout. Calls :api:`predictions.get`, :api:`predictions.list` or
        :api:`trainings.get`.

        Args:
            timeout: Maximum time to wait: seconds, or a timedelta; `None` for 24 hours.

        Returns:
            This object, in its final state.

        Raises:
            ArgumentError: The timeout is invalid; nothing was sent.
            RunTimeout: It did not end in time, and is still running.
            ReplicateError: The API returned an error.
        """
        await wait_for_end(self, timeout)
        return self

    async def cancel(self) -> Self:
        """Cancel it. Has no effect if it has already ended.

        Calls :api:`predictions.cancel` or :api:`trainings.cancel`.

        Returns:
            This object, in the state after the cancellation.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        # Cancelling twice has the effect of cancelling once, so it may be repeated as a poll is.
        path = f"{self._path}/{identifier(self.id, 'id')}/cancel"
        call = Call(
            "POST", path, Kind.POLL, id=self.id, urgent=True, is_new=not self._is_unconfirmed
        )
        context = self._context
        had_ended = has_ended(self)
        self._replace(await context.fetch(type(self), call, context.timings.search_patience))
        self._is_unconfirmed = False
        if not had_ended and self.status not in {"succeeded", "failed"}:
            context.count(cancelled=1)
            _logger.info(
                "%s %s cancelled", name_of(type(self)), self.id, extra=context.log_extra(self)
            )
        return self

    def updates(
        self,
        *,
        timeout: float | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "leave",
    ) -> AsyncIterator[Update]:
        """Follow the status, new log text and progress: first the current ones, then each change.

        Ends with the job. Nothing is sent before the second update is requested. If waiting for an update is
        cancelled, the iteration can continue afterwards, unless `on_abandon` is `"cancel"`. Calls
        :api:`predictions.get` or :api:`trainings.get`.

        Args:
            timeout: Seconds, or a timedelta, from the request for the first update to the end of the job; `None`
                for 24 hours.
            on_abandon: What happens to the job if the iteration is left before its end, cancelled or out of
                time: `"cancel"` cancels it, within 5 seconds; `"leave"` leaves it running.

        Returns:
            The updates. Dropping the iterator, or its `aclose()`, leaves the iteration.

        Raises, from the iteration:
            PredictionFailed: It failed; raised after the last update.
            PredictionCanceled: It was cancelled; raised after the last update.
            PredictionAborted: It ended before it started; raised after the last update.
            RunTimeout: The timeout has passed.
            ReplicateError: The API returned an error.
            StreamAbandoned: With `on_abandon="cancel"`, waiting for an update was cancelled or interrupted before.
        """
        _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
        seconds = _arguments.timeout_seconds(timeout)
        return Updates(_Followed(self), seconds, cancels=on_abandon == "cancel")

    def raise_for_status(self) -> Self:
        """Raise an exception if it has ended without a result.

        Returns:
            This object, if it has succeeded or has not ended.

        Raises:
            PredictionFailed: It failed.
            PredictionCanceled: It was cancelled.
            PredictionAborted: It ended before it started.
        """
        if has_ended(self) and (error := failure_of(self)) is not None:
            raise error
        return self


@attrs.frozen(eq=False, repr=False)
class _Followed:
    """A job that is followed by its updates."""

    job: LiveJob

    @property
    def pool(self) -> Pool:
        return self.job._context.transport.pool

    async def next_state(self) -> None:
        await next_state(self.job)

    async def conclude(self, job: Job) -> bool:
        if (error := failure_of(job)) is not None:
            raise error
        return True

    async def abandon(self) -> None:
        if not has_ended(self.job):
            _logger.info(
                "%s %s abandoned",
                name_of(type(self.job)),
                self.job.id,
                extra=self.job._context.log_extra(self.job),
            )
            await shielded(partial(cancel_in_time, self.job))

    def timed_out(self, seconds: float) -> exceptions.RunTimeout:
        return run_timeout(self.job, seconds)


def job_from(context: Context, kind: type[J], data: Mapping[str, Any]) -> J:
    """Return a live object for the JSON of a job, which the caller has kept or was sent.

    Raises:
        ArgumentTypeError: `data` is not a mapping.
        ArgumentError: They are not the JSON of a job.
    """
    if not isinstance(data, Mapping):
        raise exceptions.ArgumentTypeError(
            "data", f"expected a mapping, such as the decoded JSON, got {type(data).__name__}"
        )
    try:
        job = structure(copied(dict(data)), kind)
    except ValueError as error:
        raise exceptions.ArgumentError("data", str(error)) from error
    identifier(job.id, "data['id']")
    job._is_unconfirmed = True
    return context.bind(job)


def job_by_id(context: Context, kind: type[J], id: str, argument: str = "id") -> J:
    """Return a job of which only the ID is known, which the caller gave.

    Raises:
        InvalidReference: The ID cannot be one.
        ArgumentTypeError: It is not a string.
    """
    plain_identifier(id, argument)
    job = context.bind(structure({"id": id}, kind))
    job._is_unconfirmed = True
    return job


# -- Updates of a job in place -----------------------------------------------------------------


async def fetch_state(job: LiveJob, kind: Kind, patience: float = _arguments.MAX_WAIT) -> None:
    """Fetch the current state of a job.

    Args:
        job: The job, which is updated in place.
        kind: Which failures of the request may be repeated.
        patience: Seconds for which it is repeated.
    """
    path = f"{job._path}/{identifier(job.id, 'id')}"
    is_new = kind is Kind.POLL and not job._is_unconfirmed
    call = Call("GET", path, kind, id=job.id, is_new=is_new, waits=True)
    job._replace(await job._context.fetch(type(job), call, patience))
    job._is_unconfirmed = False


async def poll(job: LiveJob, patience: float = _arguments.MAX_WAIT) -> None:
    """Poll a job, and log its end; failed requests are repeated for *patience* seconds."""
    await fetch_state(job, Kind.POLL, patience)
    log_end(job)


async def wait_for_end(
    job: LiveJob,
    timeout: float | timedelta | None,
    *,
    poll_first: bool = False,
    poll_interval: float | None = None,
) -> None:
    """Wait until a job has ended.

    Args:
        job: The job, which is updated in place.
        timeout: Seconds, or a timedelta; None for 24 hours.
        poll_first: Whether to poll the job at once.
        poll_interval: Seconds between two polls; None for those of the client.

    Raises:
        RunTimeout: The job did not end in time.
        ReplicateError: The API returned an error.
    """
    if has_ended(job):
        return
    seconds = _arguments.timeout_seconds(timeout)
    limit = _arguments.MAX_WAIT if seconds is None else seconds
    obstacles = Obstacles()
    # Without a timeout of its own, this may be a part of a run, which notes the obstacles for its own timeout.
    with anyio.move_on_after(limit), nullcontext() if seconds is None else obstacles.noted():
        if poll_first:
            await poll(job)
        if not has_ended(job):
            context = job._context
            await context.pollers.of(context.transport).wait(
                _polled(job),
                poll_interval=context.poll_interval if poll_interval is None else poll_interval,
                is_listed=job._path == "/predictions",
            )
        return
    raise exceptions.RunTimeout(job, limit) from obstacles.failure


async def next_state(job: LiveJob) -> None:
    """Wait until a job was polled again, by this task or by another one that follows it."""
    context = job._context
    # Counted from the last poll, so that a wait that was cancelled and begun again does not start over.
    delay = polling_delay(job) - (time.monotonic() - job._seen_at)
    await context.viewers.next_state(context.transport, _polled(job), max(delay, 0.0))


def polling_delay(job: LiveJob) -> float:
    """Return the seconds until the next poll of a job."""
    fixed = job._context.poll_interval
    return policy.poll_delay(time.monotonic() - job._since) if fixed is None else fixed


def _polled(job: LiveJob) -> PolledJob:
    return PolledJob(job, job._since, partial(poll, job), partial(adopt, job))


def adopt(job: LiveJob, other: Job) -> None:
    """Take over the state of another object for the same job."""
    job._replace(structure(other.to_dict(), type(job)))


async def cancel_in_time(job: LiveJob, seconds: float | None = None) -> None:
    """Cancel a job that is abandoned, within a limited time. Does not raise if that fails.

    Args:
        job: The job, which is updated in place.
        seconds: The limit; None for that of the client.
    """
    timings, name = job._context.timings, f"{name_of(type(job))} {job.id}"
    try:
        with anyio.fail_after(timings.cancel if seconds is None else seconds):
            while not has_ended(job):
                # A single request that hangs must not use up the time.
                with anyio.move_on_after(timings.last_try):
                    await job.cancel()
                    break
    except TimeoutError:
        extra = job._context.log_extra(job)
        _logger.warning("%s lost: it could not be cancelled in time", name, extra=extra)
    except exceptions.ReplicateException as error:
        extra = job._context.log_extra(job)
        _logger.warning("%s lost: it could not be cancelled (%s)", name, error, extra=extra)
    except Exception as error:  # noqa: BLE001  (without memory, too: the caller says what is lost)
        extra = job._context.log_extra(job)
        _logger.warning("%s lost: it could not be cancelled (%r)", name, error, extra=extra)


async def look_last(job: LiveJob) -> None:
    """Poll a job once more when its time is over, unless it is known to have ended. Does not raise if that fails."""
    patience = job._context.timings.last_try
    if has_ended(job):
        return
    try:
        with anyio.move_on_after(patience):
            await poll(job, patience)
    except (exceptions.ReplicateError, exceptions.TransportError) as error:
        _logger.debug("%s %s cannot be read now: %s", name_of(type(job)), job.id, error)


# -- The end of a job --------------------------------------------------------------------------


def run_timeout(
    job: Job, seconds: float, cause: BaseException | None = None
) -> exceptions.RunTimeout:
    """Return the exception for a job that did not end in time, whether or not it was cancelled for that."""
    canceled = job.status in ("canceled", "aborted")
    late = exceptions.RunTimeout(job, seconds, canceled=canceled)
    late.__cause__ = cause
    return late


def failure_of(job: Job) -> exceptions.ModelError | None:
    """Return the exception for a job that ended without a result; None if it succeeded."""
    match job.status:
        case "succeeded":
            return None
        case "canceled":
            return exceptions.PredictionCanceled(job)
        case "aborted":
            return exceptions.PredictionAborted(job)
        case "failed":
            return _failed(job)
        case _:
            # A status that this version does not know: the job succeeded if it has an output.
            return None if job.output is not None else _failed(job)


def _failed(job: Job) -> exceptions.PredictionFailed:
    code, kind, retryable = policy.failure_kind(job.error)
    code = code or error_code(job.to_dict().get("error"))
    return exceptions.PredictionFailed(job, code=code, kind=kind, retryable=retryable)


def log_end(job: LiveJob) -> None:
    """Log the end of a job, if it has ended, and why it failed."""
    if _logger.isEnabledFor(logging.INFO) and has_ended(job):
        reason = f": {job.error.strip()[:1000]}" if job.status == "failed" and job.error else ""
        extra = job._context.log_extra(job)
        name = name_of(type(job))
        _logger.info("%s %s %s%s", name, job.id, job.status, reason, extra=extra)


def name_of(kind: type[Any]) -> str:
    """Return the name of a class of jobs for messages."""
    return kind.__name__.lower()
