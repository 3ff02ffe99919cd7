"""What happened: every request on every origin, and the life of every prediction.

Tests of money safety ask it how many predictions were created, cancelled, finished and fetched.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, Literal

import attrs
from multidict import CIMultiDictProxy

from ._retention import RECORDS

Origin = Literal["api", "files", "stream"]
What = Literal["created", "started", "cancelled", "aborted", "succeeded", "failed", "fetched"]


@attrs.define(eq=False)
class Request:
    """One HTTP request as it arrived, and its answer.

    Attributes:
        origin: Which of the three servers took it.
        method: HTTP method.
        path: Path without query, percent-encoded as sent.
        query: Query string as sent, without the question mark.
        headers: Request headers.
        at: Emulated Unix time of arrival, in seconds.
        body: The body, if it is not a file upload; empty until it was read.
        body_size: Bytes of body read.
        status: Status of the answer; None while there is none, or if the connection broke first.
        operation: Name of the API operation, such as ``predictions.create``; "" for none.
    """

    origin: Origin
    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    at: float
    body: bytes = b""
    body_size: int = 0
    status: int | None = None
    operation: str = ""

    @property
    def token_sent(self) -> bool:
        """Whether the request carried an API token. Outside of the API's origin that is a leak."""
        return "authorization" in self.headers

    def json(self) -> Any:
        """Return the decoded JSON body.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)


@attrs.define(eq=False)
class Life:
    """What happened to one prediction or training.

    Attributes:
        id: Its id.
        kind: Prediction or training.
        model: ``owner/name``.
        version: Version id as shown to clients.
        input: Input as sent.
        events: ``(what, emulated Unix time)`` in order.
    """

    id: str
    kind: Literal["prediction", "training"]
    model: str
    version: str
    input: dict[str, Any]
    events: list[tuple[What, float]] = attrs.Factory(list)

    def did(self, what: What) -> bool:
        """Tell whether *what* happened to it."""
        return any(happened == what for happened, _ in self.events)

    @property
    def running(self) -> bool:
        """Whether it is not terminal yet."""
        return not any(self.did(end) for end in ("cancelled", "aborted", "succeeded", "failed"))


class Ledger:
    """What happened in one emulator. Safe to read from any thread.

    Args:
        records: Number of requests that are kept; the oldest ones are forgotten first.
    """

    def __init__(self, records: int = RECORDS) -> None:
        self._requests: deque[Request] = deque(maxlen=records)
        self._lives: dict[str, Life] = {}

    def requests(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        origin: Origin | None = None,
        operation: str | None = None,
        status: int | None = None,
    ) -> list[Request]:
        """Return the requests that match all that is given, oldest first.

        Args:
            method: HTTP method.
            path: Path, exactly; a trailing ``*`` matches any rest.
            origin: ``api``, ``files`` or ``stream``.
            operation: Name of the API operation, such as ``predictions.create``.
            status: Status of the answer.
        """
        prefix = path[:-1] if path is not None and path.endswith("*") else None
        return [
            request
            for request in list(self._requests)
            if (method is None or request.method == method)
            and (
                path is None
                or (request.path == path if prefix is None else request.path.startswith(prefix))
            )
            and (origin is None or request.origin == origin)
            and (operation is None or request.operation == operation)
            and (status is None or request.status == status)
        ]

    def leaks(self) -> list[Request]:
        """Return requests that sent a token to the files or stream origin."""
        return [r for r in list(self._requests) if r.origin != "api" and r.token_sent]

    def lives(self, *, kind: Literal["prediction", "training"] | None = None) -> list[Life]:
        """Return all predictions and trainings, or those of one kind, in order of creation."""
        return [life for life in list(self._lives.values()) if kind is None or life.kind == kind]

    def life(self, id: str) -> Life:
        """Return what happened to one prediction or training.

        Raises:
            KeyError: No such id was created.
        """
        return self._lives[id]

    def created(self) -> list[Life]:
        """Return the predictions created: what would be billed."""
        return self.lives(kind="prediction")

    def cancelled(self) -> list[Life]:
        """Return the predictions that were cancelled, by a request or by their deadline."""
        return [life for life in self.created() if life.did("cancelled")]

    def finished(self) -> list[Life]:
        """Return the predictions that ran to success or failure."""
        return [life for life in self.created() if life.did("succeeded") or life.did("failed")]

    def fetched(self) -> list[Life]:
        """Return the predictions whose final state was sent to a client."""
        return [life for life in self.created() if life.did("fetched")]

    def running(self) -> list[Life]:
        """Return the predictions that are not terminal."""
        return [life for life in self.created() if life.running]

    def clear(self) -> None:
        """Forget everything so far."""
        self._requests.clear()
        self._lives.clear()

    def _request(self, request: Request) -> None:
        self._requests.append(request)

    def _born(self, life: Life) -> None:
        self._lives[life.id] = life

    def _drop_input(self, id: str) -> None:
        if id in self._lives:
            self._lives[id].input = {}

    def _forget(self, id: str) -> None:
        self._lives.pop(id, None)

    def _happened(self, id: str, what: What, at: float) -> None:
        life = self._lives.get(id)  # absent after clear()
        if life is not None and not (what == "fetched" and life.did("fetched")):
            life.events.append((what, at))
