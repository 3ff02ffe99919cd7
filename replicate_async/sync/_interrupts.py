"""Lets calls in other threads notice that Ctrl-C is ending the main thread.

This is imported together with `replicate_async.sync`, and not at its first use: a call that is still importing the rest
when Ctrl-C comes has begun before it.
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

_CHECK_INTERVAL: Final = 1.0
"""Seconds after which a call in another thread checks whether Ctrl-C is ending the main thread."""

own_waits: Final[set[CodeType]] = set()
"""Functions in which the main thread waits for the clean-up of its own call."""


def _keyboard_interrupt() -> int | None:
    """Return the ID of the `KeyboardInterrupt` that is ending the main thread, or has ended it; None if there is none.

    Python calls signal handlers in the main thread only. There, the exception of Ctrl-C may have to wait until other
    threads end, as in `ThreadPoolExecutor.__exit__`. A signal handler of this package could interrupt these threads,
    but it could not be installed from them, and it would disable the handlers of asyncio and of notebooks.
    """
    main = threading.main_thread().ident
    assert main is not None
    error: Any = sys._current_exceptions().get(main)  # noqa: SLF001  (a documented function)
    if isinstance(error, tuple):
        error = error[1]  # before Python 3.12
    if error is None and not hasattr(sys, "ps1"):
        error = getattr(sys, "last_value", None)  # in interactive sessions, the main thread goes on
    if not isinstance(error, KeyboardInterrupt):
        return None
    frame = sys._current_frames().get(main)  # noqa: SLF001  (a documented function)
    if frame is not None and frame.f_code in own_waits:
        return None  # the main thread waits for the clean-up of its own call
    return id(error)


class Watch(threading.local):
    """How the current thread waits for its calls, which Ctrl-C ends in all threads.

    A `KeyboardInterrupt` that the main thread was handling when this thread began its first call is ignored: the thread
    is part of that handling. Others are raised only if two checks in a row have found them, since the main thread may
    handle them at once.
    """

    def __init__(self) -> None:
        self._first = _keyboard_interrupt()
        self._previous: int | None = None
        """The interrupt that the last check has found."""
        self._next_check = time.monotonic() + _CHECK_INTERVAL
        self._raised: int | None = None
        """The interrupt that was raised in this thread."""

    def begin(self) -> None:
        """Note that the thread has begun its first call, before that imports what it needs."""
        # Nothing to do: the first access in a thread calls `__init__`.

    def refuse_if_interrupted(self) -> None:
        """Refuse a call in a thread that was interrupted, until the main thread goes on.

        Otherwise a worker of a thread pool would start what is queued. Calls while the thread handles an exception are
        not refused, since they may be its clean-up.

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
        while not pending.wait(self._next_check - time.monotonic()):
            self._check()

    def check_between_items(self) -> None:
        """Check whether Ctrl-C is ending the main thread, for a stream whose next item is there without a wait.

        Raises:
            KeyboardInterrupt: Ctrl-C is ending the main thread.
        """
        if time.monotonic() < self._next_check:
            return
        if threading.current_thread() is threading.main_thread():
            self._next_check = math.inf  # the handler of the signal interrupts it
        else:
            self._check()

    def _check(self) -> None:
        current = _keyboard_interrupt()
        if (
            current is not None
            and current == self._previous
            and current not in (self._first, self._raised)
        ):
            self._raised = current
            raise KeyboardInterrupt
        self._previous = current
        self._next_check = time.monotonic() + _CHECK_INTERVAL


watch: Final = Watch()
