"""What to create: the target, the options and the encoded input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

import attrs

from .. import _arguments, exceptions
from .._arguments import check_events, check_webhook
from .._files.inputs import encode_input
from .._references import parse_reference, quoted_name
from ..types import FileEncodingStrategy, WebhookEvent
from .context import Context
from .pending import ListMatch


@attrs.frozen(eq=False, repr=False)
class CreateTarget:
    """What to run, by one of the three endpoints that create predictions."""

    path: str
    """Path of the endpoint."""
    fields: Mapping[str, Any]
    """Fields of the body in addition to the input and the options."""
    match: ListMatch
    """How to recognise the predictions in the list."""

    @classmethod
    @lru_cache(maxsize=256)
    def version(cls, text: str) -> CreateTarget:
        """Return the target for a version: its ID, `owner/name:version`, or `owner/name` of an official model."""
        reference = parse_reference(text, "version")
        return cls(
            "/predictions",
            {"version": reference.version or str(reference)},
            ListMatch(str(reference), model=reference.full_name, version=reference.version),
        )

    @classmethod
    def version_id(cls, id: str) -> CreateTarget:
        """Return the target for the ID of a version that came from the API; its form is not checked."""
        return cls("/predictions", {"version": id}, ListMatch(id, version=id))

    @classmethod
    @lru_cache(maxsize=256)
    def model(cls, full_name: str) -> CreateTarget:
        """Return the target for an official model, `owner/name`."""
        path = f"/models/{quoted_name(full_name, 'model')}/predictions"
        return cls(path, {}, ListMatch(full_name, model=full_name))

    @classmethod
    def deployment(cls, owner: str, name: str) -> CreateTarget:
        """Return the target for a deployment."""
        full_name = f"{owner}/{name}"
        return cls(
            f"/deployments/{quoted_name(full_name, 'deployment')}/predictions",
            {},
            ListMatch(f"deployment {full_name}", deployment=full_name),
        )


@attrs.define(eq=False, repr=False)
class CreateOptions:
    """The options of a create, as users give them."""

    wait: bool | float | None = None
    cancel_after: float | str | timedelta | None = None
    backup_deadline: int | None = None
    """Deadline in seconds that only backs up a timeout, if `cancel_after` is not given."""
    webhook: str | None = None
    webhook_events_filter: Sequence[WebhookEvent | str] | None = None
    file_encoding_strategy: FileEncodingStrategy | None = None
    use_file_output: bool | None = None
    stream: bool | None = None
    secrets: frozenset[str] | None = None
    """Names of the inputs that are to be kept secret; None if they are not known."""


@attrs.define(eq=False, repr=False)
class CreateRequest:
    """The request that creates a prediction, except for its target."""

    body: Mapping[str, Any]
    """Body, except for the fields of the target."""
    input: Mapping[str, Any]
    """Input as it is sent."""
    large: bool
    """Whether to encode the body in a worker thread."""
    headers: Mapping[str, str]
    """Headers, except for the deadline."""
    held: float
    """Seconds for which the server may hold its answer back."""
    use_file_output: bool | None
    """Whether file URLs in the output become `FileOutput`; None for the choice of the client."""
    cancel_after: int | None = None
    """Deadline in seconds, without a mark."""
    is_backup: bool = False
    """Whether the deadline only backs up a timeout."""
    secrets: frozenset[str] | None = None
    """Names of the inputs that are to be kept secret; None if they are not known."""


async def encode(
    context: Context, input: Mapping[str, Any] | None, strategy: FileEncodingStrategy | None
) -> tuple[dict[str, Any], bool]:
    """Return an input as JSON-like data whose files are uploaded, and whether it is large.

    Args:
        context: The client.
        input: The input.
        strategy: How its files are sent; None for the choice of the client.

    Raises:
        ArgumentError: The strategy or the input is invalid.
        ReplicateError: The API refused a file.
        TransportError: A file could not be uploaded.
        ReplicateException: There is not enough memory for the input.
    """
    if strategy is None:
        strategy = context.file_encoding_strategy
    try:
        return await encode_input(input, context.transport, strategy, context.uploads)
    except MemoryError as error:
        raise exceptions.ReplicateException(
            "nothing was created: there is not enough memory to encode the input"
        ) from error


async def prepare(
    context: Context, input: Mapping[str, Any] | None, options: CreateOptions
) -> CreateRequest:
    """Check the options, and upload the files in the input.

    Raises:
        ArgumentError: An option is invalid.
        ReplicateException: As `encode`.
    """
    preference, held = _arguments.wait_preference(options.wait)
    headers: dict[str, str] = {}
    if preference is not None:
        headers["Prefer"] = preference
    cancel_after = options.backup_deadline
    if options.cancel_after is not None:
        cancel_after = _arguments.cancel_after_seconds(options.cancel_after)
    body = _arguments.given(
        webhook=check_webhook(options.webhook),
        webhook_events_filter=check_events(options.webhook_events_filter),
        stream=options.stream,
    )
    for name, value in (("use_file_output", options.use_file_output), ("stream", options.stream)):
        if value is not None:
            _arguments.flag(value, name)
    encoded, large = await encode(context, input, options.file_encoding_strategy)
    return CreateRequest(
        body={**body, "input": encoded},
        input=encoded,
        large=large,
        headers=headers,
        held=held,
        use_file_output=options.use_file_output,
        secrets=options.secrets,
        cancel_after=cancel_after,
        is_backup=options.cancel_after is None and options.backup_deadline is not None,
    )
