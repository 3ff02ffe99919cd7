"""Uploaded files (:api:`files`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from .. import _arguments, exceptions
from .._codec import encode_json
from .._files.output import FileOutput
from .._files.sources import MAX_NAME_BYTES, is_media_type, source_of
from .._files.uploads import upload
from .._http.call import Call
from .._jobs.context import with_answer
from .._references import identifier
from ..types import File
from ._base import Namespace
from ._pages import Listing, pages

__all__ = ("Files",)


class Files(Namespace):
    """Uploaded files (:api:`files`). Files in the inputs of models are uploaded automatically."""

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
            file: The file, of up to 100 MiB: a path (a `pathlib.Path` or a string), bytes, or an object
                with a `read` method that returns bytes, such as an open file or a `FileOutput`. The method may
                be a coroutine function. Files that can seek are read from their beginning, and keep their
                position. They are not closed.
            filename: Name of the file, at most 255 bytes in UTF-8; by default that of the path.
            content_type: Media type; by default guessed from the name, or else from the first bytes.
            metadata: JSON to store with the file.

        Returns:
            The uploaded file.

        Raises:
            ArgumentError: The file cannot be read, or is too large; nothing was uploaded.
            ArgumentTypeError: An argument has an invalid type; nothing was uploaded.
            ReplicateError: The API returned an error; nothing was uploaded.
            TransportError: No usable response was received; the file may have been uploaded.
        """
        if filename is not None:
            _check_name(filename)
        if content_type is not None and not isinstance(content_type, str):
            raise exceptions.ArgumentTypeError(
                "content_type", f"expected a string, got {content_type!r}"
            )
        if content_type is not None and not is_media_type(content_type):
            raise exceptions.ArgumentError(
                "content_type", f"expected a media type, got {content_type!r}"
            )
        if metadata is not None:
            try:
                encode_json(dict(metadata))
            except (TypeError, ValueError) as error:
                raise exceptions.ArgumentError(
                    "metadata", f"it cannot be sent as JSON ({error})"
                ) from error
        given = Path(file) if isinstance(file, str) else file
        source = await source_of(given, "file", name=filename, content_type=content_type)
        try:
            answer = await upload(self._context.transport, source, metadata)
        finally:
            source.release()
        created: File = answer.data
        return with_answer(created, answer)

    async def get(self, id: str) -> File:
        """Fetch the metadata of a file. Calls :api:`files.get`.

        Args:
            id: ID of the file.

        Returns:
            The file.

        Raises:
            NotFoundError: The file does not exist, or has expired.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        call = Call("GET", f"/files/{identifier(id, 'id')}", id=id)
        return await self._context.fetch(File, call)

    def list(self, cursor: str | None = None) -> Listing[File]:
        """List the files of the account, newest first. Calls :api:`files.list`.

        Args:
            cursor: `next` or `previous` of another page, to start there instead of at the first page.

        Returns:
            Files, in pages.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return pages(self._context, Call("GET", "/files"), File, cursor)

    async def delete(self, id: str) -> None:
        """Delete a file. Calls :api:`files.delete`.

        Args:
            id: ID of the file.

        Raises:
            NotFoundError: The file does not exist, or has expired.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the file may have been deleted.
        """
        await self._context.command("DELETE", f"/files/{identifier(id, 'id')}")
        self._context.uploads.forget(id)

    def download(
        self, id: str, *, owner: str, expiry: datetime | int, signature: str
    ) -> FileOutput:
        """Return the content of a file by a signed URL. Calls :api:`files.download` when it is read.

        Args:
            id: ID of the file.
            owner: Owner of the file: the username of a user or organization.
            expiry: Expiry of the signature: a datetime, or seconds since 1970.
            signature: Signature of owner, ID and expiry, in base64.

        Returns:
            The content, which can be read, saved or iterated over.

        Raises:
            ArgumentError: An argument is invalid.
        """
        if isinstance(expiry, bool) or not isinstance(expiry, (datetime, int)):
            raise exceptions.ArgumentTypeError(
                "expiry", f"expected a datetime or seconds since 1970, got {expiry!r}"
            )
        for name, value in (("owner", owner), ("signature", signature)):
            _arguments.text(value, name)
        seconds = int(expiry.timestamp()) if isinstance(expiry, datetime) else expiry
        url = self._context.transport.routes.url_of(
            Call(
                "GET",
                f"/files/{identifier(id, 'id')}/download",
                params={"owner": owner, "expiry": seconds, "signature": signature},
            )
        )
        transport = self._context.transport
        # It is no output, which `output_hosts` is about.
        config = attrs.evolve(transport.config, output_hosts=None)
        return FileOutput(url, transport=transport.with_config(config))


def _check_name(filename: object) -> None:
    if not isinstance(filename, str):
        raise exceptions.ArgumentTypeError("filename", f"expected a string, got {filename!r}")
    if not 0 < len(filename.encode("utf-8", "replace")) <= MAX_NAME_BYTES:
        raise exceptions.ArgumentError(
            "filename", f"expected 1 to {MAX_NAME_BYTES} bytes in UTF-8, got {filename!r}"
        )
