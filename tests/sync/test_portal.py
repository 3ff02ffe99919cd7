"""The thread with the loop: what is posted to it, and how it ends."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicate_async.exceptions import LoopClosed, WouldDeadlock
from replicate_async.sync._portal import Pending, Portal

from .conftest import SECONDS


@pytest.fixture(autouse=True)
def environment() -> None:
    """Need no emulator."""


@pytest.fixture
def portal() -> Iterator[Portal]:
    """Return a portal, and stop it."""
    portal = Portal()
    yield portal
    portal.stop(join=True)


async def nothing() -> None:
    """Do nothing."""


def test_outcome(portal: Portal) -> None:
    """A thread gets the result, or the exception, of the work that it waits for."""

    async def fail() -> None:
        raise ZeroDivisionError

    pending: Pending = Pending()
    portal.run(pending, portal.start, functools.partial(asyncio.sleep, 0, "result"), set())
    assert pending.result() == "result"
    pending = Pending()
    portal.run(pending, portal.start, fail, set())
    with pytest.raises(ZeroDivisionError):
        pending.result()


def test_several_wait(portal: Portal) -> None:
    """Several threads can wait for the same work."""
    pending, go = Pending(), threading.Event()

    async def work() -> str:
        await asyncio.to_thread(go.wait, SECONDS)
        return "result"

    with ThreadPoolExecutor(3) as pool:
        portal.post(portal.start, pending, work, set())
        waits = [pool.submit(pending.wait, SECONDS) for _ in range(3)]
        assert not pending.wait(0.01)
        go.set()
        assert all(wait.result() for wait in waits)


def test_given_up_before_it_starts(portal: Portal) -> None:
    """Work that was cancelled before its turn does not start."""
    pending, started = Pending(), False

    async def work() -> None:
        nonlocal started
        started = True

    portal.post(pending.cancel)
    portal.run(pending, portal.start, work, set())
    with pytest.raises(asyncio.CancelledError):
        pending.result()
    portal.run(Pending(), portal.start, nothing, set())
    assert not started


def test_cancelled_before_its_first_step(portal: Portal) -> None:
    """Work that is cancelled right after its start does not leave its thread waiting."""
    pending = Pending()

    def start() -> None:
        portal.start(pending, functools.partial(asyncio.sleep, SECONDS), set())
        pending.cancel()

    portal.post(start)
    assert pending.wait(SECONDS / 2)


def test_stopped_before_it_starts(portal: Portal) -> None:
    """Work that has not started when the loop is stopped does not start any more."""
    pending, started = Pending(), False

    async def work() -> None:
        nonlocal started
        started = True

    def stop_first() -> None:
        portal.post(portal.start, pending, work, set())
        portal.stop(join=False)

    portal.post(stop_first)
    assert pending.wait(SECONDS)
    with pytest.raises(asyncio.CancelledError):
        pending.result()
    portal.stop(join=True)
    assert not started
    with pytest.raises(LoopClosed):
        portal.post(nothing)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_ends_the_loop(portal: Portal) -> None:
    """If an exit is raised where nothing can catch it, the loop ends, and nobody waits for it in vain."""

    async def leave() -> None:
        raise SystemExit

    async def work() -> None:
        task = asyncio.create_task(leave())
        await asyncio.sleep(SECONDS)
        await task

    pending = Pending()
    portal.run(pending, portal.start, work, set())
    with pytest.raises(asyncio.CancelledError):
        pending.result()
    assert not portal.open


def test_on_the_loop(portal: Portal) -> None:
    """The thread of the loop does not wait for itself."""

    async def mistake() -> None:
        portal.run(Pending(), portal.start, nothing, set())

    pending = Pending()
    portal.run(pending, portal.start, mistake, set())
    with pytest.raises(WouldDeadlock):
        pending.result()


def test_parked(portal: Portal) -> None:
    """While it is parked the loop does nothing; then it goes on."""
    pending = Pending()
    resume = portal.park()
    portal.post(portal.start, pending, nothing, set())
    assert not pending.wait(0.05)
    resume()
    assert pending.wait(SECONDS)
