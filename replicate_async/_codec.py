"""JSON to objects: one cattrs converter, strict about identity and lenient about all else.

A field without a default is essential: without it there is no object (`ValueError`). A field with a
default falls back to it when it is missing, `null` or of another type than expected, so that a new or
changed detail of the API never costs a paid result.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin

import attrs

if TYPE_CHECKING:
    import cattrs

T = TypeVar("T")

_logger = logging.getLogger("replicate_async")


def _make_encoder() -> Callable[[object], str]:
    """Return what encodes JSON: the encoder in C, which `json` would make anew for each text."""
    usual = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
    )
    library: Any = json.encoder
    try:
        pieces = library.c_make_encoder(
            None, usual.default, library.encode_basestring, None, ":", ",", False, False, False
        )
        if "".join(pieces(["é", {"a": 1.5}], 0)) == '["é",{"a":1.5}]':
            return lambda value: "".join(pieces(value, 0))
    except (AttributeError, TypeError):
        pass  # it is no public name, so another Python may lack it
    return usual.encode


_encode = _make_encoder()
_decode = json.JSONDecoder().raw_decode


def decode_json(body: bytes | bytearray) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: This is no JSON in UTF-8 (or -16, -32), or nested beyond what can be read.
    """
    try:
        try:
            # As a string of UTF-8 that begins at once, which it nearly always is.
            text = body.decode()
            value, end = _decode(text)
            if end == len(text) or not text[end:].strip(" \t\r\n"):
                return value
        except ValueError:
            pass
        return json.loads(body)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error


def encode_json(value: object) -> bytes:
    """Return *value* as compact JSON in UTF-8.

    Raises:
        TypeError: There is something in it that JSON does not have.
        ValueError: There is a NaN, an infinity or a circle in it.
    """
    try:
        return _encode(value).encode()
    except RecursionError:
        raise ValueError("nested too deeply, or in a circle") from None
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can carry
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def flat_size(value: object) -> int | None:
    """Return about how long the JSON of an object without other objects in it is; None for all else."""
    if value is None:
        return 0
    if type(value) is not dict:
        return None
    size = 0
    for key, item in value.items():
        kind = item.__class__
        if key.__class__ is not str:
            return None
        if kind is str:
            size += len(item)
        elif kind is not int and kind is not bool and item is not None:
            return None
    return size


def structure(value: object, cls: type[T]) -> T:
    """Make an object of *cls* from decoded JSON.

    Raises:
        ValueError: It lacks what identifies such an object.
    """
    try:
        made: T = (_hooks.get(cls) or _hook_of(cls))(value, cls)
    except _BROKEN as error:
        raise ValueError(f"this is no {cls.__name__}: {error!r}") from error
    return made


def structure_all(values: Iterable[object], cls: type[T]) -> list[T]:
    """Make objects of *cls* from decoded JSON.

    Raises:
        ValueError: One of them lacks what identifies such an object.
    """
    hook = _hooks.get(cls) or _hook_of(cls)
    try:
        return [hook(value, cls) for value in values]
    except _BROKEN as error:
        raise ValueError(f"this is no {cls.__name__}: {error!r}") from error


def structure_part(value: object, cls: type[T]) -> T:
    """Make an object of *cls*, whose fields all have defaults; of anything unexpected, an empty one."""
    try:
        return structure(value, cls)
    except ValueError:
        return cls() if value is None else _odd(value, cls())


def parse_datetime(text: str) -> datetime:
    """Return the aware datetime of an RFC 3339 timestamp, nanoseconds cut (HTTP API, section 1.6).

    Raises:
        ValueError: It is no such timestamp.
    """
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


# -- The converter -----------------------------------------------------------------------------
#
# cattrs finds the hook for a class; the hook is a function that is written for the class, as cattrs and
# attrs do, too. Its own writing is needed for the leniency, at a cost near to that of the JSON itself:
# pages of a hundred predictions are structured on the event loop.


def _hook_for(cls: type) -> Callable[[Any, Any], Any]:
    """Write the function that makes an object of an attrs class from a JSON object."""
    attrs.resolve_types(cls)
    names: dict[str, Any] = {
        "cls": cls,
        "new": object.__new__,
        "odd": _odd,
        "parse": datetime.fromisoformat,
        "UTC": UTC,
        "BROKEN": _BROKEN,
    }
    lines = ["def structure(value, _):", "get = value.get", "made = new(cls)"]
    for number, field in enumerate(attrs.fields(cls)):
        target = f"made.{field.name}"
        if field.name == "_raw":
            lines.append(f"{target} = value")
            continue
        if field.default is attrs.NOTHING:
            lines += _essential(field, target, names, number)
            continue
        fallback = _fallback(field, names, number)
        if not field.init or field.metadata.get("wire") is False:
            lines.append(f"{target} = {fallback}")
            continue
        lines.append(f"v = get({field.name!r})")
        lines += _lenient(_without_none(field.type), target, fallback, names, number)
    lines.append("return made")
    source = "\n    ".join(lines)
    exec(compile(source, f"<structure {cls.__name__}>", "exec"), names)  # noqa: S102  (no input is in it)
    hook: Callable[[Any, Any], Any] = names["structure"]
    return hook


def _essential(
    field: attrs.Attribute[Any], target: str, names: dict[str, Any], number: int
) -> list[str]:
    kind = names[f"kind{number}"] = field.type
    if kind is not None and attrs.has(kind):
        names[f"make{number}"] = _converter().get_structure_hook(kind)
        return [f"{target} = make{number}(value[{field.name!r}], None)"]
    return [
        f"v = value[{field.name!r}]",
        f"if v.__class__ is not kind{number}: raise TypeError({field.name!r})",
        f"{target} = v",
    ]


def _fallback(field: attrs.Attribute[Any], names: dict[str, Any], number: int) -> str:
    """Return an expression for the default of a field."""
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, typed as a function
        names[f"default{number}"] = default.factory
        return f"default{number}()"
    names[f"default{number}"] = default
    return f"default{number}"


def _lenient(
    kind: Any, target: str, fallback: str, names: dict[str, Any], number: int
) -> list[str]:
    """Return lines that put the value `v` into its field, or the fallback if it does not fit."""
    otherwise = f"{fallback} if v is None else odd(v, {fallback})"
    # `__class__ is` and not isinstance: a bool is no number here, and it is the fast way.
    if kind in (str, int, bool):
        return [f"{target} = v if v.__class__ is {kind.__name__} else {otherwise}"]
    if kind is float:
        return [f"{target} = v if v.__class__ is float or v.__class__ is int else {otherwise}"]
    if get_origin(kind) is dict:
        return [f"{target} = v if v.__class__ is dict else {otherwise}"]
    if kind is datetime:
        return [
            f"if v is None: {target} = {fallback}",
            "else:",
            "    try:",
            "        v = parse(v)",
            f"        {target} = v if v.tzinfo is not None else v.replace(tzinfo=UTC)",
            f"    except (TypeError, ValueError): {target} = odd(v, {fallback})",
        ]
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        each = "[i for i in v if i.__class__ is str]"
        if item is not str:
            names[f"make{number}"] = _lenient_items(item)
            each = f"make{number}(v)"
        return [f"{target} = {each} if v.__class__ is list else {otherwise}"]
    if attrs.has(kind):
        names[f"make{number}"] = _converter().get_structure_hook(kind)
        return [
            f"if v.__class__ is not dict: {target} = {otherwise}",
            "else:",
            f"    try: {target} = make{number}(v, None)",
            f"    except BROKEN: {target} = odd(v, {fallback})",
        ]
    return [f"{target} = v"]


def _lenient_items(kind: type) -> Callable[[list[Any]], list[Any]]:
    make = _converter().get_structure_hook(kind)

    def items(values: list[Any]) -> list[Any]:
        made: list[Any] = []
        for value in values:
            try:
                made.append(make(value, kind))
            except _BROKEN:
                _odd(value, None)
        return made

    return items


def _odd(value: object, fallback: Any) -> Any:
    if _logger.isEnabledFor(logging.DEBUG):
        _logger.debug("a field of the API has an unexpected value: %.100r", value)
    return fallback


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        rest = [member for member in get_args(kind) if member is not NoneType]
        # Unions of literals and `str` (open enumerations) are strings on the wire.
        return rest[0] if len(rest) == 1 else str
    return kind


_hooks: dict[type, Callable[[Any, Any], Any]] = {}

_BROKEN = (KeyError, TypeError, ValueError, AttributeError)


def _hook_of(cls: type) -> Callable[[Any, Any], Any]:
    """Return what makes objects of a class."""
    found = _hooks.get(cls)
    if found is None:
        # A flat class needs no dispatch: the first result does not wait for cattrs to be loaded.
        made = _hook_for(cls) if _is_flat(cls) else _converter().get_structure_hook(cls)
        found = _hooks.setdefault(cls, made)
    return found


def _is_flat(cls: type) -> bool:
    """Tell whether an attrs class holds no others on the wire."""
    if not attrs.has(cls):
        return False
    attrs.resolve_types(cls)
    return not any(
        attrs.has(part)
        for field in attrs.fields(cls)
        if field.init and field.metadata.get("wire") is not False
        for part in (_without_none(field.type), *get_args(field.type))
    )


@lru_cache(maxsize=1)
def _converter() -> cattrs.Converter:
    """Return the converter that finds the hook of each class, and of what is in its fields."""
    import cattrs

    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook_factory(attrs.has, _hook_for)
    return converter
