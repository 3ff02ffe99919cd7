"""Streams of predictions: connect, resume after a lost connection, or poll what is missing (:api:`streaming`).

A `StreamFollower` connects, reads, and makes batches of events. A `Stream` hands them to its user one by one.
Closing it in any way, also by the garbage collector, ends the follower.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, Self, TypeVar
from urllib.parse import urlsplit

import anyio

from .. import _arguments, exceptions
from .._files.output import to_output
from .._http.call import ClientResponse, StreamReader
from .._http.retry import Kind, may_repeat
from .._http.transport import Transport
from .._unpicklable import Unpicklable
from ..types import ServerSentEvent
from . import policy
from .events import Parser, Position, done_reason, failure_text, missing
from .job import LiveJob, failure_of, fetch_state, poll, polling_delay

T = TypeVar("T")
J = TypeVar("J", bound=LiveJob)


_logger = logging.getLogger("replicate_async")


_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor would hold events back
    "Cache-Control": "no-store",
}


_MOST_FRUITLESS: Final = 5
"""Connections in a row that bring nothing new, after which the prediction is polled."""


_PATIENT: Final = 5.0
"""Seconds after which the end of a silent connection is no failure: the model may be starting."""


_LONGEST_PAUSE: Final = 30.0
"""The longest pause in seconds before connecting anew, whatever the server says."""


_LAST_LOOK: Final = 5.0
"""Seconds for which a failed prediction is looked at, so that its error carries its logs."""


class StreamFollower(Generic[J]):
    """Follows one job, and makes batches of its events."""

    def __init__(
        self,
        transport: Transport,
        *,
        create: Callable[[], Awaitable[J]] | None = None,
        job: J | None = None,
        abandon: Callable[[], Awaitable[J | None]] | None = None,
        timed_out: Callable[[float], exceptions.ReplicateException] | None = None,
        timeout: float | None = None,
        files: bool,
    ) -> None:
        """Make a follower; nothing is sent before its first batch is requested.

        Args:
            transport: Makes the requests.
            create: Creates the prediction.
            job: Or the prediction, if there is one.
            abandon: What to do about it if nobody reads any more, which returns the prediction; bounds itself.
            timed_out: Makes the error for when the time is over, if there may be no prediction by then.
            timeout: Seconds from the first batch on; None: 24 hours.
            files: Whether files become `FileOutput`.
        """
        self.job: J | None = job
        """The prediction, once it is created."""
        self.done: ServerSentEvent | None = None
        """The event that ended it."""
        self.reason: str | None = None
        """Why it ended, if not with success."""
        self.texts: list[str] = []
        """The text of each `output` event so far."""
        self.convert: Callable[[Any], Any] | None = None
        """Makes an item of the output into what the user gets; by default, files of what look so."""
        self.joined: bool | None = None
        """Whether the items are the pieces of one text; None: if all of them are text."""
        self._transport = transport
        self._create = create
        self._abandon = abandon
        self._timed_out = timed_out
        self._timeout = timeout
        self._limit = 0.0
        self._files = files
        # The connection:
        self._url: str | None = None
        self._opened: AbstractAsyncContextManager[ClientResponse] | None = None
        self._content: StreamReader | None = None
        self._parser = Parser(transport.config.limits.event)
        self._position = Position()
        self._began = 0.0
        self._fruitful = False
        self._fruitless = 0
        self._retry: float | None = None
        self._connections = 0
        # What giving up needs:
        self._let_go: Callable[[], None] = _nothing
        self._given_up: anyio.Event | None = None
        # What polling needs:
        self._looked = False
        self._failed: str | None = None

    async def batches(self) -> AsyncGenerator[list[ServerSentEvent], None]:
        """Yield events as they arrive, none of them empty, up to `done`."""
        # No cancel scope may be open at a `yield`: the next step may be another task's.
        wanted = True
        try:
            self._limit = time.monotonic() + (self._timeout or _arguments.LONGEST_WAIT)
            if self.job is None:
                assert self._create is not None
                self.job = await self._in_time(self._create)
                # Dropped and not closed, this is closed a moment later, when the client may be, too.
                self._let_go = self._transport.pool.before_close(self._give_up)
            self._url = self.job.urls.stream
            if self._files and self._url is not None and "/v1/streams/" in urlsplit(self._url).path:
                self._files = False  # a text, whatever it looks like (:api:`stream-url`)
            while self.done is None:
                batch = await self._next()
                if batch:
                    yield batch
                if self._failed is not None:
                    wanted = False
                    raise await self._failure(self._failed)
            wanted = False
        except _Late:
            await self._disconnect()
            await self._give_up()
            wanted = False
            seconds = self._timeout or _arguments.LONGEST_WAIT
            if self._timed_out is not None:
                timeout_error = self._timed_out(seconds)
                raise timeout_error from timeout_error.__cause__
            assert self.job is not None
            raise exceptions.RunTimeout(self.job, seconds) from None
        except (exceptions.ReplicateError, exceptions.TransportError) as error:
            if self.job is None:
                wanted = False
                raise
            if isinstance(error, exceptions.AnswerTooLarge):
                raise
            wanted = False
            _logger.warning("prediction %s lost: %s", self.job.id, error)
            raise exceptions.ContactLost(self.job, str(error)) from error
        except exceptions.ModelError:
            wanted = False
            raise
        finally:
            try:
                await self._disconnect()
                if wanted:
                    # Closed, cancelled or interrupted before its end: nobody reads any more.
                    await self._give_up()
            finally:
                self._let_go()

    async def _give_up(self) -> None:
        """Cancel the prediction; once, whoever gives it up."""
        if self._abandon is None:
            return
        if self._given_up is not None:
            await self._given_up.wait()
            return
        self._given_up = anyio.Event()
        try:
            found = await self._abandon()
            self.job = self.job or found
        except (asyncio.CancelledError, GeneratorExit):
            # The end of the loop cancels those, too, who tidy up; before Python 3.13, a generator whose
            # closing is cancelled is then closed again in the middle. Costs have to stop all the same.
            await self._abandon()
            raise
        finally:
            self._given_up.set()

    async def _in_time(self, step: Callable[[], Awaitable[T]]) -> T:
        """Await one step within the time that is left."""
        left = self._limit - time.monotonic()
        if self._timeout is None and left > 0:
            return await step()  # each step has bounds of its own, far below 24 hours

        with anyio.move_on_after(max(left, 0)):
            return await step()
        raise _Late

    async def _next(self) -> list[ServerSentEvent]:
        """Return what came next; nothing if it was nothing new."""
        if self._url is None:
            return await self._poll()
        content = self._content
        if content is None:
            await self._connect(self._url)
            return []
        try:
            if self._timeout is None and time.monotonic() < self._limit:
                chunk = await content.readany()
            else:
                chunk = await self._in_time(content.readany)
        except Exception as error:
            if isinstance(error, _Late):
                raise
            await self._lost(await self._translated(error))
            return []
        if not chunk:
            await self._lost(None)
            return []
        parser = self._parser
        events = parser.feed(chunk)
        if events:
            events = self._position.fresh(events)
        if events:
            self._fruitful = True
            return self._taken(events)
        if parser.overflowed:
            limit = self._transport.config.limits.event
            raise exceptions.AnswerTooLarge("GET", self._shown, limit, "event")
        return []

    def _taken(self, events: list[ServerSentEvent]) -> list[ServerSentEvent]:
        """Note what has come; return it up to what ends it."""
        texts = [event.data for event in events if event.event == "output"]
        if len(texts) != len(events):
            for number, event in enumerate(events):
                if event.event == "error":
                    self._failed = failure_text(event.data)
                    self.reason = "error"
                    events = events[:number]
                    break
                if event.event == "done":
                    self.reason = done_reason(event.data)
                    if self.reason == "error":
                        # What should have told of it before has not come.
                        self._failed = ""
                        events = events[:number]
                    else:
                        self.done = event
                        events = events[: number + 1]
                    break
            texts = [event.data for event in events if event.event == "output"]
        self.texts += texts
        if self.convert is not None or self._files:
            for event in events:
                if event.event != "output":
                    continue
                if self.convert is not None:
                    event._output = self.convert(event.data)
                else:
                    event._output = to_output(event.data, self._transport, files=True)
        return events

    # Connections

    @property
    def _shown(self) -> str:
        return (self._url or "").partition("?")[0]

    async def _connect(self, url: str) -> None:
        """Connect, or decide that the prediction has to be polled."""
        if self._connections:
            await self._pause()
            self._position.reconnected()
        self._connections += 1
        last_id = self._parser.last_id
        headers = _HEADERS if not last_id else {**_HEADERS, "Last-Event-ID": last_id}
        self._parser = Parser(self._transport.config.limits.event)
        self._parser.last_id = last_id
        self._fruitful = False
        self._began = time.monotonic()
        opened = self._transport.open(
            url, headers=headers, silence=self._transport.config.timeout.stream
        )
        try:
            response = await self._in_time(opened.__aenter__)
        except exceptions.ReplicateError as error:
            self._refused(error)
            return
        except (
            exceptions.ConnectError,
            exceptions.TransportTimeout,
            exceptions.ConnectionLost,
        ) as error:
            self._count(error)
            return
        except exceptions.TransportError as error:
            self._polled(error)
            return
        self._opened = opened
        if response.status == 204 or response.content_type != "text/event-stream":
            await self._disconnect()
            self._polled(f"the stream is {response.content_type!r} ({response.status})")
            return
        self._content = response.content

    def _refused(self, error: exceptions.ReplicateError) -> None:
        if not may_repeat(Kind.POLL, error):
            self._polled(error)
            return
        if error.retry_after is not None:
            self._retry = max(self._retry or 0.0, error.retry_after)
        self._count(error)

    async def _lost(self, error: Exception | None) -> None:
        """Take a connection for lost: only `done` is an end (:api:`stream-end`)."""
        await self._disconnect()
        parser = self._parser
        if parser.retry is not None:
            self._retry = parser.retry / 1000
        if self._fruitful:
            self._fruitless = 0
            _logger.info("stream of %s lost (%s); resuming", self._name, error or "it has ended")
        elif time.monotonic() - self._began >= _PATIENT:
            pass  # it was silent, as models are before they start
        elif parser.timed_out:
            self._polled("the stream has expired")
        else:
            self._count(error or "it has ended")

    def _count(self, cause: object) -> None:
        self._fruitless += 1
        if self._fruitless >= _MOST_FRUITLESS:
            self._polled(cause)
        else:
            _logger.info("stream of %s not reached (%s); again", self._name, cause)

    def _polled(self, cause: object) -> None:
        """Follow the prediction by polling from now on."""
        _logger.info("stream of %s given up (%s); polling", self._name, cause)
        self._url = None
        self._looked = False

    async def _pause(self) -> None:
        # Many may have been lost at once: they shall not come back at once.
        seconds = min(0.1 * 2.0**self._fruitless, 5.0) * (1 - random.random() / 2)
        if self._retry is not None:
            seconds = self._retry
        seconds = min(seconds, _LONGEST_PAUSE)
        await self._in_time(lambda: anyio.sleep(seconds))

    async def _translated(self, error: Exception) -> Exception:
        """Close a broken connection, and return our error for what broke it."""
        opened, self._opened, self._content = self._opened, None, None
        assert opened is not None
        try:
            await opened.__aexit__(type(error), error, error.__traceback__)
        except exceptions.TransportError as translated:
            return translated
        raise error

    async def _disconnect(self) -> None:
        opened, self._opened, self._content = self._opened, None, None
        if opened is not None:
            await opened.__aexit__(None, None, None)

    @property
    def _name(self) -> str:
        return "nothing" if self.job is None else f"prediction {self.job.id}"

    # Polling

    async def _poll(self) -> list[ServerSentEvent]:
        """Look at the prediction, and return what is new of its output as events."""
        prediction = self.job
        assert prediction is not None
        if not policy.has_ended(prediction) or (self._connections and not self._looked):
            if self._looked or (self._create is not None and not self._connections):
                await self._in_time(lambda: anyio.sleep(polling_delay(prediction)))
            self._looked = True
            await self._in_time(lambda: poll(prediction))
        over = policy.has_ended(prediction)
        events = self._polled_output(prediction, over=over)
        if over:
            if getattr(prediction, "data_removed", False) and self._incomplete(prediction):
                raise exceptions.ContactLost(
                    prediction, "its stream has expired, and its data have been deleted"
                )
            error = failure_of(prediction)
            if isinstance(error, exceptions.PredictionFailed):
                self._failed = prediction.error or ""
                self.reason = "error"
            else:
                self.reason = None if error is None else "canceled"
                data = "{}" if error is None else '{"reason":"canceled"}'
                self.done = ServerSentEvent("done", data)
                events.append(self.done)
        return events

    def _incomplete(self, prediction: LiveJob) -> bool:
        return prediction.status == "succeeded" and prediction._raw.get("output") is None

    def _polled_output(self, prediction: LiveJob, *, over: bool) -> list[ServerSentEvent]:
        raw = prediction._raw.get("output")
        if raw is None:
            return []
        if isinstance(raw, list):
            items: list[Any] = raw
        elif isinstance(raw, str) or over:
            items = [raw]
        else:
            return []  # an object may still grow
        texts = [item if isinstance(item, str) else _as_text(item) for item in items]
        if not over and raw is not items and texts[0].startswith(("https:", "data:")):
            return []
        if self.convert is None:
            # As a whole: in a list of strings all must be files, or none is.
            items = to_output(items, self._transport, files=self._files)
        events: list[ServerSentEvent] = []
        for number, text in missing(texts, self.texts):
            item = text if number is None else items[number]
            event = ServerSentEvent("output", text)
            event._output = item if self.convert is None else self.convert(item)
            events.append(event)
            self.texts.append(text)
        return events

    async def _failure(self, said: str) -> exceptions.StreamError:
        """Return the error for a prediction that failed, with what is known of it by now."""
        prediction = self.job
        assert prediction is not None
        await self._disconnect()
        if not policy.has_ended(prediction):
            try:
                with anyio.move_on_after(_LAST_LOOK):
                    await fetch_state(prediction, Kind.READ, _LAST_LOOK)
            except (exceptions.ReplicateError, exceptions.TransportError) as error:
                _logger.debug("prediction %s cannot be read now: %s", prediction.id, error)
        code, kind, retryable = policy.failure_kind(prediction.error or said)
        return exceptions.StreamError(
            prediction, said, "".join(self.texts), code=code, kind=kind, retryable=retryable
        )


def _nothing() -> None:
    """There is nothing to let go of."""


class _Late(Exception):
    """The time is over."""


def _as_text(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


class Stream(Unpicklable, Generic[T, J]):
    """An async iterator over the batches of a follower, one item at a time."""

    def __init__(self, follower: StreamFollower[J]) -> None:
        # The follower does not know of this object, so dropping it ends the follower at once.
        self._follower: StreamFollower[J] = follower
        self._batches: AsyncGenerator[list[ServerSentEvent], None] = follower.batches()
        self._ready: Iterator[T] = iter(())
        self._reading: anyio.CancelScope | None = None
        """Entered by the task that waits for the next batch."""
        self._closing: anyio.Event | None = None
        """Set when the stream is closed; None before anyone closes it."""
        self._is_abandoned: bool = False
        """Whether waiting for a batch was cancelled, which has ended the follower."""

    @property
    def reason(self) -> str | None:
        """Why it ended: `"canceled"` or `"error"`; None on success, and before the end."""
        return self._follower.reason

    @property
    def text(self) -> str:
        """The text of all output so far."""
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
        """Return what has arrived, at least one item; the sync facade takes it at one go.

        Raises:
            StopAsyncIteration: There is no more.
            StreamAbandoned: The stream was given up before.
        """
        rest = list(self._ready)
        if rest:
            return rest
        if self._closing is None and (abandonment := self._abandonment()) is not None:
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
            if self._closing is not None:
                self._closing.set()
        if not batch:
            raise StopAsyncIteration  # closed by another task
        return batch

    def _items(self, events: list[ServerSentEvent]) -> list[T]:
        raise NotImplementedError

    def _abandonment(self) -> exceptions.StreamAbandoned | None:
        """Return the error for what follows, if the stream was given up; the sync facade asks for it, too."""
        return exceptions.StreamAbandoned(self._follower.job) if self._is_abandoned else None

    async def aclose(self) -> None:
        """Close the connection and drop the items that are left. It can be called twice, and by any task.

        Cancels the prediction unless it has ended, if it was created by `stream` or a model function.
        """
        self._ready = iter(())
        if self._closing is not None:
            await self._closing.wait()
            return
        self._closing = anyio.Event()
        if self._reading is not None:
            # Another task waits for the next item: its iteration ends.
            self._reading.cancel()
            await self._closing.wait()
            return
        try:
            await self._batches.aclose()
        finally:
            self._closing.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
