"""What the README's comparison says of this client and of `replicate` 1.0.7: both do it, against the emulator.

Its column on 2.0 beta rests on docs/coming-from/replicate-2.md.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from aiohttp import web
from documents import ROOT, Document, serving
from replicate.client import Client as OfficialClient
from replicate.exceptions import ReplicateError
from replicate.helpers import FileOutput as OfficialFile

from replicate_async import Client, FileOutput
from replicate_async.testing import ConcatenateIterator, Emulator, Fault, Reply

README = Document(ROOT / "README.md")
REF = "acme/writer"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Run an emulator that injects faults, with one model."""
    async with Emulator(wire=True) as running:

        @running.model(REF, official=True)
        def writer(words: int) -> ConcatenateIterator[str]:
            for number in range(words):
                yield f"word {number} "

        yield running


@pytest.fixture
async def ours(emulator: Emulator) -> AsyncIterator[Client]:
    """Return a client of this package."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        yield client


@pytest.fixture
async def official(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OfficialClient]:
    """Return an official client; it has no public way to close its connections."""
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.01")
    client = OfficialClient(api_token=emulator.token, base_url=emulator.url)
    yield client
    await client._async_client.aclose()


def test_compared_versions() -> None:
    """The README names the version that these tests use."""
    assert f"`replicate` {version('replicate')}]" in README.text
    page = (ROOT / "docs" / "coming-from" / "replicate-2.md").read_text("utf-8")
    [beta] = re.findall(r"2\.0\.0b\d+", README.text)
    assert beta in page


async def test_create_without_an_answer(
    emulator: Emulator, ours: Client, official: OfficialClient
) -> None:
    """A create gets no answer: this client finds what it made, the official one leaves that to the user."""
    emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", attempt=1)
    assert await ours.run(REF, {"words": 1}) == ["word 0 "]
    assert len(emulator.ledger.created()) == 1
    emulator.ledger.clear()
    with pytest.raises(httpx.HTTPError):
        await official.async_run(REF, {"words": 2})
    assert len(emulator.ledger.created()) == 1


async def test_cancelled_run(emulator: Emulator, ours: Client, official: OfficialClient) -> None:
    """A run is cancelled: this client cancels the prediction, the official one leaves it running."""
    model = await ours.models.get("emulator/sleeper")
    assert model.latest_version is not None
    ref = f"emulator/sleeper:{model.latest_version.id}"
    await cancel_when_created(emulator, ours.run(ref, {"seconds": 600}, wait=False))
    [life] = emulator.ledger.created()
    assert life.did("cancelled")
    emulator.ledger.clear()
    await cancel_when_created(emulator, official.async_run(ref, {"seconds": 600}, wait=False))
    [life] = emulator.ledger.created()
    assert not life.did("cancelled")
    assert len(emulator.ledger.running()) == 1


async def cancel_when_created(emulator: Emulator, run: Coroutine[Any, Any, Any]) -> None:
    """Start a run, and cancel it once it polls its prediction."""
    task = asyncio.create_task(run)
    async with asyncio.timeout(10):
        while not emulator.ledger.requests(method="GET", path="/v1/predictions/*"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_rate_limit(emulator: Emulator, ours: Client, official: OfficialClient) -> None:
    """A create is refused by the rate limit: this client waits, the official one raises."""
    emulator.wire.inject(Reply(429, headers={"Retry-After": "0"}), method="POST", attempt=1)
    assert await ours.run(REF, {"words": 1}) == ["word 0 "]
    with pytest.raises(ReplicateError) as caught:
        await official.async_run(REF, {"words": 2})
    assert caught.value.status == 429


async def test_lost_stream(emulator: Emulator, ours: Client, official: OfficialClient) -> None:
    """A stream breaks off: this client resumes it, the official one raises."""
    expected = "".join(f"word {number} " for number in range(3))
    emulator.wire.inject(Fault.RESET_IN_BODY, origin="stream", attempt=1)
    assert "".join([str(event) async for event in ours.stream(REF, {"words": 3})]) == expected
    with pytest.raises(httpx.HTTPError):
        async for _ in await official.async_stream(REF, {"words": 3}):
            pass


async def test_hosts_of_output_files(
    emulator: Emulator, ours: Client, official: OfficialClient
) -> None:
    """An output file is on another host: this client does not send the token there, the official one does."""
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=b"content")

    app = web.Application()
    app.router.add_get("/file", answer)
    async with serving(app) as elsewhere:

        @emulator.model("acme/linker", official=True)
        def linker() -> str:
            return f"{elsewhere}/file"

        output = await ours.run("acme/linker", {})
        assert isinstance(output, FileOutput)
        assert await output.read() == b"content"
        assert await OfficialFile(output.url, official).aread() == b"content"
    assert seen == [None, f"Bearer {emulator.token}"]
