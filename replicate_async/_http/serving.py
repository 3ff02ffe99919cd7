"""Handlers and responses for servers of aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias

import anyio
from aiohttp.abc import AbstractStreamWriter

# Not `aiohttp.web`, which takes 10 ms to import: clients import this module, too.
from aiohttp.web_request import BaseRequest, Request
from aiohttp.web_response import Response, StreamResponse

from .._concurrency import WatchEnded, watched

# For other folders, since only this one imports aiohttp.
AiohttpRequest: TypeAlias = BaseRequest
AiohttpHandler: TypeAlias = Callable[[Request], Awaitable[StreamResponse]]

BODY_TIMEOUT: Final = 15.0
"""Seconds for the body of a request to arrive."""


class ReplyLike(Protocol):
    """The reply to a delivery: `replicate_async.Reply`, which is of a higher rank."""

    @property
    def status(self) -> int: ...
    @property
    def text(self) -> str: ...


Handle: TypeAlias = Callable[[list[tuple[str | bytes, str | bytes]], bytes], Awaitable[ReplyLike]]
"""Handles a request: its headers and its body."""

HandleSync: TypeAlias = Callable[[list[tuple[str | bytes, str | bytes]], bytes], ReplyLike]
"""The same, in a thread."""


def aiohttp_handler(handle: Handle, max_bytes: int) -> AiohttpHandler:
    """Return a handler for POST requests.

    Args:
        handle: Returns the reply to a request.
        max_bytes: Longest body in bytes.
    """

    async def view(request: Request) -> StreamResponse:
        body = bytearray()
        try:
            with anyio.fail_after(BODY_TIMEOUT):
                while len(body) <= max_bytes and (chunk := await request.content.readany()):
                    body += chunk
        except TimeoutError:
            return Response(status=408, text="the body did not arrive in time")
        reply = await handle([*request.headers.items()], bytes(body))
        return Response(status=reply.status, text=reply.text)

    return view


# -- Responses that are streamed ---------------------------------------------------------------

STALL: Final = 60.0
"""Seconds for which a browser may read nothing, such as a paused player. After that, it has to request the rest again."""

_CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks whether the browser is still connected."""


class StreamedAnswer(Protocol):
    """An answer whose body is sent as it arrives."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...
    @property
    def body(self) -> AsyncIterator[bytes]: ...


Responder: TypeAlias = Callable[
    [str, Mapping[str, str]], AbstractAsyncContextManager[StreamedAnswer]
]
"""Opens the answer to a request, by its method and its headers, whose names are in lower case."""


class StreamedResponse(StreamResponse):
    """A response that fetches its content when it is sent, as aiohttp's own `FileResponse` does."""

    def __init__(self, respond: Responder) -> None:
        super().__init__()
        self._respond = respond

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send the response. The content is closed when the browser leaves.

        Raises:
            ConnectionError: The browser has left, or reads nothing.
        """
        if self.prepared:
            return await super().prepare(request)

        async def browser_leaves() -> None:
            # aiohttp has no event for this: it can only cancel the handler, if the app has asked for that.
            while not _has_left(request):  # noqa: ASYNC110  (see above)
                await anyio.sleep(_CHECK_INTERVAL)

        try:
            return await watched(self._send(request), browser_leaves)
        except WatchEnded:
            raise ConnectionResetError("the browser has left") from None

    async def _send(self, request: BaseRequest) -> AbstractStreamWriter | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        async with self._respond(request.method, headers) as answer:
            self.set_status(answer.status)
            for name, value in answer.headers:
                self.headers.setdefault(name, value)
            writer = await super().prepare(request)
            if request.method != "HEAD":
                async for chunk in answer.body:
                    with anyio.move_on_after(STALL) as stalled:
                        await self.write(chunk)
                    if stalled.cancelled_caught:
                        raise ConnectionResetError("the browser reads nothing")
            await self.write_eof()
        return writer


def _has_left(request: BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()
