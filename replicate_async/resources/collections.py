"""Curated collections of models (:api:`collections`)."""

from __future__ import annotations

import attrs

from .._display import short
from .._http.call import Call
from .._jobs.context import Bound, Context
from .._references import plain_identifier
from ..types import CollectionSummary
from ._base import Namespace
from ._pages import Listing, pages
from .models import Model

__all__ = ("Collection", "Collections")


@attrs.define(eq=False)
class Collection(Bound):
    """A curated collection of models, with its models (:api:`collections.get`)."""

    slug: str
    """Unique ID of the collection, used in its URL."""
    name: str | None = None
    """Display name of the collection."""
    description: str | None = None
    """Short description of the collection."""
    full_description: str | None = attrs.field(default=None, repr=short)
    """Long description of the collection, in Markdown."""
    models: list[Model] = attrs.field(factory=list, repr=short)
    """All models of the collection."""

    def _bind(self, context: Context) -> None:
        self._client = context
        for model in self.models:
            model._bind(context)


class Collections(Namespace):
    """Curated collections of models (:api:`collections`)."""

    def list(self, cursor: str | None = None) -> Listing[CollectionSummary]:
        """List all collections, without their models. Calls :api:`collections.list`.

        Args:
            cursor: `next` or `previous` of another page, to start there instead of at the first page.

        Returns:
            Summaries of the collections, in pages.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return pages(self._context, Call("GET", "/collections"), CollectionSummary, cursor)

    async def get(self, slug: str) -> Collection:
        """Fetch a collection with its models. Calls :api:`collections.get`.

        Args:
            slug: Unique ID of the collection, such as `"text-to-image"`.

        Returns:
            The collection.

        Raises:
            NotFoundError: The collection does not exist.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        call = Call("GET", f"/collections/{plain_identifier(slug, 'slug')}")
        return await self._context.fetch(Collection, call)
