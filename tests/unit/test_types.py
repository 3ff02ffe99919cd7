"""Types of the public API: what their hints say, and what plain data can do."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from types import ModuleType

import pytest

import replicate_async.resources
from replicate_async.sync._twin import TWINS
from replicate_async.types import Hardware, RateLimit, Record

MODULES = [
    "replicate_async",
    "replicate_async.client",
    "replicate_async.exceptions",
    "replicate_async.sync",
    "replicate_async.testing",
    "replicate_async.types",
    *(
        module.name
        for module in pkgutil.iter_modules(
            replicate_async.resources.__path__, "replicate_async.resources."
        )
    ),
]


def _public(module: ModuleType) -> Iterator[typing.Any]:
    """Yield the public classes and functions of a module; for a namespace, its class."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            yield value
        elif type(value).__module__.startswith("replicate_async."):
            yield type(value)


def _members(kind: type) -> Iterator[typing.Any]:
    """Yield the public methods of a class and its bases, and the functions behind its properties."""
    for base in kind.__mro__:
        if base.__module__.startswith("replicate_async."):
            for name, member in vars(base).items():
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if inspect.isfunction(function) and (
                    not name.startswith("_") or name.endswith("__")
                ):
                    yield function


def _classes(hint: typing.Any) -> Iterator[type]:
    """Yield the classes of the package in an annotation."""
    if inspect.isclass(hint) and hint.__module__.startswith("replicate_async."):
        yield hint
    for part in (typing.get_origin(hint), *typing.get_args(hint)):
        if part is not None:
            yield from _classes(part)


def _resolve(*values: typing.Any) -> set[type]:
    """Resolve the hints of classes, their members, and all classes that they lead to; return the classes."""
    waiting, seen = [*values], set()
    while waiting:
        value = waiting.pop()
        found: list[type] = []
        for each in (value, *_members(value)) if inspect.isclass(value) else (value,):
            for name, hint in typing.get_type_hints(each).items():
                # Results and public fields: the arguments of constructors lead into the engine.
                if name == "return" or (inspect.isclass(each) and not name.startswith("_")):
                    found += _classes(hint)
        if inspect.isclass(value):
            seen.add(value)
        waiting += {*found} - seen
    return seen


@pytest.mark.parametrize("module", MODULES)
def test_type_hints_can_be_resolved(module: str) -> None:
    """`typing.get_type_hints` works on each public class, function, method and property."""
    public = [*_public(importlib.import_module(module))]
    assert public, "there is nothing to check"
    _resolve(*public)


def test_type_hints_lead_everywhere() -> None:
    """The hints of the client lead to its namespaces, their objects, and parts of those."""
    found = {kind.__name__ for kind in _resolve(replicate_async.Client)}
    assert found >= {
        "ModelVersions",
        "OwnReadme",
        "Page",
        "FunctionRun",
        "StreamingRun",
        "FileUrls",
    }


def test_type_hints_of_the_facade_lead_to_twins() -> None:
    """The hints of the sync client lead to the twins of all classes, and never to what they wrap."""
    found = _resolve(replicate_async.sync.Client)
    assert found >= set(TWINS.values())
    assert not found & TWINS.keys()


def test_records_cannot_be_hashed() -> None:
    """Records are mutable, and compare by what they contain: they are no keys."""
    for record in (Record(), Hardware("cpu")):
        with pytest.raises(TypeError, match="unhashable"):
            hash(record)


@pytest.mark.parametrize(
    ("text", "creates", "per"), [("150/60", 150, 60), ("2.5/1", 2.5, 1), (" 6 / 60 ", 6, 60)]
)
def test_rate_limits_of_text(text: str, creates: float, per: float) -> None:
    """Creates and seconds; other requests keep to the account's limit."""
    limit = RateLimit.parse(text)
    assert (limit.creates, limit.per, limit.others / limit.per) == (creates, per, 50)


@pytest.mark.parametrize(
    "text", ["", "150", "150/", "/60", "0/60", "5/0", "-1/60", "1e3/60", "a/b", "1/2/3"]
)
def test_rate_limits_that_cannot_be(text: str) -> None:
    """Anything else is a ValueError that says what is expected."""
    with pytest.raises(ValueError, match="such as 150/60"):
        RateLimit.parse(text)
