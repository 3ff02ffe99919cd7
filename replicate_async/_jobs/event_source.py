"""Receives the events of a stream: connects, and resumes after a lost connection (:api:`streaming`)."""

from __future__ import annotations

import logging
import random
import time
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio

from .. import exceptions
from .._http.call import ClientResponse, StreamReader, redacted
from .._http.retry import Kind, may_repeat
from .._http.transport import Transport
from ..types import ServerSentEvent
from .events import Parser, SeenEvents

_logger = logging.getLogger("replicate_async")

_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # compression would delay events
    "Cache-Control": "no-store",
}

_MAX_FRUITLESS: Final = 5
"""Number of connections in a row without new events after which the stream is given up."""

_SILENT: Final = 5.0
"""Seconds after which a connection may end without events and is not counted: the model may be starting."""

_LONG_PAUSE: Final = 1.0
"""Pause in seconds before reconnecting from which it is worth to look at the job instead."""

_LONG_SILENCE: Final = 15.0
"""Seconds without news on an open connection after which to look at the job, if `Timeout.stream` is not shorter."""

_NEWS: Final = frozenset({"output", "logs", "done", "error"})
"""The events that show progress or the end of the job; others may only keep the connection open."""

_MAX_PAUSE: Final = 30.0
"""Longest pause in seconds before reconnecting, whatever the server asks for."""


class StreamUnavailable(Exception):
    """A stream cannot be followed any further; its prediction can still be polled."""


class EventSource:
    """Receives the events of one stream over as many connections as it takes."""

    def __init__(
        self, transport: Transport, url: str, prediction: str, last_event_id: str | None = None
    ) -> None:
        """Make an event source; nothing is sent before the first batch is requested.

        Args:
            transport: Makes the requests.
            url: URL of the stream.
            prediction: ID of the prediction.
            last_event_id: ID of the event to resume after; None to start with the first one.
        """
        self._transport = transport
        self._url = url
        self._prediction = prediction
        self._seen = SeenEvents()
        self._is_first = True
        """Whether no connection has been tried yet."""
        self._fruitless = 0
        """Number of connections in a row without new events."""
        self.is_doubtful: bool = False
        """Whether nothing has come for a while, or will for a while: the job may have ended, and its `done` be lost."""
        self._doubted = 0.0
        """When an event came, or when the job was looked at, for the last time (monotonic)."""
        self._retry: float | None = None
        """Seconds to wait before reconnecting, if the server has set them."""
        # The current connection:
        self._connection: AbstractAsyncContextManager[ClientResponse] | None = None
        self._content: StreamReader | None = None
        self._parser = Parser(transport.config.limits.event, last_event_id or "")
        self._began = 0.0
        self._is_fruitful = False
        """Whether it has brought new events."""

    async def next_batch(self) -> list[ServerSentEvent]:
        """Connect, or receive a chunk, and return the new events that are complete with it, if any.

        Raises:
            StreamUnavailable: The stream does not exist (any more), or cannot be reached.
            AnswerTooLarge: An event is too large.
        """
        if self._content is None:
            await self._connect()
            return []
        try:
            chunk = await self._read(self._content)
        except exceptions.TransportError as error:
            self._lost(error)
            return []
        if not chunk:
            await self.aclose()
            self._lost(None)
            return []
        events = self._seen.new(self._parser.feed(chunk))
        if events:
            self._is_fruitful = True
        now = time.monotonic()
        if any(event.event in _NEWS for event in events):
            self._doubted = now
        elif now - self._doubted >= min(_LONG_SILENCE, self._transport.config.timeout.stream):
            self._doubted = now  # comments keep a connection open
            self.is_doubtful = True
        if events:
            return events
        if self._parser.overflowed:
            limit = self._transport.config.limits.event
            raise exceptions.AnswerTooLarge(
                "GET", redacted(self._url), limit, "event", prediction_id=self._prediction
            )
        return events

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection, self._content = self._connection, None, None
        if connection is not None:
            await connection.__aexit__(None, None, None)

    async def _connect(self) -> None:
        if not self._is_first:
            await anyio.sleep(self._pause())
            self._seen.reconnected()
        self._is_first = False
        config, last_id = self._transport.config, self._parser.last_id
        self._parser = Parser(config.limits.event, last_id)
        self._is_fruitful = False
        self._began = self._doubted = time.monotonic()
        connection = self._transport.open(
            self._url,
            headers={**_HEADERS, "Last-Event-ID": last_id} if last_id else _HEADERS,
            silence=config.timeout.stream,
        )
        try:
            response = await connection.__aenter__()
        except (exceptions.ReplicateError, exceptions.TransportError) as error:
            if not _is_transient(error):
                raise StreamUnavailable(str(error)) from error
            if isinstance(error, exceptions.ReplicateError) and error.retry_after is not None:
                self._retry = max(self._retry or 0.0, error.retry_after)
            if (self._retry or 0.0) >= _LONG_PAUSE:
                self.is_doubtful = True
            self._count_fruitless(error)
            return
        self._connection = connection
        if response.status == 204 or response.content_type != "text/event-stream":
            await self.aclose()
            raise StreamUnavailable(f"the stream is {response.content_type!r} ({response.status})")
        self._content = response.content

    async def _read(self, content: StreamReader) -> bytes:
        """Return the next chunk, empty at the end; close the connection if that fails.

        Raises:
            TransportError: The connection is broken.
        """
        try:
            return await content.readany()
        except Exception as error:
            connection, self._connection, self._content = self._connection, None, None
            assert connection is not None
            # The context of the connection turns the errors of aiohttp into those of this package.
            await connection.__aexit__(type(error), error, error.__traceback__)
            raise

    def _lost(self, failure: Exception | None) -> None:
        """Decide how to continue after a connection has ended: only `done` ends a stream (:api:`stream-end`)."""
        if self._parser.retry is not None:
            self._retry = self._parser.retry / 1000
        # Short connections without news are counted, and bounded, below.
        is_silent = not self._is_fruitful and time.monotonic() - self._began >= _SILENT
        if is_silent or (self._retry or 0.0) >= _LONG_PAUSE:
            self.is_doubtful = True
        if self._is_fruitful:
            self._fruitless = 0
            _logger.info(
                "stream of prediction %s lost (%s); resuming", self._prediction, _cause(failure)
            )
        elif time.monotonic() - self._began < _SILENT:
            if self._parser.timed_out:
                raise StreamUnavailable("it has expired")
            self._count_fruitless(failure)

    def _count_fruitless(self, failure: Exception | None) -> None:
        self._fruitless += 1
        if self._fruitless >= _MAX_FRUITLESS:
            raise StreamUnavailable(_cause(failure)) from failure
        _logger.info(
            "no events of prediction %s (%s); connecting again", self._prediction, _cause(failure)
        )

    def _pause(self) -> float:
        """Return the seconds to wait before reconnecting."""
        if self._retry is not None:
            return min(self._retry, _MAX_PAUSE)
        # With jitter, since many streams may have been lost at the same moment.
        return min(0.1 * 2.0**self._fruitless, 5.0) * (1 - random.random() / 2)


def _is_transient(error: exceptions.ReplicateError | exceptions.TransportError) -> bool:
    """Return whether another attempt to connect may succeed."""
    if isinstance(error, exceptions.ReplicateError):
        return may_repeat(Kind.POLL, error)
    return isinstance(
        error, exceptions.ConnectError | exceptions.TransportTimeout | exceptions.ConnectionLost
    )


def _cause(failure: Exception | None) -> str:
    return "it has ended" if failure is None else str(failure)
