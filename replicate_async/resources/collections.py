"""Curated collections of models (HTTP API, section 12)."""

from __future__ import annotations

import attrs

from .._references import identifier
from .._transport import Call
from ..types import CollectionSummary
from ._base import Bound, Context, Listing, Namespace, pages
from .models import Model

__all__ = ("Collection", "Collections")


@attrs.define(eq=False)
class Collection(Bound):
    """A curated collection with its models (HTTP API, section 12.2)."""

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
    """Curated collections of models (HTTP API, section 12)."""

    def list(self, cursor: str | None = None) -> Listing[CollectionSummary]:
        """List all collections, without their models. Operation: collections.list (section 12.1).

        Args:
            cursor: The `next` or `previous` of a page, to begin there.
        """
        return pages(self._context, Call("GET", "/collections"), CollectionSummary, cursor)

    async def get(self, slug: str) -> Collection:
        """Fetch a collection with its models. Operation: collections.get (section 12.2)."""
        call = Call("GET", f"/collections/{identifier(slug, 'slug')}")
        return await self._context.fetch(Collection, call)
