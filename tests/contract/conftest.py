"""A running emulator, and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from aiohttp import web

from replicate_async import Client
from replicate_async.testing import Emulator, Request

HELLO = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
"""The version of `replicate/hello-world`."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in ("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL", "REPLICATE_POLL_INTERVAL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator in a thread."""
    with Emulator() as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    """Return a client of the emulator."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        yield client


def rewrite(emulator: Emulator, operation: str, change: Callable[[Any], Any]) -> None:
    """Let the emulator change the JSON of an operation's good answers before it sends them."""

    async def middleware(
        request: web.BaseRequest,
        record: Request,
        answer: Callable[[web.BaseRequest], Any],
    ) -> web.StreamResponse:
        response = await answer(request)
        assert isinstance(response, web.StreamResponse)
        if record.operation != operation or not 200 <= response.status < 300:
            return response
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        changed = change(json.loads(response.body))
        return web.Response(
            body=json.dumps(changed).encode(),
            status=response.status,
            headers={"Content-Type": "application/json"},
        )

    emulator.middlewares.append(middleware)


async def until(condition: Callable[[], object]) -> None:
    """Return when the emulator's thread has come so far."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 (it comes from another thread)
            await anyio.sleep(0.002)
