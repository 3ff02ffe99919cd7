"""Inputs of models as JSON: finding the files in them, and uploading or inlining them."""

from __future__ import annotations

import asyncio
import binascii
import copy
import dataclasses
import hashlib
import inspect
import io
import logging
import math
import os
import re
import stat
import threading
import time
import uuid
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import date, datetime
from datetime import time as time_of_day
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol
from urllib.parse import quote

import attrs

from . import _policy, exceptions
from ._codec import encode_json
from ._concurrency import for_each, in_thread, surely_in_thread
from ._media import guess_extension, guess_type, sniff
from ._policy import Kind
from ._transport import LARGE, Answer, Body, Call, Transport
from .types import FileEncodingStrategy, Record

if TYPE_CHECKING:
    from .types import File

_logger = logging.getLogger("replicate_async")

MOST_BYTES: Final = 100 * 2**20
"""What an uploaded file may have (HTTP API, section 3.2)."""

_CHUNK: Final = 2**20
"""Bytes that are read in one go: less costs more changes of threads, more costs memory."""
_ENCODED: Final = 3 * 2**17
"""Bytes that become base64 in one go, which holds the interpreter's lock; a multiple of three."""
_AT_ONCE: Final = 16
"""Uploads of one input at a time."""
_MANY: Final = 5000
"""Items of one list from which on a thread copies the input."""
_LONGEST_NAME: Final = 255
"""Bytes of a file name (HTTP API, section 3.2)."""


# -- Inputs ------------------------------------------------------------------------------------


async def encode_input(
    value: Mapping[str, Any] | None,
    transport: Transport,
    strategy: FileEncodingStrategy,
    uploads: Uploads,
) -> tuple[dict[str, Any], bool]:
    """Return an input as JSON-like data of its own, its files uploaded or inlined.

    With it, whether turning it into JSON takes so long that a thread should do it.

    Raises:
        ArgumentError: A file cannot be read, or is too large; the message names its key.
        ArgumentTypeError: Something in it cannot be sent.
    """
    if strategy != "url":
        _policy.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    if value is None:
        return {}, False
    if not isinstance(value, Mapping):
        raise exceptions.ArgumentTypeError(
            "input", f"expected a mapping, got {type(value).__name__}"
        )
    walk = _Walk()
    try:
        encoded = walk.input(value)
    except _TooMuch:
        walk = _Walk(walk.used_up)
        encoded = await in_thread(walk.input, value)
    if walk.files:
        # Each object once, wherever it stands; and all of them are looked at before any is sent.
        files = {id(place.file): place for place in walk.files}
        sources = await for_each(
            lambda place: source_of(place.file, place.path), list(files.values()), at_once=_AT_ONCE
        )

        async def send(source: Source) -> str:
            if strategy == "url":
                return await uploads.url(transport, source)
            return await data_uri(source)

        urls = dict(zip(files, await for_each(send, sources, at_once=_AT_ONCE), strict=True))
        for place in walk.files:
            url = place.container[place.key] = urls[id(place.file)]
            walk.size += len(url)
    return encoded, walk.size > LARGE


@attrs.frozen
class _Place:
    """Where in an input there is a file."""

    container: Any
    key: Any
    path: str
    file: Any


class _TooMuch(Exception):
    """There is more than should be copied on the event loop."""


class _Walk:
    """Copies an input into JSON-like data, and notes its files and its size."""

    def __init__(self, used_up: dict[int, tuple[Any, list[Any]]] | None = None) -> None:
        self.files: list[_Place] = []
        self.size = 0
        """About how many bytes of JSON it will be."""
        self.used_up = used_up or {}
        """What iterators gave, in case that all is to be copied once more."""
        self._most = _MANY if used_up is None else math.inf

    def input(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the copy of a whole input."""
        encoded: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError("input", f"the key {key!r} is no string")
            try:
                self._place(encoded, key, item, "input")
            except RecursionError:
                raise exceptions.ArgumentError(
                    f"input.{key}", "it is nested too deeply, or contains itself"
                ) from None
        return encoded

    def _place(self, container: Any, key: Any, value: Any, path: str) -> None:
        """Put the copy of a value, or room for a file's URL, into its container."""
        kind = value.__class__
        if kind is str:
            self.size += len(value)
            container[key] = value
        elif kind is int or kind is bool or value is None:
            container[key] = value
        elif isinstance(value, Enum):
            self._place(container, key, value.value, path)
        else:
            path = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
            if kind is not float and kind is not list and kind is not dict and is_file(value):
                container[key] = None
                self.files.append(_Place(container, key, path, value))
            else:
                container[key] = self._copy(value, path)

    def _copy(self, value: Any, path: str) -> Any:
        self.size += 16
        match value:
            case float():
                if not math.isfinite(value):
                    raise exceptions.ArgumentError(path, f"JSON has no {value!r}")
                return float(value)
            case str():
                self.size += len(value)
                return str.__str__(value)
            case int():
                return int(value)
            case datetime() | date() | time_of_day():
                return value.isoformat()
            case uuid.UUID():
                return str(value)
            case Mapping():
                return self._object(value.items(), path)
            case AbstractSet() | KeysView():
                return self._array(_in_order(value), path)
            case Iterator():
                if id(value) not in self.used_up:
                    self.used_up[id(value)] = value, list(value)
                return self._array(self.used_up[id(value)][1], path)
            case Sequence() | deque() | ValuesView():
                return self._array(value, path)
            case Record():
                from .types import File

                if isinstance(value, File):
                    return value.urls.get or _unsendable(path, value, "it has no URL")
                _unsendable(path, value, "pass what is in it, such as its output")
        if isinstance(value, type):
            _unsendable(path, value, "it is a class")
        if (url := url_of(value)) is not None:
            return url  # a file that a model made: it is there already
        if attrs.has(type(value)):
            fields = [field.name for field in attrs.fields(type(value))]
            return self._object(((name, getattr(value, name)) for name in fields), path)
        if dataclasses.is_dataclass(value):
            fields = [field.name for field in dataclasses.fields(value)]
            return self._object(((name, getattr(value, name)) for name in fields), path)
        if callable(getattr(value, "tolist", None)):  # arrays and scalars of NumPy and its kin
            if (size := getattr(value, "size", 0)).__class__ is int and size > self._most:
                raise _TooMuch
            found = value.tolist()
            return found if found is None or found.__class__ is bool else self._copy(found, path)
        return _unsendable(
            path, value, "pass numbers, strings, lists, dicts, bytes, a path or an open file"
        )

    def _object(self, items: Any, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in items:
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError(path, f"the key {key!r} is no string")
            self._place(made, str.__str__(key), item, path)
        if len(made) > self._most:
            raise _TooMuch
        return made

    def _array(self, values: Any, path: str) -> list[Any]:
        if len(values) > self._most:
            raise _TooMuch
        items: list[Any] = [None] * len(values)
        for index, item in enumerate(values):
            self._place(items, index, item, path)
        return items


def _in_order(values: Any) -> list[Any]:
    """Return a set as a list, the same one for equal sets where its items can be compared."""
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _unsendable(path: str, value: object, reason: str) -> NoReturn:
    raise exceptions.ArgumentTypeError(path, f"a {type(value).__name__} cannot be sent ({reason})")


def url_of(value: object) -> str | None:
    """Return the URL of a file that is on the web already: a `FileOutput`, or what looks like one."""
    if not hasattr(type(value), "read"):
        return None
    try:
        url = getattr(value, "url", None)
    except Exception:  # a property of somebody's class  # noqa: BLE001
        return None
    if isinstance(url, str) and url[:8].lower().startswith(("https://", "http://", "data:")):
        return url
    return None


def is_file(value: Any) -> bool:
    """Tell whether a value is the content of a file, or leads to it."""
    if isinstance(value, (bytes, bytearray, memoryview, os.PathLike)):
        return True
    try:
        reads = callable(getattr(value, "read", None))
    except Exception:  # a property of somebody's class  # noqa: BLE001
        return False
    return reads and not isinstance(value, type) and url_of(value) is None


# -- Sources: what is to be sent of a file -----------------------------------------------------


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
            from aiofiles.threadpool import wrap

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
            await surely_in_thread(self._close)

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
            await surely_in_thread(self._close)

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

            await surely_in_thread(restore)
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


# -- Inlining and uploading --------------------------------------------------------------------


async def data_uri(source: Source) -> str:
    """Return a source as a data URI (HTTP API, section 7.7)."""
    encoded = io.BytesIO()
    encoded.write(f"data:{source.content_type};base64,".encode())
    left = b""
    readers: list[_Reader] = []
    try:
        async for chunk in source.chunks(readers):
            data = left + chunk if left else chunk
            whole = len(data) // 3 * 3
            for start in range(0, whole, _ENCODED):
                piece = data[start : min(start + _ENCODED, whole)]
                encoded.write(await in_thread(_base64, piece))
            left = data[whole:]
    finally:
        for reader in readers:
            await reader.close()
    encoded.write(_base64(left))
    return await in_thread(lambda: encoded.getvalue().decode("ascii"))


def _base64(content: bytes) -> bytes:
    return binascii.b2a_base64(content, newline=False)


async def upload(
    transport: Transport,
    source: Source,
    metadata: Mapping[str, Any] | None = None,
    *,
    kind: Kind = Kind.WRITE,
) -> Answer:
    """Upload a source as `multipart/form-data` (HTTP API, section 7.2).

    Raises:
        ArgumentError: It could not be read to its end.
        ReplicateError: The API refuses it.
        TransportError: There was no answer.
    """
    boundary = uuid.uuid4().hex
    name = source.name.replace("\\", "%5C").replace('"', "%22")
    name = re.sub(r"[\x00-\x1f\x7f]", "_", name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n'
        f"Content-Type: {source.content_type}\r\n\r\n"
    ).encode("utf-8", "replace")
    tail = b""
    if metadata:
        tail = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            "Content-Type: application/json\r\n\r\n"
        ).encode() + encode_json(dict(metadata))
    tail += f"\r\n--{boundary}--\r\n".encode()
    # Closed here: what sends the body may be cancelled in the middle of it.
    readers: list[_Reader] = []
    broken: list[Exception] = []

    async def parts() -> AsyncIterator[bytes]:
        yield head
        try:
            async for chunk in source.chunks(readers):
                yield chunk
        except Exception as error:
            broken.append(error)
            body.repeatable = False
            raise
        yield tail

    length = None if source.size is None else len(head) + source.size + len(tail)
    body = Body(length, parts, source.repeatable)
    call = Call(
        "POST",
        "/files",
        kind,
        content=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    from .types import File

    try:
        return await transport.send(call, File)
    except exceptions.ReplicateException:
        if broken:
            raise broken[0] from None
        raise
    finally:
        for reader in readers:
            await reader.close()


# -- Each content once -------------------------------------------------------------------------

_LIFE: Final = 24 * 3600.0
"""Seconds that an uploaded file lives (HTTP API, section 3.3), unless its record says otherwise."""
_MARGIN: Final = 3600.0
"""Seconds before its end after which it is not used any more: predictions wait in queues."""
_MOST_REMEMBERED: Final = 1024

_Group = tuple[str, str, int, str]
"""Base URL, token, size and media type: only within these are uploads the same."""


@attrs.frozen(eq=False, repr=False)
class _Uploaded:
    """A file that the API has."""

    id: str
    url: str
    group: _Group
    digest: str | None
    identity: tuple[int, ...] | None
    until: tuple[float, float]
    """The end of its use, by the monotonic clock and by that on the wall."""


@attrs.define(eq=False, repr=False)
class _Flight:
    """An upload under way, which others with the same content wait for."""

    loop: asyncio.AbstractEventLoop
    group: _Group
    source: Source
    landed: asyncio.Event = attrs.field(factory=asyncio.Event)
    url: str | None = None
    failure: exceptions.ReplicateException | None = None


class Uploads:
    """What a client and its views have uploaded, so that one content is uploaded once while it lives.

    The first that comes with a content uploads it, in its own task; the others wait for it. If it is
    cancelled, the next one takes over: there are no tasks that belong to nobody.

    What is told apart by size and type needs no hash, nor does a file that is on the disk unchanged. Else
    both contents are hashed, one of them perhaps by the server.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._known: dict[_Group, list[_Uploaded]] = {}
        self._order: deque[_Uploaded] = deque()
        self._flights: list[_Flight] = []

    async def url(self, transport: Transport, source: Source) -> str:
        """Return the URL that stands for a source in an input; upload it unless that was done.

        Raises:
            ArgumentError: It cannot be read.
            ReplicateError: The API refuses it.
            TransportError: There was no answer.
        """
        if source.size is None or not source.repeatable:
            return _url(transport, (await upload(transport, source, kind=Kind.READ)).data)
        group = (
            transport.config.base_url,
            transport.token(),
            source.size,
            source.content_type,
        )
        while True:
            before, flight = await self._same(group, source)
            if before is not None:
                return before.url
            if flight is None:
                return await self._fly(transport, group, source)
            await flight.landed.wait()
            if flight.url is not None:
                return flight.url
            if flight.failure is not None:
                raise copy.copy(flight.failure) from flight.failure

    def forget(self, id: str) -> None:
        """Note that a file was deleted."""
        with self._lock:
            for uploaded in [found for found in self._order if found.id == id]:
                self._drop(uploaded)

    async def _same(self, group: _Group, source: Source) -> tuple[_Uploaded | None, _Flight | None]:
        """Return the file that has this content, or the upload under way of it.

        Between the last `await` and the return nothing happens, so that what it finds is still so.
        """
        while True:
            known = self._alive(group)
            for uploaded in known:
                if source.identity is not None and uploaded.identity == source.identity:
                    return uploaded, None
                if source.digest is not None and uploaded.digest == source.digest:
                    return uploaded, None
            loop = asyncio.get_running_loop()
            flights = [
                flight for flight in self._flights if flight.loop is loop and flight.group == group
            ]
            unclear: _Flight | None = None
            for flight in flights:
                same = _are_same(flight.source, source)
                if same:
                    return None, flight
                if same is None:
                    unclear = unclear or flight
            if source.digest is None and (unclear or any(found.digest for found in known)):
                await source.find_digest()
            elif unclear is None:
                return None, None
            elif unclear.source.shared:
                return None, unclear  # it cannot be read twice at a time: wait what comes of it
            else:
                try:
                    await unclear.source.find_digest()
                except exceptions.ArgumentError:
                    return None, unclear  # that will end soon

    async def _fly(self, transport: Transport, group: _Group, source: Source) -> str:
        flight = _Flight(asyncio.get_running_loop(), group, source)
        self._flights.append(flight)
        began = self._clock(), self._wall()
        try:
            made: File = (await upload(transport, source, kind=Kind.READ)).data
            url = flight.url = _url(transport, made)
            said = made.checksums.get("sha256")
            digest = said.lower() if isinstance(said, str) and len(said) == 64 else None
            if (digest or source.digest or source.identity) is None and not source.shared:
                with suppress(exceptions.ArgumentError):
                    await source.find_digest()
            if digest is None or source.digest in (None, digest):
                life = _life(made)
                self._remember(
                    _Uploaded(
                        made.id,
                        url,
                        group,
                        source.digest or digest,
                        source.identity,
                        (began[0] + life, began[1] + life),
                    )
                )
            return url
        except (exceptions.ReplicateError, exceptions.TransportError) as error:
            flight.failure = error
            raise
        finally:
            self._flights.remove(flight)
            flight.landed.set()

    def _alive(self, group: _Group) -> list[_Uploaded]:
        now, wall = self._clock(), self._wall()
        with self._lock:
            for uploaded in list(self._known.get(group, ())):
                # Both clocks: one stands still while the machine sleeps, the other may be set.
                if uploaded.until[0] <= now or uploaded.until[1] <= wall:
                    self._drop(uploaded)
            return list(self._known.get(group, ()))

    def _remember(self, uploaded: _Uploaded) -> None:
        with self._lock:
            self._known.setdefault(uploaded.group, []).append(uploaded)
            self._order.append(uploaded)
            while len(self._order) > _MOST_REMEMBERED:
                self._drop(self._order[0])

    def _drop(self, uploaded: _Uploaded) -> None:
        self._order.remove(uploaded)
        group = self._known[uploaded.group]
        group.remove(uploaded)
        if not group:
            del self._known[uploaded.group]


def _are_same(one: Source, other: Source) -> bool | None:
    """Tell whether two sources of the same size have the same content; None: that is not known."""
    if one is other or (one.content is not None and one.content is other.content):
        return True
    if one.identity is not None and one.identity == other.identity:
        return True
    if one.digest is None or other.digest is None:
        return None
    return one.digest == other.digest


def _life(made: File) -> float:
    """Return for how many seconds an uploaded file may be used, by the clock that made its dates."""
    life = _LIFE
    if made.created_at is not None and made.expires_at is not None:
        life = max((made.expires_at - made.created_at).total_seconds(), 0.0)
    return life - min(_MARGIN, life / 2)


def _url(transport: Transport, made: File) -> str:
    if made.urls.get is None:
        # The API builds it from the id (HTTP API, section 7.1).
        return transport.url_of(Call("GET", f"/files/{quote(made.id, safe='')}"))
    return made.urls.get
