"""Streams for browsers, for apps of ordinary threads."""

from __future__ import annotations

from collections.abc import Iterator

from .. import exceptions
from .._web.sse import sse as async_sse
from ._facade import EventStream
from ._streams import Stream
from ._twin import Twin

__all__ = ("sse",)


def sse(events: EventStream, *, heartbeat: float = 15) -> Iterator[bytes]:
    """Return the events of a stream as bytes of `text/event-stream`, for an `EventSource` in a browser.

    The events are those of `replicate_async.sse`. An `EventSource` requests its URL again when its connection breaks:
    let that request follow a prediction, and another one create it, or each reconnection would be paid for.

    ```python
    def poem_events(request, id):
        prediction = replicate.predictions.get(id)
        stream = prediction.stream(last_event_id=request.headers.get("Last-Event-ID"))
        return StreamingHttpResponse(replicate.sse(stream), content_type="text/event-stream")
    ```

    Leaving early closes the stream, and cancels a prediction that the stream has created, as `stream` does.

    Args:
        events: What `stream` returns. Do not iterate over it elsewhere.
        heartbeat: Seconds of silence after which a comment is sent, so that proxies keep the connection.

    Returns:
        An iterator over bytes.

    Raises:
        ArgumentError: The heartbeat is invalid.
        ArgumentTypeError: An argument has a wrong type.
    """
    if not isinstance(events, Twin):
        raise exceptions.ArgumentTypeError(
            "events", f"expected what `stream` returns, got {type(events).__name__}"
        )
    return Stream(events._lease, async_sse(events._async, heartbeat=heartbeat))
