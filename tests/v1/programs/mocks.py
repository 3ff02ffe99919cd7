"""Tests of an application, with everything patched."""

from unittest.mock import AsyncMock, MagicMock, create_autospec, patch

import asyncio

import replicate
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.prediction import Prediction


def application(prompt: str) -> str:
    return "".join(replicate.run("emulator/writer", input={"prompt": prompt}))


with patch("replicate.run", return_value=["a", "b"]) as run:
    print(application("x"), run.call_args)
with patch("replicate.run", side_effect=ReplicateError(status=429, detail="slow down")):
    try:
        application("x")
    except ReplicateError as error:
        print(error.status, error.detail)
with patch.object(replicate.predictions, "create") as create:
    create.return_value = MagicMock(spec=Prediction, id="1", status="starting")
    print(replicate.predictions.create(version="v", input={}).status)
with patch(
    "replicate.predictions.get",
    return_value=Prediction(id="p", model="a/b", version="v", status="succeeded", output="done"),
):
    found = replicate.predictions.get("p")
    print(found.output, found.logs, found.metrics, found.progress)
with patch("replicate.client.Client.run", return_value="patched"):
    print(Client(api_token="x").run("a/b"))
with patch("replicate.models.get") as get:
    get.return_value.latest_version.id = "v9"
    print(replicate.models.get("a/b").latest_version.id)
with patch("replicate.async_run", new=AsyncMock(return_value="later")):
    print(asyncio.run(replicate.async_run("a/b")))
with patch("replicate.Client") as made:
    made.return_value.run.return_value = "of a mock"
    print(replicate.Client(api_token="x").run("a/b", input={}))
with patch.object(Prediction, "reload", autospec=True) as reload:
    Prediction(id="p", model="a/b", version="v", status="starting").reload()
    print(reload.call_count)
client = create_autospec(Client, instance=True)
client.run.return_value = 3
print(client.run("a/b", input={}))
failed = Prediction(id="p", model="a/b", version="v", status="failed", error="broken")
try:
    raise ModelError(failed)
except ModelError as error:
    print(error, error.prediction is failed)
with patch("replicate.stream", return_value=iter([])):
    print(list(replicate.stream("a/b", input={})))
