"""Output and updates of a prediction, iterated over while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from replicate_async import Client, FileOutput
from replicate_async.exceptions import (
    ContactLost,
    NotFoundError,
    PredictionAborted,
    PredictionCanceled,
    PredictionFailed,
    ReplicateException,
)
from replicate_async.testing import AsyncConcatenateIterator, Emulator, OutputFile

from .conftest import HELLO
from .wire import Request, Step, Wire, client_of, json, problem

ID = "wm41d8ffq9rgj0cjb2ysrvzve0"
ENDED = {"status": "succeeded", "completed_at": "2025-12-02T10:15:33Z"}


def states(*states: dict[str, Any], stream: str | None = None) -> Wire:
    """Return a server of a prediction that is in each of the states once, and then in the last."""
    left = list(states)

    def choose(request: Request) -> Step:
        if request.method == "POST":
            state: dict[str, Any] = {"status": "starting"}
        else:
            state = left.pop(0) if len(left) > 1 else left[0]
        urls = {} if stream is None else {"stream": stream}
        return json({"id": ID, "urls": urls, "input": {}, **state})

    return Wire(choose)


async def items_of(wire: Wire, **options: Any) -> list[Any]:
    """Iterate over the output of a prediction."""
    with wire:
        async with client_of(wire, poll_interval=0.001, **options) as client:
            own = await client.predictions.create(model="acme/poet")
            return [item async for item in own.output_iterator()]


async def drain(items: AsyncIterator[Any], into: list[Any]) -> None:
    """Keep what comes before a failure."""
    async for item in items:
        into.append(item)  # noqa: PERF401  (a comprehension would lose it)


RUNNING = {"status": "processing"}


async def test_items_appear_once() -> None:
    """Items come as they appear, none twice, none missed, whatever the polls show."""
    wire = states(
        {**RUNNING, "output": None},
        {**RUNNING, "output": []},
        {**RUNNING, "output": ["a", "a"]},
        {**RUNNING, "output": ["a", "a"]},
        {**RUNNING, "output": ["a"]},  # an older state, from another machine
        {**RUNNING, "output": ["a", "a", "b", {"n": 1}]},
        {**ENDED, "output": ["a", "a", "b", {"n": 1}, 5, None]},
    )
    assert await items_of(wire) == ["a", "a", "b", {"n": 1}, 5, None]


@pytest.mark.parametrize("output", ["text", 0, False, {"a": [1]}, ""])
async def test_output_that_is_no_list(output: object) -> None:
    """It is one item, when it is complete."""
    wire = states({**RUNNING, "output": "te"}, {**ENDED, "output": output})
    assert await items_of(wire) == [output]


async def test_no_output() -> None:
    """Nothing is nothing."""
    outputs: list[Any] = [None, []]
    for output in outputs:
        assert await items_of(states({**ENDED, "output": output})) == []


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"status": "failed", "error": "out of words"}, PredictionFailed),
        ({"status": "canceled"}, PredictionCanceled),
        ({"status": "aborted"}, PredictionAborted),
    ],
)
async def test_the_failure_comes_last(
    state: dict[str, Any], error: type[ReplicateException]
) -> None:
    """What there is comes first, then the failure; so it is with updates."""
    ended = {**state, "completed_at": "2025-12-02T10:15:33Z", "output": ["a"], "logs": "x"}
    for follow in ("output_iterator", "updates"):
        with states(ended) as wire:
            async with client_of(wire, poll_interval=0.001) as client:
                own = await client.predictions.create(model="acme/poet")
                got: list[Any] = []
                with pytest.raises(error) as caught:
                    await drain(getattr(own, follow)(), got)
        assert caught.value.prediction is own  # type: ignore[attr-defined]
        if follow == "updates":
            assert (got[-1].status, got[-1].logs) == (state["status"], "x")
        else:
            assert got == ["a"]


async def test_what_is_refused_is_raised() -> None:
    """A prediction that is not there is an error, not an empty output."""

    def choose(request: Request) -> Step:
        if request.method == "POST":
            return json({"id": ID, "status": "starting", "urls": {}})
        return problem(404)

    with pytest.raises((NotFoundError, ContactLost)):
        await items_of(Wire(choose))


@pytest.mark.parametrize("stream", ["//[", "http://[", "http://[::1/v1/streams/x", "https://a:b/"])
async def test_a_stream_at_no_url_is_polled(stream: str) -> None:
    """An address that no URL parser reads costs the stream, but not the output."""
    wire = states(RUNNING, {**ENDED, "output": ["a"]}, stream=stream)
    with wire:
        async with client_of(wire, poll_interval=0.001) as client:
            own = await client.predictions.create(model="acme/poet")
            events = [event async for event in own.stream()]
    assert [event.data for event in events if event.event == "output"] == ["a"]


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        (None, FileOutput),
        ("https://stream.replicate.com/v1/files/x", FileOutput),
        ("https://stream.replicate.com/v1/streams/x", str),
    ],
)
async def test_files_and_texts(stream: str | None, kind: type) -> None:
    """URLs are files, but not those that a language model writes."""
    url = "https://replicate.delivery/x/out-0.png"
    output = [url]
    wire = states({**RUNNING, "output": output}, {**ENDED, "output": output}, stream=stream)
    (item,) = await items_of(wire)
    assert type(item) is kind
    assert str(item) == url


async def test_leaving_early(client: Client, emulator: Emulator) -> None:
    """Leaving the loop leaves the prediction running."""

    @emulator.model("acme/slow")
    async def slow() -> AsyncConcatenateIterator[str]:
        yield "first"
        await anyio.sleep_forever()

    version = (await client.models.get("acme/slow")).latest_version
    assert version is not None
    own = await version.predictions.create({})
    async for item in own.output_iterator():
        assert item == "first"
        break
    assert emulator.ledger.cancelled() == []
    await own.cancel()


async def test_emulated(client: Client, emulator: Emulator) -> None:
    """Texts and files of real models."""

    @emulator.model("acme/painter")
    def painter() -> list[OutputFile]:
        return [OutputFile(b"a", "a.txt"), OutputFile(b"b", "b.txt")]

    async def items(create: Callable[[], Any]) -> list[Any]:
        return [item async for item in (await create()).output_iterator()]

    model = await client.models.get("acme/painter")
    assert model.latest_version is not None
    files = await items(model.latest_version.predictions.create)
    assert [await file.read() for file in files] == [b"a", b"b"]
    own = await client.predictions.create(model="emulator/writer", input={"prompt": "x"})
    tokens = [item async for item in own.output_iterator()]
    assert tokens == own.output
    assert [i async for i in own.output_iterator()] == tokens
    said = await client.predictions.create(HELLO, {"text": "Al"})
    assert [item async for item in said.output_iterator()] == ["hello Al"]
