"""The README: every Python block runs as it is, and its tables are complete."""

from __future__ import annotations

import inspect
import operator
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from documents import (
    ROOT,
    Block,
    Document,
    check_failures_of_web_app,
    check_web_app,
    check_webhook_app,
    local_emulator,
)

import replicate_async
from replicate_async import Client, exceptions
from replicate_async.testing import TOKEN, Emulator

README = Document(ROOT / "README.md")
TEXT = README.text
BLOCKS = README.blocks
APPS = [block for block in BLOCKS if block.is_app]
TESTS = [block for block in BLOCKS if block.is_test]
SCRIPTS = [block for block in BLOCKS if block not in APPS + TESTS]
rows = README.rows


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """Run an emulator that the default client finds, in a directory with a picture."""
    with local_emulator(monkeypatch, tmp_path) as running:
        yield running


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_script(block: Block, emulator: Emulator) -> None:
    """A block runs to its end, and talks to the emulator alone."""
    emulator.ledger.clear()
    block.run()
    if not block.brings_emulator:
        assert emulator.ledger.requests(origin="api")
    assert not emulator.ledger.leaks()
    assert not emulator.ledger.running()


def test_first_block(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The first block prints what it says that it prints."""
    BLOCKS[0].run()
    assert capsys.readouterr().out == "hello Alice\n"


def test_fan_out(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The script that fans out saves each picture, and creates one prediction for each."""
    [block] = [block for block in SCRIPTS if "pictures.db" in block.source]
    block.run()
    saved = sorted(Path("pictures").glob("*.png"))
    assert len(saved) == len(emulator.ledger.created()) == 12
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved)
    assert capsys.readouterr().out.count(".png\n") == 12


def test_abandoned_run(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The run that is given up was created once, and is cancelled at the other end."""
    [block] = [block for block in SCRIPTS if "asyncio.timeout" in block.source]
    block.run()
    said = capsys.readouterr().out
    assert "created=1" in said
    assert "cancelled=1" in said
    [life] = emulator.ledger.created()
    assert life.did("cancelled")


async def test_web_app(emulator: Emulator) -> None:
    """The web app answers with the picture that it was asked for."""
    await check_web_app(APPS[0].run("app")["app"], emulator)


async def test_web_app_tells_failures(emulator: Emulator) -> None:
    """The web app tells a failed model from an API that refuses."""
    await check_failures_of_web_app(APPS[0].run("app")["app"], emulator)


async def test_webhook_app(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The webhook's app hears of a prediction, and refuses what is not signed."""
    created = await check_webhook_app(APPS[1].run("app")["app"], emulator)
    assert capsys.readouterr().out == f"{created} succeeded: hello Alice\n"


@pytest.mark.parametrize("block", TESTS, ids=str)
def test_tests(block: Block, tmp_path: Path) -> None:
    """Pytest runs the tests of a block, with the fixture that the package installs."""
    block.run_tests(tmp_path)


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
