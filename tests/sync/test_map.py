"""`map` without `await`: the same outcomes, files and journals, and the same ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicate_async import exceptions, sync
from replicate_async.testing import Emulator


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with a model that takes as long as it is told to."""
    with Emulator(rate_limits=False) as running:

        @running.model("acme/echo", official=True)
        async def echo(text: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            return text

        yield running


@pytest.fixture
def client(emulator: Emulator) -> Iterator[sync.Client]:
    """Return a client of it."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        yield client


def texts(*given: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Yield inputs with these texts."""
    for text in given:
        yield {"text": text, **more}


def test_outcomes(client: sync.Client, tmp_path: Path) -> None:
    """Outcomes, predictions and files are those of the sync world; files are saved, and nothing is made twice."""
    inputs = [{"prompt": f"{n}", "width": 64, "height": 64} for n in range(3)]
    for _ in range(2):
        found = list(
            client.map(
                "emulator/painter",
                iter(inputs),
                save_to=tmp_path,
                journal=tmp_path / "j",
                ordered=True,
            )
        )
        assert [outcome.index for outcome in found] == [0, 1, 2]
        for outcome in found:
            assert isinstance(outcome, sync.Outcome)
            assert isinstance(outcome.prediction, sync.Prediction)
            [image] = outcome.result()
            assert isinstance(image, sync.FileOutput)
            assert image.read() == outcome.saved[0].read_bytes()
    assert client.stats.created == 3


def test_collect(client: sync.Client) -> None:
    """All outcomes in the order of the inputs, errors included."""
    [one, two] = client.map("acme/echo", [{"text": "a", "seconds": 0.3}, {}]).collect()
    assert one.output == "a"
    assert isinstance(two.error, exceptions.ValidationError)
    with pytest.raises(exceptions.ValidationError):
        two.result()
    function = client.use("replicate/hello-world")
    assert [o.output for o in client.map(function, texts("a", "b")).collect()] == [
        "hello a",
        "hello b",
    ]


@pytest.mark.parametrize("how", ["with", "close"])
def test_leaving_early_cancels(client: sync.Client, emulator: Emulator, how: str) -> None:
    """Whoever leaves early has cancelled what is in flight when the block is left."""
    inputs = [{"text": "short"}, *texts(*"abc", seconds=30.0)]
    outcomes = client.map("acme/echo", inputs)
    assert next(iter(outcomes)).output == "short"
    end = time.monotonic() + 20
    while len(emulator.ledger.created()) < 4:
        assert time.monotonic() < end
        time.sleep(0.002)
    if how == "with":
        with outcomes:
            pass
    else:
        outcomes.close()
    assert len(emulator.ledger.cancelled()) == 3


def test_stop(client: sync.Client, emulator: Emulator) -> None:
    """After `stop`, nothing more is created, and all that was created is yielded."""
    outcomes = client.map("acme/echo", texts(*map(str, range(50)), seconds=0.2), concurrency=2)
    assert outcomes.in_flight == 0
    count = 0
    for _ in outcomes:
        count += 1
        outcomes.stop()
    assert count == len(emulator.ledger.created()) < 10
    assert outcomes.in_flight == 0


def test_checking_alone(client: sync.Client) -> None:
    """`check` raises what a call raises; twins of other functions' runs are inputs that will come."""
    describer = client.use("emulator/describer").load()
    with pytest.raises(exceptions.ArgumentTypeError, match="image"):
        describer.check(imag="x")
    run = client.use("emulator/painter").create(prompt="x", width=64, height=64)
    describer.check(image=run)
