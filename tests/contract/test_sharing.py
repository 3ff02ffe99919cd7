"""One content is uploaded once per client, for as long as the uploaded file lives."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from replicate_async import Client, exceptions
from replicate_async._files.sources import source_of
from replicate_async._files.uploads import Uploads
from replicate_async.testing import Emulator

from .conftest import HELLO
from .wire import (
    BUSY,
    LOST,
    PREDICTION,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    json,
    problem,
)

CONTENT = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8000


def _old(path: Path, content: bytes = CONTENT) -> Path:
    """Write a file as if it had been there for long."""
    path.write_bytes(content)
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    return path


def _uploads(emulator: Emulator) -> int:
    return len(emulator.ledger.requests(operation="files.create"))


async def _create(client: Client, file: Any) -> str:
    prediction = await client.predictions.create(HELLO, {"text": "x", "file": file})
    url: str = prediction.input["file"]
    return url


FORMS: dict[str, Callable[[Path], Any]] = {
    "old path": lambda path: _old(path),
    "new path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "copy": lambda path: _old(path.with_name("copy.png")),
}


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
async def test_one_content_is_uploaded_once(
    client: Client, emulator: Emulator, tmp_path: Path, first: str, second: str
) -> None:
    """The same content is not uploaded again, in whatever form it comes."""
    path = tmp_path / "a.png"
    path.write_bytes(CONTENT)
    urls = [await _create(client, FORMS[form](path)) for form in (first, second, first)]
    assert len(set(urls)) == 1
    assert _uploads(emulator) == 1


@pytest.mark.parametrize("form", ["path", "bytes", "new bytes", "open"])
async def test_a_fan_out_uploads_once(
    client: Client, emulator: Emulator, tmp_path: Path, form: str
) -> None:
    """Many runs at a time over one content share one upload, also through views."""
    path = tmp_path / "a.png"
    path.write_bytes(CONTENT)
    view = client.with_options(timeout=20)
    with path.open("rb") as opened:

        def file() -> Any:
            match form:
                case "path":
                    return path
                case "bytes":
                    return CONTENT
                case "new bytes":
                    return bytearray(CONTENT)
                case _:
                    return opened

        urls = await asyncio.gather(
            *(_create((client, view)[number % 2], file()) for number in range(30))
        )
    assert len(set(urls)) == 1
    assert _uploads(emulator) == 1
    assert emulator.file_content(urls[0].rpartition("/")[2]) == CONTENT


async def test_contents_are_told_apart(client: Client, emulator: Emulator) -> None:
    """Contents of one length are uploaded each, whether one after the other or at once."""
    contents = [bytes([number]) * 5000 for number in range(12)]
    urls = [await _create(client, content) for content in contents[:4]]
    urls += await asyncio.gather(*(_create(client, content) for content in contents[4:]))
    assert [emulator.file_content(url.rpartition("/")[2]) for url in urls] == contents


async def test_types_are_told_apart(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """The type goes with the file, so that one content of two types is two files."""
    urls = [
        await _create(client, _old(tmp_path / name, b"{}")) for name in ("a.txt", "a.json", "b.txt")
    ]
    assert urls[0] == urls[2] != urls[1]


async def test_a_changed_file_is_uploaded_again(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A path is looked at each time: what was written over it is what is sent."""
    path = tmp_path / "a.png"
    for content in (b"one", b"two", b"one", b"three"):
        path.write_bytes(content)  # within a moment: the times of the file may not tell
        url = await _create(client, path)
        assert emulator.file_content(url.rpartition("/")[2]) == content
    assert _uploads(emulator) == 3


async def test_a_fresh_file_is_told_by_its_content(tmp_path: Path) -> None:
    """The times of a file that was written a moment ago do not tell whether it is still the same."""
    fresh = tmp_path / "fresh.bin"
    fresh.write_bytes(CONTENT)
    assert (await source_of(fresh, "file")).identity is None
    assert (await source_of(_old(tmp_path / "old.bin"), "file")).identity is not None


async def test_a_deleted_file_is_uploaded_again(client: Client, emulator: Emulator) -> None:
    """What `files.delete` has removed is not relied on."""
    url = await _create(client, CONTENT)
    await client.files.delete(url.rpartition("/")[2])
    assert await _create(client, CONTENT) != url
    assert _uploads(emulator) == 2


async def test_accounts_do_not_share(emulator: Emulator) -> None:
    """A view with another token has files of its own."""
    other = emulator.add_account("other")
    async with Client(emulator.token, base_url=emulator.url) as client:
        await _create(client, CONTENT)
        await _create(client.with_options(api_token=other), CONTENT)
    assert _uploads(emulator) == 2


async def test_clients_do_not_share(emulator: Emulator) -> None:
    """Another client uploads by itself."""
    for _ in range(2):
        async with Client(emulator.token, base_url=emulator.url) as client:
            await _create(client, CONTENT)
    assert _uploads(emulator) == 2


async def test_explicit_files_are_always_made(client: Client, emulator: Emulator) -> None:
    """`files.create` creates a file each time: that is what it is called for."""
    assert (await client.files.create(CONTENT)).id != (await client.files.create(CONTENT)).id


# -- The life of an uploaded file --------------------------------------------------------------


def _created(request: Request, number: int, **more: Any) -> Step:
    return json(
        {"id": f"f{number}", "urls": {"get": f"https://api.invalid/f{number}"}, **more}, 201
    )


@pytest.mark.parametrize("clock", ["monotonic", "wall"])
@pytest.mark.parametrize(
    ("dates", "life"),
    [
        ({}, 23 * 3600),
        ({"created_at": "2025-12-02T12:00:00Z", "expires_at": "2025-12-03T12:00:00Z"}, 23 * 3600),
        ({"created_at": "2025-12-02T12:00:00Z", "expires_at": "2025-12-02T13:00:00Z"}, 1800),
    ],
)
async def test_an_uploaded_file_is_used_until_shortly_before_its_end(
    clock: str, dates: dict[str, Any], life: float
) -> None:
    """It is not used in its last hour, by either clock: one may stand still, the other be set."""
    now = {"monotonic": 0.0, "wall": 1e9}
    uploads = Uploads(lambda: now["monotonic"], lambda: now["wall"])
    count = 0

    def act(request: Request) -> Step:
        nonlocal count
        count += 1
        return _created(request, count, **dates)

    with Wire(act) as wire:
        async with client_of(wire) as client:
            transport = client._context.transport

            async def url() -> str:
                return await uploads.url(transport, await source_of(CONTENT, "file"))

            assert await url() == await url() == "https://api.invalid/f1"
            now[clock] += life - 1
            assert await url() == "https://api.invalid/f1"
            now[clock] += 1
            assert await url() == "https://api.invalid/f2"


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that uploads for ever does not remember for ever."""
    monkeypatch.setattr("replicate_async._files.uploads._MAX_REMEMBERED", 20)
    count = 0

    def act(request: Request) -> Step:
        nonlocal count
        count += 1
        return _created(request, count)

    with Wire(act) as wire:
        async with client_of(wire) as client:
            uploads = client._context.uploads
            for number in range(50):
                await uploads.url(client._context.transport, await source_of(bytes(number), "f"))
            assert len(uploads._order) == 20
            assert sum(map(len, uploads._known.values())) == 20


# -- Sharing what is under way -----------------------------------------------------------------


class Held:
    """A server that holds the first upload until it is let go."""

    def __init__(self, first: Step | None = None) -> None:
        self.first = first
        self.arrived = threading.Event()
        self.release = threading.Event()
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()

    def step(self) -> Step:
        """Return what serves it."""

        def act(request: Request) -> Step:
            if request.path != "/v1/files":
                return json({**PREDICTION, "id": uuid.uuid4().hex}, 201)
            with self._lock:
                self.bodies.append(request.body)
                number = len(self.bodies)
            if number == 1:
                self.arrived.set()
                self.release.wait(10)
                if self.first is not None:
                    return self.first
            digest = hashlib.sha256(CONTENT).hexdigest()
            return _created(request, number, checksums={"sha256": digest})

        return act


async def _run(client: Client, file: Any) -> None:
    await client.predictions.create(model="acme/greeter", input={"file": file})


def _sent(wire: Wire) -> list[str]:
    return [
        request.json()["input"]["file"] for request in wire.requests if request.path != "/v1/files"
    ]


@pytest.mark.parametrize("how", ["task", "anyio"])
async def test_the_others_survive_a_cancelled_upload(how: str) -> None:
    """If the one that uploads is cancelled, another one takes over, and only one."""
    held = Held()
    with Wire(held.step()) as wire:
        async with client_of(wire) as client:
            scope = anyio.CancelScope()

            async def first() -> None:
                with scope:
                    await _run(client, CONTENT)

            leader = asyncio.create_task(first())
            await asyncio.to_thread(held.arrived.wait, 10)
            others = [asyncio.create_task(_run(client, CONTENT)) for _ in range(8)]
            await asyncio.sleep(0)
            if how == "anyio":
                scope.cancel()
            else:
                leader.cancel()
            await asyncio.gather(leader, return_exceptions=True)
            held.release.set()
            await asyncio.gather(*others)
        assert len(held.bodies) == 2
        assert _sent(wire) == ["https://api.invalid/f2"] * 8


async def test_an_upload_survives_the_others_being_cancelled() -> None:
    """Who waits for the upload of another may leave without harm to it."""
    held = Held()
    with Wire(held.step()) as wire:
        async with client_of(wire) as client:
            leader = asyncio.create_task(_run(client, CONTENT))
            await asyncio.to_thread(held.arrived.wait, 10)
            others = [asyncio.create_task(_run(client, CONTENT)) for _ in range(8)]
            await asyncio.sleep(0)
            for other in others[1:]:
                other.cancel()
            await asyncio.gather(*others[1:], return_exceptions=True)
            held.release.set()
            await asyncio.gather(leader, others[0])
        assert len(held.bodies) == 1
        assert _sent(wire) == ["https://api.invalid/f1"] * 2


async def test_a_failure_is_shared() -> None:
    """What the API refuses once is not tried by each that waits; each has an error of its own."""
    held = Held(problem(400, detail="no such luck"))
    with Wire(held.step()) as wire:
        async with client_of(wire) as client:
            runs = [asyncio.create_task(_run(client, CONTENT))]
            await asyncio.to_thread(held.arrived.wait, 10)
            runs += [asyncio.create_task(_run(client, CONTENT)) for _ in range(5)]
            (pending,) = client._context.uploads._pending
            async with asyncio.timeout(10):
                while pending.ended.statistics().tasks_waiting < 5:  # noqa: ASYNC110  (there is no event for it)
                    await asyncio.sleep(0.001)
            held.release.set()
            errors = await asyncio.gather(*runs, return_exceptions=True)
            assert len(held.bodies) == 1
            await _run(client, CONTENT)  # later ones try for themselves
    assert [type(error) for error in errors] == [exceptions.BadRequestError] * 6
    assert len(set(map(id, errors))) == 6


async def test_a_source_that_fails_is_not_shared(tmp_path: Path) -> None:
    """A file that could not be read says nothing about another with the same content."""
    held = Held()
    path = _old(tmp_path / "a.png")

    with Wire(held.step()) as wire:
        async with client_of(wire) as client:
            source = await source_of(path, "file")
            path.unlink()
            uploads = client._context.uploads
            with pytest.raises(exceptions.ArgumentError, match=r"a\.png"):
                await uploads.url(client._context.transport, source)
            held.release.set()
            await _run(client, CONTENT)


async def test_two_loops_at_once(emulator: Emulator) -> None:
    """A client that is used in two threads uploads in both, and mixes nothing up."""
    client = Client(emulator.token, base_url=emulator.url)

    def work() -> list[str]:
        async def main() -> list[str]:
            return [await _create(client, content) for content in (CONTENT, b"other", CONTENT)]

        return asyncio.run(main())

    found = await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
    for urls in found:
        contents = [emulator.file_content(url.rpartition("/")[2]) for url in urls]
        assert contents == [CONTENT, b"other", CONTENT]
    assert 2 <= _uploads(emulator) <= 8
    await client.aclose()


# -- Attempts ----------------------------------------------------------------------------------

PASSING = {**LOST, **{name: BUSY[name] for name in ("429", "502 with HTML", "503")}}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
async def test_uploads_for_inputs_are_repeated(fault: Step) -> None:
    """An upload for an input costs nothing: it is repeated, with its whole body, as reads are."""
    bodies: list[bytes] = []

    def act(request: Request) -> Step:
        if request.path != "/v1/files":
            return json(PREDICTION, 201)
        bodies.append(request.body)
        return _created(request, 1)

    with Wire(fault, act) as wire:
        async with client_of(wire) as client:
            await _run(client, io.BytesIO(CONTENT))
        assert _sent(wire) == ["https://api.invalid/f1"]
    assert [CONTENT in body for body in bodies] == [True]


async def test_a_stream_has_one_attempt() -> None:
    """What cannot be read again is sent once, and the failure is told."""

    class Stream:
        """Something that can be read once."""

        def __init__(self) -> None:
            self.file = io.BytesIO(CONTENT)

        def read(self, size: int) -> bytes:
            """Return the next bytes."""
            return self.file.read(size)

    with Wire(answer(503, b"{}"), json(PREDICTION, 201)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.ServerError):
                await _run(client, Stream())
        assert len(wire.requests) == 1
