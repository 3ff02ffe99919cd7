"""Progress of a fan-out on the terminal."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

from .._verbs.map import Outcome

_TICK: Final = 0.2


_PLAIN_EVERY: Final = 10.0


class Report:
    """Tells how far it is: in one line that changes on a terminal, else now and then in a line of its own."""

    def __init__(
        self, file: TextIO, total: Callable[[], int | None], in_flight: Callable[[], int]
    ) -> None:
        self._file = file
        self._is_terminal = file.isatty()
        self._total = total
        self._in_flight = in_flight
        self._ends: deque[float] = deque(maxlen=200)
        self._is_shown = False
        self._told = time.monotonic()
        self.done = 0
        self.failed = 0
        self.seconds = 0.0
        self.interrupted = False

    def add(self, outcome: Outcome) -> None:
        """Take an outcome into account."""
        self.done += outcome.error is None
        self.failed += outcome.error is not None
        self._ends.append(time.monotonic())
        if outcome.prediction is not None:
            spent = outcome.prediction.metrics.get("predict_time")
            if isinstance(spent, (int, float)):
                self.seconds += spent

    async def tick(self) -> None:
        """Show it again and again."""
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if self._is_terminal:
                self._file.write(f"\r\x1b[K{self.line()}")
                self._file.flush()
                self._is_shown = True
            elif now - self._told >= _PLAIN_EVERY:
                self._told = now
                self.say(self.line())

    def line(self) -> str:
        """Return how far it is."""
        parts = [f"done {self.done}", f"failed {self.failed}", f"in flight {self._in_flight()}"]
        rate = self._rate()
        parts.append(f"{rate:.1f}/s")
        total = self._total()
        if total is not None and rate > 0:
            parts.append(f"{_time(max(total - self.done - self.failed, 0) / rate)} left")
        parts.append(f"{self.seconds:.1f} predict seconds")
        if total is not None:
            parts[0] += f" of {total}"
        return "  ".join(parts)

    def summary(self, seconds: float) -> str:
        """Return what it came to."""
        what = "interrupted: " if self.interrupted else ""
        return (
            f"{what}{self.done} done, {self.failed} failed in {_time(seconds)},"
            f" {self.seconds:.1f} predict seconds"
        )

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.clear()
        print(text, file=self._file, flush=True)

    def clear(self) -> None:
        """Take the line that changes away."""
        if self._is_shown:
            self._file.write("\r\x1b[K")
            self._file.flush()
            self._is_shown = False

    def end(self) -> None:
        """Show nothing more."""
        self.clear()

    def _rate(self) -> float:
        if len(self._ends) < 2:
            return 0.0
        span = time.monotonic() - self._ends[0]
        return len(self._ends) / span if span > 0 else 0.0


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
