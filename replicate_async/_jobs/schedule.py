"""Decides which of the awaited jobs to poll, and when: one by one, or many with a page of the list.

Up to `LIST_ABOVE` jobs are polled one by one. If there are more, a page of the list is read for the one that is due
first, and for all others that the page shows. Those that have ended, as it says, are polled once more, since a result
is never taken from a list. A job is polled itself, too, where no page is of use: if the list does not show it, or not
yet, or has left it out; if a page would show too few others; or if one has just failed, or shown too little.

No clock, event loop or network: the time is an argument, and the caller makes the requests. So the same
decisions run in the poller and in a simulation (`benchmarks/fanout.py`).
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from itertools import accumulate, count
from typing import Final, TypeAlias

import attrs

from .._http.limits import TokenBucket
from .policy import poll_delay

LIST_ABOVE: Final = 16
"""Number of awaited jobs above which pages of the list are read."""

POLL_SHARE: Final = 0.5
"""Share of the account's rate limit (for other requests than creates) that polls may use."""

ENDED_SHARE: Final = 0.3
"""Further share of it, for polls of jobs that the list shows as ended."""

_PAGE_SIZE: Final = 100  # :api:`predictions.list`

_MIN_ON_PAGE: Final = 4
"""Fewest jobs for which it is worth reading a page."""

_MAX_READS: Final = 4
"""Number of pages that may be read at the same time."""

_CLOCK_ERROR: Final = 0.1
"""Seconds by which two timestamps of the same moment may differ (:api:`json-styles`)."""

_MIN_PAGE_DELAY: Final = 0.5
"""Shortest time in seconds between two pages that show the same job."""

_MAX_PAGE_DELAY: Final = 1.0
"""Longest time in seconds between two such pages, unless the job is expected to run for much longer."""

_SOON: Final = 1.0
"""Seconds before its next poll in which a job counts as due for a page."""

_MAX_LAG: Final = 30.0
"""Age in seconds up to which a job may be missing in the list because the list lags behind."""

_OWN_POLL: Final = 60.0
"""Seconds after which a job is polled itself, since the list may be out of date."""


class Durations:
    """How long the recent jobs of each model took. Can be used from any thread."""

    _MAX_MODELS: Final = 256
    _SAMPLES: Final = 64
    _MIN_SAMPLES: Final = 5

    def __init__(self) -> None:
        self._samples: dict[str, tuple[deque[float], deque[float]]] = {}
        self._usual: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def add(self, model: str, running: float, total: float) -> None:
        """Add a job that has ended.

        Args:
            model: Key of its model.
            running: Seconds that it ran.
            total: Seconds from its creation to its end.
        """
        with self._lock:
            samples = self._samples.get(model)
            if samples is None:
                if len(self._samples) >= self._MAX_MODELS:
                    oldest = next(iter(self._samples))
                    del self._samples[oldest]
                    self._usual.pop(oldest, None)
                samples = deque(maxlen=self._SAMPLES), deque(maxlen=self._SAMPLES)
                self._samples[model] = samples
            runnings, totals = samples
            runnings.append(min(running, total))
            totals.append(total)
            if len(totals) >= self._MIN_SAMPLES:
                low = sorted(runnings)[len(runnings) // 10]
                high = sorted(totals)[-1 - len(totals) // 10]
                self._usual[model] = low, high

    def usual(self, model: str) -> tuple[float, float] | None:
        """Return the seconds that nine of ten jobs take at least, and at most; None if there are too few samples."""
        return self._usual.get(model)


class RateShare:
    """A share of an account's rate limit. Can be used from any thread."""

    _BURST: Final = 2.0
    """Seconds of its rate that may be used at once."""

    def __init__(self, rate: float) -> None:
        """Make a full share.

        Args:
            rate: Requests per second; infinity for no limit.
        """
        self._bucket = TokenBucket(max(1.0, rate * self._BURST), rate)
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Take one request and return 0, or return the seconds until there is one to take."""
        with self._lock:
            wait = self._bucket.due(now)
            if not wait:
                self._bucket.tokens -= 1
            return wait


@attrs.define(eq=False)
class Awaited:
    """A job that somebody waits for."""

    id: str
    """Its ID."""
    model: str
    """Key of its model in `Durations`."""
    began: float
    """Time of its creation, by the clock of the schedule."""
    created: float | None
    """Time of its creation by the server's clock, in seconds since 1970; None if the list does not show it."""
    poll_interval: float | None
    """Fixed polling interval in seconds; None: adaptive."""
    is_new: bool
    """Whether `began` is right. If not, it may have been running for long."""
    due: float
    """Time of the next poll."""
    polled_at: float
    """Time of the last poll of the job itself."""
    has_ended: bool = False
    """Whether the list shows that it has ended. It is polled once more for its result."""
    is_busy: bool = False
    """Whether a request for it is under way."""
    is_gone: bool = False
    """Whether nobody waits for it any more."""
    misses: int = 0
    """Number of pages in a row that should have shown it, and did not."""
    listed_from: float = float("-inf")
    """Time from which pages are read for it again."""


@attrs.frozen
class Poll:
    """A request for one job."""

    awaited: Awaited

    @property
    def claimed(self) -> tuple[Awaited, ...]:
        """The jobs that the request is for."""
        return (self.awaited,)


@attrs.frozen
class ReadPage:
    """A request for a page of the list, which shows many jobs."""

    after: float
    """`created_after`, in seconds since 1970."""
    before: float
    """`created_before`, in seconds since 1970."""
    claimed: tuple[Awaited, ...]
    """The jobs that the request is for; none of them is polled otherwise meanwhile."""
    began: float
    """Time at which it was scheduled, by the clock of the schedule."""


Request: TypeAlias = Poll | ReadPage


@attrs.frozen
class ListEntry:
    """What a list shows of one job."""

    id: str
    created: float | None
    """Time of its creation, in seconds since 1970."""
    has_ended: bool


class Schedule:
    """The jobs of one account that are awaited on one event loop.

    Each job either has a time at which it is due, by which it is in one of two heaps, or a request for it is under way:
    then it is *busy*, until the request is reported back.
    """

    _MAX_PAST: Final = 20_000
    """Number of past jobs that are remembered while an older one is still awaited."""

    def __init__(self, durations: Durations, polls: RateShare, ended: RateShare) -> None:
        """Make an empty schedule.

        Args:
            durations: How long jobs take.
            polls: Share of the rate limit for polls.
            ended: Further share for polls of jobs that the list shows as ended.
        """
        self._durations = durations
        self._poll_share = polls
        self._ended_share = ended
        self._numbers = count()
        self._by_id: dict[str, Awaited] = {}
        # Heaps by due time: the jobs that the list shows as ended, and the others. Entries may be outdated.
        self._ended: list[tuple[float, int, Awaited]] = []
        self._running: list[tuple[float, int, Awaited]] = []
        # Negative creation times and IDs, the newest first. Past jobs are in it as long as they take up room on
        # the pages between those that are awaited.
        self._order: list[tuple[float, str]] = []
        self._past: set[str] = set()
        self._strangers = 0.0
        """Number of other jobs on a page for each one that is or was awaited."""
        self._reads = 0
        """Number of pages that are being read."""
        self._page_seconds = 0.1
        """Seconds that reading a page takes."""
        self._lag = 0.0
        """Seconds until a new job appears in the list."""
        self._no_lists_until = float("-inf")
        self._suspended_for = 1.0

    def __len__(self) -> int:
        return len(self._by_id)

    def add(
        self,
        id: str,
        *,
        model: str,
        now: float,
        began: float,
        created: float | None,
        poll_interval: float | None,
        is_new: bool,
    ) -> Awaited:
        """Add a job; the arguments are as in `Awaited`."""
        awaited = Awaited(id, model, began, created, poll_interval, is_new, now, now)
        self._by_id[id] = awaited
        if created is not None:
            if id in self._past:
                self._past.remove(id)
                self._order = [entry for entry in self._order if entry[1] != id]
            insort(self._order, (-created, id))
        self._put(awaited, now + self._poll_delay(awaited, now))
        return awaited

    def remove(self, awaited: Awaited) -> None:
        """Remove a job that nobody waits for any more."""
        awaited.is_gone = True
        if self._by_id.get(awaited.id) is not awaited:
            return
        del self._by_id[awaited.id]
        if awaited.created is not None:
            self._past.add(awaited.id)
            if len(self._past) > 2 * len(self._by_id) + 1000:
                self._forget_past()

    def next(self, now: float) -> Request | float | None:
        """Return the next request; or the time at which to ask again; or None if there is nothing to wait for.

        Each request must be reported back with `polled`, `page_read`, `failed` or `release`.
        """
        wake = float("inf")
        tops = [top for heap in (self._ended, self._running) if (top := self._top(heap))]
        for due, _, awaited in sorted(tops):
            if due > now:
                wake = min(wake, due)
                continue
            by_page = self._may_read_page(awaited, now)
            if by_page and self._reads >= _MAX_READS:
                continue  # until one of the pages has been read
            if wait := self._take_request(awaited, now):
                wake = min(wake, now + wait)
                continue
            heapq.heappop(self._ended if awaited.has_ended else self._running)
            page = self._page_for(awaited, now) if by_page else None
            if page is not None:
                self._reads += 1
            request = page or Poll(awaited)
            for each in request.claimed:
                each.is_busy = True
            return request
        return None if wake == float("inf") else wake

    def polled(self, awaited: Awaited, now: float, *, ended: bool) -> None:
        """Report that a job was polled, and whether it has ended."""
        awaited.is_busy = False
        awaited.polled_at = now
        awaited.has_ended = False
        if not ended and not awaited.is_gone:
            self._put(awaited, now + self._poll_delay(awaited, now))

    def add_duration(self, awaited: Awaited, running: float | None, total: float | None) -> None:
        """Report how long a job took that has ended.

        Args:
            awaited: The job.
            running: Seconds that it ran, if known.
            total: Seconds from its creation to its end, if known.
        """
        if total is not None and total >= 0:
            self._durations.add(awaited.model, total if running is None else running, total)

    def page_read(
        self, read: ReadPage, now: float, entries: Iterable[ListEntry], *, more: bool
    ) -> None:
        """Report what a page shows.

        Args:
            read: The request.
            now: The time.
            entries: What the page shows.
            more: Whether there is a page after it.
        """
        self._reads -= 1
        self._lag *= 0.99
        self._page_seconds += (max(now - read.began, 0.001) - self._page_seconds) / 4
        missing = dict.fromkeys(read.claimed)
        oldest = float("inf")
        useful = known = total = 0
        for entry in entries:
            total += 1
            if entry.created is not None:
                oldest = min(oldest, entry.created)
            awaited = self._by_id.get(entry.id)
            if awaited is not None or entry.id in self._past:
                known += 1
            if awaited is None or awaited.has_ended:
                continue
            useful += 1
            if awaited in missing:
                del missing[awaited]
                awaited.is_busy = False
            elif awaited.is_busy:
                continue
            awaited.misses = 0
            awaited.has_ended = entry.has_ended
            self._put(awaited, now + (0.0 if entry.has_ended else self._page_delay(awaited, now)))
        for awaited in missing:
            awaited.is_busy = False
            if awaited.is_gone:
                continue
            should_show = not more or (awaited.created or 0.0) > oldest + _CLOCK_ERROR
            if should_show and self._lags_behind(awaited, read, now):
                useful += 1
            self._put(awaited, min(awaited.due, now))
        if known:
            self._strangers += ((total - known) / known - self._strangers) / 4
        if useful >= 2:
            self._suspended_for = 1.0
        else:
            self._suspend_lists(now)

    def _lags_behind(self, awaited: Awaited, read: ReadPage, now: float) -> bool:
        """Note that a page did not show a job that it should have shown.

        Returns:
            Whether the list lags behind, so that a later page will show the job. If not, it leaves the job out.
        """
        age = read.began - awaited.began
        if awaited.is_new and age < _MAX_LAG:
            self._lag = max(self._lag, age + 0.5)
            return True
        awaited.misses += 1
        awaited.listed_from = now + min(2.0 * 2**awaited.misses, 120.0)
        return False

    def failed(self, request: Request, now: float) -> None:
        """Report that a request has failed. After a page, no list is read for a while."""
        if isinstance(request, ReadPage):
            self._suspend_lists(now)
        self.release(request, now)

    def release(self, request: Request, now: float, *, pause: float = 0.0) -> None:
        """Report that a request was not made; its jobs are due again after a pause in seconds."""
        if isinstance(request, ReadPage):
            self._reads -= 1
        for awaited in request.claimed:
            awaited.is_busy = False
            if not awaited.is_gone:
                self._put(awaited, now + pause if pause else min(awaited.due, now))

    # Which job is next

    def _put(self, awaited: Awaited, due: float) -> None:
        awaited.due = due
        heap = self._ended if awaited.has_ended else self._running
        heapq.heappush(heap, (due, next(self._numbers), awaited))

    def _top(self, heap: list[tuple[float, int, Awaited]]) -> tuple[float, int, Awaited] | None:
        """Drop outdated entries from the top of a heap, and return the first one that is left."""
        while heap:
            due, _, awaited = heap[0]
            if not awaited.is_gone and not awaited.is_busy and awaited.due == due:
                return heap[0]
            heapq.heappop(heap)
        return None

    def _take_request(self, awaited: Awaited, now: float) -> float:
        """Take a request from the shares of the rate limit and return 0, or return the seconds until there is one."""
        if not awaited.has_ended:
            return self._poll_share.take(now)
        wait = self._ended_share.take(now)
        return min(wait, self._poll_share.take(now)) if wait else 0.0

    def _may_read_page(self, awaited: Awaited, now: float) -> bool:
        """Return whether a page of the list can tell the state of a job."""
        return (
            len(self._by_id) > LIST_ABOVE
            and not awaited.has_ended
            and awaited.created is not None
            and awaited.poll_interval is None
            and now - awaited.began >= self._lag
            and now >= awaited.listed_from
            and now >= self._no_lists_until
            and now - awaited.polled_at < max(_OWN_POLL, len(self._by_id) / 2.5)
        )

    def _page_for(self, awaited: Awaited, now: float) -> ReadPage | None:
        """Return the page that shows a job and the most others that are due; None if these are too few."""
        assert awaited.created is not None
        here = bisect_left(self._order, (-awaited.created, awaited.id))
        # The number of jobs of this schedule that a page shows, by estimate.
        reach = max(int(_PAGE_SIZE / (1 + self._strangers)), 1)
        # The job must not be at the far end of the page, since the reach is an estimate.
        first = here if awaited.misses else max(here - 2 * reach // 3, 0)
        found = [self._claimable(each, now) for _, each in self._order[first : here + reach]]
        claimable_before = [0, *accumulate(int(each is not None) for each in found)]

        def claimable_from(start: int) -> int:
            end = min(start + reach, len(found))
            return claimable_before[end] - claimable_before[start]

        starts = [start for start in range(here - first + 1) if found[start] is not None]
        best = max(starts, key=claimable_from, default=None)
        if best is None or claimable_from(best) < _MIN_ON_PAGE:
            return None
        claimed = tuple(each for each in found[best : best + reach] if each is not None)
        newest, oldest = claimed[0].created, claimed[-1].created
        assert newest is not None
        assert oldest is not None
        return ReadPage(oldest - _CLOCK_ERROR, newest + _CLOCK_ERROR, claimed, now)

    def _claimable(self, id: str, now: float) -> Awaited | None:
        """Return a job if it is due, or soon, and a page can tell its state."""
        awaited = self._by_id.get(id)
        if (
            awaited is None
            or awaited.is_busy
            or awaited.has_ended
            or awaited.due > now + _SOON
            or now < awaited.listed_from
            or now - awaited.began < self._lag
        ):
            return None
        return awaited

    def _forget_past(self) -> None:
        """Forget past jobs that are older than all awaited ones: no page shows them in between."""
        awaited = [each.created for each in self._by_id.values() if each.created is not None]
        oldest = min(awaited, default=float("inf"))
        self._order = [
            entry for entry in self._order if entry[1] not in self._past or -entry[0] >= oldest
        ]
        if len(self._past) > 2 * len(self._by_id) + self._MAX_PAST:
            # One job that takes very long must not keep all that were created after it.
            self._order = [entry for entry in self._order if entry[1] in self._by_id]
        self._past.intersection_update([each for _, each in self._order])

    # When

    def _usual(self, awaited: Awaited) -> tuple[float, float] | None:
        return self._durations.usual(awaited.model) if awaited.is_new else None

    def _poll_delay(self, awaited: Awaited, now: float) -> float:
        """Return the seconds until the next poll of a job."""
        if awaited.poll_interval is not None:
            return awaited.poll_interval
        return poll_delay(now - awaited.began, self._usual(awaited))

    def _page_delay(self, awaited: Awaited, now: float) -> float:
        """Return the seconds until the next page that shows a job.

        A page tells of many jobs, so it may be read more often, unless reading all pages takes longer than that.
        """
        age = now - awaited.began
        usual = self._usual(awaited)
        delay = poll_delay(age, usual)
        if usual is None or age >= 0.9 * usual[0]:
            delay = min(delay, _MAX_PAGE_DELAY)
        pages = 1 + len(self._order) // _PAGE_SIZE
        return max(delay, _MIN_PAGE_DELAY, 2 * pages * self._page_seconds / _MAX_READS)

    def _suspend_lists(self, now: float) -> None:
        """Read no list for a while, which doubles each time."""
        self._no_lists_until = now + self._suspended_for
        self._suspended_for = min(2 * self._suspended_for, 60.0)
