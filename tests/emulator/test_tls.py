"""The emulator over HTTPS, with an authority of its own that the environment makes clients trust."""

from __future__ import annotations

import io
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from replicate.client import Client as OfficialClient
from replicate.helpers import FileOutput as OfficialFileOutput

from replicate_async import Client, FileOutput, Retry, exceptions, sync
from replicate_async.testing import Emulator, Fault

from .conftest import HELLO, Api

PAINTING: dict[str, Any] = {"prompt": "a lake", "width": 64, "height": 64}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator with TLS in a thread, to which the environment leads."""
    with Emulator(tls=True) as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


async def test_our_client_by_the_environment(emulator: Emulator) -> None:
    """API, files and streams are https, and the environment is enough to use all three."""
    for url in (emulator.url, emulator.files_url, emulator.stream_url):
        assert url.startswith("https://127.0.0.1:")
    async with Client() as client:
        [image] = await client.run("emulator/painter", PAINTING)
        assert isinstance(image, FileOutput)
        assert image.url.startswith(emulator.files_url)
        assert (await image.read()).startswith(PNG)
        pieces = [
            str(event) async for event in client.stream("emulator/writer", {"prompt": "the sea"})
        ]
        assert "".join(pieces)
        assert await client.run("emulator/describer", {"image": image})
        assert await client.run("emulator/describer", {"image": await image.read()})
    origins = {request.origin for request in emulator.ledger.requests()}
    assert origins == {"api", "files", "stream"}


def test_the_facade_by_the_environment(emulator: Emulator) -> None:
    """The sync client connects in the same way."""
    with sync.Client() as client:
        [image] = client.run("emulator/painter", PAINTING)
        assert image.read().startswith(PNG)


def test_the_official_client_makes_files_of_https_urls(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`replicate` 1.0.7 makes file objects of `https:` URLs: also when it polls, also in streams."""
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.01")
    client = OfficialClient()
    for wait in (True, False):
        output = client.run("emulator/painter", input=PAINTING, wait=wait)
        assert isinstance(output, list)
        assert [type(file) for file in output] == [OfficialFileOutput]
        assert output[0].url.startswith(emulator.files_url)
        assert output[0].read().startswith(PNG)
    events = list(client.stream("emulator/writer", input={"prompt": "sea", "max_tokens": 8}))
    assert events[-1].event.value == "done"
    file = client.files.create(io.BytesIO(b"content"))
    assert file.urls["get"].startswith(emulator.url)
    client._client.close()


def test_sync_answers_are_final_with_tls(emulator: Emulator) -> None:
    """With TLS, a sync create answers with the end and URLs; `recorded` can be asked for."""
    for asked, expected in (
        (None, "succeeded"),
        ("recorded", "processing"),
        ("final", "succeeded"),
    ):
        with Emulator(tls=True, sync_answers=asked) as other:  # type: ignore[arg-type]
            context = ssl.create_default_context(cafile=other.ca_file)
            with sync.Client(other.token, base_url=other.url, ssl=context) as client:
                created = client.predictions.create(HELLO, {"text": "a"}, wait=10)
            assert created.status == expected


def test_other_processes(emulator: Emulator) -> None:
    """What uses OpenSSL, such as `urllib` in a process of its own, trusts the authority, too."""
    code = (
        "import json, os, urllib.request as u;"
        "r = u.Request(os.environ['REPLICATE_BASE_URL'] + '/v1/account', headers="
        "{'Authorization': 'Bearer ' + os.environ['REPLICATE_API_TOKEN']});"
        "print(u.urlopen(r).read().decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert json.loads(done.stdout)["username"] == "acme", done.stderr
    assert Path(emulator.env["NODE_EXTRA_CA_CERTS"]).read_text().startswith("-----BEGIN CERT")
    assert emulator.env["REQUESTS_CA_BUNDLE"] == emulator.env["SSL_CERT_FILE"]


async def test_nobody_trusts_it_unasked() -> None:
    """Without the environment its certificate is refused; each emulator has an authority of its own."""
    with Emulator(tls=True) as emulator, Emulator(tls=True) as other:
        for context in (None, ssl.create_default_context(cafile=other.ca_file)):
            async with Client(
                emulator.token, base_url=emulator.url, ssl=context, retry=Retry(attempts=1)
            ) as client:
                with pytest.raises(exceptions.ConnectError, match="certificate verify failed"):
                    await client.accounts.current()


def test_the_file_of_the_authority_lives_as_long_as_the_emulator() -> None:
    """The directory in the temporary one is removed when the emulator stops."""
    with Emulator(tls=True) as emulator:
        path = emulator.ca_file
        assert path is not None
        assert path.is_file()
        assert list(path.parent.iterdir()) == [path]
    assert not path.parent.exists()
    with Emulator() as plain:
        assert plain.ca_file is None
        assert set(plain.env) == {"REPLICATE_API_TOKEN", "REPLICATE_BASE_URL"}


async def test_names_of_this_machine() -> None:
    """The certificate is for `localhost`, both loopback addresses, and the address listened on."""
    for host in ("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0"):
        with Emulator(host=host, tls=True) as emulator:
            port = emulator.url.rpartition(":")[2]
            connector = aiohttp.TCPConnector(
                ssl=ssl.create_default_context(cafile=emulator.ca_file)
            )
            async with aiohttp.ClientSession(connector=connector) as session:
                api = Api(emulator, session)
                assert (await api("GET", "/account")).status == 200
                if host in ("127.0.0.1", "localhost", "0.0.0.0"):
                    url = f"https://localhost:{port}/v1/account"
                    assert (await api("GET", url)).status == 200


async def test_certificates_of_a_test() -> None:
    """A context with a certificate of one's own serves HTTPS, with and without the wire."""
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    for wire in (False, True):
        async with (
            Emulator(tls=served, wire=wire) as emulator,
            Client(emulator.token, base_url=emulator.url, ssl=trusted) as client,
        ):
            assert await client.run(HELLO, {"text": "Alice"}) == "hello Alice"
            assert emulator.ca_file is None


async def test_faults_with_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create whose answer is lost on an encrypted connection is found, not repeated."""
    async with Emulator(tls=True, wire=True) as emulator:
        monkeypatch.setenv("SSL_CERT_FILE", emulator.env["SSL_CERT_FILE"])
        emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
        async with Client(emulator.token, base_url=emulator.url) as client:
            assert await client.run(HELLO, {"text": "Alice"}) == "hello Alice"
        assert len(emulator.ledger.created()) == 1


def test_without_trustme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error says what to install."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'replicate-async\[tls\]'"):
        Emulator(tls=True)
