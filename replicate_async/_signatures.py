"""Symmetric webhook signatures of Standard Webhooks 1.0.0 (:api:`webhook-signature`)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from typing import Final

from .exceptions import ArgumentError, ArgumentTypeError, InvalidSignature

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str,
    *,
    tolerance: float | None,
    now: float,
) -> None:
    """Verify that a webhook delivery was signed with the secret, at about the present time.

    Args:
        headers: Headers of the delivery; the case of their names does not matter.
        body: Body of the delivery, exactly as received.
        secret: Signing secret, `whsec_...`.
        tolerance: Maximum difference between the signed timestamp and `now`, in seconds; None for no limit.
        now: Current time, in seconds since the epoch.

    Raises:
        InvalidSignature: The delivery is not signed with this secret, it is too old, or its headers are
            malformed.
        ArgumentError: The secret is malformed, or the tolerance is no number of seconds.
        ArgumentTypeError: An argument has a wrong type.
    """
    key = _key(secret)
    _check_tolerance(tolerance)
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
    raise InvalidSignature("no signature matches")


def sign(secret: str, id: str, timestamp: str, body: bytes) -> str:
    """Return the header `webhook-signature` of a delivery.

    Args:
        secret: Signing secret, `whsec_...`.
        id: ID of the delivery.
        timestamp: Time of the delivery: seconds since the epoch.
        body: Body of the delivery.

    Raises:
        ArgumentError: The secret is malformed.
    """
    signed = b".".join((id.encode(), timestamp.encode(), body))
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _signed_headers(headers: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the headers that a signature consists of: ID, timestamp, signatures."""
    try:
        # The headers of some web frameworks have `items`, but are no `Mapping`.
        known = {name.lower(): value for name, value in headers.items() if isinstance(name, str)}
    except (AttributeError, TypeError, ValueError):
        raise ArgumentTypeError(
            "headers", f"expected a mapping of names to values, got {type(headers).__name__}"
        ) from None
    found = []
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        value = known.get(name)
        if name not in known:
            raise InvalidSignature(f"the header {name!r} is missing")
        if not isinstance(value, str):
            raise ArgumentTypeError(
                "headers", f"expected {name!r} as a string, got {type(value).__name__}"
            )
        found.append(value)
    message, timestamp, signatures = found
    return message, timestamp, signatures


def _check_tolerance(tolerance: float | None) -> None:
    if tolerance is None:
        return
    expected = f"expected seconds, or None for no limit, got {tolerance!r}"
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)):
        raise ArgumentTypeError("tolerance", expected)
    if not 0 <= tolerance < math.inf:  # NaN is neither
        raise ArgumentError("tolerance", expected)


def check_secret(secret: str, argument: str) -> None:
    """Check that a signing secret is one.

    Raises:
        ArgumentError: It is malformed.
        ArgumentTypeError: It is not a string.
    """
    _key(secret, argument)


def _key(secret: str, argument: str = "secret") -> bytes:
    if not isinstance(secret, str):
        raise ArgumentTypeError(argument, f"expected a string, got {type(secret).__name__}")
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ArgumentError(argument, "not a webhook secret: expected 'whsec_' and base64")
    return key
