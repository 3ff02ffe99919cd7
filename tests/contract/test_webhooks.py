"""Webhooks: real deliveries of the emulator, checked and unwrapped."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

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


async def test_headers_in_other_shapes(client: Client, hook: list[Delivery]) -> None:
    """Headers of ASGI, WSGI and CGI are headers; those of API Gateway are told from its lists of values."""
    _, delivery = await _deliver(client, hook)
    secret = (await client.webhooks.default.secret()).key
    plain = {name.lower(): value for name, value in delivery.headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in plain.items()]
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in plain.items()}
    for headers in (
        raw,
        tuple(raw),
        environ,
        {**environ, "wsgi.input": None, "SERVER_PORT": 80},
        {**plain, "other": None},
        [*raw, (b"webhook-signature", b"v1,b3RoZXI=")],
    ):
        client.webhooks.validate(cast("Any", headers), delivery.body, secret)
    with pytest.raises(InvalidSignature, match="2 times"):
        client.webhooks.validate([*raw, (b"webhook-id", b"b")], delivery.body, secret)
    multiple: Any = {name: [value] for name, value in plain.items()}
    with pytest.raises(ArgumentTypeError, match=r"headers: .*multiValueHeaders"):
        client.webhooks.validate(multiple, delivery.body, secret)
    for bad in (None, 5, "text", [1], [("a",)], {**plain, "webhook-id": 5}):
        with pytest.raises(ArgumentTypeError, match="headers: "):
            client.webhooks.validate(cast("Any", bad), delivery.body, secret)


async def test_a_tolerance_is_a_time(client: Client, hook: list[Delivery]) -> None:
    """A timedelta is a tolerance."""
    _, delivery = await _deliver(client, hook)
    secret = await client.webhooks.default.secret()
    client.webhooks.validate(delivery.headers, delivery.body, secret, timedelta(minutes=5))
    old = {**delivery.headers, "webhook-timestamp": "1000000000"}
    with pytest.raises(InvalidSignature, match="tolerance"):
        client.webhooks.validate(old, delivery.body, secret, timedelta(minutes=5))
    with pytest.raises(ArgumentError, match="tolerance: "):
        client.webhooks.validate(delivery.headers, delivery.body, secret, timedelta(-1))


async def test_bodies_of_lambda(client: Client, hook: list[Delivery]) -> None:
    """A body that API Gateway has encoded is not accepted, and the error says what to do."""
    _, delivery = await _deliver(client, hook)
    secret = await client.webhooks.default.secret()
    encoded = base64.b64encode(delivery.body)
    for body in (encoded, encoded.decode()):
        with pytest.raises(InvalidSignature, match=r"isBase64Encoded.*b64decode"):
            client.webhooks.validate(delivery.headers, body, secret)
    client.webhooks.validate(delivery.headers, base64.b64decode(encoded), secret)
    with pytest.raises(InvalidSignature) as caught:
        client.webhooks.validate(delivery.headers, delivery.body + b" ", secret)
    assert "base64" not in str(caught.value)


@pytest.mark.parametrize("secret", [None, b"whsec_YWJj", 5, ["whsec_YWJj"]])
async def test_secrets_of_other_types(client: Client, secret: Any) -> None:
    """A secret is a string or what `secret()` returned; None says where it may come from."""
    for verify in (client.webhooks.validate, client.webhooks.unwrap):
        with pytest.raises(ArgumentTypeError, match="secret: expected a string, got") as caught:
            verify({}, b"{}", secret)
        assert ("variable" in str(caught.value)) is (secret is None)


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
