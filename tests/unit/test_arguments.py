"""Arguments: durations, preferences, timeouts and dates, in all the forms that callers use."""

# ruff: noqa: PT017  (whether it raises depends on what is drawn)

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async import exceptions
from replicate_async._arguments import (
    cancel_after_seconds,
    interval_seconds,
    timeout_seconds,
    timestamp,
    wait_preference,
)


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
        assert not 0 <= wait <= 60
    else:
        if wait is True:
            assert (preference, held) == ("wait", 60)
        elif wait is None or wait < 1:
            assert (preference, held) == (None, 0)
        else:
            assert (preference, held) == (f"wait={int(wait)}", int(wait))


@given(st.one_of(st.floats(), st.integers(), st.timedeltas(), st.booleans(), st.text()))
@example(0)
@example(0.0)
@example(timedelta())
def test_intervals_of_anything(value: Any) -> None:
    """An interval is a time, and 0 the shortest that the rate limit allows; anything else names the argument."""
    try:
        seconds = interval_seconds(value, "poll_interval")
    except (exceptions.ArgumentError, exceptions.ArgumentTypeError) as error:
        assert error.argument == "poll_interval"
        assert isinstance(value, bool) or value not in (0, timedelta())
    else:
        assert 0 < seconds < 1e9


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
