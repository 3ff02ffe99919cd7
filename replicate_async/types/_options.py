"""Options of a client."""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

FileEncodingStrategy: TypeAlias = Literal["url", "base64"]
"""How to send the files in an input: uploaded first, or encoded into the request."""

_RATE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*", re.ASCII)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        # A plain ValueError: `exceptions` is not below this module.
        raise ValueError(
            f"{type(instance).__name__}.{attribute.name} must be greater than 0, not {value!r}"
        )


def _not_negative(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return
    raise ValueError(
        f"{type(instance).__name__}.{attribute.name} must be a number of seconds, not {value!r}"
    )


@attrs.frozen
class Timeout:
    """Timeouts for the network, in seconds.

    They do not limit how long a model may run; `run(timeout=...)` does.
    """

    connect: float = attrs.field(default=10.0, validator=_positive)
    """Time to establish a connection, TLS included."""
    read: float = attrs.field(default=30.0, validator=_positive)
    """Longest silence while waiting for the next bytes of a response. The time that a request asks the server to
    hold the response back (`Prefer: wait`) is added."""
    stream: float = attrs.field(default=60.0, validator=_positive)
    """Longest silence on an event stream. After it, the client reconnects."""
    download: float = attrs.field(default=3600.0, validator=_positive)
    """Total time to wait for the content of an output file, further attempts included. Files are deleted after one
    hour (:api:`retention`). The time in which your code handles the content does not count."""


@attrs.frozen
class Retry:
    """Retry policy for the requests that are safe to repeat.

    A create is repeated only if the first attempt certainly created nothing (but see `on_ambiguous`).
    """

    attempts: int = attrs.field(default=5, validator=_positive)
    """Total number of attempts; 1 disables retries. Does not apply to requests refused by the rate limit, which
    `throttled` limits instead, nor to polls of a running prediction, which are repeated until the caller's
    timeout."""
    backoff: float = attrs.field(default=0.5, validator=_positive)
    """Seconds before the second attempt. The pause doubles with each further attempt, minus a random part of up to
    one half."""
    max_backoff: float = attrs.field(default=30.0, validator=_positive)
    """Longest pause between two attempts, in seconds, unless the server asks for a longer one."""
    max_wait: float = attrs.field(default=120.0, validator=_positive)
    """Longest pause to accept from the server, in seconds. If it asks for a longer one, the error is raised."""
    throttled: float = attrs.field(default=600.0, validator=_positive)
    """Seconds during which a request refused by the rate limit (429) is repeated."""


@attrs.frozen
class RateLimit:
    """Client-side rate limits, which should match those of the account (:api:`rate-limits`)."""

    creates: float = attrs.field(default=600, validator=_positive)
    """Number of predictions created per period."""
    others: float = attrs.field(default=3000, validator=_positive)
    """Number of all other requests per period."""
    per: float = attrs.field(default=60.0, validator=_positive)
    """Length of the period in seconds."""
    max_queue: float = attrs.field(default=math.inf, validator=_not_negative)
    """Longest wait for the limit in seconds: a request that would wait longer raises `QueueFull` at once, and is not
    sent. By default, there is no limit. Requests about predictions that exist always wait; so does `map`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a rate limit, such as the value of the environment variable `REPLICATE_RATE_LIMIT`.

        Args:
            text: Number of predictions that may be created, and the seconds of the period, such as `150/60`.

        Returns:
            The limits; other requests may be 3000 per minute.

        Raises:
            ValueError: The text does not have this form.
        """
        found = _RATE.fullmatch(text) if isinstance(text, str) else None
        creates, per = map(float, found.groups()) if found else (0.0, 0.0)
        if not (creates > 0 and per > 0):
            raise ValueError(
                f"expected creates and seconds, such as 150/60 for 150 in 60 seconds, got {text!r}"
            )
        return cls(creates=creates, others=50 * per, per=per)


@attrs.frozen
class Limits:
    """Limits on memory and disk, in bytes after decompression, and on connections."""

    answer: int = attrs.field(default=64 * 2**20, validator=_positive)
    """Maximum size of a JSON response."""
    error: int = attrs.field(default=64 * 2**10, validator=_positive)
    """Maximum size of the body of an error response; a longer one is truncated."""
    event: int = attrs.field(default=64 * 2**20, validator=_positive)
    """Maximum size of a server-sent event."""
    stream: int = attrs.field(default=256 * 2**20, validator=_positive)
    """Maximum size of all events of a stream together, in characters. Each event counts for 100 more than its text."""
    file: int = attrs.field(default=256 * 2**20, validator=_positive)
    """Maximum size of a file that is read into memory, and of any file that the server compresses, although it is
    asked not to. Iterating over other files has no limit."""
    save: int = attrs.field(default=16 * 2**30, validator=_positive)
    """Maximum size of a file that is saved to disk."""
    connections: int = attrs.field(default=256, validator=_positive)
    """Maximum number of connections per event loop, for creates and for all other requests separately. Requests
    beyond it wait. Where a process may open few files (`ulimit -n`), each has a quarter of them at most."""
