"""Signals that end a command: Ctrl-C, SIGTERM, and SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import anyio
import attrs
from anyio.abc import TaskStatus

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")


@attrs.define(eq=False)
class Interruption:
    """The signal that ends a command. It cancels the command, which then cleans up."""

    signal: int | None = None
    """Signal that was received last."""
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    """Scope of the command."""
    on_first_interrupt: Callable[[], None] | None = None
    """Called for the first Ctrl-C, which then does not cancel the command."""

    @property
    def exit_code(self) -> int:
        """Exit code of a command that was ended by the signal."""
        return 128 + (self.signal or 0)

    async def watch(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Wait for signals, until cancelled."""
        found = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        # Under `nohup`, and in shells without job control, some of them are ignored.
        watched = [each for each in found if signal.getsignal(each) is not signal.SIG_IGN]
        try:
            with anyio.open_signal_receiver(*watched) as received:
                task_status.started()
                async for number in received:
                    self._receive(number)
        except (NotImplementedError, RuntimeError, ValueError):
            # Neither Windows nor threads other than the main one have such a receiver. There, only Ctrl-C ends a
            # command, by a KeyboardInterrupt.
            task_status.started()

    def _receive(self, number: int) -> None:
        self.signal = number
        if number == signal.SIGINT and self.on_first_interrupt is not None:
            self.on_first_interrupt()
            self.on_first_interrupt = None
        else:
            self.scope.cancel()
