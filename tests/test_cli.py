"""The command line: `python -m replicate_async`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicate_async import Client, __main__, __version__
from replicate_async.testing import TOKEN

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-X", "dev", "-W", "error", "-m", "replicate_async")
SECONDS = 60


def environment() -> dict[str, str]:
    """Return an environment in which the package is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def emulator(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Start the emulator; yields its process, and the environment that it tells to paste."""
    with subprocess.Popen(
        [*COMMAND, "emulator", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            exported: dict[str, str] = {}
            for line in process.stdout:
                if found := re.fullmatch(r"export (\w+)=(\S+)\n", line):
                    exported[found[1]] = found[2]
                if "Ctrl-C" in line:
                    break
            yield process, exported
        finally:
            process.kill()


def test_version() -> None:
    """`--version` prints name and version."""
    done = call("--version")
    assert (done.returncode, done.stdout) == (0, f"replicate-async {__version__}\n")


def test_help_names_the_commands() -> None:
    """`--help` names each command and what it is for."""
    done = call("--help")
    assert done.returncode == 0
    assert re.search(r"^ +demo +\w", done.stdout, re.MULTILINE)
    assert re.search(r"^ +emulator +\w", done.stdout, re.MULTILINE)


def test_help_is_quick() -> None:
    """Help imports none of the packages that the commands need."""
    code = (
        "import sys\n"
        "from replicate_async.__main__ import main\n"
        "try:\n    main(['emulator', '--help'])\nexcept SystemExit:\n    pass\n"
        "print({'aiohttp', 'anyio', 'attrs', 'attr', 'cattrs'} & {*sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "arguments", [(), ("emulate",), ("emulator", "--port", "x"), ("demo", "x")]
)
def test_wrong_arguments(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no command, or no option of it, is an error that shows the usage; the status is 2."""
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.err.startswith("usage: replicate-async")
    assert not said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_emulator(number: signal.Signals) -> None:
    """`emulator --port 0` serves what it prints, and a signal ends it cleanly, with status 0."""

    async def greet(token: str, base_url: str) -> object:
        async with Client(token, base_url=base_url) as client:
            return await client.run("replicate/hello-world", {"text": "Alice"})

    with emulator("--port", "0") as (process, exported):
        assert exported.keys() == {"REPLICATE_API_TOKEN", "REPLICATE_BASE_URL"}
        port = int(exported["REPLICATE_BASE_URL"].rpartition(":")[2])
        assert port != 0
        greeting = greet(exported["REPLICATE_API_TOKEN"], exported["REPLICATE_BASE_URL"])
        assert asyncio.run(greeting) == "hello Alice"
        process.send_signal(number)
        said, complaints = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, complaints
        assert said.endswith("Stopped.\n")
        assert "Traceback" not in complaints
        assert "Warning" not in complaints


def test_emulator_on_a_port_that_is_taken() -> None:
    """A port that is taken is an error of one line that names it; the status is 1."""
    with emulator("--port", "0") as (_, exported):
        port = exported["REPLICATE_BASE_URL"].rpartition(":")[2]
        done = call("emulator", "--port", port)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "cannot listen" in line]
    assert port in line
    assert "Traceback" not in done.stderr


def test_emulator_takes_a_token_and_an_account() -> None:
    """`--token` and `--account` are what clients then use and see."""

    async def who(token: str, base_url: str) -> str:
        async with Client(token, base_url=base_url) as client:
            return (await client.accounts.current()).username

    with emulator("--token", "r8_mine", "--account", "ada") as (_, exported):
        assert exported["REPLICATE_API_TOKEN"] == "r8_mine"
        assert asyncio.run(who("r8_mine", exported["REPLICATE_BASE_URL"])) == "ada"


def test_emulator_for_other_machines() -> None:
    """With `--host` beyond loopback, the token is a random one, which is printed and works."""

    async def who(token: str, base_url: str) -> str:
        async with Client(token, base_url=base_url) as client:
            return (await client.accounts.current()).username

    tokens = []
    for _ in range(2):
        with emulator("--host", "0.0.0.0") as (_, exported):
            token, url = exported["REPLICATE_API_TOKEN"], exported["REPLICATE_BASE_URL"]
            assert asyncio.run(who(token, url)) == "acme"
            tokens.append(token)
    assert len({*tokens, TOKEN}) == 3
