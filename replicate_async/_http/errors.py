"""Statuses and network errors as exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from .. import exceptions
from .._codec import decode_json, structure
from .call import Call, _shown
from .retry import retry_after


def make_error(
    method: str, url: str, status: int, headers: Mapping[str, str], body: bytes
) -> exceptions.ReplicateError:
    """Return the exception for an error answer (:api:`errors`)."""
    known = {name.lower(): value for name, value in headers.items()}
    try:
        said = decode_json(body)
    except ValueError:
        said = None
    wait = retry_after(known, said)
    title = detail = kind = instance = None
    fields: list[Mapping[str, Any]] = []
    if isinstance(said, dict):
        title, detail, kind, instance = (
            value if isinstance(value := said.get(key), str) else None
            for key in ("title", "detail", "type", "instance")
        )
        for key in ("invalid_fields", "errors"):
            entries = said.get(key)
            if isinstance(entries, list):
                fields += [entry for entry in entries if isinstance(entry, dict)]
    if detail is None and title is None:
        detail = " ".join(body[:2000].decode("utf-8", "replace").split())[:500] or None
    return exceptions.ReplicateError.class_for(status)(
        method,
        url,
        status,
        title=title,
        detail=detail,
        type=kind,
        instance=instance,
        invalid_fields=fields,
        retry_after=wait,
        headers=known,
    )


def _decoded(
    call: Call, result: type[Any] | None, url: str, status: int, body: bytes | bytearray
) -> Any:
    if call.expects == "json":
        try:
            data = decode_json(body)
            return data if result is None else structure(data, result)
        except ValueError as error:
            raise exceptions.UnreadableAnswer(
                call.method, _shown(url), status, bytes(body[:1000]), str(error)
            ) from error
    return body.decode("utf-8", "replace") if call.expects == "text" else None


def _redirected(call: Call, url: str, response: aiohttp.ClientResponse) -> str:
    """Return where a redirect leads; only what is read is redirected."""
    location = response.headers.get("Location", "")
    shown = _shown(url)
    if call.method not in {"GET", "HEAD"}:
        raise exceptions.RefusedRedirect(
            call.method, shown, _shown(location), f"{response.status} on a {call.method}"
        )
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError:
        scheme = target = ""
    if not location or scheme not in {"http", "https"}:
        where = _shown(location)[:200]
        raise exceptions.RefusedRedirect(call.method, shown, where, "no http or https URL")
    if urlsplit(url).scheme == "https" and scheme == "http":
        raise exceptions.RefusedRedirect(call.method, shown, _shown(target), "from https to http")
    return target


def _is_network_error(error: Exception) -> bool:

    return isinstance(error, (aiohttp.ClientError, OSError, asyncio.TimeoutError))


def _translated(error: Exception, method: str, url: str) -> Exception:
    """Return our exception for one of aiohttp's; the one place that knows theirs."""
    if isinstance(error, aiohttp.ClientResponseError):
        # It holds the request's headers, the token among them, and the whole URL.

        where = URL(url, encoded=True)
        error.request_info = aiohttp.RequestInfo(
            where, method, CIMultiDictProxy(CIMultiDict()), where
        )
        error.args = (error.request_info, ())
        reason = f"{type(error).__name__}: {error.message}"
    else:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    match error:
        # What belongs to the connect phase comes first: some of it is a subclass of what follows.
        case (
            aiohttp.ClientConnectorError()
            | aiohttp.ConnectionTimeoutError()
            | aiohttp.ClientHttpProxyError()
            | aiohttp.InvalidURL()
        ):
            return exceptions.ConnectError(method, url, reason)
        case TimeoutError():
            return exceptions.TransportTimeout(method, url, reason)
        case aiohttp.ClientResponseError():
            # The status is aiohttp's word for it; the server sent none that could be read.
            return exceptions.UnreadableAnswer(method, url, 0, "", reason)
        case aiohttp.ClientError() | OSError():
            return exceptions.ConnectionLost(method, url, reason)
        case RuntimeError() if str(error) == "Session is closed":
            return exceptions.ClientClosed()
        case ValueError() | OverflowError():
            # A URL, from a model or a redirect, that looks like one and is none.
            return exceptions.TransportError(method, url, f"it cannot be sent ({reason})")
    return error
