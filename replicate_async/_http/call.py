"""Calls, their bodies and answers; the configuration of a transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import attrs

# Re-exported for other folders, since only this one imports aiohttp.
from aiohttp import BodyPartReader as BodyPartReader
from aiohttp import ClientResponse as ClientResponse
from aiohttp import ClientSession as ClientSession
from aiohttp import StreamReader as StreamReader
from aiohttp import TraceConfig as TraceConfig

from .. import exceptions
from .._json import shown
from .._redaction import without_credentials
from .._version import __version__
from ..types import Limits, RateLimit, Response, Retry, Timeout
from .limits import RateClass
from .retry import Kind
from .server_clock import parsed_date

Origin = tuple[str, str, int | None]
"""Scheme, host and port."""

Param = str | int | bool | None

USER_AGENT: Final = f"replicate-async/{__version__}"

LARGE: Final = 256 * 1024
"""Size in bytes from which JSON is encoded and decoded in a worker thread."""


# Calls are not changed once they are made, but `frozen` would triple the time to make one.
@attrs.define(eq=False, repr=False)
class Call:
    """An operation of the API, or a GET of a URL that the API gave."""

    method: str
    """HTTP method."""
    path: str
    """Percent-encoded path below `/v1`, with its leading slash; or an absolute URL."""
    kind: Kind = Kind.READ
    """Whether the request may be repeated."""
    # What is sent:
    params: Mapping[str, Param] | None = None
    """Query parameters; those that are None are left out."""
    headers: Mapping[str, str] | None = None
    """Headers in addition to those of the client."""
    json: Any = None
    """JSON body."""
    large: bool = False
    """Whether to encode the JSON body in a worker thread."""
    content: bytes | Body | None = None
    """Body of another content type, which `headers` names."""
    send_state: SendState | None = None
    """Records whether the request, which has a JSON body, was sent."""
    # What is expected:
    expects: Literal["json", "text", "nothing", "any"] = "json"
    """Content of a successful answer. `"any"` is JSON if the content type says so, else text; None if it is empty."""
    id: str | None = None
    """ID of the requested object. An answer with another ID belongs to another request."""
    is_page: bool = False
    """Whether the answer is a page of a list."""
    is_new: bool = False
    """Whether the object was just created, so that the API may not know it everywhere yet: then a 404 is repeated."""
    held: float = 0.0
    """Seconds for which the server was asked to hold the answer back."""
    may_skip_hold: bool = False
    """Whether the request is sent without asking the server to hold its answer back, if too many answers are held
    back already. If not, it waits until there are fewer."""
    # What it waits for before it is sent:
    rate_class: RateClass = "others"
    """Rate limit that the request counts against."""
    waits: bool = False
    """Whether to wait for the rate limit however long it takes, since the request is about a job that is paid for."""
    urgent: bool = False
    """Whether to wait neither for the rate limit nor for a slot, as for a request that stops costs."""


@attrs.define(eq=False, repr=False)
class SendState:
    """Whether a request was sent."""

    sent: bool = False
    """Whether the server may have received the request. False again once the server has certainly refused it."""
    is_queued: bool = False
    """Whether it waits for the rate limit or for a connection."""
    is_held: bool = False
    """Whether the server was asked to hold its answer back."""


@attrs.define(eq=False, repr=False)
class Body:
    """A streamed body, which is generated anew for each attempt."""

    size: int | None
    """Length in bytes, if known."""
    make: Callable[[], AsyncIterator[bytes]]
    """Returns an iterator over the content."""
    repeatable: bool = True
    """Whether the body can be generated again; becomes False if its source fails."""


@attrs.define(eq=False, repr=False)
class Answer:
    """A successful answer."""

    status: int
    """HTTP status, 200 to 299."""
    headers: Mapping[str, str]
    """Headers, case-insensitive."""
    data: Any
    """The decoded object, JSON or text; None if nothing was expected."""
    method: str
    """HTTP method of the request."""
    url: str
    """URL of the request, after redirects."""

    @property
    def server_time(self) -> datetime | None:
        """Time of the answer by the server's clock, from the `Date` header; None if it is missing."""
        return parsed_date(self.headers.get("Date", ""))

    @property
    def response(self) -> Response:
        """Status and headers, for users."""
        return Response(self.status, {name.lower(): value for name, value in self.headers.items()})

    def unreadable(self, error: ValueError) -> exceptions.UnreadableAnswer:
        """Return the exception for an answer whose JSON has an unexpected shape."""
        return exceptions.UnreadableAnswer(
            self.method, redacted(self.url), self.status, shown(self.data)[:1000], str(error)
        )


@attrs.frozen(eq=False, repr=False)
class Config:
    """Configuration of a transport."""

    base_url: str
    """Scheme, host and optional prefix, without `/v1` and without a trailing slash."""
    token: str | Callable[[], str] | None = attrs.field(repr=False)
    """API token, or a function that returns it; None: from the environment, at each request."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Headers of all requests to the API."""
    timeout: Timeout
    """Timeouts for the network."""
    retry: Retry
    """Retry policy."""
    limits: Limits
    """Limits on memory and connections."""
    rate_limit: RateLimit | None
    """Client-side rate limits of the account; None: disabled."""
    prefix: str = "/v1"
    """Path below `base_url` that all paths of the API begin with; without a trailing slash."""
    tags: Mapping[str, str] = attrs.field(factory=dict)
    """Labels of the requests in logs, spans and metrics, such as the tenant for whom they are made."""
    tag_limit: RateLimit | None = None
    """Rate limits for requests with these tags, within those of the account; None: only those of the account."""
    output_hosts: tuple[str, ...] | None = None
    """Hosts that output files may be fetched from; None: any."""


@lru_cache(maxsize=256)
def origin(url: str) -> Origin:
    """Return scheme, host and port of a URL, in lower case and with the default port of the scheme."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", "", None  # equals no origin of a valid URL
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), port or {"http": 80, "https": 443}.get(scheme)


def redacted(url: str) -> str:
    """Return a URL for messages: without its query, which may be a signature, and without credentials."""
    return without_credentials(url.partition("?")[0].partition("#")[0])
