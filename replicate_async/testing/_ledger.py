"""The record of an emulator: every request on every origin, and the life of every prediction."""

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
    """One HTTP request, and the status of its response."""

    origin: Origin
    """Origin that it was sent to: ``api``, ``files`` or ``stream``."""
    method: str
    """HTTP method."""
    path: str
    """Path without query, percent-encoded as sent."""
    query: str
    """Query string as sent, without the question mark."""
    headers: CIMultiDictProxy[str]
    """Headers of the request; names are not case-sensitive."""
    at: float
    """Time of arrival: seconds since the epoch, by the emulator's clock."""
    body: bytes = b""
    """The body. Empty for file uploads, until it was read, and if it was dropped to save memory."""
    body_size: int = 0
    """Size of the body in bytes, as far as it was read."""
    status: int | None = None
    """Status of the response. None before the response, and if the connection broke first."""
    operation: str = ""
    """Name of the API operation, for example ``predictions.create``. Empty if there is none."""

    @property
    def token_sent(self) -> bool:
        """Whether the request carried an API token. On other origins than ``api``, that is a leak."""
        return "authorization" in self.headers

    def json(self) -> Any:
        """Return the decoded JSON body.

        Returns:
            Any JSON value.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)


@attrs.define(eq=False)
class Life:
    """The course of one prediction or training."""

    id: str
    """Unique ID."""
    kind: Literal["prediction", "training"]
    """``prediction`` or ``training``."""
    model: str
    """The model as ``owner/name``."""
    version: str
    """Version ID as shown to clients; ``hidden`` for official models."""
    input: dict[str, Any]
    """The input as sent. Empty if it was dropped to save memory."""
    events: list[tuple[What, float]] = attrs.Factory(list)
    """Pairs of an event and its time (seconds since the epoch, by the emulator's clock), in order. Events
    are ``created``, ``started``, ``cancelled``, ``aborted``, ``succeeded``, ``failed`` and ``fetched``."""

    def did(self, what: What) -> bool:
        """Return whether an event happened.

        Args:
            what: Name of the event, for example ``fetched``.

        Returns:
            True if it happened at least once.
        """
        return any(happened == what for happened, _ in self.events)

    @property
    def running(self) -> bool:
        """Whether it has not reached a terminal state."""
        return not any(self.did(end) for end in ("cancelled", "aborted", "succeeded", "failed"))


class Ledger:
    """The record of one emulator. Its methods may be called from any thread.

    Tests of money safety read from it how many predictions were created, cancelled and fetched.

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
        """Return the requests that match all given conditions.

        Args:
            method: HTTP method.
            path: Path; a trailing ``*`` matches any rest.
            origin: ``api``, ``files`` or ``stream``.
            operation: Name of the API operation, for example ``predictions.create``.
            status: Status of the response.

        Returns:
            The requests, oldest first.
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
        """Return the requests that sent a token to the files or stream origin, oldest first."""
        return [r for r in list(self._requests) if r.origin != "api" and r.token_sent]

    def lives(self, *, kind: Literal["prediction", "training"] | None = None) -> list[Life]:
        """Return all predictions and trainings, in order of creation.

        Args:
            kind: Return only those of this kind.
        """
        return [life for life in list(self._lives.values()) if kind is None or life.kind == kind]

    def life(self, id: str) -> Life:
        """Return one prediction or training.

        Args:
            id: Its ID.

        Raises:
            KeyError: It was not created, or was forgotten.
        """
        return self._lives[id]

    def created(self) -> list[Life]:
        """Return the predictions that were created, in order: what would be billed."""
        return self.lives(kind="prediction")

    def cancelled(self) -> list[Life]:
        """Return the predictions that were cancelled by a request or by their deadline."""
        return [life for life in self.created() if life.did("cancelled")]

    def finished(self) -> list[Life]:
        """Return the predictions that succeeded or failed."""
        return [life for life in self.created() if life.did("succeeded") or life.did("failed")]

    def fetched(self) -> list[Life]:
        """Return the predictions whose terminal state was sent to a client."""
        return [life for life in self.created() if life.did("fetched")]

    def running(self) -> list[Life]:
        """Return the predictions that have not reached a terminal state."""
        return [life for life in self.created() if life.running]

    def clear(self) -> None:
        """Forget all requests, predictions and trainings so far."""
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
