"""Models by their names: official ones, and the latest versions of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from replicate_async import Limits, Prediction, Retry, exceptions
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Fault, Injection

from .faults import echo, until, world


async def test_200_first_runs_of_a_community_model() -> None:
    """Of many first calls at a time, one finds out that the model is not official, and its version."""
    async with world() as here, here.client(timeout=30, retry=Retry()) as client:
        outputs = await asyncio.gather(
            *[client.run("acme/plain", {"text": str(number)}) for number in range(200)]
        )
        assert outputs == [str(number) for number in range(200)]
        requests = here.emulator.ledger.requests
        assert len(requests(operation="models.predictions.create")) == 1
        assert len(requests(operation="models.get")) == 1
        assert len(requests(operation="predictions.create")) == 200
        assert client.stats.created == 200


async def test_first_runs_of_an_official_model_do_not_wait_for_each_other() -> None:
    """A first create that the server holds does not hold the others up for long."""
    async with world() as here, here.client() as client:
        tasks = [
            asyncio.create_task(
                client.run("acme/slow", {"text": "a", "seconds": 60}, wait=60, on_abandon="cancel")
            )
            for _ in range(10)
        ]
        await until(lambda: len(here.made_of("a")) == 10)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert here.emulator.ledger.running() == []


async def test_a_first_run_that_is_held_does_not_delay_later_ones_for_long() -> None:
    """A later call finds out by a create that is not held that the model is official. Then all may be held."""
    async with world() as here, here.client(timeout=30) as client:
        given = {"text": "a", "seconds": 20}
        first = asyncio.create_task(client.run("acme/slow", given))
        await until(lambda: len(here.made_of("a")) == 1)
        began = time.monotonic()
        others = [asyncio.create_task(client.run("acme/slow", given)) for _ in range(5)]
        await until(lambda: len(here.made_of("a")) == 6)
        assert time.monotonic() - began < 10
        creates = here.emulator.ledger.requests(operation="models.predictions.create")
        assert sum("Prefer" in create.headers for create in creates) == 5
        for task in (first, *others):
            task.cancel()
        await asyncio.wait((first, *others))
        assert here.emulator.ledger.running() == []


@pytest.mark.parametrize("wait", [True, False])
async def test_first_runs_of_a_community_model_whose_refusal_is_slow(wait: bool) -> None:
    """If the first create is not refused soon, one more call finds out what the model is, and the rest wait for it."""
    async with world() as here, here.client(timeout=30, retry=Retry()) as client:
        here.emulator.wire.inject(Fault.DELAY, path="/v1/models/*/predictions", seconds=0.6)
        first = asyncio.create_task(client.run("acme/plain", {"text": "first"}, wait=wait))
        requests = here.emulator.ledger.requests
        await until(lambda: requests(operation="models.predictions.create"))
        outputs = await asyncio.gather(
            *[client.run("acme/plain", {"text": str(number)}) for number in range(50)]
        )
        assert outputs == [str(number) for number in range(50)]
        assert await first == "first"
        assert len(requests(operation="models.predictions.create")) <= 2
        assert len(requests(operation="models.get")) <= 2
        assert len(requests(operation="predictions.create")) == 51


async def test_a_new_version_is_found_when_the_known_one_is_gone() -> None:
    """A version that is remembered and was deleted since is looked up again, and nothing is lost."""
    async with world() as here, here.client() as client:
        old = here.emulator.add_model("acme/mine", echo, visibility="private")
        assert old is not None
        assert await client.run("acme/mine", {"text": "a"}) == "a"
        here.emulator.add_model("acme/mine", _louder, visibility="private")
        assert await client.run("acme/mine", {"text": "a"}) == "a"  # remembered while it works
        await client.models.versions.delete("acme/mine", old)
        assert await client.run("acme/mine", {"text": "b"}) == "b!"


async def _louder(text: str) -> str:
    return f"{text}!"


async def test_what_one_token_has_found_out_is_not_used_for_another() -> None:
    """What one account may see, another may not: nothing is remembered across tokens."""
    async with world() as here, here.client() as client:
        assert await client.run("acme/plain", {"text": "a"}) == "a"
        other = client.with_options(api_token="r8_of_somebody_else")
        with pytest.raises(exceptions.AuthenticationError):
            await other.run("acme/plain", {"text": "a"})
        requests = here.emulator.ledger.requests(operation="models.predictions.create")
        assert len(requests) == 2


async def test_a_model_becomes_official() -> None:
    """A model that could not be run is looked up again at the next call."""
    async with world() as here, here.client() as client:
        here.emulator.add_model("acme/later")
        with pytest.raises(exceptions.NotFoundError, match="no version"):
            await client.run("acme/later", {"text": "a"})
        here.emulator.add_model("acme/later", echo)
        assert await client.run("acme/later", {"text": "a"}) == "a"


@pytest.mark.parametrize("connections", [1, 4])
async def test_held_creates_do_not_starve_others(connections: int) -> None:
    """Where the server holds as many creates as there are connections, the others are created all the same."""
    limits = Limits(connections=connections)
    async with world() as here, here.client(timeout=30, limits=limits) as client:
        began = time.monotonic()
        tasks = [
            asyncio.create_task(client.run("acme/slow", {"text": "a", "seconds": 3}))
            for _ in range(12)
        ]
        await until(lambda: len(here.made_of("a")) == 12)
        assert time.monotonic() - began < 2.5
        assert await asyncio.gather(*tasks) == ["a"] * 12


@pytest.mark.parametrize("connections", [1, 4])
async def test_creates_that_wait_do_not_starve_others(connections: int) -> None:
    """So it is with all creates that take `wait`. Those that the server does not hold are polled for as long."""
    limits = Limits(connections=connections)
    async with world() as here, here.client(timeout=30, limits=limits) as client:
        model = await client.models.get("acme/slow")
        assert model.latest_version is not None
        deployment = await client.deployments.create(
            "slow",
            model="acme/slow",
            version=model.latest_version,
            hardware="cpu",
            min_instances=0,
            max_instances=1,
        )
        began = time.monotonic()
        given: dict[str, Any] = {"text": "a", "seconds": 1.5}
        creates: list[Callable[[], Coroutine[Any, Any, Prediction]]] = [
            lambda: client.predictions.create(model="acme/slow", input=given, wait=20),
            lambda: client.predictions.create(deployment="acme/slow", input=given, wait=20),
            lambda: client.predictions.create("acme/slow", given, wait=True),
            lambda: client.models.predictions.create("acme/slow", given, wait=20),
            lambda: model.predictions.create(given, wait=20),
            lambda: client.deployments.predictions.create("acme/slow", given, wait=20),
            lambda: deployment.predictions.create(given, wait=20),
        ]
        tasks = [asyncio.create_task(create()) for create in creates * 2]
        await until(lambda: len(here.emulator.ledger.running()) == 14)
        made = await asyncio.gather(*tasks)
        assert [prediction.output for prediction in made] == ["a"] * 14
        assert time.monotonic() - began < 5

        began = time.monotonic()
        given = {"text": "b", "seconds": 30}
        longer = [client.models.predictions.create("acme/slow", given, wait=1) for _ in range(6)]
        assert {prediction.output for prediction in await asyncio.gather(*longer)} == {None}
        assert 1 <= time.monotonic() - began < 2.5
        assert here.emulator.ledger.cancelled() == []


async def test_raw_requests_that_wait_do_not_starve_creates() -> None:
    """Requests to any endpoint that ask the server to hold its answer leave a connection for creates."""
    limits = Limits(connections=4)
    async with world() as here, here.client(timeout=30, limits=limits) as client:
        version = here.version
        raw = [
            asyncio.create_task(
                client.request(
                    "POST",
                    "/models/acme/slow/predictions",
                    json={"input": {"text": "raw", "seconds": 2}},
                    headers={"prefer": "wait=20"},
                )
            )
            for _ in range(8)
        ]
        await until(lambda: here.made_of("raw"))
        began = time.monotonic()
        for _ in range(3):
            await client.predictions.create(version, {"text": "a"})
        assert time.monotonic() - began < 1.8
        answers = await asyncio.gather(*raw)
        assert [answer["output"] for answer in answers] == ["raw"] * 8


async def test_a_create_that_waits_by_polling_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the ID of what it has created, which goes on, whether or not the server holds it."""
    limits = Limits(connections=1)
    async with world() as here, here.client(timeout=30, limits=limits) as client:
        task = asyncio.create_task(
            client.predictions.create(
                model="acme/slow", input={"text": "a", "seconds": 20}, wait=True
            )
        )
        await until(lambda: here.emulator.ledger.requests(operation="predictions.get"))
        task.cancel()
        await asyncio.wait({task}, timeout=2)
        assert task.cancelled()
        (made,) = here.made_of("a")
        assert f"it made {made}, which is not cancelled" in caplog.text
        assert here.emulator.ledger.cancelled() == []


def _happened(fault: Injection, times: int) -> bool:
    return fault.happened == times


@pytest.mark.parametrize("given_up", [1, 3])
async def test_the_first_of_many_first_runs_is_cancelled(given_up: int) -> None:
    """Another one finds out what the model is then, and the rest still wait for it."""
    async with world() as here, here.client(timeout=30, retry=Retry()) as client:
        delayed = here.emulator.wire.inject(
            Fault.DELAY, path="/v1/models/*/predictions", seconds=0.2, times=given_up
        )
        tasks = [
            asyncio.create_task(client.run("acme/plain", {"text": str(number)}))
            for number in range(50)
        ]
        for number in range(given_up):
            await until(partial(_happened, delayed, number + 1))
            tasks[number].cancel()
        outputs = await asyncio.gather(*tasks, return_exceptions=True)
        assert outputs[given_up:] == [str(number) for number in range(given_up, 50)]
        requests = here.emulator.ledger.requests
        assert len(requests(operation="models.predictions.create")) <= given_up + 1
        assert len(requests(operation="models.get")) == 1
        assert len(requests(operation="predictions.create")) == 50 - given_up


@pytest.mark.parametrize(
    ("method", "times", "patience", "most"),
    [("POST", 1, 0.5, 3), ("GET", 1, 0.5, 3), ("POST", 3, 0.1, 50)],
)
async def test_the_first_of_many_first_runs_gets_no_answer(
    method: str, times: int, patience: float, most: int
) -> None:
    """After a while one other call finds out what the model is, and then a third one, before each does so for itself."""
    timings = Timings(first_run=patience, cancel=0.3, last_searches=(0.0,))
    async with world() as here, here.client(timeout=30, retry=Retry(), timings=timings) as client:
        here.emulator.wire.inject(
            Fault.STALL_BEFORE_EXECUTION, method=method, path="/v1/models/*", times=times
        )
        tasks = {
            asyncio.create_task(client.run("acme/plain", {"text": str(number)}))
            for number in range(50)
        }
        requests = here.emulator.ledger.requests
        await until(lambda: len(requests(operation="predictions.create")) == 50 - times)
        assert len(requests(operation="models.predictions.create")) <= most
        assert len(requests(operation="models.get")) <= most
        await until(lambda: sum(task.done() for task in tasks) == 50 - times)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize("connections", [2, 16, 256])
async def test_first_held_creates_go_out_at_once(connections: int) -> None:
    """The first run of an official model, too, does not make the others wait for as long as it is held."""
    limits = Limits(connections=connections)
    async with world() as here, here.client(timeout=30, limits=limits) as client:
        tasks = [
            asyncio.create_task(client.run("acme/slow", {"text": "a", "seconds": 20}))
            for _ in range(30)
        ]
        await until(lambda: len(here.made_of("a")) == 30, seconds=10)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert here.emulator.ledger.running() == []
