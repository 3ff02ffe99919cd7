"""`run`, predictions and trainings from their creation to their end."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from replicate_async import Client, FileOutput, Prediction, Progress, Training
from replicate_async.exceptions import (
    ModelError,
    NotFoundError,
    PredictionAborted,
    PredictionCanceled,
    PredictionFailed,
    RunTimeout,
    UnreadableAnswer,
    ValidationError,
)
from replicate_async.testing import Emulator, OutputFile, Request

from .conftest import HELLO, rewrite, until

PICTURE = {"prompt": "x", "width": 64, "height": 64}


def _sent(emulator: Emulator) -> list[tuple[str, str]]:
    return [
        (request.method, request.path.removeprefix("/v1"))
        for request in emulator.ledger.requests(origin="api")
    ]


# -- Outputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, 10, False])
async def test_outputs_of_all_kinds(client: Client, emulator: Emulator, wait: bool | float) -> None:
    """Text, numbers, lists, objects, files and iterators come back whole, however one waits."""

    @emulator.model("acme/number")
    def number() -> int:
        return 0

    @emulator.model("acme/many")
    def many() -> list[str]:
        return ["a", "b"]

    @emulator.model("acme/file")
    def file() -> OutputFile:
        return OutputFile(b"content", "out.txt", "text/plain")

    @emulator.model("acme/tokens", official=True)
    async def tokens() -> AsyncIterator[str]:
        for token in ("one", " two", "\n"):
            yield token

    assert await client.run(HELLO, {"text": "Bob"}, wait=wait) == "hello Bob"
    assert await client.run("acme/number", wait=wait) == 0
    assert await client.run("acme/many", wait=wait) == ["a", "b"]
    assert await client.run("acme/tokens", wait=wait) == ["one", " two", "\n"]
    text = await client.run("acme/file", wait=wait)
    assert type(text) is FileOutput
    assert await text.read() == b"content"
    pictures = await client.run("emulator/painter", PICTURE, wait=wait)
    assert [type(picture) for picture in pictures] == [FileOutput]
    assert (await pictures[0].read()).startswith(b"\x89PNG")
    assert emulator.ledger.leaks() == []


async def test_files_go_from_one_model_into_the_next(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """An output file is passed on by its URL; local files and bytes are uploaded."""
    (picture,) = await client.run("emulator/painter", PICTURE)
    said = await client.run("emulator/describer", {"image": picture})
    assert said.startswith("PNG image, 64 x 64 pixels")
    assert emulator.ledger.requests(operation="files.create") == []
    path = await picture.save(tmp_path)
    assert await client.run("emulator/describer", {"image": path}) == said
    with path.open("rb") as file:
        assert await client.run("emulator/describer", {"image": file}) == said
    assert await client.run("emulator/describer", {"image": path.read_bytes()}) == said
    # Each content is uploaded once.
    assert len(emulator.ledger.requests(operation="files.create")) == 1


@pytest.mark.parametrize(
    ("output", "files"),
    [
        ("https://example.com/a.png", True),
        ("HTTPS://example.com/a.png", True),
        ("data:text/plain;base64,YQ==", True),
        ("data:,a", True),
        ("http://127.0.0.1:1/a.png", True),  # the host of this API
        ("http://example.com/a.png", False),
        ("https://", False),
        ("https://example.com/a b.png", True),
        ("https://example.com/a b.png?sig=a%2Fb+c d", True),
        ("https://replicate.delivery/x/my output", True),
        ("http://127.0.0.1:1/my output", True),
        ("https://example.com/my output", False),
        ("https://example.com is where a.png is", False),
        ("https://example.com/a.png is a picture", False),
        ("https://example.com/a.png and https://example.com/b.png", False),
        ("https://example.com/a\nb.png", False),
        ("see https://example.com/a.png", False),
        ("https://example.com/a.png\n", False),
        ("data:a", False),
        ("data: none, really", False),
        ("", False),
        ("file:///etc/passwd", False),
    ],
)
async def test_which_strings_are_files(
    client: Client, emulator: Emulator, output: str, files: bool
) -> None:
    """A file is a whole string that is an https or data URL (or http on the API's own host)."""
    found = emulator.add_prediction("replicate/hello-world", {}, output)
    prediction = await client.predictions.get(found)
    assert prediction.output == (FileOutput(output) if files else output)
    assert str(prediction.output) == output
    assert prediction.to_dict()["output"] == output


async def test_token_lists_stay_text(client: Client, emulator: Emulator) -> None:
    """In a list of strings all must be files: a text that quotes a URL is no file."""
    url = "https://example.com/a.png"
    outputs: list[tuple[Any, Any]] = [
        (["see", url], ["see", url]),
        ([url, " "], [url, " "]),
        ([url, url], [FileOutput(url), FileOutput(url)]),
        ([url, None, 5], [FileOutput(url), None, 5]),
        (["a", {"file": url}], ["a", {"file": FileOutput(url)}]),
        ({"a": [{"b": url}], "c": "text"}, {"a": [{"b": FileOutput(url)}], "c": "text"}),
        ([], []),
        (None, None),
        (5, 5),
    ]
    for raw, expected in outputs:
        found = emulator.add_prediction("replicate/hello-world", {}, raw)
        prediction = await client.predictions.get(found)
        assert prediction.output == expected
        assert prediction.to_dict()["output"] == raw
        plain = client.with_options(use_file_output=False)
        assert (await plain.predictions.get(found)).output == raw


async def test_text_by_schema_stays_text(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A model that returns text may print a URL: it is not fetched, wherever the schema is at hand."""

    @emulator.model("acme/echo")
    def echo(text: str) -> str:
        return text

    @emulator.model("acme/lines")
    def lines(text: str) -> list[str]:
        return [text]

    url = f"{emulator.url}/v1/webhooks/default/secret"
    given = {"text": url}
    for name, expected in (("acme/echo", url), ("acme/lines", [url])):
        model = await client.models.get(name)
        assert model.latest_version is not None
        function = client.use(name)
        for ref in (model, model.latest_version):
            directory = tmp_path / name / type(ref).__name__
            assert await client.run(ref, given) == expected
            assert await client.run(ref, given, save_to=directory) == expected
            assert list(directory.iterdir()) == []
            async with client.start(ref, given) as run:
                assert await run.result() == expected
            first, *_ = [event.output async for event in client.stream(ref, given)]
            assert first == url
        for mapped in (model, function):
            directory = tmp_path / name / f"map {type(mapped).__name__}"
            [outcome] = await client.map(mapped, [given], save_to=directory).collect()
            assert outcome.result() == expected
            [path] = outcome.saved
            assert (path.suffix, path.read_text()) == (".txt", url)
    paths = [request.path for request in emulator.ledger.requests()]
    assert "/v1/webhooks/default/secret" not in paths
    painted = await client.run(await client.models.get("emulator/painter"), PICTURE)
    assert isinstance(painted, list)
    assert isinstance(painted[0], FileOutput)


async def test_data_uris_of_sync_mode_are_replaced(client: Client) -> None:
    """Sync mode answers with data URIs; `create` shows them, `run` returns the lasting URLs."""
    created = await client.predictions.create(model="emulator/painter", input=PICTURE, wait=True)
    assert created.status == "processing"
    (inline,) = created.output
    assert inline.url.startswith("data:image/png;base64,")
    (lasting,) = (await created.wait()).output
    assert lasting.url.startswith("http:")
    assert await lasting.read() == await inline.read()
    (output,) = await client.run("emulator/painter", PICTURE)
    assert output.url.startswith("http:")


# -- References --------------------------------------------------------------------------------


async def test_references(client: Client, emulator: Emulator) -> None:
    """Each form of a reference creates through the endpoint that is made for it."""
    writer = {"prompt": "x", "max_tokens": 1, "delay": 0}
    hello = {"text": "Bob"}
    model = await client.models.get("replicate/hello-world")
    official = await client.models.get("emulator/writer")
    deployment = await client.deployments.create(
        "prod", model=model, version=HELLO, hardware="cpu", min_instances=0, max_instances=1
    )
    assert model.latest_version is not None
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ("emulator/writer", writer, "/models/emulator/writer/predictions"),
        (official, writer, "/models/emulator/writer/predictions"),
        (HELLO, hello, "/predictions"),
        (f"replicate/hello-world:{HELLO}", hello, "/predictions"),
        (model.latest_version, hello, "/predictions"),
        (deployment, hello, "/deployments/acme/prod/predictions"),
    ]
    for ref, given, path in cases:
        emulator.ledger.clear()
        output = await client.run(ref, given)
        assert output == "hello Bob" or len(output) == 1
        assert _sent(emulator)[0] == ("POST", path)
        assert len(emulator.ledger.created()) == 1
        if path == "/predictions":
            body = emulator.ledger.requests(method="POST")[0].json()
            assert body == {"version": HELLO, "input": hello}


async def test_latest_version_is_looked_up_once(client: Client, emulator: Emulator) -> None:
    """A model that is not official runs in its latest version, which is looked up once."""
    emulator.add_model("acme/shout", lambda text: text.lower())

    @emulator.model("acme/shout")
    def shout(text: str) -> str:
        return text.upper() + "!"

    assert await client.run("acme/shout", {"text": "a"}, wait=False) == "A!"
    looks = [each for each in _sent(emulator) if "/predictions/" not in each[1]]
    assert looks == [
        ("POST", "/models/acme/shout/predictions"),
        ("GET", "/models/acme/shout"),
        ("POST", "/predictions"),
    ]
    emulator.ledger.clear()
    assert await client.run("acme/shout", {"text": "b"}) == "B!"
    model = await client.models.get("acme/shout")
    assert await client.run(model, {"text": "c"}) == "C!"
    prediction = await client.predictions.create(model="acme/shout", input={"text": "d"})
    assert prediction.model == "acme/shout"
    assert emulator.ledger.requests(operation="models.predictions.create") == []
    assert len(emulator.ledger.requests(operation="models.get")) == 1  # ours, above
    assert len(emulator.ledger.created()) == 3


async def test_missing_model(client: Client, emulator: Emulator) -> None:
    """A model that does not exist is named, and nothing was created."""
    with pytest.raises(NotFoundError, match="there is no model acme/none"):
        await client.run("acme/none", {})
    assert emulator.ledger.created() == []


async def test_model_without_versions(client: Client, emulator: Emulator) -> None:
    """A model that exists, but has nothing to run, says so."""
    emulator.add_model("acme/empty")
    with pytest.raises(NotFoundError, match=r"acme/empty exists.*not official.*no version"):
        await client.run("acme/empty", {})
    assert emulator.ledger.created() == []


async def test_missing_version(client: Client, emulator: Emulator) -> None:
    """A version that does not exist is the API's refusal, as it is."""
    with pytest.raises(ValidationError, match="Invalid version or not permitted"):
        await client.run("f" * 64, {})
    assert emulator.ledger.created() == []


async def test_refused_input(client: Client, emulator: Emulator) -> None:
    """An input that does not fit the schema is refused with the fields, and nothing was created."""
    with pytest.raises(ValidationError, match="text is required") as caught:
        await client.run(HELLO, {})
    assert caught.value.invalid_fields[0]["field"] == "input"
    assert emulator.ledger.created() == []


# -- Waiting -----------------------------------------------------------------------------------


async def test_processing_is_read_again_at_once(emulator: Emulator) -> None:
    """After sync mode `processing` is looked at again without a pause."""
    # A pause would be longer than the test may last.
    async with Client(emulator.token, base_url=emulator.url, poll_interval=600) as client:
        with anyio.fail_after(10):
            assert await client.run(HELLO, {"text": "a"}) == "hello a"
    assert [method for method, _ in _sent(emulator)] == ["POST", "GET"]


async def test_final_answers_are_not_read_again() -> None:
    """If sync mode answers with the end, there is nothing more to ask."""
    with Emulator(sync_answers="final") as emulator:
        async with Client(emulator.token, base_url=emulator.url) as client:
            assert await client.run(HELLO, {"text": "a"}) == "hello a"
        assert [method for method, _ in _sent(emulator)] == ["POST"]


async def test_partial_output_is_not_final() -> None:
    """When the wait of sync mode ends before the model, `run` goes on until the end."""
    with Emulator(expired_waits="actual") as emulator:

        @emulator.model("acme/slow", official=True)
        async def slow() -> AsyncIterator[str]:
            yield "one"
            await asyncio.sleep(1.2)
            yield "two"

        async with Client(emulator.token, base_url=emulator.url) as client:
            assert await client.run("acme/slow", wait=1) == ["one", "two"]


async def test_empty_results(client: Client, emulator: Emulator) -> None:
    """A prediction that succeeds without output gives None."""

    @emulator.model("acme/silent")
    def silent() -> None:
        return None

    assert await client.run("acme/silent") is None


async def test_unknown_end(client: Client, emulator: Emulator) -> None:
    """A status that is not known yet is an end if `completed_at` is set."""
    rewrite(emulator, "predictions.get", lambda p: {**p, "status": "retired"})
    assert await client.run(HELLO, {"text": "a"}, wait=False) == "hello a"


async def test_unknown_status_on_the_way(client: Client, emulator: Emulator) -> None:
    """A status that is not known yet is no end while `completed_at` is missing."""
    seen: list[str] = []

    def rename(prediction: Any) -> Any:
        seen.append(prediction["status"])
        return (
            {**prediction, "status": "warming", "completed_at": None, "output": None}
            if len(seen) < 3
            else prediction
        )

    rewrite(emulator, "predictions.get", rename)
    assert await client.run(HELLO, {"text": "a"}, wait=False) == "hello a"
    assert len(seen) == 3


async def test_unknown_end_without_output(client: Client, emulator: Emulator) -> None:
    """An unknown end without a result is a failure."""
    rewrite(emulator, "predictions.get", lambda p: {**p, "status": "retired", "output": None})
    with pytest.raises(PredictionFailed):
        await client.run(HELLO, {"text": "a"}, wait=False)


# -- Ends without a result ---------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CUDA out of memory. (E1001)", "E1001"),
        ("E8765 at the start", "E8765"),
        ("the model said no", None),
        ("not E10012 nor XE1001", None),
    ],
)
async def test_failure(client: Client, text: str, code: str | None, wait: bool) -> None:
    """A failure raises with the prediction, its error text and the code in it."""
    with pytest.raises(PredictionFailed) as caught:
        await client.run("emulator/failer", {"error": text}, wait=wait)
    error = caught.value
    assert isinstance(error, ModelError)
    assert isinstance(error.prediction, Prediction)
    assert (error.prediction.status, error.prediction.error) == ("failed", text)
    assert error.prediction.logs == "about to fail\n"
    assert error.code == code
    assert error.prediction.id in str(error)
    assert "emulator/failer" in str(error)
    assert text in str(error)


@pytest.mark.parametrize("wait", [True, False])
async def test_canceled(client: Client, emulator: Emulator, wait: bool) -> None:
    """A prediction that somebody else cancels raises PredictionCanceled."""
    running = asyncio.create_task(client.run("emulator/sleeper", {"seconds": 60}, wait=wait))
    await until(lambda: any(life.did("started") for life in emulator.ledger.created()))
    (life,) = emulator.ledger.created()
    await client.predictions.cancel(life.id)
    with anyio.fail_after(20), pytest.raises(PredictionCanceled) as caught:
        await running
    assert caught.value.prediction.id == life.id
    assert caught.value.prediction.status == "canceled"
    assert life.id in str(caught.value)


async def test_deadline_while_running(client: Client, emulator: Emulator) -> None:
    """A deadline that passes while the model runs ends in PredictionCanceled."""
    running = asyncio.create_task(
        client.run("emulator/sleeper", {"seconds": 60}, cancel_after=5, wait=False)
    )
    await until(lambda: any(life.did("started") for life in emulator.ledger.created()))
    emulator.clock.advance(6)
    with anyio.fail_after(20), pytest.raises(PredictionCanceled):
        await running


async def test_aborted(client: Client, emulator: Emulator) -> None:
    """A deadline that passes before the model starts ends in PredictionAborted."""

    @emulator.model("acme/cold", official=True, setup=3600)
    def cold() -> str:
        raise AssertionError

    running = asyncio.create_task(client.run("acme/cold", cancel_after=5, wait=False))
    await until(emulator.ledger.created)
    emulator.clock.advance(6)
    with anyio.fail_after(20), pytest.raises(PredictionAborted) as caught:
        await running
    assert caught.value.prediction.status == "aborted"
    assert "not charged" in str(caught.value)


@pytest.mark.parametrize(
    ("timeout", "wait"), [(0.3, True), (1.5, True), (timedelta(seconds=0.3), False)]
)
async def test_run_timeout(
    client: Client, emulator: Emulator, timeout: float | timedelta, wait: bool
) -> None:
    """When the time is over, the prediction is cancelled at the other end, and the error has it."""
    with anyio.fail_after(10), pytest.raises(RunTimeout) as caught:
        await client.run("emulator/sleeper", {"seconds": 60}, timeout=timeout, wait=wait)
    (life,) = emulator.ledger.created()
    assert life.did("cancelled")
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert error.prediction.id == life.id
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    assert error.timeout == seconds
    assert life.id in str(error)
    assert f"{seconds:g} s" in str(error)
    assert emulator.ledger.running() == []


async def test_timeout_that_is_not_needed(client: Client, emulator: Emulator) -> None:
    """A timeout that does not strike changes nothing."""
    assert await client.run(HELLO, {"text": "a"}, timeout=30) == "hello a"
    assert emulator.ledger.cancelled() == []


# -- Predictions -------------------------------------------------------------------------------


async def test_wait_returns_the_prediction(client: Client) -> None:
    """`wait` updates the prediction itself and returns it; a failure is no error there."""
    prediction = await client.predictions.create(HELLO, {"text": "a"})
    assert (prediction.status, prediction.output, prediction.completed_at) == (
        "starting",
        None,
        None,
    )
    assert await prediction.wait() is prediction
    assert (prediction.status, prediction.output) == ("succeeded", "hello a")
    assert prediction.completed_at is not None
    assert prediction.metrics["predict_time"] >= 0
    failer = await client.predictions.create(model="emulator/failer", input={"error": "no (E1001)"})
    assert (await failer.wait()).status == "failed"
    assert failer.error == "no (E1001)"


async def test_wait_of_one_that_is_over(client: Client, emulator: Emulator) -> None:
    """What has ended is not asked for again."""
    prediction = await client.predictions.create(HELLO, {"text": "a"})
    await prediction.wait()
    emulator.ledger.clear()
    await prediction.wait()
    await client.predictions.wait(prediction)
    assert emulator.ledger.requests() == []


async def test_wait_timeout_leaves_it_running(client: Client, emulator: Emulator) -> None:
    """A `wait` that runs out of time raises RunTimeout, and the prediction goes on."""
    prediction = await client.predictions.create(model="emulator/sleeper", input={"seconds": 60})
    for waiting in (
        prediction.wait(timeout=0.15),
        client.predictions.wait(prediction, timeout=0.15),
        client.predictions.wait(prediction.id, timeout=timedelta(seconds=0.15)),
    ):
        with pytest.raises(RunTimeout, match=re.escape(prediction.id)) as caught:
            await waiting
        assert caught.value.prediction.id == prediction.id
        assert "may still be running" in str(caught.value)
    assert emulator.ledger.cancelled() == []
    await prediction.cancel()


async def test_wait_picks_up_by_id(client: Client, emulator: Emulator) -> None:
    """`predictions.wait(id)` waits for a prediction that somebody else has begun."""
    running = await client.predictions.create(
        model="emulator/sleeper", input={"seconds": 0.3, "steps": 1}
    )
    async with Client(emulator.token, base_url=emulator.url) as other:
        found = await other.predictions.wait(running.id)
    assert type(found) is Prediction
    assert (found.id, found.status) == (running.id, "succeeded")
    assert found.output == "slept for 0.3 s in 1 steps"
    assert (await client.predictions.wait(found.id)).output == found.output


async def test_an_unknown_id(client: Client, emulator: Emulator) -> None:
    """An id that does not exist is a NotFoundError, at once."""
    for operation in (
        client.predictions.wait("none"),
        client.predictions.cancel("none"),
        client.trainings.cancel("none"),
    ):
        with pytest.raises(NotFoundError):
            await operation
    assert len(emulator.ledger.requests(status=404)) == 3


async def test_a_new_id_that_is_not_known_yet(client: Client, emulator: Emulator) -> None:
    """What was just created is cancelled, though the API does not know it everywhere yet."""
    unknown = iter((True, True))

    async def middleware(
        request: web.BaseRequest,
        record: Request,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if record.operation == "predictions.cancel" and next(unknown, False):
            return web.json_response({"title": "Not found", "status": 404}, status=404)
        return await answer(request)

    emulator.middlewares.append(middleware)
    prediction = await client.predictions.create(model="emulator/sleeper", input={"seconds": 60})
    await prediction.cancel()
    assert prediction.status == "canceled"


async def test_reload(client: Client, emulator: Emulator) -> None:
    """`reload` asks once, updates the prediction itself, and returns it."""
    prediction = await client.predictions.create(HELLO, {"text": "a"})
    await until(lambda: emulator.ledger.finished())
    emulator.ledger.clear()
    assert await prediction.reload() is prediction
    assert prediction.output == "hello a"
    assert len(emulator.ledger.requests()) == 1


async def test_cancel(client: Client, emulator: Emulator) -> None:
    """`cancel` stops it and updates the prediction itself; one that has ended stays as it is."""
    prediction = await client.predictions.create(model="emulator/sleeper", input={"seconds": 60})
    assert await prediction.cancel() is prediction
    assert prediction.status == "canceled"
    assert emulator.ledger.life(prediction.id).did("cancelled")
    assert (await prediction.cancel()).status == "canceled"
    done = await client.predictions.create(HELLO, {"text": "a"})
    await done.wait()
    assert (await done.cancel()).status == "succeeded"
    assert (await client.predictions.cancel(done.id)).output == "hello a"


async def test_updates(emulator: Emulator) -> None:
    """`updates` yields each change of status and logs once, and ends with the prediction."""
    async with Client(emulator.token, base_url=emulator.url, poll_interval=0.02) as client:
        prediction = await client.predictions.create(
            model="emulator/sleeper", input={"seconds": 0.5, "steps": 5}
        )
        updates = [update async for update in prediction.updates()]
    assert prediction.status == "succeeded"
    assert "".join(update.logs for update in updates) == prediction.logs
    statuses = [update.status for update in updates]
    assert statuses[0] == "starting"
    assert statuses[-1] == "succeeded"
    assert statuses == sorted(statuses, key=["starting", "processing", "succeeded"].index)
    shown = [update.progress.percentage for update in updates if update.progress is not None]
    assert shown == sorted(shown)
    assert len(set(shown)) >= 4
    assert updates[-1].progress == prediction.progress == Progress(1.0, 5, 5)
    assert len(updates) == len({(u.status, u.logs, u.progress) for u in updates})


async def test_updates_may_be_left(client: Client, emulator: Emulator) -> None:
    """Leaving the loop leaves the prediction running."""
    prediction = await client.predictions.create(model="emulator/sleeper", input={"seconds": 60})
    updates = prediction.updates()
    async for update in updates:
        assert update.status == "starting"
        break
    await updates.aclose()  # type: ignore[attr-defined]  # a generator, typed as an iterator
    assert emulator.ledger.cancelled() == []
    await prediction.cancel()


async def test_updates_of_one_that_is_over(client: Client) -> None:
    """Of a prediction that has ended, there is one update."""
    prediction = await client.predictions.create(HELLO, {"text": "a"})
    await prediction.wait()
    (update,) = [update async for update in prediction.updates()]
    assert (update.status, update.logs, update.progress) == ("succeeded", prediction.logs, None)


async def test_removed_data(client: Client, emulator: Emulator) -> None:
    """After an hour the data is gone, and the prediction says so."""
    prediction = await client.predictions.create(HELLO, {"text": "a"})
    await prediction.wait()
    emulator.clock.advance(2 * 3600)
    await prediction.reload()
    assert prediction.data_removed
    assert prediction.output is None
    assert prediction.status == "succeeded"


async def test_both_json_styles(client: Client, emulator: Emulator) -> None:
    """What creates, polls, lists and cancels answer is the same object, though its JSON differs."""
    created = await client.predictions.create(HELLO, {"text": "a"})
    done = await (await client.predictions.get(created.id)).wait()
    (listed,) = await client.predictions.list()
    cancelled = await client.predictions.cancel(created.id)
    for one in (done, listed, cancelled):
        assert (one.id, one.status, one.input, one.output) == (
            created.id,
            "succeeded",
            {"text": "a"},
            "hello a",
        )
        assert isinstance(one.logs, str)
        assert one.completed_at is not None
        assert one.completed_at.tzinfo is not None


async def test_log_lines(
    client: Client, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Created and ended predictions are logged at INFO, with their ids, and no token."""
    with caplog.at_level(logging.DEBUG, "replicate_async"):
        prediction = await client.predictions.create(HELLO, {"text": "a"})
        await prediction.wait()
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert len([line for line in lines if prediction.id in line and "created" in line]) == 1
    assert len([line for line in lines if prediction.id in line and "succeeded" in line]) == 1
    assert emulator.token not in caplog.text


async def test_unreadable_answers(client: Client, emulator: Emulator) -> None:
    """An answer without an id is an error that shows status and body, of our hierarchy."""
    found = emulator.add_prediction("replicate/hello-world", {})
    rewrite(emulator, "predictions.get", lambda p: {"surprise": 1})
    with pytest.raises(UnreadableAnswer, match="surprise") as caught:
        await client.predictions.get(found)
    assert caught.value.status == 200
    assert caught.value.url.endswith(found)


# -- Trainings ---------------------------------------------------------------------------------


async def test_training(client: Client) -> None:
    """A training is created, waited for, and makes a version that runs."""
    trainee = await client.models.get("emulator/trainee")
    assert trainee.latest_version is not None
    training = await client.trainings.create(
        f"emulator/trainee:{trainee.latest_version.id}",
        {"input_images": b"pictures", "steps": 2},
        destination="acme/trained",
    )
    assert type(training) is Training
    assert training.status == "starting"
    logs = "".join([update.logs async for update in training.updates()])
    assert await training.wait() is training
    assert training.status == "succeeded"
    assert logs == training.logs
    assert training.progress == Progress(1.0, 2, 2)
    assert training.output is not None
    assert training.output.version is not None
    assert await client.run(training.output.version, {"prompt": "x"}) == "untrained: x"
    assert (await training.reload()).status == "succeeded"
    assert (await training.cancel()).status == "succeeded"


async def test_failed_training(client: Client, emulator: Emulator) -> None:
    """A training that fails ends, with its error."""

    def train(n: int) -> str:
        raise RuntimeError("no (E1001)")

    version = emulator.add_model("acme/bad", lambda: 1, train=train)
    emulator.add_model("acme/target")
    training = await client.trainings.create(
        version, {"n": 1}, model="acme/bad", destination="acme/target"
    )
    await training.wait()
    assert (training.status, training.error, training.output) == ("failed", "no (E1001)", None)
