"""The gate: all clients of an account together keep within its limits, in order and without waste."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest

from replicate_async import RateLimit, Retry, exceptions
from replicate_async.testing import Clock, Fault, RateLimits

from . import faults
from .faults import World, cancelled, until, world

FREE = RateLimit(creates=1e6, others=1e6)
"""A gate that lets everything pass until the server refuses."""
PATIENT = Retry(backoff=0.01, max_backoff=0.02, throttled=60)


def creates(here: World, status: int | None = None) -> int:
    """Count the creates that were answered so."""
    return len(here.emulator.ledger.requests(operation="models.predictions.create", status=status))


async def test_1500_creates_at_once() -> None:
    """They all succeed, with at most two of a hundred requests answered 429."""
    speed = 5.0
    limits = RateLimits(creates=600, others=100_000, per=60.0)
    gate = RateLimit(creates=600, others=100_000, per=60.0 / speed)
    async with (
        world(wire=False, clock=Clock(speed=speed), rate_limits=limits) as here,
        here.client(rate_limit=gate, retry=PATIENT, timeout=80) as client,
    ):
        began = asyncio.get_running_loop().time()
        with anyio.fail_after(90):
            async with anyio.create_task_group() as tasks:
                for number in range(1500):
                    tasks.start_soon(faults.on_model, client, here, f"run {number}")
        took = asyncio.get_running_loop().time() - began
        asked = here.emulator.ledger.requests()
        refused = [request for request in asked if request.status == 429]
        assert len(here.emulator.ledger.created()) == 1500
        assert len(refused) <= 0.02 * len(asked)
        # A busy machine is slower than the limit, which is reached after 18 seconds at best.
        assert client.stats.waited >= 100 or took > 25


async def test_a_refusal_pauses_the_class() -> None:
    """After a 429 no create is sent until its time is over; other requests go on."""
    async with world() as here, here.client(rate_limit=FREE, retry=PATIENT) as client:
        loop = asyncio.get_running_loop()
        here.emulator.wire.inject(Fault.THROTTLE, method="POST", times=1, seconds=1)
        began = loop.time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(faults.on_model, client, here, "first")
            await until(lambda: here.emulator.wire.log)
            await client.accounts.current()
            assert loop.time() < began + 0.95
            for number in range(20):
                tasks.start_soon(faults.on_model, client, here, f"run {number}")
        assert loop.time() >= began + 0.95
        assert creates(here) == 21
        assert len(here.emulator.ledger.created()) == 21


@pytest.mark.parametrize(("announce", "seconds"), [("header", 1), ("body", 0.3)])
async def test_the_server_says_how_long(announce: Any, seconds: float) -> None:
    """The wait in the header and the one in the body are obeyed."""
    async with world() as here, here.client(rate_limit=FREE, retry=PATIENT) as client:
        began = asyncio.get_running_loop().time()
        here.emulator.wire.inject(
            Fault.THROTTLE, method="POST", times=1, seconds=seconds, announce=announce
        )
        await faults.on_model(client, here, "a")
        assert 0.95 * seconds <= asyncio.get_running_loop().time() - began < seconds + 2


async def test_a_storm_of_refusals() -> None:
    """Refusals with and without a time only delay: each create happens once."""
    async with world() as here, here.client(rate_limit=FREE, retry=PATIENT, timeout=30) as client:
        for announce in ("both", "body"):
            here.emulator.wire.inject(
                Fault.THROTTLE, method="POST", times=15, seconds=0.02, announce=announce
            )
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(faults.on_model, client, here, f"run {number}")
        texts = [life.input["text"] for life in here.emulator.ledger.created()]
        assert sorted(texts) == sorted(f"run {number}" for number in range(60))
        assert client.stats.retried == 30


LOW = (
    "Request was throttled. Your rate limit for creating predictions is reduced to 600 requests per"
    " minute with a burst of 1 requests while you have less than $5.0 in credit."
)


async def test_low_credit_is_obeyed() -> None:
    """The lower limit that the text of a 429 names holds from then on."""
    async with world() as here, here.client(rate_limit=FREE, retry=PATIENT) as client:
        here.emulator.wire.inject(Fault.THROTTLE, method="POST", times=1, seconds=0.1, detail=LOW)
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(faults.on_model, client, here, f"run {number}")
                await anyio.lowlevel.checkpoint()
                if number == 0:
                    await until(lambda: here.emulator.wire.log)
        asked = here.emulator.ledger.requests(operation="models.predictions.create")
        assert len(asked) == 10
        assert asked[-1].at - asked[0].at >= 0.5, "ten in a second, one at a time"
        assert client.stats.retried == 1


async def test_clients_and_views_share_a_gate() -> None:
    """All clients and views with the same token queue at one gate; another token has its own."""
    limit = RateLimit(creates=3, others=1000, per=4)
    async with (
        world(wire=False) as here,
        here.client(rate_limit=limit, timeout=30) as one,
        here.client(rate_limit=limit, timeout=30) as two,
        here.client(
            rate_limit=limit, timeout=30, api_token=here.emulator.add_account("other")
        ) as other,
    ):
        for client in (one, two, one.with_options(poll_interval=1)):
            await faults.on_model(client, here, "a")
        assert one.stats.waited == two.stats.waited == 0
        await faults.on_model(other, here, "a")
        assert other.stats.waited == 0
        await faults.on_model(two, here, "a")
        assert two.stats.waited == 1
        assert two.stats.waited_seconds > 0.1


async def test_a_view_for_each_request() -> None:
    """What is known of an account's limit outlives the views that are made for its requests."""
    limit = RateLimit(creates=2, others=1000, per=600)
    async with world(wire=False) as here, here.client(rate_limit=limit, timeout=30) as client:
        token = here.emulator.add_account("user")
        for _ in range(2):
            await faults.on_model(client.with_options(api_token=token), here, "a")
            gc.collect()
            assert client.stats.waited == 0
        view = client.with_options(api_token=token)
        third = asyncio.create_task(faults.on_model(view, here, "a"))
        await until(lambda: client.stats.waited)
        assert await cancelled(third, within=5)
        assert len(here.made_of("a")) == 2


async def test_first_come_first_served() -> None:
    """Creates come in the order in which they were asked for, but for what overtakes on the way.

    That the gate itself keeps the order strictly is tested without a network, in `unit/test_limits.py`.
    """
    limit = RateLimit(creates=10, others=1000, per=0.6)
    async with world(wire=False) as here, here.client(rate_limit=limit, timeout=30) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(faults.on_model, client, here, f"{number:02}")
                await anyio.lowlevel.checkpoint()
        waited = [life.input["text"] for life in here.emulator.ledger.created()][10:]
        assert len(waited) == 20
        assert all(abs(int(text) - 10 - place) <= 3 for place, text in enumerate(waited)), waited


async def test_cancelled_while_waiting() -> None:
    """Who leaves the queue leaves no trace: nothing is created, and the others do not wait for it."""
    limit = RateLimit(creates=2, others=1000, per=2)
    async with world(wire=False) as here, here.client(rate_limit=limit, timeout=30) as client:
        for text in ("a", "b"):
            await faults.on_model(client, here, text)
        waiting = [
            asyncio.create_task(client.run("acme/echo", {"text": "left"})) for _ in range(50)
        ]
        await until(lambda: client.stats.waited == 50)
        for task in waiting:
            task.cancel()
        done, _ = await asyncio.wait(waiting, timeout=5.0)
        assert len(done) == 50
        began = asyncio.get_running_loop().time()
        await faults.on_model(client, here, "c")
        assert asyncio.get_running_loop().time() - began < 5  # after the others: 50 seconds
        assert [life.input["text"] for life in here.emulator.ledger.created()] == ["a", "b", "c"]


async def test_cancelling_passes_the_queue() -> None:
    """What stops costs does not wait for the gate."""
    limit = RateLimit(creates=10, others=1, per=30)
    async with world() as here, here.client(rate_limit=limit) as client:
        task = asyncio.create_task(client.run("acme/slow", {"text": "a"}, wait=30))
        await until(lambda: here.made_of("a"))
        assert await cancelled(task, within=2.0)
        assert len(here.emulator.ledger.cancelled()) == 1


async def test_patience_with_refusals_ends() -> None:
    """A create that is refused for longer than `Retry.throttled` ends in the refusal."""
    retry = Retry(backoff=0.01, max_backoff=0.02, throttled=0.3)
    async with world() as here, here.client(rate_limit=FREE, retry=retry) as client:
        here.emulator.wire.inject(Fault.THROTTLE, method="POST", seconds=0.1)
        with anyio.fail_after(5), pytest.raises(exceptions.RateLimitError):
            await client.run("acme/echo", {"text": "a"})
        assert here.made_of("a") == []
