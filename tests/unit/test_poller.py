"""Watching predictions: what is looked at when, one by one or on pages of the list."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import random
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate_async import Client, RateLimit
from replicate_async._jobs.policy import poll_delay
from replicate_async._jobs.schedule import (
    ENDED_SHARE,
    LIST_ABOVE,
    POLL_SHARE,
    Awaited,
    Durations,
    ListEntry,
    Poll,
    RateShare,
    ReadPage,
    Request,
    Schedule,
)
from replicate_async.testing import Emulator

ROOT = Path(__file__).resolve().parents[2]


def _simulation() -> Any:
    spec = importlib.util.spec_from_file_location("fanout", ROOT / "benchmarks" / "fanout.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fanout"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fanout = _simulation()

# -- When to look ------------------------------------------------------------------------------


def looks(duration: float, usual: tuple[float, float] | None = None) -> tuple[int, float]:
    """Return the number of looks at a prediction, and how late its end is seen."""
    age, count = 0.0, 0
    while age < duration:
        age += poll_delay(age, usual)
        count += 1
    return count, age - duration


def test_short_predictions_are_seen_soon() -> None:
    """From 0.05 to 3 seconds: 140 ms late on average, with 10 looks at most."""
    found = [looks(0.05 + 2.95 * number / 500) for number in range(501)]
    assert sum(late for _, late in found) / len(found) <= 0.14
    assert sum(count for count, _ in found) / len(found) <= 10


@pytest.mark.parametrize("duration", [5.0, 20.0, 100.0, 600.0])
def test_a_known_duration_saves_looks(duration: float) -> None:
    """Where it is known how long it takes, there are fewer looks, and the end is seen sooner."""
    spread = duration / 50
    unknown = [looks(duration + spread * step / 10) for step in range(-10, 11)]
    known = [
        looks(duration + spread * step / 10, (duration - spread, duration + spread))
        for step in range(-10, 11)
    ]
    assert sum(count for count, _ in known) < sum(count for count, _ in unknown)
    assert sum(late for _, late in known) < sum(late for _, late in unknown)


@given(
    st.floats(0, 1e5),
    st.none() | st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)).map(lambda t: (min(t), max(t))),
)
def test_pauses_are_bounded(age: float, usual: tuple[float, float] | None) -> None:
    """Whatever was learned, the next look comes: after a tenth of a second at least, and 30 at most."""
    assert 0.1 <= poll_delay(age, usual) <= 30


def test_an_early_end_is_seen_in_time() -> None:
    """One that ends long before its like is seen within a quarter of the usual time."""
    for duration in (0.5, 3.0, 20.0, 90.0):
        _, late = looks(duration, (100.0, 110.0))
        assert late <= 25.0


def test_what_is_learned_is_bounded() -> None:
    """The durations of the last few predictions of some models are kept, no more."""
    learned = Durations()
    for number in range(1000):
        for _ in range(5):
            learned.add(f"model {number}", 1.0, 2.0)
    assert learned.usual("model 0") is None
    assert learned.usual("model 999") == (1.0, 2.0)
    for _ in range(100):
        learned.add("model 999", 8.0, 9.0)
    assert learned.usual("model 999") == (8.0, 9.0)


# -- The schedule ------------------------------------------------------------------------------


def schedule(number: int, *, spacing: float = 0.01, rate: float = math.inf) -> Schedule:
    """Return a schedule with so many predictions, made one after the other before time 0."""
    made = Schedule(Durations(), RateShare(rate), RateShare(rate))
    for index in range(number):
        began = (index - number) * spacing
        add(made, f"p{index}", began)
    return made


def add(made: Schedule, name: str, began: float, now: float = 0.0, **options: Any) -> Awaited:
    """Watch one more."""
    settings: dict[str, Any] = {
        "poll_interval": None,
        "is_new": True,
        "created": 1e9 + began,
        **options,
    }
    return made.add(name, model="m", now=now, began=began, **settings)


def work(made: Schedule, now: float) -> list[Request]:
    """Return all that is to be done by now."""
    found: list[Request] = []
    while isinstance(each := made.next(now), Request):
        found.append(each)
    return found


def test_few_are_asked_for_one_by_one() -> None:
    """A handful of predictions is watched without lists."""
    assert {type(each) for each in work(schedule(LIST_ABOVE), 5.0)} == {Poll}
    assert ReadPage in {type(each) for each in work(schedule(LIST_ABOVE + 30), 5.0)}


def test_a_page_answers_for_many() -> None:
    """What a page shows as running is looked at later; what it shows as ended is asked for itself, at once."""
    made = schedule(60)
    [read] = work(made, 5.0)
    assert isinstance(read, ReadPage)
    assert len(read.claimed) == 60
    shown = [
        ListEntry(watched.id, watched.created, has_ended=index < 3)
        for index, watched in enumerate(read.claimed)
    ]
    made.page_read(read, 5.1, shown, more=False)
    ended = work(made, 5.1)
    assert [each.claimed[0].id for each in ended] == [watched.id for watched in read.claimed[:3]]
    assert {type(each) for each in ended} == {Poll}
    assert work(made, 5.3) == []


def test_what_a_list_leaves_out_is_asked_for_itself() -> None:
    """A prediction that should have been on the page is not waited for in lists."""
    made = schedule(40)
    old = add(made, "unlisted", -100.0)
    reads = [each for each in work(made, 50.0) if isinstance(each, ReadPage)]
    for read in reads:
        shown = [ListEntry(w.id, w.created, has_ended=False) for w in read.claimed if w is not old]
        made.page_read(read, 50.1, shown, more=False)
    assert Poll(old) in work(made, 50.2)


def test_lists_that_fail_are_left_alone() -> None:
    """If the list cannot be read, each is asked for itself; later the list is tried again."""
    made = schedule(40)
    [read] = work(made, 5.0)
    made.failed(read, 5.1)
    instead = work(made, 5.1)
    assert len(instead) == 40
    assert {type(each) for each in instead} == {Poll}
    for each in instead:
        made.polled(each.claimed[0], 5.2, ended=False)
    assert ReadPage in {type(each) for each in work(made, 30.0)}


def test_a_list_that_is_out_of_date_is_found_out() -> None:
    """If the list shows everything as running for ever, predictions are asked for themselves all the same."""
    made, now, looked = schedule(40), 0.0, set[str]()
    while now < 200:
        for each in work(made, now):
            if isinstance(each, ReadPage):
                made.page_read(
                    each, now, [ListEntry(w.id, w.created, False) for w in each.claimed], more=False
                )
            else:
                looked.add(each.awaited.id)
                made.polled(each.awaited, now, ended=False)
        now += 0.25
    assert len(looked) == 40


def test_whoever_is_cancelled_gives_the_work_back() -> None:
    """What was handed out and not done is handed out again."""
    made = schedule(40)
    [read] = work(made, 5.0)
    made.release(read, 5.1)
    [again] = work(made, 5.1)
    assert isinstance(read, ReadPage)
    assert isinstance(again, ReadPage)
    assert set(again.claimed) == set(read.claimed)
    few = schedule(3)
    for each in work(few, 5.0):
        few.release(each, 5.0)
    assert len(work(few, 5.0)) == 3


def test_a_fixed_interval_is_kept() -> None:
    """`poll_interval` is what it says, however many there are."""
    made = Schedule(Durations(), RateShare(math.inf), RateShare(math.inf))
    for index in range(50):
        add(made, f"p{index}", -10.0, poll_interval=7.0)
    assert made.next(0.0) == 7.0
    assert {type(each) for each in work(made, 7.0)} == {Poll}


def test_a_share_is_kept() -> None:
    """Whatever is asked of it, no more passes than its rate and a short burst."""
    share, passed, now = RateShare(25.0), 0, 0.0
    while now < 60:
        wait = share.take(now)
        passed += not wait
        now += wait or 0.001
    assert passed <= 25 * 62


@pytest.mark.parametrize("number", [10, 100, 1000])
@pytest.mark.parametrize("lag", [0.0, 5.0])
def test_the_simulation(number: int, lag: float) -> None:
    """In the simulation each end is seen, within the share, and with less than asking every half second."""
    born = fanout.lives(number, 200.0, random.Random(number))
    ours = fanout.ours(fanout.World(), born, lag)
    _, busiest = ours.per_minute()
    delays = ours.delays()
    assert all(life.seen >= life.ends for life in born)
    assert busiest <= (POLL_SHARE + ENDED_SHARE) * 3000 + 80
    assert sum(delays) / number <= 3.0
    assert delays[-1] <= 10.0
    naive = fanout.naive(fanout.World(), [fanout.Life(o.id, o.created, o.ends) for o in born])
    assert len(ours.requests) < len(naive.requests)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans())
def test_whatever_happens_each_is_seen(seed: int, number: int, limited: bool) -> None:
    """Failures, cancellations, lists that leave out: each end is seen at last, and nothing is forgotten."""
    dice = random.Random(seed)
    made = Schedule(Durations(), *(RateShare(5.0 if limited else math.inf) for _ in range(2)))
    ends = {f"p{index}": dice.uniform(0, 40) for index in range(number)}
    watched = {
        name: add(
            made, name, -dice.uniform(0, 20), created=None if dice.random() < 0.2 else dice.random()
        )
        for name in ends
    }
    now, under_way = 0.0, list[tuple[float, Request]]()
    while len(made):
        assert now < 2000
        under_way += [(now + dice.random(), each) for each in work(made, now)]
        for done, each in list(under_way):
            if done > now:
                continue
            under_way.remove((done, each))
            if dice.random() < 0.1:
                (made.failed if dice.random() < 0.5 else made.release)(each, now)
            elif isinstance(each, ReadPage):
                shown = [
                    ListEntry(w.id, w.created, now > ends[w.id])
                    for w in watched.values()
                    if w.created is not None and dice.random() < 0.8
                ]
                made.page_read(each, now, shown, more=dice.random() < 0.2)
            else:
                over = now > ends[each.awaited.id]
                made.polled(each.awaited, now, ended=over)
                if over:
                    made.remove(each.awaited)
        now += 0.3


# -- The poller, on an emulator ----------------------------------------------------------------


@pytest.fixture
def emulator() -> Any:
    """Run an emulator whose model takes as long as it is told to."""
    with Emulator(rate_limits=False) as running:

        @running.model("acme/slow", official=True)
        async def slow(seconds: float, number: int = 0) -> str:
            await asyncio.sleep(seconds)
            return f"slept for {seconds}, {number}"

        yield running


def gets(emulator: Emulator) -> Counter[str]:
    """Count the requests by operation."""
    return Counter(request.operation for request in emulator.ledger.requests())


async def test_many_waiters_share_the_list(emulator: Emulator) -> None:
    """A hundred that wait together need a page now and then, and each its own result."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        outputs: list[str] = []

        async def one(number: int) -> None:
            prediction = await client.predictions.create(
                model="acme/slow", input={"seconds": 2.0, "number": number}
            )
            outputs.append((await prediction.wait()).output)

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
    assert sorted(outputs) == sorted(f"slept for 2.0, {number}" for number in range(100))
    counted = gets(emulator)
    assert 1 <= counted["predictions.list"] <= 40
    # Of those that begin before the others, a few are looked at alone.
    assert counted["predictions.get"] <= 100 + 4 * LIST_ABOVE


@pytest.mark.parametrize(
    ("operation", "field", "odd"),
    [
        ("predictions.list", "status", "9" * 4301),
        ("models.predictions.create", "created_at", '"9999-12-31T23:59:59.999999"'),
        ("models.predictions.create", "created_at", '"0001-01-01T00:00:00"'),
    ],
)
async def test_one_that_is_odd_among_many(
    emulator: Emulator, operation: str, field: str, odd: str
) -> None:
    """Whatever the API says of one of them, all who wait get their results."""
    number = 0

    async def middleware(request: Any, record: Any, answer: Any) -> Any:
        nonlocal number
        response = await answer(request)
        if record.operation != operation:
            return response
        number += 1
        said = json.loads(response.body)
        if operation == "predictions.list":
            for each in said["results"][:1]:
                each[field] = "HERE"
        elif number == 7:
            said[field] = "HERE"
        body = json.dumps(said).replace('"HERE"', odd)
        headers = {"Content-Type": "application/json"}
        return web.Response(status=response.status, body=body.encode(), headers=headers)

    emulator.middlewares.append(middleware)
    async with Client(emulator.token, base_url=emulator.url) as client:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for each in range(40):
                    given = {"seconds": 1.0, "number": each}
                    group.start_soon(partial(client.run, "acme/slow", given, wait=False))
    assert gets(emulator)["predictions.list"]


async def test_few_waiters_read_no_list(emulator: Emulator) -> None:
    """A few are asked for one by one."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(client.run, "acme/slow", {"seconds": 0.5})
        assert not gets(emulator)["predictions.list"]


async def test_waiters_of_one_prediction_share_the_looks(emulator: Emulator) -> None:
    """Ten that wait for the same prediction cause the requests of one, and all of them see its end."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        prediction = await client.predictions.create(model="acme/slow", input={"seconds": 1.0})
        copies = [await client.predictions.get(prediction.id) for _ in range(10)]
        before = gets(emulator)["predictions.get"]
        async with anyio.create_task_group() as group:
            for copy in copies:
                group.start_soon(copy.wait)
        assert {copy.output for copy in copies} == {"slept for 1.0, 0"}
        assert gets(emulator)["predictions.get"] - before <= 10


async def test_waiters_that_are_cancelled(emulator: Emulator) -> None:
    """Whichever waiters are cancelled, also those that read at the moment, the others see their ends."""
    dice = random.Random(1)
    emulator.latency = 0.01
    async with Client(emulator.token, base_url=emulator.url) as client:
        predictions = [
            await client.predictions.create(
                model="acme/slow", input={"seconds": 1.5, "number": number}
            )
            for number in range(60)
        ]
        tasks = [asyncio.create_task(each.wait()) for each in predictions]
        ended = 0
        while not all(task.done() for task in tasks):
            await anyio.sleep(0.03)
            victims = [task for task in tasks if not task.done()]
            if victims and ended < 40:
                for victim in dice.sample(victims, min(2, len(victims))):
                    victim.cancel()
                    ended += 1
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, asyncio.CancelledError) for each in done) == ended
        assert sum(getattr(each, "status", "") == "succeeded" for each in done) == 60 - ended
        assert not client._context.pollers.waiting


async def test_a_list_that_lags_or_fails(emulator: Emulator) -> None:
    """Without a usable list, predictions are seen by asking for each."""
    with Emulator(rate_limits=False, list_lag=3600.0) as lagging:

        @lagging.model("acme/slow", official=True)
        async def slow(seconds: float, number: int = 0) -> int:
            await asyncio.sleep(seconds)
            return number

        async with Client(lagging.token, base_url=lagging.url) as client:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        client.run("acme/slow", {"seconds": 1.0, "number": n}, wait=False)
                    )
                    for n in range(50)
                ]
            assert [task.result() for task in tasks] == list(range(50))


async def test_the_share_of_the_account(emulator: Emulator) -> None:
    """Looking takes no more than its share of a limit, whatever the number of waiters."""
    limit = RateLimit(creates=10_000, others=60, per=6)
    async with Client(emulator.token, base_url=emulator.url, rate_limit=limit) as client:
        predictions = [
            await client.predictions.create(model="acme/slow", input={"seconds": 60})
            for _ in range(80)
        ]
        began = asyncio.get_running_loop().time()
        with anyio.move_on_after(3):
            async with anyio.create_task_group() as group:
                for each in predictions:
                    group.start_soon(each.wait)
        seconds = asyncio.get_running_loop().time() - began
        looks = gets(emulator)["predictions.get"] + gets(emulator)["predictions.list"]
        assert 1 <= looks <= POLL_SHARE * 10 * (seconds + 2.0) + 2


def test_loops_do_not_share_waiters(emulator: Emulator) -> None:
    """Waiters on several loops of several threads see their ends, with one client."""
    client = Client(emulator.token, base_url=emulator.url)
    found: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(one, number)

    async def one(number: int) -> None:
        output = await client.run("acme/slow", {"seconds": 0.6, "number": number}, wait=False)
        found.append(output)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 60
    assert not client._context.pollers.waiting
