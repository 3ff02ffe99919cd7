"""The private event loop of the sync facade, and who runs it.

A piece of work is a callback that starts a task on the loop, and a `Pending` on which a thread waits for its end.
The loop runs in one of two places:

- In a thread of its own, the keeper. Other threads post their work there and wait for a lock. An interrupt of the
  wait, be it Ctrl-C or what another signal handler raises, cancels the work and gives it time for its clean-up.
- In the main thread, while that waits for some work of its own, and if no other thread is at it: a `_Drive`. That
  saves two changes of threads, a third of the CPU time of a short request. Then nothing may be raised in the
  midst of the loop: Ctrl-C is held back meanwhile and handled on the loop, as `asyncio.run` does it; and with
  any other Python function as the handler of a signal, the main thread posts like all others.

Whoever runs the loop holds `Portal.driving`. The keeper lets go of it for the main thread, and takes it back when
another thread posts, or a moment after the main thread has run it last: the loop has connections to watch, and
other tasks to go on with. Until then nobody runs it. So whoever takes over finds out first which connections were closed
meanwhile, and only then starts work (`_Selector.unsettled`): a create that is sent on such a one would be in doubt.
"""

from __future__ import annotations

# `signal` without its conversions to enumerations: 0.2 us instead of 3. Typeshed does not know it.
import _signal  # type: ignore[import-not-found]
import asyncio
import contextlib
import contextvars
import functools
import math
import os
import selectors
import signal
import sys
import threading
import time
import warnings
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from signal import SIGINT, default_int_handler
from threading import get_ident, main_thread
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
"""Seconds after which a thread that waits looks for signals. On Windows, Ctrl-C does not interrupt the
acquisition of a lock; elsewhere it interrupts any wait, unless it comes just before that begins."""

_PARKING: Final = 1.0
"""Seconds for which a fork waits for the loop to be between two callbacks."""

_REST: Final = 0.05
_LONG_REST: Final = 0.2
"""Seconds for which the keeper leaves a loop alone that the main thread has run; while it finds it running it, the
pause doubles up to the second. When another thread needs the loop, the keeper is woken."""

_HANDOVER: Final = 0.01
"""Seconds for which the main thread waits for the keeper to leave the loop to it."""

_ROOM: Final = 300
"""Frames that the loop, its callbacks and coroutines may need, on top of those of the main thread."""


class SyncInAsyncWarning(RuntimeWarning):
    """The sync facade has blocked a thread in which an event loop runs."""


# -- One piece of work -------------------------------------------------------------------------


class Pending:
    """How a piece of work went, handed over from the loop to the thread that waits for it.

    For one waiter a bare lock is enough, and much cheaper than a `concurrent.futures.Future`; a second one, as
    of another `close()`, looks twice a second. It is made when somebody waits: the main thread, which runs
    the loop itself, needs none.
    """

    _lock: threading.Lock | None = None
    done = False
    task: asyncio.Task[None] | None = None
    value: Any = None
    error: BaseException | None = None
    then: Callable[[], object] | None = None
    """What to call on the loop at the end."""
    posted = False
    """Whether it is in the hands of the loop."""
    closed = False
    """Whether it was cancelled because its client is closed."""
    lane: Pending | None = None
    """That of the lane that does the work, if one does."""

    def set(self) -> None:
        """Let the waiting thread go on; only on the loop."""
        self.task = None
        if not self.done:
            self.done = True  # before the lock is looked for: `wait` does it the other way round
            if self._lock is not None:
                self._lock.release()
            if self.then is not None:
                self.then()

    def cancel(self) -> None:
        """Cancel the work, or the wait if there is no work; only on the loop."""
        if self.task is None:
            self.set()
        else:
            self.task.cancel()

    def give_up(self) -> None:
        """Let the waiting thread raise, unless it can go on; only on the loop."""
        if not self.done:
            self.error = asyncio.CancelledError()
            self.set()

    def wait(self, timeout: float = math.inf) -> bool:
        """Block until `set`, or for so many seconds; whatever a signal handler raises comes out of here."""
        if self._lock is None:
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
        # `done` counts, and not the lock: perhaps it was set before there was a lock, or this one was
        # acquired, and an interrupt came just then, or by another thread that waits, too.
        if timeout == math.inf:
            while not self.done:
                self._lock.acquire(timeout=_POLL)
        else:
            end = time.monotonic() + timeout
            while not self.done and (left := end - time.monotonic()) > 0:
                self._lock.acquire(timeout=min(left, _POLL))
        return self.done


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
    """The loop, its threads, and the way in for them."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run the finalizer of a `Stream`, which posts, in the
        # middle of a post.
        self._lock = threading.RLock()
        self.open = True
        """Whether new work is accepted."""
        self._here = True
        self._ident = 0
        self.main = main_thread().ident
        """The thread that may run it, beside the keeper; None if none may."""
        self._attended: set[Pending] = set()
        """What must not wait until the main thread runs the loop again: threads wait for it that do not run
        the loop, or nobody does."""
        self.driving = threading.Lock()
        """Held by the thread that runs the loop."""
        self.runner: int | None = None
        """The main thread, while it has the loop, or tries to get it."""
        self._postponed: deque[tuple[contextvars.Context, Callable[..., object], tuple[Any, ...]]]
        self._postponed = deque()
        """What has been posted, and waits until it is known which connections are closed."""
        self._serving = False
        """Whether the keeper runs the loop, or is about to; set under the lock."""
        self._wanted = threading.Lock()
        """Released to have the keeper run the loop."""
        self._wanted.acquire()
        self.drive: _Drive | None = None
        """What the main thread runs it for, or is about to; set as long as it holds Ctrl-C back."""
        self.drives = 0
        """How often the main thread has run it."""
        thread = threading.Thread(
            # In a context of its own: the thread outlives the call that starts it, and must not see
            # the context variables of that caller.
            target=contextvars.Context().run,
            args=(self._serve,),
            name="replicate_async.sync",
            # As a non-daemon it would be waited for before the exit handlers run: for ever. One of
            # those joins it.
            daemon=True,
        )
        self._thread = thread
        self.loop, self._selector = _new_loop()
        self.loop.set_default_executor(_Executor(thread_name_prefix="replicate_async.sync.worker"))
        try:
            thread.start()
        except RuntimeError as error:
            # In subinterpreters, in WebAssembly, and while the interpreter exits.
            self.loop.close()
            raise exceptions.LoopClosed(f"no thread can be started here ({error})") from error
        except BaseException:
            self.stop(join=False)
            raise

    def _serve(self) -> None:
        self._ident = get_ident()
        loop = self.loop
        try:
            while self._is_wanted():
                with self.driving:
                    # Perhaps it took long to get here, and what should stop this has gone by.
                    if self.open:
                        if self._selector is not None:
                            self._selector.unsettled = None
                        loop.run_forever()
        finally:
            with self._lock:
                self.open = False
            with self.driving:
                # One iteration for what was posted, begun or not: all of it is drained then. It may stop
                # the loop, too, and `run_until_complete` would not go on after that.
                loop.call_soon(loop.stop)
                loop.run_forever()
                loop.run_until_complete(self._drain())
                loop.run_until_complete(loop.shutdown_asyncgens())
                executor: Any = getattr(loop, "_default_executor", None)
                if executor is not None:
                    # `loop.shutdown_default_executor()` starts a thread, which Python 3.12 and later
                    # forbid while the interpreter exits.
                    executor.shutdown(wait=False)
                loop.close()

    def _is_wanted(self) -> bool:
        """Wait until the keeper has to run the loop; False if that is over."""
        with self._lock:
            self._serving = bool(self._attended)
        rest = _REST
        while self.open and not self._serving:
            drives = self.drives
            wanted = self._wanted.acquire(timeout=rest)
            driven = self.driving.locked()
            rest = min(2 * rest, _LONG_REST) if driven else _REST
            with self._lock:
                self._serving = wanted or not (driven or drives != self.drives)
        return self.open

    def take(self) -> bool:
        """Take the loop for the main thread, if the keeper has nothing to do that must go on; then True."""
        if self.driving.acquire(blocking=False):
            return True
        if self._attended or not self.open:
            return False
        self._post_now(self.loop.stop)
        return self.driving.acquire(timeout=_HANDOVER)

    def want(self) -> None:
        """Have the keeper run the loop."""
        with self._lock:
            if not self._serving and self._wanted.locked():
                # The garbage collector may run a finalizer that comes here, too, just now.
                with contextlib.suppress(RuntimeError):
                    self._wanted.release()

    def attend(self, pending: Pending) -> None:
        """Have the loop run until some work is done, though no thread waits for it."""
        pending.then = functools.partial(self._attended.discard, pending)
        self._attended.add(pending)
        if pending.done:
            self._attended.discard(pending)
        else:
            self.want()

    async def _drain(self) -> None:
        me = asyncio.current_task()
        while tasks := [task for task in asyncio.all_tasks() if task is not me]:
            for task in tasks:
                task.cancel("the sync facade is shutting down")
            await asyncio.wait(tasks, timeout=GRACE)

    def stop(self, *, join: bool) -> None:
        """Cancel what still runs, and end the thread."""
        with self._lock:
            if self.open:
                self.open = False
                self.loop.call_soon_threadsafe(self.loop.stop)
                self.want()
        if join and not self.inside:
            self._thread.join(2 * GRACE)

    def abandon(self) -> None:
        """Give up the loop of the parent process, right after a fork."""
        self._lock = threading.RLock()
        self.open = self._here = False
        self._ident = 0
        if self.drive is not None:
            self.drive.let_go()
        self._left_behind = asyncio.all_tasks(self.loop)
        for task in self._left_behind:
            # At the end of the child they are destroyed, and asyncio would deplore it; it has no other switch.
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    @property
    def inside(self) -> bool:
        """Whether the current thread is the one that runs the loop."""
        return _get_running_loop() is self.loop or get_ident() in (self._ident, self.runner)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Run a callback soon on the loop, in a copy of the caller's context; in the order of the posts."""
        self._post_now(self._settled, callback, *args)

    def _post_now(self, callback: Callable[..., object], *args: Any) -> None:
        # The lock orders this against `stop`: what has been posted is drained.
        with self._lock:
            if not self.open:
                raise exceptions.LoopClosed(
                    "the sync facade has been shut down"
                    if self._here
                    else "it was opened before a fork; open it again in the child"
                )
            self.loop.call_soon_threadsafe(callback, *args)
            if not self._serving:
                self.want()

    def _settled(self, callback: Callable[..., object], *args: Any) -> None:
        """Run a callback once it is known which connections are closed; only on the loop."""
        if self._postponed or self._is_unsettled():
            if not self._postponed:
                self.loop.call_soon(self._flush)
            self._postponed.append((contextvars.copy_context(), callback, args))
        else:
            callback(*args)

    def _flush(self) -> None:
        """Run what was held back, in its order."""
        if self._is_unsettled():
            self.loop.call_soon(self._flush)
            return
        try:
            while self._postponed:
                context, callback, args = self._postponed.popleft()
                context.run(callback, *args)
        finally:
            if self._postponed:
                self.loop.call_soon(self._flush)

    def _is_unsettled(self) -> bool:
        return self._selector is not None and bool(self._selector.unsettled) and self.open

    def begin(self, pending: Pending, work: Work, running: set[Pending]) -> None:
        """Start some work in a task of its own, unless it has been given up; only on the loop."""
        if pending.done:
            return
        if sys.version_info >= (3, 12):
            # At once, and not in the next iteration of the loop, which is two system calls away.
            task = asyncio.Task(settle(pending, work, running), loop=self.loop, eager_start=True)
        else:
            task = self.loop.create_task(settle(pending, work, running))
            # Cancelled before its first step, a task never takes it.
            task.add_done_callback(lambda _: pending.give_up())
        if not pending.done:
            pending.task = task

    def check(self) -> None:
        """Complain if blocking the current thread would be a mistake."""
        if self.inside:
            raise exceptions.WouldDeadlock
        if _get_running_loop() is not None:
            _warn_of_running_loop()

    def result(self, pending: Pending, start: Callable[..., object], *args: Any) -> Any:
        """Have `start(pending, *args)` run, wait for the end, and return or raise what came of it."""
        ident = get_ident()
        drive = None
        if _get_running_loop() is not None or ident == self._ident or ident == self.runner:
            self.check()
        elif ident == self.main and self._selector is not None and _may_drive():
            drive = _Drive(self, self._selector, pending)
        try:
            if drive is None or not drive.run(start, args):
                self.follow(pending, start, pending, *args)
        except exceptions.LoopClosed:
            if drive is not None and drive.interrupts:
                raise KeyboardInterrupt from None
            raise
        except BaseException:
            # Ctrl-C, or what another signal handler raised. The work must not go on behind the
            # caller's back. A second one comes out of this wait, and so does not wait.
            try:
                with contextlib.suppress(exceptions.LoopClosed):
                    if drive is None or drive.interrupts < 2:
                        self.follow(pending, pending.cancel, timeout=GRACE)
                    else:
                        self.post(pending.cancel)
            finally:
                if pending.posted:
                    self.attend(pending)
            raise
        if drive is not None and drive.interrupts:
            raise KeyboardInterrupt
        if pending.error is not None:
            self._raise(pending)
        return pending.value

    def follow(
        self,
        pending: Pending,
        callback: Callable[..., object],
        *args: Any,
        timeout: float = math.inf,
    ) -> None:
        """Post a callback, and wait for the end of some work while another thread runs the loop."""
        try:
            self._attended.add(pending)
            self.post(callback, *args)
            pending.posted = True
            pending.wait(timeout)
        finally:
            self._attended.discard(pending)

    def _raise(self, pending: Pending) -> NoReturn:
        error, pending.error = pending.error, None
        assert error is not None
        try:
            if isinstance(error, asyncio.CancelledError):
                # With its last client the loop is shut down, perhaps by now.
                closed = pending.closed or (pending.lane is not None and pending.lane.closed)
                raise (
                    exceptions.ClientClosed()
                    if closed or self.open
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
                self._post_now(wait)
                parked.wait(_PARKING)
        return go.set


class _Drive:
    """The main thread runs the loop until some work is done; Ctrl-C is held back meanwhile."""

    _held = False
    """Whether the handler of Ctrl-C is ours."""
    _running = False
    """Whether the main thread has the loop."""
    _started = False
    """Whether the work has begun."""
    _left = False
    """Whether the loop is left before the end of the work."""
    _limit: asyncio.TimerHandle | None = None
    """Ends the time that interrupted work has."""
    interrupts = 0
    """How often Ctrl-C was pressed."""

    def __init__(self, portal: Portal, selector: _Selector, pending: Pending) -> None:
        self._portal = portal
        self._selector = selector
        self._pending = pending

    def run(self, start: Callable[..., object], args: tuple[Any, ...]) -> bool:
        """Run `start(pending, *args)` and the loop; False if the loop cannot be had, or is closed.

        The loop is left before the end at the second Ctrl-C, when the time for the clean-up after the
        first is over, and when it is shut down.
        """
        portal, pending, loop = self._portal, self._pending, self._portal.loop
        driven = False
        try:
            # For the child of a fork in another thread, which must let go, too.
            portal.drive = self
            if _signal.getsignal(SIGINT) is default_int_handler:
                self._held = True
                try:
                    _signal.signal(SIGINT, self._interrupt)
                except ValueError:  # Python has another thread for the main one
                    self._held = False
                    portal.main = None
                    return False
            # From here on no Ctrl-C raises between two lines; the third does, if the loop hangs.
            portal.runner = portal.main
            if portal.driving.acquire(blocking=False) or portal.take():
                try:
                    if portal.open:
                        driven = self._running = self._selector.driven = True
                        self._selector.unsettled = None
                        pending.then = loop.stop
                        pending.posted = True
                        loop.call_soon(self._start, start, args)
                        while not (pending.done or self._left) and portal.open:
                            loop.run_forever()
                finally:
                    self._running = self._selector.driven = False
                    pending.then = None
                    if self._limit is not None:
                        self._limit.cancel()
                    portal.drives += 1
                    portal.runner = None
                    portal.driving.release()
                if self.interrupts:
                    # Its traceback holds the task, which shall be freed where nothing raises.
                    pending.error = None
        finally:
            try:
                portal.runner = None
                self.let_go()
            finally:
                portal.drive = None
        if self.interrupts and not self._started:
            raise KeyboardInterrupt
        if driven and not pending.done:
            if self._left:
                portal.attend(pending)
            else:
                portal.want()
                pending.wait()  # it is being shut down, and gives up all work
        return driven

    def _start(self, start: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.interrupts:
            self._pending.set()
        elif not self._portal.open:
            self._pending.give_up()
        elif self._selector.unsettled:
            self._portal.loop.call_soon(self._start, start, args)
        else:
            self._started = True
            start(self._pending, *args)

    def let_go(self) -> None:
        """Let Ctrl-C raise again."""
        if self._held:
            _signal.signal(SIGINT, default_int_handler)
            self._held = False

    def _interrupt(self, *_: object) -> None:
        """Handle Ctrl-C: between any two lines of the main thread, perhaps those of the loop."""
        self.interrupts += 1
        if not self._running or self._left or self._pending.done:
            return  # it is told of at the end
        if self.interrupts > 2:
            raise KeyboardInterrupt
        self._portal.loop.call_soon_threadsafe(
            self._cancel if self.interrupts == 1 else self._leave
        )

    def _cancel(self) -> None:
        if self._started:
            self._limit = self._portal.loop.call_later(GRACE, self._leave)
            self._pending.cancel()

    def _leave(self) -> None:
        if self._running:
            self._left = True
            self._portal.loop.stop()


class _Selector(selectors.DefaultSelector):
    """The usual selector, for a loop that the main thread may run."""

    driven = False
    """Whether the main thread runs the loop: then it looks for signals now and then."""
    unsettled: int | None = 0
    """Iterations until all is known of the connections that have been closed while nobody ran the loop: one reads the
    end, TLS closes in the next, and one to spare. None before the first look; then none if there was no news."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.driven and (timeout is None or timeout > _POLL):
            timeout = _POLL
        events = super().select(timeout)
        if self.unsettled is None:
            self.unsettled = 3 if events else 0
        elif self.unsettled:
            self.unsettled -= 1
        return events


def _new_loop() -> tuple[asyncio.AbstractEventLoop, _Selector | None]:
    """Return a loop, and its selector if threads may take turns at running it."""
    if sys.platform == "win32":
        return asyncio.new_event_loop(), None
    selector = _Selector()
    return asyncio.SelectorEventLoop(selector), selector


_LOOKED_AT: Final = tuple(
    sorted(
        int(number)
        for number in signal.Signals
        if number.name not in ("SIGKILL", "SIGSTOP") and not number.name.startswith("SIGRT")
    )
)
_harmless: list[object] = []
"""Handlers of these signals that have been found not to raise, but that of Ctrl-C."""


def _may_drive() -> bool:
    """Whether nothing can raise in the main thread while it runs the loop, and there is room on its stack.

    So no signal may have a Python function as its handler, but Ctrl-C that of Python itself, which can be
    held back. (Real-time signals, which nobody lets raise, are not looked at: that would take as long again.)
    """
    global _harmless
    handlers = list(map(_signal.getsignal, _LOOKED_AT))
    if handlers != _harmless:
        for number, handler in zip(_LOOKED_AT, handlers, strict=True):
            if callable(handler) and not (number == SIGINT and handler is default_int_handler):
                return False
        _harmless = handlers
    return not _frame_at(sys.getrecursionlimit() - _ROOM)


if sys.version_info >= (3, 12):
    _frame_at = sys._getframemodulename
else:

    def _frame_at(depth: int) -> object:
        """Return something if there are so many frames on the stack, else None."""
        try:
            return sys._getframe(depth)
        except ValueError:
            return None


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
