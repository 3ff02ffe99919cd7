"""Exceptions: the tree, the messages, and pickling; objects that travel with them."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import replicate_async
import replicate_async.sync
from replicate_async import Client, FileOutput, Model, Prediction, Training, exceptions
from replicate_async._codec import structure
from replicate_async.exceptions import ReplicateException

from .test_codec import EXAMPLES, PREDICTION, TRAINING

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def default_client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Give unpickled objects a default client to belong to."""
    client = Client("t", base_url="http://127.0.0.1:9")
    monkeypatch.setattr("replicate_async._jobs.context._default", client._context)
    return client


def _prediction(**changes: Any) -> Prediction:
    client = Client("t", base_url="http://127.0.0.1:9")
    return client._context.bind(structure({**PREDICTION, **changes}, Prediction))


def _all() -> Iterator[tuple[ReplicateException, dict[str, Any], list[str]]]:
    """Yield one of each class, with its facts and what its message must tell."""
    e = exceptions
    yield ReplicateException("something"), {}, ["something"]
    facts: dict[str, Any]
    for code, cls in (
        (400, e.BadRequestError),
        (401, e.AuthenticationError),
        (402, e.PaymentRequiredError),
        (403, e.PermissionDeniedError),
        (404, e.NotFoundError),
        (409, e.ConflictError),
        (413, e.PayloadTooLargeError),
        (418, e.ReplicateError),
        (422, e.ValidationError),
        (429, e.RateLimitError),
        (500, e.ServerError),
        (503, e.ServerError),
        (599, e.ServerError),
    ):
        answered = e.ReplicateError.class_for(code)
        assert answered is cls
        facts = {
            "method": "POST",
            "url": "https://api.replicate.com/v1/models",
            "status": code,
            "title": "Validation failed",
            "detail": "The name is taken.\n",
            "type": "about:blank",
            "instance": "/x",
            "invalid_fields": ({"type": "required", "field": "input", "description": "d"},),
            "retry_after": 2.5,
            "headers": {"retry-after": "2.5"},
        }
        told = ["POST", "/v1/models", str(code), "Validation failed", "name is taken", "2.5 s"]
        yield answered(**facts), facts, told
    for status, model_error in (
        ("failed", e.PredictionFailed),
        ("canceled", e.PredictionCanceled),
        ("aborted", e.PredictionAborted),
    ):
        prediction = _prediction(status=status, error="CUDA out of memory (E1001)")
        told = [prediction.id, "acme/greeter", "out of memory", prediction.urls.web or "", status]
        yield model_error(prediction), {"prediction": prediction}, told
    prediction = _prediction(status="failed", error="CUDA out of memory (E1001)")
    facts = {"code": "E1001", "kind": "out_of_memory", "retryable": True}
    yield (
        e.PredictionFailed(prediction, **facts),
        {"prediction": prediction, **facts},
        [prediction.id, "failed", "E1001"],
    )
    yield (
        e.StreamError(prediction, "said", "text so far", **facts),
        {"prediction": prediction, "text": "text so far", **facts},
        [prediction.id, "failed", "out of memory"],
    )
    yield (
        e.StreamError(_prediction(error=None), "said so", ""),
        {"code": None, "kind": "unknown", "retryable": False},
        ["failed: said so"],
    )
    cause = e.FileExpired("https://f/x", 404)
    yield (
        e.OutputNotSaved(prediction, "no space left", [cause]),
        {"prediction": prediction},
        [prediction.id, "no space left", "one hour"],
    )
    yield (
        e.OutputRemoved(prediction),
        {"prediction": prediction, "retryable": True},
        [prediction.id, "has been deleted", "paid for again"],
    )
    yield (
        e.ContactLost(prediction, "reset"),
        {"prediction": prediction},
        [prediction.id, "reset", "may still be running"],
    )
    prediction = _prediction(status="processing", error=None)
    yield (
        e.RunTimeout(prediction, 2.5),
        {"prediction": prediction, "timeout": 2.5, "code": None, "retryable": False},
        [prediction.id, "2.5 s", "processing", "may still be running"],
    )
    yield (
        e.RunTimeout(prediction, 2.5, canceled=True),
        {"prediction": prediction},
        ["has been cancelled"],
    )
    yield (
        e.StartTimeout(prediction, 2.5, canceled=True),
        {"prediction": prediction, "timeout": 2.5},
        [prediction.id, "did not start within 2.5 s", "has been cancelled"],
    )
    client = Client("t", base_url="http://127.0.0.1:9")
    training = client._context.bind(structure({**TRAINING, "status": "processing"}, Training))
    yield (
        e.RunTimeout(training, 2.5),
        {"timeout": 2.5},
        [f"Training {training.id}", f"trainings.get({training.id!r})"],
    )
    yield e.QueueFull(5.0, 2.0), {"retry_after": 3.0}, ["not sent", "5.0 s", "2 s", "3.0 s"]
    get, url = "GET", "https://example.com/x"
    where = {"method": get, "url": url}
    seen = ["GET", "https://example.com/x"]
    yield e.TransportError(get, url, "fact"), where, [*seen, "fact"]
    yield e.ConnectError(get, url, "refused"), where, [*seen, "nothing was sent", "refused"]
    yield (
        e.CertificateError(get, url, "host.example", "expired", "Check the clock"),
        {**where, "host": "host.example"},
        [*seen, "nothing was sent", "host.example", "expired", "Check the clock"],
    )
    yield e.TransportTimeout(get, url, "silence"), where, [*seen, "timed out", "silence"]
    yield e.ConnectionLost(get, url, "reset"), where, [*seen, "lost", "reset"]
    yield (
        e.UnreadableAnswer(get, url, 200, b"<html>\xff" + b"x" * 1000, "not JSON"),
        {**where, "status": 200, "body": "<html>\ufffd" + "x" * 493},
        [*seen, "200", "not JSON", "<html>"],
    )
    yield e.AnswerTooLarge(get, url, 99), {**where, "limit": 99}, [*seen, "99 bytes", "Limits"]
    yield (
        e.RefusedRedirect(get, url, "http://elsewhere", "away"),
        {**where, "location": "http://elsewhere"},
        [*seen, "http://elsewhere", "away"],
    )
    yield (
        e.AmbiguousCreateError(get, url, "acme/greeter", "reset", NOW),
        {**where, "reference": "acme/greeter", "began": NOW},
        [*seen, "acme/greeter", "may be billed", "reset", "2026-01-02T03:04:00"],
    )
    yield (
        e.AmbiguousCreateError("POST", f"{url}/trainings", "acme/greeter:1", "reset", NOW),
        {"reference": "acme/greeter:1"},
        ["acme/greeter:1", "may be billed", "check trainings.list()"],
    )
    yield e.FileOutputError("https://f/x", "fact"), {"url": "https://f/x"}, ["https://f/x", "fact"]
    yield e.FileExpired("https://f/x", 404), {"url": "https://f/x"}, ["gone", "404", "one hour"]
    yield e.IncompleteFile("https://f/x", 5, 9), {"url": "https://f/x"}, ["5 of 9 bytes"]
    yield e.IncompleteFile("https://f/x", 5, None), {}, ["after 5 bytes"]
    yield (
        e.HostNotAllowed("https://f/x", "f", "abc"),
        {"url": "https://f/x", "host": "f", "prediction_id": "abc"},
        ["https://f/x", "'f'", "abc", "output_hosts"],
    )
    yield (
        e.IncompleteFile("https://f/x", 5, 9, seconds=60, prediction_id="abc"),
        {"prediction_id": "abc", "seconds": 60},
        ["abc", "5 of 9 bytes", "60 s", "Timeout(download="],
    )
    yield (
        e.FileTooLarge("https://f/x", 9, to="save", prediction_id="abc"),
        {"limit": 9, "prediction_id": "abc"},
        ["abc", "more than 9", "Limits(save="],
    )
    yield (
        e.FileTooLarge("https://f/x", 9, to="expand"),
        {"limit": 9},
        ["more than 9", "compresses", "Limits(file="],
    )
    yield (
        e.AnswerTooLarge(get, url, 99, "stream", prediction_id="abc"),
        {**where, "limit": 99, "prediction_id": "abc"},
        [*seen, "abc", "99 characters", "Limits(stream="],
    )
    yield (
        e.FileTooLarge("https://f/x", 9, 10),
        {"url": "https://f/x", "limit": 9},
        ["10 bytes", "9", "save()"],
    )
    yield (
        e.FileNotSaved("https://f/x", "/d/x", OSError(28, "No space left on device")),
        {"url": "https://f/x", "path": "/d/x", "errno": 28},
        ["/d/x", "No space left"],
    )
    yield (
        e.DirectoryNotWritable("/d", 28, "No space left on device"),
        {"path": "/d", "errno": 28},
        ["not created", "/d", "No space left", "nothing is billed"],
    )
    yield e.ArgumentError("wait", "fact"), {"argument": "wait"}, ["wait: fact"]
    yield e.ArgumentTypeError("wait", "fact"), {"argument": "wait"}, ["wait: fact"]
    yield (
        e.MissingToken(),
        {"argument": "api_token"},
        ["REPLICATE_API_TOKEN", "`replicate-async emulator`"],
    )
    yield (
        e.MissingDependency("tqdm", "progress"),
        {"package": "tqdm"},
        ["replicate-async[progress]"],
    )
    yield e.InvalidReference("ref", "x y", "a name"), {"argument": "ref"}, ["'x y'", "a name"]
    yield e.InvalidSignature("too old"), {"argument": "webhook"}, ["too old"]
    yield e.ClientClosed(), {}, ["closed"]
    yield e.RequestDisconnected(), {}, ["disconnected", "cancelled"]
    yield (
        e.JournalError("in_use", "/d/x.journal", "another process has it"),
        {"kind": "in_use", "path": "/d/x.journal"},
        ["/d/x.journal", "another process has it"],
    )
    yield e.StreamInUse(), {}, ["another task"]
    yield e.StreamAbandoned(None), {"prediction": None}, ["cancelled or interrupted"]
    for status, told in (
        ("processing", ["may still be running", f"predictions.get({prediction.id!r})"]),
        ("canceled", ["was cancelled"]),
        ("succeeded", ["has succeeded", f"predictions.get({prediction.id!r})"]),
    ):
        prediction = _prediction(status=status)
        yield e.StreamAbandoned(prediction), {"prediction": prediction}, [prediction.id, *told]
    yield e.LoopClosed("it is gone"), {}, ["it is gone"]
    yield e.WouldDeadlock(), {}, ["own event loop", "async client"]


def test_every_class_is_tested() -> None:
    """There is an instance of each public class, and `__all__` is complete."""
    classes = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and issubclass(value, ReplicateException)
    }
    assert classes == set(exceptions.__all__)
    made = {type(error).__name__ for error, _, _ in _all()}
    # `ModelError` is the branch itself.
    assert classes - made == {"ModelError"}


def test_messages_tell_the_facts() -> None:
    """Each class makes its message of its facts, and keeps them as attributes."""
    for error, facts, told in _all():
        for text in told:
            assert text in str(error), (type(error), text)
        for name, value in facts.items():
            assert getattr(error, name) == value, (type(error), name)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(protocol: int) -> None:
    """All exceptions pickle, with their facts and their prediction."""
    for error, facts, _ in _all():
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.args == error.args
        for name, value in facts.items():
            assert getattr(again, name) == value, (type(error), name)


def test_copying() -> None:
    """All exceptions can be copied, too."""
    for error, facts, _ in _all():
        for again in (copy.copy(error), copy.deepcopy(error)):
            assert type(again) is type(error)
            assert str(again) == str(error)
            assert {name: getattr(again, name) for name in facts} == facts


def test_the_tree_is_as_drawn() -> None:
    """The tree in the module's docstring is that of the classes."""
    drawing = (exceptions.__doc__ or "").partition("```text\n")[2].partition("```")[0]
    parents: list[str] = []
    drawn: dict[str, str] = {}
    for line in drawing.splitlines():
        found = re.match(r"([│├└─ ]*)(\w+)", line)
        assert found is not None
        depth = len(found[1]) // 4
        parents[depth:] = [found[2]]
        if depth:
            drawn[found[2]] = parents[depth - 1]
        if also := re.search(r"also (\w+)", line):
            assert issubclass(getattr(exceptions, found[2]), getattr(builtins, also[1]))
    actual = {
        name: getattr(exceptions, name).__bases__[0].__name__
        for name in exceptions.__all__
        if name != "ReplicateException"
    }
    assert drawn == actual


def test_builtin_relatives() -> None:
    """Errors about arguments are ValueError or TypeError, timeouts TimeoutError, closed RuntimeError."""
    e = exceptions
    assert issubclass(e.ArgumentError, ValueError)
    assert issubclass(e.ArgumentTypeError, TypeError)
    assert issubclass(e.RunTimeout, TimeoutError)
    assert issubclass(e.TransportTimeout, TimeoutError)
    assert issubclass(e.ClientClosed, RuntimeError)
    for cls in (e.AmbiguousCreateError, e.ConnectError):
        assert not issubclass(cls, TimeoutError)


def test_long_data_uris_are_shortened() -> None:
    """A message never carries a whole data URI."""
    uri = "data:image/png;base64," + "A" * 100_000
    error = exceptions.IncompleteFile(uri, 1, 2)
    assert len(str(error)) < 300
    assert len(repr(FileOutput(uri))) < 200


# -- Objects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "example"), EXAMPLES, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_objects_travel(
    kind: type[Any], example: dict[str, Any], how: str, default_client: Client
) -> None:
    """Objects of the API pickle and copy; what comes out is equal and can make requests."""
    made = default_client._context.bind(structure(copy.deepcopy(example), kind))
    again = {
        "pickle": lambda: pickle.loads(pickle.dumps(made)),
        "copy": lambda: copy.copy(made),
        "deepcopy": lambda: copy.deepcopy(made),
    }[how]()
    assert type(again) is kind
    assert again is not made
    assert again == made
    assert again.to_dict() == example
    if hasattr(again, "_context"):
        assert again._context is not None


def test_a_prediction_travels_with_its_output(default_client: Client) -> None:
    """After pickling, the output is files again, and the times are datetimes."""
    again = pickle.loads(pickle.dumps(_prediction()))
    assert again.output == [FileOutput("https://replicate.delivery/xezq/example/out-0.png")]
    assert again.created_at == _prediction().created_at
    assert again._context is default_client._context


def test_deepcopies_are_apart(default_client: Client) -> None:
    """A deep copy shares nothing with the original."""
    one = _prediction()
    other = copy.deepcopy(one)
    other.input["text"] = "changed"
    assert one.input["text"] == "Alice"
    assert one == _prediction()


def test_equality_is_that_of_what_came() -> None:
    """Objects are equal if the same came, whoever fetched them; they are no keys of dicts."""
    assert _prediction() == _prediction()
    assert _prediction() != _prediction(status="failed")
    assert _prediction() != structure(TRAINING, Training)
    assert _prediction() != PREDICTION
    with pytest.raises(TypeError):
        hash(_prediction())


def test_objects_without_a_client_say_so() -> None:
    """What was made without a client is an error of our hierarchy when it shall make requests."""
    model = structure({"owner": "a", "name": "b"}, Model)
    with pytest.raises(exceptions.ArgumentError, match="Model has no client"):
        _ = model.versions


def test_reprs_are_short_and_without_secrets() -> None:
    """A repr shows what identifies an object, and no secret."""
    from replicate_async.resources.webhooks import WebhookSigningSecret

    assert "wm41d8ffq9rgj0cjb2ysrvzve0" in repr(_prediction())
    secret = structure({"key": "whsec_C2FVsBQIhrscChlQIMV"}, WebhookSigningSecret)
    assert "C2FV" not in repr(secret)
    assert "r8_secret" not in repr(Client("r8_secret"))


def test_names_of_the_package() -> None:
    """Each exception is a name of the package and of the facade, too: `except replicate.RateLimitError`."""
    for name in exceptions.__all__:
        found = getattr(exceptions, name)
        assert getattr(replicate_async, name) is found
        assert getattr(replicate_async.sync, name) is found
        assert name in replicate_async.__all__
