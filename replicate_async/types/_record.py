"""The base class of the API's objects."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs


@attrs.define(eq=False)
class Record:
    """An object as the API sent it. Two records are equal if their JSON is equal."""

    _computed: ClassVar[frozenset[str]] = frozenset()
    # Known fields of the JSON that are properties instead of attrs fields.

    _raw: dict[str, Any] = attrs.field(factory=dict[str, Any], repr=False, init=False)

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the JSON object that the API sent, unknown fields included."""
        return copy.deepcopy(self._raw)

    @property
    def extra(self) -> dict[str, Any]:
        """The fields that the API sent and that this version of the package does not know."""
        known = self._computed.union(field.name for field in attrs.fields(type(self)))
        return {key: copy.deepcopy(value) for key, value in self._raw.items() if key not in known}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield the pairs of `to_dict()`, so that `dict(record)` works."""
        return iter(self.to_dict().items())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._raw == other._raw
