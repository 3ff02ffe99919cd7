"""References as people paste them, everywhere that one is taken."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from replicate_async import Client
from replicate_async.sync import Client as SyncClient
from replicate_async.testing import Emulator

from .conftest import HELLO

NAME = "replicate/hello-world"

SPELLINGS = [
    f" {NAME}\n",
    f"{NAME}/",
    f"https://replicate.com/{NAME}",
    f"http://www.replicate.com/{NAME}/?input=http#api",
    f"https://replicate.com/{NAME}/readme",
]

VERSIONS = [f" {HELLO}\n", f"{NAME}:{HELLO}/", f"https://replicate.com/{NAME}/versions/{HELLO}?x=y"]


async def _streamed(client: Client, ref: Any) -> None:
    async for _ in client.stream(ref, {"text": "x"}):
        pass


TAKERS: list[Callable[[Client, Any], Awaitable[Any]]] = [
    lambda c, ref: c.run(ref, {"text": "x"}),
    lambda c, ref: c.use(ref)(text="x"),
    lambda c, ref: c.map(ref, [{"text": "x"}]).collect(),
    lambda c, ref: c.use(ref, streaming=True)(text="x").collect(),
    lambda c, ref: _streamed(c, ref),
]

OF_MODELS: list[Callable[[Client, Any], Awaitable[Any]]] = [
    lambda c, ref: c.models.get(ref),
    lambda c, ref: c.models.versions.list(ref),
    lambda c, ref: c.models.versions.get(ref, HELLO),
]


@pytest.mark.parametrize("spelling", [*SPELLINGS, *VERSIONS])
async def test_each_taker_understands(client: Client, emulator: Emulator, spelling: str) -> None:
    """What is pasted runs, and the right version of it."""
    for take in TAKERS:
        await take(client, spelling)
    created = emulator.ledger.created()
    assert len(created) == len(TAKERS)
    assert {one.version for one in created} == {HELLO}
    if HELLO not in spelling or "/" in spelling:
        for take in OF_MODELS:
            await take(client, spelling)


async def test_versions_are_judged_by_the_service(client: Client, emulator: Emulator) -> None:
    """The ID of a version in a form that is not known here is sent as it is."""
    await client.deployments.create(
        "d",
        model=SPELLINGS[2],
        version=VERSIONS[2],
        hardware="cpu",
        min_instances=0,
        max_instances=1,
    )
    for version in ("dp-4f1e0c", "hidden", "v2.0"):
        with pytest.raises(Exception, match="4"):
            await client.deployments.update("acme/d", version=version)
        sent = emulator.ledger.requests(operation="deployments.update")[-1]
        assert sent.json()["version"] == version
    for ref in ("dp-4f1e0c", "01hzx3v7k2m4n5p6q8r9s0t1u2"):
        with pytest.raises(Exception, match="422"):
            await client.run(ref, {"text": "x"})
        sent = emulator.ledger.requests(operation="predictions.create")[-1]
        assert sent.json()["version"] == ref


async def test_versions_of_any_id_run(client: Client, emulator: Emulator) -> None:
    """A version that the service has returned runs in each way, whatever its ID looks like."""

    @emulator.model("acme/any", any_version=True)
    def any_model(text: str) -> str:
        return text

    for name in ("dp-4f1e0c", "v2.0"):
        version = await client.models.versions.get("acme/any", name)
        assert version.id == name
        assert await version.predict(text="a") == "a"
        assert (await version.predictions.create({"text": "b"}, wait=True)).output == "b"
        assert await client.run(version, {"text": "c"}) == "c"
        assert await client.use(version)(text="d") == "d"
        assert {one.version for one in emulator.ledger.created()[-4:]} == {name}


async def test_the_command_line_understands(emulator: Emulator) -> None:
    """A URL can be pasted into the shell."""
    done = await anyio.run_process(
        [sys.executable, "-m", "replicate_async", "run", SPELLINGS[2], "text=x"],
        env=dict(emulator.env),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"hello x" in done.stdout


def test_the_facade_understands(emulator: Emulator) -> None:
    """The facade takes the same."""
    with SyncClient(emulator.token, base_url=emulator.url) as client:
        for spelling in (*SPELLINGS, *VERSIONS):
            assert client.run(spelling, {"text": "x"}) == "hello x"
