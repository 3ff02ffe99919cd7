"""Webhooks: real deliveries of the emulator, checked and unwrapped."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
from aiohttp import web

from replicate_async import Client, Prediction, Training
from replicate_async.exceptions import ArgumentError, ArgumentTypeError, InvalidSignature
from replicate_async.testing import Emulator

from .conftest import HELLO, until


@attrs.frozen
class Delivery:
    """A webhook as it arrived."""

    headers: dict[str, str]
    body: bytes


@pytest.fixture
async def hook(emulator: Emulator) -> AsyncIterator[list[Delivery]]:
    """Receive what is sent to https://example.com."""
    received: list[Delivery] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        received.append(Delivery(dict(request.headers), await request.read()))
        return web.Response()

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    emulator.webhook_hosts["example.com"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield received
    await runner.cleanup()


async def _deliver(client: Client, hook: list[Delivery]) -> tuple[Prediction, Delivery]:
    prediction = await client.predictions.create(
        HELLO,
        {"text": "a"},
        webhook="https://example.com/hook",
        webhook_events_filter=["completed"],
    )
    await until(lambda: hook)
    return prediction, hook[-1]


async def test_unwrap(client: Client, hook: list[Delivery]) -> None:
    """A genuine delivery is the prediction, live and typed."""
    prediction, delivery = await _deliver(client, hook)
    secret = await client.webhooks.default.secret()
    for key in (secret, secret.key):
        for body in (delivery.body, delivery.body.decode()):
            found = client.webhooks.unwrap(delivery.headers, body, key)
            assert type(found) is Prediction
            assert (found.id, found.status, found.output) == (
                prediction.id,
                "succeeded",
                "hello a",
            )
    assert (await found.reload()).id == prediction.id


async def test_unwrap_of_a_training(client: Client, hook: list[Delivery]) -> None:
    """The delivery about a training is a Training."""
    trainee = await client.models.get("emulator/trainee")
    assert trainee.latest_version is not None
    training = await client.trainings.create(
        trainee.latest_version,
        {"input_images": "data:text/plain;base64,YWJj"},
        model=trainee,
        destination="acme/trained",
        webhook="https://example.com/hook",
        webhook_events_filter=["completed"],
    )
    await until(lambda: hook)
    secret = await client.webhooks.default.secret()
    found = client.webhooks.unwrap(hook[-1].headers, hook[-1].body, secret)
    assert type(found) is Training
    assert (found.id, found.status) == (training.id, "succeeded")
    assert found.output is not None


async def test_validate(client: Client, hook: list[Delivery]) -> None:
    """A delivery is genuine only with its own body, headers and secret."""
    _, delivery = await _deliver(client, hook)
    secret = (await client.webhooks.default.secret()).key
    client.webhooks.validate(delivery.headers, delivery.body, secret)
    client.webhooks.validate(
        {name.upper(): value for name, value in delivery.headers.items()}, delivery.body, secret
    )
    with pytest.raises(InvalidSignature):
        client.webhooks.validate(delivery.headers, delivery.body + b" ", secret)
    with pytest.raises(InvalidSignature):
        client.webhooks.unwrap(delivery.headers, delivery.body, "whsec_YW5vdGhlciBzZWNyZXQ=")
    for name in ("id", "timestamp", "signature"):
        headers = {
            key: value
            for key, value in delivery.headers.items()
            if key.lower() != f"webhook-{name}"
        }
        with pytest.raises(InvalidSignature, match=f"webhook-{name}"):
            client.webhooks.validate(headers, delivery.body, secret)


async def test_tolerance(
    client: Client, emulator: Emulator, hook: list[Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is older than five minutes is a replay, unless the caller says otherwise."""
    _, delivery = await _deliver(client, hook)
    secret = emulator.webhook_secret
    for shift, tolerance, genuine in (
        (0, 300, True),
        (290, 300, True),
        (-290, 300, True),
        (320, 300, False),
        (-320, 300, False),
        (320, 400, True),
        (10**6, None, True),
    ):
        now = int(delivery.headers["webhook-timestamp"]) + shift
        monkeypatch.setattr(time, "time", lambda now=now: now)
        if genuine:
            client.webhooks.validate(delivery.headers, delivery.body, secret, tolerance)
        else:
            with pytest.raises(InvalidSignature, match="300"):
                client.webhooks.validate(delivery.headers, delivery.body, secret, tolerance)
    monkeypatch.undo()


async def test_bad_arguments(client: Client, emulator: Emulator) -> None:
    """A parsed body, a secret that is none, and a body that is no prediction are told apart."""
    parsed: Any = {"id": "x"}
    with pytest.raises(ArgumentTypeError, match="body"):
        client.webhooks.validate({}, parsed, emulator.webhook_secret)
    headers = {
        "webhook-id": "msg_x",
        "webhook-timestamp": str(int(time.time())),
        "webhook-signature": "v1,AAAA",
    }
    for secret in ("", "whsec_", "whsec_!!"):
        with pytest.raises(ArgumentError, match="secret"):
            client.webhooks.validate(headers, b"{}", secret)


async def test_signed_nonsense(client: Client, emulator: Emulator) -> None:
    """A body that is signed, but is no prediction, is an error about the body."""
    import base64
    import hashlib
    import hmac

    key = base64.b64decode(emulator.webhook_secret.removeprefix("whsec_"))
    now = str(int(time.time()))
    for body in (b"", b"not JSON", b"[]", b"{}", json.dumps({"id": 5}).encode()):
        digest = hmac.digest(key, b".".join((b"msg_x", now.encode(), body)), hashlib.sha256)
        headers = {
            "webhook-id": "msg_x",
            "webhook-timestamp": now,
            "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        }
        client.webhooks.validate(headers, body, emulator.webhook_secret)
        with pytest.raises(ArgumentError, match="body"):
            client.webhooks.unwrap(headers, body, emulator.webhook_secret)
