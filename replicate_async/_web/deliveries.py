"""Parses deliveries: their signed headers, their jobs, their order, and their events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

from .._codec import structure
from .._jobs.context import Context
from .._jobs.policy import has_ended
from .._jobs.prediction import Prediction
from .._jobs.training import Training
from .._json import to_text
from ..exceptions import ArgumentTypeError

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
Contents: TypeAlias = tuple[int, int]
"""A hash of the output of a job, and the length of its logs."""

_SIGNED: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")

_TERMINAL: Final = 2**53
"""Rank of a final state. Redis compares numbers as doubles."""


def headers_of(headers: Headers) -> dict[str, str]:
    """Return the headers that a signature consists of.

    Raises:
        ValueError: One of them is missing, or is given twice.
        ArgumentTypeError: They are neither a mapping nor pairs of strings or bytes.
    """
    given = headers.items() if isinstance(headers, Mapping) else headers
    pairs = cast("Iterable[tuple[str | bytes, str | bytes]]", given)
    found: dict[str, str] = {}
    try:
        signed = [
            (key, _text(value)) for name, value in pairs if (key := _text(name).lower()) in _SIGNED
        ]
    except (TypeError, AttributeError):
        raise ArgumentTypeError(
            "headers",
            f"expected a mapping, or pairs, of strings or bytes, got {type(headers).__name__}",
        ) from None
    for key, value in signed:
        if key in found:
            raise ValueError(f"the header {key!r} is there twice")
        found[key] = value
    for key in _SIGNED:
        if not found.get(key):
            raise ValueError(f"the header {key!r} is missing")
    return found


def job_in(context: Context, data: Any) -> Prediction | Training:
    """Return the prediction or training that a decoded body describes, bound to a client.

    Raises:
        ValueError: It describes neither.
    """
    job: Prediction | Training = (
        structure(data, Training) if _is_training(data) else structure(data, Prediction)
    )
    return context.bind(job)


def rank_of(job: Prediction | Training, timestamp: str, body: bytes) -> int:
    """Return a number that is larger for a later state of a job.

    Deliveries of states that are not final are sent once, so the time at which they were signed tells their order;
    within a second, their size does. A final state is delivered until that succeeds.

    Args:
        job: The job.
        timestamp: Time of the delivery: seconds since the epoch, as in its header.
        body: Body of the delivery.
    """
    if has_ended(job):
        return _TERMINAL
    size = min(len(body), 999_998)
    return min(int(timestamp) * 1_000_000 + size + (job.status != "starting"), _TERMINAL - 1)


def contents_of(job: Prediction | Training) -> Contents:
    """Return what is remembered of the output and logs of a job."""
    output = job.to_dict().get("output")
    return (0 if output is None else hash(to_text(output))), len(job.logs)


def events_of(job: Prediction | Training, before: Contents | None) -> frozenset[str]:
    """Return the events that a delivery stands for.

    Args:
        job: The job that was delivered.
        before: What the last delivery for it held; None for the first one.
    """
    if has_ended(job):
        return frozenset({"completed"})
    (output, logs), (output_before, logs_before) = contents_of(job), before or (0, 0)
    events = set()
    if output != output_before:
        events.add("output")
    if logs != logs_before:
        events.add("logs")
    return frozenset(events or {"start"})


def _is_training(data: object) -> bool:
    """Tell a training from a prediction: they differ only in their URLs and output (:api:`training-object`)."""
    if not isinstance(data, dict):
        return False
    urls, output = data.get("urls"), data.get("output")
    if isinstance(urls, dict) and isinstance(url := urls.get("get"), str) and "/trainings/" in url:
        return True
    return isinstance(output, dict) and {"version", "weights"} >= output.keys() > set()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
