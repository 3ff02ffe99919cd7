"""Checks of arguments: durations, dates, texts and choices as the API wants them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from . import exceptions
from .types import WebhookEvent

LONGEST_WAIT: Final = 24 * 3600.0
"""Seconds after which waiting for a prediction ends where the caller names no time."""


LONGEST_TIME: Final = 1e9
"""Seconds that exceed every time that an argument may give; "for ever" is None."""


def wait_preference(wait: bool | float | None) -> tuple[str | None, float]:
    """Return the value of `Prefer` and how many seconds the server may then be silent.

    Args:
        wait: True (60 s), seconds from 1 to 60, or False or None for no header (:api:`sync-mode`).
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
    """Return the whole seconds of `cancel_after` (:api:`deadline`).

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


def check_webhook(url: str | None) -> str | None:
    """Return a webhook's URL, which must be of HTTPS (:api:`webhook-request`)."""
    if url is not None and not (isinstance(url, str) and url.lower().startswith("https://")):
        raise exceptions.ArgumentError("webhook", f"{url!r} is no https URL")
    return url


def check_events(events: Sequence[WebhookEvent] | None) -> list[str] | None:
    """Return the events that a webhook shall be called for."""
    if events is None:
        return None
    if isinstance(events, str) or not isinstance(events, Iterable):
        raise exceptions.ArgumentTypeError(
            "webhook_events_filter", f"expected a list of events, got {events!r}"
        )
    allowed = ("start", "output", "logs", "completed")
    return [one_of(event, allowed, "webhook_events_filter") for event in events]


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: the API refuses `null` (:api:`requests`)."""
    return {name: value for name, value in fields.items() if value is not None}
