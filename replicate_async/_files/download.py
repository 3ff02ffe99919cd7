"""Downloads that resume, and data URIs."""

from __future__ import annotations

import base64
import binascii
import random
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

import anyio
import attrs

from .. import exceptions
from .._http.call import ClientResponse
from .._http.retry import Kind, retry_delay
from .._http.transport import Transport

BUFFERED: Final = 2**18
"""Bytes that may wait to be read, before the server has to."""


_PROGRESS: Final = 2**16
"""Bytes of new content after which a broken download has all its attempts again."""


_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII | re.IGNORECASE)


@attrs.define(eq=False, repr=False)
class Download:
    """The download of a file, which resumes where it broke off."""

    transport: Transport
    url: str
    limit: int | None = attrs.field(default=None, kw_only=True)
    """Bytes that the content may have."""
    may_restart: bool = attrs.field(default=False, kw_only=True)
    """Whether it may begin again where it cannot be resumed; an empty chunk announces it."""
    buffer: int = attrs.field(default=BUFFERED, kw_only=True)
    """Bytes that may wait to be read, before the server has to."""

    received: int = attrs.field(default=0, init=False)
    """Bytes of the content so far."""
    total: int | None = attrs.field(default=None, init=False)
    """Bytes of the whole content, if the server says."""
    content_type: str | None = attrs.field(default=None, init=False)
    """The media type, if the server says."""
    _tag: str | None = attrs.field(default=None, init=False)
    """A strong ETag: with it, what was received and what follows belong together."""
    _repeated: int = attrs.field(default=0, init=False)
    """How many bytes of the present answer were received before."""
    _changed: bool = attrs.field(default=False, init=False)
    """Whether the server has another content by now."""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the content, in as many attempts as it takes.

        Raises:
            FileExpired: The file is gone.
            FileTooLarge: It exceeds the limit.
            IncompleteFile: It broke off, and could not be resumed.
            TransportError: There was no answer.
        """
        attempt, furthest, since = 1, 0, time.monotonic()
        while True:
            failure: exceptions.ReplicateException
            try:
                async with aclosing(self._attempt()) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except (exceptions.TransportError, exceptions.ReplicateError) as error:
                if isinstance(error, exceptions.ReplicateError) and error.status in (404, 410):
                    raise exceptions.FileExpired(
                        self.url, error.status, signed=self.transport.is_api(self.url)
                    ) from error
                failure = error
            except exceptions.IncompleteFile as error:
                failure = error
            if self.received >= furthest + _PROGRESS:
                attempt, furthest, since = 1, self.received, time.monotonic()
            delay = self._delay(failure, attempt, time.monotonic() - since)
            if delay is None or (self.received and not self._resumable and not self.may_restart):
                raise self._given_up(failure)
            await anyio.sleep(delay)
            attempt += 1
            if self.received and not self._resumable:
                self.received, self.total, self._tag, self._changed = 0, None, None, False
                yield b""

    async def _attempt(self) -> AsyncGenerator[bytes, None]:
        """Yield what one answer adds to the content."""
        before = self.received
        async with self.transport.open(
            self.url, headers=self._headers(), buffer=self.buffer
        ) as response:
            self._begin(response)
            # In pieces as they were received: `iter_any` would join them, which is a copy.
            async for chunk, _ in response.content.iter_chunks():
                if self._repeated:  # all of it was sent again: pass over what is there already
                    passed = min(self._repeated, len(chunk))
                    self._repeated -= passed
                    chunk = chunk[passed:]
                if not chunk:
                    continue
                self.received += len(chunk)
                if self.limit is not None and self.received > self.limit:
                    raise exceptions.FileTooLarge(self.url, self.limit)
                yield chunk
        if self.total is not None and self.received != self.total:
            self._changed = self.received > self.total or self.received == before
            raise exceptions.IncompleteFile(self.url, self.received, self.total)
        self.total = self.received

    @property
    def _resumable(self) -> bool:
        return self._tag is not None and not self._changed

    def _headers(self) -> Mapping[str, str]:
        headers = {"Accept-Encoding": "identity"}  # so that lengths are those of the file
        if self.received and self._tag is not None:
            headers["Range"] = f"bytes={self.received}-"
            headers["If-Range"] = self._tag
        return headers

    def _begin(self, response: ClientResponse) -> None:
        """Look at the head of an answer.

        Raises:
            IncompleteFile: It does not fit to what was received before.
            FileTooLarge: It says that the content exceeds the limit.
        """
        headers = response.headers
        tag = headers.get("ETag", "").strip()
        plain = headers.get("Content-Encoding", "identity").strip().lower() == "identity"
        start, total = 0, response.content_length if plain else None
        if response.status == 206:
            part = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
            start = int(part[1]) if part else -1
            total = int(part[3]) if part and part[3] != "*" else None
        self._repeated = 0
        if self.received or start:
            same = bool(tag) and tag == self._tag and (total is None or total == self.total)
            if response.status == 206 and not tag and start == self.received:
                same = total == self.total  # it was asked for with If-Range
            if not same or start not in (0, self.received):
                self._changed = True
                raise exceptions.IncompleteFile(self.url, self.received, self.total)
            self._repeated = self.received - start
            return
        self.total = total
        self._tag = tag if plain and len(tag) > 2 and tag[0] == tag[-1] == '"' else None
        self.content_type = (
            headers.get("Content-Type", "").partition(";")[0].strip().lower() or None
        )
        if self.limit is not None and total is not None and total > self.limit:
            raise exceptions.FileTooLarge(self.url, self.limit, total)

    def _delay(
        self, failure: exceptions.ReplicateException, attempt: int, elapsed: float
    ) -> float | None:
        if isinstance(failure, exceptions.IncompleteFile):
            failure = exceptions.ConnectionLost("GET", failure.url, str(failure))
        retry = self.transport.config.retry
        return retry_delay(Kind.READ, failure, attempt, elapsed, retry, random.random())

    def _given_up(self, failure: exceptions.ReplicateException) -> exceptions.ReplicateException:
        """Return the error to raise after the last attempt."""
        lost = isinstance(failure, exceptions.ConnectionLost) or (
            isinstance(failure, exceptions.ReplicateError) and failure.status == 416
        )
        if lost and (self.received or self.total is not None):
            error = exceptions.IncompleteFile(self.url, self.received, self.total)
            error.__cause__ = failure
            return error
        return failure


class DataUri:
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
