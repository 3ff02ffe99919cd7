"""What can be pickled and copied, and what says that it cannot."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator, Callable

import pytest

import replicate_async
from replicate_async import Client
from replicate_async.exceptions import ArgumentTypeError
from replicate_async.testing import Emulator


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """Return a client of an emulator, and let unpickled objects belong to a default client of it."""
    async with Emulator() as emulator, Client(emulator.token, base_url=emulator.url) as client:
        monkeypatch.setattr("replicate_async._jobs.context._default", client._context)
        yield client


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
async def test_refused(client: Client, how: Callable[[object], object]) -> None:
    """What holds connections or a place in a stream can be neither pickled nor copied, and says so."""
    painter = client.use("emulator/painter")
    for thing in (
        client,
        client.models,
        client.models.list(),
        await client.models.list(),
        painter,
        await painter.create(prompt="x"),
        client.use("emulator/writer", streaming=True),
        client.stream("emulator/writer", {"prompt": "x"}),
        client.map("replicate/hello-world", []),
    ):
        name = type(thing).__name__
        with pytest.raises(ArgumentTypeError, match=f"^{name}: it cannot be pickled or copied; "):
            how(thing)


def _pickled(value: object) -> object:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("how", [_pickled, copy.copy, copy.deepcopy])
async def test_possible(client: Client, how: Callable[[object], object]) -> None:
    """Predictions, models, files and outcomes can."""
    prediction = await client.predictions.create(
        model="replicate/hello-world", input={"text": "Bob"}, wait=True
    )
    model = await client.models.get("emulator/painter")
    [image] = await client.run("emulator/painter", {"prompt": "x"})
    for thing in (prediction, model, image):
        assert how(thing) == thing
    async for outcome in client.map("replicate/hello-world", [{"text": "Bob"}]):
        again = how(outcome)
        assert isinstance(again, replicate_async.Outcome)
        assert again.output == "hello Bob"
