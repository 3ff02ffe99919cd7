"""The private event loop of the sync facade, its thread, and how other threads hand it work.

A thread posts a callback that starts a piece of work, and waits for its `Pending`. An interrupt of the wait, be
it Ctrl-C or what another signal handler raises, cancels the work and gives it time for its clean-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
import warnings
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import get_ident
from types import FrameType
from typing import Any, Final, NoReturn, ParamSpec, TypeAlias, TypeVar

from .. import exceptions

P = ParamSpec("P")
T = TypeVar("T")
Work: TypeAlias = Callable[[], Awaitable[Any]]

_PACKAGE: Final = str(Path(__file__).parent.parent) + os.sep

GRACE: Final = 6.0
"""Seconds that interrupted work has for its clean-up: a cancel at the other end takes 5 at most."""

_POLL: Final = 0.1 if sys.platform == "win32" else 0.5
"""Seconds after which a thread that waits for a lock looks for signals. On Windows, Ctrl-C does not
interrupt the acquisition of a lock; elsewhere it does, unless it comes just before the wait begins."""

_PARKING: Final = 1.0
"""Seconds for which a fork waits for the loop to be between two callbacks."""


class SyncInAsyncWarning(RuntimeWarning):
    """The sync facade has blocked a thread in which an event loop runs."""


# -- One piece of work -------------------------------------------------------------------------


class Pending:
    """How a piece of work went, handed over from the loop to the one thread that waits for it.

    For a single waiter a bare lock is enough, and much cheaper than a `concurrent.futures.Future`.
    """

    __slots__ = ("_lock", "done", "error", "task", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.done: bool = False
        self.task: asyncio.Task[None] | None = None
        self.value: Any = None
        self.error: BaseException | None = None

    def set(self) -> None:
        """Let the waiting thread go on; only on the loop."""
        self.task = None
        if not self.done:
            self.done = True
            self._lock.release()

    def cancel(self) -> None:
        """Cancel the work, or the wait if there is no work; only on the loop."""
        if self.task is None:
            self.set()
        else:
            self.task.cancel()

    def wait(self, timeout: float = -1.0) -> bool:
        """Block until `set`; whatever a signal handler raises comes out of here."""
        if self.done:
            return (
                True  # perhaps the lock has been acquired before, and an interrupt came just then
            )
        if timeout >= 0:
            return self._lock.acquire(timeout=timeout)
        while not self._lock.acquire(timeout=_POLL):
            pass
        return True


async def settle(pending: Pending, work: Work, running: set[Pending]) -> None:
    """Do some work and record how it went; nothing escapes into the loop, not even a `SystemExit`."""
    running.add(pending)
    try:
        pending.value = await work()
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        pending.error = error
    finally:
        running.discard(pending)
        pending.set()


class _Executor(ThreadPoolExecutor):
    """Threads for what would hold up the loop, also where Python allows no more of them.

    When the main thread has ended, the standard library refuses new work, while other threads and exit
    handlers may still be in the middle of calls. Then it is done on the loop.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn(*args, **kwargs)` done."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            if not str(error).startswith("cannot schedule new futures after"):
                raise
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - who waits for it raises it
            done.set_exception(error)
        return done


# -- The loop and its thread -------------------------------------------------------------------


class Portal:
    """The loop, its thread, and the way in for other threads."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run the finalizer of a `Stream`, which posts, in the
        # middle of a post.
        self._lock = threading.RLock()
        self._open = True
        self._here = True
        self._ident = 0
        self.running: set[Pending] = set()
        ready = threading.Event()
        thread = threading.Thread(
            # In a context of its own: the thread outlives the call that starts it, and must not see
            # the context variables of that caller.
            target=contextvars.Context().run,
            args=(self._serve, ready),
            name="replicate_async.sync",
            # As a non-daemon it would be waited for before the exit handlers run: for ever. One of
            # those joins it.
            daemon=True,
        )
        self._thread = thread
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Executor(thread_name_prefix="replicate_async.sync.worker"))
        try:
            thread.start()
        except RuntimeError as error:
            # In subinterpreters, in WebAssembly, and while the interpreter exits.
            self._loop.close()
            raise exceptions.LoopClosed(f"no thread can be started here ({error})") from error
        try:
            ready.wait()
        except BaseException:
            self.stop(join=False)
            raise

    def _serve(self, ready: threading.Event) -> None:
        loop = self._loop
        self._ident = get_ident()
        try:
            loop.call_soon(ready.set)
            loop.run_forever()
        finally:
            with self._lock:
                self._open = False
            ready.set()
            loop.run_until_complete(self._drain())
            loop.run_until_complete(loop.shutdown_asyncgens())
            executor: Any = getattr(loop, "_default_executor", None)
            if executor is not None:
                # `loop.shutdown_default_executor()` starts a thread, which Python 3.12 and later
                # forbid while the interpreter exits.
                executor.shutdown(wait=False)
            loop.close()

    async def _drain(self) -> None:
        me = asyncio.current_task()
        while tasks := [task for task in asyncio.all_tasks() if task is not me]:
            for task in tasks:
                task.cancel("the sync facade is shutting down")
            await asyncio.wait(tasks, timeout=GRACE)

    def stop(self, *, join: bool) -> None:
        """Cancel what still runs, and end the thread."""
        with self._lock:
            if self._open:
                self._open = False
                self._loop.call_soon_threadsafe(self._loop.stop)
        if join and not self.inside:
            self._thread.join(2 * GRACE)

    def abandon(self) -> None:
        """Give up the loop of the parent process, right after a fork."""
        self._lock = threading.RLock()
        self._open = self._here = False
        self._ident = 0
        self._left_behind = asyncio.all_tasks(self._loop)
        for task in self._left_behind:
            # At the end of the child they are destroyed, and asyncio would deplore it.
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    @property
    def open(self) -> bool:
        """Whether new work is accepted."""
        return self._open

    @property
    def inside(self) -> bool:
        """Whether the current thread is the loop's own."""
        return get_ident() == self._ident

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Run a callback soon on the loop, in a copy of the caller's context."""
        # The lock orders this against `stop`: what has been posted is drained.
        with self._lock:
            if not self._open:
                raise exceptions.LoopClosed(
                    "the sync facade has been shut down"
                    if self._here
                    else "it was opened before a fork; open it again in the child"
                )
            self._loop.call_soon_threadsafe(callback, *args)

    def begin(self, pending: Pending, work: Work, running: set[Pending]) -> None:
        """Start some work in a task of its own; only on the loop."""
        if sys.version_info >= (3, 12):
            # At once, and not in the next iteration of the loop, which is two system calls away.
            task = asyncio.Task(settle(pending, work, running), loop=self._loop, eager_start=True)
        else:
            task = self._loop.create_task(settle(pending, work, running))
        if not pending.done:
            pending.task = task

    def check(self) -> None:
        """Complain if blocking the current thread would be a mistake."""
        if get_ident() == self._ident:
            raise exceptions.WouldDeadlock
        if _get_running_loop() is not None:
            _warn_of_running_loop()

    def result(self, pending: Pending, start: Callable[..., object], *args: Any) -> Any:
        """Post `start(pending, *args)`, wait for it, and return or raise what it holds."""
        try:
            self.post(start, pending, *args)
            pending.wait()
        except exceptions.LoopClosed:
            raise
        except BaseException:
            # Ctrl-C, or what another signal handler raised. The work must not go on behind the
            # caller's back. A second one comes out of this wait, and so does not wait.
            with contextlib.suppress(exceptions.LoopClosed):
                self.post(pending.cancel)
                pending.wait(GRACE)
            raise
        if pending.error is not None:
            self._raise(pending)
        return pending.value

    def _raise(self, pending: Pending) -> NoReturn:
        error, pending.error = pending.error, None
        assert error is not None
        try:
            if isinstance(error, asyncio.CancelledError):
                raise (
                    exceptions.ClientClosed()
                    if self._open
                    else exceptions.LoopClosed("the sync facade was shut down meanwhile")
                ) from None
            raise error
        finally:
            # Its traceback holds this frame, which must not hold it in turn.
            del error

    def park(self) -> Callable[[], None]:
        """Hold the loop between two callbacks, where it holds no lock; return what lets it go on."""
        parked, go = threading.Event(), threading.Event()

        def wait() -> None:
            parked.set()
            go.wait(10 * _PARKING)

        if not self.inside:
            with contextlib.suppress(exceptions.LoopClosed):
                self.post(wait)
                parked.wait(_PARKING)
        return go.set


_warned = False


def _warn_of_running_loop() -> None:
    """Tell the user's line, once in a process, that it blocks a loop; notebooks are meant to."""
    global _warned
    if _warned or "ipykernel" in sys.modules:
        return
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(
        "The sync facade blocks the event loop that runs in this thread. Use the async client here:"
        " `import replicate_async as replicate`, and `await`.",
        SyncInAsyncWarning,
        stacklevel=level,
    )
    _warned = True
