"""All 37 operations answer with the status and the body of the reference (section 17)."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from replicate_async.testing import Emulator
from replicate_async.testing._http import ROUTES

from .conftest import HELLO, Answer, Api

TRAINEE_INPUT = {"input_images": "data:text/plain;base64,YWJj"}


async def _statuses(api: Api) -> dict[str, int]:
    """Call every operation once and return the statuses by operation."""
    emulator = api.emulator
    sleeper = {"seconds": 60}
    private = emulator.add_model("acme/private", lambda: "x", visibility="private")
    trainee = (await api("GET", "/models/emulator/trainee")).json()["latest_version"]["id"]
    file = (await api("POST", "/files", data=_form(b"abc"))).json()["id"]
    download = emulator.download_url(file).removeprefix(f"{emulator.url}/v1")
    deployment = {
        "name": "d",
        "model": "replicate/hello-world",
        "version": HELLO,
        "hardware": "cpu",
        "min_instances": 0,
        "max_instances": 1,
    }
    model = {"owner": "acme", "name": "m", "visibility": "private", "hardware": "cpu"}
    hello = {"input": {"text": "a"}}
    training = {"input": TRAINEE_INPUT, "destination": "acme/trained"}
    sleeper_version = (await api("GET", "/models/emulator/sleeper")).json()["latest_version"]["id"]
    prediction = (await api.run(sleeper_version, sleeper))["id"]
    trained = (
        await api("POST", f"/models/emulator/trainee/versions/{trainee}/trainings", json=training)
    ).json()["id"]
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/account", {}),
        ("GET", "/collections", {}),
        ("GET", "/collections/examples", {}),
        ("POST", "/deployments", {"json": deployment}),
        ("GET", "/deployments", {}),
        ("GET", "/deployments/acme/d", {}),
        ("PATCH", "/deployments/acme/d", {"json": {"max_instances": 2}}),
        ("DELETE", "/deployments/acme/d", {}),
        ("GET", "/files", {}),
        ("POST", "/files", {"data": _form(b"")}),
        ("GET", f"/files/{file}", {}),
        ("GET", download, {"token": None}),
        ("DELETE", f"/files/{file}", {}),
        ("GET", "/hardware", {}),
        ("GET", "/models", {}),
        ("QUERY", "/models", {"data": "hello"}),
        ("POST", "/models", {"json": model}),
        ("GET", "/models/acme/m", {}),
        ("PATCH", "/models/acme/m", {"json": {"readme": "# M"}}),
        ("GET", "/models/acme/m/readme", {}),
        ("DELETE", "/models/acme/m", {}),
        ("GET", "/models/replicate/hello-world/examples", {}),
        (
            "POST",
            "/models/emulator/writer/predictions",
            {"json": {"input": {"prompt": "x", "max_tokens": 1}}},
        ),
        ("GET", "/models/replicate/hello-world/versions", {}),
        ("GET", f"/models/replicate/hello-world/versions/{HELLO}", {}),
        ("DELETE", f"/models/acme/private/versions/{private}", {}),
        (
            "POST",
            f"/models/emulator/trainee/versions/{trainee}/trainings",
            {"json": training},
        ),
        ("GET", "/predictions", {}),
        ("POST", "/predictions", {"json": {"version": HELLO, **hello}}),
        ("GET", f"/predictions/{prediction}", {}),
        ("POST", f"/predictions/{prediction}/cancel", {}),
        ("GET", "/search?query=hello", {"token": None}),
        ("GET", "/trainings", {}),
        ("GET", f"/trainings/{trained}", {}),
        ("POST", f"/trainings/{trained}/cancel", {}),
        ("GET", "/webhooks/default/secret", {}),
    ]
    emulator.ledger.clear()
    for method, path, more in calls:
        await api(method, path, **more)
        if path == "/deployments" and method == "POST":
            answer = await api("POST", "/deployments/acme/d/predictions", json=hello)
            await api.finished(answer.json()["id"])
            emulator.clock.advance(16 * 60)
    statuses: dict[str, int] = {}
    for request in emulator.ledger.requests():
        statuses.setdefault(request.operation, request.status or 0)
    return statuses


def _form(content: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("content", content, filename="a.bin", content_type="application/octet-stream")
    return form


async def test_every_operation_has_its_status(api: Api) -> None:
    """Each of the 37 operations succeeds with the recorded status."""
    unusual = {
        "predictions.create": 201,
        "models.predictions.create": 201,
        "deployments.predictions.create": 201,
        "trainings.create": 201,
        "models.create": 201,
        "files.create": 201,
        "models.delete": 204,
        "deployments.delete": 204,
        "files.delete": 204,
        "models.versions.delete": 202,
    }
    assert len(ROUTES) == 37
    expected = {operation: unusual.get(operation, 200) for _, _, operation in ROUTES}
    assert await _statuses(api) == expected


async def test_hello_world_is_as_in_the_reference(api: Api) -> None:
    """The model, its version and its example are those of the reference's examples."""
    model = (await api("GET", "/models/replicate/hello-world")).json()
    assert model["latest_version"]["id"] == HELLO
    assert model["default_example"]["input"] == {"text": "Alice"}
    assert model["default_example"]["output"] == "hello Alice"
    assert model["is_official"] is False
    properties = model["latest_version"]["openapi_schema"]["components"]["schemas"]["Input"]
    assert properties["required"] == ["text"]


async def test_search_spellings(api: Api) -> None:
    """QUERY takes bare text, a JSON string as text, and a JSON string as JSON."""
    spellings = [
        ("hello", "text/plain"),
        ('"hello"', "text/plain"),
        ('"hello"', "application/json"),
    ]
    for body, content_type in spellings:
        answer = await api("QUERY", "/models", data=body, headers={"Content-Type": content_type})
        results = answer.json()["results"]
        assert [model["name"] for model in results] == ["hello-world"], body
        assert "is_official" not in results[0]


async def test_search(api: Api) -> None:
    """`/search` needs a query, bounds its limit, and answers with all four keys."""
    assert (await api("GET", "/search")).json() == {"detail": 'Query parameter "query" is required'}
    assert (await api("GET", "/search?query=x&limit=51")).status == 400
    found = (await api("GET", "/search?query=image&limit=1")).json()
    assert set(found) == {"query", "models", "collections", "pages"}
    assert len(found["models"]) == 1
    assert "emulator/painter" in [name for c in found["collections"] for name in c["models"]]


async def test_model_rules(api: Api) -> None:
    """Creating and deleting models is refused where the reference says so."""
    body = {"owner": "acme", "name": "m", "visibility": "public", "hardware": "gpu-t4"}
    answer = await api("POST", "/models", json=body)
    assert answer.status == 400
    assert answer.json()["errors"] == [
        {
            "pointer": "/hardware",
            "detail": "gpu-t4 is not a valid hardware SKU. Your options are: cpu, gpu-a100-large, "
            "gpu-a100-large-2x, gpu-h100, gpu-l40s, gpu-l40s-2x.",
        }
    ]
    body["hardware"] = "cpu"
    assert (await api("POST", "/models", json=body)).status == 201
    taken = await api("POST", "/models", json=body)
    assert taken.status == 409
    text = "A model with that name and owner already exists."
    assert taken.json()["errors"][0]["detail"] == text
    assert (await api("POST", "/models", json={**body, "owner": "other"})).status == 403
    assert (await api("DELETE", "/models/acme/m")).status == 400
    assert (await api("DELETE", "/models/replicate/hello-world")).status == 403


async def test_private_models_are_invisible_to_others(api: Api, emulator: Emulator) -> None:
    """Another account gets a 404 for a private model, and cannot run it."""
    version = emulator.add_model("acme/secret", lambda: 1, visibility="private")
    other = emulator.add_account("other")
    assert (await api("GET", "/models/acme/secret")).status == 200
    assert (await api("GET", "/models/acme/secret", token=other)).status == 404
    body: dict[str, Any] = {"version": version, "input": {}}
    assert (await api("POST", "/predictions", json=body, token=other)).status == 422
    listed = (await api("GET", "/models")).json()["results"]
    assert "secret" not in [model["name"] for model in listed]


async def test_deployment_rules(api: Api, emulator: Emulator) -> None:
    """Bounds are checked, releases count up, disabling cancels and refuses, deletion needs rest."""
    sleeper = (await api("GET", "/models/emulator/sleeper")).json()["latest_version"]["id"]
    body: dict[str, Any] = {
        "name": "slow",
        "model": "emulator/sleeper",
        "version": sleeper,
        "hardware": "cpu",
        "min_instances": 6,
        "max_instances": 1,
    }
    answer = await api("POST", "/deployments", json=body)
    assert answer.status == 400
    assert answer.json()["errors"][0]["pointer"] == "/min_instances"
    body["min_instances"] = 0
    created = (await api("POST", "/deployments", json=body)).json()
    assert created["current_release"]["number"] == 1
    created = await api(
        "POST", "/deployments/acme/slow/predictions", json={"input": {"seconds": 60}}
    )
    running = created.json()
    assert running["deployment"] == "slow"
    assert running["version"] == sleeper
    disabled = await api("PATCH", "/deployments/acme/slow", json={"max_instances": 0})
    assert disabled.json()["current_release"]["number"] == 2
    assert (await api.finished(running["id"]))["status"] == "canceled"
    refused = await api("POST", "/deployments/acme/slow/predictions", json={"input": {}})
    assert refused.status == 400
    assert (await api("DELETE", "/deployments/acme/slow")).status == 400
    emulator.clock.advance(15 * 60)
    assert (await api("DELETE", "/deployments/acme/slow")).status == 204
    assert (await api("GET", "/deployments/acme/slow")).status == 404


async def test_training(api: Api, emulator: Emulator) -> None:
    """A training ends with a new version of its destination, which runs."""
    trainee = (await api("GET", "/models/emulator/trainee")).json()["latest_version"]["id"]
    path = f"/models/emulator/trainee/versions/{trainee}/trainings"
    missing = await api("POST", path, json={"destination": "acme/none", "input": TRAINEE_INPUT})
    assert missing.status == 404
    assert missing.json()["detail"] == "The specified training destination does not exist"
    body = {"destination": "acme/trained", "input": TRAINEE_INPUT}
    created = await api("POST", path, json=body)
    assert int(created.headers["ratelimit-remaining"]) > 600
    training = created.json()
    assert training["urls"]["get"] == f"{emulator.url}/v1/predictions/{training['id']}"
    assert "completed_at" not in training
    done = await api.finished(training["id"], "trainings")
    assert done["status"] == "succeeded"
    assert done["urls"]["get"] == f"{emulator.url}/v1/trainings/{training['id']}"
    latest = (await api("GET", "/models/acme/trained")).json()["latest_version"]["id"]
    assert done["output"]["version"] == f"acme/trained:{latest}"
    weights = await api("GET", done["output"]["weights"], token=None)
    assert weights.status == 200
    shown = (await api("GET", f"/predictions/{training['id']}")).json()
    assert shown["status"] == "succeeded"
    assert (await api("GET", "/predictions")).json()["results"] == []


async def test_a_cancelled_training_points_at_predictions(api: Api, emulator: Emulator) -> None:
    """The answer to a cancel has the prediction URLs, as recorded."""

    async def train(name: str) -> str:
        await _forever()
        return name

    version = emulator.add_model("acme/slow", lambda: 1, train=train)
    emulator.add_model("acme/target")
    body = {"destination": "acme/target", "input": {"name": "x"}}
    created = await api("POST", f"/models/acme/slow/versions/{version}/trainings", json=body)
    training = created.json()
    answer = (await api("POST", f"/trainings/{training['id']}/cancel")).json()
    assert answer["status"] == "canceled"
    assert answer["urls"]["get"] == f"{emulator.url}/v1/predictions/{training['id']}"


async def _forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (
            "GET",
            "/predictions/none",
            {"detail": "The requested resource could not be found.", "status": 404},
        ),
        (
            "POST",
            "/models/replicate/hello-world/predictions",
            {"detail": "The requested resource could not be found.", "status": 404},
        ),
        ("GET", "/models/acme/none", {"detail": "Not found."}),
        ("GET", "/trainings/none", {"detail": "Not found."}),
        ("GET", "/files/none", {"detail": "File not found"}),
        ("GET", "/nowhere", {"detail": "Not found."}),
    ],
)
async def test_not_found_by_backend(api: Api, method: str, path: str, body: dict[str, Any]) -> None:
    """Each backend has its own 404 (HTTP API, section 2.3)."""
    answer = await api(method, path, json={"input": {}} if method == "POST" else None)
    assert (answer.status, answer.json()) == (404, body)
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_unauthenticated(api: Api) -> None:
    """A missing and a wrong token differ in the detail; both schemes are taken."""
    missing = await api("GET", "/account", token=None)
    assert (missing.status, missing.json()) == (
        401,
        {
            "title": "Unauthenticated",
            "detail": "You did not pass an authentication token",
            "status": 401,
        },
    )
    wrong = await api("GET", "/account", token="r8_wrong")
    assert wrong.json()["detail"] == "You did not pass a valid authentication token"
    header = {"Authorization": f"Token {api.emulator.token}"}
    assert (await api("GET", "/account", token=None, headers=header)).status == 200


async def test_method_not_allowed(api: Api) -> None:
    """A known path with another method is a 405 that names the methods."""
    answer = await api("PUT", "/predictions")
    assert (answer.status, answer.json()) == (405, {"detail": 'Method "PUT" not allowed.'})
    assert answer.headers["allow"] == "GET, POST, HEAD, OPTIONS"


async def test_head(api: Api) -> None:
    """HEAD answers as GET, without a body."""
    answer = await api("HEAD", "/account")
    assert (answer.status, answer.body) == (200, b"")


async def test_readme_is_plain_text(api: Api) -> None:
    """The README is no JSON; a model without one is a 404."""
    answer = await api("GET", "/models/replicate/hello-world/readme")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.body.startswith(b"# ")
    assert (await api("GET", "/models/acme/trained/readme")).status == 404


async def test_version_rules(api: Api, emulator: Emulator) -> None:
    """A version goes only if private, unused by others and without deployment; then it is gone."""
    public = emulator.add_model("acme/public", lambda: 1)
    answer = await api("DELETE", f"/models/acme/public/versions/{public}")
    assert answer.status == 400
    private = emulator.add_model("acme/private", lambda: 1, visibility="private")
    assert private is not None
    prediction = (await api.run(private, {}))["id"]
    assert (await api("DELETE", f"/models/acme/private/versions/{private}")).status == 202
    assert (await api("GET", f"/predictions/{prediction}")).status == 404
    body: dict[str, Any] = {"version": private, "input": {}}
    assert (await api("POST", "/predictions", json=body)).status == 422


async def test_official_models_show_no_versions(api: Api) -> None:
    """The version list of an official model is empty, its latest version has the schema."""
    assert (await api("GET", "/models/emulator/painter/versions")).json()["results"] == []
    model = (await api("GET", "/models/emulator/painter")).json()
    assert model["is_official"] is True
    assert "Input" in model["latest_version"]["openapi_schema"]["components"]["schemas"]


def _ids(answer: Answer) -> list[str]:
    return [item["id"] for item in answer.json()["results"]]


async def test_pages(api: Api, emulator: Emulator) -> None:
    """Links are absolute, opaque, keep the filters, and lead forth and back over all items once."""
    ids = [emulator.add_prediction("replicate/hello-world", {"n": n}) for n in range(230)][::-1]
    first = await api("GET", "/predictions?created_after=2020-01-01T00:00:00Z")
    assert _ids(first) == ids[:100]
    assert first.json()["previous"] is None
    link = first.json()["next"]
    assert link.startswith(f"{emulator.url}/v1/predictions?created_after=2020")
    second = await api("GET", link)
    third = await api("GET", second.json()["next"])
    assert _ids(second) + _ids(third) == ids[100:]
    assert third.json()["next"] is None
    back = await api("GET", third.json()["previous"])
    assert _ids(back) == _ids(second)
    assert _ids(await api("GET", back.json()["previous"])) == ids[:100]
    emulator.add_prediction("replicate/hello-world", {"n": -1})
    assert _ids(await api("GET", link)) == ids[100:200]
    assert (await api("GET", "/predictions?cursor=nonsense")).status == 404


async def test_equal_times_lose_nothing(api: Api, emulator: Emulator) -> None:
    """Predictions added with the same time all appear, over the edges of pages, too."""
    now = emulator.clock.now()
    for _ in range(150):
        emulator.add_prediction("replicate/hello-world", {}, created_at=now)
    first = await api("GET", "/predictions")
    second = await api("GET", first.json()["next"])
    assert len({*_ids(first), *_ids(second)}) == 150


async def test_prediction_filters(api: Api, emulator: Emulator) -> None:
    """`created_after` is inclusive, `created_before` exclusive, `source` only `web`."""
    now = emulator.clock.now()
    times = [now - timedelta(days=days) for days in (20, 3, 2, 1)]
    ids = [
        emulator.add_prediction("replicate/hello-world", {}, created_at=time, source="web")
        for time in times
    ]
    api_id = emulator.add_prediction("replicate/hello-world", {})
    after = times[1].isoformat().replace("+00:00", "Z")
    before = times[3].isoformat().replace("+00:00", "Z")
    both = await api("GET", f"/predictions?created_after={after}&created_before={before}")
    assert _ids(both) == [ids[2], ids[1]]
    assert _ids(await api("GET", "/predictions?source=web")) == ids[:0:-1]
    assert _ids(await api("GET", "/predictions"))[0] == api_id
    for query in ("created_after=yesterday", "source=api"):
        assert (await api("GET", f"/predictions?{query}")).status == 400


async def test_models_are_sorted(api: Api, emulator: Emulator) -> None:
    """`sort_by` and `sort_direction` order the models; anything else is a 400."""
    emulator.add_model("acme/one", lambda: 1)
    emulator.add_model("acme/two", lambda: 1)
    emulator.add_model("acme/one", lambda: 2)

    async def names(query: str) -> list[str]:
        results = (await api("GET", f"/models?{query}")).json()["results"]
        return [model["name"] for model in results if model["name"] in ("one", "two")]

    assert await names("") == ["one", "two"]
    assert await names("sort_by=model_created_at") == ["two", "one"]
    assert await names("sort_by=model_created_at&sort_direction=asc") == ["one", "two"]
    assert (await api("GET", "/models?sort_by=name")).status == 400


async def test_page_sizes_can_be_set() -> None:
    """`page_sizes` makes pagination visible with few items, in both directions."""
    with Emulator(page_sizes={"models": 2, "collections": 2}) as emulator:
        async with aiohttp.ClientSession() as session:
            api = Api(emulator, session)
            for path, key in (("/models", "name"), ("/collections", "slug")):
                seen: list[str] = []
                link: str | None = path
                while link is not None:
                    answer = (await api("GET", link)).json()
                    assert len(answer["results"]) <= 2
                    seen += [item[key] for item in answer["results"]]
                    link = answer["next"]
                assert len(seen) == len(set(seen)) > 4


async def test_json_is_utf8(api: Api) -> None:
    """Text goes over the wire as UTF-8, lone surrogates escaped."""
    prediction = await api.run(HELLO, {"text": "é\ud800"})
    answer = await api("GET", f"/predictions/{prediction['id']}")
    assert json.loads(answer.body)["input"]["text"] == "é\ud800"
