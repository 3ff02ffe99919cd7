"""A server of Redis, or of Valkey, that tests start and kill."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from free_ports import free_port

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")

needs_redis = pytest.mark.skipif(REDIS is None, reason="there is no Redis here")


class Redis:
    """A server of Redis, which can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        assert REDIS is not None
        self._process = subprocess.Popen(
            [
                REDIS,
                "--port",
                str(self._port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def redis_server(directory: Path) -> Iterator[Redis]:
    """Run a server."""
    server = Redis(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()
