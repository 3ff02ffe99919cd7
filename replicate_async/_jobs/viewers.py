"""Polls on behalf of all who follow the progress of a job: one request for each, however many they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

import anyio
import attrs

from .._http.transport import Transport
from ..types import Job
from .poller import rate_of
from .schedule import Share

_SHARE = 0.5
"""The share of the account's rate limit that such polls may take."""

_MOST_ACCOUNTS = 1024


@attrs.define(eq=False)
class _Viewed:
    """A job that somebody follows, on one event loop."""

    viewers: int = 0
    is_polled: bool = False
    """Whether one of the viewers polls, or waits to do so."""
    polled: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when that viewer has polled, or has left."""
    latest: Job | None = None
    """The state at the last poll; None if the viewer has left instead."""


class Viewers:
    """Those who follow jobs with one client and its views."""

    def __init__(self) -> None:
        self._viewed: dict[tuple[asyncio.AbstractEventLoop, Hashable, str], _Viewed] = {}
        self._shares: dict[Hashable, Share] = {}

    async def next_state(
        self,
        transport: Transport,
        job: Job,
        look: Callable[[], Awaitable[None]],
        adopt: Callable[[Job], None],
        pause: float,
    ) -> None:
        """Return when the state of a job was fetched again, by this viewer or by another one.

        Args:
            transport: Makes the requests.
            job: The job; it is updated in place.
            look: Updates it, and repeats failed requests.
            adopt: Takes over the state of another object for the same job.
            pause: Seconds before it is polled.

        Raises:
            ReplicateError: The API refuses.
        """
        account = transport.config.base_url, transport.token()
        key = asyncio.get_running_loop(), account, job.id
        viewed = self._viewed.setdefault(key, _Viewed())
        viewed.viewers += 1
        try:
            while viewed.is_polled:
                await viewed.polled.wait()
                if viewed.latest is not None:
                    adopt(viewed.latest)
                    return
            viewed.is_polled, viewed.latest = True, None
            try:
                await anyio.sleep(pause)
                share = self._share(account, transport)
                # Not an event: the share fills with time.
                while wait := share.take(time.monotonic()):  # noqa: ASYNC110
                    await anyio.sleep(wait)
                await look()
                viewed.latest = job
            finally:
                viewed.is_polled = False
                viewed.polled.set()
                viewed.polled = anyio.Event()
        finally:
            viewed.viewers -= 1
            if not viewed.viewers:
                self._viewed.pop(key, None)

    def _share(self, account: Hashable, transport: Transport) -> Share:
        found = self._shares.get(account)
        if found is None:
            found = self._shares[account] = Share(_SHARE * rate_of(transport.config.rate_limit))
            while len(self._shares) > _MOST_ACCOUNTS:
                del self._shares[next(iter(self._shares))]
        return found
