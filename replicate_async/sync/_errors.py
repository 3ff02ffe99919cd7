"""Exceptions of the async client for users of the facade: with twins as attributes, and without the frames of the facade."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from .. import exceptions
from .._tracebacks import frames, is_in, joined
from .._tracebacks import trim as trim_own
from ._lease import Lease

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=BaseException | None)

_FACADE: Final = str(Path(__file__).parent) + os.sep


def wrap_error(lease: Lease, error: E) -> E:
    """Replace the async objects in the attributes of an exception by their twins, and return it."""
    if isinstance(error, exceptions.ReplicateException):
        for name, value in vars(error).items():
            setattr(error, name, lease.wrap(lease, value))
    return error


def boundary(method: Callable[P, T]) -> Callable[P, T]:
    """Decorate a method that users call, so that its exceptions show nothing of the facade."""

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

    The traceback of this package's exceptions ends at the user's line, and causes that add nothing are removed.
    """
    if isinstance(error, exceptions.ReplicateException):
        trim_own(error, exceptions.ReplicateException)
    else:
        outside = [each for each in frames(error.__traceback__) if not is_in(each, _FACADE)]
        error.__traceback__ = joined(outside)
