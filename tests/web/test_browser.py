"""The example web app in headless Chromium: the stream, a reconnection, the progress, and the picture."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from documents import ROOT
from playwright.sync_api import Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from replicate_async import Client, file_response
from replicate_async.testing import Emulator, OutputFile, log

from .conftest import app_of, served
from .guide import guide

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURE = (
    b"<svg xmlns='http://www.w3.org/2000/svg' width='640' height='240'><rect width='640' height='240'"
    b" fill='#dce8f5'/><circle cx='320' cy='150' r='70' fill='#e8833a'/><rect y='150' width='640'"
    b" height='90' fill='#2b5d86'/></svg>"
)
WORDS = ["The boats lie still, ", " the gulls begin, ", " a lamp goes out ", " and light comes in."]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with a poet and a painter who take their time."""
    with Emulator() as running:

        @running.model("acme/poet", official=True)
        async def poet(prompt: str) -> AsyncIterator[str]:
            for words in WORDS:
                await asyncio.sleep(0.3)
                yield words.strip() + "\n"

        @running.model("acme/painter", official=True)
        async def painter(prompt: str) -> OutputFile:
            for step in range(1, 11):
                log(f"{step * 10}%|{'#' * step:<10}| {step}/10 [00:00<00:00, 5.00it/s]\n")
                await asyncio.sleep(5 if prompt == "slowly" else 0.2)
            return OutputFile(PICTURE, "harbour.svg", "image/svg+xml")

        yield running


class Breaking:
    """An ASGI app whose first stream of events breaks off after a few of them."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.connections: list[str | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not scope["path"].endswith("/events"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        self.connections.append(headers.get(b"last-event-id", b"").decode() or None)
        left = 3 if len(self.connections) == 1 else 10_000

        async def breaking(message: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionResetError
            await send(message)

        try:
            await self.app(scope, receive, breaking)
        except* ConnectionResetError:
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def app(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Breaking:
    """Load the example."""
    for name, value in {**emulator.env, "POET": "acme/poet", "PAINTER": "acme/painter"}.items():
        monkeypatch.setenv(name, value)
    return Breaking(app_of(ROOT / "docs/examples/web_app.py"))


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a tab of headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 800, "height": 700})
        yield page
        browser.close()


def picture_of(page: Page, name: str) -> None:
    """Take a screenshot, if somebody wants to look at it."""
    if directory := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(directory) / f"{name}.png")


def test_the_page(page: Page, app: Breaking, emulator: Emulator) -> None:
    """A poem appears word by word and survives a broken connection; a picture shows its progress."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    with served(app) as origin:
        page.goto(origin)
        page.get_by_role("button", name="Write").click()
        expect(page.locator("#poem")).to_contain_text("The boats lie still,", timeout=20_000)
        picture_of(page, "poem")
        expect(page.locator("#poem-status")).to_have_text("succeeded", timeout=30_000)
        poem = page.locator("#poem").text_content()
        assert poem is not None
        assert poem.split("\n")[:4] == [words.strip() for words in WORDS]
        assert len(app.connections) == 2
        assert app.connections[1] is not None
        page.get_by_role("button", name="Paint").click()
        expect(page.locator("#picture-status")).to_have_text("processing", timeout=20_000)
        page.wait_for_function(
            "((bar) => bar.value > 0.3 && bar.value < 1)(document.getElementById('progress'))",
            timeout=20_000,
        )
        picture_of(page, "progress")
        expect(page.locator("#picture")).to_be_visible(timeout=30_000)
        page.wait_for_function("document.getElementById('picture').naturalWidth > 0")
        picture_of(page, "picture")
    assert not errors
    assert len(emulator.ledger.created()) == 2
    assert not emulator.ledger.cancelled()
    assert not emulator.ledger.leaks()


def test_the_page_of_the_guide(
    page: Page, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The page that the guide to web apps builds writes, in both ways, and paints; it shows the reasons of failures."""
    errors: list[str] = []
    failures: list[str] = []

    @emulator.model("emulator/writer", official=True)
    async def writer(prompt: str) -> AsyncIterator[str]:
        for words in WORDS:
            yield words.strip() + "\n"
        if failures:
            raise RuntimeError(failures.pop())

    poem = page.locator("#poem")
    page.on("pageerror", lambda error: errors.append(str(error)))
    with guide(emulator, monkeypatch, tmp_path) as origin:
        page.goto(origin)
        for button in ("Write", "Write once"):
            page.get_by_role("button", name=button, exact=True).click()
            expect(poem).to_have_text("\n".join(map(str.strip, WORDS)), timeout=20_000)
            failures.append("no ink")
            page.get_by_role("button", name=button, exact=True).click()
            expect(poem).to_contain_text("no ink", timeout=20_000)
            page.evaluate("poem.textContent = ''")
        page.get_by_role("button", name="Paint").click()
        expect(page.locator("#status")).to_have_text("succeeded", timeout=30_000)
        page.wait_for_function("document.getElementById('picture').naturalWidth > 0")
        emulator.credit = "none"
        page.get_by_role("button", name="Paint").click()
        expect(page.locator("#status")).to_contain_text("credit", timeout=20_000)
        page.get_by_role("button", name="Write", exact=True).click()
        expect(poem).to_contain_text("credit", timeout=20_000)
    assert not errors


def test_closing_the_tab(page: Page, app: Breaking, emulator: Emulator) -> None:
    """A picture whose tab is closed is cancelled."""
    with served(app) as origin:
        page.goto(origin)
        page.get_by_label("Prompt").fill("slowly")
        page.get_by_role("button", name="Paint").click()
        expect(page.locator("#picture-status")).to_have_text("processing", timeout=20_000)
        page.close()
        deadline = time.monotonic() + 20
        while not emulator.ledger.cancelled():
            assert time.monotonic() < deadline, emulator.ledger.created()
            time.sleep(0.05)


# -- Files that hold scripts -------------------------------------------------------------------

SCRIPTS = {
    "text/html": b"<script>fetch('/ran')</script>",
    "image/svg+xml": b"<svg xmlns='http://www.w3.org/2000/svg'><script>fetch('/ran')</script></svg>",
    "application/xhtml+xml": b"<html xmlns='http://www.w3.org/1999/xhtml'><script>fetch('/ran')</script></html>",
}


def test_files_run_no_scripts(page: Page, emulator: Emulator) -> None:
    """What a model has made runs nothing at the origin of the app; its pictures are shown by pages of the app."""
    ran: list[str] = []

    @emulator.model("acme/maker", official=True)
    def maker(kind: str) -> OutputFile:
        return OutputFile(SCRIPTS.get(kind, PICTURE), "made", kind.removeprefix("picture "))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Client]]:
        async with Client(emulator.token, base_url=emulator.url) as client:
            yield {"client": client}

    async def passed_on(request: Request) -> Any:
        made = await request.state.client.run("acme/maker", dict(request.query_params))
        return file_response(made, request)

    async def as_it_is(request: Request) -> Response:
        kind = request.query_params["kind"]
        return Response(SCRIPTS[kind], media_type=kind)

    async def note(request: Request) -> Response:
        ran.append(request.headers["referer"])
        return Response()

    async def home(request: Request) -> Response:
        shown = "<img id='made' src='/passed-on?kind=picture image/svg%2Bxml'>"
        return Response(shown, media_type="text/html")

    routes = [
        Route("/", home),
        Route("/passed-on", passed_on),
        Route("/as-it-is", as_it_is),
        Route("/ran", note),
    ]
    with served(Starlette(routes=routes, lifespan=lifespan)) as origin:
        for kind in map(quote, SCRIPTS):
            page.goto(f"{origin}/passed-on?kind={kind}", wait_until="networkidle")
            assert ran == []
            page.goto(f"{origin}/as-it-is?kind={kind}", wait_until="networkidle")
            assert ran, "it would run"
            ran.clear()
        page.goto(origin)
        page.wait_for_function("document.getElementById('made').naturalWidth > 0")
