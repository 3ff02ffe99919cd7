"""A backplane on Redis or Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

from ..exceptions import ArgumentError

try:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub
except ImportError as error:  # pragma: no cover - the tests have it
    raise ImportError(
        "RedisBackplane needs the package redis: pip install 'replicate-async[redis]'"
    ) from error

__all__ = ("RedisBackplane",)

_CLAIM: Final = """
local claimed = redis.call('GET', KEYS[1])
if claimed and tonumber(claimed) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""Atomic: two processes that claim a key at the same time must not both succeed."""

_TIMEOUT: Final = 2.0
"""Seconds to wait for Redis, which is beside the app."""


class RedisBackplane:
    """A backplane on Redis 7 or Valkey, for apps of several processes. Needs the extra `redis`.

    ```python
    receiver = client.webhooks.receiver(
        url="https://app.example/replicate",
        backplane=RedisBackplane("redis://localhost"),
    )
    ```
    """

    def __init__(self, url: str, *, prefix: str = "replicate:") -> None:
        """Create a backplane. It connects when it is first used.

        Args:
            url: URL of the server, such as `redis://localhost:6379/0`.
            prefix: Prefix of all keys and channels.

        Raises:
            ArgumentError: The URL is not one of Redis.
        """
        self._url = url
        self._prefix = prefix
        # A connection belongs to an event loop.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Redis] = WeakKeyDictionary()
        try:
            self._make_client()
        except (ValueError, TypeError, AttributeError) as error:
            raise ArgumentError("url", "expected a URL such as redis://localhost:6379/0") from error

    async def claim(self, key: str, *, rank: int = 1, seconds: float) -> bool:
        """Claim a key, as `Backplane.claim`.

        Args:
            key: What to claim.
            rank: A claim is refused if the key was claimed with the same or a higher rank.
            seconds: Time after which the claim is forgotten.

        Returns:
            Whether the claim succeeded.
        """
        script = self._client().register_script(_CLAIM)
        claimed = await script(keys=[self._prefix + key], args=[rank, max(int(seconds * 1000), 1)])
        return bool(claimed)

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message, as `Backplane.publish`.

        Args:
            channel: Name of the channel.
            message: The message.
        """
        await self._client().publish(self._prefix + channel, message)

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Subscribe to a channel, as `Backplane.subscribe`.

        Args:
            channel: Name of the channel.

        Returns:
            A context manager of the messages.
        """
        async with self._client().pubsub() as pubsub:
            await pubsub.subscribe(self._prefix + channel)
            yield _messages(pubsub)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> Redis:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make_client()
        return client

    def _make_client(self) -> Redis:
        return Redis.from_url(
            self._url,
            socket_connect_timeout=_TIMEOUT,
            socket_timeout=_TIMEOUT,
            health_check_interval=15,
        )


async def _messages(pubsub: PubSub) -> AsyncIterator[bytes]:
    while True:
        # With a timeout, so that the connection is checked in between: a server that is gone is noticed.
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
        if message is not None:
            yield message["data"]
