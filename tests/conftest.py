"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    # A proxy of this machine would stand between the tests and their servers on loopback.
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

for _name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
    # Each client would load the certificate authorities anew, which takes longer than most tests.
    os.environ.pop(_name, None)

for _number, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    # Under `nohup`, or in the background of a shell, they are ignored, by the processes of the tests as well.
    if signal.getsignal(_signal := getattr(signal, _number, signal.SIGINT)) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


@pytest.fixture(autouse=True, scope="module")
def long_lived_objects_are_frozen() -> None:
    """Spare the garbage collector what was imported before, and what pytest keeps.

    Otherwise tests that collect garbage take ten times as long, and longer with each test before them.
    """
    gc.collect()
    gc.freeze()


# The examples are the same each time, so that chance does not decide what passes: `--hypothesis-profile new` tries
# others. A machine under load is slow now and then, which is no failure of what is tested.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("new", _patient)
settings.register_profile("same", _patient, derandomize=True)
settings.load_profile("same")


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the package does."""
    return "asyncio"


# -- Machines that stand still -----------------------------------------------------------------


class Stalls:
    """Notices when the machine does not run this process, or so little that nothing can be in time."""

    TICK = 0.05
    LATE = 0.4
    """Seconds. Many clients of these tests give a silent server up after as many."""

    def __init__(self) -> None:
        self.seen = 0
        """How often."""
        self._started = False

    def watch(self) -> None:
        """Begin to watch, in a thread of its own."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._watch, name="stalls", daemon=True).start()

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            time.sleep(self.TICK)
            if time.monotonic() - began > self.TICK + self.LATE:
                self.seen += 1


stalls = Stalls()

_MOST_RUNS = 3
_RUNS = pytest.StashKey[int]()
_SEEN = pytest.StashKey[int]()
_AGAIN = pytest.StashKey[bool]()
_RERUN: Any = "rerun"
"""The outcome of a run that does not count; pytest knows three others."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Run a test that failed while the machine stood still once more: that failure shows nothing.

    Virtual machines are paused for seconds, and then every limit on a time is exceeded at once. A
    failure without a pause counts, and so does one at each of three runs.
    """
    stalls.watch()
    item.stash[_RUNS] = item.stash.get(_RUNS, 0) + 1
    item.stash[_SEEN] = stalls.seen
    item.stash[_AGAIN] = False
    result = yield
    if item.stash[_AGAIN]:
        item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Mark the failure of a test that is going to be run again."""
    report = yield
    if report.failed and isinstance(item, pytest.Function) and item.stash[_RUNS] < _MOST_RUNS:
        time.sleep(2 * Stalls.TICK)  # if there was a pause, it has been noticed then
        if stalls.seen != item.stash[_SEEN]:
            report.outcome = _RERUN
            item.stash[_AGAIN] = True
    return report


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """Show a failure that does not count as what it is."""
    if report.outcome == _RERUN:
        return "rerun", "R", ("RERUN", {"yellow": True})
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that were run again; those of xdist's workers are reported to the controller."""
    names = sorted({report.nodeid for report in terminalreporter.getreports("rerun")})
    if names:
        were = "1 test was" if len(names) == 1 else f"{len(names)} tests were"
        terminalreporter.section("machine", yellow=True)
        terminalreporter.line(f"{were} run again because the machine stood still:")
        for name in names:
            terminalreporter.line(f"  {name}")
