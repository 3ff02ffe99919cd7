"""Search over models, collections and documentation pages (HTTP API, section 13)."""

from __future__ import annotations

import attrs

from .. import _policy, exceptions
from .._transport import Call
from ..types import DocumentationPage, ModelMatchMetadata, SearchCollection
from ._base import Bound, Context, query
from .models import Model

__all__ = ("ModelMatch", "SearchResults", "search")


@attrs.define(eq=False)
class ModelMatch(Bound):
    """A model that matches a search (HTTP API, section 13)."""

    model: Model
    """The model."""
    metadata: ModelMatchMetadata = attrs.field(factory=ModelMatchMetadata)
    """Why it matches."""

    def _bind(self, context: Context) -> None:
        self._client = context
        self.model._bind(context)


@attrs.define(eq=False)
class SearchResults(Bound):
    """What a search found (HTTP API, section 13)."""

    query: str = ""
    """The text that was searched for."""
    models: list[ModelMatch] = attrs.field(factory=list)
    """Models, best first."""
    collections: list[SearchCollection] = attrs.field(factory=list)
    """Collections."""
    pages: list[DocumentationPage] = attrs.field(factory=list)
    """Pages of the documentation."""

    def _bind(self, context: Context) -> None:
        self._client = context
        for match in self.models:
            match._bind(context)


async def search(context: Context, text: str, limit: int | None) -> SearchResults:
    """Search. Operation: search (HTTP API, section 13.1)."""
    text = _policy.text(text, "query")
    if limit is not None and (
        isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 50
    ):
        raise exceptions.ArgumentError("limit", f"{limit!r} is no integer from 1 to 50")
    call = Call("GET", "/search", params=query(query=text, limit=limit))
    return await context.fetch(SearchResults, call)
