"""Deployments: models on dedicated hardware."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import attrs

from ._arguments import Named, create_on_deployment
from ._backend import Backend, Operation
from ._objects import Namespace, Resource, nested, received
from ._pages import page_of, start
from .account import Account
from .pagination import Cursor, Page
from .prediction import Prediction, Predictions

__all__ = ("Deployment", "DeploymentPredictions", "Deployments", "DeploymentsPredictions")


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class _Configuration(Resource):
    """Hardware and scaling of a deployment."""

    hardware: str
    """SKU of the hardware."""
    min_instances: int
    """Minimum number of instances."""
    max_instances: int
    """Maximum number of instances."""


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class _Release(Resource):
    """A release of a deployment."""

    Configuration = _Configuration

    number: int
    """Number of the release."""
    model: str
    """The model, `owner/name`."""
    version: str
    """ID of the version."""
    created_at: str
    """When it was made, in ISO 8601."""
    created_by: Account | None = attrs.field(default=None, metadata=nested(Account))
    """Account that made it."""
    configuration: _Configuration = attrs.field(metadata=nested(_Configuration))
    """Hardware and scaling."""


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Deployment(Resource):
    """A model on dedicated hardware."""

    Release = _Release

    owner: str
    """Owner of the deployment."""
    name: str
    """Name of the deployment."""
    current_release: _Release | None = attrs.field(default=None, metadata=nested(_Release))
    """Its current release."""

    @property
    def username(self) -> str:
        """Deprecated: use `owner`."""
        warnings.warn("Use `deployment.owner` instead.", DeprecationWarning, stacklevel=2)
        return self.owner

    @property
    def id(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def predictions(self) -> DeploymentPredictions:
        """Predictions by this deployment."""
        return DeploymentPredictions(self._client, self)


_Configuration.__qualname__ = "Deployment.Release.Configuration"
_Release.__qualname__ = "Deployment.Release"


class Deployments(Namespace):
    """Deployments: models on dedicated hardware."""

    def list(self, cursor: Cursor = ...) -> Page[Deployment]:
        """List the deployments of the account. Calls :api:`deployments.list`.

        Args:
            cursor: `next` or `previous` of another page. By default, the first page is fetched.

        Returns:
            A page of deployments.
        """
        return page_of(self._client.call(_list(cursor)), Deployment, self._client)

    async def async_list(self, cursor: Cursor = ...) -> Page[Deployment]:
        """List the deployments of the account, as `list` does. Calls :api:`deployments.list`."""
        page = await self._client.async_call(_list(cursor))
        return page_of(page, Deployment, self._client)

    def get(self, name: str) -> Deployment:
        """Fetch a deployment. Calls :api:`deployments.get`."""
        found = self._client.call(lambda api: api.deployments.get(name))
        return _deployment(found, self._client)

    async def async_get(self, name: str) -> Deployment:
        """Fetch a deployment. Calls :api:`deployments.get`."""
        found = await self._client.async_call(lambda api: api.deployments.get(name))
        return _deployment(found, self._client)

    class CreateDeploymentParams(TypedDict):
        """Properties of a new deployment."""

        name: str
        """Name of the deployment."""
        model: str
        """Model to run, `owner/name`."""
        version: str
        """ID of the version to run."""
        hardware: str
        """SKU of the hardware."""
        min_instances: int
        """Minimum number of instances."""
        max_instances: int
        """Maximum number of instances."""

    def create(self, **params: Unpack[Deployments.CreateDeploymentParams]) -> Deployment:
        """Create a deployment. Calls :api:`deployments.create`.

        Args:
            params: Its properties, see `CreateDeploymentParams`.

        Returns:
            The deployment.
        """
        return _deployment(self._client.call(_create(params)), self._client)

    async def async_create(
        self, **params: Unpack[Deployments.CreateDeploymentParams]
    ) -> Deployment:
        """Create a deployment, as `create` does. Calls :api:`deployments.create`."""
        return _deployment(await self._client.async_call(_create(params)), self._client)

    class UpdateDeploymentParams(TypedDict, total=False):
        """Properties of a deployment that can change."""

        version: str
        """ID of the version to run."""
        hardware: str
        """SKU of the hardware."""
        min_instances: int
        """Minimum number of instances."""
        max_instances: int
        """Maximum number of instances."""

    def update(
        self,
        deployment_owner: str,
        deployment_name: str,
        **params: Unpack[Deployments.UpdateDeploymentParams],
    ) -> Deployment:
        """Change a deployment. Calls :api:`deployments.update`.

        Args:
            deployment_owner: Owner of the deployment.
            deployment_name: Name of the deployment.
            params: What changes, see `UpdateDeploymentParams`.

        Returns:
            The deployment.
        """
        found = self._client.call(
            lambda api: api.deployments.update(deployment_owner, deployment_name, **params)
        )
        return _deployment(found, self._client)

    async def async_update(
        self,
        deployment_owner: str,
        deployment_name: str,
        **params: Unpack[Deployments.UpdateDeploymentParams],
    ) -> Deployment:
        """Change a deployment, as `update` does. Calls :api:`deployments.update`."""
        found = await self._client.async_call(
            lambda api: api.deployments.update(deployment_owner, deployment_name, **params)
        )
        return _deployment(found, self._client)

    def delete(self, deployment_owner: str, deployment_name: str) -> bool:
        """Delete a deployment, and return True. Calls :api:`deployments.delete`."""
        self._client.call(lambda api: api.deployments.delete(deployment_owner, deployment_name))
        return True

    async def async_delete(self, deployment_owner: str, deployment_name: str) -> bool:
        """Delete a deployment, and return True. Calls :api:`deployments.delete`."""
        await self._client.async_call(
            lambda api: api.deployments.delete(deployment_owner, deployment_name)
        )
        return True

    @property
    def predictions(self) -> DeploymentsPredictions:
        """Predictions by deployments."""
        return DeploymentsPredictions(self._client)


class DeploymentPredictions(Namespace):
    """Predictions by one deployment."""

    def __init__(self, client: Backend, deployment: Deployment) -> None:
        super().__init__(client)
        self._deployment = deployment

    def create(
        self, input: dict[str, Any], **params: Unpack[Predictions.CreatePredictionParams]
    ) -> Prediction:
        """Create a prediction. Calls :api:`deployments.predictions.create`.

        Args:
            input: Input of the model.
            params: Options, see `Predictions.CreatePredictionParams`.

        Returns:
            The prediction.
        """
        found = self._client.call(create_on_deployment(self._deployment, input, params))
        return received(Prediction, found, self._client)

    async def async_create(
        self, input: dict[str, Any], **params: Unpack[Predictions.CreatePredictionParams]
    ) -> Prediction:
        """Create a prediction, as `create` does. Calls :api:`deployments.predictions.create`."""
        found = await self._client.async_call(create_on_deployment(self._deployment, input, params))
        return received(Prediction, found, self._client)


class DeploymentsPredictions(Namespace):
    """Predictions by deployments."""

    def create(
        self,
        deployment: str | tuple[str, str] | Named,
        input: dict[str, Any],
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction:
        """Create a prediction. Calls :api:`deployments.predictions.create`.

        Args:
            deployment: The deployment.
            input: Input of the model.
            params: Options, see `Predictions.CreatePredictionParams`.

        Returns:
            The prediction.
        """
        found = self._client.call(create_on_deployment(deployment, input, params))
        return received(Prediction, found, self._client)

    async def async_create(
        self,
        deployment: str | tuple[str, str] | Named,
        input: dict[str, Any],
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction:
        """Create a prediction, as `create` does. Calls :api:`deployments.predictions.create`."""
        found = await self._client.async_call(create_on_deployment(deployment, input, params))
        return received(Prediction, found, self._client)


def _list(cursor: Cursor) -> Operation:
    begin = start(cursor)
    return lambda api: api.deployments.list(begin)


def _create(params: Mapping[str, Any]) -> Operation:
    options = {**params}
    # The owner is that of the token.
    name = str(options.pop("name", "")).rpartition("/")[2]
    return lambda api: api.deployments.create(name, **options)


def _deployment(found: Any, client: Backend) -> Deployment:
    return received(Deployment, found, client)
