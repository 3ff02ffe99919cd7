"""Files that models made: read, iterated over, saved, shown. Their downloads resume."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import os
import random
import re
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import attrs

from . import _policy, exceptions
from ._concurrency import for_each, in_thread, surely_in_thread
from ._media import guess_extension, guess_type, safe_name
from ._policy import Kind
from ._transport import (
    DEFAULT_BASE_URL,
    USER_AGENT,
    Config,
    Pool,
    Transport,
    check_base_url,
    load_anyio,
    sleep,
)
from .types import Limits, Retry, Timeout

if TYPE_CHECKING:
    import aiohttp

_WRITTEN: Final = 3 * 2**19
"""Bytes that are gathered for one write: fewer, and the changes of threads would cost the most."""
_JOINED: Final = 2**22
"""Bytes up to which what is read is joined at the end: more would be twice in memory."""
_RECEIVED: Final = 2**18
"""Bytes that may wait in the receiver while a thread writes."""
_DECODED: Final = 2**19
"""Characters of a data URI that are decoded in one go: longer ones would hold up the event loop."""
_PROGRESS: Final = 2**16
"""Bytes of new content after which a broken download has its attempts again."""
_SAVED_AT_ONCE: Final = 8


@attrs.define(eq=False, repr=False)
class FileOutput:
    """A file that a model made. Nothing is downloaded until it is read, and then each time.

    ```python
    content = await output.read()
    async for chunk in output: ...
    path = await output.save("pictures/")
    ```

    Two are equal if their URLs are. It can be an input of a model, as its URL; it can be pickled; and
    `json.dumps(..., default=str)` makes its URL of it, as `str()` does.
    """

    url: str = attrs.field(on_setattr=attrs.setters.frozen)
    """Where it is: an `https:` URL that is good for one hour (HTTP API, section 3.3), or a data URI."""

    _transport: Transport | None = attrs.field(default=None, kw_only=True, alias="transport")
    _size: int | None = attrs.field(default=None, init=False)
    _content_type: str | None = attrs.field(default=None, init=False)
    _path: Path | None = attrs.field(default=None, init=False)

    # What is known of it

    @property
    def name(self) -> str:
        """A name for it, safe as a file name: from its URL, or made up for a data URI."""
        if not self._is_data:
            return safe_name(unquote(_path_of(self.url).rpartition("/")[2]))
        return "output" + guess_extension(self.content_type)

    @property
    def content_type(self) -> str | None:
        """Its media type: what the server said at the last download, else what the URL suggests."""
        if self._is_data:
            said = self.url[5:500].partition(",")[0].partition(";")[0].strip().lower()
            return said if "/" in said else "text/plain"
        if self._content_type not in (None, "application/octet-stream"):
            return self._content_type
        return guess_type(_path_of(self.url)) or self._content_type

    @property
    def size(self) -> int | None:
        """Its size in bytes: of a data URI always, else None before the first download."""
        if self._size is None and self._is_data:
            with suppress(exceptions.FileOutputError):
                self._size = _Data(self.url).size
        return self._size

    @property
    def path(self) -> Path | None:
        """Where `save` or `save_to` has put it last; None if it was not saved by this object."""
        return self._path

    # Its content

    async def read(self) -> bytes:
        """Return the whole content; downloads it at each call.

        Raises:
            FileExpired: It is gone.
            FileTooLarge: It exceeds `Limits(file=...)`, 256 MiB by default: `save` it, or iterate over it.
            IncompleteFile: The download broke off, and could not be resumed.
            TransportError: There was no answer.
        """
        limit = (Limits() if self._transport is None else self._transport.config.limits).file
        whole = io.BytesIO()  # gives what it has without another copy
        chunks: list[bytes] = []
        size = 0
        async with aclosing(self._content(limit=limit, may_restart=True)) as content:
            async for chunk in content:
                if chunk:
                    chunks.append(chunk)
                    size += len(chunk)
                    if size >= _JOINED:
                        whole.writelines(chunks)
                        chunks, size = [], 0
                else:
                    whole, chunks, size = io.BytesIO(), [], 0
        if not whole.tell():
            return b"".join(chunks)
        whole.writelines(chunks)
        return whole.getvalue()

    async def aread(self) -> bytes:
        """Return the whole content, as `read` does."""
        return await self.read()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the content in chunks, as they arrive; it may be of any size.

        Raises:
            FileExpired: It is gone.
            IncompleteFile: The download broke off, and could not be resumed.
            TransportError: There was no answer.
        """
        async with aclosing(self._content()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the content to *path*, and return where it is.

        The file appears under its name when it is complete, never before; whatever goes wrong, nothing
        is left behind.

        Args:
            path: A file, which is replaced if it exists. Or a directory: one that exists, or a path
                that ends with a slash, which is made. There it gets its `name`, with a number if another
                file has that already.

        Raises:
            FileExpired: It is gone.
            IncompleteFile: The download broke off, and could not be resumed.
            FileNotSaved: It cannot be written (also OSError).
            TransportError: There was no answer.
            ArgumentError: *path* is no path.
        """
        return await self._save(_Partial(path, self.name, self._path))

    async def _save_as(self, directory: Path, name: str) -> Path:
        """Save it into a directory, under a name of our choice or one like it."""
        return await self._save(_Partial(f"{directory}{os.sep}", name))

    async def _save(self, partial: _Partial) -> Path:
        await load_anyio()  # while nothing has to be cleaned up yet
        try:
            await in_thread(partial.open)
            await self._write(partial)
            self._path = await in_thread(partial.publish)
        except BaseException as error:
            await surely_in_thread(partial.discard)
            ours = isinstance(error, exceptions.ReplicateException)
            if isinstance(error, (OSError, ValueError)) and not ours:
                raise exceptions.FileNotSaved(self.url, str(partial.target), error) from error
            raise
        return self._path

    async def _write(self, partial: _Partial) -> None:
        run = asyncio.get_running_loop().run_in_executor
        gathered: list[bytes] = []
        size = 0
        writing: asyncio.Future[None] | None = None
        async with aclosing(self._content(may_restart=True)) as chunks:
            async for chunk in chunks:
                gathered.append(chunk)
                size += len(chunk)
                if size >= _WRITTEN or not chunk:
                    # One write at a time, while the next bytes are received.
                    if writing is not None:
                        await writing
                    writing = run(None, partial.write, gathered)
                    writing.add_done_callback(_look_at)
                    gathered, size = [], 0
        if writing is not None:
            await writing
        if gathered:
            await run(None, partial.write, gathered)

    def _content(
        self, *, limit: int | None = None, may_restart: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield the content; an empty chunk tells, if that is allowed, that it begins once more."""
        if self._is_data:
            return self._decoded(limit)
        return self._downloaded(limit, may_restart)

    async def _decoded(self, limit: int | None) -> AsyncGenerator[bytes, None]:
        if limit is not None and len(self.url) > limit and (self.size or 0) > limit:
            raise exceptions.FileTooLarge(self.url, limit)
        data = await in_thread(_Data, self.url)
        for start in range(0, data.length, _DECODED):
            yield await in_thread(data.decode, start, start + _DECODED)

    async def _downloaded(
        self, limit: int | None, may_restart: bool
    ) -> AsyncGenerator[bytes, None]:
        """Make the attempts of a download, each from where the last one broke off."""
        transport = self._transport or _stray()
        found = _Found(self.url, limit)
        attempt, furthest, since = 1, 0, time.monotonic()
        while True:
            failure: exceptions.ReplicateException
            try:
                async with transport.open(
                    self.url, headers=found.request(), buffer=_RECEIVED
                ) as response:
                    again = found.received
                    found.begin(response)
                    self._content_type, self._size = found.content_type, found.total
                    ahead = found.ahead
                    while chunk := await response.content.readany():
                        if ahead:  # all of it was sent again: pass over what we have
                            ahead, chunk = max(ahead - len(chunk), 0), chunk[ahead:]
                            if not chunk:
                                continue
                        found.received += len(chunk)
                        if limit is not None and found.received > limit:
                            raise exceptions.FileTooLarge(self.url, limit)
                        yield chunk
                found.end(again)
                self._size = found.received
                return
            except (exceptions.TransportError, exceptions.ReplicateError) as error:
                if isinstance(error, exceptions.ReplicateError) and error.status in (404, 410):
                    raise exceptions.FileExpired(
                        self.url, error.status, signed=transport.is_api(self.url)
                    ) from error
                failure = error
            except exceptions.IncompleteFile as error:
                failure = error
            # A new piece of the content gives it all its attempts again.
            if found.received >= furthest + _PROGRESS:
                attempt, furthest, since = 1, found.received, time.monotonic()
            delay = _delay(failure, attempt, time.monotonic() - since, transport.config.retry)
            if delay is None or (found.received and not found.resumable and not may_restart):
                raise found.given_up(failure)
            await sleep(delay)
            attempt += 1
            if found.received and not found.resumable:
                found.forget()
                yield b""

    # What it looks like

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        facts = [repr(shown(self.url))]
        if self.content_type is not None:
            facts.append(f"content_type={self.content_type!r}")
        if self.size is not None:
            facts.append(f"size={self.size}")
        if self._path is not None:
            facts.append(f"path={str(self._path)!r}")
        return f"FileOutput({', '.join(facts)})"

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002  (the notebook leaves out by itself)
        exclude: object = None,  # noqa: ARG002
    ) -> dict[str, str]:
        """Return what a notebook shows: the picture itself, or a player that plays from the URL."""
        from html import escape

        bundle = {"text/plain": repr(self)}
        kind = (self.content_type or "").partition("/")[0]
        url = escape(self.url)
        if self.url[:5].lower() not in ("https", "http:", "data:"):
            return bundle
        if kind == "image":
            bundle["text/html"] = f'<img src="{url}" alt="{escape(self.name)}">'
        elif kind in ("audio", "video"):
            bundle["text/html"] = f'<{kind} src="{url}" controls></{kind}>'
        elif not self._is_data:
            bundle["text/html"] = f'<a href="{url}">{escape(self.name)}</a>'
        return bundle

    # What it is compared and kept by

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileOutput):
            return NotImplemented
        return self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url,)

    @property
    def _is_data(self) -> bool:
        return self.url[:5].lower() == "data:"


def shown(url: str) -> str:
    """Return a URL as it may stand in texts: a long one, as data URIs are, shortened."""
    return url if len(url) <= 200 else url[:60] + "…"


@lru_cache(maxsize=1)
def _stray() -> Transport:
    """Return the transport of files that belong to no client, as after unpickling."""
    config = Config(
        base_url=check_base_url(os.environ.get("REPLICATE_BASE_URL") or DEFAULT_BASE_URL),
        token=None,
        headers={"User-Agent": USER_AGENT},
        timeout=Timeout(),
        retry=Retry(),
        limits=Limits(),
        rate_limit=None,
    )
    return Transport(config, Pool())


def _look_at(future: asyncio.Future[None]) -> None:
    """Take note of a failure that another one has come before, so that nobody warns of it."""
    if not future.cancelled():
        future.exception()


# -- Downloads ---------------------------------------------------------------------------------


def _delay(
    failure: exceptions.ReplicateException, attempt: int, elapsed: float, retry: Retry
) -> float | None:
    if isinstance(failure, exceptions.IncompleteFile):
        failure = exceptions.ConnectionLost("GET", failure.url, str(failure))
    return _policy.retry_delay(Kind.READ, failure, attempt, elapsed, retry, random.random())


_RANGE: Final = r"bytes (\d+)-(\d+)/(\d+|\*)"


@attrs.define(eq=False, repr=False)
class _Found:
    """How far a download is, and what it takes to resume it."""

    url: str
    limit: int | None
    received: int = 0
    total: int | None = None
    tag: str | None = None
    """A strong ETag: with it, what was received and what follows belong together."""
    content_type: str | None = None
    ahead: int = 0
    """How many bytes of the present answer were received before."""
    changed: bool = False

    @property
    def resumable(self) -> bool:
        return self.tag is not None and not self.changed

    def request(self) -> Mapping[str, str]:
        """Return the headers of the next attempt."""
        headers = {"Accept-Encoding": "identity"}  # so that lengths are those of the file
        if self.received and self.tag is not None:
            headers["Range"] = f"bytes={self.received}-"
            headers["If-Range"] = self.tag
        return headers

    def begin(self, response: aiohttp.ClientResponse) -> None:
        """Look at the head of an answer.

        Raises:
            IncompleteFile: It does not fit to what was received before.
            FileTooLarge: It says that it is larger than the limit.
        """
        headers = response.headers
        tag = headers.get("ETag", "").strip()
        plain = headers.get("Content-Encoding", "identity").strip().lower() == "identity"
        start, total = 0, response.content_length if plain else None
        if response.status == 206:
            said = headers.get("Content-Range", "").strip()
            part = re.fullmatch(_RANGE, said, re.ASCII | re.IGNORECASE)
            start = int(part[1]) if part else -1
            total = int(part[3]) if part and part[3] != "*" else None
        self.ahead = 0
        if self.received or start:
            same = bool(tag) and tag == self.tag and (total is None or total == self.total)
            if response.status == 206 and not tag and start == self.received:
                same = total == self.total  # it was asked for with If-Range
            if not same or start not in (0, self.received):
                self.changed = True
                raise exceptions.IncompleteFile(self.url, self.received, self.total)
            self.ahead = self.received - start
            return
        self.total = total
        self.tag = tag if plain and len(tag) > 2 and tag[0] == tag[-1] == '"' else None
        self.content_type = (
            headers.get("Content-Type", "").partition(";")[0].strip().lower() or None
        )
        if self.limit is not None and total is not None and total > self.limit:
            raise exceptions.FileTooLarge(self.url, self.limit, total)

    def end(self, before: int) -> None:
        """Check the length of what has come to its end.

        Raises:
            IncompleteFile: It is another than was announced.
        """
        if self.total is not None and self.received != self.total:
            self.changed = self.received > self.total or self.received == before
            raise exceptions.IncompleteFile(self.url, self.received, self.total)

    def forget(self) -> None:
        """Begin anew."""
        self.received, self.total, self.tag, self.changed = 0, None, None, False

    def given_up(self, failure: exceptions.ReplicateException) -> exceptions.ReplicateException:
        """Return what to raise after the last attempt."""
        lost = isinstance(failure, exceptions.ConnectionLost) or (
            isinstance(failure, exceptions.ReplicateError) and failure.status == 416
        )
        if lost and (self.received or self.total is not None):
            error = exceptions.IncompleteFile(self.url, self.received, self.total)
            error.__cause__ = failure
            return error
        return failure


class _Data:
    """A data URI (RFC 2397), decoded in pieces."""

    def __init__(self, url: str) -> None:
        comma = url.find(",", 5)
        if comma < 0:
            raise exceptions.FileOutputError(url, "this data URI has no content")
        self._url = url
        self._start = comma + 1
        self._base64 = url[max(comma - 20, 5) : comma].strip().lower().endswith(";base64")
        self._text = url
        if not self._base64:
            self._plain = unquote_to_bytes(url[self._start :])
            self.length = self.size = len(self._plain)
            return
        if "%" in url or any(space in url for space in " \n\r\t"):
            self._text = "".join(unquote(url[self._start :]).split())
            self._start = 0
        end = len(self._text)
        while end > self._start and self._text[end - 1] == "=":
            end -= 1
        self._end = end
        self.length = end - self._start
        """Of what is to be decoded."""
        self.size = self.length * 3 // 4
        """Of the content, in bytes."""

    def decode(self, start: int, stop: int) -> bytes:
        """Return the content of a piece; its ends are multiples of four.

        Raises:
            FileOutputError: It is no base64.
        """
        if not self._base64:
            return self._plain[start:stop]
        piece = self._text[self._start + start : min(self._start + stop, self._end)]
        try:
            return base64.b64decode(piece + "=" * (-len(piece) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise exceptions.FileOutputError(
                self._url, f"this data URI cannot be read ({error})"
            ) from error


# -- Files on the disk -------------------------------------------------------------------------


class _Partial:
    """A file that is being written, under another name until it is complete.

    Its methods are called in threads, and may outlast the task that called them: after `discard`, none
    of them leaves anything behind.
    """

    def __init__(self, path: str | os.PathLike[str], name: str, before: Path | None = None) -> None:
        try:
            given = os.fspath(path)
        except TypeError:
            given = None
        if not isinstance(given, str):
            raise exceptions.ArgumentTypeError("path", f"expected a path, got {path!r}")
        if not given or "\0" in given:
            raise exceptions.ArgumentError("path", f"{given!r} is no path")
        self.target = Path(given)
        self._is_directory = given.endswith(("/", os.sep))
        self._name = name
        self._before = before
        self._lock = threading.Lock()
        self._partial: Path | None = None
        self._descriptor: int | None = None
        self._discarded = False

    def open(self) -> None:
        """Make the file under its other name, and the directory if it is to be one."""
        with self._lock:
            if self._discarded:
                return
            if self._is_directory or self.target.is_dir():
                self._is_directory = True
                self.target.mkdir(parents=True, exist_ok=True)
                self.target /= self._name
            partial = self.target.with_name(f".{secrets.token_hex(8)}.part")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(partial, flags, 0o666)
            self._partial = partial

    def write(self, chunks: list[bytes]) -> None:
        """Append chunks; an empty one means that all before it is void."""
        with self._lock:
            if self._descriptor is None:
                return
            if not chunks[-1]:
                os.ftruncate(self._descriptor, 0)
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                return
            _write_all(self._descriptor, chunks)

    def publish(self) -> Path:
        """Give the file its name, and return where it is."""
        with self._lock:
            partial = self._partial
            if partial is None:
                raise InterruptedError("it was discarded")
            self._close()
            if not self._is_directory or self.target == self._before:
                partial.replace(self.target)
            else:
                self.target = _moved(partial, self.target)
            self._partial = None
            return self.target

    def discard(self) -> None:
        """Remove what there is of it, unless it is complete."""
        with self._lock:
            self._discarded = True
            with suppress(OSError):
                self._close()
            if self._partial is not None:
                with suppress(OSError):
                    self._partial.unlink(missing_ok=True)
                self._partial = None

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


_MOST_BUFFERS: Final = 256


def _write_all(descriptor: int, chunks: list[bytes]) -> None:
    if not hasattr(os, "writev"):
        chunks = [b"".join(chunks)]
    while chunks:
        some = chunks[:_MOST_BUFFERS]
        if hasattr(os, "writev"):
            # Without a copy, which would be made with the interpreter's lock.
            written = os.writev(descriptor, some)
        else:
            written = os.write(descriptor, some[0])
        while chunks and written >= len(chunks[0]):
            written -= len(chunks[0])
            chunks = chunks[1:]
        if written:
            chunks = [chunks[0][written:], *chunks[1:]]


def _moved(partial: Path, target: Path) -> Path:
    """Rename a file without replacing another: if the name is taken, it gets a number."""
    for candidate in _numbered(target):
        try:
            os.link(partial, candidate)
        except FileExistsError:
            continue
        except OSError:  # this file system has no hard links
            if os.path.lexists(candidate):
                continue
            partial.replace(candidate)
        else:
            partial.unlink()
        return candidate
    raise AssertionError("unreachable: there is always a further number")


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in range(2, 100):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
    while True:  # there are many: to count on would take longer and longer
        yield path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")


async def ready_directory(path: str | os.PathLike[str]) -> Path:
    """Return a directory that can be written to; it is made if it does not exist.

    Raises:
        ArgumentError: It cannot be had.
    """

    def ready() -> Path:
        try:
            directory = Path(path)
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError("it cannot be written to")
        except TypeError:
            raise exceptions.ArgumentTypeError(
                "save_to", f"expected a path, got {path!r}"
            ) from None
        except (OSError, ValueError) as error:
            raise exceptions.ArgumentError("save_to", f"{path!s}: {error}") from error
        return directory

    return await in_thread(ready)


async def save_all(output: Any, directory: Path) -> list[exceptions.ReplicateException]:
    """Save all files of an output; return what went wrong. One that fails does not stop the others."""
    files = list(dict.fromkeys(_files_in(output)))
    taken: dict[str, int] = {}
    jobs: list[tuple[FileOutput, str]] = []
    for file in files:
        name = file.name
        count = taken[name] = taken.get(name, 0) + 1
        # So that their order is seen in their names.
        numbered = Path(name)
        jobs.append((file, name if count == 1 else f"{numbered.stem}-{count}{numbered.suffix}"))

    async def save(job: tuple[FileOutput, str]) -> exceptions.ReplicateException | None:
        file, name = job
        try:
            await file._save_as(directory, name)
        except exceptions.ReplicateException as error:
            return error
        return None

    failures = await for_each(save, jobs, at_once=_SAVED_AT_ONCE) if jobs else []
    paths = {file: file.path for file in files}
    for file in _files_in(output):
        file._path = paths[file]
    return [failure for failure in failures if failure is not None]


def _files_in(output: Any) -> Iterator[FileOutput]:
    if isinstance(output, FileOutput):
        yield output
    elif isinstance(output, list):
        for item in output:
            yield from _files_in(item)
    elif isinstance(output, dict):
        for item in output.values():
            yield from _files_in(item)


# -- Files in the output -----------------------------------------------------------------------


def to_output(value: Any, transport: Transport | None, *, files: bool) -> Any:
    """Return an output with its file URLs as `FileOutput`; the rest as it is.

    A file is a whole string that is an `https:` or `data:` URL, or an `http:` URL on the host of an
    `http:` API. In a list of strings all must be files: a list of tokens stays text.
    """
    if not files or value is None:
        return value
    return _converted(value, transport, None if transport is None else transport.http_host)


def _converted(value: Any, transport: Transport | None, host: str | None) -> Any:
    if isinstance(value, str):
        return FileOutput(value, transport=transport) if _is_file(value, host) else value
    if isinstance(value, list):
        if any(isinstance(item, str) and not _is_file(item, host) for item in value):
            return [
                item if isinstance(item, str) else _converted(item, transport, host)
                for item in value
            ]
        return [_converted(item, transport, host) for item in value]
    if isinstance(value, dict):
        return {key: _converted(item, transport, host) for key, item in value.items()}
    return value


def _is_file(text: str, http_host: str | None) -> bool:
    if text[:1] not in "hHdD":
        return False
    start = text[:8].lower()
    if start == "https://":
        if len(text) == 8:
            return False
    elif start.startswith("data:"):
        if "," not in text:
            return False
    elif not (http_host and start.startswith("http://") and _host(text) == http_host):
        return False
    return not re.search(r"\s", text)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
