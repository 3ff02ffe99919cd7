"""Plain data: what the API tells, and the options of a client.

Objects of the API keep what came (`to_dict()`), so unknown fields are never lost. A field that is missing,
`null` or of an unexpected type has its default; only what identifies an object is essential.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import attrs

__all__ = (
    "Account",
    "CollectionSummary",
    "DeploymentConfiguration",
    "DeploymentRelease",
    "DocumentationPage",
    "File",
    "FileEncodingStrategy",
    "FileUrls",
    "Hardware",
    "Limits",
    "ModelMatchMetadata",
    "PredictionUrls",
    "Progress",
    "RateLimit",
    "Record",
    "Retry",
    "SearchCollection",
    "ServerSentEvent",
    "Stats",
    "Status",
    "Timeout",
    "TrainingOutput",
    "Update",
    "WebhookEvent",
)

if TYPE_CHECKING:
    from ._catalog import (
        Account as Account,
    )
    from ._catalog import (
        CollectionSummary as CollectionSummary,
    )
    from ._catalog import (
        DeploymentConfiguration as DeploymentConfiguration,
    )
    from ._catalog import (
        DeploymentRelease as DeploymentRelease,
    )
    from ._catalog import (
        DocumentationPage as DocumentationPage,
    )
    from ._catalog import (
        File as File,
    )
    from ._catalog import (
        FileUrls as FileUrls,
    )
    from ._catalog import (
        Hardware as Hardware,
    )
    from ._catalog import (
        ModelMatchMetadata as ModelMatchMetadata,
    )
    from ._catalog import (
        SearchCollection as SearchCollection,
    )
    from ._catalog import (
        TrainingOutput as TrainingOutput,
    )
    from ._predictions import (
        PredictionUrls as PredictionUrls,
    )
    from ._predictions import (
        Progress as Progress,
    )
    from ._predictions import (
        ServerSentEvent as ServerSentEvent,
    )
    from ._predictions import (
        Update as Update,
    )

_PREDICTIONS = frozenset({"PredictionUrls", "Progress", "ServerSentEvent", "Update"})


def __getattr__(name: str) -> Any:
    """Load what a run does not need when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "._predictions" if name in _PREDICTIONS else "._catalog"
    return getattr(import_module(module, __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


Status: TypeAlias = (
    Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"] | str
)
"""Where a prediction or training is (HTTP API, section 4.2). Unknown values stay strings."""

FileEncodingStrategy: TypeAlias = Literal["url", "base64"]
"""How files in an input are sent: uploaded, or inside of the request."""

WebhookEvent: TypeAlias = Literal["start", "output", "logs", "completed"]
"""What a webhook is called for (HTTP API, section 6.1)."""


@attrs.define(eq=False)
class Record:
    """An object as the API sent it. Two records are equal if the same came."""

    _computed: ClassVar[frozenset[str]] = frozenset()
    # Known fields of the wire that are no attrs fields, since properties compute them.

    _raw: dict[str, Any] = attrs.field(factory=dict[str, Any], repr=False, init=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what came, as JSON-like data of your own: nothing added, nothing lost."""
        return copy.deepcopy(self._raw)

    @property
    def extra(self) -> dict[str, Any]:
        """The fields that came and that this version of the package does not know."""
        known = self._computed.union(field.name for field in attrs.fields(type(self)))
        return {key: copy.deepcopy(value) for key, value in self._raw.items() if key not in known}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield the pairs of what came: `dict(record)` is `record.to_dict()`."""
        return iter(self.to_dict().items())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._raw == other._raw

    __hash__ = None  # type: ignore[assignment]  # mutable, as lists and dicts are


# -- Options of a client -----------------------------------------------------------------------


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        # A plain ValueError: `exceptions` stands beside this module, not below it.
        raise ValueError(
            f"{type(instance).__name__}.{attribute.name} must be greater than 0, not {value!r}"
        )


@attrs.frozen
class Timeout:
    """How long to wait for the network, in seconds. It bounds no model: see `run(timeout=...)`."""

    connect: float = attrs.field(default=10.0, validator=_positive)
    """For a connection, TLS included."""
    read: float = attrs.field(default=30.0, validator=_positive)
    """For the next bytes of an answer: silence, not duration. Waits that the server was asked for
    (`Prefer: wait`) are added."""
    stream: float = attrs.field(default=60.0, validator=_positive)
    """For the next bytes of an event stream, whose model may think; then it is connected anew."""


@attrs.frozen
class Retry:
    """How requests that may be repeated are repeated (creates: see README, "Money")."""

    attempts: int = attrs.field(default=5, validator=_positive)
    """Attempts in all, the first one included; 1 switches repeating off. Requests that the rate limit
    refuses are counted by time instead (`throttled`). Polls of a running prediction
    are repeated until the caller's time is over."""
    backoff: float = attrs.field(default=0.5, validator=_positive)
    """Seconds before the second attempt, doubled for each further one. A random part of up to a half
    is taken off."""
    max_backoff: float = attrs.field(default=30.0, validator=_positive)
    """The longest such pause. A longer one is made only if the server asks for it."""
    max_wait: float = attrs.field(default=120.0, validator=_positive)
    """If the server asks for a longer pause than this, the error is raised instead."""
    throttled: float = attrs.field(default=600.0, validator=_positive)
    """For how many seconds a request that the rate limit refuses (429) is sent again."""


@attrs.define
class Stats:
    """What a client and its views have done so far."""

    created: int = 0
    """Predictions and trainings that were created."""
    adopted: int = 0
    """Those of them that were found again after a create without an answer."""
    cancelled: int = 0
    """Predictions and trainings that were cancelled."""
    retried: int = 0
    """Attempts beyond the first ones."""
    waited: int = 0
    """Requests that had to wait for the rate limit."""
    waited_seconds: float = 0.0
    """How long they waited, in all."""


@attrs.frozen
class RateLimit:
    """The account's limits, as this process shall keep them (HTTP API, section 3.1)."""

    creates: float = attrs.field(default=600, validator=_positive)
    """Creates of predictions."""
    others: float = attrs.field(default=3000, validator=_positive)
    """All other requests."""
    per: float = attrs.field(default=60.0, validator=_positive)
    """The time in which so many are allowed, in seconds."""


@attrs.frozen
class Limits:
    """What may be held in memory of one answer, in bytes after decompression."""

    answer: int = attrs.field(default=64 * 2**20, validator=_positive)
    """A JSON answer."""
    error: int = attrs.field(default=64 * 2**10, validator=_positive)
    """The body of an error, which is cut there."""
    event: int = attrs.field(default=64 * 2**20, validator=_positive)
    """One server-sent event."""
    file: int = attrs.field(default=256 * 2**20, validator=_positive)
    """A file that is read as a whole; one that is saved or iterated over may have any size."""
    connections: int = attrs.field(default=256, validator=_positive)
    """Connections at a time, for each event loop: so many for creates, and so many for all else. What
    exceeds them waits its turn."""
