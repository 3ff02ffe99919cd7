"""Files: uploaded ones, and what is known of output files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from ._record import Record


@attrs.define
class FileUrls:
    """URLs of an uploaded file (:api:`file-object`)."""

    get: str | None = None
    """URL of the file's record. In the input of a model it stands for the file's content."""


@attrs.define(eq=False)
class File(Record):
    """An uploaded file (:api:`file-object`)."""

    id: str
    """Unique ID."""
    name: str | None = None
    """Name given at the upload."""
    content_type: str | None = None
    """Media type."""
    size: int | None = None
    """Size in bytes."""
    etag: str | None = None
    """Entity tag of the content."""
    checksums: dict[str, Any] = attrs.field(factory=dict)
    """Hashes of the content in hexadecimal: `sha256`, and possibly `md5`."""
    metadata: dict[str, Any] = attrs.field(factory=dict)
    """Metadata given at the upload."""
    created_at: datetime | None = None
    """Time of the upload."""
    expires_at: datetime | None = None
    """Time at which the file will be deleted."""
    urls: FileUrls = attrs.field(factory=FileUrls)
    """URLs of the file."""


@attrs.frozen
class FileStat:
    """Facts about an output file that the server reports without its content."""

    size: int | None
    """Size in bytes; None if the server does not report it."""
    content_type: str | None
    """Media type; None if unknown."""
    etag: str | None = None
    """Entity tag of the content, if the server gives one."""
