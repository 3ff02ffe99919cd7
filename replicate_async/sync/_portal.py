"""The thread that runs the event loop of the sync facade, and the way into it.

A call posts a callback to the loop, which starts a task there, and waits in the calling thread for a `Pending`. If the
wait is interrupted, by Ctrl-C or by another signal handler that raises, the task is cancelled and gets time for its
clean-up before the exception is raised further. Calls in other threads notice when Ctrl-C is ending the main thread.

The runtime of the facade uses asyncio where the rest of the package uses anyio, because it manages the loop itself: its
tasks have no common parent, and are started and cancelled from other threads. anyio's `BlockingPortal` would let the
work go on when the wait for it is interrupted, and does not survive forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import attrs

from .. import exceptions
from .._threads import start_thread
from ._interrupts import own_waits, watch

P = ParamSpec("P")
T = TypeVar("T")
Work: TypeAlias = Callable[[], Awaitable[Any]]

_PACKAGE: Final = str(Path(__file__).parent.parent) + os.sep

GRACE: Final = 6.0
"""Seconds for the clean-up of interrupted work. Cancelling a prediction takes 5 at most."""

_POLL: Final = 0.1 if sys.platform == "win32" else 0.5
"""Seconds after which a waiting thread lets Python handle signals. On Windows, Ctrl-C does not interrupt the acquisition
of a lock. Elsewhere it does, except in the moment before the acquisition begins."""

_PARK_TIMEOUT: Final = 1.0
"""Seconds for which a fork waits until the loop is between two callbacks."""


class SyncInAsyncWarning(RuntimeWarning):
    """The sync facade has blocked a thread in which an event loop runs."""


# -- Pieces of work ----------------------------------------------------------------------------


def _acquired_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@attrs.define(eq=False)
class Pending:
    """Work on the loop whose outcome threads wait for.

    Threads wait for a bare lock, which is held until there is an outcome. A `threading.Event` would not do: it has an
    inner lock, which a signal handler that uses the facade would find held by the thread that it interrupts.
    """

    done: bool = False
    """Whether there is an outcome."""
    value: Any = None
    """The result, if the work succeeded."""
    error: BaseException | None = None
    """The exception, if it failed."""
    task: asyncio.Task[Any] | None = None
    """The task that does the work; None before its first step. Only used on the loop."""
    on_done: Callable[[], object] | None = None
    """Called on the loop when there is an outcome."""
    _unfinished: threading.Lock = attrs.field(init=False, factory=_acquired_lock)

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        """Set the outcome, unless there is one, and wake the threads that wait. Only called on the loop."""
        if not self.done:
            self.value, self.error, self.task = value, error, None
            self.done = True
            self._unfinished.release()
            if self.on_done is not None:
                self.on_done()

    def cancel(self) -> None:
        """Cancel the work; if it has not started, it never does. Only called on the loop."""
        if self.task is not None:
            self.task.cancel()
        else:
            self.give_up()

    def give_up(self) -> None:
        """Set a cancellation as the outcome, unless there is one. Only called on the loop."""
        self.finish(error=asyncio.CancelledError())

    def result(self) -> Any:
        """Return the result, or raise the exception. Call it only once."""
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    def wait(self, timeout: float = math.inf) -> bool:
        """Block until there is an outcome, or for *timeout* seconds; return whether there is one."""
        deadline = time.monotonic() + timeout
        while not self.done and (left := deadline - time.monotonic()) > 0:
            if self._unfinished.acquire(timeout=min(left, _POLL)):
                self._unfinished.release()  # for other threads that wait, too
        return self.done


own_waits.add(Pending.wait.__code__)


async def settle(pending: Pending, work: Work, running: set[Pending]) -> None:
    """Do some work, and set its outcome; not even a `SystemExit` gets into the loop.

    Does nothing if the work was cancelled before. While the work runs, it is in *running*.
    """
    if pending.done:
        return
    pending.task = asyncio.current_task()
    running.add(pending)
    try:
        value = await work()
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        # Without the frame of this function: it refers to `pending`, which refers to the error.
        pending.finish(
            error=error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        )
    else:
        pending.finish(value)
    finally:
        running.discard(pending)


class _Executor(ThreadPoolExecutor):
    """The threads for the loop's blocking work, which also accepts work while the interpreter exits.

    Once the main thread has ended, `concurrent.futures` refuses new work, but other threads and exit handlers may still
    be in the middle of calls. Their blocking work is then done in the thread of the loop.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)`."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            if not str(error).startswith("cannot schedule new futures after"):
                raise
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done


# -- The loop and its thread -------------------------------------------------------------------


class Portal:
    """A thread that runs an event loop, and the way into it for other threads."""

    def __init__(self) -> None:
        thread = threading.Thread(
            # In an empty context: the thread outlives the call that starts it, and must not use its context variables.
            target=contextvars.Context().run,
            args=(self._serve,),
            name="replicate_async.sync",
            # Python waits for other threads before it runs exit handlers, and an exit handler ends this thread.
            daemon=True,
        )
        self._prepare(thread)
        try:
            start_thread(self._thread)
        except RuntimeError as error:
            # This happens in subinterpreters, in WebAssembly, while the interpreter exits, and in Python 3.12.0 to
            # 3.12.2 once the main thread has ended.
            self._loop.close()
            hint = (
                ""
                if threading.main_thread().is_alive()
                else "; the main thread has ended: make a call before that, or let it wait for its threads"
            )
            raise exceptions.LoopClosed(f"no thread can be started here ({error}){hint}") from error
        except BaseException:
            self.stop(join=False)
            raise

    def _prepare(self, thread: threading.Thread) -> None:
        """Make the loop, which will run in a thread."""
        # Reentrant: during a post, the garbage collector may run the finalizer of a stream, which posts, too.
        self._lock = threading.RLock()
        self._open = True
        self._forked = False
        self._stopped = asyncio.Event()
        self._left_behind: set[asyncio.Task[Any]] = set()
        self._executor = _Executor(thread_name_prefix="replicate_async.sync.worker")
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(self._executor)
        self._thread = thread

    @property
    def open(self) -> bool:
        """Whether the loop accepts work."""
        return self._open

    @property
    def inside(self) -> bool:
        """Whether the current thread is the one that runs the loop."""
        return threading.get_ident() == self._thread.ident and not self._forked

    def _serve(self) -> None:
        loop = self._loop
        try:
            # anyio takes this for the root task, and keeps its worker threads until it ends.
            loop.run_until_complete(self._stopped.wait())
        finally:
            with self._lock:
                self._open = False
            loop.run_until_complete(self._cancel_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
            # `loop.shutdown_default_executor()` starts a thread, which Python 3.12 and later forbid
            # while the interpreter exits.
            self._executor.shutdown(wait=False)
            loop.close()

    async def _cancel_all(self) -> None:
        this = asyncio.current_task()
        while tasks := [task for task in asyncio.all_tasks() if task is not this]:
            for task in tasks:
                task.cancel("the sync facade is shutting down")
            await asyncio.wait(tasks, timeout=GRACE)

    def stop(self, *, join: bool) -> None:
        """Cancel the tasks and end the thread; with *join*, wait for that."""
        with self._lock:
            if self._open:
                self._open = False
                self._loop.call_soon_threadsafe(self._stopped.set)
        if join and not self.inside:
            self._thread.join(2 * GRACE)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call a function on the loop soon, in a copy of the caller's context.

        Raises:
            LoopClosed: The loop has been stopped, or belongs to the parent process.
        """
        # The lock orders posts and `stop`, so that everything that is posted before the stop is called.
        with self._lock:
            if not self._open:
                raise exceptions.LoopClosed(
                    "it was opened before a fork; open it again in the child"
                    if self._forked
                    else "the sync facade has been shut down"
                )
            self._loop.call_soon_threadsafe(callback, *args)

    def start(self, pending: Pending, work: Work, running: set[Pending]) -> None:
        """Start some work in a task of its own. Only called on the loop."""
        if not self._open:
            pending.give_up()
            return
        settling = None
        try:
            settling = settle(pending, work, running)
            self._loop.create_task(settling)
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            if settling is not None:
                settling.close()
            pending.finish(error=error)

    def run(self, pending: Pending, start: Callable[..., object], *args: Any) -> None:
        """Post `start(pending, *args)`, and wait until *pending* is done.

        Raises:
            LoopClosed: The loop has been stopped.
            WouldDeadlock: This is the thread of the loop.
        """
        self.check()
        try:
            self.post(start, pending, *args)
            watch.wait(pending)
        except exceptions.LoopClosed:
            raise
        except BaseException:
            # A signal handler has raised, as that of Ctrl-C does, here or in the main thread. The work must not go on
            # without a caller. A second exception ends the wait for its clean-up.
            with contextlib.suppress(exceptions.LoopClosed):
                self.post(pending.cancel)
                pending.wait(GRACE)
            raise

    def check(self) -> None:
        """Raise or warn if it is a mistake to block the current thread."""
        if self.inside:
            raise exceptions.WouldDeadlock
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        _warn_of_running_loop()

    # Forks

    def park(self) -> Callable[[], None]:
        """Stop the loop between two callbacks, and return a function that lets it go on.

        Returns after a second even if the loop is still in a callback.
        """
        parked, go = threading.Event(), threading.Event()

        def hold() -> None:
            parked.set()
            go.wait(10 * _PARK_TIMEOUT)

        if not self.inside:
            with contextlib.suppress(exceptions.LoopClosed):
                self.post(hold)
                parked.wait(_PARK_TIMEOUT)
        return go.set

    def abandon(self) -> None:
        """Give up the loop of the parent process. Called in the child right after a fork."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._open = False
        self._forked = True
        self._left_behind = asyncio.all_tasks(self._loop)
        for task in self._left_behind:
            # Otherwise asyncio would log each of them when the child exits.
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001  (no public switch)


class ExitPortal(Portal):
    """A loop in the calling thread, for one call.

    It serves exit handlers that run after that of the facade, when Python may no longer start threads.
    """

    def __init__(self) -> None:
        self._prepare(threading.current_thread())

    @property
    def inside(self) -> bool:
        """Whether the loop is running, and so has called this."""
        return self._loop.is_running()

    def run(self, pending: Pending, start: Callable[..., object], *args: Any) -> None:
        """Call `start(pending, *args)`, run the loop until *pending* is done, and close it."""
        self.check()
        pending.on_done = self._stopped.set
        self.post(start, pending, *args)
        self._serve()


_warned = False


def _in_notebook() -> bool:
    """Return whether this is a Jupyter kernel, whose loop may be blocked: it runs cells in it."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _warn_of_running_loop() -> None:
    """Warn once per process, at the user's line, that a call blocks a loop; but not in notebooks."""
    global _warned
    if _warned or _in_notebook():
        return
    level = 1
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  (as `warnings` does)
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
