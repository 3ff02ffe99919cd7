"""Versions of models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from ._arguments import Named, full_name
from ._backend import Backend, Operation
from ._objects import Namespace, Resource, received
from ._pages import page_of
from .pagination import Page

__all__ = ("Version", "Versions")


def _time(value: Any) -> Any:
    """Return a string in ISO 8601 as a datetime; anything else as it is."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Version(Resource):
    """A version of a model."""

    id: str
    """Unique ID."""
    created_at: datetime = attrs.field(converter=_time)
    """When it was created. The only time that is not a string."""
    cog_version: str
    """Release of Cog that built it."""
    openapi_schema: dict[str, Any]
    """OpenAPI schema of its inputs and outputs."""


class Versions(Namespace):
    """The versions of a model."""

    model: tuple[str, str]
    """Owner and name of the model."""

    def __init__(self, client: Backend, model: str | tuple[str, str] | Named) -> None:
        super().__init__(client)
        owner, _, name = full_name(model, "model").partition("/")
        self.model = (owner, name)

    def get(self, id: str) -> Version:
        """Fetch a version. Calls :api:`models.versions.get`."""
        return received(Version, self._client.call(self._get(id)))

    async def async_get(self, id: str) -> Version:
        """Fetch a version. Calls :api:`models.versions.get`."""
        return received(Version, (await self._client.async_call(self._get(id))))

    def list(self) -> Page[Version]:
        """List the versions, newest first. Calls :api:`models.versions.list`."""
        return page_of(self._client.call(self._list()), Version)

    async def async_list(self) -> Page[Version]:
        """List the versions, newest first. Calls :api:`models.versions.list`."""
        return page_of(await self._client.async_call(self._list()), Version)

    def delete(self, id: str) -> bool:
        """Delete a version and its predictions, and return True. Calls :api:`models.versions.delete`."""
        self._client.call(self._delete(id))
        return True

    async def async_delete(self, id: str) -> bool:
        """Delete a version and its predictions, and return True. Calls :api:`models.versions.delete`."""
        await self._client.async_call(self._delete(id))
        return True

    def _get(self, id: str) -> Operation:
        return lambda api: api.models.versions.get("/".join(self.model), id)

    def _list(self) -> Operation:
        return lambda api: api.models.versions.list("/".join(self.model))

    def _delete(self, id: str) -> Operation:
        return lambda api: api.models.versions.delete("/".join(self.model), id)
