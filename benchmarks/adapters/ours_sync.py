"""This package's sync facade."""

from __future__ import annotations

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

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def run(self, ref: str, given: dict[str, Any]) -> Any:
        """Run with the defaults."""
        return self.client.run(ref, given)

    def list_predictions(self) -> int:
        """Iterate over the predictions of all pages."""
        succeeded = 0
        for prediction in self.client.predictions.list().auto_paging_iter():
            succeeded += prediction.status == "succeeded"
        return succeeded

    def cross(self) -> None:
        """Await nothing on the loop."""
        self.client._lease.call(_nothing)


async def _nothing() -> None:
    pass
