"""Creates under way, and how the list shows what they made."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, Final

import attrs

from .._http.call import SendState
from ..types import Job


@attrs.frozen
class ListMatch:
    """What is to be run, as the list of predictions or trainings shows it."""

    shown: str
    """How messages call it."""
    model: str | None = None
    """`owner/name`, if known."""
    version: str | None = None
    """The version, if one was asked for."""
    deployment: str | None = None
    """The deployment, `owner/name`, if one was asked for."""
    listing: str = "/predictions"
    """The path of the list."""

    def matches(self, job: Job) -> bool:
        """Tell whether something in the list may be a run of it."""
        if self.deployment is not None:
            found = getattr(job, "deployment", None)
            return found in (self.deployment, self.deployment.partition("/")[2])
        if self.version is not None:
            # An old version may be served by another one (:api:`create-body`). Then nothing is
            # found, which is better than to take the result of another version for it.
            return job.version == self.version
        return self.model is not None and job.model == self.model

    def overlaps(self, other: ListMatch) -> bool:
        """Tell whether a run of it may look like a run of the other, however they are spelled."""
        if self.listing != other.listing or self.deployment != other.deployment:
            return False
        if self.deployment is not None:
            return True
        if self.version is not None and other.version is not None:
            return self.version == other.version
        return self.model is None or other.model is None or self.model == other.model


@attrs.define(eq=False, repr=False)
class PendingCreate(SendState):
    """A create under way, and how far its request has come."""

    wanted: ListMatch | None = None
    """What it asks for; None before it is known."""
    input: Mapping[str, Any] | None = None
    """The input as it is sent."""
    began: float = 0.0
    """When, by the monotonic clock."""
    lost: bool = False
    """Whether it was sent, and ended without an answer."""
    found: Any = None
    """What it has created, if that was found in the list."""


class PendingCreates:
    """All creates of one client: what is under way, and which ids belong to whom."""

    _MOST_IDS: Final = 10_000

    def __init__(self) -> None:
        self._owned: set[str] = set()
        self._owned_before: set[str] = set()
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._under_way: set[PendingCreate] = set()
        self._lock = threading.Lock()

    def begin(self, pending: PendingCreate) -> None:
        """Note that a create is sent now."""
        if self._pid != os.getpid():
            self._start()  # after a fork: what was under way is the parent's
        self._under_way.add(pending)

    def end(self, pending: PendingCreate) -> None:
        """Note that it has its answer, or that there will be none."""
        self._under_way.discard(pending)

    def own(self, id: str) -> bool:
        """Claim an id for a call; False if it belongs to another one."""
        with self._lock:
            if id in self._owned or id in self._owned_before:
                return False
            if len(self._owned) >= self._MOST_IDS:
                self._owned_before, self._owned = self._owned, set()
            self._owned.add(id)
            return True

    def has_rivals(self, pending: PendingCreate) -> bool:
        """Tell whether other creates of the same await their answers."""
        return any(
            other is not pending
            and other.sent
            and other.input == pending.input
            and other.wanted is not None
            and pending.wanted is not None
            and other.wanted.overlaps(pending.wanted)
            for other in list(self._under_way)
        )
