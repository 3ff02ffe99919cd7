"""``replicate`` 1.0.7, its async client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from replicate.client import Client as ReplicateClient
from replicate.helpers import FileOutput
from replicate.pagination import Page
from replicate.prediction import Prediction, _json_to_prediction

from adapters.base import TOKEN, Adapter


class Client(Adapter):
    """The official client, as its users call it."""

    async def open(self) -> None:
        """Make the client; httpx makes its connections later."""
        self.client: ReplicateClient = ReplicateClient(api_token=TOKEN, base_url=self.base_url)

    async def close(self) -> None:
        """Close the httpx client within, which has no public way to be closed."""
        await self.client._async_client.aclose()

    async def run(self, ref: str, given: dict[str, Any], *, wait: bool = True) -> Any:
        """Run with its defaults, or without sync mode."""
        if wait:
            return await self.client.async_run(ref, given)
        return await self.client.async_run(ref, given, wait=False)

    async def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Iterate over the events."""
        length = 0
        async for event in await self.client.async_stream(ref, given):
            length += len(str(event))
        return length

    async def download(self, url: str, path: Path) -> None:
        """Iterate over an output, as its documentation shows."""
        with path.open("wb") as file:
            async for chunk in FileOutput(url, self.client):
                file.write(chunk)

    async def read(self, url: str) -> bytes:
        """Read an output."""
        content: bytes = await FileOutput(url, self.client).aread()
        return content

    async def upload(self, path: Path) -> None:
        """Create a file."""
        await self.client.files.async_create(path)

    async def run_with_file(self, ref: str, path: Path) -> Any:
        """Run with an open file in the input."""
        with path.open("rb") as file:
            return await self.client.async_run(ref, {"text": "Alice", "file": file})

    async def list_predictions(self) -> int:
        """Follow ``next`` from page to page."""
        succeeded = 0
        page = await self.client.predictions.async_list()
        while True:
            for prediction in page.results:
                succeeded += prediction.status == "succeeded"
            if not page.next:
                return succeeded
            page = await self.client.predictions.async_list(page.next)

    def parse(self, page: bytes) -> Any:
        """Do what ``predictions.async_list`` does with the body of an answer."""
        content = json.loads(page)
        content["results"] = [
            _json_to_prediction(self.client, result) for result in content["results"]
        ]
        return Page[Prediction](**content)
