"""An emulator that clients reach by TLS, and processes that run programs with a client."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicate_async.testing import ConcatenateIterator, Emulator
from replicate_async.v1 import _backend

ROOT = Path(__file__).resolve().parents[2]

INSTALL = "import replicate_async.v1; replicate_async.v1.install()\n"
RUN = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator whose output files have `https:` URLs, of which alone 1.x makes files."""
    with _emulator() as running:
        yield running


@pytest.fixture(autouse=True)
def no_client_is_left() -> Iterator[None]:
    """Drop the clients that v1 keeps for the life of a program: their thread would outlive the test."""
    yield
    _backend._sync_client.cache_clear()  # noqa: SLF001  (programs have no need for it)
    _backend._async_client.cache_clear()  # noqa: SLF001
    gc.collect()


def _emulator() -> Emulator:
    emulator = Emulator(tls=True, rate_limits=False, page_sizes={"models": 3})

    @emulator.model("acme/breaks", official=True)
    def breaks(error: str) -> ConcatenateIterator[str]:
        yield "one"
        raise ValueError(error)

    @emulator.model("acme/chat", official=True)
    def chat(prompt: str, **options: object) -> ConcatenateIterator[str]:
        yield from (f" {word}" for word in [prompt.upper(), *sorted(options)])

    @emulator.model("acme/seer")
    def seer(prompt: str, image: Path, **options: object) -> ConcatenateIterator[str]:
        yield from (prompt, f" {image.stat().st_size}", f" {sorted(options)}")

    return emulator


def run_python(emulator: Emulator, code: str, *arguments: str) -> str:
    """Run code in a process whose environment names the emulator, and return what it prints."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **os.environ,
            **emulator.env,
            "PYTHONPATH": os.pathsep.join(path),
            "REPLICATE_POLL_INTERVAL": "0.05",
            "PYTHONWARNINGS": "ignore",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def run_program() -> Callable[[Path, str], str]:
    """Run a program against a fresh emulator, with the official client or with `v1` in its place."""

    def run(program: Path, client: str) -> str:
        with _emulator() as emulator:
            return run_python(emulator, (INSTALL if client == "v1" else "") + RUN, str(program))

    return run
