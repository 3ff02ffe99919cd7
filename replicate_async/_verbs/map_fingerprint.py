"""Fingerprints of inputs, by which a journal recognises them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

import attrs

from .. import exceptions

_LONGEST_TEXT: Final = 64 * 1024
"""Characters up to which an input is kept as JSON."""


@attrs.frozen
class Fingerprint:
    """The fingerprint of an input."""

    hash: str
    """Hash of the input and of the contents of its files."""
    text: str | None
    """The input as JSON, unless it is large."""


def make_fingerprint(value: Mapping[str, Any], is_file: Callable[[Any], bool]) -> Fingerprint:
    """Return the fingerprint of an input. Reads the files in it, so it is not for the event loop.

    Args:
        value: The input.
        is_file: Tells whether a value is a file.

    Raises:
        ArgumentError: A file cannot be read.
        ArgumentTypeError: A value cannot be represented in the journal.
    """
    text = _canonical_json(value, "input", is_file)
    return Fingerprint(_text_hash(text), text if len(text) <= _LONGEST_TEXT else None)


def sent_hash(value: Mapping[str, Any]) -> str:
    """Return the hash of an input as it is sent, or as the list of predictions shows it."""
    return _text_hash(_canonical_json(value, "input", lambda _: False))


def _text_hash(text: str) -> str:
    """Return a hash of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical_json(value: Any, path: str, is_file: Callable[[Any], bool]) -> str:
    try:
        return json.dumps(
            _to_plain(value, path, is_file),
            ensure_ascii=True,
            sort_keys=True,
            separators=(",", ":"),
        )
    except RecursionError:
        raise exceptions.ArgumentError(
            path, "it is nested too deeply, or contains itself"
        ) from None


def _to_plain(value: Any, path: str, is_file: Callable[[Any], bool]) -> Any:
    kind = value.__class__
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is float:
        # JSON does not tell 1.0 from 1, and services that keep it need not either.
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {key: _to_plain(item, f"{path}.{key}", is_file) for key, item in value.items()}
    if isinstance(value, Enum):
        return _to_plain(value.value, path, is_file)
    if is_file(value):
        return {"$file": _content_hash(value, path)}
    match value:
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return _to_plain(float(value), path, is_file)
        case datetime() | date():
            return value.isoformat()
        case Mapping():
            return {
                str(key): _to_plain(item, f"{path}.{key}", is_file) for key, item in value.items()
            }
        case list() | tuple():
            return [
                _to_plain(item, f"{path}[{index}]", is_file) for index, item in enumerate(value)
            ]
        case set() | frozenset():
            items = [_to_plain(item, path, is_file) for item in value]
            return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(url := getattr(value, "url", None), str):
        return url  # a file that a model made
    if hasattr(value, "tolist"):
        return _to_plain(value.tolist(), path, is_file)
    raise exceptions.ArgumentTypeError(
        path, f"a {type(value).__name__} cannot be written into a journal"
    )


def _content_hash(file: Any, path: str) -> str:
    if isinstance(file, (bytes, bytearray, memoryview)):
        return hashlib.sha256(file).hexdigest()
    try:
        if isinstance(file, (str, os.PathLike)):
            with Path(file).open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
        if not (callable(getattr(file, "seekable", None)) and file.seekable()):
            raise exceptions.ArgumentTypeError(
                path,
                "a file that can be read only once cannot be written into a journal: pass a path",
            )
        position = file.tell()
        file.seek(0)
        try:
            made = hashlib.sha256()
            while chunk := file.read(2**20):
                made.update(chunk)
        finally:
            file.seek(position)
        return made.hexdigest()
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, exceptions.ReplicateException):
            raise
        reason = getattr(error, "strerror", None) or error
        raise exceptions.ArgumentError(path, f"{file!r} cannot be read ({reason})") from error
