"""The official Python client 1.0.7 works unchanged (HTTP API, section 16)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import replicate
import replicate.exceptions
from replicate.client import Client
from replicate.pagination import paginate
from replicate.webhook import Webhooks

from replicate_async.testing import ConcatenateIterator, Emulator, Input, OutputFile, RateLimits

from .conftest import HELLO


@pytest.fixture
def client(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Return an official client; it has no public way to close its connections."""
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.01")
    official = Client(api_token=emulator.token, base_url=emulator.url)
    yield official
    official._client.close()


def test_run_of_a_version(client: Client) -> None:
    """`run("owner/name:version")` returns the output, after reading the version's schema."""
    assert client.run(f"replicate/hello-world:{HELLO}", input={"text": "Alice"}) == "hello Alice"


def test_run_of_an_official_model_returns_files(client: Client) -> None:
    """Files of a sync answer are data URIs, which the client turns into file objects."""
    output = client.run("emulator/painter", input={"prompt": "a lake", "width": 64, "height": 64})
    assert isinstance(output, list)
    assert output[0].read().startswith(b"\x89PNG\r\n\x1a\n")


def test_run_of_an_iterator(emulator: Emulator, client: Client) -> None:
    """The schema's iterator marker makes the client return an iterator."""

    @emulator.model("acme/count")
    def count(to: int) -> ConcatenateIterator[str]:
        for number in range(to):
            yield f" {number}"

    version = client.models.get("acme/count").latest_version
    assert version is not None
    output = client.run(f"acme/count:{version.id}", input={"to": 3}, wait=False)
    assert list(output) == [" 0", " 1", " 2"]
    assert list(client.run(f"acme/count:{version.id}", input={"to": 3})) == [" 0", " 1", " 2"]


def test_stream(client: Client) -> None:
    """`stream` yields the tokens, then `done`."""
    events = list(client.stream("emulator/writer", input={"prompt": "sea", "max_tokens": 8}))
    assert len(events) == 9
    assert str(events[0])
    assert events[-1].event.value == "done"


def test_stream_of_a_failure(emulator: Emulator, client: Client) -> None:
    """A failing model ends the stream with an error."""

    @emulator.model("acme/breaks", official=True)
    def breaks() -> ConcatenateIterator[str]:
        yield "one"
        raise ValueError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        list(client.stream("acme/breaks", input={}))


async def test_async_run(client: Client) -> None:
    """`async_run` works."""
    assert await client.async_run(f"replicate/hello-world:{HELLO}", {"text": "Bob"}) == "hello Bob"
    await client._async_client.aclose()


def test_failure_and_validation(client: Client) -> None:
    """A failed prediction raises ModelError; a bad input raises ReplicateError with the texts."""
    failer = client.models.get("emulator/failer").latest_version
    assert failer is not None
    with pytest.raises(replicate.exceptions.ModelError, match="E1001"):
        client.run(f"emulator/failer:{failer.id}", input={"error": "Out of memory. (E1001)"})
    with pytest.raises(replicate.exceptions.ReplicateError) as caught:
        client.run(f"replicate/hello-world:{HELLO}", input={})
    assert caught.value.status == 422
    assert caught.value.detail == "- input: text is required\n"


def test_wrong_token(emulator: Emulator) -> None:
    """A wrong token raises with title and detail."""
    client = Client(api_token="r8_wrong", base_url=emulator.url)
    with pytest.raises(replicate.exceptions.ReplicateError) as caught:
        client.models.get("replicate/hello-world")
    assert (caught.value.status, caught.value.title) == (401, "Unauthenticated")
    client._client.close()


def test_predictions(client: Client) -> None:
    """Create, reload, wait, cancel, list and get work."""
    prediction = client.predictions.create(version=HELLO, input={"text": "x"})
    assert prediction.status == "starting"
    prediction.wait()
    assert prediction.output == "hello x"
    sleeper = client.models.get("emulator/sleeper").latest_version
    assert sleeper is not None
    running = client.predictions.create(version=sleeper.id, input={"seconds": 60})
    running.cancel()
    assert client.predictions.get(running.id).status == "canceled"
    assert [p.id for p in client.predictions.list()] == [running.id, prediction.id]


def test_progress_from_logs(client: Client) -> None:
    """The client reads progress from the tqdm lines of the sleeper."""
    sleeper = client.models.get("emulator/sleeper").latest_version
    assert sleeper is not None
    prediction = client.predictions.create(version=sleeper.id, input={"seconds": 0.01, "steps": 4})
    prediction.wait()
    progress = prediction.progress
    assert progress is not None
    assert (progress.current, progress.total) == (4, 4)


def test_pagination(emulator: Emulator, client: Client) -> None:
    """`replicate.paginate` follows absolute links through all pages."""
    ids = [emulator.add_prediction("replicate/hello-world", {"text": "a"}) for _ in range(250)]
    pages = _pages(client)
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [found for page in pages for found in page] == ids[::-1]


def _pages(client: Client) -> list[list[str]]:
    return [[p.id for p in page.results] for page in paginate(client.predictions.list)]


def test_files(emulator: Emulator, client: Client, tmp_path: Path) -> None:
    """Create, get, list and delete work; name, type and metadata arrive."""
    path = tmp_path / "notes.txt"
    path.write_text("content")
    file = client.files.create(path, metadata={"a": 1})
    assert (file.name, file.content_type, file.size) == ("notes.txt", "text/plain", 7)
    assert file.metadata == {"a": 1}
    assert emulator.file_content(file.id) == b"content"
    assert client.files.get(file.id).checksums == file.checksums
    assert [f.id for f in client.files.list()] == [file.id]
    client.files.delete(file.id)
    assert client.files.list() == []


def test_file_input_is_uploaded_and_read(emulator: Emulator, client: Client) -> None:
    """A file input is uploaded by the client and fetched by the model."""

    @emulator.model("acme/size", official=True)
    def size(file: Path) -> int:
        return file.stat().st_size

    assert client.run("acme/size", input={"file": io.BytesIO(b"12345")}) == 5
    data_uri = client.run(
        "acme/size", input={"file": io.BytesIO(b"123")}, file_encoding_strategy="base64"
    )
    assert data_uri == 3


def test_output_urls_can_be_downloaded(client: Client) -> None:
    """Without sync mode a file output is a URL that serves the file."""
    output = client.run(
        "emulator/painter", input={"prompt": "x", "width": 64, "height": 64}, wait=False
    )
    assert isinstance(output, list)
    assert httpx.get(output[0]).content.startswith(b"\x89PNG")


def test_trainings(client: Client) -> None:
    """A training runs, and adds a version to its destination."""
    trainee = client.models.get("emulator/trainee").latest_version
    assert trainee is not None
    training = client.trainings.create(
        model="emulator/trainee",
        version=trainee.id,
        input={"input_images": "data:text/plain;base64,YWJj"},
        destination="acme/trained",
    )
    while training.status not in ("succeeded", "failed", "canceled"):
        training.reload()
    assert training.status == "succeeded", training.error
    assert training.output is not None
    trained = client.models.get("acme/trained").latest_version
    assert trained is not None
    assert training.output["version"] == f"acme/trained:{trained.id}"
    assert [t.id for t in client.trainings.list()] == [training.id]
    assert client.trainings.cancel(training.id).status == "succeeded"


def test_deployments(client: Client) -> None:
    """Create, get, list, update, run and delete work."""
    deployment = client.deployments.create(
        name="greeter",
        model="replicate/hello-world",
        version=HELLO,
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    assert deployment.current_release is not None
    assert deployment.current_release.number == 1
    updated = client.deployments.update("acme", "greeter", max_instances=2)
    assert updated.current_release is not None
    assert updated.current_release.configuration.max_instances == 2
    assert [d.name for d in client.deployments.list()] == ["greeter"]
    assert client.deployments.delete("acme", "greeter")
    deployment = client.deployments.create(
        name="greeter",
        model="replicate/hello-world",
        version=HELLO,
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    prediction = deployment.predictions.create(input={"text": "Ada"})
    prediction.wait()
    assert prediction.output == "hello Ada"


def test_models_and_versions(emulator: Emulator, client: Client) -> None:
    """Create, list, search, get and delete of models; list and get of versions."""
    model = client.models.create(
        owner="acme", name="mine", visibility="private", hardware="cpu", description="Mine"
    )
    assert model.latest_version is None
    assert "replicate/hello-world" in [f"{m.owner}/{m.name}" for m in client.models.list()]
    found = client.models.search("hello")
    assert [m.name for m in found] == ["hello-world"]
    hello = client.models.get("replicate", "hello-world")
    assert [v.id for v in hello.versions.list()] == [HELLO]
    assert hello.versions.get(HELLO).openapi_schema["openapi"] == "3.0.2"
    assert client.models.delete("acme", "mine")
    version = emulator.add_model("acme/private", lambda: "x", visibility="private")
    assert version is not None
    client.models.get("acme/private").versions.delete(version)
    assert list(client.models.get("acme/private").versions.list()) == []


def test_collections_hardware_account(client: Client) -> None:
    """The small namespaces work."""
    slugs = [collection.slug for collection in client.collections.list()]
    assert "text-to-image" in slugs
    models = client.collections.get("text-to-image").models
    assert models is not None
    assert [model.name for model in models] == ["painter"]
    assert ("cpu", "CPU") in [(h.sku, h.name) for h in client.hardware.list()]
    assert client.accounts.current().username == "acme"


def test_webhooks_validate(emulator: Emulator, client: Client) -> None:
    """The client accepts a delivery's signature with the secret that the API gives."""
    prediction = client.predictions.create(
        version=HELLO,
        input={"text": "x"},
        webhook="https://example.com/hook",
        webhook_events_filter=["completed"],
    )
    prediction.wait()
    while not emulator.deliveries:
        client.predictions.get(prediction.id)
    delivery = emulator.deliveries[0]
    secret = client.webhooks.default.secret()
    Webhooks.validate(
        headers=delivery.headers, body=delivery.body.decode(), secret=secret, tolerance=60
    )


def test_reads_are_retried_on_429(emulator: Emulator, client: Client) -> None:
    """The client waits as the 429 says and goes on."""
    emulator.set_rate_limits(RateLimits(others=60, others_burst=1, per=20.0))
    assert client.accounts.current().username == "acme"
    assert client.accounts.current().username == "acme"
    assert [r.status for r in emulator.ledger.requests(path="/v1/account")][:2] == [200, 429]


def test_input_hint(emulator: Emulator, client: Client) -> None:
    """Bounds given with `Input` reach the client as texts of the service."""

    @emulator.model("acme/bounded", official=True)
    def bounded(steps: int = Input(default=4, ge=1, le=8)) -> OutputFile:
        return OutputFile(b"x" * steps, "x.bin")

    with pytest.raises(
        replicate.exceptions.ReplicateError, match="Must be less than or equal to 8"
    ):
        client.run("acme/bounded", input={"steps": 9})
