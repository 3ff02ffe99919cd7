"""Whose prediction is it? An abandoned or lost create touches only what is provably its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio
import pytest

from replicate_async import exceptions
from replicate_async.testing import Emulator, Fault, Reply, WireRequest

from . import faults
from .faults import cancelled, until, world

ROOT = Path(__file__).resolve().parents[2]
PAIRS = int(os.environ.get("REPLICATE_PAIRS", "60"))


async def test_another_client_with_the_same_input_is_left_alone() -> None:
    """What two clients ask for at the same time is told apart: an abandoned run cancels its own."""
    async with world() as here, here.client() as one, here.client() as other:
        given = {"text": "same", "seconds": 20}
        kept = asyncio.create_task(other.run("acme/slow", given, wait=30))
        await until(lambda: len(here.made_of("same")) == 1)
        (foreign,) = here.made_of("same")
        task = asyncio.create_task(one.run("acme/slow", given, wait=30))
        await until(lambda: len(here.made_of("same")) == 2)
        assert await cancelled(task, within=6)
        (own,) = {life.id for life in here.emulator.ledger.cancelled()}
        assert own != foreign
        assert await cancelled(kept, within=6)
        assert {life.id for life in here.emulator.ledger.cancelled()} == {own, foreign}


async def test_a_foreign_prediction_is_not_adopted() -> None:
    """A create that did not happen does not take what another client has created."""
    async with world() as here, here.client() as one, here.client() as other:
        reset = here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST", times=1)
        lost = asyncio.create_task(faults.on_model(one, here, "same"))
        await until(lambda: reset.happened)
        await faults.on_model(other, here, "same")
        with pytest.raises(exceptions.AmbiguousCreateError) as caught:
            await lost
        assert list(caught.value.candidates) in ([], here.made_of("same"))
        assert one.stats.adopted == 0
        # Once more, and now the foreign one is in the list for sure.
        here.emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, method="POST", times=1)
        with pytest.raises(exceptions.AmbiguousCreateError) as caught:
            await faults.on_model(one, here, "same")
        assert list(caught.value.candidates) == here.made_of("same")
        assert here.made_of("same")[0] in str(caught.value)


async def test_equal_creates_of_one_client_each_find_their_own() -> None:
    """Of several equal runs of one client that are given up, each cancels its own."""
    async with world() as here, here.client() as client:
        tasks = [
            asyncio.create_task(client.run("acme/slow", {"text": "same", "seconds": 20}, wait=30))
            for _ in range(8)
        ]
        await until(lambda: len(here.made_of("same")) == 8)
        for task in tasks[:5]:
            task.cancel()
        await asyncio.wait(tasks[:5], timeout=6)
        assert len(here.emulator.ledger.cancelled()) == 5
        for task in tasks[5:]:
            task.cancel()
        await asyncio.wait(tasks[5:], timeout=6)
        assert len(here.emulator.ledger.cancelled()) == 8


@pytest.mark.parametrize("adopts", [True, False])
async def test_without_marks_nothing_is_adopted(
    adopts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With `mark_creates=False`, a lost create is named and left alone."""
    async with world() as here, here.client(mark_creates=adopts) as client:
        here.emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
        if adopts:
            await faults.on_model(client, here, "a")
            assert client.stats.adopted == 1
            return
        with pytest.raises(exceptions.AmbiguousCreateError) as caught:
            await faults.on_model(client, here, "a")
        assert list(caught.value.candidates) == here.made_of("a")


async def test_without_marks_nothing_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """With `mark_creates=False`, an abandoned create without an answer is logged and left alone."""
    caplog.set_level(logging.WARNING, "replicate_async")
    async with world() as here, here.client(mark_creates=False) as client:
        task = asyncio.create_task(client.run("acme/slow", {"text": "a", "seconds": 20}, wait=30))
        await until(lambda: here.made_of("a"))
        assert await cancelled(task, within=7)
        assert here.emulator.ledger.cancelled() == []
        assert here.made_of("a")[0] in caplog.text


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "Cancel-After must be 60s at most"),
        (422, "Cancel-After must be 60s at most"),
        (422, "The duration is too long"),
        (400, "Predictions may run for one hour at most"),
    ],
)
@pytest.mark.parametrize("asked", [None, 60])
async def test_refused_deadlines(
    status: int, detail: str, asked: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A create that is refused for its mark is sent once more without, and no other is marked."""
    caplog.set_level(logging.WARNING, "replicate_async")
    body = {"title": "Invalid", "detail": detail, "status": status}
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(
            Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"}),
            method="POST",
            when=lambda request: request.headers.get("cancel-after") not in (None, "60s"),
        )
        for _ in range(2):
            output = await client.run("acme/echo", {"text": "a"}, cancel_after=asked)
            assert output == "a"
        assert len(here.made_of("a")) == 2
        sent = [
            request.headers.get("Cancel-After")
            for request in here.emulator.ledger.requests(operation="models.predictions.create")
        ]
        exact = None if asked is None else f"{asked}s"
        assert sent[-2:] == [exact, exact]
        assert "not marked any more" in caplog.text
        assert client.stats.created == 2


async def test_an_input_whose_name_sounds_like_the_mark() -> None:
    """A model that refuses its own input `deadline` does not end the marks of the client."""
    async with world() as here, here.client() as client:
        here.emulator.add_model("acme/due", due, official=True)
        for _ in range(2):
            with pytest.raises(exceptions.ValidationError, match="deadline"):
                await client.run("acme/due", {"deadline": "soon"})
        assert here.emulator.ledger.created() == []
        creates = here.emulator.ledger.requests(operation="models.predictions.create")
        assert len(creates) == 2  # each was sent once
        await client.run("acme/due", {"deadline": 3})
        last = here.emulator.ledger.requests(operation="models.predictions.create")[-1]
        assert "Cancel-After" in last.headers


async def due(deadline: int) -> int:
    """Return a number."""
    return deadline


async def test_other_refusals_are_raised_at_once() -> None:
    """An invalid input is refused once; it is not sent again without a mark."""
    async with world() as here, here.client() as client:
        with pytest.raises(exceptions.ValidationError):
            await client.run("acme/echo", {"text": 3})
        creates = here.emulator.ledger.requests(operation="models.predictions.create")
        assert len(creates) == 1


# -- Two processes -----------------------------------------------------------------------------

SCRIPT = """
import asyncio, json, sys
from replicate_async import Client, Retry, Timeout, exceptions

async def one(client, order):
    await asyncio.sleep(order["at"])
    given = {"text": order["text"], "seconds": order["seconds"]}
    run = client.run(
        "acme/slow", given, wait=order["wait"], timeout=order["timeout"]
    )
    task = asyncio.create_task(run)
    if order["cancel"] is not None:
        await asyncio.sleep(order["cancel"])
        task.cancel()
    try:
        return "output" if await task == order["text"] else "wrong"
    except asyncio.CancelledError:
        return "given up"
    except exceptions.ReplicateException as error:
        return type(error).__name__

async def main():
    orders = json.load(sys.stdin)
    retry = Retry(backoff=0.01, max_backoff=0.05)
    timeout = Timeout(read=1.0)
    async with Client(
        rate_limit=False, timeout=timeout, retry=retry, user_agent=sys.argv[1]
    ) as client:
        print(json.dumps(await asyncio.gather(*[one(client, order) for order in orders])))

asyncio.run(main())
"""


def orders(dice: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw what two processes do: the first gives its runs up, the second one waits for its own."""
    leaving, staying = [], []
    for number in range(PAIRS):
        at = dice.uniform(0, PAIRS / 12)
        gap = dice.choice([0.0, 0.05, 0.2, 0.6, 1.0, 2.0])
        wait = dice.choice([False, 5])
        # The model takes longer than the clean-up of a run may take, which is five seconds.
        shared = {"text": f"pair {number}", "seconds": gap + 5.6}
        late = dice.random() < 0.3
        leaving.append(
            {
                **shared,
                "at": at,
                "wait": wait,
                "timeout": gap + 0.4 if late else None,
                "cancel": None if late else gap + dice.uniform(0.05, 0.5),
            }
        )
        # The same code has the same timeout, in both processes.
        same = dice.choice([None, 900])
        leaving[-1]["timeout"] = leaving[-1]["timeout"] or same
        staying.append({**shared, "at": at + gap, "wait": wait, "timeout": same, "cancel": None})
    return leaving, staying


async def slow(text: str, seconds: float) -> str:
    """Return the text after a while."""
    await asyncio.sleep(seconds)
    return text


@pytest.mark.parametrize("resets", ["none", "after", "before and after"])
async def test_two_processes_ask_for_the_same(resets: str) -> None:
    """No run of one process is touched by what another one gives up, and what was given up is cancelled."""
    seed = int(os.environ.get("REPLICATE_PAIRS_SEED", "0")) or random.randrange(1 << 30)
    print(f"REPLICATE_PAIRS_SEED={seed}")
    dice = random.Random(seed)
    leaving, staying = orders(dice)
    emulator = Emulator(wire=True, rate_limits=False)
    emulator.add_model("acme/slow", slow, official=True)
    marks: dict[tuple[str, str], set[str]] = defaultdict(set)

    def note(request: WireRequest) -> bool:
        """Note the mark of a create, also of one that is about to be lost."""
        marks[request.headers["user-agent"], request.json()["input"]["text"]].add(
            request.headers["cancel-after"]
        )
        return False

    async with emulator:
        emulator.wire.inject(
            Fault.RESET_BEFORE_EXECUTION, method="POST", path="*/predictions", when=note
        )
        for fault in (Fault.RESET_BEFORE_EXECUTION, Fault.RESET_AFTER_EXECUTION):
            if resets == "before and after" or (resets == "after" and "AFTER" in fault.name):
                emulator.wire.inject(
                    fault,
                    method="POST",
                    path="*/predictions",
                    when=lambda _: dice.random() < 0.2,
                )
        environment = {
            **os.environ,
            "REPLICATE_API_TOKEN": emulator.token,
            "REPLICATE_BASE_URL": emulator.url,
            "PYTHONPATH": str(ROOT),
        }

        async def process(name: str, work: list[dict[str, Any]]) -> list[str]:
            done = await anyio.run_process(
                [sys.executable, "-c", SCRIPT, name],
                input=json.dumps(work).encode(),
                stderr=subprocess.PIPE,
                env=environment,
            )
            found: list[str] = json.loads(done.stdout)
            return found

        ends: dict[str, list[str]] = {}

        async def collect(name: str, work: list[dict[str, Any]]) -> None:
            ends[name] = await process(name, work)

        with anyio.fail_after(120):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(collect, "leaving", leaving)
                tasks.start_soon(collect, "staying", staying)
        # A create that did not reach the API is named by an error: it takes no result of the other process.
        ended_well = {"output", "AmbiguousCreateError"} if "before" in resets else {"output"}
        assert not {"output", "wrong"} & set(ends["leaving"])
        lives = emulator.ledger.lives()
        # On a busy machine, a run may be given up before its create is sent.
        assert len(lives) <= 2 * PAIRS
        clear = 0
        for number, end in enumerate(ends["staying"]):
            text = f"pair {number}"
            pair = [life for life in lives if life.input["text"] == text]
            finished = sum(life.did("succeeded") for life in pair)
            canceled = sum(life.did("cancelled") or life.did("aborted") for life in pair)
            if marks["leaving", text] & marks["staying", text]:
                # Nothing tells which is whose: neither of two is touched, and one alone is taken for both.
                assert finished or len(pair) <= 1
                assert pair or end in ended_well - {"output"}  # neither create has reached the API
                continue
            clear += 1
            assert end in ended_well
            assert finished == (end == "output")
            assert canceled == len(pair) - finished
        assert clear >= PAIRS - 5
