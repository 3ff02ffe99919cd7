"""The fixtures `replicate_emulator` and `replicate_emulator_session` of pytest.

They are loaded into every test run of everybody who has this package installed, so nothing is imported until a test
asks for one of them, and old versions of pytest must take it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .testing import Emulator

_OF_THE_REAL_API: Final = ("REPLICATE_API_PREFIX", "REPLICATE_WEBHOOK_SECRET")
"""Variables that may be set for the real API, and would lead clients past the emulator."""

_users: Final[set[object]] = set()
"""The tests for which an emulator runs, and the configuration if one runs for all of them."""


@pytest.fixture
def replicate_emulator(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Emulator]:
    """Run an `Emulator` in a thread, for one test. The environment points every client at it.

    The default clients, async and sync, are like new ones before and after the test, and so is whatever `use` made of
    them.
    """
    with _running(request.node, monkeypatch) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def replicate_emulator_session(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """Run one `Emulator` in a thread for all tests, otherwise as `replicate_emulator` does.

    With pytest-xdist, each worker has its own.
    """
    with pytest.MonkeyPatch.context() as patch, _running(request.config, patch) as emulator:
        yield emulator
    _reset()


@contextmanager
def _running(
    user: pytest.Item | pytest.Config, patch: pytest.MonkeyPatch
) -> Generator[Emulator, None, None]:
    from .testing import Emulator  # see above

    with Emulator() as emulator:
        for name in _OF_THE_REAL_API:
            patch.delenv(name, raising=False)
        for name, value in emulator.env.items():
            patch.setenv(name, value)
        _users.add(user)
        _reset()
        try:
            yield emulator
        finally:
            _reset()  # while there is a server that can cancel what still runs
            _users.discard(user)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Reset the default clients after each test that has an emulator, when the environment is as it was."""
    has_emulator = not _users.isdisjoint({item, item.config})
    yield
    if has_emulator:
        _reset()


def _reset() -> None:
    from ._jobs.context import reset_default_context  # see above
    from .sync.client import close  # see above

    reset_default_context()
    close()
