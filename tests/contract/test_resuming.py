"""Downloads that break off, change, lie or never end; and what is left of them."""

from __future__ import annotations

import asyncio
import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate_async import FileOutput, Limits, Retry, Timeout, exceptions
from replicate_async._files.relay import Conditions
from replicate_async.testing import Reply

from .faults import until
from .wire import QUICK, Request, Wire, answer, client_of, file_at, head, problem, raw

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(100_000))
TAG = '"d41d8cd98f00b204e9800998ecf8427e"'


class Origin:
    """Serves one file, in parts if it is asked to, and cuts the connection after so many bytes."""

    def __init__(
        self,
        *cuts: int | None,
        content: bytes = CONTENT,
        tag: str | None = TAG,
        ranges: bool = True,
        changes: Callable[[int, dict[str, str]], None] | None = None,
    ) -> None:
        self.cuts = list(cuts)
        self.content = content
        self.tag = tag
        self.ranges = ranges
        self.changes = changes
        self.served = 0

    def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        cut = self.cuts.pop(0) if self.cuts else None
        self.served += 1
        start, status = 0, 200
        headers = {"Content-Type": "image/png"}
        wanted = request.headers.get("range")
        if self.ranges and wanted and request.headers.get("if-range", self.tag) == self.tag:
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        headers["Content-Length"] = str(len(self.content) - start)
        if self.tag:
            headers["ETag"] = self.tag
        if self.changes:
            self.changes(self.served, headers)
        stop = len(self.content) if cut is None else start + cut
        end: Literal["keep", "close"] = "keep" if cut is None else "close"
        return Reply(status, self.content[start:stop], headers, end=end)


def _ranges(wire: Wire) -> list[str | None]:
    return [request.headers.get("range") for request in wire.requests]


async def _gathered(file: FileOutput) -> bytes:
    return b"".join([chunk async for chunk in file])


async def _saved(file: FileOutput, directory: Path) -> bytes:
    return (await file.save(directory)).read_bytes()


@pytest.mark.parametrize("way", ["read", "iterate", "save"])
async def test_a_cut_is_resumed(way: str, tmp_path: Path) -> None:
    """A download goes on where it broke off, and says which file it means."""
    origin = Origin(100_000, 150_000)
    with Wire(origin) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.png")
            if way == "read":
                content = await file.read()
            elif way == "iterate":
                content = await _gathered(file)
            else:
                content = await _saved(file, tmp_path)
        assert content == CONTENT
        assert _ranges(wire) == [None, "bytes=100000-", "bytes=250000-"]
        assert [request.headers.get("if-range") for request in wire.requests] == [None, TAG, TAG]
        assert {request.headers["accept-encoding"] for request in wire.requests} == {"identity"}
        assert file.size == len(CONTENT)


async def test_progress_renews_the_attempts() -> None:
    """As long as it gets on, a download is resumed more often than there are attempts."""
    origin = Origin(*[70_000] * 5)
    with Wire(origin) as wire:
        async with client_of(wire, retry=Retry(attempts=2, backoff=0.001)) as client:
            assert await file_at(client, f"{wire.url}/f").read() == CONTENT
        assert origin.served == 6


async def test_crumbs_are_no_progress() -> None:
    """A server that gives a byte at a time does not keep a download alive for ever."""
    origin = Origin(*[1] * 100)
    with Wire(origin) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.IncompleteFile, match=f"of {len(CONTENT)} bytes"):
                await file_at(client, f"{wire.url}/f").read()
        assert origin.served == QUICK.attempts


async def test_attempts_of_one_resume_nothing() -> None:
    """`Retry(attempts=1)` switches resuming off."""
    with Wire(Origin(1000)) as wire:
        async with client_of(wire, retry=Retry(attempts=1)) as client:
            with pytest.raises(exceptions.IncompleteFile):
                await file_at(client, f"{wire.url}/f").read()
        assert len(wire.requests) == 1


async def test_errors_in_between_are_survived() -> None:
    """An error that passes does not end a download that has begun."""
    origin = Origin(100_000)
    with Wire(origin, problem(503), problem(429), origin) as wire:
        async with client_of(wire) as client:
            assert await file_at(client, f"{wire.url}/f").read() == CONTENT
        assert _ranges(wire)[1:] == ["bytes=100000-"] * 3


async def test_a_file_that_expires_in_between() -> None:
    """A file that is deleted while it is downloaded says so."""
    with Wire(Origin(100_000), problem(404)) as wire, Wire(problem(500)) as api:
        async with client_of(api) as client:
            with pytest.raises(exceptions.FileExpired, match="one hour") as caught:
                await file_at(client, f"{wire.url}/f").read()
        assert caught.value.status == 404


NO_RESUME = {
    "no tag": {"tag": None},
    "weak tag": {"tag": f"W/{TAG}"},
    "other tag": {"changes": lambda n, headers: headers.update(ETag=f'"{n}"')},
    "no ranges, other tag": {
        "ranges": False,
        "changes": lambda n, headers: headers.update(ETag=f'"{n}"'),
    },
    "other part": {
        "changes": lambda n, headers: (
            "Content-Range" in headers
            and headers.update({"Content-Range": f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"})
        )
    },
    "part of nothing": {
        "changes": lambda n, headers: (
            "Content-Range" in headers and headers.update({"Content-Range": "nonsense"})
        )
    },
    "other length": {
        "changes": lambda n, headers: (
            "Content-Range" in headers
            and headers.update({"Content-Range": f"bytes 100000-{len(CONTENT)}/{len(CONTENT) + 1}"})
        )
    },
}


@pytest.mark.parametrize("origin", NO_RESUME.values(), ids=NO_RESUME.keys())
async def test_what_does_not_fit_is_not_joined(origin: dict[str, Any], tmp_path: Path) -> None:
    """Without a sign that it is the same file, iteration ends; `read` and `save` begin anew."""
    with Wire(Origin(100_000, **origin)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.IncompleteFile):
                await _gathered(file_at(client, f"{wire.url}/f"))
    for finish in (lambda file: file.read(), lambda file: _saved(file, tmp_path)):
        served = Origin(100_000, **origin)
        with Wire(served) as wire:
            async with client_of(wire) as client:
                assert await finish(file_at(client, f"{wire.url}/f")) == CONTENT
            assert served.served in (2, 3)


async def test_a_server_without_ranges_sends_it_again() -> None:
    """If all comes again with the same tag, what was received is passed over."""
    with Wire(Origin(100_000, ranges=False)) as wire:
        async with client_of(wire) as client:
            assert await _gathered(file_at(client, f"{wire.url}/f")) == CONTENT


async def test_a_part_may_be_smaller_than_asked_for() -> None:
    """A server that gives a part of the rest is asked for what is still missing."""
    origin = Origin(100_000)

    def act(request: Request) -> Reply:
        if "range" not in request.headers:
            return origin(request)
        start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        part = CONTENT[start : start + 90_000]
        headers = {
            "Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(CONTENT)}",
            "ETag": TAG,
        }
        return Reply(206, part, headers)

    with Wire(act) as wire:
        async with client_of(wire) as client:
            assert await file_at(client, f"{wire.url}/f").read() == CONTENT
        assert len(wire.requests) == 5


async def test_beginning_anew_is_bounded() -> None:
    """A server that always cuts, and cannot resume, is not asked for ever."""
    origin = Origin(*[200_000] * 100, tag=None)
    with Wire(origin) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.IncompleteFile):
                await file_at(client, f"{wire.url}/f").read()
        assert origin.served <= 2 * QUICK.attempts


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 120_000), max_size=6),
    st.sampled_from([TAG, None, f"W/{TAG}"]),
    st.booleans(),
)
def test_whatever_is_cut_the_content_is_whole_or_an_error(
    cuts: list[int], tag: str | None, ranges: bool
) -> None:
    """No series of cuts makes other content of a file: it is all there, or it is an error."""

    async def main() -> None:
        with Wire(Origin(*cuts, tag=tag, ranges=ranges)) as wire:
            async with client_of(wire) as client:
                for get in (FileOutput.read, _gathered):
                    try:
                        content = await get(file_at(client, f"{wire.url}/f"))
                    except exceptions.IncompleteFile:
                        continue
                    assert content == CONTENT

    asyncio.run(main())


# -- Servers that lie --------------------------------------------------------------------------


def _endless(length: str | None) -> Reply:
    headers = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": length}
    piece = bytes(2**16)
    return Reply(
        200, itertools.repeat(piece if length else b"10000\r\n" + piece + b"\r\n"), headers
    )


@pytest.mark.parametrize("length", [None, str(10**15), "1000001"])
async def test_what_is_read_is_bounded(length: str | None) -> None:
    """A file that never ends, or says to be huge, is not read into memory beyond the limit."""
    with Wire(_endless(length)) as wire:
        async with client_of(wire, limits=Limits(file=1_000_000)) as client:
            with pytest.raises(exceptions.FileTooLarge, match="save") as caught:
                await file_at(client, f"{wire.url}/f").read()
        assert caught.value.limit == 1_000_000
        assert len(wire.requests) == 1


async def test_a_data_uri_is_bounded_too() -> None:
    """The limit holds for files inside of URIs."""
    async with client_of("http://127.0.0.1:9", limits=Limits(file=1000)) as client:
        assert len(await file_at(client, "data:;base64," + "A" * 1332).read()) == 999
        with pytest.raises(exceptions.FileTooLarge):
            await file_at(client, "data:;base64," + "A" * 1336).read()


async def test_more_than_was_announced_is_not_taken() -> None:
    """What follows the announced length is no part of the file."""
    with Wire(raw(head(200, {"Content-Length": "5"}), b"hello world")) as wire:
        async with client_of(wire) as client:
            # What follows is no answer, if both come at once.
            with suppress(exceptions.UnreadableAnswer):
                assert await file_at(client, f"{wire.url}/f").read() == b"hello"


@pytest.mark.parametrize("way", ["save", "iterate"])
async def test_memory_stays_flat(way: str, tmp_path: Path) -> None:
    """A large file goes through memory in pieces."""
    size = 48 * 2**20

    pieces = [bytes(2**18)] * (size // 2**18)
    with Wire(Reply(200, pieces, {"Content-Length": str(size)}, end="close")) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.bin")
            tracemalloc.start()
            try:
                if way == "save":
                    await file.save(tmp_path)
                else:
                    async for _ in file:
                        pass
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert file.size == size
    assert peak < 8 * 2**20


# -- What is left behind -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["task", "anyio", "twice"])
async def test_cancelling_leaves_nothing(how: str, tmp_path: Path) -> None:
    """A save that is cancelled in the middle leaves no file, however often it is cancelled."""
    reached = threading.Event()

    def body() -> Iterator[bytes]:
        yield bytes(3_000_000)
        reached.set()

    headers = {"Content-Length": "10000000"}
    with Wire(lambda request: Reply(200, body(), headers, end="stall")) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.bin")
            if how == "anyio":
                async with anyio.create_task_group() as group:
                    group.start_soon(file.save, tmp_path)
                    await asyncio.to_thread(reached.wait, 10)
                    assert len(list(tmp_path.iterdir())) == 1
                    group.cancel_scope.cancel()
            else:
                task = asyncio.create_task(file.save(tmp_path))
                await asyncio.to_thread(reached.wait, 10)
                assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
                task.cancel()
                if how == "twice":
                    await asyncio.sleep(0)
                    task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert list(tmp_path.iterdir()) == []


async def test_cancelling_anywhere_leaves_all_or_nothing(tmp_path: Path) -> None:
    """Wherever in its course a save is cancelled, there is a whole file or none."""
    content = bytes(3 * 2**20)
    with Wire(answer(200, content)) as wire:
        async with client_of(wire) as client:
            await file_at(client, f"{wire.url}/f").read()
            for turns in range(0, 60, 2):
                directory = tmp_path / str(turns)
                directory.mkdir()
                task = asyncio.create_task(file_at(client, f"{wire.url}/f").save(directory))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                assert [path.read_bytes() == content for path in directory.iterdir()] in (
                    [],
                    [True],
                )


async def test_leaving_an_iteration_closes_the_connection() -> None:
    """Who stops iterating over a file does not hold its connection."""
    headers = {"Content-Length": "10000000"}
    with Wire(Reply(200, bytes(1_000_000), headers, end="stall")) as wire:
        async with client_of(wire, timeout=Timeout(read=30)) as client:
            async for _ in file_at(client, f"{wire.url}/f"):
                assert wire.open == 1
                break
            await until(lambda: wire.open == 0)


async def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A write that fails is an error with its cause, and nothing stays behind."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Wire(answer(200, bytes(3 * 2**20))) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f.bin")
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, before[1]))
            try:
                with pytest.raises(exceptions.FileNotSaved) as caught:
                    await file.save(tmp_path)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                signal.signal(signal.SIGXFSZ, ignored)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno is not None
    assert caught.value.path == str(tmp_path / "f.bin")
    assert list(tmp_path.iterdir()) == []
    assert file.path is None


@pytest.mark.parametrize("total", ["*", str(len(CONTENT))])
async def test_parts_of_a_file_without_a_length(total: str, tmp_path: Path) -> None:
    """Where no size was announced, a part of the rest is not taken for all of it."""

    def act(request: Request) -> Reply:
        if "range" not in request.headers:
            pieces = [b"%x\r\n" % 150_000, CONTENT[:150_000], b"\r\n"]
            return Reply(200, pieces, {"Transfer-Encoding": "chunked", "ETag": TAG}, end="close")
        start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        if start == len(CONTENT):
            return answer(416, headers={"Content-Range": f"bytes */{start}"})
        part = CONTENT[start : start + 90_000]
        place = f"bytes {start}-{start + len(part) - 1}/{total}"
        return Reply(206, part, {"Content-Range": place, "ETag": TAG})

    with Wire(act) as wire:
        async with client_of(wire) as client:
            file = file_at(client, f"{wire.url}/f")
            assert await file.read() == CONTENT
            assert await _gathered(file) == CONTENT
            assert await _saved(file, tmp_path) == CONTENT
            chunks = file._relay().chunks(Conditions())
            assert b"".join([chunk async for chunk in chunks]) == CONTENT
