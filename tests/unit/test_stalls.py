"""Tests that are run again because the machine stood still."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"
TESTS = """
import sys

import pytest

conftest = sys.modules["conftest"]
runs = {}


def run(name):
    runs[name] = runs.get(name, 0) + 1
    return runs[name]


@pytest.fixture
def fresh():
    return []


def test_paused_once(fresh):
    fresh.append(run("once"))
    if fresh == [1]:
        conftest.stalls.seen += 1
        raise AssertionError("in vain")


@pytest.fixture
def late():
    yield
    if run("late") == 1:
        conftest.stalls.seen += 1
        raise AssertionError("in vain")


def test_paused_while_it_was_torn_down(late):
    pass


def test_paused_each_time():
    conftest.stalls.seen += 1
    assert run("each") > 3, "it counts"


def test_wrong():
    assert run("wrong") > 1, "it counts"


def test_right():
    conftest.stalls.seen += 1
    assert run("right") == 1
"""


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_what_was_run_again_is_reported(options: list[str], tmp_path: Path) -> None:
    """A failure during a pause is run again, three times at most, and the summary says so."""
    if options:
        pytest.importorskip("xdist")
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout
    start = lines.index("3 tests were run again because the machine stood still:")
    assert [line.strip() for line in lines[start + 1 : start + 4]] == [
        "test_it.py::test_paused_each_time",
        "test_it.py::test_paused_once",
        "test_it.py::test_paused_while_it_was_torn_down",
    ]
    failed = {line.split(" - ")[0] for line in lines if line.startswith("FAILED ")}
    assert failed == {
        "FAILED test_it.py::test_paused_each_time",
        "FAILED test_it.py::test_wrong",
    }
    assert "2 failed" in lines[-1]
    assert "error" not in lines[-1]
