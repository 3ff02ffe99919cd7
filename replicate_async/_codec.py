"""JSON to objects with cattrs: strict about identity, lenient about everything else.

A field without a default identifies its object: without it there is no object (`ValueError`). A field with a
default falls back to it when it is missing, `null` or of another type than declared: a new or changed
detail of the API never costs a paid result.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import is_mapping, is_sequence
from cattrs.gen import make_dict_structure_fn, override

from ._json import CHUNK, MAX_DIGITS, to_text
from .types import Record

T = TypeVar("T")
_Hook = Callable[[Any, Any], Any]

_logger = logging.getLogger("replicate_async")
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_ASCII_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

_MAX_ERROR = 2000
"""Characters of an error that is neither a text nor has a message."""

_MAX_INTEGER: Final = 10**18
"""Upper limit of counts, sizes and codes, exclusive: Python does not print integers of more than 4300 digits."""


class NestedTooDeeplyError(ValueError):
    """A JSON text is nested more deeply than this version of Python can read."""


def decode_json(body: bytes | bytearray | str) -> Any:
    """Return the value of a JSON text.

    Integers of up to 100,000 digits are exact, whatever `sys.set_int_max_str_digits` says. Longer ones become
    infinity, as too large floats do.

    Raises:
        ValueError: The body is not JSON in UTF-8, UTF-16 or UTF-32, or it is nested too deeply.
    """
    try:
        try:
            return json.loads(body)
        except json.JSONDecodeError:
            raise
        except ValueError:  # an integer of more digits than `int` reads
            return json.loads(body, parse_int=_parse_int)
    except RecursionError:
        raise NestedTooDeeplyError("JSON nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error


def _parse_int(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        if len(text.lstrip("-")) > MAX_DIGITS:
            return float(text)
        return -_parse_digits(text[1:]) if text[0] == "-" else _parse_digits(text)


def _parse_digits(digits: str) -> int:
    if len(digits) <= CHUNK:
        return int(digits)
    low = len(digits) // 2
    value: int = _parse_digits(digits[:-low]) * 10**low + _parse_digits(digits[-low:])
    return value


def encode_json(value: object) -> bytes:
    """Return a value as compact JSON in UTF-8.

    Raises:
        TypeError: The value contains an object that JSON cannot represent.
        ValueError: The value contains a NaN, an infinity, an integer of more than 100,000 digits or a reference to
            itself, or it is nested too deeply.
    """
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can represent as an escape only
        return _ASCII_ENCODER.encode(value).encode()
    except RecursionError:
        raise ValueError("nested too deeply for JSON") from None
    except ValueError:
        # The cause is a long integer, which `to_text` writes, a reference to itself, for which it raises, or a NaN.
        text = to_text(value, separators=(",", ":"))
        if not _is_json(text):
            raise
        return text.encode()


def _is_json(text: str) -> bool:
    """Return whether a text has no NaN and no infinity, which are no JSON."""
    found: list[str] = []
    json.loads(text, parse_int=len, parse_constant=found.append)
    return not found


def error_text(value: object) -> str | None:
    """Return the `error` of an answer as text; None if there is none.

    It is a text, or an object such as `{"code": "E1001", "message": "Out of memory"}`, whose parts are kept.
    """
    while (
        isinstance(value, dict) and isinstance(inner := value.get("error"), (str, dict)) and inner
    ):
        value = inner
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        message = next(
            (
                text
                for key in ("message", "detail", "title")
                if isinstance(text := value.get(key), str) and text
            ),
            None,
        )
        code = error_code(value)
        if message is not None:
            return message if code is None or code in message else f"{message} ({code})"
        if code is not None and len(value) == 1:
            return code
    try:
        return encode_json(value).decode()[:_MAX_ERROR]
    except ValueError:  # nested too deeply, or an infinity
        return repr(type(value))


def error_code(value: object) -> str | None:
    """Return the code in the `error` of an answer, if it is an object with one."""
    code = None
    while code is None and isinstance(value, dict):
        code, value = value.get("code"), value.get("error")
    if isinstance(code, int) and not isinstance(code, bool):
        return str(code) if abs(code) < _MAX_INTEGER else None
    return code if isinstance(code, str) and code else None


def structure(value: object, cls: type[T]) -> T:
    """Make an object of a class from decoded JSON.

    Raises:
        ValueError: A field that identifies the object is missing or of another type.
    """
    try:
        return _converter.structure(value, cls)
    except _INVALID as error:
        raise ValueError(f"not a valid {cls.__name__}: {error}") from error


def structure_all(values: Iterable[object], cls: type[T]) -> list[T]:
    """Make a list of objects of a class from decoded JSON.

    Raises:
        ValueError: In one of them, a field that identifies the object is missing or of another type.
    """
    hook = _converter.get_structure_hook(cls)
    try:
        return [hook(value, cls) for value in values]
    except _INVALID as error:
        raise ValueError(f"not a valid {cls.__name__}: {error}") from error


def structure_part(value: object, cls: type[T]) -> T:
    """Make an object of a class whose fields all have defaults; an invalid value gives the defaults."""
    try:
        return structure(value, cls)
    except ValueError as error:
        _logger.debug("%s", error)
        return cls()


def format_datetime(moment: datetime) -> str:
    """Return a time as the API takes it: RFC 3339, in UTC.

    Raises:
        OverflowError: Its time in UTC is not in the years 1 to 9999.
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_datetime(text: str) -> datetime:
    """Return the aware datetime of an RFC 3339 timestamp, cut to microseconds (:api:`identifiers`).

    A timestamp without an offset is in UTC.

    Raises:
        ValueError: The text is not such a timestamp, or its time in UTC is not in the years 1 to 9999.
    """
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=UTC)
    if parsed.year in (1, 9999):
        try:
            parsed.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"time out of range: {text!r}") from None
    return parsed


# -- The converter -----------------------------------------------------------------------------
#
# The hooks for the kinds of values are strict. The hook for a class makes those of its optional fields lenient.

_INVALID = (TypeError, ValueError)
"""Exceptions of hooks for values that do not fit."""

_converter = cattrs.Converter(detailed_validation=False)


def _expect(*kinds: type) -> _Hook:
    """Return a hook that accepts values of exactly these types: a bool is not an int."""

    def hook(value: Any, _: Any) -> Any:
        if value.__class__ in kinds:
            return value
        raise TypeError(f"unexpected {type(value).__name__}")

    return hook


def _expect_number(*kinds: type[int | float]) -> _Hook:
    """Return a hook that accepts numbers of these types, but no huge integers."""

    def hook(value: Any, _: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise TypeError(f"unexpected {type(value).__name__}")
        if isinstance(value, float) or abs(value) < _MAX_INTEGER:
            return value
        raise TypeError(f"unexpected {type(value).__name__}")

    return hook


_EXACT: dict[Any, tuple[type, ...]] = {str: (str,), float: (float,), bool: (bool,)}
"""For plain types of a field, the types of values that are taken as they are."""

_converter.register_structure_hook(str, _expect(str))
_converter.register_structure_hook(int, _expect_number(int))
_converter.register_structure_hook(float, _expect_number(float, int))
_converter.register_structure_hook(bool, _expect(bool))
_converter.register_structure_hook_func(is_mapping, _expect(dict))


@_converter.register_structure_hook
def _structure_datetime(value: Any, _: Any) -> datetime:
    return parse_datetime(value)


@_converter.register_structure_hook_factory(is_sequence)
def _list_hook(kind: Any, converter: cattrs.Converter) -> _Hook:
    """Return a hook for a list, which leaves invalid items out."""
    (item_kind,) = get_args(kind)
    structure_item = converter.get_structure_hook(item_kind)

    def hook(values: Any, _: Any) -> list[Any]:
        if values.__class__ is not list:
            raise TypeError(f"unexpected {type(values).__name__}")
        made = []
        for value in values:
            try:
                made.append(structure_item(value, item_kind))
            except _INVALID as error:
                _logger.debug("an item of a list is not valid: %.200s", error)
        return made

    return hook


@_converter.register_structure_hook_factory(attrs.has)
def _class_hook(cls: type, converter: cattrs.Converter) -> _Hook:
    """Return a hook for an attrs class. A record keeps the JSON that it is made of."""
    attrs.resolve_types(cls)
    overrides: dict[str, Any] = {
        field.name: override(struct_hook=_field_hook(field, converter))
        for field in attrs.fields(cls)
        if field.init
    }
    structure_fields: _Hook = make_dict_structure_fn(cls, converter, **overrides)
    is_record = issubclass(cls, Record)

    def hook(value: Any, _: Any) -> Any:
        if value.__class__ is not dict:
            raise TypeError(f"unexpected {type(value).__name__}")
        try:
            made = structure_fields(value, cls)
        except KeyError as error:
            raise ValueError(f"the field {error} is missing") from None
        if is_record:
            made._raw = value
        return made

    return hook


def _field_hook(field: attrs.Attribute[Any], converter: cattrs.Converter) -> _Hook:
    """Return a strict hook for a field without default, and a lenient hook for another one."""
    kind = _without_none(field.type)
    structure_value = converter.get_structure_hook(kind)
    default: Any = field.default

    def required(value: Any, _: Any) -> Any:
        try:
            return structure_value(value, kind)
        except _INVALID as error:
            raise ValueError(f"the field {field.name!r} is not valid: {error}") from None

    exact = _EXACT.get(kind, ())

    def optional(value: Any, _: Any) -> Any:
        if value.__class__ in exact:  # most are: saves a call for each field of each item of a list
            return value
        if value is not None:
            try:
                return structure_value(value, kind)
            except _INVALID as error:
                _logger.debug("the field %r is not valid: %.200s", field.name, error)
        return make_default()

    if default is attrs.NOTHING:
        return required
    is_factory = isinstance(default, attrs.Factory)  # type: ignore[arg-type]  # a class, typed as a function
    make_default = default.factory if is_factory else lambda: default
    return optional


def _without_none(kind: Any) -> Any:
    """Return the type of values other than `null`; a union of literals and `str` is `str`."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    rest = [member for member in get_args(kind) if member is not NoneType]
    return rest[0] if len(rest) == 1 else str
