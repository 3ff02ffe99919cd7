"""What an emulator forgets, so that it can run for long."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from replicate_async.testing import Emulator, Fault, OutputFile
from replicate_async.testing._retention import Retention, weight

from .conftest import HELLO, Api


def test_the_oldest_are_forgotten_first() -> None:
    """Records are counted by kind, and forgotten one by one beyond their number."""
    retention, forgotten = Retention(2, 100), list[str]()
    for kind, name in ("ax", "bx", "ay", "bz", "az"):
        retention.record(kind, lambda name=kind + name: forgotten.append(name))  # type: ignore[misc]
    assert forgotten == ["ax"]


def test_the_newest_content_is_kept() -> None:
    """Content is dropped until the rest fits, except for the newest."""
    retention, dropped = Retention(10, 100), list[int]()
    for number, size in enumerate((50, 0, 40, 20, 500, 1)):
        retention.content(size, lambda number=number: dropped.append(number))  # type: ignore[misc]
    assert dropped == [0, 2, 3, 4]


def test_weights() -> None:
    """The weight of a value is about that of its texts."""
    assert weight({"text": "x" * 1000, "more": ["y" * 500, 1, None, {"a": b"z"}]}) == 1526


async def created(api: Api, text: str, **more: Any) -> Any:
    """Create a prediction and wait for its end."""
    body = {"version": HELLO, "input": {"text": text}, **more}
    answer = await api("POST", "/predictions", json=body, headers={"Prefer": "wait"})
    assert answer.status == 201
    return answer.json()


async def test_old_predictions_are_forgotten() -> None:
    """Beyond `records`, a finished prediction is neither listed nor found, nor are its files and stream."""
    async with Emulator(records=3, wire=True) as emulator, aiohttp.ClientSession() as session:
        api = Api(emulator, session)

        @emulator.model("acme/draw", official=True)
        def draw(text: str) -> OutputFile:
            return OutputFile(text.encode(), "out.txt")

        first = await api(
            "POST",
            "/models/acme/draw/predictions",
            json={"input": {"text": "x"}, "webhook": "https://example.com/"},
        )
        url = (await api.finished(first.json()["id"]))["output"]
        assert (await api("GET", url)).body == b"x"
        later = [await created(api, str(number)) for number in range(3)]
        emulator.wire.inject(Fault.ERROR_PAGE, path="/v1/account")
        for _ in range(4):
            assert (await api("GET", "/account")).status == 502
        assert (await api("GET", first.json()["urls"]["get"])).status == 404
        assert (await api("GET", url)).status == 404
        assert (await api("GET", first.json()["urls"]["stream"], token=None)).status == 404
        listed = (await api("GET", "/predictions")).json()["results"]
        assert [each["id"] for each in listed] == [each["id"] for each in reversed(later)]
        assert [life.id for life in emulator.ledger.created()] == [each["id"] for each in later]
        assert len(emulator.ledger.requests()) == 3
        assert len(emulator.wire.log) == 3
        with pytest.raises(KeyError):
            emulator.ledger.life(first.json()["id"])


async def test_what_runs_is_not_forgotten() -> None:
    """A prediction counts from its end on."""
    async with Emulator(records=2) as emulator, aiohttp.ClientSession() as session:
        api = Api(emulator, session)
        version = (await api("GET", "/models/emulator/sleeper")).json()["latest_version"]["id"]
        body = {"version": version, "input": {"seconds": 100}}
        slow = await api("POST", "/predictions", json=body)
        for number in range(4):
            await created(api, str(number))
        assert (await api("GET", slow.json()["urls"]["get"])).json()["status"] == "processing"
        assert len(emulator.ledger.created()) == 3


async def test_large_content_is_dropped() -> None:
    """Beyond `memory`, finished predictions lose their data as they do after an hour, and stay listed."""
    async with Emulator(memory=100_000) as emulator, aiohttp.ClientSession() as session:
        api = Api(emulator, session)
        made = [await created(api, str(number) + "x" * 10_000) for number in range(10)]
        states = [(await api("GET", each["urls"]["get"])).json() for each in made]
        assert (states[0]["data_removed"], states[-1]["data_removed"]) == (True, False)
        assert states[0]["output"] is None
        assert states[-1]["output"].startswith("hello 9x")
        assert len((await api("GET", "/predictions")).json()["results"]) == 10
        posts = emulator.ledger.requests(method="POST")
        assert (posts[0].body, len(posts[-1].body)) == (b"", posts[-1].body_size)
        assert posts[0].body_size == posts[-1].body_size > 10_000
        assert emulator.ledger.life(made[0]["id"]).input == {}
        assert emulator.ledger.life(made[0]["id"]).did("fetched")
        # An hour later, nothing is left of the others either, and nothing is removed twice.
        emulator.clock.advance(3700)
        assert (await api("GET", made[-1]["urls"]["get"])).json()["data_removed"] is True


async def test_deliveries_and_uploads_are_forgotten(emulator: Emulator, api: Api) -> None:
    """The oldest deliveries go beyond their number; uploads go when they have expired."""

    async def upload(name: str) -> Any:
        form = aiohttp.FormData()
        form.add_field("content", b"x", filename=name)
        return (await api("POST", "/files", data=form)).json()

    old = await upload("a")
    emulator.clock.advance(25 * 3600)
    new = await upload("b")
    assert emulator.file_content(new["id"]) == b"x"
    with pytest.raises(KeyError):
        emulator.file_content(old["id"])
    async with Emulator(records=2) as other:
        there = Api(other, api.session)
        for number in range(4):
            made = await created(there, str(number), webhook="https://example.com/")
            while other.deliveries[-1:] == [] or other.deliveries[-1].prediction != made["id"]:
                await there("GET", "/account")
        assert len(other.deliveries) == 2


def test_bounds_are_positive() -> None:
    """Nothing can be remembered in no place."""
    with pytest.raises(ValueError, match="positive"):
        Emulator(records=0)
    with pytest.raises(ValueError, match="positive"):
        Emulator(memory=-1)
