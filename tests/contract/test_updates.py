"""`updates()` with a timeout, left, cancelled and resumed; `raise_for_status`; `from_dict`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import anyio
import pytest

from replicate_async import Client, Prediction, Update, exceptions
from replicate_async.testing import Emulator

from .conftest import HELLO, until


async def slow(client: Client, seconds: float = 30) -> Prediction:
    """Create a prediction that takes some time."""
    return await client.predictions.create(
        model="emulator/sleeper", input={"seconds": seconds, "steps": 5}
    )


@pytest.fixture
def quick(client: Client) -> Client:
    """Return a client that polls often."""
    return client.with_options(poll_interval=0.1)


async def test_leaving_the_loop_cancels_if_asked(quick: Client, emulator: Emulator) -> None:
    """With `on_abandon="cancel"`, a loop that is left cancels the prediction."""
    prediction = await slow(quick)
    async for _ in prediction.updates(on_abandon="cancel"):
        break
    await until(emulator.ledger.cancelled)
    assert not emulator.ledger.running()


async def test_closing_cancels_if_asked(quick: Client, emulator: Emulator) -> None:
    """Its `aclose` returns when the prediction is cancelled, also for a second time."""
    prediction = await slow(quick)
    updates: Any = prediction.updates(on_abandon="cancel")
    assert (await anext(updates)).status == "starting"
    await updates.aclose()
    await updates.aclose()
    assert len(emulator.ledger.cancelled()) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(updates)


async def test_not_begun_is_not_left(quick: Client, emulator: Emulator) -> None:
    """An iteration that never began cancels nothing."""
    prediction = await slow(quick)
    prediction.updates(on_abandon="cancel")
    await asyncio.sleep(0.05)
    assert emulator.ledger.cancelled() == []
    await prediction.cancel()


@pytest.mark.parametrize("on_abandon", ["cancel", "leave"])
async def test_timeout(quick: Client, emulator: Emulator, on_abandon: Any) -> None:
    """After the timeout comes a RunTimeout, which says whether the prediction was cancelled."""
    prediction = await slow(quick)
    with pytest.raises(exceptions.RunTimeout) as caught:
        async for _ in prediction.updates(timeout=0.3, on_abandon=on_abandon):
            pass
    assert caught.value.prediction is prediction
    assert caught.value.timeout == 0.3
    assert len(emulator.ledger.cancelled()) == (on_abandon == "cancel")
    assert ("It has been cancelled" in str(caught.value)) == (on_abandon == "cancel")
    await prediction.cancel()


async def test_cancelled_waits_cancel_if_asked(quick: Client, emulator: Emulator) -> None:
    """With `on_abandon="cancel"`, a task that is cancelled has cancelled the prediction when it ends."""
    prediction = await slow(quick)
    updates = prediction.updates(on_abandon="cancel")

    async def follow() -> None:
        async for _ in updates:
            pass

    task = asyncio.create_task(follow())
    await until(lambda: emulator.ledger.requests(operation="predictions.get"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(emulator.ledger.cancelled()) == 1
    with pytest.raises(exceptions.StreamAbandoned):
        await anext(updates)


async def test_cancelled_waits_can_be_resumed(quick: Client, emulator: Emulator) -> None:
    """An update that is not there in time can be waited for again, as for heartbeats between two polls."""
    prediction = await slow(quick, 1)
    updates = prediction.updates()
    seen: list[Update] = []
    waits = 0
    while True:
        with anyio.move_on_after(0.03) as scope:
            try:
                seen.append(await anext(updates))
            except StopAsyncIteration:
                break
        waits += scope.cancelled_caught
    assert waits > 2
    assert seen[0].status == "starting"
    assert seen[-1].status == "succeeded"
    assert "".join(update.logs for update in seen) == prediction.logs


async def test_closing_the_client_cancels_if_asked(emulator: Emulator) -> None:
    """A client that is closed cancels what its updates would have cancelled."""
    async with Client(emulator.token, base_url=emulator.url) as client:
        updates = (await slow(client)).updates(on_abandon="cancel")
        await anext(updates)
    assert len(emulator.ledger.cancelled()) == 1
    with contextlib.suppress(StopAsyncIteration):
        await updates.aclose()  # type: ignore[attr-defined]  # it has one, which its type does not say


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": "1"}, {"on_abandon": "stop"}]
)
async def test_bad_arguments(quick: Client, emulator: Emulator, options: Any) -> None:
    """Arguments are checked before anything is sent."""
    prediction = quick.predictions.from_dict({"id": "a", "status": "starting"})
    with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)):
        prediction.updates(**options)
    assert emulator.ledger.requests() == []


# -- raise_for_status --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("failed", exceptions.PredictionFailed),
        ("canceled", exceptions.PredictionCanceled),
        ("aborted", exceptions.PredictionAborted),
    ],
)
async def test_raise_for_status(
    client: Client, status: str, error: type[exceptions.ModelError]
) -> None:
    """What has ended without a result raises what `run` would raise; anything else returns itself."""
    for namespace in (client.predictions, client.trainings):
        ended = namespace.from_dict({"id": "a", "status": status, "error": "E1001: no"})
        with pytest.raises(error) as caught:
            ended.raise_for_status()
        assert caught.value.prediction is ended
        for good in ("starting", "processing", "succeeded"):
            running = namespace.from_dict({"id": "a", "status": good})
            assert running.raise_for_status() is running


# -- from_dict ---------------------------------------------------------------------------------


async def test_from_dict_is_live(client: Client, emulator: Emulator) -> None:
    """What a database holds is picked up where it was."""
    created = await client.predictions.create(HELLO, {"text": "a"})
    kept = json.loads(json.dumps(created.to_dict()))
    async with Client(emulator.token, base_url=emulator.url) as another:
        found = another.predictions.from_dict(kept)
        assert found == created
        assert (await found.wait()).output == "hello a"
    assert kept == created.to_dict()


async def test_from_dict_of_a_delivery(client: Client) -> None:
    """Files in what a webhook delivered can be read."""
    made = await client.predictions.create(
        model="emulator/painter", input={"prompt": "a"}, wait=True
    )
    delivered = client.predictions.from_dict(made.to_dict())
    outputs = delivered.output if isinstance(delivered.output, list) else [delivered.output]
    assert (await outputs[0].read())[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, exceptions.ArgumentError),
        ({"id": None}, exceptions.ArgumentError),
        ({"id": 1}, exceptions.ArgumentError),
        ({"id": ".."}, exceptions.InvalidReference),
        ({"id": ""}, exceptions.InvalidReference),
        ('{"id": "a"}', exceptions.ArgumentTypeError),
        (None, exceptions.ArgumentTypeError),
        ([("id", "a")], exceptions.ArgumentTypeError),
    ],
)
async def test_from_dict_of_something_else(client: Client, data: Any, error: Any) -> None:
    """What is not the JSON of a prediction is refused at once."""
    for namespace in (client.predictions, client.trainings):
        with pytest.raises(error):
            namespace.from_dict(data)


async def test_from_dict_copies(client: Client) -> None:
    """The object and the dictionary do not share anything."""
    data: dict[str, Any] = {"id": "a", "input": {"text": ["a"]}}
    made = client.predictions.from_dict(data)
    data["input"]["text"].append("b")
    assert made.input == {"text": ["a"]}


async def test_from_dict_of_one_that_is_gone(client: Client, emulator: Emulator) -> None:
    """A prediction that does not exist is reported at once."""
    gone = client.predictions.from_dict({"id": "doesnotexist", "status": "starting"})
    with pytest.raises(exceptions.NotFoundError):
        await gone.wait(timeout=20)
    assert len(emulator.ledger.requests(operation="predictions.get")) == 1
