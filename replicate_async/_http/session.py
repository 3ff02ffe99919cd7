"""One aiohttp session per event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Final
from weakref import WeakSet, finalize

import aiohttp
import aiohttp.connector
import anyio
import attrs
from aiohttp.abc import ResolveResult

from .. import exceptions
from .._concurrency import share_of_descriptors
from .._threads import NO_THREAD_MEMORY, has_room_for_thread
from .call import Origin
from .limits import RecentGates, Slots
from .proxies import environment_proxy, environment_ssl
from .server_clock import ServerClock

MAX_HEADER_BYTES: Final = 64 * 1024
"""Maximum length in bytes of a header or of the status line. Some proxies add more than the 8 KiB of aiohttp."""
MAX_HEADERS: Final = 1024

_WARNING_INTERVAL = 60.0
"""Seconds between two warnings of the rate limit: a fan-out may be refused hundreds of times for the same reason."""

Cleanup = Callable[[], Coroutine[Any, Any, None]]
"""A clean-up that stops what costs money. It must limit its own duration, and must not raise."""


@attrs.define(eq=False, repr=False)
class Session:
    """The aiohttp session of one event loop, and the limits on its connections."""

    client: aiohttp.ClientSession
    is_given: bool
    """Whether the caller brought the aiohttp session."""
    connections: int
    """Limit on the connections of creates, and on those of all other requests."""
    slots: Slots = attrs.field(init=False)
    """Connections for all requests but creates."""
    creates: Slots = attrs.field(init=False)
    """Connections for creates. Each create may occupy one for a minute, while it waits for a result."""
    holds: Slots = attrs.field(init=False)
    """Creates whose answers the server may hold back at a time: fewer than connections, so that some remain free.

    This includes the creates of `Client.request`.
    """
    relays: Slots = attrs.field(init=False)
    """Downloads that browsers may read at a time, at their own pace: also fewer than connections."""
    proxies: dict[Origin, str | None] = attrs.field(factory=dict)
    """Proxies of the environment, by origin."""
    cleanups: set[Cleanup] = attrs.field(factory=set)
    """Called and awaited before the session is closed."""
    closing: _Closing | None = None
    """Closes the session, once; None for a session that the caller brought."""
    pid: int = attrs.field(factory=os.getpid)
    """The process that has opened it."""
    guard: AsyncGenerator[None, None] | None = None
    """Suspended generator, which closes the session when the event loop shuts down its asynchronous generators. None
    for a session that the caller brought."""

    def __attrs_post_init__(self) -> None:
        free = max(self.connections // 8, 1)
        self.slots = Slots(self.connections)
        self.creates = Slots(self.connections)
        self.holds = Slots(self.connections - free)
        self.relays = Slots(max(self.connections - free, 1))

    def distrust(self) -> None:
        """Reuse none of the present connections, since an answer arrived that belongs to another request."""
        connector = self.client.connector
        if isinstance(connector, _Connector):
            connector.distrust()


class _Resolver(aiohttp.ThreadedResolver):
    """Looks up hosts in threads, unless there is no memory for a thread."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up a host."""
        if not has_room_for_thread():
            raise OSError(errno.ENOMEM, NO_THREAD_MEMORY)
        return await super().resolve(host, port, family)


class _Connector(aiohttp.TCPConnector):
    """Closes idle connections that have ended, or on which data has arrived unasked, instead of reusing them.

    aiohttp notices the end only once the event loop has read it: not if that was blocked meanwhile, or did not run. A
    create that is sent on such a connection gets no answer, although the server never sees it. And aiohttp would take
    data for the answer to the next request, and each later answer for the answer to the request after its own.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: WeakSet[Any] = WeakSet()
        """The protocols of connections that have been used."""
        self._distrusted: WeakSet[Any] = WeakSet()
        """The protocols of connections that must not be reused."""

    def distrust(self) -> None:
        """Reuse none of the present connections."""
        self._distrusted = WeakSet(self._known)

    async def connect(self, *arguments: Any, **options: Any) -> aiohttp.connector.Connection:
        """Return a new connection, or an idle one on which nothing has arrived since its last answer."""
        while True:
            connection = await super().connect(*arguments, **options)
            protocol = connection.protocol
            assert protocol is not None
            if protocol not in self._known:
                self._known.add(protocol)
                return connection
            if (
                protocol not in self._distrusted
                and not protocol.should_close
                and not _has_unread(connection.transport)
            ):
                return connection
            connection.close()


def _has_unread(transport: asyncio.Transport | None) -> bool:
    """Return whether there is data, or the end of the connection, that the event loop has not read yet."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return False
    if sys.platform == "win32":
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Pool:
    """One session for each event loop, opened at the first request there.

    A session is closed when its event loop is shut down in an orderly way, as by `asyncio.run`. After a fork, the
    child leaves the sessions of its parent alone, since they share their sockets.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        ssl: SSLContext | bool | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] | None = None,
        session: aiohttp.ClientSession | None = None,
        connections: int = 256,
    ) -> None:
        self._proxy = proxy
        self._ssl = ssl
        self._traces = list(trace_configs or ())
        self._given = session
        self._given_loop: asyncio.AbstractEventLoop | None = None
        self._connections = connections
        self._pid = os.getpid()
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self._left_behind: list[object] = []
        self._warned_at = float("-inf")
        self._closed = False
        finalize(self, _discard_all, self._sessions)
        self.closing: bool = False
        """Whether the client is being closed: nothing new may begin, but what has begun is finished."""
        self.gates: RecentGates = RecentGates()
        self.clock: ServerClock = ServerClock()

    async def session(self) -> Session:
        """Return the session of the running event loop; open it at the first request there.

        Raises:
            ClientClosed: The client is closed.
            ArgumentError: The session that the caller brought is closed, or belongs to another event loop.
            ReplicateException: There is not enough memory to open one.
        """
        if self._closed:
            raise exceptions.ClientClosed
        try:
            return self._opened() or await self._open(asyncio.get_running_loop())
        except MemoryError as error:
            raise exceptions.ReplicateException(
                "nothing was sent: there is not enough memory for a connection"
            ) from error

    def _opened(self) -> Session | None:
        """Return the session of the running event loop, if it is open."""
        found = self._sessions.get(asyncio.get_running_loop())
        if found is None or self._closed or self._pid != os.getpid() or found.client.closed:
            return None
        return found

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Session:
        self._forget_closed()
        _keep_receive_buffers()
        connections = min(self._connections, share_of_descriptors())
        if self._given is not None:
            if self._given.closed:
                raise exceptions.ArgumentError("session", "this aiohttp session is closed")
            self._given_loop = self._given_loop or loop
            if self._given_loop is not loop:
                raise exceptions.ArgumentError(
                    "session", "this aiohttp session belongs to another event loop"
                )
            opened = Session(self._given, is_given=True, connections=connections)
            self._sessions[loop] = opened
            return opened
        client = self._make_client()
        if not hasattr(client, "_retry_connection"):
            await client.close()
            raise exceptions.ReplicateException(
                f"aiohttp {aiohttp.__version__} is not supported: its hidden retries cannot be disabled."
                " Install a version that the requirements of replicate-async allow"
            )
        # aiohttp sends a GET or DELETE again by itself when a connection breaks, and has no public switch
        # for that. Here, only `retry_delay` decides what is repeated.
        client._retry_connection = False  # noqa: SLF001  (see above)
        opened = Session(client, is_given=False, connections=connections)
        self._sessions[loop] = opened
        opened.closing = _Closing(client, opened.cleanups)
        opened.guard = _guard(opened.closing)
        await anext(opened.guard)
        return opened

    def _make_client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connector(
                limit=0,  # `Slots` limits the connections, so that waiting for one is no timeout
                resolver=_Resolver(),
                socket_factory=_socket_with_keepalive,
                ssl=environment_ssl() if self._ssl is None else self._ssl,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=self._traces,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )

    def _forget_closed(self) -> None:
        """Forget the sessions that are closed, or whose event loops are closed, or which belong to the parent process."""
        if self._pid != os.getpid():
            # Kept alive until the process ends: their finalizers would touch the sockets of the parent.
            self._left_behind.append(list(self._sessions.values()))
            self._sessions.clear()
            self._pid = os.getpid()
        for loop, session in list(self._sessions.items()):
            if loop.is_closed() or session.client.closed:
                self._sessions.pop(loop, None)  # another thread may have been quicker
                _discard(loop, session)

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed, or being closed."""
        return self.closing or self._closed

    def forget_servers(self) -> None:
        """Forget what is known of servers, proxies and limits, but keep the connections."""
        self.gates, self.clock = RecentGates(), ServerClock()
        for session in list(self._sessions.values()):
            session.proxies.clear()

    def may_warn_of_throttling(self) -> bool:
        """Return whether to warn of a refusal by the rate limit: at most once a minute."""
        now = time.monotonic()
        if now - self._warned_at < _WARNING_INTERVAL:
            return False
        self._warned_at = now
        return True

    def before_close(self, cleanup: Cleanup) -> Callable[[], None]:
        """Have *cleanup* awaited before the session of the running event loop is closed.

        Returns:
            A function that undoes this.
        """
        opened = self._opened()
        if opened is None:
            return lambda: None
        cleanups = opened.cleanups
        cleanups.add(cleanup)
        return lambda: cleanups.discard(cleanup)

    def proxy_for(self, target: Origin, session: Session) -> str | None:
        """Return the proxy for an origin: the caller's, or that of the environment.

        Raises:
            ArgumentError: That of the environment cannot be used.
        """
        if self._proxy is not None or session.is_given:
            return self._proxy  # a session that the caller brings has its own settings
        try:
            return session.proxies[target]
        except KeyError:
            found = session.proxies[target] = environment_proxy(target)
            return found

    async def aclose(self) -> None:
        """Close the session of the running event loop; others are closed with their event loops."""
        self.closing = True
        if (opened := self._opened()) is not None:
            await finish_pending(opened.cleanups)
        self._closed = True
        if self._pid != os.getpid():
            return
        mine = self._sessions.pop(asyncio.get_running_loop(), None)
        if mine is None or mine.closing is None or mine.guard is None:
            return  # a session that the caller brought
        await mine.closing.close()
        if not mine.closing.is_loop_ending:  # else the event loop closes the guard
            await mine.guard.aclose()


@attrs.define(eq=False, repr=False)
class _Closing:
    """Closes an aiohttp session once, although the pool and the event loop may both ask for it, even at the same time.

    It must not refer to the `Session` or the pool, which refer to it: in a reference cycle, the aiohttp session would be
    collected before it is closed.
    """

    _client: aiohttp.ClientSession
    _cleanups: set[Cleanup]
    is_loop_ending: bool = False
    """Whether the event loop shuts down its asynchronous generators."""
    _closed: anyio.Event | None = attrs.field(default=None, init=False)

    async def close(self) -> None:
        """Finish all clean-up and close the aiohttp session, or wait until another task has done so."""
        if self._closed is not None:
            await self._closed.wait()
            return
        self._closed = anyio.Event()
        try:
            await finish_pending(self._cleanups)
        finally:
            try:
                await self._client.close()
            finally:
                self._closed.set()


async def _guard(closing: _Closing) -> AsyncGenerator[None, None]:
    """Close a session when its event loop shuts down its asynchronous generators."""
    try:
        yield
    finally:
        closing.is_loop_ending = True
        await closing.close()


def _discard_all(sessions: dict[asyncio.AbstractEventLoop, Session]) -> None:
    """Discard the sessions of a client that is gone, or was left open at the end of the program."""
    for loop, session in list(sessions.items()):
        _discard(loop, session)


def _discard(loop: asyncio.AbstractEventLoop, session: Session) -> None:
    """Close a session whose event loop was closed without `shutdown_asyncgens`, which would have closed the session.

    Otherwise aiohttp would report an unclosed session.
    """
    if session.is_given or not loop.is_closed() or session.pid != os.getpid():
        return
    closing = session.client.close()
    # There is nothing to wait for: aiohttp leaves the connections of a closed event loop alone.
    with suppress(StopIteration, Exception):
        closing.send(None)
    closing.close()


async def finish_pending(cleanups: set[Cleanup]) -> None:
    """Await all pending clean-up, including clean-up that is added meanwhile, as after a create that is just answered."""
    begun: set[Cleanup] = set()
    while added := cleanups - begun:
        begun |= added
        async with anyio.create_task_group() as group:
            for cleanup in added:
                group.start_soon(cleanup)


def _keep_receive_buffers() -> None:
    """Make the C library keep the blocks that asyncio receives into, and that files are read into.

    asyncio allocates 256 KiB for each receive and frees what it did not need. glibc maps and unmaps blocks of
    that size, at a tenth of the cost of a small request, until a larger block has been freed (mallopt(3),
    M_MMAP_THRESHOLD). This frees one, no page of which is ever touched. glibc then also keeps up to twice that
    size at the end of the heap: enough for the chunks of a download not to be given back and faulted in again
    for each file.
    """
    with suppress(MemoryError):
        bytes(2**22)


def _socket_with_keepalive(info: tuple[Any, ...]) -> socket.socket:
    """Return a socket with TCP keep-alive: without it, a NAT may drop a connection that is silent for long."""
    made = socket.socket(family=info[0], type=info[1], proto=info[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
