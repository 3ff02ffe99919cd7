"""What a `FileOutput` knows and shows, and where it is saved."""

from __future__ import annotations

import base64
import html
import json as jsonlib
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async import Client, FileOutput, exceptions
from replicate_async.testing import Emulator

from .wire import Wire, answer, client_of, file_at

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()
URL = "https://replicate.delivery/xezq/abc/out-0.webp?sig=%2F"


def test_what_the_url_tells() -> None:
    """Before the download, name and type are what the URL suggests, and the size is not known."""
    file = FileOutput(URL)
    assert (file.url, str(file), f"{file}") == (URL, URL, URL)
    assert (file.name, file.content_type, file.size, file.path) == (
        "out-0.webp",
        "image/webp",
        None,
        None,
    )
    assert FileOutput("https://a.test/x").content_type is None


def test_what_a_data_uri_tells() -> None:
    """A data URI tells its type and its size at once, and gets a name."""
    file = FileOutput(DATA)
    assert (file.name, file.content_type, file.size) == ("output.png", "image/png", len(PNG))
    assert FileOutput("data:,a%20b").size == 3
    assert FileOutput("data:,x").content_type == "text/plain"
    assert FileOutput("data:text/html;charset=utf-8,x").content_type == "text/html"


async def test_what_the_download_tells() -> None:
    """After a download, type and size are what the server said."""
    with Wire(answer(200, PNG, "image/png; x=y")) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.webp")
            await file.read()
            assert (file.content_type, file.size) == ("image/png", len(PNG))
            assert repr(file) == (
                f"FileOutput('{wire.url}/f.webp', content_type='image/png', size={len(PNG)})"
            )


async def test_a_server_that_knows_less() -> None:
    """`application/octet-stream` tells less than the name does."""
    with Wire(answer(200, PNG, "application/octet-stream")) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.webp")
            await file.read()
            assert file.content_type == "image/webp"


@given(st.binary(max_size=3000), st.booleans())
@example(b"x" * 3000, True)
async def test_data_uris_hold_what_they_hold(content: bytes, pad: bool) -> None:
    """A data URI gives its content and its size, in base64 (padded or not) and percent-encoded."""
    import urllib.parse

    encoded = base64.b64encode(content).decode()
    for url in (
        "data:;base64," + (encoded if pad else encoded.rstrip("=")),
        "DATA:application/x;BASE64," + urllib.parse.quote(encoded, safe=""),
        "data:application/x," + urllib.parse.quote_from_bytes(content),
    ):
        file = FileOutput(url)
        assert await file.read() == content
        assert file.size == len(content)
        assert b"".join([chunk async for chunk in file]) == content


async def test_a_large_data_uri(tmp_path: Path) -> None:
    """A data URI of megabytes is decoded in pieces."""
    content = PNG * 300
    file = FileOutput("data:image/png;base64," + base64.b64encode(content).decode())
    chunks = [chunk async for chunk in file]
    assert b"".join(chunks) == content
    assert len(chunks) > 5
    assert (await file.save(tmp_path)).read_bytes() == content


@pytest.mark.parametrize(
    "url", ["data:", "data:image/png;base64", "data:;base64,???", "data:;base64,A"]
)
async def test_broken_data_uris(url: str, tmp_path: Path) -> None:
    """What is no data URI is an error of ours, and leaves nothing on the disk."""
    for call in (FileOutput(url).read, lambda: FileOutput(url).save(tmp_path)):
        with pytest.raises(exceptions.FileOutputError, match="data URI"):
            await call()
    assert list(tmp_path.iterdir()) == []
    _ = FileOutput(url).size, repr(FileOutput(url)), FileOutput(url).name


def test_it_is_a_value() -> None:
    """Equality, hash, pickle and JSON go by the URL; the URL cannot be changed."""
    file = FileOutput(URL)
    assert file == FileOutput(URL) != FileOutput(URL + "x")
    assert {file: 1}[FileOutput(URL)] == 1
    assert file != URL
    again = pickle.loads(pickle.dumps(file))
    assert type(again) is FileOutput
    assert again == file
    assert jsonlib.loads(jsonlib.dumps({"image": [file]}, default=str)) == {"image": [URL]}
    with pytest.raises(AttributeError):
        file.url = "https://a.test/"
    assert not hasattr(file, "__fspath__")  # it is nothing that `open` could open
    with pytest.raises(TypeError):
        os.fspath(file)  # type: ignore[call-overload]


async def test_it_can_be_read_after_pickling(tmp_path: Path) -> None:
    """A file that has lost its client, as in another process, is still there."""
    with Wire(answer(200, PNG)) as wire:
        async with client_of("http://127.0.0.1:9") as client:
            pickled = pickle.dumps(file_at(client, f"{wire.url}/f.png"))
        file = pickle.loads(pickled)
        assert await file.read() == PNG
        assert (await file.save(tmp_path)).read_bytes() == PNG
        assert "authorization" not in wire.requests[0].headers


# -- Notebooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "tag"),
    [
        ("https://a.test/x.png?a=1&b=2", "img"),
        ("https://a.test/x.svg", "img"),
        ("https://a.test/x.mp3", "audio"),
        ("https://a.test/x.mp4", "video"),
        ("https://a.test/x.zip", "a"),
        (DATA, "img"),
    ],
)
def test_what_a_notebook_shows(url: str, tag: str) -> None:
    """A picture shows itself, audio and video have a player, the rest is a link."""
    bundle = FileOutput(url)._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/plain"] == repr(FileOutput(url))
    assert bundle["text/html"].startswith(f"<{tag} ")
    assert f'"{html.escape(url)}"' in bundle["text/html"]


@pytest.mark.parametrize(
    "url",
    [
        'https://a.test/"><script>alert(1)</script>.png',
        "javascript:alert(1)//.png",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x.png",
    ],
)
def test_a_notebook_runs_nothing(url: str) -> None:
    """Whatever a model gives as a URL, a notebook runs no script of it."""
    shown = FileOutput(url)._repr_mimebundle_().get("text/html", "")
    assert "<script" not in shown
    assert "script:" not in shown
    assert "text/html" not in shown


# -- Saving ------------------------------------------------------------------------------------


async def test_it_knows_where_it_was_saved(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """`path` is where it was saved last, and saving it there again replaces it."""
    [file] = await client.run("emulator/painter", {"prompt": "x", "width": 64, "height": 64})
    assert repr(file.path) == "None"
    saved = await file.save(tmp_path)
    assert saved == file.path == tmp_path / file.name
    assert await file.save(tmp_path) == saved
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert await file.save(tmp_path / "other.png") == file.path == tmp_path / "other.png"
    assert (tmp_path / "other.png").read_bytes() == saved.read_bytes() == await file.read()


async def test_no_file_takes_the_place_of_another(tmp_path: Path) -> None:
    """In a directory, a name that is taken gets a number: all outputs of a model have the same names."""
    (tmp_path / "out.txt").write_bytes(b"mine")
    for number in range(3):
        await FileOutput(f"data:,{number}")._save_in(tmp_path, "out.txt")
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"out.txt": b"mine", "out-2.txt": b"0", "out-3.txt": b"1", "out-4.txt": b"2"}


async def test_a_name_that_is_given_is_meant(tmp_path: Path) -> None:
    """A path of a file is replaced, also if it is a link; what the link led to stays."""
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    await FileOutput("data:,new").save(tmp_path / "link")
    assert (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "real").read_bytes() == b"real"


@pytest.mark.parametrize("path", ["", "a\0b", 5, None, b"a"])
async def test_what_is_no_path(path: Any) -> None:
    """What is no path is an error that names the argument."""
    with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)) as caught:
        await FileOutput("data:,x").save(path)
    assert str(caught.value).startswith("path: ")


hostile = st.text(
    st.characters(codec=None) | st.sampled_from("./\\%\0:~ "), max_size=600
) | st.sampled_from(
    ["../../x", "/etc/passwd", "..%2f..%2fx", "", "%00", "x" * 500, "..", ".", "CON"]
)


@given(hostile)
@example("%2e%2e%2fx")
@example("\u202egnp.exe")
@example("\U0001f600" * 200 + ".png")
@example("nul.txt")
async def test_hostile_names_stay_inside(tail: str) -> None:
    """Whatever the URL says, the file is saved in the directory, under a name that can be seen."""
    url = f"https://a.test/{tail}"
    name = FileOutput(url).name
    with tempfile.TemporaryDirectory() as directory:
        inside = Path(directory, "inside")
        saved = await FileOutput("data:,x")._save_in(inside, name)
        assert saved.parent == inside
        assert [path.read_bytes() for path in inside.iterdir()] == [b"x"]
        assert list(Path(directory).iterdir()) == [inside]
    assert not name.startswith(".")
    assert name.isprintable()
    assert len(name.encode()) <= 200
    assert name.partition(".")[0].lower() not in ("con", "nul", "aux", "prn")


def test_nothing_of_it_warns() -> None:
    """Reading, leaving and saving files leaves nothing open, under `-X dev -W error`."""
    script = """
import asyncio, tempfile
from replicate_async import Client
from replicate_async.testing import Emulator

async def main():
    with Emulator() as emulator, tempfile.TemporaryDirectory() as directory:
        async with Client(emulator.token, base_url=emulator.url) as client:
            [file] = await client.run("emulator/painter", {"prompt": "x"})
            await file.read()
            await file.save(directory)
            async for chunk in file:
                break
            task = asyncio.create_task(file.save(directory))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Dev mode remarks on slow steps, of the emulator's loop as well.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("kind", ["save", "upload"])
def test_a_program_may_end_anywhere(kind: str, tmp_path: Path) -> None:
    """Wherever the program's end cancels it, saving and uploading leave no file open, and no piece of one."""
    script = """
import asyncio, sys, tempfile
from pathlib import Path
from replicate_async import Client, FileOutput
from replicate_async.testing import Emulator

source = Path(tempfile.mkdtemp(), "source.bin")
source.write_bytes(bytes(3 * 2**20))
directory = source.with_name("outputs")
directory.mkdir()

async def main(kind, turns):
    async with Client(emulator.token, base_url=emulator.url) as client:
        if kind == "save":
            work = FileOutput("data:;base64," + "QUJD" * 2**19).save(directory)
        else:
            work = client.files.create(source)
        task = asyncio.create_task(work)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        for _ in range(turns):
            await asyncio.sleep(0)

with Emulator() as emulator:
    for turns in range(0, 240, 3):
        asyncio.run(main(sys.argv[1], turns))
        for path in directory.iterdir():
            assert not path.name.startswith("."), (turns, path)
            path.unlink()
opened = [path.resolve() for path in Path("/proc/self/fd").iterdir() if path.exists()]
assert source not in opened
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, kind],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
