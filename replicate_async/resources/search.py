"""Search of models, collections and documentation pages (:api:`search-results`)."""

from __future__ import annotations

import attrs

from .. import _arguments, exceptions
from .._display import short
from .._http.call import Call
from .._jobs.context import Bound, Context
from ..types import DocumentationPage, ModelMatchMetadata, SearchCollection
from .models import Model

__all__ = ("ModelMatch", "SearchResults", "search")


@attrs.define(eq=False)
class ModelMatch(Bound):
    """A model that matches a search (:api:`search-results`)."""

    model: Model
    """The matching model."""
    metadata: ModelMatchMetadata = attrs.field(factory=ModelMatchMetadata)
    """Relevance, tags and description of the match."""

    def _bind(self, context: Context) -> None:
        self._client = context
        self.model._bind(context)


@attrs.define(eq=False)
class SearchResults(Bound):
    """Results of a search (:api:`search-results`)."""

    query: str = ""
    """Text that the API searched for."""
    models: list[ModelMatch] = attrs.field(factory=list, repr=short)
    """Matching models, best match first."""
    collections: list[SearchCollection] = attrs.field(factory=list, repr=short)
    """Matching collections."""
    pages: list[DocumentationPage] = attrs.field(factory=list, repr=short)
    """Matching pages of Replicate's documentation."""

    def _bind(self, context: Context) -> None:
        self._client = context
        for match in self.models:
            match._bind(context)


async def search(context: Context, text: str, limit: int | None) -> SearchResults:
    """Search models, collections and documentation pages. Calls :api:`search`."""
    text = _arguments.text(text, "query")
    if limit is not None and (
        isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 50
    ):
        raise exceptions.ArgumentError("limit", f"expected an integer from 1 to 50, got {limit!r}")
    call = Call("GET", "/search", params={"query": text, "limit": limit})
    return await context.fetch(SearchResults, call)
