"""Receivers in the frameworks that people use, async and through the facade."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import django
import httpx
import pytest
from django.conf import settings
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar, asgi
from litestar.types import ASGIApp
from quart import Quart

import replicate_async
from replicate_async import Client, sync
from replicate_async.testing import Emulator

from .conftest import URL, until
from .test_receiver import SECRET, payload, signed

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="tests")
    django.setup()

urlpatterns: list[Any] = []


# -- Async -------------------------------------------------------------------------------------


@pytest.fixture
def receiver(client: Client) -> replicate_async.Receiver:
    """Return a receiver with a secret of its own."""
    return client.webhooks.receiver(url=URL, secrets=SECRET)


def in_fastapi(receiver: replicate_async.Receiver) -> Any:
    """Mount it in FastAPI."""
    app = FastAPI()
    app.add_route("/replicate", receiver.asgi)
    return app


def in_litestar(receiver: replicate_async.Receiver) -> Any:
    """Mount it in Litestar."""
    app: ASGIApp = receiver.asgi
    return Litestar([asgi("/replicate", copy_scope=True)(app)])


def in_quart(receiver: replicate_async.Receiver) -> Any:
    """Use it in Quart, which mounts no apps: its handler is given the request."""
    from quart import request

    app = Quart(__name__)

    @app.post("/replicate")
    async def replicate_webhook() -> tuple[str, int]:
        body = await request.get_data()
        assert isinstance(body, bytes)
        reply = await receiver.handle([*request.headers.items()], body)
        return reply.text, reply.status

    return app


def in_django(receiver: replicate_async.Receiver) -> Any:
    """Use it as a view of Django."""
    from django.core.asgi import get_asgi_application
    from django.urls import clear_url_caches, path

    clear_url_caches()
    urlpatterns[:] = [path("replicate", receiver.django)]
    return get_asgi_application()


@pytest.mark.parametrize("framework", [in_fastapi, in_litestar, in_quart, in_django])
async def test_async(receiver: replicate_async.Receiver, framework: Any) -> None:
    """A good delivery is accepted, a forged one and one that is too large are not."""
    called: list[object] = []
    receiver.on("completed")(called.append)
    transport = httpx.ASGITransport(framework(receiver))
    async with httpx.AsyncClient(transport=transport, base_url="http://app.example") as http:
        body = payload()
        good = await http.post("/replicate", content=body, headers=signed(body))
        assert (good.status_code, good.text) == (200, "received")
        forged = {**signed(body), "webhook-signature": "v1,AAAA"}
        assert (await http.post("/replicate", content=body, headers=forged)).status_code == 401
        large = b" " * (2**20 + 1)
        assert (
            await http.post("/replicate", content=large, headers=signed(large))
        ).status_code == 413
        assert (await http.get("/replicate")).status_code in (404, 405)
    await until(lambda: called)


# -- The facade --------------------------------------------------------------------------------


class Quiet(WSGIRequestHandler):
    """Says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve a WSGI app in a thread."""
    with WSGIServer(("127.0.0.1", 0), Quiet) as server:
        server.set_app(app)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def flask_app(receiver: sync.Receiver) -> Any:
    """Use it as a view of Flask."""
    app = Flask(__name__)
    app.post("/replicate")(receiver.flask)
    return app


def django_app(receiver: sync.Receiver) -> Any:
    """Use it as a view of Django."""
    from django.core.wsgi import get_wsgi_application
    from django.urls import clear_url_caches, path

    clear_url_caches()
    urlpatterns[:] = [path("replicate", receiver.django)]
    return get_wsgi_application()


@pytest.fixture
def sync_client(emulator: Emulator) -> Iterator[sync.Client]:
    """Return a client of the facade."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        yield client


@pytest.mark.parametrize("framework", [flask_app, django_app])
def test_sync(sync_client: sync.Client, emulator: Emulator, framework: Any) -> None:
    """A run of the facade waits by webhook; handlers get twins, in another thread."""
    receiver = sync_client.webhooks.receiver(url=URL)
    seen: list[tuple[object, object]] = []
    arrived = threading.Event()

    @receiver.on("completed")
    def ended(job: sync.Prediction) -> None:
        seen.append((type(job), job.reload().output))
        arrived.set()

    with served(framework(receiver)) as origin:
        emulator.webhook_hosts["app.example"] = origin
        assert sync_client.run("acme/slow", {"text": "a"}, via=receiver) == "hello a"
        assert arrived.wait(10)
        assert seen == [(sync.Prediction, "hello a")]
        body = payload()
        forged = httpx.post(f"{origin}/replicate", content=body, headers=signed(body))
        assert forged.status_code == 401
        assert httpx.get(f"{origin}/replicate").status_code == 405
        large = b" " * (2**20 + 1)
        assert httpx.post(f"{origin}/replicate", content=large).status_code == 413
    assert len(emulator.ledger.requests(operation="predictions.get")) == 1


def test_handle(sync_client: sync.Client, emulator: Emulator) -> None:
    """Without a view, what a framework has of a request is enough."""
    receiver = sync_client.webhooks.receiver(url=URL)
    body = payload()
    headers = signed(body, secret=emulator.webhook_secret)
    assert receiver.handle(headers, body).status == 200
    assert receiver.handle(headers, body).text == "received before"
    assert receiver.handle({}, body).status == 400
