"""`start`: runs that can be seen; `start_timeout` and `fallback`, of `start`, `run` and `use`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from replicate_async import Client, FileOutput, Run, exceptions
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Emulator, Fault, Reply

from .conftest import until
from .faults import world

BUSY = "Service is temporarily unavailable due to high demand. (E003)"


@pytest.fixture
async def quick(client: Client, emulator: Emulator) -> Client:
    """Return a client that polls often, of an emulator with models that do not run well."""

    def fail(text: str) -> str:
        raise RuntimeError(text)

    emulator.add_model("acme/echo", lambda text: f"echo {text}", official=True)
    emulator.add_model("acme/failing", fail, official=True)
    emulator.add_model("acme/cold", lambda text: text, official=True, setup=3600)
    return client.with_options(poll_interval=0.02)


def ran(emulator: Emulator) -> list[str]:
    """Return the names of the models that were run."""
    return [str(life.model) for life in emulator.ledger.created()]


# -- A run -------------------------------------------------------------------------------------


async def test_a_run_is_seen(quick: Client, emulator: Emulator) -> None:
    """Its prediction, updates, result and metrics are there, and nothing is cancelled."""
    async with quick.start("emulator/sleeper", {"seconds": 0.5, "steps": 5}, timeout=60) as run:
        assert isinstance(run, Run)
        assert run.prediction.id == run.id
        assert run.prediction.status == "starting"
        updates = [update async for update in run.updates()]
        output = await run.result()
        assert await run.result() == output
    assert [updates[0].status, updates[-1].status] == ["starting", "succeeded"]
    assert "".join(update.logs for update in updates) == run.prediction.logs
    assert any(update.progress for update in updates)
    assert run.metrics["predict_time"] > 0
    assert output == run.prediction.output
    assert emulator.ledger.cancelled() == []
    assert len(emulator.ledger.created()) == 1


async def test_result_without_updates(quick: Client) -> None:
    """The result is that of `run`."""
    async with quick.start("acme/echo", {"text": "a"}) as run:
        assert await run.result() == "echo a"


@pytest.mark.parametrize("on_abandon", ["cancel", "leave"])
async def test_left_without_a_result(quick: Client, emulator: Emulator, on_abandon: Any) -> None:
    """Leaving the block cancels, and waits for that, unless it is to be left running."""
    async with quick.start("acme/cold", {"text": "a"}, on_abandon=on_abandon) as run:
        async for _ in run.updates():
            break
    assert len(emulator.ledger.cancelled()) == (on_abandon == "cancel")
    await run.prediction.cancel()


async def test_left_by_an_error(quick: Client, emulator: Emulator) -> None:
    """An error in the block cancels, and comes through."""
    with pytest.raises(ZeroDivisionError):
        async with quick.start("acme/cold", {"text": "a"}):
            raise ZeroDivisionError
    assert len(emulator.ledger.cancelled()) == 1


async def test_cancelled_in_the_block(quick: Client, emulator: Emulator) -> None:
    """A task that is cancelled while it waits for the result cancels the prediction before it ends."""

    async def handler() -> None:
        async with quick.start("acme/cold", {"text": "a"}) as run:
            await run.result()

    task = asyncio.create_task(handler())
    await until(emulator.ledger.created)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not emulator.ledger.running())
    assert len(emulator.ledger.cancelled()) == 1


async def test_a_wait_can_be_given_up(quick: Client, emulator: Emulator) -> None:
    """A result that is not awaited to its end can be awaited again."""
    async with quick.start("emulator/sleeper", {"seconds": 0.4}) as run:
        with anyio.move_on_after(0.05) as scope:
            await run.result()
        assert scope.cancelled_caught
        await run.result()
    assert emulator.ledger.cancelled() == []
    assert run.prediction.status == "succeeded"


async def test_several_tasks(quick: Client, emulator: Emulator) -> None:
    """One task may follow the updates while others await the result."""
    async with quick.start("emulator/sleeper", {"seconds": 0.3}) as run:

        async def follow() -> list[str]:
            return [update.status async for update in run.updates()]

        async with asyncio.TaskGroup() as group:
            follower = group.create_task(follow())
            results = [group.create_task(run.result()) for _ in range(3)]
    assert follower.result()[-1] == "succeeded"
    assert len({task.result() for task in results}) == 1


async def test_timeout(quick: Client, emulator: Emulator) -> None:
    """After the timeout the prediction is cancelled, for whoever waits, and for those who come later."""
    async with quick.start("acme/cold", {"text": "a"}, timeout=1) as run:
        with pytest.raises(exceptions.RunTimeout, match="It has been cancelled") as caught:
            await run.result()
        assert caught.value.prediction is run.prediction
        assert len(emulator.ledger.cancelled()) == 1
        with pytest.raises(exceptions.RunTimeout):
            await run.result()
        with pytest.raises(exceptions.RunTimeout):
            [update async for update in run.updates()]


async def test_timeout_while_updates_are_followed(quick: Client, emulator: Emulator) -> None:
    """The timeout of the run applies to its updates."""
    async with quick.start("acme/cold", {"text": "a"}, timeout=1) as run:
        with pytest.raises(exceptions.RunTimeout):
            [update async for update in run.updates()]
        assert len(emulator.ledger.cancelled()) == 1


async def test_a_failure(quick: Client, emulator: Emulator) -> None:
    """A model that fails raises from both, as often as it is asked for."""
    async with quick.start("acme/failing", {"text": "no"}) as run:
        for _ in range(2):
            with pytest.raises(exceptions.PredictionFailed, match="no"):
                await run.result()
            with pytest.raises(exceptions.PredictionFailed, match="no"):
                [update async for update in run.updates()]
    assert len(emulator.ledger.created()) == 1


async def test_retries_are_seen(quick: Client, emulator: Emulator) -> None:
    """With `retry_failed`, the updates go on with the next prediction."""
    errors = [BUSY, BUSY]

    def flaky(text: str) -> str:
        if errors:
            raise RuntimeError(errors.pop())
        return text

    emulator.add_model("acme/flaky", flaky, official=True)
    async with quick.start("acme/flaky", {"text": "a"}, retry_failed=2) as run:
        statuses = [update.status async for update in run.updates()]
        assert await run.result() == "a"
    assert statuses.count("failed") == 2
    assert statuses[-1] == "succeeded"
    assert len(emulator.ledger.created()) == 3
    assert run.id == emulator.ledger.created()[-1].id


async def test_closing_the_client(emulator: Emulator) -> None:
    """Closing the client cancels the prediction, and ends the wait."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        emulator.add_model("acme/cold", lambda text: text, official=True, setup=3600)
        async with client.start("acme/cold", {"text": "a"}) as run:
            task = asyncio.create_task(run.result())
            await asyncio.sleep(0.1)
            await client.aclose()
            assert len(emulator.ledger.cancelled()) == 1
            with pytest.raises(exceptions.ClientClosed):
                await task


async def test_cancelled_while_it_is_created() -> None:
    """A create without an answer is found and cancelled when entering is cancelled."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.STALL_AFTER_EXECUTION, method="POST", path="*/slow/*")

        async def enter() -> None:
            async with client.start("acme/slow", {"text": "a"}):
                raise AssertionError

        task = asyncio.create_task(enter())
        await until(lambda: here.made_of("a"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not here.emulator.ledger.running())


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"start_timeout": 0},
        {"start_timeout": "5"},
        {"fallback": "other/model"},
        {"fallback": 5},
        {"fallback": [5]},
        {"fallback": ["not a model"]},
        {"on_abandon": "stop"},
        {"retry_failed": -1},
        {"cancel_after": 1},
    ],
)
async def test_bad_arguments(quick: Client, emulator: Emulator, options: dict[str, Any]) -> None:
    """Arguments are checked before anything is sent."""
    with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)):
        async with quick.start("acme/echo", {"text": "a"}, **options):
            pass
    if "cancel_after" not in options:
        with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)):
            quick.use("acme/echo", **options)
    assert emulator.ledger.requests() == []


# -- Functions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
async def test_functions_have_it(quick: Client, streaming: Any) -> None:
    """`use(...).start(...)` checks the inputs, and converts the output."""
    painter = quick.use("emulator/painter", streaming=streaming)
    async with painter.start(prompt="a red square") as run:
        result = await run.result()
    assert isinstance(result[0] if isinstance(result, list) else result, FileOutput)
    with pytest.raises(exceptions.ArgumentTypeError):
        async with painter.start(promt="a red square"):
            pass


async def test_a_run_is_an_input(quick: Client, emulator: Emulator) -> None:
    """A run can be the input of another function, while it is under way."""
    echo = quick.use("acme/echo")
    async with echo.start(text="a") as run:
        assert await echo(text=run) == "echo echo a"


# -- start_timeout -----------------------------------------------------------------------------

Way = Callable[..., Awaitable[Any]]


async def by_run(client: Client, ref: str, **options: Any) -> Any:
    """Call `run`."""
    return await client.run(ref, {"text": "a"}, **options)


async def by_start(client: Client, ref: str, **options: Any) -> Any:
    """Await the result of a run."""
    async with client.start(ref, {"text": "a"}, **options) as run:
        return await run.result()


async def by_updates(client: Client, ref: str, **options: Any) -> Any:
    """Follow the updates of a run before its result."""
    async with client.start(ref, {"text": "a"}, **options) as run:
        async for _ in run.updates():
            pass
        return await run.result()


async def by_function(client: Client, ref: str, **options: Any) -> Any:
    """Call a model function."""
    return await client.use(ref, **options)(text="a")


ways = pytest.mark.parametrize("way", [by_run, by_start, by_updates, by_function])


@ways
async def test_start_timeout(quick: Client, emulator: Emulator, way: Way) -> None:
    """What has not left `starting` in time is cancelled."""
    with pytest.raises(exceptions.StartTimeout, match="did not start") as caught:
        await way(quick, "acme/cold", start_timeout=0.3)
    assert isinstance(caught.value, TimeoutError)
    assert "It has been cancelled" in str(caught.value)
    assert len(emulator.ledger.cancelled()) == len(emulator.ledger.created()) == 1


@ways
async def test_what_has_started_goes_on(quick: Client, emulator: Emulator, way: Way) -> None:
    """A model that has started may run for longer than `start_timeout`."""

    async def slow(text: str) -> str:
        await asyncio.sleep(1)
        return text

    emulator.add_model("acme/slow", slow, official=True)
    assert await way(quick, "acme/slow", start_timeout=0.9) == "a"
    assert emulator.ledger.cancelled() == []


@ways
async def test_fallback_after_start_timeout(
    quick: Client, emulator: Emulator, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """The next model runs, the first is cancelled, and stats and log say so."""
    with caplog.at_level(logging.WARNING, "replicate_async"):
        output = await way(quick, "acme/cold", start_timeout=0.3, fallback=["acme/echo"])
    assert output == "echo a"
    assert ran(emulator) == ["acme/cold", "acme/echo"]
    assert len(emulator.ledger.cancelled()) == 1
    assert quick.stats.fell_back == 1
    assert "falling back to acme/echo" in caplog.text


async def test_no_fallback_while_the_first_may_run() -> None:
    """If the first prediction cannot be cancelled, nothing else is paid for."""
    timings = Timings(searches=(0.0,), cancel=0.5, last_try=0.2, search_patience=0.1)
    async with world() as here, here.client(timings=timings, poll_interval=0.02) as client:
        here.emulator.add_model("acme/cold", lambda text: text, official=True, setup=3600)
        here.emulator.wire.inject(Reply(503), path="*/cancel")
        with pytest.raises(exceptions.StartTimeout, match="may still be running"):
            await client.run("acme/cold", {"text": "a"}, start_timeout=0.2, fallback=["acme/echo"])
        assert len(here.made_of("a")) == 1


# -- fallback ----------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize(
    "error", [BUSY, "Service is temporarily unavailable. (E004)", "Prediction interrupted (E8765)"]
)
async def test_fallback_when_out_of_capacity(
    quick: Client, emulator: Emulator, way: Way, error: str
) -> None:
    """A model without capacity hands over to the next."""

    def busy(text: str) -> str:
        raise RuntimeError(error)

    emulator.add_model("acme/busy", busy, official=True)
    output = await way(quick, "acme/busy", fallback=["acme/busy", "acme/echo", "acme/failing"])
    assert output == "echo a"
    assert ran(emulator) == ["acme/busy", "acme/busy", "acme/echo"]
    assert quick.stats.fell_back == 2


async def test_retries_come_first(quick: Client, emulator: Emulator) -> None:
    """Each model has its own `retry_failed`."""

    def busy(text: str) -> str:
        raise RuntimeError(BUSY)

    emulator.add_model("acme/busy", busy, official=True)
    emulator.add_model("acme/full", busy, official=True)
    with pytest.raises(exceptions.PredictionFailed) as caught:
        await quick.run("acme/busy", {"text": "a"}, retry_failed=1, fallback=["acme/full"])
    assert ran(emulator) == ["acme/busy", "acme/busy", "acme/full", "acme/full"]
    assert caught.value.prediction.model == "acme/full"
    assert "failed 3 times" in caught.value.__notes__[0]


@ways
@pytest.mark.parametrize(
    "text", ["NSFW content detected (E005)", "Invalid image (E006)", "out of memory", "oh no"]
)
async def test_no_fallback_for_the_input(
    quick: Client, emulator: Emulator, way: Way, text: str
) -> None:
    """What may be the fault of the input is not paid for again elsewhere."""

    def fail(text: str) -> str:
        raise RuntimeError(message)

    message = text
    emulator.add_model("acme/bad", fail, official=True)
    with pytest.raises(exceptions.PredictionFailed):
        await way(quick, "acme/bad", fallback=["acme/echo"])
    assert ran(emulator) == ["acme/bad"]
    assert quick.stats.fell_back == 0


@ways
async def test_no_fallback_for_refusals(quick: Client, emulator: Emulator, way: Way) -> None:
    """An input, a model or an account that the API refuses is an error."""
    with pytest.raises(exceptions.NotFoundError):
        await way(quick, "acme/nothing", fallback=["acme/echo"])
    assert ran(emulator) == []


async def test_fallback_in_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """A create that the API answers with a server error, and of which the list knows nothing, hands over."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Reply(503), path="*/acme/slow/predictions")
        output = await client.run("acme/slow", {"text": "a"}, fallback=["acme/echo"])
        assert output == "a"
        assert len(here.made_of("a")) == 1
        assert client.stats.fell_back == 1


async def test_no_fallback_when_it_may_exist() -> None:
    """A create without any answer may have succeeded: nothing else is created."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(
            Reply.raw(end="reset"), path="*/acme/slow/predictions", executed=False
        )
        with pytest.raises(exceptions.AmbiguousCreateError):
            await client.run("acme/slow", {"text": "a"}, fallback=["acme/echo"])
        assert here.made_of("a") == []


async def test_a_lost_create_is_adopted_not_replaced() -> None:
    """A create whose answer is a server error, but which has happened, is adopted."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Reply(503), path="*/models/acme/slow/predictions", executed=True)
        async with client.start(
            "acme/slow", {"text": "a", "seconds": 0.2}, fallback=["acme/echo"]
        ) as run:
            assert await run.result() == "a"
        assert len(here.made_of("a")) == 1
        assert client.stats.fell_back == 0
