"""An asynchronous view for Django that receives deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from .._http.serving import Handle

DjangoView: TypeAlias = Callable[[Any], Awaitable[Any]]
"""A view: from a request to a response. Django has no types of its own."""


def django_view(handle: Handle, max_bytes: int) -> DjangoView:
    """Return an asynchronous view that answers POST requests. It needs no CSRF token.

    Args:
        handle: Returns the reply to a request.
        max_bytes: Longest body in bytes.
    """
    from django.core.exceptions import RequestDataTooBig  # if it is used
    from django.http import HttpResponse, HttpResponseNotAllowed  # if it is used
    from django.views.decorators.csrf import csrf_exempt  # if it is used

    async def view(request: Any) -> Any:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            body = request.body
        except RequestDataTooBig:
            body = bytes(max_bytes + 1)
        reply = await handle([*request.headers.items()], body)
        return HttpResponse(reply.text.encode(), status=reply.status, content_type="text/plain")

    exempt: DjangoView = csrf_exempt(view)
    return exempt
