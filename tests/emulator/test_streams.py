"""Server-sent events (HTTP API, section 5)."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from replicate_async.testing import ConcatenateIterator, Emulator, OutputFile, log

from .conftest import HELLO, Api


@attrs.frozen
class Event:
    """One event, decoded."""

    event: str
    id: str
    data: str


def parse(body: bytes) -> list[Event]:
    """Decode a whole stream; comments are dropped."""
    assert b"\r" not in body
    found: list[Event] = []
    for block in body.decode().split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                fields.setdefault(name, []).append(value.removeprefix(" "))
        if "event" in fields:
            found.append(Event(fields["event"][0], fields["id"][0], "\n".join(fields["data"])))
    return found


async def _stream(api: Api, url: str, last_id: str | None = None) -> bytes:
    """Read a stream until `done`."""
    headers = {"Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    async with asyncio.timeout(20), api.session.get(url, headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        body = b""
        async for chunk in response.content.iter_any():
            body += chunk
            if re.search(rb"event: done\n.*\n\n", body, re.DOTALL):
                return body
        return body


async def _create(api: Api, model: str, input: dict[str, Any] | None = None) -> Any:
    version = (await api("GET", f"/models/{model}")).json()["latest_version"]["id"]
    return await api.run(version, input or {})


async def test_text_stream(api: Api, emulator: Emulator) -> None:
    """Items arrive as they are: leading spaces, line breaks and all; ids count within a second."""
    pieces = ["Soft wool", " drifts,\nand rests", "\n\n", "", " é"]

    @emulator.model("acme/poet")
    def poet() -> ConcatenateIterator[str]:
        yield from pieces

    created = await _create(api, "acme/poet")
    url = created["urls"]["stream"]
    assert url.startswith(f"{emulator.stream_url}/v1/streams/")
    body = await _stream(api, url)
    events = parse(body)
    assert body.startswith(b": hi\n\n")
    assert [e.data for e in events[:-1]] == pieces
    assert (events[-1].event, events[-1].data) == ("done", "{}")
    assert all(re.fullmatch(r"\d+:\d+", e.id) for e in events)
    assert len({e.id for e in events}) == len(events)


async def test_resume(api: Api, emulator: Emulator) -> None:
    """With `Last-Event-ID` the stream goes on after it; without, it replays from the start."""

    @emulator.model("acme/count")
    def count() -> Iterator[int]:
        yield from range(5)

    url = (await _create(api, "acme/count"))["urls"]["stream"]
    events = parse(await _stream(api, url))
    assert [e.data for e in events[:-1]] == ["0", "1", "2", "3", "4"]
    assert parse(await _stream(api, url)) == events
    for index, event in enumerate(events[:-1]):
        assert parse(await _stream(api, url, event.id)) == events[index + 1 :]
    assert parse(await _stream(api, url, "nonsense")) == events


async def test_events_arrive_as_they_happen(api: Api, emulator: Emulator) -> None:
    """An item is on the wire before the model makes the next one."""
    gate = threading.Event()

    @emulator.model("acme/slow")
    def slow() -> ConcatenateIterator[str]:
        yield "first"
        assert gate.wait(20)
        yield "second"

    url = (await _create(api, "acme/slow"))["urls"]["stream"]
    async with asyncio.timeout(20), api.session.get(url) as response:
        body = b""
        while b"data: first\n" not in body:
            body += await response.content.readany()
        assert b"second" not in body
        gate.set()
        while b"event: done" not in body:
            body += await response.content.readany()
        assert b"data: second\n" in body


async def test_file_stream(api: Api, emulator: Emulator) -> None:
    """A model with file output streams URLs, under `/v1/files/`."""

    @emulator.model("acme/files")
    def files() -> list[OutputFile]:
        return [OutputFile(b"a", "a.txt"), OutputFile(b"b", "b.txt")]

    url = (await _create(api, "acme/files"))["urls"]["stream"]
    assert url.startswith(f"{emulator.stream_url}/v1/files/")
    events = parse(await _stream(api, url))
    assert [e.event for e in events] == ["output", "output", "done"]
    contents = [(await api("GET", e.data, token=None)).body for e in events[:-1]]
    assert contents == [b"a", b"b"]


async def test_failure(api: Api, emulator: Emulator) -> None:
    """A failure sends `error`, then `done` with the reason."""

    @emulator.model("acme/breaks")
    def breaks() -> ConcatenateIterator[str]:
        yield "x"
        raise ValueError("out of words")

    url = (await _create(api, "acme/breaks"))["urls"]["stream"]
    events = parse(await _stream(api, url))
    assert [(e.event, e.data) for e in events] == [
        ("output", "x"),
        ("error", '{"detail":"out of words"}'),
        ("done", '{"reason":"error"}'),
    ]


async def test_cancel(api: Api, emulator: Emulator) -> None:
    """A cancelled prediction ends its stream with the reason."""

    @emulator.model("acme/hang", streams=True)
    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    created = await _create(api, "acme/hang")
    await api("POST", f"/predictions/{created['id']}/cancel")
    events = parse(await _stream(api, created["urls"]["stream"]))
    assert [(e.event, e.data) for e in events] == [("done", '{"reason":"canceled"}')]


async def test_logs_and_retry_on_request(api: Api, emulator: Emulator) -> None:
    """`stream_logs` and `stream_retry` add `logs` events and a `retry` field."""

    @emulator.model("acme/chatty", stream_logs=True, stream_retry=250)
    def chatty() -> ConcatenateIterator[str]:
        log("thinking\n")
        yield "x"

    body = await _stream(api, (await _create(api, "acme/chatty"))["urls"]["stream"])
    assert b"retry: 250\n" in body
    assert ("logs", "thinking\n") in [(e.event, e.data) for e in parse(body)]


async def test_idle_stream_is_closed(api: Api, emulator: Emulator) -> None:
    """After 30 seconds without an event the server sends a comment and hangs up."""
    url = (await _create(api, "emulator/writer", {"prompt": "x", "max_tokens": 1}))["urls"][
        "stream"
    ]
    async with asyncio.timeout(20), api.session.get(url) as response:
        body = b""
        while b"event: done" not in body:
            body += await response.content.readany()
        emulator.clock.advance(31)
        body += await response.read()
    assert body.endswith(b":408: 408 Request Timeout\n\n")


async def test_stream_expires(api: Api, emulator: Emulator) -> None:
    """After an hour nothing is left of a stream."""
    created = await _create(api, "emulator/writer", {"prompt": "x", "max_tokens": 1})
    await api.finished(created["id"])
    emulator.clock.advance(3601)
    answer = await api("GET", created["urls"]["stream"], token=None)
    assert answer.body == b": hi\n\n:408: 408 Request Timeout\n\n"


async def test_no_stream(api: Api, emulator: Emulator) -> None:
    """A model that does not stream has no URL; an unknown token or path is a 404."""
    created = await api.run(HELLO, {"text": "a"})
    assert "stream" not in created["urls"]
    for path in ("/v1/streams/none", "/v1/streams", "/x"):
        assert (await api("GET", f"{emulator.stream_url}{path}", token=None)).status == 404


@pytest.mark.parametrize("origin", ["files_url", "stream_url"])
async def test_leaked_tokens_are_noted(api: Api, emulator: Emulator, origin: str) -> None:
    """The ledger notes a token that was sent to another origin than the API's."""
    await api("GET", f"{getattr(emulator, origin)}/x", token=None)
    await api("GET", "/account")
    assert emulator.ledger.leaks() == []
    await api("GET", f"{getattr(emulator, origin)}/x")
    assert len(emulator.ledger.leaks()) == 1
