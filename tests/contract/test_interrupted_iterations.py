"""Iterations whose wait for the next item was cancelled: they continue, or say what became of them."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from replicate_async import Client, FileOutput, exceptions
from replicate_async import sync as replicate_sync
from replicate_async.testing import Emulator, OutputFile, Request

from .conftest import until

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with models that take their time, and short pages."""
    with Emulator(rate_limits=False, page_sizes={"predictions": 3}) as running:

        @running.model("acme/slow", official=True)
        async def slow(text: str) -> AsyncIterator[str]:
            for word in text.split():
                await asyncio.sleep(0.25)
                print(word)
                yield word

        @running.model("acme/echo", official=True)
        async def echo(text: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            return text

        @running.model("acme/file", official=True)
        async def file(text: str) -> OutputFile:
            return OutputFile(CONTENT, "out.bin", "application/octet-stream")

        yield running


async def impatient(items: AsyncIterator[Any], seconds: float = 0.02) -> tuple[list[Any], int]:
    """Take all items, and cancel each wait that is longer; return the items, and how many were cancelled."""
    found: list[Any] = []
    cancelled = 0
    with anyio.fail_after(20):
        while True:
            try:
                found.append(await asyncio.wait_for(anext(items), seconds))
            except TimeoutError:
                cancelled += 1
            except StopAsyncIteration:
                return found, cancelled


def refuse_next(emulator: Emulator, operation: str) -> None:
    """Let the emulator refuse the next request of an operation."""
    left = [True]

    async def middleware(
        request: web.BaseRequest,
        record: Request,
        answer: Callable[[web.BaseRequest], Any],
    ) -> web.StreamResponse:
        if record.operation == operation and left:
            left.clear()
            return web.json_response({"detail": "no"}, status=403)
        response: web.StreamResponse = await answer(request)
        return response

    emulator.middlewares.append(middleware)


@pytest.mark.parametrize("follow", ["updates", "output_iterator"])
async def test_progress_continues(client: Client, follow: str) -> None:
    """A cancelled wait for progress loses nothing, and is not taken for the end."""
    prediction = await client.predictions.create("acme/slow", {"text": "one two three"})
    found, cancelled = await impatient(getattr(prediction, follow)())
    assert cancelled > 3
    assert prediction.status == "succeeded"
    if follow == "updates":
        assert found[-1].status == "succeeded"
        assert "".join(update.logs for update in found) == prediction.logs
    else:
        assert found == ["one", "two", "three"]


async def test_output_continues_after_an_error(client: Client, emulator: Emulator) -> None:
    """A poll that fails for good is raised, and the next step polls again."""
    prediction = await client.predictions.create("acme/slow", {"text": "one two"})
    items = prediction.output_iterator()
    found = [await anext(items)]
    refuse_next(emulator, "predictions.get")
    with pytest.raises(exceptions.PermissionDeniedError):
        await anext(items)
    found += [item async for item in items]
    assert prediction.status == "succeeded"
    assert found == ["one", "two"]


@pytest.mark.parametrize("kind", ["items", "page", "pages"])
async def test_lists_continue(client: Client, emulator: Emulator, kind: str) -> None:
    """A page whose fetching was cancelled is fetched by the next step."""
    made = [(await client.predictions.create("acme/echo", {"text": str(n)})).id for n in range(7)]
    page = await client.predictions.list()
    emulator.latency = 0.25
    items: dict[str, Callable[[], AsyncIterator[Any]]] = {
        "items": lambda: aiter(client.predictions.list()),
        "page": page.auto_paging_iter,
        "pages": lambda: client.paginate(client.predictions.list),
    }
    iterator = items[kind]()
    for _ in range(2):
        if kind != "page":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(iterator), 0.03)
    found = [await anext(iterator) for _ in range(1 if kind == "pages" else 3)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(iterator), 0.03)
    found += [item async for item in iterator]
    if kind == "pages":
        found = [each for page in found for each in page]
    assert [each.id for each in found] == made[::-1]


@pytest.mark.parametrize("kind", ["download", "data URI"])
async def test_files_continue(client: Client, emulator: Emulator, kind: str) -> None:
    """A download continues after a step that was cancelled, with what is missing."""
    output = await client.run("acme/file", {"text": "a"})
    if kind == "data URI":
        output = FileOutput("data:;base64," + base64.b64encode(CONTENT).decode())
    else:
        emulator.latency = 5.0
    chunks = aiter(output)
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0 if kind == "data URI" else 0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    emulator.latency = 0.0
    content = await anext(chunks)
    while True:
        task = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        task.cancel()
        try:
            content += await task
        except asyncio.CancelledError:
            try:
                content += await anext(chunks)
            except StopAsyncIteration:
                break
        except StopAsyncIteration:
            break
    assert content == CONTENT
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


@pytest.mark.parametrize("how", ["cancel", "leave", "journal"])
async def test_map_says_so(client: Client, emulator: Emulator, how: str, tmp_path: Path) -> None:
    """A fan-out that ended with a cancelled wait is not taken for one that is complete."""
    options: dict[str, Any] = {"on_abandon": "leave"} if how == "leave" else {}
    if how == "journal":
        options = {"journal": tmp_path / "run.db"}
    inputs: list[dict[str, Any]] = [{"text": "a"}, {"text": "b", "seconds": 30.0}]
    async with client.map("acme/echo", inputs, **options) as outcomes:
        assert (await anext(outcomes)).output == "a"
        await until(lambda: len(emulator.ledger.created()) == 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(outcomes), 0.3)
        says = {"cancel": "were cancelled", "leave": "still be running", "journal": "run.db"}[how]
        for _ in range(2):
            with pytest.raises(exceptions.StreamAbandoned, match=says):
                await anext(outcomes)
        with pytest.raises(exceptions.StreamAbandoned):
            await outcomes.collect()
    assert len(emulator.ledger.cancelled()) == (how == "cancel")
    with pytest.raises(exceptions.StreamAbandoned):
        await anext(outcomes)


async def test_map_says_so_to_all_consumers(client: Client, emulator: Emulator) -> None:
    """Of several tasks that take outcomes, one that is cancelled ends the fan-out, and the others are told."""
    outcomes = client.map("acme/echo", [{"text": "b", "seconds": 30.0}])
    tasks = [asyncio.ensure_future(anext(outcomes)) for _ in range(3)]
    await until(lambda: len(emulator.ledger.created()) == 1)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [
        asyncio.CancelledError,
        exceptions.StreamAbandoned,
        exceptions.StreamAbandoned,
    ]


# -- The facade --------------------------------------------------------------------------------


@pytest.fixture
def sync_client(emulator: Emulator) -> Iterator[replicate_sync.Client]:
    """Return a client of the facade."""
    with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
        yield client


@contextmanager
def pressed(seconds: float = 0.15) -> Iterator[None]:
    """Press Ctrl-C after a while, and expect it."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    timer.join()


ctrl_c = pytest.mark.skipif(os.name == "nt", reason="there is no such signal there")


@ctrl_c
@pytest.mark.parametrize("follow", ["updates", "output_iterator"])
@pytest.mark.parametrize("iterated", [False, True])
def test_progress_continues_sync(
    sync_client: replicate_sync.Client, follow: str, iterated: bool
) -> None:
    """After Ctrl-C the facade continues, too, whatever is called for the next item."""
    prediction = sync_client.predictions.create(
        "acme/slow", {"text": "one two three four five six"}
    )
    items = getattr(prediction, follow)()
    if iterated:
        items = iter(items)
    found: list[Any] = []
    with pressed(0.4):
        found.extend(iter(partial(next, items), None))
    found += list(items)
    assert prediction.status == "succeeded"
    if follow == "updates":
        assert "".join(update.logs for update in found) == prediction.logs
    else:
        assert found == ["one", "two", "three", "four", "five", "six"]


@ctrl_c
@pytest.mark.parametrize("kind", ["page", "pages"])
def test_lists_continue_sync(
    sync_client: replicate_sync.Client, emulator: Emulator, kind: str
) -> None:
    """After Ctrl-C, and after an error, the facade fetches the same page again."""
    made = [sync_client.predictions.create("acme/echo", {"text": str(n)}).id for n in range(7)]
    items: Iterator[Any]
    if kind == "page":
        items = sync_client.predictions.list().auto_paging_iter()
    else:
        items = sync_client.paginate(sync_client.predictions.list)
    found: list[Any] = [next(items) for _ in range(3 if kind == "page" else 1)]
    emulator.latency = 0.5
    with pressed():
        next(items)
    emulator.latency = 0.0
    refuse_next(emulator, "predictions.list")
    with pytest.raises(exceptions.PermissionDeniedError):
        next(items)
    found += list(items)
    if kind == "pages":
        found = [each for page in found for each in page]
    assert [each.id for each in found] == made[::-1]


@ctrl_c
def test_files_continue_sync(sync_client: replicate_sync.Client, emulator: Emulator) -> None:
    """After Ctrl-C the facade continues a download."""
    output = sync_client.run("acme/file", {"text": "a"})
    emulator.latency = 0.5
    chunks = iter(output)
    with pressed():
        next(chunks)
    emulator.latency = 0.0
    assert b"".join(chunks) == CONTENT


@ctrl_c
def test_map_says_so_sync(sync_client: replicate_sync.Client, emulator: Emulator) -> None:
    """A fan-out of the facade that was interrupted is not taken for one that is complete."""
    inputs: list[dict[str, Any]] = [{"text": "a"}, {"text": "b", "seconds": 30.0}]
    outcomes = sync_client.map("acme/echo", inputs)
    assert next(outcomes).output == "a"
    with pressed(0.3):
        next(outcomes)
    for _ in range(2):
        with pytest.raises(exceptions.StreamAbandoned, match="were cancelled"):
            next(outcomes)
    assert len(emulator.ledger.cancelled()) == 1
    outcomes.close()
