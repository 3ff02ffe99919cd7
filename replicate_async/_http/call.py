"""What a request is made of: calls, bodies, answers, and the configuration of a client."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import attrs

# For annotations elsewhere: only this folder imports aiohttp.
from aiohttp import ClientResponse as ClientResponse
from aiohttp import ClientSession as ClientSession
from aiohttp import StreamReader as StreamReader
from aiohttp import TraceConfig as TraceConfig

from .. import exceptions
from .._version import __version__
from ..types import Limits, RateLimit, Retry, Timeout
from .limits import RateClass
from .retry import Kind

_logger = logging.getLogger("replicate_async")


Origin = tuple[str, str, int | None]


Param = str | int | bool | None


DEFAULT_BASE_URL: Final = "https://api.replicate.com"


USER_AGENT: Final = f"replicate-async/{__version__}"


LARGE: Final = 256 * 1024
"""Bytes of JSON above which a worker thread reads or writes it."""


# Never changed; `frozen` would make it three times as slow to make.
@attrs.define(eq=False, repr=False)
class Call:
    """One operation of the API, or one URL that the API gave."""

    method: str
    """The HTTP method."""
    path: str
    """The path below `/v1`, percent-encoded, with its leading slash; or an absolute URL, used as it is."""
    kind: Kind = Kind.READ
    """What repeating it would mean."""
    expects: Literal["json", "text", "nothing"] = "json"
    """What a good answer holds."""
    params: Mapping[str, Param] | None = None
    """The query; None is left out."""
    json: Any = None
    """A JSON body."""
    large: bool = False
    """Whether a thread shall encode it."""
    content: bytes | Body | None = None
    """Another body."""
    headers: Mapping[str, str] | None = None
    """Headers of this operation."""
    held: float = 0.0
    """Seconds that the server was asked to hold its answer back."""
    urgent: bool = False
    """Whether it passes all queues: for what stops costs."""
    rate_class: RateClass = "others"
    """How the API counts it."""
    send_state: SendState | None = None
    """Where to note how far it comes."""


@attrs.define(eq=False, repr=False)
class SendState:
    """How far a request has come."""

    sent: bool = False
    """Whether the server may have seen it; False again once it must have been refused."""


class Body:
    """A body that is made anew for each attempt."""

    def __init__(
        self, size: int | None, make: Callable[[], AsyncIterator[bytes]], repeatable: bool = True
    ) -> None:
        self.size = size
        """Its length in bytes, if known."""
        self.make = make
        """Yields its bytes."""
        self.repeatable = repeatable
        """Whether it can be made a second time; turns False when its source fails."""


class Answer:
    """A good answer."""

    __slots__ = ("data", "headers", "method", "status", "url")

    def __init__(
        self, status: int, headers: Mapping[str, str], data: Any, method: str, url: str
    ) -> None:
        self.status = status
        """The HTTP status, 200 to 299."""
        self.headers = headers
        """The headers, case-insensitive."""
        self.data = data
        """The object, the JSON, the text, or None."""
        self.method = method
        """The method of the request."""
        self.url = url
        """Where the request went."""

    def unreadable(self, error: ValueError) -> exceptions.UnreadableAnswer:
        """Return the error that tells that the JSON has not the shape that was expected."""
        return exceptions.UnreadableAnswer(
            self.method, _shown(self.url), self.status, repr(self.data)[:1000], str(error)
        )


@attrs.frozen(eq=False, repr=False)
class Config:
    """How a transport makes requests."""

    base_url: str
    """Scheme, host and perhaps a prefix; without `/v1`, without a slash at the end."""
    token: str | Callable[[], str] | None = attrs.field(repr=False)
    """The token, or what gives it. None: the environment's, looked up for each request."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Headers of all requests to the API."""
    timeout: Timeout
    """How long to wait for the network."""
    retry: Retry
    """How to repeat."""
    limits: Limits
    """What may be held in memory."""
    rate_limit: RateLimit | None
    """The account's limits; None: nobody counts."""


def check_base_url(url: str) -> str:
    """Return a base URL in the form that `Config` wants."""
    if not isinstance(url, str):
        raise exceptions.ArgumentTypeError(
            "base_url", f"expected a string, got {type(url).__name__}"
        )
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable or parts.query or parts.fragment:
        raise exceptions.ArgumentError(
            "base_url", f"{url!r} is no URL such as {DEFAULT_BASE_URL!r}"
        )
    if parts.path.endswith("/v1"):
        url = url.removesuffix("/v1")
    return url


def check_token(token: object) -> str:
    """Return a token without the white space around it, fit for a header."""
    if not isinstance(token, str):
        raise exceptions.ArgumentTypeError(
            "api_token", f"expected a string, got {type(token).__name__}"
        )
    token = token.strip()
    if not token:
        raise exceptions.MissingToken
    if not all("!" <= character <= "~" for character in token):
        # The token itself must not appear in a message.
        raise exceptions.ArgumentError(
            "api_token", "there are spaces, control or non-ASCII characters in the token"
        )
    return token


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of headers that can be sent."""
    if not isinstance(headers, Mapping):
        raise exceptions.ArgumentTypeError(
            "headers", f"expected a mapping, got {type(headers).__name__}"
        )
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise exceptions.ArgumentTypeError("headers", f"{name!r} and its value must be strings")
        if (
            not name
            or any(not "!" <= c <= "~" or c == ":" for c in name)
            or any((c < " " and c != "\t") or c == "\x7f" for c in value)
        ):
            raise exceptions.ArgumentError("headers", f"{name!r} or its value cannot be sent")
    return dict(headers)


@lru_cache(maxsize=256)
def origin(url: str) -> Origin:
    """Return scheme, host and port of a URL, in lower case and with the port that it implies."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", "", None  # nobody's
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), port or {"http": 80, "https": 443}.get(scheme)


def _environment_token() -> str | None:
    """Return the token of the current Cog scope, else that of the environment."""
    cog = sys.modules.get("cog")
    if cog is not None:
        try:
            context = cog.current_scope().context
            for name, value in context.items():
                if name.upper() == "REPLICATE_API_TOKEN":
                    return str(value)
        except Exception:  # another package's internals; the environment is next
            _logger.debug("no token in the Cog scope", exc_info=True)
    return os.environ.get("REPLICATE_API_TOKEN")


def _shown(url: str) -> str:
    """Return a URL as it may stand in messages: without its query, which may be a signature."""
    return url.partition("?")[0].partition("#")[0]
