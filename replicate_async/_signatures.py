"""Symmetric webhook signatures of Standard Webhooks 1.0.0 (:api:`webhook-signature`)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from .exceptions import ArgumentError, ArgumentTypeError, InvalidSignature

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


Headers: TypeAlias = Mapping[str, str] | Sequence[tuple[bytes, bytes]]
"""Headers by name, or in pairs of bytes as ASGI has them."""


def verify(
    headers: Headers,
    body: bytes | str,
    secret: str,
    *,
    tolerance: float | timedelta | None,
    now: float,
) -> None:
    """Verify that a webhook delivery was signed with the secret, at about the present time.

    Args:
        headers: Headers of the delivery; the case of their names does not matter.
        body: Body of the delivery, exactly as received.
        secret: Signing secret, `whsec_...`.
        tolerance: Maximum difference between the signed timestamp and `now`, in seconds or as a timedelta; None for
            no limit.
        now: Current time, in seconds since the epoch.

    Raises:
        InvalidSignature: The delivery is not signed with this secret, it is too old, or its headers are
            malformed.
        ArgumentError: The secret is malformed, or the tolerance is no number of seconds.
        ArgumentTypeError: An argument has a wrong type.
    """
    key = _key(secret)
    tolerance = _tolerance(tolerance)
    if not isinstance(body, (bytes, bytearray, memoryview, str)):
        raise ArgumentTypeError(
            "body", f"expected the body as bytes or str, got {type(body).__name__}"
        )
    message, timestamp, signatures = _signed_headers(headers)
    if not _TIMESTAMP.fullmatch(timestamp):
        raise InvalidSignature("the header 'webhook-timestamp' is not a time in seconds")
    if tolerance is not None and abs(now - int(timestamp)) > tolerance:
        raise InvalidSignature(
            f"the timestamp is {abs(now - int(timestamp)):.0f} s from now; the tolerance is {tolerance:g} s"
        )
    try:
        content = body.encode() if isinstance(body, str) else bytes(body)
        signed = b".".join((message.encode(), timestamp.encode(), content))
    except UnicodeEncodeError:
        raise InvalidSignature("the delivery contains a lone surrogate") from None
    expected = hmac.new(key, signed, hashlib.sha256).digest()
    for entry in signatures.split(" "):
        version, comma, text = entry.partition(",")
        if version != "v1" or not comma:
            continue
        try:
            found = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if hmac.compare_digest(found, expected):
            return
    reason = "no signature matches"
    if _is_base64(content):
        reason += (
            ". The body is encoded in base64, as AWS Lambda does if `isBase64Encoded` is set:"
            " pass base64.b64decode(body)"
        )
    raise InvalidSignature(reason)


def sign(secret: str, id: str, timestamp: str, body: bytes) -> str:
    """Return the header `webhook-signature` of a delivery.

    Args:
        secret: Signing secret, `whsec_...`.
        id: ID of the delivery.
        timestamp: Time of the delivery: seconds since the epoch.
        body: Body of the delivery.

    Raises:
        ArgumentError: The secret is malformed, or the ID or the timestamp has a lone surrogate.
    """
    signed = b".".join((_encoded(id, "id"), _encoded(timestamp, "timestamp"), body))
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _encoded(text: str, argument: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(argument, f"contains a lone surrogate: {text!r}") from None


def _signed_headers(headers: Headers) -> tuple[str, str, str]:
    """Return the headers that a signature consists of: ID, timestamp, signatures."""
    try:
        pairs = _pairs(headers)
        known: dict[str, list[object]] = {}
        for name, value in pairs:
            if isinstance(name, str):
                known.setdefault(_plain_name(name), []).append(value)
    except (AttributeError, TypeError, ValueError):
        raise ArgumentTypeError(
            "headers",
            f"expected a mapping of names to values, or the pairs of bytes of ASGI, got {type(headers).__name__}",
        ) from None
    found = []
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        values = known.get(name, [])
        if not values:
            raise InvalidSignature(f"the header {name!r} is missing")
        if len(values) > 1 and name != "webhook-signature":
            raise InvalidSignature(f"the header {name!r} is there {len(values)} times")
        found.append(" ".join(_text(name, value) for value in values))
    message, timestamp, signatures = found
    return message, timestamp, signatures


def _pairs(headers: Any) -> Iterable[tuple[Any, Any]]:
    # The headers of some web frameworks have `items`, but are no `Mapping`.
    if hasattr(headers, "items"):
        pairs: Iterable[tuple[Any, Any]] = headers.items()
        return pairs
    if not isinstance(headers, (list, tuple)) or not headers:
        raise TypeError
    # As in the scope of ASGI. Not of strings: those may be anything.
    return [
        (bytes.decode(name, "latin-1"), bytes.decode(value, "latin-1")) for name, value in headers
    ]


def _plain_name(name: str) -> str:
    """Return the name of a header in lower case; it may be that of a variable of CGI or WSGI."""
    return name.lower().replace("_", "-").removeprefix("http-")


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    reason = f"expected {name!r} as a string, got {type(value).__name__}"
    if isinstance(value, (list, tuple)):
        reason += ": pass the `headers` of the event instead of `multiValueHeaders`, or the first value of each"
    elif isinstance(value, bytes):
        reason += ": decode it"
    raise ArgumentTypeError("headers", reason)


def _is_base64(body: bytes) -> bool:
    try:
        return base64.b64decode(body, validate=True).lstrip()[:1] == b"{"
    except ValueError:
        return False


def _tolerance(tolerance: float | timedelta | None) -> float | None:
    if tolerance is None:
        return None
    expected = f"expected seconds, a timedelta, or None for no limit, got {tolerance!r}"
    if isinstance(tolerance, timedelta):
        tolerance = tolerance.total_seconds()
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        raise ArgumentTypeError("tolerance", expected)
    if not 0 <= tolerance < math.inf:  # NaN is neither
        raise ArgumentError("tolerance", expected)
    return tolerance


def check_secret(secret: str, argument: str) -> None:
    """Check that a signing secret is one.

    Raises:
        ArgumentError: It is malformed.
        ArgumentTypeError: It is not a string.
    """
    _key(secret, argument)


def _key(secret: object, argument: str = "secret") -> bytes:
    if secret is None:
        reason = "expected a string, got None: is the variable set that it comes from?"
        raise ArgumentTypeError(argument, reason)
    if not isinstance(secret, str):
        raise ArgumentTypeError(argument, f"expected a string, got {type(secret).__name__}")
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ArgumentError(argument, "not a webhook secret: expected 'whsec_' and base64")
    return key
