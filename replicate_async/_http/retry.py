"""Which requests may be repeated, and when. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from .. import exceptions
from .._codec import NestedTooDeeplyError
from ..types import Retry

RETRIED_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})

MIN_PAUSE: Final = 0.25
"""Shortest pause in seconds after a 429: servers may ask for no wait at all, again and again."""

_POLL_BACKOFF: Final = 5.0
"""Longest pause in seconds between two attempts of a poll, unless the server asks for a longer one."""

_MAX_UNREADABLE: Final = 100
"""Attempts of a poll whose answers cannot be read, or belong to other requests. They take some eight minutes: a proxy that
answers instead of the API may do so for a while."""

_SECONDS: Final = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)

_SPENT: Final = re.compile(
    r"\b(?:spend(?:ing)?|quota|credits?|balance|budget|billing|payments?|invoices?|unpaid|funds|suspended)\b"
    r"|\b(?:(?:dai|week|month|year)ly|annual)\b|\b(?:per|each|every|this) (?:day|week|month|year)\b"
    r"|\b(?:plan|trial|subscription)(?: limit| (?:has |is )?(?:expired|ended|over)\b)|\blimits? of your plan\b"
    r"|\b(?:cost|expenditure) (?:limit|cap)"
    r"|\busage (?:limit|cap)|\bfree (?:tier|trial|time|plan|limit|predictions)\b",
    re.IGNORECASE,
)
"""Words in the text of a 429 that waiting does not help against, since money or a quota is spent."""

_RATE: Final = re.compile(
    r"requests? (?:per|a|every) (?:\d+ )?(?:s\b|sec|min)"
    r"|\b(?:resets?|available|retry|again|wait) (?:in|after|for) ~?\d+(?:\.\d+)? ?(?:s\b|sec|min)",
    re.IGNORECASE,
)
"""Words in the text of a 429 that waiting helps against. It may mention money, too: a low credit lowers the rate limit."""

_TEXT_READ: Final = 10_000
"""Characters of an error text that are searched."""


class OtherAnswerError(ValueError):
    """An answer belongs to another request: the cause of a `ConnectionLost`."""


class Kind(Enum):
    """Effect of repeating a request."""

    READ = "read"
    """None: repeat after any transient failure. Cancelling is of this kind, too."""
    POLL = "poll"
    """As READ, but a paid result depends on the request: repeat until the caller's timeout."""
    CREATE = "create"
    """Another bill: repeat only if the first attempt certainly created nothing."""
    WRITE = "write"
    """Another change: as CREATE, but nothing is billed."""


def retry_delay(
    kind: Kind,
    error: exceptions.ReplicateException,
    attempt: int,
    elapsed: float,
    retry: Retry,
    chance: float,
    *,
    is_new: bool = False,
) -> float | None:
    """Return the number of seconds to wait before the next attempt; None to give up.

    Args:
        kind: Effect of repeating the request.
        error: Failure of this attempt.
        attempt: Number of this attempt, from 1.
        elapsed: Seconds since the first attempt began.
        retry: Retry policy.
        chance: Random number from 0 to 1, for the jitter.
        is_new: Whether the object was just created, so that it may not be known everywhere yet.
    """
    if not may_repeat(kind, error) and not (
        is_new and isinstance(error, exceptions.NotFoundError) and attempt < 4
    ):
        return None
    if isinstance(error, exceptions.RateLimitError):
        # Where many clients share a limit, 429s are normal: they are limited by time, not by number.
        if kind is not Kind.POLL and (elapsed > retry.throttled or retry.attempts == 1):
            return None
    elif kind is not Kind.POLL and attempt >= retry.attempts:
        return None
    if attempt >= _max_attempts(error, retry):
        return None
    exponent = min(attempt - 1, 30)
    longest = min(retry.max_backoff, _POLL_BACKOFF) if kind is Kind.POLL else retry.max_backoff
    pause: float = min(retry.backoff * 2.0**exponent, longest) * (1 - chance / 2)
    if isinstance(error, exceptions.RateLimitError):
        pause = max(pause, MIN_PAUSE)
    asked = error.retry_after if isinstance(error, exceptions.ReplicateError) else None
    if asked is None:
        return pause
    if asked > retry.max_wait:
        if kind is not Kind.POLL:
            return None
        asked = retry.max_wait  # what is paid for is not given up because the server is busy
    # The jitter is added, not subtracted: a request that comes too early is refused again. And servers may ask for no
    # wait at all, again and again.
    return max(asked + pause * chance, pause)


def _max_attempts(error: exceptions.ReplicateException, retry: Retry) -> float:
    """Return the maximum number of attempts, also of a poll, if answers arrive but cannot be used; infinity otherwise."""
    if isinstance(error.__cause__, MemoryError):
        return retry.attempts
    if isinstance(error.__cause__, OtherAnswerError):
        return _MAX_UNREADABLE
    if not isinstance(error, exceptions.UnreadableAnswer):
        return math.inf
    return retry.attempts if isinstance(error.__cause__, NestedTooDeeplyError) else _MAX_UNREADABLE


def may_repeat(kind: Kind, error: exceptions.ReplicateException) -> bool:
    """Return whether repeating a failed request cannot do the same thing twice."""
    if isinstance(error, exceptions.CertificateError):
        return False  # it would be the same certificate
    if isinstance(error, exceptions.ConnectError):
        return True  # nothing was sent
    if isinstance(error, exceptions.ReplicateError):
        if kind is Kind.POLL:
            return error.status in RETRIED_STATUSES or error.status >= 500
        if error.status == 429:
            return not _is_spent(error)  # refused before it was executed
        return kind is Kind.READ and error.status in RETRIED_STATUSES
    if kind is Kind.POLL:
        return isinstance(error, exceptions.TransportError) and not isinstance(
            error, exceptions.AnswerTooLarge | exceptions.RefusedRedirect
        )
    return kind is Kind.READ and isinstance(
        error, exceptions.TransportTimeout | exceptions.ConnectionLost
    )


def _is_spent(error: exceptions.ReplicateError) -> bool:
    """Return whether a 429 is about money, or about a period that is too long to wait for."""
    title, detail = (error.title or "")[:_TEXT_READ], (error.detail or "")[:_TEXT_READ]
    return bool(_SPENT.search(f"{title} {detail}")) and not _RATE.search(detail or title)


def retry_after(
    headers: Mapping[str, str], body: object, *, now: datetime | None = None
) -> float | None:
    """Return the number of seconds that the server asks to wait (:api:`response-headers`, :api:`rate-limits`).

    Args:
        headers: Headers of the answer, with names in lower case: `retry-after` holds seconds, or an HTTP or
            ISO 8601 date.
        body: Decoded body of the answer, which may have a `retry_after` (:api:`error-body`).
        now: Current time.

    Returns:
        The longer of the two; None if neither is present and valid.
    """
    seconds = (
        _header_seconds(headers.get("retry-after"), now or datetime.now(UTC)),
        _body_seconds(body),
    )
    return max((each for each in seconds if each is not None), default=None)


def _header_seconds(value: str | None, now: datetime) -> float | None:
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
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
