"""The parts of the sync `Receiver` that are not generated: views for Django and Flask, and handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from .._web.receiver import MAX_BYTES, Reply
from ..types import WebhookEvent
from ._twin import wrap

if TYPE_CHECKING:
    from ._facade import Receiver

H = TypeVar("H")


class _Handles(Protocol):
    def handle(
        self, headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]], body: bytes
    ) -> Reply: ...


class ReceiverMixin:
    """What a sync `Receiver` has in addition."""

    __slots__ = ()

    @property
    def django(self: _Handles) -> Callable[[Any], Any]:
        """View for Django: `path("replicate", receiver.django)`. It needs no CSRF token."""
        from .._web.django import sync_django_view  # optional: imported when it is used

        return sync_django_view(self.handle, MAX_BYTES)

    @property
    def flask(self: _Handles) -> Callable[[], Any]:
        """View for Flask: `app.post("/replicate")(receiver.flask)`."""
        from flask import Response, request  # if it is used

        def replicate_webhook() -> Any:
            body = request.stream.read(MAX_BYTES + 1)
            reply = self.handle([*request.headers.items()], body)
            return Response(reply.text, reply.status, mimetype="text/plain")

        return replicate_webhook


def register_handler(receiver: Receiver, *events: WebhookEvent) -> Callable[[H], H]:
    """Return a decorator for handlers, which are called with twins in a worker thread."""
    register = receiver._async.on(*events)

    def decorate(handler: H) -> H:
        if not callable(handler):
            register(handler)  # which raises

        def called(job: Any) -> object:
            return cast("Callable[[Any], object]", handler)(wrap(receiver._lease, job))

        register(called)
        return handler

    return decorate
