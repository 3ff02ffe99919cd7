"""A Django project in one file: a view that paints, and one that streams a poem.

    uvicorn --app-dir docs/examples django_view:application --timeout-graceful-shutdown 20

Django does not handle the lifespan events of ASGI, so `application` does. It has one client for all requests.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

import replicate_async as replicate
from replicate_async import exceptions

PAINTER = os.environ.get("PAINTER", "emulator/painter")
WRITER = os.environ.get("WRITER", "emulator/writer")

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
)
django.setup()

client = replicate.Client()


@csrf_exempt
@require_POST
async def paint(request: HttpRequest) -> HttpResponse:
    """Respond with a picture. If the browser leaves, Django cancels the view, which cancels the prediction."""
    try:
        [image] = await client.run(PAINTER, {"prompt": request.POST["prompt"]}, timeout=120)
        content = await image.read()
    except (exceptions.ModelError, exceptions.ValidationError) as error:
        return JsonResponse({"error": str(error)}, status=422)
    except exceptions.ReplicateException as error:
        return JsonResponse({"error": str(error)}, status=502)
    return HttpResponse(content, content_type=image.content_type)


@csrf_exempt
@require_POST  # a GET may be repeated, by an `EventSource` for one, and would be paid for again
async def write(request: HttpRequest) -> StreamingHttpResponse:
    """Stream a text as server-sent events; the page reads them with `fetch`."""
    stream = client.stream(WRITER, {"prompt": request.POST["prompt"]}, timeout=120)
    return StreamingHttpResponse(replicate.sse(stream), content_type="text/event-stream")


urlpatterns = [path("paint", paint), path("write", write)]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

serve = get_asgi_application()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve requests with Django, and close the client when the server shuts down."""
    if scope["type"] != "lifespan":
        await serve(scope, receive, send)
        return
    await receive()  # lifespan.startup
    async with client:
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})
