"""The command line: `python -m replicate_async`."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicate_async import Client, __main__, __version__, exceptions, sync
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


@contextmanager
def receiver() -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """Serve on this machine; yields the port, and the paths and bodies of what was posted."""
    posted: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port, posted
        finally:
            server.shutdown()
            thread.join()


def said(process: subprocess.Popen[str], number: int) -> list[str]:
    """Return so many lines of standard error."""
    assert process.stderr is not None
    return [process.stderr.readline() for _ in range(number)]


def hello(exported: dict[str, str], webhook: str) -> None:
    """Create a prediction with a webhook, and wait for its end."""
    with sync.Client(
        exported["REPLICATE_API_TOKEN"], base_url=exported["REPLICATE_BASE_URL"]
    ) as client:
        client.run(
            "replicate/hello-world",
            {"text": "Alice"},
            webhook=webhook,
            webhook_events_filter=["completed"],
        )


def test_emulator_with_local_webhooks() -> None:
    """With `--local-webhooks`, `http:` URLs of this machine are accepted, delivered and reported."""
    with receiver() as (port, posted), emulator("--local-webhooks") as (process, exported):
        hello(exported, f"http://127.0.0.1:{port}/hook?key=secret")
        hello(exported, f"http://localhost:{port}/other")
        lines = said(process, 2)
        assert [path for path, _ in posted] == ["/hook?key=secret", "/other"]
        assert json.loads(posted[0][1])["output"] == "hello Alice"
        assert f"to 'http://127.0.0.1:{port}/hook': attempt 1 was answered with 204" in lines[0]
        assert "secret" not in "".join(lines)
        with pytest.raises(exceptions.ArgumentError):
            hello(exported, "http://example.com/hook")


def test_emulator_with_hosts_of_webhooks() -> None:
    """With `--webhook-host`, deliveries for a host arrive on this machine; others are said to be recorded only."""
    with (
        receiver() as (port, posted),
        emulator("--webhook-host", f"Example.com=http://127.0.0.1:{port}") as (process, exported),
    ):
        hello(exported, "https://example.com/hook")
        assert "was answered with 204" in said(process, 1)[0]
        hello(exported, "https://example.org/hook")
        assert (
            "'https://example.org/hook': recorded, not sent: no local server" in said(process, 1)[0]
        )
        assert [path for path, _ in posted] == ["/hook"]
        with pytest.raises(exceptions.ReplicateError, match="HTTPS"):
            hello(exported, f"http://127.0.0.1:{port}/hook")


@pytest.mark.parametrize(
    "value",
    ["example.com", "=http://127.0.0.1:1", "a=b", "a=http://example.com", "a/b=http://[::1]"],
)
def test_hosts_of_webhooks_that_cannot_be(value: str) -> None:
    """What is no host with the URL of a server on this machine is refused."""
    done = call("emulator", "--webhook-host", value)
    assert done.returncode == 2
    assert "argument --webhook-host: expected" in done.stderr


MODELS = '''
import dataclasses
from pathlib import Path
import helper

@dataclasses.dataclass
class Size:
    width: int
    height: int

def shout(text: str, times: int = 1) -> str:
    """Shouts a text.

    Loudly.
    """
    return _upper(text) + helper.MARK * times

async def size_of(image: Path) -> Size:
    return Size(3, 4)

def _upper(text):
    return text.upper()
'''


def test_emulator_with_models_of_a_file(tmp_path: Path) -> None:
    """With `--models`, the functions of files are models, beside those that are built in."""
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "helper.py").write_text("MARK = '!'\n")
    more = tmp_path / "more.py"
    more.write_text(
        "from replicate_async.testing import Emulator\n"
        "def unused(): ...\n"
        "def setup_emulator(emulator: Emulator) -> None:\n"
        f"    @emulator.model('ada/whisper', official=True, version_id='{'a' * 64}')\n"
        "    def whisper(text: str) -> str:\n"
        "        return text.lower()\n"
    )
    files = ("--models", str(tmp_path / "my_models.py"), "--models", str(more))
    with (
        emulator(*files, "--account", "bob") as (_, exported),
        sync.Client(
            exported["REPLICATE_API_TOKEN"], base_url=exported["REPLICATE_BASE_URL"]
        ) as client,
    ):
        assert client.run("bob/shout", {"text": "a", "times": 2}) == "A!!"
        assert client.models.get("bob/shout").description == "Shouts a text."
        assert client.run("bob/size_of", {"image": b"x"}) == {"width": 3, "height": 4}
        assert client.run(f"ada/whisper:{'a' * 64}", {"text": "A"}) == "a"
        assert client.run("replicate/hello-world", {"text": "a"}) == "hello a"
        names = {model.full_name for model in client.models.list()}
        assert {"bob/shout", "bob/size_of", "ada/whisper"} <= names
        assert "bob/unused" not in names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory"),
        ("def f(:\n", "line 1: "),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named"),
        ("x = 1\nfrom os.path import join\nclass A: ...\ndef _f(): ...\n", "no public functions"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def f(x: int = 'a') -> str: ...\n", "f: ValueError: default of x"),
        ("def setup_emulator(emulator):\n    emulator.model('a')(print)\n", "owner/name"),
    ],
)
def test_models_that_cannot_be(tmp_path: Path, text: str | None, reason: str) -> None:
    """A file that cannot be used is named with the reason, and nothing is served."""
    path = tmp_path / "my_models.py"
    if text is not None:
        path.write_text(text)
    done = call("emulator", "--models", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: ")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_emulator_with_tls(tmp_path: Path) -> None:
    """With `--tls` it serves HTTPS, and the printed variables are all that a client needs."""
    with emulator("--tls") as (process, exported):
        assert exported["REPLICATE_BASE_URL"].startswith("https://127.0.0.1:")
        names = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
        assert names <= set(exported)
        done = subprocess.run(
            [*COMMAND, "run", "emulator/painter", "prompt=a lake", "--json"],
            env={**environment(), **exported},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert json.loads(done.stdout)["output"][0].startswith("https://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert not Path(exported["SSL_CERT_FILE"]).parent.exists()


@pytest.mark.parametrize(("chosen", "status"), [("final", "succeeded"), ("recorded", "processing")])
def test_emulator_with_sync_answers(chosen: str, status: str) -> None:
    """`--sync-answers` chooses how a create that waits is answered."""
    with (
        emulator("--sync-answers", chosen) as (_, exported),
        sync.Client(
            exported["REPLICATE_API_TOKEN"], base_url=exported["REPLICATE_BASE_URL"]
        ) as client,
    ):
        model = client.models.get("replicate/hello-world")
        assert model.latest_version is not None
        created = client.predictions.create(model.latest_version, {"text": "a"}, wait=10)
        assert created.status == status
