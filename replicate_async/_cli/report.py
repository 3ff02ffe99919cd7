"""The progress of a fan-out on the terminal."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Final, TextIO

import anyio

from replicate_async import Outcome, Outcomes

from .lines import Lines
from .streams import NotWritten
from .terminal import is_terminal, visible

_REFRESH: Final = 0.2
"""Seconds between two states on a terminal."""


_PLAIN_REFRESH: Final = 10.0
"""Seconds between two states in a file or pipe."""


class Report:
    """Reports the state of a fan-out: on one line that changes on a terminal, else on a line now and then.

    Args:
        file: Where to write; None to write nothing.
        outcomes: The fan-out.
        lines: Its inputs.
    """

    def __init__(self, file: TextIO | None, outcomes: Outcomes, lines: Lines) -> None:
        self._file = file
        self._is_terminal = is_terminal(file)
        self._outcomes = outcomes
        self._lines = lines
        self._began = time.monotonic()
        self._ends: deque[float] = deque(maxlen=200)
        self._is_shown = False
        self.done = 0
        """Number of inputs that have succeeded."""
        self.failed = 0
        """Number of inputs that have failed."""
        self.seconds = 0.0
        """Seconds of prediction time."""
        self.not_written: NotWritten | None = None
        """Why outcomes cannot be written."""

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.done += outcome.error is None
        self.failed += outcome.error is not None
        self._ends.append(time.monotonic())
        if outcome.prediction is not None:
            spent = outcome.prediction.metrics.get("predict_time")
            with suppress(OverflowError, TypeError, ValueError):  # whatever the API sends
                self.seconds += max(0.0, float(spent)) if isinstance(spent, (int, float)) else 0.0

    async def show(self) -> None:
        """Show the state again and again, until cancelled."""
        while True:
            if self._is_terminal:
                await anyio.sleep(_REFRESH)
                self._write(f"\r\x1b[K{self._state()}")
                self._is_shown = True
            else:
                await anyio.sleep(_PLAIN_REFRESH)
                self.say(self._state())

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        self._write(f"{visible(text) if self._is_terminal else text}\n")

    def clear(self) -> None:
        """Remove the line that changes."""
        if self._is_shown:
            self._write("\r\x1b[K")
            self._is_shown = False

    def _write(self, text: str) -> None:
        if self._file is not None:
            with suppress(OSError, ValueError):  # the terminal was closed, or the disk is full
                self._file.write(text)
                self._file.flush()

    def summary(self) -> str:
        """Return the totals."""
        return (
            f"{self.done} done, {self.failed} failed in"
            f" {_duration(time.monotonic() - self._began)}, {self.seconds:.1f} predict seconds"
        )

    def _state(self) -> str:
        total = self._lines.total
        rate = self._rate()
        parts = [
            f"done {self.done}" if total is None else f"done {self.done} of {total}",
            f"failed {self.failed}",
            f"in flight {self._outcomes.in_flight}",
            f"{rate:.1f}/s",
        ]
        if total is not None and rate > 0:
            left = max(total - self.done - self.failed, 0)
            parts.append(f"{_duration(left / rate)} left")
        parts.append(f"{self.seconds:.1f} predict seconds")
        return "  ".join(parts)

    def _rate(self) -> float:
        """Return the outcomes per second, of late."""
        if len(self._ends) < 2:
            return 0.0
        span = time.monotonic() - self._ends[0]
        return len(self._ends) / span if span > 0 else 0.0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
