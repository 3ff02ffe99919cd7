"""Checks of JSON values against the schema of a version, as the prediction service makes them.

Knows the subset of OpenAPI 3.0 that Cog writes. The texts are those of :api:`input-validation`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import attrs

Schema = dict[str, Any]
"""A JSON schema, decoded."""
REFERENCE = "#/components/schemas/"
"""Prefix of a reference to a component."""

Path = tuple[str, ...]
"""Keys and indices that lead to a value."""


@attrs.frozen
class Violation:
    """One entry of `invalid_fields` in :api:`input-validation`."""

    type: str
    """Kind of violation, for example `number_lte`."""
    field: str
    """Dotted path of the value: `input`, `input.width` or `input.tags.0`."""
    description: str
    """Human-readable description."""


def resolved(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    """Return *schema*, or the component that it refers to."""
    while "$ref" in schema:
        schema = components[schema["$ref"].removeprefix(REFERENCE)]
    return schema


def type_name(value: object) -> str:
    """Return the JSON type of *value* in the words of the prediction service."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def violations(
    schema: Schema, value: Any, components: Mapping[str, Schema], path: Path = ()
) -> Iterator[Violation]:
    """Yield what is wrong with a value.

    Args:
        schema: The schema to check against. Keys that it does not name are ignored.
        value: The JSON value.
        components: The schemas that references lead to.
        path: Keys and indices that lead from the input to the value.
    """
    schema = resolved(schema, components)
    if value is None and schema.get("nullable"):
        return
    given = type_name(value)
    expected = schema.get("type", given)
    if given != expected and (given, expected) != ("integer", "number"):
        text = f"Invalid type. Expected: {expected}, given: {given}"
        yield Violation("invalid_type", _field(path), text)
        return
    for part in schema.get("allOf", ()):  # how a choice is written; not an entry of its own
        yield from violations(part, value, components, path)
    any_of = schema.get("anyOf", ())
    if any_of and all(any(violations(part, value, components, path)) for part in any_of):
        text = "Must validate at least one schema (anyOf)"
        yield Violation("number_any_of", _field(path), text)
    if "enum" in schema and not _is_one_of(value, schema["enum"]):
        values = ", ".join(json.dumps(each, ensure_ascii=False) for each in schema["enum"])
        name = ".".join(path) or "(root)"
        text = f"{name} must be one of the following: {values}"
        yield Violation("enum", _field(path), text)
    if given == "object":
        yield from _object_violations(schema, cast("Mapping[str, Any]", value), components, path)
    elif given == "array":
        yield from _array_violations(schema, cast("Sequence[Any]", value), components, path)
    else:
        for kind, text in _scalar_problems(schema, value, given):
            yield Violation(kind, _field(path), text)


def _object_violations(
    schema: Schema, value: Mapping[str, Any], components: Mapping[str, Schema], path: Path
) -> Iterator[Violation]:
    for name in schema.get("required", ()):
        if name not in value:
            yield Violation("required", _field(path), f"{name} is required")
    properties: Mapping[str, Schema] = schema.get("properties", {})
    for name, part in properties.items():
        if name in value:
            yield from violations(part, value[name], components, (*path, name))
    others: Schema | bool | None = schema.get("additionalProperties")
    if isinstance(others, Mapping):
        for name in value:
            if name not in properties:
                yield from violations(others, value[name], components, (*path, name))


def _array_violations(
    schema: Schema, value: Sequence[Any], components: Mapping[str, Schema], path: Path
) -> Iterator[Violation]:
    items: Schema = schema.get("items", {})
    if items:
        for index, item in enumerate(value):
            yield from violations(items, item, components, (*path, str(index)))
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        text = f"Array must have at least {least} items"
        yield Violation("array_min_items", _field(path), text)
    if most is not None and len(value) > most:
        text = f"Array must have at most {most} items"
        yield Violation("array_max_items", _field(path), text)
    if schema.get("uniqueItems"):
        seen: dict[str, int] = {}
        for index, item in enumerate(value):
            first = seen.setdefault(json.dumps(item, sort_keys=True), index)
            if first != index:
                text = f"array items[{first},{index}] must be unique"
                yield Violation("unique", _field(path), text)
                return


def _scalar_problems(schema: Schema, value: Any, given: str) -> Iterator[tuple[str, str]]:
    if given == "string":
        length = len(value)
        if length < schema.get("minLength", 0):
            least = schema["minLength"]
            yield "string_gte", f"String length must be greater than or equal to {least}"
        if length > schema.get("maxLength", length):
            most = schema["maxLength"]
            yield "string_lte", f"String length must be less than or equal to {most}"
        if "pattern" in schema and re.search(schema["pattern"], value) is None:
            yield "pattern", f"Does not match pattern '{schema['pattern']}'"
        if schema.get("format") == "uri" and _URI.match(value) is None:
            yield "format", "Does not match format 'uri'"
    elif given in ("integer", "number"):
        # The checker writes numbers with at most ten digits.
        if value > schema.get("maximum", math.inf):
            yield "number_lte", f"Must be less than or equal to {schema['maximum']:.10g}"
        if value < schema.get("minimum", -math.inf):
            yield "number_gte", f"Must be greater than or equal to {schema['minimum']:.10g}"


_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\\\x00-\x1f\x7f]*\Z")


def _field(path: Path) -> str:
    return ".".join(("input", *path))


def _is_one_of(value: Any, choices: Sequence[Any]) -> bool:
    # True == 1 in Python, but not in JSON.
    return any(
        each == value and isinstance(each, bool) is isinstance(value, bool) for each in choices
    )
