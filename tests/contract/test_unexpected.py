"""Errors that nobody expects after a create: the prediction is named, or cancelled, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from replicate_async import Client, exceptions
from replicate_async import sync as replicate_sync
from replicate_async.testing import Emulator

from .conftest import until
from .wire import PREDICTION, QUICK, Request, Step, Wire, client_of, json


@pytest.fixture
def world() -> Iterator[Emulator]:
    """Run an emulator with a model that sleeps."""
    with Emulator(rate_limits=False, wire=True) as running:

        @running.model("acme/slow", official=True)
        async def slow(seconds: float = 60.0) -> str:
            await asyncio.sleep(seconds)
            return "done"

        yield running


class _Bug:
    """A trace config that fails at some of the requests."""

    def __init__(self, method: str, error: type[BaseException], times: int = 1) -> None:
        self.times = times
        self.config = aiohttp.TraceConfig()
        self.config.on_request_end.append(self._fail)
        self._method, self._error = method, error

    @property
    def armed(self) -> bool:
        """Whether it will fail again."""
        return self.times > 0

    async def _fail(self, _: Any, __: Any, end: aiohttp.TraceRequestEndParams) -> None:
        if self.armed and end.method == self._method and "cancel" not in str(end.url):
            self.times -= 1
            raise self._error("a bug of mine")


@pytest.mark.parametrize("error", [RuntimeError, RecursionError, MemoryError, KeyError])
@pytest.mark.parametrize("verb", ["run", "map", "journal"])
async def test_a_bug_at_the_create(
    world: Emulator, tmp_path: Path, error: type[Exception], verb: str
) -> None:
    """A create whose answer a trace config spoils is found in the list, and goes on; nothing is paid for twice."""
    bug = _Bug("POST", error)
    async with Client(
        world.token, base_url=world.url, retry=QUICK, trace_configs=[bug.config], rate_limit=False
    ) as client:
        given = {"seconds": 0.0}
        if verb == "run":
            assert await client.run("acme/slow", given) == "done"
        else:
            journal = tmp_path / "run.db" if verb == "journal" else None
            for _ in range(2 if journal else 1):
                [outcome] = await client.map("acme/slow", [given], journal=journal).collect()
                assert outcome.output == "done"
        assert not bug.armed
        assert client.stats.adopted == 1
    assert len(world.ledger.created()) == 1


class _Vault:
    """A function that returns the token, until something was created."""

    def __init__(self, emulator: Emulator) -> None:
        self.is_open = False
        """Whether it returns the token also then."""
        self._emulator = emulator

    def __call__(self) -> str:
        if not self.is_open and self._emulator.ledger.created():
            raise RuntimeError("the vault is closed")
        return self._emulator.token


async def _names(client: Client, verb: str, journal: Path | None) -> str:
    """Create a prediction, and return the ID that the result or the error names."""
    given = {"seconds": 0.1}
    try:
        with anyio.fail_after(20):
            if verb == "create":
                return (await client.predictions.create("acme/slow", given)).id
            if verb == "run":
                await client.run("acme/slow", given)
            elif verb == "start":
                async with client.start("acme/slow", given) as run:
                    await run.result()
            elif verb == "stream":
                async for _ in client.stream("acme/slow", given):
                    pass
            else:
                [outcome] = await client.map("acme/slow", [given], journal=journal).collect()
                outcome.result()
    except exceptions.ContactLost as error:
        return error.prediction.id
    raise AssertionError("the function has failed, but the call has not")


@pytest.mark.parametrize("verb", ["create", "run", "start", "stream", "map", "journal"])
async def test_a_token_function_that_fails_after_the_create(
    world: Emulator, tmp_path: Path, verb: str
) -> None:
    """What was created is named, and a journal has it."""
    vault = _Vault(world)
    journal = tmp_path / "run.db" if verb == "journal" else None
    async with Client(vault, base_url=world.url, retry=QUICK, rate_limit=False) as client:
        named = await _names(client, verb, journal)
        [life] = world.ledger.created()
        assert named == life.id
        vault.is_open = True
        if journal is not None:
            [outcome] = await client.map("acme/slow", [{"seconds": 0.1}], journal=journal).collect()
            assert outcome.output == "done"
    assert len(world.ledger.created()) == 1


def test_a_token_function_that_fails_in_the_facade(world: Emulator) -> None:
    """The same with the sync twin."""
    with replicate_sync.Client(_Vault(world), base_url=world.url, rate_limit=False) as client:
        with pytest.raises(exceptions.ContactLost) as caught:
            client.run("acme/slow", {"seconds": 0.1})
        [life] = world.ledger.created()
        assert caught.value.prediction.id == life.id


@pytest.mark.parametrize("error", [RuntimeError, RecursionError])
@pytest.mark.parametrize("verb", ["run", "stream", "map"])
async def test_a_bug_at_a_poll(world: Emulator, error: type[Exception], verb: str) -> None:
    """The error names the prediction, or the prediction is cancelled."""
    bug = _Bug("GET", error)
    async with Client(
        world.token,
        base_url=world.url,
        retry=QUICK,
        trace_configs=[bug.config],
        rate_limit=False,
        poll_interval=0.02,
    ) as client:
        raised: BaseException | None = None
        try:
            with anyio.fail_after(20):
                if verb == "run":
                    await client.run("acme/slow", wait=False)
                elif verb == "map":
                    [outcome] = await client.map("acme/slow", [{}]).collect()
                    raised = outcome.error
                else:
                    async for _ in client.stream("acme/slow"):
                        pass
        except Exception as caught:  # noqa: BLE001  (looked at below)
            raised = caught
        [life] = world.ledger.created()
        if isinstance(raised, exceptions.ContactLost):
            assert raised.prediction.id == life.id
        else:
            assert raised is not None
            await until(lambda: world.ledger.running() == [])


@pytest.mark.parametrize("times", [3, 99])
@pytest.mark.parametrize("verb", ["run", "stream", "map"])
async def test_no_memory_for_the_answers_to_polls(world: Emulator, verb: str, times: int) -> None:
    """They are asked for again, a few times; then the error names the prediction."""
    bug = _Bug("GET", MemoryError, times)
    given = {"seconds": 0.2}
    error: BaseException | None = None
    found: object = None
    async with Client(
        world.token,
        base_url=world.url,
        retry=QUICK,
        trace_configs=[bug.config],
        rate_limit=False,
        poll_interval=0.02,
    ) as client:
        with anyio.fail_after(20):
            if verb == "map":
                [outcome] = await client.map("acme/slow", [given]).collect()
                error, found = outcome.error, outcome.output
            else:
                try:
                    if verb == "run":
                        found = await client.run("acme/slow", given, wait=False)
                    else:
                        events = client.stream("acme/slow", given)
                        found = "".join([str(event) async for event in events])
                except exceptions.ReplicateException as caught:
                    error = caught
    [life] = world.ledger.created()
    if times == 3:
        assert error is None
        assert found == "done"
    else:
        assert isinstance(error, exceptions.ContactLost)
        assert error.prediction.id == life.id
        assert bug.times == 99 - QUICK.attempts


@pytest.mark.parametrize("on_abandon", ["cancel", "leave"])
async def test_succeeded_when_the_time_is_over(on_abandon: Any) -> None:
    """`run(timeout=)` returns the output of what has succeeded meanwhile."""
    made = {**PREDICTION, "status": "processing", "output": None, "completed_at": None}

    def answers(request: Request) -> Step:
        if request.method == "POST" and not request.path.endswith("/cancel"):
            return json(made, 201)
        is_late = request.path.endswith("/cancel") or over.is_set()
        return json(PREDICTION if is_late else made)

    over = asyncio.Event()
    with Wire(answers) as wire:
        async with client_of(wire, poll_interval=0.5) as client:
            asyncio.get_running_loop().call_later(0.9, over.set)
            output = await client.run(
                "acme/greeter", timeout=0.95, wait=False, on_abandon=on_abandon
            )
            assert output == PREDICTION["output"]


async def test_a_bug_at_every_request(world: Emulator) -> None:
    """If the list cannot be read either, the error says that something may have been created."""
    config = aiohttp.TraceConfig()

    async def fail(*_: object) -> None:
        raise RuntimeError("a bug of mine")

    config.on_request_end.append(fail)
    async with Client(world.token, base_url=world.url, trace_configs=[config]) as client:
        with pytest.raises(exceptions.AmbiguousCreateError, match="a bug of mine"):
            await client.predictions.create(model="acme/slow", input={"seconds": 0})
        [outcome] = await client.map("acme/slow", [{"seconds": 0}]).collect()
        assert isinstance(outcome.error, exceptions.AmbiguousCreateError)
    assert len(world.ledger.created()) == 2
