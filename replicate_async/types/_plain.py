"""Objects as plain JSON, for web frameworks and `json.dumps`.

pydantic, which FastAPI builds upon, asks classes for the two methods that begin with `__get_pydantic`, and objects whose type
was not declared for `__pydantic_serializer__`. Nothing of it is imported before it asks.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, Union, get_args, get_origin, get_type_hints

import attrs


class _Serializer:
    """The attribute by which pydantic serializes what is declared as `Any`, as it does its own models."""

    def __get__(self, value: object, owner: type[Any]) -> Any:
        try:
            # An optional package, which is there if pydantic asks.
            from pydantic_core import SchemaSerializer, core_schema
        except ImportError as error:
            raise AttributeError("pydantic is not installed") from error
        return SchemaSerializer(
            core_schema.any_schema(
                serialization=core_schema.plain_serializer_function_ser_schema(to_json)
            )
        )


class Plain:
    """An object that has a form in JSON, and a JSON schema that describes it."""

    __slots__ = ()

    __pydantic_serializer__: ClassVar[_Serializer] = _Serializer()

    @abstractmethod
    def _to_plain(self) -> Any:
        """Return the object as JSON."""

    @classmethod
    def _plain_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of the objects of this class."""
        return {"type": "object", **described(cls)}

    @classmethod
    def _from_plain(cls, value: Any) -> Any:
        """Return an object for the value of a field: an object of this class.

        Raises:
            ValueError: It cannot be one.
        """
        if isinstance(value, cls):
            return value
        raise ValueError(f"expected a {cls.__name__}, got {type(value).__name__}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Return the schema by which pydantic validates and serializes. Only pydantic calls it."""
        # An optional package, which is there if this is called.
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls._from_plain,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value._to_plain()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema, which OpenAPI pages show. Only pydantic calls it."""
        return cls._plain_schema()


def to_json(value: Any) -> Any:
    """Return an object of this package as JSON, for `json.dumps(..., default=to_json)`.

    A file becomes its URL; a prediction, model or other object of the API its JSON; a time ISO 8601; a path and an
    exception their text.

    Args:
        value: An object that `json.dumps` does not know.

    Returns:
        What JSON can represent, or contains such objects in turn.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(value, Plain):
        return value._to_plain()
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    kind = type(value)
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        if isinstance(value, Exception):
            return error_to_plain(value)
        if attrs.has(kind):
            return fields_of(value)
    raise TypeError(f"an object of type {kind.__name__} is not JSON serializable")


def fields_of(value: Any) -> dict[str, Any]:
    """Return the public fields of an object of attrs."""
    return {
        field.name: getattr(value, field.name)
        for field in attrs.fields(type(value))
        if not field.name.startswith("_")
    }


def error_to_plain(error: Exception) -> dict[str, str]:
    """Return an exception as JSON."""
    return {"type": type(error).__name__, "message": str(error)}


def tree_to_plain(value: Any) -> Any:
    """Return a tree with objects in it as JSON; what JSON cannot represent is named by its class."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): tree_to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tree_to_plain(item) for item in value]
    try:
        return tree_to_plain(to_json(value))
    except TypeError:
        return f"<{type(value).__name__}>"


# -- Schemas -----------------------------------------------------------------------------------

_SCHEMAS: Final[Mapping[Any, Mapping[str, Any]]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    dict: {"type": "object"},
    list: {"type": "array", "items": {}},
    datetime: {"type": "string", "format": "date-time"},
    NoneType: {"type": "null"},
}


def described(cls: type[Any]) -> dict[str, Any]:
    """Return the title and description of a class."""
    first = (inspect.getdoc(cls) or "").partition("\n")[0].partition(" (:api:")[0]
    return {"title": cls.__name__, "description": first}


def schema_of_fields(cls: type[Any], **others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a class of attrs, with properties that are no fields."""
    hints = get_type_hints(cls)
    fields = [field for field in attrs.fields(cls) if not field.name.startswith("_")]
    properties = {field.name: _schema_of(hints[field.name]) for field in fields}
    required = [field.name for field in fields if field.default is attrs.NOTHING]
    schema = {"type": "object", **described(cls), "properties": {**properties, **others}}
    return {**schema, "required": required} if required else schema


def _schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a type; an empty one of a type that is not known."""
    if get_origin(kind) in (Union, UnionType):
        members = [_schema_of(member) for member in get_args(kind)]
        texts = [member for member in members if member.get("type") == "string"]
        if len(texts) == len(members):
            return {"type": "string"}
        return {"anyOf": members} if all(members) else {}
    origin = get_origin(kind) or kind
    if str(origin) == "typing.Literal":
        return {"type": "string"}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        origin = dict
    if isinstance(origin, type) and attrs.has(origin):
        return schema_of_fields(origin)
    return dict(_SCHEMAS.get(origin, {}))
