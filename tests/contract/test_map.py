"""`map`: many inputs through one model, each paid for once, and none harmed by another."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from replicate_async import Client, Outcome, Retry, exceptions
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Emulator, Fault, OutputFile

from .conftest import HELLO, rewrite, until
from .faults import with_timings


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with models that do what they are told."""
    with Emulator(rate_limits=False) as running:

        @running.model("acme/echo", official=True)
        async def echo(text: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            if text.startswith("fail"):
                raise RuntimeError(text)
            return text

        @running.model("acme/file", official=True)
        async def file(text: str) -> list[OutputFile]:
            return [OutputFile(f"{text} {n}".encode(), "out.txt", "text/plain") for n in range(2)]

        @running.model("acme/mixed", official=True)
        async def mixed(text: str) -> dict[str, Any]:
            return {"text": text, "numbers": [1, 2.5, None]}

        @running.model("acme/words", official=True)
        async def words(text: str) -> AsyncIterator[str]:
            for word in text.split():
                yield word + " "

        yield running


def texts(*given: str, **more: Any) -> list[dict[str, Any]]:
    """Return inputs with these texts."""
    return [{"text": text, **more} for text in given]


# -- Outcomes ----------------------------------------------------------------------------------


async def test_outcomes(client: Client) -> None:
    """Each input has one outcome, with its index, the input, the prediction and the output."""
    inputs = texts("a", "b", "c")
    found = {outcome.index: outcome async for outcome in client.map("acme/echo", inputs)}
    assert sorted(found) == [0, 1, 2]
    for index, outcome in found.items():
        assert outcome.input is inputs[index]
        assert outcome.output == outcome.result() == inputs[index]["text"]
        assert outcome.prediction is not None
        assert outcome.prediction.status == "succeeded"
        assert (outcome.error, outcome.saved) == (None, ())


async def test_one_failure_harms_no_other(client: Client, emulator: Emulator) -> None:
    """A failing model, a refused input, and what is no input at all are errors of their items alone."""
    inputs: list[Any] = [
        *texts("a", "fail now"),
        {"text": 5},
        "nonsense",
        {"text": Path("none")},
        {},
    ]
    inputs += texts("z")
    outcomes = await client.map("acme/echo", inputs).collect()
    assert [type(outcome.error).__name__ for outcome in outcomes] == [
        "NoneType",
        "PredictionFailed",
        "ValidationError",
        "ArgumentTypeError",
        "ArgumentError",
        "ValidationError",
        "NoneType",
    ]
    with pytest.raises(exceptions.PredictionFailed, match="fail now"):
        outcomes[1].result()
    assert outcomes[1].prediction is not None
    assert outcomes[1].output is None
    assert outcomes[2].prediction is None
    assert len(emulator.ledger.created()) == 3


async def test_order(client: Client) -> None:
    """By default outcomes come as they end; `ordered` and `collect` give them in the order of the inputs."""
    inputs = [{"text": str(n), "seconds": 0.6 if n == 0 else 0.0} for n in range(6)]
    unordered = [o.index async for o in client.map("acme/echo", inputs)]
    assert unordered[-1] == 0
    ordered = [o.index async for o in client.map("acme/echo", inputs, ordered=True)]
    assert (
        ordered == [o.index for o in await client.map("acme/echo", inputs).collect()] == [*range(6)]
    )


async def test_nothing_to_do(client: Client, emulator: Emulator) -> None:
    """Without inputs there is no outcome, and no request."""
    assert await client.map("acme/echo", []).collect() == []
    assert [o async for o in client.map("acme/echo", iter(()))] == []
    assert emulator.ledger.requests() == []


async def test_all_kinds_of_references(client: Client) -> None:
    """What `run` takes, `map` takes; a function of `use` checks inputs before anything is sent."""
    model = await client.models.get("replicate/hello-world")
    assert model.latest_version is not None
    function = client.use("replicate/hello-world")
    for ref in (HELLO, "replicate/hello-world", model, model.latest_version, function):
        [outcome] = await client.map(ref, texts("Bob")).collect()
        assert outcome.result() == "hello Bob"
    before = client.stats.created
    [outcome] = await client.map(function, [{"txt": "Bob"}]).collect()
    assert "did you mean 'text'" in str(outcome.error)
    assert client.stats.created == before
    written = await client.map(client.use("emulator/writer"), [{"prompt": "sea"}]).collect()
    assert [type(outcome.output) for outcome in written] == [str]


async def test_a_model_is_looked_up_once(client: Client, emulator: Emulator) -> None:
    """That a model is not an official one is found out by one request, not by each item."""
    await client.map("replicate/hello-world", texts(*"abcdefgh")).collect()
    assert len(emulator.ledger.requests(status=404)) == 1


# -- Inputs ------------------------------------------------------------------------------------


async def test_inputs_of_all_kinds(client: Client) -> None:
    """Lists, generators, and asynchronous ones; a generator sees the context of the caller."""
    variable = contextvars.ContextVar("variable", default="")
    variable.set("mine")

    def plain() -> Iterator[dict[str, Any]]:
        yield {"text": f"{variable.get()} {threading.current_thread() is threading.main_thread()}"}

    async def asynchronous() -> AsyncIterator[dict[str, Any]]:
        yield {"text": variable.get()}

    [outcome] = await client.map("acme/echo", plain()).collect()
    assert outcome.output == "mine False"
    [outcome] = await client.map("acme/echo", asynchronous()).collect()
    assert outcome.output == "mine"


@pytest.mark.parametrize("inputs", [{"text": "a"}, "text", 5, None])
async def test_inputs_that_are_none(client: Client, inputs: Any) -> None:
    """A single input, or what cannot be iterated over, is refused."""
    with pytest.raises(exceptions.ArgumentTypeError, match="inputs"):
        await client.map("acme/echo", inputs).collect()


@pytest.mark.parametrize("ordered", [False, True])
async def test_inputs_are_read_as_they_are_needed(client: Client, ordered: bool) -> None:
    """However many there are, no more are read than the window holds, if nobody takes the outcomes."""
    read = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal read
        while True:
            read += 1
            yield {"text": str(read)}

    async with client.map("acme/echo", endless(), concurrency=3, ordered=ordered) as outcomes:
        await anext(outcomes)
        await until(lambda: client.stats.created >= 6)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert read <= 3 * (4 if ordered else 2) + 2


async def test_concurrency(client: Client, emulator: Emulator) -> None:
    """No more predictions are in flight than is allowed."""
    inputs = texts(*map(str, range(12)), seconds=0.05)
    async for _ in client.map("acme/echo", inputs, concurrency=4):
        assert len(emulator.ledger.running()) <= 4
    running = most = 0
    for at, step in sorted(
        (at, 1 if what == "created" else -1)
        for life in emulator.ledger.created()
        for what, at in life.events
        if what in ("created", "succeeded")
    ):
        del at
        running += step
        most = max(most, running)
    assert 2 <= most <= 4


async def test_reading_fails(client: Client) -> None:
    """If reading the inputs fails, what is in flight is yielded first, and then the error is raised."""

    def broken() -> Iterator[dict[str, Any]]:
        yield {"text": "a", "seconds": 0.3}
        yield {"text": "b", "seconds": 0.3}
        raise OSError("the disk is gone")

    outcomes = client.map("acme/echo", broken())
    assert sorted([(await anext(outcomes)).output, (await anext(outcomes)).output]) == ["a", "b"]
    with pytest.raises(OSError, match="the disk is gone"):
        await anext(outcomes)


async def test_a_blocking_iterable_holds_up_nobody(client: Client) -> None:
    """While an input is waited for, outcomes of those before come out."""
    go = threading.Event()

    def blocking() -> Iterator[dict[str, Any]]:
        yield {"text": "first"}
        go.wait(20)
        yield {"text": "second"}

    async with client.map("acme/echo", blocking()) as outcomes:
        with anyio.fail_after(10):
            assert (await anext(outcomes)).output == "first"
            go.set()
            assert (await anext(outcomes)).output == "second"


# -- Stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
async def test_stop(client: Client, emulator: Emulator, ordered: bool) -> None:
    """After `stop`, nothing more is created, and all that was created is yielded."""
    inputs = texts(*map(str, range(50)), seconds=1.0)
    outcomes = client.map("acme/echo", inputs, concurrency=4, ordered=ordered)
    assert outcomes.in_flight == 0
    found = [await anext(outcomes)]
    # All that may run at a time: no create is on its way.
    await until(lambda: outcomes.in_flight == len(emulator.ledger.running()) == 4)
    outcomes.stop()
    outcomes.stop()
    created = len(emulator.ledger.created())
    found += [outcome async for outcome in outcomes]
    assert all(outcome.error is None for outcome in found)
    assert created <= len(found) == len(emulator.ledger.created()) <= created + 1
    assert outcomes.in_flight == 0
    assert not emulator.ledger.cancelled()


async def test_stop_at_once(client: Client, emulator: Emulator) -> None:
    """Stopped before the first outcome is asked for, it sends nothing."""
    outcomes = client.map("acme/echo", texts("a"))
    outcomes.stop()
    assert await outcomes.collect() == []
    assert not emulator.ledger.requests()


@pytest.mark.parametrize("full", [False, True])
async def test_stop_while_inputs_are_awaited(client: Client, full: bool) -> None:
    """An iterable that blocks does not hold up the end, also if it was not to be read at the moment."""
    go = threading.Event()

    def blocking() -> Iterator[dict[str, Any]]:
        yield from texts("a", "b")
        go.wait(20)
        yield from texts("c")

    outcomes = client.map("acme/echo", blocking(), concurrency=1 if full else 3)
    try:
        with anyio.fail_after(10):
            await anext(outcomes)
            if full:
                await until(lambda: client.stats.created == 2)
            # From another thread, as it may be called from a signal handler, too.
            await anyio.to_thread.run_sync(outcomes.stop)
            assert len(await outcomes.collect()) <= 1
    finally:
        go.set()


# -- Leaving -----------------------------------------------------------------------------------


def long(number: int = 5) -> list[dict[str, Any]]:
    """Return one short input, and some that take long."""
    return [*texts("short"), *texts(*map(str, range(number)), seconds=30.0)]


async def all_in_flight(emulator: Emulator, number: int = 6) -> None:
    """Wait until so many have been created."""
    await until(lambda: len(emulator.ledger.created()) >= number)


@pytest.mark.parametrize("how", ["break", "with", "raise", "aclose"])
async def test_leaving_early_cancels(client: Client, emulator: Emulator, how: str) -> None:
    """However the loop is left, what is in flight is cancelled at the other end."""
    if how == "break":
        async for outcome in client.map("acme/echo", long()):
            await all_in_flight(emulator)
            assert outcome.output == "short"
            break
        gc.collect()
    elif how == "raise":
        with suppress(KeyError):
            async for _ in client.map("acme/echo", long()):
                await all_in_flight(emulator)
                raise KeyError
    else:
        outcomes = client.map("acme/echo", long())
        if how == "with":
            async with outcomes:
                await anext(outcomes)
                await all_in_flight(emulator)
        else:
            await anext(outcomes)
            await all_in_flight(emulator)
            await outcomes.aclose()
            await outcomes.aclose()
        assert len(emulator.ledger.cancelled()) == 5
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    await until(lambda: len(emulator.ledger.cancelled()) == 5)
    assert not emulator.ledger.running()


@pytest.mark.parametrize("how", ["task", "scope", "timeout", "sibling"])
async def test_cancellation_cancels(client: Client, emulator: Emulator, how: str) -> None:
    """Cancelled from outside, it cancels what is in flight before it lets go, and passes the cancellation on."""

    async def loop() -> None:
        async for _ in client.map("acme/echo", long()):
            pass

    async def fail() -> None:
        await all_in_flight(emulator)
        raise KeyError("sibling")

    if how == "task":
        task = asyncio.create_task(loop())
        await all_in_flight(emulator)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif how == "scope":
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(loop)
                await all_in_flight(emulator)
                scope.cancel()
    elif how == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await loop()
    else:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(loop())
                tasks.create_task(fail())
        except* KeyError:
            pass
    assert len(emulator.ledger.cancelled()) == 5
    assert not emulator.ledger.running()


@pytest.mark.parametrize("within", ["loop", "body"])
def test_the_event_loop_ends(emulator: Emulator, within: str) -> None:
    """At the end of `asyncio.run`, as after Ctrl-C, everything in flight is cancelled."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with Client(emulator.token, base_url=emulator.url) as client:
            async for _ in client.map("acme/echo", long()):
                await all_in_flight(emulator)
                if within == "body":
                    raise KeyboardInterrupt
                asyncio.get_running_loop().call_later(0.05, task.cancel)

    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
        asyncio.run(main())
    assert len(emulator.ledger.cancelled()) == 5


def test_left_behind_at_the_end(emulator: Emulator) -> None:
    """One that was left and not closed is cancelled when the event loop ends, clean-up and all."""

    async def main() -> None:
        client = Client(emulator.token, base_url=emulator.url)
        async for _ in client.map("acme/echo", long()):
            await all_in_flight(emulator)
            break

    asyncio.run(main())
    assert len(emulator.ledger.cancelled()) == 5


async def test_cancelled_while_creating(client: Client, emulator: Emulator) -> None:
    """Creates whose answers are not there yet are cancelled, too, as they are found in the list."""
    emulator.latency = 0.4
    task = asyncio.ensure_future(client.map("acme/echo", long(3)[1:]).collect())
    await until(lambda: len(emulator.ledger.created()) >= 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(emulator.ledger.created()) == len(emulator.ledger.cancelled())


async def test_on_abandon(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """By default it leaves what is in flight to the next run if there is a journal; a switch chooses."""
    cases: list[tuple[dict[str, Any], int]] = [
        ({"on_abandon": "leave"}, 0),
        ({"journal": tmp_path / "1.db"}, 0),
        ({"journal": tmp_path / "2.db", "on_abandon": "cancel"}, 5),
    ]
    for number, (options, cancelled) in enumerate(cases):
        emulator.ledger.clear()
        async with client.map("acme/echo", long(), **options) as outcomes:
            await anext(outcomes)
            await all_in_flight(emulator)
        assert len(emulator.ledger.cancelled()) == cancelled, number


async def test_several_consumers(client: Client) -> None:
    """Several tasks may take outcomes from one iterator; each outcome comes once."""
    found: list[int] = []
    outcomes = client.map("acme/echo", texts(*map(str, range(30))))

    async def consume() -> None:
        found.extend([outcome.index async for outcome in outcomes])

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(consume)
    assert sorted(found) == list(range(30))


# -- Options -----------------------------------------------------------------------------------


async def test_timeout(client: Client, emulator: Emulator) -> None:
    """A prediction that takes too long is cancelled, and its item has the error; the server is told, too."""
    inputs = [*texts("quick"), *texts("slow", seconds=30.0)]
    outcomes = await client.map("acme/echo", inputs, timeout=1.0).collect()
    assert outcomes[0].output == "quick"
    assert isinstance(outcomes[1].error, exceptions.RunTimeout)
    assert "It has been cancelled" in str(outcomes[1].error)
    assert len(emulator.ledger.cancelled()) == 1
    [sent, _] = emulator.ledger.requests(operation="models.predictions.create")
    assert 5 <= int(sent.headers["Cancel-After"].removesuffix("s")) <= 8


async def test_retry_failed(client: Client, emulator: Emulator) -> None:
    """Failures that may pass are created again as often as was asked for, others never."""
    tries: dict[str, int] = {}

    @emulator.model("acme/flaky", official=True)
    def flaky(text: str) -> str:
        tries[text] = tries.get(text, 0) + 1
        if text == "bad" or tries[text] < 3:
            raise RuntimeError("out of luck" if text == "bad" else "Prediction interrupted (E8765)")
        return text

    outcomes = await client.map("acme/flaky", texts("good", "bad"), retry_failed=2).collect()
    assert outcomes[0].output == "good"
    assert isinstance(outcomes[1].error, exceptions.PredictionFailed)
    assert tries == {"good": 3, "bad": 1}


async def test_what_goes_over_the_wire(client: Client, emulator: Emulator) -> None:
    """Webhooks and deadlines are passed on; the server is not asked to wait."""
    await client.map(
        "acme/echo",
        texts("a"),
        webhook="https://example.com/hook",
        webhook_events_filter=["completed"],
        cancel_after="1m",
    ).collect()
    [sent] = emulator.ledger.requests(operation="models.predictions.create")
    assert sent.json()["webhook"] == "https://example.com/hook"
    assert sent.json()["webhook_events_filter"] == ["completed"]
    assert 60 <= int(sent.headers["Cancel-After"].removesuffix("s")) < 66
    assert "Prefer" not in sent.headers


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"retry_failed": -1},
        {"timeout": 0},
        {"on_abandon": "forget"},
        {"webhook": "http://example.com"},
        {"cancel_after": 1},
        {"save_to": 5},
        {"journal": object()},
    ],
)
async def test_bad_options(client: Client, emulator: Emulator, options: dict[str, Any]) -> None:
    """An impossible option is refused at once, before anything is read or sent."""
    with pytest.raises(
        (exceptions.ArgumentError, exceptions.ArgumentTypeError), match=next(iter(options))
    ):
        client.map("acme/echo", texts("a"), **options)
    with pytest.raises(exceptions.ArgumentError):
        client.map("no reference", texts("a"))
    assert emulator.ledger.requests() == []


# -- Files -------------------------------------------------------------------------------------


def names(directory: Path) -> list[str]:
    """Return what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


async def test_files_are_saved_before_an_outcome(client: Client, tmp_path: Path) -> None:
    """Files are on the disk, complete, when the outcome is there; their names are stable."""
    out = tmp_path / "a" / "out"
    async for outcome in client.map("acme/file", texts("x", "y"), save_to=out):
        text = "xy"[outcome.index]
        assert [path.read_text() for path in outcome.saved] == [f"{text} 0", f"{text} 1"]
        assert [file.path for file in outcome.output] == list(outcome.saved)
    assert names(out) == [
        f"{index:06d}-{name}"
        for index in range(2)
        for name in ("out-2.txt", "out.txt", "prediction.json")
    ]


async def test_text_and_json_are_saved(client: Client, tmp_path: Path) -> None:
    """Text, pieces of text and JSON are written, with the prediction's record beside them."""
    for model, name, content in (
        ("acme/echo", "output.txt", "one two"),
        ("acme/words", "output.txt", "one two "),
        ("acme/mixed", "output.json", '{"text":"one two","numbers":[1,2.5,null]}'),
    ):
        out = tmp_path / model
        [outcome] = await client.map(model, texts("one two"), save_to=out).collect()
        assert outcome.saved == (out / f"000000-{name}",)
        assert outcome.saved[0].read_text() == content
        record = json.loads((out / "000000-prediction.json").read_text())
        assert outcome.prediction is not None
        assert record == outcome.prediction.to_dict()


async def test_lone_surrogates_are_saved_as_escapes(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """What UTF-8 does not have is saved as JSON escapes it: all files can be read by any program."""

    @emulator.model("acme/odd")
    def odd(kind: str) -> Any:
        return {"text": "a\ud800é", "json": {"\udfff": ["a\ud800é", 1]}}[kind]

    inputs = [{"kind": "text"}, {"kind": "json"}]
    outcomes = await client.map("acme/odd", inputs, save_to=tmp_path).collect()
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert (tmp_path / "000000-output.txt").read_text("utf-8") == "a\\ud800é"
    text = (tmp_path / "000001-output.json").read_text("utf-8")
    assert json.loads(text) == outcomes[1].output == {"\udfff": ["a\ud800é", 1]}
    record = json.loads((tmp_path / "000000-prediction.json").read_text("utf-8"))
    assert record["output"] == "a\ud800é"
    again = await client.map("acme/odd", inputs, save_to=tmp_path).collect()
    assert [outcome.error for outcome in again] == [None, None]


async def test_a_failure_is_recorded(client: Client, tmp_path: Path) -> None:
    """A failed prediction leaves its record, and no output."""
    [outcome] = await client.map("acme/echo", texts("fail"), save_to=tmp_path).collect()
    assert isinstance(outcome.error, exceptions.PredictionFailed)
    assert names(tmp_path) == ["000000-prediction.json"]
    assert outcome.saved == ()


async def test_saving_with_plain_urls(client: Client, tmp_path: Path) -> None:
    """Without `use_file_output`, outputs are URLs, and files are saved all the same."""
    [outcome] = await client.map(
        "acme/file", texts("x"), save_to=tmp_path, use_file_output=False
    ).collect()
    assert [type(item) for item in outcome.output] == [str, str]
    assert [path.read_text() for path in outcome.saved] == ["x 0", "x 1"]


async def test_files_of_another_run_are_replaced(client: Client, tmp_path: Path) -> None:
    """A file that is there, but of another prediction, is not taken for this one's."""
    for text in ("old", "new"):
        await client.map("acme/file", texts(text), save_to=tmp_path).collect()
    assert (tmp_path / "000000-out.txt").read_text() == "new 0"
    (tmp_path / "000000-prediction.json").unlink()
    await client.map("acme/file", texts("third"), save_to=tmp_path).collect()
    assert (tmp_path / "000000-out.txt").read_text() == "third 0"


async def test_files_that_cannot_be_saved(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """What cannot be saved is the error of its item, which has its output all the same."""
    (tmp_path / "000000-out.txt").mkdir()
    outcomes = await client.map("acme/file", texts("x", "y"), save_to=tmp_path).collect()
    assert isinstance(outcomes[0].error, exceptions.OutputNotSaved)
    assert len(outcomes[0].output) == 2
    assert outcomes[1].error is None
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(exceptions.ArgumentError, match="save_to"):
        await client.map("acme/file", texts("x"), save_to=file / "below").collect()


async def test_what_a_killed_process_has_left(client: Client, tmp_path: Path) -> None:
    """Beginnings of files that are an hour old are removed; what may be another process's is not."""
    for name in (".0123456789abcdef.part", ".fedcba9876543210.part", ".mine.part"):
        (tmp_path / name).touch()
        if name[1] != "f":
            os.utime(tmp_path / name, (1, 1))
    await client.map("acme/echo", texts("a"), save_to=tmp_path).collect()
    assert names(tmp_path)[:2] == [".fedcba9876543210.part", ".mine.part"]


# -- Journals ----------------------------------------------------------------------------------


async def again(client: Client, tmp_path: Path, **options: Any) -> list[Outcome]:
    """Carry out the same fan-out, with a journal."""
    inputs = options.pop("inputs", texts(*"abcdef"))
    return await client.map("acme/file", inputs, journal=tmp_path / "run.db", **options).collect()


async def test_a_second_run_makes_no_request(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """What has ended comes out of the journal: outputs, errors, records and saved files."""
    inputs = texts("a", "fail", "b")
    options: dict[str, Any] = {"journal": tmp_path / "run.db", "save_to": tmp_path / "out"}
    first = await client.map("acme/echo", inputs, **options).collect()
    requests = len(emulator.ledger.requests())
    second = await client.map("acme/echo", iter(inputs), **options).collect()
    assert len(emulator.ledger.requests()) == requests
    for one, two in zip(first, second, strict=True):
        assert (one.output, one.saved, str(one.error)) == (two.output, two.saved, str(two.error))
        assert one.prediction == two.prediction
    assert isinstance(second[1].error, exceptions.PredictionFailed)


async def test_only_the_rest_is_created(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """More inputs may follow those of the run before; only they are created."""
    await again(client, tmp_path)
    found = await again(client, tmp_path, inputs=texts(*"abcdefgh"))
    assert [len(outcome.result()) for outcome in found] == [2] * 8
    assert [life.input["text"] for life in emulator.ledger.created()].count("a") == 1
    assert len(emulator.ledger.created()) == 8


async def test_running_ones_are_picked_up(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """What was left running is awaited by its id, and not created again."""
    inputs = texts(*"abcd", seconds=1.0)
    async with client.map(
        "acme/echo", [*texts("x"), *inputs], journal=tmp_path / "run.db"
    ) as outcomes:
        await anext(outcomes)
        await all_in_flight(emulator, 5)
    async with Client(emulator.token, base_url=emulator.url) as other:
        found = await other.map(
            "acme/echo", [*texts("x"), *inputs], journal=tmp_path / "run.db"
        ).collect()
        assert other.stats.created == 0
    assert [outcome.result() for outcome in found] == ["x", *"abcd"]
    assert len(emulator.ledger.created()) == 5


async def test_files_missing_on_the_disk_are_fetched(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A saved file that is gone is fetched again; one that is there is not."""
    await again(client, tmp_path, save_to=tmp_path / "out")
    (tmp_path / "out" / "000002-out.txt").unlink()
    emulator.ledger.clear()
    found = await again(client, tmp_path, save_to=tmp_path / "out")
    assert found[2].saved[0].read_text() == "c 0"
    assert len(emulator.ledger.requests()) == len(emulator.ledger.requests(origin="files")) == 1


async def test_saving_later(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A second run with `save_to` saves what the first one has not, without creating anything."""
    await again(client, tmp_path)
    found = await again(client, tmp_path, save_to=tmp_path / "out")
    assert [path.read_text() for path in found[5].saved] == ["f 0", "f 1"]
    assert len(emulator.ledger.created()) == 6


async def test_outputs_that_are_gone(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """An output that was deleted before anybody came for it is an error; `retry_failed` pays for it again."""
    inputs = texts("a", seconds=0.2)
    async with client.map(
        "acme/echo", [*texts("x"), *inputs], journal=tmp_path / "run.db"
    ) as outcomes:
        await anext(outcomes)
        await all_in_flight(emulator, 2)
    await until(lambda: len(emulator.ledger.finished()) == 2)
    emulator.clock.advance(3700)

    async def second(**options: Any) -> Outcome:
        found = await client.map(
            "acme/echo", [*texts("x"), *inputs], journal=tmp_path / "run.db", **options
        ).collect()
        assert found[0].output == "x"
        return found[1]

    assert isinstance((await second()).error, exceptions.OutputRemoved)
    assert isinstance((await second()).error, exceptions.OutputRemoved)
    assert len(emulator.ledger.created()) == 2
    assert (await second(retry_failed=1)).output == "a"
    assert (await second()).output == "a"
    assert len(emulator.ledger.created()) == 3


async def test_another_model_or_other_inputs(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A journal is refused for another model and for changed inputs, and nothing is created."""
    await again(client, tmp_path)
    for model, inputs, says in (
        ("acme/echo", texts(*"abcdef"), "belongs to acme/file, not to acme/echo"),
        ("acme/file", texts(*"abcxef"), "input 3 is not what it was"),
        ("acme/file", texts(*"abxg"), "input 2 is not what it was"),
    ):
        with pytest.raises(exceptions.JournalError, match=says) as found:
            await client.map(model, inputs, journal=tmp_path / "run.db").collect()
        assert found.value.kind == "mismatch"
    assert len(emulator.ledger.created()) == 6
    assert len(await again(client, tmp_path)) == 6


async def test_two_at_a_time(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A second fan-out on the same journal is refused, and the first one goes on."""
    inputs = texts(*"ab", seconds=0.3)
    async with client.map("acme/echo", [*texts("x"), *inputs], journal=tmp_path / "j") as outcomes:
        await anext(outcomes)
        with pytest.raises(exceptions.JournalError, match="another process") as found:
            await client.map("acme/echo", inputs, journal=tmp_path / "j").collect()
        assert found.value.kind == "in_use"
        assert sorted([o.output async for o in outcomes]) == ["a", "b"]


async def test_no_create_without_its_intention(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """If the journal cannot be opened, nothing is created."""
    (tmp_path / "text").write_text("no journal " * 1000)
    for path in (tmp_path, tmp_path / "text"):
        with pytest.raises(exceptions.JournalError):
            await client.map("acme/echo", texts("a"), journal=path).collect()
    assert emulator.ledger.requests() == []


async def test_cancelled_ones_are_created_again(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """What a run has cancelled itself is created by the next one."""
    journal = tmp_path / "run.db"
    async with client.map("acme/echo", long(2), journal=journal, on_abandon="cancel") as outcomes:
        await anext(outcomes)
        await all_in_flight(emulator, 3)
    assert len(emulator.ledger.cancelled()) == 2
    async with client.map("acme/echo", long(2), journal=journal, on_abandon="cancel") as outcomes:
        assert (await anext(outcomes)).output == "short"
        await all_in_flight(emulator, 5)
    assert len(emulator.ledger.created()) == 5


async def test_inputs_with_files(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """Inputs with files are known again by the files' contents."""
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    journal = tmp_path / "run.db"
    for content in (path, path.read_bytes()):
        await client.map("emulator/describer", [{"image": content}], journal=journal).collect()
    assert len(emulator.ledger.created()) == 1
    path.write_bytes(b"other")
    with pytest.raises(exceptions.JournalError, match="input 0"):
        await client.map("emulator/describer", [{"image": path}], journal=journal).collect()


# -- Creates that may have happened --------------------------------------------------------------


@pytest.fixture
async def faulty() -> AsyncIterator[tuple[Emulator, Client]]:
    """Run an emulator with a wire, and a client that looks for lost creates only once."""
    with Emulator(rate_limits=False, wire=True) as emulator:
        retry = Retry(backoff=0.01, max_backoff=0.01)
        async with Client(emulator.token, base_url=emulator.url, retry=retry) as client:
            yield emulator, with_timings(client, Timings(searches=(0.0,), list_lag=1.0))


def hide(emulator: Emulator) -> list[bool]:
    """Let the list be empty, as if it lagged behind, until the result is cleared."""
    hiding = [True]
    rewrite(
        emulator,
        "predictions.list",
        lambda page: {**page, "results": [], "next": None} if hiding else page,
    )
    return hiding


@pytest.mark.parametrize("executed", [False, True])
async def test_an_uncertain_create_is_looked_for_by_the_next_run(
    faulty: tuple[Emulator, Client], executed: bool, tmp_path: Path
) -> None:
    """A create without an answer is an error once; the next run adopts what it finds, or creates it."""
    emulator, client = faulty
    fault = Fault.RESET_AFTER_EXECUTION if executed else Fault.RESET_BEFORE_EXECUTION
    emulator.wire.inject(fault, method="POST", times=1)
    hiding = hide(emulator)
    model, inputs = "replicate/hello-world:" + HELLO, texts("same")
    [first] = await client.map(model, inputs, journal=tmp_path / "j").collect()
    assert isinstance(first.error, exceptions.AmbiguousCreateError)
    hiding.clear()
    hidden = emulator.wire.inject(Fault.ERROR_PAGE, method="GET", path="/v1/predictions*")
    [second] = await client.map(model, inputs, journal=tmp_path / "j").collect()
    assert isinstance(second.error, exceptions.AmbiguousCreateError)
    assert "the list cannot be read" in str(second.error)
    hidden.remove()
    [third] = await client.map(model, inputs, journal=tmp_path / "j").collect()
    assert third.result() == "hello same"
    assert client.stats.adopted == executed
    assert len(emulator.ledger.created()) == 1


async def test_equal_inputs_are_not_confused(
    faulty: tuple[Emulator, Client], tmp_path: Path
) -> None:
    """Of equal inputs with uncertain creates, each adopts another prediction, and none of an answered create."""
    emulator, client = faulty
    emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", attempt=(1, 3, 4))
    hiding = hide(emulator)
    model, inputs = "replicate/hello-world:" + HELLO, texts(*["same"] * 6)
    first = await client.map(model, inputs, journal=tmp_path / "j", concurrency=1).collect()
    lost = [outcome.index for outcome in first if outcome.error is not None]
    assert len(lost) == 3
    hiding.clear()
    second = await client.map(model, inputs, journal=tmp_path / "j").collect()
    ids = {outcome.prediction.id for outcome in second if outcome.prediction is not None}
    assert [outcome.result() for outcome in second] == ["hello same"] * 6
    assert len(ids) == len(emulator.ledger.created()) == 6


@pytest.mark.parametrize("marked", [True, False])
async def test_a_foreign_prediction_is_not_taken_for_that_of_an_earlier_run(
    faulty: tuple[Emulator, Client], marked: bool, tmp_path: Path
) -> None:
    """What another client has created with the same input is not adopted by a journal."""
    emulator, client = faulty
    model, inputs = "replicate/hello-world:" + HELLO, texts("same")
    async with Client(emulator.token, base_url=emulator.url, mark_creates=marked) as own:
        with_timings(own, Timings(searches=(0.0,), list_lag=0.5))
        emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST", times=1)
        [first] = await own.map(model, inputs, journal=tmp_path / "j").collect()
        assert isinstance(first.error, exceptions.AmbiguousCreateError)
        foreign = await client.predictions.create(model, inputs[0])
        [second] = await own.map(model, inputs, journal=tmp_path / "j").collect()
    assert own.stats.adopted == 0
    if marked:
        # It is not its own for sure, so this is the first one.
        assert second.result() == "hello same"
        assert second.prediction is not None
        assert second.prediction.id != foreign.id
    else:
        assert isinstance(second.error, exceptions.AmbiguousCreateError)
        assert second.error.candidates == (foreign.id,)
        assert len(emulator.ledger.created()) == 1
