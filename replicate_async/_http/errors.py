"""Error statuses, and the exceptions of aiohttp, as exceptions of this package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from .. import exceptions
from .._codec import decode_json, error_text
from .._redaction import without_credentials
from .call import origin, redacted
from .retry import retry_after
from .urls import is_local


def status_error(
    method: str, url: str, status: int, headers: Mapping[str, str], body: bytes
) -> exceptions.ReplicateError:
    """Return the exception for an answer with an error status (:api:`errors`).

    Args:
        method: HTTP method of the request.
        url: URL of the request.
        status: HTTP status of the answer.
        headers: Headers of the answer.
        body: Beginning of the body; anything but a JSON object becomes the detail of the exception.
    """
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
        if detail is None and isinstance(said.get("error"), (str, dict)):
            detail = error_text(said["error"]) or None
        if detail is None and isinstance(said.get("message"), str):
            detail = error_text(said) or None
        for key in ("invalid_fields", "errors"):
            entries = said.get(key)
            if isinstance(entries, list):
                fields += [entry for entry in entries if isinstance(entry, dict)]
    if detail is None and title is None:
        detail = " ".join(body[:2000].decode("utf-8", "replace").split())[:500] or None
    return exceptions.ReplicateError.class_for(status)(
        method,
        redacted(url),
        status,
        title=title,
        detail=detail,
        type=kind,
        instance=instance,
        invalid_fields=fields,
        retry_after=wait,
        headers=known,
    )


NETWORK_ERRORS: Final = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What aiohttp raises if there is no usable answer. A `TimeoutError` is an `OSError`."""


_MAX_REASON_LENGTH: Final = 1000
"""Characters of a reason that are kept: it may quote a long header of the answer."""


def translated(
    error: Exception, method: str, url: str, silence: float, *, is_api: bool = False
) -> exceptions.TransportError:
    """Return the exception of this package for one of `NETWORK_ERRORS`.

    Args:
        error: The exception.
        method: HTTP method of the request.
        url: URL of the request.
        silence: Longest silence of the server in seconds.
        is_api: Whether it is the API that was requested: then the message says where its URL may come from.
    """
    url = redacted(url)
    if isinstance(error, aiohttp.ClientResponseError):
        # It holds the headers of the request, including the token, and the whole URL.
        where = URL(url, encoded=True)
        error.request_info = aiohttp.RequestInfo(
            where, method, CIMultiDictProxy(CIMultiDict()), where
        )
        error.args = (error.request_info, ())
        reason = f"{type(error).__name__}: {error.message}"
    else:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    reason = reason[:_MAX_REASON_LENGTH]
    match error:
        # The connect phase comes first: some of its exceptions are subclasses of later ones.
        case aiohttp.ClientConnectorCertificateError():
            return exceptions.CertificateError(
                method, url, error.host, *_certificate_reason(error.certificate_error)
            )
        case (
            aiohttp.ClientConnectorError()
            | aiohttp.ConnectionTimeoutError()
            | aiohttp.ClientHttpProxyError()
            | aiohttp.InvalidURL()
        ):
            return exceptions.ConnectError(method, url, reason, _hint(error, url) if is_api else "")
        case aiohttp.SocketTimeoutError():
            return exceptions.TransportTimeout(
                method, url, f"the server was silent for {silence:g} s"
            )
        case TimeoutError():
            return exceptions.TransportTimeout(method, url, "the response came too slowly")
        case aiohttp.ClientResponseError():
            # The server has sent no valid status; the one in the exception is aiohttp's.
            return exceptions.UnreadableAnswer(method, url, 0, "", reason)
        case _:
            return exceptions.ConnectionLost(method, url, reason)


_PROXY_ERRORS: Final = (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)


def _hint(error: Exception, url: str) -> str:
    """Return what to check if no connection to the API could be made."""
    if isinstance(error, _PROXY_ERRORS):
        return ""
    hints = []
    if origin(os.environ.get("REPLICATE_BASE_URL", "").strip()) == origin(url):
        hints.append("REPLICATE_BASE_URL points there")
    if is_local(url) and not isinstance(error, aiohttp.ClientSSLError):
        hints.append(
            "Is the emulator running? `replicate-async emulator` starts one, and prints its URL"
        )
    return ". ".join(hints)


def _certificate_reason(error: Exception) -> tuple[str, str]:
    """Return what is wrong with a certificate, and the likely cause."""
    code = getattr(error, "verify_code", None)
    said = getattr(error, "verify_message", None) or str(error) or type(error).__name__
    return said, _CAUSES.get(code, "") if isinstance(code, int) else ""


_UNKNOWN_AUTHORITY: Final = (
    "A proxy, firewall or gateway may have put its own certificate there: pass the file with its authority as"
    " Client(ssl='/path/to/ca.pem'), or name it in SSL_CERT_FILE. Or this Python has no certificate authorities"
)

_WRONG_CLOCK: Final = "Check the clock of this machine; else the server needs a new certificate"

_CAUSES: Final[Mapping[int, str]] = {
    # As in <openssl/x509_vfy.h>
    9: _WRONG_CLOCK,
    10: _WRONG_CLOCK,
    18: _UNKNOWN_AUTHORITY,
    19: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
    62: "The certificate is for another host: check the URL",
    64: "The certificate is for another address: check the URL",
}


def cause_of(error: Exception) -> Exception | None:
    """Return an exception as the cause of another one; None if its text contains the password of a URL."""
    text = str(error)
    return error if without_credentials(text) == text else None
