"""Marks on creates: the seconds of their deadlines."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async._jobs.marks import (
    DAY_MARKS,
    MAX_DEADLINE,
    carries,
    marked_deadline,
)


@given(seconds=st.integers(5, 100_000), is_backup=st.booleans())
def test_never_less_than_asked_for(seconds: int, is_backup: bool) -> None:
    """A marked deadline is not shorter than the one asked for, and little longer; a day at most."""
    marked = marked_deadline(seconds, is_backup=is_backup)
    if marked is None:
        assert seconds > MAX_DEADLINE - 4
    else:
        assert seconds <= marked <= MAX_DEADLINE
        assert marked < max(seconds * (1.5 if is_backup else 1.1), seconds + 4)


@pytest.mark.parametrize(
    ("seconds", "is_backup", "number"),
    [
        (None, False, DAY_MARKS),
        (600, False, 60),
        (60, False, 6),
        (5, False, 4),
        (5, True, 4),
        (600, True, 300),
    ],
)
def test_no_two_in_a_row_are_equal(seconds: int | None, is_backup: bool, number: int) -> None:
    """As many creates in a row as there are marks have different ones."""
    assert len({marked_deadline(seconds, is_backup=is_backup) for _ in range(number)}) == number


def test_processes_are_not_in_step() -> None:
    """Two processes that have equal marks at one create do not have them at the next ones, too."""
    program = (
        "from replicate_async._jobs.marks import marked_deadline\n"
        "print([marked_deadline(600, is_backup=True) for _ in range(50)])"
    )
    distances: set[int] = set()
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        marks = json.loads(done.stdout)
        steps = {(after - before) % 300 for before, after in pairwise(marks)}
        assert len(steps) == 1
        distances |= steps
    assert len(distances) > 1


@attrs.frozen
class _Job:
    created_at: datetime | None
    deadline: datetime | None


CREATED = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)


@pytest.mark.parametrize("off", [-0.2, 0.0, 0.2])
def test_the_mark_comes_back(off: float) -> None:
    """A job carries the mark if its deadline is that many seconds after its creation."""
    job = _Job(CREATED, CREATED + timedelta(seconds=80_000 + off))
    assert carries(job, 80_000)
    assert not carries(job, 80_001)
    assert not carries(job, 79_999)


@pytest.mark.parametrize(
    "job", [_Job(None, CREATED), _Job(CREATED, None), _Job(CREATED, CREATED + timedelta(days=9))]
)
def test_no_mark_comes_back(job: _Job) -> None:
    """What shows no deadline, or another one, does not carry it."""
    assert not carries(job, 80_000)
