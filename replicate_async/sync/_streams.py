"""Async iterators and context managers of the client, for ordinary threads.

Each has a task of its own on the loop, its lane, since a cancel scope must be left by the task that entered it. A stream
crosses to the loop once for all items that its source has ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

from .. import exceptions
from .._concurrency import BatchIterator
from .._unpicklable import Unpicklable
from ._errors import boundary
from ._interrupts import watch
from ._lease import Lease
from ._portal import GRACE, Pending, Work, settle

T = TypeVar("T")
WrapAll: TypeAlias = Callable[[Lease, Sequence[Any]], Sequence[Any]]

_BATCH_SIZE: Final = 2**20
"""Bytes of a file that are received before they are requested."""

_BATCH_DELAY: Final = 0.005
"""Seconds for which a smaller batch waits for more bytes."""


class _Lane:
    """A task on the loop that does one piece of work after another, and cleans up at its end."""

    def __init__(self, lease: Lease) -> None:
        self.cleanup: Work | None = None
        """What the task does at its end."""
        self._claim = lease.claim
        self._portal = lease.claim.portal()
        self._queue: asyncio.Queue[tuple[Pending, Work] | None] = asyncio.Queue()
        self._ended = Pending()
        self._begun = False
        self._ending = False

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work in the task, and return its result."""
        result: T = self._claim.run(self._portal, self._put, work)
        return result

    def finish(self, *, wait: bool = True) -> None:
        """Clean up and end the task."""
        with contextlib.suppress(exceptions.LoopClosed):
            self._portal.post(self._end)
            if wait and not self._portal.inside:
                self._ended.wait(2 * GRACE)
                with contextlib.suppress(asyncio.CancelledError):
                    self._ended.result()

    def _put(self, pending: Pending, work: Work) -> None:
        self._begin()
        if self._ending or self._ended.done:
            pending.give_up()
        else:
            self._queue.put_nowait((pending, work))

    def _end(self) -> None:
        self._begin()
        self._queue.put_nowait(None)

    def _begin(self) -> None:
        """Start the task, if that has not been done."""
        if not self._begun:
            self._begun = True
            self._claim.start(self._ended, self._run)

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while (item := await self._queue.get()) is not None:
                pending, work = item
                await settle(pending, work, set())
                while task.cancelling():
                    task.uncancel()  # it was the work that was cancelled
                if not self._claim.uses(self._portal):
                    break
        finally:
            self._ending = True
            while not self._queue.empty():
                if (item := self._queue.get_nowait()) is not None:
                    item[0].give_up()
            if self.cleanup is not None:
                await self.cleanup()


class Stream(Unpicklable, Iterator[T]):
    """An iterator that closes its source when it is closed.

    Close it with `with` or `close()`, which wait until everything is cleaned up. A stream that is dropped is
    closed, too, in the background.
    """

    _lease: Lease

    def __init__(
        self, lease: Lease, source: AsyncIterable[Any], wrap_all: WrapAll | None = None
    ) -> None:
        self._lease = lease
        self._begin(source, wrap_all)

    def _begin(self, source: AsyncIterable[Any], wrap_all: WrapAll | None) -> None:
        self._source: AsyncIterable[Any] | None = source
        self._wrap_all = wrap_all
        self._lane: _Lane | None = None
        self._step: Callable[[], Awaitable[Sequence[Any]]]
        self._ready: deque[T] = deque()
        self._abandonment: Callable[[], Exception | None] | None = None
        """Returns the exception for further steps, if the stream was abandoned."""

    def __iter__(self) -> Self:
        return self

    @boundary
    def __next__(self) -> T:
        if self._ready:
            self._check_interrupt()
        elif not self._fetch():
            raise StopIteration
        return self._ready.popleft()

    def _check_interrupt(self) -> None:
        """Close if Ctrl-C is ending the main thread, which may be waiting for the thread of this stream."""
        try:
            watch.check_between_items()
        except KeyboardInterrupt as error:
            self._close_after(error)
            raise

    @boundary
    def _fetch(self) -> bool:
        """Cross to the loop for the items that are ready; return False at the end."""
        if self._source is None:
            if self._abandonment is not None and (error := self._abandonment()) is not None:
                raise error
            return False
        try:
            if self._lane is None:
                # Not earlier, so that a stream that is never iterated over costs nothing.
                self._open(self._source)
            assert self._lane is not None
            items = self._lane.do(self._step)
        except StopAsyncIteration:
            self.close()
            return False
        except BaseException as error:
            if not (isinstance(self._source, BatchIterator) and self._source._resumes):
                self._close_after(error)
            raise
        self._ready.extend(items if self._wrap_all is None else self._wrap_all(self._lease, items))
        return True

    def _open(self, source: AsyncIterable[Any]) -> None:
        lane = _Lane(self._lease)
        if isinstance(source, BatchIterator):
            self._step = source._batch
        else:
            source = aiter(source)
            self._step = functools.partial(_next, source)
        lane.cleanup = getattr(source, "aclose", None)
        self._lane = lane
        self._finalizer = weakref.finalize(self, lane.finish, wait=False)
        self._finalizer.atexit = False

    def _close_after(self, error: BaseException) -> None:
        """Close, and add a note to the exception if that fails, too."""
        source = self._source
        try:
            self.close()
            if isinstance(source, BatchIterator):
                self._abandonment = source._abandonment
        except Exception as further:  # noqa: BLE001 - it must not hide the first
            error.add_note(f"Closing the stream failed, too: {further}")

    @boundary
    def close(self) -> None:
        """Stop iterating, and wait until everything is cleaned up. May be called twice."""
        lane, self._lane, self._source = self._lane, None, None
        self._abandonment = None
        self._ready.clear()
        if lane is not None:
            lane.finish()
            self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


async def _next(iterator: AsyncIterator[T]) -> list[T]:
    return [await anext(iterator)]


def file_stream(lease: Lease, source: AsyncIterable[bytes]) -> Stream[bytes]:
    """Return an iterator over the chunks of a file."""
    return Stream(lease, _Batches(source))


class _Batches(BatchIterator[bytes]):
    """The chunks of a file in batches: a task receives the next one while the user's thread is at work."""

    _resumes = True

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False
        self._is_over = False
        """Whether the end of the source, or the exception that has ended it, was raised."""
        self._task: asyncio.Task[None] | None = None
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()

    async def __anext__(self) -> bytes:
        return b"".join(await self._batch())

    async def _batch(self) -> list[bytes]:
        """Return the chunks that have arrived, after a short wait for more."""
        if self._task is None:
            self._task = asyncio.create_task(self._receive())
        await self._some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BATCH_DELAY):
                await self._full.wait()
        batch, self._chunks, self._size = self._chunks, [], 0
        self._room.set()
        if not self._ended:
            self._some.clear()
            self._full.clear()
        elif not batch:
            if not self._is_over:
                self._is_over = True
                await self._task
            raise StopAsyncIteration
        return batch

    async def _receive(self) -> None:
        iterator = aiter(self._source)
        try:
            async for chunk in iterator:
                self._chunks.append(chunk)
                self._size += len(chunk)
                self._some.set()
                if self._size >= _BATCH_SIZE:
                    self._full.set()
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._some.set()
            self._full.set()
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()

    async def aclose(self) -> None:
        """Stop, and close the source."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


class Held(AbstractContextManager[T]):
    """A context manager that enters and exits an async one on the loop."""

    def __init__(
        self,
        lease: Lease,
        manager: AbstractAsyncContextManager[T],
        wrap: Callable[[Lease, Any], Any] | None = None,
    ) -> None:
        self._lease = lease
        self._manager = manager
        self._wrap = wrap
        self._lane: _Lane | None = None

    @boundary
    def __enter__(self) -> T:
        lane = _Lane(self._lease)
        try:
            value = lane.do(self._manager.__aenter__)
        except BaseException:
            lane.finish()
            raise
        # In case the loop is shut down before `__exit__`.
        lane.cleanup = functools.partial(self._manager.__aexit__, None, None, None)
        self._lane = lane
        entered: T = value if self._wrap is None else self._wrap(self._lease, value)
        return entered

    @boundary
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        lane, self._lane = self._lane, None
        assert lane is not None
        lane.cleanup = None
        try:
            return lane.do(functools.partial(self._manager.__aexit__, kind, error, traceback))
        finally:
            lane.finish()
