"""Exceptions as if there were no facade: with twins in their attributes, and without its frames."""

from __future__ import annotations

import functools
import os
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
    """Remove the facade's frames from a traceback; from those of our own exceptions, all of the package."""
    ours = _PACKAGE if isinstance(error, exceptions.ReplicateException) else _FACADE
    kept: list[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(ours):
            kept.append(trace)
        trace = trace.tb_next
    following: TracebackType | None = None
    for trace in reversed(kept):
        trace.tb_next = following
        following = trace
    error.__traceback__ = following
