"""`map` and the disk: sizes that the journal knows, disks that are full, journals that are gone, and doing things again."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replicate_async import Client, Outcome, exceptions
from replicate_async import sync as replicate_sync
from replicate_async._jobs.policy import Timings
from replicate_async._verbs.map_fingerprint import fingerprint_of
from replicate_async._verbs.map_journal import Journal
from replicate_async.testing import Emulator, Fault, OutputFile

from .conftest import until
from .faults import with_timings


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with models that make files, take time, and fail."""
    with Emulator(rate_limits=False, wire=True) as running:

        @running.model("acme/file", official=True)
        async def file(text: str, seconds: float = 0.0) -> list[OutputFile]:
            await asyncio.sleep(seconds)
            if text == "fail" and len(running.ledger.created()) <= 3:
                raise RuntimeError("it was the first time")
            return [OutputFile(text.encode() * 1000, "out.txt", "text/plain")]

        yield running


INPUTS = [{"text": text} for text in "abcdef"]


async def again(
    client: Client, tmp_path: Path, inputs: Any = INPUTS, **options: Any
) -> list[Outcome]:
    """Carry out the same fan-out, with a journal."""
    options.setdefault("save_to", tmp_path / "out")
    return await client.map("acme/file", inputs, journal=tmp_path / "run.db", **options).collect()


# -- Sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 999, 1001])
async def test_a_file_of_another_size_is_fetched_again(
    client: Client, emulator: Emulator, tmp_path: Path, size: int
) -> None:
    """A saved file whose size is not that in the journal is fetched again, and only that one."""
    saved = (await again(client, tmp_path))[2].saved[0]
    os.truncate(saved, size)
    emulator.ledger.clear()
    found = await again(client, tmp_path)
    assert [outcome.error for outcome in found] == [None] * 6
    assert saved.read_bytes() == b"c" * 1000
    assert len(emulator.ledger.requests()) == len(emulator.ledger.requests(origin="files")) == 1
    assert await again(client, tmp_path) is not None
    assert len(emulator.ledger.requests()) == 1


async def test_an_empty_record_does_not_cost_the_files(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """If the record of a prediction is damaged, it is written again; its files stay, although they have expired."""
    saved = (await again(client, tmp_path))[2].saved[0]
    record = saved.with_name("000002-prediction.json")
    content = record.read_bytes()
    os.truncate(record, 0)
    emulator.clock.advance(4000)
    emulator.ledger.clear()
    found = await again(client, tmp_path)
    assert [outcome.error for outcome in found] == [None] * 6
    assert (record.read_bytes(), saved.read_bytes()) == (content, b"c" * 1000)
    assert emulator.ledger.requests() == []


async def test_a_file_that_cannot_be_fetched_again(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """If a damaged file has expired, that is the error, and what is left of it stays."""
    saved = (await again(client, tmp_path))[2].saved[0]
    os.truncate(saved, 500)
    emulator.clock.advance(4000)
    found = await again(client, tmp_path)
    assert isinstance(found[2].error, exceptions.OutputNotSaved)
    assert isinstance(found[2].error.failures[0], exceptions.FileExpired)
    assert "for one hour" not in str(found[2].error).partition(")")[2]
    assert saved.stat().st_size == 500
    assert [outcome.error for outcome in found if outcome.index != 2] == [None] * 5
    found = await again(client, tmp_path, redo={"expired"})
    assert [outcome.error for outcome in found] == [None] * 6
    assert saved.read_bytes() == b"c" * 1000
    assert len(emulator.ledger.created()) == 7


def _forget_saved(journal: Path, number: int) -> None:
    """Leave a journal as it is after a sudden end between the writing of a file and its note."""
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute(
            "UPDATE items SET state = 'ended', files = NULL WHERE number = ?", (number,)
        )


async def test_a_damaged_file_that_the_journal_does_not_know(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A file that was written just before a sudden end is compared with the output, and fetched again if it is damaged."""
    saved = [outcome.saved[0] for outcome in await again(client, tmp_path, ordered=True)]
    for number in (1, 2):
        _forget_saved(tmp_path / "run.db", number)
    os.truncate(saved[2], 500)
    emulator.ledger.clear()
    found = await again(client, tmp_path)
    assert [outcome.error for outcome in found] == [None] * 6
    assert saved[2].read_bytes() == b"c" * 1000
    fetched = [one for one in emulator.ledger.requests() if one.method == "GET"]
    assert len(fetched) == len(emulator.ledger.requests(origin="files")) - 2 == 1


async def test_an_expired_file_that_the_journal_does_not_know(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """If the output has expired since, the file that is there is kept."""
    saved = (await again(client, tmp_path, ordered=True))[2].saved[0]
    _forget_saved(tmp_path / "run.db", 2)
    emulator.clock.advance(4000)
    found = await again(client, tmp_path)
    assert [outcome.error for outcome in found] == [None] * 6
    assert saved.read_bytes() == b"c" * 1000


# -- Disks that take nothing more --------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 KiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a file system, on Linux")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", path], check=True)


MANY = [{"text": "abcdefgh", "seconds": 0.05} for _ in range(200)]


def check_stopped(emulator: Emulator, found: list[Any]) -> None:
    """Check that few predictions were created, and that each input tells what became of it."""
    made = [outcome for outcome in found if outcome.prediction is not None]
    errors = [outcome.error for outcome in found if outcome.prediction is None]
    assert len(made) == len(emulator.ledger.created()) < 60
    assert len(found) == len(MANY)
    assert all(isinstance(error, exceptions.DirectoryNotWritable) for error in errors)
    assert all(isinstance(error, OSError) and error.errno for error in errors)
    for outcome in made:
        assert outcome.error is None or isinstance(outcome.error, exceptions.OutputNotSaved)


async def test_a_full_disk(client: Client, emulator: Emulator, small_disk: Path) -> None:
    """When the disk is full, nothing more is created; with space, the next run creates the rest."""
    options: dict[str, Any] = {"concurrency": 8, "save_to": small_disk / "out"}
    journal = small_disk.parent / "run.db"
    found = await client.map("acme/file", MANY, journal=journal, **options).collect()
    check_stopped(emulator, found)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    found = await client.map("acme/file", MANY, journal=journal, **options).collect()
    assert [outcome.error for outcome in found] == [None] * len(MANY)
    assert len(emulator.ledger.created()) == len(MANY)


def test_a_full_disk_through_the_facade(emulator: Emulator, small_disk: Path) -> None:
    """The same through the sync facade."""
    with replicate_sync.Client(emulator.token, base_url=emulator.url, rate_limit=False) as client:
        found = client.map("acme/file", MANY, save_to=small_disk, concurrency=8).collect()
    check_stopped(emulator, found)


async def test_a_disk_that_becomes_read_only(
    client: Client, emulator: Emulator, small_disk: Path
) -> None:
    """A disk that is read-only from some moment on stops the creation."""
    found = []
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    async with client.map("acme/file", MANY, save_to=small_disk, concurrency=8) as outcomes:
        async for outcome in outcomes:
            found.append(outcome)
            if len(found) == 5:
                await asyncio.to_thread(_make_read_only, small_disk)
    check_stopped(emulator, found)
    before = len(emulator.ledger.created())
    with pytest.raises(exceptions.ArgumentError, match="save_to"):
        await client.run("acme/file", {"text": "a"}, save_to=small_disk)
    with pytest.raises(exceptions.ArgumentError, match="save_to"):
        await client.map("acme/file", MANY, save_to=small_disk).collect()
    assert len(emulator.ledger.created()) == before


def _make_read_only(path: Path) -> None:
    for attempt in range(200):
        # It is busy as long as a file is open for writing.
        command = ["mount", "-o", "remount,ro", str(path)]
        done = subprocess.run(command, capture_output=True, check=attempt == 199)
        if done.returncode == 0:
            return


async def test_a_directory_that_is_gone(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A directory that was removed meanwhile stops the creation, too."""
    found = []
    out = tmp_path / "out"
    async with client.map("acme/file", MANY, save_to=out, concurrency=8) as outcomes:
        async for outcome in outcomes:
            found.append(outcome)
            if len(found) == 5:
                out.rename(tmp_path / "moved")
    check_stopped(emulator, found)


# -- Doing things again ------------------------------------------------------------------------


async def test_failed_ones_are_done_again(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """`redo={"failed"}` creates what has failed once more, and nothing else."""
    inputs = [{"text": text} for text in ("a", "fail", "b")]
    found = await again(client, tmp_path, inputs)
    assert isinstance(found[1].error, exceptions.PredictionFailed)
    for redo in ((), {"canceled", "timeout", "expired", "lost"}):
        found = await again(client, tmp_path, inputs, redo=redo)
        assert isinstance(found[1].error, exceptions.PredictionFailed)
    assert len(emulator.ledger.created()) == 3
    found = await again(client, tmp_path, inputs, redo={"failed"})
    assert [outcome.error for outcome in found] == [None] * 3
    assert found[1].saved[0].read_bytes() == b"fail" * 1000
    await again(client, tmp_path, inputs, redo={"failed"})
    assert len(emulator.ledger.created()) == 4


async def test_late_ones_are_done_again(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A prediction that was cancelled after its timeout says so in each run, until it is done again."""
    inputs = [{"text": "a", "seconds": 2.0}]
    first = await again(client, tmp_path, inputs, timeout=0.3)
    assert isinstance(first[0].error, exceptions.RunTimeout)
    for redo in ((), {"failed", "canceled"}):
        second = await again(client, tmp_path, inputs, redo=redo, timeout=50)
        assert isinstance(second[0].error, exceptions.RunTimeout)
        assert str(second[0].error) == str(first[0].error)
    assert len(emulator.ledger.created()) == 1
    third = await again(client, tmp_path, inputs, redo={"timeout"})
    assert third[0].result() is not None
    assert (await again(client, tmp_path, inputs, redo={"timeout"}))[0].error is None
    assert len(emulator.ledger.created()) == 2


async def test_canceled_ones_are_done_again(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A prediction that somebody has cancelled is created once more on request."""
    inputs = [{"text": "a", "seconds": 0.5}]

    async def cancel() -> None:
        await until(lambda: emulator.ledger.created())
        [life] = emulator.ledger.created()
        await client.predictions.cancel(life.id)

    first, _ = await asyncio.gather(again(client, tmp_path, inputs), cancel())
    assert isinstance(first[0].error, exceptions.PredictionCanceled)
    again_ = await again(client, tmp_path, inputs, redo={"failed", "timeout"})
    assert isinstance(again_[0].error, exceptions.PredictionCanceled)
    third = await again(client, tmp_path, inputs, redo={"canceled"})
    assert third[0].error is None
    assert len(emulator.ledger.created()) == 2


async def test_expired_ones_are_done_again(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """Outputs that were deleted before they were saved are made once more on request."""
    await again(client, tmp_path, save_to=None)
    emulator.clock.advance(4000)
    found = await again(client, tmp_path)
    assert {type(outcome.error) for outcome in found} == {exceptions.OutputNotSaved}
    found = await again(client, tmp_path, redo={"expired"})
    assert [outcome.error for outcome in found] == [None] * 6
    assert len(emulator.ledger.created()) == 12


async def test_lost_ones_are_done_again(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A create that nothing tells apart is an error in each run, until it is created again on request."""
    unmarked = Client(emulator.token, base_url=emulator.url, mark_creates=False)
    with_timings(unmarked, Timings(list_lag=0.2, searches=(0.0,)))
    emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", path="/v1/models/*", times=1)
    inputs = [{"text": "a"}]
    async with unmarked:
        first = await again(unmarked, tmp_path, inputs)
        assert isinstance(first[0].error, exceptions.AmbiguousCreateError)
        second = await again(unmarked, tmp_path, inputs, redo={"failed", "expired"})
        assert isinstance(second[0].error, exceptions.AmbiguousCreateError)
        assert len(emulator.ledger.created()) == 1
        third = await again(unmarked, tmp_path, inputs, redo={"lost"})
        assert third[0].error is None
    assert len(emulator.ledger.created()) == 2


async def test_predictions_that_do_not_exist_are_done_again(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A prediction that the API does not know any more counts as lost."""
    journal = Journal(tmp_path / "run.db")
    await journal.open("acme/file")
    await journal.intend(0, await fingerprint_of(INPUTS[0]), "sent", 0)
    await journal.created(0, "abcdefghijklmnopqrstuvwxyz")
    await journal.aclose()
    [first] = await again(client, tmp_path, INPUTS[:1])
    assert isinstance(first.error, exceptions.ContactLost)
    assert emulator.ledger.created() == []
    [second] = await again(client, tmp_path, INPUTS[:1], redo={"lost"})
    assert second.error is None
    assert len(emulator.ledger.created()) == 1


def test_redo_through_the_facade(emulator: Emulator, tmp_path: Path) -> None:
    """The sync facade does things again, too."""
    inputs = [{"text": text} for text in ("a", "fail", "b")]
    with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
        first = client.map("acme/file", inputs, journal=tmp_path / "run.db").collect()
        assert isinstance(first[1].error, exceptions.PredictionFailed)
        second = client.map(
            "acme/file", inputs, journal=tmp_path / "run.db", redo=["failed"]
        ).collect()
    assert [outcome.error for outcome in second] == [None] * 3
    assert len(emulator.ledger.created()) == 4


@pytest.mark.parametrize("redo", ["failed", {"fail"}, {"failed"}])
def test_redo_is_checked(emulator: Emulator, redo: Any) -> None:
    """Unknown reasons are refused, and so is `redo` without a journal."""
    client = Client(emulator.token, base_url=emulator.url)
    with pytest.raises(exceptions.ArgumentError, match="redo"):
        client.map("acme/file", INPUTS, redo=redo)


# -- Journals that are gone --------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="files that are open cannot be deleted there")
@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("what", ["run.db", "run.db-wal", "replaced"])
async def test_a_journal_that_is_deleted(
    client: Client, emulator: Emulator, tmp_path: Path, what: str, emptied: bool
) -> None:
    """A journal that is deleted or emptied under a running fan-out ends it: nothing more is created."""
    journal = tmp_path / "run.db"
    found = []

    async def work() -> None:
        async with client.map("acme/file", MANY, journal=journal, concurrency=4) as outcomes:
            async for outcome in outcomes:
                found.append(outcome)
                if len(found) == 5:
                    if what == "replaced":
                        journal.rename(tmp_path / "old.db")
                        journal.write_bytes(b"" if emptied else b"new")
                    elif emptied:
                        os.truncate(tmp_path / what, 0)
                    else:
                        (tmp_path / what).unlink()

    with pytest.raises(exceptions.JournalError, match="deleted, emptied or replaced") as caught:
        await work()
    assert caught.value.kind == "failed"
    assert len(found) < 30
    assert len(emulator.ledger.created()) < 30


def slow_ones(emulator: Emulator) -> list[dict[str, Any]]:
    """Add a model that takes its time, and return inputs of which eight are in flight at a time."""

    @emulator.model("acme/slow", official=True)
    async def slow(text: str, seconds: float) -> OutputFile:
        await asyncio.sleep(seconds)
        return OutputFile(text.encode(), "out.txt", "text/plain")

    return [{"text": str(n), "seconds": 0.0 if n == 0 else 0.8} for n in range(40)]


@pytest.mark.skipif(os.name == "nt", reason="files that are open cannot be deleted there")
async def test_what_is_in_flight_without_a_journal_is_delivered(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """When the journal is deleted, what is paid for is awaited, saved and delivered, and the error names it."""
    inputs = slow_ones(emulator)
    journal, out = tmp_path / "run.db", tmp_path / "out"
    found = []

    async def work() -> None:
        options: dict[str, Any] = {"journal": journal, "save_to": out, "concurrency": 8}
        async for outcome in client.map("acme/slow", inputs, **options):
            found.append(outcome)
            if len(found) == 1:
                journal.unlink()

    with pytest.raises(exceptions.JournalError, match="deleted, emptied or replaced") as caught:
        await work()
    created = [life.id for life in emulator.ledger.created()]
    assert len(created) < 20
    assert emulator.ledger.cancelled() == []
    assert emulator.ledger.running() == []
    delivered = [outcome.prediction.id for outcome in found if outcome.prediction is not None]
    assert sorted(delivered) == sorted(created)
    for outcome in found:
        assert outcome.error is None
        assert outcome.saved[0].read_text() == outcome.input["text"]
    named = caught.value.predictions
    assert set(named) <= set(created)
    assert set(created) - set(named) <= {created[0]}
    assert all(each in str(caught.value) for each in named)


@pytest.mark.skipif(os.name == "nt", reason="files that are open cannot be deleted there")
@pytest.mark.parametrize("on_abandon", [None, "cancel", "leave"])
async def test_what_is_given_up_without_a_journal_is_cancelled(
    client: Client, emulator: Emulator, tmp_path: Path, on_abandon: Any
) -> None:
    """If the iteration is left meanwhile, no journal would let a further run collect it: it is cancelled."""
    slow_ones(emulator)
    inputs = [{"text": str(n), "seconds": 0.0 if n == 0 else 20.0} for n in range(40)]
    journal = tmp_path / "run.db"
    options: dict[str, Any] = {"journal": journal, "concurrency": 8, "on_abandon": on_abandon}
    async with client.map("acme/slow", inputs, **options) as outcomes:
        await anext(outcomes)
        await until(lambda: len(emulator.ledger.created()) >= 8)
        journal.unlink()
        await asyncio.sleep(0.3)
    created = emulator.ledger.created()
    expected = 0 if on_abandon == "leave" else len(created) - 1
    assert len(emulator.ledger.cancelled()) == expected
    assert len(created) < 20


@pytest.mark.skipif(os.name == "nt", reason="files that are open cannot be deleted there")
def test_a_journal_that_is_deleted_through_the_facade(emulator: Emulator, tmp_path: Path) -> None:
    """The sync facade delivers what is in flight, too."""
    inputs = slow_ones(emulator)
    journal = tmp_path / "run.db"
    found: list[Any] = []

    def work() -> None:
        for outcome in client.map("acme/slow", inputs, journal=journal, concurrency=8):
            found.append(outcome)
            if len(found) == 1:
                journal.unlink()

    with (
        replicate_sync.Client(emulator.token, base_url=emulator.url) as client,
        pytest.raises(exceptions.JournalError) as caught,
    ):
        work()
    created = emulator.ledger.created()
    assert len(found) == len(created) < 20
    assert len(caught.value.predictions) >= 7
    assert emulator.ledger.running() == []


FULL = """
import asyncio, resource, signal, sys
from replicate_async import Client, exceptions

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
INPUTS = [{"text": "x" * 3000 + str(number)} for number in range(60)]

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

async def main():
    async with Client(rate_limit=False) as client:
        limit(200_000)
        try:
            async for outcome in client.map("acme/file", INPUTS, journal=sys.argv[1], concurrency=8):
                outcome.result()
        except exceptions.JournalError as error:
            print(len(error.predictions) > 0)
        limit(resource.RLIM_INFINITY)
        for outcome in await client.map("acme/file", INPUTS, journal=sys.argv[1]).collect():
            outcome.result()

asyncio.run(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits there")
def test_a_journal_on_a_full_disk(emulator: Emulator, tmp_path: Path) -> None:
    """What a journal could not note any more is found by the next run, in the same process, too, and not paid twice."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "run.db"],
        env={**os.environ, **emulator.env, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert len(emulator.ledger.created()) == 60
