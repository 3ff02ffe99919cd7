"""Servers in processes of their own, and requests to them."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from free_ports import free_port

from replicate_async.testing import Emulator

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
"""The longest time for what takes a second or two on a machine with nothing else to do; polls beneath deliveries come later."""

IN_FLIGHT = {
    "polled": 1,
    "held": 1,
    "stream": 1,
    "relay": 1,
    "sse": 1,
    "via": 1,
    "start": 1,
    "map": 3,
    "background": 1,
}
"""The requests that are in flight at a shutdown, and how many predictions each creates."""

_APP = "tests.servers.apps:asgi"
_COMMANDS = {
    "uvicorn": f"uvicorn {_APP} --port PORT --timeout-graceful-shutdown 1 --loop asyncio",
    "uvloop": f"uvicorn {_APP} --port PORT --timeout-graceful-shutdown 1 --loop uvloop",
    "patient": f"uvicorn {_APP} --port PORT",
    "workers": f"uvicorn {_APP} --port PORT --timeout-graceful-shutdown 1 --workers 2",
    "reload": f"uvicorn {_APP} --port PORT --timeout-graceful-shutdown 1 --reload --reload-dir .",
    "hypercorn": f"hypercorn {_APP} --bind 127.0.0.1:PORT --graceful-timeout 1",
    "gunicorn": f"gunicorn {_APP} --bind 127.0.0.1:PORT --worker-class tests.servers.workers.Worker --workers 2",
    "django": "uvicorn tests.servers.apps:in_django --port PORT --timeout-graceful-shutdown 1",
    "aiohttp": "tests.servers.apps PORT 0.5",
}
"""Servers that cancel their handlers about a second after the signal; `patient` waits for them."""


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that is bound to hold."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with a model that takes long, and one that talks for long."""
    with Emulator(rate_limits=False, wire=True) as running:

        @running.model("acme/slow", official=True)
        async def slow(text: str) -> str:
            await asyncio.sleep(30)
            return text

        @running.model("acme/quick", official=True)
        async def quick(text: str) -> str:
            await asyncio.sleep(1)
            return text

        @running.model("acme/talk", official=True)
        async def talk(text: str) -> AsyncIterator[str]:
            for _ in range(300):
                yield text
                await asyncio.sleep(0.1)

        yield running


class Server:
    """A server in a process of its own, in an empty directory."""

    def __init__(
        self, name: str, emulator: Emulator, directory: Path, client: str, **environment: str
    ) -> None:
        self.name = name
        self.directory = directory
        self._log = directory / "log"
        self.port = free_port()
        emulator.webhook_hosts["app.example"] = f"http://127.0.0.1:{self.port}"
        words = _COMMANDS[name].replace("PORT", str(self.port)).split()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "always::ResourceWarning", "-m", *words],
                cwd=directory,
                env={
                    **os.environ,
                    **emulator.env,
                    "PYTHONPATH": str(ROOT),
                    "CLIENT": client,
                    **environment,
                },
                stdout=log,
                stderr=log,
                # A process group for the server and its workers, as a terminal makes one.
                start_new_session=True,
            )
        self._threads = ThreadPoolExecutor(256)
        self.took_to_start = 0.0
        """Seconds: a measure for how busy the machine is."""

    def __enter__(self) -> Self:
        began = time.monotonic()
        try:
            until(self._is_ready)
            self.took_to_start = time.monotonic() - began
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._threads.shutdown()
        if error is not None:
            error.add_note(self.log)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self.log
        with suppress(OSError):
            return self.fetch("ready")[0] == 200
        return False

    @property
    def log(self) -> str:
        """Everything that it has printed."""
        return self._log.read_text()

    def fetch(self, path: str) -> tuple[int, str]:
        """Request a path; return the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", f"/{path}")
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def begin(self, emulator: Emulator, paths: Sequence[str]) -> list[Future[tuple[int, str]]]:
        """Request paths, and wait until they have created their predictions."""
        count = len(emulator.ledger.created()) + sum(IN_FLIGHT.get(path, 1) for path in paths)
        begun = [self._threads.submit(self.fetch, path) for path in paths]
        until(lambda: len(emulator.ledger.created()) == count)
        return begun

    def terminate(self) -> None:
        """Send SIGTERM to the process, as service managers do."""
        self._process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal sends SIGINT to all processes."""
        os.killpg(self._process.pid, signal.SIGINT)

    def is_shutting_down(self) -> bool:
        """Tell whether it accepts no connections any more."""
        try:
            socket.create_connection(("127.0.0.1", self.port), SECONDS).close()
        except OSError:
            return True
        return False

    def wait(self) -> int:
        """Wait until the process has exited; return its exit code, negative for a signal."""
        return self._process.wait(SECONDS)

    def problems(self) -> list[str]:
        """Return the lines of the log that report problems: exceptions but cancellation, and warnings."""
        # Django leaves behind what its own tasks raise, and the bodies of requests, when a server cancels it.
        log = re.sub(
            r"Task exception was never retrieved\nfuture: .*coro=<ASGIHandler\..*\n(Traceback.*\n( .*\n)*\S.*\n)?",
            "",
            self.log,
        )
        # asyncio of Python 3.13.0 fails when it collects a connection of a server that is closed; clients have none.
        log = re.sub(
            r"Exception ignored in: .*_SelectorTransport\.__del__.*\nTraceback.*\n .*\n +self\._server\._detach\(self\)\n"
            r"( .*\n)*TypeError: 'NoneType' object is not iterable\n",
            "",
            log,
        )
        if "ASGIHandler" in self.log:
            log = re.sub(
                ".*ResourceWarning: Unclosed file <tempfile.SpooledTemporaryFile.*", "", log
            )
        # hypercorn leaves its connections open when it is interrupted twice. The client's would belong to a connector,
        # and aiohttp would name that, too.
        if "hypercorn" in self.name:
            log = re.sub(
                ".*ResourceWarning: unclosed transport <_SelectorSocketTransport.*", "", log
            )
        found: list[str] = []
        is_traceback = False
        # Its own sockets, which servers that are interrupted may leave open.
        own = set(re.findall(rf" (fd=\d+),.* laddr=\('127.0.0.1', {self.port}\)", self.log))
        for line in log.splitlines():
            line = re.sub(r"^ *\|? *", "", line) if "|" in line[:12] else line
            if line.startswith("Traceback"):
                is_traceback = True
            elif is_traceback and line and not line.startswith(" "):
                is_traceback = False
                found.append(line)
            elif line.startswith("During handling of the above exception"):
                del found[-1:]
            elif (
                re.search("never retrieved|ResourceWarning: [Uu]nclosed|^Unclosed", line)
                and not own & set(re.findall(r"fd=\d+", line))
                and "unclosed file" not in line  # of the parent of uvicorn's workers
            ):
                found.append(line)
        expected = ("asyncio.exceptions.CancelledError", "KeyboardInterrupt")
        return [line for line in found if not line.startswith(expected)]
