"""The state that commands show on standard error while they wait: in one line on a terminal, else in a new line at times."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import anyio

from replicate_async import Prediction, Stats

from .terminal import is_terminal, visible

if TYPE_CHECKING:
    from tqdm import tqdm

_REFRESH: Final = 0.2
"""Seconds between two updates of the state on a terminal."""

_PLAIN_REFRESH: Final = 10.0
"""Seconds between two updates of the state elsewhere."""


class Display:
    """Shows the state of a command while it waits, and prints lines.

    On a terminal, tqdm draws the state in one line, cut to its width, below the printed lines. In pipes, in CI, on
    terminals that cannot do it, and without tqdm, the state is printed as a new line every ten seconds.

    Args:
        file: Where to write; None to write nothing.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._is_terminal = is_terminal(file)
        self._tqdm = _tqdm_class() if self._is_terminal and not is_plain(os.environ) else None
        self._bar: tqdm[Any] | None = None
        self._state: Callable[[], str] | None = None
        self._shown_at = 0.0

    def watch(self, state: Callable[[], str]) -> None:
        """Show a state from now on.

        Args:
            state: Returns it as text.
        """
        self._state = state
        self._shown_at = time.monotonic()

    def clear(self) -> None:
        """Stop showing a state, and remove it from the terminal."""
        self._state = None
        bar, self._bar = self._bar, None
        if bar is not None:
            with suppress(OSError, ValueError):  # the terminal was closed
                bar.close()

    async def run(self) -> None:
        """Keep the shown state up to date, until cancelled."""
        while True:
            await anyio.sleep(_REFRESH)
            if self._state is None:
                continue
            if self._tqdm is not None:
                self._draw(self._state())
            elif time.monotonic() >= self._shown_at + _PLAIN_REFRESH:
                self._shown_at = time.monotonic()
                self.say(self._state())

    def say(self, text: str) -> None:
        """Print a line."""
        if self._file is not None:
            # The terminal was closed, or the disk is full.
            with self.cleared(), suppress(OSError, ValueError):
                self._file.write(f"{visible(text) if self._is_terminal else text}\n")
                self._file.flush()

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Remove the state from the terminal while something else is written to it."""
        if self._bar is None:
            yield
        else:
            with self._bar.external_write_mode(self._file):
                yield

    def _draw(self, text: str) -> None:
        text = visible(text, lines=False)
        with suppress(OSError, ValueError):
            if self._bar is None and self._tqdm is not None:
                # The bar has no total and is blank: it only fills what the text leaves of the line.
                self._bar = self._tqdm(
                    desc=text,
                    file=self._file,
                    leave=False,
                    dynamic_ncols=True,
                    bar_format="{desc}{bar}",
                )
            elif self._bar is not None:
                self._bar.set_description_str(text, refresh=True)


class DisplayHandler(logging.Handler):
    """Prints log records above the state."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self._display.say(f"{record.levelname.lower()}: {self.format(record)}")


def is_plain(environment: Mapping[str, str]) -> bool:
    """Return whether the environment asks for plain lines, although there is a terminal."""
    return (
        environment.get("TERM", "").lower() in ("dumb", "unknown")
        or bool(environment.get("NO_COLOR"))
        or environment.get("CI", "").lower() not in ("", "0", "false")
    )


def _tqdm_class() -> type[tqdm[Any]] | None:
    """Return the class that draws the line; None if tqdm is not installed."""
    try:
        from tqdm import tqdm  # of the extra `progress`
    except ImportError:
        return None

    class Line(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread that draws when nobody else does: `Display.run` does

    return Line


def duration(seconds: float) -> str:
    """Return seconds as `0:12` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Waiting:
    """The state of a command that waits for one prediction.

    Args:
        stats: The counters of the client.
        find: Returns the prediction; None before it is created.
    """

    def __init__(self, stats: Stats, find: Callable[[], Prediction | None] = lambda: None) -> None:
        self._stats = stats
        self._began = time.monotonic()
        self.find: Callable[[], Prediction | None] = find

    def text(self) -> str:
        """Return it as text."""
        prediction = self.find()
        elapsed = duration(time.monotonic() - self._began)
        if prediction is None:
            what = "waiting for the rate limit" if self._stats.waiting else "creating"
            return f"{what}  {elapsed}"
        what = prediction.status
        if what == "starting":
            what = "starting: waiting for the model"
        elif prediction.progress is not None:
            what = f"{what} {prediction.progress.percentage:.0%}"
        return f"{what}  {elapsed}  {prediction.id}"
