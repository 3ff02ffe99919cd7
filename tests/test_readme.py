"""The README: every Python block runs as it is, and its tables are complete."""

from __future__ import annotations

import ast
import asyncio
import inspect
import operator
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import replicate_async
from replicate_async import Client, exceptions, sync
from replicate_async.testing import TOKEN, Emulator

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
PLUGIN = "replicate_async.testing._pytest"
SECONDS = 60


def run(block: Example, name: str = "__main__") -> dict[str, Any]:
    """Run a block as a script, or as `python -m asyncio` does if it awaits; return its names."""
    module = types.ModuleType(name)
    source = "\n" * (block.line + block.parsed.line_offset) + block.parsed
    code = compile(source, str(README), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result: Any = eval(code, module.__dict__)
    if inspect.iscoroutine(result):
        asyncio.run(asyncio.wait_for(result, SECONDS))
    return module.__dict__


def line(block: Example) -> str:
    """Name a block by its line."""
    return f"line-{block.line}"


SYBIL = Sybil([CodeBlockParser(language="python", evaluator=lambda _: None)], path=str(ROOT))
BLOCKS = list(SYBIL.parse(README).examples())
APPS = [block for block in BLOCKS if "web.run_app" in block.parsed]
TESTS = [block for block in BLOCKS if re.search(r"^def test_", block.parsed, re.MULTILINE)]
SCRIPTS = [block for block in BLOCKS if block not in APPS + TESTS]


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """Run an emulator that the default client finds, in a directory with a picture."""
    with Emulator() as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("replicate_async.client._default", None)
        monkeypatch.setattr("replicate_async.sync._default", None)
        monkeypatch.chdir(tmp_path)
        Path("photo.png").write_bytes(picture())
        yield running
        if sync._default is not None:
            sync._default.close()


def picture() -> bytes:
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


@pytest.mark.parametrize("block", SCRIPTS, ids=line)
def test_script(block: Example, emulator: Emulator) -> None:
    """A block runs to its end, and talks to the emulator alone."""
    emulator.ledger.clear()
    run(block)
    if "Emulator()" not in block.parsed:  # that one brings an emulator of its own
        assert emulator.ledger.requests(origin="api")
    assert not emulator.ledger.leaks()
    assert not emulator.ledger.running()


def test_first_block(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The first block prints what it says that it prints."""
    run(BLOCKS[0])
    assert capsys.readouterr().out == "hello Alice\n"


def test_fan_out(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The script that fans out saves each picture, and creates one prediction for each."""
    [block] = [block for block in SCRIPTS if "pictures.db" in block.parsed]
    run(block)
    saved = sorted(Path("pictures").glob("*.png"))
    assert len(saved) == len(emulator.ledger.created()) == 12
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved)
    assert capsys.readouterr().out.count(".png\n") == 12


def test_abandoned_run(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The run that is given up was created once, and is cancelled at the other end."""
    [block] = [block for block in SCRIPTS if "asyncio.timeout" in block.parsed]
    run(block)
    said = capsys.readouterr().out
    assert "created=1" in said
    assert "cancelled=1" in said
    [life] = emulator.ledger.created()
    assert life.did("cancelled")


async def test_web_app(emulator: Emulator) -> None:
    """The web app answers with the picture that it was asked for."""
    app = run(APPS[0], "app")["app"]
    async with (
        serving(app) as origin,
        aiohttp.ClientSession() as browser,
        browser.post(f"{origin}/paint", json={"prompt": "a pond"}) as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "image/png")
        assert (await answer.read()).startswith(b"\x89PNG")
    [created] = emulator.ledger.created()
    assert created.input == {"prompt": "a pond"}


async def test_web_app_tells_failures(emulator: Emulator) -> None:
    """The web app tells a failed model from an API that refuses."""
    app = run(APPS[0], "app")["app"]

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


async def test_webhook_app(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The webhook's app hears of a prediction, and refuses what is not signed."""
    app = run(APPS[1], "app")["app"]
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
    assert capsys.readouterr().out == f"{created.id} succeeded: hello Alice\n"


@pytest.mark.parametrize("block", TESTS, ids=line)
def test_tests(block: Example, tmp_path: Path) -> None:
    """Pytest runs the tests of a block, with the fixture that the package installs."""
    (tmp_path / "test_it.py").write_text(block.parsed, "utf-8")
    is_installed = any(found.value == PLUGIN for found in entry_points(group="pytest11"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"),
            *(() if is_installed else ("-p", PLUGIN)),
            *("--rootdir", str(tmp_path), str(tmp_path / "test_it.py")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{block.parsed.count('def test_')} passed" in done.stdout


def rows(section: str) -> list[list[str]]:
    """Return the cells of the last table of a section, without its head."""
    _, _, rest = TEXT.partition(f"\n## {section}\n")
    assert rest, section
    body, _, _ = rest.partition("\n## ")
    lines = [found for found in body.splitlines() if found.startswith("| ")]
    cells = [re.split(r" \| ", found.strip("| ")) for found in lines]
    return [row for row in cells[1:] if not row[0].startswith("-")]


def test_operations() -> None:
    """The table has all 37 operations, and their methods exist."""
    table = rows("All operations")
    assert len({endpoint for endpoint, _ in table}) == len(table) == 37
    client = Client("token")
    for _, method in table:
        assert callable(operator.attrgetter(method.strip("`"))(client)), method


def test_options() -> None:
    """The table has every option of a client, in the order of its signature, and no other."""
    named = [name for row in rows("Options") for name in re.findall(r"`(\w+)`", row[0])]
    assert named == list(inspect.signature(Client).parameters)


def test_defaults() -> None:
    """The defaults in the table are those of the code."""
    shown = {row[0].strip("`"): row[1].strip("`") for row in rows("Options")}
    for default in (
        replicate_async.Timeout(),
        replicate_async.Retry(),
        replicate_async.RateLimit(),
    ):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(default).__name__).lower()
        fields = "".join(f", {field}={value:g}" for field, value in attrs.asdict(default).items())
        assert shown[name] == f"{type(default).__name__}({fields[2:]})"
    sizes = {"256 MiB": 256 * 2**20, "64 MiB": 64 * 2**20, "64 KiB": 64 * 2**10, "256": 256}
    limits = dict(re.findall(r"(\w+)=([\w ]+)", shown["limits"]))
    assert {name: sizes[size] for name, size in limits.items()} == attrs.asdict(
        replicate_async.Limits()
    )


def test_map_of_modules() -> None:
    """The modules and tests that CONTRIBUTING.md explains exist."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    modules = re.findall(r"^\| `([\w/]+(?:\.py)?)` \| \d", text, re.MULTILINE)
    assert modules
    assert all((ROOT / "replicate_async" / module).exists() for module in modules)


def test_dependencies() -> None:
    """The table has every dependency, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [re.split(r"[<>=!~ ]", each)[0] for each in project["dependencies"]]
    assert sorted(row[0] for row in rows("Dependencies")) == sorted(needed)


def test_errors() -> None:
    """The tree is that of the module, with every class in it, and the table names classes of it."""
    [tree] = re.findall(r"```text\n(ReplicateException\n.*?)```", TEXT, re.DOTALL)
    assert tree in inspect.cleandoc(exceptions.__doc__ or "")
    assert set(re.findall(r"\b[A-Z]\w+\b", tree)) >= set(exceptions.__all__)
    for row in rows("Errors"):
        assert row[0].strip("`") in exceptions.__all__, row


def test_built_in_models() -> None:
    """The table has the models of the emulator."""
    named = [row[0].strip("`") for row in rows("Testing with the emulator")]
    theirs = [name for name, _ in Emulator().models() if not name.startswith("acme/")]
    assert sorted(named) == sorted(theirs)


def test_links() -> None:
    """Links within the README lead to a heading, and links to files to a file."""
    headings = {
        re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-")
        for found in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_token() -> None:
    """The token in the README is the emulator's."""
    assert set(re.findall(r"\br8_\w+", TEXT)) == {TOKEN}


def test_two_commands() -> None:
    """The README has exactly two commands that make an environment: the demo, and the tests."""
    commands = re.findall(r"^python3 -m venv .*$", TEXT, re.MULTILINE)
    assert [command.rpartition("python -m ")[2] for command in commands] == [
        "replicate_async demo",
        "pytest -n 4",
    ]
