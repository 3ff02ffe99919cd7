"""Passes output files, or parts of them, on to browsers as their servers send them; reads their headers."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final, Literal, TypeVar

import anyio
import attrs

from .. import exceptions
from .._http.answers import Chunks
from .._http.call import ClientResponse, redacted
from .._http.retry import RETRIED_STATUSES
from .._http.transport import Transport
from .._threads import in_thread
from .data_uris import DataUri
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
from .media import valid_type

T = TypeVar("T")

_DECODED: Final = 3 * 2**17
"""Bytes of a data URI that are decoded at once."""

_RANGE: Final = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))", re.ASCII | re.IGNORECASE)
"""One range: servers may ignore several, and none that browsers ask for has them."""

_ETAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
_DATE: Final = re.compile(r"[A-Za-z]{3}, [A-Za-z0-9: -]+ GMT", re.ASCII)


@attrs.frozen
class Facts:
    """What the headers of a server say of a file. The strings are valid as headers."""

    size: int | None = None
    """Size of the whole file in bytes."""
    content_type: str | None = None
    """Media type, with its parameters."""
    etag: str | None = None
    modified: str | None = None
    """Time of the last change."""
    has_ranges: bool = False
    """Whether the server accepts range requests."""


@attrs.frozen
class Conditions:
    """Headers of a request for a part of a file, or for a file that the browser may already have."""

    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that are passed on to the file's server."""
        found = {
            "If-None-Match": self.if_none_match,
            "If-Modified-Since": self.if_modified_since,
        }
        if self.range is not None and _RANGE.fullmatch(self.range):
            found |= {"Range": self.range, "If-Range": self.if_range}
        return {name: value for name, value in found.items() if value is not None}


class Relay:
    """Passes a file on. An interrupted response is resumed, if the server supports that."""

    status: Literal[200, 206, 304, 416]
    """Status of the answer, once the first chunk has arrived."""
    facts: Facts
    """What the server says of the file, once the first chunk has arrived."""
    length: int | None
    """Number of bytes in the body of the answer; None if unknown."""
    content_range: str | None
    """Position of the part in the file, as the header `Content-Range`."""

    def __init__(self, transport: Transport, url: str, prediction: str | None) -> None:
        self._transport = transport
        self._url = url
        self._prediction = prediction
        self._is_data = url[:5].lower() == "data:"
        self.status = 200
        self.facts = Facts()
        self.length = self.content_range = None
        self._has_begun = False
        """Whether `chunks` has yielded the head of the answer, which cannot change any more."""
        self._is_compressed = False
        """Whether the server compresses the file, so that positions in it are not known."""
        self._position = 0
        """Position in the file of the first byte of the answer."""
        self._last: int | None = None
        """Position in the file of the last byte of the answer; None for the end of the file."""
        self._received = 0
        """Number of bytes that have been received."""
        self._waited = 0.0
        """Seconds spent waiting for the server."""

    async def stat(self) -> Facts:
        """Return what the server says of the file, without its content.

        Raises:
            FileExpired: The file has been deleted.
            FileOutputError: It is a data URI that cannot be read.
            HostNotAllowed: The option `output_hosts` does not allow the host.
            TransportError: No usable response was received.
        """
        if self._is_data:
            data = await in_thread(DataUri, self._url, self._prediction)
            self.facts = Facts(data.size, has_ranges=True)
        else:
            self.facts = await self._retried(self._fetch_facts)
        return self.facts

    async def chunks(self, conditions: Conditions) -> AsyncGenerator[bytes, None]:
        """Yield an empty chunk when the head of the answer is known, and then its body.

        Raises:
            FileExpired: The file has been deleted.
            FileOutputError: It is a data URI that cannot be read.
            FileTooLarge: The server compresses the file, although it is asked not to, and it exceeds the limit.
            HostNotAllowed: The option `output_hosts` does not allow the host.
            IncompleteFile: It broke off, and could not be resumed, or took longer than `Timeout(download=...)`.
            TransportError: No usable response was received.
        """
        if self._is_data:
            async for chunk in self._decoded(conditions):
                yield chunk
            return
        headers = conditions.headers()
        attempt, furthest, since = 1, 0, time.monotonic()
        while True:
            try:
                async with aclosing(self._attempt(headers)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except (
                exceptions.TransportError,
                exceptions.ReplicateError,
                exceptions.IncompleteFile,
            ) as error:
                if isinstance(error, exceptions.IncompleteFile) and error.seconds is not None:
                    raise  # the time for the file is over
                if self._received >= furthest + PROGRESS:
                    attempt, furthest, since = 1, self._received, time.monotonic()
                delay = delay_after(self._transport, error, attempt, time.monotonic() - since)
                if delay is None or (self._has_begun and not self._is_resumable):
                    raise
            self._count_wait(delay)
            await anyio.sleep(delay)
            attempt += 1
            if self._has_begun:
                headers = self._rest_headers()

    async def _attempt(self, headers: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the new content of one response; an empty chunk before that of the first one."""
        async with self._open("GET", headers, (304, 416)) as response:
            if not self._has_begun:
                self._begin(response, headers)
                yield b""
            elif self._is_at_end(response):
                return
            else:
                self._check_continuation(response)
            if self.status in (200, 206):
                began = time.monotonic()
                async for chunk in Chunks(response):
                    self._count_wait(time.monotonic() - began)
                    self._count_bytes(len(chunk))
                    yield chunk
                    began = time.monotonic()
            # If the size of the file is unknown, there may be more. The next answer tells.
            may_continue = self.length is None and self.status == 200 and response.status == 206
        if may_continue or (self.length is not None and self._received < self.length):
            raise self._incomplete()

    async def _decoded(self, conditions: Conditions) -> AsyncGenerator[bytes, None]:
        data = await in_thread(DataUri, self._url, self._prediction)
        self.facts = Facts(data.size, has_ranges=True)
        start, stop = 0, data.size
        part = None
        if conditions.range is not None and conditions.if_range is None:
            part = _requested_part(conditions.range, data.size)
        if part is not None:
            start, stop = part
            self.status = 206 if start < stop else 416
            shown = f"{start}-{stop - 1}" if start < stop else "*"
            self.content_range = f"bytes {shown}/{data.size}"
        self.length = stop - start
        yield b""
        for position in range(start, stop, _DECODED):
            yield await in_thread(data.read, position, min(position + _DECODED, stop))

    # Requests

    @asynccontextmanager
    async def _open(
        self, method: Literal["GET", "HEAD"], headers: Mapping[str, str], accepted: Collection[int]
    ) -> AsyncGenerator[ClientResponse, None]:
        try:
            async with self._transport.open(
                self._url,
                # Identity: for the size of the file itself.
                headers={"Accept-Encoding": "identity", **headers},
                method=method,
                accepted=accepted,
                is_relayed=True,
                check_host=host_check(self._transport, self._url, self._prediction),
            ) as response:
                yield response
        except exceptions.ReplicateError as error:
            if error.status in GONE:
                raise expired(self._transport, self._url, self._prediction, error) from error
            raise

    async def _fetch_facts(self) -> Facts:
        try:
            async with self._open("HEAD", {}, ()) as response:
                facts = _facts_of(response)
            if facts.size is not None:
                return facts
        except exceptions.ReplicateError as error:
            # The signature of a URL may be one for GET only.
            if error.status in RETRIED_STATUSES:
                raise
        async with self._open("GET", {"Range": "bytes=0-0"}, (416,)) as response:
            return _facts_of(response)

    async def _retried(self, work: Callable[[], Awaitable[T]]) -> T:
        attempt, since = 1, time.monotonic()
        while True:
            try:
                return await work()
            except (exceptions.TransportError, exceptions.ReplicateError) as error:
                delay = delay_after(self._transport, error, attempt, time.monotonic() - since)
                if delay is None:
                    raise
            await anyio.sleep(delay)
            attempt += 1

    # Answers

    def _begin(self, response: ClientResponse, headers: Mapping[str, str]) -> None:
        """Read the head of the first answer.

        Raises:
            TransportError: It does not match the request.
        """
        self.facts = _facts_of(response)
        self._is_compressed = not is_plain(response)
        is_part = response.status in (206, 416)
        is_conditional = "If-None-Match" in headers or "If-Modified-Since" in headers
        if (is_part and "Range" not in headers) or (response.status == 304 and not is_conditional):
            raise self._mismatch()
        if response.status == 304:
            self.status = 304
        elif response.status == 416:
            self.status, self.length = 416, 0
            self.content_range = None if self.facts.size is None else f"bytes */{self.facts.size}"
        elif response.status == 206:
            part = content_range(response)
            if part is None or self._is_compressed:
                raise self._mismatch()
            self.status = 206
            first, self._last, total = part
            self._position, self.length = first, self._last - first + 1
            self.content_range = f"bytes {first}-{self._last}/{'*' if total is None else total}"
        else:
            self.status, self.length = 200, self.facts.size
        self._has_begun = True

    def _mismatch(self) -> exceptions.TransportError:
        return exceptions.TransportError(
            "GET", redacted(self._url), "the server's response does not match the request"
        )

    @property
    def _is_resumable(self) -> bool:
        tag = self.facts.etag
        return tag is not None and not tag.startswith("W/") and not self._is_compressed

    def _rest_headers(self) -> dict[str, str]:
        """Return the headers of a request for what has not been received."""
        last = "" if self._last is None else self._last
        assert self.facts.etag is not None
        return {
            "Range": f"bytes={self._position + self._received}-{last}",
            "If-Range": self.facts.etag,
        }

    def _check_continuation(self, response: ClientResponse) -> None:
        """Check that an answer continues what was received.

        Raises:
            FileOutputError: It does not: the file has changed, or the server serves no parts.
        """
        part = content_range(response) if response.status == 206 else None
        tag = response.headers.get("ETag", "").strip()
        if (
            part is None
            or part[0] != self._position + self._received
            or (tag and tag != self.facts.etag)
            or not is_plain(response)
        ):
            raise exceptions.FileOutputError(
                self._url, "it broke off, and cannot be resumed", prediction_id=self._prediction
            )
        if self.length is None and self.status == 200:
            self.length = part[2]

    def _is_at_end(self, response: ClientResponse) -> bool:
        """Return whether the answer to a request for the rest says that everything was received."""
        if response.status != 416 or self.length is not None:
            return False
        return unsatisfied_size(response.headers) == self._position + self._received

    def _count_bytes(self, size: int) -> None:
        """Count what was received.

        Raises:
            FileTooLarge: The server compresses more than the limit allows.
            FileOutputError: It is more than was announced.
        """
        self._received += size
        if self._is_compressed and self._received > (limit := self._transport.config.limits.file):
            raise exceptions.FileTooLarge(
                self._url, limit, None, to="expand", prediction_id=self._prediction
            )
        if self.length is not None and self._received > self.length:
            raise exceptions.FileOutputError(
                self._url, "more was sent than announced", prediction_id=self._prediction
            )

    def _count_wait(self, seconds: float) -> None:
        """Add to the seconds spent waiting for the server.

        Raises:
            IncompleteFile: They exceed the limit: content may drip without ever being silent.
        """
        self._waited += seconds
        if self._waited > (limit := self._transport.config.timeout.download):
            raise self._incomplete(limit)

    def _incomplete(self, seconds: float | None = None) -> exceptions.IncompleteFile:
        return exceptions.IncompleteFile(
            self._url, self._received, self.length, seconds=seconds, prediction_id=self._prediction
        )


def _facts_of(response: ClientResponse) -> Facts:
    headers = response.headers
    plain = is_plain(response)
    size = None
    if response.status == 206:
        part = content_range(response)
        size = None if part is None else part[2]
    elif response.status == 416:
        size = unsatisfied_size(headers)
    elif plain and response.status != 304:
        size = response.content_length
    return Facts(
        size,
        None if response.status == 416 else valid_type(headers.get("Content-Type")),
        _valid(_ETAG, headers.get("ETag")) if plain else None,
        _valid(_DATE, headers.get("Last-Modified")),
        plain
        and (response.status in (206, 416) or headers.get("Accept-Ranges", "").lower() == "bytes"),
    )


def _valid(pattern: re.Pattern[str], value: str | None) -> str | None:
    """Return the value of a header, without spaces around it, if it is valid: it is not trusted, and goes to a browser."""
    value = (value or "").strip()
    return value if len(value) <= 200 and pattern.fullmatch(value) else None


def _requested_part(header: str, size: int) -> tuple[int, int] | None:
    """Return the start and the end of the part that a `Range` header requests.

    Returns:
        The positions, which are equal if the file has no such part; None to send the whole file.
    """
    found = _RANGE.fullmatch(header)
    if found is None:
        return None
    if found[3]:
        return max(size - int(found[3][:20]), 0), size
    first = int(found[1][:20])
    last = int(found[2][:20]) if found[2] else size - 1
    if found[2] and last < first:
        return None  # not valid
    return min(first, size), max(min(last + 1, size), min(first, size))
