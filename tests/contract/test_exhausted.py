"""Machines without free descriptors, threads, stack or memory: whatever is created is delivered, or cancelled."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from replicate_async.testing import Emulator, OutputFile

from .conftest import until

pytest.importorskip("resource")

ROOT = Path(__file__).resolve().parents[2]

LIMITED = """
import asyncio, ctypes, os, resource, sys, tempfile, time
from replicate_async import Client, exceptions

url, token, kind, size, number = *sys.argv[1:4], *map(int, sys.argv[4:])
if kind == "recursion":
    sys.setrecursionlimit(size)
else:
    if kind == "threads" and os.getuid() == 0:
        # Root may have any number of threads. What root may read is still read, such as packages.
        os.setresuid(65534, 65534, 0)
        ctypes.CDLL(None).setfsuid(0)
    limit = resource.RLIMIT_NOFILE if kind == "descriptors" else resource.RLIMIT_NPROC
    resource.setrlimit(limit, (size, size))
"""
"""The beginning of programs in a process that has little of one thing."""

SCRIPT = """
async def main():
    async with Client(token, base_url=url, rate_limit=False) as client:
        runs = [client.run("acme/slow", {"seconds": 0.3, "n": n}) for n in range(number)]
        for found in await asyncio.gather(*runs, return_exceptions=True):
            if isinstance(found, BaseException):
                assert isinstance(found, exceptions.ReplicateException), repr(found)
                print("error")
            else:
                print("delivered")
        print("again", await client.run("acme/slow", {"seconds": 0.0}))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("kind", "size", "number"),
    [
        ("descriptors", 64, 300),
        ("descriptors", 256, 300),
        ("threads", 1, 20),
        ("recursion", 150, 20),
    ],
)
async def test_what_is_created_is_delivered(kind: str, size: int, number: int) -> None:
    """Errors are those of this package, nothing is left running, and things work again when there is room."""
    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/slow", official=True)
        async def slow(seconds: float = 60.0, n: int = 0) -> str:
            await asyncio.sleep(seconds)
            return f"{n}"

        script = [sys.executable, "-c", LIMITED + SCRIPT, emulator.url, emulator.token]
        done = await asyncio.to_thread(
            subprocess.run,
            [*script, kind, str(size), str(number)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        lines = done.stdout.split("\n")
        await until(lambda: emulator.ledger.running() == [])
        finished = len(emulator.ledger.created()) - len(emulator.ledger.cancelled())
        assert finished == lines.count("delivered") + 1
        assert lines.count("delivered") + lines.count("error") == number
        assert "again 0" in lines


NONE_LEFT = """
def take_all():
    try:
        while True:
            os.open(os.devnull, os.O_RDONLY)
    except OSError:
        pass

async def main():
    async with Client(token, base_url=url, rate_limit=False) as client:
        await client.run("acme/slow", {"seconds": 0.0})
        take_all()
        print(type(await client.run("acme/picture", {"n": 1})).__name__)
        print(type((await client.run("acme/data", {"n": 1}))).__name__)
        print([outcome.output async for outcome in client.map("acme/slow", [{"seconds": 0.0}])])

def sync_main():
    import replicate_async.sync

    with replicate_async.sync.Client(token, base_url=url, rate_limit=False) as client:
        client.run("acme/slow", {"seconds": 0.0})
        take_all()
        print(type(client.run("acme/picture", {"n": 1})).__name__)
        print(type(client.run("acme/data", {"n": 1})).__name__)
        print([outcome.output for outcome in client.map("acme/slow", [{"seconds": 0.0}])])

asyncio.run(main()) if number else sync_main()
"""


@pytest.mark.parametrize("number", [0, 1], ids=["sync", "async"])
async def test_results_need_no_further_descriptor(number: int) -> None:
    """On the connection that there is, everything goes on: nothing is opened or imported for a result."""
    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/slow", official=True)
        async def slow(seconds: float) -> str:
            return "done"

        @emulator.model("acme/picture", official=True)
        async def picture(n: int) -> OutputFile:
            return OutputFile(b"x", "n.bin")

        @emulator.model("acme/data", official=True)
        async def data(n: int) -> str:
            return "data:text/plain;base64,aGFsbG8="

        script = [sys.executable, "-c", LIMITED + NONE_LEFT, emulator.url, emulator.token]
        done = await asyncio.to_thread(
            subprocess.run,
            [*script, "descriptors", "100", str(number)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.splitlines() == ["FileOutput", "FileOutput", "['done']"]


SAVE = """
async def main():
    place = tempfile.mkdtemp()
    began = time.monotonic()
    async with Client(token, base_url=url, rate_limit=False) as client:
        runs = [client.run("acme/picture", {"n": n}, save_to=f"{place}/{n}") for n in range(number)]
        files = await asyncio.gather(*runs)
        assert {file.path.stat().st_size for file in files} == {600_000}
    print("at once" if time.monotonic() - began < 10 else "after idle connections were closed")

asyncio.run(main())
"""


async def test_files_are_saved_within_their_share_of_descriptors(tmp_path: Path) -> None:
    """None waits for another descriptor while it has one: they would wait for each other."""
    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/picture", official=True)
        async def picture(n: int) -> OutputFile:
            await asyncio.sleep(0.05)
            return OutputFile(b"x" * 600_000, "n.bin")

        script = [sys.executable, "-c", LIMITED + SAVE, emulator.url, emulator.token]
        done = await asyncio.to_thread(
            subprocess.run,
            [*script, "descriptors", "64", "100"],
            env={
                **os.environ,
                "TMPDIR": str(tmp_path),
                "PYTHONPATH": str(ROOT),
                "no_proxy": "*",
            },
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout == "at once\n"


MAP = """
place = tempfile.mkdtemp()
os.chmod(place, 0o777)
os.umask(0)  # `os.access()` goes by the real user
options = {"concurrency": 80, "journal": f"{place}/journal.db", "save_to": f"{place}/saved"}

async def main():
    async with Client(token, base_url=url, rate_limit=False) as client:
        async for outcome in client.map("acme/picture", [{"n": n} for n in range(number)], **options):
            if outcome.error is None:
                assert outcome.saved[0].stat().st_size == len(str(outcome.input["n"]))
                print("delivered", flush=True)
            else:
                assert isinstance(outcome.error, exceptions.ReplicateException), repr(outcome.error)
                print("named" if outcome.prediction else "refused", outcome.error, flush=True)
        print("again", await client.run("acme/picture", {"n": 7}, use_file_output=False) != "", flush=True)

try:
    asyncio.run(main())
except RuntimeError as error:  # asyncio itself wants a thread at the end
    assert kind == "threads" and "new thread" in str(error)
"""


@pytest.mark.parametrize(
    ("kind", "size", "number"),
    [("descriptors", 64, 100), ("descriptors", 24, 20), ("threads", 1, 20), ("recursion", 150, 20)],
)
async def test_what_a_fan_out_creates_is_saved(kind: str, size: int, number: int) -> None:
    """A fan-out with a journal and files needs descriptors and threads: it waits for them, or does without."""
    # Not below pytest's own directory, which is for one user only.
    with tempfile.TemporaryDirectory() as place, Emulator(rate_limits=False) as emulator:
        Path(place).chmod(0o777)

        @emulator.model("acme/picture", official=True)
        async def picture(n: int) -> OutputFile:
            await asyncio.sleep(0.1)
            return OutputFile(f"{n}".encode(), "n.bin")

        script = [sys.executable, "-c", LIMITED + MAP, emulator.url, emulator.token]
        done = await asyncio.to_thread(
            subprocess.run,
            [*script, kind, str(size), str(number)],
            env={**os.environ, "TMPDIR": str(place), "PYTHONPATH": str(ROOT), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.split("\n") == [*["delivered"] * number, "again True", ""]
        assert len(emulator.ledger.created()) == number + 1
        assert emulator.ledger.running() == []


DEEP = """
import asyncio, sys, time
from replicate_async import Client, exceptions

url, token, verb = sys.argv[1:]

async def deep(frames, work):
    return await (work() if frames == 0 else deep(frames - 1, work))

async def main():
    async with Client(token, base_url=url, rate_limit=False) as client:
        async def run():
            await client.run("acme/slow", {"seconds": 0.05})

        async def stream():
            async for _ in client.stream("acme/slow", {"seconds": 0.05}):
                pass

        async def start():
            async with client.start("acme/slow", {"seconds": 0.05}) as prediction:
                await prediction.result()

        async def get():
            await client.predictions.get(known)

        async with client.start("acme/slow", {"seconds": 0.0}) as prediction:
            known = prediction.id
            await prediction.result()
        for frames in range(880, 990, 1 if verb == "get" else 2):
            began = time.monotonic()
            try:
                await deep(frames, {"run": run, "stream": stream, "start": start, "get": get}[verb])
            except exceptions.ReplicateException as error:
                print("error" if "stack is too deep" in str(error) else repr(error))
            except RuntimeError:
                # Not even begun: a RecursionError, or what anyio takes one for.
                print("nothing")
            else:
                print("delivered")
            assert time.monotonic() - began < 5, frames

asyncio.run(main())
"""


@pytest.mark.parametrize("verb", ["run", "stream", "start", "get"])
async def test_the_last_frames_before_the_recursion_limit(verb: str) -> None:
    """At any depth, a call succeeds or fails at once, with nothing created and no connection half closed."""
    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/slow", official=True)
        async def slow(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "done"

        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", DEEP, emulator.url, emulator.token, verb],
            env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Exception in callback" not in done.stderr
        lines = done.stdout.split()
        assert set(lines) <= {"delivered", "error", "nothing"}
        assert "delivered" in lines
        assert "error" in lines
        if verb != "get":
            assert len(emulator.ledger.created()) == 1 + lines.count("delivered")


MEMORY = """
import asyncio, resource, sys
from replicate_async import Client, Retry, exceptions

url, token, verb = sys.argv[1:]

async def act(client):
    if verb == "run":
        return await client.run("acme/long", {"size": 6_000_000})
    [outcome] = await client.map("acme/long", [{"size": 6_000_000, "seconds": 0.2}]).collect()
    raise outcome.error

async def main():
    async with Client(token, base_url=url, rate_limit=False, retry=Retry(attempts=2, backoff=0.01)) as client:
        await client.map("acme/long", [{"size": 1}]).collect()
        await client.run("acme/long", {"size": 1}, wait=False)
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, resource.RLIM_INFINITY))
        try:
            await act(client)
        except exceptions.ReplicateException as error:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            print(type(error).__name__, *getattr(error, "candidates", ()), str(error))
        print("again", await client.run("acme/long", {"size": 3}))

asyncio.run(main())
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the size of the process is known on Linux only"
)
@pytest.mark.parametrize("verb", ["run", "map"])
async def test_an_output_larger_than_memory(verb: str) -> None:
    """The error names the prediction, or says that it may exist; things work again when there is room."""
    with Emulator(rate_limits=False) as emulator:

        @emulator.model("acme/long", official=True)
        async def long(size: int, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            return "x" * size

        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", MEMORY, emulator.url, emulator.token, verb],
            env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said, again = done.stdout.splitlines()[0], done.stdout.splitlines()[-1]
        life = emulator.ledger.created()[2]
        if verb == "run":
            assert said.startswith("AmbiguousCreateError")
        else:
            assert said.startswith("ContactLost")
            assert life.id in said
        assert again == "again xxx"
        assert len(emulator.ledger.created()) == 4
