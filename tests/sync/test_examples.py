"""What scripts do with the facade: examples, one after the other, on the default client.

The shapes of `replicate` 1.x are not here, but in `replicate_async.v1`.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import aiofiles
import pytest
from PIL import Image

from replicate_async import sync as replicate
from replicate_async.sync import client as sync_client
from replicate_async.sync.client import Client
from replicate_async.sync.exceptions import ModelError
from replicate_async.testing import Emulator

HELLO = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"


@pytest.fixture(autouse=True)
def default(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be no default client before the test, and close that of the test."""
    monkeypatch.setattr("replicate_async.sync.client._default", None)
    yield
    if sync_client._default is not None:  # noqa: SLF001  (a fresh default client)
        sync_client._default.close()  # noqa: SLF001  (a fresh default client)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def version_of(model: str) -> str:
    """Return the id of a model's version."""
    latest = replicate.models.get(model).latest_version
    assert latest is not None
    return latest.id


def test_run_a_model(here: Path) -> None:
    """Run a model."""
    outputs = replicate.run(
        "emulator/painter", input={"prompt": "astronaut riding a rocket like a horse"}
    )
    for index, output in enumerate(outputs):
        with open(f"output_{index}.webp", "wb") as file:  # noqa: PTH123 - as it is written there
            file.write(output.read())
    assert (here / "output_0.webp").read_bytes().startswith(b"\x89PNG")


def test_model_error() -> None:
    """`replicate.run` raises ModelError if the prediction fails; it has the prediction."""
    with pytest.raises(ModelError) as caught:
        replicate.run("emulator/failer", {"error": "(some known issue)"})
    assert "(some known issue)" in str(caught.value.prediction.error)
    assert isinstance(caught.value.prediction.logs, str)
    assert "Failed prediction: " + caught.value.prediction.id
    assert replicate.exceptions.ModelError is ModelError
    assert isinstance(caught.value, replicate.exceptions.ReplicateException)


@pytest.mark.parametrize("wait", [False, 5, 60, True])
def test_wait(emulator: Emulator, wait: bool | int) -> None:
    """Sync mode is configured with `wait`."""
    assert (
        replicate.run("replicate/hello-world", input={"text": "Alice"}, wait=wait) == "hello Alice"
    )
    [create] = [r for r in emulator.ledger.requests() if r.method == "POST" and r.status == 201]
    assert (
        create.headers.get("Prefer")
        == {False: None, 5: "wait=5", 60: "wait=60", True: "wait"}[wait]
    )


def test_there_are_no_async_names() -> None:
    """The import is the switch: the facade has no `async_` functions, and neither do its objects."""
    for place in (replicate, replicate.predictions, replicate.models, replicate.models.list()[0]):
        for name in ("async_run", "async_create", "async_get", "async_reload"):
            assert not hasattr(place, name)


def test_file_input(here: Path) -> None:
    """A handle to a file on the local device is an input."""
    [image] = replicate.run("emulator/painter", {"prompt": "x", "width": 96, "height": 64})
    (here / "mystery.png").write_bytes(image.read())
    with open("mystery.png", "rb") as file:  # noqa: PTH123 - as it is written there
        output = replicate.run("emulator/describer", input={"image": file})
    assert output.startswith("PNG image, 96 x 64 pixels")


def test_stream() -> None:
    """Run a model and stream its output."""
    pieces = [
        str(event)
        for event in replicate.stream(
            "emulator/writer", input={"prompt": "Please write a haiku about llamas."}
        )
    ]
    assert len(pieces) > 3
    assert "".join(pieces)


def test_stream_of_a_prediction() -> None:
    """Stream the output of a prediction that you create."""
    prediction = replicate.predictions.create(
        model="emulator/writer",
        input={"prompt": "Please write a haiku about llamas."},
        stream=True,
    )
    assert "".join(str(event) for event in prediction.stream())


def test_in_the_background(here: Path) -> None:
    """Run a model in the background."""
    model = replicate.models.get("emulator/painter")
    version = model.versions.get(version_of("emulator/painter"))
    prediction = replicate.predictions.create(
        version=version, input={"prompt": "Watercolor painting of an underwater submarine"}
    )
    assert repr(prediction).startswith("Prediction(")
    assert prediction.status == "starting"
    assert dict(prediction)["id"] == prediction.id
    prediction.reload()
    assert prediction.status in ("starting", "processing", "succeeded")
    prediction.wait()
    assert prediction.status == "succeeded"
    assert isinstance(prediction.logs, str)
    with open("output.png", "wb") as file:  # noqa: PTH123 - as it is written there
        file.write(prediction.output[0].read())
    assert (here / "output.png").stat().st_size > 50


def test_webhook(emulator: Emulator) -> None:
    """Run a model in the background and get a webhook."""
    prediction = replicate.predictions.create(
        version=version_of("emulator/painter"),
        input={"prompt": "Watercolor painting of an underwater submarine"},
        webhook="https://example.com/your-webhook",
        webhook_events_filter=["completed"],
    )
    assert prediction.webhook == "https://example.com/your-webhook"
    prediction.cancel()


def test_pipeline() -> None:
    """Compose models into a pipeline."""
    painter = replicate.models.get("emulator/painter").versions.get(version_of("emulator/painter"))
    describer = replicate.models.get("emulator/describer").versions.get(
        version_of("emulator/describer")
    )
    [image] = painter.predict(prompt="avocado armchair", width=96, height=64)
    assert describer.predict(image=image).startswith("PNG image, 96 x 64 pixels")


def test_output_of_a_running_model(here: Path) -> None:
    """Get output from a running model."""
    iterator = replicate.run("emulator/painter", input={"prompt": "sunset", "num_outputs": 2})
    for index, image in enumerate(iterator):
        with open(f"file_{index}.png", "wb") as file:  # noqa: PTH123 - as it is written there
            file.write(image.read())
    assert (here / "file_1.png").exists()


def test_output_iterator() -> None:
    """The items of a prediction's output, as they appear."""
    prediction = replicate.predictions.create(
        model="emulator/painter", input={"prompt": "x", "num_outputs": 2}
    )
    assert len([item.read() for item in prediction.output_iterator()]) == 2


def test_cancel() -> None:
    """Cancel a prediction."""
    model = replicate.models.get("emulator/sleeper")
    version = model.versions.get(version_of("emulator/sleeper"))
    prediction = replicate.predictions.create(version=version, input={"seconds": 60})
    assert prediction.status == "starting"
    prediction.cancel()
    prediction.reload()
    assert prediction.status == "canceled"
    replicate.predictions.cancel(prediction.id)


def test_list_predictions(emulator: Emulator) -> None:
    """List predictions, and the next page of them."""
    for number in range(120):
        emulator.add_prediction("replicate/hello-world", {"n": number})
    page1 = replicate.predictions.list()
    assert page1.next
    page2 = replicate.predictions.list(page1.next)
    assert len(page1.results) + len(page2.results) == 120
    assert page1.results[0].id != page2.results[0].id


def test_load_output_files(here: Path) -> None:
    """Load output files."""
    output = replicate.run(
        "emulator/painter", input={"prompt": "wavy colorful abstract patterns, oceans"}
    )
    with open("my_output.png", "wb") as file:  # noqa: PTH123 - as it is written there
        file.write(output[0].read())
    background = Image.open(output[0])
    with Image.open("my_output.png") as saved:
        assert background.size == saved.size


def test_file_output(here: Path) -> None:
    """FileOutput: `url`, `read()`, iteration, as a whole or streamed."""
    [output] = replicate.run("emulator/painter", input={"prompt": "x"})
    assert output.url.startswith("http")
    with open("output.bin", "wb") as file:  # noqa: PTH123 - as it is written there
        file.write(output.read())
    with open("streamed.bin", "wb") as file:  # noqa: PTH123 - as it is written there
        file.writelines(output)
    assert (here / "output.bin").read_bytes() == (here / "streamed.bin").read_bytes()


async def test_file_output_in_a_loop(here: Path) -> None:
    """Each of these has an equivalent for asyncio."""
    [output] = await asyncio.to_thread(replicate.run, "emulator/painter", input={"prompt": "x"})
    async with aiofiles.open("one", "wb") as file:
        await file.write(await output.aread())
    async with aiofiles.open("two", "wb") as file:
        async for chunk in output:
            await file.write(chunk)
    assert (here / "one").read_bytes() == (here / "two").read_bytes()
    await asyncio.to_thread(replicate.default_client().close)


def test_file_as_a_file() -> None:
    """A file output where a real file is wanted."""
    [output] = replicate.run("emulator/painter", input={"prompt": "x"})
    target = io.BytesIO()
    with output.open() as file:
        shutil.copyfileobj(file, target)
    assert target.getvalue() == output.read()
    with output.open() as file, pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(file)


def test_no_file_output() -> None:
    """Opt out of FileOutput."""
    [url] = replicate.run("emulator/painter", {"prompt": "x"}, use_file_output=False)
    assert isinstance(url, str)
    assert url.startswith("http")


def test_list_models() -> None:
    """List models: with `paginate`, and with cursors by hand."""
    models = []
    for page in replicate.paginate(replicate.models.list):
        models.extend(page.results)
        if len(models) > 100:
            break
    again = []
    cursor = replicate.models.list()
    while cursor:
        again.extend(cursor.results)
        if len(again) > 100:
            break
        cursor = replicate.models.list(cursor.next) if cursor.next else None  # type: ignore[assignment]
    assert [model.name for model in models] == [model.name for model in again]
    assert len(models) > 3


def test_collections() -> None:
    """Find collections of models."""
    collections = [
        collection for page in replicate.paginate(replicate.collections.list) for collection in page
    ]
    assert collections[0].slug
    assert isinstance(collections[0].description, str)
    assert [model.name for model in replicate.collections.get("text-to-image").models] == [
        "painter"
    ]


def test_create_a_model() -> None:
    """Create a model, and list the hardware."""
    model = replicate.models.create(
        owner="acme", name="my-model", visibility="public", hardware="cpu"
    )
    assert model.name == "my-model"
    assert "cpu" in [hw.sku for hw in replicate.hardware.list()]


def test_fine_tune() -> None:
    """Fine-tune a model."""
    replicate.models.create(owner="acme", name="tuned", visibility="private", hardware="cpu")
    training = replicate.trainings.create(
        model="emulator/trainee",
        version=version_of("emulator/trainee"),
        input={"input_images": "https://my-domain/training-images.zip"},
        destination="acme/tuned",
    )
    assert training.status == "starting"
    assert replicate.trainings.get(training.id).id == training.id
    assert training.reload() is training
    training.cancel()
    assert [t.id for t in replicate.trainings.list()] == [training.id]


def test_client_of_your_own(emulator: Emulator) -> None:
    """Customize client behavior."""
    with Client(
        api_token=os.environ["REPLICATE_API_TOKEN"], headers={"User-Agent": "my-app/1.0"}
    ) as client:
        assert client.run("replicate/hello-world", input={"text": "Alice"}) == "hello Alice"
    assert emulator.ledger.requests()[-1].headers["User-Agent"] == "my-app/1.0"
    assert replicate.Client is Client


def test_files(here: Path) -> None:
    """Upload, list, fetch and delete files."""
    (here / "a.txt").write_text("content")
    with open("a.txt", "rb") as file:  # noqa: PTH123 - as it is written there
        uploaded = replicate.files.create(file)
    assert [file.id for file in replicate.files.list().results] == [uploaded.id]
    assert replicate.files.get(uploaded.id).urls.get
    replicate.files.delete(uploaded.id)
    assert replicate.files.list().results == []


def test_deployments() -> None:
    """Deployments: create, run, update, delete."""
    deployment = replicate.deployments.create(
        name="mine",
        model="replicate/hello-world",
        version=HELLO,
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    prediction = deployment.predictions.create(input={"text": "Alice"})
    prediction.wait()
    assert prediction.output == "hello Alice"
    again = replicate.deployments.predictions.create("acme/mine", input={"text": "Bob"})
    assert again.wait().output == "hello Bob"
    assert replicate.run(deployment, input={"text": "Eve"}) == "hello Eve"
    assert replicate.deployments.get("acme/mine").name == "mine"
    assert [d.name for d in replicate.deployments.list()] == ["mine"]


def test_positional_and_keyword_forms() -> None:
    """Arguments are accepted in both of their forms."""
    assert replicate.predictions.create(HELLO, {"text": "x"}).wait().output == "hello x"
    assert replicate.predictions.create(version=HELLO, input={"text": "x"}).id
    assert replicate.predictions.create(model="emulator/writer", input={"prompt": "x"}).id
    assert replicate.models.get("emulator", "painter").name == "painter"
    assert replicate.models.get(owner="emulator", name="painter").name == "painter"
    assert replicate.models.predictions.create("emulator/writer", {"prompt": "x"}).id
    assert replicate.models.predictions.create(model="emulator/writer", input={"prompt": "x"}).id
    assert replicate.models.versions.list("replicate/hello-world").results[0].id == HELLO
    assert replicate.models.get("replicate/hello-world").versions.list().results[0].id == HELLO
    assert replicate.models.search("painter").results
    assert replicate.accounts.current().username == "acme"


def test_webhook_validation(emulator: Emulator) -> None:
    """Webhooks: the secret, and a delivery that is not genuine."""
    secret = replicate.webhooks.default.secret()
    assert secret.key == emulator.webhook_secret
    with pytest.raises(replicate.exceptions.InvalidSignature):
        replicate.webhooks.validate({}, b"{}", secret)
