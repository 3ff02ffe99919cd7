"""The runtime of the sync facade: coroutines run from ordinary threads, on one private event loop.

All clients of the facade share one loop, that of `_loop.py`. The first client that does I/O starts it, the
last one that is closed stops it, and the end of the interpreter closes the clients that were left open.

What crosses between the threads:

- `Lease.call` awaits one coroutine, in a task of its own.
- `Lease.iterate` makes a `Stream` of an async iterator.
- `Lease.hold` makes a context manager of an async one.

The latter two have a `_Lane` each: one task that does everything that ever happens to the iterator or context
manager, because a cancel scope must be left by the task that entered it. A stream crosses once for a batch of
items, where its source hands batches over.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar

from .. import exceptions
from ._loop import GRACE, Pending, Portal, Work, settle

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound="BaseException | None")
Wrap: TypeAlias = Callable[["Lease", Any], Any]
WrapAll: TypeAlias = Callable[["Lease", list[Any]], list[Any]]

_HERE: Final = str(Path(__file__).parent) + os.sep
_PACKAGE: Final = str(Path(__file__).parent.parent) + os.sep

_GATHERED: Final = 2**20
_GATHERING: Final = 0.005
"""Bytes, and seconds, after which what has arrived of a file is handed over."""


def crosses(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method raise errors as if there were no facade: of twins, and with the user's frames only."""

    @functools.wraps(method)
    def crossing(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            lease: Lease | None = getattr(args[0], "_lease", None) if args else None
            if lease is not None:
                lease.adopted(error)
            _trim(error)
            # Raised again without a value, an error does not get the frame of this function.
            raise

    return crossing


def _trim(error: BaseException) -> None:
    """Take the facade's frames out of a traceback; of our own errors, those of the whole package."""
    ours = _PACKAGE if isinstance(error, exceptions.ReplicateException) else _HERE
    kept: list[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(ours):
            kept.append(trace)
        trace = trace.tb_next
    following: TracebackType | None = None
    for trace in reversed(kept):
        trace.tb_next = following
        following = trace
    error.__traceback__ = following


# -- Work that lasts ---------------------------------------------------------------------------


class _Lane:
    """A task that does one piece of work after the other, and then cleans up."""

    def __init__(self, lease: Lease) -> None:
        self.cleanup: Work | None = None
        """What the task does at its end."""
        self._claim = lease.claim
        self._portal = lease.claim.open()
        self._queue: asyncio.Queue[tuple[Pending, Work] | None] = asyncio.Queue()
        self._ended = Pending()
        self._begun = False

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
        if self._ended.done:
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
            if self._ended.task is not None:
                # Not at the end of `_run`, which never starts if the task is cancelled before.
                self._ended.task.add_done_callback(self._refuse)

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while (item := await self._queue.get()) is not None:
                pending, work = item
                if pending.done:
                    continue  # interrupted while it waited in line
                pending.task = task
                await settle(pending, work)
                while task.cancelling():
                    task.uncancel()  # it was the work that was cancelled
                if self._claim.closed:
                    break
        finally:
            if self.cleanup is not None:
                await self.cleanup()

    def _refuse(self, _: object) -> None:
        """Give up the work that is still in line."""
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if item is not None:
                item[0].give_up()


class Stream(Iterator[T]):
    """An iterator over what an async iterator yields.

    The end of its `with` block, `close()`, and the loss of the last reference to it run the async
    iterator's own clean-up; the first two wait for it.
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
        self._step: Callable[[], Awaitable[list[Any]]]
        self._ready: deque[T] = deque()

    def __iter__(self) -> Iterator[T]:  # noqa: PYI034 - the reason follows
        # A generator is resumed for less than a call of `__next__`.
        ready = self._ready
        while True:
            while ready:
                yield ready.popleft()
            try:
                if not self._fetch():
                    return
            except BaseException as error:
                _trim(error)
                raise

    @crosses
    def __next__(self) -> T:
        if self._ready or self._fetch():
            return self._ready.popleft()
        raise StopIteration

    @crosses
    def _fetch(self) -> bool:
        """Cross over for what has arrived; False at the end."""
        if self._source is None:
            return False
        try:
            if self._lane is None:
                # Not earlier, so that a stream nobody iterates over costs nothing.
                self._open(self._source)
            assert self._lane is not None
            items = self._lane.do(self._step)
        except StopAsyncIteration:
            self.close()
            return False
        except BaseException as error:
            self._close_after(error)
            raise
        self._ready.extend(items if self._wrap_all is None else self._wrap_all(self._lease, items))
        return True

    def _open(self, source: AsyncIterable[Any]) -> None:
        lane = _Lane(self._lease)
        batch = getattr(source, "_batch", None)
        if batch is None:
            source = aiter(source)
            self._step = functools.partial(_next, source)
        else:
            self._step = batch
        lane.cleanup = getattr(source, "aclose", None)
        self._lane = lane
        self._finalizer = weakref.finalize(self, lane.finish, wait=False)
        self._finalizer.atexit = False

    def _close_after(self, error: BaseException) -> None:
        """Close; what comes out of that must not hide the error."""
        try:
            self.close()
        except Exception as further:  # noqa: BLE001 - it is noted
            error.add_note(f"Closing the stream failed, too: {further}")

    @crosses
    def close(self) -> None:
        """Stop iterating, and wait for the clean-up."""
        lane, self._lane, self._source = self._lane, None, None
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


class _Gathered(AsyncIterator[bytes]):
    """Chunks of a file, in batches: a task receives while the user's thread is at work, if the loop runs then.

    One crossing for each chunk would cost more than to receive it.
    """

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self._chunks: list[bytes] = []
        self._size = 0
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self._some: asyncio.Event
        self._enough: asyncio.Event
        self._room: asyncio.Event

    async def __anext__(self) -> bytes:
        return b"".join(await self._batch())

    async def _batch(self) -> list[bytes]:
        """Return what has arrived, after a moment for more to come."""
        if self._task is None:
            self._some, self._enough, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
            self._task = asyncio.create_task(self._receive())
        await self._some.wait()
        if not self._enough.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHERING):
                    await self._enough.wait()
        batch, self._chunks, self._size = self._chunks, [], 0
        self._room.set()
        if not self._over:
            self._some.clear()
            self._enough.clear()
        elif not batch:
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
                if self._size >= _GATHERED:
                    self._enough.set()
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._over = True
            self._some.set()
            self._enough.set()
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()

    async def aclose(self) -> None:
        """Stop, and close the source."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


class _Held(AbstractContextManager[T]):
    """A context manager around an async one."""

    def __init__(self, lease: Lease, manager: AbstractAsyncContextManager[T]) -> None:
        self._lease = lease
        self._manager = manager
        self._lane: _Lane | None = None

    @crosses
    def __enter__(self) -> T:
        lane = _Lane(self._lease)
        try:
            value = lane.do(self._manager.__aenter__)
        except BaseException:
            lane.finish()
            raise
        # Should the loop be shut down before `__exit__`.
        lane.cleanup = functools.partial(self._manager.__aexit__, None, None, None)
        self._lane = lane
        return value

    @crosses
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        lane, self._lane = self._lane, None
        assert lane is not None, "left without having been entered"
        lane.cleanup = None
        try:
            return lane.do(functools.partial(self._manager.__aexit__, kind, error, traceback))
        finally:
            lane.finish()


# -- Who uses the loop -------------------------------------------------------------------------


class _Claim:
    """The claim of one client to the loop."""

    def __init__(self, aclose: Work) -> None:
        self.closed = False
        """Whether the client is closed, or is being closed."""
        self._aclose = aclose
        self._lock = threading.RLock()
        self._portal: Portal | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._closing: tuple[Portal, Pending] | None = None
        _shared.claims.add(self)

    def open(self) -> Portal:
        """Return the portal, running."""
        portal = self._portal
        if portal is not None and portal.open:
            return portal
        with self._lock:
            if self.closed:
                raise exceptions.ClientClosed
            if self._portal is None or not self._portal.open:
                self._portal = _shared.join(self)
            return self._portal

    def call(self, work: Work) -> Any:
        """Await `work()` on the loop, and return its result."""
        return self.run(self.open(), self.start, work)

    def run(self, portal: Portal, start: Callable[[Pending, Work], object], work: Work) -> Any:
        """Have *start* called on the loop, and return or raise the outcome of the work."""
        pending = Pending()
        try:
            portal.run(pending, start, work)
            return pending.result()
        except (asyncio.CancelledError, exceptions.LoopClosed) as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            if self.closed or (cancelled and portal.open):
                raise exceptions.ClientClosed from None
            if cancelled:
                raise exceptions.LoopClosed("the sync facade was shut down meanwhile") from None
            raise

    def start(self, pending: Pending, work: Work) -> None:
        """Start some work in a task that ends with the client. Only called on the loop."""
        portal = self._portal
        if portal is None or self.closed:
            pending.give_up()
            return
        portal.start(pending, work)
        if pending.task is not None:
            self._running.add(pending.task)
            pending.task.add_done_callback(self._running.discard)

    def close(self) -> None:
        """Cancel what runs, close the client, and with the last client the loop."""
        portal = self._portal
        if portal is not None and portal.open:
            portal.check()  # before anything is given up
        pending = Pending()
        portal = self._give_up(pending)
        if portal is not None:
            try:
                portal.run(pending, portal.start, self._wind_up)
                pending.result()
            finally:
                _shared.leave(self, wait=True)
        elif self._closing is not None:
            # Perhaps another thread is still closing it.
            portal, pending = self._closing
            if not portal.inside:
                pending.wait(2 * GRACE)

    def drop(self) -> None:
        """Close without waiting, for the garbage collector."""
        pending = Pending()
        portal = self._give_up(pending)
        if portal is not None:
            with contextlib.suppress(exceptions.LoopClosed):
                portal.post(portal.start, pending, self._wind_up_and_leave)

    def _give_up(self, closing: Pending) -> Portal | None:
        """Let nothing begin any more. Return the portal, unless there is nothing to close."""
        with self._lock:
            portal, self._portal, self.closed = self._portal, None, True
            if portal is None:
                return None
            if not portal.open:
                _shared.leave(self, wait=False)
                return None
            self._closing = portal, closing
            return portal

    def abandon(self) -> None:
        """Forget the loop of the parent process. Called in the child right after a fork."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._portal = self._closing = None
        self._running = set()

    async def _wind_up(self) -> None:
        """Cancel what runs, which cancels its predictions, and then close the client."""
        if tasks := list(self._running):
            for task in tasks:
                task.cancel("the client is closed")
            await asyncio.wait(tasks, timeout=GRACE)
        await self._aclose()

    async def _wind_up_and_leave(self) -> None:
        try:
            await self._wind_up()
        finally:
            _shared.leave(self, wait=False)


class Lease:
    """What a client and everything that it returned hold on to, to reach the loop.

    The client is closed by `close`, when the last of them is gone, or when the interpreter exits.
    """

    __slots__ = ("__weakref__", "_wrap", "claim")

    claim: _Claim
    """What outlives the lease, until the client is closed."""

    def __init__(self, aclose: Work, wrap: Wrap) -> None:
        """Hold a place on the loop.

        Args:
            aclose: Closes the client.
            wrap: Returns the twin of an async object; anything else as it is.
        """
        self.claim = _Claim(aclose)
        self._wrap = wrap
        weakref.finalize(self, self.claim.drop).atexit = False

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `function(*args, **kwargs)` on the loop, and return its result."""
        result: T = self.claim.call(functools.partial(function, *args, **kwargs))
        return result

    def iterate(self, source: AsyncIterable[Any], wrap_all: WrapAll | None = None) -> Stream[Any]:
        """Return an iterator over what an async one yields."""
        return Stream(self, source, wrap_all)

    def chunks(self, source: AsyncIterable[bytes]) -> Stream[bytes]:
        """Return an iterator over the chunks of a file."""
        return Stream(self, _Gathered(source))

    def hold(self, manager: AbstractAsyncContextManager[T]) -> AbstractContextManager[T]:
        """Return a context manager that enters and leaves an async one on the loop."""
        return _Held(self, manager)

    def adopted(self, error: E) -> E:
        """Return an error; in one of ours, twins take the place of async objects."""
        if isinstance(error, exceptions.ReplicateException):
            for name, value in vars(error).items():
                setattr(error, name, self._wrap(self, value))
        return error

    def close(self) -> None:
        """Close the client, and with the last client the loop."""
        self.claim.close()


class _Shared:
    """The one loop of this process, and who uses it."""

    def __init__(self) -> None:
        self.claims: weakref.WeakSet[_Claim] = weakref.WeakSet()
        """The claims of all clients, also of those that have not been used."""
        self._portals: weakref.WeakSet[Portal] = weakref.WeakSet()
        self._left_behind: list[object] = []
        self._forking = False
        self._unpark: Callable[[], None] | None = None
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )
        atexit.register(self._at_exit)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._portal: Portal | None = None
        self._users: set[_Claim] = set()
        self._exiting = False

    def join(self, claim: _Claim) -> Portal:
        """Return the portal for a client; start it for the first."""
        with self._lock:
            if self._exiting:
                raise exceptions.LoopClosed("the interpreter is exiting")
            # First of all: the garbage collector may have other clients leave in the middle of this.
            self._users.add(claim)
            try:
                portal = self._portal
                if portal is None or not portal.open:
                    _refuse_greenlets()
                    portal = Portal()
                    self._portals.add(portal)
                    self._portal = portal
            except BaseException:
                self._users.discard(claim)
                raise
            return portal

    def leave(self, claim: _Claim, *, wait: bool) -> None:
        """Note that a client needs the portal no longer; stop it after the last."""
        with self._lock:
            if claim not in self._users:
                return
            self._users.discard(claim)
            if self._users:
                return
            portal, self._portal = self._portal, None
        if portal is not None:
            portal.stop(join=wait)

    def _before_fork(self) -> None:
        """Bring the loop to where a child can be made of the process.

        No loop is being started or stopped meanwhile, and the loop stands between two callbacks, where it
        holds no lock and nothing is half done.
        """
        self._lock.acquire()
        self._forking = True
        if self._portal is not None:
            self._unpark = self._portal.park()

    def _after_fork_in_parent(self) -> None:
        if not self._forking:
            return  # this module was imported when the fork had begun
        self._forking = False
        unpark, self._unpark = self._unpark, None
        self._lock.release()
        if unpark is not None:
            unpark()

    def _after_fork_in_child(self) -> None:
        # The loop's selector and sockets belong to the parent, too. Their finalizers would disturb it,
        # so they are kept for good.
        self._forking = False
        self._unpark = None
        self._reset()
        portals, claims = list(self._portals), list(self.claims)
        self._left_behind += [*portals, *claims]
        for portal in portals:
            portal.abandon()
        for claim in claims:
            claim.abandon()

    def _at_exit(self) -> None:
        with self._lock:
            self._exiting = True
            claims = list(self._users)
        for claim in claims:
            with contextlib.suppress(Exception):
                claim.close()
        for portal in list(self._portals):
            with contextlib.suppress(Exception):
                portal.stop(join=True)


def _refuse_greenlets() -> None:
    """Complain if gevent or eventlet have replaced threads, which the loop needs."""
    monkey: Any = sys.modules.get("gevent.monkey")
    patcher: Any = sys.modules.get("eventlet.patcher")
    if (monkey is not None and monkey.is_module_patched("threading")) or (
        patcher is not None and patcher.is_monkey_patched("thread")
    ):
        raise exceptions.LoopClosed(
            "gevent or eventlet have replaced threads by greenlets, and the sync facade needs a thread"
        )


_shared: Final = _Shared()
