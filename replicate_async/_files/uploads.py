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
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final
from urllib.parse import quote

import anyio
import attrs

from .. import exceptions
from .._codec import encode_json
from .._concurrency import in_thread
from .._http.call import Answer, Body, Call
from .._http.retry import Kind
from .._http.transport import Transport
from ..types import File
from .sources import Source

_ENCODED: Final = 3 * 2**17
"""Bytes that become base64 in one go, which holds the interpreter's lock; a multiple of three."""


async def data_uri(source: Source) -> str:
    """Return a source as a data URI (:api:`file-inputs`)."""
    encoded = io.BytesIO()
    encoded.write(f"data:{source.content_type};base64,".encode())
    left = b""
    async with aclosing(source.chunks()) as chunks:
        async for chunk in chunks:
            data = left + chunk if left else chunk
            whole = len(data) // 3 * 3
            for start in range(0, whole, _ENCODED):
                piece = data[start : min(start + _ENCODED, whole)]
                encoded.write(await in_thread(_base64, piece))
            left = data[whole:]
    encoded.write(_base64(left))
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
    """Upload a source as `multipart/form-data` (:api:`files.create`).

    Raises:
        ArgumentError: It could not be read to its end.
        ReplicateError: The API refuses it.
        TransportError: There was no answer.
    """
    boundary = uuid.uuid4().hex
    name = source.name.replace("\\", "%5C").replace('"', "%22")
    name = re.sub(r"[\x00-\x1f\x7f]", "_", name)
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
    tail += f"\r\n--{boundary}--\r\n".encode()
    broken: list[Exception] = []
    bodies: list[AsyncGenerator[bytes, None]] = []

    async def parts() -> AsyncGenerator[bytes, None]:
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
        bodies.append(parts())
        return bodies[-1]

    length = None if source.size is None else len(head) + source.size + len(tail)
    body = Body(length, make_body, source.repeatable)
    call = Call(
        "POST",
        "/files",
        kind,
        content=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )

    try:
        return await transport.send(call, File)
    except exceptions.ReplicateException:
        if broken:
            raise broken[0] from None
        raise
    finally:
        # The task that sends a body may have been cancelled between two chunks.
        for parts_sent in bodies:
            with suppress(
                RuntimeError
            ):  # it is cancelled within a chunk right now, and ends by itself
                await parts_sent.aclose()


_LIFE: Final = 24 * 3600.0
"""Seconds that an uploaded file lives (:api:`retention`), unless its record says otherwise."""


_MARGIN: Final = 3600.0
"""Seconds before its end after which it is not used any more: predictions wait in queues."""


_MOST_REMEMBERED: Final = 1024


_Group = tuple[str, str, int, str]
"""Base URL, token, size and media type: only within these are uploads the same."""


@attrs.frozen(eq=False, repr=False)
class _Uploaded:
    """A file that the API has."""

    id: str
    url: str
    group: _Group
    digest: str | None
    identity: tuple[int, ...] | None
    until: tuple[float, float]
    """The end of its use, by the monotonic clock and by that on the wall."""


@attrs.define(eq=False, repr=False)
class _Flight:
    """An upload under way, which others with the same content wait for."""

    loop: asyncio.AbstractEventLoop
    group: _Group
    source: Source
    landed: anyio.Event = attrs.field(factory=anyio.Event)
    url: str | None = None
    failure: exceptions.ReplicateException | None = None


class Uploads:
    """What a client and its views have uploaded, so that one content is uploaded once while it lives.

    The first that comes with a content uploads it, in its own task; the others wait for it. If it is
    cancelled, the next one takes over: there are no tasks that belong to nobody.

    What is told apart by size and type needs no hash, nor does a file that is on the disk unchanged. Else
    both contents are hashed, one of them perhaps by the server.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._known: dict[_Group, list[_Uploaded]] = {}
        self._order: deque[_Uploaded] = deque()
        self._flights: list[_Flight] = []

    async def url(self, transport: Transport, source: Source) -> str:
        """Return the URL that stands for a source in an input; upload it unless that was done.

        Raises:
            ArgumentError: It cannot be read.
            ReplicateError: The API refuses it.
            TransportError: There was no answer.
        """
        if source.size is None or not source.repeatable:
            return _url(transport, (await upload(transport, source, kind=Kind.READ)).data)
        group = (
            transport.config.base_url,
            transport.token(),
            source.size,
            source.content_type,
        )
        while True:
            before, flight = await self._same(group, source)
            if before is not None:
                return before.url
            if flight is None:
                return await self._fly(transport, group, source)
            await flight.landed.wait()
            if flight.url is not None:
                return flight.url
            if flight.failure is not None:
                raise copy.copy(flight.failure) from flight.failure

    def forget(self, id: str) -> None:
        """Note that a file was deleted."""
        with self._lock:
            for uploaded in [found for found in self._order if found.id == id]:
                self._drop(uploaded)

    async def _same(self, group: _Group, source: Source) -> tuple[_Uploaded | None, _Flight | None]:
        """Return the file that has this content, or the upload under way of it.

        Between the last `await` and the return nothing happens, so that what it finds is still so.
        """
        while True:
            known = self._alive(group)
            for uploaded in known:
                if source.identity is not None and uploaded.identity == source.identity:
                    return uploaded, None
                if source.digest is not None and uploaded.digest == source.digest:
                    return uploaded, None
            loop = asyncio.get_running_loop()
            flights = [
                flight for flight in self._flights if flight.loop is loop and flight.group == group
            ]
            unclear: _Flight | None = None
            for flight in flights:
                same = _are_same(flight.source, source)
                if same:
                    return None, flight
                if same is None:
                    unclear = unclear or flight
            if source.digest is None and (unclear or any(found.digest for found in known)):
                await source.find_digest()
            elif unclear is None:
                return None, None
            elif unclear.source.shared:
                return None, unclear  # it cannot be read twice at a time: wait what comes of it
            else:
                try:
                    await unclear.source.find_digest()
                except exceptions.ArgumentError:
                    return None, unclear  # that will end soon

    async def _fly(self, transport: Transport, group: _Group, source: Source) -> str:
        flight = _Flight(asyncio.get_running_loop(), group, source)
        self._flights.append(flight)
        began = self._clock(), self._wall()
        try:
            made: File = (await upload(transport, source, kind=Kind.READ)).data
            url = flight.url = _url(transport, made)
            said = made.checksums.get("sha256")
            digest = said.lower() if isinstance(said, str) and len(said) == 64 else None
            if (digest or source.digest or source.identity) is None and not source.shared:
                with suppress(exceptions.ArgumentError):
                    await source.find_digest()
            if digest is None or source.digest in (None, digest):
                life = _life(made)
                self._remember(
                    _Uploaded(
                        made.id,
                        url,
                        group,
                        source.digest or digest,
                        source.identity,
                        (began[0] + life, began[1] + life),
                    )
                )
            return url
        except (exceptions.ReplicateError, exceptions.TransportError) as error:
            flight.failure = error
            raise
        finally:
            self._flights.remove(flight)
            flight.landed.set()

    def _alive(self, group: _Group) -> list[_Uploaded]:
        now, wall = self._clock(), self._wall()
        with self._lock:
            for uploaded in list(self._known.get(group, ())):
                # Both clocks: one stands still while the machine sleeps, the other may be set.
                if uploaded.until[0] <= now or uploaded.until[1] <= wall:
                    self._drop(uploaded)
            return list(self._known.get(group, ()))

    def _remember(self, uploaded: _Uploaded) -> None:
        with self._lock:
            self._known.setdefault(uploaded.group, []).append(uploaded)
            self._order.append(uploaded)
            while len(self._order) > _MOST_REMEMBERED:
                self._drop(self._order[0])

    def _drop(self, uploaded: _Uploaded) -> None:
        self._order.remove(uploaded)
        group = self._known[uploaded.group]
        group.remove(uploaded)
        if not group:
            del self._known[uploaded.group]


def _are_same(one: Source, other: Source) -> bool | None:
    """Tell whether two sources of the same size have the same content; None: that is not known."""
    if one is other or (one.content is not None and one.content is other.content):
        return True
    if one.identity is not None and one.identity == other.identity:
        return True
    if one.digest is None or other.digest is None:
        return None
    return one.digest == other.digest


def _life(made: File) -> float:
    """Return for how many seconds an uploaded file may be used, by the clock that made its dates."""
    life = _LIFE
    if made.created_at is not None and made.expires_at is not None:
        life = max((made.expires_at - made.created_at).total_seconds(), 0.0)
    return life - min(_MARGIN, life / 2)


def _url(transport: Transport, made: File) -> str:
    if made.urls.get is None:
        # The API builds it from the id (:api:`file-object`).
        return transport.url_of(Call("GET", f"/files/{quote(made.id, safe='')}"))
    return made.urls.get
