"""Streams of predictions: their events as they arrive, or polled if they cannot be streamed (:api:`streaming`).

A `StreamFollower` makes batches of events. A `Stream` yields them to the user one by one. If the stream is closed, or
dropped, the follower ends.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, Final, Generic, Self, TypeVar

import anyio
import attrs

from .. import _arguments, exceptions
from .._codec import error_code
from .._concurrency import BatchIterator
from .._files.output_trees import to_output
from .._http.call import redacted
from .._http.retry import Kind
from .._http.transport import Transport
from .._http.urls import path_of
from .._json import to_text
from .._unpicklable import Unpicklable
from ..types import ServerSentEvent
from . import policy
from .event_source import EventSource, StreamUnavailable
from .events import done_reason, failure_text, missing
from .job import LiveJob, failure_of, fetch_state, next_state, poll
from .policy import has_ended

T = TypeVar("T")
J = TypeVar("J", bound=LiveJob)

_logger = logging.getLogger("replicate_async")

_EVENT: Final = 100
"""Number of characters that each event counts for in addition to its text: about its size in memory."""

_FETCH_TIME: Final = 5.0
"""Longest time in seconds to fetch a prediction whose stream has failed, or brings nothing."""


class StreamFollower(Generic[J]):
    """Follows one job to its end, and makes batches of its events."""

    def __init__(
        self,
        transport: Transport,
        *,
        create: Callable[[], Awaitable[J]] | None = None,
        job: J | None = None,
        abandon: Callable[[], Awaitable[J | None]] | None = None,
        timed_out: Callable[[float], exceptions.ReplicateException] | None = None,
        ended: Callable[[BaseException | None], None] | None = None,
        timeout: float | None = None,
        files: bool,
        last_event_id: str | None = None,
    ) -> None:
        """Make a follower; nothing is sent before its first batch is requested.

        Args:
            transport: Makes the requests.
            create: Creates the job, if it does not exist yet.
            job: The job, if it exists.
            abandon: Called if the stream is not read to its end. Returns the job, if it was found, and limits its
                own duration.
            timed_out: Makes the exception for a timeout; by default a `RunTimeout`.
            ended: Called at the end, with the error if there is one.
            timeout: Seconds from the first batch on; None for 24 hours.
            files: Whether files become `FileOutput`.
            last_event_id: ID of the event to resume after; None to start with the first one.
        """
        self.last_event_id: str | None = last_event_id
        """ID of the event that it resumes after."""
        self.job: J | None = job
        """The job, or None before it is created."""
        self.done: ServerSentEvent | None = None
        """The event that ended the stream."""
        self.reason: str | None = None
        """Why the job ended, if it did not succeed."""
        self.texts: list[str] = []
        """The text of each `output` event so far."""
        self.convert: Callable[[Any, str], Any] | None = None
        """Converts an item of the output of the prediction with this ID for the user; by default, URLs of files become `FileOutput`."""
        self.joined: bool | None = None
        """Whether the items are the pieces of one text; None: if all of them are text."""
        self._transport = transport
        self._create = create
        self._abandon = abandon
        self._timed_out = timed_out
        self._ended = ended
        self._timeout = timeout
        self._ends_at = 0.0
        """Time at which the timeout is over (monotonic)."""
        self._files = files
        self._source: EventSource | None = None
        """Receives the events; None while the job is polled."""
        self._is_outdated = False
        """Whether the job is older than what its stream has shown."""
        self._size = 0
        """Size of all events so far, as `Limits.stream` counts it."""
        self._failed: str | None = None
        """Error text of the job, once it has failed."""
        self._is_over = False
        """Whether the end of the stream was reported."""
        self._abandoned: anyio.Event | None = None
        """Set when the job was abandoned; None before that begins."""
        self._unregister: Callable[[], None] | None = None
        """Removes what was registered with the client, to abandon the job before the client is closed."""

    async def batches(self) -> AsyncGenerator[list[ServerSentEvent], None]:
        """Yield the events in batches as they arrive, up to `done`. No batch is empty.

        Raises:
            StreamError: The job failed.
            ContactLost: The job could not be followed to its end.
        """
        # No cancel scope may be open at a `yield`, since another task may make the next step.
        needs_abandoning = True
        try:
            self._ends_at = time.monotonic() + (self._timeout or _arguments.MAX_WAIT)
            if self.job is None:
                assert self._create is not None
                self.job = await self._in_time(self._create)
                # A stream that is dropped is closed a little later, when the client may be closed already.
                self._unregister = self._transport.pool.before_close(self._abandon_once)
            self._open(self.job)
            while self.done is None:
                batch = await self._in_time(self._next)
                if batch:
                    yield batch
                if self._failed is not None:
                    needs_abandoning = False
                    raise await self._failure(self._failed)
            needs_abandoning = False
        except Exception as error:
            if (
                needs_abandoning
                and not isinstance(error, exceptions.ModelError)
                and not _is_loss(error)
            ):
                await self._disconnect()
                await self._abandon_once()
            needs_abandoning = False
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from explained.__cause__
        finally:
            try:
                await self._disconnect()
                if needs_abandoning:
                    # Closed, cancelled or interrupted before its end.
                    await self._abandon_once()
            finally:
                if self._unregister is not None:
                    self._unregister()
                self._end(None if self.done is not None else sys.exception())

    def _explained(self, error: Exception) -> Exception:
        """Return the exception for the user, which names the job: the error itself, or one that it has caused."""
        if isinstance(error, _TimeoutReached):
            return self._timeout_error()
        is_expected = isinstance(error, exceptions.ReplicateException)
        if self.job is None or (is_expected and not _is_loss(error)):
            return error
        reason = str(error)
        if is_expected:
            extra = self.job._context.log_extra(self.job)
            _logger.warning("prediction %s lost: %s", self.job.id, error, extra=extra)
        else:
            reason = repr(error)[:500]
        lost = exceptions.ContactLost(self.job, reason)
        lost.__cause__ = error
        return lost

    def _end(self, error: BaseException | None) -> None:
        """Report that the stream has ended, and how; only the first call has an effect."""
        if self._is_over:
            return
        self._is_over = True
        if self._ended is not None:
            self._ended(error)
        job = self.job
        if job is None:
            return
        reason = self.reason or ("succeeded" if self.done is not None else "left")
        if self._failed:
            reason = f"failed: {self._failed.strip()[:1000]}"
        extra = job._context.log_extra(job)
        _logger.info("stream of prediction %s ended: %s", job.id, reason, extra=extra)

    def _open(self, job: J) -> None:
        """Prepare to stream a job, if it has a stream."""
        url = job.urls.stream
        if url is None:
            return
        if "/v1/streams/" in path_of(url):
            # The output is text, even if it looks like a URL (:api:`stream-url`).
            self._files = False
        self._is_outdated = True
        self._source = EventSource(self._transport, url, job.id, self.last_event_id)

    async def _disconnect(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            await source.aclose()

    async def _abandon_once(self) -> None:
        """Abandon the job, or wait until another task has done so."""
        if self._abandon is None:
            return
        if self._abandoned is not None:
            await self._abandoned.wait()
            return
        self._abandoned = anyio.Event()
        try:
            found = await self._abandon()
            self.job = self.job or found
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            # At the end of an event loop asyncio cancels clean-ups, too. Before Python 3.13, a generator whose
            # `aclose` is cancelled is then closed a second time. The prediction must be cancelled all the same.
            await self._abandon()
            raise
        finally:
            self._abandoned.set()

    async def _in_time(self, step: Callable[[], Awaitable[T]]) -> T:
        """Await one step, until the timeout at most."""
        left = self._ends_at - time.monotonic()
        if self._timeout is None and left > 0:
            # Each step is limited by the timeouts of its requests, to far less than 24 hours.
            return await step()
        with anyio.move_on_after(max(left, 0)):
            return await step()
        raise _TimeoutReached

    def _timeout_error(self) -> exceptions.ReplicateException:
        seconds = self._timeout or _arguments.MAX_WAIT
        if self._timed_out is not None:
            return self._timed_out(seconds)
        assert self.job is not None
        return exceptions.RunTimeout(self.job, seconds)

    async def _next(self) -> list[ServerSentEvent]:
        """Return the next events; an empty batch if there are none yet."""
        assert self.job is not None
        if self._source is None:
            return await self._poll(self.job)
        source = self._source
        try:
            batch = self._accept(await source.next_batch())
        except StreamUnavailable as error:
            _logger.info("stream of prediction %s given up (%s); polling", self.job.id, error)
            self._source = None
            return []
        if source.is_doubtful and self.done is None and self._failed is None:
            source.is_doubtful = False
            await self._look(self.job)
        return batch

    async def _look(self, job: J) -> None:
        """Look at the job after a connection that has brought nothing new; if it has ended, give up the stream."""
        await _fetch_soon(job)
        if has_ended(job):
            _logger.info("prediction %s has ended, and its stream has not", job.id)
            self._is_outdated = False
            await self._disconnect()

    def _accept(self, events: list[ServerSentEvent]) -> list[ServerSentEvent]:
        """Record events, and return them up to the one that ends the stream."""
        accepted: list[ServerSentEvent] = []
        self._count(events)
        for event in events:
            if event.event == "output":
                self.texts.append(event.data)
                if self.convert is not None or self._files:
                    event = attrs.evolve(event, output=self._converted(event.data))
            elif event.event == "error":
                self._failed = failure_text(event.data)
                self.reason = "error"
                break
            elif event.event == "done":
                self.reason = done_reason(event.data)
                if self.reason == "error":
                    self._failed = ""  # the `error` event before it is missing
                else:
                    self.done = event
                    accepted.append(event)
                break
            accepted.append(event)
        return accepted

    def _count(self, events: list[ServerSentEvent]) -> None:
        """Count events.

        Raises:
            AnswerTooLarge: The stream is larger than `Limits.stream`: a model may write for ever.
        """
        self._size += sum(len(event.data) + len(event.id or "") + _EVENT for event in events)
        limit = self._transport.config.limits.stream
        if self._size > limit:
            assert self.job is not None
            url = redacted(self.job.urls.stream or "")
            raise exceptions.AnswerTooLarge("GET", url, limit, "stream", prediction_id=self.job.id)

    def _converted(self, item: Any) -> Any:
        assert self.job is not None
        if self.convert is not None:
            return self.convert(item, self.job.id)
        return to_output(item, self._transport, files=self._files, prediction=self.job.id)

    async def _failure(self, text: str) -> exceptions.StreamError:
        """Return the exception for a job that failed, with its current state."""
        job = self.job
        assert job is not None
        await self._disconnect()
        if not has_ended(job):
            await _fetch_soon(job)
        code, kind, retryable = policy.failure_kind(job.error or text)
        code = code or error_code(job._raw.get("error"))
        return exceptions.StreamError(
            job, text, "".join(self.texts), code=code, kind=kind, retryable=retryable
        )

    # Polling

    async def _poll(self, job: J) -> list[ServerSentEvent]:
        """Poll the job, and return what is new of its output as events."""
        if self._is_outdated:
            self._is_outdated = False
            await poll(job)
        elif not has_ended(job):
            await next_state(job)
        events = self._new_output(job)
        if not has_ended(job):
            return events
        is_removed = getattr(job, "data_removed", False) and job._raw.get("output") is None
        if is_removed and job.status == "succeeded":
            raise exceptions.ContactLost(
                job, "its stream has expired, and its data have been deleted"
            )
        error = failure_of(job)
        if isinstance(error, exceptions.PredictionFailed):
            self._failed = job.error or ""
            self.reason = "error"
            return events
        self.reason = None if error is None else "canceled"
        self.done = ServerSentEvent("done", "{}" if error is None else '{"reason":"canceled"}')
        return [*events, self.done]

    def _new_output(self, job: J) -> list[ServerSentEvent]:
        """Return the output of a polled job that has not been yielded, as events."""
        output = job._raw.get("output")
        ended = has_ended(job)
        if isinstance(output, list):
            items: list[Any] = output
        elif isinstance(output, str):
            if not ended and output.startswith(("https:", "data:")):
                return []  # the URL of a file may be incomplete
            items = [output]
        elif output is not None and ended:
            items = [output]
        else:
            return []  # an object may be incomplete
        texts = [item if isinstance(item, str) else _as_text(item) for item in items]
        if self.convert is None:
            # All at once: strings in a list are files only if all of them are.
            items = to_output(items, self._transport, files=self._files, prediction=job.id)
        events: list[ServerSentEvent] = []
        for index, text in missing(texts, self.texts):
            item = text if index is None else items[index]
            if self.convert is not None:
                item = self.convert(item, job.id)
            events.append(ServerSentEvent("output", text, output=item))
            self.texts.append(text)
        return events


async def _fetch_soon(job: LiveJob) -> None:
    """Fetch the state of a job within a limited time. Does not raise if that fails."""
    try:
        with anyio.move_on_after(_FETCH_TIME):
            await fetch_state(job, Kind.READ, _FETCH_TIME)
    except (exceptions.ReplicateError, exceptions.TransportError) as error:
        _logger.debug("prediction %s cannot be read now: %s", job.id, error)


def _is_loss(error: Exception) -> bool:
    """Return whether an error means that contact with the job is lost, so that it could not be cancelled either."""
    return isinstance(
        error,
        (
            exceptions.ReplicateError,
            exceptions.TransportError,
            exceptions.InvalidReference,  # the ID that the API gave
        ),
    ) and not isinstance(error, exceptions.AnswerTooLarge)


class _TimeoutReached(Exception):
    """The timeout of a stream is over."""


def _as_text(item: Any) -> str:
    return to_text(item, ascii_only=False, separators=(",", ":"))


class Stream(Unpicklable, BatchIterator[T], Generic[T, J]):
    """An async iterator over the items in the batches of a follower."""

    def __init__(self, follower: StreamFollower[J]) -> None:
        # The follower has no reference to the stream, so that it ends as soon as the stream is dropped.
        self._follower: StreamFollower[J] = follower
        self._batches: AsyncGenerator[list[ServerSentEvent], None] = follower.batches()
        self._ready: Iterator[T] = iter(())
        """The items that have arrived and have not been yielded."""
        self._reading: anyio.CancelScope | None = None
        """Cancel scope of the task that waits for the next batch."""
        self._closed: anyio.Event | None = None
        """Set when the stream is closed; None before that begins."""
        self._is_abandoned: bool = False
        """Whether waiting for a batch was cancelled or interrupted, which has ended the follower."""

    @property
    def reason(self) -> str | None:
        """Why it ended: `"canceled"` or `"error"`; `None` on success, and before the end."""
        return self._follower.reason

    @property
    def text(self) -> str:
        """Text of the whole output so far."""
        return "".join(self._follower.texts)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        for item in self._ready:
            return item
        self._ready = iter(await self._batch())
        for item in self._ready:
            return item
        raise StopAsyncIteration

    async def _batch(self) -> list[T]:
        """Return all items that have arrived, at least one.

        Raises:
            StopAsyncIteration: The stream has ended.
            StreamAbandoned: The stream was abandoned before.
        """
        ready = list(self._ready)
        if ready:
            return ready
        if self._closed is None and (abandonment := self._abandonment()) is not None:
            raise abandonment
        if self._reading is not None:
            raise exceptions.StreamInUse
        batch: list[T] = []
        try:
            with anyio.CancelScope() as self._reading:
                while not batch:
                    batch = self._items(await anext(self._batches))
        except Exception:
            raise
        except BaseException:
            self._is_abandoned = True
            raise
        finally:
            self._reading = None
            if self._closed is not None:
                self._closed.set()
        if not batch:
            raise StopAsyncIteration  # closed by another task
        return batch

    def _items(self, events: list[ServerSentEvent]) -> list[T]:
        """Return the items for a batch of events. Each kind of stream has its own."""
        raise NotImplementedError

    def _abandonment(self) -> exceptions.StreamAbandoned | None:
        """Return the exception for the next item, if the stream was abandoned."""
        return exceptions.StreamAbandoned(self._follower.job) if self._is_abandoned else None

    async def aclose(self) -> None:
        """Close the connection, and drop the remaining items. May be called more than once, and by any task.

        A prediction that the stream has created is cancelled, unless it has ended or `on_abandon` is `"leave"`.
        """
        self._ready = iter(())
        if self._closed is not None:
            await self._closed.wait()
            return
        self._closed = anyio.Event()
        if self._reading is not None:
            # Another task waits for the next item: end its iteration.
            self._reading.cancel()
            await self._closed.wait()
            return
        try:
            await self._batches.aclose()
        finally:
            self._closed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
