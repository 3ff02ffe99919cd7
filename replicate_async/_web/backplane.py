"""Backplanes: what the processes of an app share, which is claims, and messages to all of them."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import anyio
from anyio.streams.memory import MemoryObjectSendStream

__all__ = ("Backplane", "LocalBackplane")


class Backplane(Protocol):
    """What the processes of an app share, so that a delivery reaches the one that waits for it.

    Each method may raise any exception while the service behind it is away; the receiver then does without it.
    """

    async def claim(self, key: str, *, rank: int = 1, seconds: float) -> bool:
        """Claim a key for all processes.

        Args:
            key: What to claim, such as the ID of a delivery.
            rank: A claim is refused if the key was claimed with the same or a higher rank.
            seconds: Time after which the claim is forgotten.

        Returns:
            Whether the claim succeeded.
        """
        ...

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message to all that are subscribed to a channel, in any process.

        Args:
            channel: Name of the channel.
            message: The message.
        """
        ...

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Subscribe to a channel, from entering the context manager until leaving it.

        Args:
            channel: Name of the channel.

        Returns:
            A context manager of the messages.
        """
        ...


class LocalBackplane:
    """A backplane for an app of one process and one event loop."""

    _MAX: Final = 100_000
    """Number of claims that are remembered. Beyond that, the oldest are forgotten."""

    def __init__(self) -> None:
        """Create a backplane without claims or subscriptions."""
        self._claims: dict[str, tuple[int, float]] = {}
        self._subscribers: dict[str, set[MemoryObjectSendStream[bytes]]] = {}

    async def claim(self, key: str, *, rank: int = 1, seconds: float) -> bool:
        """Claim a key, as `Backplane.claim`.

        Args:
            key: What to claim.
            rank: A claim is refused if the key was claimed with the same or a higher rank.
            seconds: Time after which the claim is forgotten.

        Returns:
            Whether the claim succeeded.
        """
        now = time.monotonic()
        claimed, expires = self._claims.get(key, (rank - 1, now))
        if claimed >= rank and expires > now:
            return False
        self._claims.pop(key, None)
        self._claims[key] = rank, now + seconds
        while len(self._claims) > self._MAX:
            del self._claims[next(iter(self._claims))]
        return True

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message, as `Backplane.publish`.

        Args:
            channel: Name of the channel.
            message: The message.
        """
        for subscriber in self._subscribers.get(channel, ()):
            subscriber.send_nowait(message)

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Subscribe to a channel, as `Backplane.subscribe`.

        Args:
            channel: Name of the channel.

        Returns:
            A context manager of the messages.
        """
        send, receive = anyio.create_memory_object_stream[bytes](math.inf)
        subscribers = self._subscribers.setdefault(channel, set())
        subscribers.add(send)
        try:
            yield receive
        finally:
            subscribers.discard(send)
            send.close()
            receive.close()
