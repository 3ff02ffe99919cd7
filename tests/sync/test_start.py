"""Runs that can be seen, without `await`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from replicate_async import exceptions
from replicate_async.sync import Client, Run
from replicate_async.testing import Emulator

from .conftest import until


def test_a_run_is_seen(client: Client, emulator: Emulator) -> None:
    """Updates and result come from the same prediction, which is not cancelled."""
    with client.start("emulator/sleeper", {"seconds": 0.3, "steps": 3}, timeout=60) as run:
        assert type(run) is Run
        assert run.prediction.id == run.id
        statuses = [update.status for update in run.updates()]
        output = run.result()
    assert statuses[-1] == "succeeded"
    assert output == run.prediction.output
    assert run.metrics["predict_time"] > 0
    assert emulator.ledger.cancelled() == []


def test_left_without_a_result(client: Client, emulator: Emulator) -> None:
    """Leaving the block cancels, also by an error."""
    with pytest.raises(ZeroDivisionError), client.start("emulator/sleeper", {"seconds": 600}):
        raise ZeroDivisionError
    assert len(emulator.ledger.cancelled()) == 1


def test_result_from_another_thread(client: Client) -> None:
    """Another thread may wait for the result while this one follows the updates."""
    with (
        ThreadPoolExecutor(1) as pool,
        client.start("emulator/sleeper", {"seconds": 0.3}) as run,
    ):
        result = pool.submit(run.result)
        for _ in run.updates():
            pass
        assert result.result(20) == run.result()


def test_functions(client: Client) -> None:
    """Functions have it; what they start is an input of others."""
    describe = client.use("emulator/describer")
    painter = client.use("emulator/painter")
    with painter.start(prompt="a red square", width=96, height=64) as run:
        assert "96" in describe(image=run)


def test_start_timeout_and_fallback(client: Client, emulator: Emulator) -> None:
    """They are those of the async client."""
    emulator.add_model("acme/cold", lambda text: text, official=True, setup=3600)
    emulator.add_model("acme/echo", lambda text: text, official=True)
    with pytest.raises(exceptions.StartTimeout):
        client.run("acme/cold", {"text": "a"}, start_timeout=0.2)
    assert client.run("acme/cold", {"text": "a"}, start_timeout=0.2, fallback=["acme/echo"]) == "a"
    assert client.stats.fell_back == 1
    assert len(emulator.ledger.cancelled()) == 2


def test_updates_cancel_if_asked(client: Client, emulator: Emulator) -> None:
    """`updates(on_abandon="cancel")` cancels when the loop is left; a late one is out of time."""
    prediction = client.predictions.create(model="emulator/sleeper", input={"seconds": 600})
    with prediction.updates(on_abandon="cancel") as updates:
        next(updates)
    until(emulator.ledger.cancelled)
    prediction = client.predictions.create(model="emulator/sleeper", input={"seconds": 600})
    with pytest.raises(exceptions.RunTimeout):
        list(prediction.updates(timeout=0.2, on_abandon="cancel"))
    assert len(emulator.ledger.cancelled()) == 2


def test_from_dict(client: Client) -> None:
    """Kept JSON becomes a live twin."""
    created = client.predictions.create(model="emulator/sleeper", input={"seconds": 0.1})
    found = client.predictions.from_dict(created.to_dict())
    assert type(found) is type(created)
    assert found.wait().raise_for_status().status == "succeeded"


def test_views_and_raw_access(client: Client) -> None:
    """A view counts for itself, and leaving it closes nothing; any endpoint can be reached."""
    with client.with_options(tags={"tenant": "a"}) as view:
        model = view.request("GET", "/models/replicate/hello-world")
        assert model["name"] == "hello-world"
        assert model.response.status == 200
    account = client.accounts.current()
    assert account.response is not None
    assert view.is_view
    assert client.rate_limit is not None
