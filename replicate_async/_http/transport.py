"""The only module that talks HTTP.

A `Pool` owns one aiohttp session for each event loop; a `Transport` is a view on a pool with its own base
URL, token, headers, timeouts and retries. It makes the attempts of a `Call` and returns an `Answer`, or
raises one of our exceptions. aiohttp is imported at the first request.
"""

from __future__ import annotations

import asyncio
import io
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import anyio
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from .. import _arguments, exceptions
from .._codec import encode_json
from .call import (
    LARGE,
    USER_AGENT,
    Answer,
    Body,
    Call,
    Config,
    Origin,
    Param,
    _environment_token,
    _shown,
    check_token,
    origin,
)
from .errors import _decoded, _is_network_error, _redirected, _translated, make_error
from .limits import Gate, Gates, Slots, gates_for
from .retry import retry_delay
from .session import Pool, _Session

_logger = logging.getLogger("replicate_async")


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


_MOST_REDIRECTS: Final = 5


class Route:
    """Where a request goes."""

    def __init__(self, url: str, parsed: yarl.URL, its_origin: Origin, is_api: bool) -> None:
        self.url = url
        self.parsed = parsed
        """The URL as it is: quoting a signed URL anew would break it."""
        self.origin = its_origin
        self.is_api = is_api
        """Whether it is at the origin of the API, to which alone the token goes."""


class _Account:
    """A token, and what goes by it."""

    def __init__(
        self, given: str, token: str, headers: Mapping[str, str], gates: Gates | None
    ) -> None:
        self.given = given
        """The token as it was given."""
        self.token = token
        """The token as it is sent."""
        self.headers = headers
        """The headers of all requests to the API, the token among them."""
        self.gates = gates
        """The account's gates, if its requests are counted."""


class Transport:
    """Makes the requests of one client, or of one view of it."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self.config = config
        self.pool = pool
        self._origin = origin(config.base_url)
        self._root = f"{config.base_url}/v1"
        self.http_host = self._origin[1] if self._origin[0] == "http" else None
        """The host of an API without TLS, as an emulator is: its files have `http:` URLs, too."""
        self._timeouts: dict[float | None, aiohttp.ClientTimeout] = {}
        self._routes: dict[str, Route] = {}
        self._account: _Account | None = None

    def with_config(self, config: Config) -> Transport:
        """Return a view with another configuration over the same connections."""
        return Transport(config, self.pool)

    def is_api(self, url: str) -> bool:
        """Tell whether a URL is at the origin of the API, to which alone the token goes."""
        return origin(url) == self._origin

    async def send(
        self,
        call: Call,
        result: type[Any] | None = None,
        patience: float = _arguments.LONGEST_WAIT,
    ) -> Answer:
        """Make the attempts of a call until there is a good answer.

        Args:
            call: What to send.
            result: The class of the object in a JSON answer; None: any JSON.
            patience: Seconds after which no further attempt is state.

        Raises:
            ReplicateError: The API answered with an error.
            TransportError: There was no usable answer.
            MissingToken: There is no token.
            ClientClosed: The client is closed.
        """
        attempt = 1
        started = time.monotonic()
        throttled = False
        pool, send_state = self.pool, call.send_state
        if send_state is not None:
            send_state.sent = False
        while True:
            taken: Slots | None = None
            try:
                session = pool.opened() or await pool.session()
                route = self._route(self.url_of(call))
                # The connection first, then the gate: what has passed the gate is sent at once, in its
                # minute.
                if not call.urgent:
                    slots = session.creates if call.rate_class == "creates" else session.slots
                    if not slots.try_acquire():
                        await slots.acquire(first=throttled)
                    taken = slots
                account = self._account_now() if route.is_api else None
                gate = None
                if account is not None and account.gates is not None:
                    gate = account.gates.of(call.rate_class)
                    if call.urgent:
                        gate.force()
                    elif throttled or not gate.try_pass():
                        pool.stats.waited += 1
                        pool.stats.waited_seconds += await gate.wait(anyio.sleep, first=throttled)
                        account = (
                            self._account_now()
                        )  # a token that expires may be another one by now
                return await self._exchange(call, result, session, route, account, gate)
            except exceptions.ReplicateException as error:
                if isinstance(call.content, Body) and not call.content.repeatable:
                    raise
                elapsed = time.monotonic() - started
                delay = retry_delay(
                    call.kind, error, attempt, elapsed, self.config.retry, random.random()
                )
                if delay is None or elapsed + delay > patience:
                    raise
                throttled = isinstance(error, exceptions.RateLimitError)
                if throttled and self.config.rate_limit is not None:
                    delay = 0.0  # the gate makes the pause, for all requests of its class
                level = logging.WARNING if attempt % 10 == 3 else logging.DEBUG
                _logger.log(level, "%s; attempt %d in %.2f s", error, attempt + 1, delay)
            finally:
                if taken is not None:
                    taken.release()
            if send_state is not None:
                send_state.sent = False  # that attempt has come to nothing
            attempt += 1
            pool.stats.retried += 1
            if delay:
                await anyio.sleep(delay)

    async def _exchange(
        self,
        call: Call,
        result: type[Any] | None,
        session: _Session,
        route: Route,
        account: _Account | None,
        gate: Gate | None,
    ) -> Answer:
        """Send a request and read the answer; the gate learns what that says of the limit."""
        silence = self.config.timeout.read + call.held
        seconds = 3 * silence
        most = self.config.limits.answer
        watchdog = session.watchdog
        for _ in range(_MOST_REDIRECTS + 1):
            response = None
            watch = watchdog.begin(seconds, call.send_state)
            try:
                data: Any = None
                abandon: Callable[[], None] | None = None
                body_headers = _NONE
                if call.json is not None:
                    body_headers = _JSON
                    data = await _encoded_in_thread(call) if call.large else _encoded(call)
                elif call.content is not None:
                    extend = partial(watchdog.extend, watch, seconds)
                    data, body_headers = _body(call.content, extend)
                    abandon = getattr(data, "abandon", None)
                headers = self._headers(route, account, call.headers, body_headers)
                if session.given or not (
                    data is None or (type(data) is bytes and len(data) < _QUICK)
                ):
                    # Only aiohttp knows when its body is sent, and the server's silence begins.
                    timeout = self._timeout(silence)
                else:
                    watch.silence = silence
                    timeout = self._timeout(None)
                if call.send_state is not None:
                    call.send_state.sent = True
                response = await session.client.request(
                    call.method,
                    route.parsed,
                    data=data,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                    skip_auto_headers=_NO_TYPE if data is None else None,
                    proxy=self.pool.proxy_for(route.origin, session),
                )
                status = response.status
                if _logger.isEnabledFor(logging.DEBUG):
                    _logger.debug("%s %s: %d", call.method, _shown(route.url), status)
                if 200 <= status < 300:
                    if gate is not None and route.is_api:
                        gate.learn(response.headers)
                    if not response.content.is_eof():
                        watchdog.heard(watch)
                    # To its end, where the connection goes back into the pool by itself.
                    body: bytes | bytearray = await response.content.readany()
                    if len(body) > most or not response.content.at_eof():
                        heard = partial(watchdog.heard, watch)
                        body = await self._rest(call, route, response, body, heard)
                    watchdog.end(watch)
                    if len(body) < LARGE:
                        made = _decoded(call, result, route.url, status, body)
                    else:
                        decoded = partial(_decoded, call, result, route.url, status, body)
                        made = await asyncio.get_running_loop().run_in_executor(None, decoded)
                    return Answer(status, response.headers, made, call.method, route.url)
                if status not in _REDIRECTS:
                    watchdog.heard(watch)
                    refusal = await self._error(
                        call, route.url, response, partial(watchdog.end, watch)
                    )
                    if abandon is not None:
                        abandon()
                    if gate is not None and route.is_api:
                        self._refused(gate, refusal)
                    raise refusal
                watchdog.end(watch)
                route = self._route(_redirected(call, route.url, response))
                response.release()
            except BaseException as error:
                ended = watchdog.end(watch)
                if response is not None:
                    response.close()
                if ended:
                    fact = (
                        "the answer came too slowly"
                        if watch.due >= watch.last
                        else f"the server was silent for {silence:g} s"
                    )
                    raise exceptions.TransportTimeout(
                        call.method, _shown(route.url), fact
                    ) from error
                if not isinstance(error, Exception):
                    raise
                translated = _translated(error, call.method, _shown(route.url))
                if translated is error:
                    raise
                raise translated from error
        raise exceptions.RefusedRedirect(
            call.method, _shown(route.url), _shown(route.url), "too many redirects"
        )

    def _refused(self, gate: Gate, error: exceptions.ReplicateError) -> None:
        """Close the gate for all requests of a class, after a 429 of the API."""
        if isinstance(error, exceptions.RateLimitError):
            seconds = 1.0 if error.retry_after is None else error.retry_after
            gate.refused(min(seconds, self.config.retry.max_wait), error.detail)

    @asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
        buffer: int = 2**16,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Hold a GET open while its body is read: one attempt, no limit on its duration.

        Args:
            url: Where to, used as it is. The token goes along only to the API.
            headers: Further headers.
            silence: Seconds without a byte after which it fails; the `read` timeout by default.
            buffer: Bytes that wait in memory before the server has to.

        Raises:
            ReplicateError: The answer has an error status.
            TransportError: There was no answer, or the connection broke while the body was read.
        """
        session = await self.pool.session()
        route = self._route(url)
        shown = _shown(url)
        timeout = self._timeout(silence or self.config.timeout.read)
        call = Call("GET", url, headers=headers)
        response: aiohttp.ClientResponse | None = None
        if not session.slots.try_acquire():
            await session.slots.acquire()
        watch = session.watchdog.begin(3 * self.config.timeout.read)
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                response = await session.client.request(
                    "GET",
                    route.parsed,
                    headers=self._headers(route, None, headers, _NONE),
                    timeout=timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                    read_bufsize=buffer,
                    proxy=self.pool.proxy_for(route.origin, session),
                )
                if response.status not in _REDIRECTS:
                    break
                route = self._route(_redirected(call, route.url, response))
                response.close()
                response = None
            else:
                raise exceptions.RefusedRedirect(
                    "GET", shown, _shown(route.url), "too many redirects"
                )
            if not 200 <= response.status < 300:
                raise await self._error(
                    call, route.url, response, partial(session.watchdog.end, watch)
                )
            session.watchdog.end(watch)
            yield response
        except BaseException as error:
            if session.watchdog.end(watch):
                raise exceptions.TransportTimeout(
                    "GET", shown, "the answer came too slowly"
                ) from error
            if isinstance(error, Exception) and (
                _is_network_error(error)
                # A host or port that cannot be: seen only when the request is made.
                or (response is None and isinstance(error, (ValueError, OverflowError)))
            ):
                raise _translated(error, "GET", shown) from error
            raise
        finally:
            session.slots.release()
            if response is not None:
                # Not release(): an abandoned body must not be waited for.
                response.close()

    # What a request is made of

    def url_of(self, call: Call) -> str:
        """Return the URL of a call, with its query."""
        url = self._root + call.path if call.path[0] == "/" else call.path
        if call.params:
            query = "&".join(
                f"{quote(name, safe='')}={quote(_text(value), safe='')}"
                for name, value in call.params.items()
                if value is not None
            )
            if query:
                url += ("&" if "?" in url else "?") + query
        return url

    def _route(self, url: str) -> Route:
        found = self._routes.get(url)
        if found is None:
            try:
                parsed = URL(url, encoded=True)
            except ValueError as error:
                raise exceptions.TransportError("GET", _shown(url), f"no URL ({error})") from error
            its_origin = origin(url)
            found = Route(url, parsed, its_origin, its_origin == self._origin)
            if len(self._routes) >= 64:
                self._routes.clear()
            self._routes[url] = found
        return found

    def _headers(
        self,
        route: Route,
        account: _Account | None,
        headers: Mapping[str, str] | None,
        body_headers: Mapping[str, str],
    ) -> dict[str, str]:
        if route.is_api:
            first = (account or self._account_now()).headers
        else:
            first = {"User-Agent": self.config.headers.get("User-Agent", USER_AGENT)}
        return {**first, **(headers or _NONE), **body_headers}

    def token(self) -> str:
        """Return the token for a request to be made now.

        Raises:
            MissingToken: There is none.
            ArgumentError: It cannot be sent in a header.
        """
        return self._account_now().token

    def _account_now(self) -> _Account:
        config = self.config
        given = config.token() if callable(config.token) else config.token or _environment_token()
        account = self._account
        if account is not None and account.given == given:
            return account
        if given is None:
            raise exceptions.MissingToken
        token = check_token(given)
        limit = config.rate_limit
        account = self._account = _Account(
            given,
            token,
            {**config.headers, "Authorization": f"Bearer {token}"},
            None if limit is None else gates_for((self._origin, token), limit),
        )
        return account

    def _timeout(self, silence: float | None) -> aiohttp.ClientTimeout:
        found = self._timeouts.get(silence)
        if found is None:
            found = self._timeouts[silence] = aiohttp.ClientTimeout(
                total=None,  # `_Watchdog` sees to it
                sock_connect=self.config.timeout.connect,
                sock_read=silence,
            )
        return found

    # What an answer is made of

    async def _rest(
        self,
        call: Call,
        route: Route,
        response: aiohttp.ClientResponse,
        begin: bytes | bytearray,
        heard: Callable[[], None],
    ) -> bytearray:
        """Return a body of which the beginning has come, if it is no longer than it may be."""
        limit = self.config.limits.answer
        chunk = begin
        body = bytearray()
        while chunk:
            body += chunk
            if len(body) > limit:
                response.close()
                raise exceptions.AnswerTooLarge(call.method, _shown(route.url), limit)
            heard()
            chunk = await response.content.readany()
        return body

    async def _error(
        self,
        call: Call,
        url: str,
        response: aiohttp.ClientResponse,
        end: Callable[[], bool],
    ) -> exceptions.ReplicateError:
        """Return the error for an answer, whose status alone tells enough if its body does not come."""
        limit = self.config.limits.error
        body = bytearray()
        try:
            while len(body) < limit and (chunk := await response.content.readany()):
                body += chunk
            end()
        except asyncio.CancelledError:
            if not end():
                raise
        except Exception as error:
            if not _is_network_error(error):
                raise
            end()
        return make_error(
            call.method, _shown(url), response.status, response.headers, bytes(body[:limit])
        )


_QUICK: Final = 64 * 1024  # bytes of a body that is sent at once


_NO_TYPE: Final = ("Content-Type",)  # which aiohttp would make up for an empty body


_JSON: Final[Mapping[str, str]] = {"Content-Type": "application/json"}


_NONE: Final[Mapping[str, str]] = {}


def _body(content: bytes | Body, progress: Callable[[], None]) -> tuple[Any, Mapping[str, str]]:
    if not isinstance(content, Body):
        return content, _NONE
    length = {} if content.size is None else {"Content-Length": str(content.size)}
    return _streamed_class()(content.make(), progress), length


@lru_cache(maxsize=1)
def _streamed_class() -> Callable[[AsyncIterator[bytes], Callable[[], None]], Any]:
    """Return the class of bodies that are made while they are sent; aiohttp is loaded by now."""

    class Streamed(Payload):
        """A body that tells of its progress, and breaks the connection if it cannot be completed."""

        _autoclose = True

        def __init__(self, chunks: AsyncIterator[bytes], progress: Callable[[], None]) -> None:
            super().__init__(chunks, content_type="application/octet-stream")
            self._chunks = chunks
            self._progress = progress
            self._transport: asyncio.Transport | None = None

        def decode(self, encoding: str = "", errors: str = "") -> str:  # noqa: ARG002
            raise TypeError("this body is made while it is sent")

        async def write(self, writer: AbstractStreamWriter) -> None:
            await self.write_with_length(writer, None)

        async def write_with_length(
            self,
            writer: AbstractStreamWriter,
            content_length: int | None,  # noqa: ARG002  (the sources keep to it)
        ) -> None:
            self._consumed = True
            self._transport = getattr(writer, "transport", None)
            try:
                async for chunk in self._chunks:
                    self._progress()
                    await writer.write(chunk)
            except BaseException:
                if self._transport is not None:
                    self._transport.abort()
                raise

        def abandon(self) -> None:
            """Let go of a connection that is to be closed: nobody reads what waits to be sent.

            It would keep the connection, perhaps for ever.
            """
            if self._transport is not None and self._transport.is_closing():
                self._transport.abort()

    return Streamed


def _encoded(call: Call) -> bytes | io.BytesIO:
    body = encode_json(call.json)
    # aiohttp would write large bytes in one go, and warns of it.
    return body if len(body) <= 2**20 else io.BytesIO(body)


async def _encoded_in_thread(call: Call) -> bytes | io.BytesIO:
    return await asyncio.get_running_loop().run_in_executor(None, _encoded, call)


def _text(value: Param) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
