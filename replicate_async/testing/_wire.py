"""The wire between clients and the emulator, on which faults happen for real.

A proxy that stands in front of the three origins: it reads each request, passes it on, and relays the
answer byte by byte, unless a fault was injected for it. It closes, resets, cuts or stalls sockets that
clients really hold, so what they see is what a bad network or a failing edge would show them.

```python
with Emulator(wire=True) as emulator:
    emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
    ...  # the first POST is carried out, but its answer never comes
    assert emulator.wire.log[0].executed
```
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from enum import Enum
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

if TYPE_CHECKING:
    from ._ledger import Origin

_ORIGINS: Final[tuple[Origin, Origin, Origin]] = ("api", "files", "stream")
_MOST_HEAD: Final = 256 * 1024
_BUFFERED: Final = 2**20
"""Bytes of a request's body up to which it is read before a fault is chosen for it."""
_PIECE: Final = 64 * 1024
_STOP_SECONDS: Final = 2.0
_BACKLOG: Final = 1024
_PAGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head>\n"
    b"<body><center><h1>Bad gateway</h1></center><hr><center>cloudflare</center></body></html>\n"
)
_GARBAGE: Final = b"\x16\x03\x03\x00\x7a\xff\xfe no HTTP at all \x00\x01\r\n\r\n" * 4


class Fault(Enum):
    """What can happen to a request, in the order of the phases in which it happens.

    `executes` tells whether the emulator carries the request out all the same.
    """

    RESET_AT_ACCEPT = "reset at accept"
    """A new connection is reset at once, whatever its request would have been. Not executed."""
    CLOSE_REUSED = "close reused"
    """A request on a connection that was used before finds it closed: the server had given it up, and
    the news crossed the request. Not executed. Requests on fresh connections are spared."""
    RESET_BEFORE_READING = "reset before reading"
    """The connection is reset when the head has arrived. Not executed. (A body up to 1 MiB is read
    before, for the choice of the fault; of a larger one nothing is.)"""
    RESET_BEFORE_EXECUTION = "reset before execution"
    """The request is read to its end, then the connection is reset. Not executed."""
    STALL_BEFORE_EXECUTION = "stall before execution"
    """The request is read, and nothing happens ever after. Not executed."""
    THROTTLE = "throttle"
    """429. Not executed. See `seconds`, `announce` and `detail`."""
    ERROR_PAGE = "error page"
    """An HTML page with `status`, 502 by default. Executed only if `executed=True`."""
    RESET_AFTER_EXECUTION = "reset after execution"
    """Executed; the connection is reset instead of an answer."""
    CLOSE_AFTER_EXECUTION = "close after execution"
    """Executed; the connection is closed in an orderly way instead of an answer."""
    STALL_AFTER_EXECUTION = "stall after execution"
    """Executed; then silence instead of an answer."""
    GARBAGE = "garbage"
    """Executed, unless `executed=False`; what comes back is not HTTP."""
    HTML = "html"
    """Executed, unless `executed=False`; what comes back is an HTML page with status 200."""
    CUT_IN_HEAD = "cut in head"
    """Executed; the connection is closed in the middle of the answer's head."""
    CUT_IN_BODY = "cut in body"
    """Executed; the connection is closed in the middle of the answer's body."""
    RESET_IN_BODY = "reset in body"
    """Executed; the connection is reset in the middle of the answer's body."""
    STALL_IN_BODY = "stall in body"
    """Executed; silence from the middle of the answer's body on."""
    TRUNCATED_JSON = "truncated json"
    """Executed; the body is a half, in an answer that is framed correctly."""
    GARBLED_JSON = "garbled json"
    """Executed; the body has its length, but is not JSON any more."""
    WRONG_TYPE = "wrong type"
    """Executed; the answer is right, but is called `text/plain`."""
    DELAY = "delay"
    """Executed; the answer comes `seconds` late."""
    DRIP = "drip"
    """Executed; the body of the answer comes byte by byte, one each `seconds`."""
    CLOSE_AFTER_ANSWER = "close after answer"
    """Executed and answered; then the connection is closed, though the answer had not said so."""

    @property
    def executes(self) -> bool:
        """Whether the emulator carries the request out, unless `executed` says otherwise."""
        return self not in _NOT_EXECUTED


_NOT_EXECUTED: Final = frozenset(
    {
        Fault.RESET_AT_ACCEPT,
        Fault.CLOSE_REUSED,
        Fault.RESET_BEFORE_READING,
        Fault.RESET_BEFORE_EXECUTION,
        Fault.STALL_BEFORE_EXECUTION,
        Fault.THROTTLE,
        Fault.ERROR_PAGE,
    }
)
_EITHER: Final = frozenset({Fault.ERROR_PAGE, Fault.GARBAGE, Fault.HTML})
_WITHOUT_ANSWER: Final = frozenset(
    {
        Fault.ERROR_PAGE,
        Fault.RESET_AFTER_EXECUTION,
        Fault.CLOSE_AFTER_EXECUTION,
        Fault.STALL_AFTER_EXECUTION,
        Fault.GARBAGE,
        Fault.HTML,
    }
)
"""Faults in which the client gets nothing of the answer."""


@attrs.frozen
class WireRequest:
    """A request as it came over the wire."""

    origin: Origin
    """Which of the three origins it was for."""
    method: str
    """HTTP method."""
    path: str
    """Path without query, as sent."""
    query: str
    """Query as sent, without the question mark."""
    headers: Mapping[str, str]
    """Headers, their names in lower case."""
    body: bytes
    """The body; empty if it has more than 1 MiB or no length."""
    attempt: int
    """The how-manieth request with this method, target and body it is, from 1."""
    reused: bool
    """Whether its connection was used before."""

    def json(self) -> Any:
        """Return the decoded JSON body.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)


@attrs.frozen
class Injected:
    """One fault that happened."""

    fault: Fault
    """What."""
    request: WireRequest | None
    """To which request; None where the connection was reset at once."""
    executed: bool
    """Whether the emulator has carried the request out."""
    status: int | None
    """The status of the answer of which the fault took the place, or a part; None without any."""


@attrs.define(eq=False)
class Injection:
    """A fault that waits for its requests; made by `Wire.inject`."""

    fault: Fault
    """What is going to happen."""
    times: int | None
    """To how many further requests; None: to all."""
    happened: int = 0
    """To how many it has happened."""
    _matches: Callable[[WireRequest], bool] = attrs.field(repr=False, kw_only=True, alias="matches")
    _probability: float = attrs.field(repr=False, kw_only=True, alias="probability")
    _executed: bool = attrs.field(repr=False, kw_only=True, alias="executed")
    _status: int = attrs.field(repr=False, kw_only=True, alias="status")
    _seconds: float = attrs.field(repr=False, kw_only=True, alias="seconds")
    _announce: Announce = attrs.field(repr=False, kw_only=True, alias="announce")
    _detail: str | None = attrs.field(repr=False, kw_only=True, alias="detail")
    _remove: Callable[[Injection], None] = attrs.field(repr=False, kw_only=True, alias="remove")

    def remove(self) -> None:
        """Let it happen no more."""
        self._remove(self)

    def _throttled(self) -> bytes:
        whole = max(0, round(self._seconds))
        detail = self._detail or f"Request was throttled. Your rate limit resets in ~{whole}s."
        body: dict[str, object] = {"detail": detail, "status": 429}
        headers = ""
        if self._announce in ("both", "body"):
            body["retry_after"] = int(self._seconds) if self._seconds == whole else self._seconds
        if self._announce in ("both", "header"):
            headers = f"Retry-After: {whole}\r\n"
        return _answer(429, json.dumps(body).encode(), "application/problem+json", headers)


Announce = Literal["both", "header", "body", "nothing"]


class Wire:
    """The faults of one emulator, made by ``Emulator(wire=True)`` as ``emulator.wire``.

    All methods may be called from any thread, before and while the emulator runs.

    Attributes:
        log: Every fault that happened, in order; entered before the client can notice.
    """

    def __init__(self, on_loop: Callable[[Callable[[], None]], None]) -> None:
        self.log: list[Injected] = []
        self._on_loop = on_loop
        self._lock = threading.RLock()
        self._injections: list[Injection] = []
        self._attempts: dict[tuple[str, str, bytes], int] = {}
        self._random = random.Random(0)
        self._ports: list[_Port] = []
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refusing = False

    def __repr__(self) -> str:
        return f"<Wire {len(self._injections)} injections, {len(self.log)} faults happened>"

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str | None = None,
        origin: Origin | None = "api",
        attempt: int | Collection[int] | None = None,
        when: Callable[[WireRequest], bool] | None = None,
        times: int | None = None,
        probability: float = 1.0,
        executed: bool | None = None,
        status: int = 502,
        seconds: float | None = None,
        announce: Announce = "both",
        detail: str | None = None,
    ) -> Injection:
        """Let a fault happen to requests that match all that is given.

        Of several that match a request, the one injected first happens.

        Args:
            fault: What shall happen.
            method: To requests of this method only.
            path: With this path only; ``*`` stands for anything, slashes too.
            origin: On this origin only: ``api``, ``files`` or ``stream``; None: on any.
            attempt: Only to the so manieth request, or requests, with the same method, target and body,
                from 1: to the first send, or to a repetition.
            when: Only if this says so.
            times: To so many requests only, then never again. None: to all.
            probability: With this probability for each, by the random numbers of `seed`.
            executed: Whether the request is carried out, for the faults that leave the choice:
                ``ERROR_PAGE`` (by default not), ``GARBAGE`` and ``HTML`` (by default it is).
            status: Status of ``ERROR_PAGE``.
            seconds: Real seconds of ``DELAY`` (1), between two bytes of ``DRIP`` (0.05), or that
                ``THROTTLE`` asks to wait (1).
            announce: Where ``THROTTLE`` says how long to wait: in the ``header`` (whole seconds), in
                the ``body``, in ``both`` or in ``nothing``.
            detail: What the body of ``THROTTLE`` says.

        Returns:
            What can be removed again, and counts.

        Raises:
            ValueError: An argument does not go with the fault.
        """
        if executed is not None and executed is not fault.executes and fault not in _EITHER:
            raise ValueError(f"executed: {fault.name} leaves no choice")
        if fault is Fault.RESET_AT_ACCEPT and any(
            given is not None for given in (method, path, attempt, when)
        ):
            raise ValueError("RESET_AT_ACCEPT comes before there is a request to choose by")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: {probability!r} is not from 0 to 1")
        if times is not None and times < 1:
            raise ValueError(f"times: {times!r} is not 1 or more")
        numbers = frozenset([attempt]) if isinstance(attempt, int) else attempt

        def matches(request: WireRequest) -> bool:
            return (
                (origin is None or request.origin == origin)
                and (method is None or request.method == method)
                and (path is None or fnmatchcase(request.path, path))
                and (numbers is None or request.attempt in numbers)
                and (fault is not Fault.CLOSE_REUSED or request.reused)
                and (when is None or when(request))
            )

        injection = Injection(
            fault,
            times,
            matches=matches,
            probability=probability,
            executed=fault.executes if executed is None else executed,
            status=status,
            seconds=(0.05 if fault is Fault.DRIP else 1.0) if seconds is None else seconds,
            announce=announce,
            detail=detail,
            remove=self._remove,
        )
        with self._lock:
            self._injections.append(injection)
        return injection

    def clear(self) -> None:
        """Remove all injections; what is under way goes on. The log stays."""
        with self._lock:
            self._injections.clear()

    def seed(self, seed: int) -> None:
        """Begin the random numbers anew, so that the choices can be repeated."""
        with self._lock:
            self._random.seed(seed)

    @property
    def connections(self) -> int:
        """How many connections clients hold."""
        return len(self._connections)

    def refuse(self) -> None:
        """Refuse connections from now on, as a server that is down: nobody listens any more.

        Idle connections are closed; requests under way are answered. `accept` ends it.
        """

        def close() -> None:
            self._refusing = True
            for port in self._ports:
                port.close()
            for connection in list(self._connections):
                connection.close_if_idle()

        self._on_loop(close)

    def accept(self) -> None:
        """Accept connections again, on the same ports."""

        def listen() -> None:
            if self._refusing:
                self._refusing = False
                for port in self._ports:
                    # From here on connections wait for the loop, which takes them up soon.
                    listening = port.listen()
                    if self._loop is not None:
                        self._spawn(port.serve(listening, self))

        self._on_loop(listen)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse connections in a ``with`` block."""
        self.refuse()
        try:
            yield
        finally:
            self.accept()

    def _remove(self, injection: Injection) -> None:
        with self._lock, suppress(ValueError):
            self._injections.remove(injection)

    # --- for the emulator

    def _bind(self, host: str, family: int, port: int) -> list[int]:
        """Take a port for each origin, and return them. Connections are accepted, but not served."""
        for origin, number in zip(_ORIGINS, (port, 0, 0), strict=True):
            self._ports.append(_Port(origin, host, family, number))
            self._ports[-1].listen()
        return [port.number for port in self._ports]

    async def _start(self, behind: list[tuple[str, int]]) -> None:
        """Serve, passing requests on to the addresses *behind*, one for each origin."""
        self._loop = asyncio.get_running_loop()
        for port, address in zip(self._ports, behind, strict=True):
            port.behind = address
            if port.listening is not None:
                await port.serve(port.listening, self)

    async def _close(self) -> None:
        """Give up all sockets and tasks, within two seconds."""
        self._loop = None
        for port in self._ports:
            port.close()
            port.release()
        for connection in list(self._connections):
            connection.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)

    # --- for connections

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accepted(
        self, port: _Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._loop is None:
            writer.transport.abort()
            return
        connection = _Connection(self, port, reader, writer)
        self._connections.add(connection)
        injection = self._choose_at_accept(port.origin)
        if injection is not None:
            self._happened(injection, None, executed=False)
            connection.reset()
            return
        connection.task = self._spawn(connection.serve())

    def _choose_at_accept(self, origin: Origin) -> Injection | None:
        nothing = WireRequest(origin, "", "", "", {}, b"", 1, reused=False)
        with self._lock:
            return self._first(
                nothing, [i for i in self._injections if i.fault is Fault.RESET_AT_ACCEPT]
            )

    def _choose(self, request: WireRequest) -> Injection | None:
        with self._lock:
            return self._first(
                request, [i for i in self._injections if i.fault is not Fault.RESET_AT_ACCEPT]
            )

    def _first(self, request: WireRequest, injections: list[Injection]) -> Injection | None:
        for injection in injections:
            if not injection._matches(request):
                continue
            if injection._probability < 1 and self._random.random() >= injection._probability:
                continue
            injection.happened += 1
            if injection.times is not None:
                injection.times -= 1
                if not injection.times:
                    self._injections.remove(injection)
            return injection
        return None

    def _attempt(self, method: str, target: str, body: bytes) -> int:
        key = (method, target, body)
        with self._lock:
            number = self._attempts[key] = self._attempts.get(key, 0) + 1
        return number

    def _happened(
        self,
        injection: Injection,
        request: WireRequest | None,
        *,
        executed: bool,
        status: int | None = None,
    ) -> None:
        self.log.append(Injected(injection.fault, request, executed, status))


class _Port:
    """A port of one origin, which stays taken while nobody listens there."""

    def __init__(self, origin: Origin, host: str, family: int, number: int) -> None:
        self.origin: Origin = origin
        self.behind: tuple[str, int] = ("", 0)
        self.listening: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._host = host
        self._family = family
        # Bound, but never listening: it only keeps others from the port.
        self._kept = self._bound(number)
        self.number: int = self._kept.getsockname()[1]

    def _bound(self, number: int) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
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

    async def serve(self, listening: socket.socket, wire: Wire) -> None:
        """Take accepted connections up."""
        loop = asyncio.get_running_loop()
        if listening is not self.listening:
            return  # closed before it came to this

        def made() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(limit=_MOST_HEAD, loop=loop)
            return _Protocol(reader, partial(wire._accepted, self), loop=loop)

        server = await loop.create_server(made, sock=listening, backlog=_BACKLOG)
        if listening is self.listening:
            self._server = server
        else:
            server.close()

    def close(self) -> None:
        """Stop listening: connections are refused."""
        server, self._server = self._server, None
        listening, self.listening = self.listening, None
        if server is not None:
            server.close()
        elif listening is not None:
            listening.close()

    def release(self) -> None:
        """Let others have the port."""
        self._kept.close()


class _Protocol(asyncio.StreamReaderProtocol):
    """Tells the connection when its client has gone."""

    gone: Callable[[], None] | None = None
    lost: Callable[[], None] | None = None

    def eof_received(self) -> bool | None:
        """Take note that the client sends nothing more."""
        super().eof_received()
        if self.gone is not None:
            self.gone()
        return True

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
class _Head:
    """The head of a request or of an answer."""

    raw: bytes
    first: str
    headers: Mapping[str, str]

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        said = self.headers.get("content-length")
        return int(said) if said is not None and said.isdigit() else None

    @property
    def status(self) -> int:
        return int(self.first.split(" ", 2)[1])

    @property
    def last(self) -> bool:
        """Whether the connection ends after this message."""
        said = self.headers.get("connection", "").lower()
        return said == "close" or ("HTTP/1.0" in self.first and said != "keep-alive")

    def without(self, name: str) -> bytes:
        """Return the bytes of the head without a header."""
        lines = self.raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
        prefix = name.lower().encode() + b":"
        kept = [line for line in lines if not line.lower().startswith(prefix)]
        return b"\r\n".join(kept) + b"\r\n\r\n"


class _Connection:
    """A connection of a client, and the one behind it to the emulator."""

    def __init__(
        self,
        wire: Wire,
        port: _Port,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self._wire = wire
        self._port = port
        self._reader = reader
        self._writer = writer
        self._behind: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._served = 0
        self._idle = True
        self._has_gone = False
        self._awaiting = False
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, _Protocol)
        protocol.gone = self._left
        protocol.lost = partial(wire._connections.discard, self)

    # --- ends

    def close_if_idle(self) -> None:
        """Close it, unless a request is under way."""
        if self._idle:
            self._writer.close()
            if self.task is not None:
                self.task.cancel()

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
        """Serve a request; tell whether there may be another."""
        head = await _read_head(self._reader)
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
            self._wire._attempt(method, target, body),
            reused=self._served > 0,
        )
        self._served += 1
        injection = self._wire._choose(request)
        if injection is None:
            keep = await self._relay(head, body, large)
        else:
            keep = await self._suffer(injection, request, head, body, large)
        self._idle = True
        return keep and not self._wire._refusing

    async def _relay(self, head: _Head, body: bytes, large: bool) -> bool:
        """Pass a request on and its answer back; tell whether the connection is kept."""
        with self._for_client():
            async with self._passed_on(head, head.raw, body, large) as reader:
                while True:
                    answer = await _read_head(reader)
                    self._writer.write(answer.raw)
                    if answer.status >= 200:
                        break
                whole = await self._relay_body(head, answer, reader)
                await self._writer.drain()
        keep = whole and not head.last and not answer.last and not large
        if not keep:
            self._leave_behind()
        return keep

    async def _relay_body(self, head: _Head, answer: _Head, reader: asyncio.StreamReader) -> bool:
        """Pass the body of an answer back; tell whether the connection can go on after it."""
        async with aclosing(_pieces(head, answer, reader)) as pieces:
            async for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
        return _framed(head, answer)

    def _passed_on(self, head: _Head, raw: bytes, body: bytes, large: bool) -> _PassedOn:
        return _PassedOn(self, raw, body, head if large else None)

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

    async def _suffer(
        self, injection: Injection, request: WireRequest, head: _Head, body: bytes, large: bool
    ) -> bool:
        """Let a fault happen; tell whether the connection is kept."""
        fault = injection.fault
        if fault is Fault.CLOSE_AFTER_ANSWER:
            self._wire._happened(injection, request, executed=True)
            await self._relay(head, body, large)
            return False
        if not injection._executed:
            if fault is not Fault.RESET_BEFORE_READING and large:
                async with aclosing(_body_of_request(head, self._reader)) as pieces:
                    async for _ in pieces:
                        pass
            self._wire._happened(injection, request, executed=False)
            return await self._instead(injection, head)
        if fault in _WITHOUT_ANSWER:
            # Nobody gets the answer, so it is not held back until there is a result.
            async with self._passed_on(head, head.without("prefer"), body, large) as reader:
                answer = await _read_head(reader)
                while answer.status < 200:
                    answer = await _read_head(reader)
            self._leave_behind()
            self._wire._happened(injection, request, executed=True, status=answer.status)
            return await self._instead(injection, head)
        with self._for_client():
            async with self._passed_on(head, head.raw, body, large) as reader:
                answer = await _read_head(reader)
                while answer.status < 200:
                    answer = await _read_head(reader)
                self._wire._happened(injection, request, executed=True, status=answer.status)
                async with aclosing(_pieces(head, answer, reader)) as pieces:
                    await self._spoil(injection, answer, pieces)
        self._leave_behind()
        return False

    async def _instead(self, injection: Injection, head: _Head) -> bool:
        """Do something instead of answering."""
        match injection.fault:
            case Fault.CLOSE_REUSED | Fault.CLOSE_AFTER_EXECUTION:
                return False
            case Fault.STALL_BEFORE_EXECUTION | Fault.STALL_AFTER_EXECUTION:
                await self._silence()
            case Fault.THROTTLE:
                self._writer.write(injection._throttled())
                await self._writer.drain()
                return not head.last
            case Fault.ERROR_PAGE:
                self._writer.write(_answer(injection._status, _PAGE, "text/html; charset=UTF-8"))
                await self._writer.drain()
                return not head.last
            case Fault.HTML:
                self._writer.write(_answer(200, _PAGE, "text/html; charset=UTF-8"))
                await self._writer.drain()
                return not head.last
            case Fault.GARBAGE:
                self._writer.write(_GARBAGE)
                await self._writer.drain()
            case _:
                self.reset()
        return False

    async def _spoil(
        self, injection: Injection, answer: _Head, pieces: AsyncGenerator[bytes, None]
    ) -> None:
        """Send an answer in another way than it should be."""
        write = self._writer.write
        fault = injection.fault
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
            case Fault.DELAY:
                await asyncio.sleep(injection._seconds)
                write(answer.raw)
                async for piece in pieces:
                    write(piece)
                    await self._writer.drain()
            case Fault.DRIP:
                write(answer.raw)
                async for piece in pieces:
                    for position in range(len(piece)):
                        write(piece[position : position + 1])
                        await self._writer.drain()
                        await asyncio.sleep(injection._seconds)
            case _:
                body = b"".join([_content(answer, piece) async for piece in pieces])
                content_type = answer.headers.get("content-type", "application/json")
                if fault is Fault.TRUNCATED_JSON:
                    body = body[: len(body) // 2]
                elif fault is Fault.GARBLED_JSON:
                    body = body.translate(_GARBLED)
                else:
                    content_type = "text/plain; charset=utf-8"
                write(_answer(answer.status, body, content_type, "Connection: close\r\n"))
        await self._writer.drain()

    async def _silence(self) -> None:
        """Say nothing until the client goes."""
        if self._awaiting:
            await asyncio.get_running_loop().create_future()
        with self._for_client():
            await asyncio.get_running_loop().create_future()


class _PassedOn:
    """A request on its way to the emulator: gives the reader of the answer.

    A body that was not read in advance is passed on while the answer is awaited.
    """

    def __init__(
        self, connection: _Connection, raw: bytes, body: bytes, rest: _Head | None
    ) -> None:
        self._connection = connection
        self._raw = raw
        self._body = body
        self._rest = rest
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> asyncio.StreamReader:
        reader, writer = await self._connection.connect_behind()
        writer.write(self._raw + self._body)
        await writer.drain()
        if self._rest is not None:
            self._pump = self._connection._wire._spawn(self._pass(self._rest, writer))
        return reader

    async def __aexit__(self, *exc_info: object) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})

    async def _pass(self, head: _Head, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, ValueError, asyncio.CancelledError):
            async with aclosing(_body_of_request(head, self._connection._reader)) as pieces:
                async for piece in pieces:
                    writer.write(piece)
                    await writer.drain()


# -- HTTP as it stands on the wire -------------------------------------------------------------

_GARBLED: Final = bytes.maketrans(b'{}[]":', b"\x00\xff}{:\x01")


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *rest = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return _Head(raw, first, {name.strip().lower(): value.strip() for name, _, value in pairs})


def _framed(head: _Head, answer: _Head) -> bool:
    """Tell whether an answer ends by itself, and not with its connection."""
    return _bodyless(head, answer) or answer.chunked or answer.length is not None


def _bodyless(head: _Head, answer: _Head) -> bool:
    return head.first.startswith("HEAD ") or answer.status in (204, 304)


def _pieces(
    head: _Head, answer: _Head, reader: asyncio.StreamReader
) -> AsyncGenerator[bytes, None]:
    """Yield the body of an answer as it is framed."""
    if _bodyless(head, answer):
        return _counted(0, reader)
    if answer.chunked:
        return _chunks(reader)
    return _counted(answer.length, reader)


def _content(answer: _Head, piece: bytes) -> bytes:
    """Return a piece of a body without its framing."""
    return piece.partition(b"\r\n")[2][:-2] if answer.chunked else piece


def _body_of_request(head: _Head, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request as it is framed."""
    return _chunks(reader) if head.chunked else _counted(head.length or 0, reader)


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a body, with their framing."""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if not size:
            while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                line += trailer
            yield line + b"\r\n"
            return
        yield line + await reader.readexactly(size + 2)


async def _counted(length: int | None, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield so many bytes; None: all that come."""
    while length != 0:
        piece = await reader.read(_PIECE if length is None else min(length, _PIECE))
        if not piece:
            if length is None:
                return
            raise EOFError
        if length is not None:
            length -= len(piece)
        yield piece


async def _delivered(writer: asyncio.StreamWriter) -> None:
    """Give the kernel what was written: a reset would throw away what is still here."""
    # Nothing tells when, short of pausing and resuming the writer.
    while writer.transport.get_write_buffer_size():  # noqa: ASYNC110
        await asyncio.sleep(0)


def _answer(status: int, body: bytes, content_type: str, headers: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} Emulated\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode("latin-1") + body
