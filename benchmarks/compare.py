"""Compare the speed of this client with that of others.

    python benchmarks/compare.py [--rounds N] [--only seq,fan] [--adapters raw,v1,ours]

Each adapter does each workload in a process of its own, in turn, in every round, against a cheap local
server in yet another process. `raw` is hand-written aiohttp that does just the work, `v1` the official client
1.0.7, `ours` this package; `raw-httpclient` is `http.client` of the standard library, `v1-sync` and
`ours-sync` are the synchronous clients, and `raw-thread` is `raw` on an event loop in a thread of its own, as that
of `ours-sync`. An adapter whose package is not installed is left out.

A ratio is that of an adapter to the baseline, one of the `raw` ones, in the same round. Shown is the median over
the rounds, and the range. Ratios can be compared between machines; the other figures, medians as well, cannot.
Nothing else should run meanwhile.

A target is the most that this package may take, and is marked where it is missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adapters import PACKAGES
from workloads import WORKLOADS, Figures, Workload, load_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
WORKER_SECONDS = 180
"""More than any workload takes; a client that hangs ends here."""

DISTRIBUTIONS = (
    "aiohttp",
    "attrs",
    "cattrs",
    "anyio",
    "replicate",
    "httpx",
    "httpcore",
    "pydantic",
)


RATIO = "ratio"

TARGETS: dict[str, dict[str, float]] = {
    "import": {"wall_ms": 15},
    "cold": {RATIO: 1.4},
    "seq": {RATIO: 1.2},
    "seqv": {RATIO: 1.2},
    "fan": {RATIO: 1.25},
    "list": {RATIO: 1.9},
    "sse": {RATIO: 1.0},
    "ssec": {RATIO: 1.3},
    "down": {RATIO: 1.1},
    "read": {RATIO: 1.1},
    "up": {RATIO: 0.7},
    "upin": {RATIO: 0.9},
    "poll": {"delay_ms": 140, "reads_per_run": 10},
    "sync-seq": {RATIO: 2.3},
    "sync-seqv": {RATIO: 2.3},
    "sync-fan": {RATIO: 1.15},
    "sync-list": {RATIO: 2.1},
    "sync-sse": {RATIO: 1.0},
    "sync-down": {RATIO: 1.75},
    "sync-read": {RATIO: 2.5},
}
"""For each workload the most that this package may take: the ratio to the baseline, or a figure.

They are ceilings for plain code: what is below need not become faster.
"""


class Server:
    """The server's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Take over *process*, which has not said its port yet."""
        self.process: subprocess.Popen[str] = process
        self.base_url: str = f"http://127.0.0.1:{int(self._line())}"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def counters(self) -> dict[str, int]:
        """Ask what the server has counted so far."""
        assert self.process.stdin is not None
        self.process.stdin.write("counters\n")
        self.process.stdin.flush()
        counters: dict[str, int] = json.loads(self._line())
        return counters


@contextmanager
def running_server() -> Iterator[Server]:
    """Run the server while the block runs."""
    with subprocess.Popen(
        [sys.executable, HERE / "server.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Server(process)
        finally:
            # Its input ends, and so does it.
            process.communicate(timeout=10)


def child_environment(bytecode: str) -> dict[str, str]:
    """Return the environment of the workers.

    Modules are compiled once, into the directory *bytecode*, by every adapter's first process:
    so all imports are from bytecode, whether or not the installation can be written to.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("REPLICATE_") and not name.lower().endswith("_proxy")
    }
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONDEVMODE", "PYTHONWARNINGS"):
        environment.pop(name, None)
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    # This tree's package rather than an installed one.
    environment["PYTHONPATH"] = str(HERE.parent)
    return environment


def measure(workload: str, adapter: str, server: Server, environment: dict[str, str]) -> Figures:
    """Let *adapter* do *workload* in a new process, and return its figures.

    Raises:
        subprocess.CalledProcessError: The worker failed; its error output is in `stderr`.
    """
    before = server.counters()
    started = time.monotonic()
    completed = subprocess.run(
        [sys.executable, HERE / "worker.py", workload, adapter, server.base_url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WORKER_SECONDS,
        check=True,
    )
    figures: Figures = json.loads(completed.stdout.splitlines()[-1])
    if "ended" in figures:
        figures["wall_ms"] = (figures["ended"] - started) * 1e3
    counted = server.counters()
    for name, value in counted.items():
        figures[name] = value - before[name]
    if "calls" in figures:
        figures["requests_per_call"] = figures["requests"] / figures["calls"]
    if "runs" in figures:
        figures["reads_per_run"] = figures["reads"] / figures["runs"]
    return figures


def is_present(adapter: str, server: Server, environment: dict[str, str]) -> bool:
    """Let *adapter* make its first run, which compiles its modules. Tell whether it is installed.

    Raises:
        subprocess.CalledProcessError: It is installed, and fails.
    """
    try:
        measure("cold", adapter, server, environment)
    except subprocess.CalledProcessError as error:
        package = PACKAGES[adapter]
        if (
            f"ModuleNotFoundError: No module named '{package.partition('.')[0]}'"
            not in error.stderr
        ):
            raise
        print(f"{adapter} is left out: {package} is not installed")
        return False
    return True


def medians(samples: Sequence[Figures]) -> Figures:
    """Return the median of each figure."""
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def do_round(
    workload: Workload, adapters: Sequence[str], server: Server, environment: dict[str, str]
) -> dict[str, Figures]:
    """Let all adapters do *workload*, in turn."""
    samples: dict[str, list[Figures]] = {adapter: [] for adapter in adapters}
    for _ in range(workload.processes):
        for adapter in adapters:
            samples[adapter].append(measure(workload.name, adapter, server, environment))
    return {adapter: medians(found) for adapter, found in samples.items()}


def print_results(workload: Workload, rounds: Sequence[dict[str, Figures]]) -> dict[str, float]:
    """Print the table of one workload, and return the median ratio of each adapter."""
    print(f"\n{workload.name}: {workload.summary}")
    titles = [column.title for column in workload.columns]
    print(f"  {'':14}" + "".join(f"{title:>{len(title) + 3}}" for title in titles) + "   ratio")
    ratios: dict[str, float] = {}
    for adapter in rounds[0]:
        middle = medians([results[adapter] for results in rounds])
        cells = "".join(
            f"{middle[column.key]:{len(column.title) + 3}.{column.digits}f}"
            for column in workload.columns
        )
        line = f"  {adapter:14}{cells}"
        if workload.baseline in rounds[0]:
            found = [
                results[adapter][workload.compared] / results[workload.baseline][workload.compared]
                for results in rounds
            ]
            ratios[adapter] = statistics.median(found)
            line += f"   {ratios[adapter]:5.2f}"
            if adapter != workload.baseline:
                line += f"  ({min(found):.2f} to {max(found):.2f})"
        if adapter.startswith("ours"):
            reached = middle | ({RATIO: ratios[adapter]} if adapter in ratios else {})
            line += "".join(
                f"   target {name} <= {most:g}{'' if reached[name] <= most else ' MISSED'}"
                for name, most in TARGETS.get(workload.name, {}).items()
                if name in reached
            )
        print(line, flush=True)
    return ratios


def print_summary(ratios: dict[str, dict[str, float]], adapters: Sequence[str]) -> None:
    """Print the median ratios of all workloads in one table."""
    print("\nAll ratios (less is better)")
    print(f"  {'':14}" + "".join(f"{name:>12}" for name in ratios))
    for adapter in adapters:
        cells = "".join(
            f"{found[adapter]:12.2f}" if adapter in found else f"{'-':>12}"
            for found in ratios.values()
        )
        print(f"  {adapter:14}{cells}")


def print_facts() -> None:
    """Print what the figures depend on."""
    print(f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")
    versions = [f"{platform.python_implementation()} {platform.python_version()}"]
    for name in DISTRIBUTIONS:
        version = _version(name)
        if version:
            versions.append(f"{name} {version}")
    print(", ".join(versions))
    if _version("httpcore") and not _version("sniffio"):
        print("sniffio is not installed: httpcore, under v1, looks for it in every request")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def arguments() -> argparse.Namespace:
    """Read the command line."""
    load_all()
    width = max(map(len, WORKLOADS))
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="workloads:\n"
        + "\n".join(f"  {name:{width}}  {found.summary}" for name, found in WORKLOADS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each workload (5)")
    parser.add_argument("--only", default="", help="workloads, with commas between (all)")
    parser.add_argument("--adapters", default="", help="adapters, with commas between (all)")
    options = parser.parse_args()
    options.only = [name for name in options.only.split(",") if name] or list(WORKLOADS)
    options.adapters = [name for name in options.adapters.split(",") if name] or list(PACKAGES)
    for name in options.only:
        if name not in WORKLOADS:
            parser.error(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
    for name in options.adapters:
        if name not in PACKAGES:
            parser.error(f"no adapter {name!r}; there are {', '.join(PACKAGES)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def main() -> None:
    """Measure and print."""
    options = arguments()
    print_facts()
    ratios: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as bytecode, running_server() as server:
        environment = child_environment(bytecode)
        present = [found for found in options.adapters if is_present(found, server, environment)]
        for name in options.only:
            workload = WORKLOADS[name]
            adapters = [found for found in present if found in workload.adapters]
            rounds: list[dict[str, Figures]] = []
            for number in range(min(options.rounds, workload.most_rounds)):
                # Neither is always the one that follows the server's rest.
                order = adapters if number % 2 == 0 else adapters[::-1]
                results = do_round(workload, order, server, environment)
                rounds.append({adapter: results[adapter] for adapter in adapters})
            if rounds and adapters:
                ratios[name] = print_results(workload, rounds)
    print_summary(ratios, present)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.stderr}\n{' '.join(map(str, error.cmd[2:4]))} failed")
    except subprocess.TimeoutExpired as error:
        sys.exit(f"{' '.join(map(str, error.cmd[2:4]))} took more than {error.timeout} s")
