"""A running emulator, and a plain HTTP client for it."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import attrs
import pytest
from multidict import CIMultiDictProxy
from yarl import URL

from replicate_async.testing import Emulator

HELLO = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
TERMINAL = ("succeeded", "failed", "canceled", "aborted")


@attrs.frozen
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body."""
        return jsonlib.loads(self.body)


class Api:
    """Sends requests to an emulator as the official clients do, but without any of their code."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self.session = session

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: object = None,
        token: str | None = "default",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request; a path without origin goes to the API."""
        sent = dict(headers or {})
        if token is not None:
            given = self.emulator.token if token == "default" else token
            sent.setdefault("Authorization", f"Bearer {given}")
        url = path if path.startswith("http") else f"{self.emulator.url}/v1{path}"
        async with self.session.request(
            method,
            URL(url, encoded=True),
            json=json,
            data=data,
            headers=sent,
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def run(self, version: str, input: dict[str, Any], **headers: str) -> Any:
        """Create a prediction and return the answer's JSON."""
        answer = await self(
            "POST", "/predictions", json={"version": version, "input": input}, headers=headers
        )
        assert answer.status in (201, 202), answer.body
        return answer.json()

    async def finished(self, id: str, kind: str = "predictions") -> Any:
        """Read a prediction until it is terminal."""
        async with asyncio.timeout(20):
            while True:
                value = (await self("GET", f"/{kind}/{id}")).json()
                if value["status"] in TERMINAL:
                    return value

    async def until(self, id: str, status: str) -> Any:
        """Read a prediction until it has a status."""
        async with asyncio.timeout(20):
            while True:
                value = (await self("GET", f"/predictions/{id}")).json()
                if value["status"] == status:
                    return value


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator in a thread."""
    with Emulator() as running:
        yield running


@pytest.fixture
async def api(emulator: Emulator) -> AsyncIterator[Api]:
    """Return a client of the emulator."""
    async with aiohttp.ClientSession() as session:
        yield Api(emulator, session)
