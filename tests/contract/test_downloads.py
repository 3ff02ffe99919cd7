"""Files that models made: read, saved, or not there any more."""

from __future__ import annotations

import asyncio
import base64
import copy
import pickle
import tempfile
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async import Client, FileOutput, Limits, Retry, Timeout, exceptions
from replicate_async.testing import Emulator

from .wire import (
    BUSY,
    LOST,
    RESET,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    file_at,
    head,
    problem,
    raw,
)

CONTENT = bytes(range(256)) * 5000
FILE = answer(200, CONTENT, "image/png")
PIXEL = base64.b64encode(b"\x89PNG pixel").decode()


async def chunks_of(file: FileOutput) -> bytes:
    """Return what iteration gives."""
    return b"".join([chunk async for chunk in file])


# -- Whole files -------------------------------------------------------------------------------


async def test_a_file_is_read_as_often_as_asked() -> None:
    """`read`, `aread` and iteration give the whole content, each time."""
    with Wire(FILE) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/out.png")
            assert await file.read() == await file.aread() == await chunks_of(file) == CONTENT


@pytest.mark.parametrize("size", [2**22 - 1, 2**22, 11 * 2**20 + 7])
async def test_a_large_file_is_read(size: int) -> None:
    """The content is the file's, however it is gathered, and if it has to begin once more."""
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    cut = raw(head(200, {"Content-Length": str(size)}), b"y" * (size - 1000))
    with Wire(answer(200, content), cut, answer(200, content)) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f")
            assert await file.read() == content
            assert await file.read() == content
        assert len(wire.requests) == 3


async def test_a_file_without_a_length_is_read() -> None:
    """A body in chunks, whose length nobody told, is read to its end."""
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    with Wire(raw(head(200, {"Transfer-Encoding": "chunked"}), body)) as wire:
        async with client_of(wire) as client:
            assert await file_at(client, f"{wire.url}/f").read() == b"hello world"


async def test_an_empty_file_is_a_file() -> None:
    """A file of no bytes is read and saved."""
    with Wire(answer(200, b"")) as wire, tempfile.TemporaryDirectory() as directory:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.txt")
            assert await file.read() == b""
            assert (await file.save(directory)).read_bytes() == b""


async def test_saving_to_a_path_and_into_a_directory(tmp_path: Path) -> None:
    """A path is the file's name; a directory, or what ends in a slash, gets it under its own."""
    with Wire(FILE) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/a/out-0.png?sig=x")
            assert await file.save(tmp_path / "mine.bin") == tmp_path / "mine.bin"
            assert await file.save(tmp_path) == tmp_path / "out-0.png"
            assert await file.save(f"{tmp_path}/new/deep/") == tmp_path / "new/deep/out-0.png"
            assert await file.save(str(tmp_path / "text.bin")) == tmp_path / "text.bin"
            (tmp_path / "mine.bin").write_bytes(b"older")
            await file.save(tmp_path / "mine.bin")
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) == 4
    assert all(path.read_bytes() == CONTENT for path in found)


async def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A directory that is missing is an OSError, and one of ours."""
    with Wire(FILE) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.FileNotSaved) as caught:
                await file_at(client, f"{wire.url}/f").save(tmp_path / "missing" / "file.png")
    assert isinstance(caught.value, OSError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["\u56fe" * 84 + ".p", "a" * 250], ids=["wide", "long"])
async def test_names_as_long_as_the_system_allows(name: str, tmp_path: Path) -> None:
    """A path whose name is as long as file systems take (255 bytes) can be saved to."""
    with Wire(FILE) as wire:
        async with client_of(wire) as client:
            saved = await file_at(client, f"{wire.url}/f").save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [saved.name] == [name]


# -- Faults ------------------------------------------------------------------------------------

CUTS = {
    "cut before the body": raw(head(200, {"Content-Length": "100000"})),
    "cut in the body": raw(head(200, {"Content-Length": "100000"}), b"x" * 50_000),
    "reset in the body": raw(head(200, {"Content-Length": "100000"}), b"x" * 50_000, reset=True),
    "cut in the chunks": raw(
        head(200, {"Transfer-Encoding": "chunked"}), b"5\r\nhello\r\n9\r\nwor"
    ),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_a_cut_is_an_incomplete_file(cut: Step, tmp_path: Path) -> None:
    """A download that breaks off, wherever, is no content, and leaves nothing on the disk."""
    with Wire(cut) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.png")
            with pytest.raises(exceptions.IncompleteFile):
                await file.read()
            (tmp_path / "f.png").write_bytes(b"older")
            with pytest.raises(exceptions.IncompleteFile):
                await file.save(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


async def test_a_stalled_download_ends(tmp_path: Path) -> None:
    """Silence in the middle of a download ends it, and leaves nothing on the disk."""
    stall = raw(head(200, {"Content-Length": "100000"}), b"x" * 50_000, stall=True)
    with Wire(stall) as wire:
        async with client_of(wire, timeout=Timeout(read=0.2)) as client:
            with pytest.raises((exceptions.TransportTimeout, exceptions.IncompleteFile)):
                await file_at(client, f"{wire.url}/f.png").save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [*LOST.values()], ids=LOST.keys())
async def test_any_cut_is_an_error_of_ours(fault: Step, tmp_path: Path) -> None:
    """Whatever breaks the connection, what escapes is of our hierarchy."""
    with Wire(fault) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.ReplicateException):
                await file_at(client, f"{wire.url}/f.png").save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [BUSY["503"], RESET], ids=["503", "reset"])
async def test_downloads_are_repeated_as_reads_are(fault: Step) -> None:
    """A download that fails before its first byte is tried again: it is a read."""
    with Wire(fault, fault, FILE) as wire:
        async with client_of(wire) as client:
            assert await file_at(client, f"{wire.url}/f.png").read() == CONTENT


async def test_an_expired_file_says_so() -> None:
    """A 404 of a file tells that files are kept for an hour."""
    with Wire(problem(404)) as wire:
        async with client_of("http://127.0.0.1:9") as client:
            with pytest.raises(exceptions.FileExpired, match="one hour") as caught:
                await file_at(client, f"{wire.url}/f.png?sig=1").read()
        assert caught.value.url.startswith(f"{wire.url}/f.png")


async def test_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    """Cancelling `save` in the middle leaves no file, and gives its connection back."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    stall = raw(head(200, {"Content-Length": "100000"}), b"x" * 50_000, stall=True)

    def tell(request: Request) -> Step:
        loop.call_soon_threadsafe(arrived.set)
        return stall

    with Wire(tell, FILE) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.png")
            task = asyncio.create_task(file.save(tmp_path))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert list(tmp_path.iterdir()) == []
            assert await file.read() == CONTENT


async def test_leaving_a_download_early_gives_its_place_back() -> None:
    """Who leaves the iteration does not hold up the next request, with one connection in all."""
    with Wire(FILE) as wire:
        async with client_of(wire, limits=Limits(connections=1)) as client:
            file = file_at(client, f"{wire.url}/f.png")
            async with asyncio.timeout(10):
                for _ in range(3):
                    async for chunk in file:
                        assert chunk
                        break
                assert await file.read() == CONTENT


async def test_a_file_without_a_client_is_read() -> None:
    """A file that was unpickled, or made by hand, is downloaded without any token."""
    with Wire(FILE) as wire:
        assert await pickle.loads(pickle.dumps(FileOutput(f"{wire.url}/f"))).read() == CONTENT
        assert "authorization" not in wire.requests[0].headers


async def test_saving_does_not_block_the_loop(tmp_path: Path) -> None:
    """No file is opened, written or renamed on the event loop."""
    with Wire(FILE) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.png")
            await file.read()  # what is imported at first use is read from the disk
            await file.save(tmp_path / "first.png")
            with blockbuster_ctx():
                await file.save(tmp_path)
    assert (tmp_path / "f.png").read_bytes() == CONTENT


# -- Data URIs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "content", "content_type", "name"),
    [
        (f"data:image/png;base64,{PIXEL}", b"\x89PNG pixel", "image/png", "output.png"),
        (f"DATA:image/png;BASE64,{PIXEL}", b"\x89PNG pixel", "image/png", "output.png"),
        ("data:text/plain,a%20b%2Cc", b"a b,c", "text/plain", "output.txt"),
        ("data:,hello", b"hello", "text/plain", "output.txt"),
        ("data:text/plain;charset=utf-8;base64,aGk%3D", b"hi", "text/plain", "output.txt"),
        ("data:;base64,", b"", "text/plain", "output.txt"),
        ("data:../../x;base64,aGk=", b"hi", "../../x", "output"),
    ],
)
async def test_data_uris_are_files(
    uri: str, content: bytes, content_type: str, name: str, tmp_path: Path
) -> None:
    """A data URI is read without any request, in base64 or percent-encoded."""
    file = FileOutput(uri)
    assert await file.read() == await chunks_of(file) == content
    assert file.content_type == content_type
    assert file.name == name
    assert (await file.save(tmp_path)).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64,!!!", "data:image/png;base64,a", "data:;base64,caf\u00e9"]
)
async def test_broken_data_uris_are_errors_of_ours(uri: str, tmp_path: Path) -> None:
    """A data URI that cannot be decoded is a FileOutputError, and nothing is saved."""
    with pytest.raises(exceptions.FileOutputError):
        await FileOutput(uri).read()
    with pytest.raises(exceptions.FileOutputError):
        await FileOutput(uri).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- Names -------------------------------------------------------------------------------------

hostile = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["..", ".", "", "%2e%2e%2f", "../..", "/etc/passwd", "%00", "\x00", "[", "]:"]),
    st.text("\u56fe\U0001f600a.", min_size=80, max_size=300),
)
hostile_paths = st.lists(hostile, max_size=4).map("/".join)


@given(hostile_paths)
@example("..%2f..%2fetc%2fpasswd")
@example("%2e%2e")
@example("\u56fe" * 100 + ".png")
@example("a." + "\U0001f600" * 16)
@example("x" * 500)
@example("\ud800.png")
@example("/[")
@example("/[.png")
@example("//host:[]/data:,x.png")
def test_hostile_names_stay_in_the_directory(path: str) -> None:
    """Whatever a URL says, its name is one that can be created in a directory."""
    name = FileOutput(f"https://files.invalid/{path}").name
    assert name not in ("", ".", "..")
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / name
        assert made.parent == Path(directory)
        made.write_bytes(b"x")
        assert [found.name for found in Path(directory).iterdir()] == [name]


@given(st.one_of(hostile, hostile_paths.map(lambda path: f"https://{path}")))
@example("https://[")
@example("https://[::1")
@example("https://host//[")
@example("data:")
@example("data:,\ud800")
@example("data:;base64,\ud800")
def test_any_url_has_a_name_and_a_type(url: str) -> None:
    """The properties of a file do not fail, whatever a model gave as its URL."""
    file = FileOutput(url)
    assert file.name
    assert file.content_type is None or file.content_type
    assert str(file) == url
    assert repr(file).startswith("FileOutput(")


@pytest.mark.parametrize("url", ["https://[", "http://127.0.0.1:99999/x", "http://\ud800/", "x:/y"])
async def test_urls_that_lead_nowhere_are_errors_of_ours(url: str, tmp_path: Path) -> None:
    """A model that gives no good URL costs an error of our hierarchy."""
    async with client_of("http://127.0.0.1:9") as client:
        with pytest.raises(exceptions.ReplicateException):
            await file_at(client, url).read()
        with pytest.raises(exceptions.ReplicateException):
            await file_at(client, url).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- As a value --------------------------------------------------------------------------------


async def test_files_are_values() -> None:
    """Files with one URL are equal and have one hash; they pickle and copy; `str` is the URL."""
    async with client_of("http://127.0.0.1:9") as client:
        url = "https://files.invalid/a/out.png?x=%2F"
        file = file_at(client, url)
        assert file == FileOutput(url)
        assert hash(file) == hash(FileOutput(url))
        assert file != FileOutput(url + "x")
        assert str(file) == url
        assert f"{file}" == url
        assert repr(file).startswith(f"FileOutput({url!r}")
        for twin in (pickle.loads(pickle.dumps(file)), copy.copy(file), copy.deepcopy(file)):
            assert twin == file
        assert file.name == "out.png"
        assert file.content_type == "image/png"


@pytest.mark.parametrize("password", ["hunter2", "hunter2'\"x", "hunter2@", "hunter2" * 60])
async def test_passwords_in_urls_are_not_shown(
    password: str, client: Client, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Name and password in the URL of a file, or of an input, are in no repr, no error and no log."""
    caplog.set_level(0)
    url = f"http://bob:{password}@127.0.0.1:9/picture.png"

    @emulator.model("acme/remote", official=True)
    def predict(image: str) -> list[str]:
        return [image]

    prediction = await client.predictions.create(
        model="acme/remote", input={"image": url}, wait=True
    )
    file = FileOutput(url)
    shown = [repr(file), repr(prediction), repr(prediction.output), caplog.text]
    shown += [file._repr_mimebundle_()["text/plain"]]
    once = client.with_options(retry=Retry(attempts=1)).output(url)
    for attempt in (once.read, once.stat, once.open):
        with pytest.raises(exceptions.ConnectError) as caught:
            await attempt()
        shown += [str(caught.value), caught.value.url]
    gone = exceptions.FileExpired(url, 404)
    shown += [str(gone), repr(gone), gone.url]
    assert not [text for text in shown if "hunter2" in text or "bob" in text]
    assert file.url == str(file) == url


def test_long_data_uris_are_short_in_repr() -> None:
    """The repr of a file inside of a URI does not show it all."""
    assert len(repr(FileOutput("data:image/png;base64," + "A" * 10_000))) < 200
