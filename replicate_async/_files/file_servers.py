"""The servers of output files: what their responses say, and when to request a file again."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Final

from .. import exceptions
from .._http.call import ClientResponse
from .._http.hosts import is_allowed
from .._http.retry import Kind, retry_delay
from .._http.transport import Transport

GONE: Final = (404, 410)
"""Statuses that say that a file has been deleted."""

PROGRESS: Final = 2**16
"""Bytes of new content after which an interrupted download may make all its attempts again."""

_CONTENT_RANGE: Final = re.compile(
    r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE
)

_UNSATISFIED_RANGE: Final = re.compile(r"bytes \*/(\d{1,18})", re.ASCII | re.IGNORECASE)
"""`Content-Range` of a 416, with the size of the file."""


def is_plain(response: ClientResponse) -> bool:
    """Return whether the content is sent as it is, and not compressed."""
    return response.headers.get("Content-Encoding", "identity").strip().lower() == "identity"


def content_range(response: ClientResponse) -> tuple[int, int, int | None] | None:
    """Return the first and the last byte of a part, and the size of the file, if it is known.

    Returns:
        The three numbers; None if the header is missing or not valid.
    """
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if first > last or (total is not None and last >= total):
        return None
    return first, last, total


def unsatisfied_size(headers: Mapping[str, str]) -> int | None:
    """Return the size of a file from the headers of a 416, with names in lower case; None if they do not tell it."""
    found = _UNSATISFIED_RANGE.fullmatch(headers.get("content-range", "").strip())
    return None if found is None else int(found[1])


def delay_after(
    transport: Transport, failure: exceptions.ReplicateException, attempt: int, elapsed: float
) -> float | None:
    """Return the number of seconds to wait before a file is requested again; None to give up.

    Args:
        transport: The transport of the client.
        failure: Failure of this attempt; a file that broke off counts as a lost connection.
        attempt: Number of this attempt, from 1.
        elapsed: Seconds since the first one.
    """
    if isinstance(failure, exceptions.IncompleteFile):
        failure = exceptions.ConnectionLost("GET", failure.url, str(failure))
    retry = transport.config.retry
    return retry_delay(Kind.READ, failure, attempt, elapsed, retry, random.random())


def host_check(transport: Transport, url: str, prediction: str | None) -> Callable[[str], None]:
    """Return a function that raises `HostNotAllowed` for a host that the option `output_hosts` does not allow."""
    hosts = transport.config.output_hosts

    def check(host: str) -> None:
        if hosts is not None and not is_allowed(host, hosts):
            raise exceptions.HostNotAllowed(url, host, prediction)

    return check


def expired(
    transport: Transport, url: str, prediction: str | None, error: exceptions.ReplicateError
) -> exceptions.FileExpired:
    """Return the error for a file whose server has answered with one of the statuses `GONE`."""
    return exceptions.FileExpired(
        url, error.status, signed=transport.routes.is_api(url), prediction_id=prediction
    )
