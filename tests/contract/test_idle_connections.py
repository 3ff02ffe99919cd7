"""Connections that the server closes while nobody runs the event loop: a create is not sent on them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
import trustme

from replicate_async import Client

PREDICTION = {"status": "succeeded", "output": "hello", "input": {}}
IDLE = 0.2
"""Seconds after which the server closes an idle connection."""


class _Server:
    """Answers every request with a prediction, and closes connections that are idle."""

    def __init__(self, context: ssl.SSLContext | None, *, is_hasty: bool) -> None:
        self._context = context
        self._is_hasty = is_hasty
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.requests = 0
        self.closed = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            connection.settimeout(IDLE)
            while self._read_request(connection):
                self.requests += 1
                body = json.dumps({"id": f"p{self.requests}", **PREDICTION}).encode()
                head = f"HTTP/1.1 201 Created\r\nContent-Length: {len(body)}\r\n"
                connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
                if self._is_hasty:
                    break
        except OSError:
            pass
        finally:
            connection.close()
            self.closed += 1

    @staticmethod
    def _read_request(connection: socket.socket) -> bool:
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                return False
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        while lengths and len(body) < lengths[0]:
            body += connection.recv(65536)
        return True

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


@contextmanager
def _serving(context: ssl.SSLContext | None = None, *, is_hasty: bool = False) -> Iterator[_Server]:
    server = _Server(context, is_hasty=is_hasty)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_frozen_process(tls: bool) -> None:
    """A program that runs its loop for one call at a time, as a function in the cloud that is frozen between."""
    authority = trustme.CA()
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusted)
    with _serving(served if tls else None) as server, asyncio.Runner() as runner:
        client = Client(
            "r8_x",
            base_url=f"{'https' if tls else 'http'}://127.0.0.1:{server.port}",
            ssl=trusted if tls else None,
        )
        for number in range(4):
            made = runner.run(client.predictions.create(model="acme/echo", input={}))
            assert made.id == f"p{number + 1}"
            time.sleep(2 * IDLE)
        runner.run(client.aclose())
        assert server.requests == 4
        assert server.connections == 4
        assert client.stats.retried == 0


async def test_a_blocked_loop() -> None:
    """A handler that blocks the loop for a while, and then creates."""
    with _serving() as server:
        async with Client("r8_x", base_url=f"http://127.0.0.1:{server.port}") as client:
            for _ in range(3):
                await client.predictions.create(model="acme/echo", input={})
                time.sleep(2 * IDLE)
        assert server.requests == 3


@pytest.mark.parametrize("door", ["prediction", "training", "deployment", "request"])
async def test_a_loop_that_is_blocked_for_a_moment(door: str) -> None:
    """What is sent once only is not sent on a connection that was closed just now, whatever it creates."""
    with _serving(is_hasty=True) as server:
        async with Client("r8_x", base_url=f"http://127.0.0.1:{server.port}") as client:
            doors: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
                "prediction": lambda: client.predictions.create(model="acme/echo", input={}),
                "training": lambda: client.trainings.create(
                    "acme/base:v1", {}, destination="acme/mine"
                ),
                "deployment": lambda: client.deployments.delete("acme/echo"),
                "request": lambda: client.request("POST", "/models", json={}),
            }
            for number in range(3):
                while server.closed < number:
                    time.sleep(0.001)
                await doors[door]()
        assert server.requests == server.connections == 3
        assert client.stats.retried == 0


async def test_a_session_of_the_caller() -> None:
    """A session that the caller brings is no worse."""
    with _serving(is_hasty=True) as server:
        async with (
            aiohttp.ClientSession() as session,
            Client("r8_x", base_url=f"http://127.0.0.1:{server.port}", session=session) as client,
        ):
            for number in range(3):
                while server.closed < number:
                    time.sleep(0.001)
                await client.predictions.create(model="acme/echo", input={})
            assert server.requests == server.connections == 3
            assert client.stats.retried == 0


async def test_connections_in_use_are_kept() -> None:
    """A connection that is still open is used again."""
    with _serving() as server:
        async with Client("r8_x", base_url=f"http://127.0.0.1:{server.port}") as client:
            for _ in range(5):
                await client.predictions.create(model="acme/echo", input={})
        assert (server.requests, server.connections) == (5, 1)
