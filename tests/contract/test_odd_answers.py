"""Answers that are odd in any field, through every door."""

from __future__ import annotations

import json as jsonlib
import pickle
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest

from replicate_async import Client, exceptions, sync
from replicate_async._codec import decode_json
from replicate_async.testing import Reply

from .faults import QUICK as SOON
from .faults import with_timings
from .wire import (
    PREDICTION,
    QUICK,
    RESET,
    TOKEN,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    json,
    problem,
)

Verb: TypeAlias = Callable[[Client], Awaitable[None]]

LONE = "a\ud800b"


@pytest.mark.parametrize("field", ["error", "model", "status", "urls"])
async def test_errors_can_be_printed(field: str) -> None:
    """The message of an error has the lone surrogates that the API or a model has sent as escapes."""
    odd = {"web": LONE} if field == "urls" else LONE
    failed = {**PREDICTION, "status": "failed", "output": None, field: odd}
    with Wire(json(failed, 201)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.PredictionFailed) as caught:
                await client.run("acme/greeter")
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        str(error).encode()
        assert field == "status" or r"a\ud800b" in str(error)


async def test_refusals_can_be_printed() -> None:
    """So has that of an error status."""
    fields = [{"field": LONE, "description": LONE}]

    def answers(_: Request) -> Step:
        return problem(422, title=LONE, detail=LONE, invalid_fields=fields)

    with Wire(answers) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.ValidationError) as caught:
                await client.models.get("acme/greeter")
    assert str(caught.value).encode().count(rb"a\ud800b") == 2
    assert caught.value.detail == LONE


LEVELS = 800 if sys.version_info < (3, 12) else 1100
"""Python 3.11 reads JSON of some 990 levels at most. Code that recurses with two calls a level fails at both depths."""


def nested(opening: str, core: str, closing: str, levels: int = LEVELS) -> str:
    """Return JSON that is nested deeper than Python can recurse."""
    return opening * levels + core + closing * levels


DEEP = {"lists": nested("[", "", "]"), "objects": nested('{"a":', "1", "}")}


@pytest.mark.parametrize("output", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("verb", ["run", "create", "map", "stream"])
def test_deep_outputs_in_the_facade(verb: str, output: str) -> None:
    """What is paid for comes through the facade at any depth."""
    with Wire(answer_with("output", output)) as wire, sync_client(wire) as client:
        if verb == "run":
            found = client.run("acme/greeter")
        elif verb == "create":
            found = client.predictions.create(model="acme/greeter", input={}).output
        elif verb == "map":
            [outcome] = client.map("acme/greeter", [{}]).collect()
            found = outcome.output
        else:
            with client.stream("acme/greeter") as events:
                found = next(event.output for event in events if event.event == "output")
        assert type(found) in (list, dict) or verb == "stream"


@pytest.mark.parametrize("key", ["error", "a"])
async def test_deep_errors(key: str) -> None:
    """An error object that is nested deeply is an error of the model."""
    error = nested(f'{{"{key}":', "1", "}")
    with Wire(answer_with("error", error, status="failed")) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.PredictionFailed) as caught:
                await client.run("acme/greeter")
    assert caught.value.prediction.error


def answer_with(field: str, text: str, **fields: Any) -> Reply:
    """Answer with a prediction whose field is this JSON."""
    body = jsonlib.dumps({**PREDICTION, **fields, field: "HERE"}).replace('"HERE"', text)
    return answer(201, body.encode())


def sync_client(wire: Wire) -> sync.Client:
    """Return a sync client of a wire."""
    return sync.Client(TOKEN, base_url=wire.url, retry=QUICK, rate_limit=False)


MEASURED = ("9" * 400, "9" * 4301, "1e999", "NaN", "-5", "true", "[]")


@pytest.mark.parametrize("measured", MEASURED, ids=range(len(MEASURED)))
async def test_measurements_that_are_none(measured: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log, nor a notebook, nor the costs of a retry fail because of them."""
    caplog.set_level("DEBUG", "replicate_async")
    metrics = f'{{"predict_time": {measured}, "total_time": {measured}}}'
    failed = {"status": "failed", "output": None, "error": "E8765"}
    answers = (
        answer_with("metrics", metrics, **failed),
        answer_with("metrics", metrics, id="second"),
    )
    with Wire(*answers) as wire:
        async with client_of(wire) as client:
            assert await client.run("acme/greeter", retry_failed=1) == PREDICTION["output"]
            found = client.predictions.from_dict({**PREDICTION, "metrics": decode_json(metrics)})
            assert PREDICTION["id"] in found._repr_html_()
    assert "succeeded, after it had failed once" in caplog.text


@pytest.mark.parametrize("year", ["0001", "9999"])
async def test_dates_of_answers_that_are_none(year: str) -> None:
    """A lost create is found, whatever the clock of a proxy says."""
    now = datetime.now(UTC).isoformat()
    made = {**PREDICTION, "created_at": now, "input": {}}
    page = {"results": [made], "next": None, "previous": None}

    def answers(request: Request) -> Step:
        if request.method == "POST":
            return RESET
        if request.path == "/v1/predictions":
            return json(page, headers={"Date": f"Mon, 01 Jan {year} 00:00:00 GMT"})
        return json(made)

    with Wire(answers) as wire:
        async with with_timings(client_of(wire, mark_creates=False), SOON) as client:
            with pytest.raises(exceptions.AmbiguousCreateError) as caught:
                await client.run("acme/greeter")
    assert caught.value.candidates == (PREDICTION["id"],)


async def by_run(client: Client) -> None:
    """Run."""
    await client.run("acme/greeter", wait=False)


async def by_stream(client: Client) -> None:
    """Stream."""
    _ = [event async for event in client.stream("acme/greeter")]


async def by_start(client: Client) -> None:
    """Start, and wait for the result."""
    async with client.start("acme/greeter") as run:
        await run.result()


async def by_map(client: Client) -> None:
    """Run on one input."""
    [outcome] = await client.map("acme/greeter", [{}]).collect()
    assert outcome.error is not None
    raise outcome.error


VERBS = (by_run, by_stream, by_start, by_map)


@pytest.mark.parametrize("id", ["", "a\0b", "../account", LONE], ids=ascii)
@pytest.mark.parametrize("verb", VERBS)
async def test_ids_that_cannot_be_sent(
    verb: Verb, id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A prediction that cannot be asked for is named, also in the log, which can be printed."""
    made = {**PREDICTION, "id": id, "status": "processing", "completed_at": None, "output": None}
    with Wire(json(made, 201)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.ContactLost) as caught:
                await verb(client)
            assert caught.value.prediction.id == id
    caplog.text.encode()
