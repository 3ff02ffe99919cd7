"""Text for terminals: messages on standard error, and control characters, which are shown instead of executed.

This module imports nothing of the package, so that messages do not wait for the import of the client.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TextIO, TypeVar

E = TypeVar("E", bound=BaseException)

_TRACEBACK: Final = "REPLICATE_ASYNC_TRACEBACK"
"""Environment variable that asks for the traceback of an unexpected error."""

_CONTROLS: Final = re.compile(
    # All control characters but tab and line feed, among them ESC, and CSI as one character; what changes the direction of
    # writing, so that a text reads as another one; halves of surrogate pairs.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

_CRLF: Final = re.compile(r"\r+\n")


def is_terminal(file: TextIO | None) -> bool:
    """Tell whether a file is a terminal."""
    try:
        return file is not None and file.isatty()
    except ValueError:  # it is closed
        return False


def visible(text: str, *, lines: bool = True) -> str:
    r"""Return a text with its control characters as escapes such as `\x1b`.

    Args:
        text: The text.
        lines: Whether it may have several lines. If not, tabs and line feeds become escapes, too.
    """
    shown = _CONTROLS.sub(_escape, _CRLF.sub("\n", text))
    return shown if lines else shown.replace("\n", "\\n").replace("\t", "\\t")


def visible_json(text: str) -> str:
    r"""Return JSON with the control characters in its strings as escapes of JSON, such as `\u009b`."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def say(text: str) -> None:
    """Write a line to standard error, if that is possible; on a terminal, its control characters are shown."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # its terminal was closed, or its disk is full
            shown = visible(text) if is_terminal(sys.stderr) else text
            print(shown, file=sys.stderr, flush=True)


def discard() -> None:
    """Discard what standard output still has, and all that is written to it later."""
    with suppress(OSError, ValueError, AttributeError):  # it is closed, or no file
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


def flush() -> bool:
    """Flush standard output, and return whether that was possible. At its exit, the interpreter would show a traceback."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        discard()
        return False
    return True


def report(error: BaseException) -> None:
    """Report an unexpected error in a line; nothing if the program that read standard output has ended."""
    for each in flat(error) if isinstance(error, BaseExceptionGroup) else [error]:
        if isinstance(each, OSError) and each.errno == errno.EPIPE:
            continue
        say(f"error: {type(each).__name__}: {each}")
        if not isinstance(each, OSError):
            say(f"this should not happen; {_TRACEBACK}=1 shows where it does")
    if os.environ.get(_TRACEBACK):
        traceback.print_exception(error)


def flat(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """Yield the exceptions of a group, and of the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from flat(error)
        else:
            yield error
