"""A server that answers as the script of a test says: the emulator's wire, with nothing behind it.

The words of a script are those of `replicate_async.testing`: a `Fault`, a `Reply`, or a function that chooses one.
"""

from __future__ import annotations

import contextlib
import gzip
import json as jsonlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeAlias

from replicate_async import Client, FileOutput, RateLimit, Retry, Timeout
from replicate_async.testing import Emulator, Fault, Reply, WireRequest

Request = WireRequest
TOKEN = "r8_TestTokenThatMustNeverLeak012345678901"
QUICK = Retry(backoff=0.001, max_backoff=0.001)
BOUND = 10.0
"""Seconds that a test waits at most for something that must not take long."""

Step: TypeAlias = "Fault | Reply | Callable[[Request], Step]"
"""What happens to one request. A function runs in a thread of the server and may block."""


class Wire:
    """Serves one step for each request; when the script is over, its last step again and again.

    It runs in a thread of its own: one server serves several event loops, threads and processes, and is
    never held up by the loop of the test.
    """

    def __init__(self, *script: Step, listening: bool = True, tls: ssl.SSLContext | None = None):
        self.requests: list[Request] = []
        """What came, in the order in which it was complete."""
        self.script: Sequence[Step] = script
        self._position = 0
        self._lock = threading.Lock()
        self._emulator = Emulator(built_in=False, wire=True, tls=tls)
        self._emulator.wire.inject(self._next)
        if not listening:
            self._emulator.wire.refuse()

    def __enter__(self) -> Self:
        self._arm()
        self._emulator.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._emulator.stop()
        assert self.open == 0

    @property
    def url(self) -> str:
        """Its origin."""
        return self._emulator.url

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """How many connections there were."""
        return self._emulator.wire.accepted

    @property
    def open(self) -> int:
        """How many connections clients hold."""
        return self._emulator.wire.connections

    def listen(self) -> None:
        """Accept connections from now on; before, they are refused."""
        self._emulator.wire.accept()

    def _next(self, request: Request) -> Fault | Reply:
        with self._lock:
            self.requests.append(request)
            step = self.script[min(self._position, len(self.script) - 1)]
            self._position += 1
            self._arm()
        while not isinstance(step, Fault | Reply):
            step = step(request)
        return step

    def _arm(self) -> None:
        """Prepare the steps that happen before there is a request: resets at accept."""
        while self._position < len(self.script):
            if self.script[self._position] is not Fault.RESET_AT_ACCEPT:
                return
            self._position += 1
            is_last = self._position == len(self.script)
            self._emulator.wire.inject(Fault.RESET_AT_ACCEPT, times=None if is_last else 1)


# -- Steps -------------------------------------------------------------------------------------


def raw(*pieces: bytes, reset: bool = False, stall: bool = False) -> Reply:
    """Send bytes as they are, then close the connection, reset it, or fall silent."""
    return Reply.raw(*pieces, end="reset" if reset else "stall" if stall else "close")


def head(status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} Status"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer(
    status: int = 200,
    body: bytes = b"",
    content_type: str | None = "application/json",
    *,
    headers: Mapping[str, str] | None = None,
    keep: bool = False,
    read: bool = True,
) -> Reply:
    """Answer properly; `keep` keeps the connection, else it is closed and says so."""
    all_headers = {"Connection": "keep-alive" if keep else "close"}
    if content_type is not None:
        all_headers["Content-Type"] = content_type
    all_headers.update(headers or {})
    return Reply(status, body, all_headers, end="keep" if keep else "close", reads=read)


def json(
    value: object,
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    keep: bool = False,
    content_type: str = "application/json",
) -> Reply:
    """Answer with JSON."""
    return answer(status, jsonlib.dumps(value).encode(), content_type, headers=headers, keep=keep)


def problem(status: int, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
    """Answer with an error body of the API."""
    return json(
        {"status": status, **fields},
        status,
        headers=headers,
        content_type="application/problem+json",
    )


def redirect(location: str, status: int = 302) -> Reply:
    """Answer with a redirect."""
    return answer(status, headers={"Location": location})


def gzipped(body: bytes, status: int = 200) -> Reply:
    """Answer with a compressed body."""
    return answer(status, gzip.compress(body), headers={"Content-Encoding": "gzip"})


def drip(seconds: float, *, every: float, status: int = 200) -> Reply:
    """Answer with a byte now and then, for so many seconds."""
    headers = {"Content-Length": "1000000", "Connection": "close"}
    return Reply(status, [b" "] * int(seconds / every), headers, pause=every, end="close")


RESET = Fault.RESET_BEFORE_EXECUTION
CLOSE = raw()
STALL = Fault.STALL_BEFORE_EXECUTION
HTML = b"<!doctype html><html><head><title>Bad gateway</title></head><body>Sorry</body></html>"


MALFORMED = Reply(
    200,
    [b'5\r\n{"id"\r\n', b"zz\r\n: 1}\r\n"],
    {"Transfer-Encoding": "chunked"},
    pause=0.05,
    end="stall",
)
"""A good chunk and, a moment later, a malformed one; the connection stays open."""

LOST: dict[str, Step] = {
    "reset before reading": Fault.RESET_AT_ACCEPT,
    "reset after reading": RESET,
    "closed after reading": CLOSE,
    "cut in the status line": raw(b"HTTP/1.1 20"),
    "cut in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl"),
    "reset in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl", reset=True),
    "cut before the body": raw(head(200, {"Content-Length": "100"})),
    "cut in the body": raw(head(200, {"Content-Length": "100"}), b'{"username"'),
    "reset in the body": raw(head(200, {"Content-Length": "100"}), b'{"username"', reset=True),
    "cut in the chunks": raw(head(200, {"Transfer-Encoding": "chunked"}), b'5\r\n{"id'),
    "malformed chunk": MALFORMED,
    "broken gzip": answer(200, b"no gzip at all", headers={"Content-Encoding": "gzip"}),
}
"""Faults in which the connection ends before the answer does."""

SILENT: dict[str, Step] = {
    "stall before the answer": STALL,
    "stall in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl", stall=True),
    "stall in the body": raw(head(200, {"Content-Length": "100"}), b'{"username"', stall=True),
}
"""Faults in which the server falls silent."""

UNREADABLE: dict[str, Step] = {
    "garbage": raw(b"\x00\x01\xffSSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "HTML with 200": answer(200, HTML, "text/html"),
    "truncated JSON": answer(200, b'{"id": "abc", "status": "succ'),
    "JSON of another shape": json(["no", "object"]),
    "empty answer": answer(200, b""),
    "no UTF-8": answer(200, b'{"id": "\xff\xfe"}'),
}
"""Faults in which something came, but not what was asked for."""

BUSY: dict[str, Step] = {
    "408": problem(408, title="Timeout"),
    "429": problem(429, title="Too many requests", headers={"Retry-After": "0"}),
    "500": problem(500, title="Error"),
    "502 with HTML": answer(502, HTML, "text/html"),
    "503": problem(503, headers={"Retry-After": "0"}),
    "504 without a body": answer(504, b"", None),
}
"""Errors that pass."""

FAULTS = {**LOST, **SILENT, **UNREADABLE, **BUSY}

ACCOUNT = {"username": "acme", "type": "organization", "name": "Acme"}
PREDICTION: dict[str, Any] = {
    "id": "wm41d8ffq9rgj0cjb2ysrvzve0",
    "model": "acme/greeter",
    "version": "hidden",
    "input": {"text": "Alice"},
    "output": "hello Alice",
    "logs": "",
    "error": None,
    "status": "succeeded",
    "created_at": "2025-12-02T10:15:30.123Z",
    "completed_at": "2025-12-02T10:15:33.148859123Z",
    "urls": {},
}


def client_of(wire: Wire | str, **options: Any) -> Client:
    """Return a client of a server, quick to repeat and soon out of patience."""
    settings: dict[str, Any] = {
        "base_url": wire if isinstance(wire, str) else wire.url,
        "timeout": Timeout(connect=5, read=0.3 if _scripted(wire, SILENT) else BOUND),
        "retry": QUICK,
        "rate_limit": False,
        **options,
    }
    token = settings.pop("api_token", TOKEN)
    return Client(token, **settings)


def file_at(client: Client, url: str) -> FileOutput:
    """Return a file as it stands in the output of a prediction."""
    return FileOutput(url, transport=client._context.transport)  # pyright: ignore[reportCallIssue]


def _scripted(wire: Wire | str, steps: Mapping[str, Step]) -> bool:
    return isinstance(wire, Wire) and any(step in wire.script for step in steps.values())


GENEROUS = RateLimit(creates=1e6, others=1e6)
"""A gate that lets everything pass, until the server refuses."""


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """Give the URL of a port at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
