"""Uploads, each content once; data URIs."""

from __future__ import annotations

import asyncio
import binascii
import copy
import io
import re
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import anyio
import attrs

from .. import exceptions
from .._codec import encode_json
from .._http.call import Answer, Body, Call
from .._http.retry import Kind
from .._http.transport import Transport
from .._threads import in_thread
from ..types import File
from .sources import Source

_ENCODED: Final = 3 * 2**17
"""Bytes that are encoded at once, which holds the interpreter's lock; a multiple of three."""

_LIFETIME: Final = 24 * 3600.0
"""Seconds for which an uploaded file exists (:api:`retention`), unless its record says otherwise."""

_QUEUE_MARGIN: Final = 3600.0
"""Seconds before the API deletes a file in which it is no longer used: predictions wait in queues."""

_MAX_REMEMBERED: Final = 1024
"""Uploaded files that a client remembers."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


async def data_uri(source: Source) -> str:
    """Return a source as a data URI (:api:`file-inputs`).

    Raises:
        ArgumentError: It cannot be read.
    """
    facts, kind = source.facts, source.content_type
    async with facts.lock:
        if facts.base64 is None or facts.base64[0] != kind:
            facts.base64 = kind, await _encoded(source)
        return facts.base64[1]


async def _encoded(source: Source) -> str:
    encoded = io.BytesIO()
    encoded.write(f"data:{source.content_type};base64,".encode())
    rest = b""
    async with aclosing(source.chunks()) as chunks:
        async for chunk in chunks:
            data = rest + chunk if rest else chunk
            end = len(data) // 3 * 3
            for start in range(0, end, _ENCODED):
                piece = data[start : min(start + _ENCODED, end)]
                encoded.write(await in_thread(_base64, piece))
            rest = data[end:]
    encoded.write(_base64(rest))
    return await in_thread(lambda: encoded.getvalue().decode("ascii"))


def _base64(content: bytes) -> bytes:
    return binascii.b2a_base64(content, newline=False)


async def upload(
    transport: Transport,
    source: Source,
    metadata: Mapping[str, Any] | None = None,
    *,
    kind: Kind = Kind.WRITE,
) -> Answer:
    """Upload a source as `multipart/form-data`. Calls :api:`files.create`.

    Args:
        transport: The transport of the client.
        source: The file.
        metadata: JSON to store with it.
        kind: `Kind.READ` to repeat the upload after transient failures.

    Raises:
        ArgumentError: It could not be read to its end.
        ReplicateError: The API returned an error.
        TransportError: No usable response was received.
    """
    boundary = uuid.uuid4().hex
    head, tail = _frame(source, metadata, boundary)
    bodies: list[AsyncGenerator[bytes, None]] = []
    broken: list[Exception] = []

    async def multipart() -> AsyncGenerator[bytes, None]:
        yield head
        try:
            async with aclosing(source.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Exception as error:
            broken.append(error)
            body.repeatable = False
            raise
        yield tail

    def make_body() -> AsyncGenerator[bytes, None]:
        bodies.append(multipart())
        return bodies[-1]

    size = None if source.size is None else len(head) + source.size + len(tail)
    body = Body(size, make_body, source.repeatable)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    try:
        return await transport.send(
            Call("POST", "/files", kind, content=body, headers=headers), File
        )
    except exceptions.ReplicateException:
        if broken:
            raise broken[0] from None
        raise
    finally:
        # aiohttp sends a body in a task of its own, which may have been cancelled between two chunks.
        for parts in bodies:
            # It fails while the generator runs: then it is being cancelled within a chunk, and closes by itself.
            with suppress(RuntimeError):
                await parts.aclose()


def _frame(
    source: Source, metadata: Mapping[str, Any] | None, boundary: str
) -> tuple[bytes, bytes]:
    """Return what comes before and after the content in a multipart body."""
    name = _CONTROL.sub("_", source.name.replace("\\", "%5C").replace('"', "%22"))
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n'
        f"Content-Type: {source.content_type}\r\n\r\n"
    ).encode("utf-8", "replace")
    tail = b""
    if metadata:
        tail = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            "Content-Type: application/json\r\n\r\n"
        ).encode() + encode_json(dict(metadata))
    return head, tail + f"\r\n--{boundary}--\r\n".encode()


Group: TypeAlias = tuple[str, str, int, str]
"""Base URL, token, size (-1 for a stream) and media type. Only uploads of one group can have the same content."""


@attrs.frozen(eq=False, repr=False)
class UploadedFile:
    """A file that was uploaded."""

    id: str
    url: str
    group: Group
    digest: str | None
    """Its SHA-256, if that is known."""
    identity: tuple[int, ...] | None
    """The identity on the disk of the file that it was read from, if there was one."""
    stream: weakref.ref[Any] | None
    """The stream that it was read from, which cannot be read again."""
    until: tuple[float, float]
    """The time until which it is used: by the monotonic clock, and by the wall clock."""


@attrs.define(eq=False, repr=False)
class PendingUpload:
    """An upload in progress. Others with the same content wait for it."""

    loop: asyncio.AbstractEventLoop
    """The event loop, as asyncio names it: anyio has a token for it since 4.11 only."""
    group: Group
    source: Source
    ended: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    url: str | None = attrs.field(default=None, init=False)
    """The URL, if it has succeeded."""
    failure: exceptions.ReplicateException | None = attrs.field(default=None, init=False)
    """Why it has failed for all that wait for it. Neither that nor a URL if it ended otherwise, such as by a
    cancellation: then one of those that wait uploads its own source."""


@attrs.define(eq=False, repr=False)
class Uploads:
    """The uploads of a client and its views. Each content is uploaded once, as long as the API keeps it.

    The first task that needs a content uploads it, and the others wait. If the first one is cancelled, another one
    takes over.

    A content is hashed only if its size, type and identity on the disk do not say whether it was uploaded before.
    The hash of an uploaded file may come from the API.
    """

    _clock: Callable[[], float] = time.monotonic
    _wall_clock: Callable[[], float] = time.time
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """For event loops in several threads."""
    _known: dict[Group, list[UploadedFile]] = attrs.field(factory=dict, init=False)
    _order: deque[UploadedFile] = attrs.field(factory=deque, init=False)
    """The uploaded files that are known, oldest first."""
    _pending: list[PendingUpload] = attrs.field(factory=list, init=False)

    async def url(self, transport: Transport, source: Source) -> str:
        """Return the URL for a source in an input; upload the source if necessary.

        Raises:
            ArgumentError: It cannot be read.
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        if source.repeatable and source.size is None:
            await source.find_digest()
            source.size = source.facts.size
        size = -1 if source.size is None else source.size
        group = (transport.config.base_url, transport.token(), size, source.content_type)
        while True:
            match await self._find(group, source):
                case None:
                    return await self._upload(transport, group, source)
                case UploadedFile(url=url):
                    return url
                case PendingUpload() as pending:
                    await pending.ended.wait()
                    if pending.url is not None:
                        return pending.url
                    if pending.failure is not None:
                        raise copy.copy(pending.failure) from pending.failure

    def forget(self, id: str) -> None:
        """Note that a file was deleted."""
        with self._lock:
            for uploaded in [found for found in self._order if found.id == id]:
                self._drop(uploaded)

    async def _find(self, group: Group, source: Source) -> UploadedFile | PendingUpload | None:
        """Return an upload of the same content, done or in progress; None if there is none.

        Nothing is awaited between the last comparison and the return, so the result still holds.
        """
        while True:
            known = self._usable(group)
            for uploaded in known:
                if _has_content_of(uploaded, source):
                    return uploaded
            in_progress = self._pending_here(group)
            for pending in in_progress:
                if _are_same(pending.source, source):
                    return pending
            if not source.repeatable:
                return None  # it cannot be hashed before it is sent
            # The first one of which only the hashes of both can tell whether it has the same content.
            unclear = next(
                (each for each in in_progress if None in (each.source.digest, source.digest)), None
            )
            if source.digest is None and (unclear or any(found.digest for found in known)):
                await source.find_digest()
            elif unclear is None:
                return None
            elif unclear.source.reader is not None:
                # Not hashed meanwhile: reading an object at two positions in turn is slow for a compressed file.
                await unclear.ended.wait()
            else:
                try:
                    await unclear.source.find_digest()
                except exceptions.ArgumentError:
                    await unclear.ended.wait()  # which fails soon

    def _pending_here(self, group: Group) -> list[PendingUpload]:
        """Return the uploads of a group that are in progress on this event loop."""
        loop = asyncio.get_running_loop()
        return [each for each in self._pending if each.loop is loop and each.group == group]

    async def _upload(self, transport: Transport, group: Group, source: Source) -> str:
        pending = PendingUpload(asyncio.get_running_loop(), group, source)
        self._pending.append(pending)
        started = self._clock(), self._wall_clock()
        try:
            file: File = (await upload(transport, source, kind=Kind.READ)).data
            url = pending.url = _url(transport, file)
            digest = _sha256(file)
            if source.repeatable and (digest or source.digest or source.identity) is None:
                # Otherwise nothing could tell that another source has the same content.
                with suppress(exceptions.ArgumentError):
                    await source.find_digest()
            # Not if the API has something else than what was read: the file has changed meanwhile.
            if None in (digest, source.digest) or digest == source.digest:
                usable = _usable_seconds(file)
                self._remember(
                    UploadedFile(
                        file.id,
                        url,
                        group,
                        source.digest or digest,
                        source.identity,
                        _stream_of(source),
                        (started[0] + usable, started[1] + usable),
                    )
                )
            return url
        except (exceptions.ReplicateError, exceptions.TransportError) as error:
            pending.failure = error
            raise
        finally:
            self._pending.remove(pending)
            pending.ended.set()

    def _usable(self, group: Group) -> list[UploadedFile]:
        now, wall_now = self._clock(), self._wall_clock()
        with self._lock:
            for uploaded in list(self._known.get(group, ())):
                # Both clocks: one stops while the machine sleeps, the other can be set.
                if uploaded.until[0] <= now or uploaded.until[1] <= wall_now:
                    self._drop(uploaded)
            return list(self._known.get(group, ()))

    def _remember(self, uploaded: UploadedFile) -> None:
        stream = None if uploaded.stream is None else uploaded.stream()
        with self._lock:
            if stream is not None:  # its content now follows what was read from it before
                for known in list(self._known.get(uploaded.group, ())):
                    if known.stream is not None and known.stream() is stream:
                        self._drop(known)
            self._known.setdefault(uploaded.group, []).append(uploaded)
            self._order.append(uploaded)
            while len(self._order) > _MAX_REMEMBERED:
                self._drop(self._order[0])

    def _drop(self, uploaded: UploadedFile) -> None:
        self._order.remove(uploaded)
        group = self._known[uploaded.group]
        group.remove(uploaded)
        if not group:
            del self._known[uploaded.group]


def _stream_of(source: Source) -> weakref.ref[Any] | None:
    if source.repeatable or source.reader is None:
        return None
    try:
        return weakref.ref(source.reader.file)
    except TypeError:  # it allows no weak references
        return None


def _has_content_of(uploaded: UploadedFile, source: Source) -> bool:
    """Return whether an uploaded file is known to have the content of a source of its group."""
    if source.reader is not None and source.reader.is_taken:
        return uploaded.stream is not None and uploaded.stream() is source.reader.file
    return (source.identity is not None and uploaded.identity == source.identity) or (
        source.digest is not None and uploaded.digest == source.digest
    )


def _are_same(one: Source, other: Source) -> bool:
    """Return whether two sources are known to have the same content."""
    return (
        one.facts is other.facts
        or (one.content is not None and one.content is other.content)
        or (one.identity is not None and one.identity == other.identity)
        or (one.digest is not None and one.digest == other.digest)
    )


def _sha256(file: File) -> str | None:
    """Return the SHA-256 of an uploaded file, if the API computed it."""
    said = file.checksums.get("sha256")
    return said.lower() if isinstance(said, str) and len(said) == 64 else None


def _usable_seconds(file: File) -> float:
    """Return for how many seconds an uploaded file may be used."""
    lifetime = _LIFETIME
    if file.created_at is not None and file.expires_at is not None:
        # Both are by the clock of the API, which may be another than ours.
        lifetime = max((file.expires_at - file.created_at).total_seconds(), 0.0)
    return lifetime - min(_QUEUE_MARGIN, lifetime / 2)


def _url(transport: Transport, file: File) -> str:
    if file.urls.get is None:
        # The API builds it from the id (:api:`file-object`).
        return transport.routes.url_of(Call("GET", f"/files/{quote(file.id, safe='')}"))
    return file.urls.get
