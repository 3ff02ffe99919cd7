"""Runs the servers of an emulator: in a thread, or in a task of the current event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future as ThreadFuture
from functools import partial

import anyio

from ._certificates import Authority
from ._server import Server

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0

_log = logging.getLogger("replicate_async.testing")


class Runner:
    """Starts and stops the servers, once, in a thread or in a task.

    Args:
        server: The servers.
        host: Address to listen on.
        port: Port of the API; 0 for a free one.
        scheme: ``http`` or ``https``.
        authority: The authority of the certificates, whose file is removed at the end; None if there is none.
    """

    def __init__(
        self, server: Server, host: str, port: int, scheme: str, authority: Authority | None
    ) -> None:
        self._server = server
        self._host = host
        self._port = port
        self._scheme = scheme
        self._authority = authority
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def _bind(self) -> None:
        self._server.bind(self._host, self._port, self._scheme)

    def _remove_certificate(self) -> None:
        if self._authority is not None:
            self._authority.remove()

    # --- in a thread

    def start_thread(self) -> None:
        """Start a thread, and return when requests are served.

        Raises:
            OSError: The port is in use.
            RuntimeError: It was started before.
        """
        self._bind()
        ready: ThreadFuture[None] = ThreadFuture()
        self._thread = threading.Thread(
            target=self._run_thread, args=(ready,), name="replicate-emulator", daemon=True
        )
        self._thread.start()
        ready.result(_START_SECONDS)

    def stop_thread(self) -> None:
        """Stop the thread, if there is one.

        Raises:
            RuntimeError: It did not stop.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._remove_certificate()
        self._server.stop()
        thread.join(_STOP_SECONDS)
        if thread.is_alive():
            raise RuntimeError("the emulator did not stop")

    def _run_thread(self, ready: ThreadFuture[None]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._server.serve(lambda: ready.set_result(None)))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:  # noqa: BLE001 - `start_thread` raises it
            if ready.done():
                _log.exception("the emulator ended")
            else:
                ready.set_exception(error)
        finally:
            loop.close()

    # --- in a task

    async def start_task(self) -> None:
        """Start a task, and return when requests are served.

        Raises:
            OSError: The port is in use.
            RuntimeError: It was started before.
        """
        self._bind()
        # A task, since a task group would cancel the block around which the emulator runs if it failed,
        # and would wait for ever for models that refuse to end.
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._server.serve(partial(_succeed, ready)))
        try:
            await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await self._task
        except BaseException:
            await self.stop_task()
            raise

    async def stop_task(self) -> None:
        """Stop the task, if there is one; raise what it has raised."""
        task, self._task = self._task, None
        if task is None:
            return
        self._remove_certificate()
        if not self._server.stop():  # it never came to serving
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task}, timeout=_STOP_SECONDS)
        if task.done() and not task.cancelled():
            task.result()


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
