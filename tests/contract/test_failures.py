"""Failures told apart: what kind they are, whether the same may succeed, and what trying again costs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from replicate_async import Client, exceptions
from replicate_async.testing import Emulator

from .conftest import rewrite
from .wire import Wire, answer, client_of

TABLE: tuple[tuple[str, str | None, str, bool], ...] = (
    ("Prediction failed for an unknown reason. It might have run out of memory? (E1000)", "E1000", "out_of_memory", False),
    ("Director: unexpected error handling prediction (E1000)", "E1000", "unknown", False),
    ("CUDA out of memory (E1001)", "E1001", "out_of_memory", False),
    ("CUDA out of memory. Tried to allocate 20.00 MiB", None, "out_of_memory", False),
    ("Service is temporarily unavailable due to high demand. Please try again later. (E003)", "E003", "capacity", True),
    ("Service is temporarily unavailable. Please try again later. (E004)", "E004", "capacity", True),
    ("The input or output was flagged as sensitive. Please try again with different inputs. (E005)", "E005", "content_policy", False),
    ("NSFW content detected. Try running it again, or try a different prompt.", None, "content_policy", False),
    ("The input was invalid. (E006)", "E006", "invalid_input", False),
    ("Webhook URL is not valid (E4875)", "E4875", "invalid_input", False),
    ("Timeout starting prediction (E6716)", "E6716", "timeout", True),
    ("Prediction timed out after 30 minutes", None, "timeout", False),
    ("Prediction interrupted; please retry (code: PA)", None, "interrupted", True),
    ("The worker was stopped (E8367)", "E8367", "interrupted", True),
    ("Cannot download the file (E8765)", "E8765", "interrupted", True),
    ("division by zero", None, "unknown", False),
    ("please try again", None, "unknown", False),
)  # fmt: skip
"""Error text; its code, its kind, and whether the same may succeed."""

AGAIN = "It may succeed if it is run, and paid for, again."
CHANGE = "Change the input"
ADVICE: dict[tuple[str, bool], str] = {
    ("unknown", False): "see prediction.logs",
    ("timeout", False): "see prediction.logs",
    ("out_of_memory", False): "Make the input smaller",
    ("content_policy", False): CHANGE,
    ("invalid_input", False): CHANGE,
    ("capacity", True): AGAIN,
    ("timeout", True): AGAIN,
    ("interrupted", True): AGAIN,
}
"""What the message says to do."""


@pytest.mark.parametrize(
    ("text", "code", "kind", "retryable"), TABLE, ids=[t[0][:30] for t in TABLE]
)
async def test_kinds(
    client: Client, text: str, code: str | None, kind: str, retryable: bool
) -> None:
    """A failed prediction tells its code, its kind and whether to try again, by what its text says."""
    with pytest.raises(exceptions.PredictionFailed) as caught:
        await client.run("emulator/failer", {"error": text})
    error = caught.value
    assert (error.code, error.kind, error.retryable) == (code, kind, retryable)
    assert text in str(error)
    assert error.prediction.status == "failed"
    assert ADVICE[kind, retryable] in str(error)


class Flaky:
    """A model that fails a number of times, and then succeeds."""

    def __init__(self, emulator: Emulator, *errors: str) -> None:
        self.errors = list(errors)
        emulator.add_model("acme/flaky", self.predict, official=True)

    def predict(self, text: str) -> str:
        """Return the text, or fail."""
        if self.errors:
            raise RuntimeError(self.errors.pop(0))
        return text


BUSY = "Service is temporarily unavailable due to high demand. (E003)"


async def test_off_by_default(client: Client, emulator: Emulator) -> None:
    """A failure is not tried again unless it was asked for: that would be a second bill."""
    Flaky(emulator, BUSY)
    with pytest.raises(exceptions.PredictionFailed) as caught:
        await client.run("acme/flaky", {"text": "a"})
    assert caught.value.retryable
    assert not getattr(caught.value, "__notes__", [])
    assert len(emulator.ledger.created()) == 1


async def test_tried_again(
    client: Client, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """`retry_failed` creates again until it succeeds, and the log tells what that has cost."""
    caplog.set_level(logging.INFO, "replicate_async")
    Flaky(emulator, BUSY, "Prediction interrupted; please retry (code: PA)")
    assert await client.run("acme/flaky", {"text": "a"}, retry_failed=2) == "a"
    first, second, third = (life.id for life in emulator.ledger.created())
    assert f"{first} of acme/flaky failed" in caplog.text
    assert (
        f"prediction {third} succeeded, after it had failed 2 times ({first}, {second}) at a cost of"
        in caplog.text
    )
    assert client.stats.created == 3
    assert client.stats.retried == 2


async def test_tried_in_vain(client: Client, emulator: Emulator) -> None:
    """When the last try fails, too, its error carries a note of all that was spent."""
    Flaky(emulator, *[BUSY] * 5)
    with pytest.raises(exceptions.PredictionFailed) as caught:
        await client.run("acme/flaky", {"text": "a"}, retry_failed=2)
    ids = [life.id for life in emulator.ledger.created()]
    assert len(ids) == 3
    assert caught.value.prediction.id == ids[2]
    (note,) = caught.value.__notes__
    assert f"failed 2 times ({ids[0]}, {ids[1]})" in note
    assert "predict seconds" in note


@pytest.mark.parametrize(
    "text", ["division by zero", "NSFW content detected", "CUDA out of memory"]
)
async def test_only_what_may_pass(client: Client, emulator: Emulator, text: str) -> None:
    """What would fail again, or is not known to pass, is not paid for twice, even if asked for."""
    Flaky(emulator, text)
    with pytest.raises(exceptions.PredictionFailed):
        await client.run("acme/flaky", {"text": "a"}, retry_failed=3)
    assert len(emulator.ledger.created()) == 1


async def test_a_failure_that_changes(client: Client, emulator: Emulator) -> None:
    """A second failure of another kind ends the trying."""
    Flaky(emulator, BUSY, "division by zero")
    with pytest.raises(exceptions.PredictionFailed, match="division by zero") as caught:
        await client.run("acme/flaky", {"text": "a"}, retry_failed=3)
    assert len(emulator.ledger.created()) == 2
    assert "failed once" in caught.value.__notes__[0]


@pytest.mark.parametrize("number", [-1, True, 1.5, "2"])
async def test_no_number(client: Client, emulator: Emulator, number: Any) -> None:
    """What is no number of times is refused before anything is sent."""
    with pytest.raises(exceptions.ArgumentError):
        await client.run("acme/flaky", {"text": "a"}, retry_failed=number)
    assert emulator.ledger.requests() == []


ERROR_OBJECTS: tuple[tuple[Any, str, str | None, str], ...] = (
    ({"code": "E1001", "message": "CUDA out of memory"}, "CUDA out of memory (E1001)", "E1001", "out_of_memory"),
    ({"code": "E1001", "message": "no memory (E1001)"}, "no memory (E1001)", "E1001", "out_of_memory"),
    ({"code": "QUEUE_FULL", "message": "no capacity"}, "no capacity (QUEUE_FULL)", "QUEUE_FULL", "capacity"),
    ({"code": 17, "message": "bad"}, "bad (17)", "17", "unknown"),
    ({"code": None, "message": "bad"}, "bad", None, "unknown"),
    ({"message": "bad"}, "bad", None, "unknown"),
    ({"detail": "bad", "code": "X"}, "bad (X)", "X", "unknown"),
    ({"code": "E1001"}, "E1001", "E1001", "out_of_memory"),
    ({"error": {"code": "X", "message": "bad"}}, "bad (X)", "X", "unknown"),
    ({"reason": "dust"}, '{"reason":"dust"}', None, "unknown"),
    (["a", {"b": 1}], '["a",{"b":1}]', None, "unknown"),
    (7, "7", None, "unknown"),
)  # fmt: skip
"""`error` as the API may send it; its text, its code, and its kind."""


@pytest.mark.parametrize(("sent", "text", "code", "kind"), ERROR_OBJECTS)
async def test_error_objects(
    emulator: Emulator, client: Client, sent: Any, text: str, code: str | None, kind: str
) -> None:
    """An `error` that is an object is kept, and its message and code are shown."""

    def change(prediction: Any) -> Any:
        return {**prediction, "error": sent} if prediction["status"] == "failed" else prediction

    for operation in ("predictions.create", "models.predictions.create", "predictions.get"):
        rewrite(emulator, operation, change)
    with pytest.raises(exceptions.PredictionFailed) as caught:
        await client.run("emulator/failer", {"error": "as text"})
    error = caught.value
    assert f"failed: {text}" in str(error)
    assert (error.code, error.kind, error.prediction.error) == (code, kind, text)
    assert text in repr(error.prediction)
    assert error.prediction.to_dict()["error"] == sent
    with pytest.raises(exceptions.PredictionFailed) as streamed:
        async for _ in client.stream("emulator/failer", {"error": "as text"}):
            pass
    assert text in str(streamed.value)
    assert streamed.value.code == code


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"code": "busy", "message": "come back"}}, "come back (busy)"),
        ({"code": "busy", "message": "come back"}, "come back (busy)"),
        ({"error": "come back"}, "come back"),
        ({"detail": "come back", "error": {"message": "no"}}, "come back"),
    ],
)
async def test_error_objects_of_statuses(body: Any, text: str) -> None:
    """An error status with such an object shows its message and code as its detail."""
    with Wire(answer(400, json.dumps(body).encode())) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.BadRequestError) as caught:
                await client.models.get("a/b")
    assert caught.value.detail == text
    assert str(caught.value).endswith(f"returned status 400: {text}")
