"""What is measured of synchronous clients: more workloads for the registry of `workloads.py`.

The baseline is hand-written `http.client` on a persistent connection for each thread.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from server import PAGE_SIZE, PAGES, VERSION_ID
from workloads import CPU, PEAK, WALL, WORKLOADS, Column, Figures, Meter, Workload

if TYPE_CHECKING:
    from adapters.sync_base import SyncAdapter

SyncMeasure = Callable[["SyncAdapter"], Figures]

RUNS = 1000
FAN_RUNS = 2000
FAN_THREADS = 32
LISTINGS = 2
CROSSINGS = 5000

SYNC_ADAPTERS = ("raw-httpclient", "v1-sync", "ours-sync")


def sync_workload(
    name: str,
    summary: str,
    *,
    target: str,
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
            target=target,
            measure=measure,
            adapters=adapters,
            baseline="raw-httpclient",
            most_rounds=1000,
            processes=1,
        )
        return measure

    return register


def _run(adapter: SyncAdapter, ref: str, runs: int) -> None:
    for _ in range(runs):
        output = adapter.run(ref, {"text": "Alice"})
        if output != "hello Alice":
            raise AssertionError(f"output {output!r}")


@sync_workload(
    "sync-seq",
    f"{RUNS} run() in sync mode, one after the other",
    target="<= 1.6",
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
    target="<= 1.6",
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
    target="<= 1.15",
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
    target="<= 1.55",
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
    "sync-bridge",
    f"{CROSSINGS} crossings from the caller's thread to the event loop and back",
    target="<= 30 us of CPU",
    columns=(CPU, WALL),
    adapters=("ours-sync",),
)
def bridge(adapter: SyncAdapter) -> Figures:
    """Await nothing."""
    for _ in range(200):
        adapter.cross()
    with Meter(CROSSINGS) as meter:
        for _ in range(CROSSINGS):
            adapter.cross()
    return meter.figures
