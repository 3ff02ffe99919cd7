"""Rate limits and credit (HTTP API, sections 2.3 and 3.1)."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async.testing import Clock, Emulator, RateLimits
from replicate_async.testing._limits import Bucket

from .conftest import HELLO, Api

BODY = {"version": HELLO, "input": {"text": "a"}}


STOPPED = 1e-9
"""Speed of a clock that only moves when told."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator whose buckets refill when the test says so."""
    with Emulator(clock=Clock(speed=STOPPED)) as running:
        yield running


async def test_headers(api: Api) -> None:
    """Creates and the rest have buckets of their own, as recorded."""
    for remaining in ("599", "598"):
        answer = await api("POST", "/predictions", json=BODY)
        assert answer.headers["ratelimit-remaining"] == remaining
        assert answer.headers["ratelimit-reset"] == "1"
    answer = await api("GET", "/predictions/none")
    assert answer.headers["ratelimit-remaining"] == "2999"


async def test_throttled(api: Api, emulator: Emulator) -> None:
    """An empty bucket answers 429 with the wait in body and header, until the clock moves on."""
    emulator.set_rate_limits(RateLimits(creates=6, creates_burst=2))
    for _ in range(2):
        assert (await api("POST", "/predictions", json=BODY)).status == 201
    answer = await api("POST", "/predictions", json=BODY)
    assert answer.status == 429
    assert answer.json() == {
        "detail": "Request was throttled. Your rate limit resets in ~10s.",
        "status": 429,
        "retry_after": 10,
    }
    assert answer.headers["retry-after"] == "10"
    assert answer.headers["ratelimit-remaining"] == "0"
    assert (await api("GET", "/account")).status == 200
    emulator.clock.advance(10)
    assert (await api("POST", "/predictions", json=BODY)).status == 201
    assert (await api("POST", "/predictions", json=BODY)).status == 429
    assert len(emulator.ledger.created()) == 3


async def test_low_credit(api: Api, emulator: Emulator) -> None:
    """With low credit there are 6 creates a minute, one at a time, and the text says why."""
    emulator.credit = "low"
    assert (await api("POST", "/predictions", json=BODY)).status == 201
    answer = await api("POST", "/predictions", json=BODY)
    assert answer.status == 429
    assert answer.json()["detail"] == (
        "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests "
        "per minute with a burst of 1 requests while you have less than $5.0 in credit. "
        "Your rate limit resets in ~10s."
    )


@pytest.mark.parametrize(
    ("credit", "title"), [("none", "Insufficient credit"), ("no-billing", "Billing required")]
)
async def test_no_credit(api: Api, emulator: Emulator, credit: str, title: str) -> None:
    """Without credit or billing a create is a 402, reads go on."""
    emulator.credit = "none" if credit == "none" else "no-billing"
    answer = await api("POST", "/predictions", json=BODY)
    assert (answer.status, answer.json()["title"]) == (402, title)
    assert (await api("GET", "/predictions")).status == 200


async def test_accounts_do_not_share(api: Api, emulator: Emulator) -> None:
    """Each account has limits, predictions and files of its own."""
    other = emulator.add_account("other")
    created = (await api("POST", "/predictions", json=BODY)).json()
    answer = await api("POST", "/predictions", json=BODY, token=other)
    assert answer.headers["ratelimit-remaining"] == "599"
    assert (await api("GET", f"/predictions/{created['id']}", token=other)).status == 404
    assert len((await api("GET", "/predictions", token=other)).json()["results"]) == 1


async def test_switched_off() -> None:
    """`rate_limits=False` sends no headers and lets everything pass."""
    with Emulator(rate_limits=False) as emulator:
        async with aiohttp.ClientSession() as session:
            answer = await Api(emulator, session)("GET", "/account")
            assert "ratelimit-remaining" not in answer.headers


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(0, 5), max_size=60),
)
def test_bucket(rate: float, burst: int, steps: list[float]) -> None:
    """No more pass than the burst and the rate allow; `retry_after` is long enough."""
    clock = Clock(speed=STOPPED)
    bucket = Bucket(clock, rate=rate, burst=burst)
    passed, elapsed = 0, 0.0
    for step in steps:
        clock.advance(step)
        elapsed += step
        verdict = bucket.take()
        passed += verdict.allowed
        assert passed <= burst + elapsed * rate + 1e-6
        if not verdict.allowed:
            clock.advance(verdict.retry_after)
            elapsed += verdict.retry_after
            assert bucket.take().allowed
            passed += 1
