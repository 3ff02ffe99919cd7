"""Translates docstrings of the async client into what is true of the sync facade.

Code is translated by rules: `await`, `async` and the names of methods. Prose is translated by the tables
below. What still speaks of the async world after that is an error of the build: add it to a table.
"""

from __future__ import annotations

import re
import textwrap
from typing import Final

from .sources import Unsupported

FORBIDDEN: Final = re.compile(
    r"""
    \b(await\w* | async(?!_)\w* | asynchronous\w* | coroutines?
    | event\s+loops? | tasks? | aclose )\b
    | __a(enter|exit|iter|next)__
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Words of the async world, which no docstring of the facade may have."""

PROSE: Final = {
    "an async iterator": "an iterator",
    "async iterator": "iterator",
    "async context manager": "context manager",
    "another task": "another thread",
}
"""Phrases, and what the facade says in their place. They may begin a sentence, and go over
line breaks."""

ARGUMENTS: Final = {
    ("Client.__init__", "session"): (
        "Not supported here: an aiohttp session works only in the thread that created it."
    ),
    ("Client.map", "inputs"): "Iterable of inputs. They are read as they are needed.",
    ("Client.use", "streaming"): "Whether calls return streams instead of the final output.",
    ("Files.create", "file"): (
        "Path (a string is taken for one, too), bytes, or binary file object, up to 100 MiB. A file object that"
        " can seek is read from its beginning. It stays open."
    ),
}
"""Descriptions of arguments that differ in the facade."""

NOT_RAISED: Final = frozenset({"StreamInUse"})
"""Exceptions that the facade does not raise: threads that use one stream wait for each other."""

WHOLE: Final = {
    "Client": """Client for Replicate's HTTP API.

    It can be used from several threads at a time, and after a fork. Its connections are opened at the first
    request. Close it with `close()` or `with`. A client that is not closed is closed when it is dropped, or when the
    interpreter exits.

    ```python
    with Client() as client:
        output = client.run("owner/name", {"prompt": "a red square"})
    ```
    """,
    "ModelFunction": """A model as a function: call it for the final output.

    Keyword arguments are the model's inputs. None means that an input is not given, unless the model accepts
    `null` for it. The output of another function can be an input, even of one that is still running: pass what
    `create` returns, or a stream. A list of one file is accepted where a file is expected.
    """,
}
"""Docstrings that differ as a whole."""


def translated(doc: str, where: str) -> str:
    """Return a docstring of the facade.

    Args:
        doc: The docstring of the async client.
        where: The class, or class and member, that it describes.

    Raises:
        Unsupported: It still speaks of the async world.
    """
    if where in WHOLE:
        return WHOLE[where]
    for (function, name), text in ARGUMENTS.items():
        if function == where:
            doc = _with_argument(doc, name, text, where)
    for name in NOT_RAISED:
        doc = _entry(name).sub("", doc)
    blocks = re.split(r"(```python\n.*?```)", doc, flags=re.DOTALL)
    # Every second part is a block of code.
    for index, part in enumerate(blocks):
        blocks[index] = _code(part) if index % 2 else _prose(part)
    doc = "".join(blocks)
    if found := FORBIDDEN.search(doc):
        around = " ".join(doc[max(found.start() - 60, 0) : found.end() + 60].split())
        raise Unsupported(where, None, f"say {around!r} in sync words, in {__name__}")
    return doc


def _with_argument(doc: str, name: str, text: str, where: str) -> str:
    """Replace the description of an argument."""

    def described(match: re.Match[str]) -> str:
        return (
            textwrap.fill(
                f"{name}: {text}",
                100,
                initial_indent=match[1],
                subsequent_indent=match[1] + "    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            + "\n"
        )

    replaced, count = _entry(name).subn(described, doc)
    if count != 1:
        raise Unsupported(where, None, f"there is no argument {name!r} in the docstring")
    return replaced


def _entry(name: str) -> re.Pattern[str]:
    """Return the pattern of an entry in a list of arguments or exceptions."""
    return re.compile(rf"^([ ]+){name}(?: \(.*\))?: .*\n(?:\1[ ]+.*\n)*", re.MULTILINE)


def _code(code: str) -> str:
    code = re.sub(r"\b(async|await)(?:\s+(?=\S)|(?=`))", "", code)
    code = re.sub(r"\baclose\b", "close", code)
    code = re.sub(r"\bfrom replicate_async import", "from replicate_async.sync import", code)
    return re.sub(r"\bimport replicate_async as\b", "from replicate_async import sync as", code)


def _prose(text: str) -> str:
    for phrase, replacement in PROSE.items():
        words = r"\s+".join(map(re.escape, phrase[1:].split()))
        for first, new in (
            (phrase[0], replacement),
            (phrase[0].upper(), replacement[0].upper() + replacement[1:]),
        ):
            text = re.sub(rf"\b{first}{words}\b", new, text)
    return re.sub(r"`[^`\n]+`", lambda span: _code(span[0]), text)
