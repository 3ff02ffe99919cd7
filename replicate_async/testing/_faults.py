"""The faults of the wire, and the choice of the requests that they happen to.

`_proxy` carries them out on real sockets.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, Self

import attrs

from ._ledger import Origin
from ._retention import RECORDS

Announce = Literal["both", "header", "body", "nothing"]
End = Literal["keep", "close", "reset", "stall"]

_PAGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head>\n"
    b"<body><center><h1>Bad gateway</h1></center><hr><center>cloudflare</center></body></html>\n"
)
_HTML: Final = {"Content-Type": "text/html; charset=UTF-8"}
_GARBAGE: Final = b"\x16\x03\x03\x00\x7a\xff\xfe no HTTP at all \x00\x01\r\n\r\n" * 4


class Fault(Enum):
    """Faults that can happen to a request, ordered by the phase in which they happen.

    `executes` says whether the emulator still carries the request out.

    With TLS, they happen to the encrypted connection, after its handshake. What was sent just before a
    reset may then be lost with it.
    """

    RESET_AT_ACCEPT = "reset at accept"
    """Reset a new connection at once, before its request is read. Not executed."""
    CLOSE_REUSED = "close reused"
    """Close a kept-alive connection when the next request arrives on it, as a server does that gave up
    an idle connection. Not executed. The first request on a connection is spared."""
    RESET_BEFORE_READING = "reset before reading"
    """Reset the connection after the head of the request. Not executed. (A body of up to 1 MiB is read
    first, to choose the fault; nothing is read of a larger one.)"""
    RESET_BEFORE_EXECUTION = "reset before execution"
    """Read the whole request, then reset the connection. Not executed."""
    STALL_BEFORE_EXECUTION = "stall before execution"
    """Read the request and never answer. Not executed."""
    THROTTLE = "throttle"
    """Answer 429. Not executed. See `seconds`, `announce` and `detail`."""
    ERROR_PAGE = "error page"
    """Answer with an HTML page with `status`, 502 by default. Executed only if `executed=True`."""
    RESET_AFTER_EXECUTION = "reset after execution"
    """Execute, then reset the connection instead of answering."""
    CLOSE_AFTER_EXECUTION = "close after execution"
    """Execute, then close the connection instead of answering."""
    STALL_AFTER_EXECUTION = "stall after execution"
    """Execute and never answer."""
    GARBAGE = "garbage"
    """Answer with bytes that are not HTTP. Executed unless `executed=False`."""
    HTML = "html"
    """Answer with an HTML page with status 200. Executed unless `executed=False`."""
    CUT_IN_HEAD = "cut in head"
    """Execute and close the connection in the middle of the head of the response."""
    CUT_IN_BODY = "cut in body"
    """Execute and close the connection in the middle of the body of the response."""
    RESET_IN_BODY = "reset in body"
    """Execute and reset the connection in the middle of the body of the response."""
    STALL_IN_BODY = "stall in body"
    """Execute and fall silent in the middle of the body of the response."""
    TRUNCATED_JSON = "truncated json"
    """Execute and send half of the body, in a correctly framed response."""
    GARBLED_JSON = "garbled json"
    """Execute and send a body of the right length that is not JSON."""
    WRONG_TYPE = "wrong type"
    """Execute and send the right response as `text/plain`."""
    DELAY = "delay"
    """Execute and send the response `seconds` later."""
    DRIP = "drip"
    """Execute and send the body of the response byte by byte, one every `seconds`."""
    CLOSE_AFTER_ANSWER = "close after answer"
    """Execute and respond, then close the connection without having announced it."""

    @property
    def executes(self) -> bool:
        """Whether the emulator carries the request out, unless `executed` is given."""
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


@attrs.frozen
class Reply:
    r"""A response that a test writes itself, for `Wire.inject`.

    ```python
    wire.inject(Reply(503, headers={"Retry-After": "1"}), times=2)
    wire.inject(Reply.json({"id": "abc"}, 201), method="POST")
    wire.inject(Reply.raw(b"HTTP/1.1 200 OK\r\nContent-Le"))
    ```
    """

    status: int = 200
    """HTTP status."""
    body: bytes | Iterable[bytes] = attrs.field(default=b"", repr=False)
    """The body, or its pieces. For pieces, add a `Content-Length` or `Transfer-Encoding` header; the
    framing of chunks is not added."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Headers. `Content-Length` is added if the body is given as bytes."""
    end: End = attrs.field(default="keep", kw_only=True)
    """What happens to the connection afterwards: it is kept, closed or reset, or the server falls
    silent (`stall`)."""
    pause: float = attrs.field(default=0.0, kw_only=True)
    """Real seconds before each piece of the body."""
    reads: bool = attrs.field(default=True, kw_only=True)
    """Whether the body of the request is read first. (With TLS, a connection that is closed without it
    ends after the body has arrived.)"""
    is_raw: bool = attrs.field(default=False, kw_only=True)
    """Whether the pieces of `body` are all that is sent, without status line and headers."""

    @classmethod
    def json(
        cls,
        value: object,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        end: End = "keep",
    ) -> Self:
        """Return a reply with a JSON body.

        Args:
            value: The value to encode.
            status: HTTP status.
            headers: Further headers. `Content-Type` defaults to `application/json`.
            end: What happens to the connection afterwards.
        """
        headers = {"Content-Type": "application/json", **(headers or {})}
        return cls(status, json.dumps(value).encode(), headers, end=end)

    @classmethod
    def raw(
        cls, *pieces: bytes, end: End = "close", pause: float = 0.0, reads: bool = True
    ) -> Self:
        """Return a reply that sends bytes as they are, HTTP or not.

        Args:
            *pieces: What is sent, in this order; may be nothing.
            end: What happens to the connection afterwards.
            pause: Real seconds before each piece.
            reads: Whether the body of the request is read first.
        """
        return cls(0, pieces, end=end, pause=pause, reads=reads, is_raw=True)

    @property
    def name(self) -> str:
        """`REPLY`, the counterpart of the name of a `Fault`."""
        return "REPLY"

    @property
    def executes(self) -> bool:
        """False: the emulator does not carry the request out, unless `executed` is True."""
        return False

    def head(self) -> bytes:
        """Return status line and headers as they are sent."""
        headers = dict(self.headers)
        known = {name.lower() for name in headers}
        if isinstance(self.body, bytes) and self.status != 204 and "content-length" not in known:
            headers["Content-Length"] = str(len(self.body))
        lines = [f"HTTP/1.1 {self.status} Emulated"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def pieces(self) -> Iterator[bytes]:
        """Return an iterator over the body."""
        return iter((self.body,) if isinstance(self.body, bytes) else self.body)


@attrs.frozen
class WireRequest:
    """A request as it was sent."""

    origin: Origin
    """Origin it was sent to: `api`, `files` or `stream`."""
    method: str
    """HTTP method."""
    path: str
    """Path without query, as sent."""
    query: str
    """Query as sent, without the question mark."""
    headers: Mapping[str, str]
    """Headers, with names in lower case."""
    body: bytes
    """The body. Empty if it is larger than 1 MiB or of unknown length, unless a function chooses what
    happens: it gets the whole body."""
    attempt: int
    """Number of requests so far with this method, target and body, from 1."""
    reused: bool
    """Whether its connection was used before."""
    line: str = ""
    """The request line, for example `GET /v1/account HTTP/1.1`."""
    connection: int = 0
    """Number of its connection, from 1."""

    @property
    def target(self) -> str:
        """The target as sent: path and query, or a whole URL if the client takes this for a proxy."""
        return self.line.split(" ")[1]

    def json(self) -> Any:
        """Return the decoded JSON body.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)


Chooser = Callable[[WireRequest], "Fault | Reply | None"]


@attrs.frozen
class Injected:
    """One fault that happened."""

    fault: Fault | Reply
    """The fault, or the reply of the test."""
    request: WireRequest | None
    """The request. None if the connection was reset before it was read."""
    executed: bool
    """Whether the emulator carried the request out."""
    status: int | None
    """Status of the emulator's response, of which the client got nothing or a part. None if there was no
    such response."""


@attrs.frozen
class Plan:
    """A fault with its parameters, ready to be carried out."""

    fault: Fault | Reply
    executed: bool
    reply: Reply | None
    """What the client gets in place of the emulator's response. None if it gets that, or a part of it."""
    seconds: float

    @classmethod
    def of(
        cls,
        fault: Fault | Reply,
        *,
        executed: bool | None = None,
        status: int = 502,
        seconds: float | None = None,
        announce: Announce = "both",
        detail: str | None = None,
    ) -> Self:
        """Return the plan for a fault; see `Wire.inject` for the parameters.

        Raises:
            ValueError: `executed` contradicts the fault.
        """
        either = isinstance(fault, Reply) or fault in _EITHER
        if executed is not None and executed is not fault.executes and not either:
            raise ValueError(f"executed: {fault} leaves no choice")
        if seconds is None:
            seconds = 0.05 if fault is Fault.DRIP else 1.0
        reply: Reply | None
        match fault:
            case Reply():
                reply = fault
            case Fault.CLOSE_REUSED | Fault.CLOSE_AFTER_EXECUTION:
                reply = Reply.raw(end="close")
            case Fault.RESET_AT_ACCEPT | Fault.RESET_BEFORE_READING:
                reply = Reply.raw(end="reset", reads=False)
            case Fault.RESET_BEFORE_EXECUTION | Fault.RESET_AFTER_EXECUTION:
                reply = Reply.raw(end="reset")
            case Fault.STALL_BEFORE_EXECUTION | Fault.STALL_AFTER_EXECUTION:
                reply = Reply.raw(end="stall")
            case Fault.THROTTLE:
                reply = _throttled(seconds, announce, detail)
            case Fault.ERROR_PAGE:
                reply = Reply(status, _PAGE, _HTML)
            case Fault.HTML:
                reply = Reply(200, _PAGE, _HTML)
            case Fault.GARBAGE:
                reply = Reply.raw(_GARBAGE)
            case _:
                reply = None
        return cls(fault, fault.executes if executed is None else executed, reply, seconds)


def _throttled(seconds: float, announce: Announce, detail: str | None) -> Reply:
    whole = max(0, round(seconds))
    detail = detail or f"Request was throttled. Your rate limit resets in ~{whole}s."
    body: dict[str, object] = {"detail": detail, "status": 429}
    headers = {"Content-Type": "application/problem+json"}
    if announce in ("both", "body"):
        body["retry_after"] = int(seconds) if seconds == whole else seconds
    if announce in ("both", "header"):
        headers["Retry-After"] = str(whole)
    return Reply.json(body, 429, headers)


@attrs.define(eq=False)
class Injection:
    """A fault that will happen to matching requests; returned by `Wire.inject`."""

    fault: Fault | Reply | Chooser
    """What happens, or the function that chooses it."""
    times: int | None
    """Number of requests that it will still happen to. None for all."""
    happened: int = 0
    """Number of requests that it happened to."""
    _plan: Plan | Chooser = attrs.field(repr=False, kw_only=True, alias="plan")
    _matches: Callable[[WireRequest], bool] = attrs.field(repr=False, kw_only=True, alias="matches")
    _probability: float = attrs.field(repr=False, kw_only=True, alias="probability")
    _remove: Callable[[object], None] = attrs.field(repr=False, kw_only=True, alias="remove")

    def remove(self) -> None:
        """Remove the fault, so that it does not happen again."""
        self._remove(self)


class Injections:
    """The injected faults of one wire. Safe to use from any thread.

    Args:
        records: Number of different requests whose attempts are counted.
    """

    def __init__(self, records: int = RECORDS) -> None:
        self._lock = threading.RLock()
        self._waiting: list[Injection] = []
        self._records = records
        self._attempts: dict[int, int] = {}
        self._random = random.Random(0)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        fault: Fault | Reply | Chooser,
        plan: Plan | Chooser,
        *,
        method: str | None,
        path: str | None,
        origin: Origin | None,
        attempt: int | Collection[int] | None,
        when: Callable[[WireRequest], bool] | None,
        times: int | None,
        probability: float,
    ) -> Injection:
        """Add a fault; see `Wire.inject`."""
        attempts = frozenset([attempt]) if isinstance(attempt, int) else attempt

        def matches(request: WireRequest) -> bool:
            return (
                (origin is None or request.origin == origin)
                and (method is None or request.method == method)
                and (path is None or fnmatchcase(request.path, path))
                and (attempts is None or request.attempt in attempts)
                and (fault is not Fault.CLOSE_REUSED or request.reused)
                and (when is None or when(request))
            )

        injection = Injection(
            fault, times, plan=plan, matches=matches, probability=probability, remove=self._remove
        )
        with self._lock:
            self._waiting.append(injection)
        return injection

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._waiting.clear()

    def seed(self, seed: int) -> None:
        """Restart the random numbers."""
        with self._lock:
            self._random.seed(seed)

    def attempt(self, method: str, target: str, body: bytes) -> int:
        """Count a request; return the number of equal ones so far."""
        # The hash, since bodies take memory.
        key = hash((method, target, body))
        with self._lock:
            number = self._attempts[key] = self._attempts.get(key, 0) + 1
            if len(self._attempts) > self._records:
                del self._attempts[next(iter(self._attempts))]
        return number

    def at_accept(self, origin: Origin) -> bool:
        """Return whether a new connection is to be reset at once."""
        nothing = WireRequest(origin, "", "", "", {}, b"", 1, reused=False)
        return self._first(nothing, at_accept=True) is not None

    def choose(self, request: WireRequest) -> Plan | Chooser | None:
        """Return what happens to a request, or the function that chooses it; None for nothing."""
        return self._first(request, at_accept=False)

    def _first(self, request: WireRequest, *, at_accept: bool) -> Plan | Chooser | None:
        with self._lock:
            for injection in self._waiting:
                if (injection.fault is Fault.RESET_AT_ACCEPT) is not at_accept:
                    continue
                if not injection._matches(request):
                    continue
                if injection._probability < 1 and self._random.random() >= injection._probability:
                    continue
                injection.happened += 1
                if injection.times is not None:
                    injection.times -= 1
                    if not injection.times:
                        self._remove(injection)
                return injection._plan
        return None

    def _remove(self, injection: object) -> None:
        with self._lock:
            self._waiting = [each for each in self._waiting if each is not injection]
