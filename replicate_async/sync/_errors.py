"""Exceptions as if there were no facade: with twins in their attributes, and without its frames."""

from __future__ import annotations

import functools
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, ParamSpec, TypeVar

from .. import exceptions
from ._lease import Lease

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=BaseException | None)

_FACADE: Final = str(Path(__file__).parent) + os.sep
_PACKAGE: Final = str(Path(__file__).parent.parent) + os.sep

_LIBRARIES: Final = (
    _PACKAGE,
    "<frozen",
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
"""Where code is that is not the user's."""


def wrap_error(lease: Lease, error: E) -> E:
    """Put twins in the place of the async objects in the attributes of an exception, and return it."""
    if isinstance(error, exceptions.ReplicateException):
        for name, value in vars(error).items():
            setattr(error, name, lease.wrap(lease, value))
    return error


def boundary(method: Callable[P, T]) -> Callable[P, T]:
    """Decorate a method that users call, so that its exceptions tell nothing of the facade."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            lease: Lease | None = getattr(args[0], "_lease", None) if args else None
            if lease is not None:
                wrap_error(lease, error)
            trim(error)
            # Raised again without a value, an exception does not get the frame of this function.
            raise

    return call


def trim(error: BaseException) -> None:
    """Remove the facade's frames from a traceback.

    That of our own exceptions ends at the user's line, and causes that say nothing new are folded.
    """
    if isinstance(error, exceptions.ReplicateException):
        _fold(error)
        error.__traceback__ = _joined(_outside(error.__traceback__))
    else:
        frames = _frames(error.__traceback__)
        error.__traceback__ = _joined([each for each in frames if not _is_in(each, _FACADE)])


def _fold(error: exceptions.ReplicateException) -> None:
    """Fold the causes of an exception whose texts are in its message; of our own causes, remove the frames."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        cause = error.__cause__
        if cause is None and not error.__suppress_context__:
            cause = error.__context__
        if cause is None:
            return
        if isinstance(cause, exceptions.ReplicateException):
            cause.__traceback__ = _joined(_outside(cause.__traceback__))
            error = cause
        elif _says_nothing_new(cause, str(error)):
            error.__cause__ = None  # which suppresses the context, too
            return
        else:
            return


def _says_nothing_new(cause: BaseException, message: str) -> bool:
    """Tell whether the message has the text of a cause, and no code of the user's has raised it."""
    texts = (str(cause), getattr(cause, "strerror", None))
    is_told = any(text and text in message for text in texts) or not str(cause)
    return is_told and all(_is_in(each, *_LIBRARIES) for each in _frames(cause.__traceback__))


def _outside(trace: TracebackType | None) -> list[TracebackType]:
    """Return the frames up to the package's first one, and those of the user's code that it has called."""
    kept: list[TracebackType] = []
    is_inside = False
    for each in _frames(trace):
        if _is_in(each, _PACKAGE):
            is_inside = True
        elif not is_inside or not _is_in(each, *_LIBRARIES):
            kept.append(each)
    return kept


def _is_in(trace: TracebackType, *places: str) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(places)


def _frames(trace: TracebackType | None) -> list[TracebackType]:
    found: list[TracebackType] = []
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


def _joined(traces: list[TracebackType]) -> TracebackType | None:
    following: TracebackType | None = None
    for trace in reversed(traces):
        trace.tb_next = following
        following = trace
    return following
