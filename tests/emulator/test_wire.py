"""The wire in front of the emulator: faults by the phase in which they happen."""

from __future__ import annotations

import asyncio
import gc
import io
import ssl
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from replicate_async.testing import Emulator, Fault, Reply, WireRequest

from .conftest import HELLO, Api

CREATE: dict[str, Any] = {"version": HELLO, "input": {"text": "Alice"}}
LOST = (aiohttp.ClientError, asyncio.TimeoutError)


@pytest.fixture(params=[False, True], ids=["http", "https"])
async def emulator(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
    """Run an emulator with a wire, and see that nothing is left of it."""
    async with Emulator(wire=True, tls=request.param) as running:
        yield running
    assert running.wire.connections == 0
    gc.collect()


@pytest.fixture
async def api(emulator: Emulator) -> AsyncIterator[Api]:
    """Return a client that waits half a second for bytes."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=0.5)
    connector = aiohttp.TCPConnector(ssl=trusting(emulator) or True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Api(emulator, session)


def trusting(emulator: Emulator) -> ssl.SSLContext | None:
    """Return a context for clients of the emulator, if it serves HTTPS."""
    if emulator.ca_file is None:
        return None
    return ssl.create_default_context(cafile=emulator.ca_file)


async def create(api: Api) -> Any:
    """Create a prediction."""
    return await api("POST", "/predictions", json=CREATE)


async def test_without_faults_it_is_transparent(emulator: Emulator, api: Api) -> None:
    """Requests, answers, links, files and streams pass unchanged, and connections are kept."""
    prediction = await api.run(HELLO, {"text": "Bob"}, Prefer="wait")
    assert prediction["output"] == "hello Bob"
    assert prediction["urls"]["get"].startswith(f"{emulator.url}/v1/predictions/")
    found = await api("GET", prediction["urls"]["get"])
    assert found.status == 200
    upload = aiohttp.FormData()
    upload.add_field("content", io.BytesIO(b"x" * 3_000_000), filename="x.bin")
    answer = await api("POST", "/files", data=upload)
    assert answer.status == 201, answer.body
    assert emulator.file_content(answer.json()["id"]) == b"x" * 3_000_000
    assert (await api("GET", emulator.download_url(answer.json()["id"]))).body == b"x" * 3_000_000
    stream = await api(
        "POST",
        "/models/emulator/writer/predictions",
        json={"input": {"prompt": "Hi", "max_tokens": 2}},
    )
    async with api.session.get(stream.json()["urls"]["stream"]) as events:
        assert b"event: output" in await events.content.readuntil(b"event: done")
    assert emulator.wire.connections == 2, "one for the API and one for the streams"
    assert emulator.wire.log == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault.CLOSE_REUSED,
        Fault.RESET_BEFORE_READING,
        Fault.RESET_BEFORE_EXECUTION,
        Fault.STALL_BEFORE_EXECUTION,
        Fault.RESET_AFTER_EXECUTION,
        Fault.CLOSE_AFTER_EXECUTION,
        Fault.STALL_AFTER_EXECUTION,
        Fault.GARBAGE,
        Fault.CUT_IN_HEAD,
        Fault.CUT_IN_BODY,
        Fault.RESET_IN_BODY,
        Fault.STALL_IN_BODY,
    ],
    ids=lambda fault: fault.name,
)
async def test_no_answer(emulator: Emulator, api: Api, fault: Fault) -> None:
    """The client gets an error of the network; the log and the ledger agree on what was executed."""
    assert (await api("GET", "/account")).status == 200
    emulator.wire.inject(fault, method="POST", path="/v1/predictions", times=1)
    with pytest.raises(LOST):
        await create(api)
    (happened,) = emulator.wire.log
    assert happened.fault is fault
    assert happened.executed == fault.executes
    assert happened.request is not None
    assert happened.request.json() == CREATE
    assert len(emulator.ledger.created()) == (1 if fault.executes else 0)
    assert (await create(api)).status == 201, "it happens once"


@pytest.mark.parametrize(
    "fault",
    [Fault.RESET_BEFORE_EXECUTION, Fault.RESET_AFTER_EXECUTION, Fault.RESET_IN_BODY],
    ids=lambda fault: fault.name,
)
async def test_resets_are_resets(emulator: Emulator, fault: Fault) -> None:
    """Whoever reads from a connection that was reset gets RST, not an orderly end."""
    emulator.wire.inject(fault)
    reader, writer = await _ask_for_account(emulator)
    with pytest.raises(ConnectionResetError):
        await reader.read(-1)
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("fault", [Fault.ERROR_PAGE, Fault.HTML, Fault.GARBAGE])
async def test_pages_of_others(emulator: Emulator, api: Api, fault: Fault, executed: bool) -> None:
    """What is not the API's answer comes with and without execution, as is asked for."""
    emulator.wire.inject(fault, status=504, executed=executed, times=1)
    if fault is Fault.GARBAGE:
        with pytest.raises(aiohttp.ClientError):
            await create(api)
    else:
        answer = await create(api)
        assert answer.status == (504 if fault is Fault.ERROR_PAGE else 200)
        assert answer.headers["content-type"].startswith("text/html")
        assert b"<html>" in answer.body
    assert emulator.wire.log[0].executed is executed
    assert len(emulator.ledger.created()) == executed


async def test_bodies_of_json(emulator: Emulator, api: Api) -> None:
    """A body can be half, or no JSON, or of the wrong type, in an answer that is framed correctly."""
    for fault in (Fault.TRUNCATED_JSON, Fault.GARBLED_JSON):
        emulator.wire.inject(fault, times=1)
        answer = await api("GET", "/account")
        assert answer.status == 200
        with pytest.raises(ValueError, match=r".*"):
            answer.json()
    emulator.wire.inject(Fault.WRONG_TYPE, times=1)
    answer = await api("GET", "/account")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.json()["username"] == "acme"


@pytest.mark.parametrize("announce", ["both", "header", "body", "nothing"])
async def test_throttle(emulator: Emulator, api: Api, announce: Any) -> None:
    """A 429 says how long to wait where it was told to say it, and is not executed."""
    emulator.wire.inject(Fault.THROTTLE, times=2, seconds=3, announce=announce)
    for _ in range(2):
        answer = await create(api)
        assert answer.status == 429
        assert answer.headers.get("retry-after") == (
            "3" if announce in ("both", "header") else None
        )
        assert answer.json().get("retry_after") == (3 if announce in ("both", "body") else None)
    assert (await create(api)).status == 201
    assert len(emulator.ledger.created()) == 1


async def test_slow_answers(emulator: Emulator, api: Api) -> None:
    """An answer can be late, and can come byte by byte."""
    emulator.wire.inject(Fault.DELAY, times=1, seconds=0.2)
    emulator.wire.inject(Fault.DRIP, times=1, seconds=0.002)
    clock = asyncio.get_running_loop().time
    for least in (0.2, 0.1):
        began = clock()
        answer = await api("GET", "/account")
        assert answer.json()["username"] == "acme"
        assert clock() - began >= least
    emulator.wire.inject(Fault.DELAY, times=1, seconds=60)
    with pytest.raises(asyncio.TimeoutError):
        await api("GET", "/account")


async def test_late_answers_keep_the_connection(emulator: Emulator, api: Api) -> None:
    """A late answer is whole in all else: the next request finds the connection open."""
    late = emulator.wire.inject(Fault.DELAY, seconds=0.01)
    assert (await create(api)).status == 201
    accepted = emulator.wire.accepted
    assert (await create(api)).status == 201
    assert (late.happened, emulator.wire.accepted) == (2, accepted)


async def test_close_reused(emulator: Emulator, api: Api) -> None:
    """A kept connection is found closed by the next request; fresh ones are spared."""
    reused = emulator.wire.inject(Fault.CLOSE_REUSED)
    assert (await create(api)).status == 201
    assert reused.happened == 0
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create(api)
    assert reused.happened == 1


async def test_close_after_answer(emulator: Emulator) -> None:
    """The answer is complete and promises to keep the connection; then its end follows."""
    emulator.wire.inject(Fault.CLOSE_AFTER_ANSWER)
    reader, writer = await _ask_for_account(emulator)
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    assert b"connection: close" not in head.lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    writer.close()
    await writer.wait_closed()


async def _ask_for_account(emulator: Emulator) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = emulator.url.partition("://")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting(emulator))
    head = f"GET /v1/account HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {emulator.token}\r\n\r\n"
    writer.write(head.encode())
    return reader, writer


async def test_reset_at_accept(emulator: Emulator, api: Api) -> None:
    """A new connection can be reset before anything was sent."""
    emulator.wire.inject(Fault.RESET_AT_ACCEPT, times=1)
    with pytest.raises(aiohttp.ClientError):
        await create(api)
    assert [(one.fault, one.request) for one in emulator.wire.log] == [
        (Fault.RESET_AT_ACCEPT, None)
    ]
    assert (await create(api)).status == 201


async def test_replies_of_a_test(emulator: Emulator, api: Api) -> None:
    """A test can write the answer itself, to its last byte; it is not executed unless asked for."""
    wire = emulator.wire
    wire.inject(Reply(503, b"no", {"Retry-After": "1"}), times=1)
    wire.inject(Reply.json({"id": "abc"}, 201), method="POST", times=1)
    answer = await create(api)
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "1", b"no")
    assert (await create(api)).json() == {"id": "abc"}
    assert emulator.ledger.created() == []
    executed = wire.inject(Reply(500), method="POST", times=1, executed=True)
    assert (await create(api)).status == 500
    assert executed.happened == len(emulator.ledger.created()) == 1
    assert [entry.executed for entry in wire.log] == [False, False, True]
    assert [entry.status for entry in wire.log] == [None, None, 201]
    assert wire.accepted == 1, "the connection is kept"


async def test_replies_end_as_they_say(emulator: Emulator, api: Api) -> None:
    """A reply can be cut, reset or silent anywhere, and pieces can take their time."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    for end, error in (
        ("close", aiohttp.ClientPayloadError),
        ("reset", aiohttp.ClientError),
        ("stall", asyncio.TimeoutError),
    ):
        emulator.wire.inject(Reply.raw(half, end=end), times=1)  # type: ignore[arg-type]
        with pytest.raises(error):
            await api("GET", "/account")
    pieces = Reply(200, [b"a", b"b", b"c"], {"Content-Length": "3"}, pause=0.05, end="close")
    emulator.wire.inject(pieces, times=2)
    for _ in range(2):
        began = asyncio.get_running_loop().time()
        assert (await api("GET", "/account")).body == b"abc"
        assert asyncio.get_running_loop().time() - began >= 0.15
    assert (await api("GET", "/account")).status == 200


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_functions_choose(emulator: Emulator, api: Api, size: int, chunked: bool) -> None:
    """A function sees the whole request, may block, and chooses a fault, a reply or nothing."""
    seen: list[WireRequest] = []
    outcomes = iter([Reply.json(1), Fault.ERROR_PAGE, Fault.RESET_AFTER_EXECUTION, None])
    blocked = threading.Event()

    def choose(request: WireRequest) -> Fault | Reply | None:
        seen.append(request)
        assert blocked.wait(5)
        return next(outcomes)

    async def content() -> AsyncIterator[bytes]:
        yield b"x" * size

    async def post() -> int:
        data = content() if chunked else io.BytesIO(b"x" * size)
        return (await api("POST", "/models?a=b", data=data)).status

    emulator.wire.inject(choose)
    first = asyncio.create_task(post())
    with anyio.fail_after(20):
        while not seen:  # noqa: ASYNC110 - of another thread
            await anyio.sleep(0.002)
    blocked.set()
    assert await first == 200
    assert await post() == 502
    with pytest.raises(aiohttp.ClientError):
        await post()
    assert await post() == 400, "the emulator's own answer"
    assert [request.body for request in seen] == [b"x" * size] * 4
    assert {request.line for request in seen} == {"POST /v1/models?a=b HTTP/1.1"}
    assert {request.target for request in seen} == {"/v1/models?a=b"}
    assert [entry.fault for entry in emulator.wire.log[1:]] == [
        Fault.ERROR_PAGE,
        Fault.RESET_AFTER_EXECUTION,
    ]


async def test_a_body_may_be_left_unread(emulator: Emulator, api: Api) -> None:
    """A server can answer, or fall silent, before it has read what is sent to it."""
    emulator.wire.inject(Reply(413, b"too large", reads=False, end="close"), times=1)
    answer = await api("POST", "/files", data=io.BytesIO(b"x" * 30_000_000))
    assert (answer.status, answer.body) == (413, b"too large")
    emulator.wire.inject(Reply.raw(end="stall", reads=False), times=1)
    with anyio.move_on_after(0.5) as scope:
        await api("POST", "/files", data=io.BytesIO(b"x" * 30_000_000))
    assert scope.cancelled_caught


async def test_refusing_from_the_start() -> None:
    """An emulator can refuse connections before it has started."""
    emulator = Emulator(wire=True)
    emulator.wire.refuse()
    async with emulator, aiohttp.ClientSession() as session:
        api = Api(emulator, session)
        with pytest.raises(aiohttp.ClientConnectorError):
            await api("GET", "/account")
        emulator.wire.accept()
        assert (await api("GET", "/account")).status == 200
        assert emulator.wire.accepted == 1


async def test_refusing(emulator: Emulator, api: Api) -> None:
    """While it refuses, kept connections are gone and new ones fail; then the same ports serve."""
    for _ in range(2):
        assert (await api("GET", "/account")).status == 200
        with emulator.wire.refusing():
            for url in ("/account", emulator.files_url, emulator.stream_url):
                with pytest.raises(aiohttp.ClientConnectorError):
                    await api("GET", url)
        assert (await api("GET", "/account")).status == 200


async def test_choice(emulator: Emulator, api: Api) -> None:
    """Faults are chosen by method, path, attempt, number, predicate and origin."""
    wire = emulator.wire
    page = Fault.ERROR_PAGE

    async def statuses(count: int, path: str = "/account") -> list[int]:
        return [(await api("GET", path)).status for _ in range(count)]

    wire.inject(page, method="POST")
    wire.inject(page, path="/v1/models/*")
    wire.inject(page, origin="files")
    assert await statuses(2) == [200, 200]
    assert await statuses(1, "/models/replicate/hello-world") == [502]
    assert (await create(api)).status == 502
    wire.clear()

    wire.inject(page, path="/v1/hardware", attempt=(2, 3))
    assert await statuses(4, "/hardware") == [200, 502, 502, 200]
    wire.inject(page, times=2, status=503)
    assert await statuses(3) == [503, 503, 200]
    injection = wire.inject(page, when=lambda request: request.query == "x=1")
    assert await statuses(1, "/account?x=1") == [502]
    assert await statuses(1, "/account?x=2") == [200]
    injection.remove()
    assert await statuses(1, "/account?x=1") == [200]


async def test_choice_at_random(emulator: Emulator, api: Api) -> None:
    """With a probability and a seed, the same requests suffer again."""
    seen = []
    emulator.wire.inject(Fault.ERROR_PAGE, probability=0.5)
    for _ in range(2):
        emulator.wire.seed(7)
        seen.append([(await api("GET", "/account")).status for _ in range(20)])
    assert seen[0] == seen[1]
    assert set(seen[0]) == {200, 502}


def test_impossible_choices() -> None:
    """What cannot happen is refused when it is asked for, also where there is no wire at all."""
    wire = Emulator(wire=True).wire
    with pytest.raises(ValueError, match="no choice"):
        wire.inject(Fault.RESET_AFTER_EXECUTION, executed=False)
    with pytest.raises(ValueError, match="before there is a request"):
        wire.inject(Fault.RESET_AT_ACCEPT, path="/v1/account")
    with pytest.raises(ValueError, match="probability"):
        wire.inject(Fault.DELAY, probability=2)
    with pytest.raises(ValueError, match="times"):
        wire.inject(Fault.DELAY, times=0)
    with pytest.raises(RuntimeError, match="wire=True"):
        _ = Emulator().wire


async def test_from_other_threads() -> None:
    """All of it works on an emulator that runs in a thread, and stops soon whatever hangs."""
    with Emulator(wire=True) as emulator:
        emulator.wire.inject(Fault.STALL_AFTER_EXECUTION, method="POST")
        async with aiohttp.ClientSession() as session:
            api = Api(emulator, session)
            stalled = asyncio.create_task(create(api))
            while not emulator.wire.log:  # noqa: ASYNC110 - of another thread
                await anyio.sleep(0.005)
            with emulator.wire.refusing(), pytest.raises(aiohttp.ClientConnectorError):
                await api("GET", "/account")
            assert (await api("GET", "/account")).status == 200
            assert threading.active_count() >= 2
            with anyio.fail_after(10):
                await asyncio.to_thread(emulator.stop)
            with pytest.raises(aiohttp.ClientError):
                await stalled
    assert emulator.wire.connections == 0


async def test_client_that_leaves(emulator: Emulator, api: Api) -> None:
    """When the client leaves, nothing is kept for it, and what it asked for has happened."""
    emulator.wire.inject(Fault.STALL_AFTER_EXECUTION, method="POST")
    with pytest.raises(asyncio.TimeoutError):
        await create(api)
    with anyio.fail_after(20):
        while emulator.wire.connections:  # noqa: ASYNC110
            await anyio.sleep(0.005)
    assert len(emulator.ledger.created()) == 1
