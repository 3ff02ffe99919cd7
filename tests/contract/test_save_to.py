"""`run(save_to=...)`: the files of an output are on the disk when it returns."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from replicate_async import Client, FileOutput, Prediction, exceptions
from replicate_async.testing import Emulator

from .wire import (
    PREDICTION,
    STALL,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    json,
    problem,
)


async def test_outputs_are_on_the_disk(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """All files of the output are saved, and know their path; the output is as always."""
    directory = tmp_path / "new" / "pictures"
    output = await client.run(
        "emulator/painter", {"prompt": "x", "width": 64, "height": 64}, save_to=directory
    )
    [file] = output
    assert type(file) is FileOutput
    assert file.path is not None
    assert file.path == directory / file.name
    assert [file.path] == list(directory.iterdir())
    assert file.path.read_bytes() == await file.read()
    assert file.size == file.path.stat().st_size


async def test_files_of_many_runs_do_not_meet(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """Runs that save into one directory at a time leave a file each."""

    async def run(seed: int) -> FileOutput:
        [file] = await client.run(
            "emulator/painter",
            {"prompt": "x", "seed": seed, "width": 64, "height": 64},
            save_to=tmp_path,
        )
        assert isinstance(file, FileOutput)
        return file

    files = await asyncio.gather(*(run(seed) for seed in range(12)))
    assert len({file.path for file in files}) == len(list(tmp_path.iterdir())) == 12
    for file in files:
        assert file.path is not None
        assert file.path.read_bytes() == await file.read()


def _serving(output: Any, files: Mapping[str, Step], **more: Any) -> Step:
    def act(request: Request) -> Step:
        if request.method == "GET" and request.path in files:
            return files[request.path]
        host = request.headers["host"]

        def placed(value: Any) -> Any:
            if isinstance(value, str):
                return value.replace("HOST", f"http://{host}")
            if isinstance(value, list):
                return [placed(item) for item in value]
            if isinstance(value, dict):
                return {key: placed(item) for key, item in value.items()}
            return value

        return json({**PREDICTION, "output": placed(output), **more}, 201)

    return act


async def test_files_anywhere_in_the_output(tmp_path: Path) -> None:
    """Files are found in lists and dicts; the same names get numbers in their order; text is not saved."""
    output = {
        "text": "hello",
        "images": ["HOST/1/out.png", "HOST/2/out.png", {"deep": "HOST/3/out.png"}],
        "again": "HOST/1/out.png",
        "inline": "data:text/plain,inline",
    }
    files = {f"/{n}/out.png": answer(200, f"content {n}".encode(), "image/png") for n in (1, 2, 3)}
    with Wire(_serving(output, files)) as wire:
        async with client_of(wire) as client:
            found: Any = await client.run("acme/greeter", {}, save_to=str(tmp_path))
    assert found["text"] == "hello"
    paths = [found["images"][0].path, found["images"][1].path, found["images"][2]["deep"].path]
    assert paths == [tmp_path / "out.png", tmp_path / "out-2.png", tmp_path / "out-3.png"]
    assert [path.read_text() for path in paths] == ["content 1", "content 2", "content 3"]
    assert found["again"].path == paths[0]
    assert found["inline"].path.read_text() == "inline"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("output", [None, "text", ["a", "b"], [], 5])
async def test_outputs_without_files(output: Any, tmp_path: Path) -> None:
    """An output without files is returned as it is."""
    with Wire(_serving(output, {})) as wire:
        async with client_of(wire) as client:
            assert await client.run("acme/greeter", {}, save_to=tmp_path) == output
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_fails(tmp_path: Path) -> None:
    """One file that cannot be had does not stop the others, and the error has the prediction."""
    output = ["HOST/1.png", "HOST/2.png", "HOST/3.png"]
    files = {"/1.png": answer(200, b"1"), "/2.png": problem(404), "/3.png": answer(200, b"3")}
    with Wire(_serving(output, files)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.OutputNotSaved) as caught:
                await client.run("acme/greeter", {}, save_to=tmp_path)
    error = caught.value
    output = cast(Prediction, error.prediction).output
    assert error.prediction.id == PREDICTION["id"]
    assert [type(failure) for failure in error.failures] == [exceptions.FileExpired]
    assert isinstance(error.__cause__, exceptions.FileExpired)
    assert [file.path and file.path.name for file in output] == [
        "1.png",
        None,
        "3.png",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "3.png"]


async def test_a_timeout_while_files_are_saved(tmp_path: Path) -> None:
    """The time for a run holds for its files, too; the prediction has succeeded, and is not lost."""
    with Wire(_serving("HOST/1.png", {"/1.png": STALL})) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.OutputNotSaved, match=r"0\.5 s") as caught:
                await client.run("acme/greeter", {}, save_to=tmp_path, timeout=0.5)
    assert caught.value.prediction.status == "succeeded"
    assert list(tmp_path.iterdir()) == []


async def test_cancelling_while_files_are_saved(tmp_path: Path) -> None:
    """A run that is cancelled while it saves leaves nothing unfinished, and cancels nothing at the API."""
    asked = threading.Event()

    def stall(request: Request) -> Step:
        asked.set()
        return STALL

    with Wire(_serving("HOST/1.png", {"/1.png": stall})) as wire:
        async with client_of(wire) as client:
            task = asyncio.create_task(client.run("acme/greeter", {}, save_to=tmp_path))
            await asyncio.to_thread(asked.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert list(tmp_path.iterdir()) == []
        assert not any(request.path.endswith("/cancel") for request in wire.requests)


@pytest.mark.parametrize("kind", ["file", "below a file", "read-only", "NUL", "number"])
async def test_directories_that_cannot_be(
    client: Client, emulator: Emulator, tmp_path: Path, kind: str
) -> None:
    """A directory that cannot be written to is refused before anything is created, and paid for."""
    (tmp_path / "file").touch()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if kind == "read-only" and os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    bad: Any = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "x",
        "read-only": closed,
        "NUL": "a\0b",
        "number": 5,
    }[kind]
    with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)) as caught:
        await client.run("emulator/painter", {"prompt": "x"}, save_to=bad)
    assert str(caught.value).startswith("save_to: ")
    assert emulator.ledger.requests() == []


async def test_files_are_saved_whatever_the_client_makes_of_them(
    emulator: Emulator, tmp_path: Path
) -> None:
    """`save_to` makes files of URLs also for a client that does not; told not to, it is refused."""
    async with Client(emulator.token, base_url=emulator.url, use_file_output=False) as client:
        given = {"prompt": "x", "width": 64, "height": 64}
        [file] = await client.run("emulator/painter", given, save_to=tmp_path)
        assert file.path.is_file()
        with pytest.raises(exceptions.ArgumentError, match="use_file_output"):
            await client.run("emulator/painter", given, save_to=tmp_path, use_file_output=False)
    assert len(emulator.ledger.created()) == 1
