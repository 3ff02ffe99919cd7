"""Watch 10 to 10,000 predictions at a time, in a simulation: ``python benchmarks/fanout.py``.

The decisions are those of the package, by the same code (`replicate_async._jobs.schedule`, which is private: it
decides when to send which request, and sends none). The clock, the network and the server are simulated. Compared are our poller and asking for each prediction every half second, which is what
the official clients do; both behind the account's limit of 3000 requests a minute. Printed are requests a
minute, and how long after the end of a prediction its result is there.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# This tree's package rather than an installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from replicate_async._jobs.schedule import (
    ENDED_SHARE,
    POLL_SHARE,
    Durations,
    ListEntry,
    Poll,
    RateShare,
    ReadPage,
    Request,
    Schedule,
)

LIMIT = 3000 / 60
"""Requests per second that the account may make (:api:`rate-limits`)."""
GET = 0.1
"""Seconds that a GET of one prediction takes."""
PAGE = 0.25
"""Seconds that a page of the list takes."""
EPOCH = 1.7e9


@dataclass(slots=True)
class Life:
    """A prediction of the simulation."""

    id: str
    created: float
    ends: float
    seen: float = -1.0


@dataclass(slots=True)
class Outcome:
    """What watching came to."""

    lives: list[Life]
    requests: list[float] = field(default_factory=list[float])
    pages: int = 0

    def delays(self) -> list[float]:
        """Return the seconds from the ends to when they were seen."""
        return sorted(life.seen - life.ends for life in self.lives)

    def per_minute(self) -> tuple[float, int]:
        """Return the requests in a mean minute and in the busiest one."""
        length = max(self.requests[-1] - self.requests[0], 1.0)
        busiest, start = 0, 0
        for index, at in enumerate(self.requests):
            while self.requests[start] < at - 60:
                start += 1
            busiest = max(busiest, index - start + 1)
        return len(self.requests) / max(length / 60, 1.0), busiest


class World:
    """A virtual clock, and what is to happen when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, event: Callable[[], None]) -> None:
        """Let something happen."""
        heapq.heappush(self._events, (max(when, self.now), next(self._numbers), event))

    def run(self) -> None:
        """Let everything happen."""
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()


def lives(number: int, per_second: float, chance: random.Random) -> list[Life]:
    """Return predictions of 2 to 300 seconds, evenly in the logarithm."""
    made = []
    for index in range(number):
        created = index / per_second
        duration = 2 * math.exp(chance.random() * math.log(150))
        made.append(Life(f"p{index:06d}", created, created + duration))
    return made


def ours(world: World, born: list[Life], lag: float) -> Outcome:
    """Watch with the poller of the package."""
    outcome = Outcome(born)
    schedule = Schedule(Durations(), RateShare(POLL_SHARE * LIMIT), RateShare(ENDED_SHARE * LIMIT))
    watched = {}
    by_creation = sorted(born, key=lambda life: life.created)
    times = [life.created for life in by_creation]
    alarm = [0]

    def arrange() -> None:
        alarm[0] += 1
        this = alarm[0]
        while True:
            found = schedule.next(world.now)
            if found is None:
                return
            if not isinstance(found, Request):
                # As the loop does, it wakes a little late.
                world.at(found + 1e-3, lambda: arrange() if alarm[0] == this else None)
                return
            outcome.requests.append(world.now)
            if isinstance(found, Poll):
                look(found)
            else:
                read(found)

    def look(work: Poll) -> None:
        life = lives_by_id[work.awaited.id]
        server = world.now + GET / 2

        def answer() -> None:
            over = server >= life.ends
            schedule.polled(work.awaited, world.now, ended=over)
            if over:
                life.seen = world.now
                schedule.add_duration(
                    work.awaited, life.ends - life.created, life.ends - life.created
                )
                schedule.remove(work.awaited)
            arrange()

        world.at(world.now + GET, answer)

    def read(work: ReadPage) -> None:
        outcome.pages += 1
        server = world.now + PAGE / 2
        end = bisect_left(times, min(work.before - EPOCH, server - lag))
        start = bisect_left(times, work.after - EPOCH)
        page = by_creation[max(start, end - 100) : end]
        shown = [ListEntry(life.id, EPOCH + life.created, server >= life.ends) for life in page]
        more = start < end - 100

        def answer() -> None:
            schedule.page_read(work, world.now, shown, more=more)
            arrange()

        world.at(world.now + PAGE, answer)

    def begin(life: Life) -> None:
        watched[life.id] = schedule.add(
            life.id,
            model="acme/model",
            now=world.now,
            began=life.created,
            created=EPOCH + life.created,
            poll_interval=None,
            is_new=True,
        )
        arrange()

    lives_by_id = {life.id: life for life in born}
    for life in born:
        world.at(life.created, lambda life=life: begin(life))  # type: ignore[misc]
    world.run()
    return outcome


def naive(world: World, born: list[Life]) -> Outcome:
    """Ask for each every half second; what exceeds the limit waits its turn."""
    outcome = Outcome(born)
    queue: deque[Life] = deque()
    left = [3000.0, 0.0]
    waiting = [False]

    def serve() -> None:
        left[0] = min(3000.0, left[0] + (world.now - left[1]) * LIMIT)
        left[1] = world.now
        while queue and left[0] >= 1 - 1e-9:
            left[0] -= 1
            ask(queue.popleft())
        if queue and not waiting[0]:
            waiting[0] = True
            world.at(world.now + 1 / LIMIT, again)

    def again() -> None:
        waiting[0] = False
        serve()

    def ask(life: Life) -> None:
        outcome.requests.append(world.now)
        server = world.now + GET / 2

        def answer() -> None:
            if server >= life.ends:
                life.seen = world.now
            else:
                world.at(world.now + 0.5, lambda: due(life))

        world.at(world.now + GET, answer)

    def due(life: Life) -> None:
        queue.append(life)
        serve()

    for life in born:
        world.at(life.created + 0.5, lambda life=life: due(life))  # type: ignore[misc]
    world.run()
    return outcome


def report(name: str, outcome: Outcome) -> None:
    """Print a line of the table."""
    delays = outcome.delays()
    mean, busiest = outcome.per_minute()
    print(
        f"  {name:24}{len(outcome.requests):9}{outcome.pages:8}{mean:10.0f}{busiest:10}"
        f"{sum(delays) / len(delays):10.2f} s{delays[-1 - len(delays) // 20]:8.2f} s{delays[-1]:8.2f} s"
    )


def main() -> None:
    """Print a table for each number in flight, and one for a script of an hour."""
    head = f"{'requests':>9}{'pages':>8}{'a minute':>10}{'busiest':>10}{'delay':>12}{'19 of 20':>10}{'worst':>10}"
    cases = [
        (f"{number:,} in flight at once", number, 200.0) for number in (10, 100, 1_000, 10_000)
    ]
    cases.append(("5,000 created at 10 a second", 5_000, 10.0))
    for title, number, per_second in cases:
        print(f"\n{title:26}{head}")
        born = lives(number, per_second, random.Random(7))
        for name, lag in (("ours", 0.0), ("ours, list 5 s late", 5.0)):
            report(name, ours(World(), [Life(o.id, o.created, o.ends) for o in born], lag))
        report("each every 0.5 s", naive(World(), born))


if __name__ == "__main__":
    main()
