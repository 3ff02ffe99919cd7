"""What the schema of a version says of its input and output."""

from __future__ import annotations

import inspect
import math
from decimal import Decimal
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async._verbs.schema import InputField, ModelSchema, is_below, read_schema


def document(
    inputs: dict[str, Any] | None = None,
    output: Any = None,
    required: list[str] | None = None,
    **components: Any,
) -> dict[str, Any]:
    """Return an OpenAPI document."""
    given = {"type": "object", "title": "Input", "properties": inputs or {}}
    if required:
        given["required"] = required
    schemas = {"Input": given, "Output": output or {"type": "string"}, **components}
    return {"openapi": "3.0.2", "components": {"schemas": schemas}}


def schema(*args: Any, cog: str | None = "0.16.7", **kwargs: Any) -> ModelSchema:
    """Return what is read of a document."""
    found = read_schema(document(*args, **kwargs), cog)
    assert found is not None
    return found


WRITER = schema(
    {
        "image": {"type": "string", "format": "uri", "title": "Image", "x-order": 3},
        "max_tokens": {
            "type": "integer",
            "default": 128,
            "minimum": 1,
            "maximum": 4096,
            "x-order": 2,
        },
        "style": {
            "allOf": [{"$ref": "#/components/schemas/style"}],
            "default": "plain",
            "description": "Tone",
            "x-order": 1,
        },
        "prompt": {"type": "string", "description": "What to write", "x-order": 0},
        "temperature": {"type": "number", "default": 0.5, "maximum": 2, "x-order": 4},
        "raw": {"type": "boolean", "default": False, "deprecated": True, "x-order": 5},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "x-order": 6},
        "seed": {"type": "integer", "nullable": True, "x-order": 7},
        "extra": {"type": "object", "x-order": 8},
        "images": {
            "type": "array",
            "items": {"type": "string", "format": "uri"},
            "default": [],
            "x-order": 9,
        },
        "anything": {"x-order": 10},
    },
    {
        "type": "array",
        "items": {"type": "string"},
        "x-cog-array-type": "iterator",
        "x-cog-array-display": "concatenate",
    },
    ["prompt"],
    style={"type": "string", "title": "style", "enum": ["plain", "formal"]},
)


# -- Inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minimum", "maximum", "shown"),
    [
        (0, 10_000_000, "from 0 to 10000000"),
        (0, 18446744073709551615, "from 0 to 18446744073709551615"),
        (0.0, 1e7, "from 0 to 10000000"),
        (-1.5, 0.30000000000000004, "from -1.5 to 0.3"),
        (1e-07, None, "1e-07 or more"),
        (None, 1e300, "1e+300 or less"),
        (None, math.inf, "inf or less"),
    ],
)
def test_bounds_are_readable(minimum: float | None, maximum: float | None, shown: str) -> None:
    """Whole numbers are shown in full, others in short."""
    assert InputField("x", "number", minimum=minimum, maximum=maximum).bounds == shown


def test_the_order_of_inputs() -> None:
    """Inputs are in the order of the arguments of the model's code."""
    assert list(WRITER.inputs)[:5] == ["prompt", "style", "max_tokens", "image", "temperature"]


def test_signature() -> None:
    """Types, defaults and choices are those of the schema."""
    signature = WRITER.signature(Path | str, bytes)
    parameters = signature.parameters
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    assert parameters["prompt"].default is inspect.Parameter.empty
    assert {name: p.annotation for name, p in parameters.items()} == {
        "prompt": str,
        "style": Literal["plain", "formal"],
        "max_tokens": int,
        "image": Path | str | None,
        "temperature": float,
        "raw": bool,
        "tags": list[str] | None,
        "seed": int | None,
        "extra": dict[str, Any] | None,
        "images": list[Path | str],
        "anything": Any,
    }
    assert parameters["style"].default == "plain"
    assert parameters["image"].default is None
    assert signature.return_annotation is str


def test_description() -> None:
    """People see names, types, defaults, bounds, choices and descriptions."""
    text = WRITER.described()
    for part in (
        "prompt: str, required\n        What to write",
        "style: 'plain' | 'formal' = 'plain'\n        Tone",
        "max_tokens: int = 128, from 1 to 4096",
        "temperature: float = 0.5, 2 or less",
        "image: file\n",
        "raw: bool = False, deprecated",
        "tags: list of str",
        "Output:\n    text, piece by piece",
    ):
        assert part in text


GOOD: list[dict[str, Any]] = [
    {},
    {"style": "formal", "max_tokens": 1, "temperature": 2, "raw": True, "seed": None},
    {"max_tokens": 5.0, "temperature": 1, "tags": ["a"], "extra": {"x": [1]}},
    {"image": Path("x.png")},
    {"image": b"x"},
    {"image": BytesIO(b"x")},
    {"image": "https://example.com/x.png"},
    {"image": "data:,x"},
    {"image": "gs://bucket/x"},
    {"images": [Path("x"), "https://example.com/x"]},
    {"tags": ()},
    {"anything": object()},
]


@pytest.mark.parametrize("given", GOOD)
def test_good_inputs(given: dict[str, Any]) -> None:
    """What the model takes passes."""
    assert WRITER.problems({"prompt": "x", **given}) == []


BAD: list[tuple[dict[str, Any], str, str, bool]] = [
    ({"promt": "x"}, "promt", "did you mean 'prompt'", True),
    ({"zzzzz": 1}, "zzzzz", "there are 'prompt', 'style'", True),
    ({"style": "formall"}, "style", "did you mean 'formal'", False),
    ({"style": 3}, "style", "got 3", True),
    ({"max_tokens": "12"}, "max_tokens", "expected int, got '12'", True),
    ({"max_tokens": True}, "max_tokens", "expected int, got True", True),
    ({"max_tokens": 1.5}, "max_tokens", "expected int, got 1.5", True),
    ({"max_tokens": 0}, "max_tokens", "out of bounds: from 1 to 4096", False),
    ({"temperature": 2.1}, "temperature", "2 or less", False),
    ({"raw": 1}, "raw", "expected bool, got 1", True),
    ({"raw": None}, "raw", "cannot be None", True),
    ({"tags": "ab"}, "tags", "expected list of str", True),
    ({"tags": ["a", "long"]}, "tags[1]", "3 characters or fewer", False),
    ({"image": "x.png"}, "image", r"pathlib.Path", False),
    ({"image": r"C:\x.png"}, "image", r"pathlib.Path", False),
    ({"images": ["https://x/y", "x.png"]}, "images[1]", "pathlib.Path", False),
    ({"extra": [1]}, "extra", "expected object", True),
    ({"prompt": Decimal(1)}, "prompt", "expected str", True),
]


@pytest.mark.parametrize(("given", "name", "text", "is_type"), BAD)
def test_bad_inputs(given: dict[str, Any], name: str, text: str, is_type: bool) -> None:
    """Each problem names its input, and says what would be right."""
    (problem,) = WRITER.problems({"prompt": "x", **given})
    assert problem.name == name
    assert text in problem.text
    assert problem.is_type is is_type


def test_missing_inputs() -> None:
    """What is required has to be given, though perhaps not yet known."""
    (problem,) = WRITER.problems({})
    assert (problem.name, problem.is_type) == ("prompt", True)
    later = object()
    assert WRITER.problems({"prompt": later, "image": later}, lambda v: v is later) == []
    assert WRITER.problems({"prompt": "x", "tags": [later]}, lambda v: v is later) == []


def test_enumerations_as_values() -> None:
    """A member of an enumeration is its value."""

    class Style(Enum):
        FORMAL = "formal"
        ODD = "odd"

    assert WRITER.problems({"prompt": "x", "style": Style.FORMAL}) == []
    assert len(WRITER.problems({"prompt": "x", "style": Style.ODD})) == 1


def test_a_schema_without_inputs_forbids_nothing() -> None:
    """What is not known is not checked."""
    assert schema({}).problems({"a": 1}) == []


# -- Variants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "node",
    [
        {"$ref": "#/components/schemas/kind"},
        {"allOf": [{"$ref": "#/components/schemas/kind"}]},
        {"anyOf": [{"$ref": "#/components/schemas/kind"}, {"type": "null"}]},
        {"type": "string", "enum": ["a", "b"]},
        {"type": ["string", "null"], "enum": ["a", "b"]},
    ],
)
def test_forms_of_choices(node: dict[str, Any]) -> None:
    """Choices are found behind references, in unions with `null`, and in place."""
    found = schema({"kind": node}, kind={"type": "string", "enum": ["a", "b"]})
    assert found.inputs["kind"].choices == ("a", "b")
    assert found.inputs["kind"].nullable is ("anyOf" in node or isinstance(node.get("type"), list))


def test_names_that_python_does_not_allow() -> None:
    """Inputs whose names cannot be parameters are inputs, but not in the signature."""
    found = schema({"class": {"type": "string"}, "top-p": {"type": "number"}, "a": {}})
    assert list(found.signature(str, bytes).parameters) == ["a"]
    assert found.problems({"class": "x", "top-p": 1.0}) == []


def test_circular_references() -> None:
    """A schema that contains itself is read all the same."""
    loop = {"$ref": "#/components/schemas/loop"}
    tree = {
        "type": "object",
        "properties": {"next": {"$ref": "#/components/schemas/tree"}, "file": URI},
    }
    found = schema({"a": loop}, {"$ref": "#/components/schemas/tree"}, loop=loop, tree=tree)
    value: dict[str, Any] = {"file": "u"}
    assert found.convert({"next": value, "file": "v"}, str.upper, lambda v: v) == {
        "next": {"file": "U"},
        "file": "V",
    }
    found.signature(str, bytes)
    found.described()


def test_nothing_known() -> None:
    """Documents that say nothing are none."""
    documents: list[object] = [
        None,
        {},
        [],
        "x",
        {"components": {}},
        {"components": {"schemas": {}}},
    ]
    for nothing in documents:
        assert read_schema(nothing, None) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "enum",
                    "allOf",
                    "anyOf",
                    "items",
                    "properties",
                    "$ref",
                    "format",
                    "default",
                    "minimum",
                    "description",
                    "x-order",
                    "required",
                    "nullable",
                    "additionalProperties",
                ]
            ),
            inner
            | st.sampled_from(["string", "array", "object", "uri", "#/components/schemas/Input"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json, _json, _json)
def test_any_document_can_be_read(inputs: Any, output: Any, value: Any) -> None:
    """Whatever stands in a document, reading it and using it breaks nothing."""
    components = {"Input": inputs, "Output": output}
    found = read_schema({"components": {"schemas": components}}, "0.1")
    if found is not None:
        found.signature(str, bytes)
        found.described()
        found.problems({"a": value, "type": value})
        found.convert(value, str.upper, lambda v: v)
        found.convert_item(value, str.upper, lambda v: v)


# -- Output ----------------------------------------------------------------------------------------

URI = {"type": "string", "format": "uri"}


def _file(url: str) -> tuple[str]:
    return (url,)


def _guess(value: Any) -> Any:
    return ["guess", value]


@pytest.mark.parametrize(
    ("node", "value", "expected"),
    [
        ({"type": "string"}, "https://x/y", "https://x/y"),
        (URI, "https://x/y", ("https://x/y",)),
        ({"type": "array", "items": URI}, ["a", "b"], [("a",), ("b",)]),
        ({"type": "array", "items": {"type": "string"}}, ["https://x"], ["https://x"]),
        (
            {"type": "object", "properties": {"a": URI, "b": {"type": "string"}}},
            {"a": "u", "b": "v", "c": 1},
            {"a": ("u",), "b": "v", "c": ["guess", 1]},
        ),
        (
            {"type": "object", "additionalProperties": URI},
            {"a": "u"},
            {"a": ("u",)},
        ),
        ({"anyOf": [URI, {"type": "null"}]}, "u", ("u",)),
        ({"anyOf": [URI, {"type": "integer"}]}, "u", ["guess", "u"]),
        ({}, "u", ["guess", "u"]),
        ({"type": "integer"}, 3, ["guess", 3]),
    ],
)
def test_conversion(node: dict[str, Any], value: Any, expected: Any) -> None:
    """`format: uri` makes files, plain strings stay text, and what is not said is guessed."""
    assert schema({}, {**node, "title": "Output"}).convert(value, _file, _guess) == expected


def test_pieces_of_text_are_joined() -> None:
    """Only those of a model that says so, and only if they are text."""
    assert WRITER.convert([" a", "\n", "b"], _file, _guess) == " a\nb"
    assert WRITER.convert(["a", 1], _file, _guess) == ["a", 1]
    plain = schema({}, {"type": "array", "items": {"type": "string"}})
    assert plain.convert(["a", "b"], _file, _guess) == ["a", "b"]


@pytest.mark.parametrize(
    ("items", "text", "expected"),
    [
        ({"type": "string"}, "12", "12"),
        (URI, "u", ("u",)),
        ({"type": "integer"}, "12", ["guess", 12]),
        ({"type": "boolean"}, "true", ["guess", True]),
        ({"type": "object", "properties": {"f": URI}}, '{"f": "u"}', {"f": ("u",)}),
        ({"type": "object"}, "no json", "no json"),
    ],
)
def test_items_of_events(items: dict[str, Any], text: str, expected: Any) -> None:
    """The text of an event is an item of the output's type."""
    found = schema({}, {"type": "array", "items": items, "x-cog-array-type": "iterator"})
    assert found.convert_item(text, _file, _guess) == expected


# -- Versions of Cog -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "below"),
    [
        ("0.3.8", True),
        ("0.3", True),
        ("0.1.3+shimmed", True),
        ("v0.3.8", True),
        ("0.3.9rc1", True),
        ("0.3.9-beta.2", True),
        ("0.3.9.dev1", True),
        ("0.3.9", False),
        ("0.3.9.0", False),
        ("0.3.9+local.1", False),
        ("0.3.9.post1", False),
        ("0.3.9.post1.dev2", False),
        ("0.3.9-1", False),
        ("0.10.0", False),
        ("1!0.1", False),
        ("0.16.7", False),
        ("dev", False),
        ("", False),
        ("0.3.8-gabcdef!", False),
        (None, False),
    ],
)
def test_old_versions_of_cog(version: str | None, below: bool) -> None:
    """Versions below 0.3.9, in the order of PEP 440, do not mark iterators: arrays are such."""
    assert is_below(version, (0, 3, 9)) is below
    found = schema({}, {"type": "array", "items": {"type": "string"}}, cog=version)
    assert found.iterates is below
    assert not schema({}, {"type": "string"}, cog=version).iterates


def test_marked_iterators() -> None:
    """From then on, the marker decides."""
    assert WRITER.iterates
    assert WRITER.concatenates


# -- Secrets -----------------------------------------------------------------------------------

KEY = {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}
NAMED = {"$ref": "#/components/schemas/Key"}


@pytest.mark.parametrize(
    "node",
    [
        KEY,
        {"type": "string", "x-cog-secret": True},
        {"type": ["string", "null"], "format": "password"},
        NAMED,
        {"allOf": [NAMED], "description": "A key."},
        {"allOf": [{"type": "string"}, KEY]},
        {"anyOf": [NAMED, {"type": "null"}]},
        {"anyOf": [{"type": "integer"}, KEY]},
        {"type": "array", "items": NAMED},
        {"type": "array", "prefixItems": [{"type": "string"}, KEY]},
        {"type": "object", "properties": {"user": {"type": "string"}, "key": KEY}},
        {"type": "object", "additionalProperties": {"anyOf": [NAMED, {"type": "null"}]}},
        {"$ref": "#/components/schemas/Tree"},
    ],
)
def test_secrets_wherever_they_stand(node: dict[str, Any]) -> None:
    """An input is secret if any part of its schema is."""
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#/components/schemas/Tree"}, "key": NAMED},
    }
    plain = {"type": "object", "properties": {"format": {"type": "string", "default": "password"}}}
    given = {"type": "object", "properties": {"key": node, "plain": plain}}
    schemas = {"Input": given, "Key": KEY, "Tree": tree}
    found = read_schema({"components": {"schemas": schemas}}, "0.16.0")
    assert found is not None
    assert found.secrets == {"key"}
