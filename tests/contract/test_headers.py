"""Answers with more headers than aiohttp reads by default, as proxies and gateways make them."""

from __future__ import annotations

import json

import pytest

from replicate_async.testing import Reply

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
