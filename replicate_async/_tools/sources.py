"""Reads the async client: its modules, and the classes that need a twin.

The modules are parsed and never imported: there are no side effects, and all versions of Python read the same.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .annotations import Function, argument, head, names, substituted

PACKAGE: Final = Path(__file__).resolve().parents[1]

OTHER_PARTS: Final = frozenset({"_cli", "_tools", "sync", "testing", "v1"})
"""Folders of the package that are not of the async client."""

ROOT: Final = "Client"
LISTING: Final = "Listing"
STREAMS: Final = frozenset({"AsyncIterator", "AsyncIterable", "AsyncGenerator"})
MANAGERS: Final = frozenset({"AbstractAsyncContextManager"})
TREES: Final = frozenset({"Output"})
"""Aliases of JSON-like trees that may hold active objects."""

COPIED: Final = frozenset(
    {"__call__", "__iter__", "__len__", "__getitem__", "__contains__", "__bool__"}
    | {f"_repr_{kind}_" for kind in ("html", "markdown", "mimebundle", "png", "jpeg", "svg")}
)
"""Names with underscores that are public all the same."""

OF_THE_BASE: Final = frozenset(
    {"__init__", "__repr__", "__str__", "__eq__", "__hash__", "__reduce__", "__reduce_ex__"}
    | {"__get_pydantic_core_schema__", "__get_pydantic_json_schema__"}
    | {"__attrs_post_init__", "__copy__", "__deepcopy__", "__del__"}
)
"""Special methods that all twins have from their base, or need not have."""

OF_STREAMS: Final = frozenset(
    {"__aiter__", "__anext__", "aclose", "__aenter__", "__aexit__", "__await__"}
)


class Unsupported(Exception):
    """The async client has something that the facade cannot express."""

    def __init__(self, where: str, node: ast.AST | None, why: str) -> None:
        line = "" if node is None else f", line {getattr(node, 'lineno', '?')}"
        super().__init__(f"{where}{line}: {why}")


@dataclass
class Module:
    """A module of the async client."""

    name: str
    """Its name below the package, such as `resources.models`."""
    tree: ast.Module
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The names that its imports bind: the statement without the name, and the original name."""
    names: set[str] = field(default_factory=set)
    """The names that it defines."""


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
    def functions(self) -> list[Function]:
        """The functions in its body."""
        return [n for n in self.node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]

    @property
    def is_attrs(self) -> bool:
        """Whether attrs makes it."""
        return any("attrs" in ast.unparse(d) for d in self.node.decorator_list)


@dataclass
class Member:
    """A function of a class or of one of its bases."""

    home: Class
    function: Function


@dataclass
class Field:
    """A field of an attrs class or of one of its bases."""

    home: Class
    name: str
    annotation: ast.expr
    doc: str | None
    node: ast.AST


class Sources:
    """The async client: its classes, and those of them that need a twin."""

    def __init__(self, package: Path = PACKAGE) -> None:
        self.package = package
        self.modules: dict[str, Module] = {}
        self.classes: dict[str, Class] = {}
        self._ambiguous: set[str] = set()
        for path in sorted(package.rglob("*.py")):
            if path.relative_to(package).parts[0] not in OTHER_PARTS:
                self._read(path)
        active = self._find_active()
        found = self._reachable(active)
        self.active: dict[str, Class] = {
            name: active[name] for name in sorted(found, key=lambda name: (name != ROOT, name))
        }
        """The classes that need a twin, the client first."""

    def _read(self, path: Path) -> None:
        parts = path.relative_to(self.package).with_suffix("").parts
        module = Module(".".join(parts), ast.parse(path.read_text("utf-8"), str(path)))
        self.modules[module.name] = module
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                self._note_import(module, node, parts)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    module.imports[alias.asname or alias.name] = ("import", alias.name)
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef):
                module.names.add(node.name)
                if node.name in self.classes:
                    self._ambiguous.add(node.name)
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

    def members(self, item: Class) -> list[Member]:
        """Return the functions of a class and its bases, overloads included."""
        found = [Member(item, function) for function in item.functions]
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

    def member(self, item: Class, name: str) -> Member | None:
        """Return a function of a class; None if it has none of this name."""
        return next((each for each in self.members(item) if each.function.name == name), None)

    def fields(self, item: Class) -> Iterator[Field]:
        """Yield the public fields of an attrs class and its bases."""
        if not item.is_attrs:
            return
        for base in item.bases:
            if base in self.classes:
                yield from self.fields(self.classes[base])
        for node, after in itertools.zip_longest(item.node.body, item.node.body[1:]):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and not node.target.id.startswith("_")
                and head(node.annotation) != "ClassVar"
            ):
                yield Field(item, node.target.id, node.annotation, _text(after), node)

    # Classes that need a twin

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
        ) or any(names(each.annotation) & active.keys() for each in self.fields(item))

    def _reachable(self, active: dict[str, Class]) -> set[str]:
        found: set[str] = set()
        waiting = [ROOT]
        while waiting:
            name = waiting.pop()
            if name in found or name not in active:
                continue
            found.add(name)
            if name in self._ambiguous:
                raise Unsupported(name, active[name].node, "there are two classes of this name")
            for member in self.members(active[name]):
                if is_public(member.function.name):
                    given = names(member.function.returns)
                    waiting += given | ({"Page"} if LISTING in given else set())
                    if given & TREES:
                        waiting.append("FileOutput")
            for each in self.fields(active[name]):
                waiting += names(each.annotation)
        return found


def is_public(name: str) -> bool:
    """Tell whether users call something of this name.

    Raises:
        Unsupported: It is a special method that is not known.
    """
    if name in COPIED or name == "__aiter__":
        return True
    if name.startswith("__") and name not in OF_THE_BASE | OF_STREAMS:
        raise Unsupported(name, None, "a special method that the facade does not know")
    return not name.startswith("_")


def _text(node: ast.stmt | None) -> str | None:
    """Return the string that a statement consists of, if it does."""
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
        case _:
            return None
