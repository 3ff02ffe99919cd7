"""Answers that belong to other requests: they are taken for lost ones, and their connections are not used again."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from replicate_async import Client, exceptions
from replicate_async.testing import Emulator, Reply

from . import faults
from .conftest import until
from .wire import PREDICTION, QUICK, Request, Wire, client_of, json


@pytest.fixture
def world() -> Any:
    """Run an emulator with a wire."""
    with Emulator(rate_limits=False, wire=True) as running:
        yield running


def _client(emulator: Emulator, **options: Any) -> Client:
    return Client(emulator.token, base_url=emulator.url, retry=QUICK, rate_limit=False, **options)


async def _predictions(client: Client, number: int = 3) -> list[str]:
    """Create predictions, and wait for their ends."""
    made = [
        await client.predictions.create(model="replicate/hello-world", input={"text": str(n)})
        for n in range(number)
    ]
    return [(await prediction.wait()).id for prediction in made]


STALE = Reply.json({**PREDICTION, "id": "stale", "status": "processing"})


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["at once", "later"])
async def test_an_answer_that_nobody_asked_for(world: Emulator, pause: float, busy: bool) -> None:
    """No later answer is off by one, whenever the extra one arrives."""
    async with _client(world) as client:
        ids = await _predictions(client)
        for _ in range(5):
            for each in ids:
                assert (await client.predictions.get(each)).id == each
                world.wire.interject(STALE, busy=busy)
                await anyio.sleep(pause)


async def test_an_idle_connection_with_bytes_is_closed(world: Emulator) -> None:
    """A connection on which something arrives while nobody uses it is not used again."""
    async with _client(world) as client:
        await _predictions(client, 1)
        accepted, retried = world.wire.accepted, client.stats.retried
        world.wire.interject(STALE)
        await anyio.sleep(0.2)
        assert (await client.accounts.current()).username == world.account
        assert (world.wire.accepted, client.stats.retried) == (accepted + 1, retried)


@pytest.mark.parametrize(
    "garbage", [b"\0", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 400 Bad\r\n\r\n"]
)
async def test_any_bytes(world: Emulator, garbage: bytes) -> None:
    """Whatever arrives, the next create is sent on a connection that is sound, and once."""
    async with _client(world) as client:
        await _predictions(client, 1)
        world.wire.interject(Reply.raw(garbage))
        await anyio.sleep(0.2)
        await _predictions(client, 1)
    assert len(world.ledger.created()) == 2


def _other(request: Request) -> Reply:
    return json({**PREDICTION, "id": "other", "status": "processing"}, keep=True)


@pytest.mark.parametrize("namespace", ["predictions", "trainings", "files"])
async def test_reads(namespace: str) -> None:
    """A read is repeated on another connection."""
    right = {**PREDICTION, "id": "abc"}
    with Wire(_other, json(right)) as wire:
        async with client_of(wire) as client:
            found = await getattr(client, namespace).get("abc")
            assert (found.id, client.stats.retried) == ("abc", 1)
        assert [request.connection for request in wire.requests] == [1, 2]


async def test_reads_that_are_always_mixed_up() -> None:
    """The error says what came and what was asked for, after a bounded number of attempts."""
    with Wire(_other) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.ConnectionLost, match=r"'other', not about 'abc'"):
                await client.predictions.get("abc")
        assert len(wire.requests) == QUICK.attempts


async def test_cancelling() -> None:
    """A cancellation whose answer is about another prediction is repeated."""
    right = {**PREDICTION, "id": "abc", "status": "canceled"}
    with Wire(_other, json(right)) as wire:
        async with client_of(wire) as client:
            assert (await client.predictions.cancel("abc")).status == "canceled"
        assert [request.path for request in wire.requests] == ["/v1/predictions/abc/cancel"] * 2


async def test_runs_in_flight(world: Emulator) -> None:
    """Many runs at a time each get their own output, although answers come twice."""

    @world.model("acme/echo", official=True)
    async def echo(text: str, seconds: float = 0.0) -> str:
        await asyncio.sleep(seconds)
        return text

    async with _client(world, poll_interval=0.02) as client, asyncio.timeout(60):

        async def run(number: int) -> None:
            text = f"text {number}"
            given = {"text": text, "seconds": 0.5 + number % 5 / 10}
            assert await client.run("acme/echo", given, wait=False) == text

        runs = asyncio.gather(*(run(number) for number in range(40)))
        # Until the creates are answered: what a create answers with is known to be foreign only if it is another call's.
        await until(lambda: client.stats.created == 40)
        while not runs.done():
            world.wire.interject(STALE, busy=True)
            await anyio.sleep(0.1)
        await runs
    assert len(world.ledger.created()) == 40
    assert world.ledger.running() == []


async def test_lists(world: Emulator) -> None:
    """A list whose answer was something else does not spoil the next one."""
    async with _client(world) as client:
        ids = await _predictions(client)
        world.wire.interject(STALE)
        assert {job.id for job in await client.predictions.list()} == set(ids)
    with Wire(_other, json({"results": [], "next": None}, keep=True), json({"id": "abc"})) as wire:
        async with client_of(wire) as client:
            assert len(await client.predictions.list()) == 0
            assert (await client.predictions.get("abc")).id == "abc"
        assert [request.connection for request in wire.requests] == [1, 2, 2]
    with Wire(json({"results": [], "next": None}), json({"id": "abc"})) as wire:
        async with client_of(wire) as client:
            assert (await client.predictions.get("abc")).id == "abc"


async def test_a_create_with_the_answer_of_another(world: Emulator) -> None:
    """A create that is answered with the ID of another call is looked up in the list."""
    async with faults.with_timings(_client(world), faults.QUICK) as client:
        ids = await _predictions(client, 1)
        stale = Reply.json({**PREDICTION, "id": ids[0], "status": "starting"}, 201)
        world.wire.inject(stale, method="POST", times=1)
        with pytest.raises(exceptions.AmbiguousCreateError):
            await client.run("replicate/hello-world", {"text": "b"})
        assert len(world.ledger.created()) == 1  # this reply has created nothing


async def test_a_create_that_is_mixed_up_is_adopted(world: Emulator) -> None:
    """The prediction that the create has made is found, and is the result."""
    async with _client(world) as client:
        ids = await _predictions(client, 1)
        stale = Reply.json({**PREDICTION, "id": ids[0], "status": "starting"}, 201)
        world.wire.inject(stale, method="POST", times=1, executed=True)
        output = await client.run("replicate/hello-world", {"text": "b"})
        assert output == "hello b"
        assert client.stats.adopted == 1
    assert len(world.ledger.created()) == 2


async def test_a_create_with_the_answer_of_somebody_else(world: Emulator) -> None:
    """What has neither the input nor the deadline of the create is not its result, even if no call here owns it."""
    foreign = {
        **PREDICTION,
        "id": "foreign",
        "deadline": "2025-12-02T10:35:30.123Z",
        "output": "somebody else's",
    }
    async with _client(world) as client:
        await _predictions(client, 1)
        for _ in range(2):
            world.wire.inject(Reply.json(foreign, 201), method="POST", times=1, executed=True)
            assert await client.run("replicate/hello-world", {"text": "b"}) == "hello b"
        assert client.stats.adopted == 2
    assert len(world.ledger.created()) == 3


@pytest.mark.parametrize("verb", ["wait", "run", "cancel"])
async def test_a_server_that_always_mixes_answers_up(verb: str) -> None:
    """Waiting ends after a bounded number of answers about another prediction, with an error that names this one."""

    def answers(request: Request) -> Reply:
        if request.method == "POST" and not request.path.endswith("/cancel"):
            return json({**PREDICTION, "status": "processing", "completed_at": None}, 201)
        return _other(request)

    with Wire(answers) as wire:
        async with client_of(wire) as client:
            with anyio.fail_after(20):
                if verb == "run":
                    with pytest.raises(exceptions.ContactLost, match="about 'other'") as caught:
                        await client.run("acme/greeter", wait=False)
                    assert caught.value.prediction.id == PREDICTION["id"]
                else:
                    made = await client.predictions.create(model="acme/greeter", input={})
                    with pytest.raises(exceptions.ConnectionLost, match=PREDICTION["id"]):
                        await (made.wait() if verb == "wait" else made.cancel())
        assert len(wire.requests) < 120
