"""File names and media types, guessed from each other and from the first bytes."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Final

_MAX_SAFE_BYTES: Final = 160
"""The maximum length of a file name from a URL. File systems accept 255: the rest is for prefixes and numbers."""

_MAX_SUFFIX: Final = 16

_SUFFIX: Final = re.compile(r"[^.]\.(?=[0-9]*[A-Za-z])[0-9A-Za-z_+-]{1,15}$")

_RESERVED: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³]) *(\..*)?", re.IGNORECASE | re.ASCII
)
"""Names of devices on Windows."""


GENERIC_TYPES: Final = (None, "application/octet-stream", "binary/octet-stream")
"""Media types that say nothing about the content."""

SNIFFED: Final = 512
"""Bytes at the beginning of a file that are enough for `sniff`."""


def safe_name(name: str) -> str:
    """Return a file name that is valid on all systems, and stays in its directory."""
    name = "".join(
        character if character.isprintable() and character not in '/\\:*?"<>|' else "_"
        for character in name[:2000]
    ).strip(" .")
    if not name:
        return "output"
    if _RESERVED.fullmatch(name):
        name = f"_{name}"
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    if len(suffix) > _MAX_SUFFIX:
        stem, suffix = name, ""
    if len(name.encode()) > _MAX_SAFE_BYTES:
        room = _MAX_SAFE_BYTES - len(suffix.encode())
        stem = stem.encode()[:room].decode(errors="ignore").rstrip(" .")
    return (stem + suffix).rstrip(" .") or "output"


_TYPE: Final = re.compile(
    r"[\w!#$&^.+-]+/[\w!#$&^.+-]+( *; *[\w-]+=([\w.+-]+|\"[\w .+-]*\"))*", re.ASCII
)


def valid_type(value: str | None) -> str | None:
    """Return the value of a `Content-Type` header if it is valid: it is not trusted, and may go to a browser."""
    value = (value or "").strip()
    return value if len(value) <= 200 and _TYPE.fullmatch(value) else None


def essence(content_type: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def has_suffix(name: str) -> bool:
    """Return whether a file name has a suffix, such as `.png`. The `.5` of `model-1.5` does not count."""
    return _SUFFIX.search(name) is not None


def guess_type(name: str) -> str | None:
    """Return the media type for a file name or a path; None if unknown."""
    # The prefix makes it a path, since `mimetypes` would fail to parse a name such as `//[` as a URL.
    return _table().guess_type(f"./{name}", strict=False)[0]


def guess_extension(content_type: str | None) -> str:
    """Return the suffix for a media type, with its dot; empty if unknown."""
    if content_type in GENERIC_TYPES:
        return ""
    if content_type in _SUFFIXES:
        return _SUFFIXES[content_type]
    return _table().guess_extension(content_type or "", strict=False) or ""


@lru_cache(maxsize=1)
def _table() -> mimetypes.MimeTypes:
    """Return a table of media types that is the same on all machines."""
    table = mimetypes.MimeTypes()
    for suffix, kind in _TYPES.items():
        table.add_type(kind, suffix)
    return table


_TYPES: Final[Mapping[str, str]] = {
    # In addition to those that all supported versions of Python know.
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".heic": "image/heic",
    ".jsonl": "application/jsonl",
    ".m4a": "audio/mp4",
    ".md": "text/markdown",
    ".mkv": "video/x-matroska",
    ".obj": "model/obj",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".ply": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
}


_SUFFIXES: Final[Mapping[str | None, str]] = {
    # Types that servers use, and that `mimetypes` does not know or gives an unusual suffix.
    "application/gzip": ".gz",
    "application/x-gzip": ".gz",
    "application/x-zip-compressed": ".zip",
    "audio/mp3": ".mp3",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/wave": ".wav",
    "audio/x-flac": ".flac",
    "audio/x-wav": ".wav",
    "audio/vnd.wave": ".wav",
    "image/jpeg": ".jpg",
    "image/jpg": ".jpg",
    "image/pjpeg": ".jpg",
    "image/tiff": ".tiff",
    "image/x-png": ".png",
    "text/html": ".html",
    "text/plain": ".txt",
    "video/mpeg": ".mpg",
    "video/quicktime": ".mov",
}


def sniff(start: bytes) -> str | None:
    """Return the media type for the first `SNIFFED` bytes of a file; None if unknown."""
    for offset, magic, kind in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return kind
    if start[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}.get(
            start[8:12]
        )
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "video/mp4")
    if start[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa"):
        return "audio/mpeg"
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "image/bmp"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "image/svg+xml"
    return None


_MAGIC: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"glTF", "model/gltf-binary"),
    (257, b"ustar", "application/x-tar"),
)


_BRANDS: Final[Mapping[bytes, str]] = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heic",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
