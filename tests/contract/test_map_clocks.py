"""`map` with a journal on machines whose clocks are wrong: each input is paid for once."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from replicate_async import Client, Outcome, Retry, exceptions
from replicate_async import sync as replicate_sync
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Emulator, Fault

from .faults import with_timings

HOUR = 3600.0
REAL = time.time

CLOCKS = [(0, 0), (5, 0), (-5, 0), (0, 5), (0, -5), (5, -5), (-24 * 365 * 20, 0)]
"""Hours by which the clock is wrong in the first run, and in the second."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with an official model."""
    with Emulator(rate_limits=False, wire=True) as running:

        @running.model("acme/echo", official=True)
        async def echo(text: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            return text

        yield running


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the clock of this machine wrong by so many hours."""
    return lambda hours: monkeypatch.setattr(time, "time", lambda: REAL() + hours * HOUR)


@pytest.fixture
async def others(emulator: Emulator) -> AsyncIterator[None]:
    """Have predictions of another program in the list."""
    async with Client(emulator.token, base_url=emulator.url) as other:
        for number in range(3):
            await other.run("acme/echo", {"text": str(number)})
        emulator.ledger.clear()
        yield


async def lose_answers(
    emulator: Emulator, journal: Path, inputs: list[dict[str, Any]], **options: Any
) -> list[Outcome]:
    """Carry out a first run, whose creates succeed without an answer, and whose list shows nothing."""
    retry = Retry(attempts=1)
    lost = emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST")
    unread = emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, path="/v1/predictions")
    async with Client(emulator.token, base_url=emulator.url, retry=retry, **options) as client:
        with_timings(client, Timings(searches=(0.0,), search_patience=0.1))
        found = await client.map("acme/echo", inputs, journal=journal).collect()
    lost.remove()
    unread.remove()
    return found


async def resume(emulator: Emulator, journal: Path, inputs: list[dict[str, Any]]) -> list[Outcome]:
    """Carry out a further run, in which the network works."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        with_timings(client, Timings(list_lag=0.5))
        return await client.map("acme/echo", inputs, journal=journal).collect()


@pytest.mark.parametrize(("first", "second"), CLOCKS)
async def test_wrong_clocks(
    emulator: Emulator,
    others: None,
    set_clock: Callable[[float], None],
    tmp_path: Path,
    first: float,
    second: float,
) -> None:
    """Creates of a run whose clock was wrong are found by the next one, whatever its own clock says."""
    inputs = [{"text": str(number)} for number in range(5)]
    set_clock(first)
    lost = await lose_answers(emulator, tmp_path / "run.db", inputs)
    assert [type(outcome.error) for outcome in lost] == [exceptions.AmbiguousCreateError] * 5
    set_clock(second)
    found = await resume(emulator, tmp_path / "run.db", inputs)
    assert [outcome.result() for outcome in found] == ["0", "1", "2", "3", "4"]
    assert len(emulator.ledger.created()) == 5


@pytest.mark.parametrize(("first", "second"), CLOCKS)
@pytest.mark.parametrize("kind", ["old", "before the first answer"])
async def test_unknown_times(
    emulator: Emulator,
    others: None,
    set_clock: Callable[[float], None],
    tmp_path: Path,
    first: float,
    second: float,
    kind: str,
) -> None:
    """Where the journal does not have the server's time, the whole list is searched."""
    inputs = [{"text": str(number)} for number in range(3)]
    journal = tmp_path / "run.db"
    set_clock(first)
    await lose_answers(emulator, journal, inputs)
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute("DROP TABLE server_times" if kind == "old" else "DELETE FROM server_times")
    set_clock(second)
    found = await resume(emulator, journal, inputs)
    assert [outcome.result() for outcome in found] == ["0", "1", "2"]
    assert len(emulator.ledger.created()) == 3


@pytest.mark.parametrize("hours", [0, 5, -5])
async def test_creates_that_were_not_executed(
    emulator: Emulator, set_clock: Callable[[float], None], tmp_path: Path, hours: float
) -> None:
    """What the list does not show is created, once."""
    journal, inputs = tmp_path / "run.db", [{"text": "a"}]
    set_clock(hours)
    with_fault = emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST")
    async with Client(emulator.token, base_url=emulator.url, retry=Retry(attempts=1)) as client:
        with_timings(client, Timings(searches=(0.0,)))
        await client.map("acme/echo", inputs, journal=journal).collect()
    with_fault.remove()
    assert emulator.ledger.created() == []
    set_clock(0)
    [found] = await resume(emulator, journal, inputs)
    assert found.result() == "a"
    assert len(emulator.ledger.created()) == 1


@pytest.mark.parametrize("timed", [True, False])
async def test_inputs_that_were_deleted(emulator: Emulator, tmp_path: Path, timed: bool) -> None:
    """A prediction whose input was deleted meanwhile may be the own one by its mark: nothing is created again."""
    journal, inputs = tmp_path / "run.db", [{"text": "a"}]
    await lose_answers(emulator, journal, inputs)
    if not timed:
        with closing(sqlite3.connect(journal)) as database, database:
            database.execute("DELETE FROM server_times")
    emulator.clock.advance(2 * HOUR)
    [found] = await resume(emulator, journal, inputs)
    assert isinstance(found.error, exceptions.AmbiguousCreateError)
    assert "deleted" in str(found.error)
    [created] = emulator.ledger.created()
    assert found.error.candidates == (created.id,)
    async with Client(emulator.token, base_url=emulator.url) as client:
        [again] = await client.map("acme/echo", inputs, journal=journal, redo={"lost"}).collect()
    assert again.result() == "a"
    assert len(emulator.ledger.created()) == 2


async def test_a_list_that_lags(
    emulator: Emulator, set_clock: Callable[[float], None], tmp_path: Path
) -> None:
    """A clock that was behind does not make a recent create look old: the list gets its time to show it."""
    journal, inputs = tmp_path / "run.db", [{"text": "a"}]
    set_clock(-5)
    await lose_answers(emulator, journal, inputs)
    set_clock(0)
    hidden = emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, path="/v1/predictions", times=1)
    [found] = await resume(emulator, journal, inputs)
    hidden.remove()
    assert found.result() == "a"
    assert len(emulator.ledger.created()) == 1


def test_the_facade(emulator: Emulator, set_clock: Callable[[float], None], tmp_path: Path) -> None:
    """The sync facade finds them, too."""
    journal, inputs = tmp_path / "run.db", [{"text": "a"}, {"text": "b"}]
    set_clock(5)
    asyncio.run(_lost(emulator, journal, inputs))
    set_clock(0)
    with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
        found = client.map("acme/echo", inputs, journal=journal).collect()
    assert [outcome.result() for outcome in found] == ["a", "b"]
    assert len(emulator.ledger.created()) == 2


async def _lost(emulator: Emulator, journal: Path, inputs: list[dict[str, Any]]) -> None:
    await lose_answers(emulator, journal, inputs)
