"""Responses that pass output files on to browsers as they arrive."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, MutableMapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import anyio
import attrs

from .. import exceptions
from .._arguments import string
from .._files.media import GENERIC_TYPES, essence, safe_name, valid_type
from .._files.output import FileOutput
from .._files.relay import Conditions, Facts, Relay
from .._http.serving import AiohttpRequest, StreamedResponse
from .asgi import Streamed

__all__ = ("file_response",)

_logger = logging.getLogger("replicate_async")

_START_TIMEOUT: Final = 60.0
"""Seconds for the server of the file to answer, with all attempts."""

_SCRIPTS: Final = frozenset(
    [
        *(f"application/{name}" for name in ("ecmascript", "javascript", "x-ecmascript")),
        *(f"text/{name}" for name in ("ecmascript", "javascript", "jscript", "livescript")),
        *("application/x-javascript", "text/x-ecmascript", "text/x-javascript"),
        *(f"text/javascript1.{number}" for number in range(6)),
    ]
)
"""Media types of scripts (WHATWG MIME Sniffing)."""

_GONE: Final = "The file is gone.\n"
_AWAY: Final = "The file cannot be fetched now.\n"


def file_response(
    output: FileOutput, request: object, *, filename: str | None = None, download: bool = False
) -> Any:
    """Return a response that passes an output file on to the browser, without holding it in memory or on disk.

    The file is requested when the response is sent, without the API token. Range requests are passed on, so that
    players can seek and downloads resume; so are size, type, name and entity tag. A connection to the file's server that
    breaks is resumed. If the browser leaves, or reads nothing for a minute, that connection is closed. All types
    but PDF are sandboxed, so that scripts in them do not run. The response is 404 if the file has been deleted, and 502 if it cannot be fetched; the log
    has the reason.

    ```python
    @app.get("/pictures/{id}")
    async def picture(id: str, request: Request):
        prediction = await client.predictions.get(id)
        return file_response(prediction.output, request)
    ```

    Args:
        output: The file.
        request: The request to respond to: that of Starlette, FastAPI, Litestar or aiohttp, or the `scope` of an ASGI app.
        filename: Name for the browser; `output.name` by default.
        download: Whether the browser saves the file instead of showing it.

    Returns:
        A `StreamingResponse` for Starlette and FastAPI, a `StreamResponse` for aiohttp, or else an ASGI app. Headers
        that are set on one of the former replace those of the file.

    Raises:
        ArgumentTypeError: An argument has a wrong type.
    """
    if not isinstance(output, FileOutput):
        raise exceptions.ArgumentTypeError(
            "output", f"expected a FileOutput, got {type(output).__name__}"
        )
    if filename is not None:
        string(filename, "filename")
    responder = _FileResponder(output, filename, bool(download))
    if isinstance(request, AiohttpRequest):
        return StreamedResponse(responder.answer)
    app = Streamed(responder.answer)
    if any(base.__module__.partition(".")[0] == "starlette" for base in type(request).__mro__):
        from .starlette import StarletteFileResponse  # optional: imported when it is there

        return StarletteFileResponse(app)
    scope = getattr(request, "scope", request)
    if not isinstance(scope, MutableMapping) or scope.get("type") != "http":
        raise exceptions.ArgumentTypeError(
            "request",
            "expected a request of Starlette, FastAPI, Litestar or aiohttp, or the scope of an HTTP request of ASGI, got"
            f" {type(request).__name__}",
        )
    return app


@attrs.frozen
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: AsyncIterator[bytes]


@attrs.frozen(eq=False)
class _FileResponder:
    """Answers the request of a browser for a file."""

    output: FileOutput
    filename: str | None
    is_download: bool

    @asynccontextmanager
    async def answer(
        self, method: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[_Answer, None]:
        """Return the answer to a request. An error becomes an answer, too, unless it comes after the first byte."""
        # Only GET has ranges and conditions; a POST may run a model, and return its output.
        conditions = Conditions()
        if method == "GET":
            conditions = Conditions(
                headers.get("range"),
                headers.get("if-range"),
                headers.get("if-none-match"),
                headers.get("if-modified-since"),
            )
        relay = self.output._relay()
        async with aclosing(relay.chunks(conditions)) as chunks:
            status = 502
            try:
                with anyio.fail_after(_START_TIMEOUT):
                    if method == "HEAD":
                        relay.length = (await relay.stat()).size
                    else:
                        await anext(chunks)
                status = relay.status
            except (exceptions.ReplicateException, TimeoutError) as error:
                if isinstance(error, exceptions.FileExpired):
                    status = 404
                _logger.warning(
                    "a file cannot be passed on to the browser, which gets a %d: %s",
                    status,
                    "its server does not respond"
                    if isinstance(error, TimeoutError) and not str(error)
                    else error,
                )
            if status in (404, 502):
                yield _failed(status)
            else:
                yield _Answer(status, self._headers(relay), chunks)

    def _headers(self, relay: Relay) -> list[tuple[str, str]]:
        """Return the headers of an answer that is not an error."""
        facts = relay.facts
        headers = {
            "ETag": facts.etag,
            "Last-Modified": facts.modified,
            "Accept-Ranges": "bytes" if facts.has_ranges else None,
            # For this user only. With the entity tag, a browser need not fetch it again.
            "Cache-Control": "private, no-cache",
        }
        if relay.status in (200, 206):
            self.output._learn(facts)
            content_type = self._content_type(facts)
            is_pdf = essence(content_type) == "application/pdf"
            headers |= {
                "Content-Type": content_type,
                "Content-Disposition": self._disposition(),
                # The file comes from a model, and is shown at the origin of the app.
                "X-Content-Type-Options": "nosniff",
                # Browsers show PDF files in a sandbox of their own, which does not start in this one.
                "Content-Security-Policy": None if is_pdf else "sandbox",
            }
        if relay.status != 304 and relay.length is not None:
            headers["Content-Length"] = str(relay.length)
        headers["Content-Range"] = relay.content_range
        return [(name, value) for name, value in headers.items() if value is not None]

    def _content_type(self, facts: Facts) -> str:
        said = facts.content_type
        if said is None or essence(said) in GENERIC_TYPES:
            said = self.output.content_type
        said = valid_type(said)
        # The parts of a multipart response have headers of their own, which a browser may follow.
        if said is None or essence(said).startswith("multipart/"):
            return "application/octet-stream"
        # Browsers show a script as text. As such, no page of the app can load it as a script of its own origin.
        return "text/plain" if essence(said) in _SCRIPTS else said

    def _disposition(self) -> str:
        name = self.output.name if self.filename is None else safe_name(self.filename)
        plain = "".join(c if c.isascii() and c not in '"\\%' else "_" for c in name)
        shown = f'{"attachment" if self.is_download else "inline"}; filename="{plain}"'
        return shown if plain == name else f"{shown}; filename*=UTF-8''{quote(name, safe='')}"


def _failed(status: int) -> _Answer:
    content = (_GONE if status == 404 else _AWAY).encode()

    async def body() -> AsyncIterator[bytes]:
        yield content

    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(content))),
        ("Cache-Control", "no-store"),
    ]
    return _Answer(status, headers, body())
