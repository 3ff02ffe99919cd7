"""Files in and out: what in an input is a file, how it is sent, and files that models made."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import mimetypes
import os
import re
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

import attrs

from . import _policy, exceptions
from ._codec import encode_json
from ._policy import Kind
from ._transport import LARGE, Answer, Body, Call, Transport, load_anyio
from .types import File

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

FileEncodingStrategy = Literal["url", "base64"]
"""How files in an input are sent: uploaded, or inside of the request."""

MOST_BYTES: Final = 100 * 2**20
"""What an uploaded file may have (HTTP API, section 3.2)."""

_CHUNK: Final = 2**20


# -- Files in the output -----------------------------------------------------------------------


@attrs.frozen
class FileOutput:
    """A file that a model made. Nothing is downloaded until it is read.

    ```python
    async for chunk in output: ...
    path = await output.save("pictures/")
    ```
    """

    url: str
    """Where it is: an `https:` URL that is good for one hour, or a data URI."""

    _transport: Transport | None = attrs.field(default=None, repr=False, eq=False, kw_only=True)

    @property
    def name(self) -> str:
        """A name for it, safe as a file name: from its URL, or made up for a data URI."""
        if self._is_data:
            return "output" + (mimetypes.guess_extension(self.content_type or "") or "")
        return _safe_name(unquote(urlsplit(self.url).path.rpartition("/")[2]))

    @property
    def content_type(self) -> str | None:
        """Its media type, as far as the URL tells."""
        if self._is_data:
            return self.url[5:].partition(",")[0].partition(";")[0] or "text/plain"
        return mimetypes.guess_type(urlsplit(self.url).path)[0]

    async def read(self) -> bytes:
        """Return the whole content; downloads it at each call.

        Raises:
            FileExpired: It is gone.
            IncompleteFile: The download broke off.
            TransportError: There was no answer.
        """
        return b"".join([chunk async for chunk in self])

    async def aread(self) -> bytes:
        """Return the whole content, as `read` does."""
        return await self.read()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the content in chunks, as they arrive."""
        if self._is_data:
            yield await asyncio.get_running_loop().run_in_executor(None, _data_content, self.url)
            return
        if self._transport is None:
            raise exceptions.FileOutputError(self.url, "this file belongs to no client")
        received = 0
        try:
            async with self._transport.open(self.url, headers=_IDENTITY) as response:
                expected = _length(response)
                async for chunk in response.content.iter_any():
                    received += len(chunk)
                    yield chunk
        except exceptions.NotFoundError as error:
            raise exceptions.FileExpired(self.url, error.status) from error
        except exceptions.ConnectionLost as error:
            if received:
                raise exceptions.IncompleteFile(self.url, received, None) from error
            raise
        if expected is not None and received != expected:
            raise exceptions.IncompleteFile(self.url, received, expected)

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the content to *path*, or into it if it is a directory; return where it is.

        The file appears under its name when it is complete, never before.

        Raises:
            FileExpired: It is gone.
            IncompleteFile: The download broke off.
            OSError: It cannot be written.
        """
        import aiofiles

        run = asyncio.get_running_loop().run_in_executor
        target = Path(path)
        if await run(None, target.is_dir) or str(path).endswith(("/", os.sep)):
            await run(None, lambda: target.mkdir(parents=True, exist_ok=True))
            target /= self.name
        partial = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            async with aiofiles.open(partial, "xb") as file:
                gathered: list[bytes] = []
                size = 0
                async for chunk in self:
                    gathered.append(chunk)
                    size += len(chunk)
                    if size >= _CHUNK:
                        await file.write(b"".join(gathered))
                        gathered, size = [], 0
                await file.write(b"".join(gathered))
            await run(None, partial.replace, target)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        return target

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        shown = self.url if len(self.url) <= 120 else self.url[:80] + "…"
        return f"FileOutput({shown!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url,)

    @property
    def _is_data(self) -> bool:
        return self.url[:5].lower() == "data:"


_IDENTITY: Final = {"Accept-Encoding": "identity"}  # so that lengths are those of the file
_WHITE_SPACE: Final = re.compile(r"\s")


def to_output(value: Any, transport: Transport | None, *, files: bool) -> Any:
    """Return an output with its file URLs as `FileOutput`; the rest as it is.

    A file is a whole string that is an `https:` or `data:` URL, or an `http:` URL on the host of an
    `http:` API. In a list of strings all must be files: a list of tokens stays text.
    """
    if not files or value is None or (value.__class__ is str and value[:1] not in "hHdD"):
        return value
    host = None if transport is None else transport.http_host

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return FileOutput(value, transport=transport) if _is_file(value, host) else value
        if isinstance(value, list):
            if any(isinstance(item, str) and not _is_file(item, host) for item in value):
                return [item if isinstance(item, str) else convert(item) for item in value]
            return [convert(item) for item in value]
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return value

    return convert(value)


def _is_file(text: str, http_host: str | None) -> bool:
    start = text[:8].lower()
    if start == "https://":
        if len(text) == 8:
            return False
    elif start.startswith("data:"):
        if "," not in text:
            return False
    elif not (http_host and start.startswith("http://") and _host(text) == http_host):
        return False
    return not _WHITE_SPACE.search(text)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _data_content(uri: str) -> bytes:
    head, _, data = uri[5:].partition(",")
    try:
        if head.lower().endswith(";base64"):
            return base64.b64decode(unquote(data), validate=True)
        return unquote_to_bytes(data)
    except (binascii.Error, ValueError) as error:
        raise exceptions.FileOutputError(uri, f"this data URI cannot be read ({error})") from error


def _length(response: aiohttp.ClientResponse) -> int | None:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return None
    return response.content_length


def _safe_name(name: str) -> str:
    """Return a name that stays in its directory, whatever the URL says."""
    name = re.sub(r"[\x00-\x1f\x7f/\\:*?\"<>|]", "_", name).strip(" .")
    if not name:
        return "output"
    stem, dot, suffix = name.rpartition(".")
    if dot and len(suffix) <= 16:
        return f"{stem[:100]}.{suffix}" if stem else suffix
    return name[:100]


# -- Files in the input ------------------------------------------------------------------------


@attrs.frozen
class Source:
    """The content of a file to be sent."""

    name: str
    content_type: str
    size: int | None
    make: Callable[[], AsyncIterator[bytes]]
    repeatable: bool


@attrs.frozen
class Encoded:
    """An input as it is sent."""

    value: dict[str, Any]
    """JSON-like data of its own."""
    large: bool
    """Whether turning it into JSON takes so long that a thread should do it."""


async def encode_input(
    value: Mapping[str, Any] | None, transport: Transport, strategy: FileEncodingStrategy
) -> Encoded:
    """Return an input as JSON-like data, its files uploaded or inlined.

    Raises:
        ArgumentError: A file cannot be read, or is too large; the message names its key.
        ArgumentTypeError: Something in it cannot be sent.
    """
    _policy.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    if value is None:
        return Encoded({}, False)
    if not isinstance(value, Mapping):
        raise exceptions.ArgumentTypeError(
            "input", f"expected a mapping, got {type(value).__name__}"
        )
    walk = _Walk()
    encoded: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise exceptions.ArgumentTypeError("input", f"the key {key!r} is no string")
        try:
            walk.place(encoded, key, item, "input")
        except RecursionError:
            raise exceptions.ArgumentError(
                f"input.{key}", "it is nested too deeply, or contains itself"
            ) from None
    if walk.files:
        sources = await in_thread(lambda: [source_of(file, path) for *_, path, file in walk.files])
        send = upload_url if strategy == "url" else data_uri
        urls = await gather([send(transport, source) for source in sources])
        for (container, key, _, _), url in zip(walk.files, urls, strict=True):
            container[key] = url
            walk.size += len(url)
    return Encoded(encoded, walk.size > LARGE)


class _Walk:
    """Copies an input into JSON-like data, and notes its files and its size."""

    def __init__(self) -> None:
        self.files: list[tuple[Any, Any, str, Any]] = []
        """Container, key, path and file."""
        self.size = 0
        """About how many bytes of JSON it will be."""

    def place(self, container: Any, key: Any, value: Any, path: str) -> None:
        """Put the copy of a value, or room for a file's URL, into its container."""
        kind = value.__class__
        if kind is str:
            self.size += len(value)
            container[key] = value
        elif kind is int or kind is bool or value is None:
            container[key] = value
        else:
            path = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
            if is_file(value):
                container[key] = None
                self.files.append((container, key, path, value))
            else:
                container[key] = self._copy(value, path)

    def _copy(self, value: Any, path: str) -> Any:
        self.size += 16
        match value:
            case float():
                if value != value or value in (float("inf"), float("-inf")):
                    raise exceptions.ArgumentError(path, f"JSON has no {value!r}")
                return float(value)
            case Enum():
                holder: list[Any] = [None]
                self.place(holder, 0, value.value, path)
                return holder[0]
            case str():
                return str(value)
            case int():
                return int(value)
            case datetime() | date():
                return value.isoformat()
            case Mapping():
                made: dict[str, Any] = {}
                for key, item in value.items():
                    if not isinstance(key, str):
                        raise exceptions.ArgumentTypeError(path, f"the key {key!r} is no string")
                    self.place(made, key, item, path)
                return made
            case list() | tuple() | set() | frozenset():
                items: list[Any] = [None] * len(value)
                for index, item in enumerate(value):
                    self.place(items, index, item, path)
                return items
        if isinstance(url := getattr(value, "url", None), str) and hasattr(value, "read"):
            return url  # a file that a model made: it is there already
        if hasattr(value, "tolist"):  # arrays and scalars of NumPy and its kin
            return self._copy(value.tolist(), path)
        raise exceptions.ArgumentTypeError(path, f"a {type(value).__name__} cannot be sent")


def is_file(value: Any) -> bool:
    """Tell whether a value is the content of a file, or leads to it."""
    if isinstance(value, (bytes, bytearray, memoryview, os.PathLike)):
        return True
    return callable(getattr(value, "read", None)) and not isinstance(
        getattr(value, "url", None), str
    )


def source_of(
    file: Any, argument: str, *, name: str | None = None, content_type: str | None = None
) -> Source:
    """Return what is to be sent of a path, bytes, or an open binary file; looks at the disk.

    Raises:
        ArgumentError: It cannot be read, or is too large.
        ArgumentTypeError: It is no file.
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        content = bytes(file)
        return _checked(
            argument,
            Source(name or "file", "", len(content), lambda: _once(content), True),
            content_type,
        )
    if isinstance(file, os.PathLike):
        path = Path(file)
        try:
            with path.open("rb") as opened:
                length = os.fstat(opened.fileno()).st_size
        except OSError as error:
            raise exceptions.ArgumentError(
                argument, f"{str(path)!r} cannot be read ({error.strerror or error})"
            ) from error
        return _checked(
            argument,
            Source(name or path.name, "", length, lambda: _of_path(path), True),
            content_type,
        )
    if not callable(getattr(file, "read", None)):
        raise exceptions.ArgumentTypeError(
            argument, f"a {type(file).__name__} is no file: pass a path, bytes or an open file"
        )
    if getattr(file, "closed", False):
        raise exceptions.ArgumentError(argument, "the file is closed")
    if "b" not in str(getattr(file, "mode", "b")) or hasattr(file, "encoding"):
        raise exceptions.ArgumentError(argument, "the file is open in text mode; open it with 'rb'")
    given = getattr(file, "name", None)
    # One that is read with `await` is sent as it stands: it cannot be asked here.
    seekable = not inspect.iscoroutinefunction(file.read) and bool(
        getattr(file, "seekable", lambda: False)()
    )
    size: int | None = None
    if seekable:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    called = name or (Path(given).name if isinstance(given, str) else "") or "file"
    return _checked(
        argument,
        Source(called, "", size, lambda: _of_file(file, seekable), seekable),
        content_type,
    )


def _checked(argument: str, source: Source, content_type: str | None) -> Source:
    if source.size is not None and source.size > MOST_BYTES:
        raise exceptions.ArgumentError(
            argument,
            f"{source.name} has {source.size} bytes; the API takes files up to {MOST_BYTES}"
            " (100 MiB). Put it where the model can fetch it, and pass its https URL",
        )
    guessed = content_type or mimetypes.guess_type(source.name)[0] or "application/octet-stream"
    return attrs.evolve(source, content_type=guessed)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    view = memoryview(content)
    for start in range(0, len(content), _CHUNK):
        yield bytes(view[start : start + _CHUNK])


async def _of_path(path: Path) -> AsyncIterator[bytes]:
    import aiofiles

    async with aiofiles.open(path, "rb") as file:
        while chunk := await file.read(_CHUNK):
            yield chunk


async def _of_file(file: Any, seekable: bool) -> AsyncIterator[bytes]:
    if inspect.iscoroutinefunction(file.read):
        while chunk := await file.read(_CHUNK):
            yield chunk
        return
    if seekable:
        await in_thread(lambda: file.seek(0))
    while chunk := await in_thread(lambda: file.read(_CHUNK)):
        yield chunk


async def data_uri(transport: Transport, source: Source) -> str:
    """Return a source as a data URI."""
    del transport
    content = b"".join([chunk async for chunk in source.make()])
    encoded = await in_thread(lambda: base64.b64encode(content).decode())
    return f"data:{source.content_type};base64,{encoded}"


async def upload_url(transport: Transport, source: Source) -> str:
    """Upload a source and return the URL that stands for it in an input."""
    uploaded: File = (await upload(transport, source)).data
    if uploaded.urls.get is None:
        # The API builds it from the id (HTTP API, section 7.1).
        return transport.url_of(Call("GET", f"/files/{quote(uploaded.id, safe='')}"))
    return uploaded.urls.get


async def upload(
    transport: Transport, source: Source, metadata: Mapping[str, Any] | None = None
) -> Answer:
    """Upload a source as `multipart/form-data` (HTTP API, section 7.2)."""
    boundary = uuid.uuid4().hex
    name = source.name.replace("\\", "%5C").replace('"', "%22")
    name = re.sub(r"[\x00-\x1f\x7f]", "_", name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n'
        f"Content-Type: {source.content_type}\r\n\r\n"
    ).encode()
    tail = b""
    if metadata:
        tail = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            "Content-Type: application/json\r\n\r\n"
        ).encode() + encode_json(dict(metadata))
    tail += f"\r\n--{boundary}--\r\n".encode()

    async def parts() -> AsyncIterator[bytes]:
        yield head
        async for chunk in source.make():
            yield chunk
        yield tail

    length = None if source.size is None else len(head) + source.size + len(tail)
    call = Call(
        "POST",
        "/files",
        Kind.WRITE,
        content=Body(length, parts, source.repeatable),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    return await transport.send(call, File)


# -- Helpers -----------------------------------------------------------------------------------


async def in_thread(function: Callable[[], T]) -> T:
    """Return what *function* returns in a worker thread."""
    return await asyncio.get_running_loop().run_in_executor(None, function)


async def gather(coroutines: list[Awaitable[T]]) -> list[T]:
    """Await all of them at once; the first failure cancels the rest and is raised."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    await load_anyio()
    import anyio

    results: list[Any] = [None] * len(coroutines)

    async def collect(index: int, awaitable: Awaitable[T]) -> None:
        results[index] = await awaitable

    try:
        async with anyio.create_task_group() as group:
            for index, coroutine in enumerate(coroutines):
                group.start_soon(collect, index, coroutine)
    except BaseExceptionGroup as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return results
