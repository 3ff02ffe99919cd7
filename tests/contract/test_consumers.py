"""What people do with output files: suffixes, file objects, paths, URLs from databases, notebooks, bars."""

from __future__ import annotations

import base64
import io
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, cast

import httpx
import pandas as pd
import pytest
from PIL import Image

import replicate_async
from replicate_async import Client, FileOutput, exceptions, sync
from replicate_async.testing import Emulator

from .conftest import rewrite
from .wire import Wire, answer, client_of, file_at

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
PICTURE = {"prompt": "x", "width": 64, "height": 64}


# -- Suffixes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content_type", "content", "name"),
    [
        ("/out", "image/png", b"x", "out.png"),
        ("/out", "image/jpg; q=1", b"x", "out.jpg"),
        ("/out", "audio/x-wav", b"x", "out.wav"),
        ("/out", "application/octet-stream", PNG, "out.png"),
        ("/out", "binary/octet-stream", b"RIFF0000WAVE", "out.wav"),
        ("/out", None, b"\xff\xd8\xff\xe0", "out.jpg"),
        ("/out", None, b"\x1f\x8b\x08\x00", "out.gz"),
        ("/out", None, b"BM\x46\x00\x00\x00" + bytes(4), "out.bmp"),
        ("/out", None, b'<svg xmlns="http://www.w3.org/2000/svg"/>', "out.svg"),
        ("/out", None, b'<?xml version="1.0"?><svg/>', "out.svg"),
        ("/out", None, b'<?xml version="1.0"?><x/>', "out"),
        ("/out", None, b"who knows", "out"),
        ("/out", "video/mp4", PNG, "out.mp4"),
        ("/model-1.5", "image/webp", b"x", "model-1.5.webp"),
        ("/out.bin", "image/png", PNG, "out.bin"),
        ("/", "image/png", PNG, "output.png"),
    ],
)
async def test_suffixes(
    path: str, content_type: str | None, content: bytes, name: str, tmp_path: Path
) -> None:
    """A file whose URL has no suffix gets one, from the type or the first bytes; a path of the user's stays."""
    with Wire(answer(200, content, content_type, keep=True)) as wire:
        async with client_of(wire) as client:
            file = file_at(client, wire.url + path)
            saved = await file.save(tmp_path)
            assert (saved.name, saved.read_bytes()) == (name, content)
            assert file.name == name
            assert await file.save(tmp_path) == saved  # the same file again
            assert await file_at(client, wire.url + path).save(tmp_path) != saved
            assert (await file.save(tmp_path / "mine")).name == "mine"


async def test_suffixes_of_data_uris(tmp_path: Path) -> None:
    """So do data URIs without a type that tells anything."""
    url = "data:application/octet-stream;base64," + base64.b64encode(PNG).decode()
    assert (await FileOutput(url).save(tmp_path)).name == "output.png"


def is_numbered(names: list[str], name: str) -> bool:
    """Tell whether three files have the same name but for numbers, which depend on what arrives first."""
    pattern = re.compile(rf"{name}(-[2-9])*\.png")
    return len(set(names)) == 3 and f"{name}.png" in names and all(map(pattern.fullmatch, names))


async def test_suffixes_in_batches(emulator: Emulator, client: Client, tmp_path: Path) -> None:
    """`save_to` of `run` and `map` give them, too; a journal finds the files again."""

    def change(text: str) -> dict[str, Any]:
        return {
            "a": f"{wire.url}/x/out",
            "b": f"{wire.url}/y/out",
            "c": f"{wire.url}/out.png",
            "text": text,
        }

    emulator.add_model("acme/files", change, official=True)
    with Wire(answer(200, PNG, "image/png", keep=True)) as wire:
        output = await client.run("acme/files", {"text": "t"}, save_to=tmp_path / "run")
        names = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert is_numbered(names, "out")
        assert {output[key].path.suffix for key in "abc"} == {".png"}
        for _ in range(2):
            [outcome] = await client.map(
                "acme/files", [{"text": "t"}], save_to=tmp_path / "map", journal=tmp_path / "j"
            ).collect()
            assert outcome.error is None
            *names, record = sorted(path.name for path in outcome.saved)
            assert record == "000000-output.json"
            assert is_numbered(names, "000000-out")
            assert all(path.exists() for path in outcome.saved)
        # Three for `run`, and three for the first of the batches.
        assert len(wire.requests) == 6


# -- File objects ------------------------------------------------------------------------------


async def test_read_in_pieces(client: Client) -> None:
    """`read(size)` says what `open()` is for; what it returns suits all that reads files."""
    [file] = await client.run("emulator/painter", PICTURE)
    with pytest.raises(exceptions.ArgumentTypeError, match=r"`open\(\)`"):
        await file.read(10)
    content = await file.read()
    assert await file.read(-1) == content
    with await file.open() as opened:
        assert opened.read(8) == content[:8]
        assert opened.seek(0) == 0
        target = io.BytesIO()
        shutil.copyfileobj(opened, target)
    assert target.getvalue() == content


def test_consumers(emulator: Emulator, tmp_path: Path) -> None:
    """pandas, zipfile, Pillow, shutil and httpx get a file object, or are told how to get one."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.csv", "a,b\n1,2\n")
    sent: list[bytes] = []

    def receive(request: httpx.Request) -> httpx.Response:
        sent.append(request.read())
        return httpx.Response(200)

    with (
        Wire(answer(200, b"a,b\n1,2\n", "text/csv", keep=True)) as wire,
        sync.Client("t", base_url=wire.url) as client,
        httpx.Client(transport=httpx.MockTransport(receive)) as web,
    ):
        table: Any = client.output(f"{wire.url}/t.csv")
        with pytest.raises(exceptions.ArgumentTypeError, match=r"pass what `open\(\)` returns"):
            pd.read_csv(table)
        with pytest.raises(exceptions.ArgumentTypeError, match=r"`open\(\)`"):
            shutil.copyfileobj(table, io.BytesIO())
        with table.open() as file:
            assert pd.read_csv(file).to_dict("list") == {"a": [1], "b": [2]}
        with table.open() as file:
            web.post("http://x.test/", files={"file": file})
        web.post("http://x.test/", content=iter(table))
        assert b"a,b\n1,2\n" in sent[0]
        assert b'filename="t.csv"' in sent[0]
        assert sent[1] == b"a,b\n1,2\n"
        table.save(tmp_path / "t.csv")
        assert pd.read_csv(Path(table)).shape == (1, 2)  # it is a path now


# -- Paths -------------------------------------------------------------------------------------


async def test_saved_files_are_paths(client: Client, tmp_path: Path) -> None:
    """A file that was saved is taken by `open`, `Path` and `os.fspath`; as an input it stays a URL."""
    [file] = await client.run("emulator/painter", PICTURE)
    with pytest.raises(TypeError):
        os.fspath(file)
    saved = await file.save(tmp_path)
    assert os.fspath(file) == str(saved)
    assert Path(file) == saved
    assert (await client.run("emulator/describer", {"image": file})).startswith("PNG")
    again = pickle.loads(pickle.dumps(file))
    assert again == file
    assert not hasattr(again, "__fspath__")


def test_saved_files_are_paths_in_the_facade(emulator: Emulator, tmp_path: Path) -> None:
    """So it is in the facade, also for `save_to` of `run`; before, what takes paths reads it."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        [file] = client.run("emulator/painter", PICTURE)
        assert not isinstance(file, os.PathLike)
        with Image.open(file) as picture:  # it is read
            assert picture.size == (64, 64)
        saved = file.save(tmp_path)
        assert isinstance(file, sync.FileOutput)
        assert os.fspath(file) == str(saved)  # type: ignore[call-overload]
        with Image.open(file) as picture:  # type: ignore[arg-type]  # it is a path
            assert picture.size == (64, 64)
        assert client.run("emulator/describer", {"image": file}).startswith("PNG")
        [other] = client.run("emulator/painter", PICTURE, save_to=tmp_path)
        assert Path(other).exists()
        assert not isinstance(pickle.loads(pickle.dumps(file)), os.PathLike)


# -- URLs from databases -----------------------------------------------------------------------


async def test_output_of_a_url(client: Client, emulator: Emulator) -> None:
    """`output(url)` is the file there, downloaded without the token."""
    [file] = await client.run("emulator/painter", PICTURE)
    again = client.output(f" {file.url}\n")
    assert again == file
    assert await again.read() == await file.read()
    assert emulator.ledger.leaks() == []
    assert await client.output("data:,abc").read() == b"abc"
    for url in (
        "",
        "x",
        "/a/b",
        "ftp://a.test/x",
        "https://",
        "https:///x",
        "data:x",
        "file:///etc/passwd",
    ):
        with pytest.raises(exceptions.ArgumentError, match="expected the URL"):
            client.output(url)
    with pytest.raises(exceptions.ArgumentTypeError, match="expected a string"):
        client.output(None)  # type: ignore[arg-type]


def test_output_of_a_url_in_the_facade(emulator: Emulator) -> None:
    """So it is in the facade."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        [file] = client.run("emulator/painter", PICTURE)
        assert client.output(file.url).read() == file.read()
    assert replicate_async.output("data:,abc") == FileOutput("data:,abc")


# -- Notebooks ---------------------------------------------------------------------------------


async def test_a_list_is_a_gallery(client: Client) -> None:
    """A list of files stays a list, and shows its files side by side."""
    images: Any = await client.run("emulator/painter", {**PICTURE, "num_outputs": 3})
    assert isinstance(images, list)
    images = cast("Any", images)
    assert images == [*images]
    assert images._repr_html_().count("<img") == 3
    assert images[0].url in images._repr_html_()
    for image in images:
        await image.read()
    shown = images._repr_html_()
    assert shown.count('src="data:image/png;base64,') == 3
    assert images[0].url not in shown
    outcomes = await client.map("emulator/painter", [PICTURE]).collect()
    assert "<img" in outcomes[0].output._repr_html_()
    assert "<img" in (await client.use("emulator/painter")(**PICTURE))._repr_html_()
    assert not hasattr(await client.run("emulator/writer", {"prompt": "x"}), "_repr_html_")


async def test_what_was_saved_is_embedded(client: Client, tmp_path: Path) -> None:
    """A file that was saved is embedded from the disk, unless another one has taken its place."""
    [image] = await client.run("emulator/painter", PICTURE)
    path = await image.save(tmp_path)
    embedded = base64.b64encode(path.read_bytes()).decode()
    assert embedded in image._repr_mimebundle_()["text/html"]
    path.write_bytes(b"another one")
    assert image.url in image._repr_mimebundle_()["text/html"]


async def test_large_files_are_not_embedded() -> None:
    """What is larger than 8 MiB is shown by its URL."""
    with Wire(answer(200, PNG + bytes(2**23), "image/png")) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/large.png")
            await file.read()
            assert f'src="{file.url}"' in file._repr_mimebundle_()["text/html"]


def test_the_facade_fetches_what_it_shows(emulator: Emulator) -> None:
    """Under the facade, a displayed picture is downloaded; one that cannot be had is a URL."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        images = client.run("emulator/painter", {**PICTURE, "num_outputs": 2})
        assert images._repr_html_().count('src="data:image/png;base64,') == 2
        prediction = next(iter(client.predictions.list())).reload()
        assert prediction._repr_html_().count('src="data:image/png;base64,') == 2
        gone = client.output(emulator.url + "/gone.png")
        assert gone.url in gone._repr_mimebundle_()["text/html"]
        [outcome] = client.map("emulator/painter", [PICTURE])
        assert 'src="data:image/png' in outcome._repr_html_()


async def test_rich_objects_are_escaped(emulator: Emulator, client: Client) -> None:
    """Predictions, models, versions, pages and outcomes are shown without running anything that is foreign."""
    evil = "<script>alert(1)</script>"

    def echo(text: str) -> str:
        print(evil * 1000)
        return text

    emulator.add_model("acme/evil", echo, official=True)
    rewrite(emulator, "predictions.get", lambda given: {**given, "logs": evil * 1000})
    prediction = await client.predictions.create(model="acme/evil", input={"text": evil}, wait=True)
    await prediction.reload()
    assert evil in prediction.logs
    assert len(repr(prediction)) < 1000
    assert evil * 3 not in repr(prediction)
    outcomes = await client.map("acme/evil", [{"text": evil}, {"nope": evil}]).collect()
    model = await client.models.get("acme/evil")
    model.description = evil
    shown: list[Any] = [
        prediction,
        *outcomes,
        model,
        model.latest_version,
        await client.predictions.list(),
    ]
    for each in shown:
        html = each._repr_html_()
        assert "<script" not in html
        assert html.startswith("<div>")
        assert len(repr(each)) < 2000
    assert "&lt;script" in prediction._repr_html_()


# -- Bars --------------------------------------------------------------------------------------


async def test_bars(client: Client, tmp_path: Path, capfd: Any) -> None:
    """`progress=True` shows states, percentages, items and bytes, and leaves the bars closed."""
    output = await client.run("emulator/sleeper", {"seconds": 1.2, "steps": 3}, progress=True)
    assert output.startswith("slept")
    said = capfd.readouterr().err
    assert "emulator/sleeper (sending)" in said
    assert "emulator/sleeper (processing)" in said
    assert "33%" in said
    assert "emulator/sleeper (succeeded): 100%" in said
    [image] = await client.run("emulator/painter", PICTURE, progress=True, save_to=tmp_path)
    assert "out-0.png: 100%" in capfd.readouterr().err
    await image.save(tmp_path / "again.png", progress=True)
    assert "out-0.png: 100%" in capfd.readouterr().err
    inputs: list[dict[str, Any]] = [PICTURE, {**PICTURE, "seed": 1}, {"nope": 1}]
    await client.map("emulator/painter", inputs, progress=True).collect()
    said = capfd.readouterr().err
    assert "3/3" in said
    assert "failed=1" in said


async def test_bars_of_failures(client: Client, capfd: Any) -> None:
    """A failure closes the bar, and is raised as it is, not in a group."""
    with pytest.raises(exceptions.PredictionFailed):
        await client.run("emulator/failer", {"error": "x"}, progress=True)
    assert "(failed)" in capfd.readouterr().err
    with pytest.raises(exceptions.RunTimeout):
        await client.run("emulator/sleeper", {"seconds": 30}, progress=True, timeout=0.5)
    assert "(canceled)" in capfd.readouterr().err
    async with client.map(
        "emulator/sleeper", [{"seconds": 30}] * 2, progress=True, timeout=0.3
    ) as outcomes:
        async for _ in outcomes:
            break
    assert "1/2" in capfd.readouterr().err


async def test_bars_without_tqdm(
    client: Client, emulator: Emulator, monkeypatch: Any, tmp_path: Path
) -> None:
    """Without tqdm, an error says what to install, and nothing is sent."""
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(exceptions.MissingDependency, match=r"replicate-async\[progress\]"):
        await client.run("emulator/sleeper", {"seconds": 1}, progress=True)
    with pytest.raises(exceptions.MissingDependency):
        client.map("emulator/sleeper", [], progress=True)
    with pytest.raises(ImportError):
        await client.output("data:,x").save(tmp_path, progress=True)
    assert emulator.ledger.created() == []


def test_bars_of_the_facade(emulator: Emulator, tmp_path: Path, capfd: Any) -> None:
    """The facade shows them, too."""
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        [image] = client.run("emulator/painter", PICTURE, progress=True)
        image.save(tmp_path, progress=True)
        list(client.map("emulator/painter", [PICTURE], progress=True))
    said = capfd.readouterr().err
    assert "(succeeded): 100%" in said
    assert "out-0.png: 100%" in said
    assert "1/1" in said
