"""Objects that hold one file and have no `read(size)`: HTTP responses, parts of forms, entries of archives.

They are recognised by what their classes offer, since none of their libraries is imported here, except aiohttp.
"""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from email.message import Message
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from .._http.call import BodyPartReader, ClientResponse
from .._threads import in_own_thread
from .pictures import is_picture

Load: TypeAlias = Callable[[], Awaitable[bytes]]
"""Reads the whole content of an object, or a little more than the limit if it is larger."""

_BLOCKS: Final = (bytes, bytearray, memoryview)

_NAMES: Final = frozenset({"file", "filename", "filenames", "key", "member", "name", "path"})
"""Names of the first parameter of a `read` that reads one of several files."""


class ModelFile:
    """The base of output files. As inputs, they are sent as their `url`, not as their content."""

    __slots__ = ()


# -- What is a file ----------------------------------------------------------------------------


def is_file(value: Any) -> bool:
    """Return whether an object is a file: bytes, a path, a picture, or an object that can be read or holds one.

    A property of a file may open it when it is accessed, so it is not accessed if the class is sufficient.
    """
    if isinstance(value, (*_BLOCKS, os.PathLike)):
        return True
    if isinstance(value, type):
        return False
    return (
        _has_read(value)
        or inner_file(value) is not None
        or _is_loaded_as_a_whole(value)
        or is_picture(value)
    )


def _has_read(value: Any) -> bool:
    cls = type(value)
    found = inspect.getattr_static(cls, "read", None)
    if inspect.isroutine(found):
        return not (_reads_by_name(cls) or _is_request(cls))
    if isinstance(found, property):
        # As in Django's files, where accessing the property opens the file.
        return any(hasattr(cls, name) for name in ("seek", "readable", "readinto", "close"))
    try:
        return callable(getattr(value, "read", None))
    except Exception:  # noqa: BLE001  (a property may raise anything)
        return False


def _reads_by_name(cls: Any) -> bool:
    """Return whether `read` needs the name of a file, as that of an archive: the object has files, but is none."""
    try:
        first = list(inspect.signature(cls.read).parameters.values())[1]
    except (AttributeError, IndexError, TypeError, ValueError):
        return False
    return first.default is first.empty and first.name in _NAMES


def _is_request(cls: type) -> bool:
    """Return whether objects of a class are requests, as those of httpx and aiohttp, whose `read` returns their body."""
    return cls.__name__.endswith("Request") and _needs_nothing(cls, "read")


def opens_when_looked_at(file: Any) -> bool:
    """Return whether `read` is not a plain method, so that accessing it may open a file."""
    return not inspect.isroutine(inspect.getattr_static(type(file), "read", None))


def inner_file(value: Any) -> Any:
    """Return the open file in an upload that cannot be read itself, such as aiohttp's `FileField`."""
    if hasattr(type(value), "read"):
        return None
    try:
        if isinstance(value, (tuple, dict)) and (parsed := _parsed_file(value)) is not None:
            return parsed
        found = getattr(value, "file", None)
        is_upload = isinstance(getattr(value, "filename", None), str)
        return found if is_upload and callable(getattr(found, "read", None)) else None
    except Exception:  # noqa: BLE001  (a property may raise anything)
        return None


def _parsed_file(value: Any) -> io.BytesIO | None:
    """Return the content of an upload that is a named tuple or a dict, as those of Sanic and Tornado."""
    if type(value) in (tuple, dict):
        return None
    body, kind, name = (
        next((found for each in names if (found := getattr(value, each, None)) is not None), None)
        for names in (("body",), ("content_type", "type"), ("filename", "name"))
    )
    if isinstance(body, bytes) and isinstance(kind, str) and isinstance(name, str):
        return io.BytesIO(body)
    return None


def _is_loaded_as_a_whole(value: Any) -> bool:
    cls = type(value)
    return _is_requests(cls) or _is_path_like(cls)


def _is_requests(cls: type) -> bool:
    return hasattr(cls, "iter_content") and hasattr(cls, "raise_for_status")


def _is_httpx(cls: type) -> bool:
    return hasattr(cls, "aiter_bytes") and hasattr(cls, "iter_bytes")


def _is_urllib3(cls: type) -> bool:
    return hasattr(cls, "data") and hasattr(cls, "drain_conn")


def _is_path_like(cls: type) -> bool:
    """Return whether objects of a class are entries of archives or of packages, or files of fsspec that are not open."""
    if hasattr(cls, "__fspath__") and not cls.__module__.startswith("fsspec."):
        return False
    # The `read_bytes` of a whole file system needs a path.
    is_entry = _needs_nothing(cls, "read_bytes") and hasattr(cls, "open")
    return not hasattr(cls, "read") and (is_entry or _is_open_file(cls))


def _needs_nothing(cls: type, method: str) -> bool:
    """Tell whether a class has a method that can be called without arguments."""
    try:
        parameters = list(inspect.signature(getattr(cls, method)).parameters.values())[1:]
    except (AttributeError, TypeError, ValueError):
        return False
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(one.default is not one.empty or one.kind in variadic for one in parameters)


def _is_open_file(cls: type) -> bool:
    return cls.__module__ == "fsspec.core" and hasattr(cls, "open") and hasattr(cls, "__enter__")


# -- Reading the content ------------------------------------------------------------------------


class NothingLeft(Exception):
    """A response, or a part of a form, was read before."""


class Unfit(Exception):
    """The content of an object cannot be sent; the text says why."""


def is_response(file: Any) -> bool:
    """Tell whether an object is the response to an HTTP request, of any library."""
    cls = type(file)
    return (
        isinstance(file, ClientResponse)
        or _is_requests(cls)
        or _is_httpx(cls)
        or _is_urllib3(cls)
        or hasattr(cls, "getheader")
    )


def error_status(file: Any) -> int | None:
    """Return the status of a response that is an error, such as 404; None of any other."""
    for name in ("status_code", "status", "code"):
        status = getattr(file, name, None)
        if isinstance(status, int):
            return status if status >= 400 else None
    return None


def announced_size(file: Any) -> int | None:
    """Return the size of a response from its headers; None if they do not have it."""
    said = header(file, "Content-Length")
    return int(said) if said is not None and said.isascii() and said.isdigit() else None


def loader_of(file: Any, max_bytes: int) -> Load | None:
    """Return a function that reads the whole content of an object; None if the object is read in pieces.

    Args:
        file: The object.
        max_bytes: Limit on the content. A function may stop reading beyond it.
    """
    cls = type(file)
    if isinstance(file, ClientResponse):
        return partial(_load_aiohttp, file, max_bytes)
    if isinstance(file, BodyPartReader):
        return partial(_load_part, file, max_bytes)
    if _is_httpx(cls):
        return partial(_load_httpx, file, max_bytes)
    if _is_requests(cls):
        return partial(_load_requests, file, max_bytes)
    if _is_urllib3(cls) and file.closed:
        return partial(_load_urllib3, file)
    if _is_path_like(cls):
        return partial(in_own_thread, _read_opened, file, max_bytes)
    if hasattr(cls, "multiple_chunks") and hasattr(file, "storage") and file.closed:
        return partial(in_own_thread, _read_stored, file, max_bytes)
    if _takes_no_size(file):
        if hasattr(cls, "__iter__"):
            return partial(in_own_thread, _joined, file, max_bytes)
        if hasattr(cls, "__aiter__"):
            return partial(_joined_async, file, max_bytes)
        return partial(_load_by_read, file)
    return None


def can_load_again(file: Any) -> bool:
    """Return whether the function of `loader_of` can read the content again."""
    return not isinstance(file, BodyPartReader)


async def _load_aiohttp(response: ClientResponse, max_bytes: int) -> bytes:
    stream = response.content
    if not stream.at_eof():
        return await _joined_async(stream.iter_chunked(2**18), max_bytes)
    content = await response.read()  # which it keeps, if it was called before
    if not content and stream.total_bytes:
        raise NothingLeft
    return content


async def _load_part(part: BodyPartReader, max_bytes: int) -> bytes:
    if part.at_eof():
        raise NothingLeft
    encoded = bytearray()
    while len(encoded) <= max_bytes and (chunk := await part.read_chunk(2**16)):
        encoded += chunk
    return b"".join([bytes(decoded) async for decoded in part.decode_iter(encoded)])


async def _load_httpx(response: Any, max_bytes: int) -> bytes:
    try:
        return bytes(response.content)
    except Exception:  # noqa: BLE001  (it was not read yet, or only in part)
        if response.is_stream_consumed or response.is_closed:
            raise NothingLeft from None
    if hasattr(response.stream, "__aiter__"):
        return await _joined_async(response.aiter_bytes(), max_bytes)
    return await in_own_thread(_joined, response.iter_bytes(), max_bytes)


async def _load_requests(response: Any, max_bytes: int) -> bytes:
    try:
        return await in_own_thread(_joined, response.iter_content(2**18), max_bytes)
    except TypeError as error:
        if type(error).__name__ == "StreamConsumedError":
            raise NothingLeft from None
        raise


async def _load_urllib3(response: Any) -> bytes:
    content = bytes(response.data)  # which is in memory, since the response has ended
    if not content and announced_size(response) != 0:
        raise NothingLeft
    return content


async def _load_by_read(file: Any) -> bytes:
    if getattr(file, "closed", False) is True:
        raise NothingLeft
    if inspect.iscoroutinefunction(file.read):
        found = await file.read()
    else:
        found = await in_own_thread(file.read)
        found = await found if inspect.isawaitable(found) else found
    return _block(found)


def _read_opened(file: Any, max_bytes: int) -> bytes:
    if _is_open_file(type(file)):
        if "b" not in file.mode:
            raise Unfit("the file is open in text mode; open it with 'rb'")
        with file as opened:
            return _block(opened.read(max_bytes + 1))
    if callable(getattr(file, "is_dir", None)) and file.is_dir():
        raise Unfit("it is a directory: pass the files in it")
    with file.open("rb") as opened:
        return _block(opened.read(max_bytes + 1))


def _read_stored(file: Any, max_bytes: int) -> bytes:
    """Read a field of Django that is not open, without opening it itself: it would stay open."""
    if not file:
        file.open("rb")  # it raises an exception that says what is missing
    with file.storage.open(file.name, "rb") as opened:
        return _block(opened.read(max_bytes + 1))


def _joined(chunks: Iterable[Any], max_bytes: int) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += _block(chunk)
        if len(content) > max_bytes:
            break
    return bytes(content)


async def _joined_async(chunks: AsyncIterable[Any], max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in chunks:
        content += _block(chunk)
        if len(content) > max_bytes:
            break
    return bytes(content)


def _block(chunk: object) -> bytes:
    if isinstance(chunk, str):
        raise Unfit("the file is open in text mode; open it with 'rb'")
    if not isinstance(chunk, _BLOCKS):
        raise Unfit(f"it yields {type(chunk).__name__} instead of bytes")
    return bytes(chunk)


def _takes_no_size(file: Any) -> bool:
    """Tell whether the `read` of an object can only be called without a size."""
    found = inspect.getattr_static(type(file), "read", None)
    if found is not None and not inspect.isroutine(found):
        return False  # accessing it may open the file
    try:
        parameters = inspect.signature(file.read).parameters.values()
    except (AttributeError, TypeError, ValueError):
        return False
    return all(one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD) for one in parameters)


# -- Names and headers --------------------------------------------------------------------------


def header(file: Any, name: str) -> str | None:
    """Return a header of a response or of a part of a form, if it has one."""
    get = getattr(getattr(file, "headers", None), "get", None)
    try:
        found = get(name) if callable(get) else None
    except Exception:  # something else that has this name  # noqa: BLE001
        return None
    return found if isinstance(found, str) else None


def names_of(file: Any) -> list[str]:
    """Return the paths or names that a response has in its headers and its URL, the best first."""
    found: list[str] = []
    disposition = header(file, "Content-Disposition")
    if disposition is not None:
        message = Message()
        message["Content-Disposition"] = disposition
        # What the standard library raises for malformed headers, such as those with lone surrogates.
        with suppress(ValueError, LookupError, TypeError, AttributeError):
            if (given := message.get_filename()) is not None:
                found.append(given)
    # Some objects raise if they have no URL, such as responses of httpx without a request.
    with suppress(Exception):
        if (url := getattr(file, "url", None)) is not None:
            found.append(unquote(urlsplit(str(url)).path))
    return found
