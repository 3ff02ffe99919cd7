"""Data URIs in outputs, decoded in pieces. Pure."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote, unquote_to_bytes

from .. import exceptions


class DataUri:
    """A data URI (RFC 2397), which is decoded in pieces.

    Raises:
        FileOutputError: It is not a data URI.
    """

    length: int
    """Length of the encoded content, in characters."""
    size: int
    """Size of the content, in bytes."""

    def __init__(self, url: str, prediction: str | None = None) -> None:
        comma = url.find(",", 5)
        if comma < 0:
            raise exceptions.FileOutputError(
                url, "this data URI has no content", prediction_id=prediction
            )
        self._url = url
        self._prediction = prediction
        self._base64 = url[max(comma - 20, 5) : comma].strip().lower().endswith(";base64")
        if not self._base64:
            # Texts of models may have lone surrogates, which only this way are bytes.
            self._plain = unquote_to_bytes(url[comma + 1 :].encode("utf-8", "surrogatepass"))
            self.length = self.size = len(self._plain)
            return
        self._text, self._start = url, comma + 1
        if "%" in url or any(space in url for space in " \n\r\t"):
            self._text, self._start = "".join(unquote(url[comma + 1 :]).split()), 0
        self._end = len(self._text)
        while self._end > self._start and self._text[self._end - 1] == "=":
            self._end -= 1
        self.length = self._end - self._start
        self.size = self.length * 3 // 4

    def read(self, start: int, stop: int) -> bytes:
        """Return the content from byte *start* to byte *stop*.

        Raises:
            FileOutputError: It is not base64.
        """
        if not self._base64:
            return self._plain[start:stop]
        group = start // 3
        content = self.decode(group * 4, -(-stop // 3) * 4)
        return content[start - group * 3 : stop - group * 3]

    def decode(self, start: int, stop: int) -> bytes:
        """Return the content from *start* to *stop* of the encoded content, both multiples of four.

        Raises:
            FileOutputError: It is not base64.
        """
        if not self._base64:
            return self._plain[start:stop]
        piece = self._text[self._start + start : min(self._start + stop, self._end)]
        try:
            return base64.b64decode(piece + "=" * (-len(piece) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise exceptions.FileOutputError(
                self._url,
                f"this data URI cannot be decoded ({error})",
                prediction_id=self._prediction,
            ) from error
