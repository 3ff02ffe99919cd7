"""What may stand in an input, how it is sent, and how what cannot be sent is refused."""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import dataclasses
import enum
import gzip
import io
import os
import tempfile
import types
import uuid
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiofiles
import attrs
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given
from hypothesis import strategies as st

from replicate_async import Account, Client, FileOutput, Retry, Timeout, sync
from replicate_async.exceptions import (
    ArgumentError,
    ArgumentTypeError,
    ReplicateException,
    TransportTimeout,
)
from replicate_async.testing import Emulator, Reply

from .conftest import HELLO
from .wire import Wire, client_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9000
MIB = 2**20


async def _sent(client: Client, emulator: Emulator, input: dict[str, Any], **options: Any) -> Any:
    """Create a prediction and return the input as it was sent."""
    await client.predictions.create(HELLO, {"text": "x", **input}, **options)
    sent = emulator.ledger.requests(operation="predictions.create")[-1].json()["input"]
    del sent["text"]
    return sent


async def _file(client: Client, url: str) -> Any:
    return await client.files.get(url.rpartition("/")[2])


# -- Values ------------------------------------------------------------------------------------


class Colour(enum.Enum):
    """An enumeration of strings."""

    RED = "red"


class Word(str, enum.Enum):  # noqa: UP042
    """An enumeration whose members are strings, in the old way."""

    KEY = "key"


class Level(enum.IntEnum):
    """An enumeration of numbers."""

    HIGH = 3


@attrs.frozen
class Box:
    """An attrs class."""

    width: int
    inner: Any = None


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: float
    more: Any = None


class Array:
    """Something like an array of NumPy."""

    def __init__(self, content: Any) -> None:
        self.content = content
        self.size = len(content) if isinstance(content, list) else 1

    def tolist(self) -> Any:
        """Return plain lists and numbers."""
        return self.content


class Pair(NamedTuple):
    """A tuple with names."""

    a: int
    b: str


VALUES: list[tuple[Any, Any]] = [
    ((1, 2), [1, 2]),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    ((n * n for n in range(4)), [0, 1, 4, 9]),
    (map(str, [1, 2]), ["1", "2"]),
    (range(3), [0, 1, 2]),
    (collections.deque([1, 2]), [1, 2]),
    ({"a": 1}.values(), [1]),
    ({"a": 1}.keys(), ["a"]),
    (Pair(1, "x"), [1, "x"]),
    (array.array("i", [1, 2]), [1, 2]),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    ({Word.KEY: Word.KEY}, {"key": "key"}),
    ([Colour.RED], ["red"]),
    (datetime(2025, 1, 2, 3, tzinfo=UTC), "2025-01-02T03:00:00+00:00"),
    (date(2025, 1, 2), "2025-01-02"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (
        Box(1, Point(2.5, [Box(3)])),
        {"width": 1, "inner": {"x": 2.5, "more": [{"width": 3, "inner": None}]}},
    ),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (collections.ChainMap({"a": 1}), {"a": 1}),
    (Array([[1.5, 2.0], [3.0, 4.0]]), [[1.5, 2.0], [3.0, 4.0]]),
    (Array(7), 7),
    (Array(True), True),
    (Array(None), None),
    (Array("text"), "text"),
    (True, True),
    (None, None),
    ("data:text/plain;base64,eA==", "data:text/plain;base64,eA=="),
    ("https://example.com/x.png", "https://example.com/x.png"),
    ("/etc/hostname", "/etc/hostname"),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[str(n) for n in range(len(VALUES))])
async def test_values_become_json(
    client: Client, emulator: Emulator, value: Any, expected: Any
) -> None:
    """Values of Python become the JSON that a user expects; types are kept."""
    sent = await _sent(client, emulator, {"value": value})
    assert sent == {"value": expected}
    assert type(sent["value"]) is type(expected)
    assert emulator.ledger.requests(operation="files.create") == []


async def test_numpy(client: Client, emulator: Emulator) -> None:
    """Arrays and scalars of NumPy are numbers, wherever NumPy is installed."""
    np = pytest.importorskip("numpy")
    given = {
        "a": np.arange(6).reshape(2, 3),
        "f": np.float32(0.5),
        "i": np.int64(7),
        "b": np.bool_(True),
    }
    sent = await _sent(client, emulator, given)
    assert sent == {"a": [[0, 1, 2], [3, 4, 5]], "f": 0.5, "i": 7, "b": True}


class Opaque:
    """Something that is nothing that JSON has."""


UNSENDABLE: list[tuple[Any, str]] = [
    (float("nan"), "input.value"),
    ([1, float("inf")], "input.value[1]"),
    (Array([1.0, float("nan")]), "input.value[1]"),
    ({"deep": [0, {"x": Opaque()}]}, "input.value.deep[1].x"),
    (Box(1, Opaque()), "input.value.inner"),
    ({1: 2}, "input.value"),
    (Opaque, "input.value"),
    (io.BytesIO, "input.value"),
    (Box, "input.value"),
    (1j, "input.value"),
    ([Account(username="acme")], "input.value[0]"),
]


@pytest.mark.parametrize(
    ("value", "argument"), UNSENDABLE, ids=[str(n) for n in range(len(UNSENDABLE))]
)
async def test_what_json_has_not(
    client: Client, emulator: Emulator, value: Any, argument: str
) -> None:
    """What cannot be sent is refused by its place, before anything is."""
    with pytest.raises((ArgumentError, ArgumentTypeError)) as caught:
        await client.run(HELLO, {"text": "x", "file": b"good", "value": value})
    assert str(caught.value).startswith(f"{argument}: ")
    assert emulator.ledger.requests() == []


async def test_large_inputs_are_copied_elsewhere(client: Client, emulator: Emulator) -> None:
    """An input of very many items is sent, whatever iterators there were before them."""
    given = {
        "once": iter([1, 2, {"f": b"content"}]),
        "many": list(range(200_000)),
        "array": Array(list(range(9000))),
    }
    sent = await _sent(client, emulator, given)
    assert sent["many"] == list(range(200_000))
    assert sent["array"] == list(range(9000))
    assert sent["once"][:2] == [1, 2]
    assert emulator.file_content(sent["once"][2]["f"].rpartition("/")[2]) == b"content"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


@given(st.dictionaries(st.text(), json_values, max_size=4))
async def test_json_stays_json(value: dict[str, Any]) -> None:
    """JSON is sent as it is, as a copy: what the caller has is neither changed nor shared."""
    from replicate_async._files.inputs import encode_input
    from replicate_async._files.uploads import Uploads

    before = repr(value)
    encoded, _ = await encode_input(value, None, "url", Uploads())  # type: ignore[arg-type]  # nothing is sent
    assert encoded == _plain(value)
    assert repr(value) == before


# -- Files -------------------------------------------------------------------------------------


class AsyncUpload:
    """An upload as Starlette hands it out: it seeks to places only, and tells its size."""

    def __init__(self, content: bytes, filename: str | None) -> None:
        self.file = io.BytesIO(content)
        self.filename = filename
        self.size = len(content)
        self.content_type = "image/x-from-the-browser"

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return self.file.read(size)

    async def seek(self, offset: int) -> None:
        """Go to a place."""
        self.file.seek(offset)


class Storage:
    """An upload as Werkzeug hands it out: a proxy of its stream."""

    def __init__(self, content: bytes, filename: str) -> None:
        self.stream = io.BytesIO(content)
        self.filename = filename
        self.name = "the field of the form"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Lazy:
    """Something that reads by awaiting, without `async def`, and cannot seek."""

    def __init__(self, content: bytes) -> None:
        self.file = io.BytesIO(content)

    def read(self, size: int) -> Any:
        """Return something to await."""

        async def later() -> bytes:
            return self.file.read(size)

        return later()


def _spooled(content: bytes) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=10**9)  # noqa: SIM115
    file.write(content)
    return file


def _named(content: bytes) -> Any:
    file = tempfile.NamedTemporaryFile(suffix=".webp")  # noqa: SIM115
    file.write(content)  # in its buffer, perhaps not on the disk
    return file


def _zipped(content: bytes) -> Any:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.png", content)
    return zipfile.ZipFile(buffer).open("inner.png")


def _gzipped(content: bytes) -> Any:
    return gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content)))


def _named_bytes(content: bytes) -> Any:
    file = io.BytesIO(content)
    file.name = "folder/picture.jpeg"
    return file


def _pipe(content: bytes) -> Any:
    reading, writing = os.pipe()
    os.write(writing, content[:60_000])
    os.close(writing)
    return os.fdopen(reading, "rb")


READERS: list[tuple[Callable[[bytes], Any], str | None, str]] = [
    (lambda content: AsyncUpload(content, "C:\\folder\\cat.png"), "cat.png", "image/png"),
    (lambda content: AsyncUpload(content, None), None, "image/x-from-the-browser"),
    (lambda content: Storage(content, "cat.gif"), "cat.gif", "image/gif"),
    (Lazy, "file.png", "image/png"),
    (_spooled, None, "image/png"),
    (_named, None, "image/webp"),
    (_zipped, "inner.png", "image/png"),
    (_gzipped, None, "image/png"),
    (_named_bytes, "picture.jpeg", "image/jpeg"),
    (_pipe, None, "image/png"),
]


@pytest.mark.parametrize(
    ("make", "name", "kind"), READERS, ids=[str(n) for n in range(len(READERS))]
)
async def test_what_can_be_read(
    client: Client,
    emulator: Emulator,
    make: Callable[[bytes], Any],
    name: str | None,
    kind: str,
) -> None:
    """Whatever has a `read` arrives whole, with the right name and type; it is left open."""
    content = PNG[:60_000] if make is _pipe else PNG
    file = make(content)
    sent = await _sent(client, emulator, {"file": file})
    uploaded = await _file(client, sent["file"])
    assert emulator.file_content(uploaded.id) == content
    assert uploaded.content_type == kind
    if name is not None:
        assert uploaded.name == name
    if hasattr(file, "close"):
        assert not file.closed
        file.close()


async def test_positions_stay(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """Files are sent from their beginning, and stand afterwards where they stood before."""
    path = tmp_path / "a.bin"
    path.write_bytes(PNG)
    with path.open("rb") as opened, path.open("rb", buffering=0) as raw:
        for file in (opened, raw, io.BytesIO(PNG), _spooled(PNG), _gzipped(PNG)):
            file.seek(100)
            sent = await _sent(client, emulator, {"file": file})
            assert emulator.file_content(sent["file"].rpartition("/")[2]) == PNG
            assert file.tell() == 100
            file.close()
    async with aiofiles.open(path, "rb") as waiting:
        await waiting.seek(50)
        await _sent(client, emulator, {"file": waiting})
        assert await waiting.tell() == 50
        assert not waiting.closed


TYPES = [
    (b"\x89PNG\r\n\x1a\n0000", "image/png", "file.png"),
    (b"\xff\xd8\xff\xe0" + bytes(12), "image/jpeg", None),
    (b"GIF89a" + bytes(10), "image/gif", "file.gif"),
    (b"RIFF0000WEBPVP8 ", "image/webp", "file.webp"),
    (b"RIFF0000WAVEfmt ", "audio/wav", "file.wav"),
    (b"\x00\x00\x00 ftypisom0000", "video/mp4", "file.mp4"),
    (b"\x00\x00\x00 ftypavif0000", "image/avif", "file.avif"),
    (b"ID3\x04" + bytes(12), "audio/mpeg", None),
    (b"%PDF-1.7" + bytes(8), "application/pdf", "file.pdf"),
    (b"PK\x03\x04" + bytes(12), "application/zip", "file.zip"),
    (b"nothing known", "application/octet-stream", "file"),
    (b"", "application/octet-stream", "file"),
]


@pytest.mark.parametrize(("content", "kind", "name"), TYPES)
async def test_types_of_what_has_no_name(
    client: Client, emulator: Emulator, content: bytes, kind: str, name: str | None
) -> None:
    """Without a name, the first bytes tell the type, and the type a name."""
    uploaded = await client.files.create(content)
    assert uploaded.content_type == kind
    assert name is None or uploaded.name == name
    sent = await _sent(client, emulator, {"f": content}, file_encoding_strategy="base64")
    assert sent["f"].startswith(f"data:{kind};base64,")


async def test_the_name_comes_before_the_content(client: Client, tmp_path: Path) -> None:
    """The type is that of the name; a name without a type leaves it to the content."""
    for name, kind in (
        ("a.txt", "text/plain"),
        ("a.webp", "image/webp"),
        ("a", "image/png"),
        ("a.qqq", "image/png"),
    ):
        path = tmp_path / name
        path.write_bytes(PNG)
        assert (await client.files.create(path)).content_type == kind


async def test_odd_names(client: Client, tmp_path: Path) -> None:
    """Names that are no UTF-8, or longer than the API takes, do not stop an upload."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(path)).write_bytes(PNG)
    created = await client.files.create(Path(os.fsdecode(path)))
    assert created.name == "caf?.png"
    long = io.BytesIO(b"x")
    long.name = "é" * 200 + ".txt"
    created = await client.files.create(long)
    assert created.name is not None
    assert len(created.name.encode()) <= 255
    assert created.name.endswith(".txt")


async def test_files_that_are_on_the_web(client: Client, emulator: Emulator) -> None:
    """Output files of both clients, and uploaded files, are sent as their URL."""

    def run() -> list[sync.FileOutput]:
        with sync.Client(emulator.token, base_url=emulator.url) as other:
            made: list[sync.FileOutput] = other.run("emulator/painter", {"prompt": "x"})
            return made

    uploaded = await client.files.create(b"x")
    twins = await asyncio.to_thread(run)
    sent = await _sent(
        client,
        emulator,
        {"a": FileOutput("https://example.com/a.png"), "b": (twins,), "c": uploaded},
        file_encoding_strategy="base64",
    )
    assert sent == {
        "a": "https://example.com/a.png",
        "b": [[twins[0].url]],
        "c": uploaded.urls.get,
    }
    assert len(emulator.ledger.requests(operation="files.create")) == 1


async def test_what_else_has_a_url_is_read(client: Client, emulator: Emulator) -> None:
    """Whatever has `read` and `url`, and is no output of ours, is read: nobody else may see its URL."""

    class Stored:
        """A file in the storage of an application, on a host that only this machine sees."""

        url = "http://localhost:8000/media/cat.png"

        def read(self) -> bytes:
            """Return the content."""
            return PNG

    class Piecewise(Stored):
        """Another one, that is read in pieces."""

        url = "https://10.0.0.1/media/dog.png"

        def __init__(self) -> None:
            self.file = io.BytesIO(PNG)

        def read(self, size: int = -1) -> bytes:
            """Return the next bytes."""
            return self.file.read(size)

    class Awaited(Stored):
        """One that is awaited."""

        async def read(self) -> bytes:  # type: ignore[override]
            """Return the content."""
            return PNG

    for make in (Stored, Piecewise, Awaited):
        sent = await _sent(client, emulator, {"file": make()})
        uploaded = await _file(client, sent["file"])
        assert emulator.file_content(uploaded.id) == PNG
        assert uploaded.name == ("dog.png" if make is Piecewise else "cat.png")


async def test_an_output_can_be_kept(client: Client, emulator: Emulator) -> None:
    """`files.create` copies the content of an output, which would expire in an hour."""
    [output] = await client.run("emulator/painter", {"prompt": "x", "width": 64, "height": 64})
    created = await client.files.create(output)
    assert emulator.file_content(created.id) == await output.read()
    assert created.name == output.name


async def test_the_caller_may_close_early(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """A file that is closed while it waits to be sent is an error, or is sent whole: never other content."""
    path, other = tmp_path / "a.bin", tmp_path / "b.bin"
    path.write_bytes(PNG)
    other.write_bytes(b"o" * len(PNG))
    for turns in range(0, 12, 2):
        with path.open("rb") as file:
            task = asyncio.create_task(client.files.create(file))
            for _ in range(turns):
                await asyncio.sleep(0)
        with other.open("rb"):  # takes the number of the one that was closed
            try:
                created = await task
            except ArgumentError as error:
                assert error.argument == "file"  # noqa: PT017
                continue
        assert emulator.file_content(created.id) == PNG


# -- Files that cannot be sent -----------------------------------------------------------------


class Broken:
    """Something whose `read` fails, or gives what it should not."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def read(self, size: int) -> Any:
        """Fail."""
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Return a maker of files that cannot be sent."""
    opened: list[Any] = []

    def keep(file: Any) -> Any:
        opened.append(file)
        return file

    def make(kind: str) -> Any:
        path = tmp_path / "file.bin"
        path.write_bytes(b"x")
        match kind:
            case "closed file":
                file = path.open("rb")
                file.close()
                return file
            case "text file":
                return keep(path.open())
            case "write-only file":
                return keep(path.open("wb"))
            case "directory":
                return tmp_path
            case "missing":
                return tmp_path / "missing"
            case "forbidden name":
                return Path("a\0b")
            case "pipe":
                os.mkfifo(tmp_path / "pipe")
                return tmp_path / "pipe"
            case "device":
                return Path("/dev/zero")
            case "failing":
                return Broken(PermissionError("not today"))
            case "text":
                return Broken("text")
            case "nonsense":
                return Broken(5)
            case "huge":
                return bytearray(100 * MIB + 1)
            case "huge file":
                os.truncate(path, 100 * MIB + 1)
                return keep(path.open("rb"))
        raise AssertionError(kind)

    yield make
    for file in opened:
        file.close()


KINDS = [
    ("closed file", "closed"),
    ("text file", "'rb'"),
    ("write-only file", "not open for reading"),
    ("directory", "directory"),
    ("missing", "No such file"),
    ("forbidden name", "null"),
    ("pipe", "regular file"),
    ("device", "regular file"),
    ("failing", "not today"),
    ("text", "'rb'"),
    ("nonsense", "int"),
    ("huge", "https URL"),
    ("huge file", "https URL"),
]


@pytest.mark.parametrize("strategy", ["url", "base64"])
@pytest.mark.parametrize(("kind", "said"), KINDS)
async def test_files_that_cannot_be_sent(
    client: Client,
    emulator: Emulator,
    bad: Callable[[str], Any],
    kind: str,
    said: str,
    strategy: Any,
) -> None:
    """A bad file is named by its key, with what to do, before a byte of any file is sent."""
    given = {"images": [b"good", "https://example.com/x.png", bad(kind)], "text": "x"}
    with pytest.raises((ArgumentError, ArgumentTypeError)) as caught:
        await client.run(HELLO, given, file_encoding_strategy=strategy)
    assert str(caught.value).startswith("input.images[2]: ")
    assert said in str(caught.value)
    assert emulator.ledger.requests() == []


async def test_the_largest_file(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """100 MiB are sent; one byte more is not, also if that is only seen on the way."""

    class Stream:
        """A stream of zeros."""

        def __init__(self, left: int) -> None:
            self.left = left

        def read(self, size: int) -> bytes:
            """Return the next bytes."""
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, 100 * MIB)
    created = await client.files.create(path)
    assert created.size == 100 * MIB
    await client.files.delete(created.id)
    with pytest.raises(ArgumentError, match="100 MiB") as caught:
        await client.files.create(Stream(100 * MIB + 1))
    assert caught.value.argument == "file"
    assert len(await client.files.list()) == 0


async def test_a_file_that_fails_on_the_way(client: Client, emulator: Emulator) -> None:
    """A source that fails in the middle is named by its key, and nothing is created."""

    class Failing:
        """A stream that ends in an error."""

        count = 0

        def read(self, size: int) -> bytes:
            """Return some bytes, then fail."""
            self.count += 1
            if self.count > 3:
                raise OSError("the disk is gone")
            return bytes(size)

    with pytest.raises(ArgumentError, match="the disk is gone") as caught:
        await client.run(HELLO, {"text": "x", "clip": Failing()})
    assert caught.value.argument == "input.clip"
    assert emulator.ledger.created() == []
    assert len(await client.files.list()) == 0


async def test_a_path_that_shrinks(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A file on the disk that gets shorter while it is sent is an error that names it."""
    path = tmp_path / "a.bin"

    class Cutter:
        """A file that cuts the other one as soon as the files are sent."""

        looked_at = False

        def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
            """Cut, at the second time that it is read from its beginning."""
            if whence == os.SEEK_SET:
                if self.looked_at:
                    os.truncate(path, 5)
                self.looked_at = True
            return 0

        def read(self, size: int) -> bytes:
            """Return nothing."""
            return b""

    path.touch()
    os.truncate(path, 90 * MIB)  # which takes its time
    with pytest.raises(ReplicateException, match=r"a\.bin has changed") as caught:
        await client.run(HELLO, {"text": "x", "files": [path, Cutter()]})
    assert caught.value.argument == "input.files[0]"  # type: ignore[attr-defined]
    assert emulator.ledger.created() == []
    assert client.stats.retried == 0  # to read it again would not help


async def test_nothing_blocks_the_loop(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """Paths are looked at, opened, read and hashed elsewhere than on the event loop."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    same = tmp_path / "same.png"
    same.write_bytes(PNG)
    await _sent(client, emulator, {"file": path})  # what is imported at first use
    with path.open("rb") as file, blockbuster_ctx():
        await _sent(client, emulator, {"files": [path, same, file, io.BytesIO(PNG)]})
        await _sent(client, emulator, {"files": [path]}, file_encoding_strategy="base64")


async def _eventually(holds: Callable[[], bool]) -> None:
    """Wait until threads that outlast a cancelled task have come to their end."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come about")


def _opened(path: Path) -> int:
    """Count the descriptors of this process that lead to a file."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found += descriptor.readlink() == path
        except OSError:  # it was that of the listing
            continue
    return found


@pytest.mark.parametrize("strategy", ["url", "base64"])
async def test_cancelling_anywhere_leaves_nothing_open(
    client: Client, emulator: Emulator, tmp_path: Path, strategy: Any
) -> None:
    """Wherever a call is cancelled, what we opened is closed, and what the caller opened is not."""
    path, mine = tmp_path / "a.bin", tmp_path / "mine.bin"
    for file in (path, mine):
        file.write_bytes(PNG * 3)
    with mine.open("rb") as opened:
        for turns in range(0, 120, 3):
            task = asyncio.create_task(
                client.predictions.create(
                    HELLO,
                    {"text": "x", "a": path, "b": opened, "turn": turns},
                    file_encoding_strategy=strategy,
                )
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await _eventually(lambda: (_opened(path), _opened(mine)) == (0, 1))
        assert opened.read(4) == PNG[:4]


async def test_an_upload_that_stalls_ends() -> None:
    """A server that stops reading does not hold an upload for ever."""
    with Wire(Reply.raw(end="stall", reads=False)) as wire:
        async with client_of(wire, timeout=Timeout(read=0.1), retry=Retry(attempts=1)) as client:
            with pytest.raises(TransportTimeout):
                await asyncio.wait_for(client.files.create(bytes(60 * MIB)), 20)
