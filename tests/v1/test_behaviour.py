"""What `v1` does otherwise than 1.x, for the sake of money and results; and its options."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from aiohttp import web

import replicate_async
from replicate_async import exceptions
from replicate_async.testing import AsyncConcatenateIterator, ConcatenateIterator, Emulator, Fault
from replicate_async.v1 import Client, _backend
from replicate_async.v1.exceptions import ModelError, ReplicateError, ReplicateException
from replicate_async.v1.helpers import FileOutput
from replicate_async.v1.pagination import Page
from replicate_async.v1.prediction import Prediction
from replicate_async.v1.stream import ServerSentEvent
from replicate_async.v1.webhook import WebhookSigningSecret

from .conftest import ROOT, run_python


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator that clients find, and forget the clients that were made for it."""
    with Emulator(rate_limits=False, wire=True) as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.02")
        yield running
        _backend._sync_client.cache_clear()  # noqa: SLF001 - they hold the loop's thread
        _backend._async_client.cache_clear()  # noqa: SLF001 - likewise
        gc.collect()


@pytest.fixture
def client(emulator: Emulator) -> Client:
    """Return a client of the emulator."""
    return Client()


@pytest.fixture
def counter(emulator: Emulator) -> str:
    """Return a version whose output is an iterator, and takes its time."""

    @emulator.model("acme/counter")
    async def count(to: int, seconds: float = 0.0) -> AsyncConcatenateIterator[str]:
        for number in range(to):
            yield str(number)
            await asyncio.sleep(seconds)

    return f"acme/counter:{version_of('acme/counter')}"


def version_of(model: str) -> str:
    """Return the id of a model's version."""
    latest = Client().models.get(model).latest_version
    assert latest is not None
    return latest.id


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds that is bound to happen."""
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def states(emulator: Emulator) -> list[str]:
    """Return the last event of each prediction, fetches aside."""
    return [
        [name for name, _ in life.events if name != "fetched"][-1]
        for life in emulator.ledger.created()
    ]


# -- Money -------------------------------------------------------------------------------------


def test_the_iterator_of_a_run_cancels(emulator: Emulator, client: Client, counter: str) -> None:
    """A prediction is cancelled if the iterator that `run` returned is left."""
    pieces = client.run(counter, {"to": 1000, "seconds": 0.02}, wait=False)
    assert next(pieces) == "0"
    pieces.close()
    until(lambda: states(emulator) == ["cancelled"])


async def test_the_async_iterator_of_a_run_cancels(
    emulator: Emulator, client: Client, counter: str
) -> None:
    """So is that of `async_run`."""
    pieces = await client.async_run(counter, {"to": 1000, "seconds": 0.02}, wait=False)
    assert await anext(pieces) == "0"
    await pieces.aclose()
    assert states(emulator) == ["cancelled"]


def test_an_iterator_that_nobody_starts(emulator: Emulator, client: Client, counter: str) -> None:
    """A prediction runs on if nothing is read from the iterator: a webhook may be what counts."""
    pieces = client.run(counter, {"to": 3, "seconds": 0.02}, wait=False)
    del pieces
    gc.collect()
    until(lambda: states(emulator) == ["succeeded"])


def test_items_appear_early(client: Client, emulator: Emulator, counter: str) -> None:
    """With `wait=False`, the iterator yields items while the model runs."""
    pieces = client.run(counter, {"to": 1000, "seconds": 0.05}, wait=False)
    assert next(pieces) == "0"
    assert states(emulator) == ["started"]
    pieces.close()


async def test_a_cancelled_run_cancels(emulator: Emulator, client: Client) -> None:
    """A run whose task is cancelled cancels its prediction."""
    version = (await client.models.async_get("emulator/sleeper")).latest_version
    assert version is not None
    run = client.async_run(f"emulator/sleeper:{version.id}", {"seconds": 60})
    task = asyncio.create_task(run)
    while not emulator.ledger.created():  # noqa: ASYNC110 - it happens in another thread
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert states(emulator) == ["cancelled"]


def test_a_stream_that_is_left_cancels(emulator: Emulator, client: Client) -> None:
    """A stream that is left cancels its prediction."""
    for event in client.stream("emulator/writer", input={"prompt": "x", "max_tokens": 500}):
        assert event.data
        break
    until(lambda: states(emulator) == ["cancelled"])


def test_a_lost_create_is_found(emulator: Emulator, client: Client) -> None:
    """A create that gets no answer is not repeated: what it has created is found."""
    version = version_of("replicate/hello-world")
    emulator.wire.inject(
        Fault.RESET_AFTER_EXECUTION, path="/v1/predictions", method="POST", times=1
    )
    prediction = client.predictions.create(version=version, input={"text": "once"})
    prediction.wait()
    assert prediction.output == "hello once"
    assert len(emulator.ledger.created()) == 1


def test_a_version_that_cannot_be_read(emulator: Emulator, client: Client, counter: str) -> None:
    """A failure to read the version loses nothing: the output comes without an iterator."""
    emulator.wire.inject(Fault.ERROR_PAGE, path="*/versions/*", status=403)
    assert client.run(counter, {"to": 2}) == ["0", "1"]
    assert len(emulator.ledger.created()) == 1


def test_a_version_is_read_once(emulator: Emulator, client: Client, counter: str) -> None:
    """The schema of a version never changes."""
    for _ in range(3):
        assert list(client.run(counter, {"to": 2})) == ["0", "1"]
    assert len(emulator.ledger.requests(operation="models.versions.get")) == 1


def test_a_model_that_cannot_stream(client: Client) -> None:
    """A prediction that is paid for gives its output, where 1.x raises."""
    version = version_of("replicate/hello-world")
    events = list(client.stream(f"replicate/hello-world:{version}", input={"text": "x"}))
    assert "".join(map(str, events)) == "hello x"
    assert events[-1].event is ServerSentEvent.EventType.DONE
    prediction = client.predictions.create(version=version, input={"text": "y"})
    assert "".join(map(str, prediction.stream())) == "hello y"


def test_a_model_that_is_not_official(client: Client) -> None:
    """`run` and `stream` take the latest version of a model that is not official; `create` does not."""
    assert client.run("replicate/hello-world", {"text": "x"}) == "hello x"
    events = client.stream("replicate/hello-world", input={"text": "y"})
    assert "".join(map(str, events)) == "hello y"
    with pytest.raises(ReplicateError, match="404"):
        client.predictions.create(model="replicate/hello-world", input={"text": "x"})


def test_a_failed_stream(emulator: Emulator, client: Client) -> None:
    """The failure of a stream is a RuntimeError, as in 1.x, and knows its prediction."""

    @emulator.model("acme/breaks", official=True)
    def breaks() -> ConcatenateIterator[str]:
        yield "one"
        raise ValueError("no more")

    with pytest.raises(RuntimeError, match="no more") as caught:
        list(client.stream("acme/breaks", input={}))
    assert isinstance(caught.value, ModelError)
    assert caught.value.prediction.status == "failed"


def test_an_aborted_prediction(client: Client) -> None:
    """A wait ends with any terminal state."""
    prediction = Prediction(id="x", model="a/b", version="v", status="aborted")
    prediction.wait()
    assert prediction.status == "aborted"


def test_a_canceled_run(emulator: Emulator, client: Client) -> None:
    """A prediction that somebody cancelled has no output, and is no error."""
    version = version_of("emulator/sleeper")

    def cancel() -> None:
        until(lambda: emulator.ledger.created())
        client.predictions.cancel(emulator.ledger.created()[0].id)

    thread = threading.Thread(target=cancel)
    thread.start()
    assert client.run(f"emulator/sleeper:{version}", {"seconds": 60}) is None
    thread.join()


# -- Errors ------------------------------------------------------------------------------------


def test_the_cause(client: Client) -> None:
    """An error of the API has the typed one as its cause."""
    with pytest.raises(ReplicateError) as caught:
        client.predictions.get("nothing")
    assert isinstance(caught.value.__cause__, exceptions.NotFoundError)
    assert type(pickle.loads(pickle.dumps(caught.value))) is ReplicateError
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_errors_of_the_network(client: Client) -> None:
    """What httpx would raise is a ReplicateException."""
    closed = Client(api_token="x", base_url="http://127.0.0.1:9")
    with pytest.raises(exceptions.ConnectError) as caught:
        closed.predictions.create(version="0" * 64, input={})
    assert isinstance(caught.value, ReplicateException)
    assert "Is the emulator running?" in str(caught.value)


def test_errors_of_responses() -> None:
    """`from_response` takes any response, also one that is not JSON."""
    response = httpx.Response(418, json={"title": "T", "detail": "D"})
    error = ReplicateError.from_response(response)
    assert error.to_dict() == {"title": "T", "status": 418, "detail": "D"}
    for content in (b"no json", b"[1]"):
        error = ReplicateError.from_response(httpx.Response(500, content=content))
        assert error.to_dict() == {"status": 500}


def test_no_token(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token, nothing is sent; the error is that of 1.x."""
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    with pytest.raises(ReplicateError, match="REPLICATE_API_TOKEN") as caught:
        Client().models.list()
    assert (caught.value.status, caught.value.title) == (401, "Unauthenticated")
    assert emulator.ledger.requests() == []


# -- Options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "connect", "read"),
    [
        (httpx.Timeout(5.0, read=60.0), 5.0, 60.0),
        (httpx.Timeout(None), 86_400.0, 86_400.0),
        (SimpleNamespace(connect=1, read=2), 1, 2),
        (7, 7, 7),
        ((3, 4, 5, 6), 3, 4),
        (replicate_async.Timeout(connect=1.5, read=2.5), 1.5, 2.5),
    ],
)
def test_timeouts(timeout: Any, connect: float, read: float) -> None:
    """Timeouts of httpx are understood."""
    found = Client(timeout=timeout)._timeout  # noqa: SLF001 - it has no effect that a test can wait for
    assert found is not None
    assert (found.connect, found.read) == (connect, read)


@pytest.mark.parametrize("timeout", ["5", object(), True, (1,)])
def test_timeouts_that_are_none(timeout: Any) -> None:
    """What is no timeout is refused."""
    with pytest.raises((TypeError, ValueError)):
        Client(timeout=timeout)


def test_a_timeout_has_an_effect(emulator: Emulator) -> None:
    """A client gives a silent server up after its timeout."""
    emulator.wire.inject(Fault.STALL_BEFORE_EXECUTION, path="/v1/account")
    client = Client(timeout=httpx.Timeout(0.2))
    began = time.monotonic()
    with pytest.raises(exceptions.TransportTimeout):
        client.accounts.current()
    assert time.monotonic() - began < 20


def test_options_of_httpx() -> None:
    """Options without an effect are ignored, and others refused before anything is sent."""
    Client(http2=True, limits=httpx.Limits(max_connections=5), follow_redirects=True)
    Client(trust_env=True, transport=None)
    refused: list[dict[str, Any]] = [
        {"transport": httpx.HTTPTransport()},
        {"auth": ("a", "b")},
        {"nonsense": 1},
    ]
    for options in refused:
        with pytest.raises(TypeError, match=next(iter(options))):
            Client(**options)


def test_headers(emulator: Emulator) -> None:
    """Headers are sent; one of them may have the token."""
    client = Client(
        headers={"user-agent": "mine/1", "authorization": f"Token {emulator.token}", "X-A": "b"},
        api_token="r8_other",
    )
    client.accounts.current()
    [request] = emulator.ledger.requests()
    assert request.headers["User-Agent"] == "mine/1"
    assert request.headers["X-A"] == "b"
    assert request.status == 200


def test_webhook_completed(emulator: Emulator, client: Client) -> None:
    """The old option for a webhook at the end is one with a filter."""
    version = version_of("replicate/hello-world")
    client.predictions.create(
        version=version, input={"text": "x"}, webhook_completed="https://example.com/done"
    ).wait()
    until(lambda: emulator.deliveries)
    assert {delivery.url for delivery in emulator.deliveries} == {"https://example.com/done"}
    assert len(emulator.deliveries) == 1


def test_the_environment_is_read_late(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of the environment may be set after the client was made, and may change."""
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    client = Client()
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_wrong")
    with pytest.raises(ReplicateError, match="401"):
        client.accounts.current()
    monkeypatch.setenv("REPLICATE_API_TOKEN", emulator.token)
    assert client.accounts.current().username == "acme"
    client._api_token = "r8_wrong"  # noqa: SLF001 - as programs for 1.x do
    with pytest.raises(ReplicateError, match="401"):
        client.accounts.current()


def test_the_poll_interval(emulator: Emulator, client: Client) -> None:
    """The poll interval can be changed at any time."""
    version = version_of("emulator/sleeper")
    polls = []
    for interval in (0.02, 0.25):
        client.poll_interval = interval
        emulator.ledger.clear()
        client.predictions.create(version=version, input={"seconds": 0.5}).wait()
        polls.append(len(emulator.ledger.requests(method="GET")))
    assert polls[0] > 2 * polls[1]


def test_options_of_a_create(emulator: Emulator, client: Client, tmp_path: Any) -> None:
    """`wait` and `file_encoding_strategy` change what is sent."""
    (tmp_path / "a.txt").write_text("content")
    version = version_of("replicate/hello-world")
    done = client.predictions.create(version, {"text": "x"}, wait=5)
    assert done.status != "starting"
    [create] = emulator.ledger.requests(operation="predictions.create")
    assert create.headers["Prefer"] == "wait=5"
    client.predictions.create(
        version_of("emulator/describer"),
        {"image": tmp_path / "a.txt"},
        file_encoding_strategy="base64",
    )
    assert emulator.ledger.created()[-1].input["image"].startswith("data:text/plain;base64,")
    assert emulator.ledger.requests(operation="files.create") == []


# -- Files -------------------------------------------------------------------------------------


def test_a_file_output_is_an_input(client: Client) -> None:
    """A `FileOutput` in an input is sent as its URL, at any depth."""
    [url] = client.run("emulator/painter", {"prompt": "x", "width": 96, "height": 64})
    image = FileOutput(url, client)
    described = client.run("emulator/describer", {"image": image})
    assert described.startswith("PNG image, 96 x 64 pixels")


async def test_downloads(emulator: Emulator, client: Client) -> None:
    """A file is read in all four ways, without the token."""
    [url] = await client.async_run("emulator/painter", {"prompt": "x"})
    image = FileOutput(url, client)
    whole = await image.aread()
    assert whole.startswith(b"\x89PNG")
    assert b"".join([chunk async for chunk in image]) == whole
    assert await asyncio.to_thread(image.read) == whole
    assert await asyncio.to_thread(lambda: b"".join(image)) == whole
    image.close()
    await image.aclose()
    assert emulator.ledger.leaks() == []


# -- Objects -----------------------------------------------------------------------------------


def test_lenient_about_responses() -> None:
    """An object of the API may lack fields, or have other statuses; one that a user makes may not."""
    from replicate_async.v1._objects import received  # for what no emulator sends

    found = received(Prediction, {"id": "1", "status": "strange", "new": 1})
    assert found.dict(exclude_none=True) == {"id": "1", "status": "strange"}
    with pytest.raises(ValueError, match="model, version"):
        Prediction(id="1", status="starting")


ODD: list[Any] = [
    {"logs": 5},
    {"logs": f"{'9' * 400}%|##| {'1' * 5000}/{'2' * 5000} [00:00"},
    {"output": 10**4301},
    {"output": "DEEP", "error": "\ud800"},
    {"status": ["succeeded"], "metrics": None},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_objects(odd: dict[str, Any]) -> None:
    """Objects can be shown and written as JSON, whatever the API or a model has put into them."""
    from replicate_async.v1._objects import received  # for what no emulator sends

    if odd.get("output") == "DEEP":
        deep: list[Any] = []
        for _ in range(800 if sys.version_info < (3, 12) else 1100):  # Python 3.11 compares no more
            deep = [deep]
        odd = {**odd, "output": deep}
    found = received(Prediction, {"id": "1", "status": "succeeded", **odd})
    assert "id='1'" in repr(found)
    assert found.progress is None
    assert found.dict()["id"] == "1"
    assert '"id": "1"' in found.json()
    assert found == found.copy()


@pytest.mark.parametrize("output", ["null", "5", '{"a": 1}', "9" * 4301, "[" * 1100 + "]" * 1100])
def test_outputs_that_are_no_iterators(
    emulator: Emulator, client: Client, counter: str, output: str
) -> None:
    """What is paid for is returned, although its schema says something else, or it is nested deeply."""

    async def middleware(request: Any, record: Any, answer: Any) -> Any:
        response = await answer(request)
        if record.operation == "predictions.create":
            said = {**json.loads(response.body), "status": "succeeded"}
            body = json.dumps({**said, "output": "HERE"}).replace('"HERE"', output)
            return web.Response(
                status=201, body=body.encode(), headers={"Content-Type": "application/json"}
            )
        return response

    emulator.middlewares.append(middleware)
    found = client.run(counter, {"to": 1})
    if output == "null":
        assert found is None
    else:
        assert len(list(found)) == 1


@pytest.mark.parametrize(
    "schema", [None, [], "x", {"components": None}, {"components": {"schemas": 5}}]
)
def test_odd_schemas(emulator: Emulator, client: Client, counter: str, schema: Any) -> None:
    """A version whose schema is none has an output that is no iterator."""

    async def middleware(request: Any, record: Any, answer: Any) -> Any:
        response = await answer(request)
        if record.operation == "models.versions.get":
            said = json.loads(response.body)
            return web.json_response({**said, "openapi_schema": schema, "cog_version": [5]})
        return response

    emulator.middlewares.append(middleware)
    assert client.run(counter, {"to": 2}) == ["0", "1"]


def test_errors_can_be_printed() -> None:
    """Errors show whatever the API sends as its facts."""
    error = ReplicateError(title="\ud800", detail=10**4301)  # type: ignore[arg-type]  # as sent
    assert rb"title: \ud800" in str(error).encode()
    assert "detail=1000" in repr(error)
    failed = ModelError(SimpleNamespace(error={"message": "out of \ud800", "code": 5}))
    assert str(failed) == "out of \\ud800 (5)"


def test_objects_can_be_kept(client: Client) -> None:
    """Copies keep their client; pickles have neither the client nor its token."""
    version = version_of("replicate/hello-world")
    prediction = client.predictions.create(version=version, input={"text": "x"})
    for again in (prediction.copy(), prediction.copy(deep=True)):
        again.wait()
        assert again.output == "hello x"
    content = pickle.dumps(prediction)
    assert b"r8_" not in content
    assert pickle.loads(content) == prediction
    with pytest.raises(TypeError):
        hash(prediction)


def test_secrets_are_not_shown() -> None:
    """The `repr` of a signing secret does not show it; the attribute does."""
    secret = WebhookSigningSecret(key="whsec_abc")
    assert "abc" not in repr(secret) + str(secret)
    assert secret.dict() == {"key": "whsec_abc"}


def test_pages() -> None:
    """A page can be made, indexed and iterated over."""
    page = Page[int](results=[1, 2, 3], next="https://x")
    assert (list(page), page[1], len(page), page.previous) == ([1, 2, 3], 2, 3, None)
    assert page.dict() == {"previous": None, "next": "https://x", "results": [1, 2, 3]}


def test_names_of_pydantic_2(client: Client) -> None:
    """`model_dump` and `model_dump_json` are there, too."""
    model = client.models.get("replicate/hello-world")
    assert model.model_dump() == model.dict()
    assert model.model_dump(mode="json", exclude={"latest_version"})["name"] == "hello-world"
    assert model.model_dump_json() == model.json()
    assert f'"{model.latest_version.id}"' in model.json()  # type: ignore[union-attr]


def test_deprecated_names(client: Client) -> None:
    """Old names warn, and work."""
    model = client.models.get("replicate/hello-world")
    with pytest.deprecated_call():
        assert model.username == "replicate"
    with pytest.deprecated_call():
        assert client.collections.get("official").id == "official"
    with pytest.deprecated_call():
        assert client.hardware.list()[0].id == "cpu"
    with pytest.raises(ReplicateException, match="run"):
        model.predict(text="x")
    model.name = "other"
    assert model.id == "replicate/other"
    model.name = "hello-world"
    model.reload()
    assert model.latest_version is not None
    assert model.versions.get(model.latest_version.id).id == model.latest_version.id


# -- The package -------------------------------------------------------------------------------


def test_many_clients(emulator: Emulator) -> None:
    """Programs for 1.x make many clients and close none: nothing is left open, in one loop or several."""
    code = """
        import asyncio, gc, logging, os
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # slow steps are no matter here
        from replicate_async.v1 import Client

        def one(number):
            return Client(api_token=os.environ["REPLICATE_API_TOKEN"]).accounts.current().username

        async def several():
            for _ in range(5):
                client = Client(headers={"Authorization": "Bearer " + os.environ["REPLICATE_API_TOKEN"]})
                await client.accounts.async_current()
            gc.collect()

        for number in range(5):
            one(number)
            asyncio.run(several())
            gc.collect()
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_install(emulator: Emulator) -> None:
    """After `install()`, every module of `replicate` is that of `v1`, also if the official client was imported."""
    code = textwrap.dedent("""
        import importlib.util, pkgutil, sys
        import replicate
        names = [module.name for module in pkgutil.iter_modules(replicate.__path__)]
        import replicate.prediction
        import replicate_async.v1
        replicate_async.v1.install()
        import replicate
        import replicate.client
        from replicate.exceptions import ModelError
        from replicate.stream import ServerSentEvent
        assert replicate is replicate_async.v1
        assert replicate.client.Client is replicate_async.v1.Client
        assert ModelError is replicate_async.v1.exceptions.ModelError
        assert importlib.util.find_spec("replicate") is not None
        for name in names:
            assert sys.modules["replicate." + name] is sys.modules["replicate_async.v1." + name]
        replicate_async.v1.install()
        print(replicate.default_client.accounts.current().username)
    """)
    assert run_python(emulator, code) == "acme\n"


def test_neither_httpx_nor_pydantic(emulator: Emulator) -> None:
    """Nothing that 1.x needs is imported."""
    code = textwrap.dedent("""
        import sys
        for name in ("httpx", "pydantic", "packaging", "replicate"):
            sys.modules[name] = None
        import replicate_async.v1
        replicate_async.v1.install()
        import replicate
        version = replicate.models.get("emulator/writer").latest_version.id
        print(len(list(replicate.run("emulator/writer:" + version, {"prompt": "x", "max_tokens": 3}))))
    """)
    assert run_python(emulator, code) == "3\n"


@pytest.mark.parametrize("left", ["stream", "prediction", "run", "file", "iterator"])
def test_what_the_end_of_a_loop_leaves(emulator: Emulator, left: str) -> None:
    """An async iterator that is left by `break` does not keep the event loop from ending."""
    code = textwrap.dedent("""
        import asyncio, sys
        import replicate_async.v1 as replicate
        from replicate_async.v1.helpers import FileOutput

        async def main(left):
            inputs = {"prompt": "x", "max_tokens": 400}
            version = (await replicate.models.async_get("emulator/writer")).latest_version.id
            if left == "stream":
                found = await replicate.async_stream("emulator/writer", input=inputs)
            elif left == "run":
                reference = "emulator/writer:" + version
                found = await replicate.async_run(reference, inputs, wait=False)
            elif left == "file":
                [url] = await replicate.async_run("emulator/painter", {"prompt": "x"})
                found = aiter(FileOutput(url, replicate.default_client))
            else:
                prediction = await replicate.predictions.async_create(version, inputs)
                iterate = prediction.async_stream if left == "prediction" else (
                    prediction.async_output_iterator
                )
                found = iterate()
            async for _ in found:
                break

        asyncio.run(main(sys.argv[1]))
        print("ended")
    """)
    assert run_python(emulator, code, left) == "ended\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks(emulator: Emulator) -> None:
    """Children of a process that has used it, as of prefork servers and Celery, work, also amid calls of a thread."""
    code = textwrap.dedent("""
        import asyncio, multiprocessing, threading
        import replicate_async.v1 as replicate

        NAME = "replicate/hello-world"

        def work(text):
            client = replicate.Client()
            version = replicate.models.get(NAME).latest_version.id
            prediction = replicate.predictions.create(version, {"text": text})
            prediction.wait()
            told = [replicate.run(NAME, {"text": text}), client.run(NAME, {"text": text}), prediction.output]
            for each in (replicate, client):
                told.append(asyncio.run(each.async_run(NAME, {"text": text})))
            return told

        def calls(ended):
            while not ended.is_set():
                replicate.run(NAME, {"text": "of a thread"})

        async def forked():
            await replicate.async_run(NAME, {"text": "x"})
            with context.Pool(1) as pool:
                told = await asyncio.to_thread(pool.map, work, ["d"])
            return told, await replicate.async_run(NAME, {"text": "e"})

        context = multiprocessing.get_context("fork")
        work("x")
        ended = threading.Event()
        thread = threading.Thread(target=calls, args=(ended,))
        thread.start()
        with context.Pool(3) as pool:
            for told in pool.map(work, ["a", "b", "c"], chunksize=1):
                print(*told, sep=",")
        ended.set()
        thread.join()
        print(asyncio.run(forked()))
        print(replicate.run(NAME, {"text": "f"}))
    """)
    lines = [",".join([f"hello {text}"] * 5) for text in "abc"]
    lines += [f"({[['hello d'] * 5]}, 'hello e')", "hello f"]
    assert run_python(emulator, code).splitlines() == lines


def test_objects_as_inputs(emulator: Emulator, client: Client) -> None:
    """An uploaded file is sent as its URL, also deep in the input; no other object of the API is sent as its fields."""
    file = client.files.create(io.BytesIO(b"x"))
    version = client.models.get("replicate/hello-world").latest_version
    assert version is not None
    given: Any = {"text": "x", "deep": [{"file": file}], 1: {None: True, 2.5: "a", False: "b"}}
    made = client.predictions.create(version, given)
    sent = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]
    assert sent["deep"] == [{"file": file.urls["get"]}]
    assert sent["1"] == {"null": True, "2.5": "a", "false": "b"}
    for value, kind in ((made, "Prediction"), (version, "Version")):
        with pytest.raises(TypeError, match=rf"input\.text\[0\]: a {kind} cannot be sent"):
            client.run("replicate/hello-world", {"text": [value]})
    assert len(emulator.ledger.created()) == 1


async def test_objects_as_inputs_when_awaited(emulator: Emulator, client: Client) -> None:
    """The same holds for `async_run`."""
    file = await client.files.async_create(io.BytesIO(b"x"))
    await client.async_run("replicate/hello-world", {"text": "x", "file": file})
    sent = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]
    assert sent["file"] == file.urls["get"]
