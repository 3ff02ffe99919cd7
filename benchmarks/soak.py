"""Mixed load for minutes or hours: tasks, sockets, descriptors, threads and memory have to stay flat.

```console
$ nox -s soak                      # ten minutes
$ nox -s soak -- --minutes 60
```

An emulator runs in a process of its own, with faults on the wire. The client process makes rounds: several tasks, and
several threads with the sync client, run models, stream, send and save files, map, give up and fail, all at random. After
each round everything has ended, and both processes are measured; after the warm-up and at the end, idle connections get the time
to be closed, too. What there is more at the end is a leak. The exit code is 1 if there is one, or if something hung.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import attrs

from replicate_async import Client, Retry, Timeout, exceptions, sync
from replicate_async.testing import Emulator, Fault, OutputFile

_TASKS: Final = 12
_THREADS: Final = 4
_ROUND: Final = 15.0
"""Seconds of load in a round."""
_HUNG: Final = 120.0
"""Seconds after a round in which everything has to end."""
_WARM: Final = 0.3
"""Share of the rounds that warm up."""
_SPARE: Final = {"tasks": 0, "threads": 2, "descriptors": 12, "sockets": 8}
"""What may be more at the end than at the end of the warm-up: pools are not always full."""
_REST: Final = 35.0
"""Seconds in which connections that nobody uses are closed: aiohttp looks every 15 s for those of 15 s."""
_MEMORY: Final = 0.15
"""Share by which the memory may grow after the warm-up, in addition to `_SPARE_MEMORY`."""
_SPARE_MEMORY: Final = 24 * 2**20

_FAULTS: Final = (
    (Fault.RESET_BEFORE_READING, 0.01),
    (Fault.RESET_AFTER_EXECUTION, 0.01),
    (Fault.CLOSE_AFTER_EXECUTION, 0.01),
    (Fault.ERROR_PAGE, 0.01),
    (Fault.CUT_IN_BODY, 0.01),
    (Fault.RESET_IN_BODY, 0.01),
    (Fault.TRUNCATED_JSON, 0.005),
)


# -- The emulator's process --------------------------------------------------------------------


async def serve() -> None:
    """Serve until standard input ends; the address is the first line of standard output."""
    async with Emulator(rate_limits=False, wire=True, records=1000, memory=32 * 2**20) as emulator:

        @emulator.model("soak/text", official=True)
        async def text(text: str, seconds: float = 0.0, fail: bool = False) -> str:
            await asyncio.sleep(seconds)
            if fail:
                raise ValueError("it failed")
            return text

        @emulator.model("soak/tokens", official=True)
        async def tokens(count: int) -> AsyncIterator[str]:
            for number in range(count):
                yield f"token {number} "
                await asyncio.sleep(0.001)

        @emulator.model("soak/file", official=True)
        async def file(size: int, image: str | None = None) -> OutputFile:
            return OutputFile(os.urandom(size), "out.bin", "application/octet-stream")

        for fault, probability in _FAULTS:
            emulator.wire.inject(fault, origin=None, probability=probability)
        print(json.dumps({"url": emulator.url, "token": emulator.token}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


@contextmanager
def emulator_process() -> Iterator[tuple[int, str, str]]:
    """Start the emulator; yield its process id, address and token."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        where = json.loads(process.stdout.readline())
        try:
            yield process.pid, where["url"], where["token"]
        finally:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


# -- The load ----------------------------------------------------------------------------------


@attrs.define
class Load:
    """What is done at random, and how it ended."""

    directory: Path
    ends: Counter[str] = attrs.field(factory=Counter)

    def record(self, work: str, error: BaseException | None) -> None:
        """Note how something ended; an error that is none of ours is a defect."""
        if error is not None and not isinstance(
            error, exceptions.ReplicateException | TimeoutError
        ):
            raise error
        self.ends[f"{work}: {'done' if error is None else type(error).__name__}"] += 1

    async def worker(self, client: Client, end: float) -> None:
        """Do one thing after the other."""
        works: list[Callable[[Client], Awaitable[None]]] = [
            *(
                self.run,
                self.fail,
                self.give_up,
                self.too_late,
                self.stream,
                self.leave,
                self.files,
            ),
            *(self.batch, self.read),
        ]
        while time.monotonic() < end:
            work = random.choice(works)
            try:
                await work(client)
            except Exception as error:  # noqa: BLE001  (which `record` raises again if it is no error of ours)
                self.record(work.__name__, error)
            else:
                self.record(work.__name__, None)

    async def run(self, client: Client) -> None:
        """Run a model."""
        text = str(random.random())
        assert await client.run("soak/text", {"text": text, "seconds": random.random() / 5}) == text

    async def fail(self, client: Client) -> None:
        """Run a model that fails."""
        with suppress(exceptions.PredictionFailed):
            await client.run("soak/text", {"text": "a", "fail": True})

    async def give_up(self, client: Client) -> None:
        """Cancel a run."""
        with anyio.move_on_after(random.random() / 5):
            await client.run("soak/text", {"text": "a", "seconds": 30})

    async def too_late(self, client: Client) -> None:
        """Run with a timeout."""
        with suppress(exceptions.RunTimeout):
            await client.run(
                "soak/text", {"text": "a", "seconds": 30}, timeout=random.random() / 5 + 0.01
            )

    async def stream(self, client: Client) -> None:
        """Stream to the end."""
        async with client.stream("soak/tokens", {"count": 30}) as events:
            async for _ in events:
                pass

    async def leave(self, client: Client) -> None:
        """Leave a stream."""
        async with client.stream("soak/tokens", {"count": 10_000}) as events:
            async for _ in events:
                if random.random() < 0.2:
                    break

    async def files(self, client: Client) -> None:
        """Send a file, save one, and read it."""
        output = await client.run("soak/file", {"size": 200_000, "image": os.urandom(50_000)})
        await output.save(f"{self.directory}{os.sep}")
        await output.read()

    async def batch(self, client: Client) -> None:
        """Map over inputs, with a journal and saved outputs."""
        with tempfile.TemporaryDirectory(dir=self.directory) as place:
            outcomes = client.map(
                "soak/file",
                [{"size": 1000 + number} for number in range(5)],
                save_to=place,
                journal=Path(place) / "run.db",
                durable=False,
            )
            async with outcomes:
                async for outcome in outcomes:
                    self.record("outcome", outcome.error)

    async def read(self, client: Client) -> None:
        """Read lists and records."""
        page = await client.predictions.list()
        for prediction in page.results[:3]:
            await client.predictions.get(prediction.id)
        await client.accounts.current()

    def thread(self, client: sync.Client, end: float) -> None:
        """Do some of it with the sync client."""
        while time.monotonic() < end:
            work = random.choice(("run", "stream", "file", "late"))
            try:
                match work:
                    case "run":
                        client.run("soak/text", {"text": "a", "seconds": random.random() / 5})
                    case "stream":
                        for _ in client.stream("soak/tokens", {"count": 30}):
                            if random.random() < 0.02:
                                break
                    case "file":
                        client.run("soak/file", {"size": 100_000, "image": b"x" * 1000}).read()
                    case _:
                        client.run("soak/text", {"text": "a", "seconds": 30}, timeout=0.1)
            except Exception as error:  # noqa: BLE001  (see above)
                self.record(f"sync {work}", error)
            else:
                self.record(f"sync {work}", None)


# -- What is measured --------------------------------------------------------------------------


def measured(process: int | str) -> dict[str, int]:
    """Return what a process holds."""
    place = Path("/proc") / str(process)
    links = []
    for entry in (place / "fd").iterdir():
        with suppress(OSError):
            links.append(entry.readlink().name)
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    return {
        "descriptors": len(links),
        "sockets": sum(link.startswith("socket:") for link in links),
        "threads": int(status["Threads"]),
        "memory": int(status["VmRSS"].split()[0]) * 1024,
    }


def growth(rest: tuple[dict[str, int], dict[str, int]], rounds: list[dict[str, int]]) -> list[str]:
    """Return what has grown since the warm-up.

    Args:
        rest: What was measured at rest, after the warm-up and at the end.
        rounds: What was measured after each round since the warm-up; it shows the memory.
    """
    before, after = rest
    found = [
        f"{name}: {before[name]} after the warm-up, {after[name]} at the end"
        for name, spare in _SPARE.items()
        if name in before and after[name] > before[name] + spare
    ]
    half = len(rounds) // 2
    then, now = (
        statistics.median(each["memory"] for each in part)
        for part in (rounds[:half], rounds[half:])
    )
    if now > then * (1 + _MEMORY) + _SPARE_MEMORY:
        found.append(
            f"memory: {then / 2**20:.0f} MiB in the first half, {now / 2**20:.0f} MiB in the second"
        )
    return found


async def soak(minutes: float) -> int:
    """Make rounds, show what was measured after each, and return the exit code."""
    began = time.monotonic()
    rounds: list[tuple[dict[str, int], dict[str, int]]] = []
    with emulator_process() as (process, url, token), tempfile.TemporaryDirectory() as place:
        load = Load(Path(place))
        options: dict[str, Any] = {
            "base_url": url,
            "rate_limit": False,
            "retry": Retry(backoff=0.05),
            "timeout": Timeout(read=5, stream=5),
        }
        async with Client(token, **options) as client:
            # Made in another thread: it is not for the one of an event loop, and warns there.
            facade = await anyio.to_thread.run_sync(lambda: sync.Client(token, **options))
            try:

                async def make_round() -> None:
                    end = time.monotonic() + _ROUND
                    with anyio.fail_after(_ROUND + _HUNG):
                        async with anyio.create_task_group() as tasks:
                            for _ in range(_TASKS):
                                tasks.start_soon(load.worker, client, end)
                            for _ in range(_THREADS):
                                tasks.start_soon(anyio.to_thread.run_sync, load.thread, facade, end)
                    for path in Path(place).iterdir():
                        path.unlink()

                async def measure(seconds: float) -> tuple[dict[str, int], dict[str, int]]:
                    await asyncio.sleep(seconds)
                    gc.collect()
                    ours = {"tasks": len(asyncio.all_tasks()), **measured("self")}
                    theirs = measured(process)
                    done = sum(load.ends.values())
                    print(
                        f"{done:8}  client: {_shown(ours)}  emulator: {_shown(theirs)}", flush=True
                    )
                    return ours, theirs

                # The client keeps what was read last, up to a bound, which is reached here.
                for _ in range(12):
                    with suppress(exceptions.ReplicateException):
                        await (await client.run("soak/file", {"size": 7 * 2**20})).read()
                await make_round()
                while time.monotonic() < began + minutes * 60 * _WARM:
                    await make_round()
                    await measure(1)
                print("warm; at rest:", flush=True)
                before = await measure(_REST)
                while time.monotonic() < began + minutes * 60 or len(rounds) < 4:
                    await make_round()
                    rounds.append(await measure(1))
                print("at the end; at rest:", flush=True)
                after = await measure(_REST)
            finally:
                await anyio.to_thread.run_sync(facade.close)
    for end_of, count in sorted(load.ends.items()):
        print(f"{count:8}  {end_of}")
    found = [
        f"{name} grows: {text}"
        for index, name in enumerate(("the client", "the emulator"))
        for text in growth((before[index], after[index]), [each[index] for each in rounds])
    ]
    print("\n".join(found or ["everything stays flat"]))
    return 1 if found else 0


def _shown(values: dict[str, int]) -> str:
    return " ".join(
        f"{name} {value // 2**20 if name == 'memory' else value}" for name, value in values.items()
    )


def main() -> int:
    """Read the arguments, and soak."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (%(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return 0
    if not Path("/proc/self/fd").exists():
        print("this system has no /proc, where processes are measured", file=sys.stderr)
        return 2
    logging.getLogger("replicate_async").setLevel(
        logging.CRITICAL
    )  # faults are what is wanted here
    return asyncio.run(soak(options.minutes))


if __name__ == "__main__":
    sys.exit(main())
