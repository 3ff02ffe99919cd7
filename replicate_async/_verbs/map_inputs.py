"""Inputs of a fan-out, read without holding up the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from .. import exceptions

Inputs = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]


class _Reader:
    """Reads inputs one by one, without holding up the event loop."""

    async def next(self) -> Any:
        """Return the next input.

        Raises:
            StopAsyncIteration: There is none.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Read no more."""


def _reader(inputs: Inputs) -> _Reader:
    if isinstance(inputs, (Mapping, str, bytes)):
        raise exceptions.ArgumentTypeError(
            "inputs", f"expected many inputs, got a {type(inputs).__name__}: for one, use `run`"
        )
    if isinstance(inputs, AsyncIterable):
        return _Asynchronous(inputs)
    if isinstance(inputs, (list, tuple)):
        return _InMemory(inputs)
    try:
        return _InThread(iter(inputs))
    except TypeError:
        raise exceptions.ArgumentTypeError(
            "inputs", f"a {type(inputs).__name__} cannot be iterated over"
        ) from None


class _InMemory(_Reader):
    def __init__(self, inputs: Iterable[Any]) -> None:
        self._inputs = iter(inputs)
        self._count = 0

    async def next(self) -> Any:
        self._count += 1
        if self._count % 64 == 0:
            await asyncio.sleep(0)  # others have their turn, also if nothing else awaits
        for value in self._inputs:
            return value
        raise StopAsyncIteration


class _Asynchronous(_Reader):
    def __init__(self, inputs: AsyncIterable[Any]) -> None:
        self._inputs: AsyncIterator[Any] = aiter(inputs)

    async def next(self) -> Any:
        return await anext(self._inputs)

    async def aclose(self) -> None:
        close = getattr(self._inputs, "aclose", None)
        if close is not None:
            with suppress(Exception):  # the user's
                await close()


class _InThread(_Reader):
    """An iterator that may block: a thread of its own calls it. It ends with the process at the latest."""

    def __init__(self, inputs: Iterator[Any]) -> None:
        self._inputs = inputs
        self._asked: SimpleQueue[asyncio.Future[tuple[bool, Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def next(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run,
                args=(self._serve, loop),
                name="replicate_async.inputs",
                daemon=True,
            )
            self._thread.start()
        answer: asyncio.Future[tuple[bool, Any]] = loop.create_future()
        self._asked.put(answer)
        good, value = await answer
        if good:
            return value
        raise StopAsyncIteration if isinstance(value, StopIteration) else value

    async def aclose(self) -> None:
        self._asked.put(None)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (answer := self._asked.get()) is not None:
            try:
                result = True, next(self._inputs)
            except BaseException as error:  # noqa: BLE001  (raised where it is awaited)
                result = False, error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_answer, answer, result)
            del answer, result
        close = getattr(self._inputs, "close", None)
        if close is not None:
            with suppress(Exception):  # the user's
                close()


def _answer(future: asyncio.Future[tuple[bool, Any]], result: tuple[bool, Any]) -> None:
    if not future.done():
        future.set_result(result)
