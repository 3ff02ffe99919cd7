"""An emulator, a sync client of it, and processes to run scripts in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicate_async.sync import Client
from replicate_async.testing import Emulator

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
QUIET_FORK = "-Wignore:This process:DeprecationWarning"
"""Python 3.12 warns of each fork of a process with threads: that is what is tested."""


def loops() -> list[str]:
    """Return the names of the facade's threads that live."""
    return [t.name for t in threading.enumerate() if t.name == "replicate_async.sync"]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds that is bound to happen; fail if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.005)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Check that each test leaves neither a loop nor its thread behind."""
    yield
    until(lambda: not loops())


@pytest.fixture(autouse=True)
def environment(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point default clients, also those of other processes, to the emulator."""
    for name, value in emulator.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("REPLICATE_POLL_INTERVAL", raising=False)
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator in a thread."""
    with Emulator(rate_limits=False, page_sizes={"models": 3}) as running:
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    """Return a client of the emulator."""
    with Client(emulator.token, base_url=emulator.url) as client:
        yield client


# -- Processes ---------------------------------------------------------------------------------


_ZEROMQ = re.compile(
    r"^ERROR:tornado\.general:Uncaught exception in ZMQStream callback\n"
    r"(?:(?!.*replicate_async).*\n)*?zmq\.error\.ZMQError: .*\n",
    re.MULTILINE,
)


def complaints(err: str) -> list[str]:
    """Return what is on the standard error, without remarks that are none of ours.

    Those of asyncio in dev mode are on slow steps, those of a Jupyter kernel are on its transport: ZeroMQ, whose sockets
    may be gone while the kernel is still saying on a busy machine that it ends.
    """
    remarks = (
        "Executing <",
        "[IPKernelApp] WARNING | Kernel is running over TCP",
        "Assertion failed: pfd.revents & POLLIN (src/signaler.cpp",
    )
    rest = _ZEROMQ.sub("", err)
    return [line for line in rest.splitlines() if not line.startswith(remarks)]


def start(code: str, *options: str) -> subprocess.Popen[str]:
    """Start a script in a strict interpreter: dev mode, and each warning an error."""
    return subprocess.Popen(
        [sys.executable, "-u", "-Xdev", "-Werror", *options, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, *options: str) -> str:
    """Run a script to its end, and return what it prints; it must not complain."""
    with start(code, *options) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # in dev mode it shows where all threads are
            out, err = process.communicate()
            pytest.fail(f"it hangs:\n{out}\n{err}")
    assert not complaints(err), err
    assert process.returncode == 0
    return out


def interrupt(code: str, when: Callable[[], object]) -> tuple[str, str, float]:
    """Press Ctrl-C once something holds; return its output, complaints, and how long it went on."""
    with start(code) as process:
        try:
            until(when, SECONDS)
            pressed = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
            took = time.monotonic() - pressed
        finally:
            process.kill()
    return out, "\n".join(complaints(err)), took
