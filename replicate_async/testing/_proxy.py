"""Carries faults out on real sockets: a proxy in front of the emulator's three origins.

It reads each request, passes it on and relays the answer byte by byte, unless a fault was injected for
it.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import attrs

from ._faults import Chooser, Fault, Injected, Injections, Plan, Reply, WireRequest
from ._framing import (
    Head,
    body_of_answer,
    body_of_request,
    is_framed,
    read_final_head,
    read_head,
    without_framing,
)
from ._ledger import Origin
from ._retention import Retention, remove_first

_ORIGINS: Final[tuple[Origin, Origin, Origin]] = ("api", "files", "stream")
_MOST_HEAD: Final = 256 * 1024
_BUFFERED: Final = 2**20
"""Bytes of a request's body up to which it is read before a fault is chosen for it."""
_PIECE: Final = 64 * 1024
_STOP_SECONDS: Final = 2.0
_BACKLOG: Final = 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_GARBLED: Final = bytes.maketrans(b'{}[]":', b"\x00\xff}{:\x01")


class Proxy:
    """Ports of the three origins, and the connections that clients make there.

    Methods must be called in the thread of the event loop, except before the proxy starts.

    Args:
        injections: The faults.
        log: Every fault that happened is appended here.
        retention: Bounds the log.
        tls: Certificate to serve HTTPS with; None for HTTP.
    """

    def __init__(
        self,
        injections: Injections,
        log: list[Injected],
        retention: Retention,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.injections: Injections = injections
        self.log: list[Injected] = log
        self._retention = retention
        self.tls: ssl.SSLContext | None = tls
        self.connections: set[_Connection] = set()
        self.accepted: int = 0
        self.refusing: bool = False
        self._limiter: anyio.CapacityLimiter | None = None
        self._ports: list[_Port] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, host: str, family: int, port: int) -> list[int]:
        """Take a port for each origin and return them. Connections are accepted, but not served yet.

        Args:
            host: Address to listen on.
            family: Address family of *host*.
            port: Port of the API; 0 for a free one.
        """
        for origin, number in zip(_ORIGINS, (port, 0, 0), strict=True):
            self._ports.append(_Port(self, origin, host, family, number))
            if not self.refusing:
                self._ports[-1].listen()
        return [port.number for port in self._ports]

    async def start(self, behind: list[tuple[str, int]]) -> None:
        """Serve, passing requests on to the addresses *behind*, one for each origin."""
        self._loop = asyncio.get_running_loop()
        for port, address in zip(self._ports, behind, strict=True):
            port.behind = address
            if port.listening is not None:
                await port.serve(port.listening)

    async def aclose(self) -> None:
        """Give up all sockets and tasks, within two seconds."""
        self._loop = None
        for port in self._ports:
            port.close()
        for connection in list(self.connections):
            connection.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for port in self._ports:
            port.release()

    def refuse(self) -> None:
        """Stop listening and close idle connections."""
        self.refusing = True
        for port in self._ports:
            port.close()
        for connection in list(self.connections):
            connection.close_if_idle()

    def interject(self, content: bytes, *, busy: bool) -> None:
        """Send bytes on connections that have served a request; *busy*: also where one is under way."""
        for connection in list(self.connections):
            connection.interject(content, busy=busy)

    def accept(self) -> None:
        """Listen again, on the same ports."""
        if not self.refusing:
            return
        self.refusing = False
        for port in self._ports:
            # From here on connections wait for the loop, which takes them up soon.
            listening = port.listen()
            if self._loop is not None:
                self.spawn(port.serve(listening))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* in a task that ends with the proxy.

        Not in a task group: stopping must be bounded, whatever the tasks do.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def connected(
        self, port: _Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take a new connection."""
        if self._loop is None:
            writer.transport.abort()
            return
        self.accepted += 1
        connection = _Connection(self, port, reader, writer, self.accepted)
        self.connections.add(connection)
        if self.injections.at_accept(port.origin):
            self.happened(Fault.RESET_AT_ACCEPT, None, executed=False)
            connection.reset()
            return
        connection.task = self.spawn(connection.serve())

    def happened(
        self,
        fault: Fault | Reply,
        request: WireRequest | None,
        *,
        executed: bool,
        status: int | None = None,
    ) -> None:
        """Log a fault."""
        entry = Injected(fault, request, executed, status)
        self.log.append(entry)
        forget = partial(remove_first, self.log, entry)
        self._retention.content(0 if request is None else len(request.body), forget)
        self._retention.record("faults", forget)

    async def chosen(self, choose: Chooser, request: WireRequest) -> Plan | None:
        """Return what a user's function chooses. It runs in a thread: it may block."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(math.inf)
        fault = await anyio.to_thread.run_sync(
            choose, request, abandon_on_cancel=True, limiter=self._limiter
        )
        return None if fault is None else Plan.of(fault)


class _Port:
    """A port of one origin, which stays taken while nobody listens there."""

    def __init__(self, proxy: Proxy, origin: Origin, host: str, family: int, number: int) -> None:
        self._proxy = proxy
        self.origin: Origin = origin
        self.behind: tuple[str, int] = ("", 0)
        self.listening: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._host = host
        self._family = family
        # Bound, but never listening: it only keeps others from the port.
        self._kept = self._bound(number)
        self.number: int = self._kept.getsockname()[1]

    def _bound(self, number: int) -> socket.socket:
        # With the protocol, asyncio switches Nagle's algorithm off, which would hold back small pieces.
        sock = socket.socket(self._family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self._host, number))
        except BaseException:
            sock.close()
            raise
        return sock

    def listen(self) -> socket.socket:
        """Let the kernel accept connections."""
        self.listening = self._bound(self.number)
        self.listening.listen(_BACKLOG)
        self.listening.setblocking(False)
        return self.listening

    async def serve(self, listening: socket.socket) -> None:
        """Take accepted connections up, until the port is closed."""
        if listening is not self.listening:
            return  # closed before it came to this
        loop = asyncio.get_running_loop()

        def made() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(limit=_MOST_HEAD, loop=loop)
            return _Protocol(reader, partial(self._proxy.connected, self), loop=loop)

        self._loop = loop
        tls = self._proxy.tls
        await loop.create_server(
            made,
            sock=listening,
            backlog=_BACKLOG,
            ssl=tls,
            ssl_shutdown_timeout=None if tls is None else _STOP_SECONDS,
        )

    def close(self) -> None:
        """Stop listening: connections are refused."""
        listening, self.listening = self.listening, None
        if listening is not None:
            if self._loop is not None:
                stop_accepting(self._loop, listening)
            listening.close()

    def release(self) -> None:
        """Let others have the port."""
        self._kept.close()


def stop_accepting(loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
    """Take no connections from a socket that an `asyncio.Server` listens on.

    `Server.close` does it, too, but the connections taken just before are then lost in CPython, with
    their sockets open (gh-109564).
    """
    with suppress(NotImplementedError):  # on Windows
        loop.remove_reader(listening)


class _Protocol(asyncio.StreamReaderProtocol):
    """Tells the connection when its client has gone."""

    gone: Callable[[], None] | None = None
    lost: Callable[[], None] | None = None

    def eof_received(self) -> bool | None:
        """Take note that the client sends nothing more."""
        keep_open = super().eof_received()  # which TLS does not allow
        if self.gone is not None:
            self.gone()
        return keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the client has gone."""
        super().connection_lost(exc)
        if self.gone is not None:
            self.gone()
        if self.lost is not None:
            self.lost()


class _Gone(ConnectionError):
    """The client has gone."""


@attrs.frozen
class _Sent:
    """A request as far as it was read."""

    head: Head
    raw: bytes
    """Head and body."""
    has_rest: bool
    """Whether the body was not read yet."""

    @property
    def body(self) -> bytes:
        """The body as it is framed, as far as it was read."""
        return self.raw.partition(b"\r\n\r\n")[2]


class _Connection:
    """A connection of a client, and the one behind it to the emulator."""

    def __init__(
        self,
        proxy: Proxy,
        port: _Port,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self._proxy = proxy
        self._port = port
        self._reader = reader
        self._writer = writer
        self._number = number
        self._behind: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._served = 0
        self._idle = True
        self._has_gone = False
        self._awaiting = False
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, _Protocol)
        protocol.gone = self._left
        protocol.lost = partial(proxy.connections.discard, self)

    # --- ends

    def close_if_idle(self) -> None:
        """Close it, unless a request is under way."""
        if self._idle:
            self._writer.close()
            if self.task is not None:
                self.task.cancel()

    def interject(self, content: bytes, *, busy: bool) -> None:
        """Send bytes that are no part of an answer."""
        if self._served and (self._idle or busy) and not self._writer.is_closing():
            self._writer.write(content)

    def reset(self) -> None:
        """Reset it, so that the client gets RST."""
        sock = self._writer.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def abort(self) -> None:
        """Drop both connections at once."""
        self._writer.transport.abort()
        if self._behind is not None:
            self._behind[1].transport.abort()

    def _left(self) -> None:
        """Take note that the client has gone; nobody needs the answer any more."""
        self._has_gone = True
        if self._awaiting and self.task is not None:
            self.task.cancel()

    @contextmanager
    def _for_client(self) -> Iterator[None]:
        """End what is awaited in the block when the client goes."""
        if self._has_gone:
            raise _Gone
        self._awaiting = True
        try:
            yield
        finally:
            self._awaiting = False

    # --- requests

    async def serve(self) -> None:
        """Serve requests until either side has enough."""
        try:
            while await self._serve_one():
                pass
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # the client or the emulator left in the middle, or sent no HTTP
        except asyncio.CancelledError:
            pass  # the client left, or the emulator stops: nobody else cancels this task
        finally:
            self._writer.close()
            self._leave_behind()

    async def _serve_one(self) -> bool:
        """Serve a request; return whether there may be another."""
        head = await read_head(self._reader)
        self._idle = False
        method, target, _ = head.first.split(" ", 2)
        length = head.length or 0
        large = head.chunked or length > _BUFFERED or "expect" in head.headers
        body = b"" if large else await self._reader.readexactly(length)
        path, _, query = target.partition("?")
        request = WireRequest(
            self._port.origin,
            method,
            path,
            query,
            head.headers,
            body,
            self._proxy.injections.attempt(method, target, body),
            reused=self._served > 0,
            line=head.first,
            connection=self._number,
        )
        self._served += 1
        sent = _Sent(head, head.raw + body, has_rest=large)
        plan = self._proxy.injections.choose(request)
        if callable(plan):
            if large:
                sent, request = await self._whole(head, request)
            with self._for_client():
                plan = await self._proxy.chosen(plan, request)
        keep = await (self._relay(sent) if plan is None else self._suffer(plan, request, sent))
        self._idle = True
        return keep and not self._proxy.refusing

    async def _whole(self, head: Head, request: WireRequest) -> tuple[_Sent, WireRequest]:
        """Read a body of any size."""
        if "expect" in head.headers:
            self._writer.write(_CONTINUE)
        async with aclosing(body_of_request(head, self._reader)) as pieces:
            raw = [piece async for piece in pieces]
        body = b"".join(without_framing(head, piece) for piece in raw)
        sent = _Sent(head, b"".join((head.without("expect"), *raw)), has_rest=False)
        return sent, attrs.evolve(request, body=body)

    async def _relay(
        self, sent: _Sent, hold: Callable[[Head], Awaitable[None]] | None = None
    ) -> bool:
        """Pass a request on and its answer back, after *hold* if given; return whether the connection is kept."""
        with self._for_client():
            passed_on = _PassedOn(self, sent)
            async with passed_on as reader:
                while True:
                    answer = await read_head(reader)
                    if hold is not None and answer.status >= 200:
                        await hold(answer)
                    self._writer.write(answer.raw)
                    if answer.status >= 200:
                        break
                whole = await self._relay_body(sent.head, answer, reader)
                await self._writer.drain()
        keep = whole and not sent.head.last and not answer.last and passed_on.is_whole
        if not keep:
            self._leave_behind()
        return keep

    async def _relay_body(self, head: Head, answer: Head, reader: asyncio.StreamReader) -> bool:
        """Pass the body of an answer back; return whether the connection can go on after it."""
        async with aclosing(body_of_answer(head, answer, reader)) as pieces:
            async for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
        return is_framed(head, answer)

    def rest(self, head: Head) -> AsyncGenerator[bytes, None]:
        """Return the body of a request, which the client still sends."""
        return body_of_request(head, self._reader)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* in a task that ends with the proxy."""
        return self._proxy.spawn(work)

    async def connect_behind(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to the emulator that nothing waits on."""
        if self._behind is not None and self._behind[0].at_eof():
            self._leave_behind()
        if self._behind is None:
            host, port = self._port.behind
            self._behind = await asyncio.open_connection(host, port, limit=_MOST_HEAD)
        return self._behind

    def _leave_behind(self) -> None:
        behind, self._behind = self._behind, None
        if behind is not None:
            behind[1].transport.abort()

    # --- faults

    async def _suffer(self, plan: Plan, request: WireRequest, sent: _Sent) -> bool:
        """Let a fault happen; return whether the connection is kept."""
        fault = plan.fault
        if fault is Fault.CLOSE_AFTER_ANSWER:
            self._proxy.happened(fault, request, executed=True)
            await self._relay(sent)
            return False
        if fault is Fault.DELAY:

            async def hold(answer: Head) -> None:
                self._proxy.happened(fault, request, executed=True, status=answer.status)
                await anyio.sleep(plan.seconds)

            return await self._relay(sent, hold)
        if plan.reply is not None:
            status = None
            if plan.executed:
                status = await self._execute(sent)
            elif sent.has_rest and plan.reply.reads:
                async with aclosing(body_of_request(sent.head, self._reader)) as pieces:
                    async for _ in pieces:
                        pass
            self._proxy.happened(fault, request, executed=plan.executed, status=status)
            return await self._send(plan.reply, sent)
        with self._for_client():
            async with _PassedOn(self, sent) as reader:
                answer = await read_final_head(reader)
                self._proxy.happened(fault, request, executed=True, status=answer.status)
                async with aclosing(body_of_answer(sent.head, answer, reader)) as pieces:
                    await self._spoil(plan, answer, pieces)
        self._leave_behind()
        return False

    async def _execute(self, sent: _Sent) -> int:
        """Have the emulator carry a request out; return the status of its answer."""
        # Nobody gets the answer, so it is not held back until there is a result.
        hurried = attrs.evolve(sent, raw=sent.head.without("prefer") + sent.body)
        async with _PassedOn(self, hurried) as reader:
            answer = await read_final_head(reader)
        self._leave_behind()
        return answer.status

    async def _send(self, reply: Reply, sent: _Sent) -> bool:
        """Send a reply; return whether the connection is kept."""
        if not reply.is_raw:
            self._writer.write(reply.head())
        if reply.is_raw or not sent.head.first.startswith("HEAD "):
            for piece in reply.pieces():
                if reply.pause:
                    await self._writer.drain()
                    await anyio.sleep(reply.pause)
                # The transport copies what the socket does not take at once.
                for start in range(0, len(piece), _PIECE):
                    self._writer.write(piece[start : start + _PIECE])
                    await self._writer.drain()
        await self._writer.drain()
        match reply.end:
            case "keep":
                if reply.reads or not sent.has_rest:
                    return not sent.head.last
                await self._close_unread(sent)
            case "close":
                if not reply.reads and sent.has_rest:
                    await self._close_unread(sent)
            case "reset":
                await _delivered(self._writer)
                self.reset()
            case "stall":
                await self._silence()
        return False

    async def _close_unread(self, sent: _Sent) -> None:
        """End the answer to a request whose body was not read; to close at once would reset it."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
            while await self._reader.read(_PIECE):
                pass
        else:  # TLS has no half-closed connections: the end follows the body
            async with aclosing(self.rest(sent.head)) as pieces:
                async for _ in pieces:
                    pass

    async def _spoil(self, plan: Plan, answer: Head, pieces: AsyncGenerator[bytes, None]) -> None:
        """Send an answer in another way than it should be."""
        write = self._writer.write
        fault = plan.fault
        match fault:
            case Fault.CUT_IN_HEAD:
                write(answer.raw[: len(answer.raw) // 2])
            case Fault.CUT_IN_BODY | Fault.RESET_IN_BODY | Fault.STALL_IN_BODY:
                write(answer.raw)
                piece = await anext(pieces, b"")
                write(piece[: len(piece) // 2])
                await self._writer.drain()
                if fault is Fault.STALL_IN_BODY:
                    await self._silence()
                elif fault is Fault.RESET_IN_BODY:
                    await _delivered(self._writer)
                    self.reset()
            case Fault.DRIP:
                write(answer.raw)
                async for piece in pieces:
                    for position in range(len(piece)):
                        write(piece[position : position + 1])
                        await self._writer.drain()
                        await anyio.sleep(plan.seconds)
            case _:
                body = b"".join([without_framing(answer, piece) async for piece in pieces])
                content_type = answer.headers.get("content-type", "application/json")
                if fault is Fault.TRUNCATED_JSON:
                    body = body[: len(body) // 2]
                elif fault is Fault.GARBLED_JSON:
                    body = body.translate(_GARBLED)
                else:
                    content_type = "text/plain; charset=utf-8"
                headers = {"Content-Type": content_type, "Connection": "close"}
                write(Reply(answer.status, body, headers).head() + body)
        await self._writer.drain()

    async def _silence(self) -> None:
        """Say nothing until the client goes."""
        if self._awaiting:
            await anyio.sleep_forever()
        with self._for_client():
            await anyio.sleep_forever()


class _PassedOn:
    """A request on its way to the emulator: gives the reader of the answer.

    A body that was not read in advance is passed on while the answer is awaited.
    """

    def __init__(self, connection: _Connection, sent: _Sent) -> None:
        self._connection = connection
        self._sent = sent
        self._pump: asyncio.Task[None] | None = None
        self.is_whole: bool = not sent.has_rest
        """Whether all of the body was passed on, so that another request may follow."""

    async def __aenter__(self) -> asyncio.StreamReader:
        reader, writer = await self._connection.connect_behind()
        writer.write(self._sent.raw)
        await writer.drain()
        if self._sent.has_rest:
            self._pump = self._connection.spawn(self._pass(writer))
        return reader

    async def __aexit__(self, *exc_info: object) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})

    async def _pass(self, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, ValueError, asyncio.CancelledError):
            async with aclosing(self._connection.rest(self._sent.head)) as pieces:
                async for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            self.is_whole = True


async def _delivered(writer: asyncio.StreamWriter) -> None:
    """Give the kernel what was written: a reset would throw away what is still here."""
    # Nothing tells when, short of pausing and resuming the writer.
    while writer.transport.get_write_buffer_size():
        await anyio.lowlevel.checkpoint()
