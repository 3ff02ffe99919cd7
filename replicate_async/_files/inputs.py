"""Inputs of models as JSON: finding the files in them, and uploading or inlining them."""

from __future__ import annotations

import dataclasses
import logging
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

_logger = logging.getLogger("replicate_async")


_AT_ONCE: Final = 16
"""Uploads of one input at a time."""


_MANY: Final = 5000
"""Items of one list from which on a thread copies the input."""


async def encode_input(
    value: Mapping[str, Any] | None,
    transport: Transport,
    strategy: FileEncodingStrategy,
    uploads: Uploads,
) -> tuple[dict[str, Any], bool]:
    """Return an input as JSON-like data of its own, its files uploaded or inlined.

    With it, whether turning it into JSON takes so long that a thread should do it.

    Raises:
        ArgumentError: A file cannot be read, or is too large; the message names its key.
        ArgumentTypeError: Something in it cannot be sent.
    """
    if strategy != "url":
        _arguments.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    if value is None:
        return {}, False
    if not isinstance(value, Mapping):
        raise exceptions.ArgumentTypeError(
            "input", f"expected a mapping, got {type(value).__name__}"
        )
    walk = _Walk()
    try:
        encoded = walk.input(value)
    except _TooMuch:
        walk = _Walk(walk.used_up)
        encoded = await in_thread(walk.input, value)
    if walk.files:
        # Each object once, wherever it stands; and all of them are looked at before any is sent.
        files = {id(place.file): place for place in walk.files}
        sources = await gather_limited(
            lambda place: source_of(place.file, place.path), list(files.values()), at_once=_AT_ONCE
        )

        async def send(source: Source) -> str:
            if strategy == "url":
                return await uploads.url(transport, source)
            return await data_uri(source)

        urls = dict(zip(files, await gather_limited(send, sources, at_once=_AT_ONCE), strict=True))
        for place in walk.files:
            url = place.container[place.key] = urls[id(place.file)]
            walk.size += len(url)
    return encoded, walk.size > LARGE


@attrs.frozen
class _Place:
    """Where in an input there is a file."""

    container: Any
    key: Any
    path: str
    file: Any


class _TooMuch(Exception):
    """There is more than should be copied on the event loop."""


class _Walk:
    """Copies an input into JSON-like data, and notes its files and its size."""

    def __init__(self, used_up: dict[int, tuple[Any, list[Any]]] | None = None) -> None:
        self.files: list[_Place] = []
        self.size = 0
        """About how many bytes of JSON it will be."""
        self.used_up = used_up or {}
        """What iterators gave, in case that all is to be copied once more."""
        self._most = _MANY if used_up is None else math.inf

    def input(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the copy of a whole input."""
        encoded: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError("input", f"the key {key!r} is no string")
            try:
                self._place(encoded, key, item, "input")
            except RecursionError:
                raise exceptions.ArgumentError(
                    f"input.{key}", "it is nested too deeply, or contains itself"
                ) from None
        return encoded

    def _place(self, container: Any, key: Any, value: Any, path: str) -> None:
        """Put the copy of a value, or room for a file's URL, into its container."""
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
            if kind is not float and kind is not list and kind is not dict and is_file(value):
                container[key] = None
                self.files.append(_Place(container, key, path, value))
            else:
                container[key] = self._copy(value, path)

    def _copy(self, value: Any, path: str) -> Any:
        self.size += 16
        match value:
            case float():
                if not math.isfinite(value):
                    raise exceptions.ArgumentError(path, f"JSON has no {value!r}")
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
                if id(value) not in self.used_up:
                    self.used_up[id(value)] = value, list(value)
                return self._array(self.used_up[id(value)][1], path)
            case Sequence() | deque() | ValuesView():
                return self._array(value, path)
            case Record():
                if isinstance(value, File):
                    return value.urls.get or _unsendable(path, value, "it has no URL")
                _unsendable(path, value, "pass what is in it, such as its output")
        if isinstance(value, type):
            _unsendable(path, value, "it is a class")
        if (url := url_of(value)) is not None:
            return url  # a file that a model made: it is there already
        if attrs.has(type(value)):
            fields = [field.name for field in attrs.fields(type(value))]
            return self._object(((name, getattr(value, name)) for name in fields), path)
        if dataclasses.is_dataclass(value):
            fields = [field.name for field in dataclasses.fields(value)]
            return self._object(((name, getattr(value, name)) for name in fields), path)
        if callable(getattr(value, "tolist", None)):  # arrays and scalars of NumPy and its kin
            if (size := getattr(value, "size", 0)).__class__ is int and size > self._most:
                raise _TooMuch
            found = value.tolist()
            return found if found is None or found.__class__ is bool else self._copy(found, path)
        return _unsendable(
            path, value, "pass numbers, strings, lists, dicts, bytes, a path or an open file"
        )

    def _object(self, items: Any, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in items:
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError(path, f"the key {key!r} is no string")
            self._place(made, str.__str__(key), item, path)
        if len(made) > self._most:
            raise _TooMuch
        return made

    def _array(self, values: Any, path: str) -> list[Any]:
        if len(values) > self._most:
            raise _TooMuch
        items: list[Any] = [None] * len(values)
        for index, item in enumerate(values):
            self._place(items, index, item, path)
        return items


def _in_order(values: Any) -> list[Any]:
    """Return a set as a list, the same one for equal sets where its items can be compared."""
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _unsendable(path: str, value: object, reason: str) -> NoReturn:
    raise exceptions.ArgumentTypeError(path, f"a {type(value).__name__} cannot be sent ({reason})")


def url_of(value: object) -> str | None:
    """Return the URL of a file that is on the web already: a `FileOutput`, or what looks like one."""
    if not hasattr(type(value), "read"):
        return None
    try:
        url = getattr(value, "url", None)
    except Exception:  # a property of somebody's class  # noqa: BLE001
        return None
    if isinstance(url, str) and url[:8].lower().startswith(("https://", "http://", "data:")):
        return url
    return None


def is_file(value: Any) -> bool:
    """Tell whether a value is the content of a file, or leads to it."""
    if isinstance(value, (bytes, bytearray, memoryview, os.PathLike)):
        return True
    try:
        reads = callable(getattr(value, "read", None))
    except Exception:  # a property of somebody's class  # noqa: BLE001
        return False
    return reads and not isinstance(value, type) and url_of(value) is None
