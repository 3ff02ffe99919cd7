"""Retries: which requests may be repeated, and after how long."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async import Retry, exceptions
from replicate_async._http.retry import Kind, may_repeat, retry_after, retry_delay

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _status(status: int, retry_after: float | None = None) -> exceptions.ReplicateError:
    return exceptions.ReplicateError.class_for(status)(
        "POST", "https://example.com", status, retry_after=retry_after
    )


def _refused(detail: str | None, title: str | None = None) -> exceptions.ReplicateError:
    return exceptions.RateLimitError("POST", "https://example.com", 429, title=title, detail=detail)


CONNECT = exceptions.ConnectError("POST", "u", "refused")
TIMEOUT = exceptions.TransportTimeout("POST", "u", "silence")
LOST = exceptions.ConnectionLost("POST", "u", "reset")
UNREADABLE = exceptions.UnreadableAnswer("POST", "u", 200, b"<html>", "not JSON")
TOO_LARGE = exceptions.AnswerTooLarge("POST", "u", 1)
REDIRECT = exceptions.RefusedRedirect("POST", "u", "v", "away")
MISSING = exceptions.MissingToken()

ERRORS: list[tuple[exceptions.ReplicateException, str]] = [
    # The error, and the kinds of requests that are repeated after it.
    (CONNECT, "read poll create write"),
    (_status(429), "read poll create write"),
    (_status(408), "read poll"),
    (_status(500), "read poll"),
    (_status(502), "read poll"),
    (_status(503), "read poll"),
    (_status(504), "read poll"),
    (_status(501), "poll"),
    (_status(529), "poll"),
    (TIMEOUT, "read poll"),
    (LOST, "read poll"),
    (UNREADABLE, "poll"),
    (TOO_LARGE, ""),
    (REDIRECT, ""),
    (MISSING, ""),
    (exceptions.ClientClosed(), ""),
    *((_status(status), "") for status in (400, 401, 402, 403, 404, 409, 413, 418, 422)),
]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("error", "kinds"), ERRORS, ids=[f"{type(e).__name__}-{kinds}" for e, kinds in ERRORS]
)
def test_what_is_repeated(kind: Kind, error: exceptions.ReplicateException, kinds: str) -> None:
    """What costs or changes something is repeated only if the first attempt did not happen."""
    assert may_repeat(kind, error) is (kind.value in kinds.split())
    delay = retry_delay(kind, error, 1, 0.0, Retry(), 0.5)
    assert (delay is not None) is (kind.value in kinds.split())


def test_a_new_prediction_may_be_unknown() -> None:
    """A 404 of what was just created is repeated a few times; any other one is final."""
    for attempt, again in ((1, True), (3, True), (4, False), (50, False)):
        delay = retry_delay(Kind.POLL, _status(404), attempt, 0.0, Retry(), 0.0, is_new=True)
        assert (delay is not None) is again
    assert retry_delay(Kind.POLL, _status(404), 1, 0.0, Retry(), 0.0) is None
    assert retry_delay(Kind.POLL, _status(403), 1, 0.0, Retry(), 0.0, is_new=True) is None


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.01, 10), st.floats(0.01, 100))
def test_backoff(attempt: int, chance: float, backoff: float, longest: float) -> None:
    """Pauses double up to the longest; a random part of up to a half is taken off."""
    retry = Retry(attempts=attempt + 1, backoff=backoff, max_backoff=longest)
    delay = retry_delay(Kind.READ, LOST, attempt, 0.0, retry, chance)
    full = min(backoff * 2.0 ** min(attempt - 1, 60), longest)
    assert delay is not None
    assert full / 2 <= delay * 1.0000001
    assert delay <= full * 1.0000001
    assert delay == pytest.approx(full * (1 - chance / 2))


@given(st.integers(1, 20), st.integers(1, 20))
def test_attempts(attempts: int, attempt: int) -> None:
    """The attempts are counted, except for polls, which go on."""
    retry = Retry(attempts=attempts)
    delay = retry_delay(Kind.READ, LOST, attempt, 0.0, retry, 0.0)
    assert (delay is None) is (attempt >= attempts)
    assert retry_delay(Kind.POLL, LOST, attempt, 1e6, retry, 0.0) is not None


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_polls_are_never_far_apart(attempt: int, chance: float) -> None:
    """An outage of hours does not make the pauses of a poll longer than some seconds."""
    delay = retry_delay(Kind.POLL, _status(503), attempt, 0.0, Retry(), chance)
    assert delay is not None
    assert 0 < delay <= 5


@given(st.floats(0, 120), st.integers(1, 4), st.floats(0, 1))
def test_the_server_decides(asked: float, attempt: int, chance: float) -> None:
    """Nobody comes before the time that the server asks for; jitter goes on top."""
    for kind in Kind:
        delay = retry_delay(kind, _status(429, asked), attempt, 0.0, Retry(), chance)
        assert delay is not None
        assert asked <= delay <= asked + 30


@given(st.integers(1, 20), st.floats(0, 1), st.sampled_from([0.001, 0.5, 4.0]))
def test_no_wait_is_none(attempt: int, chance: float, backoff: float) -> None:
    """A server that asks for no wait does not get one request after the other."""
    retry = Retry(backoff=backoff, max_backoff=30.0, attempts=100)
    own = retry_delay(Kind.READ, LOST, attempt, 0.0, retry, chance)
    assert own is not None
    for status in (429, 503):
        delay = retry_delay(Kind.READ, _status(status, 0.0), attempt, 0.0, retry, chance)
        assert delay == max(own, 0.25 if status == 429 else 0.0)


@pytest.mark.parametrize("kind", Kind)
def test_too_long_a_wait_is_refused(kind: Kind) -> None:
    """If the server asks for more than `max_wait`, the error is raised instead; a poll waits less."""
    retry = Retry(max_wait=10)
    assert retry_delay(kind, _status(429, 10), 1, 0.0, retry, 0.0) is not None
    delay = retry_delay(kind, _status(429, 121), 1, 0.0, retry, 0.0)
    assert delay == (10 if kind is Kind.POLL else None)


@pytest.mark.parametrize(
    ("detail", "repeats"),
    [
        ("Request was throttled. Your rate limit resets in ~30s.", True),
        (
            "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per"
            " minute with a burst of 1 requests while you have less than $5.0 in credit.",
            True,
        ),
        ("You have reached your monthly spend limit.", False),
        ("Quota exceeded for this organization", False),
        (
            "Your spending limit of $100 is used up. Go to https://replicate.com/account/billing",
            False,
        ),
    ],
)
def test_refusals_that_waiting_does_not_help(detail: str, repeats: bool) -> None:
    """A 429 for a spend limit or quota is raised at once, not repeated for ten minutes."""
    error = exceptions.RateLimitError("POST", "https://example.com", 429, detail=detail)
    assert may_repeat(Kind.CREATE, error) is repeats


def test_refusals_count_by_time() -> None:
    """After a 429 time counts and not attempts, unless repeating is switched off."""
    retry = Retry(attempts=2, throttled=60)
    for kind in (Kind.READ, Kind.CREATE, Kind.WRITE):
        assert retry_delay(kind, _status(429), 50, 59.0, retry, 0.0) is not None
        assert retry_delay(kind, _status(429), 1, 61.0, retry, 0.0) is None
        assert retry_delay(kind, _status(429), 1, 0.0, Retry(attempts=1), 0.0) is None


# -- What the server asks for ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        (None, None, None),
        ("5", None, 5),
        (" 5 ", None, 5),
        ("0", None, 0),
        ("1.5", None, 1.5),
        (None, {"retry_after": 7}, 7),
        (None, {"retry_after": 0.5}, 0.5),
        ("5", {"retry_after": 7}, 7),
        ("9", {"retry_after": 7}, 9),
        ("soon", {"retry_after": 7}, 7),
        ("Fri, 02 Jan 2026 03:04:35 GMT", None, 30),
        ("Fri, 02 Jan 2026 03:04:35 -0000", None, 30),
        ("Friday, 02-Jan-26 03:04:35 GMT", None, 30),
        ("2026-01-02T03:04:35Z", None, 30),
        ("2026-01-02T04:04:35+01:00", None, 30),
        ("2026-01-02T03:04:35", None, 30),
        ("Fri, 02 Jan 2026 03:04:00 GMT", None, 0),  # passed
        ("-5", None, None),
        ("", None, None),
        ("nan", None, None),
        ("inf", None, None),
        ("1e3", None, None),
        ("\u0665", None, None),
        ("9" * 400, None, None),
        (None, {"retry_after": "5"}, None),
        (None, {"retry_after": True}, None),
        (None, {"retry_after": -1}, None),
        (None, {"retry_after": math.nan}, None),
        (None, {"retry_after": 10**400}, None),
        (None, {"retry_after": None}, None),
        (None, ["retry_after"], None),
        (None, "retry_after", None),
    ],
)
def test_retry_after(header: str | None, body: object, seconds: float | None) -> None:
    """The wait is in the header (seconds, HTTP date, ISO date) or the body; nonsense is none."""
    headers = {} if header is None else {"retry-after": header}
    assert retry_after(headers, body, now=NOW) == seconds


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_dates_in_retry_after(moment: datetime) -> None:
    """HTTP dates and ISO dates mean the time until then, or none if they have passed."""
    left = max((moment - NOW).total_seconds(), 0)
    assert retry_after({"retry-after": moment.isoformat()}, None, now=NOW) == left
    whole = moment.replace(microsecond=0)
    left = max((whole - NOW).total_seconds(), 0)
    http_date = format_datetime(whole, usegmt=True)
    assert retry_after({"retry-after": http_date}, None, now=NOW) == left


@given(
    st.one_of(st.none(), st.text(), st.from_regex(r"[-+0-9:. TZeE]*")),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
        lambda inner: st.dictionaries(st.sampled_from(["retry_after", "x"]), inner),
    ),
)
@example("Mon, 99 Foo 99999999 99:99:99 +9999", None)
@example("0001-01-01T00:00:00+23:59", None)
@example("9999-12-31T23:59:59-23:59", None)
def test_retry_after_of_anything(header: str | None, body: Any) -> None:
    """Whatever the server says, the answer is a time that can be waited for, or none."""
    headers = {} if header is None else {"retry-after": header}
    seconds = retry_after(headers, body, now=NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


SPENT = [
    "You have reached your monthly spend limit.",
    "Your spending cap has been reached.",
    "Monthly usage limit exceeded",
    "You have exceeded your quota",
    "Limit of 1000 predictions per month reached",
    "You have made more than 100 requests per day",
    "You have reached the limit of your plan",
    "Your trial has expired",
    "Cost limit reached",
    "You've used up your free credit",
    "Insufficient balance",
    "The budget of this account is exhausted",
    "Add a payment method to go on",
    "You have reached the free time limit",
    "You've hit the daily limit of predictions",
    "Usage cap reached",
    "Insufficient funds",
    "Account suspended: an invoice is overdue",
    "Request was throttled. Your organization has reached its spend limit.",
    "Rate limit: all of your monthly quota is used. It resets in 12 days.",
    "Daily quota exceeded. Try again in 7 hours.",
]
RATES = [
    "Request was throttled. Your rate limit resets in ~1s.",
    "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a"
    " burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~9s.",
    "You have exceeded your quota of 600 requests per minute",
    "Your quota is used up. Try again in 30 seconds.",
    "Too many requests",
    "Slow down",
    None,
]


@pytest.mark.parametrize("kind", [Kind.READ, Kind.CREATE, Kind.WRITE])
def test_money_is_no_matter_of_rate(kind: Kind) -> None:
    """A 429 because of a limit of money is not repeated, whatever its words; one because of the rate is."""
    for text in SPENT:
        assert not may_repeat(kind, _refused(text)), text
        assert not may_repeat(kind, _refused(None, text)), text
        assert not may_repeat(kind, _refused("See your account.", text)), text
    for other in RATES:
        assert may_repeat(kind, _refused(other)), other


@pytest.mark.parametrize("text", [*SPENT, *RATES])
def test_polls_of_paid_results_go_on(text: str | None) -> None:
    """A poll is repeated after any 429, since a paid result depends on it."""
    assert may_repeat(Kind.POLL, _refused(text))
