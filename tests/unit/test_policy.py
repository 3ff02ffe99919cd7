"""Jobs: how often to poll, when one is over, and what its logs say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async import Progress
from replicate_async._jobs.policy import is_over, poll_delay, progress


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
