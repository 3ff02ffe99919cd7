"""Starting, stopping, clock, ledger, middleware, command and plugin."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web

from replicate_async.testing import TOKEN, Clock, Emulator, Request

from .conftest import HELLO, Api

pytest_plugins = ["pytester"]
BODY = {"version": HELLO, "input": {"text": "a"}}


async def test_in_the_current_loop() -> None:
    """`async with` serves in the current loop and leaves no task behind."""
    before = asyncio.all_tasks()
    async with Emulator() as emulator, aiohttp.ClientSession() as session:
        api = Api(emulator, session)
        created = await api.run(HELLO, {"text": "a"})
        assert (await api.finished(created["id"]))["output"] == "hello a"
    assert asyncio.all_tasks() == before


def test_in_a_thread() -> None:
    """`with` serves in a thread of its own, which is gone afterwards."""
    before = threading.active_count()
    with Emulator() as emulator:
        assert threading.active_count() == before + 1
        host, port = emulator.url.removeprefix("http://").split(":")
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_starts_once() -> None:
    """An emulator is good for one start, and says so; before it there is no URL."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not started"):
        _ = emulator.url
    with emulator:
        pass
    with pytest.raises(RuntimeError, match="once"):
        emulator.start()


def test_taken_port() -> None:
    """A port in use is an OSError at the start, and nothing stays open."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="in use"),
        Emulator(port=taken.getsockname()[1]),
    ):
        pass


@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_stopping_is_bounded(where: str) -> None:
    """Hanging models, waiting creates and open streams do not delay the end."""
    release = threading.Event()
    emulator = Emulator()

    @emulator.model("acme/hang", streams=True)
    def hang() -> str:
        release.wait(60)
        return ""

    @emulator.model("acme/sleep")
    async def sleep() -> str:
        await asyncio.Event().wait()
        return ""

    async def waits(api: Api, version: str) -> None:
        with pytest.raises(aiohttp.ClientError):
            await api.run(version, {}, Prefer="wait")

    async def use(api: Api, waiting: list[asyncio.Task[None]]) -> None:
        versions = [
            (await api("GET", f"/models/acme/{name}")).json()["latest_version"]["id"]
            for name in ("hang", "sleep")
        ]
        created = await api.run(versions[0], {})
        response = await api.session.get(created["urls"]["stream"])
        responses.append(response)
        assert await response.content.readany() == b": hi\n\n"
        waiting.append(asyncio.create_task(waits(api, versions[1])))
        async with asyncio.timeout(20):
            while len(emulator.ledger.created()) < 2:
                await api("GET", "/account")

    waiting: list[asyncio.Task[None]] = []
    responses: list[aiohttp.ClientResponse] = []
    async with aiohttp.ClientSession() as session:
        api = Api(emulator, session)
        if where == "thread":
            with emulator:
                await use(api, waiting)
                start = time.monotonic()
        else:
            async with emulator:
                await use(api, waiting)
                start = time.monotonic()
        assert time.monotonic() - start < 3
        await asyncio.gather(*waiting)
        responses.pop().close()
    release.set()


async def test_a_model_that_resists_cancelling() -> None:
    """A coroutine that swallows its cancellation cannot keep the emulator alive."""
    let_go = asyncio.Event()
    emulator = Emulator()

    @emulator.model("acme/stubborn")
    async def stubborn() -> str:
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()
        return ""

    try:
        async with emulator, aiohttp.ClientSession() as session:
            api = Api(emulator, session)
            version = (await api("GET", "/models/acme/stubborn")).json()["latest_version"]["id"]
            created = await api.run(version, {})
            await api.until(created["id"], "processing")
            start = time.monotonic()
        assert time.monotonic() - start < 4
    finally:
        let_go.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_a_vanished_client_does_not_stop_its_prediction(api: Api, emulator: Emulator) -> None:
    """A prediction runs on when the connection that waits for it is lost."""
    gate = threading.Event()

    @emulator.model("acme/wait")
    def wait() -> str:
        assert gate.wait(20)
        return "done"

    version = (await api("GET", "/models/acme/wait")).json()["latest_version"]["id"]
    waiting = asyncio.create_task(api.run(version, {}, Prefer="wait"))
    async with asyncio.timeout(20):
        while not emulator.ledger.created():
            await api("GET", "/account")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    (life,) = emulator.ledger.created()
    assert (await api.finished(life.id))["output"] == "done"


async def test_clock() -> None:
    """A clock starts where told, jumps, and runs at its speed."""
    clock = Clock(start=1_000_000.0, speed=1000)
    assert clock.now().isoformat().startswith("1970-01-12T13:46:4")
    before = clock.time()
    clock.advance(3600)
    assert clock.time() >= before + 3600
    started = time.monotonic()
    with Emulator(clock=clock) as emulator:
        emulator.add_model("acme/cold", lambda: 1, setup=100)
        async with aiohttp.ClientSession() as session:
            api = Api(emulator, session)
            version = (await api("GET", "/models/acme/cold")).json()["latest_version"]["id"]
            created = await api.run(version, {})
            assert (await api.finished(created["id"]))["output"] == 1
    assert 0.1 <= time.monotonic() - started < 20
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


async def test_ledger(api: Api, emulator: Emulator) -> None:
    """The ledger knows requests, by any of their marks, and the lives of predictions."""
    created = await api.run(HELLO, {"text": "a"}, Prefer="wait")
    await api("GET", f"/predictions/{created['id']}?x=1")
    await api("GET", "/predictions/none")
    (create,) = emulator.ledger.requests(operation="predictions.create")
    assert (create.method, create.path, create.status) == ("POST", "/v1/predictions", 201)
    assert create.json() == BODY
    assert create.headers["prefer"] == "wait"
    assert [r.query for r in emulator.ledger.requests(method="GET")] == ["x=1", ""]
    assert len(emulator.ledger.requests(path="/v1/predictions/*")) == 2
    assert len(emulator.ledger.requests(status=404)) == 1
    (life,) = emulator.ledger.created()
    assert [what for what, _ in life.events] == ["created", "started", "succeeded", "fetched"]
    assert (life.id, life.input, life.model) == (
        created["id"],
        {"text": "a"},
        "replicate/hello-world",
    )
    assert emulator.ledger.fetched() == emulator.ledger.finished() == [life]
    assert emulator.ledger.running() == emulator.ledger.cancelled() == []
    emulator.ledger.clear()
    assert emulator.ledger.requests() == []
    assert emulator.ledger.created() == []


async def test_middlewares_see_every_origin(api: Api, emulator: Emulator) -> None:
    """A middleware sees each request with its operation, and may answer in its place."""
    seen: list[tuple[str, str]] = []

    async def wire(
        request: web.BaseRequest,
        record: Request,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        seen.append((record.origin, record.operation))
        if record.operation == "hardware.list":
            return web.Response(status=503)
        return await answer(request)

    emulator.middlewares.append(wire)
    assert (await api("GET", "/account")).status == 200
    assert (await api("GET", "/hardware")).status == 503
    await api("GET", f"{emulator.files_url}/x", token=None)
    await api("GET", f"{emulator.stream_url}/x", token=None)
    assert seen == [
        ("api", "account.get"),
        ("api", "hardware.list"),
        ("files", ""),
        ("stream", ""),
    ]
    assert emulator.ledger.requests(operation="hardware.list")[0].status == 503


async def test_broken_uploads_are_no_errors(
    emulator: Emulator, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that hangs up in the middle of its body creates nothing and causes no log."""
    host, port = emulator.url.removeprefix("http://").split(":")
    for path in ("predictions", "files"):
        head = (
            f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {emulator.token}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="content"\r\n\r\nabc'
        )
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode())
            async with asyncio.timeout(20):
                while not emulator.ledger.requests(path=f"/v1/{path}", method="POST"):
                    await api("GET", "/account")
    assert (await api("GET", "/files")).json()["results"] == []
    assert emulator.ledger.created() == []
    assert [record for record in caplog.records if record.name != "asyncio"] == []


async def test_expect_continue(api: Api) -> None:
    """A client that waits for `100 Continue` before its body gets it."""
    async with asyncio.timeout(20):
        headers = {"Authorization": f"Bearer {api.emulator.token}"}
        url = f"{api.emulator.url}/v1/predictions"
        async with api.session.post(url, json=BODY, headers=headers, expect100=True) as response:
            assert response.status == 201


async def test_latency() -> None:
    """`latency` makes each request slower."""
    with Emulator(latency=0.05) as emulator:
        async with aiohttp.ClientSession() as session:
            start = time.monotonic()
            await Api(emulator, session)("GET", "/account")
            assert time.monotonic() - start >= 0.05


def test_models_can_be_added_any_time(emulator: Emulator) -> None:
    """The decorator returns the function, adds versions, and checks the name."""

    def one() -> int:
        return 1

    assert emulator.model("acme/add")(one) is one
    first = emulator.add_model("acme/other", lambda: 1)
    second = emulator.add_model("acme/other", lambda: 1)
    assert first != second
    assert re.fullmatch("[0-9a-f]{64}", first or "")
    for name in ("acme", "acme/", "/x", "a/b/c", "a/b:c"):
        with pytest.raises(ValueError, match="owner/name"):
            emulator.add_model(name, lambda: 1)


def test_built_in_can_be_left_out() -> None:
    """`built_in=False` starts without models."""
    assert Emulator(built_in=False).models() == []
    assert "emulator/painter" in dict(Emulator().models())


def _command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "replicate_async", "emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command(number: signal.Signals) -> None:
    """The command prints URL and token, serves, and ends cleanly on Ctrl-C."""
    with _command("--port", "0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines: list[str] = []
        while "Stop with Ctrl-C." not in lines:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            lines.append(line.rstrip("\n"))
        url = lines[0].rpartition(" ")[2]
        assert f"export REPLICATE_API_TOKEN={TOKEN}" in lines
        assert f"export REPLICATE_BASE_URL={url}" in lines
        assert any("replicate/hello-world" in line for line in lines)
        host, port = url.removeprefix("http://").split(":")
        socket.create_connection((host, int(port))).close()
        process.send_signal(number)
        out, error = process.communicate(timeout=20)
    assert (process.returncode, error, out) == (0, "", "Stopped.\n")


def test_command_with_a_taken_port() -> None:
    """A taken port is one line on stderr and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _command("--port", str(port)) as process:
            _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert error.strip().startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert len(error.splitlines()) == 1


def test_plugin(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture gives a running emulator and points the environment at it."""
    # Loaded by name, so that it makes no difference whether the package is installed.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import json, os, urllib.request

        def test_it(replicate_emulator):
            assert os.environ["REPLICATE_BASE_URL"] == replicate_emulator.url
            request = urllib.request.Request(
                replicate_emulator.url + "/v1/account",
                headers={"Authorization": "Bearer " + os.environ["REPLICATE_API_TOKEN"]},
            )
            with urllib.request.urlopen(request) as response:
                assert json.load(response)["username"] == "acme"
        """
    )
    arguments = ["-p", "replicate_async.testing._pytest", "-p", "no:cacheprovider"]
    result = pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1)


def test_plugin_is_light() -> None:
    """Loading the plugin imports none of the packages that take time."""
    code = (
        "import sys, pytest; before = set(sys.modules); import replicate_async.testing._pytest; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "sys.exit(', '.join(new & {'aiohttp', 'attr', 'cattrs', 'anyio', 'asyncio', 'ssl'}) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
