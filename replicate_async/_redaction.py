"""Removes secrets and passwords from what is shown or written. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

REDACTED: Final = "**********"
"""What stands for a secret."""


class Secret(str):
    """A text that does not show itself: its `repr`, as debuggers and error reporters log it, is redacted."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(REDACTED)


def without_secrets(value: Mapping[str, Any], secrets: AbstractSet[str]) -> Mapping[str, Any]:
    """Return an input with its secrets replaced."""
    if secrets.isdisjoint(value):
        return value
    return {
        name: REDACTED if name in secrets and item is not None else item
        for name, item in value.items()
    }


class Withheld(str):
    """What stands for a value that may be a secret; its `repr` has no quotes, since it is not the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown_input(value: Mapping[str, Any], secrets: AbstractSet[str] | None) -> Mapping[str, Any]:
    """Return an input as a `repr` shows it.

    Args:
        value: The input.
        secrets: Names of the inputs that are secrets. None if they are not known, as without the schema of the model:
            then numbers are shown, but no texts, since each may be a secret.
    """
    if secrets is None:
        return {name: _withheld(item) for name, item in value.items()}
    return without_secrets(value, secrets | likely_secrets(value))


def _withheld(item: object) -> object:
    match item:
        case None | bool() | int() | float():
            return item
        case str():
            return Withheld(f"<text of {len(item)} characters>")
        case list() | tuple():
            return Withheld(f"<list of {len(item)}>")
        case Mapping():
            return Withheld(f"<object with {len(item)} keys>")
    return Withheld(f"<{type(item).__name__}>")


def recorded_input(value: Mapping[str, Any], secrets: AbstractSet[str] | None) -> Mapping[str, Any]:
    """Return an input as it is written to a journal; if the secrets are not known, without those with typical names."""
    return without_secrets(value, likely_secrets(value) if secrets is None else secrets)


_MIN_ECHO: Final = 6
"""Characters from which a secret is recognised within a text; shorter ones are parts of many words."""


def secret_texts(value: Mapping[str, Any], secrets: AbstractSet[str] | None) -> list[str]:
    """Return the texts in the secret inputs, the longest first; if the secrets are not known, those with typical names."""
    names = likely_secrets(value) if secrets is None else secrets
    rest: list[object] = [value[name] for name in names if name in value]
    found: set[str] = set()
    while rest:
        match rest.pop():
            case str() as text if len(text) >= _MIN_ECHO:
                found.add(text)
            case list() | tuple() as items:
                rest.extend(items)
            case Mapping() as items:
                rest.extend(items.values())
    return sorted(found, key=len, reverse=True)


def redacted_names(record: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the names of the inputs that were replaced in a record."""
    given = None if record is None else record.get("input")
    if not isinstance(given, dict):
        return frozenset()
    return frozenset(name for name, item in given.items() if item == REDACTED)


def holds_secret(schema: object, components: Mapping[str, Any]) -> bool:
    """Return whether the schema of an input, or any part of it, is marked as secret (`x-cog-secret`, `format: password`).

    Args:
        schema: The schema.
        components: The schemas that it may refer to, by name.
    """
    parts: list[object] = [schema]
    names: set[str] = set()
    for part in parts:  # which grows: schemas may refer to themselves
        if isinstance(part, list):
            parts.extend(part)
        if not isinstance(part, Mapping):
            continue
        if part.get("x-cog-secret") is True or part.get("format") == "password":
            return True
        name = part.get("$ref")
        if isinstance(name, str) and name not in names:
            names.add(name)
            parts.append(components.get(name.rpartition("/")[2]))
        parts.extend(each for key, each in part.items() if key not in ("default", "enum"))
    return False


_LIKE_SECRETS: Final = re.compile(
    r"(.*_)?(pass(word|wd|phrase)|secret|api_?key|(access|auth|api|bearer|hf|secret)_?token|token|private_?key|credentials?)",
    re.IGNORECASE,
)


def likely_secrets(value: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the inputs that are secrets judging by their names, for models whose schema is not known."""
    return frozenset(
        name
        for name, item in value.items()
        if isinstance(name, str) and isinstance(item, str) and _LIKE_SECRETS.fullmatch(name)
    )


_CREDENTIALS: Final = re.compile(r"(://)[^\s/'\"]*@")

_IN_AUTHORITY: Final = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/]*@", re.IGNORECASE)
"""Name and password in a URL: with quotes, too, which end a URL in a longer text."""


def without_credentials(text: str) -> str:
    """Return a URL, or a text with URLs in it, without their names and passwords."""
    if "@" not in text:
        return text
    return _CREDENTIALS.sub(r"\1***@", _IN_AUTHORITY.sub(r"\1***@", text, 1))


def without_surrogates(text: str) -> str:
    r"""Return a text with its lone surrogates, which cannot be printed, as escapes such as `\ud800`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


_USER: Final = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)


def without_user(url: str) -> str:
    """Return a URL from the settings without name and password, which may contain what a URL may not.

    All up to the last `@` counts as such, even in what is no URL.
    """
    return _USER.sub(r"\1***@", url)
