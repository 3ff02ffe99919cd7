"""Deliveries of ASGI servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias

import anyio
import attrs

# Messages are `Any`: frameworks describe them by types of their own.
Scope: TypeAlias = Any
Message: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

ASGIApp: TypeAlias = Callable[..., Any]
"""An ASGI app. Frameworks have types for it that exclude each other."""

PATIENCE: Final = 15.0
"""Seconds for the body of a delivery to arrive."""


class _Reply(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def text(self) -> str: ...


Handle: TypeAlias = Callable[[list[tuple[str | bytes, str | bytes]], bytes], Awaitable[_Reply]]


@attrs.frozen(eq=False)
class Endpoint:
    """An ASGI app that answers POST requests."""

    # A class: Starlette and FastAPI take functions for views, in routes that take both.

    _handle: Handle
    _most: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            if scope["method"] != "POST":
                await _answer(send, 405, "deliveries are POST requests", [(b"allow", b"POST")])
                return
            body = None
            with anyio.move_on_after(PATIENCE):
                body = await _body(receive, self._most)
            if body is None:
                await _answer(send, 408, "the body did not arrive in time")
            else:
                reply = await self._handle(list(scope["headers"]), body)
                await _answer(send, reply.status, reply.text)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _body(receive: Receive, most: int) -> bytes | None:
    """Return the body of a request, or a little more than *most* bytes of it; None if the client has left."""
    body = bytearray()
    while len(body) <= most:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return bytes(body)


async def _answer(
    send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    content = text.encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(content)).encode()),
                *(headers or ()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})
