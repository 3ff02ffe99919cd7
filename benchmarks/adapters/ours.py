"""This package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import replicate_async
from adapters.base import TOKEN, Adapter
from replicate_async import RateLimit


class Client(Adapter):
    """The async client, as its users call it."""

    async def open(self) -> None:
        """Make the client; its session is made at the first await.

        Its gate for rate limits stays on, so that what it costs is measured, but is so wide that
        it never holds a request: 600 predictions a minute are less than a benchmark makes.
        """
        self.client: replicate_async.Client = replicate_async.Client(
            api_token=TOKEN,
            base_url=self.base_url,
            rate_limit=RateLimit(creates=10**9, others=10**9),
        )
        self.files: dict[str, replicate_async.FileOutput] = {}

    async def close(self) -> None:
        """Close the client."""
        await self.client.aclose()

    async def run(self, ref: str, given: dict[str, Any], *, wait: bool = True) -> Any:
        """Run with the defaults, or without sync mode."""
        if wait:
            return await self.client.run(ref, given)
        return await self.client.run(ref, given, wait=False)

    async def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Iterate over the events."""
        length = 0
        async for event in self.client.stream(ref, given):
            length += len(str(event))
        return length

    async def download(self, url: str, path: Path) -> None:
        """Save an output."""
        await (await self._file(url)).save(path)

    async def read(self, url: str) -> bytes:
        """Read an output."""
        return await (await self._file(url)).read()

    async def _file(self, url: str) -> replicate_async.FileOutput:
        """Get the file as users do: as the output of a model, which is run once."""
        if url not in self.files:
            output = await self.client.run("acme/linker", {"url": url})
            assert isinstance(output, replicate_async.FileOutput)
            self.files[url] = output
        return self.files[url]

    async def upload(self, path: Path) -> None:
        """Create a file."""
        await self.client.files.create(path)

    async def run_with_file(self, ref: str, path: Path) -> Any:
        """Run with a path in the input."""
        return await self.client.run(ref, {"text": "Alice", "file": path})

    async def list_predictions(self) -> int:
        """Iterate over the predictions of all pages."""
        succeeded = 0
        async for prediction in self.client.predictions.list():
            succeeded += prediction.status == "succeeded"
        return succeeded

    def parse(self, page: bytes) -> Any:
        """Do what ``predictions.list`` does with the body of an answer."""
        # Private, for users never meet the bytes of an answer. Here, so that the other workloads import
        # only what a user imports.
        from replicate_async._codec import decode_json, structure

        content = decode_json(page)
        content["results"] = [
            structure(result, replicate_async.Prediction) for result in content["results"]
        ]
        return content
