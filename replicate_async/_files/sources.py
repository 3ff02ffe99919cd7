"""Files to send: paths, bytes and readers behind one interface."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from .. import exceptions
from .._threads import in_thread, shielded_in_thread
from . import holders
from .disk import opened
from .media import SNIFFED, guess_extension, guess_type, sniff
from .pictures import is_picture, png_of
from .readers import ContentFacts, NotSeekable, SharedReader, call, shared_reader

MAX_BYTES: Final = 100 * 2**20
"""The maximum size of an uploaded file (:api:`size-limits`)."""

CHUNK: Final = 2**20
"""Bytes per read. With fewer, changing threads takes longer than reading."""

MAX_NAME_BYTES: Final = 255
"""The maximum length of a file name (:api:`size-limits`)."""

_RECENT_NS: Final = 2 * 10**9
"""Nanoseconds after a change of a file in which another change may not change its times."""

_MEDIA_TYPE: Final = re.compile(r"[!-.0-~]+/[!-~][ -~]*", re.ASCII)

_SEPARATOR: Final = re.compile(r"[/\\]")

RegularFile: TypeAlias = io.FileIO | io.BufferedReader | io.BufferedRandom
"""An open file on the disk."""


@attrs.define(eq=False, repr=False)
class Source:
    """A file to send."""

    argument: str
    """Where the caller passed it, such as `input.images[2]`."""
    name: str
    """The file name; empty if it has none."""
    content_type: str
    """The media type; empty if it is to be guessed."""
    read: Callable[[int], AsyncGenerator[Any, None]]
    """Yields the content from its beginning, in chunks of about this many bytes."""
    size: int | None = attrs.field(default=None, kw_only=True)
    """Size in bytes, if known before reading."""
    repeatable: bool = attrs.field(default=True, kw_only=True)
    """Whether it can be read more than once."""
    content: bytes | None = attrs.field(default=None, kw_only=True)
    """The content, if it is in memory."""
    identity: tuple[int, ...] | None = attrs.field(default=None, kw_only=True)
    """Identifies an unchanged file on the disk; None if only its content can."""
    reader: SharedReader | None = attrs.field(default=None, kw_only=True)
    """The reader of an object that has a position, or can be read only once."""
    facts: ContentFacts = attrs.field(factory=ContentFacts, kw_only=True)
    """What is known of the content."""

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the content in hex digits, once computed."""
        return self.facts.digest

    def release(self) -> None:
        """Note that the source is no longer used."""
        if self.reader is not None:
            self.reader.release()
            self.reader = None

    async def chunks(self, size: int = CHUNK) -> AsyncGenerator[bytes, None]:
        """Yield the content, and check its length.

        Args:
            size: Approximate number of bytes per chunk.

        Raises:
            ArgumentError: It cannot be read, has changed its length, or is too large.
        """
        sent = 0
        async with aclosing(self.read(size)) as chunks:
            # A file that grows meanwhile is sent with the length that was announced.
            while self.size is None or sent < self.size:
                chunk = await self._next(chunks)
                if not chunk:
                    break
                if self.size is not None:
                    chunk = chunk[: self.size - sent]
                sent += len(chunk)
                if sent > MAX_BYTES:
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
                self.argument, f"{self.name} cannot be read ({_shown(error)})"
            ) from error
        return _as_bytes(chunk, self.argument)

    async def find_digest(self) -> str:
        """Return the SHA-256 of the content in hex digits."""
        facts = self.facts
        async with facts.lock:
            if facts.digest is None:
                found, size = hashlib.sha256(), 0
                if self.content is not None:
                    await in_thread(found.update, self.content)
                    size = len(self.content)
                else:
                    async with aclosing(self.chunks()) as chunks:
                        async for chunk in chunks:
                            await in_thread(found.update, chunk)
                            size += len(chunk)
                facts.digest, facts.size = found.hexdigest(), size
            return facts.digest


async def source_of(
    file: Any, argument: str, *, name: str | None = None, content_type: str | None = None
) -> Source:
    """Return the source for a path, for bytes, or for an object that can be read.

    Call its `release` when it is no longer used.

    Args:
        file: The file, as the caller passed it.
        argument: Where the caller passed it.
        name: File name; by default that of the file.
        content_type: Media type; by default guessed from the name, or else from the first bytes.

    Raises:
        ArgumentError: It cannot be read, or is too large.
        ArgumentTypeError: It is not a file.
    """
    file = await _without_picture(file, argument)
    if isinstance(file, (bytes, bytearray, memoryview)):
        source = await in_thread(_from_bytes, file, argument)
    elif isinstance(file, holders.ModelFile) and hasattr(type(file), "__aiter__"):
        # A `FileOutput` that is to be kept: it is downloaded and uploaded at the same time.
        read = partial(_iterable_chunks, file)
        source = Source(argument, _name_of(file), _type_of(file), read)
    elif (inner := holders.inner_file(file)) is not None:
        source = await _from_reader(inner, argument)
        source.name = _name_of(file) or source.name
        source.content_type = _type_of(file) or source.content_type
    elif (load := holders.loader_of(file, MAX_BYTES)) is not None:
        source = await _from_loader(file, load, argument)
    elif isinstance(file, os.PathLike) and not hasattr(type(file), "read"):
        source = await in_thread(_from_path, file, argument)
    elif not holders.is_file(file):
        raise exceptions.ArgumentTypeError(
            argument,
            f"expected a path, bytes or an open file, got an object of type {type(file).__name__}",
        )
    else:
        source = await _from_reader(file, argument)
    try:
        await _complete(source, name, content_type)
    except BaseException:
        source.release()
        raise
    return source


async def _without_picture(file: Any, argument: str) -> Any:
    """Return a picture as the bytes of a PNG, and anything else as it is."""
    if not is_picture(file):
        return file
    try:
        return await in_thread(png_of, file)
    except Exception as error:
        raise exceptions.ArgumentError(
            argument, f"the picture cannot be written as PNG ({_shown(error)})"
        ) from error


async def _complete(source: Source, name: str | None, content_type: str | None) -> None:
    """Check the size, and find the name and the media type."""
    if source.size is not None and source.size > MAX_BYTES:
        raise _too_large(source.argument, source.name, source.size)
    source.name = name or source.name
    # In a thread, since `mimetypes` reads files of the system at its first use.
    kind = content_type or await in_thread(guess_type, source.name) or source.content_type or None
    kind = kind or sniff(await _first_bytes(source))
    source.name = source.name or f"file{guess_extension(kind)}"
    source.content_type = kind or "application/octet-stream"


async def digest_of(file: Any, argument: str) -> str:
    """Return the SHA-256 of a file in hex digits.

    Args:
        file: A path, bytes, or an object that can be read more than once.
        argument: Where the caller passed it.

    Raises:
        ArgumentError: It cannot be read, or is too large.
        ArgumentTypeError: It can be read only once.
    """
    reads_once = "it can be read only once; pass a path or bytes"
    file = await _without_picture(file, argument)
    if holders.loader_of(file, MAX_BYTES) is not None:
        if not holders.can_load_again(file):
            raise exceptions.ArgumentTypeError(argument, reads_once)
    elif not isinstance(file, (bytes, bytearray, memoryview, os.PathLike)):
        inner = holders.inner_file(file) or file
        try:
            can_repeat = _regular_file(inner) is not None or await _can_seek(inner)
        except Exception as error:
            raise exceptions.ArgumentError(
                argument, f"it cannot be read ({_shown(error)})"
            ) from error
        if not can_repeat:
            raise exceptions.ArgumentTypeError(argument, reads_once)
    source = await source_of(file, argument)
    try:
        if not source.repeatable:
            raise exceptions.ArgumentTypeError(argument, reads_once)
        return await source.find_digest()
    finally:
        source.release()


async def _first_bytes(source: Source) -> bytes:
    if source.content is not None:
        return source.content[:SNIFFED]
    async with aclosing(source.chunks(SNIFFED)) as chunks:
        return await anext(chunks, b"")


def is_media_type(text: str) -> bool:
    """Return whether a text can be the value of a `Content-Type` header."""
    return _MEDIA_TYPE.fullmatch(text) is not None and len(text) <= 255


# -- Errors ------------------------------------------------------------------------------------


def _as_bytes(chunk: object, argument: str) -> bytes:
    """Return what a `read` method returned, if it is bytes."""
    if isinstance(chunk, str):
        raise _text_mode(argument)
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise exceptions.ArgumentTypeError(
            argument, f"its read() must return bytes, not {type(chunk).__name__}"
        )
    return bytes(chunk)


def _too_large(argument: str, name: str, size: int | None) -> exceptions.ArgumentError:
    has = "more than 100 MiB" if size is None else f"{size} bytes"
    return exceptions.ArgumentError(
        argument,
        f"{name or 'the file'} has {has}; the API accepts up to {MAX_BYTES} bytes (100 MiB)."
        " Upload it somewhere the model can fetch it from, and pass its https URL",
    )


def _shown(error: Exception) -> str:
    """Return a short text about an exception. The text of a UnicodeDecodeError contains the whole content."""
    text = str(error) if isinstance(error, OSError) and error.filename else repr(error)
    return text if len(text) <= 300 else f"{type(error).__name__}: {str(error)[:200]}"


def _text_mode(argument: str, file: Any = None) -> exceptions.ArgumentError:
    reason = "the file is open in text mode; open it with 'rb'"
    if isinstance(file, io.StringIO):
        reason = (
            "it holds text: pass its getvalue(), which is sent as text; or, for a file, bytes or a file"
            " that is opened with 'rb'"
        )
    return exceptions.ArgumentError(argument, reason)


def _closed(file: Any, argument: str) -> exceptions.ArgumentError:
    name = _attribute(file, "name")
    instead = f"pathlib.Path({name!r})" if isinstance(name, str) and name else "its content"
    return exceptions.ArgumentError(
        argument, f"the file is closed; pass {instead}, or keep it open until the call has ended"
    )


def _nothing_left(argument: str) -> exceptions.ArgumentError:
    return exceptions.ArgumentError(
        argument,
        "it has no content to read: it was read before, is closed, or is empty. Keep its content, and pass that",
    )


def _unreadable(argument: str, file: os.PathLike[Any], reason: object) -> exceptions.ArgumentError:
    return exceptions.ArgumentError(argument, f"{os.fsdecode(file)!r} cannot be read ({reason})")


# -- Bytes and paths ---------------------------------------------------------------------------


def _from_bytes(file: bytes | bytearray | memoryview, argument: str) -> Source:
    size = file.nbytes if isinstance(file, memoryview) else len(file)
    if size > MAX_BYTES:
        raise _too_large(argument, "", size)
    # Mutable buffers are copied: the caller may change them meanwhile.
    return _in_memory(bytes(file), argument, "")


def _in_memory(content: bytes, argument: str, name: str) -> Source:
    read = partial(_bytes_chunks, content)
    return Source(argument, name, "", read, size=len(content), content=content)


async def _bytes_chunks(content: bytes, size: int) -> AsyncGenerator[Any, None]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def _from_path(file: os.PathLike[Any], argument: str) -> Source:
    try:
        path = Path(os.fsdecode(file))
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _unreadable(argument, file, "it is a directory")
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe, or reading a device, may never end.
            raise _unreadable(argument, file, "it is not a regular file; pass it opened")
        with path.open("rb") as opened_file:
            # Files whose content the system makes while they are read, as in /proc, have the size 0.
            size = status.st_size or (None if opened_file.read(1) else 0)
    except exceptions.ReplicateException:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _unreadable(argument, file, reason) from error
    return Source(
        argument,
        _api_name(path.name),
        "",
        partial(_path_chunks, path),
        size=size,
        identity=_identity(status),
    )


async def _path_chunks(path: Path, size: int) -> AsyncGenerator[Any, None]:
    async with opened(path, "rb") as file:
        while chunk := await file.read(size):
            yield chunk


def _identity(status: os.stat_result) -> tuple[int, ...] | None:
    if time.time_ns() - status.st_mtime_ns < _RECENT_NS:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _api_name(name: str) -> str:
    """Return a file name that the API accepts: UTF-8 of at most 255 bytes."""
    encoded = name.encode("utf-8", "replace")
    if len(encoded) > MAX_NAME_BYTES:
        suffix = Path(name).suffix.encode("utf-8", "replace")[:16]
        encoded = encoded[: MAX_NAME_BYTES - len(suffix)] + suffix
    return encoded.decode("utf-8", "ignore")


# -- Objects with a `read` method --------------------------------------------------------------


async def _from_loader(file: Any, load: holders.Load, argument: str) -> Source:
    """Return the source for an object whose content is read at once."""
    _check_response(file, argument)
    reader = shared_reader(file)
    try:
        content = await reader.load(load, argument)
        if not content and holders.is_response(file) and holders.announced_size(file):
            raise holders.NothingLeft
    except holders.NothingLeft:
        raise _nothing_left(argument) from None
    except holders.Unfit as error:
        raise exceptions.ArgumentError(argument, str(error)) from None
    except exceptions.ReplicateException:
        raise
    except Exception as error:
        raise exceptions.ArgumentError(argument, f"it cannot be read ({_shown(error)})") from error
    finally:
        reader.release()
    if len(content) > MAX_BYTES:
        raise _too_large(argument, _name_of(file), None)
    source = _in_memory(content, argument, _name_of(file))
    source.content_type = _type_of(file)
    return source


async def _from_reader(file: Any, argument: str) -> Source:
    """Return the source for an object that can be read.

    Raises:
        ArgumentError: It is closed, or open in text mode, or cannot be read.
    """
    try:
        if holders.opens_when_looked_at(file):
            await in_thread(_check_reader, file, argument)
        else:
            _check_reader(file, argument)
        readable = getattr(file, "readable", None)
        if callable(readable) and not await call(readable):
            raise exceptions.ArgumentError(argument, "the file is not open for reading")
        if type(file) is io.BytesIO:
            return _in_memory(file.getvalue(), argument, _name_of(file))
        source = await _from_regular_file(file, argument)
        if source is not None:
            return source
        return await _from_shared(file, argument)
    except exceptions.ReplicateException:
        raise
    except Exception as error:
        raise exceptions.ArgumentError(argument, f"it cannot be read ({_shown(error)})") from error


def _check_reader(file: Any, argument: str) -> None:
    """Refuse an object that is closed, or open in text mode, or the response to a request that failed."""
    if getattr(file, "closed", False) is True:
        raise _closed(file, argument)
    if getattr(getattr(file, "file", None), "closed", False) is True:
        # Web frameworks close uploads when the request has been answered.
        raise exceptions.ArgumentError(
            argument,
            "the upload is closed, as happens at the end of its request; read it before, and pass its content",
        )
    if holders.is_response(file):
        _check_response(file, argument)
        has_ended = getattr(file, "isclosed", None)
        if callable(has_ended) and has_ended() and holders.announced_size(file) != 0:
            raise _nothing_left(argument)
        return
    mode = getattr(file, "mode", "b")
    if (
        isinstance(file, io.TextIOBase)
        or (isinstance(mode, str) and "b" not in mode and hasattr(file, "encoding"))
        or isinstance(getattr(file, "encoding", None), str)
    ):
        raise _text_mode(argument, file)


def _check_response(file: Any, argument: str) -> None:
    if not holders.is_response(file):
        return
    status = holders.error_status(file)
    if status is not None:
        raise exceptions.ArgumentError(
            argument,
            f"the response is an error of its server (status {status}), not a file. Check its status first",
        )
    size = holders.announced_size(file)
    if size is not None and size > MAX_BYTES:
        raise _too_large(argument, _name_of(file), size)


async def _from_regular_file(file: Any, argument: str) -> Source | None:
    """Return the source for an object that reads a file on the disk as it is; None for any other object."""
    if (opened_file := _regular_file(file)) is None:
        return None
    status = await in_thread(_stat, opened_file)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:  # as of those in /proc
        return None
    return Source(
        argument,
        _name_of(file),
        "",
        partial(_positional_chunks, opened_file),
        size=status.st_size,
        identity=_identity(status),
    )


def _regular_file(file: Any) -> RegularFile | None:
    if not hasattr(os, "pread"):
        return None
    home = type(file).__module__
    if home == "tempfile":
        file = getattr(file, "file", None)
    elif home.startswith("aiofiles."):
        file = getattr(file, "_file", None)
    # No subclasses: they may read in other ways, as files do that decompress.
    if type(file) is io.FileIO:
        return file
    if type(file) in (io.BufferedReader, io.BufferedRandom) and type(file.raw) is io.FileIO:
        found: RegularFile = file
        return found
    return None


def _stat(file: RegularFile) -> os.stat_result:
    if isinstance(file, io.BufferedRandom):
        file.flush()
    return os.fstat(file.fileno())


async def _positional_chunks(file: RegularFile, size: int) -> AsyncGenerator[Any, None]:
    """Read without moving the position of the caller's file, which aiofiles cannot. The caller may close the file."""
    descriptor = os.dup(file.fileno())
    try:
        position = 0
        while chunk := await shielded_in_thread(os.pread, descriptor, size, position):
            position += len(chunk)
            yield chunk
    finally:
        await shielded_in_thread(os.close, descriptor)


async def _iterable_chunks(
    file: Any,
    size: int,  # noqa: ARG001  (its chunks have their own sizes)
) -> AsyncGenerator[Any, None]:
    chunks = aiter(file)
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        if hasattr(chunks, "aclose"):
            await chunks.aclose()


async def _can_seek(file: Any) -> bool:
    seekable = getattr(file, "seekable", None)
    if callable(seekable):
        return bool(await call(seekable))
    return callable(getattr(file, "seek", None))


async def _from_shared(file: Any, argument: str) -> Source:
    """Return the source for an object that has a position, or can be read only once."""
    reader = shared_reader(file)
    try:
        can_seek = await _can_seek(file)
        if can_seek:
            try:
                await reader.inspect(SNIFFED)
            except NotSeekable:
                can_seek = False
        if not can_seek:
            await reader.begin_stream(CHUNK, argument)
        start = _as_bytes(reader.start, argument)
    except BaseException:
        reader.release()
        raise
    size = reader.size
    if (size == 0) != (not start):
        size = None  # it does not know its size
    return Source(
        argument,
        _name_of(file),
        _type_of(file) or sniff(start) or "application/octet-stream",
        reader.chunks if can_seek else lambda size: reader.rest(size, argument),
        size=size,
        repeatable=can_seek,
        reader=reader,
        facts=reader.facts,
    )


def _name_of(file: Any) -> str:
    # In uploads to web frameworks, `name` is that of the form's field, and `filename` that of the file.
    attributes = ("name",) if isinstance(file, io.IOBase) else ("filename", "name")
    given = [_attribute(file, attribute) for attribute in attributes]
    given += [_attribute(file, "path"), *holders.names_of(file)] if not any(given) else []
    for one in given:
        if isinstance(one, (str, os.PathLike)):
            name = _SEPARATOR.split(os.fsdecode(one))[-1]
            if name and not name.startswith("<"):
                return _api_name(name)
    return ""


def _attribute(file: Any, name: str) -> Any:
    try:
        return getattr(file, name, None)
    except Exception:  # noqa: BLE001  (a property may raise anything)
        return None


def _type_of(file: Any) -> str:
    given = _attribute(file, "content_type") or holders.header(file, "Content-Type")
    if isinstance(given, str):
        kind = given.partition(";")[0].strip()
        if kind not in ("application/octet-stream", "binary/octet-stream") and is_media_type(kind):
            return given if is_media_type(given) else kind
    return ""
