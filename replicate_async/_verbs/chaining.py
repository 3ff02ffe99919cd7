"""Outputs of functions as inputs of others: found in the inputs, awaited, and put in their places."""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, Final

from .._concurrency import gather_limited
from .._jobs.policy import has_ended
from .._jobs.prediction import EventStream, OutputStream, Prediction
from .._unpicklable import Unpicklable

_AT_ONCE: Final = 64
"""How many outputs are awaited at a time."""

_MAX_DEPTH: Final = 64
"""How deep in an input the output of another function is looked for."""


class RunHandle(Unpicklable):
    """A run of a model."""

    _instead = "use its `prediction`, which can"

    @property
    @abstractmethod
    def prediction(self) -> Prediction:
        """The prediction."""

    @abstractmethod
    def _pending_output(self) -> Awaitable[Any] | OutputStream:
        """Return the output, which another function takes as an input."""

    async def logs(self) -> str:
        """Fetch the logs so far. Calls :api:`predictions.get`, unless the prediction has ended.

        Returns:
            The logs.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        if not has_ended(self.prediction):
            await self.prediction.reload()
        return self.prediction.logs

    async def cancel(self) -> Prediction:
        """Cancel the prediction. One that has ended stays as it is. Calls :api:`predictions.cancel`.

        Returns:
            The prediction.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return await self.prediction.cancel()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prediction.id} {self.prediction.status}>"


def is_pending(value: Any) -> bool:
    """Return whether a value stands for an output that has yet to come."""
    return (
        isinstance(value, (RunHandle, OutputStream, EventStream))
        or inspect.iscoroutine(value)
        or asyncio.isfuture(value)
    )


async def await_outputs(inputs: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Await the outputs that inputs stand for.

    Returns:
        The inputs with the outputs in their places (if there are any, a new dict), and the names of those that
        are an output as a whole.
    """
    pending = {id(value): value for value in _pending_in(inputs)}
    if not pending:
        return inputs, set()
    outputs = await gather_limited(_output_of, list(pending.values()), at_once=_AT_ONCE)
    known = dict(zip(pending, outputs, strict=True))
    awaited = {name: _replaced(value, known) for name, value in inputs.items()}
    return awaited, {name for name, value in inputs.items() if id(value) in known}


def close_coroutines(inputs: Mapping[str, Any]) -> None:
    """Close coroutines in inputs that will not be awaited, since Python would warn of them."""
    for value in _pending_in(inputs):
        if inspect.iscoroutine(value):
            value.close()


def _pending_in(value: Any, depth: int = 0) -> Iterator[Any]:
    if is_pending(value):
        yield value
    elif depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            for item in value.values():
                yield from _pending_in(item, depth + 1)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from _pending_in(item, depth + 1)


def _replaced(value: Any, known: Mapping[int, Any], depth: int = 0) -> Any:
    if id(value) in known:
        return known[id(value)]
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {key: _replaced(item, known, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [_replaced(item, known, depth + 1) for item in value]
    return value


async def _output_of(value: Any) -> Any:
    if isinstance(value, RunHandle):
        value = value._pending_output()
    if isinstance(value, OutputStream):
        return await value.collect()
    if isinstance(value, EventStream):
        async with value:
            pieces = [event.output async for event in value if event.event == "output"]
        return "".join(pieces) if all(isinstance(piece, str) for piece in pieces) else pieces
    return await value
