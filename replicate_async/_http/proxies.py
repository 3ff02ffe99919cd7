"""Proxies and certificate authorities, from the options and from the environment."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from .. import exceptions
from .._redaction import without_user
from .call import Origin

SSL: TypeAlias = ssl.SSLContext | bool | str | os.PathLike[str]
"""The forms of the option `ssl`."""

_EXAMPLE: Final = "expected the URL of an HTTP proxy, such as 'http://proxy.example.com:3128'"


def check_proxy(proxy: object, argument: str = "proxy") -> str:
    """Return the URL of a proxy; without a scheme, it is one that speaks HTTP.

    Args:
        proxy: The URL.
        argument: Where it was set: the option, or a variable of the environment.

    Raises:
        ArgumentError: It is not the URL of a proxy that can be used.
        ArgumentTypeError: It is not a string.
    """
    if not isinstance(proxy, str):
        reason = f"{_EXAMPLE}, for all hosts; got {type(proxy).__name__}"
        raise exceptions.ArgumentTypeError(argument, reason)
    text = proxy.strip()
    url = text if "://" in text else f"http://{text}"
    shown = without_user(url)
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
        scheme = parts.scheme.lower()
    except ValueError:
        usable, scheme = False, ""
    if scheme.startswith("socks"):
        raise exceptions.ArgumentError(
            argument,
            f"{shown!r} is a SOCKS proxy, which this client does not speak. Use an HTTP proxy; or pass"
            " `session=` with a connector that speaks SOCKS",
        )
    if not usable or scheme not in ("http", "https") or any(c.isspace() for c in url):
        raise exceptions.ArgumentError(argument, f"{_EXAMPLE}, got {shown!r}")
    return url


def environment_proxy(target: Origin) -> str | None:
    """Return the proxy that the environment sets for an origin.

    Raises:
        ArgumentError: It cannot be used. The error names the variable.
    """
    scheme, host, port = target
    proxies = getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    proxy = proxies.get(kind)
    host = f"[{host}]" if ":" in host else host
    if not proxy or proxy_bypass(f"{host}:{port}" if port else host):
        return None
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name) == proxy), names[1])
    return check_proxy(proxy, variable)


def check_ssl(value: SSL | None) -> ssl.SSLContext | bool | None:
    """Return the option `ssl` as aiohttp takes it; a path becomes a context that also trusts the authorities in it.

    Raises:
        ArgumentError: There are no certificates at the path.
        ArgumentTypeError: It has another type.
    """
    if value is None or isinstance(value, (bool, ssl.SSLContext)):
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise exceptions.ArgumentTypeError(
            "ssl", f"expected an SSLContext, the path of a PEM file, or a bool, got {value!r}"
        )
    context = _default_context()
    shown = os.fspath(value)
    try:
        path = Path(shown).expanduser()
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise exceptions.ArgumentError("ssl", f"{shown!r} holds no certificates in PEM") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise exceptions.ArgumentError("ssl", f"{shown!r} cannot be read ({reason})") from error
    return context


def environment_ssl() -> ssl.SSLContext | bool:
    """Return a context with the certificate authorities that the environment names, or True: those of the system.

    aiohttp's own context has those that the environment named when aiohttp was imported.
    """
    places = tuple(os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if not any(places):
        return True
    return _environment_context(*((place, _changed_at(place)) for place in places))


@lru_cache(maxsize=1)  # it takes 30 ms, and each event loop needs one
def _environment_context(*places: tuple[str, float]) -> ssl.SSLContext:  # noqa: ARG001  (the key of the cache)
    """Return the context for what the environment names, and for the times at which that was changed."""
    return _default_context()


def _changed_at(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except (OSError, ValueError):
        return 0.0


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
