"""Signatures of webhooks: Standard Webhooks 1.0.0, symmetric (HTTP API, section 6.3)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping

from .exceptions import ArgumentError, ArgumentTypeError, InvalidSignature


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str,
    *,
    tolerance: float | None,
    now: float,
) -> None:
    """Return if a delivery was signed with the secret, and not too long ago.

    Raises:
        InvalidSignature: It was not: whatever the headers hold, nothing else is raised for them.
        ArgumentError: The secret is no secret.
    """
    known = {str(name).lower(): str(value) for name, value in headers.items()}
    try:
        message, timestamp, signatures = (
            known[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
    except KeyError as error:
        raise InvalidSignature(f"the header {error} is missing") from None
    if not re.fullmatch(r"\d{1,12}", timestamp, re.ASCII):
        raise InvalidSignature("the header 'webhook-timestamp' is no time")
    if tolerance is not None and abs(now - int(timestamp)) > tolerance:
        raise InvalidSignature(
            f"it was made {abs(now - int(timestamp)):.0f} s away from now, {tolerance:g} are allowed"
        )
    try:
        content = body.encode() if isinstance(body, str) else bytes(body)
        signed = b".".join((message.encode(), timestamp.encode(), content))
    except UnicodeEncodeError:
        raise InvalidSignature("there is half a character in it") from None
    expected = hmac.new(_key(secret), signed, hashlib.sha256).digest()
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
    raise InvalidSignature("no signature of the list matches")


def _key(secret: str) -> bytes:
    if not isinstance(secret, str):
        raise ArgumentTypeError("secret", f"expected a string, got {type(secret).__name__}")
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ArgumentError("secret", "it is no webhook secret: whsec_ and base64")
    return key
