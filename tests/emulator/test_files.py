"""Uploaded files and output files (HTTP API, section 7)."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import aiohttp
import pytest

from replicate_async.testing import Emulator, OutputFile
from replicate_async.testing._api_files import MAX_FILE

from .conftest import Api


def _form(*parts: tuple[str, Any, dict[str, str]]) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    for name, value, more in parts:
        form.add_field(name, value, **more)
    return form


LARGE = {"filename": "large.bin"}
CONTENT = ("content", b"abc", {"filename": "a.txt", "content_type": "text/plain"})


@pytest.mark.parametrize(
    ("parts", "name", "content_type", "metadata"),
    [
        ([CONTENT], "a.txt", "text/plain", {}),
        ([("content", b"abc", {"filename": "é.bin"})], "é.bin", "application/octet-stream", {}),
        (
            [CONTENT, ("filename", "b.png", {}), ("type", "image/png", {})],
            "b.png",
            "image/png",
            {},
        ),
        ([CONTENT, ("metadata", '{"k": 1}', {})], "a.txt", "text/plain", {"k": 1}),
        (
            [CONTENT, ("metadata", '{"k": [1]}', {"content_type": "application/json"})],
            "a.txt",
            "text/plain",
            {"k": [1]},
        ),
        (
            [("metadata[k]", "123", {}), ("metadata[l]", "m", {}), CONTENT],
            "a.txt",
            "text/plain",
            {"k": "123", "l": "m"},
        ),
    ],
)
async def test_spellings_of_uploads(
    api: Api, parts: Any, name: str, content_type: str, metadata: dict[str, Any]
) -> None:
    """Name, type and metadata are taken from part headers or fields; fields win."""
    answer = await api("POST", "/files", data=_form(*parts))
    assert answer.status == 201
    file = answer.json()
    assert (file["name"], file["content_type"], file["metadata"]) == (name, content_type, metadata)
    assert file["size"] == 3
    assert file["checksums"]["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert file["etag"] == file["checksums"]["md5"] == hashlib.md5(b"abc").hexdigest()
    assert file["urls"] == {"get": f"{api.emulator.url}/v1/files/{file['id']}"}
    assert api.emulator.file_content(file["id"]) == b"abc"
    assert (await api("GET", f"/files/{file['id']}")).json() == file


@pytest.mark.parametrize(
    "parts",
    [
        [("metadata", "{}", {})],
        [CONTENT, ("metadata", "[]", {})],
        [CONTENT, ("metadata", "{", {})],
        [CONTENT, ("filename", "n" * 256, {})],
    ],
)
async def test_broken_uploads(api: Api, parts: Any) -> None:
    """Without content, with broken metadata or a long name an upload is a 400."""
    answer = await api("POST", "/files", data=_form(*parts))
    assert answer.status == 400
    assert (await api("POST", "/files", data=b"no form")).status == 400


async def test_size_limit(api: Api) -> None:
    """100 MiB are taken, one byte more is a 413."""
    content = bytearray(MAX_FILE + 1)
    too_large = await api("POST", "/files", data=_form(("content", io.BytesIO(content), LARGE)))
    assert (too_large.status, too_large.json()) == (
        413,
        {"detail": "Files must be less than 100MB in size"},
    )
    del content[-1]
    fits = await api("POST", "/files", data=_form(("content", io.BytesIO(content), LARGE)))
    assert (fits.status, fits.json()["size"]) == (201, MAX_FILE)


async def test_delete_and_expiry(api: Api, emulator: Emulator) -> None:
    """A deleted file is gone, others last 24 hours."""
    first, second = [
        (await api("POST", "/files", data=_form(CONTENT))).json()["id"] for _ in range(2)
    ]
    listed = (await api("GET", "/files")).json()["results"]
    assert [file["id"] for file in listed] == [second, first]
    assert (await api("DELETE", f"/files/{first}")).status == 204
    assert (await api("DELETE", f"/files/{first}")).status == 404
    emulator.clock.advance(24 * 3600)
    assert (await api("GET", f"/files/{second}")).json() == {"detail": "File not found"}
    assert (await api("GET", "/files")).json()["results"] == []


async def test_signed_download(api: Api, emulator: Emulator) -> None:
    """A download needs owner, expiry and the right signature; anything wrong is a 404."""
    file = (await api("POST", "/files", data=_form(CONTENT))).json()["id"]
    url = emulator.download_url(file, expires_in=60)
    good = await api("GET", url, token=None)
    assert (good.status, good.body) == (200, b"abc")
    assert good.headers["Content-Type"] == "application/octet-stream"
    for wrong in (url.replace("owner=acme", "owner=other"), url + "x", url.split("?")[0]):
        answer = await api("GET", wrong, token=None)
        assert (answer.status, answer.json()) == (404, {"detail": "File not found"})
    emulator.clock.advance(61)
    assert (await api("GET", url, token=None)).status == 404


@pytest.fixture
async def output(api: Api, emulator: Emulator) -> str:
    """Return the URL of an output file with the bytes 0 to 9."""
    version = emulator.add_model("acme/ten", lambda: OutputFile(b"0123456789", "näme 1.bin"))
    assert version is not None
    url: str = (await api.finished((await api.run(version, {}))["id"]))["output"]
    return url


@pytest.mark.parametrize(
    ("header", "status", "body", "content_range"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
async def test_ranges(
    api: Api, output: str, header: str | None, status: int, body: bytes, content_range: str | None
) -> None:
    """Output files can be read in parts."""
    headers = {} if header is None else {"Range": header}
    answer = await api("GET", output, token=None, headers=headers)
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers.get("Content-Range") == content_range
    if status < 300:
        assert answer.headers["Content-Length"] == str(len(body))


async def test_conditions(api: Api, output: str) -> None:
    """`If-Range` with the file's ETag gives the part, with another the whole file."""
    etag = (await api("HEAD", output, token=None)).headers["ETag"]
    same = {"Range": "bytes=8-", "If-Range": etag}
    assert (await api("GET", output, token=None, headers=same)).body == b"89"
    other = {"Range": "bytes=8-", "If-Range": '"other"'}
    assert (await api("GET", output, token=None, headers=other)).status == 200
    cached = {"If-None-Match": etag}
    assert (await api("GET", output, token=None, headers=cached)).status == 304


async def test_output_urls(api: Api, emulator: Emulator, output: str) -> None:
    """An output URL is on its own origin, ends in the file's name and cannot be guessed."""
    assert output.startswith(f"{emulator.files_url}/")
    assert emulator.files_url not in (emulator.url, emulator.stream_url)
    assert output.endswith("/n%C3%A4me%201.bin")
    assert (await api("GET", output.replace("1.bin", "2.bin"), token=None)).status == 404
    assert (await api("POST", output, token=None)).status == 405
