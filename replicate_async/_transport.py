"""The only module that talks HTTP.

A `Pool` owns one aiohttp session for each event loop; a `Transport` is a view on a pool with its own base
URL, token, headers, timeouts and retries. It makes the attempts of a `Call` and returns an `Answer`, or
raises one of our exceptions. aiohttp is imported at the first request.
"""

from __future__ import annotations

import asyncio
import io
import logging
import math
import os
import random
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urljoin, urlsplit

import attrs

from . import _policy, exceptions
from ._codec import decode_json, encode_json, structure
from ._limits import Gate, Gates, RateClass, Slots, gates_for
from ._policy import Kind
from ._version import __version__
from .types import Limits, RateLimit, Retry, Stats, Timeout

if TYPE_CHECKING:
    import ssl as ssl_module

    import aiohttp
    import yarl

_logger = logging.getLogger("replicate_async")

Origin = tuple[str, str, int | None]
Param = str | int | bool | None
_Settle = Callable[[], Coroutine[Any, Any, None]]

DEFAULT_BASE_URL: Final = "https://api.replicate.com"
USER_AGENT: Final = f"replicate-async/{__version__}"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
LARGE: Final = 256 * 1024
"""Bytes of JSON above which a worker thread reads or writes it."""


# -- What goes in and what comes out -----------------------------------------------------------
#
# Where nothing of attrs is needed, the classes are plain ones: each class of attrs takes 0.15 to 0.4 ms
# of the import, for which the first result has to wait.


# Never changed; `frozen` would make it three times as slow to make.
@attrs.define(eq=False, repr=False)
class Call:
    """One operation of the API, or one URL that the API gave."""

    method: str
    """The HTTP method."""
    path: str
    """The path below `/v1`, percent-encoded, with its leading slash; or an absolute URL, used as it is."""
    kind: Kind = Kind.READ
    """What repeating it would mean."""
    expects: Literal["json", "text", "nothing"] = "json"
    """What a good answer holds."""
    params: Mapping[str, Param] | None = None
    """The query; None is left out."""
    json: Any = None
    """A JSON body."""
    large: bool = False
    """Whether a thread shall encode it."""
    content: bytes | Body | None = None
    """Another body."""
    headers: Mapping[str, str] | None = None
    """Headers of this operation."""
    held: float = 0.0
    """Seconds that the server was asked to hold its answer back."""
    urgent: bool = False
    """Whether it passes all queues: for what stops costs."""
    rate_class: RateClass = "others"
    """How the API counts it."""
    trail: Trail | None = None
    """Where to note how far it comes."""


@attrs.define(eq=False, repr=False)
class Trail:
    """How far a request has come."""

    sent: bool = False
    """Whether the server may have seen it; False again once it must have been refused."""


class Body:
    """A body that is made anew for each attempt."""

    def __init__(
        self, size: int | None, make: Callable[[], AsyncIterator[bytes]], repeatable: bool = True
    ) -> None:
        self.size = size
        """Its length in bytes, if known."""
        self.make = make
        """Yields its bytes."""
        self.repeatable = repeatable
        """Whether it can be made a second time; turns False when its source fails."""


class Answer:
    """A good answer."""

    __slots__ = ("data", "headers", "method", "status", "url")

    def __init__(
        self, status: int, headers: Mapping[str, str], data: Any, method: str, url: str
    ) -> None:
        self.status = status
        """The HTTP status, 200 to 299."""
        self.headers = headers
        """The headers, case-insensitive."""
        self.data = data
        """The object, the JSON, the text, or None."""
        self.method = method
        """The method of the request."""
        self.url = url
        """Where the request went."""

    def unreadable(self, error: ValueError) -> exceptions.UnreadableAnswer:
        """Return the error that tells that the JSON has not the shape that was expected."""
        return exceptions.UnreadableAnswer(
            self.method, _shown(self.url), self.status, repr(self.data)[:1000], str(error)
        )


@attrs.frozen(eq=False, repr=False)
class Config:
    """How a transport makes requests."""

    base_url: str
    """Scheme, host and perhaps a prefix; without `/v1`, without a slash at the end."""
    token: str | Callable[[], str] | None = attrs.field(repr=False)
    """The token, or what gives it. None: the environment's, looked up for each request."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Headers of all requests to the API."""
    timeout: Timeout
    """How long to wait for the network."""
    retry: Retry
    """How to repeat."""
    limits: Limits
    """What may be held in memory."""
    rate_limit: RateLimit | None
    """The account's limits; None: nobody counts."""


def check_base_url(url: str) -> str:
    """Return a base URL in the form that `Config` wants."""
    if not isinstance(url, str):
        raise exceptions.ArgumentTypeError(
            "base_url", f"expected a string, got {type(url).__name__}"
        )
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable or parts.query or parts.fragment:
        raise exceptions.ArgumentError(
            "base_url", f"{url!r} is no URL such as {DEFAULT_BASE_URL!r}"
        )
    if parts.path.endswith("/v1"):
        url = url.removesuffix("/v1")
    return url


def check_token(token: object) -> str:
    """Return a token without the white space around it, fit for a header."""
    if not isinstance(token, str):
        raise exceptions.ArgumentTypeError(
            "api_token", f"expected a string, got {type(token).__name__}"
        )
    token = token.strip()
    if not token:
        raise exceptions.MissingToken
    if not all("!" <= character <= "~" for character in token):
        # The token itself must not appear in a message.
        raise exceptions.ArgumentError(
            "api_token", "there are spaces, control or non-ASCII characters in the token"
        )
    return token


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of headers that can be sent."""
    if not isinstance(headers, Mapping):
        raise exceptions.ArgumentTypeError(
            "headers", f"expected a mapping, got {type(headers).__name__}"
        )
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise exceptions.ArgumentTypeError("headers", f"{name!r} and its value must be strings")
        if (
            not name
            or any(not "!" <= c <= "~" or c == ":" for c in name)
            or any((c < " " and c != "\t") or c == "\x7f" for c in value)
        ):
            raise exceptions.ArgumentError("headers", f"{name!r} or its value cannot be sent")
    return dict(headers)


@lru_cache(maxsize=256)
def origin(url: str) -> Origin:
    """Return scheme, host and port of a URL, in lower case and with the port that it implies."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", "", None  # nobody's
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), port or {"http": 80, "https": 443}.get(scheme)


# -- Sessions ----------------------------------------------------------------------------------


class _Watch:
    """A request that must not take for ever; times are of the monotonic clock."""

    __slots__ = ("before", "due", "ended", "last", "outer", "silence", "task", "trail")

    def __init__(
        self, task: asyncio.Task[Any], last: float, outer: _Watch | None, trail: Trail | None
    ) -> None:
        self.task = task
        self.trail = trail
        self.before = task.cancelling()
        """How often its task had been cancelled when it began."""
        self.outer = outer
        """The request of the same task in whose middle it is made, as by a trace of aiohttp."""
        self.last = last
        """When it ends at the latest: an answer may come in drips, so that no silence ends it."""
        self.due = last
        """When it ends if nothing is heard before."""
        self.silence: float | None = None
        """Seconds that the server may be silent; None: aiohttp sees to that."""
        self.ended = False
        """Whether it was ended by the watchdog."""


class _Watchdog:
    """Ends the requests of a loop whose server is silent, or too slow.

    One timer serves them all: aiohttp's own, which is set for each request anew, would be a tenth of what
    a request costs.
    """

    _HELD_UP: Final = 0.1

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[asyncio.Task[Any], _Watch] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        self._was_held_up = False

    def begin(self, seconds: float, trail: Trail | None = None) -> _Watch:
        """Watch the request that the current task makes now, which ends after so many seconds."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        last = time.monotonic() + seconds
        watch = self._watched[task] = _Watch(task, last, self._watched.get(task), trail)
        if last < self._next:
            self._arm(last)
        return watch

    def connected(self) -> None:
        """Note that the current task has a connection."""
        task = asyncio.current_task(self._loop)
        watch = None if task is None else self._watched.get(task)
        if watch is not None:
            self.heard(watch)

    def unconnected(self) -> None:
        """Note that the current task did not get a connection: nothing was sent."""
        task = asyncio.current_task(self._loop)
        watch = None if task is None else self._watched.get(task)
        if watch is not None and watch.trail is not None:
            watch.trail.sent = False

    def heard(self, watch: _Watch) -> None:
        """Note that the server's silence begins now."""
        if watch.silence is not None:
            watch.due = due = min(time.monotonic() + watch.silence, watch.last)
            if due < self._next:
                self._arm(due)

    def extend(self, watch: _Watch, seconds: float) -> None:
        """Give a request so much time from now on: what it sends makes progress."""
        watch.last = watch.due = time.monotonic() + seconds

    def end(self, watch: _Watch) -> bool:
        """Note that it is done; tell whether it was ended here, and by nobody else."""
        self._forget(watch)
        ended, watch.ended = watch.ended, False
        # Whoever else has cancelled the task since the request began has the last word.
        return ended and watch.task.uncancel() <= watch.before

    def _forget(self, watch: _Watch) -> None:
        if self._watched.get(watch.task) is watch:
            if watch.outer is None:
                del self._watched[watch.task]
            else:
                self._watched[watch.task] = watch.outer

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        self._timer = self._loop.call_later(max(when - time.monotonic(), 0.0), self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self._timer = None
        self._was_held_up = now > self._next + self._HELD_UP and not self._was_held_up
        if self._was_held_up:
            # Somebody has blocked the loop: what has arrived meanwhile is read first.
            self._arm(now + self._HELD_UP)
            return
        for watch in [each for each in self._watched.values() if each.due <= now + 0.005]:
            self._forget(watch)
            watch.ended = True
            watch.task.cancel()
        self._next = min((each.due for each in self._watched.values()), default=math.inf)
        if self._watched:
            self._arm(self._next)


@lru_cache(maxsize=1)
def _session_classes() -> tuple[Callable[..., aiohttp.TCPConnector], type[aiohttp.DummyCookieJar]]:
    """Return what our sessions are made of; aiohttp is loaded by now."""
    from http.cookies import SimpleCookie

    import aiohttp

    none: SimpleCookie = SimpleCookie()

    class NoCookies(aiohttp.DummyCookieJar):
        """Keeps no cookies, and makes no object for each request to say so."""

        def filter_cookies(self, request_url: yarl.URL) -> SimpleCookie:  # noqa: ARG002  (its interface)
            return none

    class Connector(aiohttp.TCPConnector):
        """Tells the watchdog when a request has its connection, and the server can be silent; or has none."""

        def __init__(self, *, watchdog: _Watchdog, **options: Any) -> None:
            super().__init__(**options)
            self._tell = watchdog.connected
            self._tell_failure = watchdog.unconnected

        async def connect(
            self,
            req: aiohttp.ClientRequest,
            traces: list[aiohttp.tracing.Trace],
            timeout: aiohttp.ClientTimeout,
        ) -> aiohttp.connector.Connection:
            try:
                connection = await super().connect(req, traces, timeout)
            except BaseException:
                self._tell_failure()
                raise
            self._tell()
            return connection

    return Connector, NoCookies


class _Session:
    """What belongs to one event loop."""

    def __init__(
        self, client: aiohttp.ClientSession, connections: int, watchdog: _Watchdog, given: bool
    ) -> None:
        self.client = client
        self.slots = Slots(connections)
        """Connections for all but creates: a create may hold one for a minute, waiting for its result."""
        self.creates = Slots(connections)
        self.watchdog = watchdog
        self.given = given
        """Whether the caller has brought it."""
        self.proxies: dict[Origin, str | None] = {}
        self.guard: AsyncGenerator[None, None] | None = None
        self.unsettled: set[_Settle] = set()
        """What has to be done before it closes: what was begun and costs money must be stopped."""


class Pool:
    """One aiohttp session for each event loop, opened at the first request there.

    A loop that ends in an orderly way (`asyncio.run`) closes its session; one that was inherited by a
    fork is left alone, since its sockets are the parent's.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] | None = None,
        session: aiohttp.ClientSession | None = None,
        connections: int = 256,
    ) -> None:
        self._proxy = proxy
        self._ssl = True if ssl is None else ssl
        self._traces = list(trace_configs or ())
        self._given = session
        self._given_loop: asyncio.AbstractEventLoop | None = None
        self._connections = connections
        self._pid = os.getpid()
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}
        self._left_behind: list[object] = []
        self._closed = False
        self.stats = Stats()

    def opened(self) -> _Session | None:
        """Return the session of the running loop, if it is open."""
        found = self._sessions.get(asyncio.get_running_loop())
        if found is None or self._closed or self._pid != os.getpid() or found.client.closed:
            return None
        return found

    def before_close(self, settle: _Settle) -> Callable[[], None]:
        """Have something awaited before the running loop's session closes; returns what undoes this.

        It must bound itself, and raise nothing.
        """
        opened = self.opened()
        if opened is None:
            return lambda: None
        opened.unsettled.add(settle)
        return lambda: opened.unsettled.discard(settle)

    async def session(self) -> _Session:
        """Return the session of the running loop; open it at the first request there."""
        if self._closed:
            raise exceptions.ClientClosed
        if (found := self.opened()) is not None:
            return found
        loop = asyncio.get_running_loop()
        if "aiohttp" not in sys.modules or _loading:
            await _load_aiohttp(loop)
            if self._closed:
                raise exceptions.ClientClosed
        return self.opened() or await self._open(loop)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Session:
        self._forget()
        _keep_receive_buffers()
        if self._given is not None:
            if self._given.closed:
                raise exceptions.ArgumentError("session", "this aiohttp session is closed")
            self._given_loop = self._given_loop or loop
            if self._given_loop is not loop:
                raise exceptions.ArgumentError(
                    "session", "this aiohttp session belongs to another event loop"
                )
            opened = _Session(self._given, self._connections, _Watchdog(loop), given=True)
            self._sessions[loop] = opened
            return opened
        watchdog = _Watchdog(loop)
        opened = _Session(self._make_session(watchdog), self._connections, watchdog, given=False)
        self._sessions[loop] = opened
        opened.guard = _guard(opened.client, opened.unsettled)
        await anext(opened.guard)
        return opened

    def _make_session(self, watchdog: _Watchdog) -> aiohttp.ClientSession:
        import aiohttp

        make_connector, make_jar = _session_classes()
        connector = make_connector(
            watchdog=watchdog,
            limit=0,  # `Slots` counts, outside of the timeouts
            resolver=aiohttp.ThreadedResolver(),
            socket_factory=_socket_with_keepalive,
            ssl=self._ssl,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=make_jar(),
            trace_configs=self._traces,
        )
        # aiohttp sends GET and DELETE a second time by itself when a connection breaks, and has no
        # public switch for that. We decide what is repeated; a test counts the requests.
        session._retry_connection = False
        return session

    def _forget(self) -> None:
        """Let go of the sessions of loops that are gone."""
        if self._pid != os.getpid():
            # Kept alive for ever: their finalizers would touch sockets of the parent.
            self._left_behind.append(list(self._sessions.values()))
            self._sessions.clear()
            self._pid = os.getpid()
        for loop, session in list(self._sessions.items()):
            if loop.is_closed() or session.client.closed:
                self._sessions.pop(loop, None)  # another thread may have been quicker

    def proxy_for(self, target: Origin, session: _Session) -> str | None:
        """Return the proxy for what is at an origin: the caller's, or the environment's."""
        if self._proxy is not None or self._given is not None:
            return self._proxy  # a session that the caller brings has ways of its own
        try:
            return session.proxies[target]
        except KeyError:
            found = session.proxies[target] = _environment_proxy(target)
            return found

    async def aclose(self) -> None:
        """Close the session of the running loop; others close with their loops."""
        if (opened := self.opened()) is not None:
            await _settle(opened.unsettled)
        self._closed = True
        if self._pid != os.getpid():
            return
        mine = self._sessions.pop(asyncio.get_running_loop(), None)
        if mine is not None and mine.guard is not None:
            await mine.guard.aclose()


async def _guard(
    session: aiohttp.ClientSession, unsettled: set[_Settle]
) -> AsyncGenerator[None, None]:
    """Close a session when its loop shuts down its asynchronous generators, or when told to."""
    # It knows nothing that knows of it: in a cycle, the session would be collected before it is closed.
    try:
        yield
    finally:
        try:
            await _settle(unsettled)
        finally:
            await session.close()


async def _settle(unsettled: set[_Settle]) -> None:
    if unsettled:
        await load_anyio()
        import anyio

        async with anyio.create_task_group() as group:
            for settle in list(unsettled):
                group.start_soon(settle)


def _keep_receive_buffers() -> None:
    """Have the C library keep the blocks that asyncio receives into, and files are read into.

    asyncio asks for 256 KiB at each receive and gives back what it did not need. glibc maps and unmaps
    blocks of that size, at a tenth of what a small request costs, until it has seen a larger one being
    freed (mallopt(3), M_MMAP_THRESHOLD); this shows it one, of which no page is ever touched. What it
    keeps at the end of the heap is limited to twice that size: it is so large that the chunks of a
    download are not given back and faulted in again for each file.
    """
    bytes(2**22)


async def _load_aiohttp(loop: asyncio.AbstractEventLoop) -> None:
    """Import aiohttp in a thread: it takes 0.1 s, for which the other tasks would stand still."""
    if len(asyncio.all_tasks(loop)) == 1 and current_thread() is main_thread():
        # There are no others, and here it is a little quicker. Loops of other threads, as that of the
        # sync facade, do work for those who are not their tasks.
        __import__("aiohttp")
    else:
        _loading.add(loop)  # till then, the module is there, but only in part
        try:
            await _in_thread_of_its_own(loop, lambda: __import__("aiohttp"))
        finally:
            _loading.discard(loop)


_loading: Final[set[asyncio.AbstractEventLoop]] = set()
"""The loops on which somebody waits for aiohttp."""


async def _in_thread_of_its_own(
    loop: asyncio.AbstractEventLoop, work: Callable[[], object]
) -> None:
    """Have something quick done in a thread.

    Not in one of the executor: what that needs would have to be imported, too, and all its threads may
    be busy with the work of others, while this may be needed to stop what costs.
    """
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if not done.done():  # nobody waits any more
            done.set_result(error)

    def do() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - who waits raises it
            error = failure
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, error)

    try:
        Thread(target=do, name="replicate_async.import").start()
    except RuntimeError:
        do()  # no thread can be started, as at the end of the interpreter
    if (error := await done) is not None:
        raise error


def _socket_with_keepalive(info: Any) -> socket.socket:
    """Make a socket whose peer is probed: behind a NAT, a long silence would end the connection."""
    made = socket.socket(family=info[0], type=info[1], proto=info[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _environment_proxy(target: Origin) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    scheme, host, port = target
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    host = f"[{host}]" if ":" in host else host
    if not proxy or proxy_bypass(f"{host}:{port}" if port else host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


# -- Requests ----------------------------------------------------------------------------------


class _Way:
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
        self._ways: dict[str, _Way] = {}
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
        patience: float = _policy.LONGEST_WAIT,
    ) -> Answer:
        """Make the attempts of a call until there is a good answer.

        Args:
            call: What to send.
            result: The class of the object in a JSON answer; None: any JSON.
            patience: Seconds after which no further attempt is begun.

        Raises:
            ReplicateError: The API answered with an error.
            TransportError: There was no usable answer.
            MissingToken: There is no token.
            ClientClosed: The client is closed.
        """
        attempt = 1
        started = time.monotonic()
        throttled = False
        pool, trail = self.pool, call.trail
        if trail is not None:
            trail.sent = False
        while True:
            taken: Slots | None = None
            try:
                session = pool.opened() or await pool.session()
                way = self._way(self.url_of(call))
                # The connection first, then the gate: what has passed the gate is sent at once, in its
                # minute.
                if not call.urgent:
                    slots = session.creates if call.rate_class == "creates" else session.slots
                    if not slots.try_acquire():
                        await load_anyio()
                        await slots.acquire(first=throttled)
                    taken = slots
                account = self._account_now() if way.is_api else None
                gate = None
                if account is not None and account.gates is not None:
                    gate = account.gates.of(call.rate_class)
                    if call.urgent:
                        gate.force()
                    elif throttled or not gate.try_pass():
                        pool.stats.waited += 1
                        pool.stats.waited_seconds += await gate.wait(sleep, first=throttled)
                        account = (
                            self._account_now()
                        )  # a token that expires may be another one by now
                return await self._exchange(call, result, session, way, account, gate)
            except exceptions.ReplicateException as error:
                if isinstance(call.content, Body) and not call.content.repeatable:
                    raise
                elapsed = time.monotonic() - started
                delay = _policy.retry_delay(
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
            if trail is not None:
                trail.sent = False  # that attempt has come to nothing
            attempt += 1
            pool.stats.retried += 1
            if delay:
                await sleep(delay)

    async def _exchange(
        self,
        call: Call,
        result: type[Any] | None,
        session: _Session,
        way: _Way,
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
            watch = watchdog.begin(seconds, call.trail)
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
                headers = self._headers(way, account, call.headers, body_headers)
                if session.given or not (
                    data is None or (type(data) is bytes and len(data) < _QUICK)
                ):
                    # Only aiohttp knows when its body is sent, and the server's silence begins.
                    timeout = self._timeout(silence)
                else:
                    watch.silence = silence
                    timeout = self._timeout(None)
                if call.trail is not None:
                    call.trail.sent = True
                response = await session.client.request(
                    call.method,
                    way.parsed,
                    data=data,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                    skip_auto_headers=_NO_TYPE if data is None else None,
                    proxy=self.pool.proxy_for(way.origin, session),
                )
                status = response.status
                if _logger.isEnabledFor(logging.DEBUG):
                    _logger.debug("%s %s: %d", call.method, _shown(way.url), status)
                if 200 <= status < 300:
                    if gate is not None and way.is_api:
                        gate.learn(response.headers)
                    if not response.content.is_eof():
                        watchdog.heard(watch)
                    # To its end, where the connection goes back into the pool by itself.
                    body: bytes | bytearray = await response.content.readany()
                    if len(body) > most or not response.content.at_eof():
                        heard = partial(watchdog.heard, watch)
                        body = await self._rest(call, way, response, body, heard)
                    watchdog.end(watch)
                    if len(body) < LARGE:
                        made = _decoded(call, result, way.url, status, body)
                    else:
                        decoded = partial(_decoded, call, result, way.url, status, body)
                        made = await asyncio.get_running_loop().run_in_executor(None, decoded)
                    return Answer(status, response.headers, made, call.method, way.url)
                if status not in _REDIRECTS:
                    watchdog.heard(watch)
                    refusal = await self._error(
                        call, way.url, response, partial(watchdog.end, watch)
                    )
                    if abandon is not None:
                        abandon()
                    if gate is not None and way.is_api:
                        self._refused(gate, refusal)
                    raise refusal
                watchdog.end(watch)
                way = self._way(_redirected(call, way.url, response))
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
                    raise exceptions.TransportTimeout(call.method, _shown(way.url), fact) from error
                if not isinstance(error, Exception):
                    raise
                translated = _translated(error, call.method, _shown(way.url))
                if translated is error:
                    raise
                raise translated from error
        raise exceptions.RefusedRedirect(
            call.method, _shown(way.url), _shown(way.url), "too many redirects"
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
        way = self._way(url)
        shown = _shown(url)
        timeout = self._timeout(silence or self.config.timeout.read)
        call = Call("GET", url, headers=headers)
        response: aiohttp.ClientResponse | None = None
        if not session.slots.try_acquire():
            await load_anyio()
            await session.slots.acquire()
        watch = session.watchdog.begin(3 * self.config.timeout.read)
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                response = await session.client.request(
                    "GET",
                    way.parsed,
                    headers=self._headers(way, None, headers, _NONE),
                    timeout=timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                    read_bufsize=buffer,
                    proxy=self.pool.proxy_for(way.origin, session),
                )
                if response.status not in _REDIRECTS:
                    break
                way = self._way(_redirected(call, way.url, response))
                response.close()
                response = None
            else:
                raise exceptions.RefusedRedirect(
                    "GET", shown, _shown(way.url), "too many redirects"
                )
            if not 200 <= response.status < 300:
                raise await self._error(
                    call, way.url, response, partial(session.watchdog.end, watch)
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

    def _way(self, url: str) -> _Way:
        found = self._ways.get(url)
        if found is None:
            from yarl import URL

            try:
                parsed = URL(url, encoded=True)
            except ValueError as error:
                raise exceptions.TransportError("GET", _shown(url), f"no URL ({error})") from error
            its_origin = origin(url)
            found = _Way(url, parsed, its_origin, its_origin == self._origin)
            if len(self._ways) >= 64:
                self._ways.clear()
            self._ways[url] = found
        return found

    def _headers(
        self,
        way: _Way,
        account: _Account | None,
        headers: Mapping[str, str] | None,
        body_headers: Mapping[str, str],
    ) -> dict[str, str]:
        if way.is_api:
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
            import aiohttp

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
        way: _Way,
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
                raise exceptions.AnswerTooLarge(call.method, _shown(way.url), limit)
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


def make_error(
    method: str, url: str, status: int, headers: Mapping[str, str], body: bytes
) -> exceptions.ReplicateError:
    """Return the exception for an error answer (HTTP API, section 2)."""
    known = {name.lower(): value for name, value in headers.items()}
    try:
        said = decode_json(body)
    except ValueError:
        said = None
    retry_after = _policy.retry_after(known, said)
    title = detail = kind = instance = None
    fields: list[Mapping[str, Any]] = []
    if isinstance(said, dict):
        title, detail, kind, instance = (
            value if isinstance(value := said.get(key), str) else None
            for key in ("title", "detail", "type", "instance")
        )
        for key in ("invalid_fields", "errors"):
            entries = said.get(key)
            if isinstance(entries, list):
                fields += [entry for entry in entries if isinstance(entry, dict)]
    if detail is None and title is None:
        detail = " ".join(body[:2000].decode("utf-8", "replace").split())[:500] or None
    return exceptions.ReplicateError.class_for(status)(
        method,
        url,
        status,
        title=title,
        detail=detail,
        type=kind,
        instance=instance,
        invalid_fields=fields,
        retry_after=retry_after,
        headers=known,
    )


async def load_anyio() -> None:
    """Have anyio load its backend in a thread: at first use it would hold up the event loop."""
    global _anyio_loaded
    if not _anyio_loaded:
        await _in_thread_of_its_own(asyncio.get_running_loop(), _use_anyio)
        _anyio_loaded = True


def _use_anyio() -> None:
    import anyio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        anyio.run(anyio.sleep, 0)
    # Else no thread could be had, as at the end of the interpreter.


_anyio_loaded = False


async def sleep(seconds: float) -> None:
    """Sleep."""
    await load_anyio()
    import anyio

    await anyio.sleep(seconds)


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
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.payload import Payload

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


def _decoded(
    call: Call, result: type[Any] | None, url: str, status: int, body: bytes | bytearray
) -> Any:
    if call.expects == "json":
        try:
            data = decode_json(body)
            return data if result is None else structure(data, result)
        except ValueError as error:
            raise exceptions.UnreadableAnswer(
                call.method, _shown(url), status, bytes(body[:1000]), str(error)
            ) from error
    return body.decode("utf-8", "replace") if call.expects == "text" else None


def _redirected(call: Call, url: str, response: aiohttp.ClientResponse) -> str:
    """Return where a redirect leads; only what is read is redirected."""
    location = response.headers.get("Location", "")
    shown = _shown(url)
    if call.method not in {"GET", "HEAD"}:
        raise exceptions.RefusedRedirect(
            call.method, shown, _shown(location), f"{response.status} on a {call.method}"
        )
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError:
        scheme = target = ""
    if not location or scheme not in {"http", "https"}:
        where = _shown(location)[:200]
        raise exceptions.RefusedRedirect(call.method, shown, where, "no http or https URL")
    if urlsplit(url).scheme == "https" and scheme == "http":
        raise exceptions.RefusedRedirect(call.method, shown, _shown(target), "from https to http")
    return target


def _is_network_error(error: Exception) -> bool:
    import aiohttp

    return isinstance(error, (aiohttp.ClientError, OSError, asyncio.TimeoutError))


def _translated(error: Exception, method: str, url: str) -> Exception:
    """Return our exception for one of aiohttp's; the one place that knows theirs."""
    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError):
        # It holds the request's headers, the token among them, and the whole URL.
        from multidict import CIMultiDict, CIMultiDictProxy
        from yarl import URL

        where = URL(url, encoded=True)
        error.request_info = aiohttp.RequestInfo(
            where, method, CIMultiDictProxy(CIMultiDict()), where
        )
        error.args = (error.request_info, ())
        reason = f"{type(error).__name__}: {error.message}"
    else:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    match error:
        # What belongs to the connect phase comes first: some of it is a subclass of what follows.
        case (
            aiohttp.ClientConnectorError()
            | aiohttp.ConnectionTimeoutError()
            | aiohttp.ClientHttpProxyError()
            | aiohttp.InvalidURL()
        ):
            return exceptions.ConnectError(method, url, reason)
        case TimeoutError():
            return exceptions.TransportTimeout(method, url, reason)
        case aiohttp.ClientResponseError():
            # The status is aiohttp's word for it; the server sent none that could be read.
            return exceptions.UnreadableAnswer(method, url, 0, "", reason)
        case aiohttp.ClientError() | OSError():
            return exceptions.ConnectionLost(method, url, reason)
        case RuntimeError() if str(error) == "Session is closed":
            return exceptions.ClientClosed()
        case ValueError() | OverflowError():
            # A URL, from a model or a redirect, that looks like one and is none.
            return exceptions.TransportError(method, url, f"it cannot be sent ({reason})")
    return error


def _environment_token() -> str | None:
    """Return the token of the current Cog scope, else that of the environment."""
    cog = sys.modules.get("cog")
    if cog is not None:
        try:
            context = cog.current_scope().context
            for name, value in context.items():
                if name.upper() == "REPLICATE_API_TOKEN":
                    return str(value)
        except Exception:  # another package's internals; the environment is next
            _logger.debug("no token in the Cog scope", exc_info=True)
    return os.environ.get("REPLICATE_API_TOKEN")


def _shown(url: str) -> str:
    """Return a URL as it may stand in messages: without its query, which may be a signature."""
    return url.partition("?")[0].partition("#")[0]


def _text(value: Param) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
