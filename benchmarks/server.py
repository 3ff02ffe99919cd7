"""A server that costs next to nothing, for the benchmarks: canned answers over HTTP/1.1.

It answers the few operations that the workloads use, on 127.0.0.1, in the shapes of the real
API, and knows just enough HTTP for that: keep-alive, bodies by length or in chunks, no pipelining.
An ``asyncio.Protocol`` that writes bytes made beforehand takes a fraction of what a client spends
on the same call, so the client is what is measured. For anything else there is the emulator.

Models, told apart by name, so that most answers need no look at the request's body:

``acme/greeter``
    is done at once.
``acme/slow``
    is done after 100 ms.
``acme/sleeper``
    is done after ``input.seconds``. Its output is the moment it was done, in seconds of the
    machine's monotonic clock, which all processes share: so a client can tell how late it is.
``acme/linker``
    is done at once. Its output is ``input.url``.
``acme/talker``, ``acme/mumbler``
    stream text, in one chunk for each event or in large ones.

Run as a script, it prints its port on the first line. A line ``counters`` on its standard input
is answered with a JSON object of what was counted so far. It ends when its input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from typing import Any

PAGES = 50
"""Pages of the list of predictions."""

PAGE_SIZE = 100
"""Predictions on a page (:api:`pagination`)."""

EVENTS = 50_000
"""Events of output in the stream of a model that talks."""

STREAM_PIECE = 16 * 1024
"""Bytes in a chunk of the stream of ``acme/mumbler``; ``acme/talker`` sends each event in its own."""

BLOB = bytes(range(256)) * 4096
"""What files are made of: 1 MiB."""

FILE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n"
    b'ETag: "5eb63bbbe01eeed093cb22bb8f5acdc3"\r\nAccept-Ranges: bytes\r\n\r\n'
)
"""The head of the answer with a file."""

SLOW_SECONDS = 0.1
"""How long the model ``acme/slow`` takes."""

VERSION_ID = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
"""The version in references of the form ``owner/name:version``."""

_TEXT = (
    "a portrait of an old fisherman mending nets at dawn soft light over calm water detailed "
    "film grain shallow depth of field muted colours wide angle composition quiet harbour"
)
_WORDS = _TEXT.split()

_REASONS = {200: "OK", 201: "Created", 404: "Not Found"}


def _response(status: int, body: bytes, *headers: str) -> bytes:
    """Return a whole response, with the headers that the API sends (:api:`response-headers`)."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Vary: Accept-Encoding",
        "ratelimit-remaining: 599",
        "ratelimit-reset: 1",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _prediction_id(number: int) -> bytes:
    """Return an identifier of 26 characters (:api:`identifiers`)."""
    return b"bench%021d" % number


def _prediction(prediction_id: str, base_url: str, **changes: Any) -> dict[str, Any]:
    """Return a prediction in the style of the prediction service (:api:`predictions.get`)."""
    url = f"{base_url}/v1/predictions/{prediction_id}"
    prediction: dict[str, Any] = {
        "id": prediction_id,
        "model": "acme/greeter",
        "version": VERSION_ID,
        "input": {"text": "Alice"},
        "logs": "",
        "output": "hello Alice",
        "data_removed": False,
        "error": None,
        "source": "api",
        "status": "succeeded",
        "created_at": "2025-12-02T10:15:30.123Z",
        "started_at": "2025-12-02T10:15:30.136176Z",
        "completed_at": "2025-12-02T10:15:30.148859Z",
        "metrics": {"predict_time": 0.012683, "total_time": 0.025859},
        "urls": {
            "cancel": f"{url}/cancel",
            "get": url,
            "web": f"https://replicate.com/p/{prediction_id}",
        },
    }
    prediction.update(changes)
    return prediction


def _words(source: random.Random, count: int) -> str:
    return " ".join(source.choices(_WORDS, k=count))


def _listed_prediction(source: random.Random, number: int, base_url: str) -> dict[str, Any]:
    """Return one of the list's predictions: some 1100 bytes, in the other style.

    All keys are there, in alphabetical order, and times have six digits (:api:`json-styles`).
    A third each are images and token lists, the rest texts and failures, with as many inputs and
    metrics as such models have.
    """
    kind = ("image", "tokens", "image", "tokens", "text", "failure")[number % 6]
    second = f"2025-12-{1 + number % 28:02d}T{number % 24:02d}:{number % 60:02d}:{number % 59:02d}"
    given: dict[str, Any] = {"prompt": _words(source, source.randint(5, 9))}
    metrics = {
        "predict_time": round(source.random() * 9, 6),
        "total_time": round(source.random() * 9, 6),
    }
    output: Any
    if kind == "image":
        given |= {
            "seed": source.randrange(10**6),
            "width": 1024,
            "height": 768,
            "num_outputs": 1,
            "guidance_scale": 3.5,
            "num_inference_steps": 28,
            "output_format": "webp",
        }
        metrics |= {"image_count": 1}
        name = f"{source.getrandbits(160):040x}"
        output = [f"https://replicate.delivery/xezq/{name}/out-0.webp"]
    elif kind == "tokens":
        given |= {"max_tokens": 128, "temperature": 0.7, "top_p": 0.9, "presence_penalty": 0}
        metrics |= {
            "input_token_count": source.randrange(100),
            "output_token_count": 64,
            "tokens_per_second": round(source.random() * 90, 3),
            "time_to_first_token": round(source.random(), 6),
        }
        output = [f" {word}" for word in source.choices(_WORDS, k=64)]
    elif kind == "text":
        given |= {"temperature": 0.2, "language": "en", "translate": False}
        output = _words(source, 12)
    else:
        output = None
    logs = (
        "".join(f"{step}%|##  | {step}/100\n" for step in (25, 50, 100)) if kind == "image" else ""
    )
    prediction = _prediction(
        _prediction_id(number).decode(),
        base_url,
        completed_at=f"{second}.{source.randrange(10**6):06d}Z",
        created_at=f"{second}.{source.randrange(10**6):06d}Z",
        started_at=f"{second}.{source.randrange(10**6):06d}Z",
        error="CUDA out of memory" if output is None else None,
        input=given,
        logs=logs or None,
        metrics=metrics,
        output=output,
        status="failed" if output is None else "succeeded",
    )
    return dict(sorted(prediction.items()))


def page_bodies(base_url: str) -> list[bytes]:
    """Return the pages of the list of predictions as JSON, the same ones at every call."""
    source = random.Random(7)
    bodies: list[bytes] = []
    for page in range(PAGES):
        following = f"{base_url}/v1/predictions?cursor={page + 1}" if page + 1 < PAGES else None
        first = page * PAGE_SIZE
        results = [
            _listed_prediction(source, number, base_url)
            for number in range(first, first + PAGE_SIZE)
        ]
        content = {"next": following, "previous": None, "results": results}
        bodies.append(json.dumps(content, separators=(",", ":")).encode())
    return bodies


def _version_body() -> bytes:
    """Return a version with a schema of usual size, some 14 kB (:api:`models.versions.get`)."""
    source = random.Random(9)
    properties = {
        f"parameter_{number}": {
            "type": "integer",
            "title": f"Parameter {number}",
            "description": _words(source, 20),
            "default": number,
            "minimum": 0,
            "maximum": 1000,
            "x-order": number,
        }
        for number in range(45)
    }
    schemas = {
        "Input": {"type": "object", "title": "Input", "properties": properties},
        "Output": {"type": "string", "title": "Output"},
    }
    version = {
        "id": VERSION_ID,
        "created_at": "2025-11-30T19:29:04.418669Z",
        "cog_version": "0.16.7",
        "openapi_schema": {
            "openapi": "3.0.2",
            "info": {"title": "Cog", "version": "0.1.0"},
            "paths": {},
            "components": {"schemas": schemas},
        },
    }
    return json.dumps(version).encode()


def stream_tokens() -> list[str]:
    """Return the tokens of a stream, the same ones at every call: words, and some line ends."""
    source = random.Random(11)
    return [
        "\n\n" if number % 50 == 49 else f" {source.choice(_WORDS)}" for number in range(EVENTS)
    ]


def _stream(piece: int | None) -> bytes:
    """Return a whole stream as it is sent, in chunks of *piece* bytes or of an event each."""
    events = [
        b"event: output\nid: %d:%d\n%s\n\n"
        % (1764670530 + number // 100, number % 100, _data_lines(token))
        for number, token in enumerate(stream_tokens())
    ]
    events = [b": hi\n\n", *events, b"event: done\nid: 1764671531:0\ndata: {}\n\n"]
    if piece is not None:
        whole = b"".join(events)
        events = [whole[start : start + piece] for start in range(0, len(whole), piece)]
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events]
    return b"".join([head, *chunks, b"0\r\n\r\n"])


def _data_lines(text: str) -> bytes:
    return "\n".join(f"data: {line}" for line in text.split("\n")).encode()


def _file(base_url: str) -> dict[str, Any]:
    """Return the record of an uploaded file (:api:`file-object`)."""
    return {
        "id": "cneqzikepnug6xezperrr4z55o",
        "name": "large.bin",
        "content_type": "application/octet-stream",
        "size": len(BLOB),
        "etag": "d41d8cd98f00b204e9800998ecf8427e",
        "checksums": {"md5": "d41d8cd98f00b204e9800998ecf8427e"},
        "metadata": {},
        "created_at": "2025-12-02T12:26:51.079Z",
        "expires_at": "2025-12-03T12:26:51.079Z",
        "urls": {"get": f"{base_url}/v1/files/cneqzikepnug6xezperrr4z55o"},
    }


class Answers:
    """What the server says: answers made beforehand, predictions that are not done yet, counters.

    Answers that differ only in the prediction's identifier are templates for ``bytes %``.
    """

    def __init__(self, base_url: str) -> None:
        """Make the answers of a server whose origin is *base_url*."""
        self.base_url: str = base_url
        self.connections: int = 0
        self.requests: int = 0
        self.creates: int = 0
        self.reads: int = 0
        self.unfinished: dict[bytes, float] = {}
        self.numbers: itertools.count[int] = itertools.count(1_000_000)
        self.created: bytes = self._template(201, "Preference-Applied: wait")
        self.read: bytes = self._template(200)
        self.pages: list[bytes] = [_response(200, body) for body in page_bodies(base_url)]
        self.file: bytes = _response(201, json.dumps(_file(base_url)).encode())
        self.version: bytes = _response(200, _version_body())
        self.streams: dict[bytes, bytes] = {
            b"talker": _stream(None),
            b"mumbler": _stream(STREAM_PIECE),
        }
        missing = {"detail": "The requested resource could not be found.", "status": 404}
        self.missing: bytes = _response(404, json.dumps(missing).encode())

    def _template(self, status: int, *headers: str) -> bytes:
        # An identifier as long as the real ones, so that Content-Length is right.
        marker = "@" * 26
        body = json.dumps(_prediction(marker, self.base_url), separators=(",", ":"))
        response = _response(status, body.encode(), *headers)
        return response.replace(b"%", b"%%").replace(marker.encode(), b"%(id)b")

    def counters(self) -> dict[str, int]:
        """Return what was counted since the start."""
        return {
            "connections": self.connections,
            "requests": self.requests,
            "creates": self.creates,
            "reads": self.reads,
        }

    def done(self, status: int, prediction_id: bytes, moment: float) -> bytes:
        """Return the answer for a finished prediction of ``acme/sleeper``."""
        text = prediction_id.decode()
        body = _prediction(text, self.base_url, model="acme/sleeper", output=repr(moment))
        return _response(status, json.dumps(body).encode())

    def linked(self, prediction_id: bytes, url: str) -> bytes:
        """Return the answer for a prediction whose output is a URL."""
        body = _prediction(prediction_id.decode(), self.base_url, model="acme/linker", output=url)
        return _response(201, json.dumps(body).encode())

    def streaming(self, prediction_id: bytes, model: bytes) -> bytes:
        """Return the answer for a prediction that streams."""
        text = prediction_id.decode()
        body = _prediction(text, self.base_url, model=f"acme/{model.decode()}", status="starting")
        for key in ("output", "metrics", "started_at", "completed_at"):
            del body[key]
        body["urls"]["stream"] = f"{self.base_url}/v1/streams/{model.decode()}/{text}"
        return _response(201, json.dumps(body).encode())

    def running(self, status: int, prediction_id: bytes) -> bytes:
        """Return the answer for a prediction that is not done."""
        body = _prediction(
            prediction_id.decode(), self.base_url, model="acme/sleeper", status="starting"
        )
        for key in ("output", "metrics", "started_at", "completed_at"):
            del body[key]
        return _response(status, json.dumps(body).encode())


class ServerProtocol(asyncio.Protocol):
    """One connection: takes requests out of the bytes, and answers one at a time."""

    def __init__(self, answers: Answers, loop: asyncio.AbstractEventLoop) -> None:
        """Serve *answers*; timers run on *loop*."""
        self.answers: Answers = answers
        self.loop: asyncio.AbstractEventLoop = loop
        self.received: bytes = b""
        self.to_discard: int = 0
        self.to_send: int = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.answers.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport: an answer that is still due goes nowhere."""
        self.transport = None

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        if self.to_discard:
            self._discard(len(data))
            return
        self.received = self.received + data if self.received else data
        while self.received:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.received[:end].lower()
            if head.startswith(b"post /v1/files "):
                self.answers.requests += 1
                length = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
                self.to_discard = length
                start, self.received = len(self.received) - end - 4, b""
                self._discard(start)
                return
            taken = self._take_body(head, end + 4)
            if taken is None:
                return
            body, used = taken
            method, target, _ = self.received[: self.received.index(b"\r\n")].split(b" ", 2)
            self.received = self.received[used:]
            self._answer(method, target, head, body)
            if b"\r\nconnection: close" in head and self.transport is not None:
                self.transport.close()

    def _take_body(self, head: bytes, start: int) -> tuple[bytes, int] | None:
        """Return the body and where it ends, or None if it is not complete."""
        received = self.received
        position = head.find(b"\r\ncontent-length:")
        if position >= 0:
            value = head[position + 17 :].split(b"\r\n", 1)[0]
            end = start + int(value)
            return (received[start:end], end) if len(received) >= end else None
        if b"\r\ntransfer-encoding: chunked" not in head:
            return b"", start
        parts: list[bytes] = []
        while True:
            line_end = received.find(b"\r\n", start)
            if line_end < 0:
                return None
            size = int(received[start:line_end].split(b";", 1)[0], 16)
            start = line_end + 2 + size + 2
            if len(received) < start:
                return None
            if size == 0:
                return b"".join(parts), start
            parts.append(received[line_end + 2 : start - 2])

    def _discard(self, received: int) -> None:
        """Take in an upload, of which nothing is kept, and answer it at its end."""
        self.to_discard -= received
        if not self.to_discard:
            self._send(self.answers.file)

    def resume_writing(self) -> None:
        """Go on with a file."""
        while self.to_send and self.transport is not None:
            self.to_send -= 1
            self.transport.write(BLOB)
            if self.transport.get_write_buffer_size() > len(BLOB):
                return

    def _send(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def _answer(self, method: bytes, target: bytes, head: bytes, body: bytes) -> None:
        self.answers.requests += 1
        if method == b"POST":
            self._create(target, b"\r\nprefer: wait" in head, body)
        elif target.startswith(b"/v1/predictions/"):
            self._read(target[16:])
        elif target.startswith(b"/v1/predictions"):
            cursor = target.partition(b"cursor=")[2]
            self._send(self.answers.pages[int(cursor or 0)])
        elif target.startswith(b"/v1/streams/"):
            self._send(self.answers.streams[target.split(b"/")[3]])
        elif target.startswith(b"/files/"):
            self.to_send = int(target.split(b"/")[2])
            self._send(FILE_HEAD % (self.to_send * len(BLOB)))
            self.resume_writing()
        elif b"/versions/" in target:
            self._send(self.answers.version)
        else:
            self._send(self.answers.missing)

    def _create(self, target: bytes, hold: bool, body: bytes) -> None:
        answers = self.answers
        prediction_id = _prediction_id(next(answers.numbers))
        if not target.endswith(b"/predictions"):
            self._send(answers.missing)
            return
        answers.creates += 1
        if b"/sleeper/" in target:
            seconds = float(json.loads(body)["input"]["seconds"])
            if hold:
                self.loop.call_later(seconds, self._send_done, prediction_id)
            else:
                answers.unfinished[prediction_id] = time.monotonic() + seconds
                self._send(answers.running(201, prediction_id))
        elif b"/linker/" in target:
            self._send(answers.linked(prediction_id, json.loads(body)["input"]["url"]))
        elif b"/talker/" in target or b"/mumbler/" in target:
            model = b"talker" if b"/talker/" in target else b"mumbler"
            self._send(answers.streaming(prediction_id, model))
        elif b"/slow/" in target:
            response = answers.created % {b"id": prediction_id}
            self.loop.call_later(SLOW_SECONDS, self._send, response)
        else:
            self._send(answers.created % {b"id": prediction_id})

    def _send_done(self, prediction_id: bytes) -> None:
        self._send(self.answers.done(201, prediction_id, time.monotonic()))

    def _read(self, prediction_id: bytes) -> None:
        answers = self.answers
        answers.reads += 1
        moment = answers.unfinished.get(prediction_id)
        if moment is None:
            self._send(answers.read % {b"id": prediction_id})
        elif moment > time.monotonic():
            self._send(answers.running(200, prediction_id))
        else:
            self._send(answers.done(200, prediction_id, moment))


async def serve() -> None:
    """Serve on a free port until the standard input ends."""
    loop = asyncio.get_running_loop()
    answers: Answers | None = None

    def protocol() -> ServerProtocol:
        assert answers is not None
        return ServerProtocol(answers, loop)

    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    answers = Answers(f"http://127.0.0.1:{port}")
    ended = asyncio.Event()

    def on_input() -> None:
        line = sys.stdin.readline()
        if line:
            print(json.dumps(answers.counters()), flush=True)
        else:
            ended.set()

    loop.add_reader(sys.stdin.fileno(), on_input)
    async with server:
        print(port, flush=True)
        await ended.wait()
        loop.remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    asyncio.run(serve())
