"""The receiver of webhooks: what web apps mount. It verifies deliveries, and puts them into the inbox."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from .. import exceptions
from .._arguments import one_of
from .._codec import decode_json
from .._http.serving import AiohttpHandler, aiohttp_handler
from .._jobs.context import Context
from .._unpicklable import Unpicklable
from ..types import WebhookEvent
from .asgi import ASGIApp, Endpoint
from .backplane import Backplane
from .deliveries import Headers, headers_of, job_in
from .inbox import Inbox
from .signing import Fetch, SigningSecrets

__all__ = ("Receiver", "Reply")

_logger = logging.getLogger("replicate_async")

H = TypeVar("H")

DjangoView: TypeAlias = Callable[[Any], Awaitable[Any]]
"""A view for Django: from a request to a response. Django has no types of its own."""

MAX_BYTES: Final = 2**20
"""Longest body of a delivery in bytes."""


@attrs.frozen
class Reply:
    """The answer to a delivery."""

    status: int
    """Status code of HTTP."""
    text: str
    """Text for the sender."""


class Receiver(Unpicklable):
    """Receives the webhooks of an account; made by `client.webhooks.receiver()`.

    It verifies deliveries, drops those that have been received already or are older than what has been received,
    calls handlers, and wakes the runs that wait with `run(..., via=receiver)`. It ends with the client.
    """

    _instead = "make one in each process, with the same `backplane`"

    def __init__(
        self,
        context: Context,
        url: str,
        *,
        secrets: str | Sequence[str] | None,
        fetch_secret: Fetch,
        backplane: Backplane | None,
        tolerance: float,
        poll_interval: float,
    ) -> None:
        self._context = context
        self._url = url
        self._secrets = SigningSecrets(secrets, fetch_secret)
        self._tolerance = tolerance
        self._poll_interval = poll_interval
        self._inbox = Inbox(context, url, backplane)

    @property
    def url(self) -> str:
        """URL that the service delivers to."""
        return self._url

    @property
    def poll_interval(self) -> float:
        """Seconds between two polls of a run that waits for its delivery."""
        return self._poll_interval

    @property
    def asgi(self) -> ASGIApp:
        """ASGI app for the path of the URL, in Starlette, FastAPI, Litestar and Quart."""
        return Endpoint(self.handle, MAX_BYTES)

    @property
    def aiohttp(self) -> AiohttpHandler:
        """Handler for aiohttp: `app.router.add_post("/replicate", receiver.aiohttp)`."""
        return aiohttp_handler(self.handle, MAX_BYTES)

    @property
    def django(self) -> DjangoView:
        """Asynchronous view for Django: `path("replicate", receiver.django)`. It needs no CSRF token."""
        from .django import django_view  # optional: imported when it is used

        return django_view(self.handle, MAX_BYTES)

    def on(self, *events: WebhookEvent) -> Callable[[H], H]:
        """Return a decorator that registers a function to be called with each delivered prediction or training.

        Handlers run after the delivery has been answered; those for one job run one after the other, in order.
        Plain functions run in a worker thread. Errors are logged.

        ```python
        @receiver.on("completed")
        async def ended(job):
            print(job.id, job.status, job.output)
        ```

        Args:
            events: `"start"`, `"output"`, `"logs"` or `"completed"`; none means all. Deliveries do not name their
                event; it is derived from what has changed.

        Returns:
            A decorator, which returns the function as it is.

        Raises:
            ArgumentError: An event is unknown.
        """
        for event in events:
            one_of(event, ("start", "output", "logs", "completed"), "events")

        def register(handler: H) -> H:
            if not callable(handler):
                raise exceptions.ArgumentTypeError(
                    "handler", f"expected a function, got {handler!r}"
                )
            self._inbox.register(frozenset(events), handler)
            return handler

        return register

    async def handle(self, headers: Headers, body: bytes) -> Reply:
        """Receive a delivery: for frameworks that have no view here.

        Does not raise if the delivery is refused; the reason is logged.

        Args:
            headers: Headers of the request.
            body: Body of the request, exactly as received.

        Returns:
            The response to send: status 200; 400 if the request is not a delivery, 401 if its signature is wrong or
            too old, 413 if it is too large, 503 if it should be sent again later.

        Raises:
            ArgumentTypeError: An argument has a wrong type.
        """
        reply = await self._receive(headers, body)
        if reply.status >= 400:
            _logger.warning("delivery to %s refused: %d, %s", self._url, reply.status, reply.text)
        return reply

    async def _receive(self, headers: Headers, body: bytes) -> Reply:
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise exceptions.ArgumentTypeError(
                "body", f"expected the bytes of the request, got {type(body).__name__}"
            )
        if len(body) > MAX_BYTES:
            return Reply(413, f"more than {MAX_BYTES} bytes")
        try:
            signed = headers_of(headers)
        except ValueError as error:
            return Reply(400, str(error))
        try:
            await self._inbox.open()
            await self._secrets.verify(signed, body, self._tolerance)
        except exceptions.InvalidSignature as error:
            return Reply(401, str(error))
        except exceptions.ReplicateException as error:
            return Reply(503, f"it cannot be verified now: {error}")
        try:
            job = job_in(self._context, decode_json(body))
        except ValueError as error:
            return Reply(400, f"not a prediction or training: {error}")
        message, timestamp = signed["webhook-id"], signed["webhook-timestamp"]
        return Reply(200, await self._inbox.add(job, message, timestamp, body))
