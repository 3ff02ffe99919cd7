"""Checks of arguments: durations, dates, texts and choices, in the forms that the API accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from . import exceptions
from ._codec import format_datetime
from .types import WebhookEvent

MAX_WAIT: Final = 24 * 3600.0
"""Seconds to wait for a prediction if the caller sets no timeout."""

_WEBHOOK: Final = re.compile(
    r"(?:https://(?:[^\s/?#@]*@)?(?:[^\s/?#@:\[\]]+|\[[^\s/?#@\[\]]+\])"
    r"|http://(?:(?:[a-z0-9_-]+\.)*localhost|127(?:\.[0-9]+){3}|\[::1\]))"
    r"(?::[0-9]{0,5})?(?:[/?#]\S*)?",
    re.IGNORECASE,
)
"""Hosts may have any letters, so this is not limited to ASCII."""

MIN_INTERVAL: Final = 0.02
"""Seconds between two polls at the rate limit of an account (:api:`rate-limits`)."""

MAX_TIME: Final = 1e9
"""Upper limit of durations, in seconds, exclusive; `None` stands for no limit."""


def wait_preference(wait: bool | float | None) -> tuple[str | None, float]:
    """Return the value of the `Prefer` header, and the seconds for which the server may hold its response back.

    Args:
        wait: Seconds up to 60, of which the API takes whole ones; True for 60; or False, None, or less than 1 for no
            header (:api:`sync-mode`).

    Raises:
        ArgumentError: The value is out of range.
        ArgumentTypeError: It is not a number.
    """
    if wait is None or wait is False:
        return None, 0.0
    if wait is True:
        return "wait", 60.0
    expected = f"expected True, False or a number of seconds from 0 to 60, got {wait!r}"
    if not isinstance(wait, (int, float)):
        raise exceptions.ArgumentTypeError("wait", expected)
    if not 0 <= wait <= 60:
        raise exceptions.ArgumentError("wait", expected)
    return (f"wait={int(wait)}", float(int(wait))) if wait >= 1 else (None, 0.0)


_DURATION: Final = r"(?=.)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?"


def cancel_after_seconds(value: float | str | timedelta) -> int:
    """Return `cancel_after` in whole seconds, rounded up (:api:`deadline`).

    Args:
        value: Seconds, a timedelta, or a string such as `"90s"`, `"5m"` or `"1h30m45s"`; at least 5 s.

    Raises:
        ArgumentError: The value is out of range, or it is a malformed string.
        ArgumentTypeError: It has another type.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        found = re.fullmatch(_DURATION, value, re.ASCII)
        if not found:
            raise exceptions.ArgumentError(
                "cancel_after",
                f"expected a duration such as '90s', '5m' or '1h30m45s', got {value!r}",
            )
        hours, minutes, rest = (int(part or 0) for part in found.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    else:
        raise exceptions.ArgumentTypeError(
            "cancel_after", f"expected seconds, a timedelta or a string, got {value!r}"
        )
    if not 5 <= seconds < MAX_TIME:
        raise exceptions.ArgumentError(
            "cancel_after",
            f"expected at least 5 and less than {MAX_TIME:g} seconds, got {value!r}",
        )
    return -int(-seconds // 1)


def timeout_seconds(value: float | timedelta | None, argument: str = "timeout") -> float | None:
    """Return a timeout in seconds; None stays None.

    Raises:
        ArgumentError: The value is not greater than 0, or too large.
        ArgumentTypeError: It is not a number or a timedelta.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise exceptions.ArgumentTypeError(
            argument, f"expected seconds or a timedelta, got {value!r}"
        )
    if not 0 < value < MAX_TIME:
        raise exceptions.ArgumentError(
            argument,
            f"expected more than 0 and less than {MAX_TIME:g} seconds, got {value!r}",
        )
    return float(value)


def interval_seconds(value: float | timedelta, argument: str) -> float:
    """Return a polling interval in seconds: at least that of the account's rate limit, which 0 stands for.

    Raises:
        ArgumentError: The value is less than 0, or too large.
        ArgumentTypeError: It is not a number or a timedelta.
    """
    if not isinstance(value, (bool, str)) and value in (0, timedelta()):
        return MIN_INTERVAL
    if isinstance(value, (int, float)) and value < 0:
        raise exceptions.ArgumentError(argument, f"expected 0 or more seconds, got {value!r}")
    seconds = timeout_seconds(value, argument)
    assert seconds is not None
    return seconds


def timestamp(value: datetime | str, argument: str) -> str:
    """Return a date and time in ISO 8601. A datetime without a time zone is local time.

    Raises:
        ArgumentError: The value is not a date and time in ISO 8601, or cannot be converted to UTC.
        ArgumentTypeError: It has another type.
    """
    if isinstance(value, datetime):
        try:
            return format_datetime(value)
        except (OverflowError, ValueError, OSError):
            raise exceptions.ArgumentError(
                argument, f"expected a datetime that can be converted to UTC, got {value!r}"
            ) from None
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise exceptions.ArgumentError(
                argument, f"expected a date and time in ISO 8601, got {value!r}"
            ) from None
        return value
    raise exceptions.ArgumentTypeError(argument, f"expected a datetime or a string, got {value!r}")


def string(value: object, argument: str) -> str:
    """Return *value*, which must be a string. The message does not contain it, since it may be a secret.

    Raises:
        ArgumentTypeError: The value is not a string.
    """
    if not isinstance(value, str):
        raise exceptions.ArgumentTypeError(
            argument, f"expected a string, got {type(value).__name__}"
        )
    return value


def text(value: object, argument: str) -> str:
    """Return *value*, which must be a string that is not empty and can be encoded in UTF-8.

    Raises:
        ArgumentError: The string is empty, or contains an unpaired surrogate.
        ArgumentTypeError: The value is not a string.
    """
    if not isinstance(value, str):
        raise exceptions.ArgumentTypeError(argument, f"expected a string, got {value!r}")
    if not value.strip():
        raise exceptions.ArgumentError(argument, f"expected a non-empty string, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise exceptions.ArgumentError(
            argument, "expected valid Unicode, got a string with an unpaired surrogate"
        ) from None
    return value


def header_text(value: object, argument: str) -> str:
    """Return *value*, which must be a string that a header can hold; it may be empty.

    Raises:
        ArgumentError: It contains control characters.
        ArgumentTypeError: It is not a string.
    """
    if not isinstance(value, str):
        raise exceptions.ArgumentTypeError(argument, f"expected a string, got {value!r}")
    if not value.isprintable() or not value.isascii():
        raise exceptions.ArgumentError(argument, f"expected printable characters, got {value!r}")
    return value


def one_of(value: Any, allowed: tuple[str, ...], argument: str) -> str:
    """Return *value*, which must be one of the *allowed* strings.

    Raises:
        ArgumentError: It is not.
    """
    if value not in allowed:
        choices = " or ".join(map(repr, allowed))
        raise exceptions.ArgumentError(argument, f"expected {choices}, got {value!r}")
    return str(value)


def check_webhook(url: str | None, argument: str = "webhook") -> str | None:
    """Return the URL of a webhook, which must be an HTTPS URL (:api:`webhook-request`).

    HTTP URLs of this machine pass: emulators may take them, and the service refuses them itself.

    Raises:
        ArgumentError: It is not.
    """
    if url is not None and not (isinstance(url, str) and _WEBHOOK.fullmatch(url)):
        raise exceptions.ArgumentError(argument, f"expected an HTTPS URL, got {url!r}")
    return url


def check_http_url(url: object, argument: str) -> str:
    """Return *url*, which must be an `http:` or `https:` URL with a host.

    Raises:
        ArgumentError: It is not.
        ArgumentTypeError: It is not a string.
    """
    if not isinstance(url, str):
        raise exceptions.ArgumentTypeError(argument, f"expected a URL, got {url!r}")
    if not re.match(r"https?://[^\s/?#]+", url, re.IGNORECASE):
        raise exceptions.ArgumentError(argument, f"expected an http: or https: URL, got {url!r}")
    return url


def check_events(events: Sequence[WebhookEvent | str] | None) -> list[str] | None:
    """Return the events that trigger a webhook.

    Raises:
        ArgumentError: One of them is unknown.
        ArgumentTypeError: It is not a list.
    """
    if events is None:
        return None
    if isinstance(events, (str, bytes, Mapping)) or not isinstance(events, Iterable):
        raise exceptions.ArgumentTypeError(
            "webhook_events_filter", f"expected a list of events, got {events!r}"
        )
    allowed = ("start", "output", "logs", "completed")
    return [one_of(event, allowed, "webhook_events_filter") for event in events]


def flag(value: object, argument: str) -> bool:
    """Return *value*, which must be True or False.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if not isinstance(value, bool):
        raise exceptions.ArgumentTypeError(argument, f"expected True or False, got {value!r}")
    return value


def texts(**fields: str | None) -> dict[str, Any]:
    """Return the fields that are not None, each of which must be a string.

    Raises:
        ArgumentTypeError: One of them is something else.
    """
    for name, value in fields.items():
        if value is not None and not isinstance(value, str):
            raise exceptions.ArgumentTypeError(name, f"expected a string, got {value!r}")
    return given(**fields)


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None: the API rejects `null` (:api:`requests`)."""
    return {name: value for name, value in fields.items() if value is not None}
