"""The base class of the API's objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

import attrs

from ._plain import Plain, schema_of_fields
from ._response import NO_RESPONSE, Response, ResponseHolder

J = TypeVar("J")


@attrs.define(eq=False)
class Record(Plain):
    """An object as the API sent it. Two records are equal if their JSON is equal."""

    _computed: ClassVar[frozenset[str]] = frozenset()
    """Known fields of the JSON that are properties instead of attrs fields."""

    _raw: dict[str, Any] = attrs.field(factory=dict, repr=False, init=False)
    _held: ResponseHolder = attrs.field(default=NO_RESPONSE, repr=False, init=False)

    @property
    def response(self) -> Response | None:
        """The response that it was made of; `None` if it was not, as after unpickling it."""
        return self._held.response

    def _to_plain(self) -> dict[str, Any]:
        return self.to_dict()

    @classmethod
    def _plain_schema(cls) -> dict[str, Any]:
        return schema_of_fields(cls, **{name: {} for name in sorted(cls._computed)})

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the JSON object that the API sent, unknown fields included."""
        return copied(self._raw)

    @property
    def extra(self) -> dict[str, Any]:
        """The fields that the API sent and that this version of the package does not know."""
        known = self._computed.union(field.name for field in attrs.fields(type(self)))
        return {key: copied(value) for key, value in self._raw.items() if key not in known}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield the pairs of `to_dict()`, so that `dict(record)` works."""
        return iter(self.to_dict().items())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._raw == other._raw


def copied(value: J) -> J:
    """Return a deep copy of decoded JSON. `copy.deepcopy` fails at some 300 levels of nesting.

    Subclasses of dict and list, which users may pass, are copied, too; `mapped` in `_json` takes them for leaves.
    """
    root = [value]
    containers: list[Any] = [root]
    for container in containers:  # the list grows meanwhile
        entries = container.items() if isinstance(container, dict) else enumerate(container)
        for key, entry in entries:
            if isinstance(entry, (dict, list)):
                container[key] = copied = entry.copy()
                containers.append(copied)
    return root[0]
