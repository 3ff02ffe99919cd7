"""The receiver of webhooks: real deliveries of the emulator, and forged ones."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from replicate_async import Client, Receiver
from replicate_async.exceptions import (
    ArgumentError,
    ArgumentTypeError,
    PredictionFailed,
    RunTimeout,
)
from replicate_async.testing import Emulator
from replicate_async.testing._webhooks import sign

from .conftest import URL, Mounted, until

SLOW = "acme/slow"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="


def payload(id: str = "x" * 26, status: str = "succeeded", **more: Any) -> bytes:
    """Return a body as the service sends it."""
    ended = {"completed_at": "2025-12-02T10:15:33.148Z"} if status == "succeeded" else {}
    body = {"id": id, "status": status, "model": SLOW, "input": {}, "output": None, **ended, **more}
    return json.dumps(body).encode()


def signed(
    body: bytes, *, secret: str = SECRET, id: str = "msg_1", at: float | None = None
) -> dict[str, str]:
    """Return the headers of a delivery."""
    stamp = str(int(time.time() if at is None else at))
    return {
        "webhook-id": id,
        "webhook-timestamp": stamp,
        "webhook-signature": sign(secret, id, stamp, body),
    }


# -- Runs that wait ----------------------------------------------------------------------------


async def test_a_run_waits_by_webhook(client: Client, emulator: Emulator, mounted: Mounted) -> None:
    """The end is delivered: one create without a hold, and not a single poll."""
    receiver = client.webhooks.receiver(url=URL)
    async with mounted(receiver):
        assert await client.run(SLOW, {"text": "a"}, via=receiver) == "hello a"
    assert not emulator.ledger.requests(operation="predictions.get")
    assert not emulator.ledger.requests(operation="predictions.list")
    [create] = emulator.ledger.requests(operation="models.predictions.create")
    assert "prefer" not in {name.lower() for name in create.headers}
    [life] = emulator.ledger.created()
    assert life.did("succeeded")


async def test_many_runs_at_a_time(client: Client, emulator: Emulator, mounted: Mounted) -> None:
    """Each run gets its own result."""
    receiver = client.webhooks.receiver(url=URL)
    results: dict[int, object] = {}

    async def one(number: int) -> None:
        results[number] = await client.run(SLOW, {"text": str(number)}, via=receiver)

    async with mounted(receiver), anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(one, number)
    assert results == {number: f"hello {number}" for number in range(50)}
    assert len(emulator.ledger.created()) == 50
    assert not emulator.ledger.requests(operation="predictions.get")


async def test_nobody_mounted_it(
    client: Client, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """The polls beneath bring the result, and the log says what to check."""
    receiver = client.webhooks.receiver(url=URL, poll_interval=3)
    assert await client.run(SLOW, {"text": "a"}, via=receiver) == "hello a"
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert URL in record.getMessage()
    assert "mounted" in record.getMessage()
    assert emulator.ledger.created()[0].id in record.getMessage()
    assert len(emulator.ledger.created()) == 1


async def test_failures_are_raised(client: Client, emulator: Emulator, mounted: Mounted) -> None:
    """A delivery of a failure ends the run as a poll would."""

    @emulator.model("acme/broken", official=True)
    async def broken() -> str:
        raise ValueError("no luck")

    receiver = client.webhooks.receiver(url=URL)
    async with mounted(receiver):
        with pytest.raises(PredictionFailed, match="no luck"):
            await client.run("acme/broken", via=receiver)


async def test_a_timeout_cancels(client: Client, emulator: Emulator, mounted: Mounted) -> None:
    """The promises of `run` hold: what is given up is cancelled."""
    receiver = client.webhooks.receiver(url=URL)
    async with mounted(receiver):
        with pytest.raises(RunTimeout):
            await client.run(SLOW, {"text": "a", "seconds": 30}, via=receiver, timeout=0.5)
        await until(lambda: not emulator.ledger.running())
    assert len(emulator.ledger.cancelled()) == 1


@pytest.mark.parametrize(
    "option", [{"webhook": "https://a.example"}, {"webhook_events_filter": ["start"]}]
)
async def test_one_webhook_only(client: Client, emulator: Emulator, option: Any) -> None:
    """Another webhook beside the receiver is refused before anything is sent."""
    receiver = client.webhooks.receiver(url=URL)
    with pytest.raises(ArgumentError, match="via"):
        await client.run(SLOW, {"text": "a"}, via=receiver, **option)
    wrong: Any = URL
    with pytest.raises(ArgumentTypeError, match="receiver"):
        await client.run(SLOW, {"text": "a"}, via=wrong)
    assert not emulator.ledger.created()


# -- Deliveries --------------------------------------------------------------------------------


@pytest.fixture
def receiver(client: Client) -> Receiver:
    """Return a receiver with a secret of its own."""
    return client.webhooks.receiver(url=URL, secrets=SECRET)


async def test_accepted(receiver: Receiver) -> None:
    """What is signed is accepted, whatever the case of its headers."""
    body = payload()
    assert (await receiver.handle(signed(body), body)).status == 200
    second = payload("y" * 26)
    headers = {name.title(): value for name, value in signed(second, id="msg_2").items()}
    assert (await receiver.handle(headers, second)).status == 200
    third = payload("z" * 26)
    pairs = [(n.encode(), v.encode()) for n, v in signed(third, id="msg_3").items()]
    assert (await receiver.handle(pairs, third)).status == 200


Change = Callable[[dict[str, str]], object]
BAD: dict[str, tuple[int, Change]] = {
    "signature": (401, lambda h: h.update({"webhook-signature": "v1,AAAA"})),
    "version": (401, lambda h: h.update({"webhook-signature": "v2" + h["webhook-signature"][2:]})),
    "other id": (401, lambda h: h.update({"webhook-id": "msg_9"})),
    "no id": (400, lambda h: h.pop("webhook-id")),
    "no time": (400, lambda h: h.pop("webhook-timestamp")),
    "no signature": (400, lambda h: h.pop("webhook-signature")),
    "empty signature": (400, lambda h: h.update({"webhook-signature": ""})),
    "time that is none": (401, lambda h: h.update({"webhook-timestamp": "now"})),
    "two signatures": (400, lambda h: h.update({"Webhook-Signature": h["webhook-signature"]})),
}


@pytest.mark.parametrize("name", BAD)
async def test_refused(receiver: Receiver, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A forged, incomplete or doubled signature is refused, said in the log, and calls no handler."""
    called: list[object] = []
    receiver.on()(called.append)
    body = payload()
    status, change = BAD[name]
    headers = signed(body)
    change(headers)
    assert (await receiver.handle(headers, body)).status == status
    assert "refused" in caplog.text
    await anyio.sleep(0.05)
    assert not called


@pytest.mark.parametrize("age", [-400, 400])
async def test_too_old_or_too_early(receiver: Receiver, age: float) -> None:
    """The time of a delivery is within the tolerance."""
    body = payload()
    assert (await receiver.handle(signed(body, at=time.time() - age), body)).status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"id": 5}', 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b" " * (2**20 + 1), 413),
    ],
)
async def test_bodies(receiver: Receiver, body: bytes, status: int) -> None:
    """What is signed and not readable is refused, and nothing raises."""
    assert (await receiver.handle(signed(body), body)).status == status


ODD: tuple[bytes, ...] = (
    b'{"id": "odd", "status": "succeeded", "output": NaN}',
    b'{"id": "odd", "status": "processing", "output": [1e999, -Infinity]}',
    b'{"id": "odd", "status": "processing", "output": %s, "logs": 5}' % (b"9" * 4301),
    b'{"id": "odd", "status": "processing", "output": %s%s}' % (b"[" * 900, b"]" * 900),
    b'{"id": "odd", "status": [], "urls": {"get": %s}}' % (b"9" * 4301),
    b'{"id": "odd", "urls": {"get": %s%s}, "error": {}}' % (b"[" * 900, b"]" * 900),
    b'{"id": "odd\\ud800", "output": "\\ud800", "created_at": "0001-01-01T00:00:00+23:59"}',
)


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
async def test_odd_jobs(receiver: Receiver, body: bytes) -> None:
    """Whatever a model makes its output of, the delivery is accepted, and handlers are called."""
    called: list[Any] = []
    receiver.on()(called.append)
    assert (await receiver.handle(signed(body), body)).status == 200
    await until(lambda: called)
    assert called[0].id.startswith("odd")


@pytest.mark.parametrize("headers", [None, 5, {"webhook-id": 5}, [(1, 2)]])
async def test_headers_of_wrong_types(receiver: Receiver, headers: Any) -> None:
    """They are a mistake of the app, and not of who has sent the delivery."""
    with pytest.raises(ArgumentTypeError, match="headers"):
        await receiver.handle(headers, payload())


@pytest.mark.parametrize("body", [None, 5, "text"])
async def test_bodies_of_wrong_types(receiver: Receiver, body: Any) -> None:
    """So is a body that was decoded or parsed."""
    with pytest.raises(ArgumentTypeError, match="body"):
        await receiver.handle(signed(b""), body)


async def test_several_secrets(client: Client) -> None:
    """While one secret replaces another, both are good."""
    receiver = client.webhooks.receiver(url=URL, secrets=[OTHER, SECRET])
    for number, secret in enumerate((SECRET, OTHER)):
        body = payload(str(number) * 26)
        headers = signed(body, secret=secret, id=f"msg_{number}")
        assert (await receiver.handle(headers, body)).status == 200


async def test_the_secret_of_the_environment(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret is fetched if the environment has some."""
    monkeypatch.setenv("REPLICATE_WEBHOOK_SECRET", f"{OTHER}, {SECRET}")
    receiver = client.webhooks.receiver(url=URL)
    body = payload()
    assert (await receiver.handle(signed(body), body)).status == 200
    assert not emulator.ledger.requests()


async def test_the_secret_of_the_account(client: Client, emulator: Emulator) -> None:
    """It is fetched once, again when it seems to have changed, and not for each forged delivery."""
    receiver = client.webhooks.receiver(url=URL)
    body = payload()
    headers = signed(body, secret=emulator.webhook_secret)
    assert (await receiver.handle(headers, body)).status == 200
    for _ in range(20):
        assert (await receiver.handle(signed(body, id="msg_2"), body)).status == 401
    assert len(emulator.ledger.requests(operation="webhooks.default.secret.get")) == 1


async def test_the_service_is_away(emulator: Emulator) -> None:
    """A delivery that cannot be verified now is to be sent again."""
    async with Client("r8_" + "x" * 37, base_url=emulator.url) as client:
        receiver = client.webhooks.receiver(url=URL)
        body = payload()
        assert (await receiver.handle(signed(body), body)).status == 503


@pytest.mark.parametrize(
    "url",
    [
        *("http://app.example/x", "http://localhost:8000/x", "app.example", "", None, 5),
        *("https://", "https:///x", "https://?x", "https://:443/x", "https://user@/x"),
        *("https://a b.example/x", "https://app.example/a b", "https://app.example/x\n"),
        *("https://app.example:port/x", "https://app.example:123456/x", " https://app.example"),
    ],
)
async def test_urls(client: Client, url: Any) -> None:
    """A receiver whose URL the service would not take is refused when it is made."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match="url"):
        client.webhooks.receiver(url=url)


@pytest.mark.parametrize("secrets", ["", "hello!", [], ["whsec_"], [None], 5])
async def test_secrets(client: Client, secrets: Any) -> None:
    """So is one whose secret is none."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match="secrets"):
        client.webhooks.receiver(url=URL, secrets=secrets)


@pytest.mark.parametrize(
    "option", [{"tolerance": -1}, {"tolerance": float("nan")}, {"poll_interval": 0}]
)
async def test_numbers(client: Client, option: Any) -> None:
    """And one with impossible times."""
    with pytest.raises(ArgumentError, match=next(iter(option))):
        client.webhooks.receiver(url=URL, **option)


# -- Handlers ----------------------------------------------------------------------------------


async def test_handlers(client: Client, emulator: Emulator, mounted: Mounted) -> None:
    """Each handler is called for its events, in the order of what happened."""
    receiver = client.webhooks.receiver(url=URL)
    seen: list[tuple[str, str, int]] = []
    threads: set[str] = set()

    @receiver.on()
    async def everything(job: Any) -> None:
        await anyio.sleep(0.01 if job.status == "succeeded" else 0.1)
        seen.append(("all", job.status, len(job.output or ())))

    @receiver.on("completed")
    def ended(job: Any) -> None:
        threads.add(threading.current_thread().name)
        seen.append(("completed", job.status, len(job.output or ())))

    @receiver.on("output", "logs")
    async def grown(job: Any) -> None:
        seen.append(("grown", job.status, len(job.output or ())))

    async with mounted(receiver):
        await client.predictions.create(model="acme/lines", input={}, webhook=URL)
        await until(lambda: any(each[0] == "completed" for each in seen))
    assert seen[-1] == ("completed", "succeeded", 3)
    lengths = [length for name, _, length in seen if name == "all"]
    assert lengths == sorted(lengths)
    assert len(lengths) > 2
    assert any(name == "grown" for name, _, _ in seen)
    assert threads
    assert threading.current_thread().name not in threads


async def test_duplicates(receiver: Receiver) -> None:
    """A delivery that is repeated, or an end that is delivered twice, calls no handler again."""
    called: list[object] = []
    receiver.on("completed")(called.append)
    body = payload()
    for message in ("msg_1", "msg_1", "msg_2"):
        assert (await receiver.handle(signed(body, id=message), body)).status == 200
    await until(lambda: called)
    await anyio.sleep(0.05)
    assert len(called) == 1


async def test_an_older_state_never_follows(receiver: Receiver) -> None:
    """What arrives late is answered, and dropped."""
    seen: list[tuple[str, str]] = []

    @receiver.on()
    async def handler(job: Any) -> None:
        seen.append((job.status, job.logs))

    now = time.time()
    states = [
        ("processing", "ab", 2),
        ("processing", "a", 1),
        ("starting", "", 0),
        ("succeeded", "abc", 3),
        ("processing", "abc", 3),
    ]
    for number, (status, logs, at) in enumerate(states):
        body = payload(status=status, logs=logs)
        reply = await receiver.handle(signed(body, id=f"msg_{number}", at=now + at), body)
        assert reply.status == 200
    await until(lambda: len(seen) == 2)
    await anyio.sleep(0.05)
    assert seen == [("processing", "ab"), ("succeeded", "abc")]


async def test_errors_of_handlers(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """They are logged, and neither lose the delivery nor stop other handlers."""
    called: list[object] = []

    @receiver.on()
    async def broken(job: Any) -> None:
        raise RuntimeError("of the handler")

    receiver.on()(called.append)
    body = payload()
    assert (await receiver.handle(signed(body), body)).status == 200
    await until(lambda: called)
    assert "of the handler" in caplog.text


async def test_it_ends_with_its_client(emulator: Emulator) -> None:
    """Handlers that run are waited for; afterwards deliveries are to be sent elsewhere."""
    done: list[str] = []
    async with Client(emulator.token, base_url=emulator.url) as client:
        receiver = client.webhooks.receiver(url=URL, secrets=SECRET)

        @receiver.on()
        async def slow(job: Any) -> None:
            await anyio.sleep(0.2)
            done.append(job.id)

        body = payload()
        assert (await receiver.handle(signed(body), body)).status == 200
        assert not done
    assert len(done) == 1
    body = payload("y" * 26)
    assert (await receiver.handle(signed(body, id="msg_2"), body)).status == 503


async def test_handlers_are_functions(client: Client) -> None:
    """A mistake is told where it is made."""
    receiver = client.webhooks.receiver(url=URL)
    wrong: Any = "done"
    with pytest.raises(ArgumentError, match="events"):
        receiver.on(wrong)
    with pytest.raises(ArgumentTypeError, match="handler"):
        receiver.on()(5)


# -- Frameworks --------------------------------------------------------------------------------


async def call(app: Any, method: str, headers: dict[str, str], *chunks: bytes) -> tuple[int, str]:
    """Call an ASGI app as a server does."""
    scope = {
        "type": "http",
        "method": method,
        "path": "/replicate",
        "raw_path": b"/replicate",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:]).decode()


async def test_asgi(receiver: Receiver) -> None:
    """It is mounted as any ASGI app is, and reads bodies in pieces, up to a megabyte."""
    body = payload()
    app = Starlette(routes=[Route("/replicate", receiver.asgi)])
    assert (await call(app, "POST", signed(body), body[:10], body[10:]))[0] == 200
    assert (await call(app, "GET", {}, b""))[0] == 405
    big = b" " * 2**19
    assert (await call(app, "POST", signed(body), big, big, big, big))[0] == 413
    assert (await call(receiver.asgi, "POST", signed(body)))[0] == 408


async def test_aiohttp(receiver: Receiver, mounted: Mounted) -> None:
    """So it is in aiohttp."""
    async with mounted(receiver) as origin, aiohttp.ClientSession(origin) as session:
        body = payload()
        async with session.post("/replicate", data=body, headers=signed(body)) as response:
            assert response.status == 200
        async with session.post("/replicate", data=io.BytesIO(bytes(2**20 + 1))) as response:
            assert response.status == 413
        async with session.post("/replicate", data=body) as response:
            assert response.status == 400
