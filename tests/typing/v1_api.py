"""The shapes of 1.x as type checkers see them; never executed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import replicate_async.v1 as replicate
from replicate_async.v1.client import Client
from replicate_async.v1.exceptions import ModelError, ReplicateError
from replicate_async.v1.helpers import FileOutput
from replicate_async.v1.model import Model
from replicate_async.v1.pagination import Page
from replicate_async.v1.prediction import Prediction
from replicate_async.v1.stream import ServerSentEvent
from replicate_async.v1.training import Training
from replicate_async.v1.version import Version


def verbs() -> None:
    """Verbs, of the module and of a client."""
    assert_type(replicate.run("a/b", input={"text": "x"}, wait=False), Any)
    assert_type(replicate.stream("a/b", input={"text": "x"}), Iterator[ServerSentEvent])
    assert_type(Client(api_token="x").run("a/b", webhook="https://x"), Any)
    replicate.default_client = Client(timeout=5)
    replicate.default_client.poll_interval = 0.1
    replicate.install()


async def async_verbs() -> None:
    """The `async_` functions."""
    assert_type(await replicate.async_run("a/b"), Any)
    assert_type(await replicate.async_stream("a/b"), AsyncIterator[ServerSentEvent])
    prediction = await replicate.predictions.async_create(version="v", input={})
    assert_type(prediction, Prediction)
    assert_type(await prediction.async_wait(), None)
    assert_type(await replicate.models.async_get("a/b"), Model)


def objects(version: Version) -> None:
    """Creates in their forms, and what objects have."""
    assert_type(replicate.predictions.create(version, {"a": Path("x")}), Prediction)
    assert_type(replicate.predictions.create("v", input={}), Prediction)
    assert_type(replicate.predictions.create(model="a/b", input={}, stream=True), Prediction)
    assert_type(replicate.predictions.create(deployment=("a", "b"), input={}), Prediction)
    training = replicate.trainings.create(version="a/b:c", input={}, destination="a/d")
    assert_type(training, Training)
    assert_type(replicate.trainings.create("a/b:c", {}, "a/d"), Training)
    prediction = Prediction(id="1", model="a/b", version="v", status="starting")
    assert_type(prediction.urls, dict[str, str] | None)
    assert_type(prediction.created_at, str | None)
    assert_type(prediction.dict(), dict[str, Any])
    assert_type(prediction.progress, Prediction.Progress | None)
    page = replicate.models.list()
    assert_type(page, Page[Model])
    assert_type(page[0].latest_version, Version | None)
    for each in replicate.paginate(replicate.models.list):
        assert_type(each, Page[Model])


def files(file: FileOutput) -> None:
    """A file of an output."""
    assert_type(file.read(), bytes)
    for chunk in file:
        assert_type(chunk, bytes)


def errors(error: ReplicateError, failure: ModelError) -> None:
    """Errors."""
    assert_type(error.status, int | None)
    assert_type(error.to_dict(), dict[str, Any])
    assert_type(failure.prediction, Any)
    raise ReplicateError(status=429, detail="slow down")
