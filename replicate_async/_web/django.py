"""Views for Django that receive deliveries. Imported only when one is requested, since Django is optional."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from django.core.exceptions import RequestDataTooBig
from django.http import HttpResponse, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt

from .._http.serving import Handle, HandleSync, ReplyLike


def django_view(handle: Handle, max_bytes: int) -> Callable[[Any], Awaitable[Any]]:
    """Return an asynchronous view that answers POST requests. It needs no CSRF token.

    Args:
        handle: Returns the reply to a request.
        max_bytes: Longest body in bytes.
    """

    async def view(request: Any) -> Any:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return _response(await handle([*request.headers.items()], _body(request, max_bytes)))

    return cast("Callable[[Any], Awaitable[Any]]", csrf_exempt(view))


def sync_django_view(handle: HandleSync, max_bytes: int) -> Callable[[Any], Any]:
    """Return a view that answers POST requests, as `django_view` does, in a thread.

    Args:
        handle: Returns the reply to a request.
        max_bytes: Longest body in bytes.
    """

    def view(request: Any) -> Any:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return _response(handle([*request.headers.items()], _body(request, max_bytes)))

    return cast("Callable[[Any], Any]", csrf_exempt(view))


def _body(request: Any, max_bytes: int) -> bytes:
    """Return the body of a request, or too many bytes if Django refuses to read it."""
    try:
        body: bytes = request.body
    except RequestDataTooBig:
        return bytes(max_bytes + 1)
    return body


def _response(reply: ReplyLike) -> Any:
    return HttpResponse(reply.text.encode(), status=reply.status, content_type="text/plain")
