"""Hand-written `http.client` and ``json.loads``: the lower bound of synchronous clients.

It does the visible work of the other adapters and no more, on a connection for each thread.
"""

from __future__ import annotations

import http.client
import json
import threading
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
