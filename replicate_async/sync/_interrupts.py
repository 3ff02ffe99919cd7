"""How calls in other threads notice that Ctrl-C is ending the main thread.

This is imported with `replicate_async.sync`, before all that its first use imports: a call that Ctrl-C meets in
the middle of these imports has begun before it.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ._portal import Pending

_WATCH: Final = 1.0
"""Seconds after which a call in another thread looks whether Ctrl-C is ending the main thread."""

own_waits: Final[set[CodeType]] = set()
"""Functions in which the main thread waits for the clean-up of its own call."""


def _keyboard_interrupt() -> int | None:
    """Return the identity of the `KeyboardInterrupt` that is ending the main thread, or has ended it.

    Python calls signal handlers in the main thread only. There, the exception of Ctrl-C may have to wait until
    other threads end, as in `ThreadPoolExecutor.__exit__`. An own signal handler could tell these threads, but
    nobody can install one from them, and it would disable the handlers of asyncio and of notebooks.
    """
    main = threading.main_thread().ident
    assert main is not None
    error: Any = sys._current_exceptions().get(main)  # noqa: SLF001  (a documented function)
    if isinstance(error, tuple):
        error = error[1]  # before Python 3.12
    if error is None and not hasattr(sys, "ps1"):
        error = getattr(sys, "last_value", None)  # in sessions, it does not end the main thread
    if not isinstance(error, KeyboardInterrupt):
        return None
    frame = sys._current_frames().get(main)  # noqa: SLF001  (a documented function)
    if frame is not None and frame.f_code in own_waits:
        return None  # the main thread waits for the clean-up of its own call
    return id(error)


class Watch(threading.local):
    """How a thread waits for its calls, which Ctrl-C ends in all threads.

    A `KeyboardInterrupt` that the main thread was handling when the thread began its first call is ignored: the
    thread is part of that handling. So is one that the main thread has dealt with by the second look.
    """

    def __init__(self) -> None:
        self._first = _keyboard_interrupt()
        self._previous: int | None = None
        self._next_look = time.monotonic() + _WATCH
        self._raised: int | None = None

    def begin(self) -> None:
        """Note that the thread has begun its first call, unless that is known: it may have to import much for it."""
        # The first access in a thread calls `__init__`.

    def check(self) -> None:
        """Refuse further calls of a thread that has been interrupted, until the main thread goes on.

        Otherwise a worker of a thread pool would start what is queued. Clean-up is not refused, that is, calls
        while the thread handles an exception.

        Raises:
            KeyboardInterrupt: The thread has been interrupted.
        """
        if (
            self._raised is not None
            and self._raised == _keyboard_interrupt()
            and sys.exc_info()[1] is None
        ):
            raise KeyboardInterrupt

    def wait(self, pending: Pending) -> None:
        """Block until there is an outcome.

        Raises:
            KeyboardInterrupt: Ctrl-C is ending the main thread.
        """
        if threading.current_thread() is threading.main_thread():
            pending.wait()  # the handler of the signal interrupts it
            return
        while not pending.wait(self._next_look - time.monotonic()):
            self._look()

    def look(self) -> None:
        """Look whether Ctrl-C is ending the main thread, between two items of a stream: each comes without a wait.

        Raises:
            KeyboardInterrupt: It is.
        """
        if time.monotonic() < self._next_look:
            return
        if threading.current_thread() is threading.main_thread():
            self._next_look = math.inf
        else:
            self._look()

    def _look(self) -> None:
        current = _keyboard_interrupt()
        if (
            current is not None
            and current == self._previous
            and current not in (self._first, self._raised)
        ):
            self._raised = current
            raise KeyboardInterrupt
        self._previous = current
        self._next_look = time.monotonic() + _WATCH


watch: Final = Watch()
