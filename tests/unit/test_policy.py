"""Decisions: repeat or not, how long to wait, how soon to look, and what a text means."""

# ruff: noqa: PT017  (whether it raises depends on what is drawn)

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async import Progress, Retry, exceptions
from replicate_async._arguments import (
    cancel_after_seconds,
    timeout_seconds,
    timestamp,
    wait_preference,
)
from replicate_async._http.retry import Kind, may_repeat, retry_after, retry_delay
from replicate_async._jobs.policy import is_over, poll_delay, progress

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _status(status: int, retry_after: float | None = None) -> exceptions.ReplicateError:
    return exceptions.ReplicateError.class_for(status)(
        "POST", "https://example.com", status, retry_after=retry_after
    )


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
    if kind is not Kind.POLL or not isinstance(error, exceptions.NotFoundError):
        delay = retry_delay(kind, error, 1, 0.0, Retry(), 0.5)
        assert (delay is not None) is (kind.value in kinds.split())


def test_a_fresh_prediction_may_be_unknown() -> None:
    """A poll asks again a few times after a 404; nothing else does."""
    for attempt, again in ((1, True), (3, True), (4, False), (50, False)):
        delay = retry_delay(Kind.POLL, _status(404), attempt, 0.0, Retry(), 0.0)
        assert (delay is not None) is again
    assert retry_delay(Kind.READ, _status(404), 1, 0.0, Retry(), 0.0) is None


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


@pytest.mark.parametrize("kind", Kind)
def test_too_long_a_wait_is_refused(kind: Kind) -> None:
    """If the server asks for more than `max_wait`, the error is raised instead."""
    retry = Retry(max_wait=10)
    assert retry_delay(kind, _status(429, 10), 1, 0.0, retry, 0.0) is not None
    assert retry_delay(kind, _status(429, 10.1), 1, 0.0, retry, 0.0) is None


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


# -- Polling -----------------------------------------------------------------------------------


def _watch(duration: float, trip: float = 0.002) -> tuple[float, int]:
    """Return the delay until the end is seen, and the looks that it took."""
    now, looks = 0.0, 0
    while True:
        now += poll_delay(now) + trip
        looks += 1
        if now >= duration:
            return now - duration, looks


def test_the_end_is_seen_soon_with_few_requests() -> None:
    """Over predictions of 0.05 to 3 s: 140 ms late at the mean, and 10 requests at most."""
    durations = [0.05 + 2.95 * step / 2999 for step in range(3000)]
    seen = [_watch(duration) for duration in durations]
    assert sum(delay for delay, _ in seen) / len(seen) <= 0.140
    assert sum(looks for _, looks in seen) / len(seen) <= 10


@given(st.floats(-10, 1e7))
def test_pauses_follow_the_age(elapsed: float) -> None:
    """The pause is a tenth of the age on top of a tenth of a second, and three seconds at most."""
    pause = poll_delay(elapsed)
    assert 0.1 <= pause <= 3.0
    assert pause <= 0.1 + 0.1 * max(elapsed, 0) + 1e-9
    assert poll_delay(elapsed + 1) >= pause


@pytest.mark.parametrize(
    ("status", "completed", "over"),
    [
        ("starting", False, False),
        ("processing", False, False),
        ("succeeded", False, True),
        ("failed", False, True),
        ("canceled", False, True),
        ("aborted", False, True),
        ("", False, False),
        ("successful", False, False),
        ("successful", True, True),
        ("processing", True, True),
    ],
)
def test_is_over(status: str, completed: bool, over: bool) -> None:
    """Terminal are the four known states, and everything that has `completed_at`."""
    assert is_over(status, completed) is over


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        (None, None),
        ("", None),
        ("Using seed: 5\n", None),
        (" 50%|█████     | 5/10 [00:01<00:01]", Progress(0.5, 5, 10)),
        ("0%|          | 0/10\n100%|██████████| 10/10 [00:02]\ndone\n", Progress(1.0, 10, 10)),
        ("10%|#  | 1/10\r20%|## | 2/10\r", Progress(0.2, 2, 10)),
        ("10%|#  | 1/10\r\n20%|## | 2/10\r\nnext", Progress(0.2, 2, 10)),
        ("100% | x | 7/7", Progress(1.0, 7, 7)),
        ("loading: 50%|##  | 5/10", None),
        ("50% done, 5/10", None),
        ("50%|| 5/10", None),
    ],
)
def test_progress(logs: str | None, expected: Progress | None) -> None:
    """The last tqdm line of the logs tells the progress."""
    assert progress(logs) == expected


@given(st.text())
def test_progress_of_anything(logs: str) -> None:
    """Logs are free text: nothing in them is an error."""
    progress(logs)
    assert progress(logs + "\n 5%|x| 1/20") == Progress(0.05, 1, 20)


# -- What arguments mean -----------------------------------------------------------------------


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 9999))
def test_durations(hours: int, minutes: int, seconds: int) -> None:
    """Hours, minutes and seconds add up; numbers, strings and timedeltas mean the same."""
    total = hours * 3600 + minutes * 60 + seconds
    if total < 5:
        return
    for value in (
        total,
        f"{hours}h{minutes}m{seconds}s",
        f"{total}",
        f"{total}s",
        timedelta(seconds=total),
        total - 0.5,
    ):
        if isinstance(value, float) and value < 5:
            continue
        assert cancel_after_seconds(value) == total


@given(st.one_of(st.text(), st.from_regex(r"[0-9hms .-]*"), st.floats(), st.integers()))
def test_durations_of_anything(value: Any) -> None:
    """A duration is five whole seconds or more, or an error that names the argument."""
    try:
        seconds = cancel_after_seconds(value)
    except exceptions.ArgumentError as error:
        assert error.argument == "cancel_after"
    else:
        assert isinstance(seconds, int)
        assert seconds >= 5


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.none()))
def test_wait_of_anything(wait: Any) -> None:
    """`Prefer` is `wait`, `wait=1` to `wait=60`, or not sent; anything else names the argument."""
    try:
        preference, held = wait_preference(wait)
    except exceptions.ArgumentError as error:
        assert error.argument == "wait"
        assert not isinstance(wait, bool)
        assert not (isinstance(wait, int) and 1 <= wait <= 60)
    else:
        if wait is None or wait is False:
            assert (preference, held) == (None, 0)
        elif wait is True:
            assert (preference, held) == ("wait", 60)
        else:
            assert (preference, held) == (f"wait={int(wait)}", wait)


@given(st.one_of(st.floats(), st.integers(), st.timedeltas(), st.booleans(), st.text(), st.none()))
def test_timeouts_of_anything(value: Any) -> None:
    """A timeout is a finite time above zero, or none; anything else names the argument."""
    try:
        seconds = timeout_seconds(value)
    except (exceptions.ArgumentError, exceptions.ArgumentTypeError) as error:
        assert error.argument == "timeout"
        assert value is not None
    else:
        assert seconds is None if value is None else seconds is not None and 0 < seconds < 1e9


@given(st.datetimes(timezones=st.timezones()))
@example(datetime.min.replace(tzinfo=timezone(timedelta(hours=1))))
@example(datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))))
def test_timestamps(moment: datetime) -> None:
    """A datetime is sent as UTC with a `Z`, and means the same moment."""
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        with pytest.raises(exceptions.ArgumentError, match="created_after"):
            timestamp(moment, "created_after")
        return
    text = timestamp(moment, "created_after")
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == expected
    assert timestamp(text, "created_after") == text
