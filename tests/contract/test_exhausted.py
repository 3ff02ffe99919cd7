"""Machines without free descriptors, threads or stack: whatever is created is delivered, or cancelled."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from replicate_async.testing import Emulator

from .conftest import until

pytest.importorskip("resource")

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import asyncio, resource, sys
from replicate_async import Client, exceptions

url, token, kind, size, number = *sys.argv[1:4], *map(int, sys.argv[4:])
if kind == "recursion":
    sys.setrecursionlimit(size)
else:
    limit = resource.RLIMIT_NOFILE if kind == "descriptors" else resource.RLIMIT_NPROC
    resource.setrlimit(limit, (size, size))

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

        script = [sys.executable, "-c", SCRIPT, emulator.url, emulator.token]
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
