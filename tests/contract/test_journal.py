"""The journal: what it remembers, what it refuses, and that it is on the disk."""

from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async import exceptions
from replicate_async._verbs.map_fingerprint import Fingerprint, fingerprint_of, sent_hash
from replicate_async._verbs.map_journal import Journal
from replicate_async._verbs.map_rows import Entry

ROOT = Path(__file__).resolve().parents[2]
MARK = Fingerprint("hash", '{"a":1}')


@asynccontextmanager
async def opened(path: Path, target: str = "acme/model") -> AsyncIterator[Journal]:
    """Open a journal."""
    journal = Journal(path)
    try:
        await journal.open(target)
        yield journal
    finally:
        await journal.aclose()


async def test_the_life_of_an_item(tmp_path: Path) -> None:
    """Each step is remembered by the next opening."""
    path = tmp_path / "sub" / "run.db"
    async with opened(path) as journal:
        assert await journal.find(0, MARK) == Entry()
        await journal.intend(0, MARK, "sent", 0)
    async with opened(path) as journal:
        entry = await journal.find(0, MARK)
        assert (entry.state, entry.sent, entry.prediction) == ("intended", "sent", None)
        [(number, sent, intended)] = await journal.uncertain()
        assert (number, sent) == (0, "sent")
        assert intended == entry.intended > 1e9
        assert not await journal.owns("p1")
        await journal.created(0, "p1")
    async with opened(path) as journal:
        assert (await journal.find(0, MARK)).state == "running"
        assert (await journal.find(0, MARK)).prediction == "p1"
        assert await journal.owns("p1")
        assert await journal.uncertain() == []
        await journal.ended(0, {"id": "p1", "output": "ä\ud800"})
    async with opened(path) as journal:
        entry = await journal.find(0, MARK)
        assert (entry.state, entry.record) == ("ended", {"id": "p1", "output": "ä\ud800"})
        await journal.saved(0, {"000000-a.png": 17})
    async with opened(path) as journal:
        entry = await journal.find(0, MARK)
        assert (entry.state, entry.files) == ("saved", {"000000-a.png": 17})
        await journal.intend(0, MARK, "again", 1)
        entry = await journal.find(0, MARK)
        assert (entry.state, entry.attempt, entry.record, entry.files) == ("intended", 1, None, {})
        assert await journal.owns("p1")
        await journal.refused(0)
        assert (await journal.find(0, MARK)).state == "new"


async def test_it_is_on_the_disk(tmp_path: Path) -> None:
    """What has been awaited survives the sudden end of the process."""
    path = tmp_path / "run.db"
    script = (
        "import asyncio, os, signal, sys\n"
        "from replicate_async._verbs.map_journal import *\n"
        "async def main():\n"
        "    journal = Journal(sys.argv[1])\n"
        "    await journal.open('acme/model')\n"
        "    await asyncio.gather(*[journal.intend(n, Fingerprint('h', None), 's', 0) for n in range(50)])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, path], env=environment, timeout=60, check=False
    )
    assert done.returncode == -9
    async with opened(path) as journal:
        assert len(await journal.uncertain()) == 50
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


async def test_many_writers_are_committed_together(tmp_path: Path) -> None:
    """Thousands of writes at a time take few commits, and none is lost."""
    async with opened(tmp_path / "run.db") as journal:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for number in range(3000):
                group.create_task(journal.intend(number, MARK, "sent", 0))
        assert len(await journal.uncertain()) == 3000


async def test_a_cancelled_writer_harms_no_other(tmp_path: Path) -> None:
    """Cancelling who awaits a write leaves the journal usable."""
    async with opened(tmp_path / "run.db") as journal:
        tasks = [asyncio.create_task(journal.intend(n, MARK, "s", 0)) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found = {number for number, _, _ in await journal.uncertain()}
        assert found >= set(range(1, 20, 2))


async def test_in_use(tmp_path: Path) -> None:
    """A journal that somebody has is refused, with a word about it; afterwards it can be had."""
    path = tmp_path / "run.db"
    async with opened(path):
        with pytest.raises(exceptions.JournalError, match="another process is using it") as found:
            async with opened(path):
                pass
        assert found.value.kind == "in_use"
        script = (
            "import asyncio, sys\n"
            "from replicate_async._verbs.map_journal import *\n"
            "asyncio.run(Journal(sys.argv[1]).open('acme/model'))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", script, path],
            env=environment,
            timeout=60,
            check=False,
            capture_output=True,
            text=True,
        )
        assert "another process is using it" in done.stderr
    async with opened(path):
        pass


async def test_another_model(tmp_path: Path) -> None:
    """The journal of one model is refused for another, and not changed."""
    async with opened(tmp_path / "run.db"):
        pass
    with pytest.raises(
        exceptions.JournalError, match="belongs to acme/model, not to acme/x"
    ) as found:
        async with opened(tmp_path / "run.db", "acme/x"):
            pass
    assert found.value.kind == "mismatch"
    async with opened(tmp_path / "run.db"):
        pass


async def test_another_input(tmp_path: Path) -> None:
    """An input that is not what it was is refused, with its number; the journal stays usable."""
    async with opened(tmp_path / "run.db") as journal:
        await journal.intend(3, MARK, "sent", 0)
        with pytest.raises(exceptions.JournalError, match="input 3 is not what it was"):
            await journal.find(3, Fingerprint("other", None))
        assert (await journal.find(3, MARK)).state == "intended"


@pytest.mark.parametrize("what", ["text", "directory", "database", "future"])
async def test_no_journal(what: str, tmp_path: Path) -> None:
    """What is no journal is refused, and left as it is."""
    path = tmp_path / "thing"
    if what == "text":
        path.write_text("not a database, by any means\n" * 100)
    elif what == "directory":
        path.mkdir()
    elif what == "database":
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE mine (x)")
        database.commit()
        database.close()
    else:
        async with opened(path):
            pass
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(exceptions.JournalError) as found:
        async with opened(path):
            pass
    assert found.value.kind == ("failed" if what == "directory" else "unreadable")
    assert str(path) in str(found.value)
    if path.is_file():
        assert path.read_bytes() == before


# -- What tells inputs apart -------------------------------------------------------------------


class Size(Enum):
    """A choice."""

    LARGE = "large"


def mark(value: dict[str, Any]) -> str:
    """Return the hash of an input."""
    return asyncio.run(fingerprint_of(value)).hash


def test_files_are_told_apart_by_their_contents(tmp_path: Path) -> None:
    """A file counts with its content: its name, its time and where it is read from do not matter."""
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    one.write_bytes(b"content")
    two.write_bytes(b"content")
    os.utime(two, (1, 1))
    same = {mark({"image": each}) for each in (one, two, b"content", bytearray(b"content"))}
    same.add(mark({"image": io.BytesIO(b"content")}))
    with one.open("rb") as file:
        file.read(3)
        same.add(mark({"image": file}))
        assert file.read() == b"tent"
    assert len(same) == 1
    two.write_bytes(b"c0ntent")
    assert mark({"image": two}) not in same


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """What cannot be read, or only once, is refused with its place in the input."""
    with pytest.raises(exceptions.ArgumentError, match=r"input\.images\[1\].*cannot be read"):
        mark({"images": [b"", tmp_path / "none"]})
    read, write = os.pipe()
    os.close(write)
    with (
        os.fdopen(read, "rb") as pipe,
        pytest.raises(exceptions.ArgumentTypeError, match="only once"),
    ):
        mark({"image": pipe})
    with pytest.raises(exceptions.ArgumentTypeError, match=r"input\.x"):
        mark({"x": object()})


def test_equal_inputs_have_equal_hashes() -> None:
    """What is sent as the same JSON has the same hash."""
    assert mark({"a": 1, "b": 2.0}) == mark({"b": 2, "a": 1.0})
    assert mark({"a": (1, 2)}) == mark({"a": [1, 2]})
    assert mark({"a": Size.LARGE}) == mark({"a": "large"})
    assert mark({"a": {3, 1, 2}}) == mark({"a": {2, 3, 1}})
    assert mark({"a": 1}) != mark({"a": True})
    assert mark({"a": None}) != mark({})
    assert mark({"a": "1"}) != mark({"a": 1})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_sent_is_recognised_in_the_list(value: dict[str, Any]) -> None:
    """The hash of what is sent is that of what comes back, through JSON and in another order."""
    import json

    there_and_back = json.loads(json.dumps(dict(reversed(value.items()))))
    assert sent_hash(value) == sent_hash(there_and_back)
    assert sent_hash(value) == mark(value)
