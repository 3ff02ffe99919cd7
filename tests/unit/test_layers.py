"""Layers: imports go down only, importing is cheap, and what is public is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import replicate_async
from replicate_async.resources._base import Namespace
from replicate_async.testing._http import ROUTES
from replicate_async.types import Record

ROOT = Path(replicate_async.__file__).parent

RANKS = {
    # Lower ranks first (see CONTRIBUTING): a module imports only what stands above it here, or beside it
    # in its own folder. Imports for type checkers count.
    "_version": 0,
    "_redaction": 0,
    "_tracebacks": 0,
    "types": 0,
    "_json": 0,
    "exceptions": 1,
    "_codec": 2,
    "_threads": 2,
    "_concurrency": 2,
    "_bars": 3,
    "_display": 2,
    "_extras": 2,
    "_telemetry": 2,
    "_unpicklable": 2,
    "_arguments": 3,
    "_references": 3,
    "_signatures": 3,
    "_http": 4,
    "_files": 5,
    "_jobs": 6,
    "_web": 7,
    "resources": 8,
    "_verbs": 9,
    "client": 10,
    "sync": 11,
    "testing": 11,
    "": 12,
    "_cli": 13,
    "_pytest": 13,
    "v1": 13,
    "__main__": 14,
    "_tools": 14,
}

HTTP = {"_http", "testing"}
"""The only parts that may import an HTTP library."""


def _modules() -> list[tuple[str, Path]]:
    """Return the dotted names below the package, and the files."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append((name, path))
    return found


def _part(name: str) -> str:
    return name.partition(".")[0]


MODULES = _modules()
CLIENT = [(name, path) for name, path in MODULES if _part(name) != "testing"]
EMULATOR = [(name, path) for name, path in MODULES if _part(name) == "testing"]


def _imports(path: Path, name: str) -> Iterator[tuple[str, int]]:
    """Yield what a file imports, as absolute names, and the lines; in functions and for type checkers, too."""
    is_package = path.name == "__init__.py"
    base = ["replicate_async", *filter(None, name.split("."))]
    package = base if is_package else base[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*start, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{home}.{alias.name}", node.lineno


def _target(imported: str) -> str | None:
    """Return the part of this package that is imported, if any."""
    root, _, rest = imported.partition(".")
    if root != "replicate_async":
        return None
    part = _part(rest)
    return part if part in RANKS else ""


def test_every_module_has_a_rank() -> None:
    """A new module is given its place on purpose."""
    assert {_part(name) for name, _ in MODULES} <= set(RANKS)
    assert len(MODULES) > 20


def test_the_map() -> None:
    """The map of the tree in CONTRIBUTING.md has every module, in a row of its own or of its folder, and its rank."""
    text = (ROOT.parent / "CONTRIBUTING.md").read_text("utf-8")
    shown: dict[str, int] = {}
    for row in re.findall(r"^\| (`[^|]*`) \| (\d+) \|", text, re.MULTILINE):
        folder = ""
        for place in re.findall(r"`([^`]*)`", row[0]):
            if place.endswith("/"):
                shown[place] = int(row[1])
                continue
            if "/" in place:
                folder = place.rpartition("/")[0] + "/"
            shown[place if "/" in place else folder + place] = int(row[1])
    assert all((ROOT / place).exists() for place in shown)
    for place, rank in shown.items():
        assert rank == RANKS[_part(place.partition("/")[0].removesuffix(".py"))], place
    for _, path in MODULES:
        place = path.relative_to(ROOT).as_posix()
        folder = place.rpartition("/")[0] + "/"
        has_own_rows = any(each != folder and each.startswith(folder) for each in shown)
        is_plain = path.name == "__init__.py" or place == "_version.py"
        assert place in shown or is_plain or (folder in shown and not has_own_rows), place


@pytest.mark.parametrize(("name", "path"), CLIENT, ids=[name for name, _ in CLIENT])
def test_imports_go_down(name: str, path: Path) -> None:
    """A module imports only modules of lower ranks, or of its own folder."""
    part = _part(name)
    for imported, line in _imports(path, name):
        target = _target(imported)
        if target is None or target == part:
            continue
        assert RANKS[target] < RANKS[part], f"{path.name}:{line} imports {imported}"


def _imported_modules(name: str, path: Path, known: set[str]) -> set[str]:
    found = set()
    for imported, _ in _imports(path, name):
        root, _, rest = imported.partition(".")
        if root == "replicate_async":
            # A module, or a name in one.
            found.add(rest if rest in known else rest.rpartition(".")[0])
    return found - {name}


def test_there_is_no_circle() -> None:
    """No two files import each other, not even by way of others; the generated facade aside."""
    known = {name for name, _ in MODULES}
    edges = {
        name: _imported_modules(name, path, known)
        for name, path in MODULES
        if _part(name) != "sync"
    }
    assert sum(map(len, edges.values())) > 200
    assert {target for targets in edges.values() for target in targets} <= known
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            pytest.fail(" -> ".join((*trail[trail.index(name) :], name)))
        if name not in done:
            for target in sorted(edges.get(name, ())):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


@pytest.mark.parametrize(("name", "path"), CLIENT, ids=[name for name, _ in CLIENT])
def test_one_folder_talks_http(name: str, path: Path) -> None:
    """HTTP libraries are imported in one folder alone."""
    if _part(name) in HTTP:
        return
    for imported, line in _imports(path, name):
        root = imported.partition(".")[0]
        assert root not in {"aiohttp", "yarl", "multidict", "http", "urllib3"}, f"line {line}"


PURE = [
    "_codec",
    "_redaction",
    "_arguments",
    "_references",
    "_signatures",
    "_http.retry",
    "_files.media",
    "_jobs.events",
    "_jobs.policy",
    "_verbs.schema",
    "exceptions",
    "types",
]


@pytest.mark.parametrize("pure", PURE)
def test_pure_modules(pure: str) -> None:
    """Decisions are functions of plain values: no loop, no clock, no network, no disk."""
    files = [(name, path) for name, path in MODULES if name == pure or name.startswith(f"{pure}.")]
    assert files
    for name, path in files:
        roots = {imported.partition(".")[0] for imported, _ in _imports(path, name)}
        assert not roots & {"asyncio", "anyio", "time", "socket", "ssl", "threading", "random"}


def test_imports_are_at_the_top() -> None:
    """No function imports something without a reason beside it."""
    without = []
    for name, path in CLIENT:
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for inner in ast.walk(node):
                if isinstance(inner, (ast.Import, ast.ImportFrom)):
                    beside = lines[inner.lineno - 1] + lines[inner.lineno - 2]
                    if "#" not in beside:
                        without.append(f"{name}:{inner.lineno}")
    assert without == []


@pytest.mark.parametrize(("name", "path"), EMULATOR, ids=[name for name, _ in EMULATOR])
def test_the_emulator_shares_nothing_with_the_client(name: str, path: Path) -> None:
    """The emulator imports nothing of the client: it would share its mistakes."""
    for imported, line in _imports(path, name):
        if imported.startswith("replicate_async"):
            assert imported.startswith("replicate_async.testing"), f"{path.name}:{line}"


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name, path in MODULES if _part(name) in ("_cli", "__main__")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_command_line_is_a_user(name: str, path: Path) -> None:
    """The command line imports public names only, and uses no private members of their objects."""
    for imported, line in _imports(path, name):
        root, _, rest = imported.partition(".")
        if root == "replicate_async" and rest != "__version__":
            private = [part for part in rest.split(".") if part.startswith("_")]
            assert private in ([], ["_cli"]), f"{path.name}:{line} imports {imported}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not re.fullmatch("__.*__", node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            argparse_type = node.attr == "_SubParsersAction"
            assert own or argparse_type or not node.attr.startswith("_"), f"line {node.lineno}"


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-c",
            code + "; import sys; print(*sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
        timeout=60,
    )
    return set(done.stdout.split())


def test_importing_is_cheap() -> None:
    """`import replicate_async` imports neither an HTTP client nor an event loop, nor the classes."""
    loaded = _modules_after("import replicate_async")
    heavy = {"aiohttp", "anyio", "asyncio", "attrs", "cattrs", "aiofiles", "ssl", "json", "yarl"}
    assert not loaded & heavy


def test_the_plugin_is_cheap() -> None:
    """The pytest plugin is loaded into the test runs of all users, and imports nothing for it."""
    loaded = _modules_after("import replicate_async.testing._pytest, replicate_async._pytest")
    assert not loaded & {"aiohttp", "anyio", "yarl", "attrs"}


# -- What is public ----------------------------------------------------------------------------


def _public_modules() -> list[ModuleType]:
    names = [
        name
        for name, _ in CLIENT
        if not any(part.startswith("_") for part in name.split(".")) and name != "testing"
    ]
    return [
        importlib.import_module(f"replicate_async.{name}" if name else "replicate_async")
        for name in [*names, "testing"]
    ]


@pytest.mark.parametrize("module", _public_modules(), ids=lambda module: module.__name__)
def test_all_is_complete(module: ModuleType) -> None:
    """`__all__` of a public module is a tuple of what it defines, sorted, and all of it is there."""
    if module.__name__ == "replicate_async.resources":
        assert not hasattr(module, "__all__")
        return
    assert isinstance(module.__all__, tuple)
    assert list(module.__all__) == sorted(module.__all__, key=_isort)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    of_resources = ".resources." in module.__name__
    missing = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
        # The modules of resources share helpers; what users meet there is data and namespaces.
        and (
            not of_resources or (inspect.isclass(value) and issubclass(value, (Record, Namespace)))
        )
        and name not in module.__all__
    }
    assert missing <= {"default_client"}


def _isort(name: str) -> tuple[int, str]:
    """Order as ruff does: constants, classes, the rest."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1, name) if name[0].isupper() else (2, name)


def test_unknown_names() -> None:
    """A name that does not exist is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="nonsense"):
        _ = replicate_async.nonsense
    assert set(dir(replicate_async)) >= set(replicate_async.__all__)


def _documented() -> Iterator[tuple[str, object]]:
    for module in _public_modules():
        yield module.__name__, module
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            yield f"{module.__name__}.{name}", value
            if not inspect.isclass(value):
                continue
            for attribute, member in vars(value).items():
                if attribute.startswith("_"):
                    continue
                if isinstance(member, property) or inspect.isfunction(member):
                    yield f"{module.__name__}.{name}.{attribute}", member


def test_everything_public_is_documented() -> None:
    """Each public module, class, method and property has a docstring."""
    without = [name for name, value in _documented() if not inspect.getdoc(value)]
    assert without == []
    assert len(list(_documented())) > 150


def _public_classes() -> Iterator[type]:
    found = {
        value: None
        for module in _public_modules()
        for name in getattr(module, "__all__", ())
        if inspect.isclass(value := getattr(module, name))
        and value.__module__.startswith("replicate_async.")
        and not value.__module__.startswith("replicate_async.testing")
    }
    yield from found


def test_fields_are_documented() -> None:
    """Each public field of the public classes has a docstring below it."""
    without = []
    looked_at = 0
    for cls in _public_classes():
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(node, ast.ClassDef)
        for field, following in zip(node.body, [*node.body[1:], None], strict=True):
            if (
                not isinstance(field, ast.AnnAssign)
                or not isinstance(field.target, ast.Name)
                or field.target.id.startswith("_")
            ):
                continue
            looked_at += 1
            match following:
                case ast.Expr(value=ast.Constant(value=str())):
                    pass
                case _:
                    without.append(f"{cls.__module__}.{cls.__qualname__}.{field.target.id}")
    assert without == []
    assert looked_at > 150


def test_operations_name_themselves() -> None:
    """The docstring of the method of each operation names it, so that a search finds its code."""
    text = "".join(path.read_text() for name, path in CLIENT)
    missing = [
        name
        for _, _, name in ROUTES
        if not re.search(rf"(?<![.\w]){re.escape(name)}(?!\w|\.\w)", text)
    ]
    assert len(ROUTES) == 37
    assert missing == []
