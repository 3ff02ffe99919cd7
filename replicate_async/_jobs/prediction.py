"""Predictions, and the streams of their events and output (:api:`prediction-object`)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, ClassVar, TypeAlias

import attrs

from .. import _arguments, exceptions
from .._files.output import to_output
from ..types import ServerSentEvent
from .job import LiveJob, failure_of, has_ended
from .streaming import Stream, StreamFollower

Output: TypeAlias = Any
"""JSON in which files are `FileOutput` objects."""


@attrs.define(eq=False)
class Prediction(LiveJob):
    """One run of a model (:api:`prediction-object`).

    `reload()`, `wait()` and `cancel()` write what they learn into the object itself.
    """

    _path: ClassVar[str] = "/predictions"

    deployment: str | None = None
    """The deployment that ran it."""
    data_removed: bool = False
    """Whether input, output and logs have been deleted, which happens after one hour."""
    deadline: datetime | None = None
    """When the server cancels it, if `cancel_after` was given."""
    _files: bool | None = attrs.field(default=None, repr=False, init=False)
    _output: tuple[Any, Any] | None = attrs.field(default=None, repr=False, init=False)

    @property
    def output(self) -> Output:
        """The output so far; None if there is none. File URLs are `FileOutput` objects."""
        raw = self._raw.get("output")
        if self._output is None or self._output[0] is not raw:
            self._output = raw, to_output(raw, self._context.transport, files=self._makes_files)
        return self._output[1]

    async def output_iterator(self) -> AsyncIterator[Output]:
        """Yield the items of the output as they appear, each once.

        Output that is not a list is one item, yielded when it is complete. Leaving the loop early does not
        cancel the prediction. Calls :api:`predictions.get`.

        Raises:
            PredictionFailed: It failed; likewise PredictionCanceled and PredictionAborted. Raised after
                the last item.
            ReplicateError: The API refuses.
        """
        count = 0
        limit = time.monotonic() + _arguments.LONGEST_WAIT
        # While a list grows, its first items do not tell whether all of them are files; the output of a
        # model that streams text has none (:api:`stream-url`).
        text = "/v1/streams/" in (self.urls.stream or "")
        while True:
            over = has_ended(self)
            output = self._raw.get("output") if text else self.output
            if isinstance(output, list):
                for item in output[count:]:
                    count += 1
                    yield item
            elif over and output is not None and not count:
                count = 1
                yield output
            if over:
                break
            if time.monotonic() > limit:
                raise exceptions.RunTimeout(self, _arguments.LONGEST_WAIT)
            await self._next_state()
        error = failure_of(self)
        if error is not None:
            raise error

    def stream(self, *, use_file_output: bool | None = None) -> EventStream:
        """Return the events as they arrive: an async iterator and async context manager.

        Nothing is sent before the first event is requested. A prediction that cannot be streamed is
        polled, and yields the same events. Leaving early does not cancel the prediction.

        Args:
            use_file_output: Whether files become `FileOutput`; by default as for the prediction.

        Raises, from the iteration:
            StreamError: It failed; the error has the text so far.
            ContactLost: It cannot be followed to its end.
            StreamInUse: Another task is waiting for the next event.
        """
        files = self._makes_files if use_file_output is None else use_file_output
        return EventStream(StreamFollower(self._context.transport, job=self, files=files))

    @property
    def _makes_files(self) -> bool:
        return self._context.use_file_output if self._files is None else self._files

    def _adopt(self, fresh: LiveJob) -> None:
        files = self._files
        LiveJob._adopt(self, fresh)
        self._files = files


class EventStream(Stream[ServerSentEvent, Prediction]):
    """The events of a prediction as they arrive (:api:`streaming`).

    Opens when the first event is requested. Lost connections are resumed; where that is impossible,
    or the model cannot stream, the prediction is polled, and the events are the same. The last event is
    `done`; its reason is in `reason`. No event comes twice.

    ```python
    async with client.stream("owner/name", {"prompt": "a poem"}) as events:
        async for event in events:
            print(event, end="")
    ```

    Raises, from the iteration:
        StreamError: The prediction failed; the error has the text so far.
        RunTimeout: The time was over first.
        ContactLost: The prediction cannot be followed to its end.
        AnswerTooLarge: An event exceeds `Limits.event`.
        StreamInUse: Another task is waiting for the next event.
    """

    @property
    def prediction(self) -> Prediction | None:
        """The prediction, from the first event on."""
        return self._follower.job

    @property
    def done(self) -> ServerSentEvent | None:
        """The event that ended the stream; None before."""
        return self._follower.done

    def _items(self, events: list[ServerSentEvent]) -> list[ServerSentEvent]:
        return events


class OutputStream(Stream[Any, Prediction]):
    """The pieces of a model's output as they arrive: text, files, or whatever the model makes.

    Opens when the first piece is requested, and raises what `EventStream` raises. A stream that was not
    iterated over can be an input of another model function.
    """

    @property
    def prediction(self) -> Prediction | None:
        """The prediction, from the first piece on."""
        return self._follower.job

    async def collect(self) -> Output:
        """Return the whole output from here on: pieces of text joined, else a list. Closes the stream."""
        async with self:
            pieces = [piece async for piece in self]
        joined = self._follower.joined
        if joined is not False and all(isinstance(piece, str) for piece in pieces):
            return "".join(pieces)
        return pieces

    def _items(self, events: list[ServerSentEvent]) -> list[Any]:
        return [event.output for event in events if event.event == "output"]
