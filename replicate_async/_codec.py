"""JSON to objects: one cattrs converter, strict about identity and lenient about all else.

A field without a default is essential: without it there is no object (`ValueError`). A field with a
default falls back to it when it is missing, `null` or of another type than expected, so that a new or
changed detail of the API never costs a paid result.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from .types import Record

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]

_logger = logging.getLogger("replicate_async")


def decode_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: This is no JSON in UTF-8 (or -16, -32), or nested beyond what can be read.
    """
    try:
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
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def structure(value: object, cls: type[T]) -> T:
    """Make an object of *cls* from decoded JSON.

    Raises:
        ValueError: It lacks what identifies such an object.
    """
    try:
        made: T = _converter.structure(value, cls)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"this is no {cls.__name__}: {error!r}") from error
    return made


def parse_datetime(text: str) -> datetime:
    """Return the aware datetime of an RFC 3339 timestamp, nanoseconds cut (HTTP API, section 1.6).

    Raises:
        ValueError: It is no such timestamp.
    """
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


# -- Hooks: what to do with the value of a field ----------------------------------------------


def _essential(kind: type) -> Hook:
    if attrs.has(kind):
        return lambda value, _: _converter.structure(value, kind)

    def hook(value: Any, _: Any) -> Any:
        if value.__class__ is not kind:
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return hook


def _lenient(kind: Any, default: Callable[[], Any]) -> Hook:
    """Return a hook that takes values of *kind*, and gives the default for all others."""
    kind = _without_none(kind)
    origin = get_origin(kind)
    if kind is datetime:
        return _lenient_datetime(default)
    if kind is float:
        return _lenient_class((float, int), default)
    if kind in (str, int, bool):
        return _lenient_class((kind,), default)
    if origin is dict:
        return _lenient_class((dict,), default)
    if origin is list:
        (item,) = get_args(kind)
        return _lenient_list(item, default)
    if attrs.has(kind):
        return _lenient_object(kind, default)
    return _anything


def _anything(value: Any, _: Any) -> Any:
    return value


def _lenient_class(classes: tuple[type, ...], default: Callable[[], Any]) -> Hook:
    # `__class__ is` and not isinstance: a bool is no number here, and it is the fast way.
    first, last = classes[0], classes[-1]

    def hook(value: Any, _: Any) -> Any:
        if value.__class__ is first or value.__class__ is last:
            return value
        return _odd(value, default)

    return hook


def _lenient_datetime(default: Callable[[], Any]) -> Hook:
    parse = datetime.fromisoformat

    def hook(value: Any, _: Any) -> Any:
        try:
            parsed = parse(value)
        except (TypeError, ValueError):
            return _odd(value, default)
        return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)

    return hook


def _lenient_list(item: Any, default: Callable[[], Any]) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        if value.__class__ is not list:
            return _odd(value, default)
        if item is str:
            return [entry for entry in value if entry.__class__ is str]
        made: list[Any] = []
        for entry in value:
            try:
                made.append(_converter.structure(entry, item))
            except (KeyError, TypeError, ValueError, AttributeError):
                _odd(entry, default)
        return made

    return hook


def _lenient_object(kind: type, default: Callable[[], Any]) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        if value.__class__ is not dict:
            return _odd(value, default)
        try:
            return _converter.structure(value, kind)
        except (KeyError, TypeError, ValueError, AttributeError):
            return _odd(value, default)

    return hook


def _odd(value: Any, default: Callable[[], Any]) -> Any:
    if value is not None and _logger.isEnabledFor(logging.DEBUG):
        _logger.debug("a field of the API has an unexpected value: %.100r", value)
    return default()


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        rest = [member for member in get_args(kind) if member is not NoneType]
        # Unions of a literal and `str` (open enumerations) are strings on the wire.
        return rest[0] if len(rest) == 1 else str
    return kind


# -- The converter -----------------------------------------------------------------------------


def _object_hook(cls: type) -> Hook:
    attrs.resolve_types(cls)
    overrides: dict[str, Any] = {}
    for field in attrs.fields(cls):
        if not field.init or field.metadata.get("wire") is False:
            overrides[field.name] = override(omit=True)
        elif field.default is attrs.NOTHING:
            overrides[field.name] = override(struct_hook=_essential(field.type or object))
        else:
            default = _default(field)
            overrides[field.name] = override(struct_hook=_lenient(field.type, default))
    make: Callable[[Any, Any], Any] = make_dict_structure_fn(
        cls,
        _converter,
        _cattrs_detailed_validation=False,
        _cattrs_forbid_extra_keys=False,
        **overrides,
    )
    if not issubclass(cls, Record):
        return make

    def hook(value: Any, kind: Any) -> Any:
        made = make(value, kind)
        made._raw = value
        return made

    return hook


def _default(field: attrs.Attribute[Any]) -> Callable[[], Any]:
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class in disguise
        factory: Callable[[], Any] = default.factory  # type: ignore[union-attr]
        return factory
    return lambda: default


_converter = cattrs.Converter(detailed_validation=False)
_converter.register_structure_hook_factory(attrs.has, _object_hook)
