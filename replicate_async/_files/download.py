"""Downloads that resume."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final, Literal

import anyio
import attrs

from .. import exceptions
from .._http.answers import Chunks
from .._http.call import ClientResponse
from .._http.transport import Transport
from .file_servers import (
    GONE,
    PROGRESS,
    content_range,
    delay_after,
    expired,
    host_check,
    is_plain,
    unsatisfied_size,
)
from .media import essence, valid_type

BUFFERED: Final = 2**18
"""Bytes that are received before they are read; aiohttp accepts up to twice as many."""


@attrs.define(eq=False, repr=False)
class Download:
    """The download of a file. After an interruption it resumes where it ended."""

    transport: Transport
    url: str
    limit: int | None = attrs.field(default=None, kw_only=True)
    """The maximum size of the content, in bytes. If the server compresses it, `Limits.file` applies, too."""
    to: Literal["read", "save"] = attrs.field(default="read", kw_only=True)
    """The purpose of the content, for the message if it exceeds the limit."""
    may_restart: bool = attrs.field(default=False, kw_only=True)
    """Whether the download may begin again if it cannot be resumed. An empty chunk announces that."""
    prediction: str | None = attrs.field(default=None, kw_only=True)
    """ID of the prediction whose output has the file, for messages."""
    buffer: int = attrs.field(default=BUFFERED, kw_only=True)
    """Bytes to receive before they are read."""

    received: int = attrs.field(default=0, init=False)
    """Bytes received so far."""
    total: int | None = attrs.field(default=None, init=False)
    """Size of the content in bytes, if the server announced it."""
    content_type: str | None = attrs.field(default=None, init=False)
    """Media type, if the server announced it."""
    _tag: str | None = attrs.field(default=None, init=False)
    """The strong ETag of the content. Without one, the download cannot be resumed."""
    _repeated: int = attrs.field(default=0, init=False)
    """Bytes of the current response that were received before."""
    _changed: bool = attrs.field(default=False, init=False)
    """Whether the content on the server has changed since the download began."""
    _is_compressed: bool = attrs.field(default=False, init=False)
    """Whether the server compresses the content, although it is asked not to."""
    _waited: float = attrs.field(default=0.0, init=False)
    """Seconds spent waiting for the content."""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the content; make further attempts as the client's `Retry` allows.

        If the iteration was cancelled, another call continues it.

        Raises:
            FileExpired: The file has been deleted.
            FileTooLarge: The file exceeds the limit.
            HostNotAllowed: The option `output_hosts` does not allow the host.
            IncompleteFile: The download ended early and could not be resumed.
            TransportError: No usable response was received.
        """
        if self.received and self.received == self.total:
            return
        if self.received and not self._resumable:
            raise exceptions.IncompleteFile(self.url, self.received, self.total)
        attempt, furthest, since = 1, self.received, time.monotonic()
        while True:
            failure: exceptions.ReplicateException
            try:
                async with aclosing(self._attempt()) as chunks:
                    began = time.monotonic()
                    async for chunk in chunks:
                        self._count_wait(time.monotonic() - began)
                        yield chunk
                        began = time.monotonic()
                return
            except (exceptions.TransportError, exceptions.ReplicateError) as error:
                if isinstance(error, exceptions.ReplicateError) and error.status in GONE:
                    raise expired(self.transport, self.url, self.prediction, error) from error
                if self._is_at_end(error):
                    self.total = self.received
                    return
                failure = error
            except exceptions.IncompleteFile as error:
                if error.seconds is not None:  # the time for the download is over
                    raise
                failure = error
            if self.received >= furthest + PROGRESS:
                attempt, furthest, since = 1, self.received, time.monotonic()
            delay = delay_after(self.transport, failure, attempt, time.monotonic() - since)
            if delay is None or (self.received and not self._resumable and not self.may_restart):
                raise self._final_error(failure)
            self._count_wait(delay)
            await anyio.sleep(delay)
            attempt += 1
            if self.received and not self._resumable:
                self.received, self.total, self._tag, self._changed = 0, None, None, False
                yield b""

    async def _attempt(self) -> AsyncGenerator[bytes, None]:
        """Yield the new content of one response."""
        before = self.received
        async with self.transport.open(
            self.url,
            headers=self._headers(),
            buffer=self.buffer,
            check_host=host_check(self.transport, self.url, self.prediction),
        ) as response:
            self._begin(response)
            async for chunk in Chunks(response):
                if self._repeated:  # the server sent everything again: skip it
                    passed = min(self._repeated, len(chunk))
                    self._repeated -= passed
                    chunk = chunk[passed:]
                if not chunk:
                    continue
                self.received += len(chunk)
                self._check_size(self.received)
                yield chunk
        if self.total is not None and self.received != self.total:
            # After more than was announced, or nothing new, a further attempt must not resume.
            self._changed = self.received > self.total or self.received == before
            raise self._incomplete()
        if self.total is None and response.status == 206:
            raise self._incomplete()  # there may be more, which the next answer tells
        self.total = self.received

    def _count_wait(self, seconds: float) -> None:
        """Add to the seconds spent waiting for the content.

        Raises:
            IncompleteFile: They exceed the limit: content may drip without ever being silent.
        """
        self._waited += seconds
        limit = self.transport.config.timeout.download
        if self._waited > limit:
            raise self._incomplete(limit)

    def _is_at_end(self, error: exceptions.ReplicateException) -> bool:
        """Return whether the answer to a request for the rest says that everything was received."""
        if not isinstance(error, exceptions.ReplicateError) or error.status != 416:
            return False
        return self._resumable and 0 < self.received == unsatisfied_size(error.headers)

    def _incomplete(self, seconds: float | None = None) -> exceptions.IncompleteFile:
        return exceptions.IncompleteFile(
            self.url, self.received, self.total, seconds=seconds, prediction_id=self.prediction
        )

    def _check_size(self, size: int, announced: int | None = None) -> None:
        """Check the size of the content.

        Raises:
            FileTooLarge: It exceeds a limit.
        """
        limits: list[tuple[int, Literal["read", "save", "expand"]]] = []
        if self.limit is not None:
            limits.append((self.limit, self.to))
        if self._is_compressed:
            limits.append((self.transport.config.limits.file, "expand"))
        for limit, to in limits:
            if size > limit:
                raise exceptions.FileTooLarge(
                    self.url, limit, announced, to=to, prediction_id=self.prediction
                )

    @property
    def _resumable(self) -> bool:
        return self._tag is not None and not self._changed

    def _headers(self) -> Mapping[str, str]:
        headers = {"Accept-Encoding": "identity"}  # for the size of the file itself
        if self.received and self._tag is not None:
            headers["Range"] = f"bytes={self.received}-"
            headers["If-Range"] = self._tag
        return headers

    def _begin(self, response: ClientResponse) -> None:
        """Read the headers of a response.

        Raises:
            IncompleteFile: It does not continue what was received before.
            FileTooLarge: The content exceeds the limit.
        """
        tag = response.headers.get("ETag", "").strip()
        plain = is_plain(response)
        self._is_compressed = not plain
        start, total = 0, response.content_length if plain else None
        if response.status == 206:
            start, _, total = content_range(response) or (-1, -1, None)
        self._repeated = 0
        if self.received or start:
            self._continue(response, tag, start, total)
            return
        if response.status == 206 and total is None:  # a part, although the whole was requested
            raise self._incomplete()
        self.total = total
        self._tag = tag if plain and len(tag) > 2 and tag[0] == tag[-1] == '"' else None
        content_type = valid_type(response.headers.get("Content-Type"))
        self.content_type = None if content_type is None else essence(content_type)
        if total is not None:
            self._check_size(total, total)

    def _continue(self, response: ClientResponse, tag: str, start: int, total: int | None) -> None:
        """Continue with a response that has the rest of the content, or all of it again.

        Raises:
            IncompleteFile: The content has changed, or this is another part of it.
        """
        # The request had If-Range: a part without a tag is one of the same content.
        is_same = tag == self._tag or (
            response.status == 206 and not tag and start == self.received
        )
        if total is not None and self.total not in (None, total):
            is_same = False
        if not is_same or start not in (0, self.received):
            self._changed = True
            raise self._incomplete()
        if total is not None:
            self.total = total
        self._repeated = self.received - start

    def _final_error(self, failure: exceptions.ReplicateException) -> exceptions.ReplicateException:
        """Return the error to raise when there is no further attempt."""
        lost = isinstance(failure, exceptions.ConnectionLost) or (
            isinstance(failure, exceptions.ReplicateError) and failure.status == 416
        )
        if lost and (self.received or self.total is not None):
            error = self._incomplete()
            error.__cause__ = failure
            return error
        return failure


async def collected(chunks: AsyncGenerator[bytes, None], url: str, prediction: str | None) -> bytes:
    """Return the content of a file; an empty chunk says that it begins again.

    Raises:
        FileOutputError: There is not enough memory for it.
    """
    content = io.BytesIO()  # which never holds the content twice, as `b"".join()` does
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk:
                    content.write(chunk)
                else:
                    content = io.BytesIO()
        return content.getvalue()
    except MemoryError as error:
        fact = "there is not enough memory for it. Use `save()`, or iterate over it"
        raise exceptions.FileOutputError(url, fact, prediction_id=prediction) from error
