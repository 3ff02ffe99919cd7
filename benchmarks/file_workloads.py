"""Workloads with files: downloads to the disk and into memory, uploads by themselves and in inputs.

Beside the CPU time of the client they measure by how much its memory grows, and how late a ticker of
5 ms on the same event loop is at worst: that is how long other tasks of the process are held up.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from server import BLOB
from workloads import Column, Figures, Meter, workload

if TYPE_CHECKING:
    from adapters.base import Adapter

MIB = 2**20
DOWNLOADED = 256
"""MiB of the file that goes to the disk."""
READS = 200
"""Files of 1 MiB that are read into memory."""
UPLOADED = 90
"""MiB of the file that is uploaded."""
TICK = 0.005

COLUMNS = (
    Column("cpu_us", "CPU us/MiB"),
    Column("speed", "MiB/s"),
    Column("lag_ms", "lag ms", 1),
    Column("growth_mib", "growth MiB", 1),
)


def _memory_mib(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise LookupError(key)


@asynccontextmanager
async def _watched(count: int) -> AsyncIterator[Figures]:
    """Measure the block, in which *count* MiB are moved."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            late.append(time.perf_counter() - due)

    figures: Figures = {}
    ticker: asyncio.Task[None] | None = None
    # From here on the peak is that of the block.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _memory_mib("VmRSS")
    try:
        with Meter(count) as meter:
            # Not before the meter has collected the garbage: that alone takes up to 12 ms.
            ticker = asyncio.create_task(tick())
            await asyncio.sleep(0)  # until it ticks
            yield figures
        figures |= meter.figures
        figures["speed"] = 1e6 / figures["wall_us"]
        figures["growth_mib"] = _memory_mib("VmHWM") - before
        await asyncio.sleep(TICK)  # it may be late just now
        figures["lag_ms"] = max(late, default=0.0) * 1e3
    finally:
        if ticker is not None:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker


def _url(adapter: Adapter, mebibytes: int) -> str:
    return f"{adapter.base_url}/files/{mebibytes}/out-0.bin"


@workload(
    "down",
    f"{DOWNLOADED} MiB to the disk",
    columns=COLUMNS,
)
async def down(adapter: Adapter) -> Figures:
    """Download one large file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "out.bin")
        await adapter.download(_url(adapter, 8), path)
        async with _watched(DOWNLOADED) as figures:
            await adapter.download(_url(adapter, DOWNLOADED), path)
        if path.stat().st_size != DOWNLOADED * MIB:
            raise AssertionError(f"{path.stat().st_size} bytes were saved")
        return figures


@workload(
    "read",
    f"1 MiB into memory, {READS} times",
    columns=COLUMNS,
)
async def read(adapter: Adapter) -> Figures:
    """Read many files, one after the other."""
    url = _url(adapter, 1)
    for _ in range(20):
        await adapter.read(url)
    async with _watched(READS) as figures:
        for _ in range(READS):
            if len(await adapter.read(url)) != MIB:
                raise AssertionError("the file is not complete")
    return figures


def _file(path: Path, mebibytes: int) -> Path:
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(BLOB)
    # As files of users are: not written at this moment.
    old = time.time() - 3600
    os.utime(path, (old, old))
    return path


@workload(
    "up",
    f"{UPLOADED} MiB by files.create",
    columns=COLUMNS,
)
async def up(adapter: Adapter) -> Figures:
    """Upload one large file."""
    with tempfile.TemporaryDirectory() as directory:
        await adapter.upload(_file(Path(directory, "small.bin"), 4))
        path = _file(Path(directory, "large.bin"), UPLOADED)
        async with _watched(UPLOADED) as figures:
            await adapter.upload(path)
        return figures


@workload(
    "upin",
    f"{UPLOADED} MiB as an input of a run",
    columns=COLUMNS,
)
async def upin(adapter: Adapter) -> Figures:
    """Run a model with one large file."""
    with tempfile.TemporaryDirectory() as directory:
        await adapter.run_with_file("acme/greeter", _file(Path(directory, "small.bin"), 4))
        path = _file(Path(directory, "large.bin"), UPLOADED)
        async with _watched(UPLOADED) as figures:
            output = await adapter.run_with_file("acme/greeter", path)
        if output != "hello Alice":
            raise AssertionError(f"output {output!r}")
        return figures
