"""Servers of files that lie: in their status, their headers, or about what they send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from replicate_async import FileOutput, Limits, Retry, exceptions
from replicate_async.testing import Reply

from .wire import Wire, answer, client_of, file_at, head, raw

ONCE = Retry(attempts=1)
DIGITS = "9" * 5000


async def _read(file: FileOutput, path: Path) -> bytes:
    return await file.read()


async def _save(file: FileOutput, path: Path) -> bytes:
    return (await file.save(path)).read_bytes()


async def _open(file: FileOutput, path: Path) -> bytes:
    with await file.open() as found:
        return found.read()


async def _iterate(file: FileOutput, path: Path) -> bytes:
    return b"".join([chunk async for chunk in file])


Door = Callable[[FileOutput, Path], Awaitable[bytes]]

doors = pytest.mark.parametrize("door", [_read, _save, _open, _iterate])

NO_FILES: dict[str, tuple[Reply, type[Exception]]] = {
    "no content": (raw(head(204, {"Connection": "close"})), exceptions.ReplicateError),
    "reset content": (answer(205), exceptions.ReplicateError),
    "not yet": (answer(202, b'{"status": "preparing"}'), exceptions.ReplicateError),
    "not modified": (raw(head(304, {"Connection": "close"})), exceptions.ReplicateError),
    "no such part": (answer(416), exceptions.ReplicateError),
    **{
        f"a part: {part[:30]}": (
            answer(206, b"hello", headers={"Content-Range": part}),
            exceptions.IncompleteFile,
        )
        for part in (
            "bytes 0-4/*",
            "bytes 0-4/9",
            "bytes 5-9/10",
            f"bytes 0-4/{DIGITS}",
            f"bytes {DIGITS}-{DIGITS}/{DIGITS}",
            "",
        )
    },
    "several parts": (
        answer(206, b"--a\r\n\r\nhello\r\n--a--", "multipart/byteranges; boundary=a"),
        exceptions.IncompleteFile,
    ),
}


@doors
@pytest.mark.parametrize(("reply", "error"), NO_FILES.values(), ids=NO_FILES.keys())
async def test_what_is_no_file_is_not_taken_for_one(
    door: Door, reply: Reply, error: type[Exception], tmp_path: Path
) -> None:
    """Neither an answer without a file nor a part that nobody asked for is delivered, and nothing hangs."""
    with Wire(reply) as wire:
        async with client_of(wire, retry=ONCE) as client:
            for _ in range(2):  # aiohttp's second answer without a body is another one
                with pytest.raises(error):
                    await door(file_at(client, f"{wire.url}/f.bin"), tmp_path / "f.bin")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("total", [DIGITS, "99"])
async def test_sizes_that_cannot_be(total: str) -> None:
    """A size of thousands of digits is none."""
    for reply in (
        answer(416, headers={"Content-Range": f"bytes */{total}"}),
        answer(206, b"h", headers={"Content-Range": f"bytes 0-0/{total}"}),
    ):
        with Wire(answer(405), reply) as wire:
            async with client_of(wire, retry=ONCE) as client:
                stat = await file_at(client, f"{wire.url}/f.bin").stat()
        assert stat.size == (99 if total == "99" else None)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Image/PNG; a=b", "image/png"),
        ("text/\xff\xfe; a=b", None),
        ("a/" + "b" * 60_000, None),
        ("../../etc/passwd", None),
        ("text/html\tx: y", None),
        ("text", None),
    ],
)
async def test_types_that_cannot_be(said: str, shown: str | None, tmp_path: Path) -> None:
    """What is no media type is none, wherever it is shown or passed on."""
    with Wire(raw(head(200, {"Content-Type": said, "Connection": "close"}), b"hello")) as wire:
        async with client_of(wire, retry=ONCE) as client:
            file = file_at(client, f"{wire.url}/f")
            await file.read()
            assert file.content_type == shown
            assert (await file.save(f"{tmp_path}/")).name == ("f.png" if shown else "f")
            repr(file).encode()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("data:text/html\r\nSet-Cookie: a=b;base64,aGVsbG8=", None),
        ("data:text/\ud800x,hello", None),
        ("data:text/html\x1b[2J,hello", None),
        ("data:Text/HTML;charset=utf-8,hello", "text/html"),
        ("data:,hello", "text/plain"),
        ("data:;charset=x,hello", "text/plain"),
    ],
)
async def test_types_of_data_uris(uri: str, shown: str | None) -> None:
    """The type that a model writes into a data URI can be printed, and stand in a header."""
    file = FileOutput(uri)
    assert file.content_type == shown
    assert (await file.stat()).content_type == shown
    assert "\n" not in file.name


async def test_reasons_are_short() -> None:
    """A message does not quote a header of any length."""
    with Wire(raw(head(200, {"Content-Length": DIGITS * 10}), b"hello")) as wire:
        async with client_of(wire, retry=ONCE) as client:
            with pytest.raises(exceptions.TransportError) as caught:
                await file_at(client, f"{wire.url}/f").read()
    assert len(str(caught.value)) < 2000


async def test_what_is_opened_is_bounded() -> None:
    """A file that never ends does not fill the disk with a temporary one."""
    endless = Reply(200, [bytes(2**16)] * 64, {"Connection": "close"}, end="stall")
    with Wire(endless) as wire:
        async with client_of(wire, retry=ONCE, limits=Limits(save=2**20)) as client:
            with pytest.raises(exceptions.FileTooLarge):
                await file_at(client, f"{wire.url}/f").open()


@pytest.mark.parametrize(
    "name", ["COM\u00b9.txt", "lpt\u00b2", "CONIN$", "nul .txt", "aux. .txt", "con"]
)
def test_names_of_devices(name: str) -> None:
    """A file is never saved under a name that Windows takes for a device."""
    assert FileOutput(f"https://files.invalid/{name}").name.startswith("_")
