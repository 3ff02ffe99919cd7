"""Plain data: what is public of it, and what its type hints say."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator
from types import ModuleType

import pytest

from replicate_async.types import Hardware, Record

MODULES = ["replicate_async.types"]


def _annotated(module: ModuleType) -> Iterator[tuple[str, typing.Any]]:
    """Yield the public classes of a module, and their methods and properties."""
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isclass(value):
            continue
        yield name, value
        for attribute, member in vars(value).items():
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield f"{name}.{attribute}", function


@pytest.mark.parametrize("module", MODULES)
def test_type_hints_can_be_resolved(module: str) -> None:
    """`typing.get_type_hints` works on each public class, method and property."""
    found = dict(_annotated(importlib.import_module(module)))
    assert len(found) > 50
    for value in found.values():
        assert isinstance(typing.get_type_hints(value), dict)


def test_records_cannot_be_hashed() -> None:
    """Records are mutable, and compare by what they contain: they are no keys."""
    for record in (Record(), Hardware("cpu")):
        with pytest.raises(TypeError, match="unhashable"):
            hash(record)
