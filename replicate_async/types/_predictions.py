"""What belongs to predictions: where they are, how far they are, and the events of their streams."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from . import Status


@attrs.define
class PredictionUrls:
    """Where a prediction or training can be reached (HTTP API, section 4.1)."""

    get: str | None = None
    """Its state."""
    cancel: str | None = None
    """Where a POST cancels it."""
    stream: str | None = None
    """Server-sent events, if the model can stream."""
    web: str | None = None
    """Its page for people."""


@attrs.frozen
class Progress:
    """How far a prediction is, as its logs tell (HTTP API, section 4.14)."""

    percentage: float
    """From 0.0 to 1.0."""
    current: int
    """Steps done."""
    total: int
    """Steps in all."""


@attrs.frozen
class Update:
    """What has changed since the update before."""

    status: Status
    """The status now."""
    logs: str
    """The log text that is new."""
    progress: Progress | None
    """The progress now, if the logs tell it."""


@attrs.define
class ServerSentEvent:
    """One event of a prediction's stream (HTTP API, section 5.3). `str()` is the text of an output."""

    # Not frozen: with hundreds of thousands of them, that would be most of what they cost.

    event: Literal["output", "logs", "error", "done"] | str
    """What it is; unknown kinds stay as they are."""
    data: str = ""
    """Its text: a piece of output (of files their URL), log lines, or JSON in a `done`."""
    id: str | None = None
    """Where in the stream it is; None without an id."""
    retry: int | None = None
    """Milliseconds before a lost connection is made anew, if this event says so."""
    _output: Any = attrs.field(default=None, repr=False, eq=False)

    @property
    def output(self) -> Any:
        """The piece of output: a `FileOutput` for a file, else its text. None for other events."""
        if self.event != "output":
            return None
        return self.data if self._output is None else self._output

    def __str__(self) -> str:
        return self.data if self.event == "output" else ""
