"""Operations on uploaded files (:api:`files`)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from ._clock import NANOSECONDS
from ._http import Call, answer, decode, page_answer
from ._problems import Problem, not_found_file, validation_failed
from ._store import UPLOADS_KEPT, Account, File, Store, by_created
from ._views import Views

MAX_FILE = 100 * 1024 * 1024
"""Greatest size of an upload in bytes (:api:`size-limits`)."""
SIGNING_SECRET = "emulator-files-api-signing-secret"  # noqa: S105 - public by design
"""Key of the signatures in download URLs (:api:`files.download`)."""

_DEFAULT_TYPE = "application/octet-stream"
_MAX_NAME = 255
_CHUNK = 16 * 2**20
"""More than aiohttp has at a time: it warns, of itself, when what it has must be cut."""
_BRACKETED = re.compile(r"metadata\[([^\]]*)\](.*)")


def download_signature(owner: str, id: str, expiry: int) -> str:
    """Return the ``signature`` of a download URL."""
    text = f"{owner} {id} {expiry}"
    digest = hmac.new(SIGNING_SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class FilesApi:
    """Handlers of the namespace ``files``."""

    def __init__(self, store: Store, views: Views, url: str, page_sizes: Mapping[str, int]) -> None:
        self._store = store
        self._views = views
        self._url = url
        self._sizes = page_sizes

    async def create(self, call: Call) -> web.StreamResponse:
        """Take an upload in any of the clients' spellings (:api:`files.create`)."""
        upload = await _Upload.read(call)
        if upload.size > MAX_FILE:
            raise Problem(413, {"detail": "Files must be less than 100MB in size"})
        created = self._store.tick()
        file = File(
            id=base64.b64encode(str(uuid.uuid4()).encode()).decode(),
            account=call.account,
            name=upload.name,
            content_type=upload.content_type,
            content=upload.content,
            sha256=upload.sha256.hexdigest(),
            md5=upload.md5.hexdigest(),
            metadata=upload.metadata,
            created=created,
            expires=created + UPLOADS_KEPT * NANOSECONDS,
        )
        self._sweep(call.account)
        call.account.files[file.id] = file
        return answer(self._views.file(file), 201)

    async def list(self, call: Call) -> web.StreamResponse:
        """Return a page of files (:api:`files.list`)."""
        now = self._store.clock.time_ns()
        files = [file for file in call.account.files.values() if now < file.expires]
        return page_answer(
            call, self._url, files, by_created, self._views.file, size=self._sizes["files"]
        )

    async def get(self, call: Call) -> web.StreamResponse:
        """Return the metadata of a file (:api:`files.get`)."""
        return answer(self._views.file(self._find(call.account, call.parameters[0])))

    async def delete(self, call: Call) -> web.StreamResponse:
        """Remove a file (:api:`files.delete`)."""
        file = self._find(call.account, call.parameters[0])
        del call.account.files[file.id]
        return web.Response(status=204)

    async def download(self, call: Call) -> web.StreamResponse:
        """Return the content against a signature; anything wrong is a 404 (:api:`files.download`)."""
        query = call.query
        owner, expiry = query.get("owner", ""), query.get("expiry", "")
        account = self._store.owners.get(owner)
        if account is None or not expiry.isdecimal() or len(expiry) > 18:
            raise not_found_file()
        expected = download_signature(owner, call.parameters[0], int(expiry))
        if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
            raise not_found_file()
        if self._store.clock.time() >= int(expiry):
            raise not_found_file()
        file = self._find(account, call.parameters[0])
        return web.Response(body=file.content, headers={"Content-Type": _DEFAULT_TYPE})

    def _sweep(self, account: Account) -> None:
        """Remove files that have expired; they are in the order in which they do."""
        now = self._store.clock.time_ns()
        while account.files:
            oldest = next(iter(account.files.values()))
            if now < oldest.expires:
                break
            del account.files[oldest.id]

    def _find(self, account: Account, id: str) -> File:
        file = account.files.get(id)
        if file is None or self._store.clock.time_ns() >= file.expires:
            raise not_found_file()
        return file


class _Upload:
    """A form as it comes in."""

    def __init__(self) -> None:
        self.content = b""
        self.size = 0
        self.name = ""
        self.content_type = ""
        self.metadata: dict[str, Any] = {}
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self._has_content = False
        self._errors: list[tuple[str, str]] = []

    @classmethod
    async def read(cls, call: Call) -> _Upload:
        """Read the form of a request.

        Raises:
            Problem: It is no form, or a part is missing or broken.
        """
        upload = cls()
        fields: dict[str, str] = {}
        try:
            async for part in await call.request.multipart():
                if not isinstance(part, aiohttp.BodyPartReader):
                    continue
                if part.name == "content":
                    await upload._take(part)
                else:
                    fields[part.name or ""] = (await part.read()).decode()
        except UnicodeDecodeError:
            upload._errors.append(("filename", "Not valid UTF-8."))
        except (ValueError, AssertionError, KeyError) as error:
            text = f"Multipart form parse error - {error}"
            raise validation_failed([("content", text)]) from None
        call.record.body_size = upload.size
        upload._explicit(fields)
        if not upload._has_content:
            upload._errors.append(("content", "No file was submitted."))
        if len(upload.name.encode(errors="surrogateescape")) > _MAX_NAME:
            upload._errors.append(
                ("filename", f"Ensure this filename has at most {_MAX_NAME} bytes.")
            )
        if upload._errors:
            raise validation_failed(upload._errors)
        return upload

    async def _take(self, part: aiohttp.BodyPartReader) -> None:
        self._has_content = True
        self.name = part.filename or "content"
        self.content_type = part.headers.get("Content-Type", _DEFAULT_TYPE)
        chunks: list[bytes] = []
        while chunk := await part.read_chunk(_CHUNK):
            self.size += len(chunk)
            if self.size > MAX_FILE:  # read on: a client that still sends would miss the answer
                chunks.clear()
                continue
            self.sha256.update(chunk)
            self.md5.update(chunk)
            chunks.append(bytes(chunk))
        self.content = b"".join(chunks)

    def _explicit(self, fields: dict[str, str]) -> None:
        """Apply the form fields; they win over the headers of the content part."""
        self.name = fields.get("filename") or self.name
        self.content_type = fields.get("type") or self.content_type
        for name, value in fields.items():
            if name == "metadata":
                try:
                    metadata = decode(value)
                except ValueError:
                    metadata = None
                if isinstance(metadata, dict):
                    self.metadata.update(metadata)
                else:
                    self._errors.append(("metadata", "Value must be a valid JSON object."))
            elif bracketed := _BRACKETED.fullmatch(name):
                self.metadata[bracketed[1]] = value
