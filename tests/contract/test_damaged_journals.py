"""Journals whose rows are damaged, or cannot be written: an error names the row, and nothing hangs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicate_async import Client, exceptions
from replicate_async.testing import Emulator

from .wire import PREDICTION, Wire, answer, client_of

INPUTS = [{"text": "a"}, {"text": "b"}]
COLUMNS = ("hash", "state", "attempt", "sent", "intended", "prediction", "record", "files")
STATES = ["new", "intended", "running", "ended", "saved"]

ODD = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from([*STATES, "{}", "[]", '{"id": 1}', '{"id": "x"}', '["../x"]', '{"a": -1}']),
    st.sampled_from(["[" * 100_000, "1" * 10_000, '{"id": "\\ud800"}', "a+1+2", "a+9999999999999"]),
)


@pytest.fixture
def journal(emulator: Emulator, tmp_path: Path) -> Path:
    """Return a journal in which both inputs have ended."""
    path = tmp_path / "run.db"

    async def fill() -> None:
        async with Client(emulator.token, base_url=emulator.url) as client:
            outcomes = await client.map(
                "replicate/hello-world", INPUTS, journal=path, save_to=tmp_path / "out"
            ).collect()
        assert all(outcome.error is None for outcome in outcomes)

    asyncio.run(fill())
    return path


async def _map(emulator: Emulator, path: Path) -> list[Any]:
    # The list is searched for 20 seconds for what a create without an answer may have made.
    async with Client(emulator.token, base_url=emulator.url) as client, asyncio.timeout(60):
        outcomes = client.map(
            "replicate/hello-world",
            INPUTS,
            journal=path,
            save_to=path.parent / "out",
            concurrency=2,
        )
        return await outcomes.collect()


def _change(path: Path, column: str, value: object, number: int = 1) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE items SET {column} = ? WHERE number = ?", (value, number))
        database.commit()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", "finished"),
        ("state", b"\xff"),
        ("attempt", "x"),
        ("attempt", -1),
        ("attempt", 2**62),
        ("sent", b"\x00"),
        ("sent", "a+b"),
        ("intended", "yesterday"),
        ("intended", 1e300),
        ("intended", float("-inf")),
        ("prediction", b"\x00"),
        ("prediction", ""),
        ("record", None),
        ("record", "{"),
        ("record", "[]"),
        ("record", '{"id": null}'),
        ("record", "[" * 100_000),
        ("files", "["),
        ("files", "5"),
        ("files", '{"../x": 1}'),
        ("files", '["/etc/passwd"]'),
        ("files", '{"a": "b"}'),
        ("hash", None),
    ],
)
async def test_damaged_rows(emulator: Emulator, journal: Path, column: str, value: object) -> None:
    """The error names the input and what is wrong, and nothing is created."""
    if column == "hash":
        _change(journal, column, b"\x00")
        kind, named = "mismatch", "input 1"
    else:
        _change(journal, column, value)
        kind, named = "unreadable", "row of input 1 is damaged"
    with pytest.raises(exceptions.JournalError, match=named) as caught:
        await _map(emulator, journal)
    assert (caught.value.kind, caught.value.path) == (kind, str(journal))
    assert len(emulator.ledger.created()) == 2


async def test_texts_that_are_no_unicode(emulator: Emulator, journal: Path) -> None:
    """A text that is not UTF-8 is a damaged row, too."""
    with closing(sqlite3.connect(journal)) as database:
        database.execute("UPDATE items SET record = CAST(x'ff' AS TEXT) WHERE number = 1")
        database.commit()
    with pytest.raises(exceptions.JournalError, match="row of input 1 is damaged"):
        await _map(emulator, journal)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from(COLUMNS[1:]), ODD, min_size=1), st.data())
def test_any_row(
    emulator: Emulator, journal: Path, changes: dict[str, Any], data: st.DataObject
) -> None:
    """Whatever is in a row, the fan-out ends: with outcomes, or with an error of the journal."""
    with closing(sqlite3.connect(journal)) as database:
        [before] = database.execute("SELECT * FROM items WHERE number = 1").fetchall()
        for column, value in changes.items():
            database.execute(f"UPDATE OR IGNORE items SET {column} = ? WHERE number = 1", (value,))
        database.commit()
    try:
        outcomes = asyncio.run(_map(emulator, journal))
        assert len(outcomes) == 2
        for outcome in outcomes:
            assert outcome.error is None or isinstance(outcome.error, exceptions.ReplicateException)
    except exceptions.JournalError:
        pass
    with closing(sqlite3.connect(journal)) as database:
        places = ", ".join("?" * len(before))
        database.execute(f"INSERT OR REPLACE INTO items VALUES ({places})", before)
        database.execute("DELETE FROM timeouts")
        database.commit()


async def test_a_journal_without_its_facts(emulator: Emulator, journal: Path) -> None:
    """A journal that does not say what it belongs to is not used."""
    with closing(sqlite3.connect(journal)) as database:
        database.execute("DELETE FROM facts")
        database.commit()
    with pytest.raises(exceptions.JournalError):
        await _map(emulator, journal)


@pytest.mark.parametrize("odd", ["\ud800", "a\udcffb"])
async def test_ids_that_cannot_be_stored(tmp_path: Path, odd: str) -> None:
    """An ID that is no Unicode is an error of the journal with the row, and the fan-out ends."""
    made = answer(201, json.dumps({**PREDICTION, "id": odd, "status": "processing"}).encode())
    with Wire(made) as wire:
        async with client_of(wire) as client, asyncio.timeout(20):
            outcomes = client.map("acme/greeter", INPUTS, journal=tmp_path / "run.db")
            with pytest.raises(exceptions.JournalError, match="row of input"):
                await outcomes.collect()


@pytest.mark.parametrize("length", [1, 4301, 100_000])
async def test_numbers_of_any_length(tmp_path: Path, length: int) -> None:
    """A long integer in an output is kept, by the journal and in the saved record."""
    number = "7" * length
    text = json.dumps({**PREDICTION, "output": "@"}).replace('"@"', number)
    with Wire(answer(201, text.encode())) as wire:
        async with client_of(wire) as client:
            for _ in range(2):
                [outcome] = await client.map(
                    "acme/greeter", [{}], journal=tmp_path / "run.db", save_to=tmp_path / "out"
                ).collect()
                assert outcome.error is None
                assert outcome.output % 10**600 == int("7" * min(length, 600))
                assert number[:50] in repr(outcome)
        assert [request.method for request in wire.requests].count("POST") == 1
    assert number in (tmp_path / "out" / "000000-prediction.json").read_text()
    assert (tmp_path / "out" / "000000-output.json").read_text() == number
