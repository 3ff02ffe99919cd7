"""What is seen from outside: spans, metrics, log records; and no token in any of them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from replicate_async import Client, RateLimit, exceptions
from replicate_async.testing import Emulator, Fault

from .conftest import HELLO, until
from .faults import world

EXPORTER = InMemorySpanExporter()
READER = InMemoryMetricReader()


@pytest.fixture(scope="module", autouse=True)
def sdk() -> None:
    """Set up OpenTelemetry as an app does, after the import of the package."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([READER]))


@pytest.fixture(autouse=True)
def no_spans() -> None:
    """Forget the spans of other tests."""
    EXPORTER.clear()


def spans() -> dict[str, ReadableSpan]:
    """Return the finished spans by name."""
    return {span.name: span for span in EXPORTER.get_finished_spans()}


def points() -> dict[str, list[Any]]:
    """Return the data of the metrics by name."""
    data = READER.get_metrics_data()
    found: dict[str, list[Any]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found.setdefault(metric.name, []).extend(metric.data.data_points)
    return found


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    """Return the attributes of a span."""
    assert span.attributes is not None
    return span.attributes


# -- Spans -------------------------------------------------------------------------------------


async def by_run(client: Client, ref: str, given: dict[str, Any]) -> Any:
    """Call `run`."""
    return await client.run(ref, given)


async def by_start(client: Client, ref: str, given: dict[str, Any]) -> Any:
    """Await the result of a run."""
    async with client.start(ref, given) as run:
        return await run.result()


async def by_map(client: Client, ref: str, given: dict[str, Any]) -> Any:
    """Run a fan-out of one."""
    return (await client.map(ref, [given]).collect())[0].result()


@pytest.mark.parametrize("way", [by_run, by_start, by_map])
async def test_one_span_for_each_run(client: Client, emulator: Emulator, way: Any) -> None:
    """It has the model, the version, the ID, the status and the times; its parts are children."""
    view = client.with_options(tags={"tenant": "a"}, poll_interval=0.02)
    await way(view, "emulator/sleeper", {"seconds": 0.1})
    [life] = emulator.ledger.created()
    found = spans()
    run = found["run emulator/sleeper"]
    facts = attributes(run)
    assert facts["gen_ai.request.model"] == "emulator/sleeper"
    assert facts["replicate.prediction.id"] == life.id
    assert facts["replicate.status"] == "succeeded"
    assert facts["replicate.version"]
    assert facts["replicate.predict_time"] > 0
    assert facts["replicate.tag.tenant"] == "a"
    assert run.status.status_code is trace.StatusCode.UNSET
    parents = {name: span.parent for name, span in found.items() if span is not run}
    assert set(parents) == {"create", "queue", "predict"}
    assert run.context is not None
    assert {parent and parent.span_id for parent in parents.values()} == {run.context.span_id}
    assert sum(span.name.startswith("run ") for span in EXPORTER.get_finished_spans()) == 1


async def test_create_and_download_are_parts(client: Client, tmp_path: Any) -> None:
    """The create and the download of `save_to` are child spans; of each run of a fan-out, too."""
    parts = {"create", "queue", "predict", "download", "run emulator/painter"}
    await client.run("emulator/painter", {"prompt": "a"}, save_to=tmp_path)
    assert set(spans()) == parts
    EXPORTER.clear()
    await client.map("emulator/painter", [{"prompt": "a"}], save_to=tmp_path).collect()
    assert set(spans()) == parts


@pytest.mark.parametrize("way", [by_run, by_start, by_map])
async def test_a_failed_model_marks_its_span(client: Client, emulator: Emulator, way: Any) -> None:
    """A failure is the status of the span, and its description."""

    def fail(text: str) -> str:
        raise RuntimeError(text)

    emulator.add_model("acme/failing", fail, official=True)
    with pytest.raises(exceptions.PredictionFailed):
        await way(client, "acme/failing", {"text": "no luck"})
    run = spans()["run acme/failing"]
    assert run.status.status_code is trace.StatusCode.ERROR
    assert attributes(run)["replicate.status"] == "failed"


async def test_an_abandoned_run_ends_its_span(client: Client, emulator: Emulator) -> None:
    """A run that is cancelled, and one that is left, end their spans."""
    task = asyncio.create_task(client.run("emulator/sleeper", {"seconds": 60}))
    await until(lambda: emulator.ledger.created())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attributes(spans()["run emulator/sleeper"])["replicate.status"] == "canceled"
    EXPORTER.clear()
    async with client.start("emulator/sleeper", {"seconds": 60}):
        pass
    assert attributes(spans()["run emulator/sleeper"])["replicate.status"] == "canceled"
    EXPORTER.clear()
    async with client.stream("emulator/writer", {"prompt": "a"}) as events:
        async for _ in events:
            pass
    assert len([name for name in spans() if name.startswith("run ")]) == 1


async def test_metrics(emulator: Emulator) -> None:
    """Creates, waits, refusals and durations are measured."""
    emulator.add_account("metrics", token="metrics")
    limit = RateLimit(creates=1, per=0.2)
    async with Client("metrics", base_url=emulator.url, rate_limit=limit) as client:
        for _ in range(3):
            await client.run(HELLO, {"text": "a"})
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Fault.THROTTLE, times=1, seconds=0.01, announce="nothing")
        await client.accounts.current()
    found = points()
    assert sum(point.value for point in found["replicate.creates"]) >= 3
    assert sum(point.count for point in found["replicate.rate_limit.wait"]) >= 2
    assert sum(point.value for point in found["replicate.throttled"]) >= 1
    assert sum(point.count for point in found["replicate.run.duration"]) >= 3


def test_it_is_optional() -> None:
    """Without OpenTelemetry everything works, and nothing is recorded."""
    code = """
import sys
sys.modules["opentelemetry"] = None
import asyncio
from replicate_async import Client
from replicate_async.testing import Emulator
async def main():
    async with Emulator() as emulator, Client(emulator.token, base_url=emulator.url) as client:
        await client.run("replicate/hello-world", {"text": "a"})
        async with client.start("replicate/hello-world", {"text": "a"}) as run:
            await run.result()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- Logs --------------------------------------------------------------------------------------


async def test_records_carry_facts(
    client: Client, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Records about predictions have `extra`; failures have their reason, streams their end."""
    caplog.set_level(logging.INFO, "replicate_async")

    def fail(text: str) -> str:
        raise RuntimeError(text)

    emulator.add_model("acme/failing", fail, official=True)
    view = client.with_options(tags={"tenant": "a"})
    await view.run(HELLO, {"text": "a"})
    with pytest.raises(exceptions.PredictionFailed):
        await view.run("acme/failing", {"text": "no luck"})
    async with view.stream("emulator/writer", {"prompt": "a"}) as events:
        async for _ in events:
            pass
    records: list[Any] = caplog.records
    good, bad, streamed = (life.id for life in emulator.ledger.created())
    for made, status in ((good, "succeeded"), (bad, "failed")):
        [record] = [each for each in records if f" {made} {status}" in each.getMessage()]
        assert (record.prediction, record.status, record.tags) == (made, status, {"tenant": "a"})
        assert record.seconds >= 0
        assert record.model
    assert any(f"{bad} failed: no luck" in each.getMessage() for each in records)
    assert any(f"stream of prediction {streamed} ended" in each.getMessage() for each in records)
    created = [each for each in records if "created" in each.getMessage()]
    assert [each.prediction for each in created] == [good, bad, streamed]


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("warning", False), ("", False)])
def test_log_by_environment(emulator: Emulator, level: str, shown: bool) -> None:
    """`REPLICATE_LOG=debug` shows the requests on stderr."""
    code = "import replicate_async.sync as r; r.run('replicate/hello-world', {'text': 'a'})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**emulator.env, "REPLICATE_LOG": level},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ("POST http" in done.stderr) is shown
    assert emulator.token not in done.stderr


def test_bad_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that does not exist is an error."""
    monkeypatch.setenv("REPLICATE_LOG", "loud")
    with pytest.raises(exceptions.ArgumentError, match="REPLICATE_LOG"):
        Client("t")


# -- Tokens ------------------------------------------------------------------------------------


def shown(value: Any, depth: int = 0) -> str:
    """Return a value as error reporters serialize it: containers item by item, the rest by `repr`."""
    if depth < 5 and isinstance(value, Mapping):
        return " ".join(f"{key!r}: {shown(item, depth + 1)}" for key, item in value.items())
    if depth < 5 and isinstance(value, (list, tuple, set)):
        return " ".join(shown(item, depth + 1) for item in value)
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 (as reporters do)
        return ""


def reported(error: BaseException | None) -> str:
    """Return what an error reporter sends of an exception: messages, and the locals of all frames."""
    parts: list[str] = []
    while error is not None:
        parts += ["".join(traceback.format_exception(error)), shown(vars(error))]
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if (
                "replicate_async" in frame.f_code.co_filename
                or "aiohttp" in frame.f_code.co_filename
            ):
                parts.append(shown(frame.f_locals))
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


TOKEN = "r8_" + "x7Qp" * 9


@pytest.mark.parametrize(
    "fault",
    [Fault.RESET_AT_ACCEPT, Fault.ERROR_PAGE, Fault.STALL_BEFORE_EXECUTION, Fault.GARBAGE, None],
)
async def test_reports_have_no_token(fault: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Exceptions, the locals of their frames, and log records show no token."""
    caplog.set_level(logging.DEBUG)
    async with world() as here:
        here.emulator.add_account("someone", token=TOKEN)
        async with here.client(api_token=TOKEN) as client:
            if fault is not None:
                here.emulator.wire.inject(fault)
            for call in (
                lambda: client.accounts.current(),
                lambda: client.files.create(b"a"),
                lambda: client.request("GET", "/nothing"),
            ):
                caught: Exception | None = None
                try:
                    await call()
                except exceptions.ReplicateException as error:
                    caught = error
                assert TOKEN not in reported(caught)
    assert TOKEN not in caplog.text
    for record in caplog.records:
        assert TOKEN not in shown(vars(record))
