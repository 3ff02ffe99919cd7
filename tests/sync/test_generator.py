"""The facade is current and complete, and its generator refuses what it cannot express."""

from __future__ import annotations

import ast
import inspect
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import replicate_async
from replicate_async import sync
from replicate_async._tools import docstrings, generate_sync
from replicate_async._tools.facade import ASYNC_WORLD, Generator
from replicate_async._tools.sources import PACKAGE, Sources, Unsupported
from replicate_async.sync import _facade
from replicate_async.sync._twin import TWINS

ASYNC = {"aclose", "__aenter__", "__aexit__", "__anext__", "__await__"}
BOTH = {"aread", "__aiter__"}


@pytest.fixture(autouse=True)
def environment() -> None:
    """Need no emulator."""


def test_current() -> None:
    """The files that are checked in are what the generator writes."""
    command = [sys.executable, "-m", "replicate_async._tools.generate_sync", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("name", ["__init__.py", "_facade.py", "exceptions.py"])
def test_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str) -> None:
    """One changed byte is found in each file, and shown."""
    for path in generate_sync.TARGET.glob("*.py"):
        shutil.copy(path, tmp_path)
    stale = tmp_path / name
    stale.write_text(stale.read_text("utf-8") + "#", "utf-8")
    monkeypatch.setattr(generate_sync, "TARGET", tmp_path)
    assert generate_sync.main(["--check"]) == 1
    assert f"{name}, checked in" in capsys.readouterr().out


@pytest.mark.parametrize(("original", "twin"), TWINS.items(), ids=lambda cls: cls.__name__)
def test_parity(original: type[Any], twin: type[Any]) -> None:
    """At run time, too, both worlds have the same members, parameters and defaults, with documentation."""
    for name in dir(original):
        if name.startswith("_") and name != "__call__":
            continue
        if name in ASYNC | BOTH | ASYNC_WORLD.get(original.__name__, frozenset()):
            continue
        theirs = inspect.getattr_static(original, name)
        ours = inspect.getattr_static(twin, name)
        if not inspect.isfunction(theirs):
            assert isinstance(ours, property), name
            assert inspect.getdoc(ours), name
            continue
        assert [
            (p.name, p.kind, p.default) for p in inspect.signature(theirs).parameters.values()
        ] == [(p.name, p.kind, p.default) for p in inspect.signature(ours).parameters.values()]
        assert inspect.getdoc(ours), name


def test_every_active_class_has_a_twin() -> None:
    """What both packages export under one name is the twin, or the very same."""
    assert {twin.__name__ for twin in TWINS.values()} >= {
        "Client", "FileOutput", "Model", "Page", "Prediction", "Training", "EventStream", "ModelFunction",
    }  # fmt: skip
    for name in set(replicate_async.__all__) & set(sync.__all__):
        if not inspect.isclass(original := getattr(replicate_async, name, None)):
            continue
        assert getattr(sync, name) is TWINS.get(original, original), name


def test_exports() -> None:
    """Both packages export the same names, save for what only one of them can have."""
    assert set(sync.__all__) == (
        set(replicate_async.__all__) - {"Listing", "aclose", "file_response", "while_connected"}
    ) | {
        "Stream",
        "SyncInAsyncWarning",
        "close",
    }
    assert dir(sync) == sorted(sync.__all__)


def test_static_names_are_the_dynamic_ones() -> None:
    """What type checkers see of the module is what there is."""
    source = Path(inspect.getfile(sync)).read_text("utf-8")
    seen = {"__version__", "exceptions", "types"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for each in node.body:
                if isinstance(each, ast.ImportFrom):
                    seen |= {alias.asname for alias in each.names if alias.asname}
                elif isinstance(each, ast.Assign):
                    seen |= {ast.unparse(target) for target in each.targets}
                elif isinstance(each, ast.AnnAssign):
                    seen.add(ast.unparse(each.target))
    assert seen == set(sync.__all__)


def test_no_such_name() -> None:
    """A misspelled name is an AttributeError, of the module and of twins."""
    with pytest.raises(AttributeError, match="runn"):
        sync.runn  # noqa: B018
    with sync.Client("t") as client, pytest.raises(AttributeError, match="runn"):
        client.runn  # type: ignore[attr-defined]  # noqa: B018


def test_generated_is_plain() -> None:
    """What users read has no async syntax, and no logic of its own."""
    tree = ast.parse(inspect.getsource(_facade))
    kinds = {type(node) for node in ast.walk(tree)}
    assert not kinds & {
        ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.While, ast.For, ast.Try,
        ast.Lambda, ast.IfExp,
    }  # fmt: skip
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    head = inspect.getsource(_facade).splitlines()[:2]
    assert "Do not edit" in head[0]
    assert "nox -s generate" in head[1]


# -- What it makes of sources ------------------------------------------------------------------

BASE = '''
from __future__ import annotations
from collections.abc import AsyncIterator, AsyncIterable, Awaitable, Iterable, Callable, Mapping
from contextlib import asynccontextmanager, AbstractAsyncContextManager
from typing import Any, Generic, TypeVar
import attrs

T = TypeVar("T")
Output = Any

class Client:
    """A client."""
    def __init__(self, token: str = "t") -> None: ...
    async def aclose(self) -> None:
        """Close."""
    def paginate(self, listing: int) -> AsyncIterator[int]:
        """Pages."""
    @property
    def thing(self) -> Thing:
        """A thing."""
    @property
    def outcomes(self) -> Outcomes:
        """Outcomes."""
    @property
    def output(self) -> OutputStream:
        """Output."""
    @property
    def receiver(self) -> Receiver:
        """A receiver."""

class Receiver:
    """A receiver."""
    def on(self, *events: str) -> int:
        """Register."""
    async def handle(self) -> int:
        """Handle."""

class Outcomes:
    """Outcomes."""
    async def collect(self) -> int:
        """Collect."""

class OutputStream:
    """Output."""
    async def collect(self) -> int:
        """Collect."""

class FileOutput:
    """A file."""
    async def read(self) -> bytes:
        """Read."""

class Data:
    """Data."""

class Thing:
    """A thing."""
    async def g(self) -> Data:
        """Get."""
'''


def generated(tmp_path: Path, member: str, more: str = "") -> str:
    """Return what is generated for a class `Thing` with a further member."""
    package = tmp_path / "package"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir()
    source = BASE + textwrap.indent(textwrap.dedent(member), "    ") + "\n" + textwrap.dedent(more)
    (package / "client.py").write_text(source, "utf-8")
    return Generator(package).source()


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ('async def f(self, x: int = 1) -> int:\n    """F."""', "def f(self, x: int=1) -> int:"),
        ('async def f(self) -> int:\n    """F."""', "return self._lease.call(self._async.f)"),
        ('async def f(self) -> None:\n    """F."""', "        self._lease.call(self._async.f)\n"),
        (
            'async def f(self) -> Thing:\n    """F."""',
            "return Thing(self._lease, self._lease.call(",
        ),
        ('async def f(self) -> Thing | None:\n    """F."""', "cast('Thing | None', wrap("),
        ('async def f(self) -> list[Thing]:\n    """F."""', "cast('list[Thing]', wrap("),
        (
            'async def f(self) -> Output:\n    """F."""',
            "return wrap(self._lease, self._lease.call(",
        ),
        ('async def f(self) -> AsyncIterator[int]:\n    """F."""\n    yield 1', "-> Stream[int]:"),
        (
            'def f(self) -> AsyncIterator[Thing]:\n    """F."""',
            "return Stream(self._lease, self._async.f(), wrap_all)",
        ),
        (
            '@asynccontextmanager\nasync def f(self) -> AsyncIterator[int]:\n    """F."""\n    yield 1',
            "-> AbstractContextManager[int]:",
        ),
        (
            'def f(self) -> AbstractAsyncContextManager[int]:\n    """F."""',
            "return Held(self._lease, self._async.f())",
        ),
        ('def f(self, x: Thing) -> int:\n    """F."""', "return self._async.f(unwrap(x))"),
        (
            '@property\ndef f(self) -> Thing:\n    """F."""',
            "return Thing(self._lease, self._async.f)",
        ),
        (
            'async def f(self, x: Iterable[int] | AsyncIterable[int]) -> int:\n    """F."""',
            "def f(self, x: Iterable[int]) -> int:",
        ),
        (
            'async def f(self, /, **inputs: Any) -> int:\n    """F."""',
            "self._lease.call(self._async.f, **unwrap_inputs(inputs))",
        ),
        (
            'async def f(self) -> int:\n    """F.\n\n    ```python\n    await c.f()\n    ```\n    """',
            "    c.f()\n",
        ),
        ('async def __call__(self) -> int:\n    """F."""', "self._lease.call(self._async)"),
        (
            'async def f(self, a: int, *x: int, y: int) -> int:\n    """F."""',
            "self._lease.call(self._async.f, a, *x, y=y)",
        ),
    ],
)
def test_shapes(tmp_path: Path, member: str, expected: str) -> None:
    """Each shape of the closed list has its counterpart."""
    assert expected in generated(tmp_path, member)


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ("async def f(self, x) -> int: ...", "Thing.f, line .*: x has no annotation"),
        ("async def f(self, *x) -> int: ...", r"\*args"),
        ("async def f(self, *x: Thing) -> int: ...", r"\*args"),
        ("async def f(self, **x: int) -> int: ...", "kwargs"),
        ("async def f(self, x: AsyncIterable[int]) -> int: ...", "only asynchronous"),
        ("async def f(self, x: list[Thing]) -> int: ...", "as a parameter"),
        ("async def f(self, x: Callable[[Thing], int]) -> int: ...", "Thing"),
        ("async def f(self): ...", "no return annotation"),
        ("async def f(self) -> tuple[Thing, int]: ...", "as a result"),
        ("async def f(self) -> Callable[[], Thing]: ...", "Thing"),
        ("async def f(self) -> AsyncIterator[int]: ...", "a coroutine that returns"),
        ("def f(self) -> Awaitable[int]: ...", "as a result"),
        ("@property\ndef f(self) -> AsyncIterator[int]: ...", "a property"),
        ("@classmethod\nasync def f(cls) -> int: ...", "decorator"),
        ("async def f(self, x: int = Data) -> int: ...", "the default Data"),
        ("def __add__(self, x: int) -> Thing: ...", "special method"),
        ("async def aclose(self) -> None: ...", "aclose"),
        (
            "@asynccontextmanager\nasync def f(self) -> AsyncIterator[Thing]:\n    yield self",
            "a context manager of active objects",
        ),
    ],
)
def test_refusals(tmp_path: Path, member: str, why: str) -> None:
    """What the facade cannot express is an error of the build, which says where it is."""
    with pytest.raises(Unsupported, match=why):
        generated(tmp_path, member)


def test_fields(tmp_path: Path) -> None:
    """Fields of attrs classes become properties, with their documentation; without, it is an error."""
    more = '''
    @attrs.define
    class Record:
        """A record."""
        thing: Thing | None = None
        """Its thing."""
        async def reload(self) -> Record:
            """Reload."""
    '''
    member = 'async def f(self) -> Record:\n    """F."""'
    made = generated(tmp_path, member, more)
    assert "def thing(self) -> Thing | None:" in made
    assert '"""Its thing."""' in made
    with pytest.raises(Unsupported, match=r"Record.thing.*: a field without a docstring"):
        generated(tmp_path, member, more.replace('"""Its thing."""', ""))


def test_streams(tmp_path: Path) -> None:
    """A class that is iterated over becomes a stream, also if its base is generic."""
    more = '''
    class _Base(Generic[T]):
        async def __anext__(self) -> T: ...
        async def aclose(self) -> None: ...

    class Events(_Base[Data]):
        """Events."""
        @property
        def text(self) -> str:
            """Text."""
    '''
    made = generated(tmp_path, 'def f(self) -> Events:\n    """F."""', more)
    assert "class Events(StreamTwin[AsyncEvents, 'Data']):" in made
    assert "return Events(self._lease, self._async.f())" in made


def test_two_of_a_name(tmp_path: Path) -> None:
    """Two classes of one name, of which one is to have a twin, are an error."""
    package = tmp_path / "package"
    generated(tmp_path, "")
    (package / "other.py").write_text("class Thing:\n    async def f(self) -> int: ...\n", "utf-8")
    with pytest.raises(Unsupported, match="two classes of this name"):
        Generator(package)


# -- Docstrings --------------------------------------------------------------------------------


def test_documentation() -> None:
    """Code in docstrings is translated, in blocks and in the text, and so are known phrases."""
    doc = (
        "Wait with `await x()` or `async with`.\n\nAn async\n    iterator and async context manager."
        "\n\n```python\nimport replicate_async as replicate\nasync with C() as c:\n    await c.f()\n```\n"
    )
    assert docstrings.translated(doc, "C.f") == (
        "Wait with `x()` or `with`.\n\nAn iterator and context manager."
        "\n\n```python\nfrom replicate_async import sync as replicate\nwith C() as c:\n    c.f()\n```\n"
    )


def test_documentation_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument can have another description in the facade, and an exception none."""
    monkeypatch.setattr(docstrings, "ARGUMENTS", {("C.f", "two"): "Any iterable."})
    doc = """Do it.

        Args:
            one: One.
            two: Any iterable,
                or an awaitable.
            three: Three.

        Raises:
            StreamInUse: Another task
                reads it.
            ArgumentError: No.
        """
    assert (
        docstrings.translated(doc, "C.f")
        == """Do it.

        Args:
            one: One.
            two: Any iterable.
            three: Three.

        Raises:
            ArgumentError: No.
        """
    )
    with pytest.raises(Unsupported, match="no argument 'two'"):
        docstrings.translated("Do it.", "C.f")


@pytest.mark.parametrize(
    "doc",
    ["Await it.", "Returns a coroutine.", "On the event\n loop.", "From any task", "Call aclose."],
)
def test_untranslated_documentation(tmp_path: Path, doc: str) -> None:
    """A docstring that still speaks of the async world is an error of the build."""
    with pytest.raises(Unsupported, match=r"Thing.f: say .* in sync words"):
        generated(tmp_path, f'async def f(self) -> int:\n    """{doc.replace("any", "some")}"""')


def _documented() -> Iterator[tuple[str, str]]:
    """Yield the docstrings that users of the facade meet, and what they are of."""
    classes = {
        value
        for name in sync.__all__
        if inspect.isclass(value := getattr(sync, name))
        and value.__module__.startswith(sync.__name__)
    }
    for cls in (classes | set(TWINS.values())) - {sync.SyncInAsyncWarning}:
        yield cls.__name__, cls.__doc__ or ""
        for name in dir(cls):
            if not name.startswith("_") or name in ("__call__", "__init__", "__iter__"):
                member = inspect.getattr_static(cls, name)
                yield f"{cls.__name__}.{name}", inspect.getdoc(member) or ""


def test_no_docstring_is_asynchronous() -> None:
    """No docstring of the facade speaks of the async world, save what is for it."""
    found = dict(_documented())
    assert len(found) > 300
    wrong = {name for name, doc in found.items() if docstrings.FORBIDDEN.search(doc)}
    assert wrong - {"FileOutput.aread"} == set()


def test_translations_are_needed() -> None:
    """Each phrase that the generator translates is there, somewhere in the async client."""
    sources = Sources()
    text = " ".join(
        " ".join(doc.split()).lower()
        for item in sources.active.values()
        for node in (item.node, *(member.function for member in sources.members(item)))
        if (doc := ast.get_docstring(node))
    )
    assert [phrase for phrase in docstrings.PROSE if phrase not in text] == []
