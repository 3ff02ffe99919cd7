"""The state of the client-side rate limits."""

from __future__ import annotations

import attrs


@attrs.frozen
class QueueState:
    """What is left of a rate limit now, and how long its queue is."""

    remaining: float
    """Number of requests that may be sent at once."""
    queued: int
    """Number of requests that wait."""
    wait: float
    """Seconds that another request would wait."""


@attrs.frozen
class RateLimitState:
    """What is left of the rate limits of a client now."""

    creates: QueueState
    """Creates of predictions and trainings."""
    others: QueueState
    """All other requests."""
