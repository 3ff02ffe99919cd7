"""Uploads: what goes over the wire, and what happens to it when it has to be sent again."""

from __future__ import annotations

import email
import email.message
import email.policy
import io
import random
import time
from pathlib import Path
from typing import Any

import aiofiles
import pytest
from blockbuster import blockbuster_ctx

from replicate_async import Timeout, exceptions

from .faults import world
from .wire import (
    BUSY,
    CLOSE,
    PREDICTION,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    json,
    problem,
)

CONTENT = random.Random(7).randbytes(3 * 2**20 + 17)
UPLOADED: dict[str, Any] = {
    "id": "file-1",
    "name": "f",
    "urls": {"get": "https://api.invalid/v1/files/file-1"},
}
CREATED = json(UPLOADED, 201)


def parts_of(request: Request) -> list[email.message.MIMEPart]:
    """Return the parts of a multipart body, read by somebody else's code."""
    content_type = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    whole = email.message_from_bytes(content_type + request.body, policy=email.policy.HTTP)
    assert whole.get_content_type() == "multipart/form-data"
    parts = list(whole.iter_parts())
    assert not whole.defects
    return parts


def content_of(request: Request) -> bytes:
    """Return the bytes of the file in an upload."""
    (part, *_) = parts_of(request)
    assert part.get_param("name", header="content-disposition") == "content"
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


class Pipe(io.RawIOBase):
    """A stream that can be read once."""

    def __init__(self, content: bytes) -> None:
        self._left = io.BytesIO(content)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        return self._left.readinto(buffer)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file."""
    made = tmp_path / "photo of caf\u00e9.png"
    made.write_bytes(CONTENT)
    return made


@pytest.mark.parametrize("kind", ["path", "str", "open", "bytes", "bytearray", "BytesIO", "stream"])
async def test_each_kind_of_file_arrives(kind: str, path: Path) -> None:
    """A path, bytes, and open files arrive whole, with their length if it is known."""
    with Wire(CREATED) as wire, path.open("rb") as opened:
        file: Any = {
            "path": path,
            "str": str(path),
            "open": opened,
            "bytes": CONTENT,
            "bytearray": bytearray(CONTENT),
            "BytesIO": io.BytesIO(CONTENT),
            "stream": Pipe(CONTENT),
        }[kind]
        async with client_of(wire) as client:
            created = await client.files.create(file)
        assert created.id == "file-1"
        (request,) = wire.requests
        assert request.line == "POST /v1/files HTTP/1.1"
        assert content_of(request) == CONTENT
        named = kind in ("path", "str", "open")
        (part,) = parts_of(request)
        assert part.get_content_type() == ("image/png" if named else "application/octet-stream")
        if named:
            assert f'filename="{path.name}"'.encode() in request.body
        if kind == "stream":
            assert request.headers["transfer-encoding"] == "chunked"
        else:
            assert request.headers["content-length"] == str(len(request.body))
            assert "transfer-encoding" not in request.headers
        assert not opened.closed


async def test_name_type_and_metadata_are_sent() -> None:
    """The name and type go with the content, the metadata in a JSON part of its own."""
    with Wire(CREATED) as wire:
        async with client_of(wire) as client:
            await client.files.create(
                b"x",
                filename='a "quoted"\r\nname.txt',
                content_type="text/x-mine",
                metadata={"customer": 123, "caf\u00e9": [True]},
            )
        content, metadata = parts_of(wire.requests[0])
        assert content.get_content_type() == "text/x-mine"
        disposition = wire.requests[0].body.split(b"\r\n")[1]
        assert b'filename="a %22quoted%22' in disposition
        assert metadata.get_param("name", header="content-disposition") == "metadata"
        assert metadata.get_content_type() == "application/json"
        payload = metadata.get_payload(decode=True)
        assert payload == '{"customer":123,"caf\u00e9":[true]}'.encode()


async def test_an_empty_file_is_sent() -> None:
    """A file of no bytes is uploaded as such."""
    with Wire(CREATED) as wire:
        async with client_of(wire) as client:
            await client.files.create(b"")
        assert content_of(wire.requests[0]) == b""


@pytest.mark.parametrize("kind", ["path", "open", "bytes", "BytesIO"])
async def test_the_body_is_rebuilt_for_each_attempt(kind: str, path: Path) -> None:
    """An upload that was refused with 429 is sent again, whole."""
    with Wire(BUSY["429"], CREATED) as wire, path.open("rb") as opened:
        opened.seek(100)  # seekable files are sent from their beginning
        file: Any = {
            "path": path,
            "open": opened,
            "bytes": CONTENT,
            "BytesIO": io.BytesIO(CONTENT),
        }[kind]
        async with client_of(wire) as client:
            await client.files.create(file)
        assert [content_of(request) == CONTENT for request in wire.requests] == [True, True]


async def test_a_stream_is_not_sent_twice() -> None:
    """What cannot be read again is not sent again, even where it would be allowed."""
    with Wire(BUSY["429"], CREATED) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.RateLimitError):
                await client.files.create(Pipe(CONTENT))
        assert len(wire.requests) == 1


@pytest.mark.parametrize("fault", [CLOSE, BUSY["503"]], ids=["closed", "503"])
async def test_an_upload_is_sent_once(fault: Step) -> None:
    """An upload that may have happened is not repeated."""
    with Wire(fault) as wire:
        async with client_of(wire) as client:
            with pytest.raises((exceptions.ServerError, exceptions.ConnectionLost)):
                await client.files.create(CONTENT)
        assert len(wire.requests) == 1


async def test_an_early_refusal_is_heard() -> None:
    """An answer that comes before the body was read is the answer."""
    refusal = answer(413, b'{"detail": "too large"}', read=False)
    with Wire(refusal) as wire:
        async with client_of(wire, timeout=Timeout(read=5)) as client:
            with pytest.raises(exceptions.PayloadTooLargeError):
                await client.files.create(bytes(30 * 2**20))


async def test_a_file_in_many_places_arrives_whole() -> None:
    """One open file at several places of an input arrives whole for each of them."""
    uploads: list[Request] = []

    def act(request: Request) -> Step:
        if request.path != "/v1/files":
            return json(PREDICTION, 201)
        uploads.append(request)
        return CREATED

    with Wire(act) as wire:
        async with client_of(wire, timeout=Timeout(read=2)) as client:
            file = io.BytesIO(CONTENT)
            order = {"a": file, "b": [file, {"c": file}]}
            await client.predictions.create(model="acme/greeter", input=order)
        created = [request for request in wire.requests if request.path != "/v1/files"]
        assert [request.json()["input"]["a"] for request in created] == [UPLOADED["urls"]["get"]]
        assert uploads
        assert all(content_of(request) == CONTENT for request in uploads)


async def test_uploads_of_one_input_run_together() -> None:
    """The files of one input are uploaded at the same time, and each URL comes to its place."""

    def act(request: Request) -> Step:
        if request.path != "/v1/files":
            return json(PREDICTION, 201)
        number = content_of(request).decode()
        return json({"id": number, "urls": {"get": f"https://api.invalid/{number}"}}, 201)

    with Wire(act) as wire:
        async with client_of(wire) as client:
            order = {"images": [str(number).encode() for number in range(20)]}
            await client.predictions.create(model="acme/greeter", input=order)
        assert wire.connections > 1
        sent = wire.requests[-1].json()["input"]["images"]
        assert sent == [f"https://api.invalid/{number}" for number in range(20)]


async def test_one_upload_that_fails_ends_the_others() -> None:
    """The first failure of several uploads is raised as it is, and nothing is created."""

    def act(request: Request) -> Step:
        return problem(400, detail="bad") if content_of(request) == b"3" else CREATED

    with Wire(act) as wire:
        async with client_of(wire) as client:
            order = {"images": [str(number).encode() for number in range(8)]}
            with pytest.raises(exceptions.BadRequestError):
                await client.predictions.create(model="acme/greeter", input=order)
        assert {request.path for request in wire.requests} == {"/v1/files"}


async def test_an_async_reader_is_a_file(path: Path) -> None:
    """A file that is read by awaiting, as those of aiofiles, is uploaded."""
    with Wire(CREATED) as wire:
        client = client_of(wire, timeout=Timeout(read=2))
        async with client, aiofiles.open(path, "rb") as file:
            await client.files.create(file)
        assert content_of(wire.requests[0]) == CONTENT


async def test_a_reader_that_fails_is_not_a_lost_connection() -> None:
    """An error while a file is read is told, by its cause at the least, and bounded in time."""

    class Broken(Pipe):
        def readinto(self, buffer: Any) -> int:
            raise PermissionError("the disk is gone")

    with Wire(CREATED) as wire:
        async with client_of(wire, timeout=Timeout(read=1)) as client:
            with pytest.raises((exceptions.ReplicateException, PermissionError)) as caught:
                await client.files.create(Broken(b""))
    chain: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__ or error.__context__
    assert "the disk is gone" in " ".join(chain)


async def test_a_file_that_shrinks_does_not_hang() -> None:
    """A file that is shorter than it was ends in an error of ours, in time."""

    class Liar(io.BufferedIOBase):
        def __init__(self) -> None:
            self._position = 0

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return self._position

        def seek(self, offset: int, whence: int = 0) -> int:
            self._position = offset if whence == 0 else len(CONTENT)
            return self._position

        def read(self, size: int | None = -1) -> bytes:
            begun, self._position = self._position, len(CONTENT)
            return CONTENT[:1000] if begun == 0 else b""

    with Wire(CREATED) as wire:
        async with client_of(wire, timeout=Timeout(read=0.5)) as client:
            with Liar() as file, pytest.raises(exceptions.ReplicateException):
                await client.files.create(file)
        assert wire.requests == []


async def test_uploading_does_not_block_the_loop(path: Path) -> None:
    """No file is opened or read on the event loop."""
    with Wire(CREATED) as wire:
        async with client_of(wire) as client:
            await client.files.create(path)  # what is imported at first use is read from the disk
            with blockbuster_ctx():
                await client.files.create(path)
        assert len(wire.requests) == 2


async def test_an_upload_goes_on_as_long_as_it_makes_progress() -> None:
    """The read timeout is about silence: a slow upload that moves is not cut."""

    class Slow(Pipe):
        def readinto(self, buffer: Any) -> int:
            time.sleep(0.15)  # in a thread
            return super().readinto(memoryview(buffer)[: len(CONTENT) // 4])

    with Wire(CREATED) as wire:
        async with client_of(wire, timeout=Timeout(read=0.4)) as client:
            await client.files.create(Slow(CONTENT))
        assert content_of(wire.requests[0]) == CONTENT


async def test_creates_follow_a_large_upload_on_its_connection() -> None:
    """The wire keeps the connection of a large upload, on which the next create is sent at once."""
    async with world() as here, here.client(timeout=30) as client:
        for number in range(5):
            await client.files.create(bytes([number]) * 3_000_000, filename="a.bin")
            await client.predictions.create(model="acme/echo", input={"text": "a"})
        assert client.stats.adopted == 0
        assert len(here.made_of("a")) == 5
        # One for the client that has set the world up, and one for this client.
        assert here.emulator.wire.accepted == 2
