"""Compare ways to poll, by calculation: ``python benchmarks/polling.py``.

A policy says how long to wait before the next look at a prediction of a given age. For each it
prints how late the end is seen, how many GETs a run takes, and how late that is relative to the
duration, as means over many predictions of three mixes of durations. A GET takes no time here:
with a network, all policies see the end later by the same half a round trip. The policy of the package is its
own code (`replicate_async._jobs.policy`, which is private: a function of the age, without a network).
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

# This tree's package rather than an installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from replicate_async._jobs.policy import poll_delay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SAMPLES = 20_000
"""Predictions of each mix, spread evenly over its distribution."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to poll."""

    name: str
    delay: Callable[[float], float]
    """Age in seconds -> seconds until the next look."""
    at_once: bool = False
    """Whether there is a look before the first wait."""


@dataclass(frozen=True, slots=True)
class Mix:
    """A distribution of durations, in seconds."""

    name: str
    shortest: float
    longest: float
    logarithmic: bool

    def durations(self) -> list[float]:
        """Return durations at even quantiles."""
        quantiles = [(number + 0.5) / SAMPLES for number in range(SAMPLES)]
        if self.logarithmic:
            span = math.log(self.longest / self.shortest)
            return [self.shortest * math.exp(span * quantile) for quantile in quantiles]
        span = self.longest - self.shortest
        return [self.shortest + span * quantile for quantile in quantiles]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What polling by a policy comes to, over a mix."""

    delay: float
    """Mean seconds from the end of a prediction to the look that sees it."""
    looks: float
    """Mean number of GETs of a run."""
    relative: float
    """Mean of delay / duration."""


def fixed(interval: float) -> Callable[[float], float]:
    """Look every *interval* seconds."""
    return lambda _: interval


def growing(shortest: float, share: float, longest: float) -> Callable[[float], float]:
    """Wait *shortest* and a *share* of the age, but no more than *longest* seconds."""
    return lambda elapsed: min(shortest + share * elapsed, longest)


POLICIES = (
    Policy("ours", poll_delay),
    Policy("v1: every 0.5 s", fixed(0.5)),
    Policy("v2, js: at once, then every 0.5 s", fixed(0.5), at_once=True),
    Policy("every 0.25 s", fixed(0.25)),
    Policy("0.1 + 10 % of elapsed, 0.5 at most", growing(0.1, 0.10, 0.5)),
    Policy("0.1 + 10 % of elapsed, 2 at most", growing(0.1, 0.10, 2.0)),
    Policy("0.05 + 10 % of elapsed, 1 at most", growing(0.05, 0.10, 1.0)),
    Policy("0.05 + 5 % of elapsed, 1 at most", growing(0.05, 0.05, 1.0)),
    Policy("0.1 + 5 % of elapsed, 5 at most", growing(0.1, 0.05, 5.0)),
)

MIXES = (
    Mix("0.05..3 s, uniform", 0.05, 3.0, logarithmic=False),
    Mix("0.3..60 s, log-uniform", 0.3, 60.0, logarithmic=True),
    Mix("1..30 min, log-uniform", 60.0, 1800.0, logarithmic=True),
)


def looks(policy: Policy, longest: float) -> list[float]:
    """Return the ages at which a prediction is looked at, up to the first beyond *longest*.

    Raises:
        ValueError: The policy does not wait.
    """
    ages = [0.0] if policy.at_once else []
    age = 0.0
    while age < longest:
        delay = policy.delay(age)
        if delay <= 0:
            raise ValueError(f"{policy.name}: no wait at an age of {age} s")
        age += delay
        ages.append(age)
    return ages


def simulate(policy: Policy, durations: Sequence[float]) -> Outcome:
    """Poll predictions of these *durations*, the shortest first."""
    ages = looks(policy, durations[-1])
    assert all(earlier < later for earlier, later in pairwise(ages))
    seen = [bisect_left(ages, duration) for duration in durations]
    delays = [ages[index] - duration for index, duration in zip(seen, durations, strict=True)]
    relative = [delay / duration for delay, duration in zip(delays, durations, strict=True)]
    return Outcome(fmean(delays), fmean(seen) + 1, fmean(relative))


def main() -> None:
    """Print a table for each mix."""
    for mix in MIXES:
        durations = mix.durations()
        print(f"\n{mix.name:36}{'mean delay':>12}{'GETs/run':>10}{'relative':>10}")
        for policy in POLICIES:
            outcome = simulate(policy, durations)
            print(
                f"  {policy.name:34}{outcome.delay * 1e3:9.0f} ms{outcome.looks:10.1f}"
                f"{outcome.relative:+10.1%}"
            )


if __name__ == "__main__":
    main()
