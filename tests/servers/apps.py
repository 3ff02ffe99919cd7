"""Web apps that run models, for the servers of these tests.

The environment variable CLIENT selects their client: `own`, created and closed by the lifespan, or `default`, that of
the module, which is never closed. DEADLINE is the timeout of runs in seconds, if they have one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import replicate_async as replicate
from replicate_async import Client

OF_THE_MODULE = cast("Client", replicate)
"""The module, whose functions are those of the default client."""

IS_OWN = os.environ["CLIENT"] == "own"
TIMEOUT = float(os.environ["DEADLINE"]) if "DEADLINE" in os.environ else None
SLOW, QUICK, TALK = "acme/slow", "acme/quick", "acme/talk"
INPUT = {"text": "a"}

_background: set[asyncio.Task[Any]] = set()


async def polled(client: Client) -> Any:
    """Run a model, and poll it from the start."""
    return await client.run(SLOW, INPUT, wait=False, timeout=TIMEOUT)


async def held(client: Client) -> Any:
    """Run a model in sync mode."""
    return await client.run(SLOW, INPUT, wait=60, timeout=TIMEOUT)


async def stream(client: Client) -> Any:
    """Stream the text of a model."""
    return "".join([str(event) async for event in client.stream(TALK, INPUT, timeout=TIMEOUT)])


async def fan_out(client: Client) -> Any:
    """Run a model on several inputs."""
    outcomes = client.map(SLOW, [INPUT] * 3, timeout=TIMEOUT)
    return [outcome.output async for outcome in outcomes]


async def background(client: Client) -> Any:
    """Run a model in a task that outlives the request."""

    async def work() -> None:
        with suppress(replicate.ReplicateException):
            await polled(client)

    task = asyncio.create_task(work())
    _background.add(task)
    task.add_done_callback(_background.discard)


async def quick(client: Client) -> Any:
    """Run a model that does not take long."""
    return await client.run(QUICK, INPUT)


async def ready(client: Client) -> Any:
    """Tell which process serves."""
    return os.getpid()


HANDLERS: Mapping[str, Callable[[Client], Awaitable[Any]]] = {
    "polled": polled,
    "held": held,
    "stream": stream,
    "map": fan_out,
    "background": background,
    "quick": quick,
    "ready": ready,
}


# -- ASGI --------------------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Client]]:
    """Create the client, and close it when the server shuts down."""
    if not IS_OWN:
        yield {"client": OF_THE_MODULE}
        return
    async with Client() as client:
        yield {"client": client}


async def handle(request: Request) -> Response:
    """Call the handler that the path names."""
    result = await HANDLERS[request.path_params["name"]](request.state.client)
    return JSONResponse(result)


async def explain(_: Request, error: Exception) -> Response:
    """Answer for a handler that failed."""
    return JSONResponse(type(error).__name__, 502)


async def relay(request: Request) -> Response:
    """Relay a stream."""
    client: Client = request.state.client

    async def texts() -> AsyncIterator[str]:
        async for event in client.stream(TALK, INPUT, timeout=TIMEOUT):
            yield str(event)

    return StreamingResponse(texts())


asgi = Starlette(
    routes=[Route("/relay", relay), Route("/{name}", handle)],
    exception_handlers={replicate.ReplicateException: explain},
    lifespan=lifespan,
)


# -- aiohttp.web -------------------------------------------------------------------------------

CLIENT = web.AppKey("client", Client)


async def client_of(app: web.Application) -> AsyncIterator[None]:
    """Create the client, and close it when the server shuts down."""
    if not IS_OWN:
        app[CLIENT] = OF_THE_MODULE
        yield
        return
    async with Client() as client:
        app[CLIENT] = client
        yield


async def handle_aiohttp(request: web.Request) -> web.StreamResponse:
    """Call the handler that the path names."""
    client = request.app[CLIENT]
    if request.match_info["name"] != "relay":
        return web.json_response(await HANDLERS[request.match_info["name"]](client))
    response = web.StreamResponse()
    await response.prepare(request)
    async for event in client.stream(TALK, INPUT, timeout=TIMEOUT):
        await response.write(str(event).encode())
    return response


def serve_aiohttp(port: int, shutdown_timeout: float) -> None:
    """Serve with aiohttp.web."""
    app = web.Application()
    app.cleanup_ctx.append(client_of)
    app.router.add_get("/{name}", handle_aiohttp)
    web.run_app(app, host="127.0.0.1", port=port, shutdown_timeout=shutdown_timeout)


if __name__ == "__main__":
    serve_aiohttp(int(sys.argv[1]), float(sys.argv[2]))
