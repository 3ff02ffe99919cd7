"""URLs from servers and models, which may contain characters that a request cannot. Pure."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import yarl

_ILLEGAL: Final = re.compile(r"[^!#$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~%]")
"""Characters that RFC 3986 allows nowhere in a URL, except percent signs that begin no escape: a signature may cover them."""

_BEGINNING: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)")

_HOST: Final = re.compile(r"(.*@)?(\[[^\]]*\]|[^:]*)(:\d*)?", re.DOTALL)

_PLAIN_HOST: Final = re.compile(r"[!$&'()*+,;=0-9A-Za-z._~%-]*|\[[0-9A-Fa-f:.%A-Za-z]*\]")


@lru_cache(maxsize=1024)
def legal_url(url: str) -> str:
    """Return a URL in the form in which it can be requested. What is legal in it stays byte for byte as it is.

    Characters that are not allowed in a URL, such as spaces and non-ASCII letters, are percent-encoded as
    UTF-8, and the host as IDNA. Existing escapes and signatures stay as they are.

    Args:
        url: An absolute URL, or one that is relative to another.

    Raises:
        ValueError: The host is not valid.
    """
    if url.isascii() and _ILLEGAL.search(url) is None:
        return url
    beginning = _BEGINNING.match(url)
    if beginning is None:
        return _quoted(url)
    return f"{beginning[1] or ''}//{_authority(beginning[2])}{_quoted(url[beginning.end() :])}"


def _authority(text: str) -> str:
    parts = _HOST.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not a valid host")
    host = parts[2]
    if not _PLAIN_HOST.fullmatch(host):
        if any(c.isspace() or not c.isprintable() for c in host):  # which yarl would leave out
            raise ValueError(f"{host!r} is not a valid host")
        try:
            host = yarl.URL(f"http://{host}/").raw_host or ""
        except UnicodeError as error:
            raise ValueError(f"{host!r} is not a valid host ({error})") from error
        if not host or _ILLEGAL.search(host) is not None:
            raise ValueError(f"{parts[2]!r} is not a valid host")
    return _quoted(parts[1] or "") + host + (parts[3] or "")


def _quoted(text: str) -> str:
    return _ILLEGAL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    # aiohttp decodes bytes of headers that are not UTF-8 to surrogates.
    raw = found[0].encode("utf-8", "surrogateescape")
    return "".join(f"%{byte:02X}" for byte in raw)


def has_host(url: str) -> bool:
    """Return whether a URL has a host without white space."""
    try:
        host = urlsplit(url).netloc
    except ValueError:
        return False
    return bool(host) and not any(character.isspace() for character in host)


def host_of(url: str) -> str | None:
    """Return the host of a URL; None if it has none, or cannot be read."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def is_local(url: str) -> bool:
    """Return whether a URL leads to this machine, as that of the emulator does."""
    host = host_of(url) or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f".{host.removesuffix('.')}".endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def path_of(url: str) -> str:
    """Return the path of a URL; empty if it has none, or cannot be read."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
