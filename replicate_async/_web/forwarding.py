"""Webhooks without a tunnel: watches the account's jobs by polling, and posts what the service would deliver."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import attrs
from anyio.abc import TaskGroup

from .. import _signatures, exceptions
from .._arguments import MAX_WAIT
from .._http.call import Call
from .._http.posting import post_json
from .._http.retry import Kind
from .._jobs.context import Context
from .._jobs.policy import has_ended
from .._json import to_text
from .._references import identifier
from ..types import ForwardedDelivery, WebhookEvent
from .deliveries import Contents, contents_of, events_of, job_in
from .inbox import Job

_logger = logging.getLogger("replicate_async")

_COLLECTIONS: Final = ("/predictions", "/trainings")

_RETRY_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 29.0)
"""Seconds between the attempts to deliver a final state (:api:`webhook-delivery`)."""

_MAX_PAGES: Final = 10
"""Pages of a list to read at a time."""

_NO_RETRIES: Final = 0.0
"""Seconds for which a failed read of a job is repeated. The next round reads it again, and others need not wait for it."""

_MAX_FAILURES: Final = 5
"""Number of unreadable answers in a row after which a job is no longer followed."""

_MAX_KNOWN: Final = 10_000
"""Number of jobs that are remembered after their end."""

_ALL: Final[tuple[WebhookEvent, ...]] = ("start", "output", "logs", "completed")

Report = Callable[[ForwardedDelivery], object]


@attrs.define(eq=False)
class _Followed:
    """A job that has not ended yet."""

    id: str
    path: str
    failures: int = 0
    """Unreadable answers since the last good one."""
    contents: Contents | None = None
    """Its output and logs at the last read."""
    was_read: bool = False
    """Whether it was read before. Then its `start` is not new."""


class Forwarder:
    """Delivers the webhooks of an account to a local server."""

    def __init__(
        self, context: Context, url: str, secret: str, *, everything: bool, report: Report | None
    ) -> None:
        """Create a forwarder.

        Args:
            context: The client.
            url: URL of the local server.
            secret: Signing secret of the account.
            everything: Whether to deliver for jobs that have no webhook, too.
            report: Called after each attempt.
        """
        self._context = context
        self._url = url
        self._secret = secret
        self._everything = everything
        self._report = report
        self._followed: dict[str, _Followed] = {}
        self._ended: dict[str, None] = {}

    async def run(self, interval: float) -> None:
        """Watch and deliver until cancelled.

        Args:
            interval: Seconds between two rounds.
        """
        for collection in _COLLECTIONS:
            await self._read_list(collection, is_first=True)
        async with anyio.create_task_group() as deliveries:
            while True:
                for collection in _COLLECTIONS:
                    await self._read_list(collection, is_first=False)
                for followed in list(self._followed.values()):
                    await self._follow(followed, deliveries)
                await anyio.sleep(interval)

    async def _read_list(self, collection: str, *, is_first: bool) -> None:
        """Follow the new jobs in a list. In the first round, those that have ended are not new."""
        call: Call | None = Call("GET", collection, Kind.POLL, is_page=True)
        for _ in range(1 if is_first else _MAX_PAGES):
            if call is None:
                return
            page = (await self._context.transport.send(call, None, MAX_WAIT)).data
            has_known = False
            for entry in page["results"]:
                found = entry.get("id") if isinstance(entry, dict) else None
                if not isinstance(found, str) or found in self._followed:
                    continue
                if found in self._ended:
                    has_known = True
                elif is_first and entry.get("completed_at") is not None:
                    self._drop(found)
                else:
                    self._follow_from_now(collection, found)
            if has_known or is_first:
                return
            call = self._context.next_call(call, page.get("next"))

    def _follow_from_now(self, collection: str, id: str) -> None:
        try:
            self._followed[id] = _Followed(id, f"{collection}/{identifier(id, 'id')}")
        except exceptions.InvalidReference as error:
            _logger.warning("one of %s cannot be followed: %s", collection, error)
            self._drop(id)

    async def _follow(self, followed: _Followed, deliveries: TaskGroup) -> None:
        """Fetch a job, and deliver what is new."""
        call = Call("GET", followed.path, id=followed.id)
        try:
            raw = (await self._context.transport.send(call, None, _NO_RETRIES)).data
            job = job_in(self._context, raw)
        except (
            exceptions.NotFoundError,
            exceptions.UnreadableAnswer,
            exceptions.AnswerTooLarge,
            ValueError,
        ) as error:
            followed.failures += 1
            if followed.failures == _MAX_FAILURES or isinstance(error, exceptions.NotFoundError):
                _logger.warning("%s cannot be followed: %s", followed.path, error)
                self._drop(followed.id)
            return
        except (
            exceptions.ServerError,
            exceptions.RateLimitError,
            exceptions.TransportError,
        ) as error:
            _logger.info("%s cannot be read now: %s", followed.path, error)
            return
        followed.failures = 0
        events = self._new_events(followed, job)
        if not self._everything and job.webhook is None:
            self._drop(job.id)  # it will not get one
            return
        wanted = job.webhook_events_filter or _ALL
        for event in _ALL:
            if event in events and event in wanted:
                deliveries.start_soon(self._deliver, job, raw, event)

    def _new_events(self, followed: _Followed, job: Job) -> frozenset[str]:
        """Return what has happened to a job since it was read before, and stop following it if it has ended."""
        events = events_of(job, followed.contents)
        if has_ended(job):
            self._drop(job.id)
            return events
        if followed.was_read:
            events -= {"start"}
        followed.contents, followed.was_read = contents_of(job), True
        return events

    def _drop(self, id: str) -> None:
        """Stop following a job."""
        self._followed.pop(id, None)
        self._ended[id] = None
        while len(self._ended) > _MAX_KNOWN:
            del self._ended[next(iter(self._ended))]

    async def _deliver(self, job: Job, raw: Mapping[str, Any], event: str) -> None:
        """Deliver one event; a final state repeatedly, until it is accepted."""
        message, body = f"msg_{secrets.token_hex(12)}", to_text(raw, separators=(",", ":")).encode()
        for pause in (*_RETRY_PAUSES, None):
            stamp = str(int(time.time()))
            headers = {
                "webhook-id": message,
                "webhook-timestamp": stamp,
                "webhook-signature": _signatures.sign(self._secret, message, stamp, body),
            }
            status, failure = None, None
            try:
                status = await post_json(self._context.transport.pool, self._url, body, headers)
            except exceptions.TransportError as error:
                failure = str(error)
            if self._report is not None:
                self._report(ForwardedDelivery(job.id, event, job.status, status, failure))
            _logger.info("%s of %s forwarded: %s", event, job.id, status or failure)
            if (status is not None and status < 400) or event != "completed" or pause is None:
                return
            await anyio.sleep(pause)
