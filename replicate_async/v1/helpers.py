"""Files in inputs and outputs."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, closing
from pathlib import Path
from types import GeneratorType
from typing import Any

from .._files.media import guess_type
from .._json import mapped
from ._backend import Backend
from .file import FileEncodingStrategy, Files

__all__ = (
    "FileOutput",
    "async_encode_json",
    "base64_encode_file",
    "encode_json",
    "transform_output",
)


class FileOutput:
    """A file in the output of a prediction. Its content is downloaded each time it is read."""

    url: str
    """URL of the file, or a data URI."""

    def __init__(self, url: str, client: Backend) -> None:
        self.url = url
        self._client = client

    def read(self) -> bytes:
        """Download the file, and return its content."""
        content: bytes = self._client.call(lambda api: api.output(self.url).read())
        return content

    def __iter__(self) -> Iterator[bytes]:
        """Download the file, and yield its content in chunks."""
        with closing(self._client.call(lambda api: iter(api.output(self.url)))) as chunks:
            yield from chunks

    async def aread(self) -> bytes:
        """Download the file, and return its content."""
        content: bytes = await self._client.async_call(lambda api: api.output(self.url).read())
        return content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Download the file, and yield its content in chunks."""
        chunks: Any = aiter(self._client.async_client().output(self.url))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def close(self) -> None:
        """Do nothing; httpx closes what it sends."""

    async def aclose(self) -> None:
        """Do nothing; httpx closes what it sends."""

    def __str__(self) -> str:
        return self.url


def transform_output(value: Any, client: Backend) -> Any:
    """Return an output with a `FileOutput` in the place of each file.

    Args:
        value: The output: JSON.
        client: The client to download with.

    Returns:
        The output, in which strings that begin with `https:` or `data:` are files.
    """

    def change(leaf: Any) -> Any:
        is_file = isinstance(leaf, str) and leaf.startswith(("https:", "data:"))
        return FileOutput(leaf, client) if is_file else leaf

    return mapped(value, change, {dict: dict, list: list, tuple: list})


def encode_json(
    obj: Any, client: Backend, file_encoding_strategy: FileEncodingStrategy | None = None
) -> Any:
    """Return an input as JSON; files in it are uploaded or encoded.

    Not needed to run models: `run` and `create` do this.

    Args:
        obj: The input.
        client: The client to upload with.
        file_encoding_strategy: `"base64"` encodes files as data URIs; by default, they are uploaded.

    Returns:
        JSON with the URLs of the files.
    """
    if isinstance(obj, Mapping):
        return {key: encode_json(item, client, file_encoding_strategy) for key, item in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset, GeneratorType)):
        return [encode_json(item, client, file_encoding_strategy) for item in obj]
    if isinstance(obj, (Path, io.IOBase)):
        if file_encoding_strategy == "base64":
            return _data_uri(obj)
        return Files(client).create(obj).urls["get"]
    return _plain(obj)


async def async_encode_json(
    obj: Any, client: Backend, file_encoding_strategy: FileEncodingStrategy | None = None
) -> Any:
    """Return an input as JSON, as `encode_json` does.

    Args:
        obj: The input.
        client: The client to upload with.
        file_encoding_strategy: `"base64"` encodes files as data URIs; by default, they are uploaded.

    Returns:
        JSON with the URLs of the files.
    """
    if isinstance(obj, Mapping):
        return {
            key: await async_encode_json(item, client, file_encoding_strategy)
            for key, item in obj.items()
        }
    if isinstance(obj, (list, tuple, set, frozenset, GeneratorType)):
        return [await async_encode_json(item, client, file_encoding_strategy) for item in obj]
    if isinstance(obj, (Path, io.IOBase)):
        if file_encoding_strategy == "base64":
            return _data_uri(obj)
        return (await Files(client).async_create(obj)).urls["get"]
    return _plain(obj)


def base64_encode_file(file: io.IOBase) -> str:
    """Return the content of a file as a data URI.

    Args:
        file: File that is open for reading. It is read from its beginning.

    Returns:
        The data URI, with a media type guessed from the name of the file.
    """
    file.seek(0)
    content: str | bytes = file.read()
    encoded = base64.b64encode(content.encode() if isinstance(content, str) else content).decode()
    kind = guess_type(str(getattr(file, "name", ""))) or "application/octet-stream"
    return f"data:{kind};base64,{encoded}"


def _data_uri(file: Path | io.IOBase) -> str:
    if isinstance(file, io.IOBase):
        return base64_encode_file(file)
    with file.open("rb") as opened:
        return base64_encode_file(opened)


def _plain(value: Any) -> Any:
    """Return arrays and scalars of numpy as what they hold; anything else as it is."""
    as_list = getattr(value, "tolist", None)
    if callable(as_list) and type(value).__module__.partition(".")[0] == "numpy":
        return as_list()
    return value.url if isinstance(value, FileOutput) else value
