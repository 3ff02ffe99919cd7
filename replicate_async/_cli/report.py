"""The state and the totals of a fan-out."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress

from replicate_async import Outcome, Outcomes, Stats

from .display import duration
from .lines import Lines
from .streams import NotWritten


class Report:
    """Counts the outcomes of a fan-out.

    Args:
        outcomes: The fan-out.
        lines: Its inputs.
        stats: The counters of the client.
    """

    def __init__(self, outcomes: Outcomes, lines: Lines, stats: Stats) -> None:
        self._outcomes = outcomes
        self._lines = lines
        self._stats = stats
        self._began = time.monotonic()
        self._ends: deque[float] = deque(maxlen=200)
        self.done = 0
        """Number of inputs that have succeeded."""
        self.failed = 0
        """Number of inputs that have failed."""
        self.seconds = 0.0
        """Seconds of prediction time."""
        self.not_written: NotWritten | None = None
        """Why outcomes cannot be written, after the first one that could not."""

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.done += outcome.error is None
        self.failed += outcome.error is not None
        self._ends.append(time.monotonic())
        if outcome.prediction is not None:
            spent = outcome.prediction.metrics.get("predict_time")
            with suppress(OverflowError, TypeError, ValueError):  # whatever the API sends
                self.seconds += max(0.0, float(spent)) if isinstance(spent, (int, float)) else 0.0

    def summary(self) -> str:
        """Return the totals."""
        return (
            f"{self.done} done, {self.failed} failed in"
            f" {duration(time.monotonic() - self._began)}, {self.seconds:.1f} predict seconds"
        )

    def state(self) -> str:
        """Return the state."""
        total = self._lines.total
        rate = self._rate()
        parts = [
            f"done {self.done}" if total is None else f"done {self.done} of {total}",
            f"failed {self.failed}",
            f"in flight {self._outcomes.in_flight}",
            f"{rate:.1f}/s",
        ]
        if self._stats.waiting:
            parts.insert(1, f"{self._stats.waiting} waiting for the rate limit")
        if total is not None and rate > 0:
            left = max(total - self.done - self.failed, 0)
            parts.append(f"{duration(left / rate)} left")
        parts.append(f"{self.seconds:.1f} predict seconds")
        return "  ".join(parts)

    def _rate(self) -> float:
        """Return the number of outcomes per second, among the last 200."""
        if len(self._ends) < 2:
            return 0.0
        span = time.monotonic() - self._ends[0]
        return len(self._ends) / span if span > 0 else 0.0
