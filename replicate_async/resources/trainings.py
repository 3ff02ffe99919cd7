"""Trainings: runs that make a new version of a model (HTTP API, section 11)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

import attrs

from .. import _policy, exceptions
from .._inputs import encode_input
from .._policy import Kind
from .._references import identifier, named, parse_name, parse_reference
from .._transport import Call
from ..types import (
    FileEncodingStrategy,
    PredictionUrls,
    Progress,
    Status,
    TrainingOutput,
    Update,
    WebhookEvent,
)
from . import _jobs
from ._base import Bound, Context, Listing, Namespace, given, pages
from ._creates import Creation, Wanted, send_create
from .models import Model, Version
from .predictions import check_events, check_webhook, full_name

__all__ = ("Training", "Trainings")

_logger = logging.getLogger("replicate_async")


@attrs.define(eq=False)
class Training(Bound):
    """A run that makes a new version of a model (HTTP API, section 11.1).

    What `reload()` and `wait()` learn is written into the object itself.
    """

    id: str
    """What identifies it."""
    status: Status = ""
    """Where it is."""
    model: str | None = None
    """The model that is trained, `owner/name`."""
    version: str | None = None
    """The version that is trained."""
    input: dict[str, Any] = attrs.field(factory=dict)
    """What the training was given."""
    output: TrainingOutput | None = None
    """What it made."""
    logs: str = ""
    """What it has logged so far."""
    error: str | None = None
    """Why it failed."""
    metrics: dict[str, Any] = attrs.field(factory=dict)
    """Measurements: `predict_time` and `total_time` in seconds."""
    source: str | None = None
    """`"api"` or `"web"`."""
    created_at: datetime | None = None
    """When it was created."""
    started_at: datetime | None = None
    """When it started."""
    completed_at: datetime | None = None
    """When it ended."""
    webhook: str | None = None
    """The URL that is told of it."""
    webhook_events_filter: list[str] = attrs.field(factory=list)
    """What the webhook is called for."""
    urls: PredictionUrls = attrs.field(factory=PredictionUrls)
    """Where it can be reached."""

    _since: float = attrs.field(factory=time.monotonic, repr=False, init=False)

    @property
    def progress(self) -> Progress | None:
        """How far it is, if its logs tell (HTTP API, section 4.14)."""
        return _policy.progress(self.logs)

    async def reload(self) -> Self:
        """Fetch the state that it has now, and return the training itself.

        Operation: trainings.get.
        """
        await self._look(Kind.READ)
        return self

    async def wait(self, *, timeout: float | timedelta | None = None) -> Self:
        """Wait until it has ended, and return the training itself. A failure is no error here.

        Args:
            timeout: Seconds, or a timedelta; None: 24 hours.

        Raises:
            RunTimeout: The time was over first. The training goes on.
        """
        return await _jobs.wait(self, self._poll, timeout)

    async def cancel(self) -> Self:
        """Stop it, and return the training itself. One that has ended stays as it is.

        Operation: trainings.cancel.
        """
        self._adopt(await _cancel(self._context, self.id))
        return self

    async def updates(self) -> AsyncIterator[Update]:
        """Yield its status, new log text and progress: at first as they are, then whenever they change."""
        async for update in _jobs.updates(self, self._poll):
            yield update

    async def _poll(self, patience: float = _policy.LONGEST_WAIT) -> None:
        await self._look(Kind.POLL, patience)
        _jobs.log_end(self)

    async def _look(self, kind: Kind, patience: float = _policy.LONGEST_WAIT) -> None:
        call = Call("GET", f"/trainings/{identifier(self.id, 'id')}", kind)
        self._adopt(await self._context.fetch(Training, call, patience))

    def _adopt(self, fresh: Training) -> None:
        since = self._since
        self._replace(fresh)
        self._since = since


class Trainings(Namespace):
    """Trainings: runs that make a new version of a model (HTTP API, section 11)."""

    async def create(
        self,
        version: str | Version | None = None,
        input: Mapping[str, Any] | None = None,
        destination: str | Model | None = None,
        *,
        model: str | Model | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
    ) -> Training:
        """Start a training. It costs from now on. Operation: trainings.create (section 11.2).

        Args:
            version: What to train: `owner/name:version`, or the version's id together with `model`.
            input: What the training takes. Files anywhere in it are uploaded.
            destination: The model of yours that gets the new version, `owner/name`.
            model: The model of `version`, `owner/name`, where `version` does not name it.
            webhook: An HTTPS URL to tell of it.
            webhook_events_filter: What to tell: `start`, `output`, `logs`, `completed`.
            file_encoding_strategy: `"url"` or `"base64"`; the client's by default.

        Raises:
            ArgumentError: An argument is impossible; nothing was sent.
            ReplicateError: The API refuses; nothing was created.
            AmbiguousCreateError: No answer came: the training may exist.
        """
        if version is None:
            raise exceptions.ArgumentError("version", "it is missing")
        if destination is None:
            raise exceptions.ArgumentError("destination", "it is missing")
        reference = parse_reference(named(version, "id", "version"), "version")
        if reference.version is None:
            raise exceptions.InvalidReference(
                "version", str(version), "a version: its id is missing"
            )
        if model is not None:
            owner, name = parse_name(*full_name(model, "model"), "model")
        elif reference.owner is not None and reference.name is not None:
            owner, name = reference.owner, reference.name
        else:
            raise exceptions.ArgumentError(
                "model", "name the model of the version, or pass 'owner/name:version'"
            )
        target = "/".join(parse_name(*full_name(destination, "destination"), "destination"))
        options = given(
            webhook=check_webhook(webhook),
            webhook_events_filter=check_events(webhook_events_filter),
        )
        context = self._context
        context.transport.token()
        encoded, large = await encode_input(
            input,
            context.transport,
            file_encoding_strategy or context.file_encoding_strategy,
            context.uploads,
        )
        creation = Creation()
        call = Call(
            "POST",
            f"/models/{identifier(owner, 'model')}/{identifier(name, 'model')}"
            f"/versions/{identifier(reference.version, 'version')}/trainings",
            Kind.CREATE,
            trail=creation,
            json={"destination": target, "input": encoded, **options},
            large=large,
        )
        shown = f"{owner}/{name}:{reference.version}"
        wanted = Wanted(
            shown,
            model=f"{owner}/{name}",
            version=reference.version,
            listing="/trainings",
        )
        return await send_create(context, call, Training, wanted, encoded, creation)

    async def get(self, id: str) -> Training:
        """Fetch a training. Operation: trainings.get (HTTP API, section 11.4)."""
        call = Call("GET", f"/trainings/{identifier(id, 'id')}")
        return await self._context.fetch(Training, call)

    def list(self, cursor: str | None = None) -> Listing[Training]:
        """List the account's trainings, newest first. Operation: trainings.list (section 11.3).

        Args:
            cursor: The `next` or `previous` of a page, to begin there.
        """
        return pages(self._context, Call("GET", "/trainings"), Training, cursor)

    async def cancel(self, id: str) -> Training:
        """Stop a training. Operation: trainings.cancel (HTTP API, section 11.5)."""
        return await _cancel(self._context, id)


async def _cancel(context: Context, id: str) -> Training:
    call = Call("POST", f"/trainings/{identifier(id, 'id')}/cancel", Kind.POLL, urgent=True)
    cancelled = await context.fetch(Training, call, _policy.LOOK_PATIENCE)
    context.stats.cancelled += 1
    _logger.info("training %s cancelled", cancelled.id)
    return cancelled
