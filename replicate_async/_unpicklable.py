"""The base of objects that can be neither pickled nor copied."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex

from . import exceptions


class Unpicklable:
    """An object that holds connections, tasks or a position: a copy could not share or repeat them."""

    __slots__ = ()

    _instead: ClassVar[str] = "create one where it is needed"
    """The advice in the message."""

    # `copy.copy` and `copy.deepcopy` call it, too.
    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise exceptions.ArgumentTypeError(
            type(self).__name__, f"it cannot be pickled or copied; {self._instead}"
        )
