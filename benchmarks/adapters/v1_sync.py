"""``replicate`` 1.0.7, its sync client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replicate.client import Client as ReplicateClient
from replicate.helpers import FileOutput

from adapters.base import TOKEN
from adapters.sync_base import SyncAdapter


class Client(SyncAdapter):
    """The official client, as its users call it."""

    def open(self) -> None:
        """Make the client; httpx makes its connections later."""
        self.client: ReplicateClient = ReplicateClient(api_token=TOKEN, base_url=self.base_url)

    def close(self) -> None:
        """Close the httpx client within, which has no public way to be closed."""
        self.client._client.close()

    def run(self, ref: str, given: dict[str, Any]) -> Any:
        """Run with its defaults."""
        return self.client.run(ref, given)

    def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Iterate over the events."""
        return sum(len(str(event)) for event in self.client.stream(ref, input=given))

    def download(self, url: str, path: Path) -> None:
        """Iterate over an output, as its documentation shows."""
        with path.open("wb") as file:
            for chunk in FileOutput(url, self.client):
                file.write(chunk)

    def chunks(self, url: str) -> int:
        """Iterate over an output."""
        return sum(len(chunk) for chunk in FileOutput(url, self.client))

    def read(self, url: str) -> bytes:
        """Read an output."""
        content: bytes = FileOutput(url, self.client).read()
        return content

    def list_predictions(self) -> int:
        """Follow ``next`` from page to page."""
        succeeded = 0
        page = self.client.predictions.list()
        while True:
            for prediction in page.results:
                succeeded += prediction.status == "succeeded"
            if not page.next:
                return succeeded
            page = self.client.predictions.list(page.next)
