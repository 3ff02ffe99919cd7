"""Decisions on plain values: repeat or not, wait how long, poll how soon, is it over.

Pure functions, so that they can be tested without a loop, a clock or a server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from . import exceptions
from .types import Retry

if TYPE_CHECKING:
    from .types import Progress

TERMINAL: Final = frozenset({"succeeded", "failed", "canceled", "aborted"})
"""The states that a prediction does not leave (HTTP API, section 4.2)."""

LONGEST_WAIT: Final = 24 * 3600.0
"""Seconds after which waiting for a prediction ends where the caller names no time."""

LONGEST_TIME: Final = 1e9
"""Seconds that exceed every time that an argument may give; "for ever" is None."""

CANCEL_GRACE: Final = 5.0
"""Seconds that cancelling a prediction at the other end may take, when it is abandoned."""

RETRIED_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})

_OUTAGE_BACKOFF: Final = 5.0


class Kind(Enum):
    """What repeating a request would mean."""

    READ = "read"
    """Nothing: it may be repeated after any failure. Cancelling is of this kind, too."""
    POLL = "poll"
    """As READ, and something paid for depends on it: it is repeated until the caller's time is over."""
    CREATE = "create"
    """A second bill: it is repeated only if the first provably did not happen."""
    WRITE = "write"
    """A second change: as CREATE, but nothing is billed."""


# -- Repeating requests ------------------------------------------------------------------------


def retry_delay(
    kind: Kind,
    error: exceptions.ReplicateException,
    attempt: int,
    elapsed: float,
    retry: Retry,
    chance: float,
) -> float | None:
    """Return the seconds to wait before the next attempt, or None if there shall be none.

    Args:
        kind: What repeating would mean.
        error: How the attempt failed.
        attempt: Its number, from 1.
        elapsed: Seconds since the first attempt.
        retry: The caller's wishes.
        chance: A random number from 0 to 1, for the jitter.
    """
    if not may_repeat(kind, error) and not (
        # A prediction that was just created may not be known everywhere yet.
        kind is Kind.POLL and isinstance(error, exceptions.NotFoundError) and attempt < 4
    ):
        return None
    if isinstance(error, exceptions.RateLimitError):
        # Refusals are the order of the day when many share a limit: they count by time.
        if kind is not Kind.POLL and (elapsed > retry.throttled or retry.attempts == 1):
            return None
    elif kind is not Kind.POLL and attempt >= retry.attempts:
        return None
    exponent = min(attempt - 1, 30)
    longest = min(retry.max_backoff, _OUTAGE_BACKOFF) if kind is Kind.POLL else retry.max_backoff
    pause: float = min(retry.backoff * 2.0**exponent, longest) * (1 - chance / 2)
    asked = error.retry_after if isinstance(error, exceptions.ReplicateError) else None
    if asked is None:
        return pause
    if asked > retry.max_wait:
        return None
    # Jitter goes on top: who comes before the time is sent away again.
    return max(asked, 0.0) + pause * chance


def may_repeat(kind: Kind, error: exceptions.ReplicateException) -> bool:
    """Tell whether a failed request may be sent again without doing something twice."""
    if isinstance(error, exceptions.ConnectError):
        return True  # nothing was sent
    if isinstance(error, exceptions.ReplicateError):
        if kind in (Kind.READ, Kind.POLL):
            return error.status in RETRIED_STATUSES or (kind is Kind.POLL and error.status >= 500)
        return error.status == 429  # refused before it was executed
    if kind is Kind.POLL:
        return isinstance(error, exceptions.TransportError) and not isinstance(
            error, exceptions.AnswerTooLarge | exceptions.RefusedRedirect
        )
    return kind is Kind.READ and isinstance(
        error, exceptions.TransportTimeout | exceptions.ConnectionLost
    )


def retry_after(
    headers: Mapping[str, str], body: object, *, now: datetime | None = None
) -> float | None:
    """Return how many seconds the server asks to wait (HTTP API, sections 1.4, 2.1 and 3.1).

    From `Retry-After` (seconds, or an HTTP or ISO 8601 date) or `retry_after` of the body, whichever is
    longer. None if it does not say, or says nonsense.
    """
    said = [
        seconds
        for seconds in (
            _header_seconds(headers.get("retry-after"), now or datetime.now(UTC)),
            _body_seconds(body),
        )
        if seconds is not None
    ]
    return max(said, default=None)


def _header_seconds(value: str | None, now: datetime) -> float | None:
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parse(value)
        except (ValueError, TypeError, OverflowError):
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max((moment - now).total_seconds(), 0.0)
    return None


def _body_seconds(body: object) -> float | None:
    if not isinstance(body, Mapping):
        return None
    value = body.get("retry_after")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 1e9 else None


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


# -- Failures told apart -----------------------------------------------------------------------

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
    # Code: kind, and whether the same may succeed if it is tried again (HTTP API, section 2.5).
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


# -- Waiting for predictions -------------------------------------------------------------------


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
    """Return the progress that the last tqdm line of the logs tells (HTTP API, section 4.14)."""
    if not logs:
        return None
    # tqdm overwrites its line with carriage returns; the end of the logs is enough.
    for line in reversed(re.split(r"[\r\n]", logs[-4096:])):
        if found := re.match(_TQDM, line):
            from .types import Progress

            return Progress(int(found[1]) / 100, int(found[2]), int(found[3]))
    return None


# -- Durations and dates as the API wants them -------------------------------------------------


def wait_preference(wait: bool | float | None) -> tuple[str | None, float]:
    """Return the value of `Prefer` and how many seconds the server may then be silent.

    Args:
        wait: True (60 s), seconds from 1 to 60, or False or None for no header (HTTP API, section 4.4).
    """
    if wait is None or wait is False:
        return None, 0.0
    if wait is True:
        return "wait", 60.0
    if not isinstance(wait, (int, float)):
        raise exceptions.ArgumentTypeError("wait", f"expected a bool or seconds, got {wait!r}")
    if not 1 <= wait <= 60 or wait != int(wait):
        raise exceptions.ArgumentError(
            "wait", f"{wait!r} is not a whole number of seconds from 1 to 60"
        )
    return f"wait={int(wait)}", float(wait)


_DURATION: Final = r"(?=.)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?"


def cancel_after_seconds(value: float | str | timedelta) -> int:
    """Return the whole seconds of `cancel_after` (HTTP API, section 4.5).

    Args:
        value: Seconds, a timedelta, or a string such as `"90s"`, `"5m"` or `"1h30m45s"`; 5 s or more.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        found = re.fullmatch(_DURATION, value, re.ASCII)
        if not found:
            raise exceptions.ArgumentError(
                "cancel_after", f"{value!r} is no duration such as '90s', '5m' or '1h30m45s'"
            )
        hours, minutes, rest = (int(part or 0) for part in found.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    else:
        raise exceptions.ArgumentTypeError(
            "cancel_after", f"expected seconds, a timedelta or a string, got {value!r}"
        )
    if not 5 <= seconds < LONGEST_TIME:
        few = "is more than can be said" if seconds >= LONGEST_TIME else "is less than 5 seconds"
        raise exceptions.ArgumentError("cancel_after", f"{value!r} {few}")
    return -int(-seconds // 1)


def timeout_seconds(value: float | timedelta | None, argument: str = "timeout") -> float | None:
    """Return a caller's time in seconds; it must be greater than zero."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise exceptions.ArgumentTypeError(
            argument, f"expected seconds or a timedelta, got {value!r}"
        )
    if not 0 < value < LONGEST_TIME:
        raise exceptions.ArgumentError(
            argument, f"{value!r} is not greater than 0 and less than {LONGEST_TIME:g}"
        )
    return float(value)


def timestamp(value: datetime | str, argument: str) -> str:
    """Return a moment as the API takes it: ISO 8601. A datetime without a zone is taken as local time."""
    if isinstance(value, datetime):
        try:
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        except (OverflowError, ValueError, OSError):
            raise exceptions.ArgumentError(argument, f"{value!r} cannot be said in UTC") from None
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise exceptions.ArgumentError(
                argument, f"{value!r} is no ISO 8601 date and time"
            ) from None
        return value
    raise exceptions.ArgumentTypeError(argument, f"expected a datetime or a string, got {value!r}")


def text(value: object, argument: str) -> str:
    """Return *value* if it is a text that can be sent, and not empty."""
    if not isinstance(value, str):
        raise exceptions.ArgumentTypeError(argument, f"expected a string, got {value!r}")
    if not value.strip():
        raise exceptions.ArgumentError(argument, "it is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise exceptions.ArgumentError(argument, "there is half a character in it") from None
    return value


def one_of(value: Any, allowed: tuple[str, ...], argument: str) -> str:
    """Return *value* if it is one of the *allowed* strings."""
    if value not in allowed:
        raise exceptions.ArgumentError(
            argument, f"{value!r} is none of {', '.join(map(repr, allowed))}"
        )
    return str(value)
