"""`map` with a journal, killed with SIGKILL at any moment and started again: each input is paid for once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicate_async.testing import Emulator, Fault, OutputFile

ROOT = Path(__file__).resolve().parents[2]
IS_LONG = bool(os.environ.get("REPLICATE_ASYNC_LONG_TESTS"))
ITEMS, KILLS = (500, 10) if IS_LONG else (80, 4)
SECONDS = 300 if IS_LONG else 60

SCRIPT = """
import asyncio, sys
from replicate_async import Client, Retry, Timeout
from replicate_async._jobs.policy import Timings

# The emulator's list has no lag: what it does not show by then was not created.
TIMINGS = Timings(list_lag=1.5, searches=(0.0, 0.1, 0.3))

async def main(items, journal, out):
    inputs = ({"text": f"{number % (items - 5)}"} for number in range(items))
    failed = 0
    retry = Retry(backoff=0.01, max_backoff=0.05)
    async with Client(rate_limit=False, timeout=Timeout(read=0.7), retry=retry) as client:
        client._context.timings = TIMINGS
        outcomes = client.map("acme/blob", inputs, concurrency=25, journal=journal, save_to=out)
        async for outcome in outcomes:
            failed += outcome.error is not None
            assert all(path.is_file() for path in outcome.saved)
    return failed

sys.exit(3 if asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3])) else 0)
"""


def content(text: str) -> bytes:
    """Return what the model makes of a text."""
    return random.Random(text).randbytes(20_000)


def serve(emulator: Emulator) -> None:
    """Add the model: some predictions take longer than the time between two kills."""

    @emulator.model("acme/blob", official=True)
    async def blob(text: str) -> OutputFile:
        import asyncio

        await asyncio.sleep(random.Random(text + "!").choice([0.0, 0.05, 0.2, 0.6]))
        return OutputFile(content(text), "blob.bin", "application/octet-stream")


@contextmanager
def running(emulator: Emulator, journal: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the script."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, str(ITEMS), journal, out],
        env={**os.environ, **emulator.env, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


FAULTS = [fault for fault in Fault if fault not in (Fault.DELAY, Fault.DRIP, Fault.THROTTLE)]

UNSEEN = (Fault.GARBLED_JSON, Fault.TRUNCATED_JSON, Fault.HTML)
"""Faults that replace a file by another one, in an answer that is in order: no client can know."""


@pytest.mark.parametrize("faults", [False, True], ids=["clean", "faults"])
def test_killed_at_any_moment(faults: bool, tmp_path: Path) -> None:
    """Whatever a kill interrupts, what was created is as many as the inputs, and all of it is on the disk."""
    seed = int(os.environ.get("REPLICATE_ASYNC_SEED") or time.time_ns() % 10**6)
    print(f"REPLICATE_ASYNC_SEED={seed}")
    chance = random.Random(seed)
    journal, out = tmp_path / "run.db", tmp_path / "out"
    with Emulator(rate_limits=False, wire=faults) as emulator:
        serve(emulator)
        if faults:
            emulator.wire.seed(seed)
            for fault in FAULTS:
                emulator.wire.inject(fault, probability=0.004)
                if fault not in UNSEEN:
                    emulator.wire.inject(fault, origin="files", probability=0.004)
        for kill in range(KILLS):
            with running(emulator, journal, out) as process:
                _wait_for_progress(emulator, process, chance, (kill + 1) / (KILLS + 1))
                process.kill()
        # A create that was sent, and of which no trace is found, is an error, until the next run looks
        # once more.
        status = 3
        for _ in range(10 if faults else 1):
            with running(emulator, journal, out) as process:
                status = process.wait(SECONDS)
            if status == 0:
                break
            assert status == 3
        assert status == 0
        created = Counter(life.input["text"] for life in emulator.ledger.created())
        assert created == Counter(f"{number % (ITEMS - 5)}" for number in range(ITEMS))
        assert not emulator.ledger.cancelled()
        before = len(emulator.ledger.requests())
        with running(emulator, journal, out) as process:
            assert process.wait(SECONDS) == 0
        assert len(emulator.ledger.requests()) == before
    for number in range(ITEMS):
        saved = (out / f"{number:06d}-blob.bin").read_bytes()
        assert saved == content(f"{number % (ITEMS - 5)}")
        assert (out / f"{number:06d}-prediction.json").stat().st_size > 0
    names = [path.name for path in out.iterdir() if not path.name.endswith(".part")]
    assert len(names) == 2 * ITEMS
    assert len(emulator.ledger.fetched()) == ITEMS


def _wait_for_progress(
    emulator: Emulator, process: subprocess.Popen[bytes], chance: random.Random, share: float
) -> None:
    """Return at some moment after a part of the creates has been seen, or at any moment before."""
    target = chance.randint(0, max(int(share * ITEMS), 1))
    until = time.monotonic() + SECONDS
    while len(emulator.ledger.created()) < target and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    time.sleep(chance.random() * chance.choice([0.01, 0.3]))


@pytest.mark.parametrize("kind", ["another model", "other inputs"])
def test_the_script_is_killed_and_the_next_one_differs(kind: str, tmp_path: Path) -> None:
    """A journal that a killed process has left behind is not locked, and still refuses what does not fit."""
    journal = tmp_path / "run.db"
    with Emulator(rate_limits=False) as emulator:
        serve(emulator)
        with running(emulator, journal, tmp_path / "out") as process:
            until = time.monotonic() + SECONDS
            while len(emulator.ledger.created()) < 5:
                assert time.monotonic() < until
                time.sleep(0.001)
            process.kill()
            process.wait()
        changed = (
            SCRIPT.replace("acme/blob", "replicate/hello-world")
            if kind == "another model"
            else SCRIPT.replace('f"{number % (items - 5)}"', 'f"other {number}"')
        )
        done = subprocess.run(
            [sys.executable, "-c", changed, str(ITEMS), journal, tmp_path / "out"],
            env={**os.environ, **emulator.env, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 1
        assert "JournalError" in done.stderr
        expected = (
            "belongs to acme/blob" if kind == "another model" else "input 0 is not what it was"
        )
        assert expected in done.stderr
        # What the killed one had sent may still arrive; of the next one there is nothing.
        for life in emulator.ledger.created():
            assert life.model == "acme/blob"
            assert not life.input["text"].startswith("other")
