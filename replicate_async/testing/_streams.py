"""Server-sent events: the stream of a prediction on an origin of its own (:api:`streaming`)."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress

from aiohttp import web

from ._clock import NANOSECONDS, Clock, Timers
from ._problems import Problem
from ._store import Prediction, Store
from ._views import streamable

IDLE = 30
"""Seconds without an event after which the server hangs up."""
_TIMED_OUT = b":408: 408 Request Timeout\n\n"


class StreamServer:
    """Serves ``/v1/streams/{token}`` and ``/v1/files/{token}``."""

    def __init__(self, store: Store, clock: Clock, timers: Timers) -> None:
        self._store = store
        self._clock = clock
        self._timers = timers

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, {"detail": f'Method "{request.method}" not allowed.'})
        parts = request.rel_url.raw_path.split("/")
        prediction = self._store.streams.get(parts[3]) if len(parts) == 4 else None
        if prediction is None or parts[1] != "v1" or parts[2] != _kind(prediction):
            raise Problem(404, {"detail": "Not found."})
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the reader has gone
            if request.method == "GET":
                await self._send(response, prediction, request.headers.get("Last-Event-ID"))
            await response.write_eof()
        return response

    async def _send(
        self, response: web.StreamResponse, prediction: Prediction, last_id: str | None
    ) -> None:
        clock = self._clock
        retry = prediction.version.stream_retry
        sent = _position(prediction, last_id)
        # Each time to hang up is set before the write: by the time the client has read, it stands.
        deadline = clock.time_ns() + IDLE * NANOSECONDS
        timer = self._timers.at(deadline, prediction.changed.fire)
        try:
            await response.write(b": hi\n\n")
            if retry is not None:
                await response.write(f"retry: {retry}\n\n".encode())
            while streamable(prediction, clock.time_ns()):
                events = prediction.events or []
                if sent < len(events):
                    ready = events[sent:]
                    sent += len(ready)
                    timer.cancel()
                    deadline = clock.time_ns() + IDLE * NANOSECONDS
                    timer = self._timers.at(deadline, prediction.changed.fire)
                    await response.write(b"".join(event.raw for event in ready))
                elif clock.time_ns() >= deadline:
                    break
                else:
                    await prediction.changed.wait()
            await response.write(_TIMED_OUT)
        finally:
            timer.cancel()


def _kind(prediction: Prediction) -> str:
    return "files" if prediction.version.code.output_is_file else "streams"


def _position(prediction: Prediction, last_id: str | None) -> int:
    """Return the index of the first event after *last_id*; 0 if that is no id of ours."""
    seconds, colon, index = (last_id or "").partition(":")
    if not (colon and seconds.isdecimal() and index.isdecimal()):
        return 0
    events = prediction.events or []
    return bisect_right(
        events, (int(seconds), int(index)), key=lambda event: (event.seconds, event.index)
    )
