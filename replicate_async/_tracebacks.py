"""Tracebacks that end at the user's line.

The sync facade trims those of its exceptions itself. Async ones pass through one frame for each `await`, and are
trimmed where they are looked at, in notebooks: elsewhere, Python shows them as they are.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

_PACKAGE: Final = str(Path(__file__).parent) + os.sep

_LIBRARIES: Final = (
    _PACKAGE,
    "<frozen",
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
"""Beginnings of the file names of code that is not the user's."""


def trim(error: BaseException, own: type[BaseException]) -> None:
    """End the traceback of one of our own exceptions at the user's line, and remove causes that add nothing.

    Args:
        error: The exception.
        own: The base of our own exceptions.
    """
    _remove_causes(error, own)
    error.__traceback__ = joined(_outside(error.__traceback__))


def notebook_traceback(error: BaseException, own: type[BaseException]) -> list[str]:
    """Return what IPython shows for one of our own exceptions: the same as for any other, but trimmed.

    Args:
        error: The exception.
        own: The base of our own exceptions.
    """
    trim(error, own)
    ipython = sys.modules.get("IPython")  # which has called this
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return traceback.format_exception(error)
    lines: list[str] = shell.InteractiveTB.structured_traceback(
        type(error), error, error.__traceback__
    )
    return lines


def _remove_causes(error: BaseException, own: type[BaseException]) -> None:
    """Remove the cause of an exception if its text is in the message; remove the package's frames from our own causes."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        cause = error.__cause__
        if cause is None and not error.__suppress_context__:
            cause = error.__context__
        if cause is None:
            return
        if isinstance(cause, own):
            cause.__traceback__ = joined(_outside(cause.__traceback__))
            error = cause
        elif _adds_nothing(cause, str(error)):
            error.__cause__ = None  # which suppresses the context, too
            return
        else:
            return


def _adds_nothing(cause: BaseException, message: str) -> bool:
    """Return whether the message contains the text of a cause that was not raised by the user's code."""
    texts = (str(cause), getattr(cause, "strerror", None))
    is_told = any(text and text in message for text in texts) or not str(cause)
    return is_told and all(is_in(each, *_LIBRARIES) for each in frames(cause.__traceback__))


def _outside(trace: TracebackType | None) -> list[TracebackType]:
    """Return the frames up to the package's first one, and those of the user's code that it has called."""
    kept: list[TracebackType] = []
    is_inside = False
    for each in frames(trace):
        if is_in(each, _PACKAGE):
            is_inside = True
        elif not is_inside or not is_in(each, *_LIBRARIES):
            kept.append(each)
    while is_inside and len(kept) > 1 and is_in(kept[-1], contextlib.__file__):
        kept.pop()  # a frame between a `with` statement and this package
    return kept


def is_in(trace: TracebackType, *places: str) -> bool:
    """Tell whether the code of a frame is in one of some folders."""
    return trace.tb_frame.f_code.co_filename.startswith(places)


def frames(trace: TracebackType | None) -> list[TracebackType]:
    """Return a traceback as a list, the outermost frame first."""
    found: list[TracebackType] = []
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


def joined(traces: list[TracebackType]) -> TracebackType | None:
    """Make a traceback of a list of frames."""
    following: TracebackType | None = None
    for trace in reversed(traces):
        trace.tb_next = following
        following = trace
    return following
