"""What stands between a client and the API: tokens, proxies, certificates, event loops."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from replicate_async import Client, Retry
from replicate_async.exceptions import (
    ArgumentError,
    ArgumentTypeError,
    CertificateError,
)
from replicate_async.sync import Client as SyncClient
from replicate_async.testing import Emulator

from .conftest import HELLO
from .wire import Wire

SECRET = "r8_Geheim123456789"


# -- Tokens ------------------------------------------------------------------------------------

MISTAKES = [
    ('"{}"', "quotes"),
    ("'{}'", "quotes"),
    ("`{}`", "quotes"),
    ("“{}”", "quotes"),
    ('{}"', "quotes"),
    ("Bearer {}", "'Bearer'"),
    ("bearer {}", "'Bearer'"),
    ("Token {}", "'Bearer' or 'Token'"),
    ("Authorization: Bearer {}", "'Bearer'"),
    ("Bearer", "'Bearer'"),
    ("REPLICATE_API_TOKEN={}", "name of the variable"),
    ("export REPLICATE_API_TOKEN={}", "name of the variable"),
    ('REPLICATE_API_TOKEN="{}"', "name of the variable"),
    ("REPLICATE_API_TOKEN: {}", "name of the variable"),
    ("{}\n{}", "line break"),
    ("{}\r\nX-Other: 1", "line break"),
    ("{} {}", "spaces"),
]


@pytest.mark.parametrize(("form", "said"), MISTAKES)
async def test_tokens_with_more_than_the_token(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, form: str, said: str
) -> None:
    """What was pasted too much is told, wherever the token comes from, and the token is not shown."""
    token = form.format(*[SECRET] * 2)
    errors: list[BaseException] = []
    for make in (lambda: Client(token), lambda: SyncClient(token)):
        with pytest.raises(ArgumentError) as caught:
            make()
        errors.append(caught.value)
    monkeypatch.setenv("REPLICATE_API_TOKEN", token)
    for given in (None, lambda: token):
        async with Client(given, base_url=emulator.url) as client:
            with pytest.raises(ArgumentError) as caught:
                await client.run(HELLO, {"text": "x"})
        errors.append(caught.value)
    for error in errors:
        assert said in str(error)
        assert str(error).startswith("api_token: ")
        assert SECRET not in f"{error!r} {error}"
    assert emulator.ledger.requests() == []


@pytest.mark.parametrize("form", ["{}", " {}\n", "\t{}\r\n"])
async def test_space_around_a_token_does_not_matter(emulator: Emulator, form: str) -> None:
    """As it comes from a file."""
    async with Client(form.format(emulator.token), base_url=emulator.url) as client:
        await client.accounts.current()


# -- Proxies -----------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """Listen, and note the first bytes of each connection."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(0.5)
                    try:
                        seen.append(connection.recv(1000))
                    except OSError:
                        seen.append(b"")

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], seen
        stop.set()
        thread.join()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "SOCKS5", "ftp", "quic"])
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
async def test_proxies_that_nobody_here_speaks(
    monkeypatch: pytest.MonkeyPatch,
    listener: tuple[int, list[bytes]],
    scheme: str,
    variable: str,
) -> None:
    """A proxy of another kind is refused by the name of its variable, before anything goes to it."""
    port, seen = listener
    monkeypatch.setenv(variable, f"{scheme}://user:{SECRET}@127.0.0.1:{port}")
    async with Client("r8_token", base_url="http://api.invalid", retry=Retry(attempts=1)) as client:
        for call in (
            lambda: client.accounts.current(),
            lambda: client.run(HELLO, {"text": "x", "file": b"x"}),
        ):
            with pytest.raises(ArgumentError) as caught:
                await call()
            assert str(caught.value).lower().startswith(f"{variable.lower()}: ")
            assert SECRET not in str(caught.value)
            if scheme.lower().startswith("socks"):
                assert "SOCKS" in str(caught.value)
    assert seen == []


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://127.0.0.1:1",
        "ftp://h",
        "http://",
        "http://[",
        "",
        "http://h:0",
        "h:x",
        "http://a b:1",
    ],
)
def test_bad_proxies(proxy: str) -> None:
    """A proxy that cannot be one is refused when the client is made."""
    for kind in (Client, SyncClient):
        with pytest.raises(ArgumentError, match="proxy: "):
            kind("t", proxy=proxy)


@pytest.mark.parametrize("proxy", [{"https": "http://h:1"}, ["http://h:1"], 5, b"http://h:1", True])
def test_proxies_of_other_types(proxy: Any) -> None:
    """Not a mapping, as of requests: one proxy for all."""
    for kind in (Client, SyncClient):
        with pytest.raises(ArgumentTypeError, match="proxy: expected the URL"):
            kind("t", proxy=proxy)


async def test_a_proxy_without_a_scheme() -> None:
    """`host:port` is a proxy that speaks HTTP."""
    from .test_sessions import KEPT

    with Wire(KEPT) as proxy:
        async with Client(
            "t", base_url="http://api.invalid", proxy=f"127.0.0.1:{proxy.port}"
        ) as client:
            await client.accounts.current()
        assert proxy.requests[0].line.startswith("GET http://api.invalid/v1/account")


# -- Certificates ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure() -> Iterator[Emulator]:
    """Run an emulator that speaks TLS."""
    with Emulator(tls=True) as running:
        yield running


@pytest.mark.parametrize("kind", [str, Path])
async def test_the_path_of_an_authority(
    secure: Emulator, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ssl=` takes the path of a file with authorities."""
    path = kind(secure.env["SSL_CERT_FILE"])
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with Client(secure.token, base_url=secure.url, ssl=path) as client:
        assert await client.run(HELLO, {"text": "x"}) == "hello x"


def test_the_path_of_an_authority_through_the_facade(secure: Emulator) -> None:
    """Through the facade, too."""
    with SyncClient(secure.token, base_url=secure.url, ssl=secure.env["SSL_CERT_FILE"]) as client:
        assert client.run(HELLO, {"text": "x"}) == "hello x"


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    """A path without certificates is refused when the client is made."""
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    cases: list[tuple[Any, type[Exception], str]] = [
        (tmp_path / "missing.pem", ArgumentError, "No such file"),
        (str(empty), ArgumentError, "no certificates"),
        ("a\0b", ArgumentError, "cannot be read"),
        (5, ArgumentTypeError, "expected an SSLContext"),
        (b"/ca.pem", ArgumentTypeError, "expected an SSLContext"),
    ]
    for given, kind, said in cases:
        for client in (Client, SyncClient):
            with pytest.raises(kind, match="ssl: ") as caught:
                client("t", ssl=given)
            assert said in str(caught.value)


async def test_authorities_that_the_environment_names_anew(
    secure: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client trusts the authorities that are in the file when it opens its first connection."""
    file = tmp_path / "authorities.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    right = Path(secure.env["SSL_CERT_FILE"]).read_bytes()
    for number, (content, is_right) in enumerate(
        [
            (trustme.CA().cert_pem.bytes(), False),
            (right, True),
            (trustme.CA().cert_pem.bytes(), False),
        ]
    ):
        file.write_bytes(content)
        os.utime(file, (number, number))
        async with Client(secure.token, base_url=secure.url) as client:
            if is_right:
                assert await client.run(HELLO, {"text": "x"}) == "hello x"
            else:
                with pytest.raises(CertificateError):
                    await client.run(HELLO, {"text": "x"})


async def test_certificates_are_looked_at_once(
    secure: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is not accepted is told at once, with its host and the likely cause."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with Client(secure.token, base_url=secure.url) as client:
        for call in (
            lambda: client.accounts.current(),
            lambda: client.run(HELLO, {"text": "x"}),
            lambda: client.files.create(b"x"),
        ):
            with pytest.raises(CertificateError) as caught:
                await call()
            assert caught.value.host == "127.0.0.1"
            for said in ("127.0.0.1", "ssl=", "SSL_CERT_FILE", "nothing was sent"):
                assert said in str(caught.value)
        assert client.stats.retried == 0


async def test_a_certificate_for_another_host(
    secure: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause fits: a name that is not in the certificate, and one that cannot be looked up elsewhere."""
    context = ssl.create_default_context(cafile=secure.env["SSL_CERT_FILE"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        authority = trustme.CA()
        wrong = authority.issue_cert("other.example")
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        wrong.configure_cert(served)
        authority.configure_trust(context)

        def accept() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                served.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=accept)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        async with Client("t", base_url=url, ssl=context) as client:
            with pytest.raises(CertificateError, match="is for another") as caught:
                await client.accounts.current()
        thread.join()
        assert "SSL_CERT_FILE" not in str(caught.value)


# -- Event loops -------------------------------------------------------------------------------

LOOPS = """
import asyncio, gc, sys
import replicate_async
from replicate_async import Client

client = Client() if sys.argv[1] == "own" else replicate_async
for _ in range(3):
    loop = asyncio.new_event_loop()
    print(loop.run_until_complete(client.run("replicate/hello-world", {"text": "x"})))
    loop.close()
    if sys.argv[2] == "collect":
        gc.collect()
"""


@pytest.mark.parametrize("whose", ["own", "default"])
@pytest.mark.parametrize("then", ["collect", "exit"])
def test_loops_one_after_the_other(emulator: Emulator, whose: str, then: str) -> None:
    """Loops that are closed without the end of `asyncio.run` leave no complaint of aiohttp behind."""
    done = subprocess.run(
        [sys.executable, "-c", LOOPS, whose, then],
        env={**os.environ, **emulator.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "hello x\n" * 3
    assert done.stderr == ""


# -- Logs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_limits", [True, False])
def test_a_throttled_fan_out_is_quiet(client_limits: bool) -> None:
    """Without logging set up, hundreds of refusals by the rate limit are a line or a few, not hundreds."""
    code = """
import asyncio, sys
from replicate_async import Client, RateLimit

async def main():
    limit = RateLimit() if sys.argv[1] == "True" else False
    async with Client(rate_limit=limit) as client:
        inputs = [{"text": str(n)} for n in range(150)]
        outcomes = [o async for o in client.map("replicate/hello-world", inputs, concurrency=64)]
        print(sum(o.error is None for o in outcomes))

asyncio.run(main())
"""
    from replicate_async.testing import RateLimits

    with Emulator(rate_limits=RateLimits(creates=20, per=1.0)) as emulator:
        done = subprocess.run(
            [sys.executable, "-c", code, str(client_limits)],
            env={**os.environ, **emulator.env},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "150\n"
    print(len(done.stderr.splitlines()))
    assert len(done.stderr.splitlines()) <= 1, done.stderr[:2000]
