"""Spans and metrics of OpenTelemetry, and what log records carry.

OpenTelemetry is optional: its API package alone is used if it is installed. Without an SDK, which the app sets up, nothing
is recorded.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from . import exceptions
from ._redaction import without_surrogates
from ._version import __version__
from .types import Job

is_installed = False
"""Whether OpenTelemetry is installed."""
_trace: Any = None
"""The module `opentelemetry.trace`, if it is installed, and below what this package uses of the API."""
_tracer: Any = None
_meter: Any = None
try:
    from opentelemetry import metrics, trace
except ImportError:
    pass
else:
    is_installed = True
    _trace = trace
    _tracer = trace.get_tracer("replicate_async", __version__)
    _meter = metrics.get_meter("replicate_async", __version__)

_LEVELS: Final = ("debug", "info", "warning", "error")

_MAX_SECONDS: Final = 1e9
"""Upper limit of measurements in seconds; larger ones are taken for errors."""

_YEARS: Final = (1970, 2262)
"""Years whose times are 64-bit numbers of nanoseconds."""

# -- Logs --------------------------------------------------------------------------------------


def set_up_logging() -> None:
    """Make log records printable, and show them on stderr if the environment variable `REPLICATE_LOG` is a level.

    Raises:
        ArgumentError: The variable is set, but not a level.
    """
    logger = logging.getLogger("replicate_async")
    logger.addFilter(_escape_surrogates)  # has no effect the second time
    level = os.environ.get("REPLICATE_LOG", "").strip().lower()
    if not level:
        return
    if level not in _LEVELS:
        raise exceptions.ArgumentError(
            "REPLICATE_LOG", f"expected one of {', '.join(_LEVELS)}, got {level!r}"
        )
    if logger.level == logging.NOTSET:
        # Does nothing if the app has set up logging itself.
        logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
        logger.setLevel(level.upper())


def _escape_surrogates(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            without_surrogates(each) if isinstance(each, str) else each for each in record.args
        )
    return True


def log_extra(job: Job | None, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the `extra` of a log record about a job: its ID, model, status and seconds, and the tags."""
    extra: dict[str, Any] = {"tags": dict(tags or {})}
    if job is not None:
        extra |= {
            "prediction": job.id,
            "model": job.model,
            "status": job.status,
            "seconds": seconds_of(job),
        }
    return extra


def measured_seconds(job: Job, name: str) -> float | None:
    """Return one of the measurements of a job; None if it is missing, or cannot be a time in seconds."""
    value = job.metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < _MAX_SECONDS else None


def seconds_of(job: Job) -> float | None:
    """Return the seconds from the creation of a job to its end; None if they are not known."""
    total = measured_seconds(job, "total_time")
    if total is not None:
        return total
    if job.created_at is None or job.completed_at is None:
        return None
    return (job.completed_at - job.created_at).total_seconds()


# -- Metrics -----------------------------------------------------------------------------------

if _meter is None:
    _creates = _throttled = None
    _waits = _durations = None
else:
    _creates = _meter.create_counter(
        "replicate.creates", unit="{job}", description="Predictions and trainings created"
    )
    _throttled = _meter.create_counter(
        "replicate.throttled", unit="{request}", description="Requests refused by the rate limit"
    )
    _waits = _meter.create_histogram(
        "replicate.rate_limit.wait", unit="s", description="Waits for the client-side rate limit"
    )
    _durations = _meter.create_histogram(
        "replicate.run.duration", unit="s", description="Runs from their beginning to their end"
    )


def count_create(model: str, tags: Mapping[str, str]) -> None:
    """Count a job that was created."""
    if _creates is not None:
        _creates.add(1, {"gen_ai.request.model": model, **_tagged(tags)})


def count_throttled(rate_class: str, tags: Mapping[str, str]) -> None:
    """Count a request that the rate limit has refused."""
    if _throttled is not None:
        _throttled.add(1, {"replicate.rate_class": rate_class, **_tagged(tags)})


def record_wait(seconds: float, rate_class: str, tags: Mapping[str, str]) -> None:
    """Record a wait for the client-side rate limit."""
    if _waits is not None:
        _waits.record(seconds, {"replicate.rate_class": rate_class, **_tagged(tags)})


def _tagged(tags: Mapping[str, str]) -> dict[str, str]:
    return {f"replicate.tag.{name}": value for name, value in tags.items()}


# -- Spans -------------------------------------------------------------------------------------


class RunSpan:
    """The span of one run, from before its create to its end. Without an SDK of OpenTelemetry it does nothing."""

    def __init__(self, model: str, tags: Mapping[str, str]) -> None:
        self._model = model
        self._tags = tags
        self._began = time.monotonic()
        self._is_over = False
        self._span: Any = None
        if _tracer is not None:
            span = _tracer.start_span(
                f"run {model}",
                kind=_trace.SpanKind.CLIENT,
                attributes={
                    "gen_ai.operation.name": "run",
                    "gen_ai.provider.name": "replicate",
                    "gen_ai.request.model": model,
                    **_tagged(tags),
                },
            )
            self._span = span if span.is_recording() else None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Return a context in which a child span covers a part of the run, such as its create."""
        if self._span is None:
            yield
            return
        with _tracer.start_as_current_span(name, context=_trace.set_span_in_context(self._span)):
            yield

    def end(self, job: Job | None, error: BaseException | None = None) -> None:
        """End the span, and describe the job, or the error if there is no result. May be called twice."""
        if self._is_over:
            return
        self._is_over = True
        status = "error" if job is None else job.status
        if _durations is not None:
            attributes = {"gen_ai.request.model": self._model, "replicate.status": status}
            _durations.record(time.monotonic() - self._began, {**attributes, **_tagged(self._tags)})
        if self._span is None:
            return
        if job is not None:
            self._describe(job)
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(_trace.Status(_trace.StatusCode.ERROR, str(error)[:500]))
        elif status in ("failed", "aborted"):
            self._span.set_status(_trace.Status(_trace.StatusCode.ERROR, status))
        self._span.end()

    def _describe(self, job: Job) -> None:
        facts = {
            "gen_ai.response.id": job.id,
            "gen_ai.response.model": job.model,
            "replicate.prediction.id": job.id,
            "replicate.version": job.version,
            "replicate.status": job.status,
            "replicate.predict_time": measured_seconds(job, "predict_time"),
            "replicate.total_time": measured_seconds(job, "total_time"),
        }
        self._span.set_attributes({name: fact for name, fact in facts.items() if fact is not None})
        self._add_past_span("queue", job.created_at, job.started_at)
        self._add_past_span("predict", job.started_at, job.completed_at)

    def _add_past_span(self, name: str, began: datetime | None, ended: datetime | None) -> None:
        """Make a child span of a period on the server, by its clock; none if one of the times is missing."""
        if began is None or ended is None or not _YEARS[0] <= began.year <= ended.year < _YEARS[1]:
            return
        child = _tracer.start_span(
            name,
            context=_trace.set_span_in_context(self._span),
            start_time=int(began.timestamp() * 1e9),
        )
        child.end(max(int(ended.timestamp() * 1e9), int(began.timestamp() * 1e9)))
