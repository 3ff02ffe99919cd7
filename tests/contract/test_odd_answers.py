"""Answers that are odd in any field, through every door."""

from __future__ import annotations

import pickle

import pytest

from replicate_async import exceptions

from .wire import PREDICTION, Request, Step, Wire, client_of, json, problem

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
