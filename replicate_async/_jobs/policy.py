"""Decisions about jobs: whether they have ended, why they failed, when to poll again.

Pure functions of plain values, which need no event loop, clock or server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from .. import exceptions
from ..types import Job, Progress

TERMINAL: Final = frozenset({"succeeded", "failed", "canceled", "aborted"})
"""Statuses in which a job has ended (:api:`status`)."""


@attrs.frozen
class Timings:
    """Durations in seconds that only tests change."""

    searches: tuple[float, ...] = (0.1, 0.4, 1.0, 2.0, 4.0, 8.0)
    """Pauses before the searches of the list for the result of a lost create. The list may lag behind."""
    search_patience: float = 30.0
    """Time for which a failed request of a search, or a failed cancel, is repeated."""
    rivals: float = 100.0
    """Longest wait for the answers of equal creates, which show which predictions are theirs."""
    cancel: float = 5.0
    """Longest time to find and cancel an abandoned prediction."""
    last_searches: tuple[float, ...] = (0.0, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
    """Pauses before the searches for the result of an abandoned create, within `cancel`."""
    last_try: float = 1.2
    """Longest time for each request that finds or cancels an abandoned prediction; for a search, doubled each time that
    it was too short."""
    first_run: float = 2.0
    """Time after which a call that finds out whether a model is official is not waited for any more."""
    list_lag: float = 20.0
    """Time after which the list is complete as to what an earlier process has created."""


def may_have_created(error: BaseException) -> bool:
    """Return whether a create that was sent, and has raised an error, may have succeeded on the server."""
    if isinstance(error, exceptions.ReplicateError):
        return error.status == 408 or error.status >= 500
    return not isinstance(error, exceptions.ConnectError | exceptions.RefusedRedirect)


def is_outage(error: exceptions.ReplicateException) -> bool:
    """Return whether a create failed because its model, or the API, is out of service, and created nothing.

    If the API answers with an error of its own, and the list does not show what was created, it has created nothing as
    far as can be known. Of a create without any answer that cannot be said.
    """
    if isinstance(error, exceptions.AmbiguousCreateError):
        cause = error.__cause__
        return isinstance(cause, exceptions.ServerError) and not error.candidates
    return isinstance(error, exceptions.ServerError)


def is_unavailable(failure: exceptions.ModelError) -> bool:
    """Return whether a prediction failed because its model was not available, whatever its input."""
    if isinstance(failure, exceptions.StartTimeout):
        return True
    return failure.retryable and failure.kind in ("capacity", "interrupted", "timeout")


def is_over(status: str, completed: bool) -> bool:
    """Return whether a job has ended.

    Args:
        status: Its status.
        completed: Whether it has a `completed_at`, which decides if the status is unknown.
    """
    return completed or status in TERMINAL


def has_ended(job: Job) -> bool:
    """Return whether a job has ended."""
    return is_over(job.status, job.completed_at is not None)


# -- Failures ----------------------------------------------------------------------------------

FailureKind = Literal[
    "content_policy",
    "invalid_input",
    "capacity",
    "out_of_memory",
    "interrupted",
    "timeout",
    "unknown",
]

_CODE: Final = re.compile(r"\bE\d{3,4}\b")

_BY_CODE: Final[Mapping[str, tuple[FailureKind, bool]]] = {
    # Code: kind, and whether it is transient (:api:`prediction-errors`).
    "E003": ("capacity", True),
    "E004": ("capacity", True),
    "E005": ("content_policy", False),
    "E006": ("invalid_input", False),
    "E1000": ("unknown", False),
    "E1001": ("out_of_memory", False),
    "E4875": ("invalid_input", False),
    "E6716": ("timeout", True),  # while starting: nothing ran
    "E8367": ("interrupted", True),
    "E8765": ("interrupted", True),
    "E9243": ("interrupted", True),
    "E9825": ("interrupted", True),
}

_BY_TEXT: Final[tuple[tuple[re.Pattern[str], FailureKind, bool], ...]] = (
    # The first match counts, so permanent failures stand before transient ones.
    (
        re.compile(
            "nsfw|flagged|sensitive content|content policy|safety (?:filter|system|checker)"
            r"|moderation|prohibited content|violat\w{1,5} .{0,80}polic",
            re.IGNORECASE,
        ),
        "content_policy",
        False,
    ),
    (
        re.compile(r"out of memory|\boom\b|cuda error: out", re.IGNORECASE),
        "out_of_memory",
        False,
    ),
    (
        re.compile(
            "invalid (?:input|image|file|format|argument|prompt)"
            "|unsupported (?:file|image|format)|cannot identify image"
            "|must be (?:one of|less|greater|at (?:least|most))",
            re.IGNORECASE,
        ),
        "invalid_input",
        False,
    ),
    (
        re.compile(r"prediction interrupted|please retry \(code", re.IGNORECASE),
        "interrupted",
        True,
    ),
    (
        re.compile(
            "high demand|no capacity|at capacity|temporarily unavailable|overloaded|rate limit"
            "|too many requests",
            re.IGNORECASE,
        ),
        "capacity",
        True,
    ),
    (re.compile(r"timed? ?out|deadline exceeded", re.IGNORECASE), "timeout", False),
)

_TEXT_READ: Final = 16 * 1024
"""Number of characters at the beginning and at the end of an error text that are searched."""


def failure_kind(error: str | None) -> tuple[str | None, FailureKind, bool]:
    """Classify the error text of a job, by the code in it or else by its words.

    Returns:
        The code, the kind of failure, and whether it is known to be transient: the same input may succeed.
    """
    if not error:
        return None, "unknown", False
    if len(error) > 2 * _TEXT_READ:
        error = f"{error[:_TEXT_READ]}\n{error[-_TEXT_READ:]}"
    found = _CODE.search(error)
    code = found[0] if found else None
    known = _BY_CODE.get(code or "")
    if known is not None and known[0] != "unknown":
        return code, known[0], known[1]
    for pattern, kind, transient in _BY_TEXT:
        if pattern.search(error):
            return code, kind, transient
    return code, "unknown", False


# -- Polling -----------------------------------------------------------------------------------


def poll_delay(elapsed: float, usual: tuple[float, float] | None = None) -> float:
    """Return the seconds until the next poll of a job.

    The polling interval grows with the age of the job: 0.1 s plus a tenth of the age, up to 3 s. So the end
    is noticed within a few percent of the job's duration.

    Args:
        elapsed: Age of the job in seconds.
        usual: Shortest and longest usual duration of similar jobs in seconds, if known. The job is polled less
            often before the shortest, and more often between the two.
    """
    delay = min(0.1 + 0.1 * max(elapsed, 0.0), 3.0)
    if usual is None:
        return delay
    low, high = usual
    early = 0.9 * low
    if elapsed < early:
        # Some jobs end early, such as those that fail at once.
        return max(min(max(delay, low / 4), early - elapsed, 30.0), 0.1)
    if elapsed <= high:
        return min(delay, max((high - low) / 6, 0.1))
    return delay


_TQDM: Final = re.compile(r"\s*(\d{1,3})%\s*\|[^|]+\|\s*(\d{1,12})/(\d{1,12})", re.ASCII)
_LOG_READ: Final = 4096
"""Number of characters at the end of the logs that are searched for progress."""


def progress(logs: str | None) -> Progress | None:
    """Return the progress in the last tqdm line of the logs (:api:`logs-and-progress`)."""
    if not logs:
        return None
    # tqdm overwrites its line with carriage returns.
    for line in reversed(re.split(r"[\r\n]", logs[-_LOG_READ:])):
        if found := _TQDM.match(line):
            return Progress(int(found[1]) / 100, int(found[2]), int(found[3]))
    return None
