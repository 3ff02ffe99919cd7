"""Webhook deliveries (HTTP API, section 6)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web

from replicate_async.testing import Clock, Delivery, Emulator, log
from replicate_async.testing._webhooks import sign

from .conftest import HELLO, Api


@attrs.define
class Receiver:
    """A local server that takes webhooks."""

    origin: str = ""
    bodies: list[bytes] = attrs.Factory(list)
    paths: list[str] = attrs.Factory(list)
    headers: list[Any] = attrs.Factory(list)
    statuses: list[int] = attrs.Factory(list)
    arrived: asyncio.Event = attrs.Factory(asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Take one delivery, and answer with the next of the given statuses."""
        self.bodies.append(await request.read())
        self.paths.append(request.path_qs)
        self.headers.append(request.headers)
        self.arrived.set()
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async def count(self, number: int) -> None:
        """Wait until so many deliveries have arrived."""
        async with asyncio.timeout(20):
            while len(self.bodies) < number:
                self.arrived.clear()
                await self.arrived.wait()


@pytest.fixture
async def receiver(emulator: Emulator) -> AsyncIterator[Receiver]:
    """Return a server that `https://example.com` is mapped to."""
    taken = Receiver()
    runner = web.ServerRunner(web.Server(taken.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    taken.origin = f"http://{host}:{port}"
    emulator.webhook_hosts["example.com"] = taken.origin
    yield taken
    await runner.cleanup()


async def _run(api: Api, version: str, input: dict[str, Any], **more: Any) -> Any:
    body = {"version": version, "input": input, "webhook": "https://example.com/h?job=1", **more}
    answer = await api("POST", "/predictions", json=body)
    assert answer.status == 201, answer.body
    return answer.json()


async def _delivered(api: Api, number: int) -> list[Delivery]:
    """Wait until so many deliveries are recorded."""
    async with asyncio.timeout(20):
        while len(api.emulator.deliveries) < number:
            await api("GET", "/account")
    return api.emulator.deliveries


async def test_signature(api: Api, receiver: Receiver) -> None:
    """A delivery is signed over id, time and raw body; the query string is kept."""
    created = await _run(api, HELLO, {"text": "é"}, webhook_events_filter=["completed"])
    await receiver.count(1)
    headers, body = receiver.headers[0], receiver.bodies[0]
    key = (await api("GET", "/webhooks/default/secret")).json()["key"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(key.removeprefix("whsec_")), signed, hashlib.sha256)
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest.digest()).decode()
    assert receiver.paths == ["/h?job=1"]
    (delivery,) = await _delivered(api, 1)
    assert (delivery.event, delivery.status, delivery.attempt) == ("completed", 200, 1)
    assert delivery.json()["id"] == created["id"]
    assert delivery.json()["status"] == "succeeded"
    assert delivery.json()["webhook"] == "https://example.com/h?job=1"


def test_signature_vectors() -> None:
    """The published test vectors of Standard Webhooks hold."""
    first = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert first == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    second = sign(
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_2mZJ3yVvq1QGqkD6Yc6q0b1zF4L",
        "1729000000",
        b'{"id":"ufawqhfynnddngldkgtslldrkq","status":"succeeded"}',
    )
    assert second == "v1,ZiphLQJPLh+uGbn/UMo5zztJ0mXQ5pR3n1WskfAob40="


async def test_events_and_throttling() -> None:
    """All four events come by default; output and logs at most every 500 ms."""
    async with aiohttp.ClientSession() as session:
        with Emulator(clock=Clock(speed=1e-9)) as emulator:
            await _check_throttling(Api(emulator, session))


async def _check_throttling(api: Api) -> None:
    emulator = api.emulator

    @emulator.model("acme/steps")
    def steps() -> Iterator[int]:
        for step in range(4):
            if step == 2:
                emulator.clock.advance(0.5)
            log(f"{step}\n")
            yield step

    version = (await api("GET", "/models/acme/steps")).json()["latest_version"]["id"]
    await _run(api, version, {})
    deliveries = await _delivered(api, 6)
    events = [delivery.event for delivery in deliveries]
    assert events == ["start", "logs", "output", "logs", "output", "completed"]
    assert deliveries[0].json()["status"] == "processing"
    assert [d.json()["output"] for d in deliveries if d.event == "output"] == [[0], [0, 1, 2]]
    assert deliveries[0].json()["logs"] is None


async def test_filter(api: Api, emulator: Emulator) -> None:
    """Only the events asked for are delivered; an empty filter means all."""
    await _run(api, HELLO, {"text": "a"}, webhook_events_filter=["start", "output"])
    assert [d.event for d in await _delivered(api, 2)] == ["start", "output"]
    emulator.deliveries.clear()
    await _run(api, HELLO, {"text": "a"}, webhook_events_filter=[])
    assert [d.event for d in await _delivered(api, 3)] == ["start", "output", "completed"]


async def test_terminal_delivery_is_retried(
    api: Api, emulator: Emulator, receiver: Receiver
) -> None:
    """The terminal delivery is repeated on 4xx and 5xx, with the same id, others are not."""
    receiver.statuses = [500, 503, 404, 200]
    await _run(api, HELLO, {"text": "a"}, webhook_events_filter=["start", "completed"])
    await receiver.count(2)
    for number in (3, 4):
        await _delivered(api, number - 1)
        async with asyncio.timeout(20):
            while len(receiver.bodies) < number:
                emulator.clock.advance(1)
                await api("GET", "/account")
    deliveries = await _delivered(api, 4)
    assert [d.event for d in deliveries] == ["start", "completed", "completed", "completed"]
    assert [d.status for d in deliveries] == [500, 503, 404, 200]
    assert [d.attempt for d in deliveries] == [1, 1, 2, 3]
    assert len({d.headers["webhook-id"] for d in deliveries[1:]}) == 1


async def test_redirects_are_not_followed(api: Api, receiver: Receiver) -> None:
    """A redirect ends the delivery."""
    receiver.statuses = [302]
    await _run(api, HELLO, {"text": "a"}, webhook_events_filter=["completed"])
    (delivery,) = await _delivered(api, 1)
    assert delivery.status == 302
    assert receiver.paths == ["/h?job=1"]


async def test_only_loopback(api: Api, emulator: Emulator) -> None:
    """Hosts that are not mapped, or mapped elsewhere, are recorded and never connected to."""
    await _run(api, HELLO, {"text": "a"}, webhook_events_filter=["completed"])
    (delivery,) = await _delivered(api, 1)
    assert delivery.status is None
    assert "example.com" in (delivery.error or "")
    emulator.webhook_hosts["example.com"] = "http://192.0.2.1"
    await _run(api, HELLO, {"text": "a"}, webhook_events_filter=["completed"])
    delivery = (await _delivered(api, 2))[1]
    assert "loopback" in (delivery.error or "")
    emulator.webhook_hosts["example.com"] = "http://example.com"
    await _run(api, HELLO, {"text": "a"}, webhook_events_filter=["completed"])
    delivery = (await _delivered(api, 3))[2]
    assert "loopback" in (delivery.error or "")


async def test_cancelled_and_aborted_complete(api: Api, emulator: Emulator) -> None:
    """`completed` is sent for `canceled` and `aborted`, too."""

    @emulator.model("acme/cold", setup=1000)
    def cold() -> int:
        return 1

    version = (await api("GET", "/models/acme/cold")).json()["latest_version"]["id"]
    created = await _run(api, version, {})
    await api("POST", f"/predictions/{created['id']}/cancel")
    assert [d.json()["status"] for d in await _delivered(api, 1)] == ["canceled"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "app.localhost", "[::1]"])
async def test_local_webhooks(receiver: Receiver, host: str) -> None:
    """With `local_webhooks`, `http:` URLs of this machine are accepted, and delivered as they are."""
    port = receiver.origin.rpartition(":")[2]
    async with Emulator(local_webhooks=True) as emulator, aiohttp.ClientSession() as session:
        api = Api(emulator, session)
        body = {
            "version": HELLO,
            "input": {"text": "a"},
            "webhook": f"http://{host}:{port}/hook?a=b%20c",
            "webhook_events_filter": ["completed"],
        }
        assert (await api("POST", "/predictions", json=body)).status == 201
        [delivery] = await _delivered(api, 1)
        if host == "[::1]":  # where nobody listens
            assert (delivery.status, bool(delivery.error)) == (None, True)
        else:
            assert delivery.status == 200
            assert receiver.paths == ["/hook?a=b%20c"]


async def test_local_webhooks_lead_nowhere_else(receiver: Receiver) -> None:
    """Only names and addresses of this machine are local; without the option, not even those are."""
    port = receiver.origin.rpartition(":")[2]
    for local, hosts in (
        (True, ["example.com", "127.0.0.1.example.com", "localhost.example.com", "10.0.0.1", "["]),
        (False, ["127.0.0.1", "localhost"]),
    ):
        async with (
            Emulator(local_webhooks=local) as emulator,
            aiohttp.ClientSession() as session,
        ):
            api = Api(emulator, session)
            body = {"version": HELLO, "input": {"text": "a"}}
            for host in hosts:
                body["webhook"] = f"http://{host}:{port}/"
                answer = await api("POST", "/predictions", json=body)
                assert answer.status == 422, host
                assert b"Not a valid HTTPS URL" in answer.body
            body["webhook"] = f"https://{hosts[0]}:{port}/"
            assert (await api("POST", "/predictions", json=body)).status == 201
            for delivery in await _delivered(api, 1):
                assert delivery.error is not None
                assert "no local server is mapped" in delivery.error
    assert receiver.paths == []
