"""ASGI apps: one that answers deliveries, and one that streams an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import anyio
import attrs

from .._concurrency import WatchEnded, watched
from .._http.serving import BODY_TIMEOUT, STALL, Handle, Responder

# Messages are `Any`: frameworks describe them by types of their own.
Scope: TypeAlias = Any
Message: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

ASGIApp: TypeAlias = Callable[..., Any]
"""An ASGI app. The types that frameworks have for it are not compatible with each other."""


@attrs.frozen(eq=False)
class Endpoint:
    """An ASGI app that answers POST requests."""

    # A class, because a route of Starlette or FastAPI takes a function for a view, and not for an ASGI app.

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
            with anyio.move_on_after(BODY_TIMEOUT):
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


async def _body(receive: Receive, max_bytes: int) -> bytes | None:
    """Return the body of a request, or a little more than *max_bytes* bytes of it; None if the client has left."""
    body = bytearray()
    while len(body) <= max_bytes:
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


# -- Answers that are streamed -----------------------------------------------------------------


@attrs.frozen(eq=False)
class Streamed:
    """An ASGI app that fetches its content when it is called."""

    _respond: Responder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. The content is closed when the browser leaves."""
        await self.respond(scope, receive, send)

    async def respond(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send the answer.

        Args:
            scope: The request.
            receive: Receives its messages.
            send: Sends the messages of the response.
            headers: Headers of the response that replace those of the answer.
        """

        async def browser_leaves() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        with suppress(_LeftError, WatchEnded):
            await watched(self._send(scope, send, headers), browser_leaves)

    async def _send(self, scope: Scope, send: Send, own: Sequence[tuple[bytes, bytes]]) -> None:
        asked: dict[str, str] = {}
        for name, value in scope["headers"]:
            asked[name.decode("latin-1").lower()] = value.decode("latin-1")
        replaced = {name.lower() for name, _ in own}
        async with self._respond(scope["method"], asked) as answer:
            headers = [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in answer.headers
            ]
            headers = [header for header in headers if header[0] not in replaced] + [*own]
            await _sent(
                send,
                {"type": "http.response.start", "status": answer.status, "headers": headers},
            )
            if scope["method"] != "HEAD":
                async for chunk in answer.body:
                    if chunk:
                        message = {"type": "http.response.body", "body": chunk, "more_body": True}
                        await _sent(send, message)
            await _sent(send, {"type": "http.response.body", "body": b""})


class _LeftError(Exception):
    """The browser has left, or reads nothing."""


async def _sent(send: Send, message: Message) -> None:
    """Send a message.

    Raises:
        _LeftError: The browser has left, or reads nothing.
    """
    with anyio.move_on_after(STALL) as stalled:
        try:
            await send(message)
        except OSError as error:  # what servers raise then
            raise _LeftError from error
    if stalled.cancelled_caught:
        raise _LeftError
