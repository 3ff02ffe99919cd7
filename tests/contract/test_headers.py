"""Answers with more headers than aiohttp reads by default, as proxies and gateways make them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from replicate_async.testing import Reply, Request

from .faults import world

BODY = json.dumps({"type": "user", "username": "acme"}).encode()


@pytest.mark.parametrize("size", [9_000, 20_000, 60_000])
async def test_a_long_header(size: int) -> None:
    """A header of up to 64 kB is read."""
    headers = {"Content-Type": "application/json", "Set-Cookie": "x" * size}
    async with world() as here, here.client(timeout=30) as client:
        here.emulator.wire.inject(Reply(200, BODY, headers))
        assert (await client.accounts.current()).username == "acme"


@pytest.mark.parametrize("number", [200, 900])
async def test_many_headers(number: int) -> None:
    """Hundreds of headers are read."""
    headers = {"Content-Type": "application/json"} | {f"X-{n}": str(n) for n in range(number)}
    async with world() as here, here.client(timeout=30) as client:
        here.emulator.wire.inject(Reply(200, BODY, headers))
        assert (await client.accounts.current()).username == "acme"


@pytest.mark.parametrize(
    "headers", [{"Set-Cookie": "x" * 60_000}, {f"X-{n}": str(n) for n in range(200)}]
)
async def test_a_session_of_the_caller(headers: dict[str, str]) -> None:
    """They are read with a session that the caller has brought, too: no prediction is lost for them."""

    async def add(
        request: web.BaseRequest,
        record: Request,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        response = await answer(request)
        response.headers.update(headers)
        return response

    async with world() as here, aiohttp.ClientSession() as session:
        here.emulator.middlewares.append(add)
        client = here.client(timeout=30, session=session)
        assert await client.run("acme/echo", {"text": "a"}, wait=False) == "a"
        assert client.stats.created == len(here.made_of("a")) == 1
        assert client.stats.adopted == 0
