"""Work in threads, and several things at once, so that a cancellation leaves nothing behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

import anyio

S = TypeVar("S")


T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Return what *function* returns in a worker thread."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


async def shielded_in_thread(function: Callable[[], None]) -> None:
    """Wait until *function* has cleaned up in a worker thread, also if the task is being cancelled.

    It must be quick, and must not raise.
    """
    interrupted: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        cleaning = asyncio.get_running_loop().run_in_executor(None, function)
        while not cleaning.done():
            try:
                await asyncio.shield(cleaning)
            except asyncio.CancelledError as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted


async def shielded(work: Coroutine[Any, Any, None]) -> None:
    """Await *work* to its end, however often the task is cancelled meanwhile; it must be bounded."""
    # In a task of its own: a shield of anyio does not hold cancellations that are not anyio's.
    task = asyncio.get_running_loop().create_task(work)
    shield: AbstractContextManager[object] = nullcontext()
    if "anyio._backends._asyncio" in sys.modules:  # else there is none of its scopes around
        shield = anyio.CancelScope(shield=True)
    with shield:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
    task.result()


async def gather_limited(
    function: Callable[[S], Awaitable[T]], items: Sequence[S], *, at_once: int
) -> list[T]:
    """Await *function* for all items; the first failure cancels the rest and is raised."""
    if len(items) == 1:
        return [await function(items[0])]

    results: list[Any] = [None] * len(items)
    turns = asyncio.Semaphore(at_once)

    async def collect(index: int) -> None:
        async with turns:
            results[index] = await function(items[index])

    failure: BaseException
    try:
        async with anyio.create_task_group() as group:
            for index in range(len(items)):
                group.start_soon(collect, index)
        return results
    except BaseExceptionGroup as failures:
        failure = failures
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
    raise failure
