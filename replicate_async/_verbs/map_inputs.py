"""The inputs of a fan-out, read without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

import anyio

from .. import exceptions
from .._threads import LOST_AFTER, NO_THREAD_MEMORY, REPORT_TIME, start_thread

Inputs: TypeAlias = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]

_Requests: TypeAlias = SimpleQueue[Future[Any] | None]
"""Requests to a thread: for the next input, or (None) to end."""

_END: Final = object()

_CLOSING: Final = 10.0
"""Seconds for which an asynchronous iterator may close."""


def read(inputs: Inputs) -> AsyncGenerator[Any, None]:
    """Return an iterator over the inputs. Each is read when it is requested, and not before.

    Raises:
        ArgumentTypeError: They cannot be iterated over, or are a single input.
    """
    if isinstance(inputs, (Mapping, str, bytes)):
        raise exceptions.ArgumentTypeError(
            "inputs", f"expected many inputs, got a {type(inputs).__name__}: for one, use `run`"
        )
    if isinstance(inputs, AsyncIterable):
        return _read_async(inputs)
    try:
        iterator = iter(inputs)
    except TypeError:
        raise exceptions.ArgumentTypeError(
            "inputs", f"a {type(inputs).__name__} cannot be iterated over"
        ) from None
    if isinstance(inputs, (list, tuple)):
        return _read_memory(iterator)
    return _read_in_thread(iterator)


async def _read_memory(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    for value in iterator:
        yield value


async def _read_async(inputs: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    iterator = aiter(inputs)
    try:
        async for value in iterator:
            yield value
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            with anyio.move_on_after(_CLOSING, shield=True), suppress(Exception):  # the user's
                await close()


async def _read_in_thread(iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
    """Read an iterator that may block in one thread, in which all of its code runs."""
    requests: _Requests = SimpleQueue()
    # Not a worker thread of anyio: the process would wait for it at its exit, and the iterator may never return.
    thread = threading.Thread(
        target=contextvars.copy_context().run,
        args=(_serve, iterator, requests),
        name="replicate_async.inputs",
        daemon=True,
    )
    try:
        start_thread(thread)
    except (RuntimeError, MemoryError) as error:
        raise exceptions.ReplicateException(
            f"the inputs cannot be read: {str(error) or NO_THREAD_MEMORY}. Pass a list or an async iterator, or let the process have"
            " more threads and memory"
        ) from error
    try:
        while True:
            request: Future[Any] = Future()
            requests.put(request)
            value = await _answer(request, thread)
            if value is _END:
                return
            yield value
    finally:
        requests.put(None)


async def _answer(request: Future[Any], thread: threading.Thread) -> Any:
    """Wait for the answer to a request.

    Raises:
        ReplicateException: The thread has ended without one.
    """
    answer = asyncio.wrap_future(request)
    try:
        while True:
            was_over = request.done() or not thread.is_alive()
            await asyncio.wait({answer}, timeout=REPORT_TIME if was_over else LOST_AFTER)
            if answer.done():
                return answer.result()
            if was_over:  # without memory, the thread could not report it, or has ended
                break
    finally:
        answer.cancel()
    if request.done() and not request.cancelled():
        return request.result()
    raise exceptions.ReplicateException(
        "the thread that reads the inputs has ended: there is not enough memory"
    )


def _serve(iterator: Iterator[Any], requests: _Requests) -> None:
    while (request := requests.get()) is not None:
        if not request.set_running_or_notify_cancel():
            continue
        try:
            request.set_result(next(iterator, _END))
        except BaseException as error:  # noqa: BLE001  (raised where it is awaited)
            request.set_exception(error)
        del request
    close = getattr(iterator, "close", None)
    if close is not None:
        with suppress(Exception):  # the user's
            close()
