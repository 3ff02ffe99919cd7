"""What users write, as type checkers see it. Never executed: mypy and pyright check it."""

from __future__ import annotations

import datetime as dt
import inspect
import io
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any, assert_type

from aiohttp import web
from starlette.requests import Request
from starlette.responses import StreamingResponse

import replicate_async as replicate
from replicate_async import (
    Account,
    Client,
    Collection,
    Deployment,
    File,
    FileOutput,
    Hardware,
    Limits,
    Listing,
    Model,
    ModelFunction,
    Outcome,
    Outcomes,
    OutputStream,
    Page,
    Prediction,
    Progress,
    RateLimit,
    Receiver,
    RedisBackplane,
    Reply,
    Retry,
    Run,
    SearchResults,
    Stats,
    StreamingFunction,
    Timeout,
    Training,
    Update,
    Version,
    exceptions,
)
from replicate_async.resources.search import ModelMatch
from replicate_async.resources.webhooks import WebhookSigningSecret
from replicate_async.types import (
    CollectionSummary,
    DeploymentRelease,
    DocumentationPage,
    FileStat,
    Job,
    PredictionUrls,
    RateLimitState,
    Response,
    SearchCollection,
    TrainingOutput,
)


async def events_as_plain_strings(client: Client, model: Model, events: list[str]) -> None:
    """The events of a webhook may come from anywhere, such as a list of a configuration."""
    await client.run("owner/name", webhook_events_filter=events)
    await client.predictions.create("v", webhook_events_filter=events)
    await client.models.predictions.create("owner/name", webhook_events_filter=events)
    await client.deployments.predictions.create("owner/name", webhook_events_filter=events)
    await client.trainings.create("a/b:v", {}, destination="a/c", webhook_events_filter=events)
    client.stream("owner/name", webhook_events_filter=events)
    client.map("owner/name", [], webhook_events_filter=("start", *events))
    await model.predictions.create(webhook_events_filter=events)


async def verbs() -> None:
    """The verbs of the module and of a client."""
    assert_type(await replicate.run("owner/name", {"prompt": "x"}), Any)
    assert_type(await replicate.search("text", limit=5), SearchResults)
    async with Client() as client:
        assert_type(client, Client)
        output = await client.run(
            "owner/name",
            input={"image": pathlib.Path("a.png"), "n": 1, "files": [io.BytesIO(), b"x"]},
            wait=10,
            timeout=dt.timedelta(minutes=2),
            use_file_output=True,
            file_encoding_strategy="base64",
            webhook="https://example.com",
            webhook_events_filter=["start", "completed"],
            cancel_after="1h30m",
        )
        assert_type(output, Any)
        async for page in client.paginate(client.models.list):
            assert_type(page, Page[Model])
        async for pages in client.paginate(client.predictions.list(source="web")):
            assert_type(pages, Page[Prediction])
        await client.run(await client.models.get("owner/name"))
        await client.run(await client.deployments.get("owner/name"))
        await client.run(await client.models.versions.get("owner/name", "id"))
    async for of_module in replicate.paginate(replicate.models.list):
        assert_type(of_module, Page[Model])


def options() -> None:
    """The options of a client, and its views."""
    client = Client(
        lambda: "r8_token",
        base_url="https://api.replicate.com",
        timeout=Timeout(connect=5, read=60),
        headers={"X": "y"},
        user_agent="mine",
        retry=Retry(attempts=3),
        limits=Limits(answer=2**20),
        rate_limit=RateLimit(creates=100),
        poll_interval=0.5,
        use_file_output=False,
        file_encoding_strategy="url",
        proxy="http://proxy",
        ssl=False,
    )
    assert_type(client.with_options(timeout=5, retry=Retry()), Client)
    assert_type(client.stats, Stats)
    assert_type(client.stats.created, int)
    Client("r8_token", rate_limit=False)
    Client(rate_limit=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client(nonsense=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Client(file_encoding_strategy="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def lists(client: Client) -> None:
    """Listings are awaited for a page, and iterated for all items."""
    assert_type(client.models.list(), Listing[Model])
    page = await client.models.list(sort_by="model_created_at")
    assert_type(page, Page[Model])
    assert_type(page[0], Model)
    assert_type(page[1:], list[Model])
    assert_type(page.results, list[Model])
    assert_type(page.next, str | None)
    assert_type(len(page), int)
    assert_type(await page.next_page(), Page[Model] | None)
    for model in page:
        assert_type(model, Model)
    async for model in page.auto_paging_iter():
        assert_type(model, Model)
    async for prediction in client.predictions.list(
        created_after=dt.datetime.now(dt.UTC),
        created_before="2030-01-01",
    ):
        assert_type(prediction, Prediction)
    async for training in client.trainings.list():
        assert_type(training, Training)
    async for deployment in client.deployments.list():
        assert_type(deployment, Deployment)
    async for file in client.files.list():
        assert_type(file, File)
    async for collection in client.collections.list():
        assert_type(collection, CollectionSummary)
    async for found in client.models.search("x"):
        assert_type(found, Model)
    async for version in client.models.versions.list("owner/name"):
        assert_type(version, Version)
    async for example in client.models.examples.list("owner/name"):
        assert_type(example, Prediction)


async def predictions(client: Client) -> None:
    """Predictions, from their creation to their end."""
    prediction = await client.predictions.create("version", {"a": 1}, wait=True, cancel_after=60)
    assert_type(prediction, Prediction)
    assert_type(await client.predictions.create(model="owner/name"), Prediction)
    assert_type(await client.predictions.create(deployment="owner/name", input={}), Prediction)
    assert_type(await client.predictions.get("id"), Prediction)
    assert_type(await client.predictions.cancel("id"), Prediction)
    assert_type(await client.predictions.wait("id", timeout=5), Prediction)
    assert_type(await client.predictions.wait(prediction), Prediction)
    assert_type(await prediction.wait(timeout=5), Prediction)
    assert_type(await prediction.reload(), Prediction)
    assert_type(await prediction.cancel(), Prediction)
    async with client.start("owner/name", {}, timeout=60, fallback=["other/name"]) as run:
        assert_type(run, Run)
        assert_type(run.prediction, Prediction)
        assert_type(run.id, str)
        async for update in run.updates(timeout=5, on_abandon="cancel"):
            assert_type(update, Update)
        assert_type(await run.result(), Any)
    async with client.use("owner/name").start(prompt="a") as run:
        assert_type(run, Run)
    assert_type(client.predictions.from_dict({}).raise_for_status(), Prediction)
    async for update in prediction.updates():
        assert_type(update, Update)
        assert_type(update.progress, Progress | None)
    assert_type(prediction.id, str)
    assert_type(prediction.output, Any)
    assert_type(prediction.progress, Progress | None)
    assert_type(prediction.logs, str)
    assert_type(prediction.error, str | None)
    assert_type(prediction.input, dict[str, Any])
    assert_type(prediction.created_at, dt.datetime | None)
    assert_type(prediction.urls, PredictionUrls)
    assert_type(prediction.urls.stream, str | None)
    assert_type(prediction.to_dict(), dict[str, Any])
    assert_type(prediction.extra, dict[str, Any])


async def models(client: Client) -> None:
    """Models and what belongs to them."""
    model = await client.models.get("owner", "name")
    assert_type(model, Model)
    assert_type(model.latest_version, Version | None)
    assert_type(model.default_example, Prediction | None)
    assert_type(model.run_count, int | None)
    assert_type(await model.reload(), Model)
    assert_type(await model.versions.get("id"), Version)
    assert_type(await model.versions.list(), Page[Version])
    assert_type(await model.predictions.create({"a": 1}), Prediction)
    assert_type(await model.readme.get(), str)
    await model.versions.delete("id")
    await client.models.delete("owner/name")
    assert_type(
        await client.models.create("owner", "name", visibility="private", hardware="cpu"), Model
    )
    assert_type(await client.models.update("owner/name", description="x"), Model)
    assert_type(await client.models.readme.get(model), str)
    assert_type(await client.models.predictions.create(model, {"a": 1}), Prediction)


async def the_rest(client: Client) -> None:
    """Accounts, collections, deployments, files, hardware, search, trainings, webhooks."""
    assert_type(await client.accounts.current(), Account)
    assert_type(await client.hardware.list(), list[Hardware])
    collection = await client.collections.get("slug")
    assert_type(collection, Collection)
    assert_type(collection.models, list[Model])

    deployment = await client.deployments.create(
        "name", model="a/b", version="v", hardware="cpu", min_instances=0, max_instances=1
    )
    assert_type(deployment, Deployment)
    assert_type(deployment.current_release, DeploymentRelease | None)
    assert_type(await deployment.predictions.create(input={"a": 1}), Prediction)
    assert_type(await client.deployments.update("a/b", max_instances=2), Deployment)
    assert_type(await client.deployments.predictions.create("a/b", {}), Prediction)

    found = await client.search("x")
    assert_type(found.models, list[ModelMatch])
    assert_type(found.models[0].model, Model)
    assert_type(found.models[0].metadata.tags, list[str])
    assert_type(found.collections, list[SearchCollection])
    assert_type(found.pages, list[DocumentationPage])

    training = await client.trainings.create("a/b:v", {"x": b""}, destination="a/c")
    assert_type(training, Training)
    assert_type(training.output, TrainingOutput | None)
    assert_type(await training.wait(), Training)
    assert_type(await client.trainings.get("id"), Training)


async def files(client: Client) -> None:
    """Uploaded files, and files that models made."""
    file = await client.files.create(pathlib.Path("a.png"), metadata={"a": 1})
    assert_type(file, File)
    assert_type(file.size, int | None)
    assert_type(await client.files.get("id"), File)
    await client.files.delete("id")
    output = client.files.download("id", owner="o", expiry=1, signature="s")
    assert_type(output, FileOutput)
    assert_type(output.url, str)
    assert_type(output.content_type, str | None)
    assert_type(await output.read(), bytes)
    assert_type(await output.aread(), bytes)
    assert_type(await output.save("directory/"), pathlib.Path)
    async for chunk in output:
        assert_type(chunk, bytes)


async def webhooks(client: Client, headers: dict[str, str], body: bytes) -> None:
    """Deliveries are typed."""
    secret = await client.webhooks.default.secret()
    assert_type(secret, WebhookSigningSecret)
    assert_type(secret.key, str)
    client.webhooks.validate(headers, body, secret, tolerance=None)
    delivered = client.webhooks.unwrap(headers, body, secret.key)
    assert_type(delivered, Prediction | Training)
    if isinstance(delivered, Prediction):
        assert_type(delivered.output, Any)


async def web_apps(client: Client, request: Request, other: web.Request, body: bytes) -> None:
    """What stands between a prediction and the browser."""
    prediction = await replicate.while_connected(request, client.predictions.get("id"))
    assert_type(prediction, Prediction)
    assert_type(
        replicate.sse(prediction.stream(last_event_id="1"), heartbeat=5), AsyncIterator[bytes]
    )
    output = client.output("https://replicate.delivery/a/b.png")
    assert_type(await output.stat(), FileStat)
    shown: StreamingResponse = replicate.file_response(output, request)
    saved: web.StreamResponse = replicate.file_response(output, other, filename="a", download=True)
    print(shown, saved, json.dumps(prediction, default=replicate.to_json))

    receiver = client.webhooks.receiver(
        url="https://app.example/x", backplane=RedisBackplane("redis://localhost")
    )
    assert_type(receiver, Receiver)
    assert_type(await receiver.handle({"webhook-id": "a"}, body), Reply)

    @receiver.on("completed")
    async def ended(job: Prediction | Training) -> None:
        print(job.id)

    assert_type(await ended(prediction), None)
    await client.run("owner/name", via=receiver)
    async with client.start("owner/name", start_timeout=5, fallback=["other/model"]) as run:
        assert_type(run, Run)
        async for update in run.updates(timeout=5, on_abandon="cancel"):
            assert_type(update, Update)
        assert_type(run.prediction, Prediction)
    assert_type(client.predictions.from_dict({"id": "a"}), Prediction)
    assert_type(prediction.response, Response | None)
    assert_type(client.with_options(tags={"tenant": "a"}).rate_limit, RateLimitState | None)
    assert_type(await client.request("GET", "/account", params={"a": 1}), Any)
    replicate.file_response("https://x", request)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def functions(client: Client) -> None:
    """Models as functions."""
    painter = await client.use("owner/name").load()
    assert_type(painter, ModelFunction)
    assert_type(painter.signature, inspect.Signature)
    painter.check(prompt="x")
    assert_type(await painter(prompt="x"), Any)
    run = await painter.create(prompt="x")
    assert_type(run.prediction, Prediction)
    assert_type(await run.output(timeout=5), Any)
    writer = client.use("owner/name", streaming=True)
    assert_type(writer, StreamingFunction)
    writer.check(prompt="x")
    async with writer(prompt="x") as stream:
        assert_type(stream, OutputStream)


async def fan_outs(client: Client) -> None:
    """Outcomes, and what can be done with a fan-out under way."""
    async with client.map("owner/name", [{"prompt": "x"}], concurrency=5) as outcomes:
        assert_type(outcomes, Outcomes)
        assert_type(outcomes.in_flight, int)
        outcomes.stop()
        async for outcome in outcomes:
            assert_type(outcome, Outcome)
            assert_type(outcome.index, int)
            assert_type(outcome.prediction, Prediction | None)
            assert_type(outcome.error, Exception | None)
            assert_type(outcome.saved, tuple[pathlib.Path, ...])
            assert_type(outcome.result(), Any)
    assert_type(await client.map(client.use("owner/name"), []).collect(), list[Outcome])


async def failures(client: Client) -> None:
    """Exceptions carry typed facts."""
    try:
        await client.run("owner/name")
    except exceptions.PredictionFailed as error:
        assert_type(error.prediction, Job)
        if isinstance(error.prediction, Prediction):
            assert_type(error.prediction.deployment, str | None)
        assert_type(error.code, str | None)
    except exceptions.RateLimitError as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.status, int)
    except replicate.ReplicateException:
        raise
