"""Models whose schemas are odd: names that Python keeps for itself, huge bounds, strange versions of Cog."""

from __future__ import annotations

import json
import pydoc
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from replicate_async import Client, exceptions, sync
from replicate_async.testing import Emulator

from .conftest import rewrite

NAMES = (
    "others",
    "others_",
    "lambda",
    "class",
    "self",
    "input",
    "inputs",
    "cls",
    "return",
    "None",
    "a b",
    "x-y",
    "1st",
    "\u00e9t\u00e9",
)
HUGE = 10**400


@pytest.fixture
def odd(emulator: Emulator) -> Emulator:
    """Add a model that takes anything and returns it."""

    @emulator.model("acme/odd", official=True)
    def odd(**inputs: Any) -> dict[str, Any]:
        return dict(inputs)

    return emulator


def describe(
    emulator: Emulator,
    properties: Mapping[str, Any],
    *,
    required: list[str] | None = None,
    cog_version: Any = "0.16.7",
    **more: Any,
) -> None:
    """Let the model describe its inputs like this."""

    def change(model: Any) -> Any:
        schemas = model["latest_version"]["openapi_schema"]["components"]["schemas"]
        schemas["Input"] = {
            "type": "object",
            "properties": properties,
            "required": required or [],
            **more,
        }
        model["latest_version"]["cog_version"] = cog_version
        return model

    rewrite(emulator, "models.get", change)


async def test_names_that_python_keeps_for_itself(client: Client, odd: Emulator) -> None:
    """Inputs of any name are described, checked and sent; `help()` says how those are passed that cannot be written."""
    describe(odd, {name: {"type": "string"} for name in NAMES}, required=["lambda"])
    function = client.use("acme/odd")
    await function.load()
    inputs: dict[str, Any] = dict.fromkeys(NAMES, "x")
    function.check(**inputs)
    assert await function(**inputs) == inputs
    assert (await (await function.create(**inputs)).output()) == inputs
    [outcome] = await client.map(function, [inputs]).collect()
    assert outcome.output == inputs
    with pytest.raises(exceptions.ArgumentTypeError, match="lambda"):
        await function(self="x")
    shown = pydoc.render_doc(function)
    assert all(name in shown for name in NAMES)
    assert '**{"lambda": ...}' in shown
    parameters = function.signature.parameters
    assert {"self", "input", "inputs", "cls", "\u00e9t\u00e9"} <= parameters.keys()


def test_names_in_the_facade(odd: Emulator) -> None:
    """The sync functions take the same names."""
    describe(odd, {name: {"type": "string"} for name in NAMES}, required=["lambda"])
    inputs: dict[str, Any] = dict.fromkeys(NAMES, "x")
    with sync.Client(odd.token, base_url=odd.url) as client:
        function = client.use("acme/odd")
        function.load()
        function.check(**inputs)
        assert function(**inputs) == inputs
        assert function.create(**inputs).output() == inputs
        assert '**{"lambda": ...}' in pydoc.render_doc(function)


BOUNDS: list[dict[str, Any]] = [
    {"type": "integer", "minimum": -HUGE, "maximum": HUGE},
    {"type": "number", "minimum": -HUGE, "maximum": HUGE},
    {"type": "integer", "minimum": -(10**4200), "maximum": 10**4200},
    {"type": "number", "minimum": float("-inf"), "maximum": float("inf")},
    {"type": "number", "minimum": float("nan"), "maximum": float("nan")},
    {"type": "number", "minimum": 1e308, "maximum": -1e308},
    {"type": "integer", "default": HUGE, "enum": [HUGE, -HUGE, 1]},
    {"type": "integer", "default": 10**4300, "minimum": -(10**4500), "maximum": 10**4500},
    {"type": "string", "minLength": -HUGE, "maxLength": HUGE},
    {"type": "string", "minLength": -(10**4400), "maxLength": 10**4400},
    {"type": "array", "minItems": -HUGE, "items": {"type": "integer", "maximum": HUGE}},
    {"type": "string", "x-order": HUGE, "description": "x" * 100_000},
    {"type": "string", "enum": [], "default": {"a": []}},
    {"type": ["integer", "null"], "x-order": float("nan")},
    {"$ref": "#/components/schemas/Input"},
    {"allOf": [{"$ref": "#/components/schemas/nowhere"}], "default": "\ud800"},
    {
        "type": 5,
        "format": [],
        "enum": "x",
        "minimum": "1",
        "maximum": {},
        "items": 7,
        "default": None,
    },
]


@pytest.mark.parametrize("node", BOUNDS, ids=[str(n)[:40] for n in range(len(BOUNDS))])
async def test_odd_bounds(client: Client, odd: Emulator, node: dict[str, Any]) -> None:
    """A function with odd bounds can be looked at, and runs or says why not."""
    rewrite_raw(odd, {"x": node, "y": {"type": "integer"}})
    function = client.use("acme/odd")
    await function.load()
    assert "x" in pydoc.render_doc(function)
    assert "x" in str(function.signature)
    for value in (1, "a", [5], None, HUGE, 10**4400):
        try:
            function.check(x=value, y=1)
        except (exceptions.ArgumentError, exceptions.ArgumentTypeError) as error:
            assert str(error)  # noqa: PT017  (some are valid)
    assert await function(y=1) == {"y": 1}


def rewrite_raw(emulator: Emulator, properties: Mapping[str, Any]) -> None:
    """Let the model describe its inputs with numbers that `json` does not write by itself."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        text = json.dumps(properties)
    finally:
        sys.set_int_max_str_digits(before)

    async def middleware(request: Any, record: Any, answer: Any) -> Any:
        response = await answer(request)
        if record.operation != "models.get":
            return response
        model = json.loads(response.body)
        schemas = model["latest_version"]["openapi_schema"]["components"]["schemas"]
        schemas["Input"] = {"type": "object", "properties": "HERE"}
        body = json.dumps(model).replace('"HERE"', text)
        return web.Response(body=body.encode(), headers={"Content-Type": "application/json"})

    emulator.middlewares.append(middleware)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "dev",
        "0.3.x",
        "v0.3.8",
        "1!0.3",
        "0." * 5000,
        "9" * 5000,
        "\ud800",
        "\u0661.2",
        None,
        5,
        [],
        {},
        "0.3.9" + "+a" * 99,
    ],
    ids=ascii,
)
async def test_odd_versions_of_cog(client: Client, odd: Emulator, version: Any) -> None:
    """A version of Cog that is none is taken for a current one."""
    describe(odd, {"text": {"type": "string"}}, cog_version=version)
    function = client.use("acme/odd")
    await function.load()
    assert await function(text="a") == {"text": "a"}
    assert "text" in function.signature.parameters
