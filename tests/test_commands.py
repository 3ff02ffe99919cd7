"""The commands that run models: `run`, `stream`, `map` and `predictions`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from replicate_async import sync
from replicate_async.testing import Emulator, OutputFile, Reply

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-W", "error", "-m", "replicate_async")
SECONDS = 60


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator with a slow model and one that makes a file."""
    with Emulator(wire=True, rate_limits=False) as running:

        @running.model("acme/slow", official=True)
        async def slow(text: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            return text

        @running.model("acme/file", official=True)
        async def file(text: str, times: int = 1) -> OutputFile:
            return OutputFile(text.encode() * times, "out.txt", "text/plain")

        yield running


def picture() -> bytes:
    """Return a PNG of one pixel."""
    from replicate_async.testing._png import Canvas

    return Canvas(1, 1).png()


class Shell:
    """Runs commands in a directory, against an emulator."""

    def __init__(self, emulator: Emulator, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            **emulator.env,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "no_proxy": "*",
        }

    def start(
        self,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        within: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start a command, which another one may execute."""
        return subprocess.Popen(
            [*within, *COMMAND, *arguments],
            env=self.environment,
            cwd=self.directory,
            text=True,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )

    def run(self, *arguments: str, text: str | None = None) -> tuple[int, str, str]:
        """Run a command to its end; return its status and what it has printed."""
        process = self.start(*arguments, stdin=subprocess.PIPE)
        said, complained = process.communicate(text, SECONDS)
        return process.returncode, said, complained


@pytest.fixture
def shell(emulator: Emulator, tmp_path: Path) -> Shell:
    """Return a shell in a directory of its own."""
    return Shell(emulator, tmp_path)


# -- run, stream -------------------------------------------------------------------------------


def test_run(shell: Shell, emulator: Emulator) -> None:
    """It prints the output; values are what the model wants, and @ is a file."""
    assert shell.run("run", "replicate/hello-world", "text=42") == (0, "hello 42\n", "")
    (shell.directory / "photo.png").write_bytes(picture())
    status, said, _ = shell.run("run", "emulator/describer", "-i", "image=@photo.png", "--json")
    assert status == 0
    assert "PNG" in json.loads(said)["output"]
    assert len(emulator.ledger.requests(operation="files.create")) == 1
    status, said, _ = shell.run("run", "acme/slow", "text=@@home", "seconds=0.1")
    assert (status, said) == (0, "@home\n")


def test_run_saves(shell: Shell) -> None:
    """With -o, files and text are saved, and nothing is overwritten."""
    for name in ("out.txt", "out-2.txt"):
        status, said, _ = shell.run("run", "acme/file", "text=ab", "times=3", "-o", "out")
        assert (status, said) == (0, f"out/{name}\n")
        assert (shell.directory / "out" / name).read_text() == "ababab"
    status, said, _ = shell.run("run", "acme/slow", "text=ab", "-o", "out", "--json")
    assert json.loads(said)["saved"] == ["out/output.txt"]
    assert (shell.directory / "out" / "output.txt").read_text() == "ab"


def test_run_fails(shell: Shell, emulator: Emulator) -> None:
    """A failed model is 1, a wrong command 2; messages say what is wrong, and nothing was created in vain."""
    status, said, complained = shell.run("run", "emulator/failer", "error=too large (E1001)")
    assert (status, said) == (1, "")
    assert "too large (E1001)" in complained
    created = len(emulator.ledger.created())
    for arguments, says in (
        (["run", "replicate/hello-world", "txt=a"], "did you mean 'text'?"),
        (["run", "replicate/hello-world", "text"], "NAME=VALUE"),
        (
            ["run", "replicate/hello-world", "text=@none"],
            "'none' cannot be read: there is no such file",
        ),
        (["run", "no-reference", "text=a"], "got 'no-reference'"),
        (["map", "replicate/hello-world", "none.jsonl"], "'none.jsonl' is not a file"),
        (["run"], "usage"),
    ):
        status, said, complained = shell.run(*arguments)
        assert (status, said) == (2, ""), complained
        assert says in complained
        assert "Traceback" not in complained
    assert len(emulator.ledger.created()) == created
    shell.environment.pop("REPLICATE_API_TOKEN")
    status, _, complained = shell.run("predictions", "list")
    assert status == 2
    assert "there is no API token" in complained


def test_run_is_interrupted(shell: Shell, emulator: Emulator) -> None:
    """Ctrl-C cancels the prediction, and so does the end of --timeout."""
    process = shell.start("run", "acme/slow", "text=a", "seconds=30")
    _until(lambda: emulator.ledger.created())
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in complained
    assert len(emulator.ledger.cancelled()) == 1
    status, _, complained = shell.run("run", "acme/slow", "text=b", "seconds=30", "--timeout", "1")
    assert status == 1
    assert "did not end within 1 s" in complained
    assert len(emulator.ledger.cancelled()) == 2


SIGNALS = pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)


@SIGNALS
@pytest.mark.parametrize("command", ["run", "stream"])
@pytest.mark.parametrize("presses", [1, 2])
def test_signals(
    shell: Shell, emulator: Emulator, command: str, number: int, code: int, presses: int
) -> None:
    """Ctrl-C, SIGTERM and SIGHUP cancel the prediction and say so; a second one changes nothing."""
    process = shell.start(command, "acme/slow", "text=a", "seconds=30")
    _until(lambda: emulator.ledger.created())
    for _ in range(presses):
        process.send_signal(number)
    said, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == code
    assert (said, complained) == ("", "interrupted: the prediction was cancelled\n")
    assert len(emulator.ledger.cancelled()) == 1


def test_signal_before_the_create(shell: Shell, emulator: Emulator) -> None:
    """A signal that comes before anything was created ends the command."""
    emulator.latency = 1.0
    process = shell.start("run", "acme/slow", "text=a")
    _until(lambda: emulator.ledger.requests())
    process.send_signal(signal.SIGTERM)
    _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 143
    assert complained == "interrupted\n"
    assert emulator.ledger.created() == []


def test_nohup(shell: Shell, emulator: Emulator) -> None:
    """What nohup has ignored stays ignored."""
    process = shell.start(
        *("run", "acme/slow", "text=a", "seconds=1"),
        within=["sh", "-c", 'trap "" HUP; exec "$@"', "-"],
    )
    _until(lambda: emulator.ledger.created())
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=SECONDS) == ("a\n", "")
    assert process.returncode == 0


def test_timeouts_are_checked_first(shell: Shell, emulator: Emulator) -> None:
    """A timeout that cannot be one is refused before anything is sent."""
    for command in ("run", "stream"):
        for timeout in ("0", "-1", "nan", "inf", "soon"):
            status, said, complained = shell.run(
                command, "acme/slow", "text=a", "--timeout", timeout
            )
            assert (status, said) == (2, "")
            assert "error: argument --timeout: expected " in complained
    assert emulator.ledger.requests() == []


# -- Where the output cannot be written --------------------------------------------------------


def test_other_encodings(shell: Shell) -> None:
    """What the encoding of standard output does not have is replaced, or escaped in JSON."""
    for encoding, arguments, expected in (
        ("cp1252", ["run"], "é?\n"),
        ("cp1252", ["stream"], "é?\n"),
        ("cp1252", ["run", "--json"], "é漢"),
        ("ascii:surrogateescape", ["run"], "??\n"),  # as in the POSIX locale
    ):
        shell.environment["PYTHONIOENCODING"] = encoding
        with (shell.directory / "out").open("wb") as out:
            process = shell.start(arguments[0], "acme/slow", "text=é漢", *arguments[1:], stdout=out)
            assert process.communicate(timeout=SECONDS)[1] == ""
        text = (shell.directory / "out").read_text("cp1252")
        assert (json.loads(text)["output"] if "--json" in arguments else text) == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--json"], ["stream"], ["stream", "--json"]], ids=" ".join
)
def test_full_device(shell: Shell, emulator: Emulator, arguments: list[str]) -> None:
    """The way to an output that could not be written stands in the error."""
    with Path("/dev/full").open("wb") as out:
        process = shell.start(arguments[0], "acme/slow", "text=a", *arguments[1:], stdout=out)
        _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    [life] = emulator.ledger.created()
    assert complained == (
        f"error: the output of prediction {life.id} could not be written to standard output (No space"
        f" left on device). For one hour, `replicate-async predictions get {life.id}` shows it\n"
    )
    assert shell.run("predictions", "get", life.id)[1].endswith("\na\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_device_with_room_for_a_part(shell: Shell, emulator: Emulator, end: str) -> None:
    """What is written in part only is an error, too, also where Python does not buffer what it writes."""
    shell.environment["PYTHONUNBUFFERED"] = "1"
    limited = ["sh", "-c", 'ulimit -f 4; exec "$@"', "-"]
    with (shell.directory / "out").open("wb") as out:
        process = shell.start(
            "stream", "acme/slow", f"text={'x' * 50_000}{end}", stdout=out, within=limited
        )
        _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    [life] = emulator.ledger.created()
    assert f"the output of prediction {life.id} could not be written" in complained


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_device_in_map(shell: Shell, emulator: Emulator) -> None:
    """No more is created, and each output that was paid for is named."""
    (shell.directory / "in.jsonl").write_text('{"text": "a", "seconds": 0.3}\n' * 500)
    with Path("/dev/full").open("wb") as out:
        process = shell.start("map", "acme/slow", "in.jsonl", "--concurrency", "4", stdout=out)
        _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "no more is created: the outputs cannot be written" in complained
    assert "Traceback" not in complained
    assert len(emulator.ledger.created()) < 20
    for life in emulator.ledger.created():
        assert f"prediction {life.id} could not be written" in complained
    assert emulator.ledger.cancelled() == []


def test_output_hosts(shell: Shell, emulator: Emulator) -> None:
    """`--output-host` bounds where outputs are fetched from."""
    status, said, complained = shell.run(
        "run", "acme/file", "text=x", "-o", "d", "--output-host", "x.test"
    )
    assert (status, said) == (1, "")
    assert "127.0.0.1" in complained
    assert emulator.ledger.created()[0].id in complained
    hosts = ["--output-host", "*.x.test", "--output-host", "127.0.0.1"]
    assert shell.run("run", "acme/file", "text=x", "-o", "d", *hosts)[0] == 0


def test_closed_standard_output(shell: Shell, emulator: Emulator) -> None:
    """Without a standard output, too."""
    process = shell.start("run", "acme/slow", "text=a", within=["sh", "-c", 'exec "$@" >&-', "-"])
    _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert f"predictions get {emulator.ledger.created()[0].id}" in complained


@pytest.mark.parametrize("model", ["acme/slow", "acme/file"])
def test_full_directory(shell: Shell, emulator: Emulator, model: str) -> None:
    """If the output cannot be saved, the error names the prediction."""
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "-"]
    process = shell.start("run", model, "text=a", "-o", "out", within=limited)
    said, complained = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (1, "")
    [life] = emulator.ledger.created()
    assert (
        f"Prediction {life.id} of {model} succeeded, but its files could not be saved" in complained
    )
    assert "Traceback" not in complained


def test_files_that_cannot_be_saved(shell: Shell, emulator: Emulator) -> None:
    """If one file of an output cannot be saved, the others are, and the error tells both."""

    @emulator.model("acme/files")
    def files() -> list[OutputFile]:
        return [OutputFile(bytes(2**20), "large.txt"), OutputFile(b"small", "small.txt")]

    limited = ["sh", "-c", 'ulimit -f 1; exec "$@"', "-"]
    process = shell.start("run", "acme/files", "-o", "out", within=limited)
    said, complained = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (1, "")
    assert (shell.directory / "out" / "small.txt").read_bytes() == b"small"
    assert "large.txt" in complained
    assert "saved: out/small.txt" in complained
    assert "Traceback" not in complained


def test_stream(shell: Shell) -> None:
    """It prints text as it comes, with one line end; or events as JSON."""
    status, said, complained = shell.run("stream", "emulator/writer", "prompt=sea", "max_tokens=5")
    assert (status, complained) == (0, "")
    assert said.strip()
    assert said.endswith("\n")
    status, again, _ = shell.run(
        "stream", "emulator/writer", "prompt=sea", "max_tokens=5", "--json"
    )
    events = [json.loads(line) for line in again.splitlines()]
    assert "".join(e["data"] for e in events if e["event"] == "output") == said.removesuffix("\n")
    assert events[-1]["event"] == "done"


@pytest.mark.parametrize("command", ["run", "stream"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_cancelled_by_somebody_else(
    shell: Shell, emulator: Emulator, command: str, options: tuple[str, ...]
) -> None:
    """What somebody else has cancelled is no success: the exit code is 1, and the message names the prediction."""
    given = ["acme/slow", "text=a", "seconds=30"]
    if command == "stream":
        given = ["emulator/writer", "prompt=sea", "max_tokens=50", "delay=1"]
    process = shell.start(command, *given, *options)
    deadline = time.monotonic() + SECONDS
    while not emulator.ledger.running():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        [created] = emulator.ledger.created()
        client.predictions.cancel(created.id)
    said, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert created.id in complained
    assert "cancel" in complained
    assert "Traceback" not in said + complained


def test_on_an_emulator(tmp_path: Path) -> None:
    """With --emulator, every command works without a token and without a network."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("REPLICATE_")
    }
    (tmp_path / "in.jsonl").write_text('{"text": "Bob"}\n')
    for arguments, says in (
        (["run", "replicate/hello-world", "text=Bob"], "hello Bob\n"),
        (["stream", "emulator/writer", "prompt=sea", "max_tokens=2"], ""),
        (["map", "replicate/hello-world", "in.jsonl"], "000000 hello Bob\n"),
        (["predictions", "list", "--json"], ""),
    ):
        done = subprocess.run(
            [*COMMAND, *arguments, "--emulator"],
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


def test_deployments(shell: Shell, emulator: Emulator) -> None:
    """`deployments/owner/name` stands for a deployment, wherever a model may stand."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        model = client.models.get("acme/slow")
        assert model.latest_version is not None
        client.deployments.create(
            "prod",
            model=model,
            version=model.latest_version,
            hardware="cpu",
            min_instances=0,
            max_instances=1,
        )
    (shell.directory / "in.csv").write_text("text\n1\n")
    for ref in ("deployments/acme/prod", "https://replicate.com/deployments/acme/prod/"):
        assert shell.run("run", ref, "text=1")[1] == "1\n"
        assert shell.run("map", ref, "in.csv")[1] == "000000 1\n"
    assert shell.run("stream", "deployments/acme/prod", "text=1")[1] == "1\n"
    assert len(emulator.ledger.requests(operation="deployments.predictions.create")) == 5
    status, _, complained = shell.run("run", "deployments/acme/other", "text=1")
    assert status == 1
    assert "Not found" in complained


@pytest.mark.parametrize("by", ["option", "environment"])
def test_rate_limit(shell: Shell, by: str) -> None:
    """`--rate-limit` or the environment say how many predictions are created in which time."""
    (shell.directory / "in.jsonl").write_text('{"text": "a"}\n' * 4)
    arguments = ["map", "acme/slow", "in.jsonl"]
    if by == "option":
        arguments += ["--rate-limit", "2/1"]
        shell.environment["REPLICATE_RATE_LIMIT"] = "nothing"
    else:
        shell.environment["REPLICATE_RATE_LIMIT"] = "2/1"
    began = time.monotonic()
    assert shell.run(*arguments)[0] == 0
    assert time.monotonic() - began >= 0.9
    shell.environment["REPLICATE_RATE_LIMIT"] = "150"
    for name, further in (("REPLICATE_RATE_LIMIT", []), ("--rate-limit", ["--rate-limit", "0/60"])):
        status, said, complained = shell.run("run", "acme/slow", "text=a", *further)
        assert (status, said) == (2, "")
        assert complained.startswith(f"error: {name}: expected creates and seconds")


# -- predictions -------------------------------------------------------------------------------


def test_predictions(shell: Shell, emulator: Emulator) -> None:
    """They are listed, shown, awaited and cancelled, for people and as JSON."""
    for text in "abc":
        shell.run("run", "acme/slow", f"text={text}")
    ids = [life.id for life in emulator.ledger.created()]
    status, said, _ = shell.run("predictions", "list", "--limit", "2")
    assert status == 0
    assert [line.split()[0] for line in said.splitlines()] == ids[:0:-1]
    _, said, _ = shell.run("predictions", "list", "--json")
    assert [json.loads(line)["id"] for line in said.splitlines()] == ids[::-1]
    _, said, _ = shell.run("predictions", "get", ids[0])
    assert said.startswith(f"{ids[0]}  succeeded")
    assert said.endswith("\na\n")
    process = shell.start("run", "acme/slow", "text=d", "seconds=30")
    _until(lambda: len(emulator.ledger.created()) == 4)
    running = emulator.ledger.created()[-1].id
    # What cannot be an ID is refused before it is sent, and does not keep the others.
    ids = ["../x", running, "nonsense"]
    status, said, complained = shell.run("predictions", "cancel", *ids, "--json")
    assert status == 2
    assert json.loads(said)["id"] == running
    assert "expected a valid ID, got '../x'" in complained
    assert "404" in complained
    assert not [
        each for each in emulator.ledger.requests() if "..%2" in each.path or "../" in each.path
    ]
    _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "was canceled" in complained
    _, said, _ = shell.run("predictions", "get", running, "--wait", "--json")
    assert json.loads(said)["status"] == "canceled"


# -- map ---------------------------------------------------------------------------------------


def test_map(shell: Shell, emulator: Emulator) -> None:
    """Outputs are saved, what is common to all lines is added, and a second run makes nothing again."""
    (shell.directory / "in.jsonl").write_text(
        "".join(json.dumps({"text": f"t{n}"}) + "\n" for n in range(20))
    )
    command = ["map", "acme/file", "in.jsonl", "-o", "out", "--journal", "run.db", "-i", "times=2"]
    status, said, complained = shell.run(*command, "--concurrency", "5")
    assert (status, said) == (0, ""), complained
    assert re.search(
        r"^20 done, 0 failed in 0:\d\d, [\d.]+ predict seconds$", complained, re.MULTILINE
    )
    for n in range(20):
        assert (shell.directory / "out" / f"{n:06d}-out.txt").read_text() == f"t{n}" * 2
    status, said, _ = shell.run(*command, "--json", "--ordered")
    outcomes = [json.loads(line) for line in said.splitlines()]
    assert [outcome["index"] for outcome in outcomes] == list(range(20))
    assert outcomes[3]["saved"] == ["out/000003-out.txt"]
    assert outcomes[3]["line"] == 4
    assert len(emulator.ledger.created()) == 20
    status, _, complained = shell.run(*command, "-i", "times=3")
    assert status == 2
    assert "input 0 is not what it was" in complained


def test_redo(shell: Shell, emulator: Emulator) -> None:
    """What an earlier run has cancelled is said each time, and run again on request."""
    command = ["map", "acme/slow", "in.jsonl", "--journal", "run.db"]
    (shell.directory / "in.jsonl").write_text('{"text": "a", "seconds": 3}\n{"text": "b"}\n')
    status, _, first = shell.run(*command, "--timeout", "1", "--ordered")
    assert status == 1
    assert "did not end within 1 s" in first
    assert "--redo runs them again" in first
    status, _, second = shell.run(*command)
    assert status == 1
    assert "did not end within 1 s" in second
    assert len(emulator.ledger.created()) == 2
    status, said, complained = shell.run(*command, "--ordered", "--redo", "failed,timeout")
    assert (status, said) == (0, "000000 a\n000001 b\n"), complained
    assert len(emulator.ledger.created()) == 3
    status, _, complained = shell.run(*command, "--redo", "everything")
    assert status == 2
    assert "'everything' is none of failed, canceled, timeout, expired, lost" in complained


BAD = (
    b'{"text": "good"}\n'
    b"not json\n"
    b"\n"
    b'{"text": "@none.png"}\n'
    b'["text"]\n'
    b'{"text": "\xff"}\n'
    b'{"txt": "a"}\n'
    b'{"text": NaN}\n'
    b'{"text": "last"}'
)
WRONG = (2, 4, 5, 6, 7, 8)


def test_bad_lines(shell: Shell, emulator: Emulator) -> None:
    """What is wrong with a line is told with its number, and the rest goes on; --strict creates nothing."""
    (shell.directory / "in.jsonl").write_bytes(BAD)
    status, said, complained = shell.run("map", "replicate/hello-world", "in.jsonl", "--strict")
    assert (status, said) == (2, "")
    assert "6 of 8 lines are wrong; nothing was created" in complained
    assert [int(n) for n in re.findall(r"^error: line (\d+): ", complained, re.MULTILINE)] == [
        *WRONG
    ]
    assert emulator.ledger.created() == []
    status, said, complained = shell.run("map", "replicate/hello-world", "in.jsonl", "--ordered")
    assert status == 1
    assert said == "000000 hello good\n000007 hello last\n"
    assert [int(n) for n in re.findall(r"^line (\d+): ", complained, re.MULTILINE)] == [*WRONG]
    assert len(emulator.ledger.created()) == 2
    (shell.directory / "good.jsonl").write_text('{"text": "a"}\n')
    status, said, _ = shell.run("map", "replicate/hello-world", "good.jsonl", "--strict")
    assert (status, said) == (0, "000000 hello a\n")


def test_csv(shell: Shell, emulator: Emulator) -> None:
    """CSV: headings name the inputs, cells become what the model wants, and bad rows harm no others."""
    text = 'text,seconds\na,\n"b\nc",0.1\n7,0\nx,1,2\n"d",0\n'
    status, said, complained = shell.run(
        "map", "acme/slow", "-", "--format", "csv", "--ordered", text=text
    )
    assert status == 1
    assert said == "000000 a\n000001 b\nc\n000002 7\n000004 d\n"
    assert "line 6: it has 3 cells under 2 headings" in complained
    assert sorted((life.input for life in emulator.ledger.created()), key=str) == [
        {"text": "7", "seconds": 0},
        {"text": "a"},
        {"text": "b\nc", "seconds": 0.1},
        {"text": "d", "seconds": 0},
    ]


@pytest.mark.parametrize("source", ["in.csv", "-"])
def test_headings_that_are_there_twice(shell: Shell, emulator: Emulator, source: str) -> None:
    """With two columns of one name, the command is wrong, and nothing is created."""
    text = "\ufefftext;seconds;text\r\na;0;b\r\n"
    (shell.directory / "in.csv").write_text(text)
    status, said, complained = shell.run("map", "acme/slow", source, "--format", "csv", text=text)
    assert (status, said) == (2, "")
    assert "columns 1 and 3 have the same heading, 'text'" in complained
    assert "Traceback" not in complained
    assert emulator.ledger.created() == []


def test_files_as_texts(shell: Shell, emulator: Emulator) -> None:
    """In every command, `@path` is a file, or its content where the model takes text, and `@@` stands for `@`."""
    (shell.directory / "a.txt").write_text("from a file")
    (shell.directory / "in.jsonl").write_text('{"text": "@a.txt"}\n{"text": "@@b"}\n')
    (shell.directory / "in.csv").write_text("text\n@a.txt\n@@b\n")
    for command in ("run", "stream"):
        assert shell.run(command, "acme/slow", "text=@a.txt")[1] == "from a file\n"
        assert shell.run(command, "acme/slow", "-i", "text=@@b")[1] == "@b\n"
    for name in ("in.jsonl", "in.csv"):
        found = shell.run("map", "acme/slow", name, "--ordered")
        assert found[1] == "000000 from a file\n000001 @b\n"
    (shell.directory / "in.jsonl").write_text("{}\n")
    found = shell.run("map", "acme/slow", "in.jsonl", "-i", "text=@a.txt")
    assert found[1] == "000000 from a file\n"


def test_standard_input_is_read_as_it_comes(shell: Shell) -> None:
    """A line of standard input is worked on before the next one is there."""
    process = shell.start("map", "acme/slow", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for n in range(3):
        process.stdin.write(json.dumps({"text": f"t{n}"}) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"00000{n} t{n}\n"
    process.communicate(timeout=SECONDS)
    assert process.returncode == 0


@pytest.mark.parametrize("refusal", ["credit", "quota"])
def test_errors_that_all_would_meet(shell: Shell, emulator: Emulator, refusal: str) -> None:
    """If the account cannot pay, or has reached a limit, no further line is tried."""
    (shell.directory / "in.jsonl").write_text('{"text": "a"}\n' * 500)
    if refusal == "credit":
        emulator.credit = "none"
    else:
        body = json.dumps({"detail": "Monthly spend limit reached", "status": 429}).encode()
        emulator.wire.inject(
            Reply(429, body, {"Content-Type": "application/json"}), path="*/predictions"
        )
    status, _, complained = shell.run("map", "acme/slow", "in.jsonl", "--concurrency", "4")
    assert status == 1
    assert ("Insufficient credit" if refusal == "credit" else "spend limit") in complained
    assert "no more is created" in complained
    assert len(emulator.ledger.requests(operation="models.predictions.create")) < 50


@SIGNALS
@pytest.mark.parametrize("journal", [False, True])
def test_signals_in_map(
    shell: Shell, emulator: Emulator, number: int, code: int, journal: bool
) -> None:
    """SIGTERM and SIGHUP leave at once, as a second Ctrl-C: they cancel what runs, or leave it to the next run."""
    lines = [json.dumps({"text": f"t{n}", "seconds": 2.0}) for n in range(50)]
    (shell.directory / "in.jsonl").write_text("\n".join(lines))
    more = ["--journal", "run.db"] if journal else []
    process = shell.start("map", "acme/slow", "in.jsonl", "--concurrency", "5", *more)
    _until(lambda: len(emulator.ledger.created()) == 5)
    if number == signal.SIGINT:
        process.send_signal(number)
        assert process.stderr is not None
        assert "waiting" in process.stderr.readline()
    process.send_signal(number)
    _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == code
    assert "interrupted: 0 done, 0 failed" in complained
    assert "Traceback" not in complained
    assert len(emulator.ledger.created()) == 5
    if not journal:
        assert "predictions that were cancelled: 5\n" in complained
        assert len(emulator.ledger.cancelled()) == 5
        return
    assert "predictions that are running go on\n" in complained
    assert "repeat the command: run.db\n" in complained
    assert emulator.ledger.cancelled() == []
    (shell.directory / "in.jsonl").write_text("\n".join(lines[:5]))
    status, said, _ = shell.run("map", "acme/slow", "in.jsonl", *more)
    assert (status, len(said.splitlines())) == (0, 5)
    assert len(emulator.ledger.created()) == 5


@pytest.mark.parametrize("journal", [False, True])
def test_ctrl_c(shell: Shell, emulator: Emulator, journal: bool) -> None:
    """Once stops creating and waits; twice leaves: it cancels what runs, or leaves it to the next run."""
    lines = [json.dumps({"text": f"t{n}", "seconds": 3.0}) for n in range(50)]
    (shell.directory / "in.jsonl").write_text("\n".join(lines))
    more = ["--journal", "run.db"] if journal else []
    process = shell.start("map", "acme/slow", "in.jsonl", "--concurrency", "5", *more)
    _until(lambda: len(emulator.ledger.created()) == 5)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert len(said.splitlines()) == 5
    assert "waiting for what runs" in complained
    assert "interrupted: 5 done, 0 failed" in complained
    assert len(emulator.ledger.created()) == 5
    assert not emulator.ledger.cancelled()

    (shell.directory / "in.jsonl").write_text("\n".join(lines).replace("3.0", "30.0"))
    (shell.directory / "run.db").unlink(missing_ok=True)
    process = shell.start("map", "acme/slow", "in.jsonl", "--concurrency", "5", *more)
    _until(lambda: len(emulator.ledger.created()) == 10)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "waiting" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in complained
    assert len(emulator.ledger.cancelled()) == (0 if journal else 5)
    assert len(emulator.ledger.created()) == 10


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_ctrl_c_while_standard_input_is_silent(
    shell: Shell, emulator: Emulator, format: str
) -> None:
    """An input that never ends is no reason to wait."""
    process = shell.start("map", "acme/slow", "-", "--format", format, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write('{"text": "a"}\n' if format == "jsonl" else "text\na\n")
    process.stdin.flush()
    assert process.stdout.readline() == "000000 a\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    _, complained = process.communicate(timeout=SECONDS)
    assert "Traceback" not in complained
    assert "Fatal" not in complained


def test_the_reader_goes_away(shell: Shell) -> None:
    """If nobody reads the output any more, it ends without a traceback."""
    (shell.directory / "in.jsonl").write_text('{"text": "a"}\n' * 200)
    process = shell.start("map", "acme/slow", "in.jsonl")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(SECONDS) == 1
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def _until(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
