"""Libraries that import `replicate` get `v1` after `install()`, and do the same as with `replicate` 1.0.7.

They are in the dependency group `libraries`. Where that is not installed, these tests are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent / "libraries").glob("*.py"))
NAMES = ("langchain_community", "llama_index", "opentelemetry")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_it_prints_the_same(program: Path, run_program: Callable[[Path, str], str]) -> None:
    """A program that uses a library prints the same with both."""
    is_here = all(find_spec(name) is not None for name in NAMES)
    if not is_here and "REPLICATE_ASYNC_LIBRARIES" not in os.environ:
        pytest.skip("the dependency group `libraries` is not installed")
    expected = run_program(program, "official")
    assert len(expected) > 20
    assert run_program(program, "v1") == expected


def test_there_are_programs() -> None:
    """Each library has one, and none of them knows this package."""
    texts = [program.read_text() for program in PROGRAMS]
    assert all(any(f"from {name}" in text for text in texts) for name in NAMES)
    assert not any("replicate_async" in text for text in texts)
