"""The README: it is short, every Python block runs as it is, and its tables are complete."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, Block, Document, check_web_app, local_emulator

from replicate_async.testing import Emulator

README = Document(ROOT / "README.md")
TEXT = README.text
BLOCKS = README.blocks
APPS = [block for block in BLOCKS if block.is_app]
SCRIPTS = [block for block in BLOCKS if block not in APPS]
rows = README.rows


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """Run an emulator that the default client finds, in a directory with a picture."""
    with local_emulator(monkeypatch, tmp_path) as running:
        yield running


def test_length() -> None:
    """The README is a front page; the docs have the rest."""
    assert len(TEXT.split()) <= 700


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_script(block: Block, emulator: Emulator) -> None:
    """A block runs to its end, and talks to the emulator alone."""
    emulator.ledger.clear()
    block.run()
    assert emulator.ledger.requests(origin="api")
    assert not emulator.ledger.leaks()
    assert not emulator.ledger.running()


def test_first_block(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The first block prints what it says that it prints."""
    BLOCKS[0].run()
    assert capsys.readouterr().out == "hello Alice\n"


def test_batch(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The batch saves each picture, and creates one prediction for each."""
    [block] = [block for block in SCRIPTS if "pictures.db" in block.source]
    block.run()
    saved = sorted(Path("pictures").glob("*.png"))
    assert len(saved) == len(emulator.ledger.created()) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved)
    assert capsys.readouterr().out.count(".png\n") == 3


async def test_web_app(emulator: Emulator) -> None:
    """The web app answers with the picture that it was asked for."""
    [block] = APPS
    await check_web_app(block.run("app")["app"], emulator)


def test_dependencies() -> None:
    """The table has every dependency, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [re.split(r"[<>=!~ ]", each)[0] for each in project["dependencies"]]
    assert sorted(row[0] for row in rows("Dependencies")) == sorted(needed)


def test_links() -> None:
    """Links to files lead to a file, and their fragments to a heading in it."""
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert targets
    for target in targets:
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        assert (ROOT / path).is_file(), target
        assert not fragment or fragment in headings(ROOT / path), target


def headings(path: Path) -> set[str]:
    """Return the fragments that GitHub makes of the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-")
        for found in re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    }


def test_two_commands() -> None:
    """The README has exactly two commands that make an environment: the demo, and the tests."""
    commands = re.findall(r"^python3 -m venv .*$", TEXT, re.MULTILINE)
    assert [command.rpartition("python -m ")[2] for command in commands] == [
        "replicate_async demo",
        "pytest -n 4",
    ]
