"""A response for Starlette and FastAPI. Imported only for a request of theirs."""

from __future__ import annotations

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .asgi import Streamed


class StarletteFileResponse(StreamingResponse):
    """A response that fetches its content when it is sent, as Starlette's own `FileResponse` does.

    Headers that are set on it replace those of the file.
    """

    def __init__(self, app: Streamed) -> None:
        super().__init__(())  # the content is sent by the app
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and run its background tasks."""
        await self._app.respond(scope, receive, send, self.raw_headers)
        if self.background is not None:
            await self.background()
