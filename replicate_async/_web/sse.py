"""Streams for browsers: the events of a prediction as `text/event-stream`."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from typing import Final, TypeAlias

import anyio

from .. import _arguments, exceptions
from .._codec import encode_json
from .._jobs.policy import has_ended
from .._jobs.prediction import EventStream
from ..types import ServerSentEvent

__all__ = ("sse",)

_logger = logging.getLogger("replicate_async")

_QUEUE_SIZE: Final = 64
"""Number of events to hold for a browser that is slower than the model."""

_CHECK_INTERVAL: Final = 0.25
"""Seconds after which to check whether the prediction has been created."""

_Queue: TypeAlias = asyncio.Queue[ServerSentEvent | Exception | None]

_LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")


def sse(events: EventStream, *, heartbeat: float = 15) -> AsyncIterator[bytes]:
    """Return the events of a stream as bytes of `text/event-stream`, for an `EventSource` in a browser.

    Events are `status` (JSON with `id` and `status`), `output`, `logs`, `error` (JSON with `message`, `type` and
    `id`) and `done`. They have the IDs of the stream, with which a browser that reconnects resumes:
    `prediction.stream(last_event_id=...)`. If it cannot resume, a `reset` comes before the output, which then starts
    again. An `EventSource` requests its URL again when its connection breaks: let that request follow a prediction, and
    another one create it, or each reconnection would be paid for.

    ```python
    @app.get("/poems/{id}/events")
    async def events(id: str, last_event_id: str | None = Header(default=None)):
        prediction = await client.predictions.get(id)
        stream = prediction.stream(last_event_id=last_event_id)
        return StreamingResponse(sse(stream), media_type="text/event-stream")
    ```

    Leaving early closes the stream, and cancels a prediction that the stream has created, as `client.stream` does.

    Args:
        events: What `stream` returns. Do not iterate over it elsewhere.
        heartbeat: Seconds of silence after which a comment is sent, so that proxies keep the connection.

    Returns:
        An iterator over bytes.

    Raises:
        ArgumentError: The heartbeat is invalid.
        ArgumentTypeError: An argument has a wrong type.
    """
    silence = _arguments.timeout_seconds(heartbeat, "heartbeat") or 15.0
    if not isinstance(events, EventStream):
        raise exceptions.ArgumentTypeError(
            "events", f"expected what `stream` returns, got {type(events).__name__}"
        )
    return _chunks(events, silence)


async def _chunks(events: EventStream, silence: float) -> AsyncIterator[bytes]:
    # A queue of asyncio: a server may drop this iterator while it is suspended, and anyio's streams would warn then.
    queue: _Queue = asyncio.Queue(_QUEUE_SIZE)
    # All steps of the stream are in one task: a heartbeat must not cancel the wait for an event. The task ends
    # with this iterator.
    pump = asyncio.create_task(_pump(events, queue))
    writer = _Writer(events)
    sent_at = time.monotonic()
    try:
        while True:
            item: ServerSentEvent | Exception | None = None
            with anyio.move_on_after(_CHECK_INTERVAL if writer.status is None else silence):
                item = await queue.get()
                if item is None:
                    return
            chunk = writer.write(item)
            if not chunk and time.monotonic() - sent_at >= silence:
                chunk = b": still there\n\n"
            if chunk:
                sent_at = time.monotonic()
                yield chunk
    finally:
        pump.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({pump})


async def _pump(events: EventStream, queue: _Queue) -> None:
    """Put the events of a stream into a queue, then the exception that ends it, then None."""
    async with events:
        try:
            async for event in events:
                await queue.put(event)
        except Exception as error:
            # Nobody else sees it: for the server, the response is complete.
            is_known = isinstance(error, exceptions.ReplicateException)
            _logger.warning(
                "a stream to the browser ends with an error: %s",
                error if is_known else repr(error),
                exc_info=None if is_known else error,
            )
            await queue.put(error)
    await queue.put(None)


class _Writer:
    """Writes events, and the status of the prediction when it changes."""

    def __init__(self, events: EventStream) -> None:
        self.status: str | None = None
        """The status that was written last."""
        self._events = events
        self._may_reset = events.is_resumed

    def write(self, item: ServerSentEvent | Exception | None) -> bytes:
        """Return an event as bytes, after a change of the status; empty if there is neither."""
        chunk = b""
        prediction = self._events.prediction
        if prediction is not None and not isinstance(item, Exception):
            is_running = (
                isinstance(item, ServerSentEvent)
                and item.event in ("output", "logs")
                and not has_ended(prediction)
            )
            status = "processing" if is_running else prediction.status or "starting"
            if self.status is None or (is_running and self.status != status):
                self.status = status
                chunk += _event("status", encode_json({"id": prediction.id, "status": status}))
        if isinstance(item, Exception):
            return chunk + self._error(item)
        if item is None:
            return chunk
        if self._may_reset and item.event == "output":
            self._may_reset = False
            if item.id is None:  # polled, from the start
                chunk += _event("reset", b"{}")
        return chunk + _event(item.event, item.data.encode("utf-8", "replace"), item.id)

    def _error(self, error: Exception) -> bytes:
        prediction = self._events.prediction
        facts = {
            "id": None if prediction is None else prediction.id,
            "type": type(error).__name__,
            "message": str(error)
            if isinstance(error, exceptions.ReplicateException)
            else "an unexpected error",
        }
        return _event("error", encode_json(facts))


def _event(name: str, data: bytes, id: str | None = None) -> bytes:
    lines = [f"id: {id}"] if id and not re.search(r"[\r\n\0]", id) else []
    lines.append(f"event: {_LINE_ENDS.sub(' ', name)}")
    lines += [f"data: {line}" for line in _LINE_ENDS.split(data.decode())]
    return ("\n".join(lines) + "\n\n").encode()
