"""The shapes of the installed `replicate` 1.0.7, compared with those of `replicate_async.v1`, by introspection."""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any

import attrs
import pytest
import replicate
from pydantic.v1 import BaseModel
from replicate.resource import Resource
from typing_extensions import is_typeddict

import replicate_async.v1

NO_HTTPX = "it wraps a transport of httpx, which this package does not use"
NO_PYDANTIC = "it is part of how pydantic makes schemas and reads objects of other classes"
INTERNAL = "1.x imports it there for its own use; it is in the module that defines it"

DIFFERENCES: dict[str, str] = {
    # Missing in `v1`, each for a reason.
    "client.RetryTransport": NO_HTTPX,
    "stream.EventSource": NO_HTTPX,
    "prediction.EventSource": NO_HTTPX,
    "prediction.CreatePredictionRequestParams": "the arguments of a request of httpx",
    **{
        f"{module}.{name}": INTERNAL
        for module in ("deployment", "model", "prediction", "training")
        for name in ("encode_json", "async_encode_json")
    },
    "model.ModelVersionIdentifier": INTERNAL,
    "stream.transform_output": INTERNAL,
    **{
        f"resource.Resource.{name}": NO_PYDANTIC
        for name in ("Config", "from_orm", "schema", "schema_json", "update_forward_refs")
    },
    **{
        f"pagination.Page.{name}": NO_PYDANTIC
        for name in ("Config", "from_orm", "schema", "schema_json", "update_forward_refs")
    },
}
"""What 1.0.7 has and `v1` has not, and why."""


def _modules() -> Iterator[str]:
    for module in pkgutil.iter_modules(replicate.__path__):
        yield module.name


MODULES = sorted(_modules())


def _both(name: str) -> tuple[ModuleType, ModuleType]:
    """Return a module of both packages. `import_module` is needed: functions hide some modules."""
    suffix = f".{name}" if name else ""
    theirs, ours = f"replicate{suffix}", f"replicate_async.v1{suffix}"
    importlib.import_module(theirs)
    importlib.import_module(ours)
    return sys.modules[theirs], sys.modules[ours]


def _public(module: ModuleType) -> dict[str, Any]:
    """Return what a module of 1.0.7 has that is its own, or of another of its modules."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and not isinstance(value, typing.TypeVar)
        and str(getattr(value, "__module__", "")).partition(".")[0] == "replicate"
    }


def _classes() -> Iterator[tuple[str, type[Any], type[Any]]]:
    """Yield the classes of 1.0.7, nested ones included, with those of `v1`."""
    for name in MODULES:
        theirs, ours = _both(name)
        for key, value in _public(theirs).items():
            path = f"{name}.{key}"
            is_own = inspect.isclass(value) and value.__module__ == theirs.__name__
            if is_own and path not in DIFFERENCES:
                yield from _nested(path, value, getattr(ours, key))


def _nested(path: str, theirs: type[Any], ours: type[Any]) -> Iterator[tuple[str, Any, Any]]:
    yield path, theirs, ours
    for name, value in vars(theirs).items():
        is_own = inspect.isclass(value) and value.__qualname__.startswith(theirs.__qualname__ + ".")
        if is_own and not name.startswith("_") and name != "Config":
            yield from _nested(f"{path}.{name}", value, getattr(ours, name))


CLASSES = list(_classes())
ids = [path for path, _, _ in CLASSES]
of_classes = pytest.mark.parametrize(("path", "theirs", "ours"), CLASSES, ids=ids)


def test_the_version() -> None:
    """The comparison is with the version that is named."""
    assert version("replicate") == "1.0.7"
    assert len(MODULES) == 20
    assert len(CLASSES) > 45


@pytest.mark.parametrize("name", ["", *MODULES])
def test_modules(name: str) -> None:
    """Each module is there, with all of its names, and what it imports of the others."""
    theirs, ours = _both(name)
    missing = {
        key
        for key in _public(theirs)
        if not hasattr(ours, key) and f"{name}.{key}" not in DIFFERENCES
    }
    assert missing == set()


def test_the_package() -> None:
    """The package has the same functions, namespaces and submodules as attributes."""
    names = {name for name in vars(replicate) if not name.startswith("_")}
    assert {name for name in names if not hasattr(replicate_async.v1, name)} == set()
    for name in names:
        theirs, ours = getattr(replicate, name), getattr(replicate_async.v1, name)
        assert inspect.ismodule(theirs) == inspect.ismodule(ours), name
        assert inspect.ismethod(theirs) == inspect.ismethod(ours), name
        if not inspect.ismodule(theirs) and not inspect.isroutine(theirs):
            assert (theirs if inspect.isclass(theirs) else type(theirs)).__name__ == (
                ours if inspect.isclass(ours) else type(ours)
            ).__name__


def _shape(function: Any) -> list[tuple[str, object, object]]:
    """Return the names, kinds and defaults of parameters."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def _color(function: Any) -> tuple[bool, ...]:
    """Return whether a function is a coroutine function, a generator function, and so on."""
    return (
        inspect.iscoroutinefunction(function),
        inspect.isgeneratorfunction(function),
        inspect.isasyncgenfunction(function),
    )


@pytest.mark.parametrize("name", MODULES)
def test_functions(name: str) -> None:
    """The functions of a module have the same parameters, and are called in the same way."""
    theirs, ours = _both(name)
    for key, value in _public(theirs).items():
        if inspect.isfunction(value) and value.__module__ == theirs.__name__:
            assert _shape(getattr(ours, key)) == _shape(value), f"{name}.{key}"
            assert _color(getattr(ours, key)) == _color(value), f"{name}.{key}"


def _members(kind: type[Any]) -> dict[str, Any]:
    """Return the public members of a class, and its special methods that users call."""
    special = ("__init__", "__iter__", "__aiter__", "__getitem__", "__len__", "__str__", "__repr__")
    return {
        name: inspect.getattr_static(kind, name)
        for name in {*dir(kind), *(name for name in special if name in vars(kind))}
        if (not name.startswith("_") or name in special)
        and name not in dir(BaseException)
        and not (issubclass(kind, BaseModel) and name in dir(BaseModel) and name not in vars(kind))
    }


@of_classes
def test_members(path: str, theirs: type[Any], ours: type[Any]) -> None:
    """Each class has the same methods, properties and constants, of the same kind and with the same parameters."""
    if is_typeddict(theirs) or issubclass(theirs, enum.Enum):
        return
    for name, member in _members(theirs).items():
        where = f"{path}.{name}"
        if where in DIFFERENCES or inspect.isclass(member):
            continue
        found = inspect.getattr_static(ours, name)
        if isinstance(member, property):
            assert isinstance(found, property), where
            assert (member.fset is None) == (found.fset is None), where
        elif isinstance(member, (classmethod, staticmethod)):
            assert type(found) is type(member), where
            assert _shape(found.__func__) == _shape(member.__func__), where
        elif inspect.isfunction(member):
            assert inspect.isfunction(found), where
            assert _color(found) == _color(member), where
            if name.startswith("__"):
                continue
            assert _shape(found) == _shape(member), where


@of_classes
def test_constructors(path: str, theirs: type[Any], ours: type[Any]) -> None:
    """Each class is made with the same arguments."""
    if is_typeddict(theirs):
        assert ours.__required_keys__ | ours.__optional_keys__ == set(theirs.__annotations__), path
        assert ours.__required_keys__ == theirs.__required_keys__, path
    elif issubclass(theirs, enum.Enum):
        found = {name: member.value for name, member in ours.__members__.items()}
        assert found == {name: member.value for name, member in theirs.__members__.items()}
    elif theirs is Resource:
        assert _shape(theirs) == []  # pydantic shows no fields; ours shows that it takes any
    elif issubclass(theirs, BaseException):
        if "__init__" in vars(theirs):
            assert _shape(ours.__init__) == _shape(theirs.__init__), path
    else:
        assert _shape(ours) == _shape(theirs), path


@of_classes
def test_fields(path: str, theirs: type[Any], ours: type[Any]) -> None:
    """Each object has the same fields in the same order, of which the same are required."""
    if not issubclass(theirs, BaseModel):
        return
    required = {name: field.required for name, field in theirs.__fields__.items()}
    fields = attrs.fields(ours) if attrs.has(ours) else ()
    assert [(field.name, field.default is attrs.NOTHING) for field in fields] == list(
        required.items()
    ), path


@pytest.mark.parametrize("path", ["resource.Resource", "pagination.Page"])
def test_methods_of_pydantic(path: str) -> None:
    """Objects have the methods of pydantic's models that read, write and copy them."""
    module, _, name = path.partition(".")
    ours = getattr(_both(module)[1], name)
    for each in dir(BaseModel):
        if each.startswith("_") or f"{path}.{each}" in DIFFERENCES:
            continue
        theirs, found = getattr(BaseModel, each), getattr(ours, each)
        assert inspect.ismethod(theirs) == inspect.ismethod(found), each
        theirs_shape = [entry for entry in _shape(theirs) if entry[0] != "localns"]
        assert [e[:2] for e in _shape(found)] == [e[:2] for e in theirs_shape], each


def test_bases() -> None:
    """What is a subclass of what among the errors, and of builtin errors, is the same."""
    for path, theirs, ours in CLASSES:
        if issubclass(theirs, Exception):
            expected = [each.__name__ for each in theirs.__mro__]
            assert [
                e for e in [each.__name__ for each in ours.__mro__] if e in expected
            ] == expected, path


def test_no_difference_is_stale() -> None:
    """Each difference that is listed is one."""
    for path in DIFFERENCES:
        module, _, rest = path.partition(".")
        theirs, ours = _both(module)
        for name in rest.split("."):
            assert hasattr(theirs, name), path
            theirs = getattr(theirs, name)
            ours = getattr(ours, name, None)  # type: ignore[assignment]
        assert ours is None, path
