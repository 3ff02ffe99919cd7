"""The namespace of files, and what may stand for a file in it and in inputs."""

from __future__ import annotations

import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiofiles
import pytest

from replicate_async import Client, FileOutput
from replicate_async.exceptions import FileExpired, NotFoundError
from replicate_async.testing import Emulator

from .conftest import HELLO

CONTENT = bytes(range(256)) * 5000
"""More than one chunk."""


class Reader:
    """Something that can only be read."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return self._file.read(size)


class PathLike:
    """Something that stands for a path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


FORMS = ["bytes", "bytearray", "memoryview", "BytesIO", "path", "os.PathLike", "open", "reader"]


def _form(name: str, path: Path) -> Any:
    path.write_bytes(CONTENT)
    match name:
        case "bytes":
            return CONTENT
        case "bytearray":
            return bytearray(CONTENT)
        case "memoryview":
            return memoryview(CONTENT)
        case "BytesIO":
            return io.BytesIO(CONTENT)
        case "path":
            return path
        case "os.PathLike":
            return PathLike(path)
        case "open":
            return path.open("rb")
        case "reader":
            return Reader(CONTENT)
    raise AssertionError(name)


@pytest.mark.parametrize("form", FORMS)
async def test_forms_of_files(
    client: Client, emulator: Emulator, tmp_path: Path, form: str
) -> None:
    """Every form of a file is uploaded whole, by `files.create` and inside of an input."""
    file = _form(form, tmp_path / "a.png")
    created = await client.files.create(file)
    assert emulator.file_content(created.id) == CONTENT
    assert created.size == len(CONTENT)
    if form in ("path", "os.PathLike", "open"):
        assert (created.name, created.content_type) == ("a.png", "image/png")
    else:
        assert created.content_type == "application/octet-stream"
    if hasattr(file, "close"):
        assert not file.closed  # it is the caller's
        file.close()
    file = _form(form, tmp_path / "b.png")
    await client.predictions.create(HELLO, {"text": "a", "deep": [{"file": file}]})
    url = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]
    uploaded = await client.files.get(url["deep"][0]["file"].rpartition("/")[2])
    assert emulator.file_content(uploaded.id) == CONTENT
    if hasattr(file, "close"):
        file.close()


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="Linux has such files")
@pytest.mark.parametrize("form", ["path", "open"])
async def test_files_that_tell_no_size(client: Client, emulator: Emulator, form: str) -> None:
    """A file that the system makes while it is read is not taken for an empty one."""
    path = Path("/proc/version")
    with path.open("rb") as file:
        created = await client.files.create(path if form == "path" else file)
    assert emulator.file_content(created.id) == path.read_bytes() != b""


@pytest.mark.parametrize("form", FORMS)
async def test_forms_of_inlined_files(
    client: Client, emulator: Emulator, tmp_path: Path, form: str
) -> None:
    """Every form of a file can be sent inside of the request."""
    import base64

    file = _form(form, tmp_path / "a.png")
    await client.predictions.create(
        HELLO, {"text": "a", "file": file}, file_encoding_strategy="base64"
    )
    if hasattr(file, "close"):
        file.close()
    sent = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]["file"]
    head, _, data = sent.partition(",")
    named = form in ("path", "os.PathLike", "open")
    assert head == f"data:{'image/png' if named else 'application/octet-stream'};base64"
    assert base64.b64decode(data) == CONTENT


async def test_async_readers(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A file that is read with `await` is uploaded, too."""
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    async with aiofiles.open(path, "rb") as file:
        created = await client.files.create(file)
    assert emulator.file_content(created.id) == CONTENT


async def test_temporary_files(client: Client, emulator: Emulator) -> None:
    """A temporary file is sent from its beginning, wherever it stands."""
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        created = await client.files.create(file)
        assert emulator.file_content(created.id) == b"content"


async def test_a_string_is_a_path_for_create_only(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """`files.create` takes a path as a string, where it can mean nothing else."""
    path = tmp_path / 'naïve "name".txt'
    path.write_bytes(b"x")
    created = await client.files.create(str(path))
    assert emulator.file_content(created.id) == b"x"
    assert created.content_type == "text/plain"


async def test_names_and_metadata(client: Client, emulator: Emulator) -> None:
    """Name, type and metadata are kept; the name of a part cannot break out of it."""
    created = await client.files.create(
        b"x",
        filename="é\r\nX-Evil: 1.txt",
        content_type="text/x-mine",
        metadata={"a": [1, {"b": None}], "é": "☕"},
    )
    assert created.content_type == "text/x-mine"
    assert created.metadata == {"a": [1, {"b": None}], "é": "☕"}
    assert created.name is not None
    assert "\r" not in created.name
    assert created.name.startswith("é")
    empty = await client.files.create(b"")
    assert (empty.size, empty.metadata) == (0, {})
    assert emulator.file_content(empty.id) == b""


async def test_life_of_a_file(client: Client, emulator: Emulator) -> None:
    """A file is created, found, listed, downloaded and deleted; then it is gone."""
    created = await client.files.create(b"content", filename="a.txt")
    assert (await client.files.get(created.id)).to_dict() == created.to_dict()
    assert [file.id async for file in client.files.list()] == [created.id]
    signed = {
        name: values[0]
        for name, values in parse_qs(urlsplit(emulator.download_url(created.id)).query).items()
    }
    for expiry in (
        int(signed["expiry"]),
        datetime.fromtimestamp(int(signed["expiry"]), UTC),
    ):
        output = client.files.download(
            created.id, owner=signed["owner"], expiry=expiry, signature=signed["signature"]
        )
        assert type(output) is FileOutput
        assert await output.read() == b"content"
    wrong = client.files.download(created.id, owner="acme", expiry=1, signature="x")
    with pytest.raises(FileExpired):
        await wrong.read()
    await client.files.delete(created.id)
    for call in (client.files.get, client.files.delete):
        with pytest.raises(NotFoundError, match="File not found"):
            await call(created.id)
    assert len(await client.files.list()) == 0


async def test_files_are_uploaded_at_once(client: Client, emulator: Emulator) -> None:
    """The files of an input are uploaded together, and each stands in its own place."""
    contents = [f"content {n}".encode() for n in range(8)]
    await client.predictions.create(
        HELLO, {"text": "a", "files": [*contents[:4], {"deep": contents[4:]}]}
    )
    sent = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]["files"]
    urls = sent[:4] + sent[4]["deep"]
    assert [emulator.file_content(url.rpartition("/")[2]) for url in urls] == contents


async def test_the_callers_input_stays_as_it_is(client: Client) -> None:
    """The input is copied: what the caller passed is not changed."""
    content = io.BytesIO(b"x")
    nested = {"file": content, "list": [b"y"]}
    given: dict[str, Any] = {"text": "a", "nested": nested}
    await client.predictions.create(HELLO, given)
    assert given == {"text": "a", "nested": nested}
    assert nested == {"file": content, "list": [b"y"]}
    assert nested["file"] is content


async def test_outputs_are_passed_by_url(client: Client, emulator: Emulator) -> None:
    """A file that a model made goes into an input as its URL, without a download."""
    await client.predictions.create(
        HELLO,
        {
            "text": "a",
            "one": FileOutput("https://example.com/a.png"),
            "two": [FileOutput("data:,a")],
        },
    )
    sent = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]
    assert sent == {"text": "a", "one": "https://example.com/a.png", "two": ["data:,a"]}
    assert len(emulator.ledger.requests()) == 1
