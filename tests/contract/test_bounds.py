"""Bounds on what models and their servers make of a download, a stream and a `repr`."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web

from replicate_async import Client, FileOutput, Limits, Timeout, exceptions, sync
from replicate_async._display import shortened
from replicate_async.testing import Emulator, Request
from replicate_async.types import ServerSentEvent, Update

from .conftest import rewrite

MIB = 2**20


@asynccontextmanager
async def files(*handlers: Any) -> AsyncIterator[str]:
    """Serve output files, each of them by a handler."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response: web.StreamResponse = await handlers[int(request.path[1:])](request)
        return response

    runner = web.ServerRunner(
        web.Server(handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def output_of(client: Client, emulator: Emulator, output: Any) -> Any:
    """Return the output of a prediction, which the test chooses, and its id."""

    @emulator.model("acme/hostile", official=True)
    def hostile() -> Any:
        return output

    prediction = await client.predictions.create("acme/hostile", {}, wait=5)
    await prediction.wait()
    return prediction


@cache
def bomb() -> bytes:
    """Return 300 MiB of zeros, compressed to 300 kB."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([packer.compress(bytes(MIB)) for _ in range(300)]) + packer.flush()


async def send_bomb(request: web.BaseRequest) -> web.StreamResponse:
    """Send a bomb."""
    return web.Response(body=bomb(), headers={"Content-Encoding": "gzip"})


async def test_a_bomb_is_not_saved(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A small file that expands to a large one is refused by default, names the prediction, and leaves nothing."""
    async with files(send_bomb) as url:
        prediction = await output_of(client, emulator, f"{url}/0")
        file = prediction.output
        for attempt in (file.save(tmp_path / "x"), file.save(tmp_path), file.read(), drain(file)):
            with pytest.raises(exceptions.FileTooLarge, match=prediction.id) as caught:
                await attempt
            assert (caught.value.prediction_id, caught.value.limit) == (prediction.id, 256 * MIB)
        assert not [*tmp_path.iterdir()]
        async with client_with(emulator, Limits(file=2 * MIB, save=MIB)) as other:
            with pytest.raises(exceptions.FileTooLarge, match=r"Limits\(save="):
                await (await other.predictions.get(prediction.id)).output.save(tmp_path)
        assert not [*tmp_path.iterdir()]


async def drain(file: FileOutput) -> None:
    """Read a file piece by piece."""
    async for _ in file:
        pass


async def test_save_to_and_map_are_bounded(emulator: Emulator, tmp_path: Path) -> None:
    """What saves outputs by itself has the same limit; the output is not lost with it."""
    async with files(send_bomb) as url, client_with(emulator, Limits(file=MIB)) as client:
        await output_of(client, emulator, f"{url}/0")
        with pytest.raises(exceptions.OutputNotSaved) as caught:
            await client.run("acme/hostile", {}, save_to=tmp_path / "run")
        assert isinstance(caught.value.failures[0], exceptions.FileTooLarge)
        assert caught.value.prediction.output.url == f"{url}/0"
        [outcome] = await client.map("acme/hostile", [{}], save_to=tmp_path / "map").collect()
        assert isinstance(outcome.error, exceptions.OutputNotSaved)
        assert [path.name for path in (tmp_path / "map").iterdir()] == ["000000-prediction.json"]


def client_with(emulator: Emulator, limits: Limits, **options: Any) -> Client:
    """Return a client with limits."""
    return Client(emulator.token, base_url=emulator.url, limits=limits, **options)


@pytest.mark.parametrize("announced", [True, False])
async def test_the_limit_on_saved_files(
    emulator: Emulator, tmp_path: Path, *, announced: bool
) -> None:
    """A plain file may have just as many bytes as the limit says, whether it announces them or not."""

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        size = 1000 + (request.path == "/1")
        if announced:
            response.content_length = size
        await response.prepare(request)
        await response.write(bytes(size))
        await response.write_eof()
        return response

    async with files(send, send) as url, client_with(emulator, Limits(save=1000)) as client:
        prediction = await output_of(client, emulator, [f"{url}/0", f"{url}/1"])
        fits, larger = prediction.output
        assert (await fits.save(tmp_path / "fits")).stat().st_size == 1000
        with pytest.raises(exceptions.FileTooLarge, match="1000") as caught:
            await larger.save(tmp_path / "larger")
        assert ("1001 bytes" in str(caught.value)) is announced
        assert [path.name for path in tmp_path.iterdir()] == ["fits"]
        assert len(await larger.read()) == 1001


async def test_the_limit_on_data_uris(emulator: Emulator, tmp_path: Path) -> None:
    """Data URIs have the same limits."""
    async with client_with(emulator, Limits(save=9, file=9)) as client:
        outputs = ["data:text/plain;base64,MTIzNDU2Nzg5", "data:text/plain,%31234567890"]
        prediction = await output_of(client, emulator, outputs)
        fits, larger = prediction.output
        assert (await fits.save(tmp_path / "fits")).read_bytes() == b"123456789"
        for attempt in (larger.save(tmp_path / "larger"), larger.read()):
            with pytest.raises(exceptions.FileTooLarge, match=prediction.id):
                await attempt
        assert [path.name for path in tmp_path.iterdir()] == ["fits"]


async def test_a_gzipped_file_within_the_limit(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A server that compresses what it should not is no reason to lose the file."""

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b"text"), headers={"Content-Encoding": "gzip"})

    async with files(send) as url:
        file = (await output_of(client, emulator, f"{url}/0")).output
        assert (await file.save(tmp_path / "x")).read_bytes() == b"text"


async def drip(request: web.BaseRequest) -> web.StreamResponse:
    """Send a byte now and then, for ever."""
    response = web.StreamResponse()
    response.content_length = 2**40
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.02)


async def cut(request: web.BaseRequest) -> web.StreamResponse:
    """Send a part, and hang up: each time it goes on, and never to the end."""
    start = int(request.headers.get("Range", "bytes=0-")[6:-1])
    response = web.StreamResponse(
        status=206 if start else 200,
        headers={"ETag": '"x"', "Content-Range": f"bytes {start}-{2**40 - 1}/{2**40}"},
    )
    response.content_length = 2**40 - start
    await response.prepare(request)
    await response.write(bytes(2**17))
    await asyncio.sleep(0.01)
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize("handler", [drip, cut])
async def test_a_download_that_never_ends(emulator: Emulator, tmp_path: Path, handler: Any) -> None:
    """A download that drips, or always breaks off a bit further, ends in time and names its prediction."""
    timeout = Timeout(download=0.5)
    async with (
        files(handler) as url,
        client_with(emulator, Limits(save=2**41, file=2**41), timeout=timeout) as client,
    ):
        prediction = await output_of(client, emulator, f"{url}/0")
        file = prediction.output
        for attempt in (file.save(tmp_path), file.read(), drain(file)):
            began = time.monotonic()
            with pytest.raises(exceptions.IncompleteFile, match=r"longer than 0\.5 s") as caught:
                await attempt
            assert time.monotonic() - began < 10
            assert (caught.value.prediction_id, caught.value.seconds) == (prediction.id, 0.5)
        assert not [*tmp_path.iterdir()]


async def test_the_time_of_the_reader_does_not_count(emulator: Emulator) -> None:
    """Whoever takes long over the content that has arrived may do so."""

    async def send(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=bytes(8 * MIB))

    async with (
        files(send) as url,
        client_with(emulator, Limits(), timeout=Timeout(download=0.4)) as client,
    ):
        prediction = await output_of(client, emulator, f"{url}/0")
        received = 0
        async for chunk in prediction.output:
            if received < MIB:
                await asyncio.sleep(0.1)
            received += len(chunk)
        assert received == 8 * MIB


@pytest.mark.parametrize("how", ["stream", "use", "prediction"])
async def test_a_stream_that_never_ends(emulator: Emulator, how: str) -> None:
    """A model that writes for ever is cancelled at the limit; the error names its prediction."""

    @emulator.model("acme/endless", official=True)
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000
            await asyncio.sleep(0.002)

    async with client_with(emulator, Limits(stream=100_000)) as client:
        if how == "stream":
            stream: Any = client.stream("acme/endless", {})
        elif how == "use":
            stream = client.use("acme/endless", streaming=True)()
        else:
            stream = (await client.predictions.create("acme/endless", {})).stream()

        async def read() -> None:
            async with stream:
                async for _ in stream:
                    pass

        with pytest.raises(exceptions.AnswerTooLarge, match=r"Limits\(stream=") as caught:
            await read()
        assert stream.prediction is not None
        assert caught.value.prediction_id == stream.prediction.id
        assert stream.prediction.id in str(caught.value)
        assert 0 < len(stream.text) <= 100_000
        prediction = await client.predictions.get(stream.prediction.id)
        if how == "prediction":
            await prediction.cancel()
        else:
            assert (await prediction.reload()).status == "canceled"


async def test_events_without_text_count(emulator: Emulator) -> None:
    """Events count for what they take in memory, though they say nothing."""

    @emulator.model("acme/empty", official=True)
    async def empty() -> AsyncIterator[str]:
        while True:
            yield ""
            await asyncio.sleep(0)

    async with client_with(emulator, Limits(stream=50_000)) as client:
        with pytest.raises(exceptions.AnswerTooLarge):
            async for _ in client.stream("acme/empty", {}):
                pass


def test_bounds_in_the_facade(emulator: Emulator, tmp_path: Path) -> None:
    """The sync client has the same limits."""

    @emulator.model("acme/texts", official=True)
    async def texts() -> AsyncIterator[str]:
        for _ in range(100):
            yield "x" * 100

    @emulator.model("acme/file", official=True)
    async def file() -> Any:
        return "data:text/plain,1234567890"

    with sync.Client(
        emulator.token, base_url=emulator.url, limits=Limits(stream=1000, save=9)
    ) as client:
        with pytest.raises(exceptions.AnswerTooLarge):
            list(client.stream("acme/texts", {}))
        with pytest.raises(exceptions.FileTooLarge):
            client.run("acme/file", {}).save(tmp_path)


# -- What `repr` shows -------------------------------------------------------------------------

LARGE = 60 * MIB


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + "A" * LARGE,
        "data:image/png;base64," + "AAA\n" * (LARGE // 4),
        "data:text/plain," + "%41" * (LARGE // 3),
        "https://example.com/" + "a" * LARGE,
    ],
    ids=["base64", "lines", "percent", "https"],
)
def test_the_repr_of_a_large_file_is_instant(url: str) -> None:
    """A file is shown by the beginning of its URL, without a look at the rest."""
    file = FileOutput(url)
    began = time.thread_time()
    shown = [repr(file), repr([file]), f"{file!r}", str(file._repr_mimebundle_())]
    assert time.thread_time() - began < 0.05
    assert all(len(text) < 500 for text in shown)
    assert repr(FileOutput("data:text/plain,abc")).endswith("content_type='text/plain', size=3)")


async def test_the_repr_of_large_objects_is_short(client: Client, emulator: Emulator) -> None:
    """Predictions, outcomes and events are shown by the beginnings of their texts."""
    text = "x" * (4 * MIB)
    rewrite(emulator, "predictions.get", lambda body: {**body, "logs": text, "error": text})
    prediction = await output_of(client, emulator, [{"text": text}, f"data:text/plain,{text}"])
    await prediction.reload()
    [outcome] = await client.map(
        "acme/hostile", [{"prompt": text, "file": text.encode()}]
    ).collect()
    for value in (
        prediction,
        outcome,
        ServerSentEvent("output", text, "1"),
        Update("processing", text, None),
    ):
        assert len(repr(value)) < 20_000
        assert "xxx" in repr(value)
    assert prediction.logs == text
    assert "'a'" in repr(attrs.evolve(outcome, input={"a": 1}))


def test_shortened_values_are_copies() -> None:
    """What is truncated for a `repr` stays as it was, however deep it is nested."""
    deep: Any = {"text": "x" * 5000, "short": "y", "bytes": b"z" * 5000}
    value = deep
    for _ in range(5000):
        value = [value]
    found = shortened(value)
    while isinstance(found, list):
        [found] = found
    assert (len(deep["text"]), len(deep["bytes"])) == (5000, 5000)
    assert found["short"] == "y"
    assert found["text"] == "x" * 1000 + "… (5000 characters)"
    assert found["bytes"].endswith(b"... (5000 bytes)")


# -- What has succeeded in time ----------------------------------------------------------------


WAYS = ["run", "use", "start", "updates", "use.start", "map", "facade", "facade start"]


@pytest.mark.parametrize("how", WAYS)
async def test_a_timeout_loses_no_output(client: Client, emulator: Emulator, how: str) -> None:
    """A prediction that has succeeded when its run is too late is a success: `run` returns its output."""

    @emulator.model("acme/quick", official=True)
    def quick() -> str:
        return "done"

    def running(body: Any) -> Any:
        return {**body, "status": "processing", "output": None, "completed_at": None}

    # The client never sees the end, before it cancels.
    rewrite(emulator, "predictions.get", running)
    rewrite(emulator, "models.predictions.create", running)
    if how == "run":
        assert await client.run("acme/quick", {}, wait=False, timeout=1) == "done"
    elif how == "use":
        assert await client.use("acme/quick", wait=False, timeout=1)() == "done"
    elif how in ("start", "updates"):
        async with client.start("acme/quick", {}, timeout=1) as run_seen:
            if how == "updates":
                assert [update.status async for update in run_seen.updates()][-1] == "succeeded"
            assert await run_seen.result() == "done"
    elif how == "use.start":
        async with client.use("acme/quick", timeout=1).start() as run_seen:
            assert await run_seen.result() == "done"
    elif how == "map":
        [outcome] = await client.map("acme/quick", [{}], timeout=1).collect()
        assert outcome.output == "done"
    elif how == "facade start":

        def start() -> Any:
            with (
                sync.Client(emulator.token, base_url=emulator.url) as facade,
                facade.start("acme/quick", {}, timeout=1) as run_seen,
            ):
                return run_seen.result()

        assert await asyncio.to_thread(start) == "done"
    else:

        def run() -> Any:
            with sync.Client(emulator.token, base_url=emulator.url) as facade:
                return facade.run("acme/quick", {}, wait=False, timeout=1)

        assert await asyncio.to_thread(run) == "done"
    assert len(emulator.ledger.created()) == 1


async def test_a_timeout_looks_once_more(emulator: Emulator) -> None:
    """A prediction that cannot be cancelled, or is left, may have succeeded since it was polled."""

    @emulator.model("acme/quick", official=True)
    def quick() -> str:
        return "done"

    began = time.monotonic()

    def running(body: Any) -> Any:
        if time.monotonic() - began > 0.9:
            return body
        return {**body, "status": "processing", "output": None, "completed_at": None}

    async def refuse_cancel(request: web.BaseRequest, entry: Request, handler: Any) -> Any:
        if entry.operation == "predictions.cancel":
            return web.json_response({"detail": "It has ended.", "status": 422}, status=422)
        return await handler(request)

    rewrite(emulator, "predictions.get", running)
    rewrite(emulator, "models.predictions.create", running)
    emulator.middlewares.append(refuse_cancel)

    async def started(client: Client, on_abandon: Any) -> Any:
        async with client.start("acme/quick", {}, timeout=1, on_abandon=on_abandon) as run_seen:
            return await run_seen.result()

    async def mapped(client: Client, on_abandon: Any) -> Any:
        outcomes = client.map("acme/quick", [{}], timeout=1, on_abandon=on_abandon)
        return (await outcomes.collect())[0].result()

    async with Client(emulator.token, base_url=emulator.url, poll_interval=5) as client:
        outputs = await asyncio.gather(
            *(
                way
                for on_abandon in ("cancel", "leave")
                for way in (
                    client.run("acme/quick", wait=False, timeout=1, on_abandon=on_abandon),
                    started(client, on_abandon),
                    mapped(client, on_abandon),
                )
            )
        )
    assert outputs == ["done"] * 6
