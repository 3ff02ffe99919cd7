"""A run whose time is over says what it was waiting for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from replicate_async import Client, Limits, RateLimit, Retry, exceptions, sync
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Emulator, Fault

from .faults import until, world
from .wire import closed_port


async def test_in_the_queue_of_the_rate_limit() -> None:
    """The queue is told apart from the network."""
    limit = RateLimit(creates=1, others=1000, per=60)
    async with world() as here, here.client(rate_limit=limit) as client:
        await client.run("acme/echo", {"text": "a"})
        with pytest.raises(
            exceptions.TransportTimeout, match="waiting for the rate limit"
        ) as caught:
            await client.run("acme/echo", {"text": "b"}, timeout=0.3)
        cause = caught.value.__cause__
        assert isinstance(cause, exceptions.QueueFull)
        assert 50 < cause.retry_after < 60
        assert client.stats.waited_seconds >= 0.2
        assert here.made_of("b") == []


async def test_without_a_free_connection() -> None:
    """A create that waits for other creates is told apart from one that waits for the rate limit."""
    limits = Limits(connections=1)
    async with world() as here, here.client(limits=limits, timeout=30) as client:
        here.emulator.wire.inject(Fault.DELAY, method="POST", path="*/predictions", seconds=1)
        first = asyncio.create_task(client.run(here.version, {"text": "first"}))
        await until(lambda: here.made_of("first"))
        with pytest.raises(exceptions.TransportTimeout, match="waiting for a free connection"):
            await client.run(here.version, {"text": "b"}, timeout=0.2)
        assert await first == "first"
        assert here.made_of("b") == []


async def test_refused_connections() -> None:
    """A connection that is refused until the time is over is the cause."""
    retry = Retry(backoff=0.01, max_backoff=0.05, attempts=1000)
    with closed_port() as url:
        async with Client("r8_x", base_url=url, retry=retry) as client:
            with pytest.raises(exceptions.TransportTimeout, match="could not connect") as caught:
                await client.run("acme/echo", {"text": "a"}, timeout=0.5)
        assert isinstance(caught.value.__cause__, exceptions.ConnectError)


async def test_before_the_create() -> None:
    """It may be an upload, the version of a model or its schema that the time is spent on."""
    retry = Retry(backoff=0.01, max_backoff=0.05, attempts=1000)
    async with world() as here, here.client(retry=retry) as client:
        here.emulator.wire.inject(Fault.RESET_BEFORE_READING, method="POST", path="/v1/files")
        here.emulator.wire.inject(Fault.ERROR_PAGE, path="/v1/models/acme/plain", status=503)
        uploading = client.run("acme/echo", {"text": "a", "file": b"x" * 300_000}, timeout=0.6)
        naming = client.run("acme/plain", {"text": "a"}, timeout=0.6)
        calling = client.use("acme/plain", timeout=0.6)(text="a")
        for work, method, cause in (
            (uploading, "POST", exceptions.ConnectionLost),
            (naming, "GET", exceptions.ServerError),
            (calling, "GET", exceptions.ServerError),
        ):
            with pytest.raises(exceptions.TransportTimeout, match="attempt failed") as caught:
                await work
            assert isinstance(caught.value.__cause__, cause)
            assert caught.value.__cause__.method == method
        assert here.made_of("a") == []


async def test_before_the_create_in_the_queue() -> None:
    """A queue before the create is named, too."""
    limit = RateLimit(creates=1000, others=1, per=60)
    async with world() as here, here.client(rate_limit=limit) as client:
        await client.accounts.current()
        for work in (
            client.run("acme/plain", {"text": "a"}, timeout=0.2),
            client.use("acme/plain", timeout=0.2)(text="a"),
        ):
            with pytest.raises(exceptions.TransportTimeout, match="waiting for the rate limit"):
                await work


async def test_before_the_create_is_sent() -> None:
    """Without any failure, the error says what was in progress."""
    async with world() as here, here.client(timeout=30) as client:
        here.emulator.wire.inject(Fault.STALL_BEFORE_EXECUTION, path="/v1/files")
        with pytest.raises(exceptions.TransportTimeout, match="request before the create"):
            await client.run("acme/echo", {"text": "a", "file": b"x" * 300_000}, timeout=0.2)
        here.emulator.wire.inject(Fault.DELAY, method="POST", path="*/predictions", seconds=1)
        first = asyncio.create_task(client.run("acme/echo", {"text": "first"}, wait=False))
        await until(lambda: here.made_of("first"))
        with pytest.raises(exceptions.TransportTimeout, match="another first run"):
            await client.run("acme/echo", {"text": "b"}, timeout=0.2)
        first.cancel()
        await asyncio.wait({first})
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        contextlib.ExitStack() as others,
    ):
        for _ in range(3):  # more than its queue holds: further connections get no answer
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        async with Client("r8_x", base_url=f"http://127.0.0.1:{full.getsockname()[1]}") as client:
            with pytest.raises(exceptions.TransportTimeout, match="could connect"):
                await client.run("acme/echo", {"text": "a"}, timeout=0.2)


async def test_a_create_without_a_response() -> None:
    """A create that may have succeeded is the cause, with what it may have created."""
    timings = Timings(searches=(30.0,), last_searches=(0.0,))
    async with world() as here, here.client(timings=timings) as client, here.client() as other:
        foreign = await other.predictions.create(model="acme/slow", input={"text": "a"})
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST", path="*/predictions")
        with pytest.raises(exceptions.TransportTimeout, match=foreign.id) as caught:
            await client.run("acme/slow", {"text": "a"}, timeout=0.8)
        lost = caught.value.__cause__
        assert isinstance(lost, exceptions.AmbiguousCreateError)
        assert list(lost.candidates) == [foreign.id]
        assert isinstance(lost.__cause__, exceptions.ConnectionLost)
        assert here.emulator.ledger.cancelled() == []


async def drain(items: AsyncIterator[object]) -> None:
    """Iterate to the end."""
    async for _ in items:
        pass


async def test_after_the_create() -> None:
    """Polls that fail until the time is over are the cause; those that do not any more are none."""
    async with world() as here, here.client(poll_interval=0.02) as client:
        gone = here.emulator.wire.inject(
            Fault.ERROR_PAGE, method="GET", path="*/predictions/*", status=503
        )
        made = await client.predictions.create(model="acme/slow", input={"text": "a"})
        with pytest.raises(exceptions.RunTimeout) as caught:
            await made.wait(timeout=0.6)
        assert isinstance(caught.value.__cause__, exceptions.ServerError)
        with pytest.raises(exceptions.RunTimeout) as caught:
            await client.run("acme/slow", {"text": "a"}, timeout=0.8, wait=False)
        assert isinstance(caught.value.__cause__, exceptions.ServerError)
        async with client.start("acme/slow", {"text": "a"}) as run:
            for updates in (made.updates(timeout=0.6), run.updates(timeout=0.6)):
                with pytest.raises(exceptions.RunTimeout) as caught:
                    await drain(updates)
                assert isinstance(caught.value.__cause__, exceptions.ServerError)
        outcomes = client.map("acme/slow", [{"text": "a"}], timeout=0.8)
        [outcome] = await outcomes.collect()
        assert isinstance(outcome.error, exceptions.RunTimeout)
        assert isinstance(outcome.error.__cause__, exceptions.ServerError)
        gone.remove()
        here.emulator.wire.inject(
            Fault.ERROR_PAGE, method="GET", path="*/predictions/*", status=503, times=1
        )
        with pytest.raises(exceptions.RunTimeout) as caught:
            await client.run("acme/slow", {"text": "a"}, timeout=0.8, wait=False)
        assert caught.value.__cause__ is None


def test_through_the_facade() -> None:
    """The facade has the same causes."""
    with closed_port() as url, sync.Client("r8_x", base_url=url) as client:
        with pytest.raises(exceptions.TransportTimeout, match="could not connect") as caught:
            client.run("acme/echo", {"text": "a"}, timeout=0.2)
        assert isinstance(caught.value.__cause__, exceptions.ConnectError)


async def test_throttled(emulator: Emulator) -> None:
    """429s until the time is over are the cause."""
    async with world() as here, here.client(rate_limit=False) as client:
        here.emulator.wire.inject(Fault.THROTTLE, method="POST", seconds=1)
        with pytest.raises(exceptions.TransportTimeout, match="429") as caught:
            await client.run("acme/echo", {"text": "a"}, timeout=1.5)
        assert isinstance(caught.value.__cause__, exceptions.RateLimitError)


async def test_a_spend_limit_is_raised_at_once() -> None:
    """A 429 that is no matter of rate is not repeated until the time is over."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(
            Fault.THROTTLE, method="POST", detail="You have reached your monthly spend limit."
        )
        with anyio.fail_after(20), pytest.raises(exceptions.RateLimitError, match="spend limit"):
            await client.run("acme/echo", {"text": "a"}, timeout=60)
        creates = here.emulator.ledger.requests(operation="models.predictions.create")
        assert len(creates) <= 1


async def test_a_quota_is_raised_by_reads_and_through_views() -> None:
    """So is one that the name of a model, its schema or a list meets."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.THROTTLE, detail="Daily quota exceeded.", seconds=1)
        with anyio.fail_after(20):
            with pytest.raises(exceptions.RateLimitError, match="quota"):
                await client.models.get("acme/echo")
            with pytest.raises(exceptions.RateLimitError, match="quota"):
                await client.with_options(tags={"tenant": "a"}).run("acme/plain", {"text": "a"})
            with pytest.raises(exceptions.RateLimitError, match="quota"):
                await client.predictions.list()
        assert here.emulator.ledger.created() == []


async def test_a_stream_in_the_queue() -> None:
    """A stream says it, too."""
    limit = RateLimit(creates=1, others=1000, per=60)
    async with world() as here, here.client(rate_limit=limit) as client:
        await client.run("acme/echo", {"text": "a"})
        with pytest.raises(exceptions.TransportTimeout, match="waiting for the rate limit"):
            async for _ in client.stream("acme/echo", {"text": "b"}, timeout=0.3):
                pass


async def test_urgent_requests_wait_as_the_server_says() -> None:
    """A 429 on a cancel is not repeated without a pause, and holds the queue of its class back, too."""
    async with world() as here, here.client(rate_limit=RateLimit()) as client:
        made = await client.predictions.create(model="acme/slow", input={"text": "a"})
        here.emulator.wire.inject(Fault.THROTTLE, path="*/cancel", seconds=1, times=2)
        await made.cancel()
        cancels = [
            each
            for each in here.emulator.wire.log
            if each.request and "cancel" in each.request.path
        ]
        assert len(cancels) == 2
        assert made.status == "canceled"


@pytest.mark.parametrize("seconds", [30, 121, 1e9])
async def test_cancels_outlast_a_long_retry_after(seconds: float) -> None:
    """A server that asks one cancel to wait for long gets another one before the clean-up is over."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.THROTTLE, path="*/cancel", seconds=seconds, times=1)
        task = asyncio.create_task(client.run("acme/slow", {"text": "a", "seconds": 20}))
        await until(lambda: here.made_of("a"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(here.emulator.ledger.cancelled()) == 1


async def test_map_does_not_cancel_for_long() -> None:
    """An item whose time is over ends soon, also if the API refuses to cancel it all the time."""
    async with world() as here, here.client(timings=Timings(cancel=1.0), retry=Retry()) as client:
        here.emulator.wire.inject(Fault.ERROR_PAGE, path="*/cancel")
        inputs = [{"text": "a", "seconds": 60}]
        with anyio.fail_after(5):
            [outcome] = await client.map("acme/slow", inputs, timeout=0.5).collect()
        assert isinstance(outcome.error, exceptions.RunTimeout)
        assert "may still be running" in str(outcome.error)


@pytest.mark.parametrize("seconds", [30, 121, 1e9])
async def test_searches_outlast_a_long_retry_after(seconds: float) -> None:
    """So does the search for what a create without an answer has made."""
    timings = Timings(search_patience=0.3)
    async with world() as here, here.client(timings=timings) as client:
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
        here.emulator.wire.inject(
            Fault.THROTTLE, method="GET", path="*/predictions", seconds=seconds, times=1
        )
        assert await client.run("acme/echo", {"text": "a"}) == "a"
        assert client.stats.adopted == 1


async def test_polls_outlast_a_long_retry_after() -> None:
    """A server that asks one poll to wait for two minutes does not end a run that was paid for."""
    async with world() as here, here.client(retry=Retry(max_wait=0.2)) as client:
        here.emulator.wire.inject(Fault.THROTTLE, method="GET", seconds=121, times=1)
        output = await client.run("acme/slow", {"text": "a", "seconds": 0.3}, wait=False)
        assert output == "a"


@pytest.mark.parametrize("wait", [True, 5])
async def test_a_run_is_over_in_time_where_nothing_can_be_read(wait: bool | float) -> None:
    """A create that the server holds is answered before the time is over, so that nothing is searched for."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="GET")
        began = time.monotonic()
        with pytest.raises(exceptions.RunTimeout):
            await client.run("acme/slow", {"text": "a", "seconds": 20}, timeout=1.5, wait=wait)
        assert time.monotonic() - began < 4
        assert len(here.emulator.ledger.cancelled()) == 1
