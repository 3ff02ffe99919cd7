"""Deployments: models on machines of one's own (:api:`deployments`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import attrs

from .. import exceptions
from .._arguments import given
from .._http.call import Call
from .._http.retry import Kind
from .._jobs.context import Bound, Context
from .._jobs.prediction import Prediction
from .._jobs.request import CreateTarget
from .._references import full_name, identifier, named, parse_name, parse_reference
from ..types import DeploymentRelease, FileEncodingStrategy, Hardware, WebhookEvent
from ._base import Namespace
from ._pages import Listing, pages
from .models import Model, OwnPredictions, Version

__all__ = ("Deployment", "DeploymentPredictions", "Deployments")


@attrs.define(eq=False)
class Deployment(Bound):
    """A model on machines of one's own (:api:`deployment-object`)."""

    owner: str
    """The account that it belongs to."""
    name: str
    """Its name within the account."""
    current_release: DeploymentRelease | None = None
    """What it runs at present."""

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def predictions(self) -> OwnPredictions:
        """Predictions with this deployment."""
        return _predictions(self._context, self.owner, self.name)

    async def reload(self) -> Self:
        """Fetch it again, and return the deployment itself."""
        call = Call("GET", _path(self.owner, self.name))
        self._replace(await self._context.fetch(type(self), call))
        return self


class Deployments(Namespace):
    """Deployments: models on machines of one's own (:api:`deployments`)."""

    @property
    def predictions(self) -> DeploymentPredictions:
        """Predictions with deployments."""
        return DeploymentPredictions(self._context)

    async def get(self, owner: str, name: str | None = None) -> Deployment:
        """Fetch a deployment. Calls :api:`deployments.get`.

        Args:
            owner: `"owner/name"`, or the owner.
            name: The name, if `owner` is only the owner.
        """
        call = Call("GET", _path(*parse_name(owner, name, "deployment")))
        return await self._context.fetch(Deployment, call)

    def list(self, cursor: str | None = None) -> Listing[Deployment]:
        """List the account's deployments, newest first. Calls :api:`deployments.list`.

        Args:
            cursor: The `next` or `previous` of a page, to begin there.
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
            name: A name that the account has not used.
            model: What to run, `owner/name`.
            version: Its version.
            hardware: The machines: a SKU of `hardware.list()`.
            min_instances: How many are always on, 0 to 5. They cost while they are on.
            max_instances: How many there may be, 0 to 20.
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
        """Change a deployment, which makes a new release. Calls :api:`deployments.update`.

        With no instances at all it is disabled: what runs is cancelled.

        Args:
            owner: `"owner/name"`, or the owner.
            name: The name, if `owner` is only the owner.
            version: The version to run.
            hardware: The machines: a SKU of `hardware.list()`.
            min_instances: How many are always on, 0 to 5.
            max_instances: How many there may be, 0 to 20.
        """
        body = given(
            version=None if version is None else _version(version),
            hardware=None if hardware is None else _sku(hardware),
            min_instances=_instances(min_instances, 5, "min_instances"),
            max_instances=_instances(max_instances, 20, "max_instances"),
        )
        if not body:
            raise exceptions.ArgumentError("version", "give at least one thing to change")
        path = _path(*parse_name(owner, name, "deployment"))
        return await self._context.fetch(Deployment, Call("PATCH", path, Kind.WRITE, json=body))

    async def delete(self, owner: str, name: str | None = None) -> None:
        """Delete a deployment that has been off for 15 minutes. Calls :api:`deployments.delete`.

        Args:
            owner: `"owner/name"`, or the owner.
            name: The name, if `owner` is only the owner.
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
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction with a deployment.

        Calls :api:`deployments.predictions.create`. The options are those of
        `predictions.create`.
        """
        names = parse_name(*full_name(deployment, "deployment"), "deployment")
        return await _predictions(self._context, *names).create(
            input,
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )


def _predictions(context: Context, owner: str, name: str) -> OwnPredictions:
    return OwnPredictions(context, CreateTarget.deployment(owner, name))


def _path(owner: str, name: str) -> str:
    return f"/deployments/{identifier(owner, 'deployment')}/{identifier(name, 'deployment')}"


def _version(version: str | Version) -> str:
    text = named(version, "id", "version")
    found = parse_reference(text, "version").version
    if found is None:
        raise exceptions.InvalidReference("version", text, "a version: its id is missing")
    return found


def _sku(hardware: str | Hardware) -> str:
    return named(hardware, "sku", "hardware")


def _instances(value: int | None, most: int, argument: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise exceptions.ArgumentTypeError(argument, f"expected an integer, got {value!r}")
    if not 0 <= value <= most:
        raise exceptions.ArgumentError(argument, f"{value} is not from 0 to {most}")
    return value
