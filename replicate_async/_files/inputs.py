"""Inputs of models as JSON, with their files uploaded or inlined."""

from __future__ import annotations

import dataclasses
import math
import os
import uuid
from collections import deque
from collections.abc import Iterator, KeysView, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from datetime import time as time_of_day
from enum import Enum
from typing import Any, Final, NoReturn

import attrs

from .. import _arguments, exceptions
from .._concurrency import gather_limited, in_thread
from .._http.call import LARGE
from .._http.transport import Transport
from ..types import File, FileEncodingStrategy, Record
from .sources import Source, source_of
from .uploads import Uploads, data_uri

_AT_ONCE: Final = 16
"""Files of one input that are inspected or uploaded at a time."""

_MANY: Final = 5000
"""Items of one list or mapping above which the input is copied in a thread."""


async def encode_input(
    value: Mapping[str, Any] | None,
    transport: Transport,
    strategy: FileEncodingStrategy,
    uploads: Uploads,
) -> tuple[dict[str, Any], bool]:
    """Return a copy of an input as JSON-like data, with its files replaced by URLs.

    Args:
        value: The input.
        transport: The transport of the client.
        strategy: `"url"` to upload its files, or `"base64"` to inline them.
        uploads: The uploads of the client.

    Returns:
        The copy, and whether it is so large that it should be encoded in a thread.

    Raises:
        ArgumentError: A file cannot be read, or is too large. The message names its place.
        ArgumentTypeError: A value cannot be sent.
    """
    if strategy != "url":
        _arguments.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    if value is None:
        return {}, False
    if not isinstance(value, Mapping):
        raise exceptions.ArgumentTypeError(
            "input", f"expected a mapping, got {type(value).__name__}"
        )
    copier = _Copier()
    try:
        encoded = copier.copy_input(value)
    except _TooMany:
        copier = _Copier(math.inf, copier.consumed)
        encoded = await in_thread(copier.copy_input, value)
    if copier.files:
        await _send_files(copier, transport, strategy, uploads)
    return encoded, copier.size > LARGE


async def _send_files(
    copier: _Copier, transport: Transport, strategy: FileEncodingStrategy, uploads: Uploads
) -> None:
    """Put URLs into the places of the files."""
    # Each object once, wherever it stands; and all are inspected before any is sent.
    files = {id(place.file): place for place in copier.files}
    opened: list[Source] = []

    async def inspect(place: FilePlace) -> Source:
        source = await source_of(place.file, place.path)
        opened.append(source)
        return source

    async def send(source: Source) -> str:
        if strategy == "url":
            return await uploads.url(transport, source)
        return await data_uri(source)

    try:
        sources = await gather_limited(inspect, list(files.values()), at_once=_AT_ONCE)
        urls = dict(zip(files, await gather_limited(send, sources, at_once=_AT_ONCE), strict=True))
    finally:
        for source in opened:
            source.release()
    for place in copier.files:
        url = place.container[place.key] = urls[id(place.file)]
        copier.size += len(url)


@attrs.frozen
class FilePlace:
    """The place of a file in an input."""

    container: Any
    """The list or dict of the copy."""
    key: Any
    """The index or key in it."""
    path: str
    """The path from the input, such as `input.images[2]`."""
    file: Any
    """The file, as the caller passed it."""


class _TooMany(Exception):
    """There are more items than should be copied on the event loop."""


@attrs.define(eq=False, repr=False)
class _Copier:
    """Copies an input as JSON-like data, and collects its files."""

    most: float = _MANY
    """How many items a list or mapping may have."""
    consumed: dict[int, tuple[Any, list[Any]]] = attrs.field(factory=dict)
    """The iterators so far, by id, with their items: they cannot be iterated over a second time."""
    files: list[FilePlace] = attrs.field(factory=list, init=False)
    size: int = attrs.field(default=0, init=False)
    """The approximate number of bytes of JSON."""

    def copy_input(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the copy of an input."""
        encoded: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError("input", f"keys must be strings, got {key!r}")
            try:
                self._place(encoded, key, item, "input")
            except RecursionError:
                raise exceptions.ArgumentError(
                    f"input.{key}", "it is nested too deeply, or contains itself"
                ) from None
        return encoded

    def _place(self, container: Any, key: Any, value: Any, path: str) -> None:
        """Put the copy of a value into its container; for a file, None until its URL is known."""
        kind = value.__class__
        if kind is str:
            self.size += len(value)
            container[key] = value
        elif kind is int or kind is bool or value is None:
            container[key] = value
        elif isinstance(value, Enum):
            self._place(container, key, value.value, path)
        else:
            path = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
            if kind is not float and kind is not list and kind is not dict and is_file_input(value):
                container[key] = None
                self.files.append(FilePlace(container, key, path, value))
            else:
                container[key] = self._copy(value, path)

    def _copy(self, value: Any, path: str) -> Any:
        self.size += 16
        match value:
            case float():
                if not math.isfinite(value):
                    raise exceptions.ArgumentError(path, f"{value!r} cannot be sent as JSON")
                return float(value)
            case str():
                self.size += len(value)
                return str.__str__(value)
            case int():
                return int(value)
            case datetime() | date() | time_of_day():
                return value.isoformat()
            case uuid.UUID():
                return str(value)
            case Mapping():
                return self._object(value.items(), path)
            case AbstractSet() | KeysView():
                return self._array(_in_order(value), path)
            case Iterator():
                if id(value) not in self.consumed:
                    self.consumed[id(value)] = value, list(value)
                return self._array(self.consumed[id(value)][1], path)
            case Sequence() | deque() | ValuesView():
                return self._array(value, path)
            case Record():
                if isinstance(value, File):
                    return value.urls.get or _unsendable(path, value, "it has no URL")
                _unsendable(path, value, "pass one of its fields, such as its output")
        if isinstance(value, type):
            _unsendable(path, value, "it is a class")
        if (url := url_of(value)) is not None:
            return url  # such as an output: the model can fetch it
        if attrs.has(type(value)):
            fields = [field.name for field in attrs.fields(type(value))]
            return self._object(((name, getattr(value, name)) for name in fields), path)
        if dataclasses.is_dataclass(value):
            fields = [field.name for field in dataclasses.fields(value)]
            return self._object(((name, getattr(value, name)) for name in fields), path)
        if callable(getattr(value, "tolist", None)):  # arrays and scalars of NumPy and others
            if (size := getattr(value, "size", 0)).__class__ is int and size > self.most:
                raise _TooMany
            found = value.tolist()
            return found if found is None or found.__class__ is bool else self._copy(found, path)
        return _unsendable(
            path, value, "pass numbers, strings, lists, dicts, bytes, a path or an open file"
        )

    def _object(self, items: Any, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in items:
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError(path, f"keys must be strings, got {key!r}")
            self._place(made, str.__str__(key), item, path)
        if len(made) > self.most:
            raise _TooMany
        return made

    def _array(self, values: Any, path: str) -> list[Any]:
        if len(values) > self.most:
            raise _TooMany
        items: list[Any] = [None] * len(values)
        for index, item in enumerate(values):
            self._place(items, index, item, path)
        return items


def _in_order(values: Any) -> list[Any]:
    """Return a set as a list, sorted if possible: equal sets are sent as equal lists."""
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _unsendable(path: str, value: object, reason: str) -> NoReturn:
    raise exceptions.ArgumentTypeError(path, f"a {type(value).__name__} cannot be sent ({reason})")


def url_of(value: object) -> str | None:
    """Return the URL of an object that is a file on the web, such as a `FileOutput`; else None."""
    if not hasattr(type(value), "read"):
        return None
    try:
        url = getattr(value, "url", None)
    except Exception:  # a property of somebody's class  # noqa: BLE001
        return None
    if isinstance(url, str) and url[:8].lower().startswith(("https://", "http://", "data:")):
        return url
    return None


def is_file_input(value: Any) -> bool:
    """Tell whether a value of an input is a file: bytes, a path, or an object that can be read."""
    if isinstance(value, (bytes, bytearray, memoryview, os.PathLike)):
        return True
    try:
        reads = callable(getattr(value, "read", None))
    except Exception:  # a property of somebody's class  # noqa: BLE001
        return False
    return reads and not isinstance(value, type) and url_of(value) is None
