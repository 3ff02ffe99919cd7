"""Run a model and stream its output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from ._arguments import create_options, target_of, with_urls
from ._backend import Backend, Operation
from ._events import ServerSentEvent, event_of, stream_errors
from .exceptions import ReplicateError as ReplicateError  # users look for it here, too

__all__ = ("ServerSentEvent", "async_stream", "stream")


def stream(
    client: Backend,
    ref: Any,
    input: dict[str, Any] | None = None,
    *,
    use_file_output: bool | None = True,
    **params: Any,
) -> Iterator[ServerSentEvent]:
    """Run a model, and yield its events as they arrive; see `Client.stream`."""
    with stream_errors(), client.call(_stream(ref, input, params)) as events:
        for event in events:
            if (made := event_of(client, event, use_file_output)) is not None:
                yield made


async def async_stream(
    client: Backend,
    ref: Any,
    input: dict[str, Any] | None = None,
    *,
    use_file_output: bool | None = True,
    **params: Any,
) -> AsyncIterator[ServerSentEvent]:
    """Run a model, and yield its events as they arrive; see `Client.async_stream`."""
    # Not one generator around another: at its end, an event loop closes all of them at the same time.
    with stream_errors():
        async with _stream(ref, input, params)(client.async_client()) as events:
            async for event in events:
                if (made := event_of(client, event, use_file_output)) is not None:
                    yield made


def _stream(ref: Any, input: Any, params: Mapping[str, Any]) -> Operation:
    target, options = target_of(ref), create_options(params)
    return lambda api: api.stream(str(target), with_urls(input or {}), **options)
