"""Secrets and passwords, replaced in what is shown or written down. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

REDACTED: Final = "**********"
"""What stands for a secret."""


def without_secrets(value: Mapping[str, Any], secrets: AbstractSet[str]) -> Mapping[str, Any]:
    """Return an input with its secrets replaced."""
    if secrets.isdisjoint(value):
        return value
    return {
        name: REDACTED if name in secrets and item is not None else item
        for name, item in value.items()
    }


_CREDENTIALS: Final = re.compile(r"(://)[^\s/'\"]*@")


def without_credentials(text: str) -> str:
    """Return a text without the names and passwords in the URLs in it."""
    return _CREDENTIALS.sub(r"\1***@", text) if "@" in text else text
