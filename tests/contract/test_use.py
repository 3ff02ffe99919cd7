"""Models as functions."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import pytest
from aiohttp import web

import replicate_async
from replicate_async import (
    Client,
    FileOutput,
    ModelFunction,
    OutputStream,
    Retry,
    StreamingFunction,
)
from replicate_async.exceptions import (
    ArgumentError,
    ArgumentTypeError,
    NotFoundError,
    PredictionCanceled,
    PredictionFailed,
    RunTimeout,
    ServerError,
    StreamError,
)
from replicate_async.testing import ConcatenateIterator, Emulator, Input, OutputFile, log

from .conftest import rewrite
from .faults import until


def operations(emulator: Emulator) -> list[str]:
    """Return the operations that were asked for, without the polls."""
    asked = [request.operation for request in emulator.ledger.requests()]
    return [o for o in asked if o is not None and o != "predictions.get"]


@pytest.fixture
def studio(emulator: Emulator) -> Emulator:
    """Return an emulator with models whose outputs are of all kinds."""

    @emulator.model("acme/poet")
    def poet(prompt: str, lines: int = 2) -> ConcatenateIterator[str]:
        for number in range(lines):
            yield f" {prompt}\n" if number else prompt

    @emulator.model("acme/linker")
    def linker(prompt: str) -> str:
        return f"https://example.com/{prompt}"

    @emulator.model("acme/painter")
    def painter(prompt: str) -> OutputFile:
        return OutputFile(prompt.encode(), "painting.txt")

    @emulator.model("acme/album")
    def album(count: int = 2) -> list[OutputFile]:
        return [OutputFile(bytes([65 + n]), f"{n}.txt") for n in range(count)]

    @emulator.model("acme/reader")
    def reader(
        file: Annotated[Path, Input(description="What to read")],
        style: Annotated[Literal["plain", "loud"], Input(description="How")] = "plain",
    ) -> str:
        text = file.read_text()
        return text.upper() if style == "loud" else text

    @emulator.model("acme/counter")
    def counter(to: Annotated[int, Input(ge=0, le=100)] = 3) -> Iterator[int]:
        yield from range(to)

    return emulator


# -- Calls ---------------------------------------------------------------------------------------


async def test_the_schema_decides(client: Client, studio: Emulator) -> None:
    """Pieces of text are joined, files are files, and a text that looks like a URL is text."""
    assert await client.use("acme/poet")(prompt="sea") == "sea sea\n"
    assert await client.use("acme/linker")(prompt="x") == "https://example.com/x"
    painting = await client.use("acme/painter")(prompt="boat")
    assert isinstance(painting, FileOutput)
    assert await painting.read() == b"boat"
    files = await client.use("acme/album")()
    assert [await file.read() for file in files] == [b"A", b"B"]
    assert await client.use("acme/counter")() == [0, 1, 2]


async def test_without_file_outputs(client: Client, studio: Emulator) -> None:
    """Where files are not wanted, their URLs are text."""
    painter = client.use("acme/painter", use_file_output=False)
    assert isinstance(await painter(prompt="x"), str)
    run = await painter.create(prompt="x")
    assert isinstance(await run.output(), str)
    stream = client.use("acme/painter", use_file_output=False, streaming=True)(prompt="x")
    assert [type(item) async for item in stream] == [str]


async def test_the_schema_is_fetched_once(client: Client, studio: Emulator) -> None:
    """It is fetched before the first create, by one of many, and never between it and its result."""
    poet = client.use("acme/poet")
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(lambda: poet(prompt="x"))
    assert await client.use("acme/poet")(prompt="y") == "y y\n"
    assert await client.with_options(poll_interval=1).use("acme/poet")(prompt="y")
    asked = operations(studio)
    assert asked[0] == "models.get"
    assert set(asked[1:]) == {"predictions.create"}
    assert len(asked) == 23
    async with Client(studio.token, base_url=studio.url) as other:
        before = len(studio.ledger.requests())
        version = (await other.models.get("acme/poet")).latest_version
        assert version is not None
        function = other.use(f"acme/poet:{version.id}")
        for _ in range(3):
            await function(prompt="x")
        kinds = [request.operation for request in studio.ledger.requests()[before:]]
    assert kinds[:2] == ["models.get", "models.versions.get"]
    assert kinds.count("models.versions.get") == 1
    assert set(kinds[2:]) <= {"predictions.create", "predictions.get"}


async def test_references(client: Client, studio: Emulator) -> None:
    """All that can be run can be a function; objects bring their schema with them."""
    model = await client.models.get("acme/poet")
    version = model.latest_version
    assert version is not None
    deployment = await client.deployments.create(
        "poems",
        model="acme/poet",
        version=version.id,
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    before = len(studio.ledger.requests())
    for ref in (model, version):
        assert await client.use(ref)(prompt="a", lines=1) == "a"
    asked = [request.operation for request in studio.ledger.requests()[before:]]
    assert "models.versions.get" not in asked
    for other in (f"acme/poet:{version.id}", deployment):
        function = client.use(other)
        assert await function(prompt="a", lines=1) == "a"
        assert "prompt" in function.signature.parameters
    bare = client.use(version.id)  # no schema can be found for it: the output is as `run` has it
    assert await bare(prompt="a", lines=1) == ["a"]


async def test_models_without_a_schema(client: Client, emulator: Emulator) -> None:
    """Where no schema can be known, everything is passed on, and the output is as `run` has it."""
    rewrite(emulator, "models.get", lambda model: {**model, "latest_version": None})
    painter = client.use("emulator/painter")
    [image] = await painter(prompt="x", width=64, height=64)
    assert isinstance(image, FileOutput)
    assert str(painter.signature) == "(**inputs: Any) -> Any"
    assert "cannot be known" in str(painter.__doc__)


async def test_a_model_that_is_not_there(client: Client) -> None:
    """It is the error that says so."""
    with pytest.raises(NotFoundError, match="acme/nothing"):
        await client.use("acme/nothing")(prompt="x")
    with pytest.raises(ArgumentError, match="ref"):
        client.use("nothing")


async def test_failures(client: Client, emulator: Emulator) -> None:
    """A failure raises, from each way to call it."""
    failer = client.use("emulator/failer")
    with pytest.raises(PredictionFailed, match="boo"):
        await failer(error="boo")
    run = await failer.create(error="boo")
    with pytest.raises(PredictionFailed, match="boo"):
        await run.output()
    with pytest.raises(StreamError, match="boo"):
        await client.use("emulator/failer", streaming=True)(error="boo").collect()


async def test_it_works_anywhere(studio: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a function, of a client or of the default one, on one loop after the other."""
    for name, value in studio.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("replicate_async._jobs.context._default", None)
    poet = replicate_async.use("acme/poet")

    async def call() -> Any:
        return await poet(prompt="a", lines=1)

    assert [await asyncio.to_thread(asyncio.run, call()) for _ in range(2)] == ["a", "a"]
    assert await replicate_async.use("acme/poet")(prompt="b", lines=1) == "b"
    await replicate_async.aclose()


async def test_abandoned_calls_are_cancelled(client: Client, emulator: Emulator) -> None:
    """A call that is out of time, or cancelled, stops the costs."""
    with pytest.raises(RunTimeout):
        await client.use("emulator/sleeper", timeout=1, wait=False)(seconds=60)
    assert len(emulator.ledger.cancelled()) == 1
    call = asyncio.ensure_future(client.use("emulator/sleeper")(seconds=60))
    await until(emulator.ledger.running)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(emulator.ledger.cancelled()) == 2


# -- Started without waiting -----------------------------------------------------------------------


async def test_runs(client: Client, studio: Emulator) -> None:
    """`create` does not wait; the run has output, logs and cancel."""
    sleeper = client.use("emulator/sleeper")
    run = await sleeper.create(seconds=0.3, steps=3)
    assert run.prediction.status == "starting"
    with pytest.raises(RunTimeout):
        await run.output(timeout=0.01)
    output = await run.output()
    assert output == run.prediction.output
    assert await run.output() == output
    assert await run.logs() == run.prediction.logs != ""
    stopped = await sleeper.create(seconds=60)
    assert (await stopped.cancel()).status == "canceled"
    with pytest.raises(PredictionCanceled):
        await stopped.output()
    assert stopped.prediction.id in repr(stopped)


async def test_logs_of_a_running_one(client: Client, emulator: Emulator) -> None:
    """They are what has been logged so far."""
    logged, ended = threading.Event(), threading.Event()

    @emulator.model("acme/thinker")
    def thinker() -> str:
        log("thinking\n")
        logged.set()
        assert ended.wait(10)
        return "x"

    run = await client.use("acme/thinker").create()
    assert await asyncio.to_thread(logged.wait, 10)
    assert await run.logs() == "thinking\n"
    ended.set()
    assert await run.output() == "x"


# -- Streams ---------------------------------------------------------------------------------------


async def test_streaming(client: Client, studio: Emulator) -> None:
    """Calls are streams of text, of files, or of whatever the model makes."""
    poet = client.use("acme/poet", streaming=True)
    assert isinstance(poet, StreamingFunction)
    assert [text async for text in poet(prompt="sea")] == ["sea", " sea\n"]
    async with poet(prompt="sea") as stream:
        assert isinstance(stream, OutputStream)
        assert await anext(stream) == "sea"
        assert stream.prediction is not None
    assert await poet(prompt="sea").collect() == "sea sea\n"
    album = client.use("acme/album", streaming=True)
    assert [await file.read() async for file in album()] == [b"A", b"B"]
    assert [n async for n in client.use("acme/counter", streaming=True)()] == [0, 1, 2]
    assert [t async for t in client.use("acme/linker", streaming=True)(prompt="x")] == [
        "https://example.com/x"
    ]


async def test_streams_check_their_inputs(client: Client, studio: Emulator) -> None:
    """Nothing is created of bad ones."""
    with pytest.raises(ArgumentTypeError, match="did you mean 'prompt'"):
        await anext(client.use("acme/poet", streaming=True)(promt="x"))
    assert studio.ledger.created() == []


async def test_streaming_runs(client: Client, studio: Emulator) -> None:
    """What was started can be streamed later, as often as wanted; leaving leaves it running."""
    run = await client.use("acme/poet", streaming=True).create(prompt="sea")
    assert [text async for text in run.output()] == ["sea", " sea\n"]
    assert await run.output().collect() == "sea sea\n"
    async for _ in run.output():
        break
    assert studio.ledger.cancelled() == []


async def test_leaving_a_stream_cancels(client: Client, emulator: Emulator) -> None:
    """Whoever stops reading stops paying."""

    @emulator.model("acme/endless")
    async def endless() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async with client.use("acme/endless", streaming=True)() as stream:
        async for text in stream:
            assert text == "a"
            break
    assert len(emulator.ledger.cancelled()) == 1


@pytest.mark.parametrize("cog_version", ["0.3.8", "0.3.9rc1", "0.1.3+shimmed", "0.3.9", "0.16.7"])
async def test_old_versions_of_cog(client: Client, emulator: Emulator, cog_version: str) -> None:
    """Documents of Cog below 0.3.9 say nothing of iterators: their arrays grow all the same."""

    @emulator.model("acme/old", cog_version=cog_version)
    def old(count: int = 3) -> ConcatenateIterator[str]:
        for number in range(count):
            yield f"t{number}"

    marked = cog_version in ("0.3.9", "0.16.7")
    function = client.use("acme/old")
    assert await function() == ("t0t1t2" if marked else ["t0", "t1", "t2"])
    assert str(function.__doc__).endswith(
        "text, piece by piece" if marked else "list of text, one by one"
    )
    streaming = client.use("acme/old", streaming=True)
    assert [text async for text in streaming(count=2)] == ["t0", "t1"]


# -- Outputs as inputs -----------------------------------------------------------------------------


async def test_outputs_are_inputs(client: Client, studio: Emulator) -> None:
    """What one function makes, or will make, is an input of the next."""
    painter, reader, poet = (client.use(f"acme/{n}") for n in ("painter", "reader", "poet"))
    done = await painter(prompt="boat")
    running = await painter.create(prompt="boat")
    streamed = client.use("acme/painter", streaming=True)
    for image in (
        done,
        running,
        painter(prompt="boat"),
        streamed(prompt="boat"),
        await streamed.create(prompt="boat"),
    ):
        assert await reader(file=image, style="loud") == "BOAT"
    text = client.use("acme/poet", streaming=True)(prompt="sea")
    assert await poet(prompt=text, lines=1) == "sea sea\n"
    events = client.stream("acme/poet", {"prompt": "sky"})
    assert await poet(prompt=events, lines=1) == "sky sky\n"
    assert await poet(prompt=await poet(prompt="x", lines=1), lines=1) == "x"
    assert all(request.operation != "files.create" for request in studio.ledger.requests())


async def test_outputs_deep_in_inputs(client: Client, studio: Emulator) -> None:
    """They may stand anywhere, and the same one twice; all are awaited at the same time."""
    started = threading.Barrier(2, timeout=10)

    @studio.model("acme/pair")
    def pair(name: str) -> OutputFile:
        started.wait()
        return OutputFile(name.encode(), "x.txt")

    @studio.model("acme/joiner")
    def joiner(files: list[Path]) -> str:
        return " ".join(file.read_text() for file in files)

    maker = client.use("acme/pair")
    one, two = maker(name="a"), maker(name="b")
    assert await client.use("acme/joiner")(files=[one, two, one]) == "a b a"


async def test_a_list_of_one_file(client: Client, studio: Emulator) -> None:
    """Where one file is wanted and a list of one comes, it is taken out; of two, that is an error."""
    album, reader = client.use("acme/album"), client.use("acme/reader")
    assert await reader(file=await album.create(count=1)) == "A"
    with pytest.raises(ArgumentTypeError, match="file: expected file"):
        await reader(file=await album.create(count=2))


async def test_a_failed_output(client: Client, studio: Emulator) -> None:
    """A failure on the way is raised, and nothing is created of it."""
    run = await client.use("emulator/failer").create(error="boo")
    with pytest.raises(PredictionFailed, match="boo"):
        await client.use("acme/poet")(prompt=run)


@pytest.mark.filterwarnings("error")
async def test_bad_inputs_leave_no_coroutines(client: Client, studio: Emulator) -> None:
    """A call that is an input of a call with a mistake was never made, without a warning."""
    painter, reader = client.use("acme/painter"), client.use("acme/reader")
    with pytest.raises(ArgumentTypeError, match="did you mean 'file'"):
        await reader(fil=painter(prompt="x"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fails", [True, False], ids=["fails", "cancelled"])
async def test_an_unknown_schema_leaves_no_coroutines(studio: Emulator, fails: bool) -> None:
    """Neither does a call whose schema cannot be fetched, or that is cancelled before that."""

    async def middleware(request: Any, record: Any, answer: Any) -> Any:
        if fails and record.operation == "models.get":
            return web.Response(status=500)
        return await answer(request)

    studio.middlewares.append(middleware)
    retry = Retry(attempts=1)
    async with Client(studio.token, base_url=studio.url, retry=retry) as client:
        painter, reader = client.use("acme/painter"), client.use("acme/reader")
        with anyio.move_on_after(10 if fails else 0), suppress(ServerError):
            await reader(file=[painter(prompt="x"), painter(prompt="y")])
    assert studio.ledger.created() == []


# -- Inputs ----------------------------------------------------------------------------------------


async def test_inputs_are_checked(client: Client, studio: Emulator) -> None:
    """A mistake is told with all others, by name, before anything is created or uploaded."""
    reader = client.use("acme/reader")
    with pytest.raises(ArgumentTypeError) as unknown:
        await reader(fille=b"x", style="Loud")
    assert unknown.value.argument == "fille"
    for part in ("did you mean 'file'?", "acme/reader", "style: ", "file: it is required"):
        assert part in str(unknown.value)
    with pytest.raises(ArgumentError, match="did you mean 'loud'") as choice:
        await reader(file=b"x", style="lou")
    assert choice.value.argument == "style"
    for local in ("x.txt", "file:///tmp/x.txt", "FILE:x.txt", "C:/x.txt"):
        with pytest.raises(ArgumentError, match=r"pathlib\.Path.*@PATH in a shell"):
            await reader(file=local)
    with pytest.raises(ArgumentError, match="from 0 to 100"):
        await client.use("acme/counter")(to=101)
    with pytest.raises(TypeError):
        await reader(b"x")  # type: ignore[call-arg]
    assert set(operations(studio)) == {"models.get"}


async def test_checking_alone(client: Client, studio: Emulator) -> None:
    """`check` raises what a call raises, and sends nothing; it knows nothing before `load`."""
    reader = client.use("acme/reader", validate=False)
    reader.check(fille=b"x")
    assert operations(studio) == []
    await reader.load()
    with pytest.raises(ArgumentTypeError, match="did you mean 'file'"):
        reader.check(fille=b"x")
    with pytest.raises(ArgumentError, match="did you mean 'loud'"):
        reader.check(file=b"x", style="lou")
    reader.check(file=b"x", style="loud")
    client.use("acme/counter").check(to=None)
    painter = await client.use("acme/painter").load()
    run = painter(prompt="x")
    reader.check(file=run)
    run.close()
    assert set(operations(studio)) == {"models.get"}


async def test_unchecked_inputs(client: Client, studio: Emulator) -> None:
    """With `validate=False`, the server judges."""
    counter = client.use("acme/counter", validate=False)
    assert await counter(to=2, unknown="x") == [0, 1]
    with pytest.raises(replicate_async.exceptions.ValidationError):
        await counter(to=101)


async def test_none_is_not_given(client: Client, studio: Emulator) -> None:
    """None stands for an input that is left out, since the API refuses `null`."""
    assert await client.use("acme/counter")(to=None) == [0, 1, 2]


async def test_values_of_all_kinds(client: Client, studio: Emulator, tmp_path: Path) -> None:
    """Files are uploaded, and members of enumerations are their values."""

    class Style(Enum):
        LOUD = "loud"

    path = tmp_path / "x.txt"
    path.write_text("hi")
    reader = client.use("acme/reader")
    assert await reader(file=path, style=Style.LOUD) == "HI"
    assert await reader(file=b"bytes") == "bytes"


async def test_inputs_of_any_name(client: Client, emulator: Emulator) -> None:
    """An input may be called as the arguments of our own functions are."""

    @emulator.model("acme/names")
    def names(inputs: str, validate: str, ref: str) -> str:
        return inputs + validate + ref

    assert await client.use("acme/names")(inputs="a", validate="b", ref="c") == "abc"
    with pytest.raises(ArgumentTypeError, match="self: there is no such input"):
        await client.use("acme/names")(self="x")


# -- Help ------------------------------------------------------------------------------------------


async def test_signature_and_help(client: Client, studio: Emulator) -> None:
    """They show the inputs with types, defaults and descriptions, once these are known."""
    reader = client.use("acme/reader")
    assert isinstance(reader, ModelFunction)
    assert "await load()" in _help(reader)
    assert str(reader.signature) == "(**inputs: Any) -> Any"
    assert await reader.load() is reader
    assert reader.signature == inspect.signature(reader)
    parameters = reader.signature.parameters
    assert list(parameters) == ["file", "style"]
    assert parameters["style"].default == "plain"
    assert parameters["style"].annotation == Literal["plain", "loud"]
    assert reader.signature.return_annotation is str
    text = _help(reader)
    for part in ("acme/reader", "file: file, required", "What to read", "'plain' | 'loud'", "How"):
        assert part in text
    assert reader.__name__ == "reader"
    assert "acme/reader" in repr(reader)
    # The first call does the same.
    poet = client.use("acme/poet", streaming=True)
    await poet(prompt="x").collect()
    assert list(poet.signature.parameters) == ["prompt", "lines"]
    assert poet.signature.return_annotation is str


def _help(thing: object) -> str:
    return pydoc.plain(pydoc.render_doc(thing))


async def test_options(client: Client, studio: Emulator) -> None:
    """The options are those of `run`, for each call."""
    poet = client.use("acme/poet", cancel_after=60, wait=5)
    await poet(prompt="x")
    creates = [r for r in studio.ledger.requests() if r.operation == "predictions.create"]
    headers = {name.lower(): value for name, value in dict(creates[-1].headers).items()}
    assert 60 <= int(headers["cancel-after"].removesuffix("s")) < 66
    assert headers["prefer"] == "wait=5"
    bad: Any
    for bad in ({"timeout": -1}, {"on_abandon": "stop"}):
        with pytest.raises(ArgumentError):
            client.use("acme/poet", **bad)
