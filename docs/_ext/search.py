"""Check what the search finds: `python docs/_ext/search.py DIRECTORY`, with Chromium.

The search runs in the browser and needs no server, so the built pages are opened as files. For each thing that users
type, the page that answers it has to be the first result.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

TASKS = {
    "save output files": "guides/files",
    "upload file": "guides/files",
    "rate limit": "guides/rate-limits",
    "stream to browser": "guides/web-apps",
    "fastapi": "guides/web-apps",
    "browser leaves": "guides/web-apps",
    "webhook signature": "guides/webhooks",
    "resume batch after crash": "guides/batches",
    "progress bar": "guides/notebooks",
    "pandas": "guides/data-tools",
    "celery": "guides/clusters",
    "kubernetes": "guides/shutdown",
    "proxy": "guides/proxies",
    "private model": "guides/models",
    "fine-tune": "guides/models",
    "test without token": "guides/testing",
    "opentelemetry": "guides/logging",
    "discord bot": "guides/examples",
    "paid twice": "explanation/money",
    "AmbiguousCreateError": "reference/exceptions",
    "environment variables": "reference/environment",
    "replicate 1.x": "coming-from/replicate-1",
}


def first(chromium: str, directory: Path, words: str) -> str:
    """Return the page that the search finds first."""
    shown = subprocess.run(  # noqa: S603
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--virtual-time-budget=10000", "--dump-dom"),
            f"{(directory / 'search.html').resolve().as_uri()}?q={quote(words)}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    _, _, results = shown.partition('id="search-results"')
    found = re.search(r'<li class="kind-\w+"><a href="([^"?#]*)\.html', results)
    return found[1] if found else "nothing"


def main(directory: Path) -> int:
    """Search for everything, and say what is found."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("The search is not checked: there is no Chromium.")
        return 0
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda words: first(chromium, directory, words), TASKS))
    wrong = [
        f"{words!r} finds {page} instead of {expected}"
        for (words, expected), page in zip(TASKS.items(), found, strict=True)
        if page != expected
    ]
    print("\n".join(wrong) or f"The search finds the right page for {len(TASKS)} tasks.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
