"""What users write to name models, versions and deployments."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import attrs

from .exceptions import ArgumentTypeError, InvalidReference

_VERSION: Final = r"[0-9a-fA-F]{64}"
_SEGMENT: Final = r"[^/:\s\x00-\x1f?#%\\\ud800-\udfff]+"


@attrs.frozen
class Reference:
    """A model with or without a version, or a bare version."""

    owner: str | None
    name: str | None
    version: str | None

    @property
    def full_name(self) -> str | None:
        """`owner/name`, if known."""
        return f"{self.owner}/{self.name}" if self.owner else None

    def __str__(self) -> str:
        return ":".join(part for part in (self.full_name, self.version) if part)


def parse_reference(text: str, argument: str = "ref") -> Reference:
    """Read `owner/name`, `owner/name:version` or a version id of 64 hex digits (HTTP API, section 1.6)."""
    if not isinstance(text, str):
        raise ArgumentTypeError(argument, f"expected a string, got {type(text).__name__}")
    return _parsed(text, argument)


@lru_cache(maxsize=256)
def _parsed(text: str, argument: str) -> Reference:
    if len(text) == 64 and re.fullmatch(_VERSION, text):
        return Reference(None, None, text)
    full_name, colon, version = text.partition(":")
    owner, slash, name = full_name.partition("/")
    if (
        slash
        and _is_segment(owner)
        and _is_segment(name)
        and (_is_segment(version) if colon else not version)
    ):
        return Reference(owner, name, version or None)
    raise InvalidReference(
        argument, text, "'owner/name', 'owner/name:version' or a version id of 64 hex digits"
    )


def parse_name(owner: str, name: str | None, argument: str) -> tuple[str, str]:
    """Read `("owner/name", None)` or `("owner", "name")`."""
    for part in (owner,) if name is None else (owner, name):
        if not isinstance(part, str):
            raise ArgumentTypeError(argument, f"expected a string, got {type(part).__name__}")
    if name is None:
        owner, _, name = owner.partition("/")
    if not (_is_segment(owner) and _is_segment(name)):
        raise InvalidReference(argument, f"{owner}/{name}", "of the form 'owner/name'")
    return owner, name


def named(value: object, attribute: str, argument: str) -> str:
    """Return a string, or what an object such as a `Version` has of that name."""
    found = value if isinstance(value, str) else getattr(value, attribute, None)
    if isinstance(found, str):
        return found
    raise ArgumentTypeError(argument, f"expected a string, got {type(value).__name__}")


def quoted_name(full_name: str, argument: str) -> str:
    """Return `owner/name`, percent-encoded for a path."""
    return "/".join(identifier(part, argument) for part in full_name.split("/"))


def identifier(value: str, argument: str) -> str:
    """Return an opaque id, percent-encoded as one segment of a path."""
    if not isinstance(value, str):
        raise ArgumentTypeError(argument, f"expected a string, got {type(value).__name__}")
    if not value or value in {".", ".."} or any(ord(c) < 33 or ord(c) == 127 for c in value):
        raise InvalidReference(argument, value, "an id")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise InvalidReference(argument, value, "an id") from None


def _is_segment(text: str) -> bool:
    return bool(re.fullmatch(_SEGMENT, text)) and text not in {".", ".."}
