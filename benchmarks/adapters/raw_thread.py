"""Hand-written aiohttp on an event loop in a thread of its own: the lower bound of clients built like the sync twin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from adapters import raw
from adapters.sync_base import SyncAdapter

T = TypeVar("T")


class Client(SyncAdapter):
    """The adapter `raw`, called from other threads as asyncio's documentation shows."""

    def open(self) -> None:
        """Start the thread, and make the client on its loop."""
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self.thread: threading.Thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.client: raw.Client = raw.Client(self.base_url)
        self.wait_for(self.client.open())

    def close(self) -> None:
        """Close the client, and end the thread."""
        self.wait_for(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def run(self, ref: str, given: dict[str, Any]) -> Any:
        """Create, and return the output."""
        return self.wait_for(self.client.run(ref, given))

    def list_predictions(self) -> int:
        """Go through all pages, in one piece of work."""
        return self.wait_for(self.client.list_predictions())

    def download(self, url: str, path: Path) -> None:
        """Save the file at a URL."""
        self.wait_for(self.client.download(url, path))

    def read(self, url: str) -> bytes:
        """Read the file at a URL."""
        return self.wait_for(self.client.read(url))
