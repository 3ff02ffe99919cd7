"""One request and its answer: timeouts, redirects, and reading the body."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import attrs

from .. import exceptions
from .._codec import NestedTooDeeplyError, encode_json
from .._threads import in_thread
from .answers import decode_body, fail_when_closed, redirect_target
from .call import LARGE, USER_AGENT, Answer, Body, Call, Config, redacted
from .errors import NETWORK_ERRORS, cause_of, status_error, translated
from .hosts import host_of
from .limits import Gate
from .payloads import JSONPayload, StreamedPayload
from .routes import Route, Routes
from .session import MAX_HEADER_BYTES, MAX_HEADERS, Pool, Session

_logger = logging.getLogger("replicate_async")

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_MAX_REDIRECTS: Final = 5

TOTAL_PER_SILENCE: Final = 3
"""Maximum time of a whole request, as a multiple of the longest silence: an answer may drip without ever being silent."""

READ_BUFFER: Final = 2**16
"""Bytes of an answer to hold in memory before the server has to wait."""

NO_MEMORY: Final = "there is not enough memory for the answer"

_JSON_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json"}

_SKIPPED_HEADERS: Final = ("Content-Type",)
"""Headers that aiohttp must not add: it would give one to an empty body."""

_REQUEST_ERRORS: Final = (*NETWORK_ERRORS, MemoryError, ValueError, OverflowError, RuntimeError)
"""What aiohttp raises instead of making a request."""


@attrs.define(eq=False, repr=False)
class Exchange:
    """One attempt of a call: a request, the redirects that it follows, and its answer."""

    call: Call
    config: Config
    pool: Pool
    session: Session
    routes: Routes
    route: Route
    """Where the request goes; after a redirect, where that led."""
    silence: float
    """Seconds for which the server may be silent."""
    api_headers: Mapping[str, str] | None = None
    """Headers of requests to the API, including the token; None if the request gets no token, whatever its URL."""
    gate: Gate | None = None
    """Gate that learns from the answer how much is left of the rate limit."""
    buffer: int = READ_BUFFER
    """Bytes of the answer to hold in memory before the server has to wait."""
    check_host: Callable[[str], None] | None = None
    """Called with the host, and with that of each redirect, before anything is sent there; may raise."""
    _body: Any = attrs.field(default=None, init=False)
    """Body of the request, as aiohttp takes it."""
    _body_headers: Mapping[str, str] | None = attrs.field(default=None, init=False)
    _has_left_api: bool = attrs.field(default=False, init=False)
    """Whether a redirect has led out of the API. From then on nothing of the call is sent, nor the token, even if
    another redirect leads back."""

    async def answer(self, result: type[Any] | None) -> Answer:
        """Send the request, and read its answer.

        Args:
            result: Class of the object in a JSON answer; None for plain JSON.

        Raises:
            ReplicateError: The answer has an error status.
            TransportError: There was no usable answer.
        """
        content = self.call.content
        total = TOTAL_PER_SILENCE * self.silence
        if isinstance(content, Body):
            async with TimeLimit(self.call, self.route.url, total) as limit:
                self._body = StreamedPayload(content.make(), limit.restart)
                if content.size is not None:
                    self._body_headers = {"Content-Length": str(content.size)}
                response = await self.send()
                received = await self._read(response)
        else:
            await self._encode()
            response = await self.send(total)
            received = await self._read(response)
        gate = self.gate if self.route.is_api else None
        if received is None:
            with closing(response):
                error = await self.error_of(response)
            if isinstance(self._body, StreamedPayload):
                self._body.abandon()
            if gate is not None and isinstance(error, exceptions.RateLimitError):
                pause = 1.0 if error.retry_after is None else error.retry_after
                gate.refused(min(pause, self.config.retry.max_wait), error.detail)
            raise error
        if gate is not None:  # before the answer is decoded, which may fail
            gate.learn(response.headers)
        data = await self._decode(result, response, received)
        return Answer(response.status, response.headers, data, self.call.method, self.route.url)

    async def send(self, total: float | None = None) -> aiohttp.ClientResponse:
        """Send the request, follow redirects, and return the answer, its body unread.

        Args:
            total: Maximum time in seconds, including that for the body; None for no limit.

        Raises:
            TransportError: There was no answer.
            ClientClosed: The session was closed.
        """
        call, client = self.call, self.session.client
        timeout = _client_timeout(total, self.config.timeout.connect, self.silence)
        for _ in range(_MAX_REDIRECTS + 1):
            route = self.route
            if self.check_host is not None:
                self.check_host(host_of(route.parsed))
            body = None if self._has_left_api else self._body
            proxy = self.pool.proxy_for(route.origin, self.session)
            try:
                response = await client.request(
                    call.method,
                    route.parsed,
                    data=body,
                    headers=self._headers(),
                    skip_auto_headers=_SKIPPED_HEADERS if body is None else None,
                    timeout=timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                    read_bufsize=self.buffer,
                    # The session may be the caller's, with aiohttp's own limits.
                    max_line_size=MAX_HEADER_BYTES,
                    max_field_size=MAX_HEADER_BYTES,
                    max_headers=MAX_HEADERS,
                    proxy=proxy,
                )
            except _REQUEST_ERRORS as error:
                failure = self._failure(error)
                if failure is None:
                    raise
                raise failure from cause_of(error)
            if _logger.isEnabledFor(logging.DEBUG):
                _logger.debug("%s %s: %d", call.method, redacted(route.url), response.status)
            if route.is_api:
                self.pool.clock.learn(response.headers)
            if response.status not in _REDIRECTS:
                fail_when_closed(response)
                return response
            with closing(response):
                self.route = self.routes.to(redirect_target(call, route.url, response))
            if self.api_headers is not None and not self.route.is_api:
                self._has_left_api = True
        shown = redacted(self.route.url)
        raise exceptions.RefusedRedirect(call.method, shown, shown, "too many redirects")

    def _headers(self) -> dict[str, str]:
        """Return the headers of the next request."""
        if self._has_left_api or self.api_headers is None or not self.route.is_api:
            headers = {"User-Agent": self.config.headers.get("User-Agent", USER_AGENT)}
        else:
            headers = dict(self.api_headers)
        if not self._has_left_api:
            headers.update(self.call.headers or {})
            headers.update(self._body_headers or {})
        return headers

    def _failure(self, error: Exception) -> exceptions.ReplicateException | None:
        """Return the exception of this package for one of `_REQUEST_ERRORS`; None if there is none."""
        method, url = self.call.method, self.route.url
        if isinstance(error, NETWORK_ERRORS):
            return translated(error, method, url, self.silence, is_api=self.route.is_api)
        if isinstance(error, MemoryError):
            return exceptions.ConnectionLost(method, redacted(url), NO_MEMORY)
        if isinstance(error, (ValueError, OverflowError)):
            # A model or a redirect may give a URL that looks like one and is not valid.
            return self._cannot_be_sent(error)
        if self.session.client.closed:
            return exceptions.ClientClosed()
        if "new thread" in str(error):  # to look up the host
            return exceptions.ConnectError(
                method, redacted(url), f"the host is not known ({error})"
            )
        return None

    async def error_of(self, response: aiohttp.ClientResponse) -> exceptions.ReplicateError:
        """Return the exception for an error status. The body may be missing or incomplete."""
        limit = self.config.limits.error
        body = bytearray()
        with suppress(*NETWORK_ERRORS):
            async with asyncio.timeout(TOTAL_PER_SILENCE * self.config.timeout.read):
                while len(body) < limit and (chunk := await response.content.readany()):
                    body += chunk
        url, status = self.route.url, response.status
        return status_error(self.call.method, url, status, response.headers, bytes(body[:limit]))

    async def _encode(self) -> None:
        """Encode a body that is in memory."""
        call = self.call
        if call.json is None:
            self._body = call.content
            return
        try:
            body = await in_thread(encode_json, call.json) if call.large else encode_json(call.json)
        except ValueError as error:
            raise self._cannot_be_sent(error) from cause_of(error)
        self._body, self._body_headers = JSONPayload(body, call.send_state), _JSON_HEADERS

    async def _read(self, response: aiohttp.ClientResponse) -> bytearray | None:
        """Return the body of an answer; None if its status is an error, whose body `error_of` reads.

        At the end of the body, the connection returns to aiohttp's pool.
        """
        if not 200 <= response.status < 300:
            return None
        method, url, limit = self.call.method, self.route.url, self.config.limits.answer
        body = bytearray()
        try:
            while chunk := await response.content.readany():
                body += chunk
                if len(body) > limit:
                    raise exceptions.AnswerTooLarge(method, redacted(url), limit)
        except NETWORK_ERRORS as error:
            response.close()
            raise translated(error, method, url, self.silence) from cause_of(error)
        except BaseException:
            response.close()
            raise
        return body

    async def _decode(
        self, result: type[Any] | None, response: aiohttp.ClientResponse, body: bytearray
    ) -> Any:
        """Return the decoded body of an answer."""
        arguments = self.call, result, self.route.url, response, body
        try:
            if len(body) >= LARGE:
                return await in_thread(decode_body, *arguments)
            try:
                return decode_body(*arguments)
            except exceptions.UnreadableAnswer as error:
                if not isinstance(error.__cause__, NestedTooDeeplyError):
                    raise
                # The stack of this task may be deep; that of a thread is not.
                return await in_thread(decode_body, *arguments)
        except (exceptions.ConnectionLost, exceptions.UnreadableAnswer):
            self.session.distrust()
            raise

    def _cannot_be_sent(self, error: Exception) -> exceptions.TransportError:
        reason = f"cannot be sent ({type(error).__name__}: {error})"
        return exceptions.TransportError(self.call.method, redacted(self.route.url), reason)


@lru_cache(maxsize=64)  # most requests have the same
def _client_timeout(total: float | None, connect: float, silence: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total, sock_connect=connect, sock_read=silence)


class TimeLimit:
    """Limits the time of a request whose body is streamed; progress restarts the time.

    Other requests have aiohttp's own limit, which cannot be restarted.

    Raises:
        TransportTimeout: The time is over.
    """

    def __init__(self, call: Call, url: str, seconds: float) -> None:
        self._call = call
        self._url = url
        self._seconds = seconds
        # anyio's cancel scopes could do this, too, at three times the cost for each request.
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            raise exceptions.TransportTimeout(
                self._call.method, redacted(self._url), "the response came too slowly"
            ) from expired

    def restart(self) -> None:
        """Start the time again."""
        # After the block has ended, aiohttp may still send the rest of a body.
        with suppress(RuntimeError):
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)
