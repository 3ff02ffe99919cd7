"""Pages of the API as those of 1.x."""

from __future__ import annotations

from typing import Any, TypeVar

from ..exceptions import ArgumentError
from ._backend import Backend
from ._objects import Resource, received
from .pagination import Cursor, Page

R = TypeVar("R", bound=Resource)


def start(cursor: Cursor) -> str | None:
    """Return the cursor for a list, and refuse None, which is what the last page has."""
    if cursor is None:
        raise ArgumentError(
            "cursor", "expected the `next` of a page, got None: there are no more pages"
        )
    return None if cursor is ... else cursor


def page_of(page: Any, kind: type[R], client: Backend | None = None) -> Page[R]:
    """Return a page of the API as a page of objects."""
    results = [received(kind, item, client) for item in page.results]
    return Page(previous=page.previous, next=page.next, results=results)
