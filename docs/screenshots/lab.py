"""Runs the cells of `notebook.py` in JupyterLab, and takes a screenshot: `python docs/screenshots/lab.py FILE.png`.

Needs what `pip install jupyterlab ipywidgets tqdm pillow playwright` installs, and Chromium. Widgets, such as the bars,
are shown in JupyterLab only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from notebook import CELLS
from playwright.sync_api import sync_playwright

from replicate_async.testing import Emulator

_PORT = 18888
_URL = f"http://127.0.0.1:{_PORT}"


def _write_notebook(path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def _photograph(picture: Path, seconds: float) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 3600})
        page.goto(f"{_URL}/lab/tree/demo.ipynb?reset", timeout=60_000)
        page.wait_for_selector(".jp-Notebook", timeout=60_000)
        time.sleep(5)  # until the kernel is there
        page.click("text=Run")
        page.click("text=Run All Cells")
        time.sleep(seconds)
        page.screenshot(path=picture)
        browser.close()


def main() -> int:
    """Write the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=25, help="time for the cells to run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        _write_notebook(Path(folder, "demo.ipynb"))
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
            *(f"--port={_PORT}", "--IdentityProvider.token=", "--LabApp.news_url=None"),
            f"--ServerApp.root_dir={folder}",
        ]
        lab = subprocess.Popen(command, env={**os.environ, **emulator.env})  # noqa: S603
        try:
            time.sleep(8)  # until it serves
            _photograph(options.picture, options.seconds)
        finally:
            lab.terminate()
            lab.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
