"""HTTP/1.1 messages as they are framed on a socket: heads, chunks, lengths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import attrs

_PIECE: Final = 64 * 1024
"""Bytes that are read at a time."""


@attrs.frozen
class Head:
    """The head of a request or of an answer."""

    raw: bytes
    """Its bytes, with the empty line at the end."""
    first: str
    """The request line or status line."""
    headers: Mapping[str, str]
    """Headers, with names in lower case."""

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        """Announced length of the body in bytes."""
        said = self.headers.get("content-length")
        return int(said) if said is not None and said.isdigit() else None

    @property
    def status(self) -> int:
        """Status of an answer."""
        return int(self.first.split(" ", 2)[1])

    @property
    def last(self) -> bool:
        """Whether the connection ends after this message."""
        said = self.headers.get("connection", "").lower()
        return said == "close" or ("HTTP/1.0" in self.first and said != "keep-alive")

    def without(self, name: str) -> bytes:
        """Return the bytes of the head without a header."""
        lines = self.raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
        prefix = name.lower().encode() + b":"
        kept = [line for line in lines if not line.lower().startswith(prefix)]
        return b"\r\n".join(kept) + b"\r\n\r\n"


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Read the head of a request or of an answer.

    Raises:
        EOFError: The connection ended before.
    """
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *rest = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return Head(raw, first, {name.strip().lower(): value.strip() for name, _, value in pairs})


async def read_final_head(reader: asyncio.StreamReader) -> Head:
    """Read the head of the final answer, after those with status 1xx."""
    while (answer := await read_head(reader)).status < 200:
        pass
    return answer


def is_framed(request: Head, answer: Head) -> bool:
    """Return whether the end of an answer shows without the end of its connection."""
    return _bodyless(request, answer) or answer.chunked or answer.length is not None


def _bodyless(request: Head, answer: Head) -> bool:
    return request.first.startswith("HEAD ") or answer.status in (204, 304)


def body_of_answer(
    request: Head, answer: Head, reader: asyncio.StreamReader
) -> AsyncGenerator[bytes, None]:
    """Yield the body of an answer, with its framing."""
    if _bodyless(request, answer):
        return _counted(0, reader)
    if answer.chunked:
        return _chunks(reader)
    return _counted(answer.length, reader)


def without_framing(head: Head, piece: bytes) -> bytes:
    """Return the content of a piece of a body that is framed as *head* says."""
    if not head.chunked:
        return piece
    line, _, rest = piece.partition(b"\r\n")
    return rest[: int(line.split(b";")[0], 16)]


def body_of_request(head: Head, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request, with its framing."""
    return _chunks(reader) if head.chunked else _counted(head.length or 0, reader)


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a body, with their framing."""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if not size:
            while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                line += trailer
            yield line + b"\r\n"
            return
        yield line + await reader.readexactly(size + 2)


async def _counted(length: int | None, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Yield *length* bytes; all until the end of the connection if it is None."""
    while length != 0:
        piece = await reader.read(_PIECE if length is None else min(length, _PIECE))
        if not piece:
            if length is None:
                return
            raise EOFError
        if length is not None:
            length -= len(piece)
        yield piece
