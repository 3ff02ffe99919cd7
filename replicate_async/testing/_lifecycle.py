"""Runs predictions and trainings: from ``starting`` to a terminal state.

Each one is a task of its own, so they run concurrently. Every change goes through this module, which
writes the ledger, feeds the stream and the webhooks, and wakes the requests that wait.

See :api:`status`, :api:`metrics`, :api:`sync-mode`, :api:`deadline`, :api:`stream-events`, :api:`webhook-request` and
:api:`trainings`.
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import re
import threading
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Protocol
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from ._authoring import OutputFile
from ._clock import NANOSECONDS, Timers
from ._ledger import Ledger, Life, What
from ._retention import Retention, weight
from ._store import RETENTION, Event, Prediction, Status, Store
from ._views import check_depth, encode

_INSTANT = 3_000
"""Nanoseconds between start and end of a prediction cancelled before it ran, as recorded."""
_STOP_SECONDS = 1.0
_YIELD_EVERY = 32
_LINE_BREAK = re.compile(r"\r\n|\n|\r")
_ENDED: dict[Status, What] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
    "aborted": "aborted",
}


class Observer(Protocol):
    """Is told what happens to predictions, for webhooks."""

    def happened(self, prediction: Prediction, event: str) -> None:
        """Take note of ``start``, ``output``, ``logs`` or ``completed``."""


class Fetcher(Protocol):
    """Reads the content behind http(s) URLs."""

    async def fetch(self, url: str) -> bytes:
        """Return the content."""
        ...


class Engine:
    """Owns the tasks of all predictions of one emulator.

    The tasks are held in a set instead of a task group: stopping must be bounded even if a model
    function refuses to be cancelled, and a task group would wait for it.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        timers: Timers,
        observer: Observer,
        fetcher: Fetcher,
        retention: Retention,
        *,
        api_url: str,
        files_url: str,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._timers = timers
        self._observer = observer
        self._fetcher = fetcher
        self._retention = retention
        self._api_url = api_url
        self._files_url = files_url
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- requests of the API

    def create(self, prediction: Prediction) -> None:
        """Remember a new prediction and start it."""
        self._store.insert(prediction)
        prediction.version.model.run_count += 1
        prediction.version.runners.add(prediction.account.username)
        if prediction.deployment is not None:
            prediction.deployment.last_used = prediction.created
        self._ledger._born(
            Life(
                prediction.id,
                prediction.kind,
                prediction.model_name,
                prediction.shown_version,
                dict(prediction.input),
            )
        )
        self._note(prediction, "created")
        # Creation times are unique, so on a clock that hardly moves they run ahead of it a little.
        now = self._store.clock.time_ns()
        if prediction.deadline is not None:
            lifetime = prediction.deadline - prediction.created
            prediction.timer = self._timers.at(now + lifetime, lambda: self._deadline(prediction))
        ready = now + int(prediction.version.setup * NANOSECONDS)
        prediction.task = self.spawn(self._live(prediction, ready))

    def cancel(self, prediction: Prediction) -> None:
        """End a prediction as ``canceled``, unless it is terminal."""
        if not prediction.terminal:
            now = self._store.clock.time_ns()
            if prediction.started is None:
                prediction.started = now - _INSTANT
            self._finish(prediction, "canceled", at=now)
            self._interrupt(prediction)

    def _deadline(self, prediction: Prediction) -> None:
        if not prediction.terminal:
            self._finish(prediction, "aborted" if prediction.started is None else "canceled")
            self._interrupt(prediction)

    def _interrupt(self, prediction: Prediction) -> None:
        if prediction.task is not None:
            prediction.task.cancel()

    def fetched(self, prediction: Prediction) -> None:
        """Note that a client was given the final state."""
        self._note(prediction, "fetched")

    async def finished(self, prediction: Prediction, seconds: float) -> bool:
        """Wait until a prediction is terminal, at most *seconds* of the emulator's clock."""
        deadline = self._store.clock.time_ns() + int(seconds * NANOSECONDS)
        timer = self._timers.at(deadline, prediction.changed.fire)
        try:
            while not prediction.terminal and self._store.clock.time_ns() < deadline:
                await prediction.changed.wait()
        finally:
            timer.cancel()
        return prediction.terminal

    # --- tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* in a task that ends with the emulator at the latest."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Cancel what runs and wait a moment for it."""
        end = self._loop.time() + _STOP_SECONDS
        # Again while there are any: what ends may begin something, such as to tell a webhook.
        while (tasks := list(self._tasks)) and (left := end - self._loop.time()) > 0:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=left)

    # --- life

    async def _live(self, prediction: Prediction, ready: int) -> None:
        run = _Run(self, prediction)
        code = prediction.version.code
        try:
            await self._timers.sleep_until(ready)
            self._start(prediction)
            if prediction.kind == "training":
                output = self._trained(prediction, await code.train(prediction.input, run), run)
            else:
                result = await code.predict(prediction.input, run)
                output = prediction.output if code.iterates else run.publish(result)
                if code.iterates and output is None:
                    output = []
                check_depth(output)
                encode(output)
        except asyncio.CancelledError:
            if not prediction.terminal:  # the emulator stops
                raise
            return
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any error of a model ends its run
            text = str(error) or type(error).__name__
            self._finish(prediction, "failed", error=text)
            return
        if prediction.terminal:
            return
        if not code.iterates:
            prediction.output = output
            if output is not None and prediction.kind == "prediction":
                self._stream_output(prediction, output)
                self._observer.happened(prediction, "output")
        else:
            prediction.output = output
        self._finish(prediction, "succeeded")

    def _start(self, prediction: Prediction) -> None:
        prediction.status = "processing"
        prediction.started = self._store.clock.time_ns()
        self._note(prediction, "started")
        prediction.touch()
        self._observer.happened(prediction, "start")

    def _finish(
        self,
        prediction: Prediction,
        status: Status,
        *,
        error: str | None = None,
        at: int | None = None,
    ) -> None:
        if prediction.terminal:
            return
        now = self._store.clock.time_ns() if at is None else at
        prediction.status = status
        prediction.error = error
        prediction.completed = now
        if prediction.started is not None:
            prediction.metrics["predict_time"] = (now - prediction.started) // 1000 / 1_000_000
        total = max(0, now - prediction.created)
        prediction.metrics["total_time"] = total // 1000 / 1_000_000
        if prediction.version.code.output_is_text and isinstance(prediction.output, list):
            prediction.metrics["output_token_count"] = len(prediction.output)
        if prediction.timer is not None:
            prediction.timer.cancel()
            prediction.timer = None
        self._note(prediction, _ENDED[status])
        self._stream_end(prediction)
        prediction.touch()
        self._observer.happened(prediction, "completed")
        if prediction.source == "api" and not prediction.kept:
            prediction.timer = self._timers.after(RETENTION, partial(self._remove_data, prediction))
            self._retention.content(_weight(prediction), partial(self._drop, prediction))
            self._retention.record("predictions", partial(self._forget, prediction))

    def _remove_data(self, prediction: Prediction) -> None:
        """Remove the data of a prediction, as the service does an hour after its end."""
        self._store.forget_outputs(prediction)
        prediction.remove_data()

    def _drop(self, prediction: Prediction) -> None:
        """Remove the data of a prediction before its time, with its input in the ledger."""
        if prediction.timer is not None:
            prediction.timer.cancel()
            prediction.timer = None
        self._remove_data(prediction)
        self._ledger._drop_input(prediction.id)

    def _forget(self, prediction: Prediction) -> None:
        """Forget that there was a prediction."""
        self._drop(prediction)
        self._store.forget(prediction)
        self._ledger._forget(prediction.id)

    def _trained(self, training: Prediction, result: object, run: _Run) -> Any:
        published = run.publish(result)
        output = dict(published) if isinstance(published, Mapping) else {"weights": published}
        if output.get("weights") is None:
            output.pop("weights", None)
        destination = training.destination
        if destination is not None and not training.terminal:
            base = training.version
            base.trained_from = True
            new = self._store.add_version(
                destination,
                base.code,
                cog_version=base.cog_version,
                streams=base.streams,
                setup=base.setup,
                stream_logs=base.stream_logs,
                stream_retry=base.stream_retry,
            )
            output["version"] = f"{destination.full_name}:{new.id}"
        return output

    def _note(self, prediction: Prediction, what: What) -> None:
        self._ledger._happened(prediction.id, what, self._store.clock.time())

    # --- what a running model does

    def emitted(self, prediction: Prediction, item: Any) -> None:
        """Append one item to the output."""
        if prediction.terminal:
            return
        if prediction.output is None:
            prediction.output = []
        prediction.output.append(item)
        self._add_event(prediction, "output", _event_text(item))
        prediction.touch()
        self._observer.happened(prediction, "output")

    def logged(self, prediction: Prediction, text: str) -> None:
        """Append to the logs; safe from any thread."""
        if threading.get_ident() == self._thread:
            self._logged(prediction, text)
            return
        try:
            self._loop.call_soon_threadsafe(self._logged, prediction, text)
        except RuntimeError:  # an abandoned function outlived the emulator
            return

    def _logged(self, prediction: Prediction, text: str) -> None:
        if prediction.terminal:
            return
        prediction.add_logs(text)
        if prediction.version.stream_logs:
            self._add_event(prediction, "logs", text)
        prediction.touch()
        self._observer.happened(prediction, "logs")

    def keep(self, prediction: Prediction, file: OutputFile) -> str:
        """Put a file on the files origin and return its URL."""
        url = self._store.add_output(file, self._files_url)
        prediction.files[url] = file
        return url

    async def content(self, prediction: Prediction, url: str) -> bytes:
        """Return the content of an input file.

        Raises:
            OSError: There is no such file, or it may not be reached from here.
        """
        if url[:5].lower() == "data:":
            return data_uri_content(url)
        known = self._store.web_files.get(url)
        if known is not None:
            return known
        parts = urlsplit(url)
        if url.startswith(f"{self._api_url}/v1/files/"):
            file = prediction.account.files.get(unquote(parts.path.split("/")[3]))
            if file is None or self._store.clock.time_ns() >= file.expires:
                raise OSError(f"404 Client Error: Not Found for url: {url}")
            return file.content
        if url.startswith(f"{self._files_url}/"):
            stored = self._store.output(parts.path)
            if stored is None:
                raise OSError(f"404 Client Error: Not Found for url: {url}")
            return stored.file.content
        return await self._fetcher.fetch(url)

    # --- streams

    def _stream_output(self, prediction: Prediction, output: Any) -> None:
        pieces = output if isinstance(output, list) else [output]
        for piece in pieces:
            self._add_event(prediction, "output", _event_text(piece))

    def _stream_end(self, prediction: Prediction) -> None:
        reason: dict[str, str] = {}
        if prediction.status == "failed":
            reason = {"reason": "error"}
            self._add_event(prediction, "error", encode({"detail": prediction.error}).decode())
        elif prediction.status in ("canceled", "aborted"):
            reason = {"reason": "canceled"}
        self._add_event(prediction, "done", encode(reason).decode())

    def _add_event(self, prediction: Prediction, event: str, text: str) -> None:
        events = prediction.events
        if events is None:
            return
        seconds = self._store.clock.time_ns() // NANOSECONDS
        index = 0
        if events and events[-1].seconds >= seconds:
            seconds, index = events[-1].seconds, events[-1].index + 1
        events.append(Event(seconds, index, encode_event(event, f"{seconds}:{index}", text)))


class _Run:
    """What a model function sees of the prediction that runs it."""

    __slots__ = ("_emitted", "_engine", "_prediction")

    def __init__(self, engine: Engine, prediction: Prediction) -> None:
        self._engine = engine
        self._prediction = prediction
        self._emitted = 0

    async def fetch(self, url: str) -> bytes:
        """Return the content of an input file."""
        return await self._engine.content(self._prediction, url)

    def log(self, text: str) -> None:
        """Append to the logs; safe from any thread."""
        self._engine.logged(self._prediction, text)

    async def emit(self, value: object) -> None:
        """Add one item to the output."""
        item = value if isinstance(value, str) else self.publish(value)
        if not isinstance(item, str):
            encode(item)
        self._engine.emitted(self._prediction, item)
        self._emitted += 1
        if self._emitted % _YIELD_EVERY == 0:  # else a model that never waits would hold the loop
            await asyncio.sleep(0)

    def publish(self, value: object) -> Any:
        """Return *value* as JSON, its files replaced by URLs."""
        if isinstance(value, OutputFile):
            return self._engine.keep(self._prediction, value)
        if isinstance(value, Mapping):
            return {str(key): self.publish(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.publish(item) for item in value]
        return value


def _weight(prediction: Prediction) -> int:
    """Return about how many bytes the data of a prediction takes."""
    # Input and output are there again in encoded answers, and in events.
    return 3 * (weight(prediction.input) + weight(prediction.output) + len(prediction.logs)) + sum(
        len(file.content) for file in prediction.files.values()
    )


def _event_text(item: Any) -> str:
    return item if isinstance(item, str) else encode(item).decode()


def encode_event(event: str, id: str, text: str) -> bytes:
    """Return one server-sent event; a line break in *text* starts another ``data`` line."""
    lines = "".join(f"data: {line}\n" for line in _LINE_BREAK.split(text))
    return f"event: {event}\nid: {id}\n{lines}\n".encode(errors="replace")


def data_uri_content(url: str) -> bytes:
    """Return the bytes in a data URI.

    Raises:
        OSError: It is malformed.
    """
    head, comma, data = url.partition(",")
    if not comma:
        raise OSError("malformed data URI: no comma")
    if head.lower().endswith(";base64"):
        try:
            return base64.b64decode(unquote(data), validate=True)
        except ValueError as error:
            raise OSError(f"malformed data URI: {error}") from error
    return unquote_to_bytes(data.encode("utf-8", "surrogatepass"))


def data_uri(file: OutputFile) -> str:
    """Return a file as a data URI, as sync answers carry it (:api:`sync-mode`)."""
    content_type = file.content_type or mimetypes.guess_type(f"./{file.name}")[0]
    encoded = base64.b64encode(file.content).decode()
    return f"data:{content_type or 'application/octet-stream'};base64,{encoded}"
