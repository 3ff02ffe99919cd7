"""Names under which an emulator answers: foreign ones are refused, against DNS rebinding.

A web page of a stranger can give its own name the address 127.0.0.1, and its scripts may then read what a server there
answers. The browser sends that name as `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress

_PORT = re.compile(r":\d*\Z", re.ASCII)


def is_loopback(host: str) -> bool:
    """Tell whether an address or a name leads to this machine only."""
    address = _address(host)
    if address is None:
        return f".{_name(host)}".endswith(".localhost")
    return address.is_loopback


def is_served(headers: Iterable[str], host: str) -> bool:
    """Tell whether a request is for an emulator.

    Names of this machine are, as are addresses of it, and names without a dot: those of machines and containers, which
    nobody outside can have. A request without the header comes from no browser.

    Args:
        headers: Values of the header `Host`, at most one in a valid request.
        host: Address or name that the emulator listens on.
    """
    return all(_is_own(_PORT.sub("", value.strip()), host) for value in headers)


def _is_own(name: str, host: str) -> bool:
    if is_loopback(name) or _name(name) == _name(host):
        return True
    address, own = _address(name), _address(host)
    if address is not None:
        return address == own or not host or (own is not None and own.is_unspecified)
    return re.fullmatch(r"[\w-]+", _name(name), re.ASCII) is not None


def _name(host: str) -> str:
    return host.lower().removesuffix(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    return None
