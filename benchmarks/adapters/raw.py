"""Hand-written aiohttp and ``json.loads``: the lower bound.

It does the visible work of the other adapters and no more: sends, checks the status, decodes, and
looks whether the prediction succeeded. Its timeouts are those a careful user would set: none for
the whole call, since a prediction may take long, but for connecting and for silence.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from adapters.base import TOKEN, Adapter

POLL_SECONDS = 0.5
"""The interval of all official clients."""


class Client(Adapter):
    """aiohttp, by hand."""

    async def open(self) -> None:
        """Make the session."""
        self.session: aiohttp.ClientSession = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=70),
        )

    async def close(self) -> None:
        """Close the session."""
        await self.session.close()

    async def _call(
        self,
        method: str,
        url: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        async with self.session.request(method, url, json=body, headers=headers) as response:
            content = await response.read()
            if response.status >= 400:
                raise RuntimeError(f"{method} {url}: {response.status} {content[:200]!r}")
            return json.loads(content)

    async def run(self, ref: str, given: dict[str, Any], *, wait: bool = True) -> Any:
        """Create, poll while unfinished, return the output."""
        name, _, version = ref.partition(":")
        body: dict[str, Any] = {"input": given}
        if version:
            body["version"] = version
            url = f"{self.base_url}/v1/predictions"
        else:
            url = f"{self.base_url}/v1/models/{name}/predictions"
        headers = {"Prefer": "wait"} if wait else None
        prediction = await self._call("POST", url, body, headers)
        while prediction["status"] in ("starting", "processing"):
            await asyncio.sleep(POLL_SECONDS)
            prediction = await self._call("GET", prediction["urls"]["get"])
        if prediction["status"] != "succeeded":
            raise RuntimeError(prediction["error"])
        return prediction["output"]

    async def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Cut what arrives into blocks at the blank lines, and these into lines."""
        url = f"{self.base_url}/v1/models/{ref}/predictions"
        prediction = await self._call("POST", url, {"input": given})
        length = 0
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        async with self.session.get(prediction["urls"]["stream"], headers=headers) as response:
            if response.status != 200:
                raise RuntimeError(f"stream: {response.status}")
            rest = b""
            async for chunk in response.content.iter_any():
                *blocks, rest = (rest + chunk).split(b"\n\n")
                for block in blocks:
                    event = b""
                    data: list[bytes] = []
                    for line in block.split(b"\n"):
                        name, _, value = line.partition(b": ")
                        if name == b"data":
                            data.append(value)
                        elif name == b"event":
                            event = value
                    if event == b"output":
                        length += len(b"\n".join(data).decode())
                    elif event == b"error":
                        raise RuntimeError(b"\n".join(data).decode())
                    elif event == b"done":
                        return length
        raise RuntimeError("the stream ended before it was done")

    async def download(self, url: str, path: Path) -> None:
        """Write the chunks as they come, on the event loop."""
        async with self.session.get(url) as response:
            response.raise_for_status()
            with path.open("wb") as file:
                async for chunk in response.content.iter_any():
                    file.write(chunk)

    async def read(self, url: str) -> bytes:
        """Read the body."""
        async with self.session.get(url) as response:
            response.raise_for_status()
            return await response.read()

    async def upload(self, path: Path) -> None:
        """Post a form with an open file."""
        await self._uploaded(path)

    async def _uploaded(self, path: Path) -> str:
        with path.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("content", file, filename=path.name)
            async with self.session.post(f"{self.base_url}/v1/files", data=form) as response:
                response.raise_for_status()
                url: str = json.loads(await response.read())["urls"]["get"]
                return url

    async def run_with_file(self, ref: str, path: Path) -> Any:
        """Upload the file and run with its URL."""
        return await self.run(ref, {"text": "Alice", "file": await self._uploaded(path)})

    async def list_predictions(self) -> int:
        """Follow ``next`` from page to page."""
        succeeded = 0
        url: str | None = f"{self.base_url}/v1/predictions"
        while url:
            page = await self._call("GET", url)
            for prediction in page["results"]:
                succeeded += prediction["status"] == "succeeded"
            url = page["next"]
        return succeeded

    def parse(self, page: bytes) -> Any:
        """Decode to dictionaries."""
        return json.loads(page)
