"""Runs a notebook against the emulator, and takes a screenshot of it: `python docs/screenshots/notebook.py FILE.png`.

Needs what `pip install nbclient nbconvert ipykernel ipywidgets tqdm pillow` installs, and Chromium. Look at the
picture: tests cannot tell whether a notebook is pleasant to read.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from replicate_async.testing import Emulator

CELLS = (
    "from replicate_async import sync as replicate",
    'images = replicate.run("emulator/painter", {"prompt": "a lake", "num_outputs": 4, "width": 256, "height": 256})\nimages',
    "images[0]",
    "[prediction] = [each for each in replicate.predictions.list()][:1]\nprediction.reload()",
    "print(prediction)",
    'replicate.run("emulator/sleeper", {"seconds": 2, "steps": 5}, progress=True)',
    'outcomes = list(replicate.map("emulator/painter", [{"prompt": text, "width": 128, "height": 128} for text in ("a", "b", "c")], progress=True))\noutcomes[0]',
    'images[0].save("lake/", progress=True)',
    "replicate.predictions.list()",
    'replicate.models.get("emulator/painter")',
    'replicate.models.get("emulator/painter").latest_version',
    'replicate.run("emulator/failer", {"error": "CUDA out of memory (E1001)"})',
)


def execute(folder: Path) -> Path:
    """Execute the notebook, and return it as HTML."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    nbformat.write(notebook, folder / "notebook.ipynb")
    html, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    page = folder / "notebook.html"
    page.write_text(html, "utf-8")
    return page


def main() -> int:
    """Write the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--keep", type=Path, help="directory for the notebook and its HTML")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("Chromium is not installed")
    with tempfile.TemporaryDirectory() as temporary, Emulator() as emulator:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.update(emulator.env)
        page = execute(folder)
    # The emulator is gone, as are output files after an hour: what is still there is embedded.
    subprocess.run(  # noqa: S603
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1000,3600",
            "--virtual-time-budget=10000",
            f"--screenshot={options.picture.resolve()}",
            page.resolve().as_uri(),
        ],
        check=True,
        capture_output=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
