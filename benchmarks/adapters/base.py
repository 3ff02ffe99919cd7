"""What a workload asks of a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TOKEN = "r8_benchmark000000000000000000000000000"
"""A token of the usual shape (:api:`authentication`)."""


class Adapter:
    """One client, reduced to the calls that workloads make.

    A subclass overrides what its client can do. A workload whose call an adapter lacks leaves
    that adapter out. Each adapter module has a subclass named ``Client``.
    """

    def __init__(self, base_url: str) -> None:
        """Keep *base_url*, the origin of the server without ``/v1``."""
        self.base_url: str = base_url

    async def open(self) -> None:
        """Make the client. It runs in the loop that will use it."""

    async def close(self) -> None:
        """Close the client and its connections."""

    async def run(self, ref: str, given: dict[str, Any], *, wait: bool = True) -> Any:
        """Create a prediction, wait for it, return its output.

        With *wait* in sync mode (:api:`sync-mode`), else by polling from the start.
        """
        raise NotImplementedError

    async def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Create a prediction, go through its events, and return the length of all its text."""
        raise NotImplementedError

    async def download(self, url: str, path: Path) -> None:
        """Download an output file to the disk."""
        raise NotImplementedError

    async def read(self, url: str) -> bytes:
        """Download an output file into memory."""
        raise NotImplementedError

    async def upload(self, path: Path) -> None:
        """Upload a file."""
        raise NotImplementedError

    async def run_with_file(self, ref: str, path: Path) -> Any:
        """Run with a file in the input, and return the output."""
        raise NotImplementedError

    async def list_predictions(self) -> int:
        """Go through all pages of predictions and return how many of them have succeeded."""
        raise NotImplementedError

    def parse(self, page: bytes) -> Any:
        """Turn the body of one page of predictions into what the client gives its user."""
        raise NotImplementedError
