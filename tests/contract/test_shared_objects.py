"""One object in several runs at a time is sent as it is, and uploaded once."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from replicate_async import Client, exceptions
from replicate_async import sync as replicate_sync
from replicate_async.testing import Emulator

from .conftest import HELLO

CONTENT = random.Random(5).randbytes(2**20 + 4321)
"""More than one chunk."""

RUNS = 20


class Bytes(io.BytesIO):
    """A subclass, which may read in its own way."""


class WithSeek:
    """An object of somebody's own that can be read, and moved."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        return self.file.seek(offset, whence)


class Upload:
    """An upload as in Starlette: coroutines, and a `seek` of one argument."""

    def __init__(self, content: bytes, size: int | None) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(2**10)  # noqa: SIM115  (it stays open)
        self.file.write(content)
        self.file.seek(0)
        self.size = size
        self.filename = "upload.bin"
        self.content_type = "image/png"

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return await asyncio.to_thread(self.file.read, size)

    async def seek(self, offset: int) -> None:
        """Move."""
        await asyncio.to_thread(self.file.seek, offset)


class Once:
    """A stream that can be read once."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        return self.file.read(size)


class AsyncOnce(Once):
    """The same with a coroutine."""

    async def read(self, size: int) -> bytes:  # type: ignore[override]
        """Return the next bytes."""
        await asyncio.sleep(0)
        return self.file.read(size)


def _spooled(content: bytes, max_size: int) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=max_size)  # noqa: SIM115
    file.write(content)
    file.seek(100)
    return file


def _temporary(content: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    return file


SEEKABLE: Mapping[str, Callable[[bytes], Any]] = {
    "BytesIO": io.BytesIO,
    "subclass": Bytes,
    "buffered": lambda content: io.BufferedReader(Bytes(content)),
    "gzip": lambda content: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content, 1))),
    "spooled in memory": lambda content: _spooled(content, 10**9),
    "spooled on disk": lambda content: _spooled(content, 1),
    "temporary": _temporary,
    "with seek": WithSeek,
    "upload": lambda content: Upload(content, len(content)),
    "upload without size": lambda content: Upload(content, None),
}

STREAMS: Mapping[str, Callable[[bytes], Any]] = {"stream": Once, "async stream": AsyncOnce}

KINDS = {**SEEKABLE, **STREAMS}


def _contents(emulator: Emulator, predictions: list[Any]) -> list[bytes]:
    return [
        emulator.file_content(prediction.input["file"].rpartition("/")[2])
        for prediction in predictions
    ]


def _uploads(emulator: Emulator) -> int:
    return len(emulator.ledger.requests(operation="files.create"))


async def _create(client: Client, file: Any, **options: Any) -> Any:
    return await client.predictions.create(HELLO, {"text": "x", "file": file}, **options)


@pytest.mark.parametrize("kind", KINDS)
async def test_runs_at_a_time_share_an_object(
    client: Client, emulator: Emulator, kind: str
) -> None:
    """Many runs at a time send the right bytes of one object, which is uploaded once."""
    with _closing(KINDS[kind](CONTENT)) as file:
        made = await asyncio.gather(*(_create(client, file) for _ in range(RUNS)))
    assert set(_contents(emulator, made)) == {CONTENT}
    assert _uploads(emulator) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_runs_in_turn_share_an_object(client: Client, emulator: Emulator, kind: str) -> None:
    """Runs one after the other upload an object once, even if it can be read only once."""
    with _closing(KINDS[kind](CONTENT)) as file:
        made = [await _create(client, file) for _ in range(3)]
    assert set(_contents(emulator, made)) == {CONTENT}
    assert _uploads(emulator) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_an_object(emulator: Emulator, kind: str) -> None:
    """Threads that call the sync facade share an object, too."""
    with (
        replicate_sync.Client(emulator.token, base_url=emulator.url) as client,
        _closing(KINDS[kind](CONTENT)) as file,
        ThreadPoolExecutor(RUNS) as pool,
    ):
        runs = [
            pool.submit(client.predictions.create, HELLO, {"text": "x", "file": file})
            for _ in range(RUNS)
        ]
        made = [run.result() for run in runs]
    assert set(_contents(emulator, made)) == {CONTENT}
    assert _uploads(emulator) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_map_shares_an_object(client: Client, emulator: Emulator, kind: str) -> None:
    """A fan-out over one object uploads it once."""
    with _closing(KINDS[kind](CONTENT)) as file:
        inputs = ({"text": str(number), "file": file} for number in range(RUNS))
        outcomes = await client.map("replicate/hello-world", inputs, concurrency=6).collect()
    assert [outcome.error for outcome in outcomes] == [None] * RUNS
    assert set(_contents(emulator, [outcome.prediction for outcome in outcomes])) == {CONTENT}
    assert _uploads(emulator) == 1


@pytest.mark.parametrize("kind", SEEKABLE)
async def test_a_journal_shares_an_object(
    client: Client, emulator: Emulator, tmp_path: Path, kind: str
) -> None:
    """A journal hashes an object while other inputs send it."""
    outcomes = []
    with _closing(SEEKABLE[kind](CONTENT)) as file:
        for _ in range(2):
            inputs = ({"text": str(number), "file": file} for number in range(RUNS))
            outcomes = await client.map(
                "replicate/hello-world", inputs, concurrency=6, journal=tmp_path / "run.db"
            ).collect()
            assert [outcome.error for outcome in outcomes] == [None] * RUNS
    assert set(_contents(emulator, [outcome.prediction for outcome in outcomes])) == {CONTENT}
    assert _uploads(emulator) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_inlined_objects_are_shared(client: Client, kind: str) -> None:
    """Data URIs of one object have its bytes, however many runs make them."""
    content = CONTENT[:100_000]
    with _closing(KINDS[kind](content)) as file:
        made = await asyncio.gather(
            *(_create(client, file, file_encoding_strategy="base64") for _ in range(RUNS))
        )
    inlined = {base64.b64decode(each.input["file"].partition(",")[2]) for each in made}
    assert inlined == {content}


@pytest.mark.parametrize("kind", SEEKABLE)
async def test_clients_share_an_object(emulator: Emulator, kind: str) -> None:
    """Several clients that send one object at a time do not mix it up."""
    async with (
        Client(emulator.token, base_url=emulator.url) as one,
        Client(emulator.token, base_url=emulator.url) as other,
    ):
        with _closing(SEEKABLE[kind](CONTENT)) as file:
            made = await asyncio.gather(
                *(_create((one, other)[number % 2], file) for number in range(RUNS)),
                *(_create(one, file, file_encoding_strategy="base64") for _ in range(2)),
                one.files.create(file),
                other.files.create(file),
            )
    files = [made.pop(), made.pop()]
    inlined = [base64.b64decode(made.pop().input["file"].partition(",")[2]) for _ in range(2)]
    assert inlined == [CONTENT] * 2
    assert [emulator.file_content(file.id) for file in files] == [CONTENT] * 2
    assert set(_contents(emulator, made)) == {CONTENT}
    assert _uploads(emulator) == 4


@pytest.mark.parametrize("kind", ["subclass", "gzip", "spooled on disk", "with seek"])
async def test_event_loops_share_an_object(emulator: Emulator, kind: str) -> None:
    """Several event loops that send one object at a time do not mix it up."""
    client = Client(emulator.token, base_url=emulator.url)
    with _closing(SEEKABLE[kind](CONTENT)) as file:

        async def main() -> list[Any]:
            return await asyncio.gather(*(_create(client, file) for _ in range(5)))

        found = await asyncio.gather(
            *(asyncio.to_thread(lambda: asyncio.run(main())) for _ in range(4))
        )
    assert set(_contents(emulator, [made for each in found for made in each])) == {CONTENT}
    assert 1 <= _uploads(emulator) <= 4
    await client.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_objects_of_one_size_are_told_apart(
    client: Client, emulator: Emulator, kind: str
) -> None:
    """Objects of the same size and type, sent at the same time, keep their own contents."""
    contents = [bytes([number]) * 100_000 for number in range(RUNS)]
    files = [KINDS[kind](content) for content in contents]
    made = await asyncio.gather(*(_create(client, file) for file in files))
    assert _contents(emulator, made) == contents
    for file in files:
        with _closing(file):
            pass


@pytest.mark.parametrize("kind", ["subclass", "gzip", "spooled on disk", "upload", "with seek"])
async def test_cancelled_runs_leave_an_object_whole(
    client: Client, emulator: Emulator, kind: str
) -> None:
    """Runs that are cancelled while they read neither mix up the others nor hold them up."""
    with _closing(SEEKABLE[kind](CONTENT)) as file:
        runs = [asyncio.create_task(_create(client, file)) for _ in range(RUNS)]
        for run in runs[:-3]:
            await asyncio.sleep(0.001)
            run.cancel()
        async with asyncio.timeout(20):
            await asyncio.gather(*runs, return_exceptions=True)
        made = [run.result() for run in runs if not run.cancelled()]
    assert len(made) >= 3
    assert set(_contents(emulator, made)) == {CONTENT}


@pytest.mark.parametrize("kind", ["subclass", "spooled in memory", "buffered", "gzip"])
async def test_the_position_of_a_shared_object_is_kept(client: Client, kind: str) -> None:
    """When all runs have read it, an object is where its owner left it."""
    with _closing(SEEKABLE[kind](CONTENT)) as file:
        file.seek(77)
        await asyncio.gather(*(_create(client, file) for _ in range(RUNS)))
        assert file.tell() == 77


class Form:
    """An upload as in Werkzeug: its file is its `stream`."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.filename = "upload.bin"

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        found: bytes = self.stream.read(size)
        return found

    def seek(self, offset: int, whence: int = 0) -> Any:
        """Move."""
        return self.stream.seek(offset, whence)

    def tell(self) -> Any:
        """Return the position."""
        return self.stream.tell()


class Slow(io.BytesIO):
    """A file that gives way to other threads before each read."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        time.sleep(0.001)
        return super().read(size)


def _with_its_file(kind: str) -> tuple[Any, Any]:
    """Return two objects that read one file."""
    file = Slow(CONTENT)
    file.seek(77)
    if kind == "upload":
        upload = Upload(b"", None)
        upload.file.close()
        upload.file = file
        return upload, file
    return (Form(file), Form(Form(file))) if kind == "two forms" else (Form(file), file)


@pytest.mark.parametrize("kind", ["upload", "form", "two forms"])
async def test_an_upload_and_its_file_take_turns(emulator: Emulator, kind: str) -> None:
    """Runs that send an upload, and others that send the file in it, do not mix it up, and leave it where it was."""
    one, other = _with_its_file(kind)
    async with (
        Client(emulator.token, base_url=emulator.url) as first,
        Client(emulator.token, base_url=emulator.url) as second,
    ):
        made = await asyncio.gather(
            *(_create(client, each) for client in (first, second) for each in (one, other) * 4)
        )
    assert set(_contents(emulator, made)) == {CONTENT}
    assert kind == "upload" or one.tell() == 77  # an upload of Starlette does not tell its position


def test_threads_share_an_upload_and_its_file(emulator: Emulator) -> None:
    """The same through the sync facade, with threads and two clients."""
    one, other = _with_its_file("form")
    with (
        replicate_sync.Client(emulator.token, base_url=emulator.url) as first,
        replicate_sync.Client(emulator.token, base_url=emulator.url) as second,
        ThreadPoolExecutor(8) as pool,
    ):
        runs = [
            pool.submit(client.predictions.create, HELLO, {"text": "x", "file": each})
            for client in (first, second)
            for each in (one, other) * 4
        ]
        made = [run.result() for run in runs]
    assert set(_contents(emulator, made)) == {CONTENT}


async def test_a_changed_object_is_uploaded_again(client: Client, emulator: Emulator) -> None:
    """What an object holds counts, not which object it is."""
    file = Bytes(b"one")
    made = [await _create(client, file)]
    file.getbuffer()[:] = b"two"
    made.append(await _create(client, file))
    assert _contents(emulator, made) == [b"one", b"two"]


async def test_a_stream_with_more_is_sent_again(client: Client, emulator: Emulator) -> None:
    """A stream that has something new to read after its end is sent anew."""
    stream = Once(b"one")
    made = [await _create(client, stream)]
    stream.file = io.BytesIO(b"two")
    made.append(await _create(client, stream))
    assert _contents(emulator, made) == [b"one", b"two"]


async def test_a_spent_stream_is_refused(emulator: Emulator) -> None:
    """A stream that was read to its end, and whose content is not at hand, is refused before a create."""
    stream = Once(CONTENT)
    async with Client(emulator.token, base_url=emulator.url) as client:
        await _create(client, stream)
    async with Client(emulator.token, base_url=emulator.url) as client:
        with pytest.raises(exceptions.ArgumentError, match=r"input\.file.*only once"):
            await _create(client, stream)
    assert len(emulator.ledger.requests(operation="predictions.create")) == 1


def _closing(file: Any) -> Any:
    """Return a context manager that closes a file, if it can be closed."""
    inner = getattr(file, "file", None)
    return _Closing(inner if hasattr(inner, "close") and not hasattr(file, "close") else file, file)


class _Closing:
    def __init__(self, closed: Any, file: Any) -> None:
        self._closed = closed
        self._file = file

    def __enter__(self) -> Any:
        return self._file

    def __exit__(self, *exc_info: object) -> None:
        self._closed.close()
