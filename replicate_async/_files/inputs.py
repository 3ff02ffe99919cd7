"""Inputs of models as JSON, with their files uploaded or inlined."""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections import UserString, deque
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from datetime import time as time_of_day
from enum import Enum
from itertools import islice
from typing import Any, Final

import attrs

from .. import _arguments, exceptions
from .._concurrency import gather_limited
from .._http.call import LARGE
from .._http.transport import Transport
from .._threads import in_thread
from ..types import File, FileEncodingStrategy, Record
from . import holders
from .refusals import is_url, reason_against, unsendable
from .sources import Source, source_of
from .uploads import Uploads, data_uri

_AT_ONCE: Final = 16
"""Files of one input that are inspected or uploaded at a time."""

_MAX_ITEMS_ON_LOOP: Final = 5000
"""Items of one list or mapping above which the input is copied in a thread."""

_MAX_ITEMS: Final = 10**6
"""Maximum number of items that are read from an iterator, since one that does not end would take all memory."""


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

    max_items: float = _MAX_ITEMS_ON_LOOP
    """How many items a list or mapping may have."""
    consumed: dict[int, tuple[Any, list[Any]]] = attrs.field(factory=dict)
    """The iterators so far, by id, with their items: they cannot be iterated over a second time."""
    files: list[FilePlace] = attrs.field(factory=list, init=False)
    size: int = attrs.field(default=0, init=False)
    """The approximate number of bytes of JSON."""
    _around: dict[int, str] = attrs.field(factory=dict, init=False)
    """The lists and mappings around the current value, by id, with their paths."""

    def copy_input(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the copy of an input."""
        encoded: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError("input", f"keys must be strings, got {key!r}")
            try:
                self._place(encoded, key, item, "input")
            except RecursionError:
                raise exceptions.ArgumentError(f"input.{key}", "it is nested too deeply") from None
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
            if kind is float or kind is list or kind is dict:
                container[key] = self._copy(value, path)
            elif (url := url_of(value)) is not None:
                container[key] = url  # the model can fetch it
            elif is_file_input(value):
                container[key] = None
                self.files.append(FilePlace(container, key, path, value))
            else:
                container[key] = self._copy(value, path)

    def _copy(self, value: Any, path: str) -> Any:
        self.size += 16
        match value:
            case float():
                if not math.isfinite(value):
                    raise exceptions.ArgumentError(
                        path,
                        f"{float(value)!r} cannot be sent as JSON: pass a number, or leave it out",
                    )
                return float(value)
            case str() | UserString():
                self.size += len(value)
                return str.__str__(value) if isinstance(value, str) else str(value)
            case int():
                return int(value)
            case datetime() | date() | time_of_day():
                if value != value:  # as NaT, which is a datetime
                    unsendable(path, value)
                return value.isoformat()
            case uuid.UUID():
                return str(value)
            case Mapping():
                return self._nested(value, path, lambda: self._object(value.items(), path))
            case AbstractSet() | KeysView():
                return self._nested(value, path, lambda: self._array(_in_order(value), path))
            case Iterator():
                return self._array(self._items_of(value, path), path)
            case tuple() if is_url(type(value)):
                unsendable(path, value)
            case Sequence() | deque() | ValuesView():
                return self._nested(value, path, lambda: self._array(value, path))
            case Record():
                if isinstance(value, File):
                    return value.urls.get or unsendable(path, value, "it has no URL")
                unsendable(path, value, "pass one of its fields, such as its output")
        if isinstance(value, type):
            unsendable(path, value)
        if (names := _field_names(value)) is not None:
            items = [(name, getattr(value, name)) for name in names]
            return self._nested(value, path, lambda: self._object(items, path))
        if (reason := reason_against(value)) is not None:
            unsendable(path, value, reason)
        if callable(getattr(value, "tolist", None)):  # arrays and scalars of NumPy and others
            if (size := getattr(value, "size", 0)).__class__ is int and size > self.max_items:
                raise _TooMany
            found = value.tolist()
            if type(found) is type(value) or isinstance(found, bytes):
                unsendable(path, value)
            return found if found is None or found.__class__ is bool else self._copy(found, path)
        return unsendable(path, value)

    def _nested(self, value: Any, path: str, copy: Callable[[], Any]) -> Any:
        """Return the copy of a value that has parts, unless it contains itself."""
        if id(value) in self._around:
            raise exceptions.ArgumentError(
                path, f"this is {self._around[id(value)]} again, which contains itself"
            )
        self._around[id(value)] = path
        try:
            return copy()
        finally:
            del self._around[id(value)]

    def _items_of(self, values: Iterator[Any], path: str) -> list[Any]:
        """Return the items of an iterator, which are read once."""
        if id(values) not in self.consumed:
            items = list(islice(values, _MAX_ITEMS + 1))
            if len(items) > _MAX_ITEMS:
                raise exceptions.ArgumentError(
                    path, f"the {type(values).__name__} yields more than {_MAX_ITEMS} items"
                )
            if items and isinstance(items[0], bytes):
                unsendable(
                    path,
                    values,
                    'it yields bytes: for one file, pass b"".join(...); for a file of each, pass list(...)',
                )
            self.consumed[id(values)] = values, items
        return self.consumed[id(values)][1]

    def _object(self, items: Any, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in items:
            if not isinstance(key, str):
                raise exceptions.ArgumentTypeError(path, f"keys must be strings, got {key!r}")
            self._place(made, str.__str__(key), item, path)
        if len(made) > self.max_items:
            raise _TooMany
        return made

    def _array(self, values: Any, path: str) -> list[Any]:
        if len(values) > self.max_items:
            raise _TooMany
        items: list[Any] = [None] * len(values)
        for index, item in enumerate(values):
            self._place(items, index, item, path)
        return items


def _field_names(value: Any) -> list[str] | None:
    """Return the names of the fields of an attrs object or a dataclass; None for anything else."""
    if attrs.has(type(value)):
        return [field.name for field in attrs.fields(type(value))]
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return None


def _in_order(values: Any) -> list[Any]:
    """Return a set as a list, sorted if possible: equal sets are sent as equal lists."""
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def url_of(value: object) -> str | None:
    """Return the URL of an output file; None for any other value."""
    return str(getattr(value, "url")) if isinstance(value, holders.ModelFile) else None  # noqa: B009


def is_file_input(value: Any) -> bool:
    """Return whether a value of an input is a file that has to be sent: bytes, a path, or an object that can be read."""
    return not isinstance(value, holders.ModelFile) and holders.is_file(value)
