"""When to look at which of the predictions that are awaited, and whether one by one or on pages of the list.

No clock, no loop and no network: the time is an argument, and the requests are somebody else's. So the same
decisions run in a program (`_poller`) and in a simulation (`benchmarks/fanout.py`).
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Final

import attrs

from .._http.limits import TokenBucket
from .policy import poll_delay

FEW: Final = 16
"""Up to so many predictions are asked for one by one."""


SHARE: Final = 0.5
"""The share of the account's requests (other than creates) that looking may use up."""


ENDS_SHARE: Final = 0.3
"""The share on top of that for those of which a list has shown that they have ended."""


_PAGE: Final = 100  # :api:`predictions.list`


_WORTH: Final = 4
"""A page is read if it answers for so many predictions at least."""


_READERS: Final = 4
"""Pages that are read at a time."""


_CLOCKS: Final = 0.1
"""Seconds by which two views of the same moment may differ (:api:`json-styles`)."""


_SHORTEST: Final = 0.5


_LONGEST: Final = 1.0
"""Seconds between two pages that show the same prediction, unless its end is far."""


_SOON: Final = 1.0
"""Who is due within so many seconds counts as due, when pages are planned."""


_LONGEST_LAG: Final = 30.0


_OWN_LOOK: Final = 60.0
"""After so many seconds, a prediction is asked for itself: a list may be out of date."""


class Learned:
    """How long the predictions of each model took, of late. Safe from any thread."""

    _MOST_MODELS: Final = 256
    _KEPT: Final = 64
    _ENOUGH: Final = 5

    def __init__(self) -> None:
        self._samples: dict[str, tuple[deque[float], deque[float]]] = {}
        self._usual: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def add(self, model: str, running: float, total: float) -> None:
        """Take note of one that has ended.

        Args:
            model: Whatever tells models apart.
            running: Seconds that it ran.
            total: Seconds from its creation to its end.
        """
        with self._lock:
            known = self._samples.get(model)
            if known is None:
                if len(self._samples) >= self._MOST_MODELS:
                    oldest = next(iter(self._samples))
                    del self._samples[oldest]
                    self._usual.pop(oldest, None)
                known = deque(maxlen=self._KEPT), deque(maxlen=self._KEPT)
                self._samples[model] = known
            runnings, totals = known
            runnings.append(min(running, total))
            totals.append(total)
            if len(totals) >= self._ENOUGH:
                low = sorted(runnings)[len(runnings) // 10]
                high = sorted(totals)[-1 - len(totals) // 10]
                self._usual[model] = low, high

    def usual(self, model: str) -> tuple[float, float] | None:
        """Return what nine of ten take at least, and at most; None if too little is known."""
        return self._usual.get(model)


class Share:
    """A share of the account's requests: a token bucket for all event loops of a client."""

    _BURST: Final = 2.0  # seconds

    def __init__(self, rate: float | None) -> None:
        """Make a full bucket.

        Args:
            rate: Requests per second; None for no limit.
        """
        self._bucket = None if rate is None else TokenBucket(max(1.0, rate * self._BURST), rate)
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if self._bucket is None:
            return 0.0
        with self._lock:
            due = self._bucket.due(now)
            if not due:
                self._bucket.tokens -= 1
            return due


@attrs.define(eq=False)
class Watched:
    """A prediction that is awaited."""

    id: str
    """Its id."""
    model: str
    """What tells how long it may take."""
    began: float
    """When it was created, by the clock of the schedule."""
    created: float | None
    """The same as the server tells it, in seconds since 1970; None: it cannot be found in lists."""
    fixed: float | None
    """Seconds between two looks, if the user wishes so."""
    is_new: bool
    """Whether `began` is right. Else it may have been running for long."""
    due: float
    """When to look next."""
    looked: float
    """When it was last asked for itself."""
    ended: bool = False
    """Whether a list shows its end. What came of it, it must be asked itself."""
    busy: bool = False
    """Whether somebody is looking."""
    gone: bool = False
    """Whether nobody waits for it any more."""
    misses: int = 0
    """How often it was missing in a list."""
    listed_from: float = float("-inf")
    """When to look for it in a list again."""


@attrs.frozen
class Look:
    """Ask for one prediction."""

    watched: Watched


@attrs.frozen
class Read:
    """Read one page of the list, which shows many of them."""

    after: float
    """`created_after`, in seconds since 1970."""
    before: float
    """`created_before`."""
    claimed: tuple[Watched, ...]
    """Those whose turn it is."""
    began: float
    """When it was asked for, by the clock of the schedule."""

    @property
    def watched(self) -> Watched:
        """The one whose turn it is first."""
        return self.claimed[0]


@attrs.frozen
class Shown:
    """What a list shows of one prediction."""

    id: str
    created: float | None
    over: bool


class Schedule:
    """The predictions that one account awaits on one event loop."""

    _MOST_PAST: Final = 20_000

    def __init__(self, learned: Learned, looks: Share, ends: Share) -> None:
        """Make an empty schedule.

        Args:
            learned: How long predictions take.
            looks: What may be spent on looking.
            ends: What may be spent besides on those that have ended.
        """
        self._learned = learned
        self._looks = looks
        self._ends = ends
        self._numbers = count()
        self._by_id: dict[str, Watched] = {}
        # By due time: those that lists show as ended, and the others.
        self._ended: list[tuple[float, int, Watched]] = []
        self._open: list[tuple[float, int, Watched]] = []
        # By creation, the newest first. Those that have ended are in it, since they take up room on the
        # pages between those that have not.
        self._order: list[tuple[float, str]] = []
        self._past: set[str] = set()
        self._strangers = 0.0  # on a page, for each one of ours
        self._readers = 0
        self._page_seconds = 0.1
        self._lag = 0.0  # seconds until a new one appears in the list
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
        fixed: float | None,
        is_new: bool,
    ) -> Watched:
        """Begin to watch a prediction."""
        watched = Watched(id, model, began, created, fixed, is_new, now, now)
        self._by_id[id] = watched
        if created is not None:
            if id in self._past:
                self._past.remove(id)
                self._order = [entry for entry in self._order if entry[1] != id]
            insort(self._order, (-created, id))
        self._put(watched, now + self._pause(watched, now))
        return watched

    def remove(self, watched: Watched) -> None:
        """Watch it no more."""
        watched.gone = True
        if self._by_id.get(watched.id) is not watched:
            return
        del self._by_id[watched.id]
        if watched.created is not None:
            self._past.add(watched.id)
            if len(self._past) > 2 * len(self._by_id) + 1000:
                self._forget()

    def next(self, now: float) -> Look | Read | float | None:
        """Return what to do now, or when to ask again; None: nothing is awaited.

        What is returned must be answered with `looked`, `read`, `failed` or `release`.
        """
        wake = float("inf")
        tops = [top for heap in (self._ended, self._open) if (top := self._top(heap)) is not None]
        for due, _, watched in sorted(tops):
            if due > now:
                wake = min(wake, due)
                continue
            is_listed = not watched.ended and self._is_listed(watched, now)
            if is_listed and self._readers >= _READERS:
                continue  # the next reader that is done comes by here
            if wait := self._wait(watched, now):
                wake = min(wake, now + wait)
                continue
            heapq.heappop(self._ended if watched.ended else self._open)
            read = self._page_for(watched, now) if is_listed else None
            if read is None:
                watched.busy = True
                return Look(watched)
            for each in read.claimed:
                each.busy = True
            self._readers += 1
            return read
        return None if wake == float("inf") else wake

    def looked(self, watched: Watched, now: float, *, over: bool) -> None:
        """Note that somebody has asked for one."""
        watched.busy = False
        watched.looked = now
        watched.ended = False
        if not over and not watched.gone:
            self._put(watched, now + self._pause(watched, now))

    def ended(self, watched: Watched, running: float | None, total: float | None) -> None:
        """Learn from one that has ended: the seconds that it ran, and those that it took in all."""
        if total is not None and total >= 0:
            self._learned.add(watched.model, total if running is None else running, total)

    def read(self, read: Read, now: float, shown: Iterable[Shown], *, more: bool) -> None:
        """Take over what a page shows.

        Args:
            read: What was read.
            now: The time.
            shown: What is on the page.
            more: Whether there is a page after it.
        """
        self._readers -= 1
        self._lag *= 0.99
        self._page_seconds += (max(now - read.began, 0.001) - self._page_seconds) / 4
        claimed = dict.fromkeys(read.claimed)
        oldest = float("inf")
        useful = ours = entries = 0
        for entry in shown:
            entries += 1
            if entry.created is not None:
                oldest = min(oldest, entry.created)
            watched = self._by_id.get(entry.id)
            ours += watched is not None or entry.id in self._past
            if watched is None or watched.ended:
                continue
            useful += 1
            if watched in claimed:
                del claimed[watched]
                watched.busy = False
            elif watched.busy:
                continue
            watched.misses = 0
            watched.ended = entry.over
            self._put(watched, now if entry.over else now + self._pause_of_page(watched, now))
        for watched in claimed:
            watched.busy = False
            if watched.gone:
                continue
            if not more or (watched.created or 0.0) > oldest + _CLOCKS:
                # It should have been there: the list lags behind, or leaves it out.
                age = read.began - watched.began
                if watched.is_new and age < _LONGEST_LAG:
                    self._lag = max(self._lag, age + 0.5)
                    useful += 1
                else:
                    watched.misses += 1
                    watched.listed_from = now + min(2.0 * 2**watched.misses, 120.0)
            self._put(watched, min(watched.due, now))
        if ours:
            self._strangers += ((entries - ours) / ours - self._strangers) / 4
        if useful >= 2:
            self._suspended_for = 1.0
        else:
            self._suspend(now)

    def failed(self, work: Look | Read, now: float) -> None:
        """Note that nothing came of it: lists are left alone for a while."""
        if isinstance(work, Read):
            self._suspend(now)
        self.release(work, now)

    def release(self, work: Look | Read, now: float, *, pause: float = 0.0) -> None:
        """Give work back: whoever had it does it no more; somebody else may, after a pause."""
        if isinstance(work, Read):
            self._readers -= 1
            claimed: tuple[Watched, ...] = work.claimed
        else:
            claimed = (work.watched,)
        for watched in claimed:
            watched.busy = False
            if not watched.gone:
                self._put(watched, now + pause if pause else min(watched.due, now))

    # Which one is next

    def _put(self, watched: Watched, due: float) -> None:
        watched.due = due
        heap = self._ended if watched.ended else self._open
        heapq.heappush(heap, (due, next(self._numbers), watched))

    def _top(self, heap: list[tuple[float, int, Watched]]) -> tuple[float, int, Watched] | None:
        """Return the first entry of a heap that still holds."""
        while heap:
            due, _, watched = heap[0]
            if not watched.gone and not watched.busy and watched.due == due:
                return heap[0]
            heapq.heappop(heap)
        return None

    def _wait(self, watched: Watched, now: float) -> float:
        """Take a request for it, and return 0, or return the seconds until there is one."""
        if not watched.ended:
            return self._looks.take(now)
        wait = self._ends.take(now)
        return min(wait, self._looks.take(now)) if wait else 0.0

    def _is_listed(self, watched: Watched, now: float) -> bool:
        """Tell whether a page may answer for it."""
        return (
            len(self._by_id) > FEW
            and not watched.ended
            and watched.created is not None
            and watched.fixed is None
            and now - watched.began >= self._lag
            and now >= watched.listed_from
            and now >= self._no_lists_until
            and now - watched.looked < max(_OWN_LOOK, len(self._by_id) / 2.5)
        )

    def _page_for(self, watched: Watched, now: float) -> Read | None:
        """Return the page with it that answers for the most; None if that would tell of too few."""
        assert watched.created is not None
        here = bisect_left(self._order, (-watched.created, watched.id))
        reach = max(int(_PAGE / (1 + self._strangers)), 1)
        # It must not be at the far end, since the reach is an estimate.
        first = here if watched.misses else max(here - 2 * reach // 3, 0)
        found = [self._claimable(each, now) for _, each in self._order[first : here + reach]]
        best, best_count = here - first, -1
        count = sum(each is not None for each in found[:reach])
        for start in range(here - first + 1):
            if found[start] is not None and count > best_count:
                best, best_count = start, count
            count -= found[start] is not None
            if start + reach < len(found):
                count += found[start + reach] is not None
        if best_count < _WORTH:
            return None
        claimed = tuple(each for each in found[best : best + reach] if each is not None)
        newest, oldest = claimed[0].created, claimed[-1].created
        assert newest is not None
        assert oldest is not None
        return Read(oldest - _CLOCKS, newest + _CLOCKS, claimed, now)

    def _claimable(self, id: str, now: float) -> Watched | None:
        watched = self._by_id.get(id)
        if (
            watched is None
            or watched.busy
            or watched.ended
            or watched.due > now + _SOON
            or now < watched.listed_from
            or now - watched.began < self._lag
        ):
            return None
        return watched

    def _forget(self) -> None:
        """Forget those that have ended and are on no page between the others."""
        awaited = [w.created for w in self._by_id.values() if w.created is not None]
        oldest = min(awaited, default=float("inf"))
        self._order = [
            entry for entry in self._order if entry[1] not in self._past or -entry[0] >= oldest
        ]
        if len(self._past) > 2 * len(self._by_id) + self._MOST_PAST:
            # One that takes for ever shall not keep all that came after it.
            self._order = [entry for entry in self._order if entry[1] in self._by_id]
        self._past.intersection_update([each for _, each in self._order])

    # When

    def _pause(self, watched: Watched, now: float) -> float:
        """Return the seconds until the next look."""
        if watched.fixed is not None:
            return watched.fixed
        usual = self._learned.usual(watched.model) if watched.is_new else None
        return poll_delay(now - watched.began, usual)

    def _pause_of_page(self, watched: Watched, now: float) -> float:
        """Return the seconds until the next page that shows it.

        A page answers for many: it may be read more often, but not while the reading of the pages before
        takes up all the time.
        """
        age = now - watched.began
        usual = self._learned.usual(watched.model) if watched.is_new else None
        pause = poll_delay(age, usual)
        if usual is None or age >= 0.9 * usual[0]:
            pause = min(pause, _LONGEST)
        pages = 1 + len(self._order) // _PAGE
        return max(pause, _SHORTEST, 2 * pages * self._page_seconds / _READERS)

    def _suspend(self, now: float) -> None:
        self._no_lists_until = now + self._suspended_for
        self._suspended_for = min(2 * self._suspended_for, 60.0)
