"""Creates that are under way, and how the list shows what they created."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import attrs

from .. import exceptions
from .._http.call import SendState
from ..types import Job


@attrs.frozen
class ListMatch:
    """How to recognise the jobs of a model, version or deployment in a list."""

    label: str
    """Its name in messages."""
    model: str | None = None
    """`owner/name`, if known."""
    version: str | None = None
    """ID of the version, if one is requested."""
    deployment: str | None = None
    """The deployment, `owner/name`, if one is requested."""
    list_path: str = "/predictions"
    """Path of the list."""

    def matches(self, job: Job) -> bool:
        """Return whether a job may be one of them."""
        if self.deployment is not None:
            found = getattr(job, "deployment", None)
            return found in (self.deployment, self.deployment.partition("/")[2])
        if self.version is not None:
            # The API may run another version in the place of an old one (:api:`create-body`). Then nothing is
            # found, which is better than to adopt the result of another version.
            return job.version == self.version
        return self.model is not None and job.model == self.model


Proof: TypeAlias = Literal["mark", "input"]
"""What proves that a job in the list is the result of a create: its mark, or only its input and time."""


@attrs.define(eq=False, repr=False)
class PendingCreate(SendState):
    """A create: what is sent, how far it has come, and what the list has shown of it."""

    # What is sent, and how its result is recognised:
    match: ListMatch | None = None
    """How to recognise its result in the list; None before that is known."""
    input: Mapping[str, Any] | None = None
    """The input as it is sent."""
    deadline: int | None = None
    """Seconds of its deadline, which may carry its mark."""
    proof: Proof | None = None
    """What proves that a job is its result; None if nothing does."""
    is_deadline_chosen: bool = False
    """Whether `deadline` and `proof` have been chosen."""
    # How far it has come, in addition to what a `SendState` says:
    began: float = 0.0
    """Time at which it was sent (monotonic)."""
    awaits_first_run: bool = False
    """Whether it waits for another run, which finds out what the name of the model stands for."""
    lost: bool = False
    """Whether it was sent and ended without an answer, so that it may have a result that nobody knows."""
    # What the list has shown of it, if it was lost:
    found: Any = None
    """Its result."""
    was_searched: bool = False
    """Whether the list has been searched for its result."""
    search_failure: str = ""
    """Addition to messages, if the list could not be read for its result."""
    candidates: tuple[str, ...] = ()
    """IDs of jobs in the list that may be its result, although nothing proves it."""

    @property
    def label(self) -> str:
        """Name of what it runs, for messages; known from the moment it is sent."""
        assert self.match is not None
        return self.match.label

    def ambiguous(self, url: str, reason: str) -> exceptions.AmbiguousCreateError:
        """Return the exception for a create whose result has not been found.

        Args:
            url: URL of the create, or of the list.
            reason: Why there was no answer.
        """
        sent_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - self.began)
        return exceptions.AmbiguousCreateError(
            "POST", url, self.label, reason, sent_at, self.candidates
        )

    @property
    def search_result(self) -> str:
        """What the search of the list has shown, and how long its result may run, for messages."""
        end = (
            "until the model is done" if self.deadline is None else f"for {self.deadline} s at most"
        )
        if self.candidates:
            found = f"it is unknown which of these it is: {', '.join(self.candidates)}"
        else:
            found = "the list does not show it" if self.was_searched else "the list was not read"
        return f"{found}; if it exists, it runs {end}{self.search_failure}"


class PendingCreates:
    """The creates of a client that are under way, and the IDs that belong to its calls."""

    _MAX_IDS: Final = 10_000

    def __init__(self) -> None:
        self._owned: set[str] = set()
        self._owned_before: set[str] = set()
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._under_way: set[PendingCreate] = set()
        self._lock = threading.Lock()

    def begin(self, pending: PendingCreate) -> None:
        """Add a create that is about to be sent."""
        if self._pid != os.getpid():
            self._start()  # after a fork: the creates under way are those of the parent process
        self._under_way.add(pending)

    def end(self, pending: PendingCreate) -> None:
        """Remove a create that has its answer, or will get none."""
        self._under_way.discard(pending)

    def own(self, id: str) -> bool:
        """Claim an ID for a call; return False if it belongs to another one."""
        with self._lock:
            if self.is_owned(id):
                return False
            if len(self._owned) >= self._MAX_IDS:
                self._owned_before, self._owned = self._owned, set()
            self._owned.add(id)
            return True

    def disown(self, id: str) -> None:
        """Give up the claim of a call that has ended, so that a further one may find the job in the list."""
        with self._lock:
            self._owned.discard(id)
            self._owned_before.discard(id)

    def is_owned(self, id: str) -> bool:
        """Return whether an ID belongs to a call."""
        return id in self._owned or id in self._owned_before

    def has_rivals(self, pending: PendingCreate) -> bool:
        """Return whether equal creates, with the same mark if they have any, wait for their answers."""
        return pending.proof is not None and any(
            other is not pending
            and other.sent
            and (pending.proof == "input" or other.deadline == pending.deadline)
            and other.input == pending.input
            and other.match == pending.match
            for other in list(self._under_way)
        )
