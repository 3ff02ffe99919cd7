"""What reaches an emulator from outside: foreign hosts, other machines, and bodies that are no JSON to speak of."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import pytest

from replicate_async.testing import TOKEN, WEBHOOK_SECRET, Emulator

from .conftest import HELLO, Api

FOREIGN = (
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example.",
    "notlocalhost.example",
    "192.168.1.20",
    "192.168.1.20:{port}",
    "[2001:db8::1]:80",
    "evil.example:127.0.0.1",
    "127.0.0.1@evil.example",
    "localhost/evil.example",
    "",
)
OWN = (
    "127.0.0.1",
    "127.0.0.1:{port}",
    "127.1.2.3:1",
    "localhost",
    "LOCALHOST:{port}",
    "localhost.",
    "api.localhost:80",
    "[::1]:{port}",
    "emulator:8000",
)


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("origin", ["url", "files_url", "stream_url"])
async def test_a_foreign_host_is_refused(
    api: Api, emulator: Emulator, host: str, origin: str
) -> None:
    """A page whose name leads to 127.0.0.1 gets nothing, on any origin, not even with the token."""
    url = getattr(emulator, origin)
    host = host.format(port=url.rpartition(":")[2])
    answer = await api("GET", f"{url}/v1/account", headers={"Host": host})
    assert answer.status == 403
    assert host in answer.json()["detail"]


async def test_a_refused_create_creates_nothing(api: Api, emulator: Emulator) -> None:
    """What is refused for its host has no effect."""
    body = {"version": HELLO, "input": {"text": "a"}}
    headers = {"Host": "evil.example"}
    assert (await api("POST", "/predictions", json=body, headers=headers)).status == 403
    assert emulator.ledger.created() == []


@pytest.mark.parametrize("host", OWN)
async def test_names_of_this_machine_are_served(api: Api, emulator: Emulator, host: str) -> None:
    """Loopback addresses and names, and names that no page of a stranger can have, are served."""
    host = host.format(port=emulator.url.rpartition(":")[2])
    assert (await api("GET", "/account", headers={"Host": host})).status == 200


async def test_without_a_host(emulator: Emulator) -> None:
    """A request of HTTP/1.0 may have no host; no browser sends such."""
    reader, writer = await asyncio.open_connection(*emulator.url[7:].split(":"))
    writer.write(b"GET /v1/account HTTP/1.0\r\nAuthorization: Bearer %b\r\n\r\n" % TOKEN.encode())
    assert b" 200 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("wire", [False, True])
async def test_all_addresses(*, wire: bool) -> None:
    """An emulator that other machines reach has a random token and secret, and is served by any address."""
    async with Emulator(host="0.0.0.0", wire=wire) as emulator, aiohttp.ClientSession() as session:
        api = Api(emulator, session)
        assert emulator.url.startswith("http://127.0.0.1:")
        assert (await api("GET", "/account")).status == 200
        assert (await api("GET", "/account", token=TOKEN)).status == 401
        for host, status in (("192.168.1.20:80", 200), ("[2001:db8::1]", 200), ("a.example", 403)):
            assert (await api("GET", "/account", headers={"Host": host})).status == status


@pytest.mark.parametrize(
    ("host", "fixed"),
    [
        ("127.0.0.1", True),
        ("127.5.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.20", False),
        ("box.example", False),
        ("localhost.example", False),
    ],
)
def test_the_fixed_token_is_for_loopback(host: str, *, fixed: bool) -> None:
    """Beyond loopback, each emulator makes its own token and secret, unless it is given one."""
    one, other = Emulator(host=host), Emulator(host=host)
    assert (one.token == TOKEN) is fixed
    assert (one.webhook_secret == WEBHOOK_SECRET) is fixed
    assert (one.token == other.token) is fixed
    assert (one.webhook_secret == other.webhook_secret) is fixed
    assert one.token.startswith("r8_")
    assert len(one.token) == len(TOKEN)
    assert Emulator(host=host, token="r8_mine").token == "r8_mine"


def nested(levels: int, opening: str, closing: str) -> str:
    """Return JSON that is nested."""
    return opening * levels + "1" + closing * levels


BODIES = {
    "lists": nested(100_000, "[", "]"),
    "objects": nested(100_000, '{"a":', "}"),
    "lists in an input": f'{{"input":{{"text":{nested(100_000, "[", "]")}}}}}',
    "just too deep for the interpreter": nested(1100, "[", "]"),
    "too deep to be shown": f'{{"input":{{"text":{nested(600, "[", "]")}}}}}',
    "lists without an end": "[" * 100_000,
    "NaN": '{"input":{"text":NaN}}',
    "Infinity": '{"input":{"text":-Infinity}}',
    "a float that is infinite": '{"input":{"text":1e999}}',
    "4301 digits": f'{{"input":{{"text":{"9" * 4301}}}}}',
    "no UTF-8": "\xff",
    "nothing": "",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_bodies_that_are_no_json(
    api: Api, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    """What cannot be decoded or shown is answered with 400, by every operation with a body."""
    for method, path in (
        ("POST", "/predictions"),
        ("POST", "/models/replicate/hello-world/predictions"),
        ("POST", "/models"),
        ("POST", "/deployments"),
        ("PATCH", "/models/replicate/hello-world"),
    ):
        data, headers = body.encode("latin-1"), {"Content-Type": "application/json"}
        answer = await api(method, path, data=data, headers=headers)
        assert answer.status in (400, 403), (path, answer.body[:200])
    form = aiohttp.FormData({"metadata": body})
    form.add_field("content", b"x", filename="x")
    assert (await api("POST", "/files", data=form)).status == 400
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/predictions", {"Content-Encoding": "gzip"}, b'{"input": {}}'),
        ("/predictions", {"Content-Encoding": "deflate"}, b"\xff"),
        ("/files", {}, b'Content-Disposition: form-data; name="content"; filename="a\0"\r\n\r\nx'),
        ("/files", {}, b"X: " + b"a" * 100_000 + b"\r\n\r\nx"),
    ],
)
async def test_bodies_that_cannot_be_read(
    api: Api, caplog: pytest.LogCaptureFixture, path: str, headers: dict[str, str], body: bytes
) -> None:
    """A body that is not encoded as its headers say, and a broken part of a form, are refused."""
    if path == "/files":
        body = b"--b\r\n" + body + b"\r\n--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
    else:
        headers = {"Content-Type": "application/json", **headers}
    answer = await api("POST", path, data=body, headers=headers)
    assert answer.status == 400, answer.body[:200]
    assert "cannot be read" in answer.json()["detail"]
    assert not [each for each in caplog.records if each.name.startswith("replicate_async")]


async def test_nested_inputs_and_outputs(api: Api, emulator: Emulator) -> None:
    """What is nested within reason is stored and shown; an output beyond it fails the prediction."""

    @emulator.model("acme/nest")
    def nest(value: dict[str, Any], more: int) -> dict[str, Any]:
        for _ in range(more):
            value = {"a": value}
        return value

    version = (await api("GET", "/models/acme/nest")).json()["latest_version"]["id"]
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    created = await api.run(version, {"value": {"a": deep}, "more": 0})
    assert (await api.finished(created["id"]))["output"] == {"a": deep}
    for more in (150, 500, 1500, 100_000):
        created = await api.run(version, {"value": {"a": deep}, "more": more})
        assert (await api.finished(created["id"]))["status"] == "failed"


async def test_a_webhook_that_is_no_address(
    api: Api, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A webhook at an address that does not exist is a delivery that was not sent."""
    body = {"version": HELLO, "input": {"text": "a"}, "webhook": "https://[x"}
    created = (await api("POST", "/predictions", json=body)).json()
    assert (await api.finished(created["id"]))["status"] == "succeeded"
    async with asyncio.timeout(20):
        while not [each for each in emulator.deliveries if each.event == "completed"]:
            await api("GET", "/account")
    assert all(each.error for each in emulator.deliveries)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
