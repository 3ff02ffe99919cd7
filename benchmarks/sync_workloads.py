"""What is measured of synchronous clients: more workloads for the registry of `workloads.py`.

The baseline is hand-written `http.client` on a persistent connection for each thread.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from server import EVENTS, PAGE_SIZE, PAGES, VERSION_ID, stream_tokens
from workloads import CPU, PEAK, WALL, WORKLOADS, Column, Figures, Meter, Workload

if TYPE_CHECKING:
    from adapters.sync_base import SyncAdapter

SyncMeasure = Callable[["SyncAdapter"], Figures]

RUNS = 1000
FAN_RUNS = 2000
FAN_THREADS = 32
LISTINGS = 2
CROSSINGS = 5000
DOWNLOADED = 256
READS = 200

SYNC_ADAPTERS = ("raw-httpclient", "v1-sync", "ours-sync")

WITH_THREAD = ("raw-httpclient", "raw-thread", "v1-sync", "ours-sync")
"""For the workloads in which the way to the event loop and back counts."""


def sync_workload(
    name: str,
    summary: str,
    *,
    columns: tuple[Column, ...] = (CPU, WALL, PEAK),
    adapters: tuple[str, ...] = SYNC_ADAPTERS,
) -> Callable[[SyncMeasure], SyncMeasure]:
    """Register the decorated function under *name*."""

    def register(measure: SyncMeasure) -> SyncMeasure:
        WORKLOADS[name] = Workload(
            name=name,
            summary=summary,
            compared="cpu_us",
            columns=columns,
            measure=cast(Any, measure),
            adapters=adapters,
            baseline="raw-httpclient",
            most_rounds=1000,
            processes=1,
        )
        return measure

    return register


for _name in ("import", "cold"):
    _same = WORKLOADS[_name]
    WORKLOADS[f"sync-{_name}"] = replace(
        _same,
        name=f"sync-{_name}",
        adapters=SYNC_ADAPTERS,
        baseline="v1-sync",
    )


def _run(adapter: SyncAdapter, ref: str, runs: int) -> None:
    for _ in range(runs):
        output = adapter.run(ref, {"text": "Alice"})
        if output != "hello Alice":
            raise AssertionError(f"output {output!r}")


@sync_workload(
    "sync-seq",
    f"{RUNS} run() in sync mode, one after the other",
    adapters=WITH_THREAD,
)
def seq(adapter: SyncAdapter) -> Figures:
    """Run an official model."""
    _run(adapter, "acme/greeter", 50)
    with Meter(RUNS) as meter:
        _run(adapter, "acme/greeter", RUNS)
    return meter.figures


@sync_workload(
    "sync-seqv",
    f"{RUNS} run() of owner/name:version, one after the other",
    adapters=WITH_THREAD,
)
def seqv(adapter: SyncAdapter) -> Figures:
    """Run a version."""
    ref = f"acme/greeter:{VERSION_ID}"
    _run(adapter, ref, 50)
    with Meter(RUNS) as meter:
        _run(adapter, ref, RUNS)
    return meter.figures


@sync_workload(
    "sync-fan",
    f"{FAN_RUNS} run() in {FAN_THREADS} threads",
    adapters=WITH_THREAD,
)
def fan(adapter: SyncAdapter) -> Figures:
    """Share a client between threads, each taking the next run."""

    def work(runs: int) -> None:
        left = itertools.repeat(None, runs)
        lock = threading.Lock()

        def take() -> None:
            while True:
                with lock:
                    if next(left, lock) is lock:
                        return
                _run(adapter, "acme/greeter", 1)

        threads = [threading.Thread(target=take) for _ in range(FAN_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    work(FAN_THREADS * 4)
    with Meter(FAN_RUNS) as meter:
        work(FAN_RUNS)
    return meter.figures


@sync_workload(
    "sync-list",
    f"{LISTINGS} times {PAGES} pages of {PAGE_SIZE} predictions; per prediction",
)
def listing(adapter: SyncAdapter) -> Figures:
    """Go through all pages."""
    adapter.list_predictions()
    with Meter(LISTINGS * PAGES * PAGE_SIZE) as meter:
        for _ in range(LISTINGS):
            if not adapter.list_predictions():
                raise AssertionError("no prediction has succeeded")
    return meter.figures


@sync_workload(
    "sync-sse",
    f"a stream of {EVENTS} events, each in a chunk of its own; per event",
)
def sse(adapter: SyncAdapter) -> Figures:
    """Read a stream whose every event is a chunk of its own."""
    return _streamed(adapter, "acme/talker")


@sync_workload("sync-ssec", "the same in chunks of 16 KiB")
def ssec(adapter: SyncAdapter) -> Figures:
    """Read a stream that comes in large chunks."""
    return _streamed(adapter, "acme/mumbler")


def _streamed(adapter: SyncAdapter, ref: str) -> Figures:
    expected = len("".join(stream_tokens()))
    adapter.stream(ref, {"text": "Alice"})
    with Meter(EVENTS) as meter:
        length = adapter.stream(ref, {"text": "Alice"})
    if length != expected:
        raise AssertionError("text is missing")
    return meter.figures


@sync_workload(
    "sync-down",
    f"download of a file of {DOWNLOADED} MiB to the disk; per MiB",
)
def down(adapter: SyncAdapter) -> Figures:
    """Save a large file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "file")
        adapter.download(_file(adapter, 1), path)
        with Meter(DOWNLOADED) as meter:
            adapter.download(_file(adapter, DOWNLOADED), path)
        if path.stat().st_size != DOWNLOADED * 2**20:
            raise AssertionError("the file is not complete")
    return meter.figures


@sync_workload(
    "sync-chunks",
    f"iteration over a file of {DOWNLOADED} MiB; per MiB",
)
def chunks(adapter: SyncAdapter) -> Figures:
    """Iterate over a large file."""
    adapter.chunks(_file(adapter, 1))
    with Meter(DOWNLOADED) as meter:
        length = adapter.chunks(_file(adapter, DOWNLOADED))
    if length != DOWNLOADED * 2**20:
        raise AssertionError("the file is not complete")
    return meter.figures


@sync_workload("sync-read", f"{READS} files of 1 MiB, read as a whole", adapters=WITH_THREAD)
def read(adapter: SyncAdapter) -> Figures:
    """Read small files."""
    adapter.read(_file(adapter, 1))
    with Meter(READS) as meter:
        for _ in range(READS):
            if len(adapter.read(_file(adapter, 1))) != 2**20:
                raise AssertionError("the file is not complete")
    return meter.figures


def _file(adapter: SyncAdapter, mebibytes: int) -> str:
    return f"{adapter.base_url}/files/{mebibytes}"


@sync_workload(
    "sync-bridge",
    f"{CROSSINGS} crossings to the thread of the event loop and back, on one core",
    columns=(CPU, WALL),
    adapters=("ours-sync",),
)
def bridge(adapter: SyncAdapter) -> Figures:
    """Await nothing.

    On one core, where a change of threads is all there is: between cores, it depends on the machine.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for _ in range(200):
        adapter.cross()
    with Meter(CROSSINGS) as meter:
        for _ in range(CROSSINGS):
            adapter.cross()
    return meter.figures
