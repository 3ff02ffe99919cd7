"""Pictures in memory as inputs: images of Pillow and arrays of NumPy, which are sent as PNG."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Final

_PNG_MODES: Final = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""Modes of Pillow's images that PNG has."""

_COLORS: Final = {1: 0, 2: 4, 3: 2, 4: 6}
"""The colour type of PNG for a number of channels: grey, grey with alpha, RGB, RGBA."""


def is_picture(value: Any) -> bool:
    """Tell whether an object is a picture: an image of Pillow, or an array of bytes with height, width and colours.

    Neither library is imported: its objects are recognised by their classes. Other arrays are lists of numbers.
    """
    return _is_image(value) or _is_pixels(value)


def png_of(value: Any) -> bytes:
    """Return a picture as PNG."""
    return _png_of_image(value) if _is_image(value) else _png_of_pixels(value)


def _is_image(value: Any) -> bool:
    return any(
        cls.__module__ == "PIL.Image" and cls.__name__ == "Image" for cls in type(value).__mro__
    )


def _is_pixels(value: Any) -> bool:
    if not any(
        cls.__module__ == "numpy" and cls.__name__ == "ndarray" for cls in type(value).__mro__
    ):
        return False
    if str(value.dtype) not in ("uint8", "bool") or 0 in value.shape:
        return False
    return value.ndim == 2 or (value.ndim == 3 and value.shape[2] in _COLORS)


def _png_of_image(image: Any) -> bytes:
    file = io.BytesIO()
    if image.mode not in _PNG_MODES:
        image = image.convert("RGBA" if "A" in image.mode or "a" in image.mode else "RGB")
    image.save(file, "PNG")
    return file.getvalue()


def _png_of_pixels(array: Any) -> bytes:
    """Return an array as PNG: rows of pixels, compressed, with a filter byte of zero in front of each."""
    if str(array.dtype) == "bool":
        array = array.astype("uint8") * 255
    height, width = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 1
    content = array.tobytes()
    size = width * channels
    rows = b"".join(b"\0" + content[start : start + size] for start in range(0, len(content), size))
    head = struct.pack(">IIBBBBB", width, height, 8, _COLORS[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
