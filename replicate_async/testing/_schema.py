"""From the signatures of a version's functions to the OpenAPI document of :api:`version-schema`."""

from __future__ import annotations

import copy
import datetime
import enum
import math
import mimetypes
import pathlib
import re
import types
import typing
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Any, Literal, cast

import attrs

from ._authoring import (
    ASYNC_ITERATORS,
    ITERATORS,
    LISTS,
    SETS,
    AsyncConcatenateIterator,
    ConcatenateIterator,
    Constraints,
    OutputFile,
    Parameter,
    Signature,
    alternatives,
    constraints_in,
    is_enum,
    is_file,
    members_of,
    plain,
)
from ._validation import REFERENCE, Schema, resolved, type_name, violations


class Document:
    """The OpenAPI document of a version.

    Args:
        predict: The function that makes predictions.
        train: The function that trains; None if the version cannot be trained.
        cog_version: Version of Cog that the document appears to come from. Below 0.3.9, the markers of
            iterators are left out.

    Raises:
        TypeError: A hint or a limit cannot be expressed.
        ValueError: A default is not a valid input.
    """

    def __init__(self, predict: Signature, train: Signature | None, *, cog_version: str) -> None:
        trainable = train is not None
        self.components: dict[str, Schema] = _container_components(trainable=trainable)
        """The schemas by their names."""
        schemas = Schemas(self.components)
        self.components["Input"] = schemas.input(predict, "Input")
        output = self.components["Output"] = schemas.output(predict, "Output")
        if train is not None:
            self.components["TrainingInput"] = schemas.input(train, "TrainingInput")
            self.components["TrainingOutput"] = _training_output(
                schemas.output(train, "TrainingOutput")
            )
        item = resolved(output.get("items", output), self.components)
        self.output_is_file: bool = item.get("format") == "uri"
        """Whether the output is a file, or a list or iterator of files."""
        self.output_is_text: bool = (
            output.get("x-cog-array-display") == "concatenate"
            if output.get("type") == "array"
            else item.get("type") == "string" and not self.output_is_file
        )
        """Whether the output is a text, at once or in pieces."""
        if _is_below(cog_version, (0, 3, 9)):
            output.pop("x-cog-array-type", None)
            output.pop("x-cog-array-display", None)
        self.openapi: dict[str, Any] = {
            "openapi": "3.0.2",
            "info": {"title": "Cog", "version": "0.1.0"},
            "paths": _container_paths(trainable=trainable),
            "components": {"schemas": self.components},
        }
        """The whole document."""
        for name in ("Input", "TrainingInput") if trainable else ("Input",):
            self._check_defaults(name)

    def _check_defaults(self, component: str) -> None:
        for name, schema in self.components[component]["properties"].items():
            if "default" not in schema:
                continue
            for violation in violations(schema, schema["default"], self.components, (name,)):
                raise ValueError(f"default of {name}: {violation.description}")


# --- values ----------------------------------------------------------------------------------------


def to_json(value: object) -> object:
    """Return *value* as JSON in which every path has become an `OutputFile`.

    Raises:
        TypeError: A part of it cannot be expressed in JSON.
        ValueError: A number is infinite or not a number.
        OSError: A file cannot be read.
    """
    if isinstance(value, enum.Enum):
        return to_json(value.value)
    if value is None or isinstance(value, bool | int | str | OutputFile):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the output contains {value}, which JSON cannot express")
        return value
    if isinstance(value, pathlib.PurePath):
        path = pathlib.Path(value)
        return OutputFile(path.read_bytes(), path.name, _media_type(path.name))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {
            str(to_json(key)): to_json(item)
            for key, item in cast("Mapping[object, object]", value).items()
        }
    if isinstance(value, list | tuple | AbstractSet):
        return [to_json(item) for item in cast("Collection[object]", value)]
    kind = type(value)
    if attrs.has(kind):
        return {field.name: to_json(getattr(value, field.name)) for field in attrs.fields(kind)}
    if is_dataclass(kind):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclass_fields(kind)}
    hint = "; return an OutputFile" if isinstance(value, bytes | bytearray) else ""
    raise TypeError(f"the output contains a value of type {kind.__name__}, which is not JSON{hint}")


def _media_type(name: str) -> str | None:
    # Not strict: Python 3.11 and 3.12 count WebP among the unofficial types.
    return mimetypes.guess_type(f"./{name}", strict=False)[0]


# --- schemas ---------------------------------------------------------------------------------------

# Components with a fixed role, whose names no choice or class of a model may take.
_RESERVED = frozenset(
    {
        "HTTPValidationError", "Input", "Output", "PredictionRequest", "PredictionResponse",
        "Status", "TrainingInput", "TrainingOutput", "TrainingRequest", "TrainingResponse",
        "ValidationError", "WebhookEvent",
    }
)  # fmt: skip
_TYPES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


class Schemas:
    """Makes schemas from hints, and keeps the components that they refer to."""

    def __init__(self, components: dict[str, Schema] | None = None) -> None:
        self.components: dict[str, Schema] = {} if components is None else components
        self._names: dict[Any, str] = {}

    def of(self, hint: Any, name: str | None = None, *, constrain: bool = True) -> Schema:
        """Return a new schema for *hint*.

        Args:
            hint: A type hint. What JSON cannot express counts as anything.
            name: The name of the input, which becomes that of its component if it is a choice.
            constrain: Whether calls of `Input` in the annotations of the hint apply.
        """
        if constrain:
            schema = self.of(hint, name, constrain=False)
            for constraints in constraints_in(hint):
                schema = self._constrained(schema, constraints, name)
            return schema
        members_and_none = alternatives(hint)
        members = [member for member in members_and_none if member is not types.NoneType]
        if len(members) < len(members_and_none):
            if len(members) > 1:
                schema = {"anyOf": [self.of(member, name) for member in members]}
            else:
                schema = self.of(members[0], name, constrain=False) if members else {}
            return {**_wrapped(schema), "nullable": True} if schema else {}
        if len(members) > 1:
            return {"anyOf": [self.of(member, name) for member in members]}
        return self._of_one(plain(hint), name)

    def input(self, signature: Signature, title: str) -> Schema:
        """Return a new schema for the input of a function."""
        schema: Schema = {"type": "object", "title": title}
        required = [each.name for each in signature.parameters if each.required]
        if required:
            schema["required"] = required
        schema["properties"] = {
            each.name: self._parameter(each, order)
            for order, each in enumerate(signature.parameters)
        }
        if signature.takes_all:
            schema["additionalProperties"] = self.of(signature.rest) or True
        return schema

    def output(self, signature: Signature, title: str) -> Schema:
        """Return a new schema for what a function returns or yields."""
        if not signature.iterates:
            return {**resolved(self.of(signature.result), self.components), "title": title}
        origin = typing.get_origin(signature.result) or signature.result
        known = (*ITERATORS, *ASYNC_ITERATORS, Iterable, AsyncIterable)
        arguments = typing.get_args(signature.result) if origin in known else ()
        schema: Schema = {
            "type": "array",
            "items": self.of(arguments[0] if arguments else Any),
            "x-cog-array-type": "iterator",
        }
        if origin in (ConcatenateIterator, AsyncConcatenateIterator):
            schema["x-cog-array-display"] = "concatenate"
        return {**schema, "title": title}

    def _of_one(self, hint: Any, name: str | None) -> Schema:
        origin = typing.get_origin(hint) or hint
        arguments = typing.get_args(hint)
        if origin is Literal:
            return self._choice([to_json(value) for value in arguments], name)
        if is_enum(hint):
            return self._choice([to_json(member) for member in hint], name or hint.__name__)
        if is_file(hint):
            return {"type": "string", "format": "uri"}
        if origin in LISTS:
            # The length of a tuple is left out: OpenAPI 3.0 has no means to say it for each item.
            schema: Schema = {"type": "array"}
            schema["items"] = self.of(arguments[0], name) if arguments else {}
            return {**schema, "uniqueItems": True} if origin in SETS else schema
        if origin in (dict, Mapping):
            values = self.of(arguments[1], name) if arguments else {}
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        if isinstance(hint, type) and hint in _TYPES:
            return {"type": _TYPES[hint]}
        return self._object(hint)

    def _constrained(self, schema: Schema, constraints: Constraints, name: str | None) -> Schema:
        """Return *schema* with what a call of `Input` adds to it."""
        result = dict(schema)
        kind = schema.get("type")

        def add(key: str, value: object, *kinds: str) -> None:
            if value is None:
                return
            if kind is not None and kind not in kinds:
                raise TypeError(f"{name or 'output'}: {key} does not apply to {kind}")
            result[key] = value

        is_list = kind == "array"
        add("minimum", constraints.ge, "integer", "number")
        add("maximum", constraints.le, "integer", "number")
        add("minItems" if is_list else "minLength", constraints.min_length, "string", "array")
        add("maxItems" if is_list else "maxLength", constraints.max_length, "string", "array")
        add("pattern", constraints.regex, "string")
        if constraints.regex is not None:
            re.compile(constraints.regex)
        if constraints.choices is not None:
            choice = self._choice(list(constraints.choices), name)
            nullable = {"nullable": True} if result.get("nullable") else {}
            if is_list:
                result["items"] = choice
            else:
                result = {**_wrapped(choice), **nullable}
        if constraints.description is not None:
            result = {**_wrapped(result), "description": constraints.description}
        if constraints.deprecated is not None:
            result = {**_wrapped(result), "deprecated": constraints.deprecated}
        return result

    def _parameter(self, parameter: Parameter, order: int) -> Schema:
        schema = self.of(parameter.hint, parameter.name, constrain=False)
        for constraints in parameter.constraints:
            schema = self._constrained(schema, constraints, parameter.name)
        schema = _wrapped(schema)
        result: Schema = {key: schema[key] for key in ("type", "allOf") if key in schema}
        if "allOf" not in schema:
            result["title"] = _title(parameter.name)
        result |= schema
        if parameter.default is None:
            result["nullable"] = True
        elif not parameter.required and not isinstance(parameter.default, pathlib.PurePath):
            result["default"] = copy.deepcopy(to_json(parameter.default))
        result["x-order"] = order
        return result

    def _choice(self, values: Sequence[object], name: str | None) -> Schema:
        kinds = {type_name(value) for value in values}
        schema: Schema = {"type": kinds.pop()} if len(kinds) == 1 else {}
        schema["enum"] = list(values)
        if name is None:
            return schema
        component = {**schema, "title": name, "description": "An enumeration."}
        return {"$ref": REFERENCE + self._add(name, component)}

    def _object(self, kind: Any) -> Schema:
        members = members_of(kind)
        if members is None:
            return {}
        if kind not in self._names:
            properties: dict[str, Schema] = {}
            component: Schema = {"type": "object", "title": kind.__name__}
            component["properties"] = properties
            # Known before its members are, for one of them may be of the same kind.
            self._names[kind] = self._add(kind.__name__, component)
            for member, (hint, _) in members.items():
                schema = self.of(hint)
                is_reference = "$ref" in schema or "allOf" in schema
                properties[member] = {
                    **schema,
                    **({} if is_reference else {"title": _title(member)}),
                }
            required = [member for member, (_, is_required) in members.items() if is_required]
            if required:
                component["required"] = required
        return {"$ref": REFERENCE + self._names[kind]}

    def _add(self, name: str, component: Schema) -> str:
        """Add a component and return its name: *name*, unless another one has it already."""
        while self.components.get(name, component) != component or name in _RESERVED:
            name += "_"
        self.components[name] = component
        return name


def _title(name: str) -> str:
    return name.replace("_", " ").title()


def _wrapped(schema: Schema) -> Schema:
    """Return a schema that may get keys of its own: beside `$ref` there must be none."""
    return {"allOf": [schema]} if "$ref" in schema else schema


# --- the rest of the document ----------------------------------------------------------------------


def _training_output(schema: Schema) -> Schema:
    """Return the component `TrainingOutput`: a file alone stands for an object with `weights`."""
    if schema.get("format") != "uri":
        return schema
    weights = {"type": "string", "format": "uri", "title": "Weights"}
    return {"type": "object", "properties": {"weights": weights}, "title": "TrainingOutput"}


def _is_below(version: str, limit: tuple[int, ...]) -> bool:
    """Return whether *version* comes before the release *limit* in the order of PEP 440.

    A local part is ignored; a version that does not parse is not below.
    """
    parsed = re.fullmatch(
        r"v?(\d+(?:\.\d+)*)([-_.]?(?:a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?\d*)*"
        r"(?:[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:\+[a-z0-9.]+)?",
        version.strip().lower(),
    )
    if parsed is None:
        return False
    release = tuple(int(part) for part in parsed[1].split("."))
    width = max(len(release), len(limit))
    padded, bound = (part + (0,) * (width - len(part)) for part in (release, limit))
    return padded < bound or (padded == bound and parsed[2] is not None)


def _reference(name: str) -> Schema:
    return {"$ref": REFERENCE + name}


def _container_components(*, trainable: bool) -> dict[str, Schema]:
    """Return the components that every container's document has."""

    def choice(name: str, *values: str) -> Schema:
        schema = {"type": "string", "title": name, "enum": list(values)}
        return {**schema, "description": "An enumeration."}

    components: dict[str, Schema] = {
        "Input": {},
        "Output": {},
        "Status": choice("Status", "starting", "processing", "succeeded", "canceled", "failed"),
        "WebhookEvent": choice("WebhookEvent", "start", "output", "logs", "completed"),
        "ValidationError": {
            "type": "object",
            "title": "ValidationError",
            "required": ["loc", "msg", "type"],
            "properties": {
                "loc": {
                    "type": "array",
                    "title": "Location",
                    "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                },
                "msg": {"type": "string", "title": "Message"},
                "type": {"type": "string", "title": "Error Type"},
            },
        },
        "HTTPValidationError": {
            "type": "object",
            "title": "HTTPValidationError",
            "properties": {
                "detail": {
                    "type": "array",
                    "title": "Detail",
                    "items": _reference("ValidationError"),
                }
            },
        },
    }
    kinds = [("Prediction", "")] + ([("Training", "Training")] if trainable else [])
    for kind, prefix in kinds:
        components[f"{kind}Request"] = {
            "type": "object",
            "title": f"{kind}Request",
            "properties": {
                "id": {"type": "string", "title": "Id"},
                "input": _reference(f"{prefix}Input"),
                "webhook": {"type": "string", "title": "Webhook", "format": "uri"},
                "webhook_events_filter": {
                    "type": "array",
                    "title": "Webhook Events Filter",
                    "items": _reference("WebhookEvent"),
                },
                "created_at": {"type": "string", "title": "Created At", "format": "date-time"},
                "output_file_prefix": {"type": "string", "title": "Output File Prefix"},
            },
        }
        components[f"{kind}Response"] = {
            "type": "object",
            "title": f"{kind}Response",
            "properties": {
                "id": {"type": "string", "title": "Id"},
                "version": {"type": "string", "title": "Version"},
                "input": _reference(f"{prefix}Input"),
                "output": _reference(f"{prefix}Output"),
                "status": _reference("Status"),
                "error": {"type": "string", "title": "Error"},
                "logs": {"type": "string", "title": "Logs", "default": ""},
                "metrics": {"type": "object", "title": "Metrics"},
                "created_at": {"type": "string", "title": "Created At", "format": "date-time"},
                "started_at": {"type": "string", "title": "Started At", "format": "date-time"},
                "completed_at": {"type": "string", "title": "Completed At", "format": "date-time"},
            },
        }
    return components


def _container_paths(*, trainable: bool) -> dict[str, Any]:
    """Return the paths that a container serves."""
    anything: Schema = {}

    def operation(
        summary: str, result: Schema, *, body: Schema | None = None, parameter: str | None = None
    ) -> dict[str, Any]:
        def content(schema: Schema) -> dict[str, Any]:
            return {"content": {"application/json": {"schema": schema}}}

        made: dict[str, Any] = {"summary": summary}
        if parameter is not None:
            schema = {"type": "string", "title": _title(parameter)}
            made["parameters"] = [
                {"in": "path", "name": parameter, "required": True, "schema": schema}
            ]
        if body is not None:
            made["requestBody"] = content(body)
        made["responses"] = {"200": {"description": "Successful Response", **content(result)}}
        if body is not None or parameter is not None:
            error = content(_reference("HTTPValidationError"))
            made["responses"]["422"] = {"description": "Validation Error", **error}
        return made

    paths: dict[str, Any] = {
        "/": {"get": operation("Root", anything)},
        "/health-check": {"get": operation("Healthcheck", anything)},
        "/shutdown": {"post": operation("Start Shutdown", anything)},
    }
    for kind in ("prediction", "training") if trainable else ("prediction",):
        request = _reference(f"{kind.title()}Request")
        response = _reference(f"{kind.title()}Response")
        parameter = f"{kind}_id"
        one = f"/{kind}s/{{{parameter}}}"
        verb = "Predict" if kind == "prediction" else "Train"
        paths[f"/{kind}s"] = {"post": operation(verb, response, body=request)}
        paths[one] = {
            "put": operation(f"{verb} Idempotent", response, body=request, parameter=parameter)
        }
        paths[f"{one}/cancel"] = {"post": operation("Cancel", anything, parameter=parameter)}
    return paths
