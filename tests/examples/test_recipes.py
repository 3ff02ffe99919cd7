"""The recipes for other tools, each run with the tool itself.

The tools are in the dependency group `recipes`; Celery is in `test`, too. Where they are not installed, these tests are
skipped. `nox -s recipes` installs them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from free_ports import free_port

from replicate_async.testing import Emulator, OutputFile
from replicate_async.testing._png import Canvas

from .conftest import EXAMPLES, PNG, SECONDS, answers, run, started, until

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
COUNT = 40


def needs(module: str) -> pytest.MarkDecorator:
    """Skip a test without a module, unless the tests were started by `nox -s recipes`."""
    is_here = find_spec(module) is not None or "REPLICATE_ASYNC_RECIPES" in os.environ
    return pytest.mark.skipif(not is_here, reason=f"{module} is not installed")


@pytest.fixture(autouse=True)
def painter(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a painter who takes some time."""

    @emulator.model("acme/painter", official=True)
    def painter(prompt: str) -> list[OutputFile]:
        time.sleep(1)
        return [OutputFile(Canvas(8, 8).png(), "out.png", "image/png")]

    monkeypatch.setenv("MODEL", "acme/painter")
    monkeypatch.setenv("PAINTER", "acme/painter")


@pytest.fixture
def prompts() -> str:
    """Write prompts into a file, one in a line."""
    Path("prompts.txt").write_text("\n".join(f"picture {n}" for n in range(COUNT)), "utf-8")
    return "prompts.txt"


def workers(directory: Path) -> set[int]:
    """Return the processes that have a journal in a directory open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(str(directory)) and target.endswith(".journal"):
            found.add(int(link.parts[2]))
    return found


def kill_a_worker(emulator: Emulator, directory: Path, created: int) -> None:
    """Kill a worker when so many predictions were created."""
    until(lambda: len(emulator.ledger.created()) >= created and workers(directory), SECONDS)
    os.kill(min(workers(directory)), signal.SIGKILL)


def check(emulator: Emulator, directory: Path, count: int) -> None:
    """Check that each picture was paid for once, and is there."""
    assert len(emulator.ledger.created()) == count
    assert not emulator.ledger.cancelled()
    pictures = list(directory.glob("*/*.png"))
    assert len(pictures) == count
    assert all(path.read_bytes().startswith(PNG) for path in pictures)


# -- Many processes and machines ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ray_job.py", marks=needs("ray")),
        pytest.param("dask_job.py", marks=needs("distributed")),
    ],
)
@pytest.mark.parametrize("dies", [False, True], ids=["", "a worker dies"])
def test_clusters(name: str, dies: bool, emulator: Emulator, prompts: str, tmp_path: Path) -> None:
    """Each prompt is painted once, also if a worker is killed in the middle."""
    directory = tmp_path / "out"
    command = [str(EXAMPLES / name), prompts, str(directory)]
    with started(sys.executable, *command) as job:
        if dies:
            kill_a_worker(emulator, directory, COUNT // 4)
        assert job.wait(SECONDS) == 0
    assert f"{COUNT} pictures, 0 failed" in Path("log").read_text("utf-8")
    check(emulator, directory, COUNT)


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a Redis for Celery, which delivers again what was not done after some seconds."""
    assert REDIS is not None
    port = free_port()
    monkeypatch.setenv("REDIS", f"redis://127.0.0.1:{port}")
    monkeypatch.setenv("VISIBILITY", str(VISIBILITY))
    monkeypatch.setenv("DIRECTORY", str(Path("pictures").absolute()))
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with started(REDIS, "--port", str(port), *options):
        yield


TASKS = 12
VISIBILITY = 4
ASK = f"""
    import celery_tasks
    results = [celery_tasks.paint.delay(f"picture {{n}}") for n in range({TASKS})]
    print(sum(result.get(timeout={SECONDS}).endswith(".png") for result in results))
"""


@needs("celery")
@pytest.mark.skipif(REDIS is None, reason="there is no Redis here")
@pytest.mark.parametrize("dies", [False, True], ids=["", "a worker dies"])
def test_celery(dies: bool, emulator: Emulator, redis: None, tmp_path: Path) -> None:
    """Each task paints once, also if its worker is killed and another one gets the task."""
    worker = [
        *(sys.executable, "-m", "celery", "--workdir", str(EXAMPLES), "--app", "celery_tasks"),
        *("worker", "--pool", "threads", "--concurrency", "8", "--loglevel", "WARNING"),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{os.environ['PYTHONPATH']}"}
    asking = [sys.executable, "-c", textwrap.dedent(ASK)]
    directory = tmp_path / "pictures"
    with subprocess.Popen(asking, stdout=subprocess.PIPE, text=True, env=environment) as script:
        if dies:
            with started(*worker, "--hostname", "first"):
                kill_a_worker(emulator, directory, TASKS // 2)
            # A worker looks for the tasks of dead ones when it starts, and then every 100 seconds.
            time.sleep(VISIBILITY + 1)
        with started(*worker, "--hostname", "second"):
            out, _ = script.communicate(timeout=SECONDS)
    assert out == f"{TASKS}\n"
    check(emulator, directory, TASKS)


# -- Data tools --------------------------------------------------------------------------------


@needs("datasets")
def test_datasets(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The dataset has a column with pictures; a second run creates nothing."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines = [json.dumps({"prompt": f"picture {n}"}) for n in range(5)]
    Path("prompts.jsonl").write_text("\n".join(lines), "utf-8")
    for _ in range(2):
        assert "num_rows: 5" in run("dataset_job.py", "prompts.jsonl", "painted")
    assert len(emulator.ledger.created()) == 5
    assert len(list(Path("painted.files").glob("*.png"))) == 5


@needs("gradio")
def test_gradio(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page writes and paints."""
    port = free_port()
    monkeypatch.setenv("GRADIO_SERVER_PORT", str(port))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    origin = f"http://127.0.0.1:{port}"
    visit = f"""
        from gradio_client import Client
        client = Client({origin!r}, verbose=False)
        print(len(client.predict("the sea", api_name="/write").split()) > 3)
        print(client.predict("a lake", api_name="/paint"))
    """
    with started(sys.executable, str(EXAMPLES / "gradio_app.py")):
        until(lambda: answers(origin), SECONDS)
        visitor = [sys.executable, "-c", textwrap.dedent(visit)]
        out = subprocess.check_output(visitor, text=True, timeout=SECONDS)
    written, picture = out.splitlines()
    assert written == "True"
    assert Path(picture).is_file()
    assert len(emulator.ledger.created()) == 2


STREAMLIT = f"""
    from streamlit.testing.v1 import AppTest
    app = AppTest.from_file({str(EXAMPLES / "streamlit_app.py")!r}, default_timeout=60).run()
    app.button[0].click().run()
    print(len(app.markdown[0].value.split()) > 3)
    app.button[1].click().run()
    print(len(app.get("image")), len(app.exception))
"""


@needs("streamlit")
def test_streamlit(emulator: Emulator) -> None:
    """The page writes and paints."""
    script = [sys.executable, "-c", textwrap.dedent(STREAMLIT)]
    out = subprocess.check_output(script, text=True, timeout=SECONDS, stderr=subprocess.DEVNULL)
    assert out == "True\n1 0\n"
    assert len(emulator.ledger.created()) == 2
