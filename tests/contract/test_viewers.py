"""Following the progress of predictions: `updates()`, `output_iterator()` and `stream()` share their polls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from replicate_async import Client, Prediction
from replicate_async.testing import Fault

from .faults import until, world


async def _updates(prediction: Prediction) -> list[Any]:
    return [update.status async for update in prediction.updates()]


async def _output(prediction: Prediction) -> list[Any]:
    return [item async for item in prediction.output_iterator()]


async def _stream(prediction: Prediction) -> list[Any]:
    return [str(event) async for event in prediction.stream() if event.event == "output"]


@pytest.mark.parametrize("follow", [_updates, _output, _stream])
async def test_many_viewers_of_one_prediction(follow: Any) -> None:
    """150 who follow the same prediction make the requests of one."""
    async with world() as here, here.client(timeout=30, poll_interval=0.05) as client:
        made = await client.predictions.create(
            model="acme/slow", input={"text": "a", "seconds": 1.5}
        )
        viewers = [await client.predictions.get(made.id) for _ in range(150)]
        before = len(here.emulator.ledger.requests(operation="predictions.get"))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow(viewer)) for viewer in viewers]
        polls = len(here.emulator.ledger.requests(operation="predictions.get")) - before
        assert polls < 60  # 1.5 s at 20 a second, and a few more
        assert all(task.result()[-1] in ("succeeded", "a") for task in tasks)
        assert all(viewer.status == "succeeded" for viewer in viewers)


async def test_each_viewer_sees_each_poll() -> None:
    """All who follow a prediction see its output grow, not only the one that polls."""
    pieces = [f"piece {index}" for index in range(4)]
    seen: list[list[Any]] = [[] for _ in range(3)]

    async def produce() -> AsyncIterator[str]:
        for index, piece in enumerate(pieces):
            yield piece
            # The next one comes when every viewer has this one.
            while not all(len(items) > index for items in seen):  # noqa: ASYNC110 - another event loop
                await anyio.sleep(0.01)

    async def follow(viewer: Prediction, items: list[Any]) -> None:
        async for item in viewer.output_iterator():
            items.append(item)  # noqa: PERF401 - as it comes

    async with world() as here, here.client(timeout=30, poll_interval=0.02) as client:
        here.emulator.add_model("acme/pieces", produce, official=True)
        made = await client.predictions.create(model="acme/pieces", input={})
        viewers = [await client.predictions.get(made.id) for _ in seen]
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for viewer, items in zip(viewers, seen, strict=True):
                    group.start_soon(follow, viewer, items)
    assert seen == [pieces] * 3


async def test_the_one_who_polls_leaves() -> None:
    """If the viewer that polls leaves or is cancelled, another one goes on."""
    async with world() as here, here.client(poll_interval=0.05) as client:
        made = await client.predictions.create(
            model="acme/slow", input={"text": "a", "seconds": 0.6}
        )
        viewers = [await client.predictions.get(made.id) for _ in range(5)]
        tasks = [asyncio.create_task(_updates(viewer)) for viewer in viewers]
        for task in tasks[:4]:
            await anyio.sleep(0.08)
            task.cancel()
        assert (await tasks[4])[-1] == "succeeded"


async def test_a_viewer_meets_a_failed_poll() -> None:
    """A poll that fails for good is raised by the viewer that made it; the others go on."""
    async with world() as here, here.client(poll_interval=0.05) as client:
        made = await client.predictions.create(
            model="acme/slow", input={"text": "a", "seconds": 0.6}
        )
        viewers = [await client.predictions.get(made.id) for _ in range(3)]
        fault = here.emulator.wire.inject(
            Fault.ERROR_PAGE, method="GET", path=f"*/{made.id}", status=403, times=1
        )
        results = await asyncio.gather(
            *[_updates(viewer) for viewer in viewers], return_exceptions=True
        )
        assert fault.happened == 1
        assert [isinstance(result, BaseException) for result in results].count(True) == 1
        assert next(result for result in results if isinstance(result, list))[-1] == "succeeded"


async def _wait(prediction: Prediction) -> None:
    await prediction.wait()


@pytest.mark.parametrize("follow", [_updates, _output, _stream, _wait])
async def test_viewers_meet_polls_that_fail_for_good(follow: Any) -> None:
    """When two polls have failed, one after the other, all who follow know: none waits for its turn to fail."""
    async with world() as here, here.client(timeout=30, poll_interval=0.2) as client:
        made = await client.predictions.create(
            model="acme/slow", input={"text": "a", "seconds": 30}
        )
        viewers = [await client.predictions.get(made.id) for _ in range(100)]
        tasks = [asyncio.create_task(follow(viewer)) for viewer in viewers]
        fault = here.emulator.wire.inject(
            Fault.ERROR_PAGE, method="GET", path=f"*/{made.id}", status=404
        )
        done, _ = await asyncio.wait(tasks, timeout=10)  # in turns they would need 20 s
        assert len(done) == 100
        assert all(task.exception() is not None for task in done)
        assert fault.happened < 10


async def test_views_of_two_tokens_do_not_share() -> None:
    """What one account sees is not shown to another one."""
    async with world() as here, here.client(poll_interval=0.05) as client:
        made = await client.predictions.create(
            model="acme/slow", input={"text": "a", "seconds": 0.5}
        )
        stranger = client.with_options(api_token="r8_of_somebody_else")
        seen = await client.predictions.get(made.id)
        theirs = await client.predictions.get(made.id)
        theirs._bind(stranger._context)
        first = asyncio.create_task(_updates(seen))
        await until(lambda: not first.done())
        with pytest.raises(Exception, match="401"):
            await _updates(theirs)
        assert (await first)[-1] == "succeeded"


async def test_lists_are_not_read_without_end(client: Client) -> None:
    """`rate_limit=False` switches the client's queue off, not the pace of its polls."""
    async with world() as here, here.client(rate_limit=False, timeout=30) as unlimited:
        outcomes = await unlimited.map(
            "acme/slow",
            [{"text": str(number), "seconds": 3} for number in range(300)],
            concurrency=300,
        ).collect()
        assert all(outcome.error is None for outcome in outcomes)
        lists = here.emulator.ledger.requests(operation="predictions.list")
        assert len(lists) < 400
