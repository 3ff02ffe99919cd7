"""The bases of objects and namespaces."""

from __future__ import annotations

import builtins
import copy
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

import attrs

from .._json import mapped, shown, to_text
from ..exceptions import ArgumentError
from ._backend import Backend

R = TypeVar("R", bound="Resource")


class Resource:
    """An object of the API: its fields are attributes that can be set.

    Made of keyword arguments, of which unknown ones are ignored. Has the methods of pydantic's models that
    read and copy objects.
    """

    _client: Backend
    __signature__: ClassVar[Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__signature__ = _Signature()

    def __init__(self, **data: Any) -> None:
        missing = [
            field.name
            for field in _fields(type(self))
            if field.default is attrs.NOTHING and field.name not in data
        ]
        if missing:
            raise ArgumentError(", ".join(missing), f"required by a {type(self).__name__}")
        self._fill(data)

    def _fill(self, data: Mapping[str, Any], client: Backend | None = None) -> None:
        """Set the fields to what the API sent; what is missing is None."""
        fields = _fields(type(self))
        for field in fields:
            default = None if field.default is attrs.NOTHING else field.default
            value = data.get(field.name, default)
            if (kind := field.metadata.get(_KIND)) is not None:
                value = _objects(kind, value, client)
            setattr(self, field.name, value)
        self.__dict__["__fields_set__"] = {field.name for field in fields if field.name in data}
        if client is not None:
            self._client = client

    def _update(self, other: Resource) -> None:
        """Take over the fields of another object."""
        for field in _fields(type(self)):
            setattr(self, field.name, getattr(other, field.name))

    # What models of pydantic have

    def dict(
        self,
        *,
        include: Any = None,
        exclude: Any = None,
        by_alias: bool = False,
        skip_defaults: bool | None = None,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
    ) -> builtins.dict[str, Any]:
        """Return the fields, and those of the objects in them, as a dict.

        Args:
            include: Names of the fields to return; all by default.
            exclude: Names of fields to leave out.
            by_alias: No effect; there are no aliases.
            skip_defaults: Deprecated name of `exclude_unset`.
            exclude_unset: Leave out fields that were not set when the object was made.
            exclude_defaults: Leave out fields that have their default values.
            exclude_none: Leave out fields that are None.

        Returns:
            The fields.
        """
        if skip_defaults is not None:
            exclude_unset = skip_defaults
        given = self.__dict__.get("__fields_set__", ())
        made: builtins.dict[str, Any] = {}
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if (
                (include is not None and field.name not in include)
                or (exclude is not None and field.name in exclude)
                or (exclude_unset and field.name not in given)
                or (exclude_defaults and value == field.default)
                or (exclude_none and value is None)
            ):
                continue
            options = {
                "exclude_unset": exclude_unset,
                "exclude_defaults": exclude_defaults,
                "exclude_none": exclude_none,
            }
            made[field.name] = _plain(value, options)
        return made

    def json(
        self,
        *,
        include: Any = None,
        exclude: Any = None,
        by_alias: bool = False,
        skip_defaults: bool | None = None,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
        encoder: Callable[[Any], Any] | None = None,
        models_as_dict: bool = True,
        **dumps_kwargs: Any,
    ) -> str:
        """Return the fields as JSON.

        Args:
            include: As for `dict`.
            exclude: As for `dict`.
            by_alias: As for `dict`.
            skip_defaults: As for `dict`.
            exclude_unset: As for `dict`.
            exclude_defaults: As for `dict`.
            exclude_none: As for `dict`.
            encoder: Function for values that JSON does not have. By default, dates become ISO strings, and files
                their URLs.
            models_as_dict: No effect; the objects in an object are JSON objects.
            dumps_kwargs: Arguments of `json.dumps`.

        Returns:
            The JSON.
        """
        fields = self.dict(
            include=include,
            exclude=exclude,
            skip_defaults=skip_defaults,
            exclude_unset=exclude_unset,
            exclude_defaults=exclude_defaults,
            exclude_none=exclude_none,
        )
        encode = encoder or _encoded
        try:
            return json.dumps(fields, default=encode, **dumps_kwargs)
        except (RecursionError, ValueError):
            if dumps_kwargs:
                raise
            return to_text(fields, default=encode)  # long integers, or nested deeply

    def model_dump(self, **options: Any) -> builtins.dict[str, Any]:
        """Return `dict()`: its name in pydantic 2."""
        options.pop("mode", None)
        return self.dict(**options)

    def model_dump_json(self, **options: Any) -> str:
        """Return `json()`: its name in pydantic 2."""
        return self.json(**options)

    def copy(
        self,
        *,
        include: Any = None,
        exclude: Any = None,
        update: Mapping[str, Any] | None = None,
        deep: bool = False,
    ) -> Self:
        """Return a copy.

        Args:
            include: Names of the fields to copy; all by default.
            exclude: Names of fields to leave out.
            update: Fields of the copy that differ.
            deep: Whether to copy what is in the fields, too.

        Returns:
            The copy.
        """
        made = copy.deepcopy(self) if deep else copy.copy(self)
        for field in _fields(type(self)):
            name = field.name
            if (include is not None and name not in include) or (exclude and name in exclude):
                delattr(made, name)
        for name, value in (update or {}).items():
            setattr(made, name, value)
        return made

    @classmethod
    def construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """Make an object of fields without checking that they are complete."""
        return received(cls, values)

    @classmethod
    def parse_obj(cls, obj: Any) -> Self:
        """Make an object of a mapping."""
        return cls(**dict(obj))

    @classmethod
    def parse_raw(
        cls,
        b: str | bytes,
        *,
        content_type: str | None = None,
        encoding: str = "utf8",
        proto: Any = None,
        allow_pickle: bool = False,
    ) -> Self:
        """Make an object of JSON; other formats are not read."""
        return cls.parse_obj(json.loads(b.decode(encoding) if isinstance(b, bytes) else b))

    @classmethod
    def parse_file(
        cls,
        path: str | Path,
        *,
        content_type: str | None = None,
        encoding: str = "utf8",
        proto: Any = None,
        allow_pickle: bool = False,
    ) -> Self:
        """Make an object of the JSON in a file; other formats are not read."""
        return cls.parse_raw(Path(path).read_bytes(), encoding=encoding)

    @classmethod
    def validate(cls, value: Any) -> Self:
        """Return an object as it is, or make it of a mapping."""
        return value if isinstance(value, cls) else cls.parse_obj(value)

    def __iter__(self) -> Iterator[Any]:
        """Yield the names and values of the fields, so that `dict(prediction)` works."""
        for field in _fields(type(self)):
            yield field.name, getattr(self, field.name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Resource):
            return type(self) is type(other) and self.dict() == other.dict()
        return self.dict() == other

    __hash__: ClassVar[None]  # type: ignore[assignment]  # they change, so there is none

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown(', ')})"

    def __str__(self) -> str:
        return self._shown(" ")

    def _shown(self, separator: str) -> str:
        return separator.join(
            f"{field.name}={shown(getattr(self, field.name))}"
            for field in _fields(type(self))
            if field.repr
        )

    # Copies keep the client. Pickles do not have it, since it has the token.

    def __getstate__(self) -> builtins.dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_client"}

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: builtins.dict[int, Any]) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        if "_client" in self.__dict__:
            made._client = self._client
        return made


def _fields(kind: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """Return the fields of a class of objects."""
    return attrs.fields(kind) if attrs.has(kind) else ()


class _Signature:
    """The signature of a class of objects, which its fields decide."""

    def __get__(self, instance: object, owner: type[Any]) -> inspect.Signature:
        fields = _fields(owner)
        return inspect.Signature(
            [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty
                    if field.default is attrs.NOTHING
                    else field.default,
                    annotation=field.type,
                )
                for field in fields
            ]
        )


def received(kind: type[R], found: Any, client: Backend | None = None) -> R:
    """Make an object of what the API sent, which may lack fields.

    Args:
        kind: Class of the object.
        found: An object of `replicate_async`, or its JSON.
        client: The client that the object belongs to.
    """
    made = kind.__new__(kind)
    made._fill(found if isinstance(found, Mapping) else found.to_dict(), client)
    return made


_ENDED: Final = frozenset({"succeeded", "failed", "canceled", "aborted"})
"""States of predictions that do not change any more. 1.x does not know the last one, and waits for ever."""


def has_ended(prediction: Any) -> bool:
    """Return whether a prediction does not change any more."""
    status = prediction.status  # which the API may have sent as anything
    return isinstance(status, str) and status in _ENDED


_KIND: Final = "kind"


def nested(kind: type[Resource]) -> dict[str, Any]:
    """Return the metadata of a field that holds an object of a class, or a list of them."""
    return {_KIND: kind}


def _objects(kind: type[Resource], value: Any, client: Backend | None) -> Any:
    if isinstance(value, Mapping):
        return received(kind, value, client)
    if isinstance(value, list):
        return [_objects(kind, item, client) for item in value]
    return value


def _plain(value: Any, options: Mapping[str, Any]) -> Any:
    return mapped(value, lambda leaf: leaf.dict(**options) if isinstance(leaf, Resource) else leaf)


def _encoded(value: Any) -> Any:
    """Return a value that JSON has no form for as pydantic writes it."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Resource):
        return value.dict()
    url = getattr(value, "url", None)
    if isinstance(url, str):
        return url
    raise TypeError(f"Object of type '{type(value).__name__}' is not JSON serializable")


class Namespace:
    """The operations on a kind of objects."""

    _client: Backend

    def __init__(self, client: Backend) -> None:
        self._client = client
