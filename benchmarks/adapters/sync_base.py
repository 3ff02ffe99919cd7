"""What a synchronous workload asks of a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class SyncAdapter:
    """One synchronous client, reduced to the calls that workloads make; see `base.Adapter`."""

    def __init__(self, base_url: str) -> None:
        """Keep *base_url*, the origin of the server without ``/v1``."""
        self.base_url: str = base_url

    def open(self) -> None:
        """Make the client."""

    def close(self) -> None:
        """Close the client and its connections."""

    def run(self, ref: str, given: dict[str, Any]) -> Any:
        """Create a prediction in sync mode (:api:`sync-mode`), and return its output."""
        raise NotImplementedError

    def list_predictions(self) -> int:
        """Go through all pages of predictions and return how many of them have succeeded."""
        raise NotImplementedError

    def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Run a model, and return the length of the text in its events."""
        raise NotImplementedError

    def download(self, url: str, path: Path) -> None:
        """Save the file at a URL."""
        raise NotImplementedError

    def chunks(self, url: str) -> int:
        """Iterate over the file at a URL, and return its length."""
        raise NotImplementedError

    def read(self, url: str) -> bytes:
        """Read the file at a URL."""
        raise NotImplementedError

    def cross(self) -> None:
        """Await nothing on the client's event loop, and wait for it."""
        raise NotImplementedError
