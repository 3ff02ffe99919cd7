"""Docstrings as this package writes them, turned into reStructuredText for autodoc.

They are written for people who read the source: Markdown's backticks and fences, and Google's sections. Napoleon
understands the sections; this module translates the rest before it. It needs nothing but the standard library,
so the tests need no Sphinx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_FENCE = re.compile(r"(?P<indent> *)```(?P<language>[\w-]*)\s*$")
_INLINE = re.compile(
    r"""
      (?P<kept> ``.+?`` | :[\w.+-]+(?::[\w.+-]+)*:`[^`]+` | `[^`]+<[^`>]+>`_{1,2} )
    | `(?P<code> (?: (?!\n\s*\n) [^`] )+ )`
    """,
    re.VERBOSE | re.DOTALL,
)
_RAISES = re.compile(r"Raises(?P<when>, [\w ]+):$")
_NONE: Mapping[str, str] = {}
_ENTRY = re.compile(r" {4}(?P<name>[A-Za-z_][\w.]*): (?P<text>.*)$")


def to_rst(lines: Sequence[str], links: Mapping[str, str] = _NONE) -> list[str]:
    """Translate a docstring.

    Args:
        lines: The lines of the docstring, without its common indentation.
        links: Names that become a cross-reference when they stand in backticks, and where to.

    Returns:
        The lines for napoleon.

    Raises:
        ValueError: A fenced block has no end.
    """
    translated: list[str] = []
    prose: list[str] = []
    rest = iter(lines)
    for line in rest:
        fence = _FENCE.match(line)
        if fence is None:
            prose.append(line)
            continue
        translated += _prose(prose, links)
        prose = []
        translated += _code_block(rest, fence["indent"], fence["language"])
    return translated + _prose(prose, links)


def _code_block(rest: Iterator[str], indent: str, language: str) -> list[str]:
    block = ["", f"{indent}.. code-block:: {language or 'text'}", ""]
    for line in rest:
        if line.rstrip() == f"{indent}```":
            return [*block, ""]
        block.append(f"    {line}" if line.strip() else "")
    raise ValueError("a fenced block has no end")


def _prose(lines: Sequence[str], links: Mapping[str, str]) -> list[str]:
    text = "\n".join(_raises(lines))

    def literal(found: re.Match[str]) -> str:
        if found["kept"] is not None:
            return found["kept"]
        code = found["code"].strip()
        marked = f":py:obj:`{code} <{links[code]}>`" if code in links else f"``{code}``"
        # Inline markup ends at a word boundary of its own making only.
        before = text[found.start() - 1 : found.start()]
        after = text[found.end() : found.end() + 1]
        return f"{_joint(before)}{marked}{_joint(after)}"

    return _INLINE.sub(literal, text).split("\n") if lines else []


def _joint(neighbour: str) -> str:
    return "\\ " if neighbour.isalnum() else ""


def _raises(lines: Sequence[str]) -> list[str]:
    """Make fields of sections such as "Raises, from the iteration:", which napoleon does not know."""
    made: list[str] = []
    inside = False
    for line in lines:
        heading = _RAISES.match(line)
        entry = _ENTRY.match(line) if inside else None
        if heading is not None:
            inside = True
            made.append(f":Raises{heading['when']}:")
        elif entry is not None:
            made.append(f"    - :py:exc:`{entry['name']}` -- {entry['text']}")
        elif inside and line.startswith("     "):
            made.append(f"      {line.strip()}")
        else:
            inside = inside and not line.strip()
            made.append(line)
    return made
