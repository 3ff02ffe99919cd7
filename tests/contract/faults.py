"""An emulator behind its wire, models to be run there, and clients that do not wait long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs

from replicate_async import Client, Retry, Timeout
from replicate_async._jobs.policy import Timings
from replicate_async.testing import Emulator, Fault

READ = 0.4
"""Seconds of silence after which the clients of these tests give a request up."""
QUICK = Timings(searches=(0.0, 0.02, 0.05))
"""For lists that do not lag."""

AT_ONCE = Retry(backoff=0.005, max_backoff=0.02)

EXECUTED = tuple(
    fault
    for fault in Fault
    if fault.executes and fault not in (Fault.DELAY, Fault.DRIP, Fault.WRONG_TYPE)
)
"""Faults after which a create has happened, though its answer may be lost."""
LOST = tuple(fault for fault in EXECUTED if fault is not Fault.CLOSE_AFTER_ANSWER)
"""Those of them without a usable answer."""
NOT_EXECUTED = (
    Fault.RESET_AT_ACCEPT,
    Fault.CLOSE_REUSED,
    Fault.RESET_BEFORE_READING,
    Fault.RESET_BEFORE_EXECUTION,
    Fault.STALL_BEFORE_EXECUTION,
    Fault.ERROR_PAGE,
)
"""Faults before which nothing has happened, though no client can know."""


async def echo(text: str) -> str:
    """Return the text."""
    return text


async def slow(text: str, seconds: float = 30) -> str:
    """Return the text after a while."""
    await asyncio.sleep(seconds)
    return text


def train(text: str) -> dict[str, str]:
    """Train on a text."""
    return {"weights": text}


@attrs.frozen
class World:
    """An emulator with one model of each kind."""

    emulator: Emulator
    version: str
    """A version of a model that is not official, `owner/name:id`."""
    trainable: str
    """A version that can be trained, `owner/name:id`."""
    timings: Timings = QUICK
    """Those of its clients."""

    def client(self, *, timings: Timings | None = None, **options: Any) -> Client:
        """Return a client that gives up soon and repeats at once."""
        settings: dict[str, Any] = {
            "base_url": self.emulator.url,
            "timeout": Timeout(read=READ),
            "retry": AT_ONCE,
            "rate_limit": False,
            **options,
        }
        client = Client(settings.pop("api_token", self.emulator.token), **settings)
        return with_timings(client, timings or self.timings)

    def made_of(self, text: str) -> list[str]:
        """Return the ids of what was created with a text."""
        return [life.id for life in self.emulator.ledger.lives() if life.input.get("text") == text]


def with_timings(client: Client, timings: Timings) -> Client:
    """Return a client after it was given other timings, for which users have no option."""
    client._context.timings = timings
    return client


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    """Run an emulator with a wire."""
    options = {"wire": True, "rate_limits": False, **options}
    emulator = Emulator(**options)
    emulator.add_model("acme/echo", echo, official=True)
    emulator.add_model("acme/slow", slow, official=True)
    version = emulator.add_model("acme/plain", echo)
    trainable = emulator.add_model("acme/base", echo, train=train)
    emulator.add_model("acme/trained")
    assert version is not None
    async with emulator:
        timings = Timings() if options.get("list_lag") else QUICK
        made = World(emulator, f"acme/plain:{version}", f"acme/base:{trainable}", timings)
        async with made.client() as client:
            await client.deployments.create(
                "echoes",
                model="acme/plain",
                version=version,
                hardware="cpu",
                min_instances=0,
                max_instances=1,
            )
        yield made


Create = Callable[[Client, World, str], Coroutine[Any, Any, Any]]


async def on_model(client: Client, world: World, text: str) -> Any:
    """Create with an official model."""
    return await client.predictions.create(model="acme/echo", input={"text": text})


async def on_version(client: Client, world: World, text: str) -> Any:
    """Create with a version."""
    return await client.predictions.create(world.version, {"text": text})


async def on_deployment(client: Client, world: World, text: str) -> Any:
    """Create with a deployment."""
    return await client.predictions.create(deployment="acme/echoes", input={"text": text})


async def on_training(client: Client, world: World, text: str) -> Any:
    """Create a training."""
    return await client.trainings.create(world.trainable, {"text": text}, "acme/trained")


CREATES: Mapping[str, tuple[Create, str]] = {
    "model": (on_model, "/v1/models/*/predictions"),
    "version": (on_version, "/v1/predictions"),
    "deployment": (on_deployment, "/v1/deployments/*/predictions"),
    "training": (on_training, "/v1/models/*/trainings"),
}
"""What creates, and the path of its request."""


async def until(fact: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: It does not come to hold.
    """
    end = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > end:
            raise TimeoutError("it did not come to hold")
        await anyio.sleep(0.002)


async def cancelled(task: asyncio.Task[Any], within: float) -> bool:
    """Cancel a task, and tell whether it ended as cancelled in time."""
    task.cancel()
    await asyncio.wait({task}, timeout=within)
    return task.cancelled()
