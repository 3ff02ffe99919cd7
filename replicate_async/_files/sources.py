"""Paths, bytes and readers behind one interface."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import io
import os
import re
import stat
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
from aiofiles.threadpool import wrap

from .. import exceptions
from .._concurrency import in_thread, shielded_in_thread
from .media import guess_extension, guess_type, sniff

MOST_BYTES: Final = 100 * 2**20
"""What an uploaded file may have (:api:`size-limits`)."""


_CHUNK: Final = 2**20
"""Bytes that are read in one go: less costs more changes of threads, more costs memory."""


_LONGEST_NAME: Final = 255
"""Bytes of a file name (:api:`size-limits`)."""


class _Reader(Protocol):
    """Reads a source from its beginning to its end, once."""

    async def read(self, size: int) -> bytes: ...

    async def close(self) -> None: ...


@attrs.define(eq=False, repr=False)
class Source:
    """A file that is to be sent."""

    argument: str
    """Where the caller gave it, such as `input.images[2]`."""
    name: str
    content_type: str
    size: int | None
    """In bytes, if it can be known before it is read."""
    repeatable: bool
    """Whether it can be read a second time."""
    reader: Callable[[], _Reader]
    """Makes what reads it; nothing is opened before it reads."""
    content: bytes | None = None
    """What it is, if it is in memory."""
    identity: tuple[int, ...] | None = None
    """Tells a file on the disk, as it is now, from all others; None if only its content can."""
    shared: bool = False
    """Whether reading it moves a position that belongs to the caller."""
    _digest: str | None = None
    _digesting: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)

    async def chunks(self, readers: list[_Reader] | None = None) -> AsyncIterator[bytes]:
        """Yield the content, checking its length. Who passes *readers* closes what is in there.

        Raises:
            ArgumentError: It cannot be read, has changed its length, or is too large.
        """
        reader = self.reader()
        if readers is not None:
            readers.append(reader)
        sent = 0
        try:
            # Of a file that grows, what it had when it was looked at.
            while self.size is None or sent < self.size:
                most = _CHUNK if self.size is None else min(_CHUNK, self.size - sent)
                chunk = await self._read(reader, most)
                if not chunk:
                    break
                sent += len(chunk)
                if sent > MOST_BYTES:
                    raise _too_large(self.argument, self.name, None)
                yield chunk
        finally:
            if readers is None:
                await reader.close()
        if self.size is not None and sent != self.size:
            raise exceptions.ArgumentError(
                self.argument, f"{self.name} has changed while it was read"
            )

    async def _read(self, reader: _Reader, most: int) -> bytes:
        try:
            chunk: object = await reader.read(most)
        except exceptions.ReplicateException:
            raise
        except Exception as error:
            raise exceptions.ArgumentError(
                self.argument, f"{self.name} cannot be read ({error!r})"
            ) from error
        if isinstance(chunk, str):
            raise _text_mode(self.argument)
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise exceptions.ArgumentTypeError(
                self.argument, f"read() gave a {type(chunk).__name__}, and not bytes"
            )
        return bytes(chunk)

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the content, in hex digits, if it is known."""
        return self._digest

    async def find_digest(self) -> str:
        """Return the SHA-256 of the content, computed in a thread."""
        async with self._digesting:
            if self._digest is None:
                found = hashlib.sha256()
                if self.content is not None:
                    await in_thread(found.update, self.content)
                else:
                    readers: list[_Reader] = []
                    try:
                        async for chunk in self.chunks(readers):
                            await in_thread(found.update, chunk)
                    finally:
                        for reader in readers:
                            await reader.close()
                self._digest = found.hexdigest()
            return self._digest


async def source_of(
    file: Any, argument: str, *, name: str | None = None, content_type: str | None = None
) -> Source:
    """Return what is to be sent of a path, bytes, or something to read; looks at it.

    Raises:
        ArgumentError: It cannot be read, or is too large.
        ArgumentTypeError: It is no file.
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        source = await in_thread(_of_bytes, file, argument)
    elif isinstance(file, os.PathLike):
        source = await in_thread(_of_path, file, argument)
    elif not callable(getattr(file, "read", None)) or isinstance(file, type):
        raise exceptions.ArgumentTypeError(
            argument, f"a {type(file).__name__} is no file: pass a path, bytes or an open file"
        )
    else:
        source = await _of_reader(file, argument)
    if source.size is not None and source.size > MOST_BYTES:
        raise _too_large(argument, source.name, source.size)
    source.name = name or source.name
    kind = content_type or await in_thread(guess_type, source.name) or source.content_type or None
    kind = kind or sniff(await _start_of(source))
    source.name = source.name or f"file{guess_extension(kind)}"
    source.content_type = kind or "application/octet-stream"
    return source


async def _start_of(source: Source) -> bytes:
    if source.content is not None:
        return source.content[:512]
    reader = source.reader()
    try:
        return await source._read(reader, 512)
    finally:
        await reader.close()


def _too_large(argument: str, name: str, size: int | None) -> exceptions.ArgumentError:
    has = "more than 100 MiB" if size is None else f"{size} bytes"
    return exceptions.ArgumentError(
        argument,
        f"{name or 'the file'} has {has}; the API takes files up to {MOST_BYTES} bytes (100 MiB)."
        " Put it where the model can fetch it, and pass its https URL",
    )


def _text_mode(argument: str) -> exceptions.ArgumentError:
    return exceptions.ArgumentError(argument, "the file is open in text mode; open it with 'rb'")


def _of_bytes(file: bytes | bytearray | memoryview, argument: str) -> Source:
    size = file.nbytes if isinstance(file, memoryview) else len(file)
    if size > MOST_BYTES:
        raise _too_large(argument, "", size)
    # What can be changed is copied: it stays the caller's.
    return _in_memory(bytes(file), argument, "")


def _in_memory(content: bytes, argument: str, name: str) -> Source:
    return Source(
        argument, name, "", len(content), True, lambda: _OfBytes(content), content=content
    )


def _of_path(file: os.PathLike[Any], argument: str) -> Source:
    try:
        path = Path(os.fsdecode(file))
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise exceptions.ArgumentError(
                argument, f"{str(path)!r} cannot be read (it is a directory)"
            )
        if not stat.S_ISREG(status.st_mode):
            # To open a pipe may take for ever, and to read a device.
            raise exceptions.ArgumentError(
                argument, f"{str(path)!r} cannot be read (it is no regular file; pass it opened)"
            )
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, exceptions.ReplicateException):
            raise
        reason = getattr(error, "strerror", None) or error
        raise exceptions.ArgumentError(
            argument, f"{os.fsdecode(file)!r} cannot be read ({reason})"
        ) from error
    return Source(
        argument,
        _clean(path.name),
        "",
        status.st_size,
        True,
        lambda: _OfPath(path),
        identity=_identity(status),
    )


def _identity(status: os.stat_result) -> tuple[int, ...] | None:
    if time.time_ns() - status.st_mtime_ns < _RACY:
        # It may be written to once more without a change of these.
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


_RACY: Final = 2 * 10**9


async def _of_reader(file: Any, argument: str) -> Source:
    """Look at something that can be read: it may be closed, of text, or fail at once."""
    if getattr(file, "closed", False) is True:
        raise exceptions.ArgumentError(argument, "the file is closed")
    mode = getattr(file, "mode", "b")
    if (
        isinstance(file, io.TextIOBase)
        or (isinstance(mode, str) and "b" not in mode and hasattr(file, "encoding"))
        or isinstance(getattr(file, "encoding", None), str)
    ):
        raise _text_mode(argument)
    try:
        return await _looked_at(file, argument)
    except exceptions.ReplicateException:
        raise
    except Exception as error:
        raise exceptions.ArgumentError(argument, f"it cannot be read ({error!r})") from error


async def _looked_at(file: Any, argument: str) -> Source:
    readable = getattr(file, "readable", None)
    if callable(readable) and not await _called(readable):
        raise exceptions.ArgumentError(argument, "the file is not open for reading")
    name = _given_name(file)
    if type(file) is io.BytesIO:
        return _in_memory(file.getvalue(), argument, name)
    real = _real(file)
    if real is not None:
        status = await in_thread(_status, real)
        if stat.S_ISREG(status.st_mode):
            # Read by positions, so that the caller's stays where it is.
            return Source(
                argument,
                name,
                "",
                status.st_size,
                True,
                lambda: _OfDescriptor(real),
                identity=_identity(status),
            )
    if isinstance(getattr(file, "url", None), str) and hasattr(type(file), "__aiter__"):
        # A `FileOutput` that is to be kept: from there to here, and on.
        return Source(argument, name, _given_type(file), None, True, lambda: _OfIterable(file))
    seekable = getattr(file, "seekable", None)
    can_seek = (
        bool(await _called(seekable))
        if callable(seekable)
        else callable(getattr(file, "seek", None))
    )
    if can_seek:
        position = await _position(file)
        size = await _size(file)
        reader = _OfObject(file, b"", position, seeks=True)
        start: object
        try:
            start = await reader.read(512)
        finally:
            await reader.close()
    else:
        size, position = None, None
        start = await _called(file.read, _CHUNK)
    if isinstance(start, str):
        raise _text_mode(argument)
    if not isinstance(start, (bytes, bytearray, memoryview)):
        raise exceptions.ArgumentTypeError(
            argument, f"its read() gives a {type(start).__name__}, and not bytes"
        )
    begins = bytes(start)
    if size is not None and (size == 0) != (not begins):
        size = None  # it does not know itself
    return Source(
        argument,
        name,
        _given_type(file) or sniff(begins) or "application/octet-stream",
        size,
        can_seek,
        lambda: _OfObject(file, begins, position, seeks=can_seek),
        shared=True,
    )


def _status(file: Any) -> os.stat_result:
    if isinstance(file, io.BufferedRandom):
        file.flush()
    return os.fstat(file.fileno())


def _real(file: Any) -> io.FileIO | io.BufferedReader | io.BufferedRandom | None:
    """Return the file on the disk that an object stands for and nothing else, if it does."""
    if not hasattr(os, "pread"):
        return None
    home = type(file).__module__
    if home == "tempfile":
        file = getattr(file, "file", None)
    elif home.startswith("aiofiles."):
        file = getattr(file, "_file", None)
    # Their subclasses may read in ways of their own; so do decompressing files.
    if type(file) is io.FileIO:
        return file
    if type(file) in (io.BufferedReader, io.BufferedRandom) and type(file.raw) is io.FileIO:
        found: io.BufferedReader | io.BufferedRandom = file
        return found
    return None


def _given_name(file: Any) -> str:
    # Files have a name; what is uploaded to web frameworks has, as `name`, that of the form's field.
    for attribute in ("name",) if isinstance(file, io.IOBase) else ("filename", "name"):
        given = getattr(file, attribute, None)
        if isinstance(given, (str, os.PathLike)) and not callable(given):
            name = re.split(r"[/\\]", os.fsdecode(given))[-1]
            if name and not name.startswith("<"):
                return _clean(name)
    return ""


def _given_type(file: Any) -> str:
    given = getattr(file, "content_type", None)
    if isinstance(given, str) and given != "application/octet-stream" and is_media_type(given):
        return given
    return ""


def is_media_type(text: str) -> bool:
    """Tell whether a text can stand in a `Content-Type`."""
    return bool(re.fullmatch(r"[!-.0-~]+/[!-~][ -~]*", text, re.ASCII)) and len(text) <= 255


def _clean(name: str) -> str:
    """Return a file name that the API takes: UTF-8 of no more than 255 bytes."""
    encoded = name.encode("utf-8", "replace")
    if len(encoded) > _LONGEST_NAME:
        suffix = Path(name).suffix.encode("utf-8", "replace")[:16]
        encoded = encoded[: _LONGEST_NAME - len(suffix)] + suffix
    return encoded.decode("utf-8", "ignore")


async def _position(file: Any) -> int | None:
    tell = getattr(file, "tell", None)
    if not callable(tell):
        return None
    found = await _called(tell)
    return found if isinstance(found, int) else None


async def _size(file: Any) -> int | None:
    try:
        await _called(file.seek, 0, os.SEEK_END)
    except TypeError:  # one that can only go to a place, such as Starlette's
        said = getattr(file, "size", None)
        return said if isinstance(said, int) and said >= 0 else None
    return await _position(file)


async def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a method gives: in a thread, or awaited."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    found = await in_thread(function, *arguments)
    return await found if inspect.isawaitable(found) else found


class _OfBytes:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    async def read(self, size: int) -> bytes:
        start = self._position
        self._position += size
        return self._content[start : self._position]

    async def close(self) -> None:
        return


class _OfPath:
    """Opens a file in a thread, which may outlast the task that wanted it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: io.BufferedReader | None = None
        self._wrapped: Any = None
        self._begun = False
        self._closed = False

    async def read(self, size: int) -> bytes:
        if self._wrapped is None:
            self._begun = True
            await in_thread(self._open)

            self._wrapped = wrap(self._file)
        chunk: bytes = await self._wrapped.read(size)
        return chunk

    def _open(self) -> None:
        with self._lock:
            if not self._closed:
                __import__("aiofiles.threadpool")
                self._file = self._path.open("rb")

    async def close(self) -> None:
        if self._begun:
            await shielded_in_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()  # waits for a read that is under way


class _OfDescriptor:
    """Reads an open file by positions, through a descriptor of its own: the caller may close theirs."""

    def __init__(self, file: io.FileIO | io.BufferedReader | io.BufferedRandom) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._position = 0
        self._begun = False
        self._closed = False

    async def read(self, size: int) -> bytes:
        self._begun = True
        return await in_thread(self._read, size)

    def _read(self, size: int) -> bytes:
        with self._lock:
            if self._closed:
                return b""
            if self._descriptor is None:
                self._descriptor = os.dup(self._file.fileno())
            chunk = os.pread(self._descriptor, size, self._position)
            self._position += len(chunk)
            return chunk

    async def close(self) -> None:
        if self._begun:
            await shielded_in_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class _OfObject:
    """Reads by the methods of an object, with or without `await`; puts it back where it stood."""

    def __init__(self, file: Any, start: bytes, position: int | None, *, seeks: bool) -> None:
        self._file = file
        self._start = start
        self._position = position
        self._seeks = seeks
        self._begun = False

    async def read(self, size: int) -> bytes:
        if not self._begun:
            self._begun = True
            if self._seeks:
                await _called(self._file.seek, 0)
            elif self._start:
                return self._start
            else:
                return b""
        chunk: bytes = await _called(self._file.read, size)
        return chunk

    async def close(self) -> None:
        if not (self._begun and self._seeks and self._position is not None):
            return
        seek, position = self._file.seek, self._position
        if not inspect.iscoroutinefunction(seek):

            def restore() -> None:
                with suppress(Exception):
                    seek(position)

            await shielded_in_thread(restore)
            return
        with suppress(Exception):
            await seek(position)


class _OfIterable:
    """Reads what gives its chunks by itself."""

    def __init__(self, file: Any) -> None:
        self._chunks = file.__aiter__()

    async def read(self, size: int) -> bytes:  # noqa: ARG002  (its chunks are as they come)
        return await anext(self._chunks, b"")

    async def close(self) -> None:
        close: Callable[[], Awaitable[None]] | None = getattr(self._chunks, "aclose", None)
        if close is not None:
            with suppress(RuntimeError):  # it is being read by a request that was cancelled
                await close()
