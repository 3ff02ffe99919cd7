"""The pytest plugin: the fixture ``replicate_emulator``.

It is loaded into every test run of everybody who has this package installed, so it imports nothing
until a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._emulator import Emulator


@pytest.fixture
def replicate_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an `Emulator` in a thread; the environment points every client at it."""
    from ._emulator import Emulator

    with Emulator() as emulator:
        for name, value in emulator.env.items():
            monkeypatch.setenv(name, value)
        yield emulator
