"""Which requests may be repeated, and when. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from .. import exceptions
from ..types import Retry

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
    """Return how many seconds the server asks to wait (:api:`response-headers`, :api:`error-body` and :api:`rate-limits`).

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
