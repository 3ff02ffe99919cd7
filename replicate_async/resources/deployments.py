"""Deployments: models on dedicated hardware (:api:`deployments`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import attrs

from .. import exceptions
from .._arguments import given
from .._http.call import Call
from .._http.retry import Kind
from .._jobs.context import Bound
from .._jobs.prediction import Prediction
from .._jobs.request import CreateOptions, CreateTarget
from .._jobs.unfollowed import create_prediction
from .._references import full_name, identifier, named, parse_name, parse_version
from ..types import DeploymentRelease, FileEncodingStrategy, Hardware, WebhookEvent
from ._base import Namespace
from ._own_predictions import OwnPredictions
from ._pages import Listing, pages
from .models import Model
from .versions import Version

__all__ = ("Deployment", "DeploymentPredictions", "Deployments")


@attrs.define(eq=False)
class Deployment(Bound):
    """A model on dedicated hardware (:api:`deployment-object`)."""

    owner: str
    """Owner of the deployment: the username of a user or organization."""
    name: str
    """Name of the deployment, unique among the deployments of its owner."""
    current_release: DeploymentRelease | None = None
    """Current release: model, version, hardware and number of instances."""

    @property
    def full_name(self) -> str:
        """Owner and name of the deployment: `owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def predictions(self) -> OwnPredictions:
        """Predictions with this deployment."""
        return OwnPredictions(self._context, CreateTarget.deployment(self.owner, self.name))

    async def reload(self) -> Self:
        """Fetch the current state of the deployment into this object. Calls :api:`deployments.get`.

        Returns:
            This object.

        Raises:
            NotFoundError: The deployment does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        call = Call("GET", _path(self.owner, self.name))
        self._replace(await self._context.fetch(type(self), call))
        return self


class Deployments(Namespace):
    """Deployments: models on dedicated hardware (:api:`deployments`)."""

    @property
    def predictions(self) -> DeploymentPredictions:
        """Predictions with deployments."""
        return DeploymentPredictions(self._context)

    async def get(self, owner: str, name: str | None = None) -> Deployment:
        """Fetch a deployment. Calls :api:`deployments.get`.

        Args:
            owner: `"owner/name"`, or the owner alone.
            name: Name of the deployment; required if `owner` is the owner alone.

        Returns:
            The deployment.

        Raises:
            NotFoundError: The deployment does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        call = Call("GET", _path(*parse_name(owner, name, "deployment")))
        return await self._context.fetch(Deployment, call)

    def list(self, cursor: str | None = None) -> Listing[Deployment]:
        """List the deployments of the account, newest first. Calls :api:`deployments.list`.

        Args:
            cursor: `next` or `previous` of another page, to start there instead of at the first page.

        Returns:
            Deployments, in pages.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return pages(self._context, Call("GET", "/deployments"), Deployment, cursor)

    async def create(
        self,
        name: str,
        *,
        model: str | Model,
        version: str | Version,
        hardware: str | Hardware,
        min_instances: int,
        max_instances: int,
    ) -> Deployment:
        """Create a deployment. Calls :api:`deployments.create`.

        Args:
            name: Name of the deployment, which must not be in use by the account.
            model: Model to run: `"owner/name"` or a `Model`.
            version: Version of the model: its ID or a `Version`.
            hardware: Hardware of the instances: the `sku` of an item of `hardware.list()`, or the item.
            min_instances: Number of instances to keep on, 0 to 5. They are billed even when they are idle.
            max_instances: Maximum number of instances, 0 to 20.

        Returns:
            The new deployment.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            ReplicateError: The API returned an error; nothing was created.
            TransportError: No usable response was received; the deployment may exist.
        """
        owner, model_name = parse_name(*full_name(model, "model"), "model")
        body = {
            "name": name,
            "model": f"{owner}/{model_name}",
            "version": _version(version),
            "hardware": _sku(hardware),
            "min_instances": _instances(min_instances, 5, "min_instances"),
            "max_instances": _instances(max_instances, 20, "max_instances"),
        }
        identifier(name, "name")
        call = Call("POST", "/deployments", Kind.WRITE, json=body)
        return await self._context.fetch(Deployment, call)

    async def update(
        self,
        owner: str,
        name: str | None = None,
        *,
        version: str | Version | None = None,
        hardware: str | Hardware | None = None,
        min_instances: int | None = None,
        max_instances: int | None = None,
    ) -> Deployment:
        """Change a deployment, which creates a new release. Calls :api:`deployments.update`.

        Arguments that are not given leave it as it is. With both numbers of instances at 0, the deployment is
        disabled, and its running predictions are cancelled.

        Args:
            owner: `"owner/name"`, or the owner alone.
            name: Name of the deployment; required if `owner` is the owner alone.
            version: Version of the model: its ID or a `Version`.
            hardware: Hardware of the instances: the `sku` of an item of `hardware.list()`, or the item.
            min_instances: Number of instances to keep on, 0 to 5. They are billed even when they are idle.
            max_instances: Maximum number of instances, 0 to 20.

        Returns:
            The changed deployment.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            NotFoundError: The deployment does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the change may have been made.
        """
        body = given(
            version=None if version is None else _version(version),
            hardware=None if hardware is None else _sku(hardware),
            min_instances=_instances(min_instances, 5, "min_instances"),
            max_instances=_instances(max_instances, 20, "max_instances"),
        )
        if not body:
            raise exceptions.ArgumentError(
                "version", "expected at least one setting to change, got none"
            )
        path = _path(*parse_name(owner, name, "deployment"))
        return await self._context.fetch(Deployment, Call("PATCH", path, Kind.WRITE, json=body))

    async def delete(self, owner: str, name: str | None = None) -> None:
        """Delete a deployment. Calls :api:`deployments.delete`.

        It must have been offline and unused for at least 15 minutes.

        Args:
            owner: `"owner/name"`, or the owner alone.
            name: Name of the deployment; required if `owner` is the owner alone.

        Raises:
            NotFoundError: The deployment does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the deployment may have been deleted.
        """
        await self._context.command("DELETE", _path(*parse_name(owner, name, "deployment")))


class DeploymentPredictions(Namespace):
    """Predictions with deployments (:api:`deployments.predictions.create`)."""

    async def create(
        self,
        deployment: str | tuple[str, str] | Deployment,
        input: Mapping[str, Any] | None = None,
        *,
        wait: bool | float | None = None,
        cancel_after: float | str | timedelta | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction with a deployment, and return it without waiting for its end.

        The prediction runs, and is billed, whether or not anything waits for it. The request is sent once, and
        repeated only if it certainly created nothing. Calls :api:`deployments.predictions.create`.

        Args:
            deployment: The deployment: `"owner/name"`, a pair of owner and name, or a `Deployment`.
            input: Input of the model. Files anywhere in it are uploaded.
            wait: How long the server may hold its response back until the prediction has ended: seconds
                up to 60, of which the API takes whole ones, or `True` for 60. By default, or with 0, it responds at once.
            cancel_after: Time after which the server cancels the prediction: seconds (at least 5), a
                timedelta, or a duration such as `"1h30m"`. The server gets up to a tenth (at least up to 3 seconds)
                more, by which the prediction is recognised. Defaults to about a day. With
                `Client(mark_creates=False)`, it is exact, and there is no default.
            webhook: HTTPS URL that receives webhooks about the prediction.
            webhook_events_filter: Events that trigger the webhook: `"start"`, `"output"`, `"logs"`,
                `"completed"`.
            file_encoding_strategy: How to send files in the input: `"url"` uploads them first,
                `"base64"` encodes them into the request. The client's setting by default.
            use_file_output: Whether files in the output become `FileOutput` objects. The client's
                setting by default.
            stream: Deprecated by the API; has no effect.

        Returns:
            The prediction as the server reported it, which may or may not have ended.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            NotFoundError: The deployment does not exist; nothing was created.
            ReplicateError: The API returned another error; nothing was created.
            ConnectError: No connection could be made; nothing was created.
            AmbiguousCreateError: No usable response was received, and the prediction could not be identified in
                the account's list. It may exist, and be billed.
        """
        names = parse_name(*full_name(deployment, "deployment"), "deployment")
        target = CreateTarget.deployment(*names)
        options = CreateOptions(
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )
        return await create_prediction(self._context, target, input, options)


def _path(owner: str, name: str) -> str:
    return f"/deployments/{identifier(owner, 'deployment')}/{identifier(name, 'deployment')}"


def _version(version: str | Version) -> str:
    return str(parse_version(version, "version").version)


def _sku(hardware: str | Hardware) -> str:
    return named(hardware, "sku", "hardware")


def _instances(value: int | None, most: int, argument: str) -> int | None:
    if value is None:
        return None
    expected = f"expected an integer from 0 to {most}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise exceptions.ArgumentTypeError(argument, expected)
    if not 0 <= value <= most:
        raise exceptions.ArgumentError(argument, expected)
    return value
