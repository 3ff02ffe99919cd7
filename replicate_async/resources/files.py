"""Uploaded files (:api:`files`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import exceptions
from .._codec import encode_json
from .._files.output import FileOutput
from .._files.sources import is_media_type, source_of
from .._files.uploads import upload
from .._http.call import Call
from .._references import identifier, named
from ..types import File
from ._base import Namespace
from ._pages import Listing, pages

__all__ = ("Files",)


class Files(Namespace):
    """Uploaded files (:api:`files`). Inputs of models are uploaded without your doing."""

    async def create(
        self,
        file: Any,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> File:
        """Upload a file. Calls :api:`files.create`.

        Args:
            file: A path (`pathlib.Path`, or a string here, where it can mean nothing else), bytes, or
                something with a `read` that gives bytes, awaited or not; up to 100 MiB. What can be
                read again is sent from its beginning; it stays open.
            filename: Its name; by default that of the path. At most 255 bytes in UTF-8.
            content_type: Its media type; by default what the name suggests, else the first bytes.
            metadata: JSON to keep with it.

        Raises:
            ArgumentError: It cannot be read, or is too large; nothing was sent.
            ReplicateError: The API refuses.
        """
        if filename is not None:
            named(filename, "", "filename")
            if not 0 < len(filename.encode("utf-8", "replace")) <= 255:
                raise exceptions.ArgumentError("filename", "it must have 1 to 255 bytes in UTF-8")
        if content_type is not None and not is_media_type(content_type):
            raise exceptions.ArgumentError("content_type", f"{content_type!r} is not a media type")
        if metadata is not None:
            try:
                encode_json(dict(metadata))
            except (TypeError, ValueError) as error:
                raise exceptions.ArgumentError("metadata", f"it is not JSON: {error}") from error
        given = Path(file) if isinstance(file, str) else file
        source = await source_of(given, "file", name=filename, content_type=content_type)
        answer = await upload(self._context.transport, source, metadata)
        created: File = answer.data
        return created

    async def get(self, id: str) -> File:
        """Fetch what is known of a file. Calls :api:`files.get`."""
        return await self._context.fetch(File, Call("GET", f"/files/{identifier(id, 'id')}"))

    def list(self, cursor: str | None = None) -> Listing[File]:
        """List the account's files, newest first. Calls :api:`files.list`.

        Args:
            cursor: The `next` or `previous` of a page, to begin there.
        """
        return pages(self._context, Call("GET", "/files"), File, cursor)

    async def delete(self, id: str) -> None:
        """Delete a file. Calls :api:`files.delete`."""
        await self._context.command("DELETE", f"/files/{identifier(id, 'id')}")
        self._context.uploads.forget(id)

    def download(
        self, id: str, *, owner: str, expiry: datetime | int, signature: str
    ) -> FileOutput:
        """Return the content of a file, to be read or saved. Calls :api:`files.download`.

        Args:
            id: The file.
            owner: The account that uploaded it.
            expiry: Until when the signature is good: a datetime, or seconds since 1970.
            signature: The signature of owner, id and expiry, in base64.
        """
        if isinstance(expiry, bool) or not isinstance(expiry, (datetime, int)):
            raise exceptions.ArgumentTypeError(
                "expiry", f"expected a datetime or seconds since 1970, got {expiry!r}"
            )
        seconds = int(expiry.timestamp()) if isinstance(expiry, datetime) else expiry
        url = self._context.transport.url_of(
            Call(
                "GET",
                f"/files/{identifier(id, 'id')}/download",
                params={"owner": owner, "expiry": seconds, "signature": signature},
            )
        )
        return FileOutput(url, transport=self._context.transport)
