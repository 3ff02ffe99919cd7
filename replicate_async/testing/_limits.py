"""Rate limits of an account: token buckets for creates and for everything else.

They rest on :api:`known-errors` and :api:`rate-limits`.
"""

from __future__ import annotations

import math
from typing import Literal

import attrs

from ._clock import NANOSECONDS, Clock

RequestClass = Literal["creates", "others"]
LOW_CREDIT_PER_MINUTE = 6
LOW_CREDIT_BURST = 1


@attrs.frozen
class RateLimits:
    """Rate limits of an account; see :api:`rate-limits`.

    The defaults are the limits of the service.
    """

    creates: int = 600
    """Predictions that may be created in a period."""
    others: int = 3000
    """Other requests that may be made in a period."""
    per: float = 60.0
    """Length of the period, in seconds of the emulator's clock."""
    creates_burst: int | None = None
    """Number of creates that may be made at once. Defaults to `creates`."""
    others_burst: int | None = None
    """Number of other requests that may be made at once. Defaults to `others`."""


@attrs.frozen
class Verdict:
    """Outcome of a check: whether a request may pass, and the values of its headers.

    Attributes:
        allowed: Whether the request may pass.
        remaining: Requests left in the bucket.
        reset: Whole seconds until the bucket is full again.
        retry_after: Whole seconds until one request fits.
    """

    allowed: bool
    remaining: int
    reset: int
    retry_after: int


class Bucket:
    """A token bucket that refills continuously."""

    __slots__ = ("_at", "_burst", "_clock", "_rate", "_tokens")

    def __init__(self, clock: Clock, *, rate: float, burst: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = clock.time_ns()

    def take(self) -> Verdict:
        """Take one token if there is one."""
        now = self._clock.time_ns()
        elapsed = (now - self._at) / NANOSECONDS
        self._at = now
        tokens = min(float(self._burst), self._tokens + elapsed * self._rate)
        allowed = tokens >= 1.0
        if allowed:
            tokens -= 1.0
        self._tokens = tokens
        return Verdict(
            allowed,
            int(tokens),
            math.ceil((self._burst - tokens) / self._rate),
            0 if allowed else max(1, math.ceil((1.0 - tokens) / self._rate)),
        )


class AccountLimits:
    """The buckets of one account."""

    def __init__(self, clock: Clock, limits: RateLimits) -> None:
        self._buckets: dict[RequestClass, Bucket] = {
            "creates": Bucket(
                clock,
                rate=limits.creates / limits.per,
                burst=limits.creates if limits.creates_burst is None else limits.creates_burst,
            ),
            "others": Bucket(
                clock,
                rate=limits.others / limits.per,
                burst=limits.others if limits.others_burst is None else limits.others_burst,
            ),
        }
        self._low_credit = Bucket(
            clock, rate=LOW_CREDIT_PER_MINUTE / limits.per, burst=LOW_CREDIT_BURST
        )

    def take(self, kind: RequestClass, *, low_credit: bool) -> Verdict:
        """Count one request of a class."""
        bucket = self._low_credit if low_credit and kind == "creates" else self._buckets[kind]
        return bucket.take()


def throttled_text(retry_after: int, *, low_credit: bool) -> str:
    """Return the detail of a 429."""
    reduced = (
        " Your rate limit for creating predictions is reduced to"
        f" {LOW_CREDIT_PER_MINUTE} requests per minute with a burst of {LOW_CREDIT_BURST} requests"
        " while you have less than $5.0 in credit."
        if low_credit
        else ""
    )
    return f"Request was throttled.{reduced} Your rate limit resets in ~{retry_after}s."
