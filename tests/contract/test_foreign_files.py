"""Files of other libraries as inputs: each is one file, read off the event loop."""

from __future__ import annotations

import asyncio
import http.client
import io
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import aiofiles
import aiohttp
import anyio
import django
import fsspec
import httpx
import pytest
import requests
import starlette.datastructures
import urllib3
from aiohttp import web
from blockbuster import blockbuster_ctx
from django.conf import settings
from replicate.client import Client as OfficialClient
from replicate.helpers import FileOutput as OfficialFileOutput
from werkzeug.datastructures import FileStorage

from replicate_async import Client
from replicate_async.exceptions import ArgumentError, ArgumentTypeError
from replicate_async.sync import Client as SyncClient
from replicate_async.testing import Emulator

from .conftest import HELLO

PNG = b"\x89PNG\r\n\x1a\n" + b"a line\n" * 60_000
"""A file of many lines, larger than any buffer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the file; in chunks, without a length, from `/chunked`."""
        self.send_response(404 if self.path.startswith("/missing") else 200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Connection", "close")
        if self.path.startswith("/named"):
            self.send_header("Content-Disposition", 'attachment; filename="given.png"')
        if not self.path.startswith("/chunked"):
            self.send_header("Content-Length", str(len(PNG)))
            self.end_headers()
            self.wfile.write(PNG)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(PNG), 50_000):
            part = PNG[start : start + 50_000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def do_HEAD(self) -> None:
        """Send the headers."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(PNG)))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Serve the file, and return the base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


async def _run(client: Client, emulator: Emulator, file: Any, **options: Any) -> tuple[bytes, Any]:
    """Return the content and the record of a file that is sent as an input, which must be the only one."""
    before = len(emulator.ledger.requests(operation="files.create"))
    await client.predictions.create(HELLO, {"text": "x", "file": file}, **options)
    assert len(emulator.ledger.requests(operation="files.create")) == before + 1
    url = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]["file"]
    uploaded = await client.files.get(url.rpartition("/")[2])
    return emulator.file_content(uploaded.id), uploaded


# -- Responses of blocking libraries -----------------------------------------------------------


def _urlopen(url: str) -> Any:
    return urllib.request.urlopen(url)


def _http_client(url: str) -> Any:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host)
    connection.request("GET", f"/{path}")
    response = connection.getresponse()
    response.owner = connection  # type: ignore[attr-defined]  # it is closed with the response
    return response


def _requests(url: str) -> Any:
    return requests.get(url, timeout=30)


def _requests_stream(url: str) -> Any:
    return requests.get(url, timeout=30, stream=True)


def _requests_raw(url: str) -> Any:
    return requests.get(url, timeout=30, stream=True).raw


_pool = urllib3.PoolManager()


def _urllib3(url: str) -> Any:
    return _pool.request("GET", url)


def _urllib3_stream(url: str) -> Any:
    return _pool.request("GET", url, preload_content=False)


def _httpx(url: str) -> Any:
    with httpx.Client() as client:
        return client.get(url)


def _httpx_stream(url: str) -> Any:
    client = httpx.Client()
    response = client.send(client.build_request("GET", url), stream=True)
    response.extensions["owner"] = client
    return response


def _fsspec(url: str) -> Any:
    return cast("Any", fsspec.open(url)).open()


RESPONSES = [
    _urlopen,
    _http_client,
    _requests,
    _requests_stream,
    _requests_raw,
    _urllib3,
    _urllib3_stream,
    _httpx,
    _httpx_stream,
    _fsspec,
]


def _close(file: Any) -> None:
    file.close()
    owner = getattr(file, "owner", None) or getattr(file, "extensions", {}).get("owner")
    if owner is not None:
        owner.close()


@pytest.mark.parametrize("path", ["cat.png?sig=a%2Fb", "chunked/cat.png", "named/x.bin"])
@pytest.mark.parametrize("make", RESPONSES)
async def test_a_response_is_one_file(
    client: Client, emulator: Emulator, server: str, make: Callable[[str], Any], path: str
) -> None:
    """A response is uploaded as one file, whole, with its name, and nothing blocks the loop."""
    file = await asyncio.to_thread(make, f"{server}/{path}")
    await client.files.create(b"what is imported at the first use")
    with blockbuster_ctx():
        content, uploaded = await _run(client, emulator, file)
    assert content == PNG
    assert uploaded.content_type == ("image/png" if "cat" in path else uploaded.content_type)
    if make not in (_fsspec, _http_client):  # which know neither their headers nor their URL
        assert uploaded.name == ("given.png" if "named" in path else "cat.png")
    await asyncio.to_thread(_close, file)


@pytest.mark.parametrize("make", RESPONSES)
def test_a_response_through_the_facade(
    emulator: Emulator, server: str, make: Callable[[str], Any]
) -> None:
    """The facade sends it in the same way, also to `files.create` and as base64."""
    with SyncClient(emulator.token, base_url=emulator.url) as client:
        file = make(f"{server}/cat.png")
        created = client.files.create(file)
        assert emulator.file_content(created.id) == PNG
        _close(file)
        file = make(f"{server}/cat.png")
        client.predictions.create(HELLO, {"text": file}, file_encoding_strategy="base64")
        sent = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]
        assert sent["text"].startswith("data:image/png;base64,")
        _close(file)


@pytest.mark.parametrize("make", RESPONSES)
async def test_one_response_in_many_runs(
    client: Client, emulator: Emulator, server: str, make: Callable[[str], Any]
) -> None:
    """Several runs at a time get the whole of it, or say that it is used up: never a part."""
    file = await asyncio.to_thread(make, f"{server}/cat.png")
    done = await asyncio.gather(
        *(client.predictions.create(HELLO, {"text": "x", "file": file}) for _ in range(3)),
        return_exceptions=True,
    )
    assert not all(isinstance(one, Exception) for one in done)
    for one in done:
        if isinstance(one, Exception):
            assert isinstance(one, ArgumentError)
            assert "read" in str(one)
    for request in emulator.ledger.requests(operation="predictions.create"):
        url = request.json()["input"]["file"]
        assert emulator.file_content(url.rpartition("/")[2]) == PNG
    await asyncio.to_thread(_close, file)


@pytest.mark.parametrize("make", [_http_client, _requests, _requests_raw, _urllib3, _httpx])
async def test_an_error_page_is_no_file(
    client: Client, emulator: Emulator, server: str, make: Callable[[str], Any]
) -> None:
    """The page that says 404 is not paid for."""
    file = await asyncio.to_thread(make, f"{server}/missing.png")
    with pytest.raises(ArgumentError, match="404") as caught:
        await client.run(HELLO, {"text": "x", "file": file})
    assert caught.value.argument == "input.file"
    assert emulator.ledger.requests() == []
    await asyncio.to_thread(_close, file)


@pytest.mark.parametrize(
    "make",
    [_urlopen, _http_client, _requests_stream, _requests_raw, _urllib3_stream, _httpx_stream],
)
async def test_a_response_that_was_read(
    client: Client, emulator: Emulator, server: str, make: Callable[[str], Any]
) -> None:
    """What was read before is not sent as an empty file."""
    file = await asyncio.to_thread(make, f"{server}/chunked/cat.png")
    await asyncio.to_thread(lambda: list(getattr(file, "iter_bytes", lambda: None)() or file))
    with pytest.raises(ArgumentError, match="read before"):
        await client.run(HELLO, {"text": "x", "file": file})
    assert emulator.ledger.requests() == []
    await asyncio.to_thread(_close, file)


# -- Responses that are awaited ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["cat.png", "chunked/cat.png"])
@pytest.mark.parametrize("use", ["unread", "read", "content"])
async def test_responses_of_aiohttp(
    client: Client, emulator: Emulator, server: str, path: str, use: str
) -> None:
    """A response of aiohttp is one file, read on the loop, before or after it was read by its owner."""
    async with aiohttp.ClientSession() as session, session.get(f"{server}/{path}") as response:
        if use == "read":
            await response.read()
        file: Any = response.content if use == "content" else response
        content, uploaded = await _run(client, emulator, file)
        assert content == PNG
        assert uploaded.content_type == "image/png"
        if use == "unread":
            with pytest.raises(ArgumentError, match="read before"):
                await client.run(HELLO, {"text": "x", "file": response})


async def test_an_error_page_of_aiohttp(client: Client, emulator: Emulator, server: str) -> None:
    """The page that says 404 is not paid for, and a call that was not awaited is told as such."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server}/missing") as response:
            with pytest.raises(ArgumentError, match="404"):
                await client.run(HELLO, {"text": "x", "file": response})
        request = session.get(f"{server}/cat.png")
        with pytest.raises(ArgumentTypeError, match="await"):
            await client.run(HELLO, {"text": "x", "file": request})
        async with request:
            pass
    assert emulator.ledger.requests() == []


async def test_responses_of_httpx(client: Client, emulator: Emulator, server: str) -> None:
    """A response of httpx's async client is one file, streamed or not."""
    async with httpx.AsyncClient() as other:
        content, uploaded = await _run(client, emulator, await other.get(f"{server}/cat.png"))
        assert (content, uploaded.name) == (PNG, "cat.png")
        async with other.stream("GET", f"{server}/chunked/dog.png") as response:
            await client.predictions.create(HELLO, {"text": "x", "file": response})
            with pytest.raises(ArgumentError, match="read before"):
                await client.run(HELLO, {"text": "x", "file": response})


# -- Uploads of web frameworks -----------------------------------------------------------------


@pytest.fixture
async def post() -> AsyncIterator[Callable[[Callable[[web.Request], Awaitable[None]]], Any]]:
    """Return a function that posts the file as a form to a handler of aiohttp."""
    runners: list[web.AppRunner] = []

    async def send(handle: Callable[[web.Request], Awaitable[None]]) -> None:
        failures: list[BaseException] = []

        async def answer(request: web.Request) -> web.Response:
            try:
                await handle(request)
            except BaseException as error:
                failures.append(error)
                raise
            return web.Response()

        app = web.Application(client_max_size=2**24)
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        form = aiohttp.FormData()
        form.add_field("image", PNG, filename="photo.png", content_type="image/png")
        port = runner.addresses[0][1]
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}/", data=form),
        ):
            pass
        if failures:
            raise failures[0]

    yield send
    for runner in runners:
        await runner.cleanup()


async def test_uploads_to_aiohttp(client: Client, emulator: Emulator, post: Any) -> None:
    """`FileField` and `BodyPartReader` are one file each, with the name that the browser gave."""
    found: list[tuple[bytes, Any]] = []

    async def parsed(request: web.Request) -> None:
        form = await request.post()
        found.append(await _run(client, emulator, form["image"]))

    async def streamed(request: web.Request) -> None:
        part = await (await request.multipart()).next()
        async with Client(emulator.token, base_url=emulator.url) as other:
            found.append(await _run(other, emulator, part))
            with pytest.raises(ArgumentError, match="read before"):
                await other.run(HELLO, {"text": "x", "file": part})

    await post(parsed)
    await post(streamed)
    for content, uploaded in found:
        assert content == PNG
        assert (uploaded.name, uploaded.content_type) == ("photo.png", "image/png")
    assert len(found) == 2


async def test_uploads_to_starlette(client: Client, emulator: Emulator) -> None:
    """Starlette's uploads are awaited; one that was closed with its request is told as such."""
    file = tempfile.SpooledTemporaryFile(max_size=1000)  # noqa: SIM115
    file.write(PNG)
    headers = starlette.datastructures.Headers({"content-type": "image/png"})
    upload = starlette.datastructures.UploadFile(
        cast("Any", file), filename="photo.png", size=len(PNG), headers=headers
    )
    content, uploaded = await _run(client, emulator, upload)
    assert content == PNG
    assert (uploaded.name, uploaded.content_type) == ("photo.png", "image/png")
    await upload.close()
    with pytest.raises(ArgumentError, match="upload is closed"):
        await client.run(HELLO, {"text": "x", "file": upload})


class SanicFile(NamedTuple):
    """An upload as Sanic hands it out."""

    type: str
    body: bytes
    name: str


class FileOfTornado(dict[str, Any]):
    """An upload as Tornado hands it out: a dict whose items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


async def test_uploads_that_are_tuples_and_dicts(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """They are one file each, not a list or a dict of their parts, also in a journal; other tuples stay lists."""
    told = {"filename": "photo.png", "body": PNG + b"t", "content_type": "image/png"}
    for upload in (SanicFile("image/png", PNG, "photo.png"), FileOfTornado(told)):
        async with Client(emulator.token, base_url=emulator.url) as each:
            content, uploaded = await _run(each, emulator, upload)
            assert content == upload.body
            assert (uploaded.name, uploaded.content_type) == ("photo.png", "image/png")
        journal = tmp_path / type(upload).__name__
        [done] = await client.map(HELLO, [{"text": "x", "file": upload}], journal=journal).collect()
        assert done.error is None
    await client.predictions.create(HELLO, {"text": "x", "value": SanicFile("a", b"", "b")[::2]})
    assert emulator.ledger.requests()[-1].json()["input"]["value"] == ["a", "b"]
    await client.predictions.create(HELLO, {"text": "x", "value": FileOfTornado(filename="a")})
    assert emulator.ledger.requests()[-1].json()["input"]["value"] == {"filename": "a"}


async def test_uploads_to_werkzeug(client: Client, emulator: Emulator) -> None:
    """Werkzeug's uploads keep the name of the file, not that of the field."""
    storage = FileStorage(io.BytesIO(PNG), "photo.png", name="field", content_type="image/png")
    content, uploaded = await _run(client, emulator, storage)
    assert content == PNG
    assert uploaded.name == "photo.png"
    storage.close()
    assert storage.closed
    with pytest.raises(ArgumentError, match="the file is closed"):
        await client.run(HELLO, {"text": "x", "file": storage})


def _django(path: Path) -> Any:
    if not settings.configured:
        settings.configure(
            MEDIA_ROOT=str(path), MEDIA_URL="http://localhost:8000/media/", INSTALLED_APPS=[]
        )
        django.setup()
    from django.core.files.storage import FileSystemStorage
    from django.db import models

    class Photo(models.Model):  # type: ignore[misc]
        """A row with a file."""

        image = models.FileField(
            storage=FileSystemStorage(location=str(path), base_url="http://localhost:8000/media/")
        )

        class Meta:
            """Of no app."""

            app_label = f"app{id(path)}"

    return Photo


async def test_fields_of_django(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A `FieldFile` is read from its storage, in a thread, and not sent as its URL."""
    (tmp_path / "cat.png").write_bytes(PNG)
    row = _django(tmp_path)
    photo = row(image="cat.png")
    assert photo.image.url == "http://localhost:8000/media/cat.png"
    with blockbuster_ctx():
        content, uploaded = await _run(client, emulator, photo.image)
    assert content == PNG
    assert uploaded.name == "cat.png"
    assert photo.image.read() == PNG
    photo.image.close()
    missing = row(image="missing.png")
    with pytest.raises(ArgumentError, match=r"missing\.png"):
        await client.run(HELLO, {"text": "x", "file": missing.image})
    with pytest.raises(ArgumentError, match="no file associated"):
        await client.run(HELLO, {"text": "x", "file": row().image})


async def test_uploads_to_django(client: Client, emulator: Emulator) -> None:
    """Django's uploads, in memory and in a temporary file."""
    from django.core.files.uploadedfile import (
        InMemoryUploadedFile,
        SimpleUploadedFile,
        TemporaryUploadedFile,
    )

    if not settings.configured:
        settings.configure()
    memory = InMemoryUploadedFile(
        io.BytesIO(PNG), "field", "photo.png", "image/png", len(PNG), None
    )
    simple = SimpleUploadedFile("photo.png", PNG + b"1", "image/png")
    temporary = TemporaryUploadedFile("photo.png", "image/png", 0, None)
    temporary.write(PNG + b"2")
    temporary.seek(0)
    for upload, end in ((memory, b""), (simple, b"1"), (temporary, b"2")):
        content, uploaded = await _run(client, emulator, upload)
        assert content == PNG + end
        assert uploaded.name == "photo.png"
        upload.close()


# -- Files of other kinds ----------------------------------------------------------------------


async def test_files_of_fsspec(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """Open files of fsspec, and those that are still to be opened, wherever they are."""
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/cat.png", PNG + b"1")
    zipped = tmp_path / "all.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("cat.png", PNG + b"2")
    for url, end in (
        (f"file://{path}", b""),
        ("memory://cat.png", b"1"),
        (f"zip://cat.png::{zipped}", b"2"),
    ):
        async with Client(emulator.token, base_url=emulator.url) as each:
            content, uploaded = await _run(each, emulator, fsspec.open(url))
            assert content == PNG + end
            assert uploaded.name == "cat.png"
        async with Client(emulator.token, base_url=emulator.url) as each:
            with fsspec.open(url) as file:
                content, uploaded = await _run(each, emulator, file)
            assert content == PNG + end
            assert uploaded.name == "cat.png"
    with pytest.raises(ArgumentError, match="text"):
        await client.run(HELLO, {"text": "x", "file": fsspec.open(f"file://{path}", "rt")})


async def test_entries_of_archives(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """What is like a path, but on no disk, is opened and read: `zipfile.Path`, resources of packages."""
    zipped = tmp_path / "all.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("folder/cat.png", PNG)
    content, uploaded = await _run(client, emulator, zipfile.Path(zipped, "folder/cat.png"))
    assert content == PNG
    assert uploaded.name == "cat.png"
    with pytest.raises(ArgumentError, match="directory"):
        await client.run(HELLO, {"text": "x", "file": zipfile.Path(zipped, "folder/")})
    content, _ = await _run(client, emulator, anyio.Path(zipped))
    assert content == zipped.read_bytes()


class Bare:
    """Something with a `read` that takes no size, and nothing else."""

    def __init__(self) -> None:
        self.content = PNG

    def read(self) -> bytes:
        """Return everything, once."""
        time.sleep(0)  # which tells blockbuster where it runs
        content, self.content = self.content, b""
        return content


class AwaitedBare(Bare):
    """The same, awaited."""

    async def read(self) -> bytes:  # type: ignore[override]  # as some libraries have it
        """Return everything, once."""
        return super().read()


class Keywords(Bare):
    """The same, with options."""

    def read(self, **_: Any) -> bytes:
        """Return everything, once."""
        return super().read()


@pytest.mark.parametrize("make", [Bare, Keywords])
async def test_reads_that_take_no_size(
    client: Client, emulator: Emulator, make: Callable[[], Any]
) -> None:
    """What can only be read as a whole is one file, read off the loop; what was read is not sent as an empty one."""
    file = make()
    await client.files.create(b"what is imported at the first use")
    with blockbuster_ctx():
        content, uploaded = await _run(client, emulator, file)
    assert (content, uploaded.content_type) == (PNG, "image/png")
    with pytest.raises(ArgumentError, match="read before"):
        await client.run(HELLO, {"text": "x", "file": file})


def test_reads_that_take_no_size_in_the_facade(emulator: Emulator) -> None:
    """The facade takes the same, also what is awaited."""
    with SyncClient(emulator.token, base_url=emulator.url) as client:
        for file in (Bare(), AwaitedBare(), SimpleNamespace(read=Bare().read)):
            created = client.files.create(file)
            assert emulator.file_content(created.id) == PNG


async def test_an_awaited_read_that_takes_no_size(client: Client, emulator: Emulator) -> None:
    """It is awaited; what is no content is told."""
    assert (await _run(client, emulator, AwaitedBare()))[0] == PNG
    text = SimpleNamespace(read=lambda: "text")
    with pytest.raises(ArgumentError, match="'rb'"):
        await client.run(HELLO, {"text": "x", "file": text})


async def test_a_response_that_was_never_requested(client: Client, emulator: Emulator) -> None:
    """As tests make them: it has no URL, and a content."""
    content, uploaded = await _run(client, emulator, httpx.Response(200, content=PNG))
    assert (content, uploaded.content_type) == (PNG, "image/png")


async def test_temporary_files(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """Temporary files of all kinds, written and not flushed."""
    async with aiofiles.tempfile.NamedTemporaryFile("wb+", dir=tmp_path) as waiting:
        await waiting.write(PNG)
        assert (await _run(client, emulator, waiting))[0] == PNG
    makers: list[Callable[[], Any]] = [
        partial(tempfile.NamedTemporaryFile, suffix=".png"),
        partial(tempfile.TemporaryFile, dir=tmp_path),
        partial(tempfile.SpooledTemporaryFile, max_size=10),
        partial(tempfile.SpooledTemporaryFile, max_size=2**24),
    ]
    for number, make in enumerate(makers):
        with make() as file:
            file.write(PNG + bytes([number]))
            assert (await _run(client, emulator, file))[0] == PNG + bytes([number])
        with pytest.raises(ArgumentError, match="closed"):
            await client.run(HELLO, {"text": "x", "file": file})
    with tempfile.NamedTemporaryFile("w+") as text, pytest.raises(ArgumentError, match="'rb'"):
        await client.run(HELLO, {"text": "x", "file": text})
    with tempfile.TemporaryDirectory() as _:
        directory = tempfile.TemporaryDirectory()
        with pytest.raises(ArgumentTypeError, match="directory"):
            await client.run(HELLO, {"text": "x", "file": directory})
        directory.cleanup()


async def test_outputs_of_the_official_client(
    client: Client, emulator: Emulator, server: str
) -> None:
    """A `FileOutput` of `replicate` 1.x is read, like anything else that is not our own."""
    with_token = OfficialClient(api_token="other")
    output = OfficialFileOutput(f"{server}/cat.png", with_token)
    content, uploaded = await _run(client, emulator, output)
    assert (content, uploaded.name) == (PNG, "cat.png")
