"""One create, one bill, and a paid result is never lost: whatever happens on the wire."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from replicate_async import Retry, exceptions
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Clock, Fault

from . import faults
from .faults import CREATES, LOST, NOT_EXECUTED, World, until, world
from .wire import PREDICTION, RESET, Request, Step, Wire, answer, client_of, json

VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"


def named(value: object) -> str:
    """Name a fault as a parameter."""
    return value.name if isinstance(value, Fault) else str(value)


def inject_once(world: World, fault: Fault, path: str, text: str) -> None:
    """Let a fault happen to the first create with a text."""
    if fault is Fault.RESET_AT_ACCEPT:
        world.emulator.wire.inject(fault, times=1)
        return

    def is_it(request: Any) -> bool:
        return bool(request.json()["input"]["text"] == text)

    options: dict[str, Any] = {"seconds": 60} if fault is Fault.DELAY else {}
    world.emulator.wire.inject(fault, method="POST", path=path, when=is_it, times=1, **options)


# -- One create, one bill ----------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", CREATES)
async def test_executed_and_lost_is_adopted(endpoint: str) -> None:
    """A create whose answer was lost is found again in the list, and none is created beside it."""
    create, path = CREATES[endpoint]
    async with world() as here, here.client() as client, anyio.create_task_group() as tasks:

        async def one(fault: Fault) -> None:
            inject_once(here, fault, path, fault.name)
            made = await create(client, here, fault.name)
            await made.wait(timeout=5)
            assert made.status == "succeeded"
            assert here.made_of(fault.name) == [made.id], fault

        for fault in (*LOST, Fault.DELAY):
            tasks.start_soon(one, fault)
    assert client.stats.adopted == client.stats.created == len(LOST) + 1
    assert {each.fault for each in here.emulator.wire.log} == {*LOST, Fault.DELAY}
    assert all(each.executed for each in here.emulator.wire.log)


@pytest.mark.parametrize("endpoint", CREATES)
@pytest.mark.parametrize("fault", NOT_EXECUTED, ids=named)
async def test_maybe_sent_is_not_sent_again(endpoint: str, fault: Fault) -> None:
    """A create that may have been carried out is an error if the list does not show it."""
    create, path = CREATES[endpoint]
    async with world() as here, here.client() as client:
        if fault is not Fault.RESET_AT_ACCEPT:
            await client.accounts.current()  # so that there is a connection to be reused
        inject_once(here, fault, path, "a")
        with pytest.raises(exceptions.AmbiguousCreateError) as caught:
            await create(client, here, "a")
        assert len(here.emulator.wire.log) == 1
        assert here.made_of("a") == []
        where = "trainings.list()" if endpoint == "training" else "predictions.list(created_after="
        assert where in str(caught.value)
        assert client.stats.created == 0


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
@pytest.mark.parametrize("executed", [False, True])
async def test_statuses_that_tell_nothing(status: int, executed: bool) -> None:
    """Errors of the edge are ambiguous: the create is looked for, and not repeated."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.ERROR_PAGE, method="POST", status=status, executed=executed)
        if executed:
            assert (await faults.on_model(client, here, "a")).input == {"text": "a"}
        else:
            with pytest.raises(exceptions.AmbiguousCreateError):
                await faults.on_model(client, here, "a")
        assert len(here.emulator.wire.log) == 1
        assert len(here.made_of("a")) == executed


@pytest.mark.parametrize("endpoint", CREATES)
async def test_provably_not_executed_is_sent_again(endpoint: str) -> None:
    """After 429, and where no connection could be made, a create is repeated until it succeeds."""
    create, path = CREATES[endpoint]
    async with world() as here:
        wire = here.emulator.wire
        async with here.client(retry=Retry(attempts=50, backoff=0.01, max_backoff=0.02)) as client:
            wire.inject(Fault.THROTTLE, method="POST", path=path, times=7, seconds=0)
            made = await create(client, here, "throttled")
            assert here.made_of("throttled") == [made.id]
            assert client.stats.retried == 7

            assert client.stats.created == 1

        wire.refuse()
        async with here.client(retry=Retry(attempts=50, backoff=0.01, max_backoff=0.02)) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(create, client, here, "refused")
                await until(lambda: client.stats.retried >= 10)
                wire.accept()
            assert len(here.made_of("refused")) == 1
            assert client.stats.created == 1
            assert client.stats.adopted == 0


async def test_nothing_sent_is_no_ambiguity() -> None:
    """Where nobody listens to the end, the error says that nothing was sent."""
    async with world() as here, here.client() as client:
        with here.emulator.wire.refusing(), pytest.raises(exceptions.ConnectError):
            await client.run("acme/echo", {"text": "a"})
        assert here.made_of("a") == []


@pytest.mark.parametrize(
    "fault", [Fault.RESET_AFTER_EXECUTION, Fault.RESET_BEFORE_EXECUTION], ids=named
)
async def test_opted_in_repeats(fault: Fault) -> None:
    """With `on_ambiguous="repeat"` what is not found is created again, and what is found is not."""
    async with world() as here, here.client(on_ambiguous="repeat") as client:
        here.emulator.wire.inject(fault, method="POST", times=1)
        assert await client.run("acme/echo", {"text": "a"}) == "a"
        assert len(here.made_of("a")) == 1


async def test_opted_in_repeats_end() -> None:
    """Repeating ends with the attempts of `Retry`."""
    async with (
        world() as here,
        here.client(on_ambiguous="repeat", retry=Retry(attempts=3, backoff=0.01)) as client,
    ):
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST")
        with pytest.raises(exceptions.AmbiguousCreateError):
            await client.run("acme/echo", {"text": "a"})
        assert len(here.emulator.wire.log) == 3


# -- What is adopted ---------------------------------------------------------------------------


@pytest.mark.parametrize("executed", [False, True])
async def test_two_of_the_same(executed: bool) -> None:
    """Of two equal creates at once, one without an answer, each gets its own or nothing."""
    fault = Fault.RESET_AFTER_EXECUTION if executed else Fault.RESET_BEFORE_EXECUTION
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(fault, method="POST", times=1)
        made: list[Any] = []

        async def one() -> None:
            try:
                made.append((await faults.on_model(client, here, "same")).id)
            except exceptions.AmbiguousCreateError as error:
                made.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            tasks.start_soon(one)
        ids = [each for each in made if isinstance(each, str)]
        assert sorted(ids) == sorted(here.made_of("same"))
        assert len(ids) == len(set(ids)) == (2 if executed else 1)


async def test_many_of_the_same() -> None:
    """Equal creates that all lose their answers share what was created, one for each."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST")
        ids: list[str] = []

        async def one() -> None:
            ids.append((await faults.on_model(client, here, "same")).id)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one)
        assert len(set(ids)) == 10
        assert sorted(ids) == sorted(here.made_of("same"))


async def test_a_held_rival_keeps_its_own() -> None:
    """What a create that is still held by the server will get is not adopted by a failed one."""
    wanted = {"text": "same", "seconds": 0.6}
    async with world() as here, here.client() as client:
        held = asyncio.create_task(client.run("acme/slow", wanted, wait=5))
        await until(lambda: here.made_of("same"))
        before = here.made_of("same")
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST", times=1)
        with pytest.raises(exceptions.AmbiguousCreateError):
            await client.predictions.create(model="acme/slow", input=wanted)
        assert await held == "same"
        assert here.made_of("same") == before


async def test_rivals_may_be_spelled_in_two_ways() -> None:
    """`owner/name:version` that was lost does not take what a create of the bare version has made."""
    made: list[dict[str, Any]] = []
    creates = 0

    def answers(request: Request) -> Step:
        nonlocal creates
        if request.method == "GET":
            return json({"results": made, "next": None})
        creates += 1
        if creates == 1:
            return RESET  # and nothing is created
        made.append(
            {
                **PREDICTION,
                "version": VERSION,
                "created_at": datetime.now(UTC).isoformat(),
                "status": "processing",
                "completed_at": None,
            }
        )
        time.sleep(0.5)  # in the server's thread
        return json(made[0], 201)

    with Wire(answers) as wire:
        async with faults.with_timings(client_of(wire), faults.QUICK) as client:
            given = {"text": "Alice"}
            lost = asyncio.create_task(client.predictions.create(f"acme/greeter:{VERSION}", given))
            await until(lambda: creates)  # the first one is the one that is lost
            kept = await client.predictions.create(VERSION, given)
            with pytest.raises(exceptions.AmbiguousCreateError):
                await lost
        assert kept.id == made[0]["id"]
        assert client.stats.adopted == 0


async def test_what_cannot_be_encoded_was_not_sent() -> None:
    """A number that is too long to be written is an error at once, not a create that may have happened."""
    with Wire(RESET) as wire:
        async with faults.with_timings(client_of(wire), faults.QUICK) as client:
            with pytest.raises(exceptions.TransportError, match="cannot be sent") as caught:
                await client.predictions.create(VERSION, {"seed": 10**100_000})
        assert not isinstance(caught.value, exceptions.AmbiguousCreateError)
        assert wire.requests == []


async def test_strangers_are_not_adopted() -> None:
    """Older predictions, other inputs, models and versions, and those of other calls are left alone."""
    async with world() as here, here.client() as client:
        emulator = here.emulator
        emulator.add_prediction("acme/plain", {"text": "a"})  # another model
        emulator.add_prediction("acme/echo", {"text": "b"})  # another input
        emulator.add_prediction("acme/echo", {"text": "a", "more": 1})
        emulator.add_prediction("acme/echo", {"text": "a"})  # older
        emulator.clock.advance(10)
        mine = await faults.on_model(client, here, "a")  # of another call
        assert mine.id
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST")
        for create, _ in CREATES.values():
            with pytest.raises(exceptions.AmbiguousCreateError):
                await create(client, here, "a")
        assert client.stats.adopted == 0


async def test_other_versions_are_not_adopted() -> None:
    """A prediction of another version of the same model is not taken for the one asked for."""
    async with world() as here, here.client() as client:
        await faults.on_version(client, here, "a")
        other = here.emulator.add_model("acme/plain", faults.echo)
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST")
        async with here.client() as another:
            with pytest.raises(exceptions.AmbiguousCreateError):
                await another.predictions.create(f"acme/plain:{other}", {"text": "a"})


async def test_lists_that_lag() -> None:
    """A list that shows new predictions late is looked at until it does."""
    timings = Timings(searches=(0.0, 0.2, 0.4, 0.8))
    async with world(list_lag=0.5) as here, here.client(timings=timings) as client:
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST")
        assert await client.run("acme/echo", {"text": "a"}) == "a"
        assert client.stats.adopted == 1
        assert len(here.made_of("a")) == 1


async def test_views_know_of_each_other() -> None:
    """A view of a client does not adopt what another view has created."""
    async with world() as here, here.client() as client:
        await faults.on_model(client, here, "a")
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST")
        with pytest.raises(exceptions.AmbiguousCreateError):
            await faults.on_model(client.with_options(poll_interval=1), here, "a")


@pytest.mark.parametrize(
    "fault",
    [fault for fault in Fault if fault not in (Fault.DRIP, Fault.WRONG_TYPE)],
    ids=named,
)
async def test_the_list_survives_faults(fault: Fault) -> None:
    """One failure of any kind while the list is read does not make a paid prediction ambiguous."""
    async with world() as here, here.client() as client:
        wire = here.emulator.wire
        wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST")
        if fault is Fault.RESET_AT_ACCEPT:
            await client.accounts.current()
            wire.inject(fault, times=1)
        else:
            wire.inject(fault, method="GET", path="/v1/predictions", times=1, seconds=1)
        assert await client.run("acme/echo", {"text": "a"}) == "a"
        assert len(here.made_of("a")) == 1


# -- A paid result is never lost ---------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [fault for fault in Fault if fault is not Fault.RESET_AT_ACCEPT], ids=named
)
async def test_polls_survive(fault: Fault) -> None:
    """Whatever happens to polls, more often than reads are repeated, the result arrives."""
    async with world() as here, here.client(poll_interval=0.01) as client:
        injection = here.emulator.wire.inject(
            fault,
            method="GET",
            path="/v1/predictions/*",
            times=2 if "stall" in fault.value or fault is Fault.DELAY else 7,
            seconds=0 if fault is Fault.THROTTLE else 0.5 if fault is Fault.DELAY else 0.0001,
        )
        output = await client.run("acme/slow", {"text": "a", "seconds": 0.1}, wait=False)
        assert output == "a"
        assert injection.happened >= (1 if fault is Fault.WRONG_TYPE else 2) or fault.executes
        assert len(here.made_of("a")) == 1


async def test_polls_survive_an_outage() -> None:
    """A prediction that ends while the API is down gives its result once that is up again."""
    async with world() as here, here.client(poll_interval=0.01) as client:
        results: list[Any] = []

        async def run() -> None:
            results.append(await client.run("acme/slow", {"text": "a", "seconds": 0.1}, wait=False))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: here.emulator.ledger.requests(operation="predictions.get"))
            here.emulator.wire.refuse()
            await until(lambda: here.emulator.ledger.finished())
            before = client.stats.retried
            await until(lambda: client.stats.retried > before + 6)
            here.emulator.wire.accept()
        assert results == ["a"]


async def test_given_up_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """When polls fail until the time is over, the error carries what another client picks up."""
    async with world() as here, here.client(poll_interval=0.01) as client:
        wire = here.emulator.wire
        wire.inject(Fault.RESET_BEFORE_EXECUTION, method="GET")
        with pytest.raises(exceptions.RunTimeout) as caught:
            await client.run(
                "acme/slow",
                {"text": "a", "seconds": 0.5},
                wait=False,
                timeout=0.3,
                on_abandon="leave",
            )
        (made,) = here.made_of("a")
        assert caught.value.prediction.id == made
        wire.clear()
        async with here.client() as another:
            assert (await another.predictions.wait(made, timeout=5)).output == "a"


async def test_contact_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal to show the prediction ends in an error that carries it."""
    caplog.set_level(logging.INFO, "replicate_async")
    async with world() as here, here.client(poll_interval=0.01) as client:
        here.emulator.wire.inject(Fault.ERROR_PAGE, method="GET", status=403)
        with pytest.raises(exceptions.ContactLost) as caught:
            await client.run("acme/slow", {"text": "a", "seconds": 0.1}, wait=False)
        (made,) = here.made_of("a")
        assert caught.value.prediction.id == made
        assert f"prediction {made} lost" in caplog.text
        here.emulator.wire.clear()
        async with here.client() as another:
            assert (await another.predictions.wait(made, timeout=5)).output == "a"


@pytest.mark.parametrize("expired", ["starting", "actual"])
async def test_partial_output_is_not_final(expired: Any) -> None:
    """What a model had put out when the server's wait was over is not the result."""
    from collections.abc import AsyncIterator

    async def count(text: str) -> AsyncIterator[str]:
        for letter in text:
            yield letter
            await anyio.sleep(0.5)

    async with world(expired_waits=expired) as here, here.client() as client:
        here.emulator.add_model("acme/count", count, official=True)
        assert await client.run("acme/count", {"text": "abc"}, wait=1) == ["a", "b", "c"]


async def test_processing_is_read_again_at_once() -> None:
    """An answer `processing` of sync mode is followed by a read without a pause."""
    async with world() as here, here.client(poll_interval=30) as client:
        with anyio.fail_after(5):
            assert await client.run("acme/echo", {"text": "a"}, wait=5) == "a"
        assert len(here.emulator.ledger.requests(operation="predictions.get")) == 1


async def test_nothing_else_is_fetched() -> None:
    """Between the create and the result there is nothing but polls of the prediction."""
    async with world() as here, here.client(poll_interval=0.01) as client:
        await client.run("acme/slow", {"text": "a", "seconds": 0.1}, wait=False)
        operations = [request.operation for request in here.emulator.ledger.requests()]
        after = operations[operations.index("models.predictions.create") + 1 :]
        assert set(after) == {"predictions.get"}


# -- Seen --------------------------------------------------------------------------------------


async def test_log_and_counters(caplog: pytest.LogCaptureFixture) -> None:
    """Log lines tell with ids what was created, adopted, repeated and cancelled; counters count it."""
    caplog.set_level(logging.DEBUG, "replicate_async")
    async with world() as here, here.client() as client:
        made = await faults.on_model(client, here, "a")
        assert f"prediction {made.id} of acme/echo created" in caplog.text
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
        adopted = await faults.on_model(client, here, "b")
        assert f"prediction {adopted.id} of acme/echo adopted" in caplog.text
        here.emulator.wire.inject(Fault.ERROR_PAGE, status=503, times=1)
        await adopted.reload()
        assert "attempt 2 in" in caplog.text
        running = await client.predictions.create(model="acme/slow", input={"text": "c"})
        await running.cancel()
        assert f"prediction {running.id} cancelled" in caplog.text
        stats = client.stats
        assert (stats.created, stats.adopted, stats.retried, stats.cancelled) == (3, 1, 1, 1)


async def test_trace_configs() -> None:
    """`trace_configs` of aiohttp see every request."""
    import aiohttp

    seen: list[str] = []

    async def began(
        session: aiohttp.ClientSession,
        context: object,
        params: aiohttp.TraceRequestStartParams,
    ) -> None:
        seen.append(f"{params.method} {params.url.path}")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(began)
    async with world() as here, here.client(trace_configs=[trace]) as client:
        made = await faults.on_model(client, here, "a")
        await made.reload()
    assert seen == ["POST /v1/models/acme/echo/predictions", f"GET /v1/predictions/{made.id}"]


async def test_clock_of_this_machine() -> None:
    """What is "since the attempt" goes by the server's clock, however wrong the local one is."""
    clock = Clock(start=1_500_000_000)
    async with world(clock=clock) as here, here.client() as client:
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
        made = await faults.on_model(client, here, "a")
        assert here.made_of("a") == [made.id]


@pytest.mark.parametrize(
    ("body", "most"),
    [(b'{"id": "abc", "output": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 6), (b"<html>", 101)],
)
async def test_results_that_cannot_be_read(body: bytes, most: int) -> None:
    """The error has the prediction, after a bounded number of polls."""
    made = {**PREDICTION, "status": "processing", "output": None, "completed_at": None}

    def answers(request: Request) -> Step:
        return json(made, 201) if request.method == "POST" else answer(200, body)

    with Wire(answers) as wire:
        async with client_of(wire, poll_interval=0.01) as client:
            with anyio.fail_after(30), pytest.raises(exceptions.ContactLost) as caught:
                await client.run("acme/greeter", wait=False)
        assert caught.value.prediction.id == PREDICTION["id"]
        assert isinstance(caught.value.__cause__, exceptions.UnreadableAnswer)
        assert len(wire.requests) <= most
