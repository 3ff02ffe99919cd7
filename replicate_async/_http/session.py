"""One aiohttp session per event loop."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import lru_cache
from http.cookies import SimpleCookie
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anyio
import yarl

from .. import exceptions
from ..types import Stats
from .call import Origin, SendState
from .limits import Slots

if TYPE_CHECKING:
    import ssl as ssl_module


_Settle = Callable[[], Coroutine[Any, Any, None]]


class _Watch:
    """A request that must not take for ever; times are of the monotonic clock."""

    __slots__ = ("before", "due", "ended", "last", "outer", "send_state", "silence", "task")

    def __init__(
        self,
        task: asyncio.Task[Any],
        last: float,
        outer: _Watch | None,
        send_state: SendState | None,
    ) -> None:
        self.task = task
        self.send_state = send_state
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

    def begin(self, seconds: float, send_state: SendState | None = None) -> _Watch:
        """Watch the request that the current task makes now, which ends after so many seconds."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        last = time.monotonic() + seconds
        watch = self._watched[task] = _Watch(task, last, self._watched.get(task), send_state)
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
        if watch is not None and watch.send_state is not None:
            watch.send_state.sent = False

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
        """What has to be done before it closes: what was state and costs money must be stopped."""


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
        self.closing = False
        """Whether nothing new may begin; what has begun is finished."""
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
        self.closing = True
        if (opened := self.opened()) is not None:
            await finish_pending(opened.unsettled)
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
            await finish_pending(unsettled)
        finally:
            await session.close()


async def finish_pending(unsettled: set[_Settle]) -> None:
    if unsettled:
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

    scheme, host, port = target
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    host = f"[{host}]" if ":" in host else host
    if not proxy or proxy_bypass(f"{host}:{port}" if port else host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
