"""What the tests of the README and of the docs share: pages, their Python blocks, and what runs these."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import re
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import replicate_async.v1
from replicate_async import Client, sync
from replicate_async.testing import Emulator
from replicate_async.v1 import _backend

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "replicate_async.testing._pytest"
SECONDS = 60


class Document:
    """A page in Markdown."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def text(self) -> str:
        """What it says."""
        return self.path.read_text("utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """Its Python blocks, in their order."""
        parser = CodeBlockParser(language="python", evaluator=lambda _: None)
        sybil = Sybil([parser], path=str(self.path.parent))
        return [Block(self, example) for example in sybil.parse(self.path).examples()]

    @property
    def program(self) -> str:
        """Its blocks one after the other, without tests and apps of their own: what a reader puts into a file."""
        return "\n\n".join(
            block.source for block in self.blocks if not (block.is_app or block.is_test)
        )

    def html(self) -> str:
        """Return its blocks of HTML, as a page."""
        return "\n".join(re.findall(r"^```html\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL))

    def rows(self, section: str) -> list[list[str]]:
        """Return the cells of all tables of a section, without their heads."""
        _, _, rest = self.text.partition(f"\n## {section}\n")
        assert rest, section
        return table(rest.partition("\n## ")[0])


def table(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, without their heads."""
    lines = text.splitlines()
    rules = {n for n, line in enumerate(lines) if re.match(r"\|[-| ]+\|$", line)}
    return [
        re.split(r" \| ", line.strip("| "))
        for n, line in enumerate(lines)
        if line.startswith("| ") and not {n, n + 1} & rules
    ]


@attrs.frozen
class Block:
    """A Python block of a page."""

    page: Document
    example: Example = attrs.field(repr=False)

    @property
    def source(self) -> str:
        """The code."""
        return str(self.example.parsed)

    @property
    def is_app(self) -> bool:
        """Whether it serves until it is stopped."""
        return "web.run_app" in self.source

    @property
    def is_test(self) -> bool:
        """Whether it holds tests for pytest."""
        return bool(re.search(r"^def test_", self.source, re.MULTILINE))

    def __str__(self) -> str:
        return f"line-{self.example.line}"

    def run(self, name: str = "__main__") -> dict[str, Any]:
        """Run it alone, as a script or as `python -m asyncio` does if it awaits; return its names."""
        module = types.ModuleType(name)
        if (awaited := self._started(module.__dict__)) is not None:
            asyncio.run(awaited)
        return module.__dict__

    def run_after(self, names: dict[str, Any], runner: asyncio.Runner) -> None:
        """Run it after other blocks, with their names and in their event loop."""
        if (awaited := self._started(names)) is not None:
            runner.run(awaited)

    def _started(self, names: dict[str, Any]) -> Coroutine[Any, Any, Any] | None:
        """Run it up to its end or its first `await`; return what is to be awaited."""
        code = compile(
            "\n" * (self.example.line + self.example.parsed.line_offset) + self.source,
            str(self.page.path),
            "exec",
            ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        result: Any = eval(code, names)
        return asyncio.wait_for(result, SECONDS) if inspect.iscoroutine(result) else None

    def run_tests(self, directory: Path) -> None:
        """Let pytest run its tests, with the fixture that the package installs, of `app.py`: the page's program."""
        (directory / "app.py").write_text(self.page.program, "utf-8")
        (directory / "test_it.py").write_text(self.source, "utf-8")
        is_installed = any(found.value == PLUGIN for found in entry_points(group="pytest11"))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"),
                # Starlette's TestClient works with httpx, but would rather have its successor.
                *("-W", "ignore:Using `httpx` with `starlette.testclient`"),
                *("-p", "no:asyncio"),
                *(() if is_installed else ("-p", PLUGIN)),
                *("--rootdir", str(directory), str(directory / "test_it.py")),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{self.source.count('def test_')} passed" in done.stdout


@contextmanager
def local_emulator(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[Emulator]:
    """Run an emulator that the default clients find, in a directory with a picture."""
    official = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "replicate"
    }
    with Emulator() as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("replicate_async._jobs.context._default", None)
        monkeypatch.setattr("replicate_async.sync.client._default", None)
        monkeypatch.chdir(directory)
        Path("photo.png").write_bytes(_picture())
        yield running
        if sync.client._default is not None:  # noqa: SLF001  (a fresh default client)
            sync.client._default.close()  # noqa: SLF001  (a fresh default client)
        _backend._sync_client.cache_clear()  # noqa: SLF001  (they hold the loop's thread)
        gc.collect()
        if sys.modules.get("replicate") is replicate_async.v1:  # a page has installed it
            for name in [name for name in sys.modules if name.partition(".")[0] == "replicate"]:
                del sys.modules[name]
        sys.modules.update(official)


def _picture() -> bytes:
    """Return a PNG of one pixel."""
    from replicate_async.testing._png import Canvas

    return Canvas(1, 1).png()


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve an app on a free port of this machine; yields its origin."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


# -- Web apps that the pages show --------------------------------------------------------------


async def check_web_app(app: web.Application, emulator: Emulator) -> None:
    """The web app answers with the picture that it was asked for."""
    async with (
        serving(app) as origin,
        aiohttp.ClientSession() as browser,
        browser.post(f"{origin}/paint", json={"prompt": "a pond"}) as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "image/png")
        assert (await answer.read()).startswith(b"\x89PNG")
    [created] = emulator.ledger.created()
    assert created.input == {"prompt": "a pond"}


async def check_failures_of_web_app(app: web.Application, emulator: Emulator) -> None:
    """The web app tells a failed model from an API that refuses."""

    @emulator.model("emulator/painter", official=True)
    def painter(prompt: str) -> str:
        raise RuntimeError("no paint")

    async with serving(app) as origin, aiohttp.ClientSession() as browser:
        async with browser.post(f"{origin}/paint", json={"prompt": "a pond"}) as answer:
            assert answer.status == 422
            assert "no paint" in await answer.text()
        emulator.credit = "none"
        async with browser.post(f"{origin}/paint", json={"prompt": "a pond"}) as answer:
            assert answer.status == 502


async def check_webhook_app(app: web.Application, emulator: Emulator) -> str:
    """The webhook's app hears of a prediction, and refuses what is not signed; return the id."""
    heard = asyncio.Event()

    @web.middleware
    async def listen(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        finally:
            heard.set()
        return answer

    app.middlewares.append(listen)
    async with serving(app) as origin, Client() as client, asyncio.timeout(SECONDS):
        emulator.webhook_hosts["example.com"] = origin
        created = await client.predictions.create(
            model="replicate/hello-world",
            input={"text": "Alice"},
            webhook="https://example.com/replicate",
            webhook_events_filter=["completed"],
        )
        await heard.wait()
        async with (
            aiohttp.ClientSession() as stranger,
            stranger.post(f"{origin}/replicate", json=created.to_dict()) as answer,
        ):
            assert answer.status == 403
    return created.id
