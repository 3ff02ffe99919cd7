"""Raw access: any endpoint of the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from .. import _arguments, exceptions
from .._http.call import Call, Param
from .._http.checks import check_headers, check_path
from .._http.retry import Kind
from .._jobs.context import Context
from ..types import JSONObject

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = (*sorted(_READS), "DELETE", "PATCH", "POST", "PUT")

_CREATES: Final = re.compile(r"/(predictions|trainings)/?")
"""The end of the paths whose POST creates something, which counts against another rate limit."""

_WAIT: Final = re.compile(r"\s*wait(?:\s*=\s*(\d{1,3}))?\s*", re.ASCII | re.IGNORECASE)


async def request(
    context: Context,
    method: str,
    path: str,
    *,
    params: Mapping[str, Param] | None,
    json: Any,
    headers: Mapping[str, str] | None,
) -> Any:
    """Make a request to any endpoint, as `Client.request`."""
    method = _arguments.string(method, "method").upper()
    _arguments.one_of(method, _METHODS, "method")
    check_path(path)
    for name, value in _arguments.given(**dict(params or {})).items():
        if not isinstance(name, str) or not isinstance(value, (str, int, float, bool)):
            raise exceptions.ArgumentTypeError(
                "params", f"{name!r}: expected a string, a number or a bool, got {value!r}"
            )
    headers = check_headers(headers or {})
    if any(name.lower() == "authorization" for name in headers):
        raise exceptions.ArgumentError("headers", "the token is that of the client: with_options()")
    plain = path.partition("?")[0]
    call = Call(
        method,
        path,
        Kind.READ if method in _READS else Kind.WRITE,
        expects="nothing" if method == "HEAD" else "any",
        params=params,
        json=json,
        headers=headers,
        held=_held(headers),
        rate_class="creates"
        if method == "POST" and _CREATES.search(plain, len(plain) - 13)
        else "others",
    )
    answer = await context.transport.send(call)
    if isinstance(answer.data, dict):
        data = JSONObject(answer.data)
        data.response = answer.response
        return data
    return answer.data


def _held(headers: Mapping[str, str]) -> float:
    """Return the seconds for which a `Prefer: wait` lets the server hold its answer back."""
    for name, value in headers.items():
        if name.lower() == "prefer" and (found := _WAIT.fullmatch(value)):
            return float(found[1] or 60)
    return 0.0
