"""A raw TCP server that answers byte by byte as a test's script says, and records what it was sent.

It runs in threads of its own: one server serves several event loops, threads and processes, and it is never
held up by the loop of the test.
"""

from __future__ import annotations

import contextlib
import gzip
import json as jsonlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import attrs

from replicate_async import Client, FileOutput, RateLimit, Retry, Timeout

TOKEN = "r8_TestTokenThatMustNeverLeak012345678901"
QUICK = Retry(backoff=0.001, max_backoff=0.001)
BOUND = 10.0
"""Seconds after which a connection of a test ends by itself."""


@attrs.frozen
class Request:
    """A request as it came."""

    line: str
    """The first line, without its end."""
    headers: Mapping[str, str]
    """The headers, names in lower case."""
    body: bytes
    """The body, without the framing of chunks."""
    connection: int
    """The number of its connection, from 1."""
    peer: int
    """The port that it came from."""

    @property
    def method(self) -> str:
        """The method."""
        return self.line.partition(" ")[0]

    @property
    def target(self) -> str:
        """The target, as it was sent."""
        return self.line.split(" ")[1]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def json(self) -> Any:
        """Return the decoded body."""
        return jsonlib.loads(self.body)


@attrs.frozen
class Step:
    """What happens to one request."""

    act: Callable[[socket.socket, Request], bool | None]
    """Answers, or does not; returns True to keep the connection."""
    early: bool = False
    """Whether it happens before a byte is read."""
    body: bool = True
    """Whether the body is read before."""


class Wire:
    """Serves one step for each request; when the script is over, its last step again and again."""

    def __init__(self, *script: Step, listening: bool = True, tls: ssl.SSLContext | None = None):
        self.requests: list[Request] = []
        """What came, in the order in which it was complete."""
        self.connections = 0
        """How many connections there were."""
        self.script = list(script)
        self._position = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._tls = tls
        self._stopped = False
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._listening = False
        if listening:
            self.listen()

    def listen(self) -> None:
        """Accept connections from now on; before, they are refused."""
        with self._lock:
            if self._listening:
                return
            self._listening = True
        self._listener.listen(128)
        thread = threading.Thread(target=self._accept)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(BOUND)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
            thread = threading.Thread(target=self._serve, args=(connection, number, peer[1]))
            self._threads.append(thread)
            thread.start()

    def _next(self) -> Step:
        with self._lock:
            step = self.script[min(self._position, len(self.script) - 1)]
            self._position += 1
            return step

    def _peek(self) -> Step:
        with self._lock:
            return self.script[min(self._position, len(self.script) - 1)]

    def _serve(self, connection: socket.socket, number: int, peer: int) -> None:
        connection.settimeout(BOUND)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with self._lock:
                if self._stopped:
                    return
                self._open.add(connection)
            while True:
                if self._peek().early:
                    self._next().act(connection, Request("", {}, b"", number, peer))
                    return
                head = _read_head(connection)
                if head is None:
                    return
                step = self._next()
                line, headers = head
                body = _read_body(connection, headers) if step.body else b""
                request = Request(line, headers, body, number, peer)
                self.requests.append(request)
                if not step.act(connection, request):
                    return
        except OSError:
            pass  # the client went away, or the server was stopped
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _read_head(connection: socket.socket) -> tuple[str, dict[str, str]] | None:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return None
        data += byte
    first, *rest = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _read_body(connection: socket.socket, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return _exactly(connection, int(headers.get("content-length", 0)))
    body = b""
    while size := int(_line(connection), 16):
        body += _exactly(connection, size)
        _line(connection)
    _line(connection)
    return body


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n"):
        data += _exactly(connection, 1)
    return data[:-2]


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 2**20))
        if not chunk:
            raise ConnectionError("the client left in the middle of a body")
        data += chunk
    return bytes(data)


# -- Steps -------------------------------------------------------------------------------------


def raw(*pieces: bytes, reset: bool = False, stall: bool = False, early: bool = False) -> Step:
    """Send bytes as they are, then close the connection, reset it, or fall silent."""

    def act(connection: socket.socket, request: Request) -> None:
        for piece in pieces:
            connection.sendall(piece)
        if stall:
            _until_gone(connection)
        if reset:
            _reset(connection)

    return Step(act, early=early)


def _until_gone(connection: socket.socket) -> None:
    while connection.recv(2**16):
        pass


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


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
) -> Step:
    """Answer properly; `keep` keeps the connection, else it is closed and says so."""
    all_headers = {"Connection": "keep-alive" if keep else "close"}
    if status != 204:
        all_headers["Content-Length"] = str(len(body))
    if content_type is not None:
        all_headers["Content-Type"] = content_type
    all_headers.update(headers or {})

    def act(connection: socket.socket, request: Request) -> bool:
        connection.sendall(head(status, all_headers))
        connection.sendall(body)
        if not read:  # an unread body would make a reset of the close
            connection.shutdown(socket.SHUT_WR)
            _until_gone(connection)
        return keep

    return Step(act, body=read)


def json(
    value: object,
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    keep: bool = False,
    content_type: str = "application/json",
) -> Step:
    """Answer with JSON."""
    return answer(status, jsonlib.dumps(value).encode(), content_type, headers=headers, keep=keep)


def problem(status: int, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Step:
    """Answer with an error body of the API."""
    return json(
        {"status": status, **fields},
        status,
        headers=headers,
        content_type="application/problem+json",
    )


def redirect(location: str, status: int = 302) -> Step:
    """Answer with a redirect."""
    return answer(status, headers={"Location": location})


def gzipped(body: bytes, status: int = 200) -> Step:
    """Answer with a compressed body."""
    return answer(status, gzip.compress(body), headers={"Content-Encoding": "gzip"})


def drip(seconds: float, *, every: float, status: int = 200) -> Step:
    """Answer with a byte now and then, for so many seconds."""

    def act(connection: socket.socket, request: Request) -> None:
        connection.sendall(head(status, {"Content-Length": "1000000", "Connection": "close"}))
        pause = threading.Event()
        for _ in range(int(seconds / every)):
            connection.sendall(b" ")
            pause.wait(every)

    return Step(act)


def route(choose: Callable[[Request], Step]) -> Step:
    """Answer with the step that a function chooses for the request."""
    return Step(lambda connection, request: choose(request).act(connection, request))


RESET_BEFORE_READING = Step(lambda connection, request: _reset(connection), early=True)
RESET = raw(reset=True)
CLOSE = raw()
STALL = raw(stall=True)
HTML = b"<!doctype html><html><head><title>Bad gateway</title></head><body>Sorry</body></html>"


def _malformed(connection: socket.socket, request: Request) -> None:
    """Send a good chunk and, a moment later, a malformed one; the connection stays open."""
    connection.sendall(head(200, {"Transfer-Encoding": "chunked"}) + b'5\r\n{"id"\r\n')
    time.sleep(0.05)
    raw(b"zz\r\n: 1}\r\n", stall=True).act(connection, request)


LOST: dict[str, Step] = {
    "reset before reading": RESET_BEFORE_READING,
    "reset after reading": RESET,
    "closed after reading": CLOSE,
    "cut in the status line": raw(b"HTTP/1.1 20"),
    "cut in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl"),
    "reset in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Type: appl", reset=True),
    "cut before the body": raw(head(200, {"Content-Length": "100"})),
    "cut in the body": raw(head(200, {"Content-Length": "100"}), b'{"username"'),
    "reset in the body": raw(head(200, {"Content-Length": "100"}), b'{"username"', reset=True),
    "cut in the chunks": raw(head(200, {"Transfer-Encoding": "chunked"}), b'5\r\n{"id'),
    "malformed chunk": Step(_malformed),
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
