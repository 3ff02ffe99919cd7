"""Abandoned means cancelled: whoever stops waiting for a prediction stops paying for it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import anyio
import pytest

from replicate_async import Client, Retry, Timeout, exceptions
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Emulator, Fault, WireRequest

from . import faults
from .faults import World, cancelled, until, world

GRACE = 5.0
"""Seconds within which what was abandoned is to be cancelled."""

PHASES: dict[str, dict[str, Any]] = {"held": {"wait": 30}, "polling": {"wait": False}}
"""(a) The create is held in sync mode, its id is unknown; (b) the prediction is polled."""


def begun(world: World, phase: str) -> bool:
    """Tell whether a run has come to a phase."""
    if phase == "held":
        return bool(world.made_of("a"))
    return bool(world.emulator.ledger.requests(operation="predictions.get"))


async def run(client: Client, phase: str, **options: Any) -> Any:
    """Run a model that takes half a minute."""
    return await client.run("acme/slow", {"text": "a"}, **PHASES[phase], **options)


async def check_cancelled(world: World, number: int = 1) -> None:
    """See that all that was created is cancelled, by now or soon."""
    await until(lambda: not world.emulator.ledger.running(), GRACE)
    assert len(world.made_of("a")) == number
    assert len(world.emulator.ledger.cancelled()) == number


# -- Ways to give up ---------------------------------------------------------------------------


class Failure(Exception):
    """Of a sibling."""


async def by_cancel(world: World, client: Client, phase: str) -> None:
    """Cancel the task."""
    task = asyncio.create_task(run(client, phase))
    await until(lambda: begun(world, phase))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_timeout(world: World, client: Client, phase: str) -> None:
    """Give the run a time of its own."""
    with pytest.raises(exceptions.RunTimeout) as caught:
        await run(client, phase, timeout=1.0)
    assert [caught.value.prediction.id] == world.made_of("a")
    assert isinstance(caught.value, TimeoutError)
    assert "It has been cancelled." in str(caught.value)


async def by_fail_after(world: World, client: Client, phase: str) -> None:
    """Let a timeout of anyio pass."""
    with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.5):
        await run(client, phase)
    assert not isinstance(caught.value, exceptions.ReplicateException)


async def by_asyncio_timeout(world: World, client: Client, phase: str) -> None:
    """Let a timeout of asyncio pass."""
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.5):
            await run(client, phase)
    assert not isinstance(caught.value, exceptions.ReplicateException)


async def fail(world: World, phase: str) -> None:
    """Fail when the run has come to a phase."""
    await until(lambda: begun(world, phase))
    raise Failure


async def by_sibling(world: World, client: Client, phase: str) -> None:
    """Let a sibling fail in a task group of asyncio."""

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run(client, phase))
            tasks.create_task(fail(world, phase))

    with pytest.raises(ExceptionGroup) as caught:
        await group()
    assert [type(each) for each in caught.value.exceptions] == [Failure]


async def by_sibling_of_anyio(world: World, client: Client, phase: str) -> None:
    """Let a sibling fail in a task group of anyio."""

    async def group() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, client, phase)
            tasks.start_soon(fail, world, phase)

    with pytest.raises(ExceptionGroup) as caught:
        await group()
    assert [type(each) for each in caught.value.exceptions] == [Failure]


async def by_cancel_twice(world: World, client: Client, phase: str) -> None:
    """Cancel the task, and again while it cancels the prediction."""
    world.emulator.wire.inject(Fault.DELAY, path="*/cancel", seconds=0.3)
    task = asyncio.create_task(run(client, phase))
    await until(lambda: begun(world, phase))
    world.emulator.wire.inject(Fault.DELAY, path="/v1/predictions", method="GET", seconds=0.1)
    task.cancel()
    await until(lambda: world.emulator.wire.log)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


WAYS: dict[str, Callable[[World, Client, str], Awaitable[None]]] = {
    "cancel": by_cancel,
    "timeout": by_timeout,
    "fail_after": by_fail_after,
    "asyncio.timeout": by_asyncio_timeout,
    "sibling": by_sibling,
    "anyio sibling": by_sibling_of_anyio,
    "cancel twice": by_cancel_twice,
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("way", WAYS)
async def test_abandoned_is_cancelled(way: str, phase: str) -> None:
    """However a run is given up, its prediction is cancelled, and the caller gets what is right."""
    async with world() as here, here.client(poll_interval=0.01) as client:
        await WAYS[way](here, client, phase)
        await check_cancelled(here)
        await until(lambda: client.stats.cancelled == 1)
        assert client.stats.created == 1


@pytest.mark.parametrize("phase", PHASES)
async def test_left_behind(phase: str, caplog: pytest.LogCaptureFixture) -> None:
    """With `on_abandon="leave"` the prediction goes on."""
    caplog.set_level(logging.INFO, "replicate_async")
    async with world() as here, here.client(poll_interval=0.01) as client:
        task = asyncio.create_task(run(client, phase, on_abandon="leave"))
        await until(lambda: begun(here, phase))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert here.emulator.ledger.requests(operation="predictions.cancel") == []
        assert len(here.emulator.ledger.running()) == 1
        assert "abandoned" in caplog.text


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "fault",
    [
        Fault.CLOSE_REUSED,
        Fault.RESET_BEFORE_EXECUTION,
        Fault.STALL_BEFORE_EXECUTION,
        Fault.ERROR_PAGE,
        Fault.THROTTLE,
        Fault.HTML,
        Fault.GARBAGE,
        Fault.RESET_AFTER_EXECUTION,
        Fault.TRUNCATED_JSON,
    ],
    ids=lambda fault: fault.name,
)
async def test_cancelling_survives_faults(phase: str, fault: Fault) -> None:
    """A failure of the request that cancels does not leave the prediction running."""
    async with world() as here, here.client(poll_interval=0.01) as client:
        here.emulator.wire.inject(
            fault,
            path="*/cancel",
            times=2,
            seconds=0,
            executed=False if fault in (Fault.HTML, Fault.GARBAGE) else None,
        )
        await by_cancel(here, client, phase)
        await check_cancelled(here)


@pytest.mark.parametrize("path", ["*/cancel", "/v1/predictions"])
@pytest.mark.parametrize(
    "fault", [Fault.STALL_BEFORE_EXECUTION, Fault.DRIP], ids=lambda fault: fault.name
)
async def test_one_request_does_not_use_up_the_grace(path: str, fault: Fault) -> None:
    """A stalled or dripping answer, with the default timeouts, does not leave it running."""
    async with world() as here, here.client(timeout=Timeout()) as client:
        task = asyncio.create_task(run(client, "held"))
        await until(lambda: here.made_of("a"))
        here.emulator.wire.inject(fault, path=path, times=1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await check_cancelled(here)


async def test_a_slow_list() -> None:
    """A list that takes longer than the first try waits is still read in time, and what it shows is cancelled."""
    timings = Timings(last_try=0.2)
    async with world() as here, here.client(timings=timings, timeout=Timeout()) as client:
        task = asyncio.create_task(run(client, "held"))
        await until(lambda: here.made_of("a"))
        here.emulator.wire.inject(Fault.DELAY, method="GET", path="/v1/predictions", seconds=0.5)
        assert await cancelled(task, within=GRACE)
        await check_cancelled(here)


async def test_cleaning_up_is_bounded() -> None:
    """If the API is gone, giving up takes no more than five seconds (here: one)."""
    assert Timings().cancel == GRACE
    timings = Timings(cancel=1.0)
    async with world() as here, here.client(poll_interval=0.01, timings=timings) as client:
        task = asyncio.create_task(run(client, "polling"))
        await until(lambda: begun(here, "polling"))
        here.emulator.wire.inject(Fault.STALL_BEFORE_EXECUTION)
        assert await cancelled(task, within=4.0)


async def _stream(client: Client) -> None:
    async for _ in client.stream("acme/slow", {"text": "a"}):
        pass


async def _start(client: Client) -> None:
    async with client.start("acme/slow", {"text": "a"}) as run:
        await run.result()


@pytest.mark.parametrize("begin", [_stream, _start])
@pytest.mark.parametrize("closed", [True, False])
async def test_cleaning_up_is_done_once(
    begin: Callable[[Client], Awaitable[None]], closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What several who give up at once look for in vain is looked for once, and reported once."""
    caplog.set_level(logging.WARNING, "replicate_async")
    async with world() as here:
        timings = Timings(last_searches=(0.0, 0.1))
        async with here.client(timings=timings, timeout=Timeout(read=20)) as client:
            lost = here.emulator.wire.inject(Fault.STALL_BEFORE_EXECUTION, method="POST")
            task = asyncio.ensure_future(begin(client))
            await until(lambda: lost.happened)
            if closed:
                await client.aclose()
            else:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert len(here.emulator.ledger.requests(operation="predictions.list")) == 2
    assert caplog.text.count("lost: the list does not show it") == 1
    assert caplog.text.count("lost:") == 1


async def _leaves_start(client: Client) -> None:
    async with client.start("acme/slow", {"text": "a"}):
        pass


async def _has_no_time(client: Client) -> None:
    async with client.start("acme/slow", {"text": "a"}, timeout=0.2) as run:
        await run.result()


async def _has_no_time_for_updates(client: Client) -> None:
    async with client.start("acme/slow", {"text": "a"}, timeout=0.2) as run:
        async for _ in run.updates():
            pass


async def _leaves_stream(client: Client) -> None:
    async with client.stream("acme/drip", {"text": "a"}) as events:
        await anext(events)


async def _has_no_time_for_a_stream(client: Client) -> None:
    async for _ in client.stream("acme/slow", {"text": "a"}, timeout=0.2):
        pass


async def _leaves_map(client: Client) -> None:
    async with client.map("acme/slow", [{"text": "b", "seconds": 0}, {"text": "a"}]) as outcomes:
        await anext(outcomes)
        await until(lambda: outcomes.in_flight == client.stats.created - 1 == 1)


async def _has_no_time_to_run(client: Client) -> None:
    await client.run("acme/slow", {"text": "a"}, timeout=0.2)


@pytest.mark.parametrize(
    "give_up",
    [
        _leaves_start,
        _has_no_time,
        _has_no_time_for_updates,
        _leaves_stream,
        _has_no_time_for_a_stream,
        _leaves_map,
        _has_no_time_to_run,
    ],
)
async def test_cancelled_while_cleaning_up(give_up: Callable[[Client], Awaitable[None]]) -> None:
    """A cancellation that arrives while a prediction is cancelled waits for that, and is not lost: nothing follows."""
    is_cancelling, may_go_on = threading.Event(), threading.Event()

    def hold(_: WireRequest) -> None:
        is_cancelling.set()
        may_go_on.wait(5)

    async def drip(text: str) -> AsyncIterator[str]:
        yield text
        await asyncio.sleep(30)

    async def work(client: Client) -> None:
        for _ in range(2):
            with suppress(exceptions.ReplicateException):
                await give_up(client)

    async with world() as here, here.client(timeout=Timeout(), poll_interval=0.01) as client:
        here.emulator.add_model("acme/drip", drip, official=True)
        here.emulator.wire.inject(hold, path="*/cancel")
        task = asyncio.create_task(work(client))
        try:
            await until(is_cancelling.is_set)
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        finally:
            may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), GRACE)
        assert here.emulator.ledger.running() == []
        assert len(here.emulator.ledger.cancelled()) == len(here.made_of("a")) == 1


@pytest.mark.parametrize("training", [True, False])
async def test_a_create_by_itself_that_is_cancelled(
    training: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not cancelled, since it was to run on. It is looked for, counted, and the log has its ID."""
    async with world() as here, here.client(timeout=Timeout(read=20)) as client:
        create = faults.on_training if training else faults.on_model
        lost = here.emulator.wire.inject(Fault.STALL_AFTER_EXECUTION, method="POST")
        task = asyncio.create_task(create(client, here, "a"))
        await until(lambda: lost.happened and here.made_of("a"))
        assert await cancelled(task, within=3)
        assert here.emulator.ledger.cancelled() == []
        assert client.stats.created == client.stats.adopted == 1
    (made,) = here.made_of("a")
    assert f"cancelled before it returned; it made {made}, which is not cancelled" in caplog.text


async def test_a_create_by_itself_that_is_cancelled_and_not_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is looked for only briefly, since the task is cancelled."""
    async with world() as here, here.client(timeout=Timeout(read=20)) as client:
        lost = here.emulator.wire.inject(Fault.STALL_BEFORE_EXECUTION, method="POST")
        task = asyncio.create_task(faults.on_model(client, here, "a"))
        await until(lambda: lost.happened)
        assert await cancelled(task, within=3)
        assert client.stats.created == 0
    assert "the list does not show it; if it exists" in caplog.text


async def test_a_lagging_list() -> None:
    """Where the list shows a held create late, it is still found and cancelled."""
    async with world(list_lag=1.5) as here, here.client() as client:
        await by_cancel(here, client, "held")
        await check_cancelled(here)


async def test_many_of_the_same_are_all_cancelled() -> None:
    """When equal runs are given up together, each of their predictions is cancelled."""
    async with world() as here, here.client() as client:
        tasks = [asyncio.create_task(run(client, "held")) for _ in range(10)]
        await until(lambda: len(here.made_of("a")) == 10)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 10
        await check_cancelled(here, 10)
        assert client.stats.created == client.stats.cancelled == 10
        # The first one is not held, since it finds out what the model is: it has its answer.
        assert client.stats.adopted == 9


async def test_what_has_ended_is_not_cancelled() -> None:
    """Only what a cancellation ends is counted as cancelled, and once."""
    async with world() as here, here.client() as client:
        ended = await client.predictions.create(model="acme/echo", input={"text": "a"}, wait=5)
        running = await client.predictions.create(model="acme/slow", input={"text": "a"})
        await ended.cancel()
        await client.predictions.cancel(ended.id)
        await running.cancel()
        await running.cancel()
        assert len(here.emulator.ledger.cancelled()) == client.stats.cancelled == 1


async def test_only_the_abandoned_one_is_cancelled() -> None:
    """Another run of the same is left alone."""
    async with world() as here, here.client() as client:
        quick = {"text": "b", "seconds": 1.0}
        first = asyncio.create_task(client.run("acme/slow", quick, wait=30))
        await until(lambda: here.made_of("b"))
        second = asyncio.create_task(client.run("acme/slow", quick, wait=30))
        await until(lambda: len(here.made_of("b")) == 2)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert await first == "b"


async def test_ambiguous_and_given_up() -> None:
    """A run that is given up while it looks for its prediction cancels it once it is found."""
    async with world(list_lag=1.0) as here, here.client() as client:
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
        task = asyncio.create_task(run(client, "polling"))
        await until(lambda: here.emulator.ledger.requests(operation="predictions.list"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await check_cancelled(here)


async def test_adopted_and_given_up() -> None:
    """A run that is given up when its prediction has just been found cancels it, too."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
        here.emulator.wire.inject(Fault.STALL_AFTER_EXECUTION, path="/v1/predictions/*", times=1)
        task = asyncio.create_task(run(client, "polling"))
        await until(lambda: len(here.emulator.wire.log) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await check_cancelled(here)


async def test_nothing_sent_nothing_to_wait_for() -> None:
    """A run that is given up before anything was sent ends at once."""
    patient = Retry(backoff=10, max_backoff=10)
    async with world() as here, here.client(timeout=Timeout(connect=30), retry=patient) as client:
        with here.emulator.wire.refusing():
            task = asyncio.create_task(run(client, "held"))
            await until(lambda: client.stats.retried)
            assert await cancelled(task, within=3)


@pytest.mark.parametrize("whose", ["ours", "the caller's"])
async def test_given_up_while_connecting(whose: str) -> None:
    """A run that is given up before it has a connection ends at once, too: nothing can have been created."""
    silent = await asyncio.start_server(lambda _, writer: writes.append(writer), "127.0.0.1", 0)
    writes: list[asyncio.StreamWriter] = []
    port = silent.sockets[0].getsockname()[1]
    try:
        # A server that accepts, and never answers the TLS handshake.
        async with AsyncExitStack() as stack:
            session = None
            if whose != "ours":
                session = await stack.enter_async_context(aiohttp.ClientSession())
            client = Client("r8_x", base_url=f"https://127.0.0.1:{port}", session=session)
            await stack.enter_async_context(client)
            task = asyncio.create_task(client.run("acme/slow", {"text": "a"}))
            await until(lambda: writes)
            assert await cancelled(task, within=3)
    finally:
        for writer in writes:
            writer.transport.abort()
        silent.close()
        await silent.wait_closed()


@pytest.mark.parametrize(("timeout", "sent"), [(7.2, 8), (2, 5), (90, 90), (None, None)])
async def test_deadline_of_the_server(timeout: float | None, sent: int | None) -> None:
    """`timeout=` sends `Cancel-After`, at least five seconds and its mark; none without."""
    async with world() as here, here.client(mark_creates=False) as plain, here.client() as client:
        await plain.run("acme/echo", {"text": "a"}, timeout=timeout)
        await client.run("acme/echo", {"text": "a"}, timeout=timeout)
        creates = here.emulator.ledger.requests(operation="models.predictions.create")
        exact, marked = [create.headers.get("Cancel-After") for create in creates]
        assert exact == (None if sent is None else f"{sent}s")
        assert marked is not None
        if sent is not None:
            assert sent <= int(marked.removesuffix("s")) < max(1.5 * sent, sent + 4)


async def test_a_killed_process_stops_paying() -> None:
    """What nobody is left to cancel is ended by the server's deadline."""
    async with world() as here, here.client(timings=Timings(cancel=0.3)) as client:
        here.emulator.wire.inject(Fault.STALL_BEFORE_EXECUTION, path="*/cancel")
        task = asyncio.create_task(run(client, "polling", timeout=6))
        await until(lambda: here.made_of("a"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        here.emulator.clock.advance(10)
        await check_cancelled(here)


async def test_log_of_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    """The log tells which prediction was abandoned and cancelled, or lost."""
    caplog.set_level(logging.INFO, "replicate_async")
    async with world() as here, here.client(poll_interval=0.01) as client:
        await by_cancel(here, client, "polling")
        (made,) = here.made_of("a")
        assert f"prediction {made} abandoned" in caplog.text
        assert f"prediction {made} cancelled" in caplog.text
        assert client.stats.cancelled == 1
        here.emulator.ledger.clear()
        here.emulator.wire.inject(Fault.ERROR_PAGE, path="*/cancel", status=403)
        await by_cancel(here, client, "polling")
        assert f"prediction {here.made_of('a')[0]} lost" in caplog.text


# -- Ctrl-C ------------------------------------------------------------------------------------

SCRIPT = """
    import asyncio, sys
    from replicate_async import Client

    async def main():
        async with Client(poll_interval=0.01) as client:
            print("ready", flush=True)
            await client.run("acme/slow", {"text": "a"}, wait=%s)

    asyncio.run(main())
"""


@pytest.mark.parametrize("phase", PHASES)
def test_control_c(phase: str) -> None:
    """Ctrl-C cancels the prediction and ends the process as Ctrl-C does."""
    with Emulator() as emulator:
        emulator.add_model("acme/slow", faults.slow, official=True)
        here = World(emulator, "", "")
        script = textwrap.dedent(SCRIPT) % PHASES[phase]["wait"]
        process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-c", script],
            env={**os.environ, **emulator.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            anyio.run(until, lambda: begun(here, phase), 20.0)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=GRACE + 5)
        finally:
            process.kill()
            process.communicate()
        assert said.rstrip().endswith("KeyboardInterrupt")
        assert "never retrieved" not in said
        assert "ResourceWarning" not in said
        assert process.returncode == -signal.SIGINT
        assert len(emulator.ledger.cancelled()) == len(emulator.ledger.created()) == 1
