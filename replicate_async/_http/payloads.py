"""Bodies of requests, as aiohttp sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from .call import SendState

_PIECE: Final = 2**18
"""Bytes to write at once: a large body must not hold up the event loop."""


class JSONPayload(aiohttp.Payload):
    """JSON that notes in a `SendState` when it is about to be sent.

    By then there is a connection, and the head of the request waits to be sent together with the first bytes of
    the body. A failure or a cancellation before that means that nothing was sent.
    """

    _autoclose = True

    def __init__(self, body: bytes, send_state: SendState | None) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._body = body
        self._send_state = send_state

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        if self._send_state is not None:
            self._send_state.sent = True
        for start in range(0, len(self._body), _PIECE):
            await writer.write(self._body[start : start + _PIECE])


class StreamedPayload(aiohttp.Payload):
    """A body that is generated while it is sent.

    It reports its progress, and aborts the connection if it cannot be completed.
    """

    _autoclose = True

    def __init__(self, chunks: AsyncIterator[bytes], progress: Callable[[], None]) -> None:
        super().__init__(chunks, content_type="application/octet-stream")
        self._chunks = chunks
        self._progress = progress
        self._transport: asyncio.WriteTransport | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  (as in aiohttp)
        raise TypeError("this body is generated while it is sent")

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._consumed = True
        self._transport = writer.transport
        try:
            async for chunk in self._chunks:
                self._progress()
                await writer.write(chunk)
        except BaseException:
            if self._transport is not None:
                self._transport.abort()
            raise

    def abandon(self) -> None:
        """Abort the connection if it is being closed: a server that does not read would keep it open."""
        if self._transport is not None and self._transport.is_closing():
            self._transport.abort()
