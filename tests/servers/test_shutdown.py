"""A server that shuts down cancels the predictions that its handlers wait for, and exits in time."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from replicate_async.testing import Emulator, Fault

from .conftest import IN_FLIGHT, Server, until

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGTERM, and no process groups"
)

HYPERCORN = pytest.param(
    "hypercorn",
    marks=pytest.mark.skipif(
        sys.version_info >= (3, 12),
        reason="hypercorn 0.18 waits for all handlers without a limit on Python 3.12 and later",
    ),
)
SERVERS = ["uvicorn", "workers", "gunicorn", HYPERCORN, "aiohttp"]
"""Servers that cancel their handlers."""

IN_TIME = 4.0
"""Seconds for a shutdown, beyond those of the start: one for the handlers, and what the clean-up takes."""


def check(server: Server, emulator: Emulator) -> None:
    """Check that a server exits in time, and that no prediction runs on."""
    began = time.monotonic()
    code = server.wait()
    took = time.monotonic() - began
    assert emulator.ledger.running() == []
    assert len(emulator.ledger.created()) == sum(IN_FLIGHT.values())
    assert emulator.ledger.finished() == []
    assert server.problems() == []
    assert took < IN_TIME + server.took_to_start
    # Servers end themselves by the signal, or exit; 1 is that of aiohttp.web after a second signal.
    assert code in (0, 1, -signal.SIGTERM, -signal.SIGINT)


@pytest.mark.parametrize("name", [*SERVERS, "uvloop", "django"])
def test_terminated(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """SIGTERM: predictions are cancelled on the server, whichever way they were awaited."""
    with Server(name, emulator, tmp_path, "own") as server:
        server.begin(emulator, [*IN_FLIGHT])
        server.terminate()
        check(server, emulator)


@pytest.mark.parametrize("name", SERVERS)
def test_interrupted(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """Ctrl-C, likewise."""
    with Server(name, emulator, tmp_path, "own") as server:
        server.begin(emulator, [*IN_FLIGHT])
        server.interrupt()
        check(server, emulator)


@pytest.mark.parametrize("name", SERVERS)
def test_terminated_twice(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """A second SIGTERM in the middle of the clean-up."""
    cancels = emulator.wire.inject(Fault.DELAY, path="*/cancel", seconds=0.3)
    with Server(name, emulator, tmp_path, "own") as server:
        server.begin(emulator, [*IN_FLIGHT])
        server.terminate()
        until(lambda: cancels.happened)
        server.terminate()
        check(server, emulator)


@pytest.mark.parametrize("name", ["uvicorn", HYPERCORN, "aiohttp"])
@pytest.mark.parametrize("client", ["own", "default"])
def test_interrupted_twice(name: str, client: str, emulator: Emulator, tmp_path: Path) -> None:
    """A second Ctrl-C, which does not wait for the handlers.

    The workers of uvicorn and gunicorn end themselves by a signal then, at once.
    """
    with Server(name, emulator, tmp_path, client) as server:
        server.begin(emulator, [*IN_FLIGHT])
        server.interrupt()
        until(server.is_shutting_down)
        server.interrupt()
        check(server, emulator)


def test_reloaded(emulator: Emulator, tmp_path: Path) -> None:
    """When a file has changed, the old process cancels its predictions, and the new one serves."""
    source = tmp_path / "changed.py"
    source.touch()
    with Server("reload", emulator, tmp_path, "own") as server:
        _, before = server.fetch("ready")
        server.begin(emulator, [*IN_FLIGHT])
        source.write_text("changed = True")
        until(lambda: emulator.ledger.running() == [])
        _, after = server.fetch("ready")
        assert after != before
        server.terminate()
        check(server, emulator)


@pytest.mark.parametrize("name", [HYPERCORN, "aiohttp"])
def test_default_client(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """The client of the module, too, is closed where the server ends its event loop in an orderly way."""
    with Server(name, emulator, tmp_path, "default") as server:
        server.begin(emulator, [*IN_FLIGHT])
        server.terminate()
        check(server, emulator)


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn"])
def test_default_client_that_the_lifespan_closes(
    name: str, emulator: Emulator, tmp_path: Path
) -> None:
    """The client of the module can be closed as one of the app's own."""
    with Server(name, emulator, tmp_path, "closed") as server:
        server.begin(emulator, [*IN_FLIGHT])
        server.terminate()
        check(server, emulator)


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn"])
def test_killed(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """A process that ends itself at once cancels nothing; with `timeout=`, the server does.

    uvicorn raises SIGTERM again after the lifespan's shutdown, which does not know the client of the module.
    """
    with Server(name, emulator, tmp_path, "default", DEADLINE="60") as server:
        server.begin(emulator, [*IN_FLIGHT])
        server.terminate()
        server.wait()
        assert server.problems() == []
        emulator.clock.advance(120)
        until(lambda: emulator.ledger.running() == [])
        assert emulator.ledger.finished() == []


def test_waited_for(emulator: Emulator, tmp_path: Path) -> None:
    """Without a graceful timeout, uvicorn waits for its handlers, and they have their results."""
    with Server("patient", emulator, tmp_path, "own") as server:
        answers = server.begin(emulator, ["quick", "quick"])
        server.terminate()
        assert [answer.result() for answer in answers] == [(200, '"a"')] * 2
        server.wait()
        assert server.problems() == []


@pytest.mark.parametrize("name", ["patient", "hypercorn"])
def test_timeout_ends_the_wait(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """Servers that wait for their handlers without a limit need the `timeout=` of the runs."""
    paths = ["polled", "held", "stream", "map"]
    with Server(name, emulator, tmp_path, "own", DEADLINE="0.5") as server:
        answers = server.begin(emulator, paths)
        server.terminate()
        server.wait()
        assert emulator.ledger.running() == []
        assert server.problems() == []
        found = [answer.result() for answer in answers]
        assert found[:3] == [(502, '"RunTimeout"')] * 3
        assert found[3] == (200, "[null,null,null]")
