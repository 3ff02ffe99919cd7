"""References to models, versions and deployments, as users write them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import attrs

from .exceptions import ArgumentTypeError, InvalidReference

_VERSION: Final = re.compile(r"[0-9a-fA-F]{64}")
_SEGMENT: Final = re.compile(r"[^/:\s\x00-\x1f?#%\\\ud800-\udfff]+")

_OTHER_VERSION: Final = re.compile(r"dp-[\w-]+|(?=\D*\d)[A-Za-z0-9][\w-]{15,}", re.ASCII)
"""IDs of versions in other forms than the present one: no name of a model looks like them."""

_SITE: Final = re.compile(
    r"(?:https?://)?(?:(?:www\.)?replicate\.com/|api\.replicate\.com/v1/(?=models/|deployments/))",
    re.IGNORECASE,
)

_TABS: Final = frozenset(
    {"api", "examples", "metrics", "playground", "readme", "settings", "train", "versions"}
)
"""Parts of the page of a model or deployment on the site."""


@attrs.frozen
class Reference:
    """A model with or without a version, or a version without its model."""

    owner: str | None
    """Owner of the model, if known."""
    name: str | None
    """Name of the model, if known."""
    version: str | None
    """ID of the version, if given."""

    @property
    def full_name(self) -> str | None:
        """`owner/name`, if known."""
        return f"{self.owner}/{self.name}" if self.owner else None

    def __str__(self) -> str:
        if not self.owner:
            return self.version or ""
        return f"{self.owner}/{self.name}" + (f":{self.version}" if self.version else "")


def parse_reference(text: str, argument: str = "ref") -> Reference:
    """Parse `owner/name`, `owner/name:version`, the ID of a version, or the URL of one of them (:api:`identifiers`).

    Args:
        text: The reference. White space around it, and a slash at its end, do not matter.
        argument: Name of the user's argument, for error messages.

    Raises:
        InvalidReference: The text has none of these forms.
        ArgumentTypeError: It is not a string.
    """
    if not isinstance(text, str):
        raise ArgumentTypeError(argument, f"expected a string, got {type(text).__name__}")
    return _parsed(text, argument)


@lru_cache(maxsize=256)  # a program runs few models, many times
def _parsed(text: str, argument: str) -> Reference:
    plain = _without_site(text, argument)
    if _VERSION.fullmatch(plain) or _OTHER_VERSION.fullmatch(plain):
        return Reference(None, None, plain)
    full_name, colon, version = plain.partition(":")
    owner, slash, name = full_name.partition("/")
    if (
        slash
        and _is_segment(owner)
        and _is_segment(name)
        and (_is_segment(version) if colon else not version)
    ):
        return Reference(owner, name, version or None)
    raise InvalidReference(
        argument, text, "'owner/name', 'owner/name:version' or a version ID of 64 hex digits"
    )


def _without_site(text: str, argument: str) -> str:
    """Return a reference, which may be the URL of a page on the site, as `owner/name`, with or without a version."""
    text = text.strip()
    plain = text.removesuffix("/")
    found = _SITE.match(plain)
    if found is None:
        return plain
    path = re.split(r"[?#]", plain[found.end() :], maxsplit=1)[0].removesuffix("/").split("/")
    if path[0] == "deployments" and len(path) > 2:
        if argument != "deployment":
            raise InvalidReference(
                argument, text, "a model or version; for a deployment, use its namespace or object"
            )
        path = path[1:]
    elif path[0] == "models" and len(path) > 2:
        path = path[1:]
    match path:
        case [owner, name, "versions", version, *_]:
            return f"{owner}/{name}:{version}"
        case [owner, name]:
            return f"{owner}/{name}"
        case [owner, name, tab, *_] if tab in _TABS:
            return f"{owner}/{name}"
    return plain


def parse_version(value: object, argument: str) -> Reference:
    """Parse an argument that can only be a version, so that its ID may have any form.

    Args:
        value: The ID, `owner/name:version`, the URL of a version, or a `Version`.
        argument: Name of the user's argument, for error messages.

    Raises:
        InvalidReference: It names no version.
        ArgumentTypeError: It is neither a string nor a `Version`.
    """
    text = named(value, "id", argument).strip()
    if _is_segment(text):
        return Reference(None, None, text)
    found = parse_reference(text, argument)
    if found.version is None:
        raise InvalidReference(argument, text, "the ID of a version, or 'owner/name:version'")
    return found


def parse_name(
    owner: str, name: str | None, argument: str, *, ignore_version: bool = False
) -> tuple[str, str]:
    """Return the owner and the name of `("owner/name", None)` or `("owner", "name")`.

    Args:
        owner: `owner/name`, the URL of its page, or the owner alone.
        name: The name, if it is not part of the first argument.
        argument: Name of the user's argument, for error messages.
        ignore_version: Whether a version of the model stands for the model.

    Raises:
        InvalidReference: They are not valid names.
        ArgumentTypeError: One of them is not a string.
    """
    for part in (owner,) if name is None else (owner, name):
        if not isinstance(part, str):
            raise ArgumentTypeError(argument, f"expected a string, got {type(part).__name__}")
    if name is None:
        given = owner
        owner, _, name = _without_site(owner, argument).partition("/")
        if ignore_version:
            name = name.partition(":")[0] if _is_segment(name.partition(":")[2]) else name
    else:
        owner, name = owner.strip(), name.strip().removesuffix("/")
        given = f"{owner}/{name}"
    if not (_is_segment(owner) and _is_segment(name)):
        raise InvalidReference(argument, given, "'owner/name'")
    return owner, name


def named(value: object, attribute: str, argument: str) -> str:
    """Return a string as it is, or the identifying attribute of an object such as a `Version`.

    Raises:
        ArgumentTypeError: The value is neither.
    """
    found = value if isinstance(value, str) else getattr(value, attribute, None)
    if isinstance(found, str):
        return found
    raise ArgumentTypeError(argument, f"expected a string, got {type(value).__name__}")


def quoted_name(full_name: str, argument: str) -> str:
    """Return `owner/name`, percent-encoded for a path.

    Raises:
        InvalidReference: A part of it cannot be sent.
    """
    return "/".join(identifier(part, argument) for part in full_name.split("/"))


def identifier(value: str, argument: str) -> str:
    """Return an opaque ID, percent-encoded as one segment of a path.

    Raises:
        InvalidReference: The ID is empty, or it cannot be sent.
        ArgumentTypeError: It is not a string.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(argument, f"expected a string, got {type(value).__name__}")
    # Servers and proxies that decode a path before they split it would follow such segments to another object.
    segments = value.replace("\\", "/").split("/")
    if {"", ".", ".."} & set(segments) or any(ord(c) < 33 or ord(c) == 127 for c in value):
        raise InvalidReference(argument, value, "a valid ID")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise InvalidReference(argument, value, "a valid ID") from None


def plain_identifier(value: str, argument: str) -> str:
    """Return an ID that contains nothing with a meaning in URLs, as those of predictions, trainings and collections.

    Raises:
        InvalidReference: It does contain such characters, or none at all.
        ArgumentTypeError: It is not a string.
    """
    quoted = identifier(value, argument)
    if not _is_segment(value):
        raise InvalidReference(argument, value, "a valid ID")
    return quoted


def _is_segment(text: str) -> bool:
    return _SEGMENT.fullmatch(text) is not None and text not in {".", ".."}


def full_name(value: object, argument: str) -> tuple[str, str | None]:
    """Return owner and name of a model or deployment, as users write them.

    Args:
        value: `"owner/name"`, a pair, or an object with `owner` and `name`.
        argument: Name of the user's argument, for error messages.

    Returns:
        The owner and the name; or `"owner/name"` and None.

    Raises:
        ArgumentTypeError: It has none of these forms.
    """
    match value:
        case str():
            return value, None
        case (str(owner), str(name)):
            return owner, name
    found = getattr(value, "owner", None), getattr(value, "name", None)
    if isinstance(found[0], str) and isinstance(found[1], str):
        return found[0], found[1]
    raise ArgumentTypeError(argument, f"expected 'owner/name', got a {type(value).__name__}")
