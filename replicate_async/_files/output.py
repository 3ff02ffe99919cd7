"""Files that models made: read, iterated over, saved, shown. Their downloads resume."""

from __future__ import annotations

import io
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import attrs

from .. import exceptions
from .._concurrency import gather_limited, in_thread
from .._http.call import DEFAULT_BASE_URL, USER_AGENT, Config, check_base_url
from .._http.session import Pool
from .._http.transport import Transport
from ..types import Limits, Retry, Timeout
from .disk import NewFile, UniqueNames, destination, new_file
from .download import BUFFERED, DataUri, Download
from .media import guess_extension, guess_type, safe_name

_WRITTEN: Final = 3 * 2**19
"""Bytes that are written at once. With less, changing threads costs more than writing."""


_BUFFERED: Final = 3 * 2**18
"""Bytes that may wait to be read while a thread writes; aiohttp takes in twice as many."""


_JOINED: Final = 2**22
"""Bytes up to which what is read is joined at the end: more would be twice in memory."""


_DECODED: Final = 2**19
"""Characters of a data URI that are decoded in one go: longer ones would hold up the event loop."""


_SAVED_AT_ONCE: Final = 8


_SPACE: Final = re.compile(r"\s")


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
    """Where it is: an `https:` URL that is good for one hour (:api:`retention`), or a data URI."""

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
                self._size = DataUri(self.url).size
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
        return await self._save(path, self.name, known=self._path)

    async def _save_in(self, directory: Path, name: str) -> Path:
        """Save it into a directory under a name, with a number if that is taken."""
        return await self._save(f"{directory}{os.sep}", name, known=None)

    def _saved_at(self, path: Path | None) -> None:
        """Note where it was saved."""
        self._path = path

    async def _save(self, path: str | os.PathLike[str], name: str, known: Path | None) -> Path:
        target: str | os.PathLike[str] = path
        try:
            target, in_directory = await destination(path, name)
            async with new_file(target, replace=not in_directory or target == known) as file:
                await self._write(file)
        except (OSError, ValueError) as error:
            if isinstance(error, exceptions.ReplicateException):
                raise
            raise exceptions.FileNotSaved(self.url, os.fspath(target), error) from error
        self._path = file.path
        return file.path

    async def _write(self, file: NewFile) -> None:
        gathered: list[bytes] = []
        size = 0
        async with aclosing(self._content(may_restart=True, buffer=_BUFFERED)) as chunks:
            async for chunk in chunks:
                if not chunk:
                    await file.clear()
                    gathered, size = [], 0
                    continue
                gathered.append(chunk)
                size += len(chunk)
                if size >= _WRITTEN:
                    content = b"".join(gathered)
                    gathered, size = [], 0
                    await file.write(content)
        await file.write(b"".join(gathered))

    def _content(
        self, *, limit: int | None = None, may_restart: bool = False, buffer: int = BUFFERED
    ) -> AsyncGenerator[bytes, None]:
        """Yield the content; an empty chunk says, if that is allowed, that it begins again."""
        if self._is_data:
            return self._decoded(limit)
        download = Download(
            self._transport or _transport_without_client(),
            self.url,
            limit=limit,
            may_restart=may_restart,
            buffer=buffer,
        )
        return self._downloaded(download)

    async def _decoded(self, limit: int | None) -> AsyncGenerator[bytes, None]:
        if limit is not None and len(self.url) > limit and (self.size or 0) > limit:
            raise exceptions.FileTooLarge(self.url, limit)
        data = await in_thread(DataUri, self.url)
        for start in range(0, data.length, _DECODED):
            yield await in_thread(data.decode, start, start + _DECODED)

    async def _downloaded(self, download: Download) -> AsyncGenerator[bytes, None]:
        """Yield the content, and keep what the server says of it."""
        async with aclosing(download.chunks()) as chunks:
            async for chunk in chunks:
                self._content_type, self._size = download.content_type, download.total
                yield chunk
        self._content_type, self._size = download.content_type, download.total

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
def _transport_without_client() -> Transport:
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


async def save_all(output: Any, directory: Path) -> list[exceptions.ReplicateException]:
    """Save all files of an output; return what went wrong. One that fails does not stop the others."""
    files = list(dict.fromkeys(files_in(output)))
    names = UniqueNames()

    async def save(job: tuple[FileOutput, str]) -> exceptions.ReplicateException | None:
        file, name = job
        try:
            await file._save_in(directory, name)
        except exceptions.ReplicateException as error:
            return error
        return None

    # Numbered before they are saved, so that their names tell their order.
    jobs = [(file, names.add(file.name)) for file in files]
    failures = await gather_limited(save, jobs, at_once=_SAVED_AT_ONCE)
    paths = {file: file.path for file in files}
    for file in files_in(output):
        file._saved_at(paths[file])
    return [failure for failure in failures if failure is not None]


# -- Trees of outputs: lists and dicts in each other, perhaps deeper than Python can recurse ----

Tree: TypeAlias = list[Any] | dict[Any, Any]


def walk(tree: Tree) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each place in a tree, in order: the list or dict, the index or key, and what is there.

    A list or dict may be replaced when it is yielded; what replaces it is walked through.
    """
    path = [(tree, _items(tree))]
    while path:
        container, items = path[-1]
        for key, value in items:
            yield container, key, value
            inner = container[key]
            if isinstance(inner, (list, dict)):
                path.append((inner, _items(inner)))
                break
        else:
            path.pop()


def _items(tree: Tree) -> Iterator[tuple[Any, Any]]:
    return enumerate(tree) if isinstance(tree, list) else iter(tree.items())


def files_in(output: Any) -> Iterator[FileOutput]:
    """Yield the files of an output, in order."""
    for _, _, value in walk([output]):
        if isinstance(value, FileOutput):
            yield value


def replace_files(output: Any, replace: Callable[[FileOutput], Any]) -> Any:
    """Return a copy of an output with something else in the places of its files."""
    root = [output]
    for container, key, value in walk(root):
        if isinstance(value, FileOutput):
            container[key] = replace(value)
        elif isinstance(value, (list, dict)):
            container[key] = value.copy()
    return root[0]


def to_output(value: Any, transport: Transport | None, *, files: bool) -> Any:
    """Return an output with its file URLs as `FileOutput`; the rest as it is.

    A file is a whole string that is an `https:` or `data:` URL, or an `http:` URL on the host of an
    `http:` API. In a list of strings all must be files: a list of tokens stays text.
    """
    if not files or value is None:
        return value
    http_host = None if transport is None else transport.http_host

    def converted(tree: Tree) -> Tree:
        """Return a copy of one list or dict."""
        tree = tree.copy()
        found: dict[Any, FileOutput] = {
            key: FileOutput(item, transport=transport)
            for key, item in _items(tree)
            if isinstance(item, str) and is_file_url(item, http_host)
        }
        if isinstance(tree, dict):
            tree.update(found)
        # In a list of strings all must be files: a list of tokens stays text.
        elif all(index in found for index, item in enumerate(tree) if isinstance(item, str)):
            for index, file in found.items():
                tree[index] = file
        return tree

    root = converted([value])
    for container, key, item in walk(root):
        if isinstance(item, (list, dict)):
            container[key] = converted(item)
    return root[0]


def is_file_url(text: str, http_host: str | None) -> bool:
    """Tell whether a string of an output is a file.

    Args:
        text: The string.
        http_host: The host whose `http:` URLs are files, too.
    """
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
    return not _SPACE.search(text)


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
