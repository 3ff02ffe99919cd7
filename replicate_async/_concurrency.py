"""Concurrent work, locks, iterators, and clean-up that is shielded from cancellation."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, ClassVar, Final, Self, TypeVar

import anyio
import attrs

if sys.platform != "win32":
    import resource

S = TypeVar("S")
T = TypeVar("T")

_LOST_AFTER: Final = 1.0
"""Seconds after which a task checks whether the event that it waits for was lost."""


class WatchEnded(Exception):
    """Work was cancelled, because what was watched for has happened."""


async def watched(work: Awaitable[T], watch: Callable[[], Awaitable[object]]) -> T:
    """Return the result of some work, which is cancelled as soon as *watch* returns or fails.

    Raises:
        WatchEnded: *watch* returned before the work was done.
        Exception: The work or *watch* raised it.
    """
    result: list[T] = []
    failure: Exception = WatchEnded()

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
    if result:
        return result[0]
    raise failure


def share_of_descriptors() -> int:
    """Return a quarter of the file descriptors that the process may have.

    The connections of creates, the other connections, and the files that are written get a quarter each.
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


@attrs.define(eq=False)
class _Turn:
    """A task that waits for a lock."""

    loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)
    event: anyio.Event = attrs.field(factory=anyio.Event)
    has_come: bool = False


class ThreadSafeLock:
    """A lock for tasks of several event loops, in the order of arrival. Not reentrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_held = False
        self._waiting: deque[_Turn] = deque()

    async def acquire(self) -> None:
        """Wait for the turn of this task."""
        with self._guard:
            if not self._is_held:
                self._is_held = True
                return
            turn = _Turn()
            self._waiting.append(turn)
        try:
            while not turn.has_come:  # the event is not set if `release` had no memory for that
                with anyio.move_on_after(_LOST_AFTER):
                    await turn.event.wait()
        except BaseException:
            with self._guard:
                if not turn.has_come:
                    self._waiting.remove(turn)
            if turn.has_come:
                self.release()
            raise

    def release(self) -> None:
        """Let the next task have its turn. May be called from any thread."""
        with self._guard:
            while self._waiting:
                turn = self._waiting.popleft()
                turn.has_come = True
                try:
                    turn.loop.call_soon_threadsafe(turn.event.set)
                except RuntimeError:  # its event loop is closed
                    continue
                except MemoryError:  # the task checks `has_come` itself
                    pass
                return
            self._is_held = False

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()


_MAX_ATTEMPTS: Final = 3
"""Calls of shielded work that is itself cancelled."""


async def shielded(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Call and await *work* to its end, however often the task is cancelled meanwhile.

    It must limit its own duration, and it must be repeatable: if it is cancelled itself, it is called again.

    Raises:
        CancelledError: The task was cancelled meanwhile.
    """
    cancelled_with: tuple[object, ...] | None = None
    # In a task of its own: anyio's shield holds off cancellations by anyio's scopes, but not
    # `Task.cancel()`, as it is called at the end of `asyncio.run`.
    with anyio.CancelScope(shield=True):
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            task = asyncio.create_task(work())
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError as error:
                    cancelled_with = error.args
            # `asyncio.run` cancels each task at its end, including this one.
            if not task.cancelled() or attempt == _MAX_ATTEMPTS:
                task.result()
                break
    if cancelled_with is not None:
        # The caller may be in no other cancellation: it must not go on as if this one had never come.
        raise asyncio.CancelledError(*cancelled_with)


class BatchIterator(AsyncIterator[T]):
    """An async iterator that the sync facade reads in batches, since it changes threads for each step."""

    _resumes: ClassVar[bool] = False
    """Whether the iteration can go on after a step that was cancelled or failed."""

    async def _batch(self) -> Sequence[T]:
        """Wait for an item, and return all that are there.

        Raises:
            StopAsyncIteration: There are no more.
        """
        return [await anext(self)]

    def _abandonment(self) -> Exception | None:
        """Return the exception for further steps, if a step that was cancelled or interrupted has ended the iteration."""
        return None


class StepIterator(BatchIterator[T]):
    """An async iterator that continues where it was after a step that was cancelled or failed.

    An async generator would have ended, as if there were nothing more. Tasks that share the iterator get each
    item once.
    """

    _resumes = True

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
