"""Trainings: runs that create a new version of a model."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack, overload

import attrs

from ..exceptions import ArgumentError
from ._arguments import Named, create_options, full_name, version_id, with_urls
from ._backend import Backend, Operation
from ._objects import Namespace, Resource, received
from ._pages import start
from .file import FileEncodingStrategy
from .identifier import ModelVersionIdentifier
from .model import Model as Model  # as in 1.x
from .pagination import Cursor, Page
from .version import Version

__all__ = ("Training", "Trainings")


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Training(Resource):
    """A run that creates a new version of a model. Its methods update it in place."""

    id: str
    """Unique ID."""
    model: str
    """The model that is trained, `owner/name`."""
    version: str | Version
    """The version that is trained."""
    destination: str | None = None
    """The model that gets the new version; known at the end."""
    status: str
    """`"starting"`, `"processing"`, `"succeeded"`, `"failed"` or `"canceled"`."""
    input: dict[str, Any] | None = None
    """The input."""
    output: Any = None
    """The output: `version` and `weights`."""
    logs: str | None = None
    """The logs so far."""
    error: str | None = None
    """Text of the failure."""
    created_at: str | None = None
    """When it was created, in ISO 8601."""
    started_at: str | None = None
    """When it started."""
    completed_at: str | None = None
    """When it ended."""
    urls: dict[str, str] | None = None
    """URLs: `get` and `cancel`."""

    def cancel(self) -> None:
        """Cancel the training. Calls :api:`trainings.cancel`."""
        self._update(Trainings(self._client).cancel(self.id))

    async def async_cancel(self) -> None:
        """Cancel the training. Calls :api:`trainings.cancel`."""
        self._update(await Trainings(self._client).async_cancel(self.id))

    def reload(self) -> None:
        """Fetch the current state. Calls :api:`trainings.get`."""
        self._update(Trainings(self._client).get(self.id))

    async def async_reload(self) -> None:
        """Fetch the current state. Calls :api:`trainings.get`."""
        self._update(await Trainings(self._client).async_get(self.id))


class _Destination(TypedDict):
    """Where a training puts its result."""

    destination: str | tuple[str, str] | Named
    """Existing model that gets the new version."""


class Trainings(Namespace):
    """Trainings: runs that create a new version of a model."""

    def list(self, cursor: Cursor = ...) -> Page[Training]:
        """List the trainings of the account, newest first. Calls :api:`trainings.list`.

        Args:
            cursor: `next` or `previous` of another page. By default, the first page is fetched.

        Returns:
            A page of trainings.
        """
        return _page(self._client.call(_list(cursor)), self._client)

    async def async_list(self, cursor: Cursor = ...) -> Page[Training]:
        """List the trainings of the account, as `list` does. Calls :api:`trainings.list`."""
        return _page(await self._client.async_call(_list(cursor)), self._client)

    def get(self, id: str) -> Training:
        """Fetch a training. Calls :api:`trainings.get`."""
        return _training(self._client.call(lambda api: api.trainings.get(id)), self._client)

    async def async_get(self, id: str) -> Training:
        """Fetch a training. Calls :api:`trainings.get`."""
        found = await self._client.async_call(lambda api: api.trainings.get(id))
        return _training(found, self._client)

    class CreateTrainingParams(_Destination, total=False):
        """Options of a training."""

        webhook: str
        """URL that receives webhooks."""
        webhook_completed: str
        """URL that receives a webhook at the end; not together with `webhook`."""
        webhook_events_filter: builtins.list[str]
        """Events that trigger the webhook: `start`, `output`, `logs`, `completed`."""
        file_encoding_strategy: FileEncodingStrategy
        """How to send files in the input: `"url"` or `"base64"`."""

    @overload
    def create(
        self,
        version: str,
        input: dict[str, Any],
        destination: str,
        webhook: str | None = None,
        webhook_completed: str | None = None,
        webhook_events_filter: builtins.list[str] | None = None,
        **kwargs: Any,
    ) -> Training: ...
    @overload
    def create(
        self,
        *,
        model: str | tuple[str, str] | Named | None = None,
        version: str | Version,
        input: dict[str, Any] | None = None,
        **params: Unpack[Trainings.CreateTrainingParams],
    ) -> Training: ...
    def create(
        self,
        *args: Any,
        model: str | tuple[str, str] | Named | None = None,
        version: str | Version | None = None,
        input: dict[str, Any] | None = None,
        **params: Any,
    ) -> Training:
        """Create a training, and return it without waiting for its end. Calls :api:`trainings.create`.

        Args:
            args: `"owner/name:version"`, `input`, `destination`, `webhook`, `webhook_completed` and
                `webhook_events_filter`.
            model: Model of the version.
            version: Version to train: its ID, together with `model`, or `"owner/name:version"`.
            input: Input of the training.
            params: Options, see `CreateTrainingParams`.

        Returns:
            The training.
        """
        given = {"version": version, "input": input, **params}
        if args:
            model = None
            given |= dict(zip(_POSITIONAL, args, strict=False))
        return _training(self._client.call(_create(model, given)), self._client)

    async def async_create(
        self,
        model: str | tuple[str, str] | Named,
        version: str | Version,
        input: dict[str, Any],
        **params: Unpack[Trainings.CreateTrainingParams],
    ) -> Training:
        """Create a training, and return it without waiting for its end. Calls :api:`trainings.create`.

        Args:
            model: Model of the version.
            version: Version to train.
            input: Input of the training.
            params: Options, see `CreateTrainingParams`.

        Returns:
            The training.
        """
        operation = _create(model, {"version": version, "input": input, **params})
        return _training(await self._client.async_call(operation), self._client)

    def cancel(self, id: str) -> Training:
        """Cancel a training. Calls :api:`trainings.cancel`."""
        return _training(self._client.call(lambda api: api.trainings.cancel(id)), self._client)

    async def async_cancel(self, id: str) -> Training:
        """Cancel a training. Calls :api:`trainings.cancel`."""
        found = await self._client.async_call(lambda api: api.trainings.cancel(id))
        return _training(found, self._client)


_POSITIONAL = (
    "version",
    "input",
    "destination",
    "webhook",
    "webhook_completed",
    "webhook_events_filter",
)


def _list(cursor: Cursor) -> Operation:
    begin = start(cursor)
    return lambda api: api.trainings.list(begin)


def _create(model: Any, params: Mapping[str, Any]) -> Operation:
    version = params.get("version")
    if not version:
        raise ArgumentError("version", "expected 'owner/name:version', or a version and its model")
    if params.get("destination") is None:
        raise ArgumentError("destination", "expected a model, got None")
    destination = full_name(params["destination"], "destination")
    options = create_options(params)
    if model is None:
        reference = str(version)
        ModelVersionIdentifier.parse(reference)
    else:
        # 1.x ignores the version in the name of a model.
        name = model.partition(":")[0] if isinstance(model, str) else model
        reference = f"{full_name(name, 'model')}:{version_id(version)}"
    return lambda api: api.trainings.create(
        reference, with_urls(params.get("input")), destination, **options
    )


def _training(found: Any, client: Backend) -> Training:
    training = received(Training, found, client)
    output = training.output
    if isinstance(output, Mapping) and isinstance(output.get("version"), str):
        # The API does not tell the destination.
        training.destination = output["version"].partition(":")[0]
    return training


def _page(page: Any, client: Backend) -> Page[Training]:
    found = [_training(item, client) for item in page.results]
    return Page(previous=page.previous, next=page.next, results=found)
