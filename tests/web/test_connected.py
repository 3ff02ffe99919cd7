"""Browsers that leave: the run of their request is cancelled, in each framework, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from aiohttp import web
from fastapi import FastAPI
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import post as litestar_post
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from replicate_async import Client, while_connected
from replicate_async.exceptions import ArgumentTypeError, PredictionFailed, RequestDisconnected
from replicate_async.testing import Emulator

from .conftest import served, until

SLOW = "acme/slow"


def work(client: Client, seconds: float) -> Awaitable[Any]:
    """Run a model that takes some time."""
    return client.run(SLOW, {"text": "a", "seconds": seconds}, wait=False)


def in_starlette(client: Client) -> Any:
    """Starlette does not cancel handlers."""

    async def run(request: Request) -> JSONResponse:
        seconds = float(request.query_params["seconds"])
        return JSONResponse(await while_connected(request, work(client, seconds)))

    return Starlette(routes=[Route("/run", run, methods=["POST"])])


def in_fastapi(client: Client) -> Any:
    """Neither does FastAPI; here with a body that has been read, and a middleware."""
    app = FastAPI()

    @app.middleware("http")
    async def middleware(request: Request, call: Callable[[Request], Awaitable[Any]]) -> Any:
        return await call(request)

    @app.post("/run")
    async def run(request: Request, seconds: float) -> Any:
        await request.body()
        return await while_connected(request, work(client, seconds))

    run.__annotations__["request"] = Request
    return app


def in_litestar(client: Client) -> Any:
    """Neither does Litestar."""

    @litestar_post("/run")
    async def run(request: LitestarRequest[Any, Any, Any]) -> str:
        seconds = float(request.query_params["seconds"])
        return str(await while_connected(request, work(client, seconds)))

    return Litestar([run])


def in_quart(client: Client) -> Any:
    """Quart does: nothing is needed."""
    from quart import request

    app = Quart(__name__)

    @app.post("/run")
    async def run() -> Any:
        return str(await work(client, float(request.args["seconds"])))

    return app


def in_asgi(client: Client) -> Any:
    """An app without a framework passes its `receive`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        seconds = float(scope["query_string"].partition(b"=")[2])
        output = await while_connected(receive, work(client, seconds))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(output).encode()})

    return app


FRAMEWORKS = [in_starlette, in_fastapi, in_litestar, in_quart, in_asgi]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_browser_leaves(emulator: Emulator, framework: Any) -> None:
    """Its run is cancelled; that of a browser that stays is not."""
    client = Client(emulator.token, base_url=emulator.url)
    with served(framework(client), lifespan="off") as origin:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{origin}/run?seconds=0.1") as response:
                assert "hello a" in await response.text()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: session.post(f"{origin}/run?seconds=30"))
                await until(lambda: len(emulator.ledger.running()) == 1)
                group.cancel_scope.cancel()
        await until(lambda: not emulator.ledger.running())
    assert len(emulator.ledger.created()) == 2
    assert len(emulator.ledger.cancelled()) == 1


async def test_aiohttp(client: Client, emulator: Emulator) -> None:
    """Aiohttp cancels handlers if it is told to: nothing else is needed."""

    async def run(request: web.Request) -> web.Response:
        return web.json_response(await work(client, 30))

    app = web.Application()
    app.router.add_post("/run", run)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as group:
        group.start_soon(lambda: session.post(f"http://127.0.0.1:{runner.addresses[0][1]}/run"))
        await until(emulator.ledger.running)
        group.cancel_scope.cancel()
    await until(lambda: emulator.ledger.cancelled())
    await runner.cleanup()


# -- The function itself -----------------------------------------------------------------------


async def forever() -> Any:
    """Receive nothing."""
    await anyio.sleep_forever()


async def disconnect() -> Any:
    """Receive the rest of a body, and a disconnect."""
    await anyio.sleep(0.05)
    return {"type": "http.disconnect"}


async def test_results_and_errors() -> None:
    """What the work returns or raises comes through as it is."""

    async def good() -> int:
        await anyio.sleep(0.01)
        return 5

    async def bad() -> int:
        raise KeyError("x")

    assert await while_connected(forever, good()) == 5
    with pytest.raises(KeyError, match="x"):
        await while_connected(forever, bad())
    with pytest.raises(RequestDisconnected):
        await while_connected(disconnect, anyio.sleep(10))


async def test_bodies_are_passed_over() -> None:
    """What arrives of a body is not a disconnect."""
    messages = [{"type": "http.request", "body": b"x", "more_body": True}] * 3

    async def receive() -> Any:
        return messages.pop() if messages else await disconnect()

    with pytest.raises(RequestDisconnected):
        await while_connected(receive, anyio.sleep(10))
    assert not messages


async def test_the_handler_is_cancelled(client: Client, emulator: Emulator) -> None:
    """A cancellation from outside, as at a shutdown, reaches the run, and is raised."""
    task = asyncio.create_task(while_connected(forever, work(client, 30)))
    await until(lambda: emulator.ledger.created())
    await anyio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: emulator.ledger.cancelled())


async def test_failures(client: Client, emulator: Emulator) -> None:
    """A failure is no group of exceptions."""

    @emulator.model("acme/broken", official=True)
    async def broken() -> str:
        raise ValueError("no luck")

    with pytest.raises(PredictionFailed, match="no luck"):
        await while_connected(forever, client.run("acme/broken"))


async def test_servers_that_fail(client: Client, emulator: Emulator) -> None:
    """If it cannot be told whether the browser is there, the run is cancelled, and the reason is raised as it is."""

    async def receive() -> object:
        await until(emulator.ledger.running)
        raise LookupError("no messages")

    with pytest.raises(LookupError, match="no messages"):
        await while_connected(receive, work(client, 30))
    assert not emulator.ledger.running()


@pytest.mark.parametrize("request_", [None, 5, "request", object()])
async def test_what_is_no_request(request_: object) -> None:
    """It is told, and the work does not begin."""

    async def never() -> None:
        pytest.fail("it began")

    with pytest.raises(ArgumentTypeError, match="request"):
        await while_connected(request_, never())


async def test_requests_that_need_nothing() -> None:
    """The error says what the framework has itself."""
    errors: list[str] = []

    async def run(request: web.Request) -> web.Response:
        try:
            await while_connected(request, anyio.lowlevel.checkpoint())
        except ArgumentTypeError as error:
            errors.append(str(error))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", run)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        await session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    await runner.cleanup()
    assert "handler_cancellation" in errors[0]
