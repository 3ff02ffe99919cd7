"""Hand-written `http.client` and ``json.loads``: the lower bound of synchronous clients.

It does the visible work of the other adapters and no more, on a connection for each thread.
"""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapters.base import TOKEN
from adapters.sync_base import SyncAdapter

HEADERS = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "benchmark"}


class Client(SyncAdapter):
    """`http.client`, by hand."""

    def open(self) -> None:
        """Make room for the connections."""
        parts = urlsplit(self.base_url)
        self.address: str = parts.netloc
        self.local: threading.local = threading.local()
        self.connections: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections."""
        for connection in self.connections:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        """Return the connection of this thread."""
        found: http.client.HTTPConnection | None = getattr(self.local, "connection", None)
        if found is None:
            found = self.local.connection = http.client.HTTPConnection(self.address, timeout=70)
            self.connections.append(found)
        return found

    def call(
        self, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Make a request, and return the JSON of its answer."""
        connection = self.connection()
        further = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(
            method,
            target,
            None if body is None else json.dumps(body),
            {**HEADERS, **further, **(headers or {})},
        )
        response = connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {target}: {response.status} {content[:200]!r}")
        return json.loads(content)

    def run(self, ref: str, given: dict[str, Any]) -> Any:
        """Create, and return the output."""
        name, _, version = ref.partition(":")
        body: dict[str, Any] = {"input": given}
        target = f"/v1/models/{name}/predictions"
        if version:
            body["version"] = version
            target = "/v1/predictions"
        prediction = self.call("POST", target, body, {"Prefer": "wait"})
        if prediction["status"] != "succeeded":
            raise RuntimeError(prediction["error"])
        return prediction["output"]

    def stream(self, ref: str, given: dict[str, Any]) -> int:
        """Cut what arrives into blocks at the blank lines, and these into lines."""
        prediction = self.call("POST", f"/v1/models/{ref}/predictions", {"input": given})
        target = prediction["urls"]["stream"].removeprefix(self.base_url)
        connection = self.connection()
        connection.request("GET", target, headers={**HEADERS, "Accept": "text/event-stream"})
        response = connection.getresponse()
        length = 0
        rest = b""
        while chunk := response.read1(65536):
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
        return length

    def download(self, url: str, path: Path) -> None:
        """Copy in pieces of 1 MiB."""
        with path.open("wb") as file:
            shutil.copyfileobj(self._get(url), file, 2**20)

    def chunks(self, url: str) -> int:
        """Take pieces of 64 KiB, as they are."""
        response = self._get(url)
        return sum(len(chunk) for chunk in iter(lambda: response.read(65536), b""))

    def read(self, url: str) -> bytes:
        """Read all of it."""
        return self._get(url).read()

    def _get(self, url: str) -> http.client.HTTPResponse:
        connection = self.connection()
        connection.request("GET", url.removeprefix(self.base_url), headers=HEADERS)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"GET {url}: {response.status}")
        return response

    def list_predictions(self) -> int:
        """Follow ``next`` from page to page."""
        succeeded = 0
        target = "/v1/predictions"
        while target:
            page = self.call("GET", target)
            for prediction in page["results"]:
                succeeded += prediction["status"] == "succeeded"
            target = (page["next"] or "").removeprefix(self.base_url)
        return succeeded
