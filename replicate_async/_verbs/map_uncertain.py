"""Creates of an earlier run whose outcome is unknown."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from .._arguments import LONGEST_WAIT
from .._codec import format_datetime
from .._concurrency import in_thread
from .._http.call import Call
from .._jobs.context import Context
from .._jobs.finding import jobs_of, list_pages
from .._jobs.marks import carries
from .._jobs.pending import ListMatch
from .._jobs.prediction import Prediction
from .map_fingerprint import sent_hash
from .map_journal import Journal
from .map_rows import Entry

_MARGIN: Final = 60.0
"""Seconds by which the clocks of the two runs may differ."""


_LONGEST_CREATE: Final = 2 * 3600.0
"""Seconds by which the rate limit may have delayed a create after its intention was noted."""


class UncertainCreates:
    """Finds the predictions of creates that an earlier run has sent and whose answers it did not note."""

    def __init__(self, context: Context, wanted: ListMatch, journal: Journal) -> None:
        self._context = context
        self._wanted = wanted
        self._journal = journal
        self._spans: list[tuple[float, float]] | None = None
        """When these creates may have happened, in seconds since 1970; None before they are read."""
        self._deadlines: dict[str, set[int | None]] = {}
        """For each hash of an input, the marks of its creates; None for one without a mark."""
        self._found: dict[str, dict[str, None]] = {}
        """IDs of predictions in the list, in order, by what the journal says was sent."""
        self._read_at = float("-inf")
        """When the list was read last."""
        self._ahead = 0.0
        """Seconds by which the server's clock is ahead of this machine's."""
        self._reading = anyio.Lock()

    async def find(self, entry: Entry) -> str | None:
        """Return the ID of the prediction that a create has made, and claim it.

        A recent create is searched for until the list must show it; None if there is no prediction.

        Raises:
            UnprovenError: There are predictions that may be its own, and nothing proves which one is.
        """
        assert entry.sent is not None
        while True:
            asked = time.monotonic()
            is_late = not 0 <= time.time() - entry.intended < self._context.timings.list_lag
            async with self._reading:
                if self._read_at < asked - 0.5:
                    self._read_at = time.monotonic()
                    await self._read()
                found = [
                    each
                    for each in self._found.get(entry.sent, ())
                    if not await self._journal.owns(each)
                    and not self._context.creates.is_owned(each)
                ]
                is_proven = _parse(entry.sent)[1] is not None
                if len(found) == 1 and is_proven and self._context.creates.own(found[0]):
                    return found[0]
                if found and (is_proven or is_late):
                    raise UnprovenError(found)
            if is_late:
                return None
            await anyio.sleep(1.0)

    async def _read(self) -> None:
        if self._spans is None:
            uncertain = await self._journal.uncertain()
            for _, sent, _ in uncertain:
                hashed, deadline = _parse(sent)
                self._deadlines.setdefault(hashed, set()).add(deadline)
            self._spans = []
            for intended in sorted(intended for _, _, intended in uncertain):
                if self._spans and intended - _MARGIN <= self._spans[-1][1]:
                    self._spans[-1] = self._spans[-1][0], intended + _LONGEST_CREATE
                else:
                    self._spans.append((intended - _MARGIN, intended + _LONGEST_CREATE))
        self._found = {}
        for start, end in self._spans:
            before = self._ahead
            await self._read_span(start, end)
            if abs(self._ahead - before) > _MARGIN / 3:
                await self._read_span(start, end)  # again, by the right clock

    async def _read_span(self, start: float, end: float) -> None:
        call = Call(
            "GET",
            "/predictions",
            params={
                "created_after": _to_iso(start + self._ahead),
                "created_before": _to_iso(end + self._ahead),
            },
        )
        async for answer, entries in list_pages(self._context, call, patience=LONGEST_WAIT):
            said = answer.server_time
            if said is not None:
                self._ahead = said.timestamp() - time.time()
            for sent, found in await in_thread(self._matching, entries):
                self._found.setdefault(sent, {})[found] = None

    def _matching(self, entries: list[Any]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for job in jobs_of(entries, Prediction):
            try:
                hashed = sent_hash(job.input)
            except ValueError:
                continue
            if not self._wanted.matches(job):
                continue
            found.extend(
                (sent_text(hashed, deadline), job.id)
                for deadline in self._deadlines.get(hashed, ())
                if deadline is None or carries(job, deadline)
            )
        return found


class UnprovenError(Exception):
    """There are predictions that a create may have made, and nothing proves which one it is."""

    def __init__(self, candidates: list[str]) -> None:
        self.candidates = candidates
        super().__init__(f"one of {', '.join(candidates)}")


def sent_text(hashed: str, deadline: int | None) -> str:
    """Return what the journal notes of a create: the hash of its input, and its mark if it has one."""
    return hashed if deadline is None else f"{hashed}+{deadline}"


def _parse(sent: str) -> tuple[str, int | None]:
    hashed, _, deadline = sent.partition("+")
    return hashed, int(deadline) if deadline else None


def _to_iso(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))
