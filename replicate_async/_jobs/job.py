"""Live jobs: what predictions and trainings can do, and how they end (:api:`status`)."""

# Annotations are not postponed here: attrs copies those of the fields into the `__init__` of the subclasses in other
# modules, where `typing.get_type_hints` would not find the names.

import logging
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

import anyio
import attrs

from .. import _arguments, exceptions
from .._codec import structure, structure_part
from .._http.call import Call
from .._http.retry import Kind
from .._references import identifier
from ..types import Job, PredictionUrls, Progress, Status, Update
from . import policy
from .context import Bound

_logger = logging.getLogger("replicate_async")


@attrs.define(eq=False)
class LiveJob(Bound):
    """A prediction or training that is bound to a client.

    `reload()`, `wait()` and `cancel()` write what they learn into the object itself.
    """

    _path: ClassVar[str]
    """The path of its collection."""
    _computed: ClassVar[frozenset[str]] = frozenset({"output", "urls"})

    id: str
    """Unique ID."""
    status: Status = ""
    """Current status."""
    model: str | None = None
    """The model, `owner/name`."""
    version: str | None = None
    """The ID of the version; `"hidden"` for official models."""
    input: dict[str, Any] = attrs.field(factory=dict)
    """The input."""
    logs: str = ""
    """The logs so far."""
    error: str | None = None
    """The error text of a failure."""
    metrics: dict[str, Any] = attrs.field(factory=dict)
    """Measurements: `predict_time` and `total_time` in seconds, counts of tokens and images."""
    source: str | None = None
    """`"api"` or `"web"`."""
    created_at: datetime | None = None
    """When it was created."""
    started_at: datetime | None = None
    """When it started."""
    completed_at: datetime | None = None
    """When it ended."""
    webhook: str | None = None
    """The URL that receives webhooks."""
    webhook_events_filter: list[str] = attrs.field(factory=list)
    """The events that trigger the webhook."""
    _since: float = attrs.field(factory=time.monotonic, repr=False, init=False)

    @property
    def output(self) -> Any:
        """The output so far; None if there is none."""
        return self._raw.get("output")

    @property
    def urls(self) -> PredictionUrls:
        """URLs of the API and of the web page."""
        return structure_part(self._raw.get("urls"), PredictionUrls)

    @property
    def progress(self) -> Progress | None:
        """The progress that the logs report; None if they report none (:api:`logs-and-progress`)."""
        return policy.progress(self.logs)

    async def reload(self) -> Self:
        """Fetch the current state. Calls :api:`predictions.get` or :api:`trainings.get`.

        Returns:
            The object itself.

        Raises:
            ReplicateError: The API refuses.
            TransportError: There was no usable answer.
        """
        await self._look(Kind.READ)
        return self

    async def wait(self, *, timeout: float | timedelta | None = None) -> Self:
        """Wait until it has ended. Does not raise if it failed; check `status`.

        Failed requests are repeated until the time is over. Calls :api:`predictions.get`,
        :api:`predictions.list` or :api:`trainings.get`.

        Args:
            timeout: Seconds, or a timedelta; None means 24 hours.

        Returns:
            The object itself.

        Raises:
            RunTimeout: The time was over first. The job goes on.
            ReplicateError: The API refuses.
        """
        await self._wait(timeout)
        return self

    async def cancel(self) -> Self:
        """Cancel it. One that has ended stays as it is.

        Calls :api:`predictions.cancel` or :api:`trainings.cancel`.

        Returns:
            The object itself.

        Raises:
            ReplicateError: The API refuses.
            TransportError: There was no usable answer.
        """
        # Cancelling twice is cancelling once, so it is repeated as a read is.
        path = f"{self._path}/{identifier(self.id, 'id')}/cancel"
        call = Call("POST", path, Kind.POLL, urgent=True)
        context = self._context
        self._adopt(await context.fetch(type(self), call, context.timings.search_patience))
        context.stats.cancelled += 1
        _logger.info("%s %s cancelled", name_of(type(self)), self.id)
        return self

    async def updates(self) -> AsyncIterator[Update]:
        """Yield the status, new log text and progress: first the current ones, then each change.

        Ends with the job. Leaving the loop early does not cancel it. Calls :api:`predictions.get` or
        :api:`trainings.get`.

        Raises:
            PredictionFailed: It failed; likewise PredictionCanceled and PredictionAborted. Raised after
                the last update.
            ReplicateError: The API refuses.
        """
        seen = ""
        before: tuple[object, ...] | None = None
        while True:
            progress = self.progress
            now = (self.status, self.logs, progress)
            if now != before:
                before = now
                fresh = self.logs.removeprefix(seen)
                seen = self.logs or seen
                yield Update(self.status, fresh, progress)
            if has_ended(self):
                error = failure_of(self)
                if error is not None:
                    raise error
                return
            await self._next_state()

    # For the modules of this package

    async def _wait(self, timeout: float | timedelta | None, *, at_once: bool = False) -> None:
        """Wait until it has ended.

        Args:
            timeout: Seconds, or a timedelta; None means 24 hours.
            at_once: Whether to poll before the first pause.
        """
        if has_ended(self):
            return
        seconds = _arguments.timeout_seconds(timeout)
        limit = _arguments.LONGEST_WAIT if seconds is None else seconds
        with anyio.move_on_after(limit):
            if at_once:
                await self._poll()
            if not has_ended(self):
                context = self._context
                await context.pollers.of(context.transport).wait(
                    self,
                    self._poll,
                    self._adopt_copy,
                    since=self._since,
                    poll_interval=context.poll_interval,
                    is_listed=self._path == "/predictions",
                )
            return
        raise exceptions.RunTimeout(self, limit)

    async def _next_state(self) -> None:
        """Return when the state was fetched again, here or by another one who follows the same job."""
        context = self._context
        await context.viewers.next_state(
            context.transport, self, self._poll, self._adopt_copy, self._pause()
        )

    def _pause(self) -> float:
        """Return the seconds until the next poll."""
        fixed = self._context.poll_interval
        return policy.poll_delay(time.monotonic() - self._since) if fixed is None else fixed

    async def _poll(self, patience: float = _arguments.LONGEST_WAIT) -> None:
        """Fetch the current state, and repeat failed requests for so many seconds."""
        await self._look(Kind.POLL, patience)
        log_end(self)

    async def _look(self, kind: Kind, patience: float = _arguments.LONGEST_WAIT) -> None:
        call = Call("GET", f"{self._path}/{identifier(self.id, 'id')}", kind)
        self._adopt(await self._context.fetch(type(self), call, patience))

    def _adopt(self, fresh: "LiveJob") -> None:
        """Take over the state of a fresh object, but not what only this one knows."""
        since = self._since
        self._replace(fresh)
        self._since = since

    def _adopt_copy(self, other: Job) -> None:
        """Take over the state of another object for the same job."""
        fresh = structure(other.to_dict(), type(self))
        self._adopt(self._context.bind(fresh))


def has_ended(job: Job) -> bool:
    """Tell whether a job has ended."""
    return policy.is_over(job.status, job.completed_at is not None)


def failure_of(job: Job) -> exceptions.ModelError | None:
    """Return the error of a job that ended without a result; None if it succeeded."""
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
            # An end that this version does not know: a result if there is one.
            return None if job.output is not None else _failed(job)


def _failed(job: Job) -> exceptions.PredictionFailed:
    code, kind, retryable = policy.failure_kind(job.error)
    return exceptions.PredictionFailed(job, code=code, kind=kind, retryable=retryable)


def log_end(job: Job) -> None:
    """Log that a job has ended."""
    if _logger.isEnabledFor(logging.INFO) and has_ended(job):
        _logger.info("%s %s %s", name_of(type(job)), job.id, job.status)


def name_of(kind: type[Any]) -> str:
    """Return the name of a class of jobs for log lines."""
    return kind.__name__.lower()
