"""Decisions on plain values: repeat or not, wait how long, poll how soon, is it over.

Pure functions, so that they can be tested without a loop, a clock or a server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from .. import exceptions
from ..types import Progress

TERMINAL: Final = frozenset({"succeeded", "failed", "canceled", "aborted"})
"""The states that a prediction does not leave (:api:`status`)."""


CANCEL_GRACE: Final = 5.0
"""Seconds that cancelling a prediction at the other end may take, when it is abandoned."""


def is_ambiguous(error: exceptions.ReplicateException) -> bool:
    """Tell whether a create that failed so may have happened all the same."""
    if isinstance(error, exceptions.ReplicateError):
        return error.status == 408 or error.status >= 500
    return isinstance(error, exceptions.TransportError) and not isinstance(
        error, exceptions.ConnectError | exceptions.RefusedRedirect
    )


LOOKS: Final = (0.1, 0.4, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each look at the list for a create without an answer: it may lag behind."""


LOOK_PATIENCE: Final = 30.0
"""Seconds for which a look at that list is repeated when it fails."""


LAST_LOOKS: Final = (0.0, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
"""The same for a run that is given up, within `CANCEL_GRACE`."""


LAST_TRY: Final = 1.2
"""Seconds for each request that is made then."""


FailureKind = Literal[
    "content_policy",
    "invalid_input",
    "capacity",
    "out_of_memory",
    "interrupted",
    "timeout",
    "unknown",
]


# Patterns are texts, which `re` compiles when they are first needed, and keeps: a third of a
# millisecond each that no import has to wait for.
_CODE: Final = r"\bE\d{3,4}\b"


_BY_CODE: Final[Mapping[str, tuple[FailureKind, bool]]] = {
    # Code: kind, and whether the same may succeed if it is tried again (:api:`prediction-errors`).
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


_BY_TEXT: Final[tuple[tuple[str, FailureKind, bool], ...]] = (
    # The first that is found holds: what forbids to try again stands before what allows it.
    (
        "nsfw|flagged|sensitive content|content policy|safety (?:filter|system|checker)|moderation"
        r"|prohibited content|violat\w+ .*polic",
        "content_policy",
        False,
    ),
    (r"out of memory|\boom\b|cuda error: out", "out_of_memory", False),
    (
        "invalid (?:input|image|file|format|argument|prompt)|unsupported (?:file|image|format)"
        "|must be (?:one of|less|greater|at (?:least|most))|cannot identify image",
        "invalid_input",
        False,
    ),
    (r"prediction interrupted|please retry \(code", "interrupted", True),
    (
        "high demand|no capacity|at capacity|temporarily unavailable|overloaded|rate limit"
        "|too many requests",
        "capacity",
        True,
    ),
    (r"timed? ?out|deadline exceeded", "timeout", False),
)


def failure_kind(error: str | None) -> tuple[str | None, FailureKind, bool]:
    """Return the code in the error text of a prediction, the kind of failure, and if it may pass.

    By its code, else by words that the text holds. Nothing is taken for retryable without a sign of it.
    """
    if not error:
        return None, "unknown", False
    found = re.search(_CODE, error)
    code = found[0] if found else None
    known = _BY_CODE.get(code or "")
    if known is not None and known[0] != "unknown":
        return code, known[0], known[1]
    for pattern, kind, retryable in _BY_TEXT:
        if re.search(pattern, error, re.IGNORECASE):
            return code, kind, retryable
    return code, "unknown", False


def is_over(status: str, completed: bool) -> bool:
    """Tell whether a prediction has ended: by its status or, for an unknown one, by `completed_at`."""
    return completed or status in TERMINAL


def poll_delay(elapsed: float, usual: tuple[float, float] | None = None) -> float:
    """Return the seconds until the next look at a prediction that is *elapsed* seconds old.

    A tenth of its age on top of a tenth of a second, three seconds at most: so the delay until its end is
    noticed stays within a few percent of the time that it took.

    Args:
        elapsed: Its age.
        usual: What nine of ten predictions like it take at least, and at most, if that is known: before
            the time it is looked at seldom, and when the time has come, more often.
    """
    delay = min(0.1 + 0.1 * max(elapsed, 0.0), 3.0)
    if usual is None:
        return delay
    low, high = usual
    early = 0.9 * low
    if elapsed < early:
        # Some end early, as those do that fail at once.
        return max(min(max(delay, low / 4), early - elapsed, 30.0), 0.1)
    if elapsed <= high:
        return min(delay, max((high - low) / 6, 0.1))
    return delay


_TQDM: Final = r"^\s*(\d+)%\s*\|.+?\|\s*(\d+)/(\d+)"


def progress(logs: str | None) -> Progress | None:
    """Return the progress that the last tqdm line of the logs tells (:api:`logs-and-progress`)."""
    if not logs:
        return None
    # tqdm overwrites its line with carriage returns; the end of the logs is enough.
    for line in reversed(re.split(r"[\r\n]", logs[-4096:])):
        if found := re.match(_TQDM, line):
            return Progress(int(found[1]) / 100, int(found[2]), int(found[3]))
    return None
