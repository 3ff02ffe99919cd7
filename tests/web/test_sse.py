"""Streams for browsers: bytes of `text/event-stream`."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from replicate_async import Client, EventStream, sse, sync
from replicate_async.exceptions import ArgumentError, ArgumentTypeError
from replicate_async.testing import Clock, Emulator

from .conftest import until


@pytest.fixture(autouse=True)
def models(emulator: Emulator) -> None:
    """Add models to the emulator of the test."""
    add_models(emulator)


def add_models(emulator: Emulator) -> None:
    """Add models that write, and that fail."""

    @emulator.model("acme/poet", official=True)
    async def poet(lines: int = 3, pause: float = 0.0, first: float = 0.0) -> AsyncIterator[str]:
        await anyio.sleep(first)
        for number in range(lines):
            yield f"line {number}\nand more"
            await anyio.sleep(pause)

    @emulator.model("acme/failing", official=True)
    async def failing() -> AsyncIterator[str]:
        yield "one"
        raise ValueError("no luck")


def parsed(content: bytes) -> list[dict[str, str]]:
    """Return the events of a stream, as a browser does; comments have the name ``:``."""
    events = []
    for block in content.decode().split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name == "" and line.startswith(":"):
                name = ":"
            event[name] = event[name] + "\n" + value if name in event else value
        events.append(event)
    return events


async def collected(events: EventStream, **options: Any) -> list[dict[str, str]]:
    """Return all events."""
    return parsed(b"".join([chunk async for chunk in sse(events, **options)]))


async def test_events(client: Client) -> None:
    """The events are those of the stream, with their IDs, after the status."""
    found = await collected(client.stream("acme/poet", {"lines": 2}))
    assert [event["event"] for event in found if event["event"] != "status"] == [
        "output",
        "output",
        "done",
    ]
    assert found[0]["event"] == "status"
    assert json.loads(found[0]["data"])["id"]
    outputs = [event for event in found if event["event"] == "output"]
    assert [event["data"] for event in outputs] == ["line 0\nand more", "line 1\nand more"]
    assert all(event["id"] for event in outputs)


async def test_heartbeats(client: Client) -> None:
    """A silence is filled with comments, and cancels no wait for an event."""
    found = await collected(client.stream("acme/poet", {"first": 1.0}), heartbeat=0.2)
    assert sum(":" in event for event in found) >= 2
    assert [
        json.loads(event["data"])["status"] for event in found if event.get("event") == "status"
    ] == [
        "starting",
        "processing",
    ]
    assert found[-1]["event"] == "done"
    assert sum(event.get("event") == "output" for event in found) == 3


async def test_failures(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is an event, whose data are JSON, and ends the stream; the log of the server has it, too."""
    found = await collected(client.stream("acme/failing"))
    assert found[-1]["event"] == "error"
    facts = json.loads(found[-1]["data"])
    assert facts["type"] == "StreamError"
    assert "no luck" in facts["message"]
    assert facts["id"]
    missing = await collected(client.stream("acme/no-such-model"))
    [error] = [event for event in missing if event["event"] == "error"]
    assert json.loads(error["data"])["id"] is None
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    for warning, reason in zip(warnings, ["no luck", "no-such-model"], strict=True):
        assert warning.startswith("a stream to the browser ends with an error")
        assert reason in warning


async def test_unexpected_failures(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """Of an error that is none of this package, here of a trace hook, only the log has the text."""

    async def fail(*_: object) -> None:
        raise LookupError("secret")

    hooks = aiohttp.TraceConfig()
    hooks.on_request_start.append(fail)
    async with Client(emulator.token, base_url=emulator.url, trace_configs=[hooks]) as broken:
        [error] = await collected(broken.stream("acme/poet"))
    assert json.loads(error["data"]) == {
        "id": None,
        "type": "LookupError",
        "message": "an unexpected error",
    }
    assert "secret" in caplog.text
    assert "Traceback" in caplog.text


async def test_leaving_cancels(client: Client, emulator: Emulator) -> None:
    """A browser that leaves ends the stream, and what it has created."""
    chunks = sse(client.stream("acme/poet", {"lines": 1000, "pause": 0.05}))
    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    await until(lambda: not emulator.ledger.running())
    assert len(emulator.ledger.cancelled()) == 1


async def test_a_handler_that_is_cancelled(client: Client, emulator: Emulator) -> None:
    """So does the cancellation of what iterates over it, in the midst of a wait."""

    async def follow() -> None:
        async for _ in sse(client.stream("acme/poet", {"first": 60})):
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await until(emulator.ledger.running)
        group.cancel_scope.cancel()
    await until(lambda: not emulator.ledger.running())
    assert len(emulator.ledger.cancelled()) == 1


async def test_resuming(client: Client, emulator: Emulator) -> None:
    """With the ID of the last event, the rest comes, and nothing is paid for again."""
    first: list[dict[str, str]] = []
    prediction = await client.predictions.create(
        model="acme/poet", input={"lines": 6, "pause": 0.1}, stream=True
    )
    chunks = sse(prediction.stream())
    async for chunk in chunks:
        first += [event for event in parsed(chunk) if event.get("event") == "output"]
        if len(first) >= 2:
            break
    await chunks.aclose()  # type: ignore[attr-defined]
    again = await client.predictions.get(prediction.id)
    rest = await collected(again.stream(last_event_id=first[-1]["id"]))
    assert "reset" not in [event["event"] for event in rest]
    outputs = [event["data"] for event in (*first, *rest) if event["event"] == "output"]
    assert outputs == [f"line {number}\nand more" for number in range(6)]
    assert len(emulator.ledger.created()) == 1


async def test_starting_again() -> None:
    """If the stream cannot resume, the page is told that the output starts again."""
    with Emulator(clock=Clock(speed=20)) as emulator:
        add_models(emulator)
        async with Client(emulator.token, base_url=emulator.url) as client:
            prediction = await client.predictions.create(model="acme/poet", input={}, stream=True)
            await prediction.wait()
            again = await client.predictions.get(prediction.id)
            # Of an event that never was: the server waits for later ones, and then hangs up.
            found = await collected(again.stream(last_event_id="1900000000:1"))
    kinds = [kind for event in found if (kind := event.get("event"))]
    assert kinds == ["status", "reset", "output", "output", "output", "done"]


@pytest.mark.parametrize("id", ["a\nb", "\0", "é"])
async def test_ids_of_browsers(client: Client, id: str) -> None:
    """What a browser sends is checked before it becomes a header."""
    prediction = await client.predictions.create(model="acme/poet", input={})
    with pytest.raises(ArgumentError, match="last_event_id"):
        prediction.stream(last_event_id=id)


async def test_arguments(client: Client) -> None:
    """Mistakes are told at once."""
    with pytest.raises(ArgumentError, match="heartbeat"):
        sse(client.stream("acme/poet"), heartbeat=-1)
    wrong: Any = client.use
    with pytest.raises(ArgumentTypeError, match="events"):
        sse(wrong)
    with pytest.raises(ArgumentTypeError, match="events"):
        sync.sse(wrong)


def test_sync(emulator: Emulator) -> None:
    """The facade has it, too; leaving early cancels there as well."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        found = parsed(b"".join(sync.sse(client.stream("acme/poet", {"lines": 2}))))
        assert found[-1]["event"] == "done"
        chunks = sync.sse(client.stream("acme/poet", {"lines": 1000, "pause": 0.05}))
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        deadline = threading.Event()
        for _ in range(400):
            if not emulator.ledger.running():
                break
            deadline.wait(0.05)
    assert len(emulator.ledger.cancelled()) == 1
