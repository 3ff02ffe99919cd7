"""The complete programs that the documentation shows, each run against the emulator."""

from __future__ import annotations

import csv
import http.client
import itertools
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
from free_ports import free_port
from nbclient import NotebookClient

from replicate_async.testing import Emulator, log
from replicate_async.testing._png import Canvas

from .conftest import EXAMPLES, PNG, SECONDS, answers, run, started, until

TESTED = {"batch.py", "bot.py", "django_view.py", "notebook.ipynb"}
ELSEWHERE = {
    "web_app.py": "web/test_browser.py",
    "web_app.html": "web/test_browser.py",
    **dict.fromkeys(
        ("celery_tasks.py", "dask_job.py", "dataset_job.py", "ray_job.py"), "test_recipes.py"
    ),
    **dict.fromkeys(("gradio_app.py", "streamlit_app.py"), "test_recipes.py"),
}


def test_all_are_tested() -> None:
    """There is no program but those that a test runs, and each of them is shown or linked in a page."""
    programs = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert programs == TESTED | set(ELSEWHERE)
    pages = "".join(path.read_text("utf-8") for path in EXAMPLES.parent.rglob("*.md"))
    for name in programs:
        assert f"examples/{name}" in pages, name


# -- The batch ---------------------------------------------------------------------------------


def test_batch(emulator: Emulator) -> None:
    """It describes each picture, and creates nothing when it runs again."""
    Path("pictures").mkdir()
    for number in (1, 2, 3):
        Path(f"pictures/{number}.png").write_bytes(Canvas(number, 1).png())
    for _ in range(2):
        assert run("batch.py", "pictures", "descriptions.csv") == "3 pictures, 0 failed\n"
    with Path("descriptions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["1.png", "2.png", "3.png"]
    assert all(f"{n} x 1 pixels" in row["description"] for n, row in enumerate(rows, 1))
    assert len(emulator.ledger.created()) == 3


def test_batch_with_a_failure(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails, fails alone, and the exit code tells."""
    calls = itertools.count()

    @emulator.model("acme/describer", official=True)
    def describer(image: str) -> str:
        if next(calls):
            raise ValueError("no picture")
        return "a picture"

    Path("pictures").mkdir()
    for number in (1, 2):
        Path(f"pictures/{number}.png").write_bytes(Canvas(number, 1).png())
    monkeypatch.setenv("MODEL", "acme/describer")
    assert run("batch.py", "pictures", "out.csv", fails=True) == "2 pictures, 1 failed\n"
    assert Path("out.csv").read_text("utf-8").count("no picture") == 1


# -- The notebook ------------------------------------------------------------------------------


def test_notebook(emulator: Emulator) -> None:
    """All cells run, and those that return something show it."""
    source = (EXAMPLES / "notebook.ipynb").read_text("utf-8")
    notebook: Any = nbformat.reads(source, as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    NotebookClient(notebook, timeout=int(SECONDS), kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    html = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert html.count("data:image/png;base64,") >= 5
    assert list(Path("lake").glob("*.png"))


# -- The bot -----------------------------------------------------------------------------------


@pytest.fixture
def bot(emulator: Emulator) -> Iterator[subprocess.Popen[str]]:
    """Run the bot, with a painter who takes his time for what is slow."""

    @emulator.model("acme/painter", official=True)
    def painter(prompt: str) -> list[str]:
        for step in range(1, 5):
            log(f"{step * 25}%|##  | {step}/4 [00:00<00:00, 5.00it/s]\n")
            time.sleep(600 if prompt == "slowly" else 0.05)
        return [f"https://example.com/{urllib.parse.quote(prompt)}.png"]

    with subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / "bot.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MODEL": "acme/painter"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def say(bot: subprocess.Popen[str], line: str) -> None:
    """Send a message to the bot."""
    assert bot.stdin is not None
    bot.stdin.write(line + "\n")
    bot.stdin.flush()


def hear(bot: subprocess.Popen[str], text: str) -> str:
    """Return the next reply that has a text in it."""
    assert bot.stdout is not None
    for line in bot.stdout:
        if text in line:
            return line.strip()
    raise AssertionError(f"the bot never said {text!r}")


def test_bot(bot: subprocess.Popen[str], emulator: Emulator) -> None:
    """It serves several people at the same time, and ends when all is done."""
    say(bot, "alice !paint a boat")
    say(bot, "bob hello")
    say(bot, "bob !paint a hill")
    assert bot.stdin is not None
    bot.stdin.close()
    assert bot.stdout is not None
    said = bot.stdout.read().splitlines()
    assert bot.wait(SECONDS) == 0
    assert "alice: https://example.com/a%20boat.png" in said
    assert "bob: https://example.com/a%20hill.png" in said
    assert len(emulator.ledger.created()) == 2


def test_bot_is_stopped(bot: subprocess.Popen[str], emulator: Emulator) -> None:
    """What somebody stops is cancelled, and they may ask again."""
    say(bot, "alice !paint slowly")
    hear(bot, "alice: processing 25%")
    say(bot, "alice !paint a boat")
    hear(bot, "one at a time")
    say(bot, "bob !stop")
    say(bot, "alice !stop")
    hear(bot, "alice: stopped")
    say(bot, "alice !paint a boat")
    hear(bot, "https://example.com")
    assert len(emulator.ledger.created()) == 2
    assert len(emulator.ledger.cancelled()) == 1


# -- Django ------------------------------------------------------------------------------------


@pytest.fixture
def django(emulator: Emulator) -> Iterator[str]:
    """Serve the project, and return where."""
    port = free_port()
    command = ["-m", "uvicorn", "--app-dir", str(EXAMPLES), "django_view:application"]
    with started(sys.executable, *command, "--port", str(port)) as server:
        until(lambda: answers(f"http://127.0.0.1:{port}/"))
        yield f"http://127.0.0.1:{port}"
        server.terminate()
        assert server.wait(30) in (0, -15), Path("log").read_text("utf-8")


def test_django(django: str, emulator: Emulator) -> None:
    """The views answer with a picture and a stream."""
    answer = httpx.post(f"{django}/paint", data={"prompt": "a boat"}, timeout=SECONDS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(PNG)
    with httpx.stream("POST", f"{django}/write", data={"prompt": "sea"}, timeout=SECONDS) as stream:
        text = "".join(stream.iter_text())
    assert text.count("event: output") > 3
    assert "event: done" in text
    assert len(emulator.ledger.created()) == 2
    emulator.credit = "none"
    answer = httpx.post(f"{django}/paint", data={"prompt": "a boat"}, timeout=SECONDS)
    assert answer.status_code == 502
    assert "credit" in answer.json()["error"]
    assert "Traceback" not in Path("log").read_text("utf-8")


def test_django_when_the_browser_leaves(django: str, emulator: Emulator) -> None:
    """The prediction of a view that nobody waits for is cancelled."""

    @emulator.model("emulator/painter", official=True)
    def painter(prompt: str) -> list[str]:
        time.sleep(600)
        return []

    connection = http.client.HTTPConnection(django.removeprefix("http://"))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/paint", "prompt=a+boat", form)
    until(emulator.ledger.running)
    connection.close()
    until(emulator.ledger.cancelled)
