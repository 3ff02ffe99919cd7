"""The pages of the docs: every Python block runs, and the tables are complete and true."""

from __future__ import annotations

import asyncio
import gc
import inspect
import operator
import re
import shlex
import time
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from documents import (
    ROOT,
    Block,
    Document,
    check_failures_of_web_app,
    check_web_app,
    check_webhook_app,
    local_emulator,
    table,
)

import replicate_async
from replicate_async import Client, exceptions, sync, testing
from replicate_async import types as data_types
from replicate_async.__main__ import parser
from replicate_async._tools.exports import BOTH_WORLDS
from replicate_async.testing import TOKEN, Emulator
from replicate_async.testing._http import ROUTES
from replicate_async.v1 import _backend

DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): Document(path) for path in sorted(DOCS.rglob("*.md"))}
BLOCKS = [(name, block) for name, page in PAGES.items() for block in page.blocks]
RUN = sorted({name for name, block in BLOCKS if not (block.is_app or block.is_test)})
NAMESPACES = (
    *("accounts", "collections", "deployments", "files", "hardware"),
    *("models", "predictions", "trainings", "webhooks"),
)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """Run an emulator that the default client finds, in a directory with a picture."""
    with local_emulator(monkeypatch, tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def no_client_is_left() -> Iterator[None]:
    """Drop the clients that v1 keeps for the life of a program: their thread would outlive the test."""
    yield
    _backend._sync_client.cache_clear()  # noqa: SLF001  (programs have no need for it)
    _backend._async_client.cache_clear()  # noqa: SLF001
    gc.collect()


# -- Blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", RUN)
def test_page(page: str, emulator: Emulator) -> None:
    """The blocks of a page run one after the other, as they are pasted, and leave nothing behind."""
    names = types.ModuleType("__main__").__dict__
    with asyncio.Runner() as runner:
        for block in PAGES[page].blocks:
            if not (block.is_app or block.is_test):
                block.run_after(names, runner)
    assert not emulator.ledger.leaks()
    ends = time.monotonic() + 20
    while emulator.ledger.running():
        assert time.monotonic() < ends, "a prediction was left running"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "block", [each for _, each in BLOCKS if each.is_test], ids=lambda block: block.page.path.stem
)
def test_tests(block: Block, tmp_path: Path) -> None:
    """Pytest runs the tests of a block."""
    block.run_tests(tmp_path)


def app_of(page: str) -> Block:
    """Return the only app on a page."""
    [block] = [block for block in PAGES[page].blocks if block.is_app]
    return block


def test_all_apps_are_tested() -> None:
    """There is no app but those that the tests below serve."""
    pages = {name for name, block in BLOCKS if block.is_app}
    assert pages == {"guides/web-apps.md", "guides/webhooks.md"}


async def test_web_app(emulator: Emulator) -> None:
    """The web app answers with the picture that it was asked for."""
    await check_web_app(app_of("guides/web-apps.md").run("app")["app"], emulator)


async def test_web_app_tells_failures(emulator: Emulator) -> None:
    """The web app tells a failed model from an API that refuses."""
    await check_failures_of_web_app(app_of("guides/web-apps.md").run("app")["app"], emulator)


async def test_webhook_app(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The webhook's app hears of a prediction, and refuses what is not signed."""
    created = await check_webhook_app(app_of("guides/webhooks.md").run("app")["app"], emulator)
    assert capsys.readouterr().out == f"{created} succeeded: hello Alice\n"


def test_first_block(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The first block prints what it says that it prints."""
    PAGES["index.md"].blocks[0].run()
    assert capsys.readouterr().out == "hello Alice\n"


def test_abandoned_run(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The run that is given up was created once, and is cancelled at the other end."""
    [block] = PAGES["explanation/money.md"].blocks
    block.run()
    said = capsys.readouterr().out
    assert "created=1" in said
    assert "cancelled=1" in said
    [life] = emulator.ledger.created()
    assert life.did("cancelled")


def test_batch_again(emulator: Emulator) -> None:
    """The script of the tutorial saves each picture, and creates nothing when it runs again."""
    [block] = [each for each in PAGES["tutorial.md"].blocks if "pictures.db" in each.source]
    block.run()
    block.run()
    assert len(list(Path("pictures").glob("*.png"))) == len(emulator.ledger.created()) == 3


def test_commands() -> None:
    """Every command of this package that a page shows is one."""
    lines = [
        line.partition("replicate-async ")[2]
        for page in PAGES.values()
        for line in re.findall(r"^\$ (replicate-async .+)$", page.text, re.MULTILINE)
    ]
    assert lines
    for line in lines:
        parser().parse_args(shlex.split(line))
    named = {name for name, page in PAGES.items() if "python -m replicate_async " in page.text}
    assert named == {"reference/command-line.md"}, "elsewhere, it is the script"


def test_token() -> None:
    """The token in the pages is the emulator's."""
    tokens = {each for page in PAGES.values() for each in re.findall(r"\br8_\w+", page.text)}
    assert tokens == {TOKEN}


# -- Tables ------------------------------------------------------------------------------------


def test_options() -> None:
    """The table has every option of a client, in the order of its signature, and no other."""
    named = [row[0].strip("`") for row in options()]
    assert named == list(inspect.signature(Client).parameters)


def options() -> list[list[str]]:
    """Return the rows of the options of a client."""
    text, _, _ = PAGES["reference/options.md"].text.partition("\n## ")
    return table(text)


def test_defaults() -> None:
    """The defaults in the table are those of the code."""
    shown = {row[0].strip("`"): row[1].strip("`") for row in options()}
    for default in (
        replicate_async.Timeout(),
        replicate_async.Retry(),
        replicate_async.RateLimit(),
    ):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(default).__name__).lower()
        fields = "".join(f", {field}={value:g}" for field, value in attrs.asdict(default).items())
        assert shown[name] == f"{type(default).__name__}({fields[2:]})"
    sizes = {
        "16 GiB": 16 * 2**30,
        "256 MiB": 256 * 2**20,
        "64 MiB": 64 * 2**20,
        "64 KiB": 64 * 2**10,
        "256": 256,
    }
    limits = dict(re.findall(r"(\w+)=([\w ]+)", shown["limits"]))
    assert {name: sizes[size] for name, size in limits.items()} == attrs.asdict(
        replicate_async.Limits()
    )


def test_exceptions() -> None:
    """Every exception has a cause and a cure, and its description."""
    page = PAGES["reference/exceptions.md"]
    named = re.findall(
        r"^\| \{py:exc\}`~replicate_async\.exceptions\.(\w+)`", page.text, re.MULTILINE
    )
    assert sorted(named) == sorted(exceptions.__all__)
    assert all(all(cell.strip() for cell in row) for row in table(page.text))
    assert sorted(documented(page, exceptions.__name__)) == sorted(exceptions.__all__)
    # What those of OSError and the like inherit is Python's.
    assert page.text.count(":no-inherited-members:") == len(exceptions.__all__)


def test_tree_of_exceptions() -> None:
    """The tree, which the page includes from the docstring of the module, has every exception."""
    included = r":start-at: (\w+)\n:end-at: (\w+)\n"
    [(first, last)] = re.findall(included, PAGES["reference/exceptions.md"].text)
    lines = inspect.cleandoc(exceptions.__doc__ or "").splitlines()
    start = next(n for n, line in enumerate(lines) if first in line)
    end = next(n for n, line in enumerate(lines) if last in line)
    tree = re.findall(r"\b[A-Z]\w+\b", " ".join(lines[start : end + 1]))
    assert set(tree) >= set(exceptions.__all__)


def test_extras() -> None:
    """The table has every extra that the package has."""
    named = [row[0].strip("`") for row in PAGES["index.md"].rows("Extras")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert named == list(project["optional-dependencies"])


def test_built_in_models() -> None:
    """The table has the models of the emulator."""
    named = [row[0].strip("`") for row in PAGES["guides/testing.md"].rows("From the shell")]
    theirs = [name for name, _ in Emulator().models() if not name.startswith("acme/")]
    assert sorted(named) == sorted(theirs)


def test_models_of_the_emulator() -> None:
    """Every model of the emulator that a page or a program names is built in."""
    built_in = {name for name, _ in Emulator().models()}
    programs = [path for path in (DOCS / "examples").iterdir() if path.is_file()]
    texts = [page.text for page in PAGES.values()] + [path.read_text("utf-8") for path in programs]
    named = {name for text in texts for name in re.findall(r"(?<![\w/])emulator/\w+", text)}
    assert named
    assert named <= built_in


# -- The reference -----------------------------------------------------------------------------


def documented(page: Document, module: str) -> list[str]:
    """Return the names of a module that a page documents."""
    name = re.escape(module)
    found = re.findall(rf"^\.\. auto\w+:: {name}\.(\w+)$", page.text, re.MULTILINE)
    return found + re.findall(
        rf"^\.\. py:data:: (\w+)\n   :module: {name}$", page.text, re.MULTILINE
    )


def everywhere(module: str) -> list[str]:
    """Return the names of a module that the pages document."""
    return [name for page in PAGES.values() for name in documented(page, module)]


def test_public_names() -> None:
    """Every public name is documented once, where the other names of its kind are."""
    verbs = {
        "__version__",
        "map",
        "output",
        "paginate",
        "run",
        "search",
        "start",
        "stream",
        "use",
        *NAMESPACES,
    }
    modules = {"exceptions", "types"}
    top, twin = set(replicate_async.__all__), set(sync.__all__)
    errors, data = set(exceptions.__all__), set(data_types.__all__)
    returned = {"FunctionRun", "StreamingRun", "ModelMatch"}
    own = {"OwnExamples", "OwnPredictions", "OwnReadme", "OwnVersions"}
    expected = {
        "replicate_async": top - verbs - modules - errors | returned | own,
        # Backplanes and replies are the same in both.
        "replicate_async.sync": twin - verbs - modules - errors - data - BOTH_WORLDS
        | returned
        | own,
        "replicate_async.types": data - top,
        "replicate_async.exceptions": errors,
        "replicate_async.testing": set(testing.__all__),
    }
    for module, names in expected.items():
        assert sorted(everywhere(module)) == sorted(names), module


def test_default_client() -> None:
    """The page of the client names all verbs and namespaces of the default client."""
    _, _, text = PAGES["reference/client.md"].text.partition("## The default client")
    named = re.findall(r"`(\w+)`[,\n]", text)
    client = Client("token")
    exported = {name for name in replicate_async.__all__ if hasattr(client, name)} - {"aclose"}
    assert sorted(named) == sorted(exported)


def test_endpoints() -> None:
    """The table has every operation of the API once, and their methods exist."""
    text, _, _ = PAGES["reference/operations.md"].text.partition("\n(namespace-")
    client = Client("token")
    shown = []
    for endpoint, method in table(text):
        found = re.fullmatch(
            r"\{py:\w+\}`([\w.]+) <replicate_async\.(?:Client\.)?([\w.]+)>`", method
        )
        assert found, method
        assert found[1] == found[2]
        assert callable(operator.attrgetter(found[1])(client)), method
        shown.append(re.sub(r"\{\w+\}", "*", endpoint.strip("`")))
    assert sorted(shown) == sorted(
        f"{method} {path.removeprefix('/v1')}" for method, path, _ in ROUTES
    )


@pytest.mark.parametrize("package", [replicate_async, sync], ids=["async", "sync"])
def test_operations(package: types.ModuleType) -> None:
    """Every method of the namespaces is documented once."""
    client = package.Client("token")
    expected = [name for each in NAMESPACES for name in methods(getattr(client, each), each)]
    pattern = rf"^\.\. autofunction:: {re.escape(package.__name__)}::([\w.]+)$"
    found = [
        name for page in PAGES.values() for name in re.findall(pattern, page.text, re.MULTILINE)
    ]
    assert sorted(found) == sorted(expected)


def methods(namespace: object, path: str) -> Iterator[str]:
    """Yield the paths of the methods of a namespace."""
    for name in dir(namespace):
        if not name.startswith("_"):
            found = getattr(namespace, name)
            inner = f"{path}.{name}"
            yield from [inner] if callable(found) else methods(found, inner)
