"""Downloads that resume, and data URIs."""

from __future__ import annotations

import base64
import binascii
import random
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

import attrs

from .. import exceptions
from .._http.call import ClientResponse
from .._http.retry import Kind, retry_delay
from ..types import Retry


def _delay(
    failure: exceptions.ReplicateException, attempt: int, elapsed: float, retry: Retry
) -> float | None:
    if isinstance(failure, exceptions.IncompleteFile):
        failure = exceptions.ConnectionLost("GET", failure.url, str(failure))
    return retry_delay(Kind.READ, failure, attempt, elapsed, retry, random.random())


_RANGE: Final = r"bytes (\d+)-(\d+)/(\d+|\*)"


@attrs.define(eq=False, repr=False)
class _Found:
    """How far a download is, and what it takes to resume it."""

    url: str
    limit: int | None
    received: int = 0
    total: int | None = None
    tag: str | None = None
    """A strong ETag: with it, what was received and what follows belong together."""
    content_type: str | None = None
    ahead: int = 0
    """How many bytes of the present answer were received before."""
    changed: bool = False

    @property
    def resumable(self) -> bool:
        return self.tag is not None and not self.changed

    def request(self) -> Mapping[str, str]:
        """Return the headers of the next attempt."""
        headers = {"Accept-Encoding": "identity"}  # so that lengths are those of the file
        if self.received and self.tag is not None:
            headers["Range"] = f"bytes={self.received}-"
            headers["If-Range"] = self.tag
        return headers

    def begin(self, response: ClientResponse) -> None:
        """Look at the head of an answer.

        Raises:
            IncompleteFile: It does not fit to what was received before.
            FileTooLarge: It says that it is larger than the limit.
        """
        headers = response.headers
        tag = headers.get("ETag", "").strip()
        plain = headers.get("Content-Encoding", "identity").strip().lower() == "identity"
        start, total = 0, response.content_length if plain else None
        if response.status == 206:
            said = headers.get("Content-Range", "").strip()
            part = re.fullmatch(_RANGE, said, re.ASCII | re.IGNORECASE)
            start = int(part[1]) if part else -1
            total = int(part[3]) if part and part[3] != "*" else None
        self.ahead = 0
        if self.received or start:
            same = bool(tag) and tag == self.tag and (total is None or total == self.total)
            if response.status == 206 and not tag and start == self.received:
                same = total == self.total  # it was asked for with If-Range
            if not same or start not in (0, self.received):
                self.changed = True
                raise exceptions.IncompleteFile(self.url, self.received, self.total)
            self.ahead = self.received - start
            return
        self.total = total
        self.tag = tag if plain and len(tag) > 2 and tag[0] == tag[-1] == '"' else None
        self.content_type = (
            headers.get("Content-Type", "").partition(";")[0].strip().lower() or None
        )
        if self.limit is not None and total is not None and total > self.limit:
            raise exceptions.FileTooLarge(self.url, self.limit, total)

    def end(self, before: int) -> None:
        """Check the length of what has come to its end.

        Raises:
            IncompleteFile: It is another than was announced.
        """
        if self.total is not None and self.received != self.total:
            self.changed = self.received > self.total or self.received == before
            raise exceptions.IncompleteFile(self.url, self.received, self.total)

    def forget(self) -> None:
        """Begin anew."""
        self.received, self.total, self.tag, self.changed = 0, None, None, False

    def given_up(self, failure: exceptions.ReplicateException) -> exceptions.ReplicateException:
        """Return what to raise after the last attempt."""
        lost = isinstance(failure, exceptions.ConnectionLost) or (
            isinstance(failure, exceptions.ReplicateError) and failure.status == 416
        )
        if lost and (self.received or self.total is not None):
            error = exceptions.IncompleteFile(self.url, self.received, self.total)
            error.__cause__ = failure
            return error
        return failure


class _Data:
    """A data URI (RFC 2397), decoded in pieces."""

    def __init__(self, url: str) -> None:
        comma = url.find(",", 5)
        if comma < 0:
            raise exceptions.FileOutputError(url, "this data URI has no content")
        self._url = url
        self._start = comma + 1
        self._base64 = url[max(comma - 20, 5) : comma].strip().lower().endswith(";base64")
        self._text = url
        if not self._base64:
            self._plain = unquote_to_bytes(url[self._start :])
            self.length = self.size = len(self._plain)
            return
        if "%" in url or any(space in url for space in " \n\r\t"):
            self._text = "".join(unquote(url[self._start :]).split())
            self._start = 0
        end = len(self._text)
        while end > self._start and self._text[end - 1] == "=":
            end -= 1
        self._end = end
        self.length = end - self._start
        """Of what is to be decoded."""
        self.size = self.length * 3 // 4
        """Of the content, in bytes."""

    def decode(self, start: int, stop: int) -> bytes:
        """Return the content of a piece; its ends are multiples of four.

        Raises:
            FileOutputError: It is no base64.
        """
        if not self._base64:
            return self._plain[start:stop]
        piece = self._text[self._start + start : min(self._start + stop, self._end)]
        try:
            return base64.b64decode(piece + "=" * (-len(piece) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise exceptions.FileOutputError(
                self._url, f"this data URI cannot be read ({error})"
            ) from error
