"""Counters of a client."""

from __future__ import annotations

import attrs


@attrs.define
class Stats:
    """Counters of a client and its views. Those of a view count only what was done with the view."""

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


class Counters:
    """What counts for the stats of a view, and for those of the clients that it is a view of."""

    def __init__(self, *outer: Stats) -> None:
        self.own: Stats = Stats()
        self._all: tuple[Stats, ...] = (self.own, *outer)

    def view(self) -> Counters:
        """Return the counters of a view."""
        return Counters(*self._all)

    def add(self, **amounts: float) -> None:
        """Add to counters, by their names."""
        for stats in self._all:
            for name, amount in amounts.items():
                setattr(stats, name, getattr(stats, name) + amount)
