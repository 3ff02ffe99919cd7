"""`map` over many inputs: what it holds in memory does not grow with their number."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INPUTS = 100_000 if os.environ.get("REPLICATE_ASYNC_LONG_TESTS") else 4_000


def test_memory() -> None:
    """A hundred thousand inputs take less than 40 MiB; in the short version, some thousands next to nothing."""
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "throughput.py",
            "--items",
            "100",
            "--memory",
            str(INPUTS),
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    found = re.search(r"inputs: ([\d.]+) MiB before, ([\d.]+) at most", done.stdout)
    assert found is not None, done.stdout + done.stderr
    before, most = map(float, found.groups())
    assert most - before < (40 if INPUTS == 100_000 else 8)
