"""An emulator, and the programs of `docs/examples` in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicate_async.testing import Emulator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SECONDS = 120.0
PNG = b"\x89PNG"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """Run an emulator that the programs find, in a directory of the test."""
    with Emulator() as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        monkeypatch.chdir(tmp_path)
        yield running


def run(name: str, *arguments: str, fails: bool = False) -> str:
    """Run a program to its end, and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, and end it; its output is in the file `log`."""
    with (
        Path("log").open("ab") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        except BaseException:
            print(Path("log").read_text("utf-8"))
            raise
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something holds that is bound to happen; fail if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Return whether a server answers."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
