"""Closing a client ends what it has begun, and what costs money is cancelled before the connections go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import pytest

from replicate_async import Client, Limits, Prediction, Timeout, exceptions
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Emulator, Fault

from .faults import World, slow, until, world

Begin = Callable[[Client], Coroutine[Any, Any, Any]]


async def _run(client: Client) -> Any:
    return await client.run("acme/slow", {"text": "a"}, wait=False)


async def _held(client: Client) -> Any:
    return await client.run("acme/slow", {"text": "a"}, wait=60)


async def _timed(client: Client) -> Any:
    return await client.run("acme/slow", {"text": "a"}, timeout=60)


async def _function(client: Client) -> Any:
    return await client.use("acme/slow")(text="a")


async def _stream(client: Client) -> Any:
    async for _ in client.stream("acme/slow", {"text": "a"}):
        pass


async def _map(client: Client) -> Any:
    return await client.map("acme/slow", [{"text": "a"}]).collect()


async def _start(client: Client) -> Any:
    async with client.start("acme/slow", {"text": "a"}) as run:
        return await run.result()


async def _watched(client: Client) -> Any:
    async with client.start("acme/slow", {"text": "a"}) as run:
        async for _ in run.updates():
            pass


BEGINNINGS: list[Begin] = [_run, _held, _timed, _function, _stream, _map, _start, _watched]


def gone(here: World) -> bool:
    """Tell whether all that was created has been cancelled."""
    return bool(here.made_of("a")) and here.emulator.ledger.running() == []


@pytest.mark.parametrize("begin", BEGINNINGS)
async def test_closed_while_it_runs(begin: Begin) -> None:
    """What runs when its client is closed is cancelled on the server before `aclose` returns."""
    async with world() as here:
        client = here.client(poll_interval=0.05)
        task = asyncio.create_task(begin(client))
        await until(lambda: here.made_of("a"))
        await client.aclose()
        assert gone(here)
        await asyncio.wait({task}, timeout=10)
        assert task.done()
        if not task.cancelled():
            error = task.exception()
            assert isinstance(error, exceptions.ReplicateException) or begin is _stream


async def test_a_fan_out_that_is_closed_is_not_complete() -> None:
    """A fan-out whose client is closed raises, now and at each further outcome, and does not seem complete."""
    async with world() as here:
        client = here.client(poll_interval=0.05)
        outcomes = client.map("acme/slow", [{"text": "a"}] * 3)
        task = asyncio.ensure_future(anext(outcomes))
        await until(lambda: here.made_of("a"))
        await client.aclose()
        for step in (task, anext(outcomes), anext(outcomes), outcomes.collect()):
            with pytest.raises(exceptions.ClientClosed):
                await step
        assert gone(here)


async def test_a_stream_is_closed_in_any_moment() -> None:
    """Whether its create is about to be answered or was answered a moment ago, what a stream has created is cancelled."""
    async with world() as here:
        tasks: list[asyncio.Future[Any]] = []
        for number in range(24):  # one in twenty was left running
            client, text = here.client(poll_interval=0.02), f"number {number}"
            stream = client.stream("acme/slow", {"text": text})
            task = asyncio.ensure_future(anext(stream))
            await until(partial(here.made_of, text))
            await asyncio.sleep(0.0005 * (number % 12))
            await client.aclose()
            assert here.emulator.ledger.running() == []
            tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _on_model(client: Client, **options: Any) -> Prediction:
    return await client.models.predictions.create("acme/slow", {"text": "a"}, **options)


async def _on_deployment(client: Client, **options: Any) -> Prediction:
    model = await client.models.get("acme/slow")
    assert model.latest_version is not None
    place: dict[str, Any] = {"hardware": "cpu", "min_instances": 0, "max_instances": 1}
    await client.deployments.create(
        "slow", model="acme/slow", version=model.latest_version, **place
    )
    return await client.deployments.predictions.create("acme/slow", {"text": "a"}, **options)


@pytest.mark.parametrize("create", [_on_model, _on_deployment])
async def test_closed_before_the_answer_to_any_create(create: Callable[..., Any]) -> None:
    """Each way to create a prediction is settled before the client is closed."""
    async with world() as here:
        client = here.client(timeout=Timeout(read=20))
        here.emulator.wire.inject(
            Fault.STALL_AFTER_EXECUTION, method="POST", path="*/predictions", seconds=0.3
        )
        task = asyncio.create_task(create(client))
        await until(lambda: here.made_of("a"))
        with anyio.fail_after(7):
            await client.aclose()
        assert (await task).id == here.made_of("a")[0]
        assert len(here.made_of("a")) == 1
        assert here.emulator.ledger.cancelled() == []


@pytest.mark.parametrize("wait", [None, 30])
@pytest.mark.parametrize("fault", [None, Fault.DELAY, Fault.STALL_AFTER_EXECUTION])
async def test_closed_before_the_answer_to_a_create(fault: Fault | None, wait: int | None) -> None:
    """What `predictions.create` has made runs on when the client is closed, and its caller gets to know it."""
    async with world() as here:
        client = here.client(timeout=Timeout(read=20))
        if fault is not None:
            here.emulator.wire.inject(fault, method="POST", path="*/predictions", seconds=0.3)
        task = asyncio.create_task(
            client.predictions.create(model="acme/slow", input={"text": "a"}, wait=wait)
        )
        await until(lambda: here.made_of("a") or fault is Fault.DELAY)
        await asyncio.sleep(0.1)
        with anyio.fail_after(7):
            await client.aclose()
        assert (await task).id == here.made_of("a")[0]
        assert len(here.made_of("a")) == 1
        assert here.emulator.ledger.cancelled() == []


async def test_closed_while_a_create_waits_by_polling() -> None:
    """A create that the server does not hold gives its caller what it has created, too."""
    async with world() as here:
        client = here.client(limits=Limits(connections=1))
        task = asyncio.create_task(
            client.predictions.create(model="acme/slow", input={"text": "a"}, wait=30)
        )
        await until(lambda: here.emulator.ledger.requests(operation="predictions.get"))
        with anyio.fail_after(10):
            await client.aclose()
            assert (await task).id == here.made_of("a")[0]
        assert here.emulator.ledger.cancelled() == []


async def test_closed_before_a_create_arrives() -> None:
    """A create that the API may have got is an error that says so, when the client is closed."""
    async with world() as here:
        client = here.client(timeout=Timeout(read=20), timings=Timings(cancel=2.0))
        lost = here.emulator.wire.inject(
            Fault.STALL_BEFORE_EXECUTION, method="POST", path="*/predictions"
        )
        task = asyncio.create_task(
            client.predictions.create(model="acme/slow", input={"text": "a"})
        )
        await until(lambda: lost.happened)
        with anyio.fail_after(4):
            await client.aclose()
        with pytest.raises(exceptions.AmbiguousCreateError, match="the client was closed"):
            await task


@pytest.mark.parametrize("begin", BEGINNINGS)
async def test_cancelled_and_closed_at_once(begin: Begin) -> None:
    """A server cancels its handlers and closes the client in the same moment: nothing runs on."""
    async with world() as here:
        client = here.client(poll_interval=0.05)
        task = asyncio.create_task(begin(client))
        await until(lambda: here.made_of("a"))
        task.cancel()
        await client.aclose()
        assert gone(here)
        await asyncio.wait({task}, timeout=10)
        assert task.done()


@pytest.mark.parametrize("begin", BEGINNINGS)
async def test_closed_while_it_cleans_up(begin: Begin) -> None:
    """A server cancels its handlers, and closes the client a moment later: the predictions are cancelled first."""
    async with world() as here:
        for iterations in (1, 2, 3, 5):
            client = here.client(poll_interval=0.05)
            task = asyncio.create_task(begin(client))
            await until(here.emulator.ledger.running)
            await anyio.sleep(0.05)  # the create has its answer, unless that is held
            task.cancel()
            for _ in range(iterations):
                await asyncio.sleep(0)
            await client.aclose()
            assert here.emulator.ledger.running() == []
            await asyncio.wait({task}, timeout=10)
            assert task.done()


@pytest.mark.parametrize("begin", BEGINNINGS)
@pytest.mark.parametrize("presses", [1, 2, 3])
async def test_cancelled_again_and_again(begin: Begin, presses: int) -> None:
    """However often it is cancelled while it cleans up, it cleans up."""
    async with world() as here:
        async with here.client(poll_interval=0.05) as client:
            task = asyncio.create_task(begin(client))
            await until(lambda: here.made_of("a"))
            here.emulator.wire.inject(Fault.DELAY, path="*/cancel", seconds=0.3)
            for _ in range(presses):
                task.cancel()
                await anyio.sleep(0.05)
            await asyncio.wait({task}, timeout=6)
            assert task.done()
        assert gone(here)


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_the_loop_ends(begin: Begin) -> None:
    """A run is given up when its program returns, and its loop ends beneath it."""
    with Emulator(rate_limits=False) as emulator:
        emulator.add_model("acme/slow", slow, official=True)

        async def program() -> None:
            client = Client(emulator.token, base_url=emulator.url, poll_interval=0.05)
            task = asyncio.create_task(begin(client))
            await until(emulator.ledger.created)
            del task

        asyncio.run(program())
        assert emulator.ledger.running() == []


async def test_nothing_begins_while_it_closes() -> None:
    """Once a client is being closed, nothing more is created."""
    async with world() as here:
        client = here.client(poll_interval=0.05)
        task = asyncio.create_task(_run(client))
        await until(lambda: here.made_of("a"))
        here.emulator.wire.inject(Fault.DELAY, path="*/cancel", seconds=0.3)
        closing = asyncio.create_task(client.aclose())
        await anyio.sleep(0.05)
        with pytest.raises(exceptions.ClientClosed):
            await client.run("acme/echo", {"text": "b"})
        await closing
        assert here.made_of("b") == []
        with pytest.raises(exceptions.ClientClosed):
            await task


async def test_a_sibling_fails() -> None:
    """In a task group whose sibling fails while the client is closed around it, nothing runs on."""
    async with world() as here:
        with pytest.raises(ExceptionGroup):  # noqa: PT012  (the whole block is what raises)
            async with here.client(poll_interval=0.05) as client, asyncio.TaskGroup() as group:
                group.create_task(_run(client))
                group.create_task(_held(client))

                async def fail() -> None:
                    await until(lambda: len(here.made_of("a")) == 2)
                    raise RuntimeError("of somebody else")

                group.create_task(fail())
        assert gone(here)


async def test_left_running() -> None:
    """With `on_abandon="leave"`, closing leaves the prediction running."""
    async with world() as here:
        client = here.client()
        task = asyncio.create_task(
            client.run("acme/slow", {"text": "a"}, wait=False, on_abandon="leave")
        )
        await until(lambda: here.made_of("a"))
        await client.aclose()
        with pytest.raises(exceptions.ClientClosed):
            await task
        assert len(here.emulator.ledger.running()) == 1


@pytest.mark.parametrize("is_given_up_first", [True, False])
def test_closed_while_the_loop_ends(is_given_up_first: bool) -> None:
    """The end of a loop closes sessions, and the generators that close their clients, at the same time."""
    problems: list[str] = []
    generators: list[AsyncGenerator[None, None]] = []
    with Emulator(rate_limits=False) as emulator:
        emulator.add_model("acme/slow", slow, official=True)

        async def hold(client: Client) -> AsyncGenerator[None, None]:
            async with client:
                yield

        async def program() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context["message"]))
            client = Client(emulator.token, base_url=emulator.url, poll_interval=0.05)
            if not is_given_up_first:
                await client.accounts.current()
            generators.append(hold(client))
            await anext(generators[0])
            task = asyncio.create_task(_run(client))
            await until(emulator.ledger.created)
            if is_given_up_first:
                task.cancel()
            del task

        asyncio.run(program())
        assert problems == []
        assert emulator.ledger.running() == []
