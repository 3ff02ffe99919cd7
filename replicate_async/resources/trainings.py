"""Trainings: runs that create a new version of a model (:api:`trainings`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .. import exceptions
from .._arguments import check_events, check_webhook, given
from .._http.call import Call
from .._http.retry import Kind
from .._jobs.creating import send_create
from .._jobs.hints import with_hint
from .._jobs.job import job_by_id, job_from
from .._jobs.pending import ListMatch, PendingCreate
from .._jobs.request import encode
from .._jobs.training import Training
from .._jobs.unfollowed import create_unfollowed
from .._references import (
    Reference,
    full_name,
    identifier,
    parse_name,
    parse_version,
    plain_identifier,
)
from ..types import FileEncodingStrategy, WebhookEvent
from ._base import Namespace
from ._pages import Listing, pages
from .models import Model
from .versions import Version

__all__ = ("Training", "Trainings")


class Trainings(Namespace):
    """Trainings: runs that create a new version of a model (:api:`trainings`)."""

    async def create(
        self,
        version: str | Version | None = None,
        input: Mapping[str, Any] | None = None,
        destination: str | Model | None = None,
        *,
        model: str | Model | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
    ) -> Training:
        """Create a training, and return it without waiting for its end.

        The training runs, and is billed, whether or not anything waits for it. The request is sent once, and
        repeated only if it certainly created nothing. Calls :api:`trainings.create`.

        Args:
            version: Version to train: `"owner/name:version"`; or its ID or a `Version`, together with `model`.
            input: Input of the training. Files anywhere in it are uploaded.
            destination: Existing model that receives the new version: `"owner/name"` or a `Model`. It must
                belong to the account.
            model: Model of the version: `"owner/name"` or a `Model`. Required if `version` does not name it.
            webhook: HTTPS URL that receives webhooks about the training.
            webhook_events_filter: Events that trigger the webhook: `"start"`, `"output"`, `"logs"`,
                `"completed"`.
            file_encoding_strategy: How to send files in the input: `"url"` uploads them first,
                `"base64"` encodes them into the request. The client's setting by default.

        Returns:
            The new training.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            ReplicateError: The API returned an error; nothing was created.
            ConnectError: No connection could be made; nothing was created.
            AmbiguousCreateError: No usable response was received, and the training could not be identified in
                the account's list. It may exist, and be billed.
            ClientClosed: The client was closed; nothing was created.
        """
        if version is None:
            raise exceptions.ArgumentError("version", "expected a version, got None")
        if destination is None:
            raise exceptions.ArgumentError("destination", "expected a model, got None")
        reference = parse_version(version, "version")
        owner, name = _model_of(reference, model)
        target = "/".join(parse_name(*full_name(destination, "destination"), "destination"))
        options = given(
            webhook=check_webhook(webhook),
            webhook_events_filter=check_events(webhook_events_filter),
        )
        context = self._context
        context.transport.token()  # raises before files are read, if there is none
        encoded, large = await encode(context, input, file_encoding_strategy)
        version_id = str(reference.version)
        pending = PendingCreate(
            match=ListMatch(
                f"{owner}/{name}:{version_id}",
                model=f"{owner}/{name}",
                version=version_id,
                list_path="/trainings",
            ),
            input=encoded,
            proof="input",  # trainings have no deadline that could be a mark
        )
        call = Call(
            "POST",
            f"/models/{identifier(owner, 'model')}/{identifier(name, 'model')}"
            f"/versions/{identifier(version_id, 'version')}/trainings",
            Kind.CREATE,
            send_state=pending,
            json={"destination": target, "input": encoded, **options},
            large=large,
        )
        try:
            send = partial(send_create, context, call, Training, pending)
            return await create_unfollowed(context, pending, Training, send)
        except exceptions.ValidationError as error:
            raise await with_hint(error, encoded) from error.__cause__

    async def get(self, id: str) -> Training:
        """Fetch a training. Calls :api:`trainings.get`.

        Args:
            id: ID of the training.

        Returns:
            The training in its current state.

        Raises:
            NotFoundError: The training does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        call = Call("GET", f"/trainings/{plain_identifier(id, 'id')}", id=id)
        return await self._context.fetch(Training, call)

    def from_dict(self, data: Mapping[str, Any]) -> Training:
        """Make a training from its JSON, such as that of a webhook delivery or of a database. Sends nothing.

        ```python
        training = client.trainings.from_dict(row["training"])
        await training.wait()
        ```

        Args:
            data: The JSON object, decoded: what `to_dict()` returned, or what a webhook has delivered after its
                signature was verified.

        Returns:
            The training, which `reload()` and `wait()` update.

        Raises:
            ArgumentTypeError: `data` is not a mapping.
            ArgumentError: `data` is not the JSON of a training: it has no `id`.
        """
        return job_from(self._context, Training, data)

    def list(self, cursor: str | None = None) -> Listing[Training]:
        """List the trainings of the account, newest first. Calls :api:`trainings.list`.

        Args:
            cursor: `next` or `previous` of another page, to start there instead of at the first page.

        Returns:
            Trainings, in pages.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return pages(self._context, Call("GET", "/trainings"), Training, cursor)

    async def cancel(self, id: str) -> Training:
        """Cancel a training. One that has ended stays as it is. Calls :api:`trainings.cancel`.

        Args:
            id: ID of the training.

        Returns:
            The training in the state after the cancellation.

        Raises:
            NotFoundError: The training does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        return await job_by_id(self._context, Training, id).cancel()


def _model_of(version: Reference, model: str | Model | None) -> tuple[str, str]:
    """Return owner and name of the model of a version.

    Raises:
        ArgumentError: Neither the version nor `model` names it.
    """
    if model is not None:
        return parse_name(*full_name(model, "model"), "model")
    if version.owner is None or version.name is None:
        raise exceptions.ArgumentError(
            "model",
            "expected the model of the version, got None (or pass version='owner/name:version')",
        )
    return version.owner, version.name
