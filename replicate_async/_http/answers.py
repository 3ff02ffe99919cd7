"""Reads answers: redirects, incomplete bodies, JSON."""

from __future__ import annotations

import asyncio
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from .. import exceptions
from .._codec import decode_json, structure
from .call import Call, redacted
from .retry import OtherAnswerError
from .urls import legal_url


def redirect_target(call: Call, url: str, response: aiohttp.ClientResponse) -> str:
    """Return the URL that a redirect leads to.

    Raises:
        RefusedRedirect: The request is not a read, or the URL is not valid or less secure.
    """
    location = response.headers.get("Location", "")
    shown = redacted(url)
    if call.method not in {"GET", "HEAD"}:
        raise exceptions.RefusedRedirect(
            call.method, shown, redacted(location), f"{response.status} on a {call.method}"
        )
    try:
        target = legal_url(urljoin(url, legal_url(location)))
        scheme = urlsplit(target).scheme
    except ValueError:
        scheme = target = ""
    if not location or scheme not in {"http", "https"}:
        where = redacted(location)[:200]
        raise exceptions.RefusedRedirect(call.method, shown, where, "not an HTTP or HTTPS URL")
    if urlsplit(url).scheme == "https" and scheme == "http":
        raise exceptions.RefusedRedirect(call.method, shown, redacted(target), "from https to http")
    return target


def fail_when_closed(response: aiohttp.ClientResponse) -> None:
    """Have the body of an answer fail if its connection is closed before its end.

    After a malformed chunk, aiohttp closes the connection without an error in the body, whose reader would wait forever.
    """
    content, connection = response.content, response.connection
    if content.is_eof() or connection is None or connection.protocol is None:
        return
    closed = connection.protocol.closed

    def fail(_: object = None) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the body is malformed"))

    if closed is None:
        fail()
        return

    def end() -> None:
        closed.remove_done_callback(fail)  # the connection may serve further requests

    # There is one already if the connection has served an earlier request.
    closed.remove_done_callback(_retrieve_exception)
    closed.add_done_callback(_retrieve_exception)
    closed.add_done_callback(fail)
    content.on_eof(end)


class Chunks:
    """The chunks of a body as they were received: `iter_any()` joins them, which copies them.

    aiohttp's `iter_chunks()` does so, too, but never ends for an answer without a body, and lets no other task run.
    """

    __slots__ = ("_content",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            chunk, ends_chunk = await self._content.readchunk()
            if chunk:
                return chunk
            if not ends_chunk or self._content.at_eof():
                raise StopAsyncIteration


def _retrieve_exception(closed: asyncio.Future[None]) -> None:
    """Retrieve the exception of a closed connection: asyncio logs those that are never retrieved."""
    if not closed.cancelled():
        closed.exception()


def _check_kind(call: Call, url: str, data: object) -> None:
    """Check that an answer is that to this request: a server or a proxy may mix answers up.

    Raises:
        ConnectionLost: It is the answer to another request.
        ValueError: A page of a list was requested, and it is none.
    """
    fields = data if isinstance(data, dict) else {}
    found, is_page = fields.get("id"), isinstance(fields.get("results"), list)
    what = f"about {found[:100]!r}" if isinstance(found, str) else "a list" if is_page else None
    wanted = f"about {call.id!r}" if call.id is not None else "a list" if call.is_page else None
    if what is not None and wanted is not None and what != wanted:
        reason = f"the response is {what}, not {wanted}"
        raise exceptions.ConnectionLost(call.method, redacted(url), reason) from OtherAnswerError(
            reason
        )
    if call.is_page and not is_page:
        raise ValueError("expected a page with a list of results")


def decode_body(
    call: Call,
    result: type[Any] | None,
    url: str,
    response: aiohttp.ClientResponse,
    body: bytearray,
) -> Any:
    """Return the object, JSON or text in the body of an answer; None if nothing is expected."""
    expects = call.expects
    if expects == "any":
        is_json = response.content_type.endswith("json")
        expects = "nothing" if not body else "json" if is_json else "text"
    if expects == "json":
        try:
            data = decode_json(body)
            _check_kind(call, url, data)
            return data if result is None else structure(data, result)
        except ValueError as error:
            raise exceptions.UnreadableAnswer(
                call.method, redacted(url), response.status, bytes(body[:1000]), str(error)
            ) from error
    return body.decode("utf-8", "replace") if expects == "text" else None
