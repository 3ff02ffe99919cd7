"""The app that the guide to web apps builds, on a real server: unknown IDs, failures, and how its sockets end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import anyio
import pytest
from documents import ROOT

from replicate_async.testing import Emulator, Input

from .conftest import app_of, served, until
from .guide import guide


@pytest.fixture
async def browser(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[aiohttp.ClientSession]:
    """Send requests to the app, which must not make the server log an error."""
    with guide(emulator, monkeypatch, tmp_path) as origin:
        async with aiohttp.ClientSession(origin) as session:
            yield session
    logged = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert [record for record in logged if record.name == "uvicorn.error"] == []


@pytest.mark.parametrize("path", ["/predictions/{}", "/poems/{}/events", "/pictures/{}"])
async def test_unknown_ids(browser: aiohttp.ClientSession, path: str) -> None:
    """An ID that no prediction has, or can have, is not found: there is no error of the server."""
    for name in ("nothing", "a b", "ä"):
        async with browser.get(path.format(name)) as response:
            assert response.status == 404


async def painted(browser: aiohttp.ClientSession) -> tuple[dict[str, Any], int | None]:
    """Paint over a socket; return the last message, and the code with which the socket was closed."""
    async with browser.ws_connect("/pictures") as socket:
        await socket.send_str("a lake")
        messages = [message.json() async for message in socket]
        return messages[-1], socket.close_code


async def test_a_picture(browser: aiohttp.ClientSession) -> None:
    """A socket is closed normally, after the URL of a picture that the app serves, for HEAD requests, too."""
    message, code = await painted(browser)
    assert (message["status"], code) == ("succeeded", 1000)
    async with browser.get(message["picture"]) as response:
        assert (await response.read()).startswith(b"\x89PNG")
    async with browser.head(message["picture"]) as response:
        assert (response.status, response.content_type) == (200, "image/png")
    async with browser.get("/predictions/" + message["picture"].rpartition("/")[2]) as response:
        assert (await response.json())["status"] == "succeeded"
    async with browser.get("/openapi.json") as response:
        assert "/pictures/{id}" in (await response.json())["paths"]


async def test_a_model_that_fails(browser: aiohttp.ClientSession, emulator: Emulator) -> None:
    """The page gets the reason, over each of the ways."""

    @emulator.model("emulator/painter", official=True)
    def painter(prompt: str) -> str:
        raise RuntimeError("no paint")

    message, code = await painted(browser)
    assert (message["status"], code) == ("failed", 1000)
    assert "no paint" in message["message"]
    async with browser.post("/paint", params={"prompt": "a lake"}) as response:
        assert response.status == 422
        assert "no paint" in (await response.json())["message"]


@pytest.mark.parametrize("status", [422, 502])
async def test_an_api_that_refuses(
    browser: aiohttp.ClientSession, emulator: Emulator, status: int
) -> None:
    """The page gets the reason, also of a create, and the status tells whether the input is to blame."""
    reason = "prompt" if status == 422 else "credit"

    def model(prompt: Annotated[str, Input(max_length=2)]) -> str:
        return prompt

    for name in ("painter", "writer"):
        emulator.add_model(f"emulator/{name}", model, official=True)
    if status == 502:
        emulator.credit = "none"
    message, code = await painted(browser)
    assert (message["status"], code) == ("failed", 1000)
    assert reason in message["message"]
    for path in ("/paint", "/pictures", "/poems"):
        async with browser.post(path, params={"prompt": "a lake"}) as response:
            assert response.status == status, path
            assert reason in (await response.json())["message"]


async def test_the_complete_app(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example tells its page the reasons of failures, too."""

    @emulator.model("acme/picky", official=True)
    def picky(prompt: Annotated[str, Input(max_length=2)]) -> str:
        return prompt

    for name, value in {**emulator.env, "POET": "acme/picky", "PAINTER": "acme/picky"}.items():
        monkeypatch.setenv(name, value)
    with served(app_of(ROOT / "docs/examples/web_app.py")) as origin:
        async with aiohttp.ClientSession(origin) as browser:
            async with browser.get("/poems/nothing/events") as response:
                assert response.status == 404
            async with browser.post("/poems", params={"prompt": "a lake"}) as response:
                assert response.status == 422
                assert "prompt" in (await response.json())["message"]
            message, code = await painted(browser)
    assert (message["status"], code) == ("failed", 1000)
    assert "prompt" in message["message"]


async def test_leaving(browser: aiohttp.ClientSession, emulator: Emulator) -> None:
    """A browser that leaves, also before it has sent anything, leaves no error behind."""

    @emulator.model("emulator/painter", official=True)
    async def painter(prompt: str) -> str:
        await anyio.sleep(60)
        return ""

    async with browser.ws_connect("/pictures"):
        pass
    async with browser.ws_connect("/pictures") as socket:
        await socket.send_str("a lake")
        while (await socket.receive_json())["status"] != "processing":
            pass
    await until(emulator.ledger.cancelled)
