"""Take the screenshots of the documentation again: `nox -s screenshots`, or this script with the names of some.

Each shows a program of `docs/examples` or a command, run against the emulator. They are written into
`docs/_static/screenshots`. Look at them: tests cannot tell whether something is pleasant to read.

It needs the dependency group `screenshots`, and Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import html
import io
import json
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from replicate_async.testing import Emulator, log

DOCS = Path(__file__).resolve().parents[1]
EXAMPLES = DOCS / "examples"
TARGET = DOCS / "_static" / "screenshots"
COLUMNS, LINES = 92, 14
TOKEN = "replicate_async"  # noqa: S105  (of a server that lives for seconds)


@contextmanager
def server(*command: str, port: int) -> Iterator[None]:
    """Run a server until it is done with."""
    with subprocess.Popen(  # noqa: S603  (a command of this file)
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
                else:
                    break
            yield
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def save(name: str, picture: bytes) -> None:
    """Save a screenshot with few colours, which is a third of the size."""
    TARGET.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(TARGET / f"{name}.png", optimize=True)
    print(TARGET / f"{name}.png", image.size, (TARGET / f"{name}.png").stat().st_size)


# -- The page ----------------------------------------------------------------------------------


def take_page(page: Page, emulator: Emulator) -> None:
    """Show the page of the web app, with a poem and a picture that is being painted."""

    @emulator.model("acme/poet", official=True)
    async def poet(prompt: str) -> str:
        return "The boats lie still,\nthe gulls begin,\na lamp goes out\nand light comes in."

    @emulator.model("acme/painter", official=True)
    async def painter(prompt: str) -> str:
        for step in range(1, 7):
            log(f"{step * 10}%|{'#' * step:<10}| {step}/10 [00:00<00:00, 5.00it/s]\n")
            await asyncio.sleep(0.3)
        await asyncio.sleep(60)
        return ""

    os.environ.update(POET="acme/poet", PAINTER="acme/painter")
    port = free_port()
    with server(
        *("uvicorn", "--app-dir", str(EXAMPLES), "web_app:app", "--port", str(port)), port=port
    ):
        page.set_viewport_size({"width": 720, "height": 440})
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_role("button", name="Write").click()
        page.get_by_text("light comes in").wait_for()
        page.get_by_role("button", name="Paint").click()
        page.wait_for_function("document.getElementById('progress').value > 0.5")
        save("page", page.screenshot())
        page.goto("about:blank")  # which cancels the picture


# -- The notebook ------------------------------------------------------------------------------


def take_notebook(page: Page, emulator: Emulator) -> None:
    """Show the notebook in JupyterLab: the gallery, and the progress bars."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(EXAMPLES / "notebook.ipynb", folder)
        command = [
            *("jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
            *(f"--IdentityProvider.token={TOKEN}", "--LabApp.news_url=None"),
            f"--ServerApp.root_dir={folder}",
        ]
        with server(*command, port=port):
            page.set_viewport_size({"width": 900, "height": 4000})
            page.goto(
                f"http://127.0.0.1:{port}/doc/tree/notebook.ipynb?reset&token={TOKEN}",
                timeout=60_000,
            )
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
            page.get_by_text("Python 3").first.wait_for(timeout=60_000)
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_text("Run All Cells", exact=True).click()
            prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
            expect(prompts.last).to_have_text(re.compile(r"\[\d+\]:"), timeout=60_000)
            save("notebook", clipped(page, 2, 3))
            save("progress", clipped(page, 5, 7))


def clipped(page: Page, first: int, last: int) -> bytes:
    """Return a picture of some of the cells."""
    cells = page.locator(".jp-Notebook .jp-Cell")
    top, bottom = cells.nth(first).bounding_box(), cells.nth(last).bounding_box()
    if top is None or bottom is None:
        raise RuntimeError("the cells are not shown")
    return page.screenshot(
        clip={
            "x": top["x"],
            "y": top["y"],
            "width": min(top["width"], 760),
            "height": bottom["y"] + bottom["height"] - top["y"],
        }
    )


# -- The terminal ------------------------------------------------------------------------------


def take_terminal(page: Page, emulator: Emulator) -> None:
    """Show a batch in the terminal while it runs."""

    @emulator.model("acme/painter", official=True)
    async def painter(prompt: str) -> str:
        await asyncio.sleep(1 if int(prompt.rpartition(" ")[2]) < 150 else 60)
        if prompt == "picture 17":
            raise ValueError("NSFW content detected")
        return prompt

    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"prompt": f"picture {number}"}) for number in range(500)]
        Path(folder, "prompts.jsonl").write_text("\n".join(lines), "utf-8")
        command = "replicate-async map acme/painter prompts.jsonl -o out --journal run.db"
        screen = pyte.Screen(COLUMNS, LINES)
        run_in_terminal(screen, command, folder, seconds=14)
    page.set_viewport_size({"width": 800, "height": 300})
    page.set_content(shown(screen))
    save("terminal", page.locator("pre").screenshot())


def run_in_terminal(screen: pyte.Screen, command: str, folder: str, seconds: float) -> None:
    """Run a command for some seconds, as if it had been typed into a terminal."""
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {command}\r\n".encode())
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    unwanted = ("CI", "NO_COLOR", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    with subprocess.Popen(  # noqa: S603  (a command of this file)
        [sys.executable, "-m", *command.replace("-", "_", 1).split()],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
    ) as process:
        os.close(theirs)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([ours], [], [], left)[0]:
                try:
                    stream.feed(os.read(ours, 65536))
                except OSError:  # the command has ended
                    break
        process.kill()
    os.close(ours)


def shown(screen: pyte.Screen) -> str:
    """Return a screen as HTML."""
    rows = []
    for number in range(screen.cursor.y + 1):
        cells = [screen.buffer[number][column] for column in range(COLUMNS)]
        rows.append(
            "".join(
                f'<span style="color:{colour(cell.fg)};font-weight:{"bold" if cell.bold else "normal"}">'
                f"{html.escape(cell.data)}</span>"
                for cell in cells
            )
        )
    return (
        '<pre style="display:inline-block;margin:0;padding:14px;background:#1d1f27;font:13px/1.45 monospace">'
        + "\n".join(rows)
        + "</pre>"
    )


def colour(name: str) -> str:
    """Return a colour of CSS for one of a terminal."""
    named = {"default": "#e4e6eb", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341"}
    return named.get(name, name if not name.isalnum() or name.isalpha() else f"#{name}")


SCREENSHOTS: dict[str, Callable[[Page, Emulator], None]] = {
    "page": take_page,
    "notebook": take_notebook,
    "terminal": take_terminal,
}


def main() -> int:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*SCREENSHOTS], metavar="NAME")
    options = parser.parse_args()
    for name in options.names:
        with Emulator() as emulator, sync_playwright() as playwright:
            os.environ.update(emulator.env)
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            SCREENSHOTS[name](browser.new_page(), emulator)
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
