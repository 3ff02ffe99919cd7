"""Parts of predictions and trainings, and the events of their streams."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import attrs

from ._plain import Plain, schema_of_fields

Status: TypeAlias = (
    Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"] | str
)
"""Status of a prediction or training (:api:`status`). Unknown values stay strings."""

WebhookEvent: TypeAlias = Literal["start", "output", "logs", "completed"]
"""Event that triggers a webhook (:api:`webhook-request`)."""


_MAX_TEXT: Final = 2000
"""Characters of a text that `repr` shows."""


def _shown(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return repr(text)
    return f"{text[: _MAX_TEXT // 2]!r}… ({len(text)} characters)"


@attrs.define
class PredictionUrls:
    """URLs of a prediction or training (:api:`prediction-object`)."""

    get: str | None = None
    """URL of the prediction's current state."""
    cancel: str | None = None
    """URL that cancels the prediction on a POST."""
    stream: str | None = None
    """URL of the server-sent events, if the model can stream."""
    web: str | None = None
    """URL of the prediction's page on the web site."""


@attrs.define
class TrainingOutput:
    """Result of a training (:api:`training-object`)."""

    version: str | None = None
    """The new version, `owner/name:id`."""
    weights: str | None = None
    """URL of the trained weights."""


@attrs.frozen
class Progress:
    """Progress of a prediction, read from its logs (:api:`logs-and-progress`)."""

    percentage: float
    """Fraction done, from 0.0 to 1.0."""
    current: int
    """Number of steps done."""
    total: int
    """Total number of steps."""


@attrs.frozen
class Update(Plain):
    """Change of a prediction since the previous update."""

    status: Status
    """Current status."""
    logs: str = attrs.field(repr=_shown)
    """Log text added since the previous update."""
    progress: Progress | None
    """Current progress, or `None` if the logs do not show it."""

    def _to_plain(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def _plain_schema(cls) -> dict[str, Any]:
        return schema_of_fields(cls)


@attrs.define
class ServerSentEvent:
    """Event of a prediction's stream (:api:`stream-events`).

    `str()` returns the text of an output event, and an empty string for other events.
    """

    # Not frozen: that would take most of the time to make one, and streams have hundreds of thousands.

    event: Literal["output", "logs", "error", "done"] | str
    """Type of the event. Unknown types are kept."""
    data: str = attrs.field(default="", repr=_shown)
    """Text of the event: a piece of output (the URL of a file), log lines, or JSON in a `done`."""
    id: str | None = None
    """Position in the stream, or `None` if the event has no id."""
    retry: int | None = None
    """Milliseconds to wait before reconnecting, if the event sets it."""
    _output: Any = attrs.field(default=None, alias="output", repr=False, eq=False)

    @property
    def output(self) -> Any:
        """Piece of output: a `FileOutput` for a file, else text. `None` for events of other types."""
        if self.event != "output":
            return None
        return self.data if self._output is None else self._output

    def __str__(self) -> str:
        return self.data if self.event == "output" else ""


@attrs.frozen
class ForwardedDelivery:
    """One attempt of `webhooks.forward` to deliver a webhook."""

    id: str
    """ID of the prediction or training."""
    event: str
    """`"start"`, `"output"`, `"logs"` or `"completed"`."""
    job_status: Status
    """Status of the prediction or training (:api:`status`)."""
    status: int | None
    """Status code of the response; `None` if there was none."""
    error: str | None
    """Reason why there was no response; `None` if there was one."""
