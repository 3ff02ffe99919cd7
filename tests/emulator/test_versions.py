"""Versions of models: ids that a test chooses, several of one model, and models that take any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from replicate_async import Client, exceptions
from replicate_async.testing import Emulator

from .conftest import Api

ONE, TWO, OTHER = ("1" * 64, "2" * 64, "3" * 64)


def add_two(emulator: Emulator) -> None:
    """Add a model with two versions whose ids are given."""

    @emulator.model("acme/shout", version_id=ONE)
    def one(text: str) -> str:
        return text.upper()

    @emulator.model("acme/shout", version_id=TWO)
    def two(text: str, times: int = 2) -> str:
        return text.upper() + "!" * times


async def test_ids_of_a_test(emulator: Emulator, api: Api) -> None:
    """Code that names a version runs that one; without, the newest is shown."""
    add_two(emulator)
    async with Client(emulator.token, base_url=emulator.url) as client:
        assert await client.run(f"acme/shout:{ONE}", {"text": "a"}) == "A"
        assert await client.run(f"acme/shout:{TWO}", {"text": "a"}) == "A!!"
        assert await client.run(ONE, {"text": "a"}) == "A"
        assert await client.run("acme/shout", {"text": "a"}) == "A!!"
        versions = [version.id async for version in client.models.versions.list("acme/shout")]
        assert versions == [TWO, ONE]
        with pytest.raises(exceptions.ReplicateError):
            await client.run(f"acme/shout:{OTHER}", {"text": "a"})
    body = {"version": f"replicate/hello-world:{ONE}", "input": {"text": "a"}}
    assert (await api("POST", "/predictions", json=body)).status == 422


def test_ids_that_cannot_be(emulator: Emulator) -> None:
    """An id belongs to one version, and has no separators in it; the model is not changed then."""
    add_two(emulator)

    def function(text: str) -> str:
        return text

    for given, reason in (
        (ONE, "acme/shout already"),
        ("a/b", "cannot"),
        ("a:b", "cannot"),
        ("", "cannot"),
    ):
        with pytest.raises(ValueError, match=f"version_id: .*{reason}"):
            emulator.add_model("acme/new", function, version_id=given)
    assert "acme/new" not in dict(emulator.models())
    for given in ("dp-0123", "v1.2_b"):
        assert emulator.add_model("acme/new", function, version_id=given) == given


@pytest.mark.parametrize("id", [OTHER, "dp-abc", "hidden2"])
async def test_any_version(emulator: Emulator, api: Api, id: str) -> None:
    """A model that takes any version runs its newest one, and answers with the id that was asked for."""

    @emulator.model("acme/any", any_version=True, version_id=ONE)
    def old(text: str) -> str:
        return "old " + text

    @emulator.model("acme/any")
    def new(text: str) -> str:
        return "new " + text

    found = (await api("GET", f"/models/acme/any/versions/{id}")).json()
    assert found["id"] == id
    assert "text" in found["openapi_schema"]["components"]["schemas"]["Input"]["properties"]
    for version in (id, f"acme/any:{id}"):
        created = await api.run(version, {"text": "a"})
        assert created["version"] == id
        assert (await api.finished(created["id"]))["output"] == "new a"
    created = await api.run(ONE, {"text": "a"})
    assert (await api.finished(created["id"]))["output"] == "old a"
    deployment = {
        "name": f"d-{id[:6]}", "model": "acme/any", "version": id, "hardware": "cpu",
        "min_instances": 0, "max_instances": 1,
    }  # fmt: skip
    answer = await api("POST", "/deployments", json=deployment)
    assert answer.json()["current_release"]["version"] == id
    assert len((await api("GET", "/models/acme/any/versions")).json()["results"]) == 2
    assert (await api("GET", f"/models/replicate/hello-world/versions/{id}")).status == 404


async def test_several_models_that_take_any_version(emulator: Emulator, api: Api) -> None:
    """An id without a name is nobody's if several models could be meant."""
    for name in ("acme/a", "acme/b"):

        @emulator.model(name, any_version=True)
        def model(text: str, name: str = name) -> str:
            return f"{name} {text}"

    created = await api.run(f"acme/a:{OTHER}", {"text": "x"})
    assert (await api.finished(created["id"]))["output"] == "acme/a x"
    answer = await api("POST", "/predictions", json={"version": OTHER, "input": {"text": "x"}})
    assert answer.status == 422


async def test_other_inputs_are_declared(emulator: Emulator) -> None:
    """`**inputs` are in the schema, so that clients which check inputs send them."""
    got: dict[str, Any] = {}

    @emulator.model("acme/all")
    def model(text: str, **inputs: Any) -> str:
        got.update(inputs)
        return text

    @emulator.model("acme/numbers", official=True)
    def numbers(**inputs: int) -> int:
        return sum(inputs.values())

    @emulator.model("acme/files", official=True)
    def files(first: Path, **more: Path) -> list[int]:
        return [len(path.read_bytes()) for path in (first, *more.values())]

    @emulator.model("acme/closed", official=True)
    def closed(text: str) -> str:
        return text

    async with Client(emulator.token, base_url=emulator.url) as client:
        for name, others in (
            ("acme/all", True),
            ("acme/numbers", {"type": "integer"}),
            ("acme/files", {"type": "string", "format": "uri"}),
            ("acme/closed", None),
        ):
            version = (await client.models.get(name)).latest_version
            assert version is not None
            schema = version.openapi_schema
            assert schema is not None
            found = schema["components"]["schemas"]["Input"].get("additionalProperties")
            assert found == others
        shout = client.use("acme/all")
        assert await shout(text="a", seed=3, tags=["b"]) == "a"
        assert got == {"seed": 3, "tags": ["b"]}
        assert "others" in str(shout.signature)
        assert await client.run("acme/numbers", {"a": 1, "b": 2}) == 3
        with pytest.raises(exceptions.ValidationError, match="b"):
            await client.run("acme/numbers", {"a": 1, "b": "two"})
        assert await client.run("acme/files", {"first": b"1", "second": b"22"}) == [1, 2]
        with pytest.raises(exceptions.ArgumentTypeError, match="no such input"):
            await client.use("acme/closed")(text="a", seed=3)


@pytest.mark.parametrize("value", [None, True, False, "https://example.com/hook", 3])
@pytest.mark.parametrize("key", ["stream", "webhook_completed"])
async def test_old_keys_are_ignored(emulator: Emulator, api: Api, key: str, value: Any) -> None:
    """What older clients send is accepted in every create, whatever it is, and changes nothing."""
    add_two(emulator)
    body = {"input": {"text": "a"}, key: value}
    answer = await api("POST", "/predictions", json={"version": ONE, **body})
    assert answer.status == 201, answer.body
    assert (await api.finished(answer.json()["id"]))["output"] == "A"
    body["input"] = {"prompt": "sea", "max_tokens": 2}
    assert (await api("POST", "/models/emulator/writer/predictions", json=body)).status == 201
    assert emulator.deliveries == []
    body = {"version": ONE, "input": {"text": "a"}, "webhooks": None}
    assert (await api("POST", "/predictions", json=body)).status == 422


async def test_all_hardware_can_be_used(api: Api) -> None:
    """What `/hardware` lists is what models and deployments can have."""
    listed = (await api("GET", "/hardware")).json()
    assert len(listed) > 3
    model: dict[str, Any] = {}
    for number, sku in enumerate(entry["sku"] for entry in listed):
        model = {
            "owner": "acme", "name": f"m{number}", "visibility": "private", "hardware": sku
        }  # fmt: skip
        answer = await api("POST", "/models", json=model)
        assert answer.status == 201, answer.body
    refused = await api("POST", "/models", json={**model, "name": "mx", "hardware": "gpu-t4"})
    assert refused.status == 400
    options = ", ".join(entry["sku"] for entry in listed)
    assert f"Your options are: {options}." in refused.json()["detail"]
