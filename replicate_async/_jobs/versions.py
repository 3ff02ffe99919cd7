"""Finds out what the name of a model stands for: an official model, or the latest version of another one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import anyio
import anyio.lowlevel
import attrs

from .._http.call import Call
from .._http.transport import Transport
from .._references import quoted_name
from .poller import account_of

_LIFETIME: Final = 300.0
"""Seconds after which the latest version of a model is looked up again."""

_LONGEST_PROBE: Final = 2.0
"""Longest wait in seconds for a call that finds out whether a model is official. If it takes longer, the server
holds its answer until the result is there, so the model is official."""

_ITERATIONS: Final = 3
"""Iterations of the event loop in which calls that begin together come to the question what they run."""

_MOST_MODELS: Final = 1024

_Key: TypeAlias = tuple[tuple[str, str], str]
"""Account and `owner/name`: a model may be visible to some accounts only."""


@attrs.frozen
class KnownModel:
    """What is known about a model."""

    version: str | None
    """The latest version; None for an official model, which is run without a version."""
    found_at: float
    """Time at which that was found out (monotonic)."""

    @property
    def is_stale(self) -> bool:
        """Whether the latest version should be looked up again."""
        return self.version is not None and time.monotonic() - self.found_at > _LIFETIME


class KnownModels:
    """What the calls of a client have found out about models, for each account."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, KnownModel] = OrderedDict()
        # By event loop as asyncio names it: anyio has a token for it since 4.11 only.
        self._probes: dict[tuple[asyncio.AbstractEventLoop, _Key], _Probe] = {}

    def get(self, transport: Transport, name: str) -> KnownModel | None:
        """Return what is known about a model, if anything is."""
        return self._known.get((account_of(transport), name))

    def learn(self, transport: Transport, name: str, version: str | None) -> None:
        """Store the latest version of a model; None for an official model."""
        key = account_of(transport), name
        self._known[key] = KnownModel(version, time.monotonic())
        self._known.move_to_end(key)
        while len(self._known) > _MOST_MODELS:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def probing(self, transport: Transport, name: str) -> AsyncIterator[KnownModel | None]:
        """Enter a context with what is known about a model; None if the caller has to find it out.

        Of several calls at a time, only one finds it out. The others wait until it leaves its context; if it could
        not find it out, since it was cancelled or has failed, the next one tries.
        """
        key = asyncio.get_running_loop(), (account_of(transport), name)
        with anyio.move_on_after(_LONGEST_PROBE):
            while self.get(transport, name) is None and key in self._probes:
                await self._probes[key].wait()
        found = self.get(transport, name)
        if found is not None or key in self._probes:
            yield found
            return
        probe = self._probes[key] = _Probe()
        try:
            yield None
        finally:
            del self._probes[key]
            probe.ended.set()

    async def is_awaited(self, transport: Transport, name: str) -> bool:
        """Return whether other calls wait for the one that finds out about a model, which calls this."""
        for _ in range(_ITERATIONS):  # those that have begun at the same time get there meanwhile
            await anyio.lowlevel.checkpoint()
        probe = self._probes.get((asyncio.get_running_loop(), (account_of(transport), name)))
        return probe is not None and probe.waiting > 0


@attrs.define(eq=False)
class _Probe:
    """A call that finds out about a model."""

    ended: anyio.Event = attrs.field(factory=anyio.Event)
    waiting: int = 0
    """Number of calls that wait for it."""

    async def wait(self) -> None:
        """Wait for its end."""
        self.waiting += 1
        try:
            await self.ended.wait()
        finally:
            self.waiting -= 1


async def latest_version(transport: Transport, name: str) -> str | None:
    """Return the latest version of a model; None if it has none. Calls :api:`models.get`.

    Raises:
        NotFoundError: There is no such model.
        ReplicateError: The API returned another error.
        TransportError: No usable response was received.
    """
    model = (await transport.send(Call("GET", f"/models/{quoted_name(name, 'model')}"))).data
    match model:
        case {"latest_version": {"id": str(version)}}:
            return version
    return None
