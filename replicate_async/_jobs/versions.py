"""What a model's name stands for: an official model, or the latest version of another one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import attrs

from .._http.call import Call
from .._http.transport import Transport
from .._references import quoted_name

_REFRESHED_AFTER: Final = 300.0
"""Seconds after which the latest version is looked up again."""

_LONGEST_PROBE: Final = 2.0
"""Seconds to wait for another call to find out whether a model is official: one that is held by the server is."""

_MOST_MODELS: Final = 1024

_Key = tuple[str, str, str]
"""Base URL, token, and `owner/name`: what one account may see, another may not."""


@attrs.define
class KnownModel:
    """What is known of a model."""

    version: str | None
    """The latest version; None for an official model, which is run without one."""
    found_at: float
    """When that was found out (monotonic)."""

    @property
    def is_stale(self) -> bool:
        """Whether the version should be looked up again."""
        return self.version is not None and time.monotonic() - self.found_at > _REFRESHED_AFTER


class KnownModels:
    """What the calls of a client have found out about models, for each account."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, KnownModel] = OrderedDict()
        self._probes: dict[tuple[asyncio.AbstractEventLoop, _Key], anyio.Event] = {}

    def get(self, transport: Transport, name: str) -> KnownModel | None:
        """Return what is known of a model."""
        return self._known.get(_key(transport, name))

    def learn(self, transport: Transport, name: str, version: str | None) -> None:
        """Note the latest version of a model, or None for an official one."""
        key = _key(transport, name)
        self._known[key] = KnownModel(version, time.monotonic())
        self._known.move_to_end(key)
        while len(self._known) > _MOST_MODELS:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def probing(self, transport: Transport, name: str) -> AsyncIterator[KnownModel | None]:
        """Hold what is known of a model; of many first calls, one finds it out, and the others wait for that."""
        key = asyncio.get_running_loop(), _key(transport, name)
        if self.get(transport, name) is None and key in self._probes:
            with anyio.move_on_after(_LONGEST_PROBE):
                await self._probes[key].wait()
        found = self.get(transport, name)
        if found is not None or key in self._probes:
            yield found
            return
        event = self._probes[key] = anyio.Event()
        try:
            yield None
        finally:
            del self._probes[key]
            event.set()


def _key(transport: Transport, name: str) -> _Key:
    return transport.config.base_url, transport.token(), name


async def latest_version(transport: Transport, name: str) -> str | None:
    """Look up the latest version of a model; None if it has none. Calls :api:`models.get`.

    Raises:
        ReplicateError: The API refuses; NotFoundError if there is no such model.
        TransportError: There was no usable answer.
    """
    model = (await transport.send(Call("GET", f"/models/{quoted_name(name, 'model')}"))).data
    match model:
        case {"latest_version": {"id": str(version)}}:
            return version
    return None
