"""Machines without memory: threads that die or cannot report, and calls for which there is no room."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicate_async import Client
from replicate_async.exceptions import ReplicateException
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


class Hushed(asyncio.SelectorEventLoop):
    """An event loop that has no memory to tell the next task in a queue of several loops that its turn has come."""

    lost = 0

    def call_soon_threadsafe(  # type: ignore[override]  # all of its arguments are passed on
        self, *args: Any, **options: Any
    ) -> asyncio.Handle:
        """Call a function soon, unless it sets an event."""
        if getattr(args[0], "__name__", "") == "set":
            Hushed.lost += 1
            raise MemoryError
        return super().call_soon_threadsafe(*args, **options)


class SlowReader(io.BytesIO):
    """A file that takes long enough to read that others have to wait for their turn."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read slowly."""
        time.sleep(0.05)
        return super().read(size)


def test_a_turn_that_nobody_is_told_of() -> None:
    """The next user of a file takes its turn nevertheless, a second later."""

    async def main(url: str, token: str) -> list[Any]:
        async with Client(token, base_url=url, rate_limit=False) as client, asyncio.timeout(20):
            file = SlowReader(b"content")
            runs = [client.run("acme/size", {"file": file}) for _ in range(2)]
            return await asyncio.gather(*runs)

    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/size", official=True)
        async def size(file: str) -> str:
            return "done"

        Hushed.lost = 0
        with asyncio.Runner(loop_factory=Hushed) as runner:
            assert runner.run(main(emulator.url, emulator.token)) == ["done", "done"]
        assert Hushed.lost > 0


class Greedy(dict[str, Any]):
    """An input that needs too much memory."""

    def items(self) -> Any:
        """Fail."""
        raise MemoryError

    def __iter__(self) -> Iterator[str]:
        raise MemoryError


@pytest.mark.parametrize("verb", ["run", "start", "stream", "create", "train", "map"])
async def test_an_input_for_which_there_is_no_memory(verb: str, tmp_path: Path) -> None:
    """The error is one of this package, and says that nothing was created."""
    with Emulator(rate_limits=False) as emulator:
        async with Client(emulator.token, base_url=emulator.url) as client:
            given = {"n": Greedy(a=1)}

            async def act() -> None:
                if verb == "run":
                    await client.run("acme/picture", given)
                elif verb == "start":
                    async with client.start("acme/picture", given) as prediction:
                        await prediction.result()
                elif verb == "stream":
                    async for _ in client.stream("acme/picture", given):
                        pass
                elif verb == "create":
                    await client.predictions.create(model="acme/picture", input=given)
                elif verb == "train":
                    await client.trainings.create(f"acme/picture:{'a' * 64}", given, "acme/mine")
                else:
                    fan_out = client.map("acme/picture", [given], journal=tmp_path / "journal.db")
                    [outcome] = await fan_out.collect()
                    assert outcome.error is not None
                    raise outcome.error

            with pytest.raises(ReplicateException, match="nothing was created") as caught:
                await act()
            assert isinstance(caught.value.__cause__, MemoryError)
        assert emulator.ledger.created() == []


FIRST = """
import asyncio, resource, sys
import replicate_async.sync
from replicate_async import Client, exceptions

url, token, place = sys.argv[1:]

def limit(room):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))

def lift():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

async def main():
    retry = replicate_async.Retry(attempts=1)
    async with Client(token, base_url=url, rate_limit=False, retry=retry) as client:
        options = {"journal": place + "/a.db", "save_to": place + "/saved"}
        for room in (2**16, 2**20, 2**23):
            limit(room)
            try:
                async with asyncio.timeout(10):
                    await client.map("acme/picture", ({"n": n} for n in range(3)), **options).collect()
            except exceptions.ReplicateException:
                pass
            lift()
        outcomes = await client.map("acme/picture", ({"n": n} for n in range(3)), **options).collect()
        large = await client.run("acme/large", {"n": 2**27})
        limit(2**23)
        try:
            await large.read()
            print("enough")
        except exceptions.ReplicateException as error:
            lift()
            print("memory" in str(error), len(await large.read()))
        print("saved", *[outcome.saved[0].read_text() for outcome in outcomes])

with replicate_async.sync.Client(token, base_url=url, rate_limit=False) as client:
    limit(2**16)
    try:
        client.run("acme/picture", {"n": 4})
        print("enough")
    except exceptions.LoopClosed as error:
        lift()
        print(error)
    print("again", client.run("acme/picture", {"n": 4}).read())
asyncio.run(main())
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the size of the process is known on Linux only"
)
async def test_no_room_for_the_first_call(tmp_path: Path) -> None:
    """The errors are those of this package, and things work when there is room."""
    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/picture", official=True)
        async def picture(n: int) -> OutputFile:
            return OutputFile(b"%d" % n, "n.bin")

        @emulator.model("acme/large", official=True)
        async def large(n: int) -> OutputFile:
            return OutputFile(b"x" * n, "n.bin")

        lines = await program(FIRST, emulator, str(tmp_path))
        assert "there is not enough memory for a thread" in lines[0]
        assert lines[1:] == ["again b'4'", "True 134217728", "saved 0 1 2"]
        assert emulator.ledger.running() == []


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
