"""Fingerprints of inputs, by which a journal recognises them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

import attrs

from .. import exceptions
from .._codec import decode_json
from .._files.inputs import is_file_input, url_of
from .._files.sources import digest_of
from .._json import to_text
from .._redaction import recorded_input
from .._threads import in_thread

_FILE: Final = "$file"
"""The key of the digest of a file."""

_LARGE: Final = 10_000
"""Characters from which an input is hashed in a thread; for lists and objects, this is assumed."""

_MAX_TEXT: Final = 64 * 1024
"""Characters up to which an input is kept as JSON."""


@attrs.frozen
class Fingerprint:
    """The fingerprint of an input."""

    hash: str
    """Hash of the input and of the contents of its files."""
    text: str | None
    """The input as JSON, unless it is large."""

    def without(self, secrets: AbstractSet[str] | None) -> Fingerprint:
        """Return it with a text that has no secrets; if these are None, without those with usual names."""
        if self.text is None or secrets == frozenset():
            return self
        given = decode_json(self.text)
        kept = recorded_input(given, secrets)
        return self if kept is given else attrs.evolve(self, text=_json(kept, "input"))


async def fingerprint_of(
    value: Mapping[str, Any], secrets: AbstractSet[str] | None = frozenset()
) -> Fingerprint:
    """Return the fingerprint of an input, with its files read.

    Args:
        value: The input.
        secrets: Names of the inputs that are not kept, except in the hash; None: those with usual names of secrets.

    Raises:
        ArgumentError: A file cannot be read.
        ArgumentTypeError: A value cannot be represented in the journal.
    """
    size = 0
    for item in value.values():
        if isinstance(item, str):
            size += len(item)
        elif item is not None and not isinstance(item, (int, float)):
            size += _LARGE
    if size < _LARGE:
        return _fingerprint(_to_plain(value, "input", []), secrets)
    unread: list[_Unread] = []
    plain = await in_thread(_to_plain, value, "input", unread)
    for each in unread:
        # In turns with other inputs that send the same object.
        each.place[_FILE] = await digest_of(each.file, each.path)
    return await in_thread(_fingerprint, plain, secrets)


@attrs.frozen
class _Unread:
    """An object in an input that is still to be read."""

    place: dict[str, str]
    file: Any
    path: str


def _fingerprint(plain: Mapping[str, Any], secrets: AbstractSet[str] | None) -> Fingerprint:
    text = _json(plain, "input")
    found = _text_hash(text)
    kept = recorded_input(plain, secrets)
    if kept is not plain:
        text = _json(kept, "input")
    return Fingerprint(found, text if len(text) <= _MAX_TEXT else None)


def sent_hash(value: Mapping[str, Any]) -> str:
    """Return the hash of an input as it is sent, or as the list of predictions shows it."""
    return _text_hash(_json(_to_plain(value, "input", None), "input"))


def _text_hash(text: str) -> str:
    """Return a hash of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _json(plain: Any, path: str) -> str:
    try:
        return to_text(plain, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise _too_deep(path) from None
    except ValueError as error:
        raise exceptions.ArgumentError(path, str(error)) from error


def _too_deep(path: str) -> exceptions.ArgumentError:
    return exceptions.ArgumentError(path, "it is nested too deeply, or contains itself")


def _to_plain(value: Any, path: str, unread: list[_Unread] | None) -> Any:
    """Return an input as JSON-like data.

    Args:
        value: The input.
        path: Its path.
        unread: A list for the objects that are still to be read; None if there are no files.
    """
    try:
        return _plain(value, path, unread)
    except RecursionError:
        raise _too_deep(path) from None


def _path_digest(file: os.PathLike[Any], path: str) -> str:
    try:
        with Path(os.fsdecode(file)).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise exceptions.ArgumentError(path, f"{file!r} cannot be read ({reason})") from error


def _plain(value: Any, path: str, unread: list[_Unread] | None) -> Any:
    kind = value.__class__
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is float:
        # JSON does not tell 1.0 from 1, and services that keep it need not either.
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {key: _plain(item, f"{path}.{key}", unread) for key, item in value.items()}
    if isinstance(value, Enum):
        return _plain(value.value, path, unread)
    if (url := url_of(value)) is not None:
        return url
    if unread is not None and is_file_input(value):
        if isinstance(value, (bytes, bytearray, memoryview)):
            return {_FILE: hashlib.sha256(value).hexdigest()}
        if isinstance(value, os.PathLike):
            return {_FILE: _path_digest(value, path)}
        place = {_FILE: ""}
        unread.append(_Unread(place, value, path))
        return place
    match value:
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return _plain(float(value), path, unread)
        case datetime() | date():
            return value.isoformat()
        case Mapping():
            return {str(key): _plain(item, f"{path}.{key}", unread) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{path}[{index}]", unread) for index, item in enumerate(value)]
        case set() | frozenset():
            items = [_plain(item, path, unread) for item in value]
            return sorted(items, key=lambda item: to_text(item, sort_keys=True))
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), path, unread)
    raise exceptions.ArgumentTypeError(
        path, f"a {type(value).__name__} cannot be written into a journal"
    )
