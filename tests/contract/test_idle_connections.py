"""Connections that the server closes while nobody runs the event loop: a create is not sent on them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from replicate_async import Client

PREDICTION = {"id": "abc", "status": "succeeded", "output": "hello", "input": {}}
IDLE = 0.2
"""Seconds after which the server closes an idle connection."""


class _Server:
    """Answers every request with a prediction, and closes connections that are idle."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.requests = 0
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
            body = json.dumps(PREDICTION).encode()
            while self._read_request(connection):
                self.requests += 1
                head = f"HTTP/1.1 201 Created\r\nContent-Length: {len(body)}\r\n"
                connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        except OSError:
            pass
        finally:
            connection.close()

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
def _serving(context: ssl.SSLContext | None = None) -> Iterator[_Server]:
    server = _Server(context)
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
        for _ in range(4):
            made = runner.run(client.predictions.create(model="acme/echo", input={}))
            assert made.id == "abc"
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


async def test_connections_in_use_are_kept() -> None:
    """A connection that is still open is used again."""
    with _serving() as server:
        async with Client("r8_x", base_url=f"http://127.0.0.1:{server.port}") as client:
            for _ in range(5):
                await client.predictions.create(model="acme/echo", input={})
        assert (server.requests, server.connections) == (5, 1)
