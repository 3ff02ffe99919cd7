"""Drawing in memory and writing it as PNG, with nothing but zlib.

Everything is done row by row on bytes: pixels are never looped over in Python.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from collections.abc import Mapping, Sequence

__all__ = ("Canvas",)

_Color = tuple[int, int, int]


class Canvas:
    """A picture of 8-bit red, green and blue, black at first.

    Coordinates are pixels from the upper left corner. What lies outside is cut off. *alpha* is the
    opacity from 0 to 1.
    """

    def __init__(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"a picture of {width} x {height} pixels has no content")
        self.width: int = width
        self.height: int = height
        self._rows: list[bytearray] = [bytearray(3 * width) for _ in range(height)]

    def gradient(self, colors: Sequence[_Color], top: int, bottom: int) -> None:
        """Fill the rows from *top* to *bottom* with colours that blend downwards."""
        last = len(colors) - 1
        for y in range(max(top, 0), min(bottom, self.height)):
            position = last * (y - top) / max(bottom - top - 1, 1)
            index = min(int(position), max(last - 1, 0))
            start, end = colors[index], colors[min(index + 1, last)]
            share = position - index
            mixed = bytes(round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
            self._rows[y][:] = mixed * self.width

    def fade(self, color: _Color, top: float, bottom: float, alpha: float) -> None:
        """Veil the rows from *top* to *bottom*, ever more strongly up to *alpha*."""
        for y in range(max(math.ceil(top), 0), min(math.ceil(bottom), self.height)):
            self._span(y, 0, self.width, color, alpha * (y - top) / (bottom - top))

    def disc(self, x: float, y: float, radius: float, color: _Color, alpha: float) -> None:
        """Fill a disc around the point (*x*, *y*)."""
        for row in range(max(int(y - radius), 0), min(int(y + radius) + 1, self.height)):
            square = radius**2 - (row + 0.5 - y) ** 2
            if square > 0:
                half = math.sqrt(square)
                self._span(row, x - half, x + half, color, alpha)

    def polygon(self, points: Sequence[tuple[float, float]], color: _Color, alpha: float) -> None:
        """Fill the polygon with these corners; where it overlaps itself, every second part."""
        crossings: list[list[float]] = [[] for _ in range(self.height)]
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
            (left, upper), (right, lower) = (
                ((x1, y1), (x2, y2)) if y1 < y2 else ((x2, y2), (x1, y1))
            )
            first, last = math.ceil(upper - 0.5), math.ceil(lower - 0.5)
            for row in range(max(first, 0), min(last, self.height)):
                share = (row + 0.5 - upper) / (lower - upper)
                crossings[row].append(left + (right - left) * share)
        for row, found in enumerate(crossings):
            found.sort()
            for start, end in zip(found[::2], found[1::2], strict=True):
                self._span(row, start, end, color, alpha)

    def png(self, texts: Mapping[str, str] | None = None) -> bytes:
        """Return the picture as a PNG file.

        Args:
            texts: Texts to keep in the file by keyword, such as `Title`; a keyword has 1 to 79
                Latin characters.

        """
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = [_chunk(b"IHDR", header)]
        for keyword, text in (texts or {}).items():
            content = keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode(errors="replace")
            chunks.append(_chunk(b"iTXt", content))
        # Each row begins with the number of its filter: 0 for none.
        pixels = b"".join(part for row in self._rows for part in (b"\0", row))
        chunks += [_chunk(b"IDAT", zlib.compress(pixels, 6)), _chunk(b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

    def _span(self, y: int, start: float, end: float, color: _Color, alpha: float) -> None:
        """Fill a part of a row; pixels that it covers in part are filled in part."""
        start, end = max(start, 0.0), min(end, float(self.width))
        first, last = math.ceil(start), math.floor(end)
        if first > last:  # within a single pixel
            if end > start:
                self._blend(y, last, first, color, alpha * (end - start))
            return
        self._blend(y, first, last, color, alpha)
        if start < first:
            self._blend(y, first - 1, first, color, alpha * (first - start))
        if end > last:
            self._blend(y, last, last + 1, color, alpha * (end - last))

    def _blend(self, y: int, first: int, last: int, color: _Color, alpha: float) -> None:
        if first >= last:
            return
        row = self._rows[y]
        if alpha >= 1:
            row[3 * first : 3 * last] = bytes(color) * (last - first)
            return
        strength = round(64 * alpha)  # few steps, so that the tables are used again
        for channel, value in enumerate(color):
            part = slice(3 * first + channel, 3 * last, 3)
            row[part] = row[part].translate(_table(value, strength))


@functools.lru_cache(maxsize=4096)
def _table(value: int, strength: int) -> bytes:
    """Return what each value of a channel becomes under *strength* 64ths of *value*."""
    return bytes((old * (64 - strength) + value * strength + 32) // 64 for old in range(256))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
