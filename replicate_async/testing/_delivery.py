"""The origin of output files, as ``replicate.delivery`` is (:api:`file-outputs`).

Files need no token, can be read in parts and are gone after an hour.
"""

from __future__ import annotations

from aiohttp import web

from ._problems import Problem
from ._store import Store

_CHUNK = 256 * 1024


class DeliveryServer:
    """Serves output files by their URLs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, {"detail": f'Method "{request.method}" not allowed.'})
        stored = self._store.output(request.rel_url.raw_path)
        if stored is None:
            raise Problem(404, {"detail": "Not found."})
        content = stored.file.content
        headers = {
            "Content-Type": stored.content_type,
            "ETag": stored.etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": "public, max-age=3600",
        }
        if request.headers.get("If-None-Match") == stored.etag:
            return web.Response(status=304, headers=headers)
        status, start, stop = 200, 0, len(content)
        if request.headers.get("If-Range", stored.etag) == stored.etag:
            part = byte_range(request.headers.get("Range"), len(content))
            if part == ():
                headers["Content-Range"] = f"bytes */{len(content)}"
                return web.Response(status=416, headers=headers)
            if part is not None and len(part) == 2:
                start, stop = part
                status = 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        headers["Content-Length"] = str(stop - start)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method == "GET":
            view = memoryview(content)
            for position in range(start, stop, _CHUNK):
                await response.write(bytes(view[position : min(position + _CHUNK, stop)]))
        await response.write_eof()
        return response


def byte_range(header: str | None, size: int) -> tuple[()] | tuple[int, int] | None:
    """Read a ``Range`` header with one range.

    Returns:
        First and last byte plus one; an empty tuple if it lies outside of the file; None if there
        is no range to honour.
    """
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    first, dash, last = header[6:].strip().partition("-")
    if not dash or not (first.isdecimal() or (not first and last.isdecimal())):
        return None
    if last and not last.isdecimal():
        return None
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else ()
    start = int(first)
    stop = min(int(last) + 1, size) if last else size
    if start >= size:
        return ()
    return (start, stop) if start < stop else None
