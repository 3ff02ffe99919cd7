"""Streams: opened, read, resumed, polled where they cannot be resumed, and given up."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import pickle
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import replicate_async
from replicate_async import (
    Client,
    EventStream,
    FileOutput,
    Limits,
    Prediction,
    Timeout,
)
from replicate_async.exceptions import (
    AnswerTooLarge,
    ArgumentError,
    ArgumentTypeError,
    AuthenticationError,
    ContactLost,
    PredictionFailed,
    RunTimeout,
    StreamAbandoned,
    StreamError,
    StreamInUse,
    ValidationError,
)
from replicate_async.testing import ConcatenateIterator, Emulator, OutputFile, Reply
from replicate_async.types import ServerSentEvent

from .conftest import HELLO, until
from .wire import (
    RESET,
    STALL,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    head,
    json,
    problem,
    raw,
)

ID = "wm41d8ffq9rgj0cjb2ysrvzve0"
STREAM_HEAD = head(200, {"Content-Type": "text/event-stream; charset=utf-8", "Connection": "close"})


def sse(kind: str, data: str = "", id: str | None = None) -> bytes:
    """Return an event on the wire."""
    lines = [f"event: {kind}", *([] if id is None else [f"id: {id}"])]
    lines += [f"data: {line}" for line in data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


TOKENS = ["Soft wool", " drifts,\nand rests", "", "\n\n", " é", "."]
EVENTS = [
    b": hi\n\n",
    *(sse("output", token, f"1764670530:{n}") for n, token in enumerate(TOKENS)),
    sse("done", "{}", "1764670531:0"),
]
WHOLE = b"".join(EVENTS)
SCRIPT = [*TOKENS, "done {}"]
"""What a user sees of `WHOLE`."""


def streamed(*pieces: bytes, reset: bool = False, stall: bool = False) -> Step:
    """Answer with a stream, then close the connection, reset it, or fall silent."""
    return raw(STREAM_HEAD, *pieces, reset=reset, stall=stall)


def prediction(**changes: Any) -> dict[str, Any]:
    """Return a prediction."""
    return {
        "id": ID,
        "model": "acme/poet",
        "version": "hidden",
        "input": {},
        "logs": "",
        "output": None,
        "error": None,
        "status": "processing",
        "created_at": "2025-12-02T10:15:30.123Z",
        "urls": {},
        **changes,
    }


class Server:
    """A prediction whose streams follow a script; the last of it goes on for ever."""

    def __init__(self, *streams: Step, path: str = "/v1/streams/abc", **state: Any) -> None:
        self.state: dict[str, Any] = {"status": "processing", **state}
        self._streams = list(streams)
        self._path = path
        self._lock = threading.Lock()
        self.cancelled = threading.Event()
        self.wire = Wire(self.choose)

    def choose(self, request: Request) -> Step:
        """Choose what the server does with a request."""
        if request.path == self._path:
            with self._lock:
                return self._streams.pop(0) if len(self._streams) > 1 else self._streams[0]
        urls = {"stream": self.wire.url + self._path} if self._streams else {}
        if request.path.endswith("/cancel"):
            self.cancelled.set()
            return json(prediction(status="canceled", urls=urls))
        if request.method == "POST":
            return json(prediction(status="starting", urls=urls), 201)
        return json(prediction(urls=urls, **self.state))

    def asked(self, what: str) -> list[Request]:
        """Return the requests for a stream, a create, a cancel or a poll."""
        tests: dict[str, Callable[[Request], bool]] = {
            "stream": lambda r: r.path == self._path,
            "cancel": lambda r: r.path.endswith("/cancel"),
            "create": lambda r: r.method == "POST" and r.path.endswith("/predictions"),
            "poll": lambda r: r.method == "GET" and r.path == f"/v1/predictions/{ID}",
        }
        return [request for request in self.wire.requests if tests[what](request)]


@contextmanager
def serving(*streams: Step, **options: Any) -> Iterator[Server]:
    """Run a server."""
    server = Server(*streams, **options)
    with server.wire:
        yield server


def shown(event: ServerSentEvent) -> str:
    """Return an event as `SCRIPT` has it."""
    return event.data if event.event == "output" else f"{event.event} {event.data}"


async def drain(events: EventStream, into: list[str]) -> None:
    """Keep what comes before a failure."""
    async for event in events:
        into.append(shown(event))  # noqa: PERF401  (a comprehension would lose it)


async def read(server: Server, **options: Any) -> list[str]:
    """Stream a model of a server to the end."""
    async with client_of(server.wire, poll_interval=0.01, **options) as client:
        return [shown(event) async for event in client.stream("acme/poet", {"prompt": "wool"})]


# -- Whole streams -------------------------------------------------------------------------------


async def test_a_whole_stream() -> None:
    """Events come as they are, up to `done`; the request says what it wants."""
    with serving(streamed(WHOLE)) as server:
        assert await read(server) == SCRIPT
        (request,) = server.asked("stream")
        (create,) = server.asked("create")
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["cache-control"] == "no-store"
    assert request.headers["accept-encoding"] == "identity"
    assert "last-event-id" not in request.headers
    assert create.path == "/v1/models/acme/poet/predictions"
    assert create.json() == {"input": {"prompt": "wool"}}
    assert "prefer" not in create.headers
    assert server.asked("cancel") == server.asked("poll") == []


@pytest.mark.parametrize("cut", [*range(0, len(WHOLE), 23), len(WHOLE) - 1])
async def test_a_cut_anywhere(cut: int) -> None:
    """A connection that ends before `done` is resumed, and no event comes twice or not at all."""
    rest = len([event for event in _whole_events(WHOLE[:cut]) if b"id:" in event])
    events = [event for event in EVENTS if b"id:" in event]
    with serving(streamed(WHOLE[:cut]), streamed(*events[rest:])) as server:
        assert await read(server) == SCRIPT
        first, second = server.asked("stream")
    assert "last-event-id" not in first.headers
    if rest:
        assert f"id: {second.headers['last-event-id']}\n".encode() in events[rest - 1]
    else:
        assert "last-event-id" not in second.headers
    assert server.asked("poll") == []


def _whole_events(body: bytes) -> list[bytes]:
    return body.split(b"\n\n")[:-1]


@pytest.mark.parametrize(("cut", "reset"), [(1, False), (2, True), (4, False), (7, True)])
async def test_a_server_that_replays_everything(cut: int, reset: bool) -> None:
    """A server that ignores `Last-Event-ID` is no reason to yield an event twice."""
    first = streamed(*EVENTS[:cut], reset=reset)
    with serving(first, streamed(*EVENTS[: cut + 1]), streamed(WHOLE)) as server:
        assert await read(server) == SCRIPT


@pytest.mark.parametrize("cut", [1, 3, 6])
async def test_a_stream_without_ids(cut: int) -> None:
    """Without ids a stream replays from the start; what was seen is dropped."""
    events = [sse("output", token) for token in TOKENS] + [sse("done")]
    with serving(streamed(*events[:cut]), streamed(*events)) as server:
        assert await read(server) == [*TOKENS, "done "]
        assert all("last-event-id" not in request.headers for request in server.asked("stream"))


async def test_the_server_says_when_to_come_back() -> None:
    """`retry` is the pause before the next connection, and no longer than half a minute."""
    body = b"retry: 300\n\n" + b"".join(EVENTS[:2])
    with serving(streamed(body), streamed(*EVENTS[2:])) as server:
        began = asyncio.get_running_loop().time()
        assert await read(server) == SCRIPT
        assert 0.3 <= asyncio.get_running_loop().time() - began < 3


async def test_silence_has_a_limit_of_its_own() -> None:
    """A silent stream is connected anew after `Timeout.stream`, whatever `read` says."""
    with serving(streamed(*EVENTS[:3], stall=True), streamed(*EVENTS[3:])) as server:
        assert await read(server, timeout=Timeout(read=60, stream=0.2)) == SCRIPT
        assert len(server.asked("stream")) == 2
    with serving(streamed(*EVENTS[:2], stall=True)) as server:
        async with client_of(server.wire, timeout=Timeout(read=0.05)) as client:
            events = client.stream("acme/poet")
            assert str(await anext(events)) == TOKENS[0]
            with anyio.move_on_after(0.4) as waited:
                await anext(events)
            assert waited.cancelled_caught
            assert len(server.asked("stream")) == 1


@pytest.mark.parametrize(
    "ending", ["closed", "reset", "silent", "comes back late", "comes back empty"]
)
async def test_a_lost_done(ending: str) -> None:
    """A server that never sends `done`: the prediction is looked at, and the stream ends soon, with few requests."""
    events: list[bytes] = [*EVENTS[:-1]]
    options: dict[str, Any] = {}
    later: Step = streamed()
    if ending == "silent":
        later = streamed(stall=True)
        options["timeout"] = Timeout(stream=5.2)
    if ending == "comes back late":
        events.insert(0, b"retry: 30000\n\n")
    if ending == "comes back empty":
        events.insert(0, b"retry: 50\n\n")
        later = streamed(b": hi\n\n")
    first = streamed(*events, reset=ending == "reset")
    with serving(first, later, **DONE) as server:
        with anyio.fail_after(12):
            assert await read(server, **options) == SCRIPT
        assert len(server.wire.requests) <= 9
        assert server.asked("cancel") == []


@pytest.mark.parametrize("sign", [b": hi\n\n", b"event: ping\ndata: {}\n\n"])
async def test_a_lost_done_of_an_open_connection(sign: bytes) -> None:
    """Signs of life are no news: the prediction is looked at, and the stream ends."""
    lively = Reply(
        body=(STREAM_HEAD, *EVENTS[:-1], *[sign] * 200), pause=0.05, end="close", is_raw=True
    )
    with serving(lively, **DONE) as server, anyio.fail_after(10):
        found = await read(server, timeout=Timeout(stream=0.5))
    assert [item for item in found if item != "ping {}"] == SCRIPT
    assert len(server.asked("stream")) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_long_wait_for_a_stream(status: int) -> None:
    """A stream whose server asks to wait for long does not keep a result back that is there."""
    busy = problem(status, headers={"Retry-After": "300"})
    with serving(busy, **DONE) as server:
        with anyio.fail_after(5):
            assert "".join(await read(server)).startswith("".join(TOKENS))
        assert len(server.asked("stream")) == 1


async def test_many_cuts() -> None:
    """A connection that brings something new is no failure, however many there are."""
    with serving(*(streamed(event) for event in EVENTS)) as server:
        assert await read(server) == SCRIPT


# -- Where resuming is impossible ----------------------------------------------------------------

DONE = {"status": "succeeded", "output": TOKENS, "completed_at": "2025-12-02T10:15:33Z"}
REFUSALS = {
    "404": problem(404, detail="Not found."),
    "410": problem(410),
    "403": problem(403),
    "204": answer(204, b"", "text/event-stream"),
    "HTML": answer(200, b"<html>", "text/html"),
    "expired": streamed(b": hi\n\n:408: 408 Request Timeout\n\n"),
    "redirect to nowhere": answer(302, headers={"Location": "ftp://x/"}),
}


@pytest.mark.parametrize(
    ("refusal", "cut"), [*((refusal, 3) for refusal in REFUSALS), ("404", 1), ("expired", 7)]
)
async def test_the_missing_tail_is_polled(refusal: str, cut: int) -> None:
    """Where a stream cannot be resumed, what is missing comes from the prediction, and only that."""
    with serving(streamed(*EVENTS[:cut]), REFUSALS[refusal], **DONE) as server:
        assert await read(server) == SCRIPT
        assert len(server.asked("stream")) == 2
        assert server.asked("cancel") == []


@pytest.mark.parametrize("step", [RESET, problem(503), streamed(*EVENTS[:3])])
async def test_fruitless_connections_are_bounded(step: Step) -> None:
    """After five connections in a row without anything new, the prediction is polled."""
    first = streamed(b"retry: 10\n\n", *EVENTS[:3])
    with serving(first, step, **DONE) as server:
        assert await read(server) == SCRIPT
        assert 5 <= len(server.asked("stream")) <= 12  # GETs may be sent again by aiohttp, too


async def test_fruitless_connections_in_a_row() -> None:
    """A connection that brings something new has the count begin again."""
    first = streamed(b"retry: 1\n\n", *EVENTS[:3])
    empty = [streamed(b"retry: 1\n\n")] * 4
    with serving(
        first, *empty, streamed(EVENTS[3]), *empty, streamed(*EVENTS[4:]), **DONE
    ) as server:
        assert await read(server) == SCRIPT
        assert server.asked("poll") == []


async def test_nobody_listens() -> None:
    """A stream host that cannot be reached is no reason to lose the output."""
    with serving(streamed(), **DONE) as server:

        def elsewhere(request: Request) -> Step:
            urls = {"stream": "http://127.0.0.1:1/v1/streams/abc"}
            if request.method == "POST":
                return json(prediction(urls=urls), 201)
            return json(prediction(urls=urls, **DONE))

        server.wire.script = [elsewhere]
        assert await read(server) == SCRIPT


async def test_a_text_that_is_cut_in_another_way() -> None:
    """If the items of the prediction are not those of the events, their text decides."""
    with serving(
        streamed(*EVENTS[:3]), REFUSALS["404"], **{**DONE, "output": "".join(TOKENS)}
    ) as server:
        assert "".join(await read(server)) == "".join(TOKENS) + "done {}"


async def test_a_tail_that_grows() -> None:
    """While it is polled, items come as they appear, each once."""
    with serving(REFUSALS["404"]) as server:
        states: Iterator[dict[str, Any]] = iter(
            [
                {"output": None},
                {"output": TOKENS[:2]},
                {"output": TOKENS[:2]},
                {"output": TOKENS[:5]},
                DONE,
            ]
        )
        choose = server.choose

        def growing(request: Request) -> Step:
            if request.method == "GET" and request.path == f"/v1/predictions/{ID}":
                server.state = {"status": "processing", **next(states, DONE)}
            return choose(request)

        server.wire.script = [growing]
        assert await read(server) == SCRIPT
        assert len(server.asked("poll")) == 5


async def test_expired_and_removed() -> None:
    """If neither the stream nor the data is there any more, that is an error and no empty result."""
    state = {**DONE, "output": None, "data_removed": True}
    with (
        serving(REFUSALS["expired"], **state) as server,
        pytest.raises(ContactLost, match="deleted"),
    ):
        await read(server)


async def test_a_poll_that_is_refused() -> None:
    """What the API refuses while it is polled is an error with the prediction."""

    def choose(request: Request) -> Step:
        if request.method == "POST":
            return json(prediction(), 201)
        return problem(401, title="Unauthenticated")

    with Wire(choose) as wire:
        async with client_of(wire, poll_interval=0.01) as client:
            with pytest.raises(ContactLost) as caught:
                [event async for event in client.stream("acme/poet")]
    assert caught.value.prediction.id == ID
    assert isinstance(caught.value.__cause__, AuthenticationError)


# -- Ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [('{"detail":"out of words (E1001)"}', "out of words (E1001)"), ("plain (E1001)", "plain")],
)
async def test_errors(data: str, said: str) -> None:
    """`error` raises after all that came before it, with the prediction and the text so far."""
    body = [*EVENTS[:3], sse("error", data, "2:0"), sse("done", '{"reason":"error"}', "2:1")]
    state = {"status": "failed", "error": None, "logs": "thinking\n"}
    with serving(streamed(*body), **state) as server:
        async with client_of(server.wire) as client:
            events = client.stream("acme/poet")
            got: list[str] = []
            with pytest.raises(StreamError, match=re.escape(said)) as caught:
                await drain(events, got)
        assert server.asked("cancel") == []
    assert got == TOKENS[:2]
    error = caught.value
    assert isinstance(error, PredictionFailed)
    assert error.text == "".join(TOKENS[:2])
    assert error.prediction.id == ID
    assert error.prediction.logs == "thinking\n"
    assert error.code == "E1001"
    assert error.kind == "out_of_memory"
    assert events.reason == "error"
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.text, copy.prediction.id, str(copy)) == (error.text, ID, str(error))


async def test_an_error_in_one_chunk_with_everything() -> None:
    """An error hides nothing that came with it, and nothing comes after it."""
    body = b"".join([*EVENTS[:2], sse("error", "x"), sse("output", "late"), sse("done")])
    with serving(streamed(body)) as server, pytest.raises(StreamError, match="failed: x"):
        await read(server)


async def test_done_after_an_error_that_did_not_come() -> None:
    """A `done` that tells of an error is one: what there is of the output is not all of it."""
    state = {"status": "failed", "error": "out of words (E1001)"}
    body = (EVENTS[1], sse("done", '{"reason":"error"}', "9:0"), EVENTS[2])
    with serving(streamed(*body), **state) as server:
        async with client_of(server.wire) as client:
            events = client.stream("acme/poet")
            got: list[str] = []
            with pytest.raises(StreamError, match="out of words") as caught:
                await drain(events, got)
            assert events.reason == "error"
    assert got == TOKENS[:1]
    assert caught.value.text == TOKENS[0]
    assert caught.value.code == "E1001"


@pytest.mark.parametrize(("data", "reason"), [("{}", None), ('{"reason":"canceled"}', "canceled")])
async def test_the_reason_of_done(data: str, reason: str | None) -> None:
    """`done` is the last event; why it came can be told."""
    with serving(streamed(EVENTS[1], sse("done", data, "9:0"), EVENTS[2])) as server:
        async with client_of(server.wire) as client, client.stream("acme/poet") as events:
            assert events.reason is None
            got = [event async for event in events]
            assert [event.event for event in got] == ["output", "done"]
            assert str(got[-1]) == ""
            assert events.done == got[-1]
            assert events.reason == reason
            assert events.text == TOKENS[0]
            assert events.prediction is not None
            assert events.prediction.id == ID
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        assert server.asked("cancel") == []


async def test_done_without_data() -> None:
    """It is an end all the same."""
    with serving(streamed(EVENTS[1], b"event: done\n\n")) as server:
        assert await read(server) == [TOKENS[0], "done "]


async def test_unknown_events() -> None:
    """Events of any kind come through, and are no text."""
    body = [sse("logs", "thinking"), sse("metric", "3"), b"data: x\n\n", *EVENTS[1:]]
    with serving(streamed(*body)) as server:
        assert await read(server) == ["logs thinking", "metric 3", "message x", *SCRIPT]


async def test_an_event_that_is_too_large() -> None:
    """It is a clear error, after what came before; nobody reads on, so the prediction is cancelled."""
    body = [*EVENTS[:2], b"event: output\ndata: " + b"x" * 5000, b"\n\n"]
    with serving(streamed(*body)) as server:
        async with client_of(server.wire, limits=Limits(event=1000)) as client:
            events = client.stream("acme/poet")
            assert str(await anext(events)) == TOKENS[0]
            with pytest.raises(AnswerTooLarge, match=r"Limits\(event=") as caught:
                await anext(events)
        assert caught.value.limit == 1000
        assert len(server.asked("cancel")) == 1


async def test_a_line_of_megabytes() -> None:
    """Lines may be far longer than aiohttp's buffer."""
    big = "x" * 3_000_000
    with serving(streamed(sse("output", big, "1:0"), sse("done", "{}", "1:1"))) as server:
        assert await read(server) == [big, "done {}"]


# -- Given up ------------------------------------------------------------------------------------


async def _gone(server: Server) -> None:
    """Wait until the prediction was cancelled."""
    assert await asyncio.to_thread(server.cancelled.wait, 5)


async def test_leaving_the_loop() -> None:
    """Leaving it closes the connection and cancels the prediction, without being told to."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:
        async with client_of(server.wire) as client:
            async for event in client.stream("acme/poet"):
                assert str(event) == TOKENS[0]
                break
            await _gone(server)
        assert len(server.asked("cancel")) == 1


async def test_leaving_the_block() -> None:
    """With `async with`, it has been cancelled when the block is left."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:
        async with client_of(server.wire) as client:
            async with client.stream("acme/poet") as events:
                await anext(events)
            assert len(server.asked("cancel")) == 1
            await events.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(events)
            assert client.stats.cancelled == 1


async def test_an_exception_in_the_block() -> None:
    """Whatever leaves the block cancels the prediction, and goes on."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:
        async with client_of(server.wire) as client:

            async def fail() -> None:
                async with client.stream("acme/poet") as events:
                    async for _ in events:
                        raise KeyError

            with pytest.raises(KeyError):
                await fail()
            assert len(server.asked("cancel")) == 1


@pytest.mark.parametrize("native", [True, False])
async def test_a_cancelled_task(native: bool) -> None:
    """A task that is cancelled while it waits cancels the prediction; so does the end of its time."""
    with serving(streamed(*EVENTS[:2], stall=True)) as server:
        async with client_of(server.wire) as client:

            async def consume() -> None:
                async for _ in client.stream("acme/poet"):
                    reached.set()

            reached = anyio.Event()
            if native:
                task = asyncio.create_task(consume())
                await reached.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(consume)
                    await reached.wait()
                    group.cancel_scope.cancel()
            assert len(server.asked("cancel")) == 1


async def test_cancelled_while_it_is_created() -> None:
    """A create that has been sent and not answered is found in the list and cancelled."""
    begun = threading.Event()
    deadlines: list[dt.datetime] = []
    created = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)

    def choose(request: Request) -> Step:
        if request.path.endswith("/cancel"):
            return json(prediction(status="canceled"))
        if request.method == "POST":
            seconds = int(request.headers["cancel-after"].removesuffix("s"))
            deadlines.append(created + dt.timedelta(seconds=seconds))
            begun.set()
            return STALL
        listed = prediction(created_at=created.isoformat(), deadline=deadlines[0].isoformat())
        return json({"next": None, "previous": None, "results": [listed]})

    with Wire(choose) as wire:
        async with client_of(wire) as client:
            events = client.stream("acme/poet")

            async def consume() -> None:
                async for _ in events:
                    pass

            task = asyncio.create_task(consume())
            await asyncio.to_thread(begun.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(
                StreamAbandoned, match=f"Prediction {ID} of acme/poet was cancelled"
            ):
                await anext(events)
        assert [r.path for r in wire.requests if r.path.endswith("/cancel")] == [
            f"/v1/predictions/{ID}/cancel"
        ]


async def test_left_running() -> None:
    """With `on_abandon="leave"` it is not cancelled."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:
        async with (
            client_of(server.wire) as client,
            client.stream("acme/poet", on_abandon="leave") as events,
        ):
            await anext(events)
        assert server.asked("cancel") == []


async def test_a_prediction_of_ones_own_is_left_running() -> None:
    """`Prediction.stream()` created nothing, and cancels nothing."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:
        async with client_of(server.wire) as client:
            own = await client.predictions.create(model="acme/poet")
            async with own.stream() as events:
                assert events.prediction is own
                assert str(await anext(events)) == TOKENS[0]
            async for event in own.stream():
                assert str(event) == TOKENS[0]
                break
        assert len(server.asked("create")) == 1
        assert server.asked("cancel") == []


@pytest.mark.parametrize("step", [streamed(*EVENTS[:2], stall=True), STALL])
async def test_the_time_is_over(step: Step) -> None:
    """`timeout` bounds all of it, cancels the prediction and tells the server, too."""
    with serving(step) as server:
        async with client_of(server.wire) as client:
            with pytest.raises(RunTimeout) as caught:
                async for _ in client.stream("acme/poet", timeout=0.3):
                    pass
        assert caught.value.prediction.status == "canceled"
        assert len(server.asked("cancel")) == 1
        (create,) = server.asked("create")
    assert 5 <= int(create.headers["cancel-after"].removesuffix("s")) <= 8


async def test_the_time_is_over_while_it_is_polled() -> None:
    """Polling ends with the time, too."""
    with serving() as server:
        async with client_of(server.wire, poll_interval=0.01) as client:
            with pytest.raises(RunTimeout):
                async for _ in client.stream("acme/poet", timeout=0.2):
                    pass
        assert len(server.asked("cancel")) == 1


async def test_another_task_closes_it() -> None:
    """Closing it elsewhere ends the iteration of who waits; nobody is cancelled."""
    with serving(streamed(*EVENTS[:2], stall=True)) as server:
        async with client_of(server.wire) as client:
            events = client.stream("acme/poet")
            got: list[str] = []
            after = anyio.Event()

            async def consume() -> None:
                async for event in events:
                    got.append(str(event))
                    waiting.set()
                await anyio.lowlevel.checkpoint()
                after.set()

            waiting = anyio.Event()
            with anyio.fail_after(5):
                async with anyio.create_task_group() as group:
                    group.start_soon(consume)
                    await waiting.wait()
                    await anyio.wait_all_tasks_blocked()
                    await events.aclose()
            assert got == [TOKENS[0]]
            assert after.is_set()
        assert len(server.asked("cancel")) == 1


async def _timed_out(events: EventStream) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(events), 0.1)


@pytest.mark.parametrize("existing", [False, True])
async def test_after_a_wait_that_timed_out(existing: bool) -> None:
    """A stream that was given up in the middle is not taken for one that has ended."""
    with serving(streamed(*EVENTS[:2], stall=True)) as server:
        async with client_of(server.wire) as client:
            if existing:
                events = (await client.predictions.create(model="acme/poet")).stream()
            else:
                events = client.stream("acme/poet")
            assert str(await anext(events)) == TOKENS[0]
            await _timed_out(events)
            fate = "may still be running: follow it again" if existing else "was cancelled"
            for _ in range(2):
                with pytest.raises(StreamAbandoned, match=f"Prediction {ID} of acme/poet {fate}"):
                    await anext(events)
            with pytest.raises(StreamAbandoned) as caught:
                [item async for item in events]
            assert caught.value.prediction is events.prediction
            assert events.reason is None
            assert len(server.asked("cancel")) == (0 if existing else 1)
            await events.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(events)


async def test_given_up_and_left_running() -> None:
    """With `on_abandon="leave"`, the error says how to follow it again."""
    with serving(streamed(*EVENTS[:2], stall=True)) as server:
        async with client_of(server.wire) as client:
            events = client.stream("acme/poet", on_abandon="leave")
            await anext(events)
            await _timed_out(events)
            with pytest.raises(StreamAbandoned, match=rf"may still be running.*get\('{ID}'\)"):
                await anext(events)
        assert server.asked("cancel") == []


async def test_given_up_pieces(client: Client, emulator: Emulator) -> None:
    """The stream of a model function, likewise."""
    pieces = client.use("emulator/sleeper", streaming=True)(seconds=60)
    reading = asyncio.ensure_future(anext(pieces))
    await until(emulator.ledger.running)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(StreamAbandoned, match="was cancelled"):
        await pieces.collect()
    assert len(emulator.ledger.cancelled()) == 1


async def test_given_up_before_the_create() -> None:
    """If nothing was created, the error names no prediction."""
    async with Client("t", base_url="http://127.0.0.1:1") as client:
        events = client.stream("acme/poet")
        await _timed_out(events)
        with pytest.raises(StreamAbandoned, match=r"interrupted$") as caught:
            await anext(events)
        assert caught.value.prediction is None


async def test_two_consumers() -> None:
    """A stream has one reader: a second one is told so, and disturbs nothing."""
    with serving(streamed(*EVENTS[:2], stall=True), streamed(WHOLE)) as server:
        async with client_of(server.wire, timeout=Timeout(stream=0.5)) as client:
            events = client.stream("acme/poet")
            assert str(await anext(events)) == TOKENS[0]
            got: list[str] = []

            async def consume() -> None:
                got.extend([shown(event) async for event in events])

            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(StreamInUse):
                    await anext(events)
            assert got == SCRIPT[1:]


async def test_steps_in_different_tasks() -> None:
    """Each step may be another task's: nothing is held open between them."""
    with serving(streamed(WHOLE)) as server:
        async with client_of(server.wire) as client:
            events = client.stream("acme/poet", timeout=30)
            got: list[str] = []
            for _ in SCRIPT:

                async def step() -> None:
                    got.append(shown(await anext(events)))

                await asyncio.create_task(step())
            assert got == SCRIPT


async def test_dropped_in_a_cycle() -> None:
    """The garbage collector closes a stream that hangs in a cycle."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:
        async with client_of(server.wire) as client:
            cycle: list[Any] = [client.stream("acme/poet")]
            cycle.append(cycle)
            await anext(cycle[0])
            del cycle
            gc.collect()
            await _gone(server)


def test_the_loop_ends_after_a_break() -> None:
    """A program that leaves the loop and ends at once has stopped the costs, too."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:

        async def main() -> None:
            client = client_of(server.wire)
            async for _ in client.stream("acme/poet"):
                break

        asyncio.run(main(), debug=True)
        assert len(server.asked("cancel")) == 1


@pytest.mark.parametrize("kept", [True, False])
async def test_the_client_is_closed_after_a_break(kept: bool) -> None:
    """Closing the client stops the costs of streams that were not closed, dropped or not."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:
        held: list[EventStream] = []
        async with client_of(server.wire) as client:
            held.append(client.stream("acme/poet"))
            await anext(held[0])
            if not kept:
                held.clear()
        assert len(server.asked("cancel")) == 1
        for events in held:
            await events.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        assert len(server.asked("cancel")) == 1


_KEPT: list[EventStream] = []


def test_the_loop_ends_with_an_open_stream() -> None:
    """A stream that outlives its loop costs nothing any more, and leaves nothing open."""
    with serving(streamed(*EVENTS[:3], stall=True)) as server:

        async def main() -> None:
            _KEPT.append(client_of(server.wire).stream("acme/poet"))
            await anext(_KEPT[0])

        asyncio.run(main(), debug=True)
        assert len(server.asked("cancel")) == 1
        _KEPT.clear()


async def test_never_begun() -> None:
    """A stream that nobody reads sends nothing."""
    with serving(streamed(WHOLE)) as server:
        async with client_of(server.wire) as client:
            client.stream("acme/poet")
            async with client.stream("acme/poet"):
                pass
        assert server.wire.requests == []


# -- Arguments, options, token -------------------------------------------------------------------


async def test_bad_arguments() -> None:
    """What can be told at once is told by the call, without `await`."""
    async with Client("t", base_url="http://127.0.0.1:1") as client:
        with pytest.raises(ArgumentError, match="ref"):
            client.stream("no reference")
        with pytest.raises(ArgumentTypeError, match="ref"):
            client.stream(3)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="timeout"):
            client.stream("acme/poet", timeout=0)
        with pytest.raises(ArgumentError, match="on_abandon"):
            client.stream("acme/poet", on_abandon="stop")  # type: ignore[arg-type]


async def test_options_reach_the_wire() -> None:
    """Each option changes what is sent."""
    with serving(streamed(WHOLE)) as server:
        async with client_of(server.wire) as client:
            async for _ in client.stream(
                "acme/poet",
                {"a": b"x"},
                webhook="https://example.com/hook",
                webhook_events_filter=["completed"],
                cancel_after="1m",
                file_encoding_strategy="base64",
            ):
                pass
        (create,) = server.asked("create")
    assert 60 <= int(create.headers["cancel-after"].removesuffix("s")) < 66
    body = create.json()
    assert body["webhook"] == "https://example.com/hook"
    assert body["webhook_events_filter"] == ["completed"]
    assert body["input"]["a"].startswith("data:")


async def test_the_token_stays_with_the_api() -> None:
    """It goes to no stream: the URL is the server's, not one that we compose."""
    for same in (True, False):
        with Wire(streamed(WHOLE)) as elsewhere, serving(streamed(WHOLE)) as server:
            if not same:
                choose = server.choose

                def other(request: Request, choose: Callable[[Request], Step] = choose) -> Step:
                    if request.method == "POST":
                        urls = {"stream": f"{elsewhere.url}/v1/streams/x"}
                        return json(prediction(urls=urls), 201)
                    return choose(request)

                server.wire.script = [other]
            assert await read(server) == SCRIPT
            (request,) = server.asked("stream") if same else elsewhere.requests
            assert "authorization" not in request.headers


async def test_a_redirected_stream() -> None:
    """A redirect is followed, without the token."""
    with Wire(streamed(WHOLE)) as elsewhere:
        moved = answer(307, headers={"Location": f"{elsewhere.url}/v1/streams/x"})
        with serving(moved) as server:
            assert await read(server) == SCRIPT
            assert "authorization" not in server.asked("stream")[0].headers
    assert "authorization" not in elsewhere.requests[0].headers


# -- Files ---------------------------------------------------------------------------------------

FILES = ["https://replicate.delivery/x/out-0.webp", "data:text/plain;base64,aGk="]


@pytest.mark.parametrize("path", ["/v1/files/abc", "/v1/predictions/abc", "/v1/streams/abc"])
@pytest.mark.parametrize("wanted", [True, False])
async def test_files_in_events(path: str, wanted: bool) -> None:
    """The files of a file stream are `FileOutput`; `data` stays text; a text stream has none."""
    body = [
        *(sse("output", url, f"1:{n}") for n, url in enumerate(FILES)),
        sse("done", "{}", "2:0"),
    ]
    with serving(streamed(*body), path=path) as server:
        async with client_of(server.wire) as client:
            events = [
                event
                async for event in client.stream("acme/painter", use_file_output=wanted)
                if event.event == "output"
            ]
            assert [event.data for event in events] == [str(event) for event in events] == FILES
            files = wanted and path != "/v1/streams/abc"
            assert [type(event.output) for event in events] == [FileOutput if files else str] * 2
            if files:
                assert await events[1].output.read() == b"hi"


# -- Against the emulator ------------------------------------------------------------------------


async def test_emulated_text(client: Client, emulator: Emulator) -> None:
    """A model's tokens arrive as it makes them, and are its output."""
    gate = threading.Event()

    @emulator.model("acme/slow")
    def slow() -> ConcatenateIterator[str]:
        yield "first"
        assert gate.wait(10)
        yield " second"

    async with client.stream("acme/slow") as events:
        assert str(await anext(events)) == "first"
        gate.set()
        assert [str(event) async for event in events] == [" second", ""]
        assert events.prediction is not None
        assert (await events.prediction.wait()).output == ["first", " second"]
    assert emulator.ledger.leaks() == []


@pytest.mark.parametrize("streams", [True, False])
async def test_emulated_without_a_stream(client: Client, emulator: Emulator, streams: bool) -> None:
    """Whether a model can stream makes no difference to the events."""

    @emulator.model("acme/poet", streams=streams)
    def poet() -> ConcatenateIterator[str]:
        yield from TOKENS

    @emulator.model("acme/painter", streams=streams)
    def painter() -> list[OutputFile]:
        return [OutputFile(b"a", "a.txt"), OutputFile(b"b", "b.txt")]

    @emulator.model("acme/breaks", streams=streams)
    def breaks() -> ConcatenateIterator[str]:
        yield "x"
        raise ValueError("out of words")

    assert [shown(event) async for event in client.stream("acme/poet")] == SCRIPT
    files = [event.output async for event in client.stream("acme/painter")]
    assert [await file.read() for file in files[:-1]] == [b"a", b"b"]
    assert files[-1] is None
    with pytest.raises(StreamError, match="out of words") as caught:
        [event async for event in client.stream("acme/breaks")]
    assert caught.value.text == "x"


@pytest.mark.parametrize("streams", [True, False])
async def test_emulated_cancel(client: Client, emulator: Emulator, streams: bool) -> None:
    """A prediction that is cancelled while it is streamed ends with that reason."""

    @emulator.model("acme/hang", streams=streams)
    async def hang() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async with client.stream("acme/hang") as events:
        assert str(await anext(events)) == "a"
        assert events.prediction is not None
        await (await client.predictions.get(events.prediction.id)).cancel()
        assert [shown(event) async for event in events] == ['done {"reason":"canceled"}']
        assert events.reason == "canceled"


async def test_emulated_expiry(client: Client, emulator: Emulator) -> None:
    """A stream that has expired is an error, since the data have gone with it."""
    own = await client.predictions.create(model="emulator/writer", input={"prompt": "x"})
    await own.wait()
    emulator.clock.advance(3601)
    with pytest.raises(ContactLost, match="deleted"):
        [event async for event in own.stream()]


async def test_emulated_hang_up(client: Client, emulator: Emulator) -> None:
    """A server that hangs up on a silent model is asked again."""
    gate = threading.Event()

    @emulator.model("acme/slow")
    def slow() -> ConcatenateIterator[str]:
        yield "first"
        assert gate.wait(10)
        yield " second"

    async with client.stream("acme/slow") as events:
        assert str(await anext(events)) == "first"
        emulator.clock.advance(31)
        gate.set()
        assert [str(event) async for event in events] == [" second", ""]


async def test_a_finished_prediction(client: Client) -> None:
    """What has ended can be streamed from its beginning, as often as wanted."""
    own = await client.predictions.create(
        model="emulator/writer", input={"prompt": "x", "max_tokens": 5}
    )
    await own.wait()
    for _ in range(2):
        text = "".join([str(event) async for event in own.stream()])
        assert text == "".join(own.output)
    said = await client.predictions.create(HELLO, {"text": "Al"}, wait=True)
    assert [shown(e) async for e in said.stream()] == ["hello Al", "done {}"]


async def test_a_refused_create(client: Client, emulator: Emulator) -> None:
    """A create that is refused is its own error; nothing is cancelled."""
    with pytest.raises(ValidationError):
        [event async for event in client.stream("replicate/hello-world", {})]
    assert emulator.ledger.cancelled() == []


async def test_the_module_level_verb(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """`replicate_async.stream` is that of the default client."""
    for name, value in emulator.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("replicate_async._jobs.context._default", None)
    events = replicate_async.stream("replicate/hello-world", {"text": "Al"})
    assert [str(event) async for event in events] == ["hello Al", ""]
    prediction = events.prediction
    assert isinstance(prediction, Prediction)
    await replicate_async.aclose()
