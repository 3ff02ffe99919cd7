"""What to create: target, options and encoded input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

import attrs

from .. import _arguments
from .._arguments import check_events, check_webhook
from .._files.inputs import encode_input
from .._references import parse_reference, quoted_name
from ..types import FileEncodingStrategy, WebhookEvent
from .context import Context
from .pending import ListMatch


@attrs.frozen(eq=False, repr=False)
class CreateTarget:
    """What is to be run: one of the three endpoints that create predictions."""

    path: str
    """The path of the endpoint."""
    fields: Mapping[str, Any]
    """What its body has beside the input."""
    wanted: ListMatch
    """How to recognise its predictions."""

    @classmethod
    @lru_cache(maxsize=256)
    def version(cls, text: str) -> CreateTarget:
        """A version: its id, `owner/name:version`, or `owner/name` of an official model."""
        reference = parse_reference(text, "version")
        return cls(
            "/predictions",
            {"version": reference.version or str(reference)},
            ListMatch(str(reference), model=reference.full_name, version=reference.version),
        )

    @classmethod
    @lru_cache(maxsize=256)
    def model(cls, full_name: str) -> CreateTarget:
        """An official model, `owner/name`."""
        path = f"/models/{quoted_name(full_name, 'model')}/predictions"
        return cls(path, {}, ListMatch(full_name, model=full_name))

    @classmethod
    def deployment(cls, owner: str, name: str) -> CreateTarget:
        """A deployment."""
        full_name = f"{owner}/{name}"
        return cls(
            f"/deployments/{quoted_name(full_name, 'deployment')}/predictions",
            {},
            ListMatch(f"deployment {full_name}", deployment=full_name),
        )


@attrs.define(eq=False, repr=False)
class CreateOptions:
    """What a prediction is created with, beside its target and input."""

    wait: bool | float | None = None
    cancel_after: float | str | timedelta | None = None
    net: int | None = None
    """Seconds of a deadline that is only the net beneath a timeout, where `cancel_after` is not given."""
    webhook: str | None = None
    webhook_events_filter: Sequence[WebhookEvent] | None = None
    file_encoding_strategy: FileEncodingStrategy | None = None
    use_file_output: bool | None = None
    stream: bool | None = None


@attrs.define(eq=False, repr=False)
class CreateRequest:
    """What is sent to create a prediction, except for where it is sent."""

    body: Mapping[str, Any]
    input: Mapping[str, Any]
    large: bool
    headers: Mapping[str, str]
    held: float
    """Seconds for which the server may hold its answer back."""
    use_file_output: bool | None
    cancel_after: int | None = None
    """Seconds of the deadline, without a mark."""
    is_net: bool = False
    """Whether the deadline is only the net beneath a timeout."""
    may_skip_hold: bool = False
    """Whether the prediction may be polled from the start, where the server holds too many creates."""


async def prepare(
    context: Context, input: Mapping[str, Any] | None, options: CreateOptions
) -> CreateRequest:
    """Check what is to be sent, and upload the files in the input."""
    preference, held = _arguments.wait_preference(options.wait)
    headers: dict[str, str] = {}
    if preference is not None:
        headers["Prefer"] = preference
    cancel_after, is_net = options.net, options.net is not None
    if options.cancel_after is not None:
        cancel_after, is_net = _arguments.cancel_after_seconds(options.cancel_after), False
    body: dict[str, Any] = {}
    if options.webhook is not None:
        body["webhook"] = check_webhook(options.webhook)
    if options.webhook_events_filter is not None:
        body["webhook_events_filter"] = check_events(options.webhook_events_filter)
    if options.stream is not None:
        body["stream"] = options.stream
    strategy = options.file_encoding_strategy or context.file_encoding_strategy
    if strategy != "url":
        _arguments.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    body["input"], large = await encode_input(input, context.transport, strategy, context.uploads)
    return CreateRequest(
        body,
        body["input"],
        large,
        headers,
        held,
        options.use_file_output,
        cancel_after,
        is_net,
    )
