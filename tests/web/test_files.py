"""Output files for browsers, and what their servers say of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import httpx
import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar.types import ASGIApp

from replicate_async import Client, FileOutput, Limits, Retry, Timeout, file_response, sync
from replicate_async.exceptions import (
    ArgumentTypeError,
    FileExpired,
    FileOutputError,
    HostNotAllowed,
)
from replicate_async.testing import Emulator, Fault, OutputFile
from replicate_async.types import FileStat

from .conftest import until

CONTENT = bytes(range(256)) * 4096
NAME = 'Männer "und" Frauen.mp4'

Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def emulator() -> Any:
    """Run an emulator with faults, and a model that makes a file."""
    with Emulator(wire=True) as running:

        @running.model("acme/painter", official=True)
        def painter(
            name: str = "clip.mp4", kind: str = "video/mp4", size: int = 2**20
        ) -> OutputFile:
            return OutputFile(CONTENT[:size], name, kind)

        yield running


async def painted(client: Client, **input: Any) -> FileOutput:
    """Return an output."""
    output = await client.run("acme/painter", input)
    assert isinstance(output, FileOutput)
    return output


# -- Apps --------------------------------------------------------------------------------------


@asynccontextmanager
async def on_uvicorn(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI app."""
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve())
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True


def in_fastapi(output: FileOutput, **options: Any) -> AbstractAsyncContextManager[str]:
    """Serve a file with FastAPI."""
    app = FastAPI()

    @app.api_route("/file", methods=["GET", "HEAD"], response_class=StreamingResponse)
    async def file(request: Request) -> Any:
        response = file_response(output, request, **options)
        assert isinstance(response, StreamingResponse)
        return response

    return on_uvicorn(app)


def in_litestar(output: FileOutput, **options: Any) -> AbstractAsyncContextManager[str]:
    """Serve a file with Litestar."""

    @get("/file")
    async def file(request: LitestarRequest[Any, Any, Any]) -> ASGIApp:
        app: ASGIApp = file_response(output, request, **options)
        return app

    return on_uvicorn(Litestar([file]))


def in_asgi(output: FileOutput, **options: Any) -> AbstractAsyncContextManager[str]:
    """Serve a file with a bare ASGI app."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await file_response(output, scope, **options)(scope, receive, send)

    return on_uvicorn(app)


@asynccontextmanager
async def on_aiohttp(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """Serve a handler with aiohttp."""
    app = web.Application()
    app.router.add_get("/file", handler)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def in_aiohttp(output: FileOutput, **options: Any) -> AbstractAsyncContextManager[str]:
    """Serve a file with aiohttp."""

    async def file(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = file_response(output, request, **options)
        return response

    return on_aiohttp(file)


ALL: list[Serve] = [in_fastapi, in_asgi, in_aiohttp]
apps = pytest.mark.parametrize("serve", ALL)


async def fetch(origin: str, method: str = "GET", **headers: str) -> httpx.Response:
    """Request the file of an app."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient() as browser:
        return await browser.request(method, f"{origin}/file", headers=names, timeout=20)


# -- What servers say --------------------------------------------------------------------------


async def test_stat(client: Client, emulator: Emulator) -> None:
    """Size and type are told without the content, and the object knows them then."""
    output = await painted(client, name="clip", kind="video/webm", size=1234)
    found = await output.stat()
    assert isinstance(found, FileStat)
    assert (found.size, found.content_type) == (1234, "video/webm")
    assert found.etag
    assert (output.size, output.content_type, output.name) == (1234, "video/webm", "clip.webm")
    [request] = [each for each in emulator.ledger.requests() if each.method == "HEAD"]
    assert not request.token_sent


async def test_one_connection(emulator: Emulator) -> None:
    """Whoever allows for one connection at a time gets it."""
    options: dict[str, Any] = {"base_url": emulator.url, "limits": Limits(connections=1)}
    async with Client(emulator.token, **options) as client:
        output = await painted(client, size=1234)
        async with asyncio.timeout(10):
            assert (await output.stat()).size == 1234
            async with in_asgi(output) as origin:
                assert (await fetch(origin)).content == CONTENT[:1234]


async def test_stat_of_data(client: Client, emulator: Emulator) -> None:
    """A data URI needs no request."""
    before = len(emulator.ledger.requests())
    found = await client.output("data:image/png;base64,QUJDRA==").stat()
    assert found == FileStat(4, "image/png")
    assert await client.output("data:,a%20b").stat() == FileStat(3, "text/plain")
    assert len(emulator.ledger.requests()) == before
    with pytest.raises(FileOutputError):
        await FileOutput("data:image/png").stat()


@pytest.mark.parametrize("status", [400, 403, 405, 501])
async def test_stat_where_head_is_not_allowed(client: Client, status: int) -> None:
    """Signed URLs may allow GET only: the first byte tells the same."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(f"{request.method} {request.headers.get('Range')}")
        if request.method == "HEAD":
            return web.Response(status=status)
        headers = {"Content-Range": "bytes 0-0/77", "Content-Type": "audio/mpeg"}
        return web.Response(status=206, body=b"x", headers=headers)

    async with on_aiohttp(handle) as origin:
        found = await client.output(f"{origin}/file").stat()
    assert found == FileStat(77, "audio/mpeg")
    assert asked == ["HEAD None", "GET bytes=0-0"]


async def test_stat_without_ranges(client: Client) -> None:
    """A server that knows neither HEAD nor ranges begins to send everything, which is not read."""
    sent = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        if request.method == "HEAD":
            return web.Response(status=405)
        response = web.StreamResponse(headers={"Content-Length": str(2**30)})
        await response.prepare(request)
        for _ in range(2**10):
            await response.write(bytes(2**20))
            sent += 1
        return response

    async with on_aiohttp(handle) as origin:
        assert (await client.output(f"{origin}/file").stat()).size == 2**30
    assert sent < 64


@pytest.mark.parametrize("answer", ["nothing", "empty"])
async def test_stat_of_little(client: Client, answer: str) -> None:
    """A size that is not told is None; an empty file has no first byte."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=405)
        if answer == "empty":
            return web.Response(status=416, headers={"Content-Range": "bytes */0"})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"some")
        return response

    async with on_aiohttp(handle) as origin:
        found = await client.output(f"{origin}/file").stat()
    assert found.size == (0 if answer == "empty" else None)


async def test_stat_of_what_is_gone(client: Client, emulator: Emulator) -> None:
    """An expired file is an error of its own, and a host that is not allowed is not asked."""
    output = await painted(client)
    limited = client.with_options(output_hosts=["replicate.delivery"])
    with pytest.raises(HostNotAllowed):
        await limited.output(output.url).stat()
    emulator.clock.advance(2 * 3600)
    with pytest.raises(FileExpired):
        await output.stat()


async def test_stat_is_repeated(client: Client, emulator: Emulator) -> None:
    """Transient failures are repeated."""
    output = await painted(client)
    emulator.wire.inject(Fault.RESET_BEFORE_EXECUTION, origin="files", times=1)
    assert (await output.stat()).size == len(CONTENT)


def test_stat_through_the_facade(emulator: Emulator) -> None:
    """The facade has it, too."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        output = client.run("acme/painter", {"size": 10})
        assert output.stat().size == 10
        assert output.size == 10


# -- The whole file, and parts of it -----------------------------------------------------------


@apps
async def test_file(client: Client, emulator: Emulator, serve: Serve) -> None:
    """Content, size, type, name and tag are those of the file."""
    output = await painted(client)
    async with serve(output) as origin:
        found = await fetch(origin)
    assert found.status_code == 200
    assert found.content == CONTENT
    assert found.headers["content-length"] == str(len(CONTENT))
    assert found.headers["content-type"] == "video/mp4"
    assert found.headers["content-disposition"] == 'inline; filename="clip.mp4"'
    assert found.headers["accept-ranges"] == "bytes"
    assert found.headers["etag"] == (await output.stat()).etag
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "sandbox"
    assert "public" not in found.headers["cache-control"]
    assert not emulator.ledger.leaks()
    assert output.size == len(CONTENT)


@apps
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=500000-", 500_000, 2**20),
        ("bytes=-100", 2**20 - 100, 2**20),
        ("bytes=1048575-9999999999", 2**20 - 1, 2**20),
    ],
)
async def test_ranges(client: Client, serve: Serve, asked: str, start: int, stop: int) -> None:
    """A part is passed on as a part."""
    output = await painted(client)
    async with serve(output) as origin:
        found = await fetch(origin, range=asked)
    assert found.status_code == 206
    assert found.content == CONTENT[start:stop]
    assert found.headers["content-range"] == f"bytes {start}-{stop - 1}/{2**20}"
    assert found.headers["content-length"] == str(stop - start)
    assert found.headers["content-type"] == "video/mp4"


@apps
async def test_ranges_that_are_not_there(client: Client, serve: Serve) -> None:
    """A range behind the end is refused; one that is malformed, or several, are ignored."""
    output = await painted(client)
    async with serve(output) as origin:
        found = await fetch(origin, range="bytes=1048576-")
        assert found.status_code == 416
        assert found.headers["content-range"] == "bytes */1048576"
        assert found.content == b""
        for ignored in ("bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-"):
            found = await fetch(origin, range=ignored)
            assert (found.status_code, len(found.content)) == (200, len(CONTENT)), ignored


@apps
async def test_conditions(client: Client, serve: Serve) -> None:
    """A download resumes if the file is the same, and what the browser has is not sent again."""
    output = await painted(client)
    tag = (await output.stat()).etag
    assert tag is not None
    async with serve(output) as origin:
        same = await fetch(origin, range="bytes=10-19", if_range=tag)
        other = await fetch(origin, range="bytes=10-19", if_range='"other"')
        known = await fetch(origin, if_none_match=tag)
    assert (same.status_code, same.content) == (206, CONTENT[10:20])
    assert (other.status_code, other.content) == (200, CONTENT)
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == tag


@apps
async def test_head(client: Client, emulator: Emulator, serve: Serve) -> None:
    """HEAD has the same headers, and fetches no content."""
    output = await painted(client)
    async with serve(output) as origin:
        found = await fetch(origin, "HEAD")
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-length"] == str(len(CONTENT))
    assert found.headers["content-type"] == "video/mp4"
    assert found.headers["content-disposition"] == 'inline; filename="clip.mp4"'
    assert [each.method for each in emulator.ledger.requests() if "clip" in each.path] == ["HEAD"]


@apps
async def test_names(client: Client, serve: Serve) -> None:
    """Names cannot break out of their header; a download is one."""
    output = await painted(client)
    async with serve(
        output, filename='é"\r\nSet-Cookie: a=b\\../%41;.mp4', download=True
    ) as origin:
        found = await fetch(origin)
    said = found.headers["content-disposition"]
    assert said.startswith('attachment; filename="__')
    assert "; filename*=UTF-8''%C3%A9_" in said
    assert said.count('"') == 2
    assert "set-cookie" not in found.headers
    assert not {"\\", "/"} & set(said)


@apps
async def test_data_uris(client: Client, serve: Serve) -> None:
    """A data URI is served likewise, with its ranges."""
    output = client.output("data:image/png;base64,QUJDREVGR0g=")
    async with serve(output) as origin:
        whole = await fetch(origin)
        parts = [await fetch(origin, range=f"bytes={each}") for each in ("1-4", "-3", "7-", "8-")]
        head = await fetch(origin, "HEAD")
    assert (whole.status_code, whole.content) == (200, b"ABCDEFGH")
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["content-disposition"] == 'inline; filename="output.png"'
    assert [part.content for part in parts] == [b"BCDE", b"FGH", b"H", b""]
    assert [part.status_code for part in parts] == [206, 206, 206, 416]
    assert parts[0].headers["content-range"] == "bytes 1-4/8"
    assert parts[3].headers["content-range"] == "bytes */8"
    assert head.headers["content-length"] == "8"


@apps
@pytest.mark.parametrize("said", ["text/html\r\nSet-Cookie: a=b", "text/\ud800x", "multipart/a"])
async def test_data_uris_do_not_write_headers(serve: Serve, said: str) -> None:
    """The type in the data URI of a model is no way to the headers of the app."""
    async with serve(FileOutput(f"data:{said};base64,aGVsbG8=")) as origin:
        found = await fetch(origin)
    assert (found.status_code, found.content) == (200, b"hello")
    assert found.headers["content-type"] == "application/octet-stream"
    assert "set-cookie" not in found.headers


async def test_litestar(client: Client) -> None:
    """Litestar takes the response as it is."""
    output = await painted(client)
    async with in_litestar(output) as origin:
        found = await fetch(origin, range="bytes=5-9")
    assert (found.status_code, found.content) == (206, CONTENT[5:10])


async def test_headers_of_the_app(client: Client) -> None:
    """What an app sets on the response replaces what the file has."""
    output = await painted(client)
    app = FastAPI()
    ended: list[int] = []

    @app.get("/file")
    async def file(request: Request) -> Any:
        from starlette.background import BackgroundTask

        response = file_response(output, request)
        response.headers["Cache-Control"] = "max-age=60"
        response.set_cookie("seen", "1")
        response.background = BackgroundTask(ended.append, 1)
        return response

    async with on_uvicorn(app) as origin:
        found = await fetch(origin)
    assert found.headers.get_list("cache-control") == ["max-age=60"]
    assert found.headers["set-cookie"].startswith("seen=1")
    assert found.content == CONTENT
    assert ended == [1]

    async def handle(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = file_response(output, request)
        response.headers["Cache-Control"] = "max-age=60"
        return response

    async with on_aiohttp(handle) as origin:
        found = await fetch(origin)
    assert found.headers.get_list("cache-control") == ["max-age=60"]


# -- Failures ----------------------------------------------------------------------------------


@apps
async def test_what_is_gone(
    client: Client, emulator: Emulator, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """An expired file is a 404, and one that cannot be fetched a 502; only the log says more."""
    output = await painted(client)
    limited = client.with_options(output_hosts=["replicate.delivery"]).output(output.url)
    async with serve(limited) as origin:
        refused = await fetch(origin)
    emulator.clock.advance(2 * 3600)
    async with serve(output) as origin:
        gone = [await fetch(origin), await fetch(origin, "HEAD")]
    assert refused.status_code == 502
    assert refused.text == "The file cannot be fetched now.\n"
    assert [each.status_code for each in gone] == [404, 404]
    assert gone[0].text == "The file is gone.\n"
    assert gone[0].headers["cache-control"] == "no-store"
    assert "127.0.0.1" in caplog.text


@apps
async def test_servers_that_fail(serve: Serve) -> None:
    """Errors of the file's server are a 502, without what it says."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403, text="<secret/>", headers={"X-Internal": "1"})

    async with Client("r8_x", retry=Retry(attempts=1)) as client, on_aiohttp(handle) as upstream:
        async with serve(client.output(f"{upstream}/file?signature=abc")) as origin:
            found = await fetch(origin)
            head = await fetch(origin, "HEAD")
        async with serve(client.output("http://127.0.0.1:9/file")) as origin:
            down = await fetch(origin)
    assert (found.status_code, head.status_code, down.status_code) == (502, 502, 502)
    assert found.text == down.text == "The file cannot be fetched now.\n"
    assert "x-internal" not in found.headers


@apps
@pytest.mark.parametrize("part", [None, "bytes=1000-900000"])
async def test_connections_that_break(
    client: Client, emulator: Emulator, serve: Serve, part: str | None
) -> None:
    """A connection to the file's server that breaks is resumed; the browser notices nothing."""
    output = await painted(client)
    broken = emulator.wire.inject(Fault.RESET_IN_BODY, origin="files", times=2)
    async with serve(output) as origin:
        found = await (fetch(origin) if part is None else fetch(origin, range=part))
    assert broken.happened == 2
    assert found.content == (CONTENT if part is None else CONTENT[1000:900_001])


@apps
async def test_what_cannot_be_resumed(serve: Serve, client: Client) -> None:
    """Without a tag, a broken file ends as a broken response, and not as a short file."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(bytes(300_000))
        assert request.transport is not None
        request.transport.abort()
        return response

    async with (
        on_aiohttp(handle) as upstream,
        serve(client.output(f"{upstream}/file")) as origin,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(origin)


@apps
async def test_headers_of_strangers(serve: Serve, client: Client) -> None:
    """Headers of the file's server that are none, or that concern nobody else, are not passed on."""

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {
            "Content-Type": "text/html<script>",
            "ETag": "no tag",
            "Last-Modified": "now\u00ff",
            "Set-Cookie": "a=b",
            "Content-Disposition": "attachment; filename=evil.exe",
            "Location": "https://evil.example",
        }
        return web.Response(body=b"abc", headers=headers)

    async with (
        on_aiohttp(handle) as upstream,
        serve(client.output(f"{upstream}/file")) as origin,
    ):
        found = await fetch(origin)
    assert found.content == b"abc"
    assert found.headers["content-type"] == "application/octet-stream"
    assert not {"etag", "last-modified", "set-cookie", "location"} & set(found.headers)
    assert "evil" not in found.headers["content-disposition"]


@pytest.mark.parametrize("answer", ["bytes 0-9/10", "bytes 9-0/10", "", "bytes 5-10/10"])
async def test_parts_that_make_no_sense(client: Client, answer: str) -> None:
    """A part that was not asked for, or does not say where it belongs, is an error."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=206, body=b"0123456789", headers={"Content-Range": answer})

    async with (
        on_aiohttp(handle) as upstream,
        in_asgi(client.output(f"{upstream}/file")) as origin,
    ):
        found = await fetch(origin)
        part = await fetch(origin, range="bytes=0-9")
    assert found.status_code == 502
    assert part.status_code == (206 if answer == "bytes 0-9/10" else 502)


@pytest.mark.parametrize("status", [206, 304, 416])
async def test_answers_to_what_was_not_asked(client: Client, status: int) -> None:
    """A browser that asks for the whole file is not told that it has it, or that there is no such part."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Content-Range": "bytes */10"})

    async with (
        on_aiohttp(handle) as upstream,
        in_asgi(client.output(f"{upstream}/file")) as origin,
    ):
        assert (await fetch(origin)).status_code == 502
        if status == 304:
            assert (await fetch(origin, range="bytes=0-4")).status_code == 502


@pytest.mark.parametrize(
    ("said", "shown", "policy"),
    [
        ("text/html", "text/html", "sandbox"),
        ("image/svg+xml", "image/svg+xml", "sandbox"),
        ("application/xml; charset=utf-8", "application/xml; charset=utf-8", "sandbox"),
        ("Application/PDF; version=1.7", "Application/PDF; version=1.7", None),
        ("multipart/x-mixed-replace; boundary=a", "application/octet-stream", "sandbox"),
        ("Text/JavaScript; charset=utf-8", "text/plain", "sandbox"),
        ("application/ecmascript", "text/plain", "sandbox"),
    ],
)
async def test_types_that_browsers_run(
    client: Client, said: str, shown: str, policy: str | None
) -> None:
    """What a model makes runs no scripts at the origin of the app, whatever type it has."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"<script>", headers={"Content-Type": said})

    async with (
        on_aiohttp(handle) as upstream,
        in_asgi(client.output(f"{upstream}/file")) as origin,
    ):
        found = await fetch(origin)
    assert found.headers["content-type"] == shown
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers.get("content-security-policy") == policy


# -- Slow browsers -----------------------------------------------------------------------------


class Huge:
    """The server of a file of a GiB, which counts what it has sent, and who has left."""

    def __init__(self) -> None:
        self.sent = 0
        self.open = 0
        self.is_silent = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Send the file."""
        self.open += 1
        try:
            response = web.StreamResponse(headers={"Content-Length": str(2**30), "ETag": '"a"'})
            await response.prepare(request)
            await response.write(b"0")
            while self.is_silent:
                await asyncio.sleep(0.01)
                if request.transport is None or request.transport.is_closing():
                    return response
            for _ in range(2**14 - 1):
                await response.write(bytes(2**16))
                self.sent += 2**16
        finally:
            self.open -= 1
        return response


@apps
async def test_files_that_drip(serve: Serve, emulator: Emulator) -> None:
    """A server that sends a byte now and then does not keep a connection for ever."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000", "ETag": '"a"'})
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"a")
            await asyncio.sleep(0.05)
        return response

    async with (
        Client("r8_x", base_url=emulator.url, timeout=Timeout(download=0.3)) as client,
        on_aiohttp(handle) as upstream,
        serve(client.output(f"{upstream}/file")) as origin,
    ):
        began = time.monotonic()
        with pytest.raises(httpx.TransportError):
            await fetch(origin)
        assert time.monotonic() - began < 20


@apps
@pytest.mark.parametrize("is_silent", [False, True])
async def test_browsers_that_stop_reading_and_leave(
    client: Client, serve: Serve, is_silent: bool
) -> None:
    """No more is fetched than the browser takes, and nothing once it has left."""
    huge = Huge()
    huge.is_silent = is_silent
    async with (
        on_aiohttp(huge.handle) as upstream,
        serve(client.output(f"{upstream}/file")) as origin,
    ):
        reader, writer = await asyncio.open_connection(*origin[7:].split(":"))
        writer.write(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n")
        before = -1
        while before < huge.sent:
            before = huge.sent
            await anyio.sleep(0.3)
        assert huge.sent < 2**25
        assert huge.open == 1
        writer.transport.abort()
        await until(lambda: huge.open == 0)
        assert huge.sent < 2**25


# -- Arguments ---------------------------------------------------------------------------------


def test_arguments() -> None:
    """Bad arguments are refused at once."""
    output = FileOutput("https://replicate.delivery/a/b.png")
    scope = {"type": "http", "method": "GET", "headers": []}
    assert callable(file_response(output, scope))
    for bad in (None, "GET /", {"type": "websocket"}, object()):
        with pytest.raises(ArgumentTypeError, match="request"):
            file_response(output, bad)
    with pytest.raises(ArgumentTypeError, match="output"):
        file_response("https://replicate.delivery/a/b.png", scope)  # type: ignore[arg-type]  # refused
    with pytest.raises(ArgumentTypeError, match="filename"):
        file_response(output, scope, filename=b"a")  # type: ignore[arg-type]  # refused
