"""The app that the guide to web apps builds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from documents import ROOT, Document

from replicate_async.testing import Emulator

from .conftest import app_of, served

PAGE = Document(ROOT / "docs/guides/web-apps.md")


@contextmanager
def guide(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[str]:
    """Serve the app, from a directory in which its files are; yields its origin."""
    for name, value in emulator.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(directory)
    Path("page.html").write_text(PAGE.html(), "utf-8")
    Path("app.py").write_text(PAGE.program, "utf-8")
    with served(app_of(Path("app.py"))) as origin:
        yield origin
