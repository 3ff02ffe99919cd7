"""Counters of a client."""

from __future__ import annotations

import attrs


@attrs.define
class Stats:
    """Counters of a client and of its views since the client was created."""

    created: int = 0
    """Number of predictions and trainings created."""
    adopted: int = 0
    """Number of those that were found again after their create got no response."""
    cancelled: int = 0
    """Number of predictions and trainings cancelled."""
    retried: int = 0
    """Number of attempts other than first ones."""
    fell_back: int = 0
    """Number of times that a run went on with a model of its `fallback`."""
    waited: int = 0
    """Number of requests delayed by the client-side rate limit."""
    waited_seconds: float = 0.0
    """Total of these delays, in seconds."""
    waiting: int = 0
    """Number of requests that wait for the rate limit now."""
