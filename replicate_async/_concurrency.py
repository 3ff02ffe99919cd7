"""Work in threads, several things at once, and clean-up that is shielded from cancellation."""

from __future__ import annotations

import asyncio

# asyncio imports it for its first thread: by then, there may be no free descriptor to import with.
import concurrent.futures.thread  # noqa: F401  (see above)
import errno
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

import anyio
import anyio.to_thread

if sys.platform != "win32":
    import resource

S = TypeVar("S")
T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Return the result of *function*, called in a worker thread; without a free one, in the thread of the event loop.

    If the task is cancelled, the thread is abandoned: *function* runs to its end, and its result is lost.
    """
    # A read from a pipe may never return, and must not hold up a cancellation.
    once = _Once(function, arguments)
    try:
        return await anyio.to_thread.run_sync(once, abandon_on_cancel=True)
    except RuntimeError as error:
        return once.instead(error)


async def in_own_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Do what `in_thread` does, for what may take any time: without a free thread, it fails.

    Raises:
        OSError: The system has no thread left.
    """
    once = _Once(function, arguments)
    try:
        return await anyio.to_thread.run_sync(once, abandon_on_cancel=True)
    except RuntimeError as error:
        if not once.is_refused(error):
            raise
        raise OSError(errno.EAGAIN, str(error)) from error


async def awaited_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Do what `in_thread` does, but wait for the end of *function* before a cancellation is raised."""
    once = _Once(function, arguments)
    try:
        return await anyio.to_thread.run_sync(once)
    except RuntimeError as error:
        return once.instead(error)


async def shielded_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Return the result of *function*, called in a worker thread; wait for its end even if cancelled.

    A cancellation that arrives meanwhile is raised afterwards, and the result is lost. *function* must be quick:
    without a free thread, it is called in that of the event loop.
    """
    # A future of asyncio's own executor: it is no task, so that the end of `asyncio.run`, which cancels all
    # tasks, does not cancel it.
    once = _Once(function, arguments)
    try:
        work = asyncio.get_running_loop().run_in_executor(None, once)
    except RuntimeError as error:
        return once.instead(error)
    interrupted: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not work.done():
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted
    return work.result()


async def unless(work: Awaitable[T], watch: Callable[[], Awaitable[object]]) -> list[T]:
    """Await some work, and cancel it as soon as *watch* returns or fails.

    Returns:
        The result of the work in a list, which is empty if *watch* has returned before.

    Raises:
        Exception: The work or *watch* raised it.
    """
    result: list[T] = []
    failure: Exception | None = None

    async def watching() -> None:
        nonlocal failure
        try:
            await watch()
        except Exception as error:  # noqa: BLE001  (raised below, outside of the group)
            failure = error
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watching)
        try:
            result.append(await work)
        except Exception as error:  # noqa: BLE001  (raised below, outside of the group)
            failure = error
        tasks.cancel_scope.cancel()
    if not result and failure is not None:
        raise failure
    return result


class _Once(Generic[T]):
    """A call that is made once: an executor may have queued it although it could not start a thread for it."""

    def __init__(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._claim = threading.Lock()

    def __call__(self) -> T:
        if not self._claim.acquire(blocking=False):
            raise RuntimeError("the call was made elsewhere")
        return self._function(*self._arguments)

    def is_refused(self, error: RuntimeError) -> bool:
        """Tell whether the call was not made, and will not be, since the system has no thread left."""
        return "new thread" in str(error) and self._claim.acquire(blocking=False)

    def instead(self, error: RuntimeError) -> T:
        """Make the call here if there was no thread for it, or raise the error."""
        if not self.is_refused(error):
            raise error
        return self._function(*self._arguments)


def share_of_descriptors() -> int:
    """Return a quarter of the descriptors that the process may have.

    That is for connections of creates, for other connections, and for files that are written, each.
    """
    if sys.platform == "win32":
        return sys.maxsize
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if descriptors == resource.RLIM_INFINITY else max(descriptors // 4, 1)


def has_stack(frames: int) -> bool:
    """Return whether so many nested calls are possible before Python's recursion limit."""
    try:
        _descend(frames)
    except RecursionError:
        return False
    return True


def _descend(frames: int) -> None:
    if frames > 1:
        _descend(frames - 1)


class ThreadSafeLock:
    """A lock for tasks of several event loops, in the order of arrival. Not reentrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_held = False
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, anyio.Event]] = deque()

    async def acquire(self) -> None:
        """Wait for the turn of this task."""
        with self._guard:
            if not self._is_held:
                self._is_held = True
                return
            turn = asyncio.get_running_loop(), anyio.Event()
            self._waiting.append(turn)
        try:
            await turn[1].wait()
        except BaseException:
            with self._guard:
                is_next = turn not in self._waiting
                if not is_next:
                    self._waiting.remove(turn)
            if is_next:  # it was this task's turn already
                self.release()
            raise

    def release(self) -> None:
        """Let the next task have its turn. May be called from any thread."""
        with self._guard:
            while self._waiting:
                loop, event = self._waiting.popleft()
                try:
                    loop.call_soon_threadsafe(event.set)
                except RuntimeError:  # its event loop is closed
                    continue
                return
            self._is_held = False

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()


_TRIES = 3


async def shielded(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Call and await *work* to its end, however often the task is cancelled meanwhile.

    It must bound itself. If it is cancelled itself, it is called again, so it must be repeatable.
    """
    # In a task of its own: anyio's shield holds off cancellations by anyio's scopes, but not
    # `Task.cancel()`, as it is called at the end of `asyncio.run`.
    with anyio.CancelScope(shield=True):
        for attempt in range(1, _TRIES + 1):
            task = asyncio.create_task(work())
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            # The end of `asyncio.run` cancels every task once, this one, too.
            if not task.cancelled() or attempt == _TRIES:
                task.result()
                return


class StepIterator(AsyncIterator[T]):
    """An async iterator that continues where it was after a step that was cancelled or failed.

    An async generator would have ended, as if there were nothing more. Tasks that share the iterator get each
    item once.
    """

    _resumes: bool = True
    """Whether a step may follow one that was cancelled. The sync facade asks."""

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[T]]]) -> None:
        """Make an iterator.

        Args:
            fetch: Returns the next items, or raises `StopAsyncIteration`. Nothing is lost when it is cancelled.
        """
        self._fetch = fetch
        self._ready: Iterator[T] = iter(())
        self._is_closed = False
        self._lock = anyio.Lock()

    async def __anext__(self) -> T:
        for item in self._ready:
            return item
        async with self._lock:
            while True:
                for item in self._ready:
                    return item
                self._ready = iter(await self._batch())

    async def _batch(self) -> Sequence[T]:
        """Return the next items; the sync facade takes them at once.

        Raises:
            StopAsyncIteration: There are no more.
        """
        if self._is_closed:
            raise StopAsyncIteration
        return await self._fetch()

    async def aclose(self) -> None:
        """End the iteration."""
        self._is_closed, self._ready = True, iter(())


async def gather_limited(
    function: Callable[[S], Awaitable[T]], items: Sequence[S], *, at_once: int
) -> list[T]:
    """Await *function* for each item, at most *at_once* at a time, and return the results in order.

    The first failure cancels the rest, and is raised as it is, not in an exception group.
    """
    results: dict[int, T] = {}
    limiter = anyio.CapacityLimiter(at_once)

    async def collect(index: int, item: S) -> None:
        async with limiter:
            results[index] = await function(item)

    failure: BaseException
    try:
        async with anyio.create_task_group() as group:
            for index, item in enumerate(items):
                group.start_soon(collect, index, item)
        return [results[index] for index in range(len(items))]
    except BaseExceptionGroup as failures:
        failure = failures
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
    raise failure
