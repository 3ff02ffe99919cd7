"""Finds out what the name of a model stands for: an official model, or the latest version of another one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
import attrs

from .._http.call import Call
from .._http.transport import Transport
from .._references import quoted_name
from .poller import account_of

_LIFETIME: Final = 300.0
"""Seconds after which the latest version of a model is looked up again."""

_MAX_HELD_PROBE: Final = 0.25
"""Seconds after whose begin a call that finds out whether a model is official is not waited for any more if the server may
hold its answer until the result is there. A refusal would come soon; else the model seems to be official, and the next call
finds that out by a create that is not held."""

_MAX_PROBES: Final = 3
"""Number of calls that find out, one after the other is too slow. Then each call does so for itself."""

_ITERATIONS: Final = 3
"""Iterations of the event loop in which calls that begin together come to the question what they run."""

_MAX_MODELS: Final = 1024


class ModelKey(NamedTuple):
    """A model as an account knows it: a model may be visible to some accounts only."""

    account: tuple[str, str]
    name: str
    """`owner/name`."""


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


def key_of(transport: Transport, name: str) -> ModelKey:
    """Return the key of a model. It is determined once for each call, since a function may return other tokens later."""
    return ModelKey(account_of(transport), name)


class KnownModels:
    """What the calls of a client have found out about models, for each account."""

    def __init__(self) -> None:
        self._known: OrderedDict[ModelKey, KnownModel] = OrderedDict()
        # By event loop as asyncio names it: anyio has a token for it since 4.11 only.
        self._probes: dict[tuple[asyncio.AbstractEventLoop, ModelKey], _Probe] = {}

    def get(self, key: ModelKey) -> KnownModel | None:
        """Return what is known about a model, if anything is."""
        return self._known.get(key)

    def learn(self, key: ModelKey, version: str | None) -> None:
        """Store the latest version of a model; None for an official model."""
        self._known[key] = KnownModel(version, time.monotonic())
        self._known.move_to_end(key)
        while len(self._known) > _MAX_MODELS:
            self._known.popitem(last=False)

    async def found_by_another(self, key: ModelKey) -> KnownModel | None:
        """Wait while another call finds out about a model; return what it has found.

        Returns:
            What is known; None if the caller has to find it out, within `finding_out`: there is no other call, it has
            failed or was cancelled, or it takes too long.
        """
        here = asyncio.get_running_loop(), key
        while (probe := self._probes.get(here)) is not None and self.get(key) is None:
            if (left := probe.time_left()) <= 0:
                break
            with anyio.move_on_after(left):
                await probe.wait()
        return self.get(key)

    @contextmanager
    def finding_out(self, key: ModelKey, patience: float) -> Iterator[None]:
        """Enter a context in which the caller finds out about a model, while others wait for that.

        Args:
            key: The model.
            patience: Seconds for which others wait, unless the server may hold the answer.
        """
        here = asyncio.get_running_loop(), key
        slow = self._probes.get(here)
        number = 1 if slow is None else slow.number + 1
        if number > _MAX_PROBES:
            yield
            return
        own = self._probes[here] = _Probe(patience, number)
        try:
            yield
        finally:
            latest = self._probes.get(here)
            if latest is own:
                del self._probes[here]
            elif latest is not None and self.get(key) is not None:
                latest.ended.set()  # a later one was faster than it is
            own.ended.set()

    async def may_hold(self, key: ModelKey) -> bool:
        """Return whether the server may hold the answer to the call that finds out about a model, which calls this.

        It may not if other calls wait for that, or have waited in vain for another one that may be held.
        """
        for _ in range(_ITERATIONS):  # those that have begun at the same time get there meanwhile
            await anyio.lowlevel.checkpoint()
        probe = self._probes.get((asyncio.get_running_loop(), key))
        if probe is not None:
            probe.is_held = probe.number == 1 and not probe.waiting
        return probe is None or probe.is_held


@attrs.define(eq=False)
class _Probe:
    """A call that finds out about a model."""

    patience: float
    """Seconds for which other calls wait for it, unless it is held."""
    number: int
    """How many calls find out about the model by now. The server may hold the answer to the first one only."""
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    waiting: int = 0
    """Number of calls that wait for it."""
    is_held: bool = False
    """Whether the server may hold its answer until the result is there."""
    _began: float = attrs.field(factory=time.monotonic, init=False)

    def time_left(self) -> float:
        """Return the seconds for which other calls may still wait for it."""
        longest = _MAX_HELD_PROBE if self.is_held else self.patience
        return self._began + longest - time.monotonic()

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
