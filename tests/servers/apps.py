"""Web apps that run models, for the servers of these tests: with Starlette, Django and aiohttp.web.

The environment variable CLIENT selects their client: `own`, created and closed by the lifespan; `default`, that of the
module, which is never closed; or `closed`, the same, which the lifespan closes. DEADLINE is the timeout of runs in seconds, if they have one. REDIS is the URL of the
backplane, if there is one, and POLL_INTERVAL the seconds between two polls beneath deliveries.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any, cast

import django
from aiohttp import web
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import replicate_async as replicate
from replicate_async import Client, EventStream, Receiver

OF_THE_MODULE = cast("Client", replicate)
"""The module, whose functions are those of the default client."""

IS_OWN = os.environ["CLIENT"] == "own"
TIMEOUT = float(os.environ["DEADLINE"]) if "DEADLINE" in os.environ else None
SLOW, QUICK, TALK = "acme/slow", "acme/quick", "acme/talk"
INPUT = {"text": "a"}

URL = "https://app.example/replicate"
POLL_INTERVAL = float(os.environ.get("POLL_INTERVAL", "90"))

_background: set[asyncio.Task[Any]] = set()


@cache
def receiver_of(client: Client) -> Receiver:
    """Return the receiver of webhooks of this process."""
    redis = os.environ.get("REDIS")
    backplane = None if redis is None else replicate.RedisBackplane(redis)
    return client.webhooks.receiver(url=URL, backplane=backplane, poll_interval=POLL_INTERVAL)


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


async def via(client: Client) -> Any:
    """Run a model, and wait for its webhook."""
    return await client.run(SLOW, INPUT, via=receiver_of(client), timeout=TIMEOUT)


async def start(client: Client) -> Any:
    """Start a model, and follow its progress."""
    async with client.start(SLOW, INPUT, timeout=TIMEOUT) as run:
        async for _ in run.updates():
            pass
        return await run.result()


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


async def quick_via(client: Client) -> Any:
    """Run it, and wait for its webhook."""
    return await client.run(QUICK, INPUT, via=receiver_of(client))


async def quick_start(client: Client) -> Any:
    """Start it, and follow its progress."""
    async with client.start(QUICK, INPUT) as run:
        statuses = [update.status async for update in run.updates()]
        assert statuses[-1] == "succeeded"
        return await run.result()


def relayed(name: str, client: Client) -> AsyncIterator[bytes]:
    """Return the bytes of a response that is streamed."""
    stream: EventStream = client.stream(QUICK if "quick" in name else TALK, INPUT, timeout=TIMEOUT)
    return replicate.sse(stream) if "sse" in name else _texts(stream)


async def _texts(stream: EventStream) -> AsyncIterator[bytes]:
    async for event in stream:
        yield str(event).encode()


async def ready(client: Client) -> Any:
    """Tell which process serves."""
    return os.getpid()


HANDLERS: Mapping[str, Callable[[Client], Awaitable[Any]]] = {
    "polled": polled,
    "held": held,
    "stream": stream,
    "map": fan_out,
    "via": via,
    "start": start,
    "background": background,
    "quick": quick,
    "quick_via": quick_via,
    "quick_start": quick_start,
    "ready": ready,
}

RELAYED = {"relay", "sse", "quick_sse"}
"""The paths whose responses are streamed."""


# -- ASGI --------------------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Client]]:
    """Create the client, and close it when the server shuts down."""
    if not IS_OWN:
        yield {"client": OF_THE_MODULE}
        if os.environ["CLIENT"] == "closed":
            await replicate.aclose()
        return
    async with Client() as client:
        yield {"client": client}


async def handle(request: Request) -> Response:
    """Call the handler that the path names, or relay a stream."""
    name = request.path_params["name"]
    if name in RELAYED:
        return StreamingResponse(relayed(name, request.state.client))
    return JSONResponse(await HANDLERS[name](request.state.client))


async def explain(_: Request, error: Exception) -> Response:
    """Answer for a handler that failed."""
    return JSONResponse(type(error).__name__, 502)


class Webhook:
    """Receives webhooks."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Receive one."""
        await receiver_of(scope["state"]["client"]).asgi(scope, receive, send)


asgi = Starlette(
    routes=[Route("/replicate", Webhook()), Route("/{name}", handle)],
    exception_handlers={replicate.ReplicateException: explain},
    lifespan=lifespan,
)


# -- Django ------------------------------------------------------------------------------------

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="tests")
django.setup()

_client = OF_THE_MODULE


async def view(request: HttpRequest, name: str) -> HttpResponseBase:
    """Call the handler that the path names, or relay a stream."""
    if name in RELAYED:
        return StreamingHttpResponse(relayed(name, _client))
    try:
        return JsonResponse(await HANDLERS[name](_client), safe=False)
    except replicate.ReplicateException as error:
        return JsonResponse(type(error).__name__, status=502, safe=False)


async def receive_in_django(request: HttpRequest) -> HttpResponseBase:
    """Receive a webhook."""
    return await receiver_of(_client).django(request)


urlpatterns = [path("replicate", receive_in_django), path("<str:name>", view)]

_serve = get_asgi_application()


async def in_django(scope: Any, receive: Any, send: Any) -> None:
    """Serve with Django, which does not know the lifespan."""
    global _client
    if scope["type"] != "lifespan":
        await _serve(scope, receive, send)
        return
    await receive()
    async with lifespan(asgi) as state:
        _client = state["client"]
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


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
    client, name = request.app[CLIENT], request.match_info["name"]
    if name not in RELAYED:
        return web.json_response(await HANDLERS[name](client))
    response = web.StreamResponse()
    await response.prepare(request)
    async for chunk in relayed(name, client):
        await response.write(chunk)
    return response


async def receive_in_aiohttp(request: web.Request) -> web.StreamResponse:
    """Receive a webhook."""
    return await receiver_of(request.app[CLIENT]).aiohttp(request)


def serve_aiohttp(port: int, shutdown_timeout: float) -> None:
    """Serve with aiohttp.web."""
    app = web.Application()
    app.cleanup_ctx.append(client_of)
    app.router.add_post("/replicate", receive_in_aiohttp)
    app.router.add_get("/{name}", handle_aiohttp)
    web.run_app(app, host="127.0.0.1", port=port, shutdown_timeout=shutdown_timeout)


if __name__ == "__main__":
    serve_aiohttp(int(sys.argv[1]), float(sys.argv[2]))
