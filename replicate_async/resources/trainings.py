"""Trainings: runs that make a new version of a model (:api:`trainings`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import exceptions
from .._arguments import check_events, check_webhook, given
from .._codec import structure
from .._files.inputs import encode_input
from .._http.call import Call
from .._http.retry import Kind
from .._jobs.creating import send_create
from .._jobs.pending import ListMatch, PendingCreate
from .._jobs.training import Training
from .._references import full_name, identifier, named, parse_name, parse_reference
from ..types import FileEncodingStrategy, WebhookEvent
from ._base import Namespace
from ._pages import Listing, pages
from .models import Model, Version

__all__ = ("Training", "Trainings")


class Trainings(Namespace):
    """Trainings: runs that make a new version of a model (:api:`trainings`)."""

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
        """Start a training. It costs from now on. Calls :api:`trainings.create`.

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
        pending = PendingCreate()
        call = Call(
            "POST",
            f"/models/{identifier(owner, 'model')}/{identifier(name, 'model')}"
            f"/versions/{identifier(reference.version, 'version')}/trainings",
            Kind.CREATE,
            send_state=pending,
            json={"destination": target, "input": encoded, **options},
            large=large,
        )
        shown = f"{owner}/{name}:{reference.version}"
        wanted = ListMatch(
            shown,
            model=f"{owner}/{name}",
            version=reference.version,
            listing="/trainings",
        )
        return await send_create(context, call, Training, wanted, encoded, pending)

    async def get(self, id: str) -> Training:
        """Fetch a training. Calls :api:`trainings.get`."""
        call = Call("GET", f"/trainings/{identifier(id, 'id')}")
        return await self._context.fetch(Training, call)

    def list(self, cursor: str | None = None) -> Listing[Training]:
        """List the account's trainings, newest first. Calls :api:`trainings.list`.

        Args:
            cursor: The `next` or `previous` of a page, to begin there.
        """
        return pages(self._context, Call("GET", "/trainings"), Training, cursor)

    async def cancel(self, id: str) -> Training:
        """Stop a training. Calls :api:`trainings.cancel`."""
        identifier(id, "id")
        return await self._context.bind(structure({"id": id}, Training)).cancel()
