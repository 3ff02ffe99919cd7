"""What docstrings and the reference of the HTTP API say about each other."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import pytest
from documents import ROOT

from replicate_async.testing._http import ROUTES

PACKAGE = ROOT / "replicate_async"
REFERENCE = (ROOT / "docs" / "reference" / "http-api.md").read_text("utf-8")
LABELS = re.findall(r"^\(api-([\w.-]+)\)=$", REFERENCE, re.MULTILINE)
OPERATIONS = [operation for _, _, operation in ROUTES]


def test_labels_of_docstrings() -> None:
    """Every label that the package refers to is in the reference."""
    for path in PACKAGE.rglob("*.py"):
        for label in re.findall(r":api:`([^`]*)`", path.read_text("utf-8")):
            assert label in LABELS, path


def test_labels_are_unique() -> None:
    """No label stands for two sections."""
    assert len(LABELS) == len(set(LABELS))


def test_operations() -> None:
    """Every operation of the emulator has a section, with its method and path."""
    for method, path, operation in ROUTES:
        shown = re.search(
            rf"^\(api-{re.escape(operation)}\)=\n### {re.escape(operation)}\n\n\| Request \| `(.+?)` \|$",
            REFERENCE,
            re.MULTILINE,
        )
        assert shown, operation
        assert re.sub(r"\{\w+\}", "*", shown[1]) == f"{method} {path.removeprefix('/v1')}"


def test_facts_of_operations() -> None:
    """Every section of an operation says what it takes and returns, and how well that is confirmed."""
    for operation in OPERATIONS:
        _, _, rest = REFERENCE.partition(f"(api-{operation})=\n")
        section = rest.partition("\n(api-")[0]
        facts = re.findall(r"^\| (\w+) \|", section, re.MULTILINE)
        assert {"Purpose", "Body", "Response", "Errors", "Confirmed"} <= set(facts), operation
        assert ("Path" in facts) == ("{" in section.splitlines()[2]), operation


def test_index_of_operations() -> None:
    """The table at the top has every operation once."""
    index = re.findall(r"^\| \[`([\w.]+)`\]\(#api-([\w.]+)\) \|", REFERENCE, re.MULTILINE)
    assert sorted(index) == sorted((name, name) for name in OPERATIONS)


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the docstrings of the package, those of attributes included, and where they are."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            body = getattr(node, "body", None)
            for statement in body if isinstance(body, list) else []:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    text = statement.value.value
                    if isinstance(text, str):
                        yield f"{path.relative_to(ROOT)}:{statement.lineno}", inspect.cleandoc(text)


CODE = [
    pytest.param(code, id=place)
    for place, text in docstrings()
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("code", CODE)
def test_code_of_docstrings(code: str) -> None:
    """Examples in docstrings are Python, as it is typed into `python -m asyncio`."""
    compile(code, "docstring", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_no_sections_by_number() -> None:
    """What the package says of the API is a link to its reference, not the number of a section."""
    counted = re.compile(r"HTTP API, sections?|\(sections? \d")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if counted.search(line)
    ]
    assert not found
