"""Saved files after a power cut: what has not been written to the disk is lost, and what was reported as saved is there.

The files are on a file system in an image. What the image holds at some moment is what a power cut would have left:
a copy of it is mounted, and looked at.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import pytest

from replicate_async import Client
from replicate_async import sync as replicate_sync
from replicate_async.testing import Emulator, OutputFile

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import asyncio, sys
from replicate_async import Client

async def main(journal, out):
    inputs = ({"text": str(number)} for number in range(60))
    async with Client(rate_limit=False) as client:
        async for outcome in client.map("acme/blob", inputs, concurrency=8, journal=journal, save_to=out):
            print(*(path.name for path in outcome.saved), flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def content(text: str) -> bytes:
    """Return what the model makes of a text."""
    return text.encode() * 1000


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with a model that makes a file, a text and data."""
    with Emulator(rate_limits=False) as running:

        @running.model("acme/blob", official=True)
        async def blob(text: str) -> dict[str, object]:
            return {"file": OutputFile(content(text), "blob.bin"), "number": 1}

        yield running


class Disk:
    """A mounted file system, and what a power cut would leave of it."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self._copy = directory / "copy"
        self.path = directory / "mounted"
        self._left = directory / "left"

    def __enter__(self) -> Self:
        self._image.touch()
        os.truncate(self._image, 32 * 2**20)
        self.path.mkdir()
        self._left.mkdir()
        try:
            subprocess.run(["mkfs.ext4", "-q", self._image], check=True, capture_output=True)
            # So that nothing is written before it must be.
            options = "loop,noauto_da_alloc,commit=300"
            self._mount(self._image, self.path, options)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no file system can be mounted here ({error})")
        return self

    def __exit__(self, *exc_info: object) -> None:
        subprocess.run(["umount", self.path], check=True)

    def _mount(self, image: Path, path: Path, options: str) -> None:
        subprocess.run(["mount", "-o", options, image, path], check=True, capture_output=True)

    @contextmanager
    def after_power_cut(self) -> Iterator[Path]:
        """Yield the file system as it would be if the power was cut now."""
        self._copy.write_bytes(self._image.read_bytes())
        self._mount(self._copy, self._left, "loop")
        try:
            yield self._left
        finally:
            subprocess.run(["umount", self._left], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a file system."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a file system, on Linux")
    with Disk(tmp_path) as mounted:
        yield mounted


@pytest.mark.parametrize("reported", [3, 25])
def test_map(emulator: Emulator, disk: Disk, reported: int) -> None:
    """What was yielded, and what the journal notes as saved, survives a power cut at any moment."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, disk.path / "run.db", disk.path / "a" / "out"],
        env={**os.environ, **emulator.env, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        names = [process.stdout.readline().split() for _ in range(reported)]
        process.kill()
        process.wait()
    with disk.after_power_cut() as left:
        out = left / "a" / "out"
        for pair in names:
            for name in pair:
                assert (out / name).stat().st_size > 0
        with closing(sqlite3.connect(left / "run.db")) as journal:
            rows = journal.execute("SELECT number, files FROM items WHERE state = 'saved'")
            saved = {number: json.loads(files) for number, files in rows}
        assert len(saved) >= reported
        for number, files in saved.items():
            assert len(files) == 3
            assert {name: (out / name).stat().st_size for name in files} == files
            assert (out / f"{number:06d}-blob.bin").read_bytes() == content(str(number))
            assert json.loads((out / f"{number:06d}-prediction.json").read_bytes())


async def test_run_and_save(emulator: Emulator, disk: Disk) -> None:
    """What `run(save_to=...)` and `save` have returned survives a power cut."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        output = await client.run("acme/blob", {"text": "a"}, save_to=disk.path / "x" / "y")
        await output["file"].save(disk.path / "z.bin")
        await output["file"].save(f"{disk.path}/d/e/")
    with disk.after_power_cut() as left:
        for path in ("x/y/blob.bin", "z.bin", "d/e/blob.bin"):
            assert (left / path).read_bytes() == content("a")


def test_sync(emulator: Emulator, disk: Disk) -> None:
    """The same holds of the sync facade."""
    with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
        output = client.run("acme/blob", {"text": "a"}, save_to=disk.path / "x")
        output["file"].save(disk.path / "z.bin")
        [outcome] = client.map("acme/blob", [{"text": "b"}], save_to=disk.path / "m").collect()
    with disk.after_power_cut() as left:
        for path in ("x/blob.bin", "z.bin"):
            assert (left / path).read_bytes() == content("a")
        assert (left / "m" / outcome.saved[0].name).read_bytes() == content("b")


async def test_without_durability(emulator: Emulator, disk: Disk, tmp_path: Path) -> None:
    """With `durable=False`, files are saved as well, though nobody waits for the disk."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        output = await client.run(
            "acme/blob", {"text": "a"}, save_to=disk.path / "x", durable=False
        )
        path = await output["file"].save(disk.path / "z.bin", durable=False)
        inputs = [{"text": "b"}]
        [outcome] = await client.map(
            "acme/blob", inputs, save_to=disk.path / "m", durable=False, journal=tmp_path / "run.db"
        ).collect()
    assert path.read_bytes() == content("a")
    assert output["file"].path == path
    assert outcome.saved[0].read_bytes() == content("b")


def test_command(emulator: Emulator, disk: Disk) -> None:
    """What the command `run -o` has saved, files and data, survives a power cut."""
    out = disk.path / "a" / "out"
    subprocess.run(
        [sys.executable, "-m", "replicate_async", "run", "acme/blob", "text=a", "-o", out],
        env={**os.environ, **emulator.env, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
        check=True,
        timeout=60,
    )
    with disk.after_power_cut() as left:
        saved = left / "a" / "out"
        assert (saved / "blob.bin").read_bytes() == content("a")
        assert json.loads((saved / "output.json").read_bytes()) == {"file": "blob.bin", "number": 1}
