"""Where requests go: the URLs of calls, and which URLs are those of the API. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import attrs
import yarl

from .. import exceptions
from .call import Call, Config, Origin, Param, origin, redacted
from .errors import cause_of
from .urls import legal_url


@attrs.frozen(eq=False, repr=False)
class Route:
    """Destination of a request."""

    url: str
    parsed: yarl.URL
    """The same URL, not quoted again, which would break a signature."""
    origin: Origin
    is_api: bool
    """Whether the URL is one of the API; only these get the token."""


class Routes:
    """The URLs of a client."""

    def __init__(self, config: Config) -> None:
        self.api_origin: Final = origin(config.base_url)
        self._root: Final = f"{config.base_url}{config.prefix}"
        self._api_path: Final = f"{urlsplit(self._root).path}/"

    def url_of(self, call: Call) -> str:
        """Return the URL of a call, with its query."""
        url = self._root + call.path if call.path[0] == "/" else call.path
        if call.params:
            query = "&".join(
                f"{quote(name, safe='')}={quote(_text(value), safe='')}"
                for name, value in call.params.items()
                if value is not None
            )
            if query:
                url += ("&" if "?" in url else "?") + query
        return url

    def to(self, url: str) -> Route:
        """Return the route to a URL.

        Raises:
            TransportError: It is not a valid URL.
        """
        return _route(url, self.api_origin, self._api_path)

    def is_api(self, url: str) -> bool:
        """Return whether a URL is one of the API; only these get the token.

        A gateway may serve others at the same origin, below other paths.
        """
        return _is_api(url, self.api_origin, self._api_path)


@lru_cache(maxsize=256)  # most requests go to the same few URLs; views of a client share them
def _route(url: str, api_origin: Origin, api_path: str) -> Route:
    try:
        url = legal_url(url)
        parsed = yarl.URL(url, encoded=True)
    except ValueError as error:
        raise exceptions.TransportError(
            "GET", redacted(url), f"not a valid URL ({error})"
        ) from cause_of(error)
    return Route(url, parsed, origin(url), _is_api(url, api_origin, api_path))


def _is_api(url: str, api_origin: Origin, api_path: str) -> bool:
    if origin(url) != api_origin:
        return False
    path = urlsplit(url).path
    return path.startswith(api_path) and not _leads_out(path)


def _leads_out(path: str) -> bool:
    """Return whether a path has `.` or `..` in it, which servers may resolve."""
    path = unquote(path)
    return "/./" in path or "/../" in path or path.endswith(("/.", "/.."))


def _text(value: Param) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
