"""Uploaded files."""

from __future__ import annotations

import builtins
import io
import os
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, TypedDict, Unpack

import attrs

from ..exceptions import ArgumentError
from ._backend import Operation
from ._objects import Namespace, Resource, received

__all__ = ("File", "FileEncodingStrategy", "Files")

FileEncodingStrategy: TypeAlias = Literal["base64", "url"]
"""How to send files: encoded into the request, or uploaded first."""


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class File(Resource):
    """An uploaded file, which can be an input of a model."""

    id: str
    """Unique ID."""
    name: str
    """Name of the file."""
    content_type: str
    """Media type."""
    size: int
    """Size in bytes."""
    etag: str
    """ETag of the content."""
    checksums: dict[str, str]
    """Checksums of the content."""
    metadata: dict[str, Any]
    """Metadata that was given at the upload."""
    created_at: str
    """When it was uploaded."""
    expires_at: str | None = None
    """When it will be deleted."""
    urls: dict[str, str]
    """URLs of the file; `get` can be an input of a model."""


class Files(Namespace):
    """Uploaded files."""

    class CreateFileParams(TypedDict, total=False):
        """Options of an upload."""

        filename: str
        """Name of the file."""
        content_type: str
        """Media type."""
        metadata: dict[str, Any]
        """Metadata to store with the file."""

    def create(
        self, file: str | Path | BinaryIO | io.IOBase, **params: Unpack[Files.CreateFileParams]
    ) -> File:
        """Upload a file. Calls :api:`files.create`.

        Args:
            file: Path, or file that is open for reading.
            params: `filename`, `content_type`, `metadata`.

        Returns:
            The uploaded file.
        """
        return _file(self._client.call(_create(file, params)))

    async def async_create(
        self, file: str | Path | BinaryIO | io.IOBase, **params: Unpack[Files.CreateFileParams]
    ) -> File:
        """Upload a file, as `create` does. Calls :api:`files.create`."""
        return _file(await self._client.async_call(_create(file, params)))

    def get(self, file_id: str) -> File:
        """Fetch the metadata of a file. Calls :api:`files.get`."""
        return _file(self._client.call(lambda api: api.files.get(file_id)))

    async def async_get(self, file_id: str) -> File:
        """Fetch the metadata of a file. Calls :api:`files.get`."""
        return _file(await self._client.async_call(lambda api: api.files.get(file_id)))

    def list(self) -> builtins.list[File]:
        """List the first page of files. Calls :api:`files.list`."""
        return [_file(item) for item in self._client.call(lambda api: api.files.list()).results]

    async def async_list(self) -> builtins.list[File]:
        """List the first page of files. Calls :api:`files.list`."""
        page = await self._client.async_call(lambda api: api.files.list())
        return [_file(item) for item in page.results]

    def delete(self, file_id: str) -> bool:
        """Delete a file, and return True. Calls :api:`files.delete`."""
        self._client.call(lambda api: api.files.delete(file_id))
        return True

    async def async_delete(self, file_id: str) -> bool:
        """Delete a file, and return True. Calls :api:`files.delete`."""
        await self._client.async_call(lambda api: api.files.delete(file_id))
        return True


def _create(file: Any, params: Files.CreateFileParams) -> Operation:
    options: dict[str, Any] = {**params}
    if isinstance(file, (str, os.PathLike)):
        file = Path(file)
        options["filename"] = file.name
    elif not hasattr(file, "read"):
        raise ArgumentError("file", f"expected a path or an open file, got {type(file).__name__}")
    return lambda api: api.files.create(file, **options)


def _file(found: Any) -> File:
    return received(File, found)
