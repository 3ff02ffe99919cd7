"""Which hosts output files may be fetched from. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import yarl

from .. import exceptions


def check_hosts(hosts: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the hosts of the option `output_hosts` in the form that `is_allowed` takes; None allows all.

    Raises:
        ArgumentError: One is neither the name of a host nor `*.` and a domain.
        ArgumentTypeError: It is not a list of strings.
    """
    if hosts is None:
        return None
    if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Iterable):
        raise exceptions.ArgumentTypeError(
            "output_hosts", f"expected a list of hosts, got {type(hosts).__name__}"
        )
    return tuple(_checked(host) for host in hosts)


def _checked(host: object) -> str:
    if not isinstance(host, str):
        raise exceptions.ArgumentTypeError(
            "output_hosts", f"expected strings, got {type(host).__name__}"
        )
    wildcard = "*." if host.startswith("*.") else ""
    name = host[len(wildcard) :]
    if name[:1] == "[" and name[-1:] == "]":
        name = name[1:-1]  # an IPv6 address as in a URL
    try:
        name = host_of(yarl.URL.build(scheme="https", host=name))
    except ValueError:
        name = ""
    if not name or "*" in name:
        raise exceptions.ArgumentError(
            "output_hosts",
            "expected hosts such as 'replicate.delivery' or '*.example.com', without scheme, port"
            f" and path, got {host!r}",
        )
    return wildcard + name


def is_allowed(host: str, hosts: tuple[str, ...]) -> bool:
    """Tell whether a host is allowed. `*.example.com` stands for all hosts below `example.com`."""
    return any(
        host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed
        for allowed in hosts
    )


def host_of(url: yarl.URL) -> str:
    """Return the host that a request is sent to, in lower case and ASCII; empty if there is none that is valid."""
    try:
        host = (url.raw_host or "").lower().rstrip(".")
    except ValueError:  # such as a port that is out of range
        return ""
    return host if host.isascii() else ""
