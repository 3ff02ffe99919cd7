"""The table of operations: what each one sends, and what it returns."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import attrs
import pytest

import replicate_async as replicate
from replicate_async import Client, FileOutput, Page
from replicate_async.resources.webhooks import WebhookSigningSecret
from replicate_async.testing import TOKEN, WEBHOOK_SECRET, Emulator
from replicate_async.types import CollectionSummary

from .conftest import HELLO

ALL_OPERATIONS = """
GET     /account                                                                        account.get
GET     /collections                                                                    collections.list
GET     /collections/{collection_slug}                                                  collections.get
GET     /deployments                                                                    deployments.list
POST    /deployments                                                                    deployments.create
GET     /deployments/{deployment_owner}/{deployment_name}                               deployments.get
PATCH   /deployments/{deployment_owner}/{deployment_name}                               deployments.update
DELETE  /deployments/{deployment_owner}/{deployment_name}                               deployments.delete
POST    /deployments/{deployment_owner}/{deployment_name}/predictions                   deployments.predictions.create
GET     /files                                                                          files.list
POST    /files                                                                          files.create
GET     /files/{file_id}                                                                files.get
DELETE  /files/{file_id}                                                                files.delete
GET     /files/{file_id}/download                                                       files.download
GET     /hardware                                                                       hardware.list
GET     /models                                                                         models.list
QUERY   /models                                                                         models.search
POST    /models                                                                         models.create
GET     /models/{model_owner}/{model_name}                                              models.get
PATCH   /models/{model_owner}/{model_name}                                              models.update
DELETE  /models/{model_owner}/{model_name}                                              models.delete
GET     /models/{model_owner}/{model_name}/examples                                     models.examples.list
POST    /models/{model_owner}/{model_name}/predictions                                  models.predictions.create
GET     /models/{model_owner}/{model_name}/readme                                       models.readme.get
GET     /models/{model_owner}/{model_name}/versions                                     models.versions.list
GET     /models/{model_owner}/{model_name}/versions/{version_id}                        models.versions.get
DELETE  /models/{model_owner}/{model_name}/versions/{version_id}                        models.versions.delete
POST    /models/{model_owner}/{model_name}/versions/{version_id}/trainings              trainings.create
GET     /predictions                                                                    predictions.list
POST    /predictions                                                                    predictions.create
GET     /predictions/{prediction_id}                                                    predictions.get
POST    /predictions/{prediction_id}/cancel                                             predictions.cancel
GET     /search                                                                         search
GET     /trainings                                                                      trainings.list
GET     /trainings/{training_id}                                                        trainings.get
POST    /trainings/{training_id}/cancel                                                 trainings.cancel
GET     /webhooks/default/secret                                                        webhooks.default.secret.get
"""
"""The list of the reference, written out, so that a row that is missing below is noticed."""

JSON = "application/json"
SIGNED = {"owner": "acme", "expiry": 4102444800, "signature": "ab/c+d=="}


@attrs.frozen
class World:
    """What exists before an operation is called."""

    emulator: Emulator
    ids: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.ids[name]


@attrs.frozen
class Row:
    """One operation: how it is called, what must go over the wire, what must come back."""

    operation: str
    call: Callable[[Client, World], Awaitable[Any]]
    check: Callable[[Any, World], object]
    path: Mapping[str, str] = {}
    """The variable parts of the path; `@name` stands for an id of the world."""
    query: Mapping[str, str] = {}
    body: Any = None
    content_type: str | None = None
    headers: Mapping[str, str] = {}
    """Headers that only this operation sends."""


def _is(kind: type[Any], **fields: Any) -> Callable[[Any, World], object]:
    """Check for an object with these fields."""

    def check(result: Any, world: World) -> None:
        assert type(result) is kind
        for name, value in fields.items():
            expected = world[value[1:]] if isinstance(value, str) and value[:1] == "@" else value
            assert getattr(result, name) == expected, name

    return check


def _is_one(kind: type[Any], **fields: Any) -> Callable[[Any, World], object]:
    """Check for a list of one such object."""

    def check(result: Any, world: World) -> None:
        (only,) = result
        _is(kind, **fields)(only, world)

    return check


def _is_page(kind: type[Any], **fields: Any) -> Callable[[Any, World], object]:
    """Check for a page that has an object with these fields."""

    def check(result: Any, world: World) -> None:
        assert type(result) is Page
        assert {type(item) for item in result} == {kind}
        wanted = [
            world[value[1:]] if isinstance(value, str) and value[:1] == "@" else value
            for value in fields.values()
        ]
        assert wanted in [[getattr(item, name) for name in fields] for item in result]

    return check


def _is_nothing(result: Any, world: World) -> None:
    assert result is None


def _is_deleted_file(result: Any, world: World) -> None:
    assert result is None
    with pytest.raises(KeyError):
        world.emulator.file_content(world["file"])


def _is_uploaded(result: Any, world: World) -> None:
    content = world.emulator.file_content(result.id)
    assert type(result) is replicate.File
    assert content == b"new"
    assert (result.name, result.content_type, result.size) == ("n.txt", "text/plain", 3)
    assert result.checksums["sha256"] == hashlib.sha256(content).hexdigest()
    assert result.metadata == {"customer": 123}
    assert isinstance(result.created_at, datetime)
    assert isinstance(result.expires_at, datetime)
    assert result.expires_at > result.created_at
    assert result.urls.get is not None
    assert result.urls.get.endswith(result.id)


def _is_hardware(result: Any, world: World) -> None:
    assert isinstance(result, list)
    assert {type(item) for item in result} == {replicate.Hardware}
    assert ("cpu", "CPU") in [(item.sku, item.name) for item in result]


def _is_search(result: Any, world: World) -> None:
    assert type(result) is replicate.SearchResults
    assert result.query == "paints & images"
    assert [match.model.full_name for match in result.models] == ["emulator/painter"]
    assert result.models[0].metadata.tags


def _is_release(number: int, most: int) -> Callable[[Any, World], object]:
    def check(result: Any, world: World) -> None:
        assert type(result) is replicate.Deployment
        assert result.owner == "acme"
        release = result.current_release
        assert release is not None
        assert (release.number, release.model, release.version) == (
            number,
            "replicate/hello-world",
            HELLO,
        )
        assert (release.configuration.hardware, release.configuration.max_instances) == (
            "cpu",
            most,
        )
        assert release.created_by is not None
        assert release.created_by.username == "acme"

    return check


def _is_training(result: Any, world: World) -> None:
    assert type(result) is replicate.Training
    assert (result.model, result.status) == ("emulator/trainee", "starting")
    assert world.emulator.ledger.life(result.id).kind == "training"


async def _download(client: Client, world: World) -> Any:
    signed = dict(parse_qsl(world.emulator.download_url(world["file"]).partition("?")[2]))
    output = client.files.download(
        world["file"],
        owner=signed["owner"],
        expiry=datetime.fromtimestamp(int(signed["expiry"]), UTC),
        signature=signed["signature"],
    )
    assert type(output) is FileOutput
    return await output.read()


def _is_content(result: Any, world: World) -> None:
    assert result == world.emulator.file_content(world["file"])


DEPLOYMENT = {"deployment_owner": "acme", "deployment_name": "prod"}
MINE = {"model_owner": "acme", "model_name": "mine"}
WORLD = {"model_owner": "replicate", "model_name": "hello-world"}
TRAINING_INPUT = {"input_images": "data:text/plain;base64,YWJj"}

TABLE = [
    Row(
        "account.get",
        lambda c, w: c.accounts.current(),
        _is(replicate.Account, username="acme", type="user"),
    ),
    Row(
        "collections.list",
        lambda c, w: c.collections.list(),
        _is_page(CollectionSummary, slug="text-to-image", name="Text to image"),
    ),
    Row(
        "collections.get",
        lambda c, w: c.collections.get("text-to-image"),
        lambda result, w: (
            _is(replicate.Collection, slug="text-to-image")(result, w),
            _is_one(replicate.Model, full_name="emulator/painter")(result.models, w),
        ),
        path={"collection_slug": "text-to-image"},
    ),
    Row(
        "deployments.list",
        lambda c, w: c.deployments.list(),
        _is_page(replicate.Deployment, owner="acme", name="prod"),
    ),
    Row(
        "deployments.create",
        lambda c, w: c.deployments.create(
            "new",
            model="replicate/hello-world",
            version=f"replicate/hello-world:{HELLO}",
            hardware="cpu",
            min_instances=0,
            max_instances=3,
        ),
        _is_release(1, 3),
        body={
            "name": "new",
            "model": "replicate/hello-world",
            "version": HELLO,
            "hardware": "cpu",
            "min_instances": 0,
            "max_instances": 3,
        },
    ),
    Row(
        "deployments.get",
        lambda c, w: c.deployments.get("acme/prod"),
        _is_release(1, 1),
        path=DEPLOYMENT,
    ),
    Row(
        "deployments.update",
        lambda c, w: c.deployments.update("acme/prod", max_instances=7),
        _is_release(2, 7),
        path=DEPLOYMENT,
        body={"max_instances": 7},
    ),
    Row(
        "deployments.delete",
        lambda c, w: c.deployments.delete("acme/prod"),
        _is_nothing,
        path=DEPLOYMENT,
    ),
    Row(
        "deployments.predictions.create",
        lambda c, w: c.deployments.predictions.create("acme/prod", {"text": "Bob"}),
        _is(replicate.Prediction, status="starting", deployment="prod", version=HELLO),
        path=DEPLOYMENT,
        body={"input": {"text": "Bob"}},
    ),
    Row("files.list", lambda c, w: c.files.list(), _is_page(replicate.File, id="@file", size=3)),
    Row(
        "files.create",
        lambda c, w: c.files.create(
            b"new", filename="n.txt", content_type="text/plain", metadata={"customer": 123}
        ),
        _is_uploaded,
        content_type="multipart/form-data",
    ),
    Row(
        "files.get",
        lambda c, w: c.files.get(w["file"]),
        _is(replicate.File, id="@file", size=3, name="old.txt"),
        path={"file_id": "@file"},
    ),
    Row(
        "files.delete",
        lambda c, w: c.files.delete(w["file"]),
        _is_deleted_file,
        path={"file_id": "@file"},
    ),
    Row(
        "files.download",
        _download,
        _is_content,
        path={"file_id": "@file"},
        query={"owner": "acme", "expiry": "@expiry", "signature": "@signature"},
    ),
    Row("hardware.list", lambda c, w: c.hardware.list(), _is_hardware),
    Row(
        "models.list",
        lambda c, w: c.models.list(sort_by="model_created_at", sort_direction="asc"),
        _is_page(replicate.Model, owner="replicate", name="hello-world"),
        query={"sort_by": "model_created_at", "sort_direction": "asc"},
    ),
    Row(
        "models.search",
        lambda c, w: c.models.search("says hello"),
        _is_page(replicate.Model, owner="replicate", name="hello-world"),
        body=b"says hello",
        content_type="text/plain",
    ),
    Row(
        "models.create",
        lambda c, w: c.models.create(
            "acme",
            "new",
            visibility="private",
            hardware="cpu",
            description="d",
            github_url="https://github.com/acme/new",
            paper_url="https://example.com/paper",
            license_url="https://example.com/license",
            cover_image_url="https://example.com/cover.png",
        ),
        _is(replicate.Model, owner="acme", name="new", visibility="private", description="d"),
        body={
            "owner": "acme",
            "name": "new",
            "visibility": "private",
            "hardware": "cpu",
            "description": "d",
            "github_url": "https://github.com/acme/new",
            "paper_url": "https://example.com/paper",
            "license_url": "https://example.com/license",
            "cover_image_url": "https://example.com/cover.png",
        },
    ),
    Row(
        "models.get",
        lambda c, w: c.models.get("replicate/hello-world"),
        lambda result, w: (
            _is(replicate.Model, full_name="replicate/hello-world", is_official=False)(result, w),
            _is(replicate.Version, id=HELLO)(result.latest_version, w),
            _is(replicate.Prediction, output="hello Alice")(result.default_example, w),
        ),
        path=WORLD,
    ),
    Row(
        "models.update",
        lambda c, w: c.models.update(
            "acme/mine",
            description="d",
            readme="# M",
            github_url="https://github.com/acme/mine",
            paper_url="https://example.com/paper",
            weights_url="https://example.com/weights",
            license_url="https://example.com/license",
        ),
        _is(replicate.Model, full_name="acme/mine", description="d"),
        path=MINE,
        body={
            "description": "d",
            "readme": "# M",
            "github_url": "https://github.com/acme/mine",
            "paper_url": "https://example.com/paper",
            "weights_url": "https://example.com/weights",
            "license_url": "https://example.com/license",
        },
    ),
    Row(
        "models.delete",
        lambda c, w: c.models.delete("acme/empty"),
        _is_nothing,
        path={"model_owner": "acme", "model_name": "empty"},
    ),
    Row(
        "models.examples.list",
        lambda c, w: c.models.examples.list("replicate/hello-world"),
        _is_page(replicate.Prediction, input={"text": "Alice"}, output="hello Alice"),
        path=WORLD,
    ),
    Row(
        "models.predictions.create",
        lambda c, w: c.models.predictions.create("emulator/writer", {"prompt": "x"}),
        _is(replicate.Prediction, model="emulator/writer", version="hidden", status="starting"),
        path={"model_owner": "emulator", "model_name": "writer"},
        body={"input": {"prompt": "x"}},
    ),
    Row(
        "models.readme.get",
        lambda c, w: c.models.readme.get("replicate/hello-world"),
        lambda result, w: result.startswith("# hello-world\n") or pytest.fail(result),
        path=WORLD,
    ),
    Row(
        "models.versions.list",
        lambda c, w: c.models.versions.list("replicate/hello-world"),
        _is_page(replicate.Version, id=HELLO),
        path=WORLD,
    ),
    Row(
        "models.versions.get",
        lambda c, w: c.models.versions.get("replicate/hello-world", HELLO),
        lambda result, w: (
            _is(replicate.Version, id=HELLO)(result, w),
            result.openapi_schema["components"]["schemas"]["Input"],
        ),
        path={**WORLD, "version_id": HELLO},
    ),
    Row(
        "models.versions.delete",
        lambda c, w: c.models.versions.delete("acme/mine", w["version"]),
        _is_nothing,
        path={**MINE, "version_id": "@version"},
    ),
    Row(
        "trainings.create",
        lambda c, w: c.trainings.create(
            version=w["trainee"],
            model="emulator/trainee",
            input=TRAINING_INPUT,
            destination="acme/trained",
            webhook="https://example.com/hook",
            webhook_events_filter=["completed"],
        ),
        _is_training,
        path={"model_owner": "emulator", "model_name": "trainee", "version_id": "@trainee"},
        body={
            "input": TRAINING_INPUT,
            "destination": "acme/trained",
            "webhook": "https://example.com/hook",
            "webhook_events_filter": ["completed"],
        },
    ),
    Row(
        "predictions.list",
        lambda c, w: c.predictions.list(created_after="2020-01-01T00:00:00Z"),
        _is_page(replicate.Prediction, id="@prediction", model="emulator/sleeper"),
        query={"created_after": "2020-01-01T00:00:00Z"},
    ),
    Row(
        "predictions.create",
        lambda c, w: c.predictions.create(
            HELLO,
            {"text": "Bob"},
            wait=7,
            cancel_after="5m",
            webhook="https://example.com/hook",
            webhook_events_filter=["start", "completed"],
            stream=True,
        ),
        _is(replicate.Prediction, version=HELLO, output="hello Bob"),
        body={
            "version": HELLO,
            "input": {"text": "Bob"},
            "webhook": "https://example.com/hook",
            "webhook_events_filter": ["start", "completed"],
            "stream": True,
        },
        headers={"Prefer": "wait=7", "Cancel-After": "300s"},
    ),
    Row(
        "predictions.get",
        lambda c, w: c.predictions.get(w["prediction"]),
        _is(replicate.Prediction, id="@prediction", input={"seconds": 60}),
        path={"prediction_id": "@prediction"},
    ),
    Row(
        "predictions.cancel",
        lambda c, w: c.predictions.cancel(w["prediction"]),
        _is(replicate.Prediction, id="@prediction", status="canceled"),
        path={"prediction_id": "@prediction"},
    ),
    Row(
        "search",
        lambda c, w: c.search("paints & images", limit=1),
        _is_search,
        query={"query": "paints & images", "limit": "1"},
    ),
    Row(
        "trainings.list",
        lambda c, w: c.trainings.list(),
        _is_page(replicate.Training, id="@training", model="emulator/trainee"),
    ),
    Row(
        "trainings.get",
        lambda c, w: c.trainings.get(w["training"]),
        _is(replicate.Training, id="@training", input=TRAINING_INPUT),
        path={"training_id": "@training"},
    ),
    Row(
        "trainings.cancel",
        lambda c, w: c.trainings.cancel(w["training"]),
        _is(replicate.Training, id="@training"),
        path={"training_id": "@training"},
    ),
    Row(
        "webhooks.default.secret.get",
        lambda c, w: c.webhooks.default.secret(),
        _is(WebhookSigningSecret, key=WEBHOOK_SECRET),
    ),
]


def _reference() -> dict[str, tuple[str, str]]:
    rows = [line.split() for line in ALL_OPERATIONS.strip().splitlines()]
    return {operation: (method, path) for method, path, operation in rows}


@pytest.fixture
async def world(client: Client, emulator: Emulator) -> World:
    """Make what the operations are about."""
    version = emulator.add_model("acme/mine", lambda: "x", visibility="private")
    emulator.add_model("acme/empty", visibility="private")
    await client.deployments.create(
        "prod",
        model="replicate/hello-world",
        version=HELLO,
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    file = await client.files.create(b"old", filename="old.txt")
    sleeper = await client.models.get("emulator/sleeper")
    trainee = await client.models.get("emulator/trainee")
    assert version is not None
    assert sleeper.latest_version is not None
    assert trainee.latest_version is not None
    prediction = await client.predictions.create(sleeper.latest_version, {"seconds": 60})
    training = await client.trainings.create(
        trainee.latest_version, TRAINING_INPUT, model=trainee, destination="acme/trained"
    )
    signed = dict(parse_qsl(emulator.download_url(file.id).partition("?")[2]))
    return World(
        emulator,
        {
            "version": version,
            "file": file.id,
            "trainee": trainee.latest_version.id,
            "prediction": prediction.id,
            "training": training.id,
            "expiry": signed["expiry"],
            "signature": signed["signature"],
        },
    )


def test_the_table_has_every_operation() -> None:
    """Each of the 37 operations of the reference has a row, and no row is of another."""
    assert len(_reference()) == 37
    assert [row.operation for row in TABLE] == list(_reference())


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.operation)
async def test_operation(row: Row, client: Client, world: World) -> None:
    """The operation sends what the reference says, and nothing else, and returns what it promises."""
    ledger = world.emulator.ledger
    known = len(ledger.requests())
    row.check(await row.call(client, world), world)
    (request,) = ledger.requests()[known:]
    method, template = _reference()[row.operation]

    def filled(value: str) -> str:
        return world[value[1:]] if value.startswith("@") else value

    expected = "/v1" + template.format(**{k: filled(v) for k, v in row.path.items()})
    assert (request.operation, request.method, request.path) == (row.operation, method, expected)
    sent = parse_qsl(request.query, keep_blank_values=True, strict_parsing=bool(request.query))
    assert sent == [(name, filled(value)) for name, value in row.query.items()]

    headers = dict(request.headers)
    # The content of a file is fetched by its signature: no URL of an output gets the token.
    token = None if row.operation == "files.download" else f"Bearer {TOKEN}"
    assert headers.pop("Authorization", None) == token
    assert headers.pop("User-Agent") == f"replicate-async/{replicate.__version__}"
    content_type = headers.pop("Content-Type", None)
    if isinstance(row.body, dict):
        assert content_type == JSON
        assert request.json() == row.body
    elif isinstance(row.body, bytes):
        assert content_type is not None
        assert content_type.partition(";")[0] == row.content_type
        assert request.body == row.body
    elif row.content_type is not None:
        assert content_type is not None
        assert content_type.partition(";")[0] == row.content_type
        assert request.body_size > 0
    else:
        # aiohttp names a type for the empty body of a POST, too.
        assert content_type in {None, "application/octet-stream"}
        assert (request.body, headers.get("Content-Length", "0")) == (b"", "0")
    for name in ("Host", "Accept", "Accept-Encoding", "Content-Length"):
        headers.pop(name, None)
    if "Cancel-After" in headers:
        # Never less than was asked for; what is on top is a mark.
        marked = int(headers.pop("Cancel-After").removesuffix("s"))
        asked = int(str(row.headers.get("Cancel-After", "79200s")).removesuffix("s"))
        assert asked <= marked < (1.1 * asked if asked < 79200 else 86400)
    assert headers == {name: row.headers[name] for name in row.headers if name != "Cancel-After"}


async def test_objects_reach_their_own_operations(client: Client, world: World) -> None:
    """The namespaces that hang on objects send the same as those of the client."""
    ledger = world.emulator.ledger
    model = await client.models.get("replicate", "hello-world")
    deployment = await client.deployments.get("acme", "prod")
    assert model.latest_version is not None
    mine = await client.models.get("acme/mine")
    known = len(ledger.requests())
    await model.versions.list()
    await model.versions.get(HELLO)
    await model.versions.get(f"replicate/hello-world:{HELLO}")
    await model.examples.list()
    assert (await model.readme.get()).startswith("# ")
    await mine.versions.delete(world["version"])
    await model.latest_version.predictions.create({"text": "a"})
    await deployment.predictions.create({"text": "b"})
    writer = await client.models.get("emulator/writer")
    await writer.predictions.create({"prompt": "c"}, stream=False)
    await model.reload()
    await deployment.reload()
    base = "/v1/models/replicate/hello-world"
    assert [(r.method, r.path) for r in ledger.requests()[known:]] == [
        ("GET", f"{base}/versions"),
        ("GET", f"{base}/versions/{HELLO}"),
        ("GET", f"{base}/versions/{HELLO}"),
        ("GET", f"{base}/examples"),
        ("GET", f"{base}/readme"),
        ("DELETE", f"/v1/models/acme/mine/versions/{world['version']}"),
        ("POST", "/v1/predictions"),
        ("POST", "/v1/deployments/acme/prod/predictions"),
        ("GET", "/v1/models/emulator/writer"),
        ("POST", "/v1/models/emulator/writer/predictions"),
        ("GET", base),
        ("GET", "/v1/deployments/acme/prod"),
    ]
    assert ledger.requests(operation="predictions.create")[-1].json() == {
        "version": HELLO,
        "input": {"text": "a"},
    }


async def test_targets_are_taken_as_objects(client: Client, world: World) -> None:
    """Models, versions, deployments, hardware and pairs are accepted where names are."""
    ledger = world.emulator.ledger
    model = await client.models.get("replicate/hello-world")
    writer = await client.models.get("emulator/writer")
    prod = await client.deployments.get("acme/prod")
    cpu = next(sku for sku in await client.hardware.list() if sku.sku == "cpu")
    assert model.latest_version is not None
    await client.predictions.create(model.latest_version, {"text": "a"})
    await client.predictions.create(model=writer, input={"prompt": "a"})
    await client.predictions.create(deployment=prod, input={"text": "a"})
    await client.predictions.create(deployment="acme/prod", input={"text": "a"})
    await client.models.predictions.create(("emulator", "writer"), {"prompt": "a"})
    await client.deployments.predictions.create(prod, {"text": "a"})
    assert [r.path for r in ledger.requests(method="POST", path="/v1/*")[-6:]] == [
        "/v1/predictions",
        "/v1/models/emulator/writer/predictions",
        "/v1/deployments/acme/prod/predictions",
        "/v1/deployments/acme/prod/predictions",
        "/v1/models/emulator/writer/predictions",
        "/v1/deployments/acme/prod/predictions",
    ]
    await client.deployments.update(
        prod.owner, prod.name, version=model.latest_version, hardware=cpu, min_instances=0
    )
    assert ledger.requests(operation="deployments.update")[-1].json() == {
        "version": HELLO,
        "hardware": "cpu",
        "min_instances": 0,
    }
    await client.deployments.create(
        "second",
        model=model,
        version=model.latest_version,
        hardware=cpu,
        min_instances=0,
        max_instances=1,
    )
    assert ledger.requests(operation="deployments.create")[-1].json()["model"] == model.full_name
