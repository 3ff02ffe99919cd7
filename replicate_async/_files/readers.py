"""Objects with a `read` method, which several calls may read at the same time."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar

import attrs

from .. import exceptions
from .._concurrency import ThreadSafeLock, shielded
from .._threads import in_own_thread
from .holders import NothingLeft, is_file

T = TypeVar("T")

_NOT_READ: Final = object()


@attrs.define(eq=False, repr=False)
class ContentFacts:
    """What is known of the content of a file; shared by all calls that use the same object."""

    digest: str | None = attrs.field(default=None, init=False)
    """The SHA-256 in hex digits."""
    size: int | None = attrs.field(default=None, init=False)
    """The size in bytes, as it was read."""
    base64: tuple[str, str] | None = attrs.field(default=None, init=False)
    """The media type, and the content as a data URI of that type."""
    lock: ThreadSafeLock = attrs.field(factory=ThreadSafeLock, init=False)
    """Held while the whole content is read to compute one of them."""


class NotSeekable(Exception):
    """An object has a `seek` that does not work, as of files that fsspec streams."""


class SharedReader:
    """An object that is read by one or more calls, of any event loop.

    It is read in one of three ways: by `inspect` and `chunks` if it can seek, since then each read seeks its position
    first, and no other read comes in between; by `load` if its content is read at once; else by `begin_stream` and
    `rest`. Obtain a reader from `shared_reader`, and call `release` when the call has ended.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.facts: ContentFacts = ContentFacts()
        self.start: Any = _NOT_READ
        """The first bytes, from which the type is guessed; of a stream, its first chunk."""
        self.size: int | None = None
        """The size in bytes that the object claims."""
        self._turns = _turns_of(file)
        self._users = 0
        self._is_taken = False
        """Whether the one pass through a stream has begun."""

    def _acquire(self) -> None:
        self._users += 1

    def release(self) -> None:
        """Note that a call has ended. After the last one, what is known of the content is forgotten."""
        with _registry_lock:
            self._users -= 1
            if self._users == 0:
                self.facts = ContentFacts()
                self.start = _NOT_READ
                self.size = None
                self._is_taken = False

    # Objects that can seek

    async def inspect(self, size: int) -> None:
        """Find the size and the first bytes, unless they are known.

        Raises:
            NotSeekable: It cannot seek; nothing was read.
        """

        async def look() -> None:
            if self.start is not _NOT_READ:
                return
            this = object()
            await self._enter(this)
            try:
                self.size = await self._find_size()
                self.start = await self._read_at(0, size)
                if self.size == 0 and self.start:
                    self.size = None  # the system makes the content while it is read, as in /proc
            finally:
                await self._leave(this)

        await self._exclusively(look)

    async def chunks(self, size: int) -> AsyncGenerator[Any, None]:
        """Yield the content from its beginning, and restore the position after the last pass."""
        this = object()
        try:
            await self._exclusively(partial(self._enter, this))
            position = 0
            while True:
                chunk = await self._exclusively(partial(self._read_at, position, size))
                yield chunk
                position += len(chunk)
        finally:
            await shielded(partial(self._exclusively, partial(self._leave, this)))

    async def _enter(self, this: object) -> None:
        """Begin a pass, and note the position before the first one."""
        turns = self._turns
        if not turns.passes:
            turns.left_at = self.file, await self._tell()
        turns.passes.add(this)

    async def _leave(self, this: object) -> None:
        """End a pass, and restore the position after the last one."""
        turns = self._turns
        if this not in turns.passes:
            return  # it was cancelled before it began
        turns.passes.remove(this)
        if turns.passes:
            return
        file, position = turns.left_at
        turns.left_at = None, None
        if position is not None:
            with suppress(Exception):  # it was closed meanwhile, or cannot seek backwards
                await call(file.seek, position)

    async def _read_at(self, position: int, size: int) -> Any:
        seek, read = self.file.seek, self.file.read
        if inspect.iscoroutinefunction(seek) or inspect.iscoroutinefunction(read):
            await call(seek, position)
            return await call(read, size)

        def seek_and_read() -> Any:
            moved = seek(position)
            return moved if inspect.isawaitable(moved) else read(size)

        found = await in_own_thread(seek_and_read)
        if inspect.isawaitable(found):
            await found
            return await call(read, size)
        return found

    async def _tell(self) -> int | None:
        tell = getattr(self.file, "tell", None)
        if not callable(tell):
            return None
        found = await call(tell)
        return found if isinstance(found, int) else None

    async def _find_size(self) -> int | None:
        try:
            await call(self.file.seek, 0, os.SEEK_END)
        except TypeError:  # its `seek` takes no second argument, such as Starlette's
            said = getattr(self.file, "size", None)
            return said if isinstance(said, int) and said >= 0 else None
        except (OSError, ValueError) as error:
            if getattr(self.file, "closed", False) is True:
                raise
            raise NotSeekable from error
        return await self._tell()

    # Objects whose content is read at once

    async def load(self, read_all: Callable[[], Awaitable[bytes]], argument: str) -> bytes:
        """Return the whole content, which one call reads for all that use the object at the same time.

        Raises:
            ArgumentError: An earlier call has read a part of it.
        """
        async with self._turns.lock:
            if self.start is _NOT_READ:
                state = _streams.get(self.file)
                if state is _StreamState.BEGUN:
                    raise _read_in_part(argument)
                _streams.set(self.file, _StreamState.BEGUN)
                try:
                    content = await read_all()
                    if state is _StreamState.ENDED and not content:
                        raise NothingLeft
                except NothingLeft:
                    _streams.set(self.file, _StreamState.ENDED)
                    raise
                _streams.set(self.file, _StreamState.ENDED if content else _StreamState.UNREAD)
                self.start = content
            loaded: bytes = self.start
        return loaded

    # Streams, which can be read once

    async def begin_stream(self, size: int, argument: str) -> None:
        """Read the first chunk of a stream, unless that was done.

        Raises:
            ArgumentError: An earlier call has read a part of it.
        """

        async def begin() -> None:
            if self.start is not _NOT_READ:
                return
            state = _streams.get(self.file)
            if state is _StreamState.BEGUN:
                raise _read_in_part(argument)
            start = await call(self.file.read, size)
            self._is_taken = state is _StreamState.ENDED and not start
            if not self._is_taken:
                _streams.set(self.file, _StreamState.BEGUN)
            self.start = start

        await self._exclusively(begin)

    @property
    def is_taken(self) -> bool:
        """Whether the content of a stream was read before, or is being read."""
        return self._is_taken

    async def rest(self, size: int, argument: str) -> AsyncGenerator[Any, None]:
        """Yield the content of a stream, once.

        Raises:
            ArgumentError: Another call has read it.
        """
        with _registry_lock:
            is_taken, self._is_taken = self._is_taken, True
        if is_taken:
            raise exceptions.ArgumentError(
                argument,
                "it can be read only once, and another call has read it. Pass a path or bytes",
            )
        chunk = self.start
        while chunk:
            yield chunk
            chunk = await call(self.file.read, size)
        _streams.set(self.file, _StreamState.ENDED)

    async def _exclusively(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of *work*, during which no other call uses the object.

        If the task is cancelled, *work* still runs to its end, as its threads do. Only then does another call get its turn.
        """
        lock = self._turns.lock
        await lock.acquire()
        try:
            task = asyncio.ensure_future(work())
        except BaseException:
            lock.release()
            raise

        def end(task: asyncio.Future[T]) -> None:
            lock.release()
            if not task.cancelled():
                task.exception()  # it is raised below, unless nobody waits for it any more

        task.add_done_callback(end)
        return await asyncio.shield(task)


def _read_in_part(argument: str) -> exceptions.ArgumentError:
    return exceptions.ArgumentError(
        argument,
        "it can be read only once, and an earlier call has read a part of it. Pass a path or bytes",
    )


async def call(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of the caller's object, awaited or in a thread."""
    if inspect.iscoroutinefunction(method):
        return await method(*arguments)
    found = await in_own_thread(method, *arguments)
    return await found if inspect.isawaitable(found) else found


# -- What is known of objects ------------------------------------------------------------------


class _Turns:
    """Whose turn it is to use a file, also if it is read by way of several objects: an upload, and the file in it."""

    def __init__(self, innermost: Any) -> None:
        self.innermost = innermost
        self.lock = ThreadSafeLock()
        self.passes: set[object] = set()
        """The passes that are reading it, each of which is represented by an object of its own."""
        self.left_at: tuple[Any, int | None] = None, None
        """The object of the first pass, and the position at which its owner left it."""


_turns: Final = weakref.WeakValueDictionary[int, _Turns]()
"""By the ID of the innermost file, which they keep alive."""

_WRAPPED: Final = ("file", "stream")
"""Attributes in which uploads have their file: those of Starlette, Litestar and Django, and those of Werkzeug."""

_MAX_WRAPPERS: Final = 4


def _turns_of(file: Any) -> _Turns:
    """Return the turns of a file. The registry's lock is held."""
    innermost = _innermost(file)
    turns = _turns.get(id(innermost))
    if turns is None:
        turns = _turns[id(innermost)] = _Turns(innermost)
    return turns


def _innermost(file: Any) -> Any:
    """Return the file that an object has inside, or the object itself."""
    for _ in range(_MAX_WRAPPERS):
        # Not `getattr`: a property may open the file.
        inner = (inspect.getattr_static(file, name, None) for name in _WRAPPED)
        found = next(filter(is_file, inner), None)
        if found is None:
            break
        file = found
    return file


_registry_lock: Final = threading.Lock()

_readers: Final = weakref.WeakValueDictionary[int, SharedReader]()
"""The readers in use, by the ID of their object, which they keep alive."""


def shared_reader(file: Any) -> SharedReader:
    """Return the reader of an object, which all calls share that use the object at the same time."""
    with _registry_lock:
        reader = _readers.get(id(file))
        if reader is None:
            reader = _readers[id(file)] = SharedReader(file)
        reader._acquire()
        return reader


class _StreamState(Enum):
    """How far a stream was read."""

    UNREAD = "unread"
    """Not at all, as far as is known; or to its end, but it was empty."""
    BEGUN = "begun"
    """In part."""
    ENDED = "ended"
    """To its end."""


class _StreamStates:
    """How far streams were read, for as long as they exist."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], _StreamState]] = {}

    def get(self, file: Any) -> _StreamState:
        """Return how far a stream was read."""
        found = self._known.get(id(file))
        return found[1] if found is not None and found[0]() is file else _StreamState.UNREAD

    def set(self, file: Any, state: _StreamState) -> None:
        """Note how far a stream was read, if that is possible."""
        key = id(file)

        def forget(reference: weakref.ref[Any]) -> None:
            found = self._known.get(key)
            if found is not None and found[0] is reference:
                del self._known[key]

        with suppress(TypeError):  # there are no weak references to it
            self._known[key] = weakref.ref(file, forget), state


_streams: Final = _StreamStates()
