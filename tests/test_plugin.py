"""The fixtures for pytest, in the test suites of users: with each plugin for async tests, in processes of their own."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

PLUGIN = "replicate_async.testing._pytest"

APP = """
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import replicate_async as replicate
from replicate_async import sync

painter = replicate.use("acme/painter", use_file_output=False)
blocking = sync.use("acme/painter")
changing = replicate.use("acme/changing")
predictions = replicate.predictions


async def shout(request):
    return PlainTextResponse(await replicate.run("acme/painter", {"text": request.query_params["text"]}))


def shout_in_a_thread(request):
    return PlainTextResponse(blocking(text=request.query_params["text"]))


app = Starlette(routes=[Route("/", shout), Route("/thread", shout_in_a_thread)])
"""

CONFTEST = """
import pytest

@pytest.fixture
def painter(FIXTURE):
    @FIXTURE.model("acme/painter")
    def painter(text: str) -> str:
        return text.upper()

    FIXTURE.ledger.clear()
    return FIXTURE
"""

SYNC = """
import os

import pytest
from starlette.testclient import TestClient

import app
import replicate_async as replicate
from replicate_async import sync


@pytest.mark.parametrize("round", [1, 2])
def test_blocking(painter, round):
    assert app.blocking(text="a") == "A"
    assert len(painter.ledger.created()) == 1
    assert sync.default_client().stats.created == 1
    sync.default_client().close()


@pytest.mark.parametrize("round", [1, 2])
def test_app(painter, round):
    with TestClient(app.app) as browser:
        assert browser.get("/?text=a").text == browser.get("/thread?text=a").text == "A"
    assert TestClient(app.app).get("/?text=b").text == "B"
    assert len(painter.ledger.created()) == 3
"""

ASYNC = """
import httpx
import pytest

import app
import replicate_async as replicate
from replicate_async.client import default_client

MARK


@pytest.mark.parametrize("round", [1, 2])
async def test_painter(painter, round):
    assert await app.painter(text="a") == "A"
    assert len(painter.ledger.created()) == 1
    assert default_client().stats.created == 1
    [seen] = [each async for each in app.predictions.list()] if FRESH else [None]
    await default_client().aclose()


@pytest.mark.parametrize("name", ["text", "words"])
async def test_schema(painter, name):
    if name == "text":
        @painter.model("acme/changing")
        def changing(text: str) -> str:
            return text
    else:
        @painter.model("acme/changing")
        def changing(words: str) -> str:
            return words
    assert await app.changing(**{name: "a"}) == "a"


@pytest.mark.parametrize("round", [1, 2])
async def test_app(painter, round):
    transport = httpx.ASGITransport(app.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as browser:
        assert (await browser.get("/?text=a")).text == "A"
        assert (await browser.get("/thread?text=a")).text == "A"
    assert len(painter.ledger.created()) == 2
"""

LAST = """
import app
from replicate_async import sync
from replicate_async.client import default_client


def test_the_last():
    real = "Client(base_url='http://127.0.0.1:9')"
    assert repr(default_client()) == repr(sync.default_client())
    assert (repr(default_client()) == real) is not EMULATED
"""

ANYIO = """pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

FUNCTION = {"asyncio_default_fixture_loop_scope": "function"}
SESSION = {
    "asyncio_mode": "auto",
    "asyncio_default_test_loop_scope": "session",
    "asyncio_default_fixture_loop_scope": "session",
}
AUTO = {"asyncio_mode": "auto", **FUNCTION}

MODES: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "strict": ([], "pytestmark = pytest.mark.asyncio", FUNCTION),
    "auto": ([], "", AUTO),
    "session loop": ([], "", SESSION),
    "anyio": (["-p", "no:asyncio"], ANYIO, {}),
    "xdist": (["-n", "2"], "", AUTO),
}
"""By the way to run async tests: arguments, a mark, and settings."""


@pytest.mark.parametrize(
    ("mode", "fixture"),
    [
        ("strict", "replicate_emulator"),
        ("auto", "replicate_emulator"),
        ("session loop", "replicate_emulator"),
        ("session loop", "replicate_emulator_session"),
        ("anyio", "replicate_emulator_session"),
        ("xdist", "replicate_emulator_session"),
    ],
)
def test_modes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: str, fixture: str
) -> None:
    """The default clients, and what was made of them at an import, follow the emulator of each test, and no other."""
    arguments, mark, options = MODES[mode]
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_real")
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("REPLICATE_API_PREFIX", "")
    is_fresh = fixture == "replicate_emulator"
    pytester.makepyfile(
        app=APP,
        conftest=CONFTEST.replace("FIXTURE", fixture),
        test_1=SYNC,
        test_2=ASYNC.replace("MARK", mark).replace("FRESH", str(is_fresh)),
        test_3=LAST.replace("EMULATED", str(not is_fresh)),
    )
    result = run(pytester, arguments, options)
    result.assert_outcomes(passed=11)


def run(
    pytester: pytest.Pytester, arguments: list[str], options: dict[str, str]
) -> pytest.RunResult:
    """Run the suite of a user."""
    ini = [f"--override-ini={name}={value}" for name, value in options.items()]
    is_installed = any(each.value == PLUGIN for each in entry_points(group="pytest11"))
    plugins = [] if is_installed else ["-p", PLUGIN]
    # Starlette would have its users install another client for the tests.
    warnings = ["-W", "error", "-W", "ignore:Using `httpx`"]
    common = ["-p", "no:cacheprovider", *warnings]
    result = pytester.runpytest_subprocess(*common, *plugins, *arguments, *ini, timeout=60)
    assert isinstance(result, pytest.RunResult)
    return result
