"""Hundreds of requests at a time, in one process and in two: each is paid for once, and a shutdown leaves nothing running."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from redis_server import Redis, needs_redis, redis_server

from replicate_async.testing import Emulator

from .conftest import SECONDS, Server

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGTERM, and no process groups"
)

EACH = 50

ANSWERS = {"quick": '"a"', "quick_via": '"a"', "quick_start": '"a"', "quick_sse": "event: done"}
"""By path, what the answer ends with or contains."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """Run a server of Redis."""
    with redis_server(tmp_path) as server:
        yield server


def check(emulator: Emulator, begun: list[Future[tuple[int, str]]]) -> None:
    """Check that each of the requests has its result, and that none was paid for twice."""
    found = Counter(
        (path, answer.result(SECONDS)[0], ANSWERS[path] in answer.result()[1])
        for path, answer in zip([*ANSWERS] * EACH, begun, strict=True)
    )
    assert found == {(path, 200, True): EACH for path in ANSWERS}
    assert len(emulator.ledger.finished()) == len(emulator.ledger.created()) == len(begun)


@pytest.mark.parametrize("name", ["uvicorn", "uvloop", "hypercorn", "django", "aiohttp"])
def test_one_process(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """In one process. The slow polls beneath deliveries would come too late."""
    with Server(name, emulator, tmp_path, "own") as server:
        check(emulator, server.begin(emulator, [*ANSWERS] * EACH))
        assert server.problems() == []


@needs_redis
@pytest.mark.parametrize(("name", "is_killed"), [("workers", False), ("gunicorn", True)])
def test_two_workers(
    name: str, is_killed: bool, emulator: Emulator, redis: Redis, tmp_path: Path
) -> None:
    """With two workers, deliveries reach those that wait in the other one; without Redis, the polls bring the results."""
    polls = {"POLL_INTERVAL": "3"} if is_killed else {}
    with Server(name, emulator, tmp_path, "own", REDIS=redis.url, **polls) as server:
        begun = server.begin(emulator, [*ANSWERS] * EACH)
        if is_killed:
            redis.kill()
        check(emulator, begun)
        assert server.problems() == []
        reported = re.findall("the backplane is not available: (.*)", server.log)
        if is_killed:
            assert reported
        else:  # On a busy machine an answer of Redis may come too late; the results have come without polls.
            assert all("TimeoutError" in each for each in reported), reported


@needs_redis
@pytest.mark.parametrize("name", ["uvicorn", "workers", "aiohttp"])
def test_terminated(name: str, emulator: Emulator, redis: Redis, tmp_path: Path) -> None:
    """SIGTERM with 200 requests in flight: all their predictions are cancelled."""
    with Server(name, emulator, tmp_path, "own", REDIS=redis.url) as server:
        server.begin(emulator, ["polled", "via", "start", "sse"] * EACH)
        server.terminate()
        server.wait()
        assert emulator.ledger.running() == []
        assert emulator.ledger.finished() == []
        assert len(emulator.ledger.created()) == 4 * EACH
        assert server.problems() == []
