"""Bounds on the memory of an emulator: the oldest finished records are forgotten first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

RECORDS = 100_000
MEMORY = 1024**3


class Retention:
    """Forgets the oldest records once there are too many, and the oldest content once it is too large.

    Used in the thread of the event loop only.

    Args:
        records: Number of records of each kind that are kept.
        memory: Bytes of content that are kept in all; the newest content is kept whatever its size.
    """

    def __init__(self, records: int, memory: int) -> None:
        self.records: int = records
        self.memory: int = memory
        self._records: dict[str, deque[Callable[[], None]]] = {}
        self._contents: deque[tuple[int, Callable[[], None]]] = deque()
        self._size: int = 0

    def record(self, kind: str, forget: Callable[[], None]) -> None:
        """Note a record that may be forgotten from now on.

        Args:
            kind: Records of one kind are counted together.
            forget: Called to forget it, once there are too many after it.
        """
        records = self._records.setdefault(kind, deque())
        records.append(forget)
        if len(records) > self.records:
            records.popleft()()

    def content(self, size: int, drop: Callable[[], None]) -> None:
        """Note content that may be dropped from now on.

        Args:
            size: Its bytes, about.
            drop: Called to drop it, once there is too much after it.
        """
        if not size:
            return
        self._contents.append((size, drop))
        self._size += size
        # Their number is bounded, too: each refers to a record, which may be forgotten already.
        while len(self._contents) > 1 and (
            self._size > self.memory or len(self._contents) > 4 * self.records
        ):
            size, drop = self._contents.popleft()
            self._size -= size
            drop()


def remove_first(items: list[Any], item: object) -> None:
    """Remove *item* if it is the first of *items*: a user may have removed it before."""
    if items and items[0] is item:
        del items[0]


def weight(value: object) -> int:
    """Return about how many bytes a JSON value takes."""
    total, rest = 0, [value]  # not recursive: models may nest their outputs deep
    while rest:
        each = rest.pop()
        if isinstance(each, str | bytes):
            total += len(each)
        elif isinstance(each, Mapping):
            total += sum(len(str(key)) for key in each)
            rest += each.values()
        elif isinstance(each, list | tuple):
            rest += each
        else:
            total += 8
    return total
