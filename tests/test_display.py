"""What the commands show while they wait, on terminals of different widths and elsewhere."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pyte
import pytest

from replicate_async.testing import AsyncConcatenateIterator, Emulator, Fault, log

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60
ROWS = 12


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with slow models."""
    with Emulator(rate_limits=False, wire=True) as running:

        @running.model("acme/slow", official=True)
        async def slow(text: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            return text

        @running.model("acme/steps", official=True, setup=1.0)
        async def steps(seconds: float) -> str:
            log(" 42%|####      | 21/50 [00:01<00:01, 20.00it/s]\n")
            await asyncio.sleep(seconds)
            return "over"

        @running.model("acme/writer", official=True, setup=1.0)
        async def writer(text: str) -> AsyncConcatenateIterator[str]:
            yield text
            await asyncio.sleep(0.6)
            yield " and more"

        yield running


@attrs.define
class Shown:
    """What a command has shown on a terminal."""

    states: list[list[str]]
    """The lines of the screen, each time that something was written."""
    last: list[str]
    """The lines of the screen at the end."""
    raw: bytes
    """All that was written."""
    status: int
    """Status of the command."""

    def line(self, pattern: str) -> bool:
        """Tell whether a line was shown at some time that matches a pattern as a whole."""
        return any(re.fullmatch(pattern, line) for state in self.states for line in state)


def on_terminal(
    emulator: Emulator, columns: int, *arguments: str, environment: dict[str, str] | None = None
) -> Shown:
    """Run a command on a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "replicate_async", *arguments],
        env={
            **plain,
            **emulator.env,
            "TERM": "xterm-256color",
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    watchdog = threading.Timer(SECONDS, process.kill)
    watchdog.start()
    screen = pyte.HistoryScreen(columns, ROWS, history=1000)
    stream = pyte.ByteStream(screen)
    raw = b""
    states: list[list[str]] = []
    try:
        while chunk := os.read(ours, 65536):
            raw += chunk
            stream.feed(chunk)
            states.append(_lines(screen))
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    status = process.wait(SECONDS)
    watchdog.cancel()
    return Shown(states, _lines(screen), raw, status)


def _lines(screen: pyte.HistoryScreen) -> list[str]:
    above = [
        "".join(row[column].data for column in range(screen.columns)) for row in screen.history.top
    ]
    return [text for line in [*above, *screen.display] if (text := line.rstrip())]


@pytest.fixture
def inputs(tmp_path: Path) -> str:
    """Return a file of twelve inputs."""
    path = tmp_path / "in.csv"
    path.write_text("text,seconds\n" + "".join(f"t{n},0.3\n" for n in range(12)))
    return str(path)


@pytest.mark.parametrize("columns", [120, 80, 40, 20])
def test_map_on_a_terminal(emulator: Emulator, inputs: str, columns: int) -> None:
    """One line changes, cut to the width, below the outputs; at the end, nothing is left of it."""
    shown = on_terminal(
        emulator, columns, "map", "acme/slow", inputs, "--concurrency", "2", "--ordered"
    )
    assert shown.status == 0
    outputs = [f"{n:06d} t{n}" for n in range(12)]
    assert shown.last[:12] == outputs
    summary = "".join(shown.last[12:])
    assert re.fullmatch(r"12 done, 0 failed in \d:\d\d, [\d.]+ predict\s*seconds", summary)
    states = [state for state in shown.states if any(line.startswith("done ") for line in state)]
    assert len(states) > 3
    for state in states:
        assert [line.startswith("done ") for line in state].count(True) == 1, state
        assert state[-1].startswith("done "), "below what stays"
        assert len(state[-1]) <= columns
        assert state[:-1] == outputs[: len(state) - 1]
    if columns == 120:
        assert shown.line(
            r"done \d+ of 12  failed 0  in flight \d  [\d.]+/s  \d:\d\d left  [\d.]+ predict seconds"
        )


@pytest.mark.parametrize("columns", [80, 40])
def test_run_on_a_terminal(emulator: Emulator, columns: int) -> None:
    """`run` shows what it waits for: the start of the model, and then its progress."""
    shown = on_terminal(emulator, columns, "run", "acme/steps", "seconds=1.2")
    assert (shown.status, shown.last) == (0, ["over"])
    assert shown.line(r"starting: waiting for the model  \d:\d\d.*")
    assert shown.line(r"processing 42%  \d:\d\d.*")
    assert all(len(state) <= 1 for state in shown.states)


@pytest.mark.parametrize("command", ["run", "stream", "map"])
def test_waits_for_the_rate_limit(
    emulator: Emulator, inputs: str, command: str, tmp_path: Path
) -> None:
    """A command says if it waits because of the rate limit."""
    if command == "map":
        shown = on_terminal(emulator, 80, "map", "acme/slow", inputs, "--rate-limit", "4/1")
        assert shown.line(r"done \d+ of 12  \d+ waiting for the rate limit  failed 0  .*")
    else:
        # The account refuses the first attempt, and the command waits as long as it was told to.
        emulator.wire.inject(
            Fault.THROTTLE, method="POST", path="/v1/*/predictions", seconds=1.5, times=1
        )
        shown = on_terminal(emulator, 80, command, "acme/slow", "text=a")
        assert shown.line(r"waiting for the rate limit  \d:\d\d")
        assert shown.last == ["a"]
    assert shown.status == 0


def test_stream_on_a_terminal(emulator: Emulator) -> None:
    """`stream` shows what it waits for until the first piece, and nothing between the pieces."""
    shown = on_terminal(emulator, 80, "stream", "acme/writer", "text=begin")
    assert (shown.status, shown.last) == (0, ["begin and more"])
    assert shown.line(r"starting: waiting for the model  \d:\d\d.*")
    first = next(index for index, state in enumerate(shown.states) if "begin" in state)
    assert all(state in (["begin"], ["begin and more"]) for state in shown.states[first:])


def test_log_lines_are_above(emulator: Emulator, inputs: str) -> None:
    """Warnings of the client are lines above the one that changes."""
    emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
    shown = on_terminal(emulator, 400, "map", "acme/slow", inputs, "--concurrency", "2")
    assert shown.status == 0
    warned = [line for line in shown.last if line.startswith("warning: ")]
    assert any("searching the list" in line for line in warned)
    for state in shown.states:
        changing = [index for index, line in enumerate(state) if line.startswith("done ")]
        assert changing in ([], [len(state) - 1])


PLAIN: list[dict[str, Any]] = [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"CI": "true"}]


@pytest.mark.parametrize("environment", PLAIN, ids=str)
@pytest.mark.parametrize("command", ["map", "run"])
def test_plain_terminals(
    emulator: Emulator, inputs: str, command: str, environment: dict[str, str]
) -> None:
    """Where lines must not change, none does: the output has no carriage returns but line ends, and no escapes."""
    arguments = (
        ["map", "acme/slow", inputs]
        if command == "map"
        else ["run", "acme/slow", "text=a", "seconds=0.5"]
    )
    shown = on_terminal(emulator, 40, *arguments, environment=environment)
    assert shown.status == 0
    assert b"\x1b" not in shown.raw
    assert b"\r" not in shown.raw.replace(b"\r\n", b"")
    assert b"done 0" not in shown.raw


def test_without_tqdm(emulator: Emulator, inputs: str, tmp_path: Path) -> None:
    """Without the extra, there are plain lines on a terminal, too."""
    (tmp_path / "tqdm.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    shown = on_terminal(emulator, 40, "map", "acme/slow", inputs, environment={"PYTHONPATH": path})
    assert shown.status == 0
    assert b"\r" not in shown.raw.replace(b"\r\n", b"")


def test_pipes_get_lines(emulator: Emulator, inputs: str) -> None:
    """In a pipe, standard error has lines only, and none for what takes no time."""
    done = subprocess.run(
        [sys.executable, "-m", "replicate_async", "map", "acme/slow", inputs],
        env={**os.environ, **emulator.env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout.count(b"\n") == 12
    assert re.fullmatch(rb"12 done, 0 failed in .*\n", done.stderr)


# -- Errors in notebooks -----------------------------------------------------------------------

CELLS = {
    "await mine()": "----> 1 await mine()",
    "await c.run('acme/missing', {})": "----> 1 await c.run('acme/missing', {})",
    "await c.use('emulator/describer')(image=Path('none'))": "----> 1 await c.use(",
    "async for event in c.stream('acme/missing', {}): pass": "----> 1 async for event",
    "async with c.start('acme/missing', {}) as run: pass": "----> 1 async with c.start(",
    "await asyncio.gather(c.run('acme/missing', {}))": "----> 1 await asyncio.gather(",
    "await v1.async_run('acme/missing', {})": "----> 1 await v1.async_run(",
    "v1.run('acme/missing', {})": "----> 1 v1.run(",
    "sync.run('acme/missing', {})": "----> 1 sync.run(",
    "await nowhere.models.get('a/b')": "----> 1 await nowhere.models.get(",
}

SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance(colors="nocolor")
for cell in sys.argv[1:]:
    print("-- cell", flush=True)
    shell.run_cell(cell)
"""

FIRST = """
import asyncio
from pathlib import Path
import replicate_async as c
from replicate_async import sync, v1

nowhere = c.Client("t", base_url="http://127.0.0.1:9", retry=c.Retry(max_retries=0))

def mine():
    return c.run("acme/missing", {})
"""


def test_errors_in_notebooks(emulator: Emulator) -> None:
    """With the async client, too, a traceback ends at the user's line, and what was folded says nothing new."""
    done = subprocess.run(
        [sys.executable, "-c", SHELL, FIRST, *CELLS],
        env={**os.environ, **emulator.env, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    shown = done.stdout.split("-- cell")[2:]
    assert len(shown) == len(CELLS)
    for (cell, line), text in zip(CELLS.items(), shown, strict=True):
        assert line in text, text
        assert text.count("Cell In") == 1, text
        assert "File " not in text, text
        assert "another exception" not in text, text
        if not cell.startswith(("v1", "await v1")):  # whose errors have other texts
            assert "direct cause" not in text, text
            assert text.count("Error") == 2, text
