"""Sessions: one for each event loop and process, opened late, closed cleanly; proxies and TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import textwrap
import threading
import tomllib
from pathlib import Path

import aiohttp
import pytest

import replicate_async
from replicate_async import Retry, exceptions

from .wire import (
    ACCOUNT,
    CLOSE,
    STALL,
    TOKEN,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    file_at,
    json,
    redirect,
)

KEPT = json(ACCOUNT, keep=True)
ONCE = Retry(attempts=1)


def script(wire: Wire, text: str, **environment: str) -> str:
    """Run a script under `-X dev -W error`; return what it prints, and fail if it complains."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(Path(replicate_async.__file__).parents[1]),
            "REPLICATE_API_TOKEN": TOKEN,
            "REPLICATE_BASE_URL": wire.url,
            **environment,
        },
    )
    # asyncio's debug mode tells of slow steps, as the import of a module is.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert complaints == []
    assert done.returncode == 0
    return done.stdout


# -- Loops -------------------------------------------------------------------------------------


async def test_requests_share_a_connection() -> None:
    """Requests one after the other use one connection, through views of the client, too."""
    with Wire(KEPT) as wire:
        async with client_of(wire) as client:
            for _ in range(3):
                await client.accounts.current()
                await client.with_options(timeout=5).accounts.current()
        assert len(wire.requests) == 6
        assert wire.connections == 1


def test_nothing_is_opened_before_the_first_request() -> None:
    """A client can be made without a loop, and opens nothing."""
    with Wire(KEPT) as wire:
        client_of(wire)
        assert wire.connections == 0


def test_a_client_survives_several_loops() -> None:
    """Each `asyncio.run` has its own session, and leaves none behind."""
    with Wire(KEPT) as wire:
        client = client_of(wire)
        for _ in range(3):
            assert asyncio.run(client.accounts.current()).username == "acme"
        assert wire.connections == 3
        asyncio.run(client.aclose())
        with pytest.raises(exceptions.ClientClosed):
            asyncio.run(client.accounts.current())


def test_two_loops_at_once_share_a_client() -> None:
    """Two threads, each with a loop of its own, use one client at the same time."""
    with Wire(KEPT) as wire:
        client = client_of(wire)
        together = threading.Barrier(2, timeout=10)
        names: list[str | None] = []

        async def several() -> None:
            for _ in range(20):
                account = await client.accounts.current()
                names.append(account.username)

        def work() -> None:
            together.wait()
            asyncio.run(several())

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert names == ["acme"] * 40
        assert wire.connections == 2


async def test_many_first_requests_open_one_session() -> None:
    """Requests that start together open one session, and all its connections close with it."""
    with Wire(KEPT) as wire:
        async with client_of(wire) as client:
            await asyncio.gather(*(client.accounts.current() for _ in range(20)))
        assert len(wire.requests) == 20
        assert wire.connections <= 20


# -- Closing -----------------------------------------------------------------------------------


async def test_closing_twice_is_closing_once() -> None:
    """`aclose` may be called again, also by several at a time, and before any request."""
    with Wire(KEPT) as wire:
        unused = client_of(wire)
        await unused.aclose()
        client = client_of(wire)
        await client.accounts.current()
        await asyncio.gather(client.aclose(), client.aclose())
        await client.aclose()


async def test_a_closed_client_says_so() -> None:
    """After `aclose`, requests of the client, its views and its files raise ClientClosed."""
    with Wire(KEPT) as wire:
        client = client_of(wire)
        file = file_at(client, f"{wire.url}/f")
        view = client.with_options(timeout=5)
        await client.accounts.current()
        await client.aclose()
        for use in (client.accounts.current, view.accounts.current, file.read):
            with pytest.raises(exceptions.ClientClosed):
                await use()
        with pytest.raises(exceptions.ClientClosed):
            await client.run("acme/greeter", {"a": b"1", "b": b"2", "c": b"3"})
        assert len(wire.requests) == 1


async def test_closing_ends_what_is_under_way() -> None:
    """Requests that wait for answers when their client is closed end with an error of ours."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(request: Request) -> Step:
        loop.call_soon_threadsafe(arrived.set)
        return STALL

    with Wire(tell) as wire:
        client = client_of(wire)
        task = asyncio.create_task(client.accounts.current())
        await arrived.wait()
        await client.aclose()
        async with asyncio.timeout(10):
            with pytest.raises(exceptions.ReplicateException):
                await task


async def test_the_callers_session_is_used_and_left_open() -> None:
    """A session that the caller brings makes the requests, and is not closed."""
    with Wire(KEPT) as wire:
        async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as session:
            async with client_of(wire, session=session) as client:
                await client.accounts.current()
            assert not session.closed
            assert wire.requests[0].headers["x-mine"] == "yes"


async def test_a_closed_session_of_the_caller_is_named() -> None:
    """A session that is closed is an argument error."""
    with Wire(KEPT) as wire:
        async with aiohttp.ClientSession() as session:
            pass
        with pytest.raises(exceptions.ArgumentError, match="session"):
            await client_of(wire, session=session).accounts.current()


async def test_hidden_retries_that_cannot_be_disabled_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the attribute that disables aiohttp's own retries, no request is made, and the error says why."""

    class Changed:
        closed = False

        def __init__(self, connector: aiohttp.TCPConnector, **_: object) -> None:
            self._connector = connector

        async def close(self) -> None:
            await self._connector.close()
            self.closed = True

    monkeypatch.setattr(aiohttp, "ClientSession", Changed)
    with Wire(KEPT) as wire:
        async with client_of(wire) as client:
            for _ in range(2):
                with pytest.raises(
                    exceptions.ReplicateException, match=f"aiohttp {aiohttp.__version__}"
                ):
                    await client.accounts.current()
        assert wire.connections == 0


def test_the_versions_of_aiohttp_are_limited() -> None:
    """The requirement ends before the next major version, which may not have that attribute."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "aiohttp>=3.14,<4" in project["project"]["dependencies"]


def test_a_script_that_never_closes_is_clean() -> None:
    """The default client, used in several loops and never closed, leaves no warning behind."""
    with Wire(KEPT) as wire:
        printed = script(
            wire,
            """
            import asyncio, gc
            import replicate_async as replicate

            async def main():
                print((await replicate.accounts.current()).username)
                client = replicate.Client()
                await client.accounts.current()
                del client
                gc.collect()
                await asyncio.gather(*(replicate.accounts.current() for _ in range(5)))

            asyncio.run(main())
            asyncio.run(main())
            with asyncio.Runner() as runner:
                runner.run(main())
                runner.run(main())
            """,
        )
        assert printed.split() == ["acme"] * 4


def test_a_script_that_is_cut_short_is_clean() -> None:
    """Neither a cancelled request nor an abandoned download leaves a warning behind."""
    with Wire(answer(200, b"x" * 100_000)) as wire:
        script(
            wire,
            """
            import asyncio, os
            import replicate_async as replicate

            async def main():
                client = replicate.Client()
                file = replicate.FileOutput(
                    os.environ["REPLICATE_BASE_URL"] + "/f", transport=client._context.transport
                )
                async for chunk in file:
                    break
                task = asyncio.create_task(client.files.list()._fetch())
                await asyncio.sleep(0)
                task.cancel()

            asyncio.run(main())
            """,
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_has_connections_of_its_own() -> None:
    """A child opens its own session; the parent's goes on, on the connection that it had."""
    with Wire(KEPT) as wire:
        script(
            wire,
            """
            import asyncio, os, warnings
            import replicate_async as replicate

            async def look():
                await replicate.accounts.current()

            with asyncio.Runner() as runner:
                runner.run(look())
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    child = os.fork()
                if not child:
                    try:
                        asyncio.run(look())
                        asyncio.run(look())
                    except BaseException:
                        os._exit(1)
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                assert os.waitstatus_to_exitcode(status) == 0
                runner.run(look())
            """,
        )
        assert [request.connection for request in wire.requests] == [1, 2, 3, 1]


# -- Sockets -----------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel does not tell")
async def test_connections_are_probed() -> None:
    """TCP keep-alive is on: the kernel's timer of an idle connection says so."""
    with Wire(KEPT) as wire:
        async with client_of(wire) as client:
            await client.accounts.current()
            theirs = f":{wire.port:04X}"
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            established = [line for line in lines if line[3] == "01"]
            (timer,) = (line[5] for line in established if line[2].endswith(theirs))
    assert timer.startswith("02:")


# -- Proxies -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}"])
async def test_the_proxy_of_the_environment_is_used(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY and ALL_PROXY are honoured, with or without a scheme."""
    with Wire(KEPT) as proxy:
        monkeypatch.setenv(name, form.format(proxy.port))
        async with client_of("http://api.invalid:8080") as client:
            await client.accounts.current()
        assert proxy.requests[0].line == "GET http://api.invalid:8080/v1/account HTTP/1.1"


@pytest.mark.parametrize("bypass", ["127.0.0.1", "example.test, 127.0.0.1", "*"])
async def test_no_proxy_is_honoured(bypass: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of NO_PROXY are reached directly."""
    with Wire(CLOSE) as proxy, Wire(KEPT) as wire:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", bypass)
        async with client_of(wire) as client:
            await client.accounts.current()
        assert proxy.connections == 0
        assert len(wire.requests) == 1


async def test_the_callers_proxy_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """`proxy=` is used whatever the environment says, with its credentials."""
    with Wire(CLOSE) as other, Wire(KEPT) as proxy:
        monkeypatch.setenv("http_proxy", other.url)
        monkeypatch.setenv("no_proxy", "*")
        url = f"http://user:pass@127.0.0.1:{proxy.port}"
        async with client_of("http://api.invalid", proxy=url) as client:
            await client.accounts.current()
        assert other.connections == 0
        assert proxy.requests[0].line.startswith("GET http://api.invalid/v1/account")
        assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    "url", ["socks5://127.0.0.1:9", "http://[", "ftp://127.0.0.1:9", "http://"]
)
@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_a_proxy_that_cannot_be_used_is_an_error_of_ours(
    url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of another kind, or no URL at all, is told as an error of ours."""
    if how == "environment":
        monkeypatch.setenv("http_proxy", url)
    with pytest.raises(exceptions.ReplicateException):
        async with client_of(
            "http://api.invalid", proxy=url if how == "argument" else None, retry=ONCE
        ) as client:
            await client.accounts.current()


async def test_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of .netrc are not sent, to the API or elsewhere."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login mallory password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Wire(KEPT) as wire, Wire(answer(200, b"x")) as delivery:
        async with client_of(wire) as client:
            await client.accounts.current()
            await file_at(client, f"{delivery.url}/f").read()
        assert wire.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in delivery.requests[0].headers


# -- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for 127.0.0.1 that nobody has signed."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    options = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
    try:
        subprocess.run([*command.split(), *options, *files], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no openssl to make a certificate with")
    path.write_bytes(Path(f"{path}.key").read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def served(certificate: Path) -> ssl.SSLContext:
    """Return the server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_certificates_are_verified(certificate: Path) -> None:
    """A server with a certificate that nobody trusts is not spoken to, unless `ssl` says so."""
    with Wire(KEPT, tls=served(certificate)) as wire:
        async with client_of(wire, retry=ONCE) as client:
            with pytest.raises(exceptions.ConnectError):
                await client.accounts.current()
        assert wire.requests == []
        trusting = ssl.create_default_context(cafile=certificate)
        for accepted in (trusting, False):
            async with client_of(wire, ssl=accepted) as client:
                await client.accounts.current()
        assert len(wire.requests) == 2


async def test_redirects_do_not_leave_tls(certificate: Path) -> None:
    """A redirect from https to http is refused, and nothing is sent there."""
    with Wire(KEPT) as plain:
        with Wire(redirect(f"{plain.url}/a"), tls=served(certificate)) as wire:
            trusting = ssl.create_default_context(cafile=certificate)
            async with client_of(wire, ssl=trusting) as client:
                with pytest.raises(exceptions.RefusedRedirect, match="https to http"):
                    await client.accounts.current()
        assert plain.connections == 0
