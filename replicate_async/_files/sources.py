"""Paths, bytes and readers behind one interface."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import re
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import attrs

from .. import exceptions
from .._concurrency import in_thread, shielded_in_thread
from .disk import opened
from .media import guess_extension, guess_type, sniff

MOST_BYTES: Final = 100 * 2**20
"""Bytes that an uploaded file may have (:api:`size-limits`)."""


CHUNK: Final = 2**20
"""Bytes that are read at once. With less, changing threads costs more than reading."""


_MAGIC_BYTES: Final = 512
"""Bytes at the beginning of a file from which its type is guessed."""


_MOST_NAME_BYTES: Final = 255
"""Bytes of a file name that the API takes (:api:`size-limits`)."""


RegularFile: TypeAlias = io.FileIO | io.BufferedReader | io.BufferedRandom
"""An open file on the disk."""


@attrs.define(eq=False, repr=False)
class Source:
    """A file that is to be sent."""

    argument: str
    """Where the caller gave it, such as `input.images[2]`."""
    name: str
    content_type: str
    read: Callable[[int], AsyncGenerator[Any, None]]
    """Yields the content from its beginning, in chunks of about so many bytes."""
    size: int | None = attrs.field(default=None, kw_only=True)
    """In bytes, if it can be known before it is read."""
    repeatable: bool = attrs.field(default=True, kw_only=True)
    """Whether it can be read a second time."""
    content: bytes | None = attrs.field(default=None, kw_only=True)
    """The content, if it is in memory."""
    identity: tuple[int, ...] | None = attrs.field(default=None, kw_only=True)
    """Tells a file on the disk, as it is now, from all others; None if only its content can."""
    shared: bool = attrs.field(default=False, kw_only=True)
    """Whether reading it moves a position that belongs to the caller."""
    digest: str | None = attrs.field(default=None, init=False)
    """The SHA-256 of the content, in hex digits, once it is known."""
    _digesting: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    async def chunks(self, size: int = CHUNK) -> AsyncGenerator[bytes, None]:
        """Yield the content, checking its length.

        Args:
            size: Bytes of a chunk, about.

        Raises:
            ArgumentError: It cannot be read, has changed its length, or is too large.
        """
        sent = 0
        async with aclosing(self.read(size)) as chunks:
            # Of a file that grows, what it had when it was looked at.
            while self.size is None or sent < self.size:
                chunk = await self._next(chunks)
                if not chunk:
                    break
                if self.size is not None:
                    chunk = chunk[: self.size - sent]
                sent += len(chunk)
                if sent > MOST_BYTES:
                    raise _too_large(self.argument, self.name, None)
                yield chunk
        if self.size is not None and sent != self.size:
            raise exceptions.ArgumentError(
                self.argument, f"{self.name} has changed while it was read"
            )

    async def _next(self, chunks: AsyncGenerator[Any, None]) -> bytes:
        try:
            chunk = await anext(chunks, b"")
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

    async def find_digest(self) -> str:
        """Return the SHA-256 of the content, computed in a thread."""
        async with self._digesting:
            if self.digest is None:
                found = hashlib.sha256()
                if self.content is not None:
                    await in_thread(found.update, self.content)
                else:
                    async with aclosing(self.chunks()) as chunks:
                        async for chunk in chunks:
                            await in_thread(found.update, chunk)
                self.digest = found.hexdigest()
            return self.digest


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
        return source.content[:_MAGIC_BYTES]
    async with aclosing(source.chunks(_MAGIC_BYTES)) as chunks:
        return await anext(chunks, b"")


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
        argument,
        name,
        "",
        partial(_bytes_chunks, content),
        size=len(content),
        content=content,
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
        partial(_path_chunks, path),
        size=status.st_size,
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
                partial(_descriptor_chunks, real),
                size=status.st_size,
                identity=_identity(status),
            )
    if isinstance(getattr(file, "url", None), str) and hasattr(type(file), "__aiter__"):
        # A `FileOutput` that is to be kept: from there to here, and on.
        return Source(argument, name, _given_type(file), lambda _: _output_chunks(file))
    seekable = getattr(file, "seekable", None)
    can_seek = (
        bool(await _called(seekable))
        if callable(seekable)
        else callable(getattr(file, "seek", None))
    )
    if can_seek:
        position = await _position(file)
        size = await _size(file)
        async with aclosing(_seekable_chunks(file, position, _MAGIC_BYTES)) as chunks:
            start = await anext(chunks)
    else:
        size = position = None
        start = await _called(file.read, CHUNK)
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
        partial(_seekable_chunks, file, position)
        if can_seek
        else partial(_object_chunks, file, begins),
        size=size,
        repeatable=can_seek,
        shared=True,
    )


def _status(file: Any) -> os.stat_result:
    if isinstance(file, io.BufferedRandom):
        file.flush()
    return os.fstat(file.fileno())


def _real(file: Any) -> RegularFile | None:
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
        found: RegularFile = file
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
    if len(encoded) > _MOST_NAME_BYTES:
        suffix = Path(name).suffix.encode("utf-8", "replace")[:16]
        encoded = encoded[: _MOST_NAME_BYTES - len(suffix)] + suffix
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


# The content of each kind of source, in chunks. What they yield is checked by `Source`.


async def _bytes_chunks(content: bytes, size: int) -> AsyncGenerator[Any, None]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _path_chunks(path: Path, size: int) -> AsyncGenerator[Any, None]:
    async with opened(path, "rb") as file:
        while chunk := await file.read(size):
            yield chunk


async def _descriptor_chunks(file: RegularFile, size: int) -> AsyncGenerator[Any, None]:
    """Read an open file by positions, which aiofiles cannot: the caller's position stays where it is.

    Through a descriptor of our own, since the caller may close theirs.
    """
    descriptor = os.dup(file.fileno())
    try:
        position = 0
        while chunk := await shielded_in_thread(os.pread, descriptor, size, position):
            position += len(chunk)
            yield chunk
    finally:
        await shielded_in_thread(os.close, descriptor)


async def _object_chunks(file: Any, start: bytes, size: int) -> AsyncGenerator[Any, None]:
    """Read by the method of an object, with or without `await`, after what was read of it before."""
    if start:
        yield start
        while True:
            yield await _called(file.read, size)


async def _seekable_chunks(file: Any, position: int | None, size: int) -> AsyncGenerator[Any, None]:
    """Read an object from its beginning, and put it back where it stood."""
    try:
        await _called(file.seek, 0)
        while True:
            yield await _called(file.read, size)
    finally:
        if position is not None:
            with suppress(Exception):
                if inspect.iscoroutinefunction(file.seek):
                    await file.seek(position)
                else:
                    await shielded_in_thread(file.seek, position)


async def _output_chunks(file: Any) -> AsyncGenerator[Any, None]:
    """Pass on the chunks of an output, as they come."""
    chunks = aiter(file)
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        if hasattr(chunks, "aclose"):
            await chunks.aclose()
