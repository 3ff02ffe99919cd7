"""An emulator that delivers to an app of the test, and a client of it."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import pytest
import uvicorn
from aiohttp import web

from replicate_async import Client, Receiver
from replicate_async.testing import Emulator

URL = "https://app.example/replicate"

Mounted: TypeAlias = Callable[[Receiver], AbstractAsyncContextManager[str]]


_LATE_CONNECTIONS = (
    "ignore:unclosed transport:ResourceWarning",
    "ignore:unclosed <socket:ResourceWarning",
)
"""Servers that end while the emulator connects to deliver a webhook leave that connection to the garbage collector."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Do not take what the apps' servers leave behind for a fault of the client, whose sessions are still checked."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for each in _LATE_CONNECTIONS:
                item.add_marker(pytest.mark.filterwarnings(each))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Collect what the servers of a test have left before the next one begins."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in ("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL", "REPLICATE_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator in a thread, with models that take some time."""
    with Emulator() as running:

        @running.model("acme/slow", official=True)
        async def slow(text: str, seconds: float = 0.3) -> str:
            """Take a moment."""
            await asyncio.sleep(seconds)
            return f"hello {text}"

        @running.model("acme/lines", official=True)
        async def lines() -> AsyncIterator[str]:
            """Take a second for three lines."""
            for line in ("one", "two", "three"):
                print(line)
                yield line
                await asyncio.sleep(0.6)

        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    """Return a client of the emulator."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        yield client


@pytest.fixture
def mounted(emulator: Emulator) -> Mounted:
    """Return a context manager in which a receiver is mounted where the emulator delivers to."""

    @asynccontextmanager
    async def serve(receiver: Receiver) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/replicate", receiver.aiohttp)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
            emulator.webhook_hosts["app.example"] = origin
            yield origin
        finally:
            await runner.cleanup()

    return serve


@contextmanager
def served(app: Any, *, lifespan: Literal["auto", "off"] = "auto") -> Iterator[str]:
    """Serve an ASGI app in a thread; yields its origin. What the server logs goes to the root logger."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, log_level="error", lifespan=lifespan)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while not server.started:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def app_of(path: Path) -> Any:
    """Return the app in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


async def until(condition: Callable[[], object]) -> None:
    """Return when something has happened that is bound to happen."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 (it may come from another thread)
            await anyio.sleep(0.005)
