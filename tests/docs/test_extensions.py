"""What Sphinx is taught for the docs: docstrings in Markdown, and the command line."""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import pytest
from command_line import describe
from docstrings import to_rst
from inventories import EXTERNAL, write_inventories
from links import broken

from replicate_async.__main__ import parser


def translated(text: str, **links: str) -> str:
    """Return a docstring as reStructuredText."""
    return "\n".join(to_rst(text.split("\n"), links))


def test_fence() -> None:
    """A fenced block becomes a code block, whose content stays as it is."""
    assert translated("Text:\n\n```python\nif `a`:\n    b\n\nc\n```\n\nMore.") == (
        "Text:\n\n\n.. code-block:: python\n\n    if `a`:\n        b\n\n    c\n\n\nMore."
    )


def test_fence_without_language() -> None:
    """A fenced block without a language is text."""
    assert ".. code-block:: text" in translated("```\nCtrl-C\n```")


def test_indented_fence() -> None:
    """A fenced block in a section stays in it."""
    assert translated("Args:\n    a: Such as\n\n        ```json\n        {}\n        ```\n") == (
        "Args:\n    a: Such as\n\n\n        .. code-block:: json\n\n            {}\n\n"
    )


def test_fence_without_end() -> None:
    """A fenced block that does not end is an error."""
    with pytest.raises(ValueError, match="no end"):
        translated("```python\na")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`a` and `b.c()`", "``a`` and ``b.c()``"),
        ("the `datetime`s", "the ``datetime``\\ s"),
        ("`a`'s", "``a``'s"),
        ("non-`a`", "non-``a``"),
        ("a`b`", "a\\ ``b``"),
        ("`a\nb`", "``a\nb``"),
        (r"`\n`", r"``\n``"),
        ("``a`` stays", "``a`` stays"),
        ("see :api:`predictions.get`", "see :api:`predictions.get`"),
        ("see :py:class:`Client`", "see :py:class:`Client`"),
        ("`text <https://example.com>`_", "`text <https://example.com>`_"),
        ("a ` alone", "a ` alone"),
        ("a ` here\n\nand ` there", "a ` here\n\nand ` there"),
    ],
)
def test_backticks(text: str, expected: str) -> None:
    """Backticks are literals; roles, links and what is a literal already stay."""
    assert translated(text) == expected


def test_links() -> None:
    """Known names become links to where they are documented."""
    assert translated("a `Client` of `Clients`", Client="package.Client") == (
        "a :py:obj:`Client <package.Client>` of ``Clients``"
    )


def test_raises_from_somewhere() -> None:
    """A section of exceptions that says where they come from becomes a field."""
    text = "Do.\n\nRaises, from the iteration:\n    A: One\n        two.\n    B: Three.\n\nMore."
    assert translated(text) == (
        "Do.\n\n:Raises, from the iteration:\n    - :py:exc:`A` -- One\n      two.\n"
        "    - :py:exc:`B` -- Three.\n\nMore."
    )


def test_other_sections_stay() -> None:
    """Sections that napoleon knows are left to it."""
    text = "Do.\n\nArgs:\n    a: One.\n\nRaises:\n    B: Two."
    assert translated(text) == text


def test_no_docstring() -> None:
    """Nothing comes of nothing."""
    assert to_rst([]) == []


def test_command_line() -> None:
    """Every command has its section, every argument its row."""
    outer = argparse.ArgumentParser(prog="tool")
    commands = outer.add_subparsers()
    run = commands.add_parser("run", description="run it.", epilog="That is all, but --number.")
    run.add_argument("model", help="what to run")
    run.add_argument("-n", "--number", type=int, default=3, help="how many (%(default)s)")
    run.add_argument("--format", choices=("a", "b"), help="a|b, with --number")
    inner = commands.add_parser("list", help="lists").add_subparsers()
    inner.add_parser("new", help="the newest").add_argument(
        "--json", action="store_true", help="JSON"
    )
    text = describe(outer)
    assert "## run\n\nRun it.\n" in text
    assert "| `model` | What to run |" in text
    assert "| `-n N`, `--number N` | How many (3) |" in text.replace("NUMBER", "N")
    assert "| `--format {a,b}` | a\\|b, with `--number` |" in text
    assert "That is all, but `--number`." in text
    assert "## list new\n\nThe newest\n" in text
    assert "| `--json` | JSON |" in text
    assert "## list\n" not in text


def test_commands_of_the_package() -> None:
    """The commands of the package are described."""
    text = describe(parser())
    for command in ("run", "stream", "map", "predictions list", "demo", "emulator"):
        assert f"## {command}\n" in text


def test_inventories(tmp_path: Path) -> None:
    """The inventories have the format that Sphinx reads, and all names."""
    found = write_inventories(tmp_path)
    entries: list[str] = []
    for url, file in found.values():
        assert url.startswith("https://")
        *head, content = file.read_bytes().split(b"\n", 4)
        assert head[0] == b"# Sphinx inventory version 2"
        entries += zlib.decompress(content).decode().splitlines()
    assert [entry.split()[0] for entry in entries] == list(EXTERNAL)


def test_links_of_pages(tmp_path: Path) -> None:
    """A link within the site that leads nowhere is found."""
    (tmp_path / "in").mkdir()
    (tmp_path / "a.html").write_text(
        '<a id="here" href="#here"></a><a href="#gone"></a><a href="in/b.html#there"></a>'
        '<a href="in/c.html"></a><a href="https://example.com/#x"></a><img src="x.png">'
    )
    (tmp_path / "in" / "b.html").write_text('<p id="there"><a href="../a.html#here"></a></p>')
    assert broken(tmp_path) == [
        "a.html: #gone: there is no such place",
        "a.html: in/c.html: there is no such file",
        "a.html: x.png: there is no such file",
    ]
