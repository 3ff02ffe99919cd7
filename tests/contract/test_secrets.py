"""What a schema marks as secret, and passwords in URLs: neither is written down, nor shown."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import pickle
import sqlite3
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from replicate_async import Client, Prediction, Retry, __main__, exceptions
from replicate_async import sync as replicate_sync
from replicate_async.testing import Emulator, Request, log

from .conftest import rewrite

SECRET = "hunter2-is-a-secret"

MARKS: dict[str, dict[str, Any]] = {
    "cog": {"x-cog-secret": True},
    "password": {"format": "password"},
}


@pytest.fixture(params=MARKS)
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """Run an emulator with a model that takes a key."""
    with Emulator(rate_limits=False) as running:

        @running.model("acme/keyed", official=True)
        async def keyed(text: str, key: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            if text == "fail":
                raise RuntimeError("no")
            return text

        def mark(answer: Any) -> Any:
            schemas = answer["latest_version"]["openapi_schema"]["components"]["schemas"]
            schemas["Input"]["properties"]["key"].update(MARKS[request.param])
            return answer

        rewrite(running, "models.get", mark)
        yield running


INPUTS: list[dict[str, Any]] = [{"text": text, "key": SECRET} for text in ("a", "fail", "b")]


def _written(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_a_journal_and_records(
    client: Client,
    emulator: Emulator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the journal nor the records hold a secret; the model gets it, and the hash tells changed ones."""
    caplog.set_level(logging.DEBUG)
    journal, out = tmp_path / "run.db", tmp_path / "out"
    for _ in range(2):
        function = client.use("acme/keyed")
        outcomes = client.map(function, INPUTS, journal=journal, save_to=out, ordered=True)
        found = []
        async for outcome in outcomes:
            found.append(outcome)
            assert SECRET.encode() not in _written(tmp_path)
        assert [outcome.output for outcome in found] == ["a", None, "b"]
        assert [outcome.input for outcome in found] == INPUTS
        for outcome in found:
            assert SECRET not in repr(outcome) + repr(outcome.prediction) + str(outcome.error)
            assert "**********" in repr(outcome)
    assert SECRET.encode() not in _written(tmp_path)
    assert {life.input["key"] for life in emulator.ledger.created()} == {SECRET}
    assert len(emulator.ledger.created()) == 3
    record = json.loads((out / "000000-prediction.json").read_bytes())
    assert record["input"] == {"text": "a", "key": "**********"}
    with closing(sqlite3.connect(journal)) as database:
        rows = database.execute("SELECT input, record FROM items").fetchall()
    for sent, ended in rows:
        assert json.loads(sent)["key"] == json.loads(ended)["input"]["key"] == "**********"
    other = [{**each, "key": "another"} for each in INPUTS]
    with pytest.raises(exceptions.JournalError, match="input 0 is not what it was"):
        await client.map(client.use("acme/keyed"), other, journal=journal).collect()
    assert SECRET not in caplog.text


@pytest.mark.parametrize(("sync", "named"), [(False, True), (True, False)])
async def test_models_that_quote_secrets(
    client: Client, emulator: Emulator, tmp_path: Path, sync: bool, named: bool
) -> None:
    """Errors and logs in which a model quotes a secret are written without it."""

    @emulator.model("acme/keyed", official=True)
    def keyed(text: str, key: str) -> str:
        log(f"logged in with {key}\n")
        if text == "fail":
            raise RuntimeError(f"invalid key {key}, sorry")
        return text

    journal, out = tmp_path / "run.db", tmp_path / "out"
    options: Any = {"journal": journal, "save_to": out, "ordered": True}

    def in_turn() -> list[str]:
        with replicate_sync.Client(emulator.token, base_url=emulator.url) as twin:
            ref: Any = "acme/keyed" if named else twin.use("acme/keyed")
            found = twin.map(ref, INPUTS, **options).collect()
            return [str(outcome.error or outcome.output) for outcome in found]

    for _ in range(2):
        if sync:
            shown = await asyncio.to_thread(in_turn)
        else:
            ref: Any = "acme/keyed" if named else client.use("acme/keyed")
            found = await client.map(ref, INPUTS, **options).collect()
            shown = [str(outcome.error or outcome.output) for outcome in found]
        assert shown[0] == "a"
        assert "invalid key" in shown[1]
        assert SECRET.encode() not in _written(tmp_path)
    record = json.loads((out / "000001-prediction.json").read_bytes())
    assert record["error"] == "invalid key **********, sorry"
    assert record["logs"] == "logged in with **********\n"
    assert len(emulator.ledger.created()) == 3


async def test_what_is_picked_up(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A prediction that another run has created is recorded without secrets, too."""
    journal, out = tmp_path / "run.db", tmp_path / "out"
    inputs: list[dict[str, Any]] = [INPUTS[0], {**INPUTS[2], "seconds": 0.7}]
    async with client.map(client.use("acme/keyed"), inputs, journal=journal) as outcomes:
        await anext(outcomes)
    found = await client.map(
        client.use("acme/keyed"), inputs, journal=journal, save_to=out
    ).collect()
    assert [outcome.error for outcome in found] == [None, None]
    assert SECRET not in repr(found)
    assert SECRET.encode() not in _written(tmp_path)
    assert len(emulator.ledger.created()) == 2


async def test_functions(client: Client, emulator: Emulator) -> None:
    """Runs, predictions and errors of a function do not show a secret."""
    function = client.use("acme/keyed")
    with pytest.raises(exceptions.PredictionFailed) as caught:
        await function(text="fail", key=SECRET)
    assert SECRET not in repr(caught.value.prediction) + repr(caught.value) + str(caught.value)
    run = await function.create(text="a", key=SECRET)
    assert await run.output() == "a"
    prediction = await run.prediction() if callable(run.prediction) else run.prediction
    assert SECRET not in repr(run) + repr(prediction)
    assert prediction.input["key"] == SECRET
    with pytest.raises(exceptions.ArgumentTypeError) as wrong:
        await function(text="a", key=[SECRET])
    assert SECRET not in str(wrong.value)


async def test_objects_with_a_schema(client: Client) -> None:
    """Runs of a model or version that was fetched know its schema, and do not show a secret."""
    model = await client.models.get("acme/keyed")
    assert model.latest_version is not None
    for ref in (model, model.latest_version):
        with pytest.raises(exceptions.PredictionFailed) as caught:
            await client.run(ref, {"text": "fail", "key": SECRET})
        assert SECRET not in repr(caught.value.prediction)
        async with client.start(ref, {"text": "a", "key": SECRET}) as run:
            await run.result()
            assert SECRET not in repr(run.prediction)
        async with client.stream(ref, {"text": "a", "key": SECRET}) as events:
            async for _ in events:
                pass
            assert SECRET not in repr(events.prediction)


async def test_a_fallback_with_other_secrets(client: Client, emulator: Emulator) -> None:
    """The schema of a model does not tell what the model that takes its place has as secrets: no texts are shown."""

    def busy(text: str, seed: str, key: str = "") -> str:
        raise RuntimeError("Service is temporarily unavailable. (E004)")

    def other(text: str, seed: str, key: str = "") -> str:
        if text == "fail":
            raise RuntimeError("no")
        return text

    emulator.add_model("acme/busy", busy, official=True)
    emulator.add_model("acme/other", other, official=True)
    model = await client.models.get("acme/busy")
    async with client.start(model, {"text": "a", "seed": SECRET}, fallback=["acme/other"]) as run:
        assert await run.result() == "a"
    with pytest.raises(exceptions.PredictionFailed) as caught:
        await client.use("acme/busy", fallback=["acme/other"])(text="fail", seed=SECRET)
    for prediction in (run.prediction, caught.value.prediction):
        assert prediction is not None
        assert prediction.model == "acme/other"
        assert prediction.input["seed"] == SECRET
        assert SECRET not in repr(prediction)
    assert SECRET not in repr(run) + repr(caught.value)


def test_the_facade(emulator: Emulator, tmp_path: Path) -> None:
    """The sync facade keeps secrets, too."""
    with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
        found = client.map(
            client.use("acme/keyed"), INPUTS, journal=tmp_path / "run.db", save_to=tmp_path
        ).collect()
    assert SECRET not in repr(found)
    assert SECRET.encode() not in _written(tmp_path)


@pytest.mark.parametrize("text", ["a", "fail"])
def test_the_command_line(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
) -> None:
    """The JSON that `run` prints may end in the log of a job: it has no secrets."""
    for name, value in emulator.env.items():
        monkeypatch.setenv(name, value)
    code = __main__.main(["run", "acme/keyed", f"text={text}", f"key={SECRET}", "--json"])
    printed = capsys.readouterr()
    assert code == (0 if text == "a" else 1)
    assert SECRET not in printed.out + printed.err
    assert json.loads(printed.out)["input"] == {"text": text, "key": "**********"}
    assert [life.input["key"] for life in emulator.ledger.created()] == [SECRET]


@pytest.mark.skipif(os.name == "nt", reason="there are other permissions there")
async def test_a_journal_is_readable_by_its_owner(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """Nobody but its owner may read a journal, nor its log."""
    journal = tmp_path / "run.db"
    mask = os.umask(0)
    try:
        async with client.map(client.use("acme/keyed"), INPUTS, journal=journal) as outcomes:
            async for _ in outcomes:
                for path in tmp_path.glob("run.db*"):
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600


# -- Models by their names -------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True])
async def test_names(
    emulator: Emulator, tmp_path: Path, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """`map` of a name with a journal or saved records fetches the schema once, for what is to be kept secret."""
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {"journal": tmp_path / "run.db", "save_to": tmp_path / "out"}

    def run_sync() -> list[Any]:
        with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
            return client.map("acme/keyed", INPUTS, **options).collect()

    async def run() -> list[Any]:
        async with Client(emulator.token, base_url=emulator.url) as client:
            return await client.map("acme/keyed", INPUTS, **options).collect()

    for _ in range(2):
        found = await asyncio.to_thread(run_sync) if sync else await run()
        assert [outcome.output for outcome in found] == ["a", None, "b"]
        assert SECRET not in repr(found) + str(found[1].error)
    assert SECRET.encode() not in _written(tmp_path)
    assert SECRET not in caplog.text
    assert {life.input["key"] for life in emulator.ledger.created()} == {SECRET}
    assert len(emulator.ledger.created()) == 3
    assert len(emulator.ledger.requests(operation="models.get")) == 1  # none by the second run


@pytest.mark.parametrize("written", ["journal", "save_to"])
async def test_one_of_both(
    client: Client, emulator: Emulator, tmp_path: Path, written: str
) -> None:
    """A journal alone, and records alone, are without secrets, too."""
    options: dict[str, Any] = {written: tmp_path / "it"}
    await client.map("acme/keyed", INPUTS, **options).collect()
    assert SECRET.encode() not in _written(tmp_path)


@pytest.mark.parametrize("sync", [False, True])
async def test_schemas_that_cannot_be_fetched(
    emulator: Emulator, tmp_path: Path, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a schema, inputs with the usual names are kept secret, and a warning says so; the work goes on."""

    @emulator.model("acme/open", official=True)
    def open_(text: str, openai_api_key: str, hf_token: str, max_tokens: int) -> str:
        return text

    async def refuse(
        request: web.BaseRequest, record: Request, answer: Callable[[web.BaseRequest], Any]
    ) -> web.StreamResponse:
        if record.operation == "models.get":
            return web.json_response({"detail": "no"}, status=403)
        response: web.StreamResponse = await answer(request)
        return response

    emulator.middlewares.append(refuse)
    inputs: list[dict[str, Any]] = [
        {"text": "a", "openai_api_key": SECRET, "hf_token": SECRET, "max_tokens": 5}
    ]
    options: dict[str, Any] = {"journal": tmp_path / "run.db", "save_to": tmp_path / "out"}

    def run_sync() -> list[Any]:
        with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
            return client.map("acme/open", inputs, **options).collect()

    if sync:
        [found] = await asyncio.to_thread(run_sync)
    else:
        async with Client(emulator.token, base_url=emulator.url) as client:
            [found] = await client.map("acme/open", inputs, **options).collect()
    assert found.output == "a"
    assert SECRET not in repr(found)
    assert "'max_tokens': 5" in repr(found)
    assert SECRET.encode() not in _written(tmp_path)
    assert "recognised by their names" in caplog.text


async def test_what_is_shown_without_a_schema(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the schema is not known, no text of an input is shown: each may be a secret. Numbers are."""
    caplog.set_level(logging.DEBUG)
    values = {"text": "fail", "key": SECRET, "seconds": 0.25}
    shown: list[Any] = []
    for ref in ("acme/keyed", "acme/keyed:" + "0" * 64):
        with suppress(exceptions.ReplicateException):
            await client.run(ref, values)
    with pytest.raises(exceptions.PredictionFailed) as failed:
        await client.run("acme/keyed", values)
    shown += [failed.value.prediction, failed.value, vars(failed.value)]
    created = await client.predictions.create(model="acme/keyed", input=values)
    shown += [created, await client.predictions.get(created.id), await client.predictions.list()]
    shown += [pickle.loads(pickle.dumps(created)), copy.deepcopy(created)]
    async with client.start("acme/keyed", {**values, "text": "a"}) as run:
        await run.result()
    shown += [run, run.prediction]
    events = client.stream("acme/keyed", {**values, "text": "a"})
    async with events:
        async for _ in events:
            pass
    shown += [events, events.prediction]
    outcomes = await client.map(
        "acme/keyed", [values, {**values, "text": "a"}, {"key": SECRET}]
    ).collect()
    shown += [*outcomes, *(outcome.prediction for outcome in outcomes)]
    for each in shown:
        html = each._repr_html_() if hasattr(each, "_repr_html_") else ""
        assert SECRET not in f"{each!r}{each}{html}"
    assert "'key': <text of 19 characters>, 'seconds': 0.25" in repr(created)
    assert "&lt;text of 19 characters&gt;" in created._repr_html_()
    assert created.input == values
    assert SECRET not in caplog.text


def test_what_the_facade_shows_without_a_schema(emulator: Emulator) -> None:
    """The sync twins show no text of an input whose schema is not known, either."""
    with replicate_sync.Client(emulator.token, base_url=emulator.url) as client:
        created = client.predictions.create(model="acme/keyed", input=INPUTS[0])
        with pytest.raises(exceptions.PredictionFailed) as failed:
            client.run("acme/keyed", INPUTS[1])
        found = client.map("acme/keyed", INPUTS).collect()
        shown = [created, failed.value.prediction, found, client.predictions.list()]
    assert SECRET not in repr(shown) + created._repr_html_()


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.just(SECRET),
            lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        ),
    )
)
def test_no_text_is_shown(inputs: dict[str, Any]) -> None:
    """Wherever in an input a text is, a prediction whose schema is not known does not show it."""
    prediction = Prediction(id="a", input=inputs)
    assert SECRET not in repr(prediction) + prediction._repr_html_()


# -- Passwords in URLs -------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "base URL": {"base_url": "http://user:hunter2@127.0.0.1:1/x"},
    "proxy": {"base_url": "http://127.0.0.1:1", "proxy": "http://user:hunter2@127.0.0.1:1"},
    "broken proxy": {"base_url": "http://127.0.0.1:1", "proxy": "http://user:hunter2@[::1:1"},
    "quotes": {"base_url": "http://user:it's\"hunter2@127.0.0.1:1"},
    "spaces": {"base_url": "http://user:the hunter2@127.0.0.1:1"},
    "a slash": {"base_url": "http://user:a/hunter2@127.0.0.1:1"},
    "a question mark": {"base_url": "http://user:a?hunter2@127.0.0.1:1"},
    "at signs": {"base_url": "http://user:a@hunter2@127.0.0.1:1"},
    "no scheme": {"base_url": "user:hunter2@127.0.0.1:1"},
    "proxy with quotes": {
        "base_url": "http://127.0.0.1:1",
        "proxy": "http://user:it's\"hunter2@127.0.0.1:1",
    },
    "proxy with a slash": {
        "base_url": "http://127.0.0.1:1",
        "proxy": "http://user:a/hunter2@127.0.0.1:1",
    },
    "proxy with spaces": {
        "base_url": "http://127.0.0.1:1",
        "proxy": "user:the hunter2@127.0.0.1:1",
    },
    "odd proxy": {"base_url": "http://127.0.0.1:1", "proxy": "odd://user:hunter2@127.0.0.1:1"},
}


REFUSED = {
    "broken proxy",
    "odd proxy",
    "spaces",
    "a slash",
    "a question mark",
    "no scheme",
    "proxy with a slash",
    "proxy with spaces",
}
"""Settings that no client is made with, so that there is one error only."""


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("sync", [False, True])
async def test_passwords_in_urls(name: str, sync: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the client nor an error with its causes shows the password of a URL."""
    caplog.set_level(logging.DEBUG)
    options = {**SETTINGS[name], "retry": Retry(attempts=1)}

    def run_sync() -> None:
        with replicate_sync.Client("token", **options) as client:
            said.append(repr(client))
            client.accounts.current()

    said: list[str] = []
    try:
        if sync:
            await asyncio.to_thread(run_sync)
        else:
            async with Client("token", **options) as client:
                said.append(repr(client))
                with pytest.raises(exceptions.ReplicateException) as late:
                    await client.run("acme/x:" + "0" * 64, {}, timeout=0.3)
                said.append("".join(traceback.format_exception(late.value)))
                await client.accounts.current()
    except exceptions.ReplicateException as error:
        said.append("".join(traceback.format_exception(error)) + repr(vars(error)))
    assert len(said) >= 2 or name in REFUSED
    assert "hunter2" not in "".join(said) + caplog.text


def test_a_wrong_base_url() -> None:
    """The error about a base URL does not show its password."""
    with pytest.raises(exceptions.ArgumentError) as caught:
        Client("token", base_url="ftp://user:hunter2@host?x")
    assert "hunter2" not in str(caught.value)
