"""Handlers for servers of aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

import anyio
from aiohttp import web

AiohttpHandler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PATIENCE: Final = 15.0
"""Seconds for a body to arrive."""


class _Reply(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def text(self) -> str: ...


Handle: TypeAlias = Callable[[list[tuple[str | bytes, str | bytes]], bytes], Awaitable[_Reply]]


def aiohttp_handler(handle: Handle, most: int) -> AiohttpHandler:
    """Return a handler for POST requests.

    Args:
        handle: Answers a request: its headers and its body.
        most: Longest body in bytes.
    """

    async def view(request: web.Request) -> web.StreamResponse:
        body = bytearray()
        try:
            with anyio.fail_after(_PATIENCE):
                while len(body) <= most and (chunk := await request.content.readany()):
                    body += chunk
        except TimeoutError:
            return web.Response(status=408, text="the body did not arrive in time")
        reply = await handle([*request.headers.items()], bytes(body))
        return web.Response(status=reply.status, text=reply.text)

    return view
