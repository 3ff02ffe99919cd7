"""Gates: who passes, in which order, and how many in which time; under a clock that the test moves."""

from __future__ import annotations

import asyncio
import itertools
import selectors
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate_async._http.limits import Gate, Slots, gates_for
from replicate_async.types import RateLimit

LOW = (
    "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per"
    " minute with a burst of 1 requests while you have less than $5.0 in credit."
)


async def settle() -> None:
    """Let all tasks run as far as they come."""
    for _ in range(20):
        await asyncio.sleep(0)


class Time:
    """A clock that stands still while any task can run, and then jumps to the next timer of the event loop."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    async def run(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)
        await settle()


class JumpingSelector(selectors.DefaultSelector):
    """Moves a clock instead of waiting."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self.time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time that the event loop would wait pass at once."""
        assert timeout is not None, "all tasks wait, and there is no timer"
        self.time.now += timeout
        return super().select(0)


class Crowd:
    """Tasks that want to pass a gate, and what became of them."""

    def __init__(self, gate: Gate, time: Time, group: asyncio.TaskGroup) -> None:
        self.passed: list[tuple[float, Any]] = []
        self.gate = gate
        self.time = time
        self.group = group

    def come(self, name: Any, *, first: bool = False) -> asyncio.Task[None]:
        """Have one more queue up."""
        return self.group.create_task(self._pass(name, first=first))

    async def _pass(self, name: Any, *, first: bool) -> None:
        if first or not self.gate.try_pass():
            await self.gate.wait(first=first)
        self.passed.append((self.time.now, name))

    @property
    def names(self) -> list[Any]:
        """Who has passed, in order."""
        return [name for _, name in self.passed]


def in_time(scenario: Callable[[Time], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario on an event loop whose time jumps ahead, so this takes none."""
    time = Time()

    def make_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(JumpingSelector(time))
        loop.time = time  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario(time))


# -- Gate --------------------------------------------------------------------------------------


def test_bursts_pass_at_once_and_then_the_rate_holds() -> None:
    """As many as the limit pass at once, the others one by one at the rate, in order."""

    async def scenario(time: Time) -> None:
        async with asyncio.TaskGroup() as group:
            crowd = Crowd(Gate(10, 10, clock=time), time, group)
            for number in range(30):
                crowd.come(number)
            await time.run(0)
            assert crowd.names == list(range(10))
            await time.run(5)
            assert 14 <= len(crowd.passed) <= 15
            await time.run(16)
        assert crowd.names == list(range(30))
        times = [moment for moment, _ in crowd.passed[10:]]
        assert times[0] == pytest.approx(1001, abs=0.05)
        assert times[-1] == pytest.approx(1020, abs=0.5)

    in_time(scenario)


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 20),
    per=st.sampled_from([1.0, 10.0, 60.0]),
    arrivals=st.lists(st.floats(0, 2), min_size=1, max_size=40),
)
def test_no_window_of_time_sees_more_than_the_limit_allows(
    limit: int, per: float, arrivals: list[float]
) -> None:
    """However requests arrive, those that pass in any time are bounded, and all pass in order."""

    async def scenario(time: Time) -> None:
        async with asyncio.TaskGroup() as group:
            crowd = Crowd(Gate(limit, per, clock=time), time, group)
            for number, pause in enumerate(arrivals):
                await time.run(pause)
                crowd.come(number)
            await time.run(len(arrivals) * (per / limit) + 5 + len(arrivals))
        assert crowd.names == list(range(len(arrivals)))
        times = [moment for moment, _ in crowd.passed]
        for i, j in itertools.combinations(range(len(times)), 2):
            assert j - i + 1 <= limit + (times[j] - times[i]) * limit / per + 1e-6

    in_time(scenario)


def test_a_refusal_stops_all_and_then_one_tries() -> None:
    """After a 429 nobody passes for as long as it says; then one, and the rest at the rate."""

    async def scenario(time: Time) -> None:
        async with asyncio.TaskGroup() as group:
            gate = Gate(600, 60, clock=time)
            crowd = Crowd(gate, time, group)
            gate.refused(10, None)
            assert not gate.try_pass()
            for number in range(20):
                crowd.come(number)
            await time.run(9.99)
            assert crowd.names == []
            await time.run(10)
        assert crowd.names == list(range(20))
        times = [moment for moment, _ in crowd.passed]
        assert 1010 <= times[0] <= 1012
        assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(times))

    in_time(scenario)


def test_who_was_sent_away_is_first() -> None:
    """Who has waited before and was refused stands in front of those who came later."""

    async def scenario(time: Time) -> None:
        async with asyncio.TaskGroup() as group:
            gate = Gate(60, 60, clock=time)
            crowd = Crowd(gate, time, group)
            gate.refused(1, None)
            for number in range(3):
                crowd.come(number)
            await time.run(0)
            crowd.come("refused", first=True)
            await time.run(10)
        assert crowd.names == ["refused", 0, 1, 2]

    in_time(scenario)


def test_the_limit_of_low_credit_is_learnt_and_forgotten() -> None:
    """A refusal that names a lower limit sets it; an answer with more left than that lifts it."""

    async def scenario(time: Time) -> None:
        async with asyncio.TaskGroup() as group:
            gate = Gate(600, 60, clock=time)
            crowd = Crowd(gate, time, group)
            gate.refused(1, LOW)
            for number in range(5):
                crowd.come(number)
            await time.run(45)
            times = [moment for moment, _ in crowd.passed]
            assert len(times) == 5
            assert all(9.9 <= b - a <= 11.1 for a, b in itertools.pairwise(times))
            await time.run(3600)
            assert gate.try_pass()
            assert not gate.try_pass()  # a burst of one, however long the rest
            gate.learn({"ratelimit-remaining": "599"})
            await time.run(60)
            assert sum(gate.try_pass() for _ in range(700)) == 600

    in_time(scenario)


def test_what_the_server_says_is_left_is_all_there_is() -> None:
    """`ratelimit-remaining` lowers the number of those who pass at once, and never raises it."""
    time = Time()
    gate = Gate(600, 60, clock=time)
    gate.learn({"ratelimit-remaining": "3"})
    assert sum(gate.try_pass() for _ in range(10)) == 3
    gate.learn({"ratelimit-remaining": "500"})
    assert not gate.try_pass()


@pytest.mark.parametrize(
    "said", ["", "many", "-5", "1.5", "\u00b2", "9" * 5000, "0x10", " 3"], ids=range(8)
)
def test_nonsense_of_the_server_changes_nothing(said: str) -> None:
    """A header that is no number is ignored."""
    gate = Gate(10, 60, clock=Time())
    gate.learn({"ratelimit-remaining": said})
    assert sum(gate.try_pass() for _ in range(20)) == 10


@pytest.mark.parametrize(
    "detail",
    [
        "0 requests per minute",
        f"{'9' * 400} requests per minute",
        f"{'9' * 5000} requests per minute",
    ],
    ids=["0", "400 digits", "5000 digits"],
)
def test_nonsense_in_a_refusal_is_only_a_refusal(detail: str) -> None:
    """A refusal that names an absurd limit closes the gate, and later it opens."""

    async def scenario(time: Time) -> None:
        gate = Gate(60, 60, clock=time)
        gate.refused(1, detail)
        assert not gate.try_pass()
        await time.run(1000)
        assert gate.try_pass()

    in_time(scenario)


def test_forced_passes_are_paid_for_by_the_rest() -> None:
    """What passes without waiting is taken from those who come later."""
    time = Time()
    gate = Gate(10, 10, clock=time)
    for _ in range(12):
        gate.force()
    assert not gate.try_pass()
    time.now += 2.9
    assert not gate.try_pass()
    time.now += 0.2
    assert gate.try_pass()


def test_a_closed_gate_lets_forced_passes_through() -> None:
    """After a refusal, what stops costs still passes at once."""
    time = Time()
    gate = Gate(10, 10, clock=time)
    gate.refused(60, None)
    gate.force()  # does not wait, does not raise
    assert not gate.try_pass()


@settings(max_examples=80, deadline=None)
@given(
    cancelled=st.sets(st.integers(0, 11)),
    moments=st.lists(st.floats(0, 3), min_size=12, max_size=12),
)
def test_who_leaves_the_queue_costs_nobody_a_turn(
    cancelled: set[int], moments: list[float]
) -> None:
    """Cancelled waiters leave no hole: the others pass in order and at the rate."""

    async def scenario(time: Time) -> None:
        async with asyncio.TaskGroup() as group:
            gate = Gate(1, 1, clock=time)
            crowd = Crowd(gate, time, group)
            tasks = [crowd.come(number) for number in range(12)]
            await time.run(0)
            for number in sorted(cancelled, key=lambda n: moments[n]):
                tasks[number].cancel()
                await time.run(moments[number] / 12)
            await time.run(30)
            stayed = crowd.names
            assert stayed == sorted(stayed)
            assert set(stayed) >= set(range(12)) - cancelled
            times = [moment for moment, _ in crowd.passed]
            assert all(b - a > 0.95 for a, b in itertools.pairwise(times))
            assert gate.try_pass()  # nobody is left in the queue

    in_time(scenario)


def test_threads_share_a_gate() -> None:
    """Of all threads together, no more pass than there is room for."""
    gate = Gate(100, 60, clock=lambda: 0.0)
    start = threading.Barrier(4)
    passed: list[int] = []

    def try_often() -> None:
        start.wait()
        passed.append(sum(gate.try_pass() for _ in range(100)))

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 100


def test_loops_on_threads_wait_at_one_gate() -> None:
    """Waiters of several loops on several threads all pass."""
    gate = Gate(1, 0.001)
    done: list[int] = []

    async def several() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(25):
                group.create_task(one())

    async def one() -> None:
        if not gate.try_pass():
            await gate.wait()
        done.append(1)

    threads = [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(done) == 75


def test_accounts_have_gates_of_their_own() -> None:
    """One account has one pair of gates in the process, the strictest limit counts, others have theirs."""
    limit = RateLimit(creates=5, others=7, per=3600)
    mine = gates_for("account-1", limit)
    assert gates_for("account-1", RateLimit(creates=2, others=70, per=3600)) is mine
    theirs = gates_for("account-2", limit)
    assert theirs is not mine
    assert sum(mine.of("creates").try_pass() for _ in range(20)) == 2
    assert sum(mine.of("others").try_pass() for _ in range(20)) == 7
    assert sum(theirs.of("creates").try_pass() for _ in range(20)) == 5


# -- Slots -------------------------------------------------------------------------------------


def test_slots_are_taken_in_order_of_arrival() -> None:
    """No more than the number hold a place; who waits longest is next."""

    async def scenario(time: Time) -> None:
        slots = Slots(2)
        order: list[int] = []

        async def take(number: int) -> None:
            await slots.acquire()
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(take(number))
            await settle()
            assert order == [0, 1]
            for expected in range(3, 6):
                slots.release()
                await settle()
                assert order == list(range(expected))

    in_time(scenario)


ACTIONS = st.lists(st.tuples(st.sampled_from(["come", "leave", "cancel"]), st.integers(0, 9)))


@settings(max_examples=200, deadline=None)
@given(number=st.integers(1, 3), actions=ACTIONS, settled=st.lists(st.booleans(), max_size=60))
def test_slots_survive_every_order_of_events(
    number: int, actions: Sequence[tuple[str, int]], settled: list[bool]
) -> None:
    """Arrivals, departures and cancellations at any moment neither lose nor add a place."""

    async def scenario(time: Time) -> None:
        slots = Slots(number)
        inside: set[int] = set()
        gates: dict[int, asyncio.Event] = {}
        tasks: dict[int, asyncio.Task[None]] = {}
        pauses = iter(settled)

        async def visit(name: int) -> None:
            await slots.acquire()
            try:
                inside.add(name)
                assert len(inside) <= number
                await gates[name].wait()
            finally:
                inside.discard(name)
                slots.release()

        for name, (action, whom) in enumerate(actions):
            if action == "come":
                gates[name] = asyncio.Event()
                tasks[name] = asyncio.create_task(visit(name))
            elif tasks:
                key = list(tasks)[whom % len(tasks)]
                if action == "leave":
                    gates[key].set()
                else:
                    tasks[key].cancel()
            if next(pauses, True):
                await settle()
        for name in gates:
            gates[name].set()
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert not [r for r in results if isinstance(r, Exception)]
        async with asyncio.timeout(5):
            for _ in range(number):
                await slots.acquire()
        # ... and there are no more than that.
        extra = asyncio.create_task(slots.acquire())
        await settle()
        assert not extra.done()
        extra.cancel()
        await asyncio.wait([extra])

    in_time(scenario)


def test_refusals_that_ask_for_no_wait() -> None:
    """A server that refuses again and again, and asks for no wait, is asked ever more rarely; an answer ends that."""
    time = Time()
    gate = Gate(6000, 60, clock=time)

    def passed_in(seconds: float) -> int:
        until, passed = time.now + seconds, 0
        while time.now < until:
            if gate.try_pass():
                passed += 1
                for _ in range(20):  # so many were on their way
                    gate.refused(0, None)
            time.now += 0.01
        return passed

    assert 2 <= passed_in(1) <= 3
    assert passed_in(60) <= 12
    time.now += 20
    assert gate.try_pass()
    gate.learn({})
    assert 2 <= passed_in(1) <= 3


def test_refusals_that_ask_for_a_wait() -> None:
    """What the server asks for stays as it is, however often it refuses."""
    time = Time()
    gate = Gate(6000, 60, clock=time)
    for _ in range(20):
        gate.refused(1, None)
        time.now += 1.2
        assert gate.try_pass()
