"""Models."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NoReturn, TypedDict, Unpack

import attrs

from ..exceptions import ArgumentError
from ._arguments import Named, create_on_model
from ._backend import Backend, Operation
from ._objects import Namespace, Resource, nested, received
from ._pages import page_of, start
from .exceptions import ReplicateException
from .pagination import Cursor, Page
from .prediction import Prediction, Predictions
from .version import Version, Versions

__all__ = ("Model", "Models", "ModelsPredictions")


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Model(Resource):
    """A model."""

    url: str
    """URL of the model's page."""
    owner: str
    """Owner of the model."""
    name: str
    """Name of the model."""
    description: str | None = None
    """What the model does."""
    visibility: str
    """`"public"` or `"private"`."""
    github_url: str | None = None
    """URL of its source code."""
    paper_url: str | None = None
    """URL of its paper."""
    license_url: str | None = None
    """URL of its license."""
    run_count: int
    """How often it was run."""
    cover_image_url: str | None = None
    """URL of its cover image."""
    default_example: Prediction | None = attrs.field(default=None, metadata=nested(Prediction))
    """An example prediction."""
    latest_version: Version | None = attrs.field(default=None, metadata=nested(Version))
    """Its latest version."""

    @property
    def id(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def username(self) -> str:
        """Deprecated: use `owner`."""
        warnings.warn("Use `model.owner` instead.", DeprecationWarning, stacklevel=2)
        return self.owner

    @username.setter
    def username(self, value: str) -> None:
        warnings.warn("Use `model.owner` instead.", DeprecationWarning, stacklevel=2)
        self.owner = value

    def predict(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - as in 1.x
        """Raise `ReplicateException`: 1.x has removed it in favour of `run`."""
        raise ReplicateException(
            "`model.predict()` does not exist any more. Use `replicate.run()`."
        )

    @property
    def versions(self) -> Versions:
        """The versions of the model."""
        return Versions(self._client, self)

    def reload(self) -> None:
        """Fetch the model again. Calls :api:`models.get`."""
        self._update(Models(self._client).get(self.owner, self.name))


class _Required(TypedDict):
    """Properties that a new model must have."""

    hardware: str
    """SKU of the hardware that it runs on."""
    visibility: Literal["public", "private"]
    """Who can see it."""


class Models(Namespace):
    """Models."""

    model = Model

    @property
    def predictions(self) -> ModelsPredictions:
        """Predictions by official models."""
        return ModelsPredictions(self._client)

    def list(self, cursor: Cursor = ...) -> Page[Model]:
        """List the public models. Calls :api:`models.list`.

        Args:
            cursor: `next` or `previous` of another page. By default, the first page is fetched.

        Returns:
            A page of models.
        """
        return _page(self._client.call(_list(cursor)), self._client)

    async def async_list(self, cursor: Cursor = ...) -> Page[Model]:
        """List the public models, as `list` does. Calls :api:`models.list`."""
        return _page(await self._client.async_call(_list(cursor)), self._client)

    def search(self, query: str) -> Page[Model]:
        """Search the public models. Calls :api:`models.search`.

        Args:
            query: Text to search for.

        Returns:
            A page of models.
        """
        return _page(self._client.call(lambda api: api.models.search(query)), self._client)

    async def async_search(self, query: str) -> Page[Model]:
        """Search the public models, as `search` does. Calls :api:`models.search`."""
        page = await self._client.async_call(lambda api: api.models.search(query))
        return _page(page, self._client)

    def get(self, *args: str, **kwargs: str) -> Model:
        """Fetch a model. Calls :api:`models.get`.

        Args:
            args: `"owner/name"`, or owner and name,
            kwargs: or these by name: `key`, or `owner` and `name`.

        Returns:
            The model.
        """
        key = _key(args, kwargs)
        return _model(self._client.call(lambda api: api.models.get(key)), self._client)

    async def async_get(self, *args: str, **kwargs: str) -> Model:
        """Fetch a model, as `get` does. Calls :api:`models.get`."""
        key = _key(args, kwargs)
        found = await self._client.async_call(lambda api: api.models.get(key))
        return _model(found, self._client)

    def delete(self, *args: str, **kwargs: str) -> bool:
        """Delete a model, and return True. Calls :api:`models.delete`.

        Args:
            args: As for `get`.
            kwargs: As for `get`.
        """
        key = _key(args, kwargs)
        self._client.call(lambda api: api.models.delete(key))
        return True

    async def async_delete(self, *args: str, **kwargs: str) -> bool:
        """Delete a model, and return True, as `delete` does. Calls :api:`models.delete`."""
        key = _key(args, kwargs)
        await self._client.async_call(lambda api: api.models.delete(key))
        return True

    class CreateModelParams(_Required, total=False):
        """Properties of a new model."""

        description: str
        """What it does."""
        github_url: str
        """URL of its source code."""
        paper_url: str
        """URL of its paper."""
        license_url: str
        """URL of its license."""
        cover_image_url: str
        """URL of its cover image."""

    def create(self, owner: str, name: str, **params: Unpack[Models.CreateModelParams]) -> Model:
        """Create a model. Calls :api:`models.create`.

        Args:
            owner: Owner of the model.
            name: Name of the model.
            params: Its properties, see `CreateModelParams`.

        Returns:
            The model.
        """
        found = self._client.call(lambda api: api.models.create(owner, name, **params))
        return _model(found, self._client)

    async def async_create(
        self, owner: str, name: str, **params: Unpack[Models.CreateModelParams]
    ) -> Model:
        """Create a model, as `create` does. Calls :api:`models.create`."""
        found = await self._client.async_call(lambda api: api.models.create(owner, name, **params))
        return _model(found, self._client)


class ModelsPredictions(Namespace):
    """Predictions by official models."""

    def create(
        self,
        model: str | tuple[str, str] | Named,
        input: dict[str, Any],
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction:
        """Create a prediction. Calls :api:`models.predictions.create`.

        Args:
            model: The model.
            input: Input of the model.
            params: Options, see `Predictions.CreatePredictionParams`.

        Returns:
            The prediction.
        """
        found = self._client.call(create_on_model(model, input, params))
        return received(Prediction, found, self._client)

    async def async_create(
        self,
        model: str | tuple[str, str] | Named,
        input: dict[str, Any],
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction:
        """Create a prediction, as `create` does. Calls :api:`models.predictions.create`."""
        found = await self._client.async_call(create_on_model(model, input, params))
        return received(Prediction, found, self._client)


def _list(cursor: Cursor) -> Operation:
    begin = start(cursor)
    return lambda api: api.models.list(begin)


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return `owner/name` of the arguments of `get` and `delete`."""
    match args:
        case () if set(kwargs) == {"key"}:
            return str(kwargs["key"])
        case () if set(kwargs) == {"owner", "name"}:
            return f"{kwargs['owner']}/{kwargs['name']}"
        case (key,) if not kwargs:
            return str(key)
        case (owner, name) if not kwargs:
            return f"{owner}/{name}"
    raise ArgumentError("key", "expected 'owner/name', or owner and name")


def _model(found: Any, client: Backend) -> Model:
    return received(Model, found, client)


def _page(page: Any, client: Backend) -> Page[Model]:
    return page_of(page, Model, client)
