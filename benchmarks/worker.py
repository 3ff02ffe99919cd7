"""The process in which one client does one workload: ``worker.py WORKLOAD ADAPTER BASE_URL``.

Prints the figures as a JSON object. It imports next to nothing before the client, so that what is
measured from the start of the process or as an import is the client's own.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from adapters.sync_base import SyncAdapter

    # As in workloads.py, which is not imported here before it is needed.
    Figures = dict[str, float]


def _memory_mib(key: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process in MiB.

    The maximum that ``getrusage`` gives would include what the parent had at the fork.
    """
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no imports here
        for line in status:
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    raise LookupError(key)


def _import(adapter: str) -> Figures:
    from adapters import PACKAGES

    package = PACKAGES[adapter]
    memory = _memory_mib("VmRSS")
    before = time.perf_counter()
    __import__(package)
    wall_ms = (time.perf_counter() - before) * 1e3
    after = _memory_mib("VmRSS")
    return {"wall_ms": wall_ms, "rss_mib": after, "grown_mib": after - memory}


def _open(adapter: str, base_url: str) -> Any:
    module = __import__(f"adapters.{adapter.replace('-', '_')}", fromlist=["Client"])
    return module.Client(base_url)


def _cold(adapter: str, base_url: str) -> Figures:
    client = _open(adapter, base_url)
    if isinstance(client, _sync_adapter()):
        return _cold_sync(client)
    import asyncio

    async def first_run() -> Figures:
        await client.open()
        await client.run("acme/greeter", {"text": "Alice"})
        # The parent knows when it started this process, by the same clock.
        figures = {"ended": time.monotonic(), "cpu_ms": time.process_time() * 1e3}
        await client.close()
        return figures

    return asyncio.run(first_run())


def _sync_adapter() -> type[SyncAdapter]:
    from adapters.sync_base import SyncAdapter

    return SyncAdapter


def _cold_sync(client: SyncAdapter) -> Figures:
    client.open()
    client.run("acme/greeter", {"text": "Alice"})
    figures = {"ended": time.monotonic(), "cpu_ms": time.process_time() * 1e3}
    client.close()
    return figures


def _warm(workload: str, adapter: str, base_url: str) -> Figures:
    client = _open(adapter, base_url)
    import asyncio

    from workloads import WORKLOADS, load_all

    load_all()
    measure: Any = WORKLOADS[workload].measure
    assert measure is not None
    if isinstance(client, _sync_adapter()):
        client.open()
        try:
            sync_figures: Figures = measure(client)
            return sync_figures
        finally:
            client.close()

    async def work() -> Figures:
        await client.open()
        try:
            figures: Figures = await measure(client)
            return figures
        finally:
            await client.close()

    return asyncio.run(work())


def main() -> None:
    """Measure what the arguments name, and print it."""
    workload, adapter, base_url = sys.argv[1:]
    if workload in ("import", "sync-import"):
        figures = _import(adapter)
    elif workload in ("cold", "sync-cold"):
        figures = _cold(adapter, base_url)
    else:
        figures = _warm(workload, adapter, base_url)
    figures["peak_mib"] = _memory_mib("VmHWM")
    import json

    print(json.dumps(figures))


if __name__ == "__main__":
    main()
