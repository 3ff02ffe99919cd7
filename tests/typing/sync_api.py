"""The sync API as type checkers see it; never executed."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, assert_type

from replicate_async import exceptions, types
from replicate_async import sync as replicate
from replicate_async.sync import (
    Client,
    EventStream,
    FileOutput,
    Model,
    ModelFunction,
    Outcome,
    Outcomes,
    OutputStream,
    Page,
    Prediction,
    Run,
    SearchResults,
    Stream,
    StreamingFunction,
    Training,
    Version,
)
from replicate_async.sync.exceptions import StreamError


def verbs(client: Client) -> None:
    """Verbs, of the module and of a client."""
    assert_type(replicate.run("a/b", {"text": "x"}), Any)
    assert_type(client.run("a/b", input={"text": "x"}, wait=False, timeout=5), Any)
    assert_type(replicate.stream("a/b", {"text": "x"}), EventStream)
    for event in client.stream("a/b"):
        assert_type(event, types.ServerSentEvent)
    assert_type(client.search("x"), SearchResults)
    assert_type(client.search("x").models[0].model, Model)
    outcomes = client.map("a/b", [{"text": "x"}])
    assert_type(outcomes, Outcomes)
    assert_type(outcomes.in_flight, int)
    outcomes.stop()
    for outcome in outcomes:
        assert_type(outcome, Outcome)
        assert_type(outcome.prediction, Prediction | None)
        assert_type(outcome.error, Exception | None)
    assert_type(client.with_options(timeout=5), Client)
    assert_type(client.stats, types.Stats)
    with Client("token") as same:
        assert_type(same, Client)


def pages(client: Client) -> None:
    """Lists give pages."""
    page = client.models.list()
    assert_type(page, Page[Model])
    assert_type(page.results, list[Model])
    assert_type(page[0], Model)
    assert_type(page[:2], list[Model])
    assert_type(page.next, str | None)
    assert_type(page.next_page(), Page[Model] | None)
    assert_type(page.auto_paging_iter(), Stream[Model])
    assert_type(client.files.list(), Page[types.File])
    assert_type(client.paginate(client.models.list), Iterator[Page[Model]])
    assert_type(client.paginate(client.trainings.list()), Iterator[Page[Training]])
    for collections in replicate.paginate(replicate.collections.list):
        assert_type(collections, Page[types.CollectionSummary])
    assert_type(client.models.list(page.next), Page[Model])


def objects(client: Client) -> None:
    """Live objects, their fields and methods."""
    prediction = client.predictions.create("a" * 64, {"text": "x"})
    assert_type(prediction, Prediction)
    assert_type(prediction.wait(), Prediction)
    assert_type(prediction.reload().cancel().status, types.Status)
    assert_type(prediction.progress, types.Progress | None)
    with client.start("owner/name", {}, timeout=60) as run:
        assert_type(run, Run)
        assert_type(run.prediction, Prediction)
        assert_type(run.updates(), Stream[types.Update])
        assert_type(run.result(), Any)
    assert_type(prediction.updates(), Stream[types.Update])
    assert_type(prediction.stream(), EventStream)
    assert_type(prediction.to_dict(), dict[str, Any])
    assert_type(dict(prediction), dict[str, Any])
    model = client.models.get("a/b")
    assert_type(model.latest_version, Version | None)
    assert_type(model.versions.list(), Page[Version])
    assert_type(model.versions.get("x").predict(text="x"), Any)
    assert_type(client.hardware.list(), builtins.list[types.Hardware])
    assert_type(client.webhooks.default.secret().key, str)
    assert_type(client.webhooks.unwrap({}, b"", "x"), Prediction | Training)


def files(output: FileOutput) -> None:
    """Files, in both worlds."""
    assert_type(output.read(), bytes)
    assert_type(output.save("x"), Path)
    assert_type(output.open(), IO[bytes])
    assert_type(output.url, str)
    for chunk in output:
        assert_type(chunk, bytes)


async def files_in_a_loop(output: FileOutput) -> None:
    """Files, for callers with an event loop."""
    assert_type(await output.aread(), bytes)
    async for chunk in output:
        assert_type(chunk, bytes)


def functions(client: Client) -> None:
    """Models as functions."""
    painter = client.use("a/b")
    assert_type(painter, ModelFunction)
    assert_type(painter.signature, inspect.Signature)
    painter.check(prompt="x")
    assert_type(painter(prompt="x"), Any)
    assert_type(painter.create(prompt="x").prediction, Prediction)
    writer = replicate.use("a/b", streaming=True)
    assert_type(writer, StreamingFunction)
    assert_type(writer(prompt="x"), OutputStream)


def errors() -> None:
    """Exceptions carry twins; those of the async client can be caught, too."""
    try:
        replicate.run("a/b")
    except replicate.exceptions.OutputNotSaved as error:
        assert_type(error.failures, Sequence[exceptions.ReplicateException])
        assert_type(error.prediction.reload().logs, str)
    except replicate.exceptions.RunTimeout as error:
        assert_type(error.timeout, float)
        assert_type(error.prediction, Prediction | Training)
        as_builtin: TimeoutError = error
        print(as_builtin)
    except (StreamError, replicate.exceptions.PredictionCanceled) as error:
        assert_type(error.prediction.wait(), Prediction | Training)
        if isinstance(error, StreamError):
            assert_type(error.text, str)
    except replicate.ModelError as error:
        assert_type(error.prediction, Prediction | Training)
        assert_type(error.prediction.reload().logs, str)
        assert_type(error.prediction.cancel().logs, str)
        if isinstance(error.prediction, Prediction):
            assert_type(error.prediction.deployment, str | None)
        also: exceptions.ModelError = error
        print(also)
    except exceptions.PredictionFailed as error:
        assert_type(error.code, str | None)
    except exceptions.ReplicateError as error:
        assert_type(error.status, int)
    except replicate.exceptions.ArgumentError as error:
        assert_type(error.argument, str)


def errors_of_outcomes(client: Client) -> None:
    """The error of an outcome can be told apart as one that was raised."""
    for outcome in client.map("a/b", []):
        if isinstance(outcome.error, replicate.exceptions.ModelError):
            assert_type(outcome.error.prediction.reload(), Prediction | Training)


def mistakes(client: Client) -> None:
    """What must not pass."""
    client.run(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.runn("a/b")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    client.models.get()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.aclose()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
