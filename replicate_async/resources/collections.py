"""Curated collections of models (:api:`collections`)."""

from __future__ import annotations

import attrs

from .._http.call import Call
from .._jobs.context import Bound, Context
from .._references import identifier
from ..types import CollectionSummary
from ._base import Namespace
from ._pages import Listing, pages
from .models import Model

__all__ = ("Collection", "Collections")


@attrs.define(eq=False)
class Collection(Bound):
    """A curated collection with its models (:api:`collections.get`)."""

    slug: str
    """What identifies it."""
    name: str | None = None
    """The name for people."""
    description: str | None = None
    """What is in it."""
    full_description: str | None = None
    """More of that, in Markdown."""
    models: list[Model] = attrs.field(factory=list)
    """All of its models."""

    def _bind(self, context: Context) -> None:
        self._client = context
        for model in self.models:
            model._bind(context)


class Collections(Namespace):
    """Curated collections of models (:api:`collections`)."""

    def list(self, cursor: str | None = None) -> Listing[CollectionSummary]:
        """List all collections, without their models. Calls :api:`collections.list`.

        Args:
            cursor: The `next` or `previous` of a page, to begin there.
        """
        return pages(self._context, Call("GET", "/collections"), CollectionSummary, cursor)

    async def get(self, slug: str) -> Collection:
        """Fetch a collection with its models. Calls :api:`collections.get`."""
        call = Call("GET", f"/collections/{identifier(slug, 'slug')}")
        return await self._context.fetch(Collection, call)
