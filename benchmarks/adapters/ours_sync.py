"""This package's sync facade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.base import TOKEN
from adapters.sync_base import SyncAdapter
from replicate_async import sync


class Client(SyncAdapter):
    """The sync client, as its users call it."""

    def open(self) -> None:
        """Make the client, with a gate for rate limits that is on, but wide."""
        self.client: sync.Client = sync.Client(
            api_token=TOKEN,
            base_url=self.base_url,
            rate_limit=sync.RateLimit(creates=10**9, others=10**9),
        )
        self.files: dict[str, sync.FileOutput] = {}

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def run(self, ref: str, given: dict[str, Any]) -> Any:
        """Run with the defaults."""
        return self.client.run(ref, given)

    def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Iterate over the events."""
        length = 0
        for event in self.client.stream(ref, given):
            length += len(str(event))
        return length

    def download(self, url: str, path: Path) -> None:
        """Save an output."""
        self._file(url).save(path)

    def chunks(self, url: str) -> int:
        """Iterate over an output."""
        return sum(len(chunk) for chunk in self._file(url))

    def read(self, url: str) -> bytes:
        """Read an output."""
        return self._file(url).read()

    def _file(self, url: str) -> sync.FileOutput:
        """Get the file as users do: as the output of a model, which is run once."""
        if url not in self.files:
            output = self.client.run("acme/linker", {"url": url})
            assert isinstance(output, sync.FileOutput)
            self.files[url] = output
        return self.files[url]

    def list_predictions(self) -> int:
        """Iterate over the predictions of all pages."""
        succeeded = 0
        for prediction in self.client.predictions.list().auto_paging_iter():
            succeeded += prediction.status == "succeeded"
        return succeeded

    def cross(self) -> None:
        """Await nothing on the loop."""
        # Private, for every public method does more than to cross.
        self.client._lease.call(_nothing)


async def _nothing() -> None:
    pass
