"""The state of the client-side rate limits."""

from __future__ import annotations

import attrs


@attrs.frozen
class QueueState:
    """State of a rate limit: what is left now, and the length of its queue."""

    remaining: float
    """Number of requests that may be sent at once."""
    queued: int
    """Number of requests that wait."""
    wait: float
    """Seconds that another request would wait."""


@attrs.frozen
class RateLimitState:
    """State of the rate limits of a client."""

    creates: QueueState
    """Creates of predictions and trainings."""
    others: QueueState
    """All other requests."""
