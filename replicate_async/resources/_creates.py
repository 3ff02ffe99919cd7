"""Creating predictions and trainings: sent once, and found again where the answer is missing.

A create that was sent and got no answer may have happened. Then the account's list tells: what was created
since, of the same model and with the same input, and belongs to no other call of this client, is adopted.
Nothing is created a second time unless the caller has opted in.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from .. import _policy, exceptions
from .._codec import structure
from .._policy import Kind
from .._transport import Answer, Call, Trail, sleep

if TYPE_CHECKING:
    from ._base import Context
    from .predictions import Prediction
    from .trainings import Training

J = TypeVar("J", bound="Prediction | Training")

_logger = logging.getLogger("replicate_async")

_MARGIN: Final = timedelta(seconds=2)
"""By how much the clocks of the API's machines may differ from each other."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_MOST_PAGES: Final = 10

_RIVALS_WAIT: Final = 100.0
"""Seconds to wait for the answers of other creates of the same, which tell what is theirs."""


@attrs.frozen
class Wanted:
    """What is to be run, as the list of predictions or trainings shows it."""

    shown: str
    """How messages call it."""
    model: str | None = None
    """`owner/name`, if known."""
    version: str | None = None
    """The version, if one was asked for."""
    deployment: str | None = None
    """The deployment, `owner/name`, if one was asked for."""
    listing: str = "/predictions"
    """The path of the list."""

    def matches(self, job: Prediction | Training) -> bool:
        """Tell whether something in the list may be a run of it."""
        if self.deployment is not None:
            found = getattr(job, "deployment", None)
            return found in (self.deployment, self.deployment.partition("/")[2])
        if self.version is not None:
            # An old version may be served by another one (HTTP API, section 4.6). Then nothing is
            # found, which is better than to take the result of another version for it.
            return job.version == self.version
        return self.model is not None and job.model == self.model

    def overlaps(self, other: Wanted) -> bool:
        """Tell whether a run of it may look like a run of the other, however they are spelled."""
        if self.listing != other.listing or self.deployment != other.deployment:
            return False
        if self.deployment is not None:
            return True
        if self.version is not None and other.version is not None:
            return self.version == other.version
        return self.model is None or other.model is None or self.model == other.model


@attrs.define(eq=False, repr=False)
class Creation(Trail):
    """A create under way, and how far its request has come."""

    wanted: Wanted | None = None
    """What it asks for; None before it is known."""
    input: Mapping[str, Any] | None = None
    """The input as it is sent."""
    began: float = 0.0
    """When, by the monotonic clock."""
    lost: bool = False
    """Whether it was sent, and ended without an answer."""
    found: Any = None
    """What it has created, if that was found in the list."""


class Creations:
    """All creates of one client: what is under way, and which ids belong to whom."""

    _MOST_IDS: Final = 10_000

    def __init__(self) -> None:
        self._owned: set[str] = set()
        self._owned_before: set[str] = set()
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._under_way: set[Creation] = set()
        self._lock = threading.Lock()

    def begin(self, creation: Creation) -> None:
        """Note that a create is sent now."""
        if self._pid != os.getpid():
            self._start()  # after a fork: what was under way is the parent's
        self._under_way.add(creation)

    def end(self, creation: Creation) -> None:
        """Note that it has its answer, or that there will be none."""
        self._under_way.discard(creation)

    def own(self, id: str) -> bool:
        """Claim an id for a call; False if it belongs to another one."""
        with self._lock:
            if id in self._owned or id in self._owned_before:
                return False
            if len(self._owned) >= self._MOST_IDS:
                self._owned_before, self._owned = self._owned, set()
            self._owned.add(id)
            return True

    def has_rivals(self, creation: Creation) -> bool:
        """Tell whether other creates of the same await their answers."""
        return any(
            other is not creation
            and other.sent
            and other.input == creation.input
            and other.wanted is not None
            and creation.wanted is not None
            and other.wanted.overlaps(creation.wanted)
            for other in list(self._under_way)
        )


async def send_create(
    context: Context,
    call: Call,
    kind: type[J],
    wanted: Wanted,
    input: Mapping[str, Any],
    creation: Creation,
) -> J:
    """Send a create once, and return what it created.

    Args:
        context: The client.
        call: The create; it leaves the trail of `creation`.
        kind: What it creates.
        wanted: What it asks for.
        input: The input as it is sent.
        creation: Where to note how far it came.

    Raises:
        AmbiguousCreateError: There was no answer, and the list does not show it.
        ReplicateError: The API refuses; nothing was created.
        ConnectError: Nothing was sent.
    """
    creation.wanted = wanted
    creation.input = input
    transport, creations = context.transport, context.creations
    attempt = 1
    while True:
        creation.began = time.monotonic()
        creations.begin(creation)
        try:
            created: J = (await transport.send(call, kind)).data
        except (exceptions.TransportError, exceptions.ReplicateError) as error:
            creations.end(creation)
            if not creation.sent or not _policy.is_ambiguous(error):
                raise
            creation.lost = True
            found = await _look_for(context, creation, kind, error)
            if found is not None:
                creation.lost = False
                return found
            began = datetime.now(UTC) - timedelta(seconds=time.monotonic() - creation.began)
            ambiguous = exceptions.AmbiguousCreateError(
                error.method, error.url, wanted.shown, str(error), began
            )
            if context.on_ambiguous == "raise" or attempt >= transport.config.retry.attempts:
                raise ambiguous from error
            attempt += 1
            _logger.warning("%s; creating it again, as `on_ambiguous` asks for", ambiguous)
            context.stats.retried += 1
            creation.lost = False
        except BaseException:
            creation.lost = creation.sent
            raise
        else:
            created._bind(context)
            if not creations.own(created.id):
                _logger.warning("%s %s is another call's, too", _name(kind), created.id)
            transport.pool.stats.created += 1
            if _logger.isEnabledFor(logging.INFO):
                _logger.info("%s %s of %s created", _name(kind), created.id, wanted.shown)
            return created
        finally:
            creations.end(creation)


async def _look_for(
    context: Context, creation: Creation, kind: type[J], error: exceptions.ReplicateException
) -> J | None:
    """Find what a create without an answer has created; None if the list does not show it."""
    assert creation.wanted is not None
    shown = creation.wanted.shown
    _logger.warning("the create of %s got no answer (%s); looking for it in the list", shown, error)
    patience = time.monotonic() + _RIVALS_WAIT
    try:
        while context.creations.has_rivals(creation) and time.monotonic() < patience:
            await sleep(0.25)
        found = await find(context, creation, kind, _policy.LOOKS)
    except (exceptions.TransportError, exceptions.ReplicateError) as failure:
        _logger.warning("the list cannot be read: %s", failure)
        return None
    if found is None:
        return None
    context.stats.created += 1
    context.stats.adopted += 1
    creation.found = found
    _logger.warning("%s %s of %s adopted", _name(kind), found.id, shown)
    try:
        # Lists may leave things out.
        await found._poll(_policy.CANCEL_GRACE)
    except (exceptions.TransportError, exceptions.ReplicateError) as failure:
        _logger.debug("the adopted one cannot be read now: %s", failure)
    return found


async def find(
    context: Context,
    creation: Creation,
    kind: type[J],
    pauses: Iterable[float],
    *,
    running_first: bool = False,
) -> J | None:
    """Look at the list, after each of the pauses, for what a create has created, and claim it.

    While other creates of the same await their answers, nothing can be told to be whose.

    Args:
        context: The client.
        creation: The create.
        kind: What it creates.
        pauses: Seconds before each look.
        running_first: Whether to prefer what has not ended: it shall be cancelled.
    """
    for pause in pauses:
        if pause:
            await sleep(pause)
        if context.creations.has_rivals(creation):
            continue
        found = await _candidates(context, creation, kind)
        if context.creations.has_rivals(creation):
            continue  # one was sent while the list was read, and what it made may stand there
        if running_first:
            found.sort(key=lambda job: _policy.is_over(job.status, job.completed_at is not None))
        for job in found:
            if context.creations.own(job.id):
                return job
    return None


async def _candidates(context: Context, creation: Creation, kind: type[J]) -> list[J]:
    """Return what the list shows of a create, the likeliest first."""
    wanted = creation.wanted
    assert wanted is not None
    found: list[J] = []
    since: datetime | None = None
    call = Call("GET", wanted.listing, Kind.POLL, urgent=True)
    for _ in range(_MOST_PAGES):
        answer = await context.transport.send(call, patience=_policy.LOOK_PATIENCE)
        if since is None:
            # In the time of the server: the clock of this machine may be wrong.
            elapsed = timedelta(seconds=time.monotonic() - creation.began)
            since = _server_time(answer) - elapsed - _MARGIN
        data = answer.data if isinstance(answer.data, dict) else {}
        entries = data.get("results")
        recent = True
        for entry in entries if isinstance(entries, list) else ():
            try:
                job = structure(entry, kind)
            except ValueError:
                continue
            recent = job.created_at is None or job.created_at >= since
            if (
                recent
                and job.created_at is not None
                and job.input == creation.input
                and wanted.matches(job)
            ):
                found.append(context.bind(job))
        link = data.get("next")
        following = context.next_call(call, link) if recent and entries else None
        if following is None:
            break
        call = following
    # What was made before the create began is there only because clocks differ: it comes last.
    began = _EPOCH if since is None else since + _MARGIN
    moments = [(job.created_at or _EPOCH, job) for job in found]
    moments.sort(key=lambda moment: (moment[0] < began, moment[0]))
    return [job for _, job in moments]


def _server_time(answer: Answer) -> datetime:
    try:
        said = parsedate_to_datetime(answer.headers.get("Date", ""))
    except (TypeError, ValueError):
        return datetime.now(UTC)
    return said if said.tzinfo is not None else said.replace(tzinfo=UTC)


def _name(kind: type[Any]) -> str:
    return kind.__name__.lower()
