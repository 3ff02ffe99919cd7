"""The time by the server's clock, from the headers of its answers: the clock of this machine may be hours wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import attrs

_MAX_DRIFT: Final = 5.0
"""Seconds by which the wall clock and the monotonic clock may drift apart. More means that the wall clock was set, or that
the machine slept."""

_YEARS: Final = range(1970, 9000)
"""Years of dates with which times can be computed."""


@attrs.frozen
class _Reading:
    date: str
    """The `Date` header."""
    wall: float
    monotonic: float


class ServerClock:
    """Knows the server's time from the last answer on."""

    def __init__(self) -> None:
        self._last: _Reading | None = None

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take the time from an answer that the server has just made."""
        date = headers.get("Date")
        if date is not None and "Age" not in headers:  # which a cache adds
            self._last = _Reading(date, time.time(), time.monotonic())

    def now(self) -> float | None:
        """Return the server's time in seconds since 1970, to a second or two; None if it is not known."""
        last = self._last
        if last is None:
            return None
        elapsed = time.monotonic() - last.monotonic
        if abs(time.time() - last.wall - elapsed) > _MAX_DRIFT:
            return None
        date = parsed_date(last.date)
        return None if date is None else date.timestamp() + elapsed


def parsed_date(text: str) -> datetime | None:
    """Return the time in a `Date` header; None if it is not valid."""
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if date.year not in _YEARS:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
