"""A Python function as a model: schema, validation and execution."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import json
import math
import tempfile
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async.testing import (
    AsyncConcatenateIterator,
    ConcatenateIterator,
    Input,
    OutputFile,
    log,
)
from replicate_async.testing._execution import Code
from replicate_async.testing._validation import Violation

if TYPE_CHECKING:
    from decimal import Decimal

TEMPORARY = tempfile.gettempdir()
WAIT = 20.0  # seconds until a test gives up; nothing waits for them when it passes


class Recorder:
    """A prediction that keeps what its code does, and serves files from a mapping."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files: Mapping[str, bytes] = files or {}
        self.logs: str = ""
        self.items: list[object] = []

    async def fetch(self, url: str) -> bytes:
        """Return a file that the test has given."""
        await asyncio.sleep(0)
        return self.files[url]

    def log(self, text: str) -> None:
        """Keep the text."""
        self.logs += text

    async def emit(self, value: object) -> None:
        """Keep the item."""
        await asyncio.sleep(0)
        self.items.append(value)


class Colour(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Box:
    """A structure with a structure in it."""

    width: int
    colour: Colour = Colour.RED
    inner: Box | None = None


@dataclass
class Result:
    """A dataclass with a file in it."""

    file: Path
    scores: list[float] = field(default_factory=list[float])


class Answer(TypedDict):
    """A typed dictionary."""

    text: str
    image: Path


def schemas(code: Code) -> dict[str, Any]:
    """Return the components of the document of *code*."""
    components: dict[str, Any] = code.openapi_schema["components"]["schemas"]
    return components


def input_of(function: Callable[..., object]) -> dict[str, Any]:
    """Return the properties of the inputs of *function*."""
    properties: dict[str, Any] = schemas(Code(function))["Input"]["properties"]
    return properties


# Schema


def test_inputs_are_described_as_by_cog() -> None:
    """Hints, limits and defaults become properties in the order of the parameters."""

    def predict(
        prompt: Annotated[str, Input(description="What to write", min_length=1, max_length=9)],
        max_tokens: int = Input(default=128, ge=1, le=4096),
        scale: Annotated[float, Input(ge=0.5)] = 1,
        loud: bool = False,
        code: str = Input(default="a1", regex="^[a-z]"),
        old: Annotated[int, Input(deprecated=True)] = 1,
        anything: Any = None,
    ) -> str:
        return ""

    assert schemas(Code(predict))["Input"] == {
        "type": "object",
        "title": "Input",
        "required": ["prompt"],
        "properties": {
            "prompt": {
                "type": "string",
                "title": "Prompt",
                "description": "What to write",
                "minLength": 1,
                "maxLength": 9,
                "x-order": 0,
            },
            "max_tokens": {
                "type": "integer",
                "title": "Max Tokens",
                "default": 128,
                "minimum": 1,
                "maximum": 4096,
                "x-order": 1,
            },
            "scale": {
                "type": "number",
                "title": "Scale",
                "default": 1,
                "minimum": 0.5,
                "x-order": 2,
            },
            "loud": {"type": "boolean", "title": "Loud", "default": False, "x-order": 3},
            "code": {
                "type": "string",
                "title": "Code",
                "default": "a1",
                "pattern": "^[a-z]",
                "x-order": 4,
            },
            "old": {
                "type": "integer",
                "title": "Old",
                "default": 1,
                "deprecated": True,
                "x-order": 5,
            },
            "anything": {"title": "Anything", "nullable": True, "x-order": 6},
        },
    }


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Path, {"type": "string", "format": "uri"}),
        (list[Path], {"type": "array", "items": {"type": "string", "format": "uri"}}),
        (list, {"type": "array", "items": {}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (dict, {"type": "object"}),
        (dict[str, Any], {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (
            Annotated[list[Annotated[int, Input(ge=1)]], Input(max_length=3)],
            {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 3},
        ),
        (object, {}),
    ],
)
def test_hints_of_inputs(hint: Any, expected: dict[str, Any]) -> None:
    """Each kind of hint has its schema; what JSON cannot express may be anything."""

    def predict(value: Any) -> None: ...

    predict.__annotations__["value"] = hint
    assert input_of(predict)["value"] == {**expected, "title": "Value", "x-order": 0}


def test_what_may_be_none_is_nullable_and_not_required() -> None:
    """`| None` makes an input nullable and optional, with or without a default."""

    def predict(a: int | None, b: Colour | None, c: str | None = "x") -> None: ...

    schema = schemas(Code(predict))["Input"]
    assert "required" not in schema
    assert schema["properties"] == {
        "a": {"type": "integer", "title": "A", "nullable": True, "x-order": 0},
        "b": {"allOf": [{"$ref": "#/components/schemas/b"}], "nullable": True, "x-order": 1},
        "c": {"type": "string", "title": "C", "default": "x", "nullable": True, "x-order": 2},
    }


def test_choices_become_components() -> None:
    """Literals, enums and `choices` become components named after the input."""

    def predict(
        style: Literal["plain", "formal"] = "plain",
        colour: Colour = Colour.BLUE,
        size: int = Input(default=2, choices=[1, 2], description="How big"),
        tags: Sequence[Literal["a", "b"]] = ("a",),
        Status: Literal["on", "off"] = "on",  # noqa: N803 - the name is the point
    ) -> None: ...

    components = schemas(Code(predict))
    properties = components["Input"]["properties"]
    assert components["style"] == {
        "type": "string",
        "enum": ["plain", "formal"],
        "title": "style",
        "description": "An enumeration.",
    }
    assert components["colour"]["enum"] == ["red", "blue"]
    assert components["size"] == {
        "type": "integer",
        "enum": [1, 2],
        "title": "size",
        "description": "An enumeration.",
    }
    assert properties["style"] == {
        "allOf": [{"$ref": "#/components/schemas/style"}],
        "default": "plain",
        "x-order": 0,
    }
    assert properties["colour"]["default"] == "blue"
    assert properties["size"]["description"] == "How big"
    assert properties["tags"]["items"] == {"$ref": "#/components/schemas/tags"}
    assert "starting" in components["Status"]["enum"], "the container's own component stays"
    assert properties["Status"]["allOf"] == [{"$ref": "#/components/schemas/Status_"}]


def returning(hint: Any) -> Callable[..., object]:
    """Return a function with *hint* for its result."""

    def predict() -> None: ...

    predict.__annotations__["return"] = hint
    return predict


FILE = {"type": "string", "format": "uri"}
ITERATOR = {"type": "array", "x-cog-array-type": "iterator"}
TEXT = {**ITERATOR, "items": {"type": "string"}, "x-cog-array-display": "concatenate"}


@pytest.mark.parametrize(
    ("hint", "schema", "iterates", "is_text", "is_file"),
    [
        (str, {"type": "string"}, False, True, False),
        (str | None, {"type": "string", "nullable": True}, False, True, False),
        (int, {"type": "integer"}, False, False, False),
        (Path, FILE, False, False, True),
        (OutputFile, FILE, False, False, True),
        (list[Path], {"type": "array", "items": FILE}, False, False, True),
        (list[str], {"type": "array", "items": {"type": "string"}}, False, False, False),
        (Iterator[Path], {**ITERATOR, "items": FILE}, True, False, True),
        (AsyncIterator[int], {**ITERATOR, "items": {"type": "integer"}}, True, False, False),
        (Generator[str], {**ITERATOR, "items": {"type": "string"}}, True, False, False),
        (AsyncGenerator[str, None], {**ITERATOR, "items": {"type": "string"}}, True, False, False),
        (ConcatenateIterator[str], TEXT, True, True, False),
        (AsyncConcatenateIterator[str], TEXT, True, True, False),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, False, True, False),
        (Any, {}, False, False, False),
        (None, {}, False, False, False),
    ],
)
def test_hints_of_outputs(
    hint: Any, schema: dict[str, Any], iterates: bool, is_text: bool, is_file: bool
) -> None:
    """The return hint becomes `Output`, and says whether it grows, is a text or a file."""
    if hint == Generator[str]:
        hint = Generator[str, None, None]
    code = Code(returning(hint))
    assert schemas(code)["Output"] == {**schema, "title": "Output"}
    assert (code.iterates, code.output_is_text, code.output_is_file) == (iterates, is_text, is_file)


def test_structures_become_objects() -> None:
    """Classes of attrs, dataclasses and typed dictionaries become objects, nested by reference."""
    box = schemas(Code(returning(Box)))
    assert box["Output"] == {
        "type": "object",
        "title": "Output",
        "required": ["width"],
        "properties": {
            "width": {"type": "integer", "title": "Width"},
            "colour": {"$ref": "#/components/schemas/Colour"},
            "inner": {"allOf": [{"$ref": "#/components/schemas/Box"}], "nullable": True},
        },
    }
    assert box["Colour"]["enum"] == ["red", "blue"]
    result = schemas(Code(returning(Result)))["Output"]
    assert (result["required"], result["properties"]["file"]["format"]) == (["file"], "uri")
    answer = schemas(Code(returning(Iterator[Answer])))
    assert answer["Output"]["items"] == {"$ref": "#/components/schemas/Answer"}
    assert answer["Answer"]["required"] == ["text", "image"]


def test_generators_without_hints_iterate() -> None:
    """A function that yields grows its output, whatever its hints say."""

    def plain():  # type: ignore[no-untyped-def]
        yield 1

    async def asynchronous():  # type: ignore[no-untyped-def]
        yield 1

    for function in (plain, asynchronous):
        code = Code(function)
        assert code.iterates
        assert schemas(code)["Output"] == {**ITERATOR, "items": {}, "title": "Output"}


@pytest.mark.parametrize(
    ("version", "is_marked"),
    [
        ("0.3.0", False),
        ("0.3.8", False),
        ("0.1.3+shimmed", False),
        ("0.3.9-beta1", False),
        ("0.3.9", True),
        ("0.3.9.post1", True),
        ("0.9.0-beta8", True),
        ("0.16.7", True),
        ("1", True),
        ("unknown", True),
    ],
)
def test_old_documents_lack_the_markers(version: str, is_marked: bool) -> None:
    """Below Cog 0.3.9 an iterator shows as a plain array, but it still grows."""
    code = Code(returning(ConcatenateIterator[str]), cog_version=version)
    expected = TEXT if is_marked else {"type": "array", "items": {"type": "string"}}
    assert schemas(code)["Output"] == {**expected, "title": "Output"}
    assert code.iterates
    assert code.output_is_text


def test_hints_as_strings_find_local_names() -> None:
    """This module's hints are strings, and classes of the calling function are found."""

    class Local(enum.Enum):
        YES = "yes"

    @attrs.frozen
    class Made:
        choice: Local

    def predict(choice: Local, unknown: Decimal) -> Made:
        return Made(choice)

    components = schemas(Code(predict))
    assert components["choice"]["enum"] == ["yes"]
    assert components["Output"]["properties"] == {"choice": {"$ref": "#/components/schemas/Local"}}
    # Imported for type checkers only: nothing is known about it here.
    assert components["Input"]["properties"]["unknown"] == {"title": "Unknown", "x-order": 1}


def references(value: object) -> Iterator[str]:
    """Yield all references in a document."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_document_is_whole() -> None:
    """The document is JSON, has the container's parts, and all its references lead somewhere."""

    def predict(colour: Colour, box: Box, images: list[Path]) -> Box:
        return box

    def train(images: Path, colour: Literal["x", "y"]) -> OutputFile:
        return OutputFile(b"", "w")

    code = Code(predict, train=train)
    document = code.openapi_schema
    assert json.loads(json.dumps(document)) == document
    assert document["openapi"] == "3.0.2"
    assert document["info"] == {"title": "Cog", "version": "0.1.0"}
    assert {
        "/",
        "/health-check",
        "/predictions",
        "/predictions/{prediction_id}",
        "/predictions/{prediction_id}/cancel",
        "/shutdown",
        "/trainings",
    } <= set(document["paths"])
    components = schemas(code)
    assert {
        "Input",
        "Output",
        "PredictionRequest",
        "PredictionResponse",
        "Status",
        "WebhookEvent",
        "HTTPValidationError",
        "ValidationError",
        "TrainingInput",
        "TrainingOutput",
        "TrainingRequest",
    } <= set(components)
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= set(components)
    # Two choices of one name: each keeps its own values.
    assert components["colour"]["enum"] == ["red", "blue"]
    assert components["colour_"]["enum"] == ["x", "y"]
    assert components["TrainingOutput"]["properties"]["weights"]["format"] == "uri"
    assert "TrainingInput" not in schemas(Code(predict))


@pytest.mark.parametrize(
    ("hint", "limits"),
    [(str, {"ge": 1}), (int, {"min_length": 1}), (bool, {"le": 1}), (int, {"regex": "x"})],
)
def test_limits_that_do_not_apply(hint: Any, limits: dict[str, Any]) -> None:
    """A limit of another type is refused when the code is made, by the name of the input."""

    def predict(value: Any) -> None: ...

    predict.__annotations__["value"] = Annotated[hint, Input(**limits)]
    with pytest.raises(TypeError, match=r"value: .* does not apply to [a-z]+"):
        Code(predict)


def test_defaults_must_be_valid() -> None:
    """A default that its own schema forbids is refused when the code is made."""

    def predict(steps: int = Input(default=9, le=4)) -> None: ...

    with pytest.raises(ValueError, match="default of steps: Must be less than or equal to 4"):
        Code(predict)


# Validation


def violations(function: Callable[..., object], value: object) -> list[Violation]:
    """Return what is wrong with *value* as an input of *function*."""
    return Code(function).violations(value)


def test_violations_have_the_texts_of_the_service() -> None:
    """Each kind of violation has its type, field and text (HTTP API, section 2.4)."""

    def predict(
        prompt: str,
        num_inference_steps: int = Input(default=1, ge=1, le=4),
        scale: float = Input(default=1.5, ge=0.5, le=2.25),
        output_format: Literal["jpg", "png"] = "png",
        name: str = Input(default="abc", min_length=2, max_length=4, regex="^[a-z]+$"),
        image: Path | None = None,
        tags: Annotated[Sequence[Literal["x", "y"]], Input(min_length=1, max_length=2)] = ("x",),
        unique: set[int] | None = None,
        either: int | bool = 1,
        size: int = Input(default=1, choices=[1, 2]),
        box: Box | None = None,
        counts: dict[str, int] | None = None,
    ) -> None: ...

    code = Code(predict)

    def check(given: dict[str, Any], *expected: tuple[str, str, str]) -> None:
        found = code.violations({"prompt": "p", **given})
        assert found == [Violation(*each) for each in expected], given

    assert code.violations({"num_inference_steps": 5}) == [
        Violation("required", "input", "prompt is required"),
        Violation("number_lte", "input.num_inference_steps", "Must be less than or equal to 4"),
    ]
    check({})
    check({"nobody_knows": 1})
    check(
        {"prompt": 1},
        ("invalid_type", "input.prompt", "Invalid type. Expected: string, given: integer"),
    )
    check(
        {"prompt": None},
        ("invalid_type", "input.prompt", "Invalid type. Expected: string, given: null"),
    )
    check(
        {"num_inference_steps": None},
        (
            "invalid_type",
            "input.num_inference_steps",
            "Invalid type. Expected: integer, given: null",
        ),
    )
    check(
        {"num_inference_steps": 1.5},
        (
            "invalid_type",
            "input.num_inference_steps",
            "Invalid type. Expected: integer, given: number",
        ),
    )
    check(
        {"num_inference_steps": True},
        (
            "invalid_type",
            "input.num_inference_steps",
            "Invalid type. Expected: integer, given: boolean",
        ),
    )
    check({"num_inference_steps": 2.0})
    check(
        {"num_inference_steps": 0},
        ("number_gte", "input.num_inference_steps", "Must be greater than or equal to 1"),
    )
    check({"scale": 2})
    check({"scale": 3}, ("number_lte", "input.scale", "Must be less than or equal to 2.25"))
    check({"scale": 0.25}, ("number_gte", "input.scale", "Must be greater than or equal to 0.5"))
    check(
        {"scale": []},
        ("invalid_type", "input.scale", "Invalid type. Expected: number, given: array"),
    )
    check(
        {"output_format": "gif"},
        (
            "enum",
            "input.output_format",
            'output_format must be one of the following: "jpg", "png"',
        ),
    )
    check({"size": 3}, ("enum", "input.size", "size must be one of the following: 1, 2"))
    check(
        {"size": True},
        ("invalid_type", "input.size", "Invalid type. Expected: integer, given: boolean"),
    )
    check(
        {"name": "ab12x"},
        ("string_lte", "input.name", "String length must be less than or equal to 4"),
        ("pattern", "input.name", "Does not match pattern '^[a-z]+$'"),
    )
    check(
        {"name": "a"},
        ("string_gte", "input.name", "String length must be greater than or equal to 2"),
    )
    check({"image": None})
    check({"image": "data:image/png;base64,AA=="})
    check({"image": ""}, ("format", "input.image", "Does not match format 'uri'"))
    check({"image": "cat.png"}, ("format", "input.image", "Does not match format 'uri'"))
    check({"tags": []}, ("array_min_items", "input.tags", "Array must have at least 1 items"))
    check(
        {"tags": ["x", "z", "y"]},
        ("enum", "input.tags.1", 'tags.1 must be one of the following: "x", "y"'),
        ("array_max_items", "input.tags", "Array must have at most 2 items"),
    )
    check({"unique": [1, 2, 1]}, ("unique", "input.unique", "array items[0,2] must be unique"))
    check(
        {"either": "x"},
        ("number_any_of", "input.either", "Must validate at least one schema (anyOf)"),
    )
    check(
        {"box": {"inner": {"width": "w"}}},
        ("required", "input.box", "width is required"),
        (
            "invalid_type",
            "input.box.inner.width",
            "Invalid type. Expected: integer, given: string",
        ),
    )
    check(
        {"counts": {"a": 1, "b": "2"}},
        ("invalid_type", "input.counts.b", "Invalid type. Expected: integer, given: string"),
    )


@pytest.mark.parametrize(
    ("value", "given"), [(None, "null"), ("x", "string"), ([], "array"), (1, "integer")]
)
def test_input_must_be_an_object(value: object, given: str) -> None:
    """An input that is no object is one violation at the root."""

    def predict(text: str) -> None: ...

    text = f"Invalid type. Expected: object, given: {given}"
    assert violations(predict, value) == [Violation("invalid_type", "input", text)]


def test_training_input_has_a_schema_of_its_own() -> None:
    """`component` chooses between the inputs of predictions and of trainings."""

    def predict(prompt: str) -> None: ...

    def train(steps: int) -> None: ...

    code = Code(predict, train=train)
    assert code.violations({"prompt": "x"}) == []
    assert code.violations({"prompt": "x"}, component="TrainingInput") == [
        Violation("required", "input", "steps is required")
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.integers(), st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_schema_accepts_its_own_defaults(low: int, span: int, text: str, number: float) -> None:
    """Defaults within the limits are valid, and are what the function gets."""
    high = low + abs(span)

    def predict(
        a: int = Input(default=low, ge=low, le=high),
        b: str = Input(default=text, min_length=len(text), max_length=len(text)),
        c: float = Input(default=number, ge=number, le=number),
        d: Colour = Colour.BLUE,
    ) -> list[object]:
        return [a, b, c, d]

    code = Code(predict)
    properties = schemas(code)["Input"]["properties"]
    defaults = {name: schema["default"] for name, schema in properties.items()}
    assert code.violations(defaults) == []
    assert asyncio.run(code.predict({}, Recorder())) == [low, text, number, "blue"]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "a": JSON,
            "b": JSON | st.integers(1, 4),
            "c": JSON | st.sampled_from(["red", "blue"]),
            "d": JSON | st.lists(st.sampled_from(["x", "y"])),
            "e": JSON | st.fixed_dictionaries({"width": st.integers()}),
            "f": JSON,
            "g": JSON | st.lists(st.integers()),
        },
    )
)
def test_what_is_valid_can_be_run(value: dict[str, Any]) -> None:
    """Any JSON can be checked, and an input without violations always reaches the function."""
    reached: list[bool] = []

    async def predict(
        a: str | None,
        b: Annotated[int, Input(ge=1, le=4)] = 1,
        c: Colour = Colour.RED,
        d: list[Literal["x", "y"]] | None = None,
        e: Box | None = None,
        f: int | bool | list[float] = 1,
        g: set[int] | None = None,
    ) -> None:
        kinds: list[tuple[object, object]] = [
            (a, str | None),
            (b, int),
            (c, Colour),
            (e, Box | None),
            (g, set | None),
        ]
        reached.append(all(isinstance(given, kind) for given, kind in kinds))  # type: ignore[arg-type]

    code = Code(predict)
    if not code.violations(value):
        asyncio.run(code.predict(value, Recorder()))
        assert reached == [True]


# Execution


async def test_values_are_what_hints_say() -> None:
    """Members of enums, floats, sets and structures arrive as such; defaults are filled in."""
    seen: dict[str, object] = {}

    def predict(
        colour: Colour,
        scale: float,
        tags: set[str],
        box: Box,
        either: Literal["a"] | list[Colour],
        count: int,
        pair: tuple[int, int] = (1, 2),
        missing: int | None = None,
        other: Colour = Colour.BLUE,
    ) -> None:
        seen.update(locals())

    await Code(predict).predict(
        {
            "colour": "red",
            "scale": 2,
            "tags": ["a", "b"],
            "box": {"width": 1, "inner": {"width": 2, "colour": "blue"}},
            "either": ["blue"],
            "count": 3.0,
            "unknown": 1,
        },
        Recorder(),
    )
    seen.pop("seen", None)
    assert seen == {
        "colour": Colour.RED,
        "scale": 2.0,
        "tags": {"a", "b"},
        "box": Box(1, Colour.RED, Box(2, Colour.BLUE)),
        "either": [Colour.BLUE],
        "count": 3,
        "pair": (1, 2),
        "missing": None,
        "other": Colour.BLUE,
    }
    assert isinstance(seen["scale"], float)
    assert isinstance(seen["count"], int)


async def test_mutable_defaults_are_not_shared() -> None:
    """A default that the function changes is fresh in the next prediction."""

    async def predict(values: dict[str, Any] = {"seen": []}) -> int:  # noqa: B006 - the point
        values["seen"].append(1)
        return len(values["seen"])

    code = Code(predict)
    assert [await code.predict({}, Recorder()) for _ in range(2)] == [1, 1]


async def test_functions_take_any_shape_of_parameters() -> None:
    """No parameters, `**inputs` and positional-only ones work."""

    def nothing() -> str:
        return "nothing"

    def everything(first: int, /, second: int = 2, **inputs: Any) -> list[object]:
        return [first, second, inputs]

    assert await Code(nothing).predict({"x": 1}, Recorder()) == "nothing"
    assert schemas(Code(nothing))["Input"] == {"type": "object", "title": "Input", "properties": {}}
    code = Code(everything)
    assert await code.predict({"first": 1, "z": 3}, Recorder()) == [1, 2, {"z": 3}]


async def test_callables_of_all_kinds() -> None:
    """Methods, instances and partial functions are models as functions are."""
    import functools

    class Model:
        async def __call__(self, x: int) -> int:
            return x + 1

        def method(self, x: int) -> Iterator[int]:
            yield x + 2

    assert await Code(Model()).predict({"x": 1}, Recorder()) == 2
    run = Recorder()
    await Code(Model().method).predict({"x": 1}, run)
    assert run.items == [3]
    code = Code(functools.partial(Model().method))
    assert code.iterates
    assert list(schemas(code)["Input"]["properties"]) == ["x"]


async def test_plain_functions_do_not_block_the_loop() -> None:
    """A plain function runs in a thread: the loop can do what it waits for."""
    started, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def predict() -> bool:
        loop.call_soon_threadsafe(started.set)
        return go.wait(WAIT)

    async with asyncio.timeout(WAIT), asyncio.TaskGroup() as group:
        task = group.create_task(Code(predict).predict({}, Recorder()))
        await started.wait()
        go.set()
    assert task.result() is True


async def test_functions_that_hang_do_not_starve_others() -> None:
    """Any number of plain functions run at the same time."""
    together = threading.Barrier(100)

    def predict() -> int:
        return together.wait(WAIT)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(Code(predict).predict({}, Recorder())) for _ in range(100)]
    assert sorted(str(task.result()) for task in tasks) == sorted(map(str, range(100)))


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="")


async def test_logs_go_to_the_prediction_that_runs() -> None:
    """`log` appends to the right prediction from threads, coroutines and generators."""

    def plain(name: str) -> str:
        log(f"plain {name}\n")
        return VARIABLE.get()

    async def asynchronous(name: str) -> str:
        log(f"async {name}\n")
        await asyncio.sleep(0)
        log("more\n")
        return VARIABLE.get()

    def generator(name: str) -> Iterator[str]:
        log(f"generator {name}\n")
        yield VARIABLE.get()
        log("end\n")

    VARIABLE.set("carried")
    runs = [Recorder() for _ in range(6)]
    codes = [Code(plain), Code(asynchronous), Code(generator)] * 2
    async with asyncio.TaskGroup() as group:
        for index, (code, run) in enumerate(zip(codes, runs, strict=True)):
            group.create_task(code.predict({"name": str(index)}, run))
    assert [run.logs for run in runs] == [
        "plain 0\n",
        "async 1\nmore\n",
        "generator 2\nend\n",
        "plain 3\n",
        "async 4\nmore\n",
        "generator 5\nend\n",
    ]
    assert runs[2].items == ["carried"]
    assert await Code(plain).predict({"name": ""}, Recorder()) == "carried"


def test_logs_of_direct_calls_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Outside of a prediction a log is printed as it is."""
    log("by hand\n")
    assert capsys.readouterr().out == "by hand\n"


@pytest.mark.parametrize("is_async", [False, True])
async def test_items_are_emitted_as_they_come(is_async: bool) -> None:
    """An item is passed on before the next one is made, and a slow reader holds the model up."""
    events: list[str] = []

    def plain() -> Iterator[int]:
        for number in range(3):
            events.append(f"make {number}")
            yield number

    async def asynchronous() -> AsyncIterator[int]:
        for number in range(3):
            events.append(f"make {number}")
            yield number

    class Slow(Recorder):
        async def emit(self, value: object) -> None:
            await super().emit(value)
            for _ in range(5):
                await asyncio.sleep(0)
            events.append(f"emitted {value}")

    code = Code(asynchronous if is_async else plain)
    assert await code.predict({}, Slow()) is None
    assert events == ["make 0", "emitted 0", "make 1", "emitted 1", "make 2", "emitted 2"]


async def test_functions_may_return_iterators() -> None:
    """A function with the hint of an iterator need not be a generator itself."""

    def plain() -> Iterator[int]:
        return iter([1, 2])

    async def numbers() -> AsyncIterator[int]:
        yield 3

    def asynchronous() -> AsyncIterator[int]:
        return numbers()

    run = Recorder()
    await Code(plain).predict({}, run)
    await Code(asynchronous).predict({}, run)
    assert run.items == [1, 2, 3]


async def test_cancelling_does_not_wait_for_a_thread() -> None:
    """A cancelled call returns at once; a generator is closed when it yields next."""
    loop = asyncio.get_running_loop()
    started, closed = asyncio.Event(), asyncio.Event()
    go = threading.Event()
    used: list[tuple[threading.Thread, Path]] = []
    existed: list[bool] = []

    def predict(image: Path) -> Iterator[int]:
        def generate() -> Iterator[int]:
            try:
                loop.call_soon_threadsafe(started.set)
                go.wait(WAIT)
                existed.append(image.exists())
                yield 1
            finally:
                loop.call_soon_threadsafe(closed.set)

        used.append((threading.current_thread(), image))
        kept.append(generate())
        return kept[0]

    kept: list[Iterator[int]] = []  # so that no one but `close` ends the generator
    run = Recorder({"https://example.com/a.png": b"x"})
    code = Code(predict)
    async with asyncio.timeout(WAIT):
        task = asyncio.create_task(code.predict({"image": "https://example.com/a.png"}, run))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not go.is_set(), "it did not wait"
        go.set()
        await closed.wait()
    assert run.items == []
    assert existed == [True], "its files stay until it is done with them"
    [(thread, path)] = used
    await asyncio.to_thread(thread.join, WAIT)
    assert not await asyncio.to_thread(path.exists), "but no longer"


async def test_cancelling_ends_coroutines() -> None:
    """A cancelled async function or generator runs its clean-up, and leaves no files."""
    started = asyncio.Event()
    ended: list[Path] = []

    async def coroutine(image: Path) -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.append(image)

    async def generator(image: Path) -> AsyncIterator[int]:
        try:
            yield 1
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.append(image)

    for function in (coroutine, generator):
        started.clear()
        run = Recorder({"https://example.com/a.png": b"x"})
        call = Code(function).predict({"image": "https://example.com/a.png"}, run)
        async with asyncio.timeout(WAIT):
            task = asyncio.create_task(call)
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert len(ended) == 2


@pytest.mark.parametrize("is_async", [False, True])
async def test_input_files_are_files(is_async: bool) -> None:
    """A file input is a path with the content and the suffix of its URL; later it is gone."""
    seen: list[tuple[bytes, str]] = []
    paths: list[Path] = []

    def look(one: Path, many: list[Path], fixed: Path | None) -> None:
        for path in (one, *many):
            seen.append((path.read_bytes(), path.suffix))
            paths.append(path)
        assert fixed is None

    def plain(one: Path, many: list[Path], fixed: Path | None = None) -> None:
        look(one, many, fixed)

    async def asynchronous(one: Path, many: list[Path], fixed: Path | None = None) -> None:
        await asyncio.to_thread(look, one, many, fixed)

    files = {
        "https://example.com/a/cat.png?x=1": b"one",
        "data:image/gif;base64,AA==": b"two",
        "data:image/webp;base64,AAAA": b"webp",
        "https://example.com/b/cat.png": b"three",
        "https://example.com/v1/files/abc": b"four",
        "https://example.com/": b"five",
        "https://example.com/..%2F..%2Fevil" + "x" * 300 + ".jpeg": b"six",
    }
    first, *rest = files
    code = Code(asynchronous if is_async else plain)
    await code.predict({"one": first, "many": rest}, Recorder(files))
    assert seen == [
        (b"one", ".png"),
        (b"two", ".gif"),
        (b"webp", ".webp"),
        (b"three", ".png"),
        (b"four", ""),
        (b"five", ""),
        (b"six", ".jpeg"),
    ]
    assert all(path.is_relative_to(TEMPORARY) for path in paths)
    directories = {path.parent.parent for path in paths}
    assert [d for d in directories if await asyncio.to_thread(d.exists)] == []


async def test_input_files_go_when_the_model_fails() -> None:
    """Files are removed after an error, too, and an input that cannot be read is an error."""
    paths: list[Path] = []

    def predict(image: Path) -> None:
        paths.append(image)
        raise ValueError("no good")

    code = Code(predict)
    with pytest.raises(ValueError, match="no good"):
        await code.predict(
            {"image": "https://example.com/a"}, Recorder({"https://example.com/a": b""})
        )
    assert not await asyncio.to_thread(paths[0].exists)
    with pytest.raises(KeyError):
        await code.predict({"image": "https://example.com/missing"}, Recorder())


async def test_output_paths_become_files(tmp_path: Path) -> None:
    """Paths anywhere in an output are read before the model's input files are removed."""
    (tmp_path / "a.png").write_bytes(b"a")

    def plain(image: Path) -> dict[str, object]:
        made = image.with_name("made.txt")
        made.write_bytes(image.read_bytes() * 2)
        return {"list": [made, tmp_path / "a.png"], "result": Result(made, [1.0]), "n": None}

    async def asynchronous() -> Path:
        return tmp_path / "a.png"

    async def generator() -> AsyncIterator[Answer]:
        yield {"text": "t", "image": tmp_path / "a.png"}

    made = OutputFile(b"xx", "made.txt", "text/plain")
    picture = OutputFile(b"a", "a.png", "image/png")
    run = Recorder({"https://example.com/i.jpg": b"x"})
    assert await Code(plain).predict({"image": "https://example.com/i.jpg"}, run) == {
        "list": [made, picture],
        "result": {"file": made, "scores": [1.0]},
        "n": None,
    }
    assert await Code(asynchronous).predict({}, run) == picture
    await Code(generator).predict({}, run)
    assert run.items == [{"text": "t", "image": picture}]


async def test_outputs_become_json() -> None:
    """Enums, structures, tuples and sets become what JSON has."""

    def predict() -> Any:
        return {Colour.RED: (Box(1), {2}), "x": Colour.BLUE}

    assert await Code(predict).predict({}, Recorder()) == {
        "red": [{"width": 1, "colour": "red", "inner": None}, [2]],
        "x": "blue",
    }


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (b"x", TypeError, "bytes, which is not JSON; return an OutputFile"),
        (object(), TypeError, "object, which is not JSON"),
        (math.nan, ValueError, "nan"),
        ([math.inf], ValueError, "inf"),
        (Path("/does/not/exist"), FileNotFoundError, "/does/not/exist"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_outputs_that_cannot_be_sent(
    value: object, error: type[Exception], text: str, is_async: bool
) -> None:
    """An output that is not JSON is an error of the model that says what was wrong."""

    def plain() -> object:
        return value

    async def asynchronous() -> object:
        return value

    with pytest.raises(error, match=text):
        await Code(asynchronous if is_async else plain).predict({}, Recorder())


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (ValueError("bad prompt"), ValueError, "bad prompt"),
        (SystemExit(3), RuntimeError, "the model ended with SystemExit"),
        (asyncio.CancelledError(), RuntimeError, "the model ended with CancelledError"),
        (StopIteration(1), RuntimeError, "StopIteration"),
    ],
)
async def test_errors_of_models(
    error: BaseException, expected: type[Exception], text: str, is_async: bool
) -> None:
    """Errors come out as they are; those that would stop the emulator as ordinary ones."""

    def plain() -> None:
        raise error

    async def asynchronous() -> None:
        raise error

    with pytest.raises(expected, match=text):
        await Code(asynchronous if is_async else plain).predict({}, Recorder())


async def test_errors_between_items() -> None:
    """What was yielded before an error has been emitted."""

    def plain() -> Iterator[int]:
        yield 1
        raise ValueError("later")

    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        raise ValueError("later")

    for function in (plain, asynchronous):
        run = Recorder()
        with pytest.raises(ValueError, match="later"):
            await Code(function).predict({}, run)
        assert run.items == [1]


async def test_missing_inputs_are_errors() -> None:
    """A required input that is missing is an error with its name."""

    def predict(text: str) -> None: ...

    with pytest.raises(ValueError, match="text is required"):
        await Code(predict).predict({}, Recorder())


async def test_training() -> None:
    """`train` is run as `predict` is; a file alone is the weights."""

    def predict() -> None: ...

    async def train(steps: int = 3) -> dict[str, object]:
        log("training\n")
        return {"weights": OutputFile(b"w" * steps, "w.tar")}

    def bare() -> OutputFile:
        return OutputFile(b"", "w.tar")

    run = Recorder()
    code = Code(predict, train=train)
    assert code.trainable
    assert await code.train({}, run) == {"weights": OutputFile(b"www", "w.tar")}
    assert run.logs == "training\n"
    expected = {"weights": OutputFile(b"", "w.tar")}
    assert await Code(predict, train=bare).train({}, run) == expected


async def test_what_cannot_be_trained() -> None:
    """Without a function that trains there is no training, and a generator is none."""

    def predict() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    code = Code(predict)
    assert not code.trainable
    with pytest.raises(TypeError, match="cannot be trained"):
        await code.train({}, Recorder())
    with pytest.raises(TypeError, match="generator"):
        Code(predict, train=generator)


async def test_threads_end() -> None:
    """The thread of a call ends with it."""
    threads: list[threading.Thread] = []

    def predict() -> None:
        threads.append(threading.current_thread())

    await Code(predict).predict({}, Recorder())
    threads[0].join(WAIT)
    assert not threads[0].is_alive()
    assert threads[0].daemon
