"""Apps of several processes, whose deliveries reach the one that waits: with a real Redis, which is killed."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import anyio
import pytest
from free_ports import free_port
from redis_server import Redis, needs_redis, redis_server

from replicate_async import Backplane, Client, LocalBackplane, RedisBackplane
from replicate_async.exceptions import ArgumentError
from replicate_async.testing import Emulator

from .conftest import URL, Mounted, until

SLOW = "acme/slow"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """Run a server."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=["local", pytest.param("redis", marks=needs_redis)])
async def backplane(request: pytest.FixtureRequest) -> AsyncIterator[Backplane]:
    """Return a backplane of each kind."""
    if request.param == "local":
        yield LocalBackplane()
        return
    made = RedisBackplane(request.getfixturevalue("redis").url)
    yield made
    await made.aclose()


# -- The protocol ------------------------------------------------------------------------------


async def test_claims(backplane: Backplane) -> None:
    """A claim succeeds once, and again with a higher rank, or when it is forgotten."""
    assert await backplane.claim("a", seconds=60)
    assert not await backplane.claim("a", seconds=60)
    assert await backplane.claim("b", seconds=60)
    assert await backplane.claim("a", rank=2**53 - 1, seconds=60)
    assert not await backplane.claim("a", rank=2**53 - 2, seconds=60)
    assert await backplane.claim("a", rank=2**53, seconds=60)
    assert await backplane.claim("c", seconds=0.05)
    await anyio.sleep(0.1)
    assert await backplane.claim("c", seconds=0.05)


async def test_one_of_many_claims(backplane: Backplane) -> None:
    """Of many at the same time, one succeeds."""
    claims = await asyncio.gather(*[backplane.claim("a", seconds=60) for _ in range(50)])
    assert sum(claims) == 1


async def test_messages(backplane: Backplane) -> None:
    """Each subscriber gets each message of its channel."""
    async with backplane.subscribe("a") as one, backplane.subscribe("a") as two:
        await backplane.publish("b", b"0")
        for message in (b"1", b"\x00\xff", b"3"):
            await backplane.publish("a", message)
        for subscription in (one, two):
            assert [await anext(subscription) for _ in range(3)] == [b"1", b"\x00\xff", b"3"]
    await backplane.publish("a", b"4")


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost", None, 5])
def test_urls(url: str) -> None:
    """A URL that is none of Redis is refused."""
    with pytest.raises(ArgumentError, match="redis"):
        RedisBackplane(url)


# -- Deliveries --------------------------------------------------------------------------------


@needs_redis
async def test_a_delivery_reaches_the_one_that_waits(
    emulator: Emulator, mounted: Mounted, redis: Redis
) -> None:
    """A run in one receiver is ended by a delivery to another one, without a poll; handlers are called once."""
    called: list[object] = []
    async with (
        Client(emulator.token, base_url=emulator.url) as one,
        Client(emulator.token, base_url=emulator.url) as two,
    ):
        backplanes = RedisBackplane(redis.url), RedisBackplane(redis.url)
        waiting = one.webhooks.receiver(url=URL, backplane=backplanes[0])
        serving = two.webhooks.receiver(url=URL, backplane=backplanes[1])
        waiting.on()(called.append)
        serving.on()(called.append)
        async with mounted(serving):
            assert await one.run(SLOW, {"text": "a"}, via=waiting) == "hello a"
        await until(lambda: called)
    assert len(called) == 1
    assert not emulator.ledger.requests(operation="predictions.get")
    for backplane in backplanes:
        await backplane.aclose()


@needs_redis
async def test_redis_dies_in_the_midst(
    emulator: Emulator, mounted: Mounted, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The polls beneath bring the results; when Redis is back, so are the deliveries."""
    async with (
        Client(emulator.token, base_url=emulator.url) as one,
        Client(emulator.token, base_url=emulator.url) as two,
    ):
        backplanes = RedisBackplane(redis.url), RedisBackplane(redis.url)
        waiting = one.webhooks.receiver(url=URL, backplane=backplanes[0], poll_interval=2)
        serving = two.webhooks.receiver(url=URL, backplane=backplanes[1])
        results: list[object] = []

        async def run(number: int) -> None:
            given = {"text": str(number), "seconds": 1.0}
            results.append(await one.run(SLOW, given, via=waiting))

        async with mounted(serving):
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(run, number)
                await until(lambda: len(emulator.ledger.created()) == 20)
                redis.kill()
            assert sorted(map(str, results)) == sorted(f"hello {n}" for n in range(20))
            assert len(emulator.ledger.created()) == 20
            assert "backplane" in caplog.text
            redis.start()
            caplog.clear()
            with anyio.fail_after(60):
                while emulator.ledger.requests(operation="predictions.get") or not results[20:]:
                    emulator.ledger.clear()
                    await run(20)
    for backplane in backplanes:
        await backplane.aclose()


async def test_without_a_backplane(
    emulator: Emulator, mounted: Mounted, caplog: pytest.LogCaptureFixture
) -> None:
    """A delivery to another process is missed, and the polls beneath bring the result."""
    async with (
        Client(emulator.token, base_url=emulator.url) as one,
        Client(emulator.token, base_url=emulator.url) as two,
    ):
        waiting = one.webhooks.receiver(url=URL, poll_interval=2.5)
        async with mounted(two.webhooks.receiver(url=URL)):
            assert await one.run(SLOW, {"text": "a"}, via=waiting) == "hello a"
    assert emulator.ledger.requests(operation="predictions.get")
    assert [each for each in caplog.records if each.levelno == logging.ERROR]


# -- Two workers of uvicorn --------------------------------------------------------------------

APP = """
import os
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import replicate_async as replicate


@asynccontextmanager
async def lifespan(app):
    backplane = replicate.RedisBackplane(os.environ["REDIS"])
    async with replicate.Client() as client:
        app.state.client = client
        app.state.receiver = client.webhooks.receiver(
            url="https://app.example/replicate", backplane=backplane, poll_interval=60
        )
        yield
    await backplane.aclose()


async def run(request):
    state = request.app.state
    text = request.query_params["text"]
    output = await state.client.run("acme/slow", {"text": text}, via=state.receiver)
    return JSONResponse({"output": output, "worker": os.getpid()})


async def pid(request):
    return JSONResponse(os.getpid())


async def webhook(scope, receive, send):
    await scope["app"].state.receiver.asgi(scope, receive, send)


class Webhook:
    async def __call__(self, scope, receive, send):
        await webhook(scope, receive, send)


app = Starlette(lifespan=lifespan, routes=[Route("/run", run), Route("/pid", pid), Route("/replicate", Webhook())])
"""


@needs_redis
async def test_two_workers(emulator: Emulator, redis: Redis, tmp_path: Path) -> None:
    """With two workers of uvicorn, runs in both are ended by deliveries, whichever gets them."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    port = free_port()
    command = f"-m uvicorn app:app --port {port} --workers 2 --log-level warning"
    server = subprocess.Popen(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env={**emulator.env, "PATH": "/usr/bin", "REDIS": redis.url},
    )
    emulator.webhook_hosts["app.example"] = f"http://127.0.0.1:{port}"
    try:
        # A connection for each request: they are spread over the workers.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            await until_serving(lambda: socket.create_connection(("127.0.0.1", port), 1).close())

            workers: set[int] = set()
            while len(workers) < 2:
                async with session.get(f"http://127.0.0.1:{port}/pid") as response:
                    workers.add(await response.json())

            async def run(number: int) -> tuple[str, int]:
                url = f"http://127.0.0.1:{port}/run?text={number}"
                async with session.get(url) as response:
                    assert response.status == 200, await response.text()
                    answer = await response.json()
                    return answer["output"], answer["worker"]

            with anyio.fail_after(60):
                answers = await asyncio.gather(*[run(number) for number in range(40)])
        assert [output for output, _ in answers] == [f"hello {number}" for number in range(40)]
        assert {worker for _, worker in answers} <= workers
        assert len(emulator.ledger.created()) == 40
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    assert not emulator.ledger.running()


async def until_serving(connect: Callable[[], object]) -> None:
    """Return when a server accepts connections."""
    with anyio.fail_after(60):
        while True:
            try:
                connect()
            except OSError:
                await anyio.sleep(0.05)
            else:
                return
