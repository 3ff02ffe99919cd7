"""How many predictions one core drives: ``python benchmarks/throughput.py [--items 3000] [--memory 100000]``.

`map` runs a model that ends at once, on an emulator without limits in a process of its own. Printed are
predictions per second of wall time and per second of this process's CPU time, without and with a journal, and
how much this process grows over a large number of inputs. The account's limit is 10 per second (:api:`rate-limits`).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this tree's package rather than an installed one

from replicate_async import Client  # noqa: E402

SERVER = """
import sys
from replicate_async.testing import Emulator

emulator = Emulator(rate_limits=False, built_in=False)

@emulator.model("acme/instant", official=True)
async def instant(text: str) -> str:
    return text

with emulator:
    print(emulator.url, emulator.token, flush=True)
    sys.stdin.read()  # until this process is killed
"""


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """Run the emulator in a process of its own; yields its URL and token."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        url, token = process.stdout.readline().split()
        yield url, token
    finally:
        process.kill()
        process.communicate()


def resident() -> float:
    """Return the resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def drive(
    client: Client, items: int, watch: list[float] | None = None, **options: Any
) -> int:
    """Carry out a fan-out; note the memory now and then."""
    inputs = ({"text": f"prompt number {number}"} for number in range(items))
    done = 0
    async for outcome in client.map("acme/instant", inputs, **options):
        outcome.result()
        done += 1
        if watch is not None and done % (items // 20) == 0:
            gc.collect()
            watch.append(resident())
    return done


async def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument(
        "--memory", type=int, default=0, help="inputs for the measurement of memory"
    )
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    with server() as (url, token), tempfile.TemporaryDirectory() as directory:
        async with Client(token, base_url=url, rate_limit=False) as client:
            await drive(client, 200)
            cases: dict[str, dict[str, Any]] = {
                "plain": {},
                "journal": {"journal": Path(directory) / "run.db"},
                "journal, files": {"journal": Path(directory) / "2.db", "save_to": directory},
                "not durable": {
                    "journal": Path(directory) / "3.db",
                    "save_to": Path(directory) / "3",
                    "durable": False,
                },
            }
            for name, options in cases.items():
                wall, cpu = time.perf_counter(), time.process_time()
                await drive(client, arguments.items, concurrency=arguments.concurrency, **options)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                print(
                    f"{name:16}{arguments.items / wall:8.0f} predictions per second,"
                    f"{arguments.items / cpu:8.0f} per second of CPU"
                )
            if arguments.memory:
                watch: list[float] = []
                before = resident()
                await drive(client, arguments.memory, watch, concurrency=arguments.concurrency)
                print(
                    f"{arguments.memory} inputs: {before:.1f} MiB before, {max(watch):.1f} at most,"
                    f" {watch[-1]:.1f} at the end"
                )


if __name__ == "__main__":
    asyncio.run(main())
