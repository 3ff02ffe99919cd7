"""The storm: hundreds of runs, faults from every phase, and callers that give up, all at random.

The seed is printed. `REPLICATE_STORM_SEED` repeats a storm, `REPLICATE_STORM_RUNS` makes it longer.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
from collections import Counter, defaultdict
from typing import Any, Literal, get_args

import anyio
import attrs
import pytest

from replicate_async import Client, Retry, exceptions
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Fault, Life, WireRequest

from .faults import World, until, world

RUNS = int(os.environ.get("REPLICATE_STORM_RUNS") or 300)
SEED = int(os.environ.get("REPLICATE_STORM_SEED") or random.SystemRandom().randrange(2**32))
CONCURRENCY = 30
BOUND = 60.0 + RUNS / 4
"""Seconds after which something hangs."""
CANCELLED_WITHIN = 10.0

Patience = Literal["endless", "cancel", "timeout", "fail_after", "asyncio.timeout"]


@attrs.define
class Plan:
    """What one caller does, and what became of it."""

    text: str
    seconds: float
    wait: bool | float
    patience: Patience
    limit: float
    by_version: bool
    repeats: bool
    outcome: str = ""
    error: BaseException | None = None

    @classmethod
    def at_random(cls, number: int, dice: random.Random) -> Plan:
        """Make a plan; one in eight asks for the same as others do."""
        patience = dice.choices(list(get_args(Patience)), [12, 3, 3, 1, 1])[0]
        endless = patience == "endless"
        long = not endless and dice.random() < 0.5
        return cls(
            text=f"same {dice.randrange(4)}" if dice.random() < 0.125 else f"run {number}",
            seconds=30 if long else dice.choice([0.0, 0.0, 0.1, 0.3]),
            wait=dice.choice([False, False, 1, 2, 5]),
            patience=patience,
            limit=dice.uniform(0.0, 0.8) if patience != "timeout" else dice.uniform(0.05, 0.8),
            by_version=dice.random() < 0.3,
            repeats=dice.random() < 0.1,
        )

    async def carry_out(self, client: Client, version: str) -> None:
        """Run, and note how it ended."""
        try:
            match self.patience:
                case "endless":
                    output = await self._run(client, version)
                case "timeout":
                    output = await self._run(client, version, timeout=self.limit)
                case "fail_after":
                    with anyio.fail_after(self.limit):
                        output = await self._run(client, version)
                case "asyncio.timeout":
                    async with asyncio.timeout(self.limit):
                        output = await self._run(client, version)
                case "cancel":
                    output = await self._cancelled(client, version)
        except exceptions.ReplicateException as error:
            self.outcome, self.error = type(error).__name__, error
        except TimeoutError:
            self.outcome = "timeout of the caller"
        except asyncio.CancelledError:
            self.outcome = "cancelled by the caller"
        else:
            self.outcome = "result" if output == self.text else f"wrong result {output!r}"

    async def _run(self, client: Client, version: str, **options: Any) -> Any:
        if self.repeats:
            client = client.with_options(on_ambiguous="repeat")
        return await client.run(
            version if self.by_version else "acme/slow",
            {"text": self.text, "seconds": self.seconds},
            wait=self.wait,
            **options,
        )

    async def _cancelled(self, client: Client, version: str) -> Any:
        task = asyncio.create_task(self._run(client, version))
        await asyncio.wait({task}, timeout=self.limit)
        task.cancel()
        return await task

    @property
    def may(self) -> set[str]:
        """How it may have ended, beside typed errors."""
        given_up = {
            "endless": set[str](),
            "cancel": {"cancelled by the caller"},
            "timeout": {"RunTimeout"},
            "fail_after": {"timeout of the caller"},
            "asyncio.timeout": {"timeout of the caller"},
        }[self.patience]
        return {
            "result",
            "AmbiguousCreateError",
            "ConnectError",
            "RateLimitError",
            "TransportTimeout",
            "ContactLost",
            *given_up,
        }

    @property
    def abandoned(self) -> bool:
        """Whether the caller gave it up."""
        return self.outcome in (
            "cancelled by the caller",
            "timeout of the caller",
            "RunTimeout",
            "TransportTimeout",
        )


def brew(here: World, dice: random.Random, marks: defaultdict[str, set[str]]) -> None:
    """Let all faults happen at random, and note the marks of the creates by their texts."""
    wire = here.emulator.wire
    wire.seed(dice.randrange(2**32))

    def note(request: WireRequest) -> bool:
        mark = request.headers["cancel-after"].removesuffix("s")
        marks[request.json()["input"]["text"]].add(mark)
        return False

    wire.inject(Fault.DELAY, method="POST", path="*/predictions", when=note)
    for fault in Fault:
        options: dict[str, Any] = {}
        if fault is Fault.DRIP:
            options["seconds"] = 0.0005
        elif fault is Fault.DELAY:
            options["seconds"] = 0.2
        elif fault is Fault.THROTTLE:
            options["seconds"] = 0.1
        if fault is Fault.RESET_AT_ACCEPT:
            wire.inject(fault, probability=0.03)
            continue
        wire.inject(fault, method="POST", path="*/predictions", probability=0.02, **options)
        wire.inject(fault, probability=0.01, **options)
    wire.inject(Fault.ERROR_PAGE, executed=True, status=504, probability=0.01)
    wire.inject(Fault.HTML, executed=False, probability=0.005)


async def outages(here: World, dice: random.Random) -> None:
    """Take the API down now and then."""
    while True:
        await anyio.sleep(dice.uniform(0.5, 2.0))
        with here.emulator.wire.refusing():
            await anyio.sleep(dice.uniform(0.05, 0.3))


async def test_storm(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happens: no second bill, an honest end for each run, and nothing is left behind."""
    print(f"REPLICATE_STORM_SEED={SEED} REPLICATE_STORM_RUNS={RUNS}")
    searches = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
    timings = Timings(searches=searches, last_searches=searches)
    caplog.set_level(logging.WARNING, "replicate_async")
    before = asyncio.all_tasks()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    dice = random.Random(SEED)
    plans = [Plan.at_random(number, dice) for number in range(RUNS)]
    retry = Retry(attempts=6, backoff=0.02, max_backoff=0.2)
    with anyio.fail_after(BOUND):
        async with world(list_lag=0.1, host="127.0.0.1") as here:
            version = here.emulator.add_model("acme/slowly", _slow)
            async with here.client(retry=retry, poll_interval=0.03, timings=timings) as client:
                marks: defaultdict[str, set[str]] = defaultdict(set)
                brew(here, dice, marks)
                waiting = iter(plans)

                async def work() -> None:
                    for plan in waiting:
                        await plan.carry_out(client, f"acme/slowly:{version}")

                async with anyio.create_task_group() as background:
                    background.start_soon(outages, here, dice)
                    async with anyio.create_task_group() as workers:
                        for _ in range(CONCURRENCY):
                            workers.start_soon(work)
                    background.cancel_scope.cancel()
                await check_abandoned(here, plans, marks, caplog)
            await until(lambda: here.emulator.wire.connections == 0)
            check_outcomes(plans)
            check_found(here, plans)
            check_bills(here, plans, caplog.text.count("creating it again"))
            check_weather(here)
    gc.collect()
    assert asyncio.all_tasks() <= before
    assert complaints == []


async def _slow(text: str, seconds: float = 30) -> str:
    await asyncio.sleep(seconds)
    return text


def check_outcomes(plans: list[Plan]) -> None:
    """Every run ends with its own result, a typed error or the caller's own wish."""
    for plan in plans:
        assert plan.outcome in plan.may, plan
        if plan.outcome == "TransportTimeout":
            assert plan.patience == "timeout", plan
    outcomes = Counter(plan.outcome for plan in plans)
    print(dict(outcomes))
    assert outcomes["result"] > len(plans) / 3


def check_found(here: World, plans: list[Plan]) -> None:
    """What was created without an answer was found again."""
    asked = Counter(plan.text for plan in plans)
    for plan in plans:
        if plan.outcome == "AmbiguousCreateError" and asked[plan.text] == 1:
            assert here.made_of(plan.text) == [], plan


def check_bills(here: World, plans: list[Plan], repeated: int) -> None:
    """Nothing is created beyond what was asked for and the repeats that were opted in."""
    asked = Counter(plan.text for plan in plans)
    created = Counter(life.input["text"] for life in here.emulator.ledger.created())
    further = {text: number - asked[text] for text, number in created.items()}
    exceeding = {text: number for text, number in further.items() if number > 0}
    assert sum(exceeding.values()) <= repeated, exceeding
    repeats = {plan.text for plan in plans if plan.repeats}
    assert set(exceeding) <= repeats, exceeding


async def check_abandoned(
    here: World,
    plans: list[Plan],
    marks: defaultdict[str, set[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was abandoned is cancelled or over, soon.

    Faults may be in the way until the time for that is over, now and then. Then the log says so.
    """
    kept = {plan.text for plan in plans if not plan.abandoned}
    texts = {plan.text for plan in plans if plan.abandoned} - kept

    def running() -> list[Life]:
        return [life for life in here.emulator.ledger.running() if life.input["text"] in texts]

    def is_reported(life: Life) -> bool:
        said = [f"for {mark} s at most" for mark in marks[life.input["text"]]]
        return any(each in caplog.text for each in (f"prediction {life.id} lost:", *said))

    try:
        await until(lambda: not running(), CANCELLED_WITHIN)
    except TimeoutError:
        left = [(life, is_reported(life), _story(here, life)) for life in running()]
        assert all(reported for _, reported, _ in left), left
        assert len(left) <= len(texts) / 10, left


def _story(here: World, life: Life) -> list[tuple[str, str, str]]:
    """Return the faults that requests about a prediction have suffered."""
    return [
        (str(each.fault), each.request.method, each.request.path)
        for each in here.emulator.wire.log
        if each.request is not None
        and (life.id in each.request.path or life.input["text"].encode() in each.request.body)
    ]


def check_weather(here: World) -> None:
    """It was a storm: nearly all kinds of faults happened."""
    seen = Counter(str(each.fault) for each in here.emulator.wire.log)
    print(dict(seen))
    assert len(seen) >= len(Fault) - 3
