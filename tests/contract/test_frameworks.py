"""Objects in the answers of FastAPI and in `json.dumps`, of the async client and of the facade."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pydantic
import pytest

import replicate_async
from replicate_async import (
    Client,
    FileOutput,
    Outcome,
    Page,
    Prediction,
    Progress,
    Training,
    Update,
    exceptions,
    sync,
)
from replicate_async.resources.models import Model
from replicate_async.testing import Emulator

from .conftest import HELLO


async def answer(path: str, endpoint: Any, **options: Any) -> tuple[Any, Any]:
    """Return what FastAPI answers with, and its OpenAPI schema of that."""
    app = fastapi.FastAPI()
    app.add_api_route(path, endpoint, **options)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as browser:
        response = await browser.get(path)
        assert response.status_code == 200, response.text
        described = (await browser.get("/openapi.json")).json()["paths"][path]["get"]
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]
    return response.json(), schema


def endpoint_of(value: Any, annotation: Any) -> Any:
    """Return an endpoint that returns a value."""

    async def endpoint() -> Any:
        return value

    endpoint.__annotations__["return"] = annotation
    return endpoint


async def test_predictions(client: Client) -> None:
    """A prediction is its JSON, and its fields are described."""
    made = await client.predictions.create(HELLO, {"text": "a"}, wait=True)
    value, schema = await answer("/x", endpoint_of(made, Prediction))
    assert value == made.to_dict()
    assert schema["type"] == "object"
    assert schema["title"].startswith("Prediction") or schema["title"].startswith("Response")
    assert schema["properties"]["status"] == {"type": "string"}
    assert schema["properties"]["created_at"]["anyOf"][0]["format"] == "date-time"
    assert schema["required"] == ["id"]
    value, schema = await answer("/x", endpoint_of([made, made], list[Prediction]))
    assert value == [made.to_dict()] * 2
    assert schema["items"]["type"] == "object"


async def test_files(client: Client) -> None:
    """A file is its URL, also within models."""
    made = await client.run("emulator/painter", {"prompt": "a"})
    file = made[0] if isinstance(made, list) else made
    value, schema = await answer("/x", endpoint_of(file, FileOutput))
    assert value == file.url
    assert (schema["type"], schema["format"]) == ("string", "uri")

    class Painting(pydantic.BaseModel):
        title: str
        image: FileOutput

    value, _ = await answer("/x", endpoint_of(Painting(title="a", image=file), Painting))
    assert value == {"title": "a", "image": file.url}
    value, _ = await answer("/x", endpoint_of({"a": file}, dict[str, FileOutput]))
    assert value == {"a": file.url}


async def test_updates() -> None:
    """An update is its fields."""
    update = Update("processing", "50%", Progress(0.5, 1, 2))
    value, schema = await answer("/x", endpoint_of(update, Update))
    expected = {"percentage": 0.5, "current": 1, "total": 2}
    assert value == {"status": "processing", "logs": "50%", "progress": expected}
    assert set(schema["properties"]) == {"status", "logs", "progress"}


async def test_outcomes(client: Client, tmp_path: Path) -> None:
    """An outcome has its error in words, and files by their URLs."""

    async def outcomes(ref: str, value: Any) -> Outcome:
        [outcome] = await client.map(ref, [value], save_to=tmp_path).collect()
        return outcome

    good = await outcomes("emulator/painter", {"prompt": "a"})
    value, schema = await answer("/x", endpoint_of(good, Outcome))
    assert value["error"] is None
    assert value["prediction"]["id"]
    assert value["saved"] == [str(path) for path in good.saved]
    assert json.loads(json.dumps(good, default=replicate_async.to_json)) == value
    assert set(schema["properties"]) == set(value)
    bad = Outcome(0, {"file": tmp_path, "odd": object()}, error=exceptions.MissingToken())
    value, _ = await answer("/x", endpoint_of(bad, Outcome))
    assert value["error"]["type"] == "MissingToken"
    assert value["input"] == {"file": str(tmp_path), "odd": "<object>"}


async def test_pages(client: Client) -> None:
    """A page has its items, and the links to others."""
    page = await client.models.list()
    for annotation in (Page, Page[Model]):
        value, schema = await answer("/x", endpoint_of(page, annotation))
        assert value["results"] == [model.to_dict() for model in page]
        assert value["next"] == page.next
        assert schema["properties"]["results"]["type"] == "array"


async def test_undeclared(client: Client) -> None:
    """Where an annotation says nothing of what is there, objects have the same form, at any depth."""
    page = await client.models.list()
    file, update = FileOutput("https://replicate.delivery/a/b.png"), Update("starting", "", None)
    outcome = Outcome(0, {"a": file})
    shown: dict[str, Any] = {
        "file": file.url,
        "update": {"status": "starting", "logs": "", "progress": None},
        "outcome": json.loads(json.dumps(outcome, default=replicate_async.to_json)),
        "page": json.loads(json.dumps(page, default=replicate_async.to_json)),
        "twin": file.url,
    }
    twin = sync.Client("r8_unused").output(file.url)
    given = {"file": file, "update": update, "outcome": outcome, "page": page, "twin": twin}
    for annotation in (Any, dict[str, Any]):
        assert (await answer("/x", endpoint_of(given, annotation)))[0] == shown
    for name, each in given.items():
        assert (await answer("/x", endpoint_of(each, Any)))[0] == shown[name]

    class Anything(pydantic.BaseModel):
        value: Any

    assert json.loads(Anything(value=[file]).model_dump_json()) == {"value": [file.url]}


async def test_the_facade(emulator: Emulator) -> None:
    """The twins have the same form."""

    def make(client: sync.Client) -> tuple[Any, Any, Any]:
        made = client.predictions.create(model="emulator/painter", input={"prompt": "a"}, wait=True)
        return made, made.output[0], client.models.list()

    client = sync.Client(emulator.token, base_url=emulator.url)
    try:
        made, file, page = await asyncio.to_thread(make, client)
        cases: list[tuple[Any, Any, Any]] = [
            (made, sync.Prediction, made.to_dict()),
            (file, sync.FileOutput, file.url),
            (page, sync.Page[sync.Model], page[0].to_dict()),
        ]
        for given, annotation, expected in cases:
            value, schema = await answer("/x", endpoint_of(given, annotation))
            assert (value["results"][0] if given is page else value) == expected
            assert schema["type"] in ("object", "string")
            assert json.loads(json.dumps(given, default=replicate_async.to_json)) == value
    finally:
        await asyncio.to_thread(client.close)


async def test_other_values_are_refused() -> None:
    """What is not of the class is an error of validation; JSON makes live predictions."""
    for kind in (FileOutput, Update, Outcome, Page, sync.FileOutput):
        with pytest.raises(pydantic.ValidationError):
            pydantic.TypeAdapter(kind).validate_python("x")
    for live in (Prediction, Training):
        adapter = pydantic.TypeAdapter(live)
        assert adapter.validate_python({"id": "a", "status": "starting"}).id == "a"
        refused: list[Any] = [{}, 5]
        for bad in refused:
            with pytest.raises(pydantic.ValidationError):
                adapter.validate_python(bad)


async def test_secrets_stay_out(client: Client, emulator: Emulator) -> None:
    """An input that is secret does not get to the browser."""
    made = await client.predictions.create(HELLO, {"text": "hush"})
    secret = made._context.with_secrets(frozenset({"text"}))
    value, _ = await answer("/x", endpoint_of(secret.bind(made), Prediction))
    assert "hush" not in json.dumps(value["input"])


def test_to_json() -> None:
    """Anything else that is not JSON is a TypeError."""
    with pytest.raises(TypeError, match="object is not"):
        json.dumps(object(), default=replicate_async.to_json)
    stats = json.loads(json.dumps(replicate_async.Stats(), default=replicate_async.to_json))
    assert stats["created"] == 0


def test_pydantic_is_not_imported() -> None:
    """The package does not depend on pydantic."""
    code = (
        "import sys, replicate_async as r; from replicate_async import *;"
        "assert not {'pydantic', 'pydantic_core'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
