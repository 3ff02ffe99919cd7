"""What all tests share."""

from __future__ import annotations

import os
import threading
import time

import pytest
from _pytest.runner import runtestprotocol

for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    # A proxy of this machine would stand between the tests and their servers on loopback.
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the package does."""
    return "asyncio"


# -- Machines that stand still -----------------------------------------------------------------


class _Stalls:
    """Notices when the machine does not run this process, or so little that nothing can be in time."""

    _TICK = 0.05
    _LATE = 1.0

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
            time.sleep(self._TICK)
            if time.monotonic() - began > self._TICK + self._LATE:
                self.seen += 1


_stalls = _Stalls()
_MOST_RUNS = 3


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test that failed while the machine stood still once more: that failure shows nothing.

    Virtual machines are paused for seconds, and then every limit on a time is exceeded at once. A
    failure without a pause counts, and so does one at each of three runs.
    """
    if not isinstance(item, pytest.Function):
        return None
    _stalls.watch()
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    run = 0
    while True:
        run += 1
        before = _stalls.seen
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if _stalls.seen == before or run == _MOST_RUNS or not any(each.failed for each in reports):
            break
        item._initrequest()  # noqa: SLF001  (no public way to run a test again)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
