"""Predictions, and the streams of their events and output (:api:`prediction-object`)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeAlias

import attrs

from .. import _arguments, exceptions
from .._concurrency import StepIterator
from .._files.display import output_html
from .._files.output import FileOutput
from .._files.output_trees import as_gallery, files_in, to_output
from ..types import ServerSentEvent
from .job import LiveJob, failure_of, next_state
from .policy import has_ended
from .streaming import Stream, StreamFollower

Output: TypeAlias = Any
"""JSON in which files are `FileOutput` objects."""


@attrs.define(eq=False, repr=False)
class Prediction(LiveJob):
    """One run of a model (:api:`prediction-object`).

    `reload()`, `wait()` and `cancel()` update the object in place.
    """

    _path: ClassVar[str] = "/predictions"

    deployment: str | None = None
    """Deployment that ran it, or `None`."""
    data_removed: bool = False
    """Whether input, output and logs have been deleted, which happens after one hour (:api:`retention`)."""
    deadline: datetime | None = None
    """Time at which the server cancels it if it is still running (:api:`deadline`)."""
    _output: tuple[Any, Output] | None = attrs.field(default=None, repr=False, init=False)
    """JSON of the output, and what it was made into."""

    @property
    def output(self) -> Output:
        """Output so far, or `None` if there is none. File URLs are `FileOutput` objects."""
        raw = self._raw.get("output")
        if self._output is None or self._output[0] is not raw:
            context = self._context
            self._output = (
                raw,
                to_output(
                    raw, context.transport, files=context.use_file_output, prediction=self.id
                ),
            )
        return self._output[1]

    def _repr_html_(self) -> str:
        """Return what a notebook displays: a table of what is known, with the output."""
        return self._card(output_html(None if self._client is None else self.output))

    def _shown_files(self) -> list[FileOutput]:
        """Return the files of the output, which a notebook displays."""
        return [] if self._client is None else list(files_in(self.output))

    def output_iterator(self) -> AsyncIterator[Output]:
        """Iterate over the items of the output as they appear, each once.

        Output that is not a list is one item, which is yielded when it is complete. Leaving the loop early does
        not cancel the prediction. After a step that was cancelled or has failed, the next one continues. Calls
        :api:`predictions.get`.

        Returns:
            An iterator over the items.

        Raises, from the iteration:
            PredictionFailed: The prediction failed; raised after the last item.
            PredictionCanceled: It was cancelled; raised after the last item.
            PredictionAborted: It ended before it started.
            RunTimeout: It did not end within 24 hours.
            ReplicateError: The API returned an error.
        """
        count = 0
        limit = time.monotonic() + _arguments.MAX_WAIT
        # While a list grows, its first items do not show whether all of them are files. The output of a
        # model that streams text contains no files (:api:`stream-url`).
        is_text = "/v1/streams/" in (self.urls.stream or "")

        async def next_items() -> Sequence[Output]:
            nonlocal count
            while True:
                output = self._raw.get("output") if is_text else self.output
                if isinstance(output, list):
                    items = output[count:]
                else:
                    is_complete = has_ended(self) and output is not None and not count
                    items = [output] if is_complete else []
                if items:
                    count += len(items)
                    return items
                if has_ended(self):
                    raise failure_of(self) or StopAsyncIteration
                if time.monotonic() > limit:
                    raise exceptions.RunTimeout(self, _arguments.MAX_WAIT)
                await next_state(self)

        return StepIterator(next_items)

    def stream(
        self, *, use_file_output: bool | None = None, last_event_id: str | None = None
    ) -> EventStream:
        """Return the events of the prediction as they arrive (:api:`streaming`).

        The connection is opened when the first event is requested. A prediction that cannot be streamed is
        polled, and yields the same events. Leaving early does not cancel the prediction.

        Args:
            use_file_output: Whether files become `FileOutput`; by default as in `output`.
            last_event_id: ID of the event after which to resume, such as the header `Last-Event-ID` of a browser
                that reconnects. If the stream has expired, all output comes once more, without IDs.

        Returns:
            The stream: an async iterator and async context manager.

        Raises, from the iteration:
            StreamError: The prediction failed; the exception contains the text so far.
            ContactLost: The prediction could not be followed to its end.
            StreamInUse: Another task is waiting for the next event.
            StreamAbandoned: The stream ended before, when waiting for an event was cancelled or interrupted.
        """
        context = self._context
        files = context.use_file_output if use_file_output is None else use_file_output
        if last_event_id is not None:
            last_event_id = _arguments.header_text(last_event_id, "last_event_id")
        follower: StreamFollower[Prediction] = StreamFollower(
            context.transport, job=self, files=files, last_event_id=last_event_id
        )
        return EventStream(follower)


class EventStream(Stream[ServerSentEvent, Prediction]):
    """The events of a prediction as they arrive (:api:`streaming`).

    The connection is opened when the first event is requested. If it is lost, it is resumed. If that is
    impossible, or the model cannot stream, the prediction is polled, and the events are the same. Each event is
    yielded once. The last one is `done`.

    ```python
    async with client.stream("owner/name", {"prompt": "a poem"}) as events:
        async for event in events:
            print(event, end="")
    ```

    Raises, from the iteration:
        StreamError: The prediction failed; the exception contains the text so far.
        RunTimeout: The prediction did not end within the timeout.
        ContactLost: The prediction could not be followed to its end.
        AnswerTooLarge: An event exceeds `Limits.event`, or all events together `Limits.stream`.
        StreamInUse: Another task is waiting for the next event.
        StreamAbandoned: The stream ended before, when waiting for an event was cancelled or interrupted.
    """

    @property
    def prediction(self) -> Prediction | None:
        """The prediction, or `None` before the first event."""
        return self._follower.job

    @property
    def done(self) -> ServerSentEvent | None:
        """The event that ended the stream, or `None` before."""
        return self._follower.done

    @property
    def is_resumed(self) -> bool:
        """Whether the stream was created with `last_event_id`."""
        return bool(self._follower.last_event_id)

    def _items(self, events: list[ServerSentEvent]) -> list[ServerSentEvent]:
        return events


class OutputStream(Stream[Any, Prediction]):
    """The pieces of a model's output as they arrive: text, files, or other JSON.

    The prediction is created when the first piece is requested. The iteration raises what that of `EventStream`
    raises. A stream can be an input of another model function, unless it has been iterated over.
    """

    @property
    def prediction(self) -> Prediction | None:
        """The prediction, or `None` before the first piece."""
        return self._follower.job

    async def collect(self) -> Output:
        """Wait for the rest of the output, and close the stream.

        Returns:
            The pieces that have not been yielded: joined if they are text, else as a list.
        """
        async with self:
            pieces = [piece async for piece in self]
        joined = self._follower.joined
        if joined is not False and all(isinstance(piece, str) for piece in pieces):
            return "".join(pieces)
        return as_gallery(pieces)

    def _items(self, events: list[ServerSentEvent]) -> list[Any]:
        return [event.output for event in events if event.event == "output"]
