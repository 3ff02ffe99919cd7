"""Webhooks without a tunnel: what the service would deliver is posted to a local server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from aiohttp import web

from replicate_async import Client
from replicate_async.exceptions import ArgumentError, ArgumentTypeError, AuthenticationError
from replicate_async.testing import Emulator

from .conftest import URL, until

SLOW = "acme/slow"


class Server:
    """A local server, which refuses the first deliveries if it is told to."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.refusals = 0
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Take a delivery."""
        body = await request.read()
        self.received.append({"headers": dict(request.headers), "body": body, **json.loads(body)})
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=500)
        return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Run a local server."""
    made = Server()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/replicate"
    yield made
    await runner.cleanup()


async def test_forward(client: Client, emulator: Emulator, server: Server) -> None:
    """What begins is delivered: signed, only for what has a webhook, only for the events it asks for."""
    reports: list[Any] = []
    secret = await client.webhooks.default.secret()
    old = await client.predictions.create(model=SLOW, input={"text": "old"}, webhook=URL)
    await old.wait()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: client.webhooks.forward(server.url, interval=0.1, report=reports.append)
        )
        await until(lambda: len(emulator.ledger.requests(operation="trainings.list")) > 1)
        silent = await client.predictions.create(model=SLOW, input={"text": "no"})
        made = await client.predictions.create(
            model=SLOW, input={"text": "a"}, webhook=URL, webhook_events_filter=["completed"]
        )
        lines = await client.predictions.create(model="acme/lines", input={}, webhook=URL)
        for job in (silent, made, lines):
            await job.wait()
        await until(lambda: len({each["id"] for each in server.received if _ended(each)}) == 2)
        await anyio.sleep(0.3)
        assert {each["id"] for each in server.received} == {made.id, lines.id}
        [one] = [each for each in server.received if each["id"] == made.id]
        assert one["output"] == "hello a"
        several = [each for each in server.received if each["id"] == lines.id]
        assert len(several) > 2
        assert [_ended(each) for each in several].count(True) == 1
        tasks.cancel_scope.cancel()
    for each in server.received:
        client.webhooks.validate(each["headers"], each["body"], secret)
    assert {report.status for report in reports} == {200}
    assert len({each["headers"]["webhook-id"] for each in server.received}) == len(server.received)


def _ended(each: dict[str, Any]) -> bool:
    return bool(each["status"] == "succeeded")


async def test_final_states_are_repeated(client: Client, server: Server) -> None:
    """Until they are accepted, with the same ID."""
    server.refusals = 1
    async with anyio.create_task_group() as tasks:
        made = await client.predictions.create(
            model=SLOW, input={"text": "a"}, webhook=URL, webhook_events_filter=["completed"]
        )
        tasks.start_soon(lambda: client.webhooks.forward(server.url, interval=0.1))
        await until(lambda: len(server.received) == 2)
        await anyio.sleep(0.3)
        assert {each["id"] for each in server.received} == {made.id}
        tasks.cancel_scope.cancel()
    first, second = server.received
    assert first["headers"]["webhook-id"] == second["headers"]["webhook-id"]


async def test_odd_jobs(client: Client, emulator: Emulator, server: Server) -> None:
    """One that cannot be read, or whose ID cannot be sent, does not keep the others from being delivered."""
    made = [
        await client.predictions.create(model=SLOW, input={"text": text}, webhook=URL)
        for text in ("unreadable", "infinite", "good")
    ]
    unreadable, infinite, _ = (job.id for job in made)

    async def middleware(request: Any, record: Any, answer: Any) -> Any:
        response = await answer(request)
        if record.operation == "predictions.list":
            page = json.loads(response.body)
            odd = [{"id": "../account"}, {"id": "\ud800"}, {"id": []}, None, "x"]
            return web.json_response({**page, "results": [*odd, *page["results"]]})
        if record.operation == "predictions.get" and unreadable in str(record.path):
            return web.Response(body=b"no JSON", content_type="text/html")
        if record.operation == "predictions.get" and infinite in str(record.path):
            found = json.loads(response.body)
            body = json.dumps({**found, "output": None}).replace(
                '"output": null', '"output": 1e999'
            )
            return web.Response(body=body.encode(), content_type="application/json")
        return response

    emulator.middlewares.append(middleware)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.webhooks.forward(server.url, interval=0.05))
        await until(lambda: sum(_ended(each) for each in server.received) == 2)
        await until(lambda: _reads(emulator, unreadable) == 5)
        await anyio.sleep(0.2)
        tasks.cancel_scope.cancel()
    assert unreadable not in {each["id"] for each in server.received}
    assert _reads(emulator, unreadable) == 5


def _reads(emulator: Emulator, id: str) -> int:
    reads = emulator.ledger.requests(operation="predictions.get")
    return sum(id in request.path for request in reads)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "", None, 5])
async def test_urls(client: Client, emulator: Emulator, url: Any) -> None:
    """A URL that is none is refused before anything is sent."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match="url"):
        await client.webhooks.forward(url)
    assert not emulator.ledger.requests()


async def test_refused(emulator: Emulator, server: Server) -> None:
    """Without access there is an error, and no endless wait."""
    async with Client("r8_" + "x" * 37, base_url=emulator.url) as client:
        with pytest.raises(AuthenticationError):
            await client.webhooks.forward(server.url)


async def test_command(client: Client, emulator: Emulator, server: Server) -> None:
    """The command says what it delivers, and Ctrl-C ends it."""
    command = ["-m", "replicate_async", "webhooks", "listen", "--forward", server.url]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--interval",
        "0.1",
        env={**emulator.env, "PATH": "/usr/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    await until(lambda: len(emulator.ledger.requests(operation="trainings.list")) > 1)
    made = await client.predictions.create(model=SLOW, input={"text": "a"}, webhook=URL)
    assert process.stdout is not None
    with anyio.fail_after(20):
        out = b""
        while b"  completed  " not in out:
            out += await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    with anyio.fail_after(20):
        _, err = await process.communicate()
    assert process.returncode == 130
    assert f"{made.id}  completed  succeeded   200" in out.decode()
    assert server.url in err.decode()
    assert "Traceback" not in err.decode()
