"""Write `replicate_async/sync/_facade.py` from the sources of the async client.

```sh
python -m replicate_async._tools.generate_sync            # write it
python -m replicate_async._tools.generate_sync --check    # fail if it is not current
```

The async modules are parsed, never imported. A class is *active* if a method of it is a coroutine function or
returns something asynchronous, or if a method or field of it gives an active class. The active classes that
can be reached from `Client` get a twin of the same name; all other classes are data, and shared. Signatures
and docstrings are copied and translated, and the bodies do nothing but cross over to the event loop.

The shapes that it knows:

| in the client                                        | in the facade                                     |
|------------------------------------------------------|---------------------------------------------------|
| `async def f() -> T`                                 | `def f() -> T`                                    |
| `def f() -> Listing[T]`                              | `def f() -> Page[T]`, the first page              |
| `async def f() -> AsyncIterator[T]`, or `def`        | `def f() -> Stream[T]`                            |
| `@asynccontextmanager`, `AbstractAsyncContextManager` | `AbstractContextManager`                         |
| `def f()`, `@property`, a field of an attrs class    | the same                                          |
| a class with `__anext__`                             | a twin that is a `Stream`                         |
| `__aiter__`; `aclose`, `__aenter__`, `__aexit__`     | `__iter__`; `close`, `__enter__`, `__exit__`      |
| results `X`, `X | None`, `list[X]`, `dict[str, X]` of an active X, `Self`, and trees (`Output`) | their twins |
| results that are errors                              | the same error, with the twin of its prediction   |
| parameters of an active type, and `**inputs: Any`    | unwrapped                                         |
| members of unions that only async code can make      | left out                                          |

Whatever else it meets is an error of the build.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

PACKAGE: Final = Path(__file__).resolve().parents[1]
TARGET: Final = PACKAGE / "sync" / "_facade.py"

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Kind: TypeAlias = Literal["call", "iterate", "hold", "plain"]

OTHERS: Final = frozenset({"_cli", "_tools", "sync", "testing"})
"""Folders of the package that are not of the async client."""

ROOT: Final = "Client"
STREAMS: Final = frozenset({"AsyncIterator", "AsyncIterable", "AsyncGenerator"})
MANAGERS: Final = frozenset({"AbstractAsyncContextManager"})
ASYNC_ONLY: Final = STREAMS | MANAGERS | {"Awaitable", "Coroutine"}
LISTING: Final = "Listing"
TREES: Final = frozenset({"Output"})
"""Aliases of JSON-like trees that may hold active objects."""

RENAMED: Final = {
    **dict.fromkeys(STREAMS, "Stream"),
    "AbstractAsyncContextManager": "AbstractContextManager",
    LISTING: "Page",
}

BY_HAND: Final = {
    "Client.paginate": "paginate",
    "Outcomes.collect": "collect_outcomes",
    "OutputStream.collect": "collect_output",
}
"""Functions of `_twin`, for methods that need to know of the facade: one takes methods of it, the others
what its streams hold ready."""

BOTH_WORLDS: Final = {"FileOutput": frozenset({"aread", "__aiter__"})}
"""What stays asynchronous, for callers inside of an event loop (see `README.md`)."""

MIXINS: Final = {
    "FileOutput": "FileLike",
    "ModelFunction": "FunctionLike",
    "StreamingFunction": "FunctionLike",
}
"""What only the sync world has: classes of `_twin`."""

COPIED: Final = frozenset(
    {"__call__", "__iter__", "__len__", "__getitem__", "__contains__", "__bool__"}
    | {f"_repr_{kind}_" for kind in ("html", "markdown", "mimebundle", "png", "jpeg", "svg")}
)
"""Names with underscores that are public all the same."""

OPERATORS: Final = {
    "__bool__": "bool(self._async)",
    "__contains__": "{} in self._async",
    "__getitem__": "self._async[{}]",
    "__iter__": "iter(self._async)",
    "__len__": "len(self._async)",
}
"""How special methods are called."""

DOCS: Final = {
    "Client": """A client of Replicate's HTTP API, for code that is not asynchronous.

    It may be used from several threads at a time, and after a fork. Its connections are opened at the
    first request. Close it with `close()` or `with`; one that is not closed is closed when it is dropped,
    or when the interpreter exits.

    ```python
    with Client() as client:
        output = client.run("owner/name", {"prompt": "a red square"})
    ```
    """,
    "ModelFunction": """A model as a function: call it for the final output.

    Keyword arguments are the model's inputs. None stands for an input that is not given, where the model
    knows no `null`. The output of another function can be an input, also of one that still runs: pass
    what `create` returns, or a stream. Where one file is wanted and a list of one comes, it is taken out of
    the list.
    """,
    "Page": """One page of a listing (HTTP API, section 1.7); a sequence of what is on it.

    `auto_paging_iter()` goes on to the pages after it.
    """,
}
"""Docstrings that must tell something else than those of the async classes."""

OF_THE_BASE: Final = frozenset(
    {"__init__", "__repr__", "__str__", "__eq__", "__hash__", "__reduce__"}
    | {"__copy__", "__deepcopy__", "__del__"}
)
"""What `Twin` does for all of them."""

OF_STREAMS: Final = frozenset(
    {"__aiter__", "__anext__", "aclose", "__aenter__", "__aexit__", "__await__"}
)

HEADER: Final = '''\
# Generated by replicate_async/_tools/generate_sync.py from the async client. Do not edit:
# change the async client, and run `nox -s generate`.
"""The sync twins of the async client's active classes."""

from __future__ import annotations
'''

RUNTIME: Final = {
    "AbstractContextManager": "from contextlib import AbstractContextManager",
    "Any": "from typing import Any",
    "AsyncIterator": "from collections.abc import AsyncIterator",
    "Coroutine": "from collections.abc import Coroutine",
    "FileLike": "from ._twin import FileLike",
    "FunctionLike": "from ._twin import FunctionLike",
    "Generic": "from typing import Generic",
    "Iterator": "from collections.abc import Iterator",
    "Lease": "from ._portal import Lease",
    "Self": "from typing import Self",
    "Stream": "from ._portal import Stream",
    "StreamTwin": "from ._twin import StreamTwin",
    "TWINS": "from ._twin import TWINS",
    "Twin": "from ._twin import Twin",
    "TypeVar": "from typing import TypeVar",
    "cast": "from typing import cast",
    "collect_outcomes": "from ._twin import collect_outcomes",
    "collect_output": "from ._twin import collect_output",
    "overload": "from typing import overload",
    "paginate": "from ._twin import paginate",
    "unwrap": "from ._twin import unwrap",
    "unwrap_inputs": "from ._twin import unwrap_inputs",
    "wrap": "from ._twin import wrap",
    "wrap_all": "from ._twin import wrap_all",
}
"""What the generated code itself needs at run time."""


class Unsupported(Exception):
    """The async client has something that the facade cannot express."""

    def __init__(self, where: str, node: ast.AST, why: str) -> None:
        super().__init__(f"{where}, line {getattr(node, 'lineno', '?')}: {why}")


@dataclass
class Module:
    """A module of the async client."""

    name: str
    """Its name below the package, such as `resources.models`."""
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """What its imports bind: the statement to repeat, but for the name; and the name there."""
    names: set[str] = field(default_factory=set)
    """What it defines."""


@dataclass
class Class:
    """A class of the async client."""

    module: Module
    node: ast.ClassDef

    @property
    def name(self) -> str:
        """Its name."""
        return self.node.name

    @property
    def bases(self) -> list[str]:
        """The names of its bases."""
        return [head(base) for base in self.node.bases]

    @property
    def parameters(self) -> list[str]:
        """Its type parameters, in order."""
        return [
            node.id
            for base in self.node.bases
            if isinstance(base, ast.Subscript) and head(base) in {"Generic", *STREAMS}
            for node in ast.walk(base.slice)
            if isinstance(node, ast.Name) and len(node.id) == 1
        ]

    @property
    def own(self) -> list[Function]:
        """The functions in its body."""
        return [n for n in self.node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]

    @property
    def is_attrs(self) -> bool:
        """Whether attrs makes it."""
        return any("attrs" in ast.unparse(d) for d in self.node.decorator_list)


@dataclass
class Member:
    """A function of a class, or of a base of it."""

    home: Class
    function: Function


# -- Reading annotations -----------------------------------------------------------------------


def evaluate(node: ast.AST) -> ast.expr:
    """Turn the string literals of an annotation into the types that they name."""

    class Evaluate(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            return node if ast.unparse(node.value) == "Literal" else self.generic_visit(node)

        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            if isinstance(node.value, str):
                return evaluate(ast.parse(node.value, mode="eval").body)
            return node

    evaluated = Evaluate().visit(copy.deepcopy(node))
    assert isinstance(evaluated, ast.expr)
    return evaluated


def names(node: ast.AST | None) -> set[str]:
    """Return all names in an annotation."""
    if node is None:
        return set()
    return {each.id for each in ast.walk(evaluate(node)) if isinstance(each, ast.Name)}


def alternatives(node: ast.expr) -> list[ast.expr]:
    """Return the members of a union."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*alternatives(node.left), *alternatives(node.right)]
    return [node]


def head(node: ast.expr) -> str:
    """Return the outermost name of a type, without its module."""
    outer = node.value if isinstance(node, ast.Subscript) else node
    return ast.unparse(outer).rpartition(".")[2]


def argument(node: ast.expr) -> ast.expr:
    """Return the first argument of a generic type."""
    assert isinstance(node, ast.Subscript)
    return node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice


def substituted(function: Function, arguments: dict[str, ast.expr]) -> Function:
    """Put the arguments of a generic base in the place of its parameters."""
    if not arguments:
        return function

    class Substitute(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return arguments.get(node.id, node)

    made = copy.deepcopy(function)
    for each in [*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs]:
        if each.annotation is not None:
            each.annotation = Substitute().visit(evaluate(each.annotation))
    if made.returns is not None:
        made.returns = Substitute().visit(evaluate(made.returns))
    return made


def iteration(node: ast.expr) -> str:
    """Return the name of the function that iterates over what an annotation describes."""
    return "chunks" if ast.unparse(argument(node)) == "bytes" else "iterate"


def decorators(function: Function) -> set[str]:
    """Return the names of a function's decorators."""
    return {ast.unparse(d).partition("(")[0] for d in function.decorator_list}


def yields(function: Function) -> bool:
    """Tell whether a function is a generator."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield child
                yield from walk(child)

    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in walk(function))


def sync_doc(doc: str) -> str:
    """Translate the code in a docstring, in blocks and in the text."""

    def translate(match: re.Match[str]) -> str:
        code = re.sub(r"\b(async|await)(?:\s+(?=\S)|(?=`))", "", match[0])
        code = re.sub(r"\baclose\b", "close", code)
        code = re.sub(r"\bimport replicate_async as\b", "from replicate_async import sync as", code)
        return re.sub(r"\bfrom replicate_async import", "from replicate_async.sync import", code)

    def span(match: re.Match[str]) -> str:
        return (
            translate(match)
            if re.search(r"\b(async (for|with)|await |aclose)", match[0])
            else match[0]
        )

    def block(match: re.Match[str]) -> str:
        return translate(match)

    parts = re.split(r"(```python\n.*?```)", doc, flags=re.DOTALL)
    return "".join(
        re.sub(r"(?s).+", block, part)
        if part.startswith("```")
        else re.sub(r"`[^`\n]+`", span, part)
        for part in parts
    )


# -- The generator -----------------------------------------------------------------------------


class Generator:
    """Collects the active classes, and writes their twins."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self.package = package
        self.classes: dict[str, Class] = {}
        self.ambiguous: set[str] = set()
        self.used: set[str] = set()
        """Names that the generated code needs at run time."""
        self.annotated: dict[str, Module] = {}
        """Names in its annotations, and where they are known."""
        self.by_hand: set[str] = set()
        for path in sorted(package.rglob("*.py")):
            if path.relative_to(package).parts[0] not in OTHERS:
                self._read(path)
        active = self._find_active()
        self.active: dict[str, Class] = {
            name: active[name] for name in sorted(self._reachable(active), key=self._rank)
        }

    def _read(self, path: Path) -> None:
        parts = path.relative_to(self.package).with_suffix("").parts
        module = Module(".".join(parts))
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
            if isinstance(node, ast.ImportFrom):
                self._note_import(module, node, parts)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    module.imports[alias.asname or alias.name] = ("import", alias.name)
        for node in ast.parse(path.read_text("utf-8"), str(path)).body:
            if isinstance(node, ast.ClassDef):
                module.names.add(node.name)
                if node.name in self.classes:
                    self.ambiguous.add(node.name)
                self.classes[node.name] = Class(module, node)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                module.names.add(node.targets[0].id)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                module.names.add(node.target.id)

    @staticmethod
    def _note_import(module: Module, node: ast.ImportFrom, parts: Sequence[str]) -> None:
        home = node.module or ""
        if node.level:
            inside = parts[: len(parts) - node.level]
            home = ".." + ".".join([*inside, *filter(None, [node.module])])
        for alias in node.names:
            module.imports[alias.asname or alias.name] = (f"from {home} import", alias.name)

    def _rank(self, name: str) -> tuple[bool, str]:
        return name != ROOT, name

    def members(self, item: Class) -> list[Member]:
        """Return the functions of a class and its bases, overloads included."""
        found = [Member(item, function) for function in item.own]
        taken = {member.function.name for member in found}
        for node in item.node.bases:
            base = self.classes.get(head(node))
            if base is None:
                continue
            given = [argument(node)] if isinstance(node, ast.Subscript) else []
            arguments = dict(zip(base.parameters, given, strict=False))
            inherited = self.members(base)
            found += [
                Member(member.home, substituted(member.function, arguments))
                for member in inherited
                if member.function.name not in taken
            ]
            taken |= {member.function.name for member in inherited}
        return found

    def has(self, item: Class, name: str) -> bool:
        """Tell whether a class has a method."""
        return any(member.function.name == name for member in self.members(item))

    def _find_active(self) -> dict[str, Class]:
        active: dict[str, Class] = {}
        while True:
            found = {
                name: item
                for name, item in self.classes.items()
                if not name.startswith("_") and name != LISTING and self._is_active(item, active)
            }
            if found.keys() == active.keys():
                return active
            active = found

    def _is_active(self, item: Class, active: dict[str, Class]) -> bool:
        asynchronous = STREAMS | MANAGERS | {LISTING} | active.keys() - {item.name}
        return any(
            is_public(member.function.name)
            and (
                isinstance(member.function, ast.AsyncFunctionDef)
                or names(member.function.returns) & asynchronous
            )
            for member in self.members(item)
        ) or any(names(node.annotation) & active.keys() for node, _, _ in self._fields_of(item))

    def _reachable(self, active: dict[str, Class]) -> set[str]:
        found: set[str] = set()
        waiting = [ROOT]
        while waiting:
            name = waiting.pop()
            if name in found or name not in active:
                continue
            found.add(name)
            if name in self.ambiguous:
                raise Unsupported(name, active[name].node, "there are two classes of this name")
            for member in self.members(active[name]):
                if is_public(member.function.name):
                    given = names(member.function.returns)
                    waiting += given | ({"Page"} if LISTING in given else set())
                    if given & TREES:
                        waiting.append("FileOutput")
            for node, _, _ in self._fields_of(active[name]):
                waiting += names(node.annotation)
        return found

    def _fields_of(self, item: Class) -> Iterator[tuple[ast.AnnAssign, ast.stmt | None, Module]]:
        """Yield the public fields of an attrs class and its bases, each with what follows it, and its module."""
        if not item.is_attrs:
            return
        for base in item.bases:
            if base in self.classes:
                yield from self._fields_of(self.classes[base])
        for node, after in itertools.zip_longest(item.node.body, item.node.body[1:]):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and not node.target.id.startswith("_")
                and head(node.annotation) != "ClassVar"
            ):
                yield node, after, item.module

    # Types

    def _type(self, node: ast.expr, module: Module, where: str) -> str:
        """Translate an annotation, and note what it needs imported."""
        generator = self

        class Translate(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.AST:
                return ast.Name(RENAMED.get(node.id, node.id))

            def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
                if head(node) == "AsyncGenerator":
                    node.slice = argument(node)
                if head(node) == "Callable" and names(node) & generator.active.keys():
                    raise Unsupported(where, node, "a function of active objects")
                return self.generic_visit(node)

        translated = Translate().visit(evaluate(node))
        for name in names(translated):
            self.annotated[name] = module
        return ast.unparse(translated)

    def _parameter_type(self, node: ast.expr, module: Module, where: str) -> str:
        members = alternatives(evaluate(node))
        kept = [member for member in members if head(member) not in ASYNC_ONLY]
        if not kept:
            raise Unsupported(where, node, "a parameter that accepts only asynchronous things")
        return " | ".join(self._type(member, module, where) for member in kept)

    def _holds_active(self, node: ast.expr, parameters: Sequence[str]) -> bool:
        return bool(names(node) & {*self.active, *TREES, *parameters})

    def _wrap(
        self, annotation: ast.expr, value: str, item: Class, module: Module, where: str
    ) -> str:
        """Return an expression that turns the async *value* into its twin."""
        node = evaluate(annotation)
        if "Exception" in names(node):
            return f"self._lease.adopted({value})"
        if not self._holds_active(node, item.parameters):
            return value
        members = alternatives(node)
        concrete = [member for member in members if ast.unparse(member) != "None"]
        if len(members) == 1 and head(node) in self.active and head(node) != "Page":
            return self._twin_of(head(node), value)
        for member in concrete:
            self._check_wrappable(member, item, where)
        self.used.add("wrap")
        wrapped = f"wrap(self._lease, {value})"
        if head(node) in TREES:
            return wrapped
        self.used.add("cast")
        return f"cast({self._type(node, module, where)!r}, {wrapped})"

    def _check_wrappable(self, member: ast.expr, item: Class, where: str) -> None:
        """Complain of a result in which no twins can be put by looking at it."""
        if not self._holds_active(member, item.parameters) or isinstance(member, ast.Name):
            return
        if head(member) == "Page":
            return
        if head(member) in {"list", "dict"} and isinstance(member, ast.Subscript):
            inner = member.slice.elts[-1] if isinstance(member.slice, ast.Tuple) else member.slice
            for each in alternatives(inner):
                self._check_wrappable(each, item, where)
            return
        raise Unsupported(where, member, f"{ast.unparse(member)} as a result")

    def _twin_of(self, name: str, value: str) -> str:
        made = f"{name}._of" if self._is_constructed(self.active[name]) else name
        return f"{made}(self._lease, {value})"

    def _is_constructed(self, item: Class) -> bool:
        """Tell whether users make such objects themselves."""
        return item.name == ROOT

    # Functions

    def _signature(self, member: Member, where: str) -> tuple[str, str]:
        """Return the parameters, and the arguments that pass them on."""
        function, module = member.function, member.home.module
        arguments = copy.deepcopy(function.args)
        passed: list[str] = []
        positional = [*arguments.posonlyargs, *arguments.args]
        for index, each in enumerate(positional + arguments.kwonlyargs):
            if index == 0:
                continue
            if each.annotation is None:
                raise Unsupported(where, function, f"{each.arg} has no annotation")
            value = each.arg
            if names(each.annotation) & self.active.keys():
                self._check_unwrappable(each.annotation, where)
                self.used.add("unwrap")
                value = f"unwrap({value})"
            annotation = self._parameter_type(each.annotation, module, where)
            each.annotation = ast.parse(annotation, mode="eval").body
            by_name = index >= len(positional)
            passed.append(f"{each.arg}={value}" if by_name else value)
        if arguments.vararg:
            raise Unsupported(where, function, "*args")
        if arguments.kwarg:
            kind = arguments.kwarg.annotation
            if kind is None or ast.unparse(kind) != "Any":
                raise Unsupported(where, function, "**kwargs that are not `**inputs: Any`")
            self.annotated["Any"] = module
            self.used.add("unwrap_inputs")
            passed.append(f"**unwrap_inputs({arguments.kwarg.arg})")
        for default in filter(None, [*arguments.defaults, *arguments.kw_defaults]):
            if any(isinstance(node, ast.Name) for node in ast.walk(default)):
                raise Unsupported(where, function, f"the default {ast.unparse(default)}")
        return ast.unparse(arguments), ", ".join(passed)

    def _check_unwrappable(self, annotation: ast.expr, where: str) -> None:
        for member in alternatives(evaluate(annotation)):
            if isinstance(member, ast.Subscript) and names(member.slice) & self.active.keys():
                raise Unsupported(where, annotation, f"{ast.unparse(member)} as a parameter")

    def _kind(self, function: Function) -> Kind:
        if "asynccontextmanager" in decorators(function):
            return "hold"
        returns = evaluate(function.returns) if function.returns is not None else None
        outer = "" if returns is None else head(returns)
        if isinstance(function, ast.AsyncFunctionDef):
            if not yields(function):
                # A coroutine that gives an iterator would be awaited first.
                return "call"
            return "iterate"
        if outer == LISTING:
            return "call"
        if outer in STREAMS:
            return "iterate"
        return "hold" if outer in MANAGERS else "plain"

    def _result_type(self, member: Member, kind: Kind, where: str) -> str:
        function, module = member.function, member.home.module
        if function.returns is None:
            raise Unsupported(where, function, "no return annotation")
        node = evaluate(function.returns)
        if kind == "call" and names(node) & (STREAMS | MANAGERS):
            raise Unsupported(where, function, f"a coroutine that returns {ast.unparse(node)}")
        if kind in {"call", "plain"} and names(node) & {"Awaitable", "Coroutine"}:
            raise Unsupported(where, function, f"{ast.unparse(node)} as a result")
        if kind == "hold":
            if names(argument(node)) & self.active.keys():
                raise Unsupported(where, function, "a context manager of active objects")
            self.annotated["AbstractContextManager"] = module
            return f"AbstractContextManager[{self._type(argument(node), module, where)}]"
        return self._type(node, module, where)

    def _function(self, item: Class, member: Member) -> Iterator[str]:
        function = member.function
        where = f"{item.name}.{function.name}"
        kind = self._kind(function)
        parameters, passed = self._signature(member, where)
        result = self._result_type(member, kind, where)
        if where in BY_HAND:
            result = result.replace("Stream[", "Iterator[", 1)
            self.annotated["Iterator"] = member.home.module
        decorated = decorators(function)
        unknown = decorated - {"overload", "property", "asynccontextmanager"}
        if unknown:
            raise Unsupported(where, function, f"the decorator {', '.join(sorted(unknown))}")
        if "overload" in decorated:
            self.used.add("overload")
            yield "@overload"
        elif "property" in decorated:
            if kind != "plain":
                raise Unsupported(where, function, "a property that is to be awaited")
            yield "@property"
        yield f"def {function.name}({parameters}) -> {result}:"
        if "overload" in decorated:
            yield "    ..."
            return
        yield from self._doc(function)
        yield from ("    " + line for line in self._body(item, member, kind, passed, where))

    def _body(
        self, item: Class, member: Member, kind: Kind, passed: str, where: str
    ) -> Iterator[str]:
        function = member.function
        module = member.home.module
        assert function.returns is not None
        if where in BY_HAND:
            self.by_hand.add(where)
            self.used.add(BY_HAND[where])
            yield f"return {BY_HAND[where]}({', '.join(filter(None, ['self', passed]))})"
            return
        node = evaluate(function.returns)
        target = f"self._async.{function.name}"
        if function.name == "__call__":
            target = "self._async"
        overloaded = (
            function.name not in OPERATORS
            and sum(m.function.name == function.name for m in self.members(item)) > 1
        )
        if overloaded:
            # The implementation accepts more than its overloads admit.
            self.used |= {"Any", "cast"}
            target = f"cast(Any, {target})"
        if kind == "call":
            call = f"self._lease.call({', '.join(filter(None, [target, passed]))})"
            if ast.unparse(node) == "None":
                yield call
            elif ast.unparse(node) == "Self":
                yield call
                yield "return self"
            elif head(node) == LISTING:
                yield f"return Page(self._lease, {call})"
            else:
                yield f"return {self._wrap(node, call, item, module, where)}"
        elif kind == "iterate":
            wrapping = ""
            if self._holds_active(argument(node), item.parameters):
                for each in alternatives(argument(node)):
                    self._check_wrappable(each, item, where)
                self.used.add("wrap_all")
                wrapping = ", wrap_all"
            yield f"return self._lease.{iteration(node)}({target}({passed}){wrapping})"
        elif kind == "hold":
            yield f"return self._lease.hold({target}({passed}))"
        else:
            called = OPERATORS.get(function.name, f"{target}({passed})").format(passed)
            if "property" in decorators(function):
                called = target
            yield from self._plain(item, node, called, module, where)

    def _plain(
        self, item: Class, node: ast.expr, called: str, module: Module, where: str
    ) -> Iterator[str]:
        """Yield the body of what needs no event loop."""
        if ast.unparse(node) == "None":
            yield called
        elif ast.unparse(node) == "Self":
            yield f"return self._of(self._lease, {called})"
        elif head(node) == "Iterator" and self._holds_active(node, item.parameters):
            self.used.add("wrap")
            yield f"return iter([wrap(self._lease, each) for each in {called}])"
        else:
            yield f"return {self._wrap(node, called, item, module, where)}"

    def _doc(self, node: Function | ast.ClassDef) -> Iterator[str]:
        doc = ast.get_docstring(node, clean=False)
        if isinstance(node, ast.ClassDef) and node.name in DOCS:
            yield f'    """{DOCS[node.name]}"""'
        elif doc is not None:
            yield f'    """{sync_doc(doc)}"""'

    # Classes

    def _class(self, item: Class) -> Iterator[str]:
        parameters = item.parameters
        subscript = f"[{', '.join(parameters)}]" if parameters else ""
        # Its parameters are those of the twin: a page of predictions holds twins of predictions.
        wrapped = f"Async{item.name}" + (
            f"[{', '.join('Any' for _ in parameters)}]" if parameters else ""
        )
        # A string: the modules of the async client are imported when they are needed.
        bases = [f"Twin[{wrapped!r}]"]
        is_stream = self.has(item, "__anext__")
        if is_stream:
            bases = [f"StreamTwin[{wrapped!r}, {self._item_type(item)!r}]"]
            self.used.add("StreamTwin")
        else:
            self.used.add("Twin")
        if item.name in MIXINS:
            bases.insert(0, MIXINS[item.name])
            self.used.add(MIXINS[item.name])
        if parameters:
            self.used |= {"Generic", "Any"}
            bases.append(f"Generic{subscript}")
        yield f"class {item.name}({', '.join(bases)}):"
        yield from self._doc(item.node)
        if not is_stream:
            yield ""
            yield "    __slots__ = ()"
        body = [*self._constructor(item), *self._fields(item)]
        for member in self.members(item):
            name = member.function.name
            if name in BOTH_WORLDS.get(item.name, ()):
                body += self._both(item, member)
            if is_stream and name in OF_STREAMS:
                continue
            if name == "__aiter__":
                body += self._iter(item, member)
            elif name in {"aclose", "__aenter__", "__aexit__"}:
                if item.name != ROOT:
                    raise Unsupported(item.name, item.node, f"{name}, but no `__anext__`")
            elif is_public(name):
                if name in BOTH_WORLDS.get(item.name, ()):
                    continue
                body += ["", *self._function(item, member)]
        if item.name == ROOT:
            body += self._closing(item)
        for line in body:
            # The further lines of docstrings keep their own indentation.
            first, *rest = line.split("\n")
            yield "\n".join(["    " + first, *rest]) if line else ""

    def _item_type(self, item: Class) -> str:
        [step] = [m for m in self.members(item) if m.function.name == "__anext__"]
        assert step.function.returns is not None
        node = evaluate(step.function.returns)
        self._check_wrappable(node, item, item.name)
        return self._type(node, step.home.module, item.name)

    def _constructor(self, item: Class) -> Iterator[str]:
        if item.name != ROOT:
            return
        [init] = [m for m in self.members(item) if m.function.name == "__init__"]
        parameters, passed = self._signature(init, f"{item.name}.__init__")
        self.used |= {"Lease", "wrap"}
        yield ""
        yield f"def __init__({parameters}) -> None:"
        yield from self._doc(init.function)
        yield f"    wrapped = Async{item.name}({passed})"
        yield "    super().__init__(Lease(wrapped.aclose, wrap), wrapped)"

    def _fields(self, item: Class) -> Iterator[str]:
        """The public fields of an attrs class become properties."""
        for node, after, module in self._fields_of(item):
            assert isinstance(node.target, ast.Name)
            name = node.target.id
            where = f"{item.name}.{name}"
            value = self._wrap(node.annotation, f"self._async.{name}", item, module, where)
            yield ""
            yield "@property"
            yield f"def {name}(self) -> {self._type(node.annotation, module, where)}:"
            match after:
                case ast.Expr(value=ast.Constant(value=str(doc))):
                    yield f'    """{sync_doc(doc)}"""'
                case _:
                    raise Unsupported(where, node, "a field without a docstring")
            yield f"    return {value}"

    def _iter(self, item: Class, member: Member) -> Iterator[str]:
        result = self._result_type(member, "iterate", f"{item.name}.__aiter__")
        yield ""
        yield f"def __iter__(self) -> {result}:"
        yield from self._doc(member.function)
        assert member.function.returns is not None
        yield f"    return self._lease.{iteration(evaluate(member.function.returns))}(self._async)"

    def _both(self, item: Class, member: Member) -> Iterator[str]:
        function = member.function
        where = f"{item.name}.{function.name}"
        assert function.returns is not None
        result = ast.unparse(evaluate(function.returns))
        if len(function.args.args) != 1 or names(function.returns) & self.active.keys():
            raise Unsupported(where, function, "parameters or active results in both worlds")
        self.annotated["AsyncIterator"] = self.annotated["Coroutine"] = item.module
        self.annotated["Any"] = item.module
        yield ""
        if function.name == "__aiter__":
            yield f"def __aiter__(self) -> {result}:"
            yield from self._doc(function)
            yield "    return aiter(self._async)"
        else:
            yield f"def {function.name}(self) -> Coroutine[Any, Any, {result}]:"
            yield from self._doc(function)
            yield f"    return self._async.{function.name}()"

    def _closing(self, item: Class) -> Iterator[str]:
        [aclose] = [m for m in self.members(item) if m.function.name == "aclose"]
        self.annotated["Self"] = item.module
        yield ""
        yield "def close(self) -> None:"
        yield '    """Close the connections; what still runs is cancelled. It may be called twice."""'
        yield "    self._lease.close()"
        yield ""
        yield "def __enter__(self) -> Self:"
        yield "    return self"
        yield ""
        yield "def __exit__(self, *exc_info: object) -> None:"
        yield "    self._lease.close()"
        assert aclose.function.returns is not None

    # The file

    def source(self) -> str:
        """Return the generated module, not laid out yet."""
        body: list[str] = []
        for item in self.active.values():
            body += ["", "", *self._class(item)]
        if missing := BY_HAND.keys() - self.by_hand:
            raise Unsupported(", ".join(missing), ast.Pass(), "written by hand, and gone")
        self.used.add("TWINS")
        twins = ", ".join(
            f'("{PACKAGE.name}.{item.module.name}", "{name}"): {name}'
            for name, item in self.active.items()
        )
        variables = sorted({name for item in self.active.values() for name in item.parameters})
        variables += [name for name in self.annotated if len(name) == 1 and name not in variables]
        if variables:
            self.used.add("TypeVar")
        return "\n".join(
            [
                HEADER,
                *self._imports(),
                "",
                *(f'{name} = TypeVar("{name}")' for name in variables),
                *body,
                "",
                "",
                f"TWINS.update({{{twins}}})",
                "",
            ]
        )

    def _imports(self) -> Iterator[str]:
        yield f"from ..{self.active[ROOT].module.name} import {ROOT} as Async{ROOT}"
        for name in sorted(self.used):
            yield RUNTIME[name]
        yield "from typing import TYPE_CHECKING"
        needed = {
            name: module
            for name, module in sorted(self.annotated.items())
            if name not in self.active and name not in self.used and len(name) > 1
        }
        yield "if TYPE_CHECKING:"
        for name, item in self.active.items():
            if name != ROOT:
                yield f"    from ..{item.module.name} import {name} as Async{name}"
        for name, module in needed.items():
            yield from ("    " + line for line in self._import(name, module))

    @staticmethod
    def _import(name: str, module: Module) -> Iterator[str]:
        if name in RUNTIME:
            yield RUNTIME[name]
        elif name in module.imports:
            statement, original = module.imports[name]
            yield f"{statement} {original}" + ("" if name == original else f" as {name}")
        elif name in module.names:
            yield f"from ..{module.name} import {name}"


def is_public(name: str) -> bool:
    """Tell whether users call something of this name; complain of what is unknown."""
    if name in COPIED or name == "__aiter__":
        return True
    if name.startswith("__") and name not in OF_THE_BASE | OF_STREAMS:
        raise Unsupported(name, ast.Pass(), "a special method that the facade does not know")
    return not name.startswith("_")


def formatted(source: str) -> str:
    """Sort the imports and lay out the code, as those of the project are."""
    for command in (["check", "--fix-only", "--select", "I,UP,F401"], ["format"]):
        source = subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-m", "ruff", *command, "-q", "--stdin-filename", str(TARGET), "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
            cwd=PACKAGE.parent,
        ).stdout
    return source


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or compare it; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the sync facade.")
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args(arguments)
    try:
        new = formatted(Generator().source())
    except Unsupported as error:
        print(f"the facade cannot express this: {error}", file=sys.stderr)
        return 2
    old = TARGET.read_text("utf-8") if TARGET.exists() else ""
    if not options.check:
        TARGET.write_text(new, "utf-8")
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), "checked in", "generated"
        )
    )
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main())
