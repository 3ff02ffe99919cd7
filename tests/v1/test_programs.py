"""Small programs in the manner of public ones print the same with `replicate` 1.0.7 and with `v1`.

They are in the folder `programs`, and know nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


def test_there_are_programs() -> None:
    """There are more than thirty, and none of them imports this package."""
    assert len(PROGRAMS) > 30
    for program in PROGRAMS:
        text = program.read_text()
        assert "import replicate\n" in text or "from replicate." in text
        assert "replicate_async" not in text


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_it_prints_the_same(program: Path, run_program: Callable[[Path, str], str]) -> None:
    """A program prints the same with both."""
    expected = run_program(program, "official")
    assert len(expected) > 10
    assert run_program(program, "v1") == expected
