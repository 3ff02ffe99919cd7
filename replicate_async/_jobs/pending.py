"""Creates under way, and how the list shows what they made."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, Final, Literal

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


Proof = Literal["mark", "input"]
"""What shows that a job in the list is that of a create: its mark, or only its input and time."""


@attrs.define(eq=False, repr=False)
class PendingCreate(SendState):
    """A create that is under way, and how far its request has come."""

    wanted: ListMatch | None = None
    """What it asks for; None before that is known."""
    input: Mapping[str, Any] | None = None
    """The input as it is sent."""
    deadline: int | None = None
    """The seconds of its deadline, which may carry its mark."""
    proof: Proof | None = None
    """What shows that a job is its own; None if nothing does."""
    is_decided: bool = False
    """Whether its deadline and mark have been chosen."""
    began: float = 0.0
    """When it was sent (monotonic)."""
    lost: bool = False
    """Whether it was sent and ended without an answer."""
    found: Any = None
    """What it has created, if that was found in the list."""
    candidates: tuple[str, ...] = ()
    """IDs in the list that may be its own, where nothing shows that one of them is."""

    @property
    def fate(self) -> str:
        """What the list shows of it, for messages."""
        if not self.candidates:
            return "the list does not show it"
        return f"it is unknown which of these it is: {', '.join(self.candidates)}"


class PendingCreates:
    """All creates of one client: those that are under way, and which IDs belong to which call."""

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
        """Claim an ID for a call; False if it belongs to another one."""
        with self._lock:
            if self.is_owned(id):
                return False
            if len(self._owned) >= self._MOST_IDS:
                self._owned_before, self._owned = self._owned, set()
            self._owned.add(id)
            return True

    def is_owned(self, id: str) -> bool:
        """Tell whether an ID belongs to a call."""
        return id in self._owned or id in self._owned_before

    def has_rivals(self, pending: PendingCreate) -> bool:
        """Tell whether equal creates, which only their input tells apart, wait for their answers."""
        return pending.proof == "input" and any(
            other is not pending
            and other.sent
            and other.input == pending.input
            and other.wanted == pending.wanted
            for other in list(self._under_way)
        )
