"""JSON beyond the limits of Python: long integers, and any depth. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final, NamedTuple

CHUNK: Final = 512
"""Digits that Python converts under any `sys.set_int_max_str_digits`, whose lowest limit is 640."""

MAX_DIGITS: Final = 100_000
"""Digits of the longest integer that is read and written exactly, in some 15 ms: time grows faster than the length."""

_BITS_PER_DIGIT: Final = 3.3219


def to_text(
    value: object,
    *,
    ascii_only: bool = True,
    indent: int | None = None,
    sort_keys: bool = False,
    separators: tuple[str, str] | None = None,
    default: Callable[[Any], object] | None = None,
) -> str:
    """Return a value as JSON, as `json.dumps` does; integers may be long, and the nesting deep.

    Args:
        value: The value. NaN and infinities are written as Python writes and reads them.
        ascii_only: Whether to write other characters, lone surrogates among them, as escapes.
        indent: Spaces of each level, for people; None: one line.
        sort_keys: Whether to sort the keys of objects.
        separators: Separator of items, and of keys and values.
        default: Returns what to write for an object that JSON cannot represent.

    Raises:
        TypeError: The value contains an object that JSON cannot represent.
        ValueError: It contains itself, or an integer of more than 100,000 digits.
    """
    if separators is None:
        separators = (", " if indent is None else ",", ": ")
    try:
        return json.dumps(
            value,
            ensure_ascii=ascii_only,
            indent=indent,
            sort_keys=sort_keys,
            separators=separators,
            default=default,
        )
    except (RecursionError, ValueError):
        writer = _Writer(ascii_only, indent, sort_keys, separators, default)
        return "".join(writer.pieces(value))


def shown(value: object) -> str:
    """Return the `repr` of a value, or its JSON if it contains a long integer or is nested too deeply for that."""
    try:
        return repr(value)
    except (RecursionError, ValueError):
        try:
            return to_text(value, ascii_only=False, default=_shown_object)
        except (RecursionError, ValueError, TypeError):
            return f"<{type(value).__name__}>"


def _shown_object(value: object) -> str:
    try:
        return repr(value)
    except (RecursionError, ValueError):
        return f"<{type(value).__name__}>"


PLAIN_TREES: Final[Mapping[type, Callable[[Any], Any]]] = {dict: dict, list: list}


def mapped(
    value: object,
    change: Callable[[Any], Any],
    trees: Mapping[type, Callable[[Any], Any]] = PLAIN_TREES,
) -> Any:
    """Return a copy of a tree with its leaves changed. Models may nest their outputs deeper than Python can recurse.

    Args:
        value: The tree.
        change: Returns what stands for a leaf.
        trees: The types of lists and dicts in it, with what copies them. An object of any other type is a leaf.
    """
    root = [value]
    containers: list[Any] = [root]
    for container in containers:  # which grows
        entries = container.items() if isinstance(container, dict) else enumerate(container)
        for key, item in entries:
            copier = trees.get(type(item))
            if copier is None:
                container[key] = change(item)
            else:
                container[key] = copied = copier(item)
                containers.append(copied)
    return root[0]


def digits_of(number: int) -> str:
    """Return an integer in decimal, however long it is.

    Raises:
        ValueError: It has more than 100,000 digits.
    """
    try:
        return int.__repr__(number)
    except ValueError:
        length = int(number.bit_length() / _BITS_PER_DIGIT) + 2
        if length > MAX_DIGITS + 2:
            raise ValueError(f"an integer of more than {MAX_DIGITS} digits") from None
        digits = _split(abs(number), length).lstrip("0")
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"an integer of more than {MAX_DIGITS} digits") from None
        return f"-{digits}" if number < 0 else digits


def _split(number: int, length: int) -> str:
    """Return the digits of a number, with zeros in front."""
    if length <= CHUNK:
        return int.__repr__(number).zfill(length)
    low = length // 2
    high, rest = divmod(number, 10**low)
    return _split(high, length - low) + _split(rest, low)


class _Container(NamedTuple):
    """A list or dict that is being written."""

    id: int
    items: Iterator[tuple[str, Any]]
    """Its remaining entries, each with the text before it."""
    end: str
    """The text after the last entry."""


class _Writer:
    """Writes JSON with a stack of its own instead of Python's."""

    def __init__(
        self,
        ascii_only: bool,
        indent: int | None,
        sort_keys: bool,
        separators: tuple[str, str],
        default: Callable[[Any], object] | None,
    ) -> None:
        self._quoted = encode_basestring_ascii if ascii_only else encode_basestring
        self._indent = indent
        self._sort_keys = sort_keys
        self._between, self._colon = separators
        self._default = default

    def pieces(self, root: object) -> Iterator[str]:
        """Yield the text in pieces."""
        around = [_Container(0, iter([("", root)]), "")]
        """The container that is being written, after those that contain it."""
        path: set[int] = set()
        """Their IDs."""
        while around:
            current = around[-1]
            for before, item in current.items:
                value = item
                yield before
                while not isinstance(value, (str, int, float, list, tuple, dict, type(None))):
                    if self._default is None:
                        kind = type(value).__name__
                        raise TypeError(f"Object of type {kind} is not JSON serializable")
                    value = self._default(value)
                if not isinstance(value, (list, tuple, dict)):
                    yield self._scalar(value)
                    continue
                brackets = "{}" if isinstance(value, dict) else "[]"
                if not value:
                    yield brackets
                    continue
                if id(value) in path:
                    raise ValueError("Circular reference detected")
                depth = len(around)
                end = self._line(depth - 1) + brackets[1]
                around.append(_Container(id(value), self._items(value, depth), end))
                path.add(id(value))
                yield brackets[0]
                break
            else:
                yield current.end
                path.discard(current.id)
                around.pop()

    def _line(self, depth: int) -> str:
        return "" if self._indent is None else "\n" + " " * (self._indent * depth)

    def _items(self, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
        """Yield the entries of a list or dict, each with the text before it."""
        first = self._line(depth)
        later = self._between + first
        if not isinstance(value, dict):
            for index, item in enumerate(value):
                yield (later if index else first), item
            return
        entries = sorted(value.items()) if self._sort_keys else value.items()
        for index, (key, item) in enumerate(entries):
            text = key if isinstance(key, str) else self._scalar(key)
            yield (later if index else first) + self._quoted(text) + self._colon, item

    def _scalar(self, value: object) -> str:
        match value:
            case str():
                return self._quoted(value)
            case None | bool() | float():
                return json.dumps(value)
            case int():
                return digits_of(value)
        raise TypeError(f"keys must be str, int, float, bool or None, not {type(value).__name__}")
