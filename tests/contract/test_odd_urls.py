"""URLs with spaces, non-ASCII letters and IDN hosts, wherever the API or a model gives one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicate_async import Client, FileOutput, exceptions, sync
from replicate_async.testing import Emulator

from .conftest import rewrite
from .wire import Wire, answer, client_of, file_at, head, raw

TARGETS = (
    ("/out put/bücher 画像.png", "/out%20put/b%C3%BCcher%20%E7%94%BB%E5%83%8F.png"),
    ("/a.png?sig=a%2Fb+c%20d%2be&n=ü", "/a.png?sig=a%2Fb+c%20d%2be&n=%C3%BC"),
    ('/a|b{c}"d.png', "/a%7Cb%7Bc%7D%22d.png"),
)


@pytest.mark.parametrize(("given", "sent"), TARGETS)
async def test_outputs(given: str, sent: str, tmp_path: Path) -> None:
    """What is illegal in the URL of a file is encoded once; signatures arrive as they were given."""
    with Wire(answer(200, b"content", "image/png", keep=True)) as wire:
        async with client_of(wire) as client:
            file = file_at(client, wire.url + given)
            assert await file.read() == b"content"
            saved = await file.save(f"{tmp_path}/")
            assert saved.read_bytes() == b"content"
        assert [request.target for request in wire.requests] == [sent, sent]
        assert file.url == wire.url + given


@pytest.mark.parametrize(("given", "sent"), TARGETS)
async def test_redirects(given: str, sent: str) -> None:
    """So are those in `Location`, in UTF-8."""
    location = (
        head(302, {"Content-Length": "0", "Connection": "close"})[:-2]
        + f"Location: {given}\r\n\r\n".encode()
    )
    with Wire(raw(location), answer(200, b"content")) as wire:
        async with client_of(wire) as client:
            assert await file_at(client, f"{wire.url}/x").read() == b"content"
        assert wire.requests[-1].target == sent


async def test_next_pages() -> None:
    """So are links to further pages."""
    item = {"id": "a", "status": "succeeded"}
    with Wire(
        lambda _: answer(
            200,
            json.dumps(
                {"results": [item], "next": f"{wire.url}/v1/predictions?cursor=ü b%2F+"}
            ).encode(),
        ),
        answer(200, json.dumps({"results": [item], "next": None}).encode()),
    ) as wire:
        async with client_of(wire) as client:
            assert len([each async for each in client.predictions.list()]) == 2
        assert wire.requests[-1].target == "/v1/predictions?cursor=%C3%BC%20b%2F+"


async def test_hosts_that_cannot_be(client: Client) -> None:
    """A host that is not valid is an error of ours; one of another script is looked up by its IDNA name."""
    for url in ("https://ü ü.invalid/x", "https://" + "ü" * 80 + ".invalid/x"):
        with pytest.raises(exceptions.TransportError, match="not a valid URL"):
            await FileOutput(url).read()
    with pytest.raises(exceptions.ConnectError):
        await client.with_options(timeout=2).output("http://bücher.invalid/x").read()


async def test_outputs_of_models(emulator: Emulator, client: Client) -> None:
    """An output with a space in its URL is a file, and can be fetched; so in the facade."""
    emulator.add_model("acme/namer", lambda: "text", official=True)
    file = await client.run("emulator/painter", {"prompt": "x", "width": 64, "height": 64})
    content = await file[0].read()
    odd = f"{file[0].url}?name=mein bild ü"
    for operation in ("models.predictions.create", "predictions.get"):
        rewrite(emulator, operation, lambda p: {**p, "output": odd if p["output"] else p["output"]})
    found = await client.run("emulator/painter", {"prompt": "x", "width": 64, "height": 64})
    assert isinstance(found, FileOutput)
    assert await found.read() == content


def test_in_the_facade() -> None:
    """The sync client fetches them, too."""
    given, sent = TARGETS[0]
    with (
        Wire(answer(200, b"content", "image/png")) as wire,
        sync.Client("t", base_url=wire.url) as client,
    ):
        assert client.output(wire.url + given).read() == b"content"
        assert wire.requests[0].target == sent
