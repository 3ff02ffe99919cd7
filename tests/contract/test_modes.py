"""Permissions of the files that are written."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicate_async import Client, sync
from replicate_async.testing import Emulator, OutputFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set a umask for a test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def text(emulator: Emulator) -> str:
    """Return the name of a model that makes a file and text."""

    @emulator.model("acme/text", official=True)
    def text(text: str) -> dict[str, Any]:
        return {"file": OutputFile(text.encode(), "out.txt", "text/plain"), "text": text}

    return "acme/text"


def modes(directory: Path) -> dict[str, int]:
    """Return the permissions of files by their names."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_journals_and_records_are_for_their_owner(
    client: Client, text: str, tmp_path: Path, umask: int
) -> None:
    """What holds inputs is readable by its owner only; outputs are as the umask says, and no wider."""
    outputs = client.map(text, [{"text": "a"}], save_to=tmp_path / "out", journal=tmp_path / "j.db")
    async with outputs:
        async for outcome in outputs:
            outcome.result()
            found = modes(tmp_path)
            assert {found[name] for name in found if name.startswith("j.db")} == {0o600}
    assert modes(tmp_path / "out") == {
        "000000-prediction.json": 0o600,
        "000000-out.txt": 0o666 & ~umask,
        "000000-output.json": 0o666 & ~umask,
    }


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o400, 0o666, 0o755])
async def test_save_keeps_the_mode(
    client: Client, text: str, tmp_path: Path, mode: int, umask: int
) -> None:
    """A file that is replaced keeps its permissions, whatever the umask; a new one gets those of the umask."""
    output = await client.run(text, {"text": "new"})
    new, old = tmp_path / "new.txt", tmp_path / "old.txt"
    old.write_text("old")
    old.chmod(mode)
    await output["file"].save(old)
    await output["file"].save(new)
    assert modes(tmp_path) == {"old.txt": mode, "new.txt": 0o666 & ~umask}
    assert old.read_text() == "new" or mode == 0


async def test_an_unfinished_file_is_no_wider(emulator: Emulator, tmp_path: Path) -> None:
    """While it is downloaded, a file that replaces a private one is private, too."""
    seen: list[int] = []

    @emulator.model("acme/large", official=True)
    def large() -> OutputFile:
        return OutputFile(bytes(2**22), "out.bin", "application/octet-stream")

    path = tmp_path / "old.bin"
    path.touch(mode=0o600)
    async with Client(emulator.token, base_url=emulator.url) as client:
        output = await client.run("acme/large", {})

        async def watch(request: Any, record: Any, answer: Any) -> Any:
            seen.extend(mode for name, mode in modes(tmp_path).items() if name.endswith(".part"))
            return await answer(request)

        emulator.middlewares.append(watch)
        await output.save(path)
    assert seen == [0o600]
    assert modes(tmp_path) == {"old.bin": 0o600}


async def test_save_through_a_link(client: Client, text: str, tmp_path: Path) -> None:
    """The file that a link leads to decides, not the link, which is replaced."""
    output = await client.run(text, {"text": "new"})
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    await output["file"].save(link)
    assert (link.is_symlink(), link.read_text(), target.read_text()) == (False, "new", "old")
    assert modes(tmp_path) == {"target": 0o600, "link": 0o600}


def test_in_the_facade(emulator: Emulator, text: str, tmp_path: Path) -> None:
    """The sync client does the same."""
    path = tmp_path / "old.txt"
    path.write_text("old")
    path.chmod(0o640)
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        client.run(text, {"text": "new"})["file"].save(path)
    assert modes(tmp_path) == {"old.txt": 0o640}
