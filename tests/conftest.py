"""What all tests share."""

from __future__ import annotations

import os

import pytest

for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    # A proxy of this machine would stand between the tests and their servers on loopback.
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the package does."""
    return "asyncio"
