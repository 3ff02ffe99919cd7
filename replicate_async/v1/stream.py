"""Run a model and stream its output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from ._arguments import create_options, target_of, with_urls
from ._backend import Backend, Operation, api_errors
from ._events import ServerSentEvent, async_events_of, events_of
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
    events = client.call(_stream(ref, input, params))
    yield from events_of(client, events, use_file_output)


async def async_stream(
    client: Backend,
    ref: Any,
    input: dict[str, Any] | None = None,
    *,
    use_file_output: bool | None = True,
    **params: Any,
) -> AsyncIterator[ServerSentEvent]:
    """Run a model, and yield its events as they arrive; see `Client.async_stream`."""
    with api_errors():
        events = _stream(ref, input, params)(client.async_client())
    async with aclosing(async_events_of(client, events, use_file_output)) as found:
        async for event in found:
            yield event


def _stream(ref: Any, input: Any, params: Mapping[str, Any]) -> Operation:
    target, options = target_of(ref), create_options(params)
    return lambda api: api.stream(str(target), with_urls(input or {}), **options)
