"""The attempts of a call: slot, gate, timeouts, and reading the answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import anyio
import anyio.lowlevel
import attrs
import yarl

from .. import _arguments, exceptions
from .._codec import NestedTooDeeplyError, encode_json
from .._concurrency import has_stack, in_thread
from .._redaction import Secret
from .._telemetry import count_throttled, record_wait
from ..types import RateLimit, RateLimitState
from ..types._stats import Counters
from .answers import decode_body, fail_when_closed, redirect_target
from .call import (
    LARGE,
    USER_AGENT,
    Answer,
    Body,
    Call,
    Config,
    Origin,
    Param,
    SendState,
    check_token,
    environment_token,
    origin,
    redacted,
)
from .errors import NETWORK_ERRORS, cause_of, status_error, translated
from .hosts import host_of
from .limits import Gate, Gates
from .obstacles import note_failure, note_queue
from .payloads import JSONPayload, StreamedPayload
from .retry import Kind, retry_delay
from .session import Pool, Session
from .urls import legal_url

_logger = logging.getLogger("replicate_async")

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_MOST_REDIRECTS: Final = 5

_OVERALL: Final = 3
"""Factor from the longest silence to the time for a whole request: an answer may drip without ever being silent."""

_BUFFER: Final = 2**16
"""Bytes of an answer to hold in memory before the server has to wait."""

_JSON_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json"}

_NO_HEADERS: Final[Mapping[str, str]] = {}

_SKIPPED_HEADERS: Final = ("Content-Type",)
"""Headers that aiohttp must not add: it would give one to an empty body."""


@attrs.define(eq=False, repr=False)
class Route:
    """Destination of a request."""

    url: str
    parsed: yarl.URL
    """The same URL, not quoted again, which would break a signature."""
    origin: Origin
    is_api: bool
    """Whether the URL is one of the API; only these get the token."""


@attrs.define(eq=False, repr=False)
class Account:
    """A token, and what depends on it."""

    given: str | None
    """The token as it was given."""
    token: str
    """The token as it is sent."""
    headers: Mapping[str, str]
    """Headers of all requests to the API, including the token."""
    gates: Gates | None
    """Gates of the account; None if client-side rate limiting is disabled."""
    tenant_gates: Gates | None
    """Gates of the tags, to be passed before those of the account; None if they have no limits of their own."""


class Transport:
    """Makes the requests of a client, or of a view of it."""

    def __init__(self, config: Config, pool: Pool, counters: Counters | None = None) -> None:
        self.config = config
        self.pool = pool
        self.counters: Counters = counters or Counters()
        self._origin = origin(config.base_url)
        self._root = f"{config.base_url}{config.prefix}"
        self._api_path = f"{urlsplit(self._root).path}/"
        self.http_host: str | None = self._origin[1] if self._origin[0] == "http" else None
        """Host of an API without TLS, such as an emulator: its files have `http:` URLs, too."""
        self._account: Account | None = None

    def with_config(self, config: Config) -> Transport:
        """Return a view with another configuration over the same connections."""
        return Transport(config, self.pool, self.counters.view())

    def is_api(self, url: str) -> bool:
        """Return whether a URL is one of the API; only these get the token.

        A gateway may serve others at the same origin, below other paths.
        """
        if origin(url) != self._origin:
            return False
        path = urlsplit(url).path
        return path.startswith(self._api_path) and not _leads_out(path)

    def rate_limit_state(self) -> RateLimitState | None:
        """Return what is left of the rate limits, of the account and of the tags; None if they are disabled.

        Raises:
            MissingToken: There is no token.
        """
        account = self._account_now()
        states = [
            gates.state() for gates in (account.tenant_gates, account.gates) if gates is not None
        ]
        return max(states, key=lambda state: state.creates.wait, default=None)

    async def send(
        self,
        call: Call,
        result: type[Any] | None = None,
        patience: float = _arguments.LONGEST_WAIT,
    ) -> Answer:
        """Make the attempts of a call until one succeeds.

        Args:
            call: The call.
            result: Class of the object in a JSON answer; None for plain JSON.
            patience: Seconds after which no further attempt begins.

        Raises:
            ReplicateError: The API answered with an error.
            TransportError: No usable response was received.
            MissingToken: There is no token.
            ClientClosed: The client is closed.
            ReplicateException: The stack is too deep.
        """
        _check_stack(call.method, self.url_of(call))
        started = time.monotonic()
        attempt = 1
        throttled = False
        send_state = call.send_state or SendState()
        send_state.sent = False
        while True:
            try:
                answer = await self._attempt(call, result, throttled)
            except exceptions.ReplicateException as error:
                if isinstance(call.content, Body) and not call.content.repeatable:
                    raise
                elapsed = time.monotonic() - started
                delay = retry_delay(
                    call.kind,
                    error,
                    attempt,
                    elapsed,
                    self.config.retry,
                    random.random(),
                    is_new=call.is_new,
                )
                if delay is not None and call.urgent and elapsed < patience:
                    delay = min(delay, patience - elapsed)  # a last attempt when its time is over
                if delay is None or elapsed + delay > patience:
                    raise
                if not call.urgent:
                    note_failure(error)
                throttled = isinstance(error, exceptions.RateLimitError)
                if throttled:
                    count_throttled(call.rate_class, self.config.tags)
                if throttled and self.config.rate_limit is not None and not call.urgent:
                    delay = 0.0  # the gate makes the pause, for all requests of its class
                level = logging.DEBUG
                # The first failures are often over soon; then one of ten is enough.
                if attempt % 10 == 3 and (not throttled or self.pool.may_warn_of_throttling()):
                    level = logging.WARNING
                _logger.log(
                    level,
                    "%s; attempt %d in %.2f s",
                    error,
                    attempt + 1,
                    delay,
                    extra={"tags": dict(self.config.tags)},
                )
            else:
                if attempt > 1 and not call.urgent:
                    note_failure(None)
                return answer
            # A create is repeated only if nothing was sent, or it was refused.
            send_state.sent = False
            attempt += 1
            self.counters.add(retried=1)
            if delay:
                await anyio.sleep(delay)

    @asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        method: Literal["GET", "HEAD"] = "GET",
        silence: float | None = None,
        buffer: int = _BUFFER,
        accepted: Collection[int] = (),
        is_relayed: bool = False,
        check_host: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Make one request without a body, and leave that of the answer to the caller; its duration is not limited.

        Args:
            url: URL; what is illegal in it is encoded. It may come from a model or a server, so the token is never sent,
                whatever its origin.
            headers: Additional headers.
            method: HTTP method.
            silence: Longest silence in seconds; the `read` timeout by default.
            buffer: Bytes of the body to hold in memory before the server has to wait.
            accepted: Error statuses that are not raised.
            is_relayed: Whether somebody else reads the answer, at their own pace: such requests leave some slots free.
            check_host: Called with the host, and with that of each redirect, before anything is sent there; may raise.

        Raises:
            ReplicateError: The answer has an error status.
            TransportError: There was no answer, or the connection broke while the body was read.
        """
        _check_stack(method, url)
        session = await self.pool.session()
        route = self._route(url)
        call = Call(method, url, headers=headers)
        silence = silence or self.config.timeout.read
        async with AsyncExitStack() as slots:
            for each in (session.relays, session.slots) if is_relayed else (session.slots,):
                await each.acquire()
                slots.callback(each.release)
            async with _TimeLimit(call, url, _OVERALL * self.config.timeout.read):
                response, route = await self._request(
                    call, session, route, silence=silence, buffer=buffer, check_host=check_host
                )
            with closing(response):
                if response.status not in (200, 203, 206) and response.status not in accepted:
                    raise await self._error(call, route, response)
                try:
                    yield response
                except exceptions.ReplicateException:
                    raise
                except NETWORK_ERRORS as error:
                    raise translated(error, method, url, silence) from cause_of(error)

    async def _attempt(self, call: Call, result: type[Any] | None, throttled: bool) -> Answer:
        """Wait for a slot and for the gate, make a request, and return its answer.

        Args:
            call: The call.
            result: Class of the object in a JSON answer; None for plain JSON.
            throttled: Whether the last attempt was refused by the rate limit: it goes to the front of the queues.
        """
        session = await self.pool.session()
        route = self._route(self.url_of(call))
        # The slot comes before the gate: a request that has passed the gate is sent at once.
        slots = session.creates if call.rate_class == "creates" else session.slots
        send_state = call.send_state or SendState()
        send_state.is_queued = True
        has_hold = call.may_skip_hold and call.held > 0 and session.holds.try_acquire()
        if call.may_skip_hold and not has_hold:
            headers = {
                name: value
                for name, value in (call.headers or _NO_HEADERS).items()
                if name != "Prefer"
            }
            call = attrs.evolve(call, headers=headers, held=0.0)
        send_state.is_held = call.held > 0
        try:
            if not call.urgent:
                await slots.acquire(first=throttled)
        except BaseException:
            if has_hold:
                session.holds.release()
            raise
        try:
            account = self._account_now() if route.is_api else None
            gate = None
            # A throttled call has passed the gate of its tags before.
            if account is not None and account.tenant_gates is not None and not throttled:
                tenant_gate = account.tenant_gates.of(call.rate_class)
                if call.urgent:
                    tenant_gate.force()
                elif not tenant_gate.try_pass():
                    await self._wait_at(tenant_gate, call, self.config.tenant_limit)
            if account is not None and account.gates is not None:
                gate = account.gates.of(call.rate_class)
                if call.urgent:
                    gate.force()
                elif throttled or not gate.try_pass():
                    await self._wait_at(gate, call, self.config.rate_limit, first=throttled)
                    account = self._account_now()  # the token may have been renewed meanwhile
            if call.rate_class == "creates":
                await _notice_closed_connections(session)
            send_state.is_queued = False
            return await self._exchange(call, result, session, route, account, gate)
        except MemoryError as error:
            reason = "there is not enough memory for the answer"
            raise exceptions.ConnectionLost(call.method, redacted(route.url), reason) from error
        finally:
            if not call.urgent:
                slots.release()
            if has_hold:
                session.holds.release()

    async def _wait_at(
        self, gate: Gate, call: Call, limit: RateLimit | None, *, first: bool = False
    ) -> None:
        """Wait at a gate, for as long as its limit says; what is about a paid prediction waits however long it takes."""
        longest = limit.max_queue if limit is not None else None
        if call.waits or call.kind is Kind.POLL:
            longest = None
        self.counters.add(waited=1, waiting=1)
        began = time.monotonic()
        try:
            note_queue(is_queued=True)
            await gate.wait(first=first, longest=longest)
            note_queue(is_queued=False)
        finally:
            waited = time.monotonic() - began
            self.counters.add(waiting=-1, waited_seconds=waited)
            record_wait(waited, call.rate_class, self.config.tags)

    async def _exchange(
        self,
        call: Call,
        result: type[Any] | None,
        session: Session,
        route: Route,
        account: Account | None,
        gate: Gate | None,
    ) -> Answer:
        """Make a request and read its answer; the gate learns what that states about the rate limit."""
        silence = self.config.timeout.read + call.held
        if isinstance(call.content, Body):
            async with _TimeLimit(call, route.url, _OVERALL * silence) as limit:
                data, body_headers = await _encoded(call, route.url, limit.restart)
                response, route, body = await self._read(
                    call, session, route, account, silence, None, data, body_headers
                )
        else:
            data, body_headers = await _encoded(call, route.url, _nothing)
            response, route, body = await self._read(
                call, session, route, account, silence, _OVERALL * silence, data, body_headers
            )
        if body is None:
            with closing(response):
                error = await self._error(call, route, response)
            if isinstance(data, StreamedPayload):
                data.abandon()
            if gate is not None and route.is_api and isinstance(error, exceptions.RateLimitError):
                pause = 1.0 if error.retry_after is None else error.retry_after
                gate.refused(min(pause, self.config.retry.max_wait), error.detail)
            raise error
        session.answered_at = time.monotonic()
        if gate is not None and route.is_api:
            gate.learn(response.headers)
        arguments = call, result, route.url, response, body
        try:
            if len(body) >= LARGE:
                decoded = await in_thread(decode_body, *arguments)
            else:
                try:
                    decoded = decode_body(*arguments)
                except exceptions.UnreadableAnswer as error:
                    if not isinstance(error.__cause__, NestedTooDeeplyError):
                        raise
                    # It may be the stack of this task that is deep; that of a thread is not.
                    decoded = await in_thread(decode_body, *arguments)
        except (exceptions.ConnectionLost, exceptions.UnreadableAnswer):
            session.distrust()
            raise
        return Answer(response.status, response.headers, decoded, call.method, route.url)

    async def _read(
        self,
        call: Call,
        session: Session,
        route: Route,
        account: Account | None,
        silence: float,
        total: float | None,
        data: Any,
        body_headers: Mapping[str, str],
    ) -> tuple[aiohttp.ClientResponse, Route, bytearray | None]:
        """Make a request; return the answer, its route, and its body if it has a good status."""
        response, route = await self._request(
            call,
            session,
            route,
            account,
            silence=silence,
            total=total,
            data=data,
            body_headers=body_headers,
        )
        if not 200 <= response.status < 300:
            return response, route, None
        return response, route, await self._body(call, route, response, silence)

    async def _request(
        self,
        call: Call,
        session: Session,
        route: Route,
        account: Account | None = None,
        *,
        silence: float,
        total: float | None = None,
        data: Any = None,
        body_headers: Mapping[str, str] = _NO_HEADERS,
        buffer: int = _BUFFER,
        check_host: Callable[[str], None] | None = None,
    ) -> tuple[aiohttp.ClientResponse, Route]:
        """Make a request, follow redirects, and return the answer, its body unread, with its route."""
        timeout = aiohttp.ClientTimeout(
            total=total,
            sock_connect=self.config.timeout.connect,
            sock_read=silence,
        )
        for _ in range(_MOST_REDIRECTS + 1):
            headers = self._headers(route, account, call.headers, body_headers)
            proxy = self.pool.proxy_for(route.origin, session)
            try:
                if check_host is not None:
                    check_host(host_of(route.parsed))
                response = await session.client.request(
                    call.method,
                    route.parsed,
                    data=data,
                    headers=headers,
                    skip_auto_headers=_SKIPPED_HEADERS if data is None else None,
                    timeout=timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                    read_bufsize=buffer,
                    proxy=proxy,
                )
            except NETWORK_ERRORS as error:
                raise translated(
                    error, call.method, route.url, silence, is_api=route.is_api
                ) from cause_of(error)
            except (ValueError, OverflowError) as error:
                # A model or a redirect may give a URL that looks like one and is not valid.
                raise _cannot_be_sent(call, route.url, error) from cause_of(error)
            except RuntimeError as error:
                if session.client.closed:
                    raise exceptions.ClientClosed from error
                if "new thread" in str(error):  # to look up the host
                    raise exceptions.ConnectError(
                        call.method, redacted(route.url), f"the host is not known ({error})"
                    ) from error
                raise
            if _logger.isEnabledFor(logging.DEBUG):
                _logger.debug("%s %s: %d", call.method, redacted(route.url), response.status)
            if route.is_api:
                self.pool.clock.learn(response.headers)
            if response.status not in _REDIRECTS:
                fail_when_closed(response)
                return response, route
            with closing(response):
                route = self._route(redirect_target(call, route.url, response))
            if account is not None and not route.is_api:
                # Nothing of the call goes elsewhere, nor the token to the API if it leads back there.
                account, data, body_headers = None, None, _NO_HEADERS
                call = attrs.evolve(call, headers=None)
        raise exceptions.RefusedRedirect(
            call.method, redacted(route.url), redacted(route.url), "too many redirects"
        )

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
        try:
            url = legal_url(url)
            parsed = yarl.URL(url, encoded=True)
        except ValueError as error:
            raise exceptions.TransportError(
                "GET", redacted(url), f"not a valid URL ({error})"
            ) from cause_of(error)
        return Route(url, parsed, origin(url), self.is_api(url))

    def _headers(
        self,
        route: Route,
        account: Account | None,
        headers: Mapping[str, str] | None,
        body_headers: Mapping[str, str],
    ) -> dict[str, str]:
        own: Mapping[str, str]
        if account is not None and route.is_api:
            own = account.headers
        else:
            own = {"User-Agent": self.config.headers.get("User-Agent", USER_AGENT)}
        return {**own, **(headers or _NO_HEADERS), **body_headers}

    def token(self) -> str:
        """Return the API token that a request would be sent with now.

        Raises:
            MissingToken: There is no token.
            ArgumentError: The token contains characters that a header cannot hold.
        """
        return self._account_now().token

    def _account_now(self) -> Account:
        config = self.config
        given = config.token() if callable(config.token) else config.token or environment_token()
        account = self._account
        if account is not None and account.given == given:
            return account
        if given is None:
            raise exceptions.MissingToken
        token = Secret(check_token(given))
        limit = config.rate_limit
        account = self._account = Account(
            given,
            token,
            {**config.headers, "Authorization": Secret(f"Bearer {token}")},
            None if limit is None else self.pool.gates.of((self._origin, token), limit),
            None
            if config.tenant_limit is None
            else self.pool.gates.of(
                (self._origin, token, *sorted(config.tags.items())), config.tenant_limit
            ),
        )
        return account

    # How an answer is read

    async def _body(
        self, call: Call, route: Route, response: aiohttp.ClientResponse, silence: float
    ) -> bytearray:
        """Read the body of an answer to its end, which returns the connection to aiohttp's pool."""
        most = self.config.limits.answer
        body = bytearray()
        try:
            while chunk := await response.content.readany():
                body += chunk
                if len(body) > most:
                    raise exceptions.AnswerTooLarge(call.method, redacted(route.url), most)
        except NETWORK_ERRORS as error:
            response.close()
            raise translated(error, call.method, route.url, silence) from cause_of(error)
        except BaseException:
            response.close()
            raise
        return body

    async def _error(
        self, call: Call, route: Route, response: aiohttp.ClientResponse
    ) -> exceptions.ReplicateError:
        """Return the exception for an error status; the body is optional, and may break off."""
        most = self.config.limits.error
        body = bytearray()
        with suppress(*NETWORK_ERRORS):
            async with asyncio.timeout(_OVERALL * self.config.timeout.read):
                while len(body) < most and (chunk := await response.content.readany()):
                    body += chunk
        return status_error(
            call.method, route.url, response.status, response.headers, bytes(body[:most])
        )


class _TimeLimit:
    """Limits the time for a request whose body is streamed; each progress restarts it.

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
        """Allow the whole time again, from now on."""
        # After its end, the rest of a body may still be on its way.
        with suppress(RuntimeError):
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)


_ITERATIONS: Final = 4
"""Iterations of the event loop in which a connection that the server has closed leaves aiohttp's pool: its end is
read in one, TLS closes in the next, and the pool is told in another."""


_STANDSTILL: Final = 0.05
"""Seconds without an answer after which the event loop may have stood still."""


async def _notice_closed_connections(session: Session) -> None:
    """Let the event loop read which connections were closed while it stood still.

    A create that is sent on such a connection gets no answer, although the server never sees it.
    """
    if time.monotonic() - session.answered_at > _STANDSTILL:
        for _ in range(_ITERATIONS):
            await anyio.lowlevel.checkpoint()


def _nothing() -> None:
    """Ignore the progress of a body that is sent at once."""


async def _encoded(
    call: Call, url: str, progress: Callable[[], None]
) -> tuple[Any, Mapping[str, str]]:
    """Return the body of a call as aiohttp takes it, and its headers."""
    content = call.content
    if isinstance(content, Body):
        length = {} if content.size is None else {"Content-Length": str(content.size)}
        return StreamedPayload(content.make(), progress), length
    if call.json is None:
        return content, _NO_HEADERS
    try:
        body = await in_thread(encode_json, call.json) if call.large else encode_json(call.json)
    except ValueError as error:
        raise _cannot_be_sent(call, url, error) from cause_of(error)
    return JSONPayload(body, call.send_state), _JSON_HEADERS


_FRAMES: Final = 40
"""Nested calls that a request needs. In the midst of a deeper stack, a connection would be left half closed."""


def _check_stack(method: str, url: str) -> None:
    """Check that the stack has room for a request, before anything is sent.

    Raises:
        ReplicateException: It has none.
    """
    if not has_stack(_FRAMES):
        raise exceptions.ReplicateException(
            f"{method} {redacted(url)} was not sent: the stack is too deep, there would be a RecursionError."
            " Send it from a task of its own, or raise the recursion limit"
        )


def _cannot_be_sent(call: Call, url: str, error: Exception) -> exceptions.TransportError:
    reason = f"{type(error).__name__}: {error}"
    return exceptions.TransportError(call.method, redacted(url), f"cannot be sent ({reason})")


def _leads_out(path: str) -> bool:
    """Return whether a path has `.` or `..` in it, which servers may resolve."""
    path = unquote(path)
    return "/./" in path or "/../" in path or path.endswith(("/.", "/.."))


def _text(value: Param) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
