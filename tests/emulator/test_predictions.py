"""Predictions: both JSON styles, sync mode, deadlines, cancelling, validation, retention."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from replicate_async.testing import Clock, ConcatenateIterator, Emulator, OutputFile, log

from .conftest import HELLO, Api


class Gate:
    """Lets a model in another thread wait for the test."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        """Let it go on."""
        self._event.set()

    def wait(self) -> None:
        """Wait for the test, not for ever."""
        assert self._event.wait(20)


async def test_service_style(api: Api, emulator: Emulator) -> None:
    """A create leaves out what is not known yet, sorts the input, and has three fraction digits."""
    gate = Gate()

    @emulator.model("acme/wait")
    def wait(b: int, a: int) -> int:
        gate.wait()
        return a + b

    version = (await api("GET", "/models/acme/wait")).json()["latest_version"]["id"]
    body = {"version": version, "input": {"b": 1, "a": 2}, "webhook_events_filter": ["start"]}
    answer = await api("POST", "/predictions", json=body)
    created = answer.json()
    assert answer.status == 201
    assert list(created) == [
        "id",
        "model",
        "version",
        "input",
        "logs",
        "output",
        "data_removed",
        "error",
        "source",
        "status",
        "created_at",
        "urls",
        "webhook_events_filter",
    ]
    assert (created["status"], created["output"], created["logs"]) == ("starting", None, "")
    assert list(created["input"]) == ["a", "b"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z", created["created_at"])
    running = await api.until(created["id"], "processing")
    assert "started_at" in running
    assert "completed_at" not in running
    gate.open()
    done = await api.finished(created["id"])
    assert (done["output"], done["status"]) == (3, "succeeded")
    assert set(done["metrics"]) == {"predict_time", "total_time"}


async def test_django_style(api: Api, emulator: Emulator) -> None:
    """An older prediction comes in the other style: nulls, six digits, the input's own order."""

    @emulator.model("acme/wait")
    def wait(b: int, a: int) -> int:
        return a + b

    version = (await api("GET", "/models/acme/wait")).json()["latest_version"]["id"]
    created = await api.run(version, {"b": 1, "a": 2}, Prefer="wait")
    emulator.clock.advance(6)
    old = (await api("GET", f"/predictions/{created['id']}")).json()
    assert next(iter(old)) == "completed_at"
    assert old["logs"] is None
    assert list(old["input"]) == ["b", "a"]
    for key in ("created_at", "started_at", "completed_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", old[key])
    assert old["webhook"] is None
    listed = (await api("GET", "/predictions")).json()["results"][0]
    assert "logs" not in listed
    assert listed["created_at"] == old["created_at"]


async def test_cancel(api: Api, emulator: Emulator) -> None:
    """A cancel answers `canceled` at once, in Django style; a second one changes nothing."""
    gate = Gate()

    @emulator.model("acme/wait")
    def wait() -> int:
        gate.wait()
        return 1

    version = (await api("GET", "/models/acme/wait")).json()["latest_version"]["id"]
    created = await api.run(version, {})
    await api.until(created["id"], "processing")
    first = await api("POST", f"/predictions/{created['id']}/cancel")
    assert first.status == 200
    canceled = first.json()
    assert (canceled["status"], canceled["error"], canceled["output"]) == ("canceled", None, None)
    assert canceled["completed_at"] is not None
    gate.open()
    again = await api("POST", f"/predictions/{created['id']}/cancel")
    assert again.json() == canceled
    assert [life.id for life in emulator.ledger.cancelled()] == [created["id"]]


async def test_cancel_before_the_start(api: Api, emulator: Emulator) -> None:
    """A prediction cancelled in `starting` has a start and an end 3 µs apart, as recorded."""

    @emulator.model("acme/cold", setup=1000)
    def cold() -> int:
        return 1

    version = (await api("GET", "/models/acme/cold")).json()["latest_version"]["id"]
    created = await api.run(version, {})
    assert (await api("GET", f"/predictions/{created['id']}")).json()["status"] == "starting"
    answer = await api("POST", f"/predictions/{created['id']}/cancel")
    assert answer.json()["status"] == "canceled"
    assert answer.json()["metrics"]["predict_time"] == 0.000003


async def test_setup_passes_with_the_clock(api: Api, emulator: Emulator) -> None:
    """`setup` keeps a prediction in `starting` until the clock has moved on."""

    @emulator.model("acme/cold", setup=1000)
    def cold() -> int:
        return 1

    version = (await api("GET", "/models/acme/cold")).json()["latest_version"]["id"]
    created = await api.run(version, {})
    emulator.clock.advance(1000)
    assert (await api.finished(created["id"]))["output"] == 1


async def test_output_and_logs_grow(api: Api, emulator: Emulator) -> None:
    """While a generator runs, a GET shows the items and the logs so far."""
    gate = Gate()

    @emulator.model("acme/count")
    def count() -> Iterator[int]:
        log("one\n")
        yield 1
        yield 2
        gate.wait()
        log("two\n")
        yield 3

    version = (await api("GET", "/models/acme/count")).json()["latest_version"]["id"]
    created = await api.run(version, {})
    async with asyncio.timeout(20):
        while (now := (await api("GET", f"/predictions/{created['id']}")).json())["output"] != [
            1,
            2,
        ]:
            pass
    assert (now["status"], now["logs"]) == ("processing", "one\n")
    gate.open()
    done = await api.finished(created["id"])
    assert (done["output"], done["logs"]) == ([1, 2, 3], "one\ntwo\n")


async def test_sync_answer_as_recorded(api: Api) -> None:
    """A sync create answers `processing` with data URIs; a GET then gives the rest and URLs."""
    painting = {"prompt": "x", "width": 64, "height": 64}
    answer = await api(
        "POST",
        "/models/emulator/painter/predictions",
        json={"input": painting},
        headers={"Prefer": "wait=10"},
    )
    assert answer.status == 201
    assert answer.headers["preference-applied"] == "wait=10"
    sync = answer.json()
    assert (sync["status"], sync["version"], sync["logs"]) == ("processing", "hidden", "")
    assert "completed_at" not in sync
    assert "metrics" not in sync
    assert sync["output"][0].startswith("data:image/png;base64,")
    final = (await api("GET", f"/predictions/{sync['id']}")).json()
    assert final["status"] == "succeeded"
    assert final["output"][0].startswith(f"{api.emulator.files_url}/")


async def test_sync_answer_as_documented() -> None:
    """With `sync_answers="final"` a sync create answers `succeeded` with URLs."""
    with Emulator(sync_answers="final") as emulator:
        async with aiohttp.ClientSession() as session:
            api = Api(emulator, session)
            painting = {"prompt": "x", "width": 64, "height": 64}
            answer = await api(
                "POST",
                "/models/emulator/painter/predictions",
                json={"input": painting},
                headers={"Prefer": "wait"},
            )
            assert answer.json()["status"] == "succeeded"
            assert answer.json()["output"][0].startswith(emulator.files_url)


@pytest.mark.parametrize("style", ["starting", "actual"])
async def test_sync_wait_expires(style: Any) -> None:
    """When the wait expires the answer is a 202, and the prediction goes on."""
    gate = Gate()
    clock = Clock()
    with Emulator(clock=clock, expired_waits=style) as emulator:

        @emulator.model("acme/wait")
        def wait() -> Iterator[str]:
            yield "so far"
            clock.advance(10)
            gate.wait()

        async with aiohttp.ClientSession() as session:
            api = Api(emulator, session)
            version = (await api("GET", "/models/acme/wait")).json()["latest_version"]["id"]
            answer = await api(
                "POST",
                "/predictions",
                json={"version": version, "input": {}},
                headers={"Prefer": "wait=10"},
            )
            assert answer.status == 202
            unfinished = answer.json()
            if style == "starting":
                assert (unfinished["status"], unfinished["output"]) == ("starting", None)
            else:
                assert (unfinished["status"], unfinished["output"]) == ("processing", ["so far"])
            gate.open()
            assert (await api.finished(unfinished["id"]))["output"] == ["so far"]


async def test_sync_failure(api: Api) -> None:
    """A failure within the wait is a 201 with the error."""
    failer = (await api("GET", "/models/emulator/failer")).json()["latest_version"]["id"]
    failed = await api.run(failer, {"error": "No. (E1000)"}, Prefer="wait")
    assert (failed["status"], failed["error"]) == ("failed", "No. (E1000)")


@pytest.mark.parametrize("value", ["wait=0", "wait=100", "wait=x", "waiting"])
async def test_invalid_preference(api: Api, value: str) -> None:
    """A malformed `Prefer: wait` is a 422 and creates nothing."""
    body = {"version": HELLO, "input": {"text": "a"}}
    answer = await api("POST", "/predictions", json=body, headers={"Prefer": value})
    assert answer.status == 422
    assert api.emulator.ledger.created() == []


@pytest.mark.parametrize(
    ("value", "seconds"), [("30", 30), ("90s", 90), ("5m", 300), ("1h30m45s", 5445), ("5", 5)]
)
async def test_cancel_after(api: Api, value: str, seconds: int) -> None:
    """`Cancel-After` takes seconds or units; its deadline counts from creation."""
    prediction = await api.run(HELLO, {"text": "a"}, **{"Cancel-After": value})
    view = (await api("GET", "/predictions")).json()["results"][0]
    assert view["id"] == prediction["id"]
    assert (_time(view["deadline"]) - _time(view["created_at"])).total_seconds() == seconds


def _time(text: str) -> Any:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("value", ["4", "0s", "", "1d", "5 m", "25h", "-5"])
async def test_invalid_cancel_after(api: Api, value: str) -> None:
    """A deadline that is malformed, below 5 seconds or above a day is a 422."""
    body = {"version": HELLO, "input": {"text": "a"}}
    answer = await api("POST", "/predictions", json=body, headers={"Cancel-After": value})
    assert answer.status == 422


@pytest.mark.parametrize(("setup", "status"), [(1000.0, "aborted"), (0.0, "canceled")])
async def test_deadline(api: Api, emulator: Emulator, setup: float, status: str) -> None:
    """A deadline that passes before the start aborts; while running it cancels."""

    @emulator.model("acme/hang", setup=setup)
    async def hang() -> int:
        await asyncio.Event().wait()
        return 1

    version = (await api("GET", "/models/acme/hang")).json()["latest_version"]["id"]
    created = await api.run(version, {}, **{"Cancel-After": "10"})
    await api.until(created["id"], "starting" if setup else "processing")
    emulator.clock.advance(9)
    assert emulator.ledger.life(created["id"]).running
    emulator.clock.advance(1)
    ended = (await api("GET", f"/predictions/{created['id']}")).json()
    assert ended["status"] == status
    assert ("started_at" in ended) is (status == "canceled")


EVENTS = '"start", "output", "logs", "completed"'
BODY = {"version": HELLO, "input": {"text": "a"}}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"input": {}}, [("required", "", "version is required")]),
        ({"version": HELLO}, [("required", "", "input is required")]),
        (
            {**BODY, "model": "x"},
            [("additional_property_not_allowed", "", "Additional property model is not allowed")],
        ),
        ({**BODY, "webhook": "http://x.y"}, [("format", "webhook", "Not a valid HTTPS URL")]),
        (
            {**BODY, "webhook": None},
            [("invalid_type", "webhook", "Invalid type. Expected: string, given: null")],
        ),
        (
            {**BODY, "webhook_events_filter": ["done"]},
            [
                (
                    "enum",
                    "webhook_events_filter.0",
                    f"webhook_events_filter.0 must be one of the following: {EVENTS}",
                )
            ],
        ),
        ({**BODY, "input": {}}, [("required", "input", "text is required")]),
        (
            {**BODY, "input": {"text": 1}},
            [("invalid_type", "input.text", "Invalid type. Expected: string, given: integer")],
        ),
        ([], [("invalid_type", "", "Invalid type. Expected: object, given: array")]),
    ],
)
async def test_validation(api: Api, body: Any, fields: list[tuple[str, str, str]]) -> None:
    """Bodies and inputs are refused in the shape and the words of section 2.4."""
    answer = await api("POST", "/predictions", json=body)
    lines = [f"- {f}: {text}\n" if f else f"- {text}\n" for _, f, text in fields]
    assert answer.status == 422
    assert answer.json() == {
        "detail": "".join(lines),
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [{"type": t, "field": f, "description": d} for t, f, d in fields],
    }


async def test_stream_field_is_tolerated(api: Api) -> None:
    """The deprecated `stream` is accepted, an unknown key of the input ignored."""
    body = {"version": HELLO, "input": {"text": "a", "other": 1}, "stream": True}
    assert (await api("POST", "/predictions", json=body)).status == 201


@pytest.mark.parametrize(
    ("reference", "status", "version"),
    [
        (HELLO, 201, HELLO),
        (f"replicate/hello-world:{HELLO}", 201, HELLO),
        (f"emulator/writer:{HELLO}", 422, None),
        ("replicate/hello-world", 422, None),
        ("acme/none", 422, None),
        ("0" * 64, 422, None),
        ("emulator/writer", 201, "hidden"),
    ],
)
async def test_references(api: Api, reference: str, status: int, version: str | None) -> None:
    """`version` takes an id, `owner/name:id`, and `owner/name` of official models only."""
    body = {"version": reference, "input": {"text": "a", "prompt": "a", "max_tokens": 1}}
    answer = await api("POST", "/predictions", json=body)
    assert answer.status == status
    if status == 201:
        assert answer.json()["version"] == version
    else:
        assert answer.json()["title"] == "Invalid version or not permitted"


async def test_malformed_json(api: Api) -> None:
    """A body that is no JSON is a 400."""
    assert (await api("POST", "/predictions", data=b"{")).status == 400


async def test_data_is_removed_after_an_hour(api: Api, emulator: Emulator) -> None:
    """An hour after completion input, output, logs and files are gone, the record stays."""
    created = await api.run(
        (await api("GET", "/models/emulator/painter")).json()["latest_version"]["id"],
        {"prompt": "x", "width": 64, "height": 64},
        Prefer="wait",
    )
    url = (await api("GET", f"/predictions/{created['id']}")).json()["output"][0]
    emulator.clock.advance(3590)
    assert (await api("GET", url, token=None)).status == 200
    emulator.clock.advance(20)
    assert (await api("GET", url, token=None)).status == 404
    removed = (await api("GET", f"/predictions/{created['id']}")).json()
    assert removed["data_removed"] is True
    assert (removed["input"], removed["output"], removed["logs"]) == ({}, None, "")
    assert removed["status"] == "succeeded"
    model = (await api("GET", "/models/replicate/hello-world")).json()
    assert model["default_example"]["output"] == "hello Alice"


async def test_kinds_of_functions(api: Api, emulator: Emulator) -> None:
    """Plain and async functions and generators all run, and errors of each become the error."""

    async def tokens(n: int) -> AsyncIterator[str]:
        for number in range(n):
            yield str(number)
        raise ValueError("over")

    def text(n: int) -> ConcatenateIterator[str]:
        yield from "ab"[:n]

    async def add(n: int) -> int:
        return n + 1

    def fail(n: int) -> int:
        raise RuntimeError(f"no {n}")

    expected = {
        tokens: ("failed", ["0", "1"], "over"),
        text: ("succeeded", ["a", "b"], None),
        add: ("succeeded", 3, None),
        fail: ("failed", None, "no 2"),
    }
    for function, result in expected.items():
        version = emulator.add_model(f"acme/{function.__name__}", function)
        assert version is not None
        created = await api.run(version, {"n": 2})
        done = await api.finished(created["id"])
        assert (done["status"], done["output"], done["error"]) == result


async def test_many_run_at_once(emulator: Emulator, api: Api) -> None:
    """1000 predictions are in flight together and all finish."""
    together = asyncio.Event()
    waiting = 0
    emulator.set_rate_limits(None)

    @emulator.model("acme/meet")
    async def meet(number: int) -> int:
        nonlocal waiting
        waiting += 1
        if waiting == 1000:
            together.set()
        await together.wait()
        return number

    version = (await api("GET", "/models/acme/meet")).json()["latest_version"]["id"]
    created = await asyncio.gather(*(api.run(version, {"number": n}) for n in range(1000)))
    done = await asyncio.gather(*(api.finished(p["id"]) for p in created))
    assert [p["output"] for p in done] == list(range(1000))
    assert len(emulator.ledger.finished()) == 1000


async def test_input_files_of_all_kinds(api: Api, emulator: Emulator) -> None:
    """A model reads data URIs, uploads, output files and given URLs; others fail the prediction."""
    emulator.web_files["https://example.com/a.txt"] = b"web"

    @emulator.model("acme/read")
    def read(file: Path) -> str:
        return file.read_text()

    @emulator.model("acme/write")
    def write() -> OutputFile:
        return OutputFile(b"output", "o.txt")

    versions = {
        name: (await api("GET", f"/models/acme/{name}")).json()["latest_version"]["id"]
        for name in ("read", "write")
    }
    form = aiohttp.FormData()
    form.add_field("content", b"upload", filename="u.txt")
    uploaded = (await api("POST", "/files", data=form)).json()["urls"]["get"]
    made = (await api.finished((await api.run(versions["write"], {}))["id"]))["output"]
    urls = {
        "data:text/plain;base64,ZGF0YQ==": "data",
        "data:,plain%20text": "plain text",
        uploaded: "upload",
        made: "output",
        "https://example.com/a.txt": "web",
    }
    for url, content in urls.items():
        done = await api.finished((await api.run(versions["read"], {"file": url}))["id"])
        assert (done["output"], done["error"]) == (content, None)
    for url in (f"{uploaded}x", "https://example.com/b.txt", "http://192.0.2.1/x"):
        done = await api.finished((await api.run(versions["read"], {"file": url}))["id"])
        assert done["status"] == "failed", url


async def test_list_lag() -> None:
    """With `list_lag` a new prediction is missing from the list for a while."""
    with Emulator(list_lag=5) as emulator:
        async with aiohttp.ClientSession() as session:
            api = Api(emulator, session)
            created = await api.run(HELLO, {"text": "a"})
            assert (await api("GET", "/predictions")).json()["results"] == []
            emulator.clock.advance(5)
            results = (await api("GET", "/predictions")).json()["results"]
            assert [item["id"] for item in results] == [created["id"]]


async def test_output_that_is_no_json(api: Api, emulator: Emulator) -> None:
    """An output that JSON cannot express fails the prediction instead of the server."""
    version = emulator.add_model("acme/nan", lambda: float("nan"))
    assert version is not None
    done = await api.finished((await api.run(version, {}))["id"])
    assert (done["status"], done["output"]) == ("failed", None)
