"""What is measured: a registry of workloads, each the same work for every client.

To add one, write a coroutine that takes an open ``Adapter`` and returns its figures by name, and
decorate it with ``workload``. Its name, the figure that is compared and the columns to print are
all that ``compare.py`` needs to know; it has the targets.

A workload warms up before it measures, so that connections, caches and lazy imports are paid for.
CPU time is user and system time of all threads of the client's process; the server is in another.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from server import (
    EVENTS,
    PAGE_SIZE,
    PAGES,
    SLOW_SECONDS,
    VERSION_ID,
    page_bodies,
    stream_tokens,
)

if TYPE_CHECKING:
    from adapters.base import Adapter

Figures = dict[str, float]
Measure = Callable[["Adapter"], Awaitable[Figures]]

SYNC_RUNS = 1000
FAN_RUNS = 1000
FAN_AT_ONCE = 100
LISTINGS = 2
PARSED_PAGES = 200
POLLED_RUNS = 200
HELD_RUNS = 60


@dataclass(frozen=True, slots=True)
class Column:
    """A figure to print: its name in the results, its title, its digits after the point."""

    key: str
    title: str
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload and how its results are shown."""

    name: str
    summary: str
    compared: str
    """The figure whose ratio to the baseline is taken."""
    columns: tuple[Column, ...]
    measure: Measure | None
    """None for the two that start with the process, which the worker measures itself."""
    adapters: tuple[str, ...]
    baseline: str
    most_rounds: int
    processes: int
    """Processes of each adapter in a round, of which the median counts."""


WORKLOADS: dict[str, Workload] = {}

CPU = Column("cpu_us", "CPU us")
WALL = Column("wall_us", "wall us")
PEAK = Column("peak_mib", "peak MiB", 1)


def _register(
    name: str,
    summary: str,
    *,
    compared: str,
    columns: tuple[Column, ...],
    measure: Measure | None = None,
    adapters: tuple[str, ...] = ("raw", "v1", "ours"),
    baseline: str = "raw",
    most_rounds: int = 1000,
    processes: int = 1,
) -> None:
    WORKLOADS[name] = Workload(
        name,
        summary,
        compared,
        columns,
        measure,
        adapters,
        baseline,
        most_rounds,
        processes,
    )


def workload(
    name: str,
    summary: str,
    *,
    compared: str = "cpu_us",
    columns: tuple[Column, ...] = (CPU, WALL, PEAK),
    most_rounds: int = 1000,
) -> Callable[[Measure], Measure]:
    """Register the decorated coroutine under *name*."""

    def register(measure: Measure) -> Measure:
        _register(
            name,
            summary,
            compared=compared,
            columns=columns,
            measure=measure,
            most_rounds=most_rounds,
        )
        return measure

    return register


def load_all() -> None:
    """Have the workloads of the other modules registered, too."""
    __import__("sync_workloads")
    __import__("file_workloads")


class Meter:
    """CPU and wall time of a block, of which *count* pieces are done, in microseconds each."""

    def __init__(self, count: int) -> None:
        """Divide by *count*."""
        self.count: int = count
        self.figures: Figures = {}

    def __enter__(self) -> Self:
        """Start, with no garbage of the warm-up left to collect."""
        gc.collect()
        self.wall: float = time.perf_counter()
        self.cpu: float = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        cpu = time.process_time() - self.cpu
        wall = time.perf_counter() - self.wall
        self.figures["cpu_us"] = cpu / self.count * 1e6
        self.figures["wall_us"] = wall / self.count * 1e6


def _expect(output: object, expected: object = "hello Alice") -> None:
    if output != expected:
        raise AssertionError(f"output {output!r} instead of {expected!r}")


async def _run_in_turn(adapter: Adapter, ref: str, runs: int) -> None:
    for _ in range(runs):
        _expect(await adapter.run(ref, {"text": "Alice"}))


async def _run_at_once(adapter: Adapter, ref: str, runs: int, at_once: int) -> None:
    """Make *runs* runs by as many tasks as are to run at once, each taking the next one."""
    left = itertools.repeat(None, runs)

    async def work() -> None:
        for _ in left:
            _expect(await adapter.run(ref, {"text": "Alice"}))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


_register(
    "import",
    "import of the package into a bare interpreter",
    compared="wall_ms",
    columns=(
        Column("wall_ms", "wall ms", 1),
        Column("rss_mib", "RSS MiB", 1),
        Column("grown_mib", "of it grown", 1),
    ),
    processes=5,
)
_register(
    "cold",
    "start of the process to the end of the first run()",
    compared="wall_ms",
    columns=(Column("wall_ms", "wall ms", 1), Column("cpu_ms", "CPU ms", 1), PEAK),
    processes=5,
)


@workload(
    "seq",
    f"{SYNC_RUNS} run() in sync mode, one after the other",
    columns=(CPU, WALL, PEAK, Column("requests_per_call", "requests", 2)),
)
async def seq(adapter: Adapter) -> Figures:
    """Run ``owner/name``, one after the other."""
    return await _in_turn(adapter, "acme/greeter")


@workload(
    "seqv",
    "the same with owner/name:version",
    columns=(CPU, WALL, PEAK, Column("requests_per_call", "requests", 2)),
)
async def seqv(adapter: Adapter) -> Figures:
    """Run ``owner/name:version``, one after the other."""
    return await _in_turn(adapter, f"acme/greeter:{VERSION_ID}")


async def _in_turn(adapter: Adapter, ref: str) -> Figures:
    warm_up = 100
    await _run_in_turn(adapter, ref, warm_up)
    with Meter(SYNC_RUNS) as meter:
        await _run_in_turn(adapter, ref, SYNC_RUNS)
    return {**meter.figures, "calls": SYNC_RUNS + warm_up}


@workload(
    "fan",
    f"{FAN_RUNS} run() in sync mode, {FAN_AT_ONCE} at a time",
    columns=(CPU, WALL, PEAK, Column("connections", "connections")),
)
async def fan(adapter: Adapter) -> Figures:
    """Fan out over a model that takes no time."""
    return await _at_once(adapter, "acme/greeter")


@workload(
    "fanl",
    f"the same with a model of {SLOW_SECONDS * 1000:.0f} ms",
    columns=(
        CPU,
        Column("over_ideal", "wall/ideal", 2),
        PEAK,
        Column("connections", "connections"),
    ),
)
async def fanl(adapter: Adapter) -> Figures:
    """Fan out over a model that takes a while."""
    figures = await _at_once(adapter, "acme/slow")
    ideal = SLOW_SECONDS / FAN_AT_ONCE * 1e6
    return {**figures, "over_ideal": figures["wall_us"] / ideal}


async def _at_once(adapter: Adapter, ref: str) -> Figures:
    # The warm-up opens as many connections as are needed; clients that keep few must make more.
    await _run_at_once(adapter, "acme/greeter", 2 * FAN_AT_ONCE, FAN_AT_ONCE)
    with Meter(FAN_RUNS) as meter:
        await _run_at_once(adapter, ref, FAN_RUNS, FAN_AT_ONCE)
    return meter.figures


@workload(
    "list",
    f"{PAGES} pages of {PAGE_SIZE} predictions, listed and structured; per page",
)
async def list_pages(adapter: Adapter) -> Figures:
    """List all predictions and look at each."""
    # Every sixth prediction of the server has failed.
    succeeded = PAGES * PAGE_SIZE - PAGES * PAGE_SIZE // 6
    _expect(await adapter.list_predictions(), succeeded)
    with Meter(LISTINGS * PAGES) as meter:
        for _ in range(LISTINGS):
            _expect(await adapter.list_predictions(), succeeded)
    return meter.figures


@workload(
    "parse",
    f"a page of {PAGE_SIZE} predictions, from bytes to objects; per page",
    columns=(CPU, Column("kept_bytes", "kept B/prediction")),
)
async def parse(adapter: Adapter) -> Figures:
    """Parse pages without a network, then weigh what is kept of them."""
    pages = page_bodies(adapter.base_url)[:10]
    for page in pages:
        adapter.parse(page)
    with Meter(PARSED_PAGES) as meter:
        for page in itertools.islice(itertools.cycle(pages), PARSED_PAGES):
            adapter.parse(page)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [adapter.parse(page) for page in pages]
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {**meter.figures, "kept_bytes": (after - before) / (len(kept) * PAGE_SIZE)}


@workload(
    "sse",
    f"a stream of {EVENTS} events, each in a chunk of its own; per event",
)
async def sse(adapter: Adapter) -> Figures:
    """Read a stream whose every event is a chunk of its own."""
    return await _streamed(adapter, "acme/talker")


@workload("ssec", "the same in chunks of 16 KiB")
async def ssec(adapter: Adapter) -> Figures:
    """Read a stream that comes in large chunks."""
    return await _streamed(adapter, "acme/mumbler")


async def _streamed(adapter: Adapter, ref: str) -> Figures:
    expected = len("".join(stream_tokens()))
    _expect(await adapter.stream(ref, {"text": "Alice"}), expected)
    with Meter(EVENTS) as meter:
        _expect(await adapter.stream(ref, {"text": "Alice"}), expected)
    return meter.figures


@workload(
    "poll",
    f"{POLLED_RUNS} run() that poll predictions of 0.05 to 3 s; delay from done to seen",
    compared="delay_ms",
    columns=(
        Column("delay_ms", "mean ms", 1),
        Column("reads_per_run", "GETs/run", 1),
        Column("cpu_us", "CPU us"),
    ),
    most_rounds=2,
)
async def poll(adapter: Adapter) -> Figures:
    """Poll many predictions in real time; the server puts the moment of completion into the output.

    The runs start 20 ms apart, so that they do not wait for each other. Multiples of the golden
    ratio spread their durations evenly and in no order.
    """
    await _run_in_turn(adapter, "acme/greeter", 20)
    delays: list[float] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number * 0.02)
        seconds = 0.05 + 2.95 * (number * 0.6180339887 % 1)
        output = await adapter.run("acme/sleeper", {"seconds": seconds}, wait=False)
        delays.append(time.monotonic() - float(output))

    with Meter(POLLED_RUNS) as meter:
        async with asyncio.TaskGroup() as group:
            for number in range(POLLED_RUNS):
                group.create_task(one(number))
    return {**meter.figures, "delay_ms": statistics.fmean(delays) * 1e3, "runs": POLLED_RUNS}


@workload(
    "hold",
    f"{HELD_RUNS} run() that the server holds for 20 to 60 ms; delay from done to seen",
    compared="delay_us",
    columns=(
        Column("delay_us", "median us"),
        Column("p95_us", "p95 us"),
        Column("cpu_us", "CPU us"),
    ),
)
async def hold(adapter: Adapter) -> Figures:
    """Wait for held answers one after the other; the median, for a core may be taken away."""
    await _run_in_turn(adapter, "acme/greeter", 20)
    delays: list[float] = []
    with Meter(HELD_RUNS) as meter:
        for number in range(HELD_RUNS):
            seconds = 0.02 + 0.04 * (number * 0.6180339887 % 1)
            output = await adapter.run("acme/sleeper", {"seconds": seconds})
            delays.append(time.monotonic() - float(output))
    delays.sort()
    return {
        **meter.figures,
        "delay_us": statistics.median(delays) * 1e6,
        "p95_us": delays[int(len(delays) * 0.95)] * 1e6,
    }
