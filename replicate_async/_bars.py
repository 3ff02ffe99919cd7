"""Progress bars of tqdm, which is the extra `progress`, in terminals and notebooks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar

import anyio

from ._concurrency import watched
from ._extras import import_extra
from .types import Job

T = TypeVar("T")

_logger = logging.getLogger("replicate_async")

_TICK: Final = 0.2
"""Seconds between two updates of the bar."""

_RUN_FORMAT: Final = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"


class Bar:
    """A bar of tqdm. If it cannot be shown, such as on a terminal that was closed, the work goes on without it."""

    def __init__(self, **options: Any) -> None:
        """Open a bar.

        Args:
            **options: Those of `tqdm`.

        Raises:
            MissingDependency: tqdm is not installed.
        """
        make = import_extra("tqdm.auto", "progress").tqdm
        self._bar: Any = None
        self._try(lambda: setattr(self, "_bar", make(**options)))

    def add(self, number: float) -> None:
        """Add to what is done."""
        self._try(lambda: self._bar.update(number))

    def restart(self, number: float = 0) -> None:
        """Set how much is done."""

        def go() -> None:
            self._bar.n = number
            self._bar.refresh()

        self._try(go)

    def set_total(self, total: float | None) -> None:
        """Set how much there is to do."""

        def go() -> None:
            if total is not None and total != self._bar.total:
                self._bar.total = total
                self._bar.refresh()

        self._try(go)

    def describe(self, text: str | None = None, **facts: Any) -> None:
        """Show a text in front of the bar, or facts behind it."""

        def go() -> None:
            if text is not None:
                self._bar.set_description_str(text)
            if facts:
                self._bar.set_postfix(facts)

        self._try(go)

    def close(self) -> None:
        """Leave the bar as it is. May be called more than once."""
        self._try(lambda: self._bar.close())
        self._bar = None

    def _try(self, show: Callable[[], object]) -> None:
        try:
            show()
        except Exception as error:  # noqa: BLE001 - a bar must not cost a paid result
            if self._bar is not None:
                _logger.debug("the progress cannot be shown: %r", error)
            self._bar = None


def byte_bar(name: str, total: int | None = None) -> Bar:
    """Return a bar for the bytes of a download."""
    return Bar(desc=name, total=total, unit="B", unit_scale=True, unit_divisor=1024)


class RunBar:
    """The bar of a run: the state of its prediction, and the percentage in its logs."""

    def __init__(self, name: str, find: Callable[[], Job | None]) -> None:
        """Open the bar of a run.

        Args:
            name: The name of the model.
            find: Returns the prediction, or None before it is created.
        """
        self._name = name
        self._find = find
        self._bar = Bar(desc=f"{name} (sending)", total=100, bar_format=_RUN_FORMAT)

    async def during(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of some work, and show its progress meanwhile."""
        try:
            return await watched(work(), self._follow)
        finally:
            self._show()
            self._bar.close()

    async def _follow(self) -> NoReturn:
        while True:
            self._show()
            await anyio.sleep(_TICK)

    def _show(self) -> None:
        job = self._find()
        if job is None:
            self._bar.add(0)
            return
        progress = job.progress
        done = (
            100.0 if job.status == "succeeded" else 100.0 * progress.percentage if progress else 0.0
        )
        self._bar.describe(f"{self._name} ({job.status})")
        self._bar.restart(done)
