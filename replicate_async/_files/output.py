"""Output files: read, iterated over, saved, displayed."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import unquote

import anyio
import attrs

from .. import _arguments, exceptions
from .._bars import Bar, byte_bar
from .._concurrency import gather_limited
from .._extras import import_extra
from .._http.call import USER_AGENT, Config
from .._http.checks import DEFAULT_BASE_URL, check_base_url
from .._http.session import Pool
from .._http.transport import Transport
from .._http.urls import has_host, path_of
from .._redaction import without_credentials
from .._threads import in_thread, shielded_in_thread
from ..types import FileStat, Limits, Retry, Timeout
from ..types._plain import Plain, described
from .data_uris import DataUri
from .disk import NamedSpool, NewFile, destination, new_file
from .display import EMBEDDED, MAX_SHOWN, RecentContent, media_html
from .download import BUFFERED, Download, collected
from .holders import ModelFile
from .media import (
    GENERIC_TYPES,
    SNIFFED,
    essence,
    guess_extension,
    guess_type,
    has_suffix,
    safe_name,
    sniff,
)
from .relay import Facts, Relay

_WRITTEN: Final = 3 * 2**19
"""Bytes per write. With less, changing threads costs more than writing."""

_BUFFERED: Final = 3 * 2**18
"""Bytes that are received while a thread writes; aiohttp accepts up to twice as many."""

_DECODED: Final = 2**19
"""Characters of a data URI that are decoded at once, which holds the interpreter's lock."""

SAVED_AT_ONCE: Final = 8
"""Files of one output that are saved at a time."""

_QUICK: Final = 2**16
"""Characters at the beginning of a URL that its properties and its `repr` look at."""

_DISPLAYED: Final = 2**24
"""Characters of a data URI that a notebook displays."""

_IN_MEMORY: Final = 8 * 2**20
"""Bytes that `open()` holds in memory."""

_DISPLAY_PATIENCE: Final = 20.0
"""Seconds for the download of a picture that is displayed."""


@attrs.define(eq=False, repr=False)
class FileOutput(Plain, ModelFile):
    """A file in the output of a prediction. Its content is downloaded each time it is read.

    ```python
    content = await output.read()
    async for chunk in output: ...
    path = await output.save("pictures/")
    ```

    Two files are equal if their URLs are equal. A file can be passed as an input of a model, which receives
    the URL. It can be pickled. `str()` returns its URL, so `json.dumps(..., default=str)` can encode it.
    """

    url: str = attrs.field(on_setattr=attrs.setters.frozen)
    """The URL: an `https:` URL that is valid for one hour (:api:`retention`), or a data URI."""

    _transport: Transport | None = attrs.field(default=None, kw_only=True, alias="transport")
    _prediction: str | None = attrs.field(default=None, kw_only=True, alias="prediction")
    """ID of the prediction whose output has it, for messages."""
    _size: int | None = attrs.field(default=None, init=False)
    _content_type: str | None = attrs.field(default=None, init=False)
    _sniffed: str | None = attrs.field(default=None, init=False)
    _path: Path | None = attrs.field(default=None, init=False)
    _stamp: tuple[int, int] | None = attrs.field(default=None, init=False)

    def _to_plain(self) -> str:
        return self.url

    @classmethod
    def _plain_schema(cls) -> dict[str, Any]:
        return {"type": "string", "format": "uri", **described(cls)}

    # Metadata

    @property
    def name(self) -> str:
        """A safe file name, from the URL; `output` for a data URI. It has a suffix, if the type is known."""
        name = "output"
        if not self._is_data:
            name = safe_name(unquote(path_of(self.url[:_QUICK]).rpartition("/")[2]))
        return self._with_suffix(name)

    @property
    def content_type(self) -> str | None:
        """Media type: from the last download, or else guessed from the URL, or from the first bytes; None if unknown."""
        said, named = self._content_type, None
        if self._is_data:
            said = essence(self.url[5:500].partition(",")[0])
            if not (said.isascii() and said.isprintable()):  # a model has written it
                said = None
            elif "/" not in said:
                said = "text/plain"
        else:
            named = guess_type(path_of(self.url[:_QUICK]))
        return said if said not in GENERIC_TYPES else named or self._sniffed or said

    @property
    def size(self) -> int | None:
        """Size in bytes; None before the first download, except for data URIs."""
        if self._size is None and self._is_data:
            with suppress(exceptions.FileOutputError):
                self._size = DataUri(self.url, self._prediction).size
        return self._size

    @property
    def path(self) -> Path | None:
        """Path where `save()` or `save_to` last saved it; None if this object was not saved."""
        return self._path

    # Content

    async def read(self, size: int = -1, /) -> bytes:
        """Download the file and return its content.

        Args:
            size: Not supported, since a `FileOutput` has no position. To read a file in pieces, use the file object
                that `open()` returns.

        Returns:
            The content, as bytes.

        Raises:
            FileExpired: The file has been deleted.
            HostNotAllowed: `Client(output_hosts=...)` does not allow its host.
            FileTooLarge: The file exceeds `Limits(file=...)`, 256 MiB by default. Use `save()`, or
                iterate over the file.
            IncompleteFile: The download ended early and could not be resumed, or took longer than
                `Timeout(download=...)`, one hour by default.
            TransportError: No usable response was received.
            ArgumentTypeError: A size was given.
            FileOutputError: There is not enough memory for it.
        """
        if size is not None and size != -1:
            raise exceptions.ArgumentTypeError(
                "size",
                "a FileOutput is always read as a whole: pass what `open()` returns, a file object, to functions"
                " that read files in pieces, such as pandas.read_csv and shutil.copyfileobj",
            )
        read = self._reader(limit=self._limits.file, may_restart=True)
        found = await collected(read(), self.url, self._prediction)
        if not self._is_data:
            _recent.keep(self.url, found)
        return found

    async def stat(self) -> FileStat:
        """Request the size and the type of the file, without its content. This also sets `size` and `content_type`.

        Sends a `HEAD` request or, if the server does not allow that, requests the first byte. A data URI needs no request.

        Returns:
            Size, type and entity tag, as the server reports them.

        Raises:
            FileExpired: The file has been deleted.
            HostNotAllowed: `Client(output_hosts=...)` does not allow its host.
            FileOutputError: It is a data URI that cannot be read.
            TransportError: No usable response was received.
            ReplicateError: The server returned an error status.
        """
        facts = await self._relay().stat()
        self._learn(facts)
        return FileStat(facts.size, self.content_type, facts.etag)

    def _relay(self) -> Relay:
        """Return a relay, which passes the file on to a browser."""
        transport = self._transport or _transport_without_client()
        return Relay(transport, self.url, self._prediction)

    def _learn(self, facts: Facts) -> None:
        """Keep the size and the type that the file's server has stated."""
        if facts.size is not None:
            self._size = facts.size
        if facts.content_type is not None:
            self._content_type = essence(facts.content_type)

    async def aread(self) -> bytes:
        """Download the file and return its content, as `read()` does."""
        return await self.read()

    async def open(self) -> IO[bytes]:
        """Download the file, and return it as a file object that is open for reading and can seek.

        Use it with code that reads files: `pandas.read_csv`, `PIL.Image.open`, `zipfile.ZipFile`, `shutil.copyfileobj`,
        uploads of boto3, requests and httpx. Up to 8 MiB are held in memory, more in a temporary file, which is
        deleted when it is closed.

        ```python
        with await output.open() as file, zipfile.ZipFile(file) as archive:
            archive.extractall("results")
        ```

        Returns:
            A binary file object at its start, with the `name` of the file. Close it after use.

        Raises:
            FileExpired: The file has been deleted.
            HostNotAllowed: `Client(output_hosts=...)` does not allow its host.
            FileTooLarge: The file exceeds `Limits(save=...)`, 16 GiB by default.
            IncompleteFile: The download ended early and could not be resumed, or took longer than
                `Timeout(download=...)`, one hour by default.
            TransportError: No usable response was received.
        """
        file = NamedSpool(self.name, _IN_MEMORY)
        try:
            read = self._reader(limit=self._limits.save, to="save", may_restart=True)
            async with aclosing(read()) as chunks:
                async for chunk in chunks:
                    if not chunk:
                        await shielded_in_thread(_empty, file)
                    elif file.tell() + len(chunk) <= _IN_MEMORY:
                        file.write(chunk)
                    else:
                        await shielded_in_thread(file.write, chunk)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return cast("IO[bytes]", file)

    async def pil(self) -> Any:
        """Download the file and return it as a Pillow image. Needs the extra `images`.

        Returns:
            A `PIL.Image.Image`, which is loaded.

        Raises:
            FileOutputError: Pillow cannot read it.
            MissingDependency: Pillow is not installed.
            ReplicateException: The same errors as `read`.
        """
        image = import_extra("PIL.Image", "images")
        content = await self.read()

        def load() -> Any:
            picture = image.open(io.BytesIO(content))
            picture.load()
            return picture

        try:
            return await in_thread(load)
        except (OSError, ValueError, SyntaxError) as error:  # what the plugins of Pillow raise
            raise exceptions.FileOutputError(
                self.url, f"Pillow cannot read this picture ({error})"
            ) from None

    if not TYPE_CHECKING:  # it is a path only once it was saved

        @property
        def __fspath__(self) -> Callable[[], str]:
            """Returns the path where it was saved: then `open(output)` and `Path(output)` work."""
            path = self._path
            if path is None:
                raise AttributeError(
                    "this file was not saved, so it has no path: use `save()`, or `open()`"
                )
            return path.__fspath__

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Download the file and yield its content in chunks of bytes. The file may have any size.

        After a step that was cancelled or has failed, the next one continues, if the server can resume.

        Raises:
            FileExpired: The file has been deleted.
            HostNotAllowed: `Client(output_hosts=...)` does not allow its host.
            FileTooLarge: The server compresses the file, although it is asked not to, and it exceeds
                `Limits(file=...)`.
            IncompleteFile: The download ended early and could not be resumed, or took longer than
                `Timeout(download=...)`, one hour by default.
            TransportError: No usable response was received.
        """
        return _Chunks(self._reader())

    async def save(
        self, path: str | os.PathLike[str], *, durable: bool = True, progress: bool = False
    ) -> Path:
        """Download the file and save it to disk.

        The file appears under its name only when it is complete, and then survives a power cut. If saving
        fails or is cancelled, nothing is left behind.

        Args:
            path: Path of the file, which is replaced if it exists, and keeps its permissions. Or a directory: an existing one, or a
                path that ends with a slash, which is created. In a directory the file is saved under its
                `name`, with a number if another file has that name. If the name has no suffix, it gets
                that of the content's type.
            durable: Whether to wait until the system has written the file to the disk (`fsync`).
            progress: Whether to show the bytes in a progress bar (needs the extra `progress`).

        Returns:
            The path of the saved file.

        Raises:
            FileExpired: The file has been deleted.
            HostNotAllowed: `Client(output_hosts=...)` does not allow its host.
            FileNotSaved: The file could not be written. This is an `OSError`, too.
            FileTooLarge: The file exceeds `Limits(save=...)`, 16 GiB by default, or the server compresses
                it, although it is asked not to, and it exceeds `Limits(file=...)`.
            IncompleteFile: The download ended early and could not be resumed, or took longer than
                `Timeout(download=...)`, one hour by default.
            TransportError: No usable response was received.
            ArgumentError: *path* is not a path.
        """
        return await self._save(
            path, self.name, known=self._path, durable=durable, progress=progress
        )

    async def _save_in(
        self, directory: Path, name: str, *, durable: bool = True, progress: bool = False
    ) -> Path:
        """Save the file in a directory, under this name, or with a number if the name is taken."""
        path = f"{directory}{os.sep}"
        return await self._save(path, name, known=None, durable=durable, progress=progress)

    async def _save_as(self, path: Path, *, durable: bool = True) -> Path:
        """Save the file under a path, which gets a suffix if it has none, and replace an existing file."""
        return await self._save(path, path.name, known=None, durable=durable, complete=True)

    def _saved_at(self, path: Path | None, stamp: tuple[int, int] | None = None) -> None:
        """Set the path where the file was saved, and the stamp that recognises the file there."""
        self._path, self._stamp = path, stamp

    async def _save(
        self,
        path: str | os.PathLike[str],
        name: str,
        *,
        known: Path | None,
        durable: bool,
        complete: bool = False,
        progress: bool = False,
    ) -> Path:
        bar = byte_bar(name) if _arguments.flag(progress, "progress") else None
        target: str | os.PathLike[str] = path
        try:
            target, in_directory = await destination(path, name)
            replace = not in_directory or target == known
            async with new_file(target, replace=replace, durable=durable) as file:
                await self._write(file, bar)
                if in_directory or complete:  # only now the type is known
                    file.path = target.with_name(self._with_suffix(target.name))
                file.replace = file.replace or file.path == known
        except (OSError, ValueError) as error:
            if isinstance(error, exceptions.ReplicateException):
                raise
            raise exceptions.FileNotSaved(
                self.url, os.fspath(target), error, prediction_id=self._prediction
            ) from error
        finally:
            if bar is not None:
                bar.close()
        self._saved_at(file.path, await in_thread(stamp_of, file.path))
        return file.path

    def _with_suffix(self, name: str) -> str:
        """Return a file name with the suffix of the content's type, unless it has one."""
        return name if has_suffix(name) else name + guess_extension(self.content_type)

    async def _write(self, file: NewFile, bar: Bar | None) -> None:
        gathered: list[bytes] = []
        size = 0
        read = self._reader(limit=self._limits.save, to="save", may_restart=True, buffer=_BUFFERED)
        async with aclosing(read()) as chunks:
            async for chunk in chunks:
                if not chunk:
                    await file.clear()
                    gathered, size = [], 0
                    if bar is not None:
                        bar.restart()
                    continue
                if bar is not None:
                    bar.set_total(self._size)
                    bar.add(len(chunk))
                gathered.append(chunk)
                size += len(chunk)
                if size >= _WRITTEN:
                    joined = b"".join(gathered)
                    gathered, size = [], 0
                    await file.write(joined)
        await file.write(b"".join(gathered))

    @property
    def _limits(self) -> Limits:
        return Limits() if self._transport is None else self._transport.config.limits

    def _reader(
        self,
        *,
        limit: int | None = None,
        to: Literal["read", "save"] = "read",
        may_restart: bool = False,
        buffer: int = BUFFERED,
    ) -> Callable[[], AsyncGenerator[bytes, None]]:
        """Return a function that yields the content. Called again, it yields the rest.

        With *may_restart*, an empty chunk announces that the content begins again.
        """
        if self._is_data:
            return partial(self._decoded, limit, to, _Decoding())
        download = Download(
            self._transport or _transport_without_client(),
            self.url,
            limit=limit,
            to=to,
            may_restart=may_restart,
            prediction=self._prediction,
            buffer=buffer,
        )
        return partial(self._downloaded, download)

    async def _decoded(
        self, limit: int | None, to: Literal["read", "save"], done: _Decoding
    ) -> AsyncGenerator[bytes, None]:
        data = await in_thread(DataUri, self.url, self._prediction)
        if limit is not None and data.size > limit:
            raise exceptions.FileTooLarge(self.url, limit, to=to, prediction_id=self._prediction)
        while done.position < data.length:
            chunk = await in_thread(data.decode, done.position, done.position + _DECODED)
            if not done.position:
                self._sniffed = sniff(chunk[:SNIFFED])
            done.position += _DECODED
            yield chunk

    async def _downloaded(self, download: Download) -> AsyncGenerator[bytes, None]:
        """Yield the content, and keep its type and size."""
        start = b""
        is_start = not download.received  # else it goes on after a step that was cancelled
        async with aclosing(download.chunks()) as chunks:
            async for chunk in chunks:
                if is_start and len(start) < SNIFFED:
                    start += chunk[: SNIFFED - len(start)]
                    self._sniffed = sniff(start)
                if not chunk:  # it begins again
                    start, is_start = b"", True
                self._content_type, self._size = download.content_type, download.total
                yield chunk
        self._content_type, self._size = download.content_type, download.total

    # Representations

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        facts = [repr(_shortened(self.url))]
        if self.content_type is not None:
            facts.append(f"content_type={self.content_type!r}")
        # The size of a data URI takes time if it is long.
        size = self.size if len(self.url) <= _QUICK else self._size
        if size is not None:
            facts.append(f"size={size}")
        if self._path is not None:
            facts.append(f"path={str(self._path)!r}")
        return f"FileOutput({', '.join(facts)})"

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002  (the notebook filters)
        exclude: object = None,  # noqa: ARG002  (likewise)
    ) -> dict[str, str]:
        """Return what a notebook displays: the image, a player for audio and video, or else a link."""
        bundle = {"text/plain": repr(self)}
        if len(self.url) > _DISPLAYED:
            return bundle
        if html := media_html(self.url, self.name, self.content_type, self._known_content()):
            bundle["text/html"] = html
        return bundle

    def _known_content(self) -> bytes | None:
        """Return the content, if it can be embedded in a notebook without a download."""
        if self._is_data:
            return None  # the URL is the content
        if (content := _recent.get(self.url)) is not None:
            return content
        if self._path is None or self._stamp is None or self._stamp[0] > EMBEDDED:
            return None
        with suppress(OSError):
            if stamp_of(self._path) == self._stamp:  # else it is another file by now
                return self._path.read_bytes()
        return None

    async def _fetch_to_display(self) -> None:
        """Download a picture for the notebook, unless its content is known, or that fails."""
        if self.content_type is not None and not self.content_type.startswith("image/"):
            return
        if self._is_data or await in_thread(self._known_content) is not None:
            return
        content = bytearray()
        with anyio.move_on_after(_DISPLAY_PATIENCE), suppress(exceptions.ReplicateException):
            async with aclosing(self._reader(limit=EMBEDDED)()) as chunks:
                async for chunk in chunks:
                    content += chunk
            _recent.keep(self.url, bytes(content))

    # Value semantics

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileOutput):
            return NotImplemented
        return self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        hosts = None if self._transport is None else self._transport.config.output_hosts
        if hosts is None:
            return type(self), (self.url,)
        return _restore, (type(self), self.url, hosts, self._prediction)

    @property
    def _is_data(self) -> bool:
        return self.url[:5].lower() == "data:"


@attrs.define(eq=False)
class _Decoding:
    """How far a data URI has been decoded."""

    position: int = 0
    """Characters of the encoded content."""


class _Chunks(AsyncIterator[bytes]):
    """The chunks of a file. After a step that was cancelled or has failed, the next one continues."""

    def __init__(self, read: Callable[[], AsyncGenerator[bytes, None]]) -> None:
        self._read = read
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._is_over = False

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        if self._chunks is None:
            self._chunks = self._read()
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._is_over = True
            raise
        except BaseException:
            self._chunks = None  # it has ended
            raise

    async def aclose(self) -> None:
        """Close the connection, and end the iteration."""
        self._is_over = True
        if self._chunks is not None:
            await self._chunks.aclose()


_recent: Final = RecentContent()


def _empty(file: NamedSpool) -> None:
    """Remove what was written to a file."""
    file.seek(0)
    file.truncate()


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Return size and time of the last change, by which a file is recognised; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _shortened(url: str) -> str:
    """Return a URL for a text, without name and password; a long one, such as a data URI, is truncated."""
    shown = without_credentials(url[:_QUICK])
    return shown if len(url) <= 200 else shown[:60] + "…"


def _restore(
    kind: type[FileOutput], url: str, hosts: tuple[str, ...], prediction: str | None
) -> FileOutput:
    """Return an unpickled file, which is bound by the `output_hosts` of its client."""
    return kind(url, transport=_transport_without_client(hosts), prediction=prediction)


@lru_cache(maxsize=16)
def _transport_without_client(hosts: tuple[str, ...] | None = None) -> Transport:
    """Return the transport for files without a client, such as unpickled ones."""
    config = Config(
        base_url=check_base_url(os.environ.get("REPLICATE_BASE_URL") or DEFAULT_BASE_URL),
        token=None,
        headers={"User-Agent": USER_AGENT},
        timeout=Timeout(),
        retry=Retry(),
        limits=Limits(),
        rate_limit=None,
        output_hosts=hosts,
    )
    return Transport(config, Pool())


def output_of_url(transport: Transport, url: object) -> FileOutput:
    """Return a file by its URL, as `Client.output`."""
    if isinstance(url, FileOutput):
        url = url.url
    url = _arguments.string(url, "url").strip()
    start = url[:8].lower()
    is_data = start.startswith("data:") and "," in url
    if not is_data and not (start.startswith(("https://", "http://")) and has_host(url)):
        raise exceptions.ArgumentError(
            "url", f"expected the URL of a file, got {_shortened(url)!r}"
        )
    return FileOutput(url, transport=transport)


async def fetch_to_display(files: Sequence[FileOutput]) -> None:
    """Download the pictures that a notebook displays, unless their content is known."""

    async def fetch(file: FileOutput) -> None:
        await file._fetch_to_display()

    await gather_limited(fetch, files[:MAX_SHOWN], at_once=SAVED_AT_ONCE)
