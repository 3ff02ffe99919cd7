"""Events of streams as those of 1.x."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import attrs

from .. import exceptions
from ._backend import Backend, api_errors
from ._objects import Resource
from .exceptions import ModelError
from .helpers import FileOutput, transform_output


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class ServerSentEvent(Resource):
    """An event of a stream. `str()` is the text of an output event, and an empty string for others."""

    class EventType(Enum):
        """Type of an event."""

        OUTPUT = "output"
        LOGS = "logs"
        ERROR = "error"
        DONE = "done"

    event: ServerSentEvent.EventType = attrs.field(converter=EventType)
    """Type of the event."""
    data: Any
    """Text of the event; a `FileOutput` for a file."""
    id: str
    """Position in the stream."""
    retry: int | None = None
    """Milliseconds to wait before reconnecting."""

    def __str__(self) -> str:
        return str(self.data) if self.event is ServerSentEvent.EventType.OUTPUT else ""


class StreamFailed(ModelError, RuntimeError):
    """The model failed while its output was streamed; a `RuntimeError`, as in 1.x."""


_TYPES = frozenset(kind.value for kind in ServerSentEvent.EventType)


def event_of(client: Backend, event: Any, use_file_output: bool | None) -> ServerSentEvent | None:
    """Return an event as that of 1.x; None if 1.x has no such type."""
    if event.event not in _TYPES:
        return None
    data: str | FileOutput = event.data
    if event.event == "output" and use_file_output is not False:
        data = transform_output(data, client)
    return ServerSentEvent(event=event.event, data=data, id=event.id or "", retry=event.retry)


@contextmanager
def stream_errors() -> Iterator[None]:
    """Raise errors of a stream as 1.x does."""
    try:
        with api_errors():
            yield
    except exceptions.StreamError as error:
        raise StreamFailed(error.prediction) from error
