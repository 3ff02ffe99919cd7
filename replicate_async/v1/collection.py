"""Collections of models."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Iterator
from typing import Any, overload

import attrs

from ._backend import Operation
from ._objects import Namespace, Resource, nested, received
from ._pages import page_of, start
from .model import Model
from .pagination import Cursor, Page

__all__ = ("Collection", "Collections")


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Collection(Resource):
    """A collection of models."""

    slug: str
    """Unique ID."""
    name: str
    """Display name."""
    description: str
    """Short description."""
    models: builtins.list[Model] | None = attrs.field(default=None, metadata=nested(Model))
    """The models; None in a list of collections."""

    @property
    def id(self) -> str:
        """Deprecated: use `slug`."""
        warnings.warn("Use `slug` instead of `id`", DeprecationWarning, stacklevel=2)
        return self.slug

    def __iter__(self) -> Iterator[Any]:
        return iter(self.models or [])

    @overload
    def __getitem__(self, index: int) -> Model | None: ...
    @overload
    def __getitem__(self, index: slice) -> builtins.list[Model] | None: ...
    def __getitem__(self, index: int | slice) -> Model | builtins.list[Model] | None:
        return None if self.models is None else self.models[index]

    def __len__(self) -> int:
        return len(self.models or [])


class Collections(Namespace):
    """Collections of models."""

    def list(self, cursor: Cursor = ...) -> Page[Collection]:
        """List the collections. Calls :api:`collections.list`.

        Args:
            cursor: `next` or `previous` of another page. By default, the first page is fetched.

        Returns:
            A page of collections.
        """
        return page_of(self._client.call(_list(cursor)), Collection)

    async def async_list(self, cursor: Cursor = ...) -> Page[Collection]:
        """List the collections, as `list` does. Calls :api:`collections.list`."""
        return page_of(await self._client.async_call(_list(cursor)), Collection)

    def get(self, slug: str) -> Collection:
        """Fetch a collection with its models. Calls :api:`collections.get`."""
        found = self._client.call(lambda api: api.collections.get(slug))
        return received(Collection, found)

    async def async_get(self, slug: str) -> Collection:
        """Fetch a collection with its models. Calls :api:`collections.get`."""
        found = await self._client.async_call(lambda api: api.collections.get(slug))
        return received(Collection, found)


def _list(cursor: Cursor) -> Operation:
    begin = start(cursor)
    return lambda api: api.collections.list(begin)
