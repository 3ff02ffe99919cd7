"""Machines without memory: threads that die or cannot report, and calls for which there is no room."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicate_async import Client
from replicate_async.testing import Emulator, OutputFile

pytest.importorskip("resource")

ROOT = Path(__file__).resolve().parents[2]


class Forgetful(asyncio.SelectorEventLoop):
    """An event loop that has no memory for the first report of each kind of thread."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = Counter[str]()

    def call_soon_threadsafe(  # type: ignore[override]  # all of its arguments are passed on
        self, *args: Any, **options: Any
    ) -> asyncio.Handle:
        """Call a function soon, except for the first time from a thread."""
        kind = threading.current_thread().name.partition("-")[0]
        if threading.current_thread() is not threading.main_thread() and not self.lost[kind]:
            self.lost[kind] += 1
            raise MemoryError
        return super().call_soon_threadsafe(*args, **options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_that_cannot_report(tmp_path: Path) -> None:
    """What they have done is not done again, and nothing waits for them for ever. It takes a second for each."""
    read = []

    def inputs() -> Iterator[dict[str, Any]]:
        for n in range(3):
            read.append(n)
            yield {"n": n}

    loops: list[Forgetful] = []

    def make_loop() -> Forgetful:
        loops.append(Forgetful())
        return loops[0]

    async def main(url: str, token: str) -> list[Any]:
        async with Client(token, base_url=url, rate_limit=False) as client, asyncio.timeout(20):
            mapped = client.map("acme/picture", inputs(), save_to=tmp_path)
            return [outcome async for outcome in mapped]

    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/picture", official=True)
        async def picture(n: int) -> OutputFile:
            return OutputFile(b"%d" % n, "n.bin")

        with asyncio.Runner(loop_factory=make_loop) as runner:
            outcomes = runner.run(main(emulator.url, emulator.token))
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert {outcome.saved[0].read_bytes() for outcome in outcomes} == {b"0", b"1", b"2"}
        assert read == [0, 1, 2]
        assert len(emulator.ledger.created()) == 3
        assert len(loops[0].lost) == 2  # a worker, and the thread that reads the inputs


DEAD = """
import asyncio, sys, threading
from replicate_async import Client

url, token, place = sys.argv[1:]
dead = set()

def without_memory(frame, event, _):
    thread = threading.current_thread()
    if frame.f_code.co_name == "get" and "queue" in frame.f_code.co_filename and event == "call":
        seen[thread] = seen.get(thread, 0) + 1
        if seen[thread] == 2 and not dead:  # it waits for its second call
            dead.add(thread)
            raise MemoryError

seen = {}
threading.excepthook = lambda _: None

async def main():
    async with Client(token, base_url=url, rate_limit=False) as client, asyncio.timeout(20):
        output = await client.run("acme/picture", {"n": 1})
        threading.settrace(without_memory)
        await output.save(place + "/first")
        threading.settrace(None)
        await output.save(place + "/second")
        print(len(dead), open(place + "/second").read())

asyncio.run(main())
"""


async def test_threads_that_die_between_two_calls(tmp_path: Path) -> None:
    """No call is given to them for ever: it takes two seconds until one is made elsewhere."""
    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/picture", official=True)
        async def picture(n: int) -> OutputFile:
            return OutputFile(b"%d" % n, "n.bin")

        lines = await program(DEAD, emulator, str(tmp_path))
        assert lines == ["1 1"]


async def program(script: str, emulator: Emulator, *arguments: str) -> list[str]:
    """Run a program, and return what it has printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, emulator.url, emulator.token, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()
