"""Creates of an earlier run whose outcome is unknown."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from .._arguments import MAX_WAIT
from .._codec import format_datetime
from .._http.call import Call
from .._jobs.context import Context
from .._jobs.finding import jobs_of, list_pages
from .._jobs.marks import carries
from .._jobs.pending import ListMatch
from .._jobs.prediction import Prediction
from .._threads import in_thread
from .map_fingerprint import sent_hash
from .map_journal import Journal
from .map_rows import Entry

_logger = logging.getLogger("replicate_async")

_MARGIN: Final = 60.0
"""Seconds by which the clocks of the server's machines may differ."""

_MAX_CREATE_DELAY: Final = 2 * 3600.0
"""Seconds by which the rate limit may have delayed a create after its intention was noted."""


class UncertainCreates:
    """Finds the predictions of creates that an earlier run has sent and whose answers it did not note.

    The list is read around the time of each create by the server's clock. Where the journal does not have it, since
    it is an old one or the run ended before its first answer, the clock of that machine proves nothing, and the whole
    list is read, until it has shown what is searched for.
    """

    def __init__(self, context: Context, match: ListMatch, journal: Journal) -> None:
        self._context = context
        self._match = match
        self._journal = journal
        self._began = time.monotonic()
        """When this run has locked the journal: nothing that is searched for was sent later."""
        self._spans: list[tuple[float, float] | None] | None = None
        """The times to read, in seconds since 1970 by the server's clock; None for the whole list. No list before they
        are known."""
        self._deadlines: dict[str, set[int | None]] = {}
        """For each hash of an input, the marks of its creates; None for one without a mark."""
        self._untimed: set[str] = set()
        """What the journal says was sent at an unknown time."""
        self._found: dict[str, dict[str, None]] = {}
        """IDs of predictions in the list, in order, by what the journal says was sent."""
        self._removed: dict[str, dict[str, None]] = {}
        """The same for predictions whose inputs have been deleted."""
        self._read_at = float("-inf")
        """When the list was read last."""
        self._reading = anyio.Lock()

    async def find(self, entry: Entry) -> str | None:
        """Return the ID of the prediction that a create has made, and claim it.

        It is searched for until the list must show it; None if there is no prediction.

        Raises:
            UnprovenError: There are predictions that may be its own, and nothing proves which one is.
        """
        assert entry.sent is not None
        while True:
            asked = time.monotonic()
            is_late = asked - self._began >= self._context.timings.list_lag
            async with self._reading:
                if self._read_at < asked - 0.5:
                    self._read_at = time.monotonic()
                    await self._read()
                found = await self._unowned(self._found, entry.sent)
                is_proven = _parse(entry.sent)[1] is not None
                if len(found) == 1 and is_proven and self._context.creates.own(found[0]):
                    return found[0]
                if found and (is_proven or is_late):
                    raise UnprovenError(found, "it has no mark in the list")
                removed = await self._unowned(self._removed, entry.sent)
                if removed:
                    raise UnprovenError(removed, "what the list may show of it has been deleted")
            if is_late:
                return None
            await anyio.sleep(1.0)

    async def _unowned(self, listed: Mapping[str, Iterable[str]], sent: str) -> list[str]:
        """Return the IDs that belong to no other input, and to no other call."""
        return [
            each
            for each in listed.get(sent, ())
            if not await self._journal.owns(each) and not self._context.creates.is_owned(each)
        ]

    async def _read(self) -> None:
        if self._spans is None:
            self._spans = await self._spans_of(await self._journal.uncertain())
        self._found, self._removed = {}, {}
        for span in self._spans:
            await self._read_span(span)

    async def _spans_of(
        self, uncertain: list[tuple[int, str, float]]
    ) -> list[tuple[float, float] | None]:
        times = await self._journal.server_times()
        for number, sent, _ in uncertain:
            hashed, deadline = _parse(sent)
            self._deadlines.setdefault(hashed, set()).add(deadline)
            if number not in times:
                self._untimed.add(sent)
        if self._untimed:
            _logger.info(
                "the list is searched for creates of %s at unknown times", self._match.label
            )
            return [None]
        spans: list[tuple[float, float]] = []
        for time_ in sorted(times.values()):
            if spans and time_ - _MARGIN <= spans[-1][1]:
                spans[-1] = spans[-1][0], time_ + _MAX_CREATE_DELAY
            else:
                spans.append((time_ - _MARGIN, time_ + _MAX_CREATE_DELAY))
        return [*spans]

    async def _read_span(self, span: tuple[float, float] | None) -> None:
        params = None
        if span is not None:
            params = {"created_after": _to_iso(span[0]), "created_before": _to_iso(span[1])}
        call = Call("GET", "/predictions", params=params)
        pages = list_pages(self._context, call, patience=MAX_WAIT)
        async with aclosing(pages) as listed:
            async for _, entries in listed:
                await in_thread(self._note_matches, entries, span is not None)
                if span is None and self._deadlines_found():
                    return

    def _deadlines_found(self) -> bool:
        """Return whether the list has shown each create by its mark."""
        return all(
            deadline is not None and sent_text(hashed, deadline) in self._found
            for hashed, deadlines in self._deadlines.items()
            for deadline in deadlines
        )

    def _note_matches(self, entries: list[Any], is_timed: bool) -> None:
        """Note which entries of the list may be what is searched for."""
        for job in jobs_of(entries, Prediction):
            if not self._match.matches(job):
                continue
            try:
                hashed = sent_hash(job.input)
            except ValueError:
                continue
            for deadline in self._deadlines.get(hashed, ()):
                if deadline is None or carries(job, deadline):
                    self._found.setdefault(sent_text(hashed, deadline), {})[job.id] = None
            if not job.data_removed or job.input:
                continue
            # Its input was deleted (:api:`retention`): only its mark and its time are left.
            for other, deadlines in self._deadlines.items():
                for deadline in deadlines:
                    if is_timed if deadline is None else carries(job, deadline):
                        self._removed.setdefault(sent_text(other, deadline), {})[job.id] = None


class UnprovenError(Exception):
    """There are predictions that a create may have made, and nothing proves which one it is."""

    def __init__(self, candidates: list[str], reason: str) -> None:
        self.candidates = candidates
        self.reason = reason
        super().__init__(f"one of {', '.join(candidates)}")


def sent_text(hashed: str, deadline: int | None) -> str:
    """Return what the journal notes of a create: the hash of its input, and its mark if it has one."""
    return hashed if deadline is None else f"{hashed}+{deadline}"


def _parse(sent: str) -> tuple[str, int | None]:
    hashed, _, deadline = sent.partition("+")
    return hashed, int(deadline) if deadline else None


def _to_iso(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))
