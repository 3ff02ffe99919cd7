"""Writes `sync/__init__.py` and `sync/exceptions.py`: what the facade exports, and how it is typed."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from typing import Any, Final

from .annotations import head, names
from .docstrings import translated
from .sources import LISTING, Module, Sources, Unsupported

BOTH_WORLDS: Final = frozenset({"Backplane", "LocalBackplane", "RedisBackplane", "Reply"})
"""Classes that the facade has as they are: data, and what only its event loop calls."""

ASYNC_ONLY: Final = frozenset({LISTING, "aclose", "file_response", "while_connected"})
"""Exported names that the facade does not have."""

BY_HAND: Final = {"sse": "._web"}
"""Functions that the facade has in its own form, and their modules."""

SYNC_ONLY: Final = {
    "Stream": "._streams",
    "SyncInAsyncWarning": "._portal",
    "close": ".client",
}
"""Exported names that the async client does not have, and their modules."""

DOCSTRING: Final = """The same client for code that is not asynchronous.

```python
from replicate_async import sync as replicate

output = replicate.run("owner/name", {"prompt": "a red square"})
```

The names are those of `replicate_async`, without `await`. Data and exceptions are the same classes in both.
Classes that make requests have a twin here, which runs the same code on an event loop in a background thread.
The verbs and namespaces of this module are those of a default client, which is made at first use and
configured by the environment. Everything is imported when it is first used.
"""

IMPORTS: Final = """
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .._version import __version__
from . import _exit as _exit  # registers a hook, as the next does
from . import _forks as _forks
from ._interrupts import watch as _watch

if TYPE_CHECKING:
"""

FUNCTIONS: Final = """
def __getattr__(name: str) -> Any:
    _watch.begin()
    if name in _OF_THE_DEFAULT_CLIENT:
        from .client import default_client  # it imports everything

        return getattr(default_client(), name)
    if name == "types":
        return import_module("..types", __name__)
    if name == "exceptions":
        return import_module(".exceptions", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home, __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
"""


def init_source(sources: Sources) -> str:
    """Return the generated `__init__`, unformatted."""
    module = sources.modules["__init__"]
    exported = set(_constant(module, "__all__")) - ASYNC_ONLY | SYNC_ONLY.keys()
    homes = {
        name: _home(sources, name, home)
        for name, home in _constant(module, "_HOMES").items()
        if name not in ASYNC_ONLY
    }
    # The module of the default client imports all that results may need: there may be no descriptor for that later.
    homes |= {**SYNC_ONLY, "Client": ".client", "default_client": ".client"}
    verbs = _constant(module, "_OF_THE_DEFAULT_CLIENT")
    return "\n".join(
        [
            f'"""{DOCSTRING}"""',
            IMPORTS,
            *(f"    from {home} import {name} as {name}" for name, home in SYNC_ONLY.items()),
            *("    " + line for line in _static_names(sources, module)),
            "",
            f"__all__ = {tuple(sorted(exported, key=_isort))}",
            "",
            f"_HOMES = {dict(sorted(homes.items()))}",
            "",
            f"_OF_THE_DEFAULT_CLIENT = frozenset({{{str(sorted(verbs))[1:-1]}}})",
            "",
            FUNCTIONS,
        ]
    )


def _constant(module: Module, name: str) -> Any:
    """Return the value of a constant of a module."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            value = node.value
            if isinstance(value, ast.Call):  # frozenset({...})
                [value] = value.args
            return ast.literal_eval(value)
    raise Unsupported(f"{module.name}.{name}", None, "it is gone")


def _home(sources: Sources, name: str, home: str) -> str:
    """Return the module in which the facade has what the async client has in *home*."""
    if name in BY_HAND:
        return BY_HAND[name]
    if name in sources.active:
        return "._facade"
    if home == "exceptions":
        return ".exceptions"
    if home == "types" or name in BOTH_WORLDS:
        return f"..{home}"
    raise Unsupported(name, None, f"neither data nor a class with a twin, but of {home}")


def _static_names(sources: Sources, module: Module) -> Iterator[str]:
    """Yield what type checkers see of the names that are imported at first use."""
    [block] = [
        node
        for node in module.tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield from _static_import(sources, node.module, alias)
        elif isinstance(node, ast.AnnAssign):
            ignored = "  # noqa: A001" if hasattr(builtins, ast.unparse(node.target)) else ""
            yield ast.unparse(node) + ignored
        else:
            raise Unsupported("__init__", node, "a statement that the facade does not know")


def _static_import(sources: Sources, home: str | None, alias: ast.alias) -> Iterator[str]:
    name = alias.name
    exported = f" as {name}" if alias.asname else ""
    if name == "types":
        yield f"from .. import {name}{exported}"
    elif name == "exceptions":
        yield f"from . import {name}{exported}"
    elif name not in {"sync", *ASYNC_ONLY}:
        yield f"from {_home(sources, name, home or '')} import {name}{exported}"


def _isort(name: str) -> tuple[int, str]:
    """Order names as ruff does: classes, then the rest."""
    return not name[0].isupper(), name


EXCEPTIONS_DOCSTRING: Final = """The exceptions: at run time, this is the module `replicate_async.exceptions`.

Type checkers see subclasses of the exceptions that have a prediction: here it is a twin.
"""

EXCEPTIONS_IMPORTS: Final = """
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .. import exceptions as _exceptions

if not TYPE_CHECKING:
    sys.modules[__name__] = _exceptions
else:
"""

JOB: Final = "Job"
JOBS: Final = ("Prediction", "Training")
"""The protocol of what exceptions carry, and the classes that it stands for."""


def exceptions_source(sources: Sources) -> str:
    """Return the generated module of exceptions, unformatted."""
    module = sources.modules["exceptions"]
    if missing := set(JOBS) - sources.active.keys():
        raise Unsupported(", ".join(missing), None, "it has no twin")
    exported = _constant(module, "__all__")
    typed: dict[str, list[str]] = {}
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef):
            bases = [head(base) for base in node.bases if head(base) in typed]
            fields = list(_fields_of_jobs(node))
            if bases or fields:
                typed[node.name] = list(_typed_exception(node, bases, fields))
    return "\n".join(
        [
            f'"""{EXCEPTIONS_DOCSTRING}"""',
            EXCEPTIONS_IMPORTS,
            *(
                f"    from ..exceptions import {name} as {name}"
                for name in exported
                if name not in typed
            ),
            *(f"    from ._facade import {name}" for name in JOBS),
            "",
            f"    __all__ = {exported}",
            *("    " + line if line else "" for lines in typed.values() for line in ("", *lines)),
        ]
    )


def _fields_of_jobs(node: ast.ClassDef) -> Iterator[str]:
    """Yield the fields of an exception that hold a job, with their types in the facade."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and JOB in names(each.annotation):
            annotation = ast.unparse(each.annotation)
            if annotation not in (JOB, f"{JOB} | None"):
                raise Unsupported(f"exceptions.{node.name}", each, "more than a job in a field")
            yield f"{ast.unparse(each.target)}: {annotation.replace(JOB, ' | '.join(JOBS))}"


def _typed_exception(node: ast.ClassDef, bases: list[str], fields: list[str]) -> Iterator[str]:
    """Yield the class of an exception for type checkers."""
    own = f"_exceptions.{node.name}"
    # Its bases differ in what they say of the field, which the first of them decides.
    ignored = "  # pyright: ignore[reportIncompatibleVariableOverride]" if bases else ""
    yield f"class {node.name}({', '.join([*bases, own])}):{ignored}"
    doc = ast.get_docstring(node, clean=False)
    assert doc is not None
    yield f'    """{translated(doc, node.name)}"""'
    for field in fields:
        yield ""
        yield f"    {field}  # type: ignore[assignment]"
