"""Explains why a value cannot be in an input, and what to pass instead. Pure."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from decimal import Decimal
from numbers import Number
from types import ModuleType, SimpleNamespace
from typing import Any, Final, NoReturn

from .. import exceptions

_METHODS: Final[Mapping[str, str]] = {
    # What to pass instead of objects with such an attribute. The first entry that fits is used.
    "model_dump": 'pass its model_dump(mode="json")',  # pydantic
    "__get_validators__": "pass its dict()",  # pydantic 1
    "get_secret_value": "pass its get_secret_value()",
    "__struct_fields__": "pass msgspec.to_builtins(...) of it",
    "to_dicts": "pass its to_dicts(), or write it as a file, such as CSV, and pass that",  # Polars
    "to_pylist": "pass its to_pylist()",  # Arrow
    "iterrows": 'pass its to_dict("records"), or to_csv().encode() as a file',  # pandas
    "collect_schema": "call collect() on it, and pass what that returns as to_dicts()",
    "to_list": "pass its to_list()",
    "read_bytes": "it has many files: pass one of them, opened with 'rb'",
    "namelist": "it is an archive: pass one of its files, as its open(name)",
    "extractfile": "it is an archive: pass one of its files, as its extractfile(name)",
    "isoformat": "pass its isoformat()",
    "__fspath__": "pass it as pathlib.Path(...)",
}


def reason_against(value: Any) -> str | None:
    """Return why a value cannot be sent, and what to pass instead; None if there is no known reason."""
    cls = type(value)
    if isinstance(value, type):
        return "it is a class: pass an instance"
    if cls.__module__.startswith("pandas.") and cls.__name__ in ("NaTType", "NAType"):
        return "it stands for a missing value: pass None, or leave it out"
    kinds = _kinds_of(getattr(value, "dtype", None))
    # NumPy turns times into integers where their unit is too fine for a datetime.
    if "M" in kinds:
        return "JSON has no times: pass str(...) of each"
    if "m" in kinds:
        return "pass seconds as a number"
    if inspect.isawaitable(value) or inspect.iscoroutine(value):
        return "it has yet to be awaited: write `await` before it"
    if isinstance(value, Future):
        return "pass its result()"
    if inspect.isasyncgen(value) or isinstance(value, AsyncIterator):
        return "read it first: pass [item async for item in ...], or for text or a file, what you make of that"
    if isinstance(value, Decimal):
        return "JSON has no decimals: pass float(...) or str(...) of it"
    if isinstance(value, timedelta):
        return "pass its total_seconds()"
    if isinstance(value, Number) and not hasattr(value, "tolist"):
        return "pass it as a float or a string"
    if is_url(cls):
        return "pass its geturl()" if hasattr(cls, "geturl") else "pass str(...) of it"
    if inspect.isroutine(value) or inspect.isclass(value):
        return "it is a function: call it, and pass what it returns"
    if isinstance(value, ModuleType):
        return "it is a module"
    if "tempfile" in cls.__module__ and hasattr(cls, "cleanup"):
        return "it is a directory: pass the files in it, as pathlib.Path(...)"
    if hasattr(cls, "tolist"):
        return None
    return next((text for name, text in _METHODS.items() if hasattr(cls, name)), None)


def is_url(cls: type) -> bool:
    """Return whether objects of a class are URLs, including tuples of the parts of a URL."""
    return hasattr(cls, "geturl") or (hasattr(cls, "scheme") and hasattr(cls, "host"))


def _kinds_of(dtype: Any) -> set[str]:
    """Return the kinds of values that an array has, in all fields of its items."""
    fields = getattr(dtype, "fields", None)
    if isinstance(fields, Mapping):
        return {kind for field in fields.values() for kind in _kinds_of(field[0])}
    base = getattr(dtype, "base", dtype)
    if base is not dtype and hasattr(base, "kind"):
        return _kinds_of(base)  # of a field that is an array
    kind = getattr(dtype, "kind", None)
    return {kind} if isinstance(kind, str) else set()


def unsendable(path: str, value: object, reason: str | None = None) -> NoReturn:
    """Raise the error for a value that cannot be sent.

    Args:
        path: Its place in the input.
        value: The value.
        reason: Why, and what to pass instead.

    Raises:
        ArgumentTypeError: Always.
    """
    reason = reason or reason_against(value) or _instead(value)
    if inspect.iscoroutine(value):
        value.close()  # Python would warn that it was never awaited
    name = type(value).__name__
    article = "an" if name.lstrip("_")[:1].lower() in tuple("aeio") else "a"
    raise exceptions.ArgumentTypeError(path, f"{article} {name} cannot be sent ({reason})")


def _instead(value: object) -> str:
    cls = type(value)
    if cls.__name__.endswith("Request"):
        return "it is a request: pass the response to it, or the files or the body that it has"
    if isinstance(value, SimpleNamespace):
        return "pass vars(...) of it"
    if _has_buffer(value):
        return "pass bytes(...) of it"
    if hasattr(cls, "__iter__"):
        return "pass list(...) of it"
    shown: Callable[..., Any] = cls.__str__
    if shown is not object.__str__:
        return "pass str(...) of it if its text is meant; else numbers, strings, lists, dicts, bytes, a path or an open file"
    return "pass numbers, strings, lists, dicts, bytes, a path or an open file"


def _has_buffer(value: Any) -> bool:
    try:
        with memoryview(value) as view:
            return view.ndim > 0
    except (TypeError, ValueError, BufferError):
        return False
