"""Searches the list of predictions or trainings for what a create without an answer has created."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import anyio

from .._codec import structure
from .._http.call import Answer, Call
from .._http.retry import Kind
from .context import Context
from .job import LiveJob, has_ended
from .pending import ListMatch, PendingCreate

J = TypeVar("J", bound=LiveJob)

_MARGIN: Final = timedelta(seconds=2)
"""The difference that is allowed between the clocks of the API's machines."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_MOST_PAGES: Final = 10


async def find(
    context: Context,
    pending: PendingCreate,
    kind: type[J],
    pauses: Iterable[float],
    *,
    running_first: bool = False,
) -> J | None:
    """Look for what a create has created after each of the pauses, and claim it.

    While equal creates of this client wait for their answers, it is unknown which prediction belongs to
    which create, and nothing is claimed.

    Args:
        context: The client.
        pending: The create.
        kind: The class of what it creates.
        pauses: Seconds before each look at the list.
        running_first: Whether to prefer a job that has not ended, because it will be cancelled.

    Returns:
        What it created; None if the list does not show it.

    Raises:
        ReplicateError: The API refuses.
        TransportError: The list cannot be read.
    """
    for pause in pauses:
        if pause:
            await anyio.sleep(pause)
        if context.creates.has_rivals(pending):
            continue
        found = await _candidates(context, pending, kind)
        if context.creates.has_rivals(pending):
            continue  # one was sent while the list was read, and the list may show its prediction
        if running_first:
            found.sort(key=has_ended)
        for job in found:
            if context.creates.own(job.id):
                return job
    return None


async def list_pages(
    context: Context, call: Call, *, patience: float
) -> AsyncGenerator[tuple[Answer, list[Any]], None]:
    """Yield the pages of a list as they are: each answer with its entries, up to an empty page.

    Args:
        context: The client.
        call: Fetches the first page.
        patience: Seconds for which each request is repeated if it fails.
    """
    following: Call | None = call
    while following is not None:
        call = following
        answer = await context.transport.send(call, patience=patience)
        data = answer.data if isinstance(answer.data, dict) else {}
        entries = data.get("results")
        entries = entries if isinstance(entries, list) else []
        yield answer, entries
        following = context.next_call(call, data.get("next")) if entries else None
        if following is not None and following.path == call.path:
            return  # a server that gives the same link again would be asked for ever


def jobs_of(entries: Iterable[Any], kind: type[J]) -> Iterator[J]:
    """Yield the entries of a list as objects; what is not readable is left out."""
    for entry in entries:
        try:
            yield structure(entry, kind)
        except ValueError:
            continue


def server_time(answer: Answer) -> datetime | None:
    """Return the time of the server when it answered; None if it does not tell."""
    try:
        said = parsedate_to_datetime(answer.headers.get("Date", ""))
    except (TypeError, ValueError):
        return None
    return said if said.tzinfo is not None else said.replace(tzinfo=UTC)


async def _candidates(context: Context, pending: PendingCreate, kind: type[J]) -> list[J]:
    """Return the jobs in the list that a create may have created, the likeliest first."""
    assert pending.wanted is not None
    wanted: ListMatch = pending.wanted
    found: list[J] = []
    since: datetime | None = None
    pages = 0
    call = Call("GET", wanted.listing, Kind.POLL, urgent=True)
    patience = context.timings.search_patience
    async with aclosing(list_pages(context, call, patience=patience)) as listed:
        async for answer, entries in listed:
            pages += 1
            if since is None:
                # By the clock of the server: that of this machine may be wrong.
                elapsed = timedelta(seconds=time.monotonic() - pending.began)
                since = (server_time(answer) or datetime.now(UTC)) - elapsed - _MARGIN
            recent = True
            for job in jobs_of(entries, kind):
                recent = job.created_at is None or job.created_at >= since
                if (
                    recent
                    and job.created_at is not None
                    and job.input == pending.input
                    and wanted.matches(job)
                ):
                    found.append(context.bind(job))
            if not recent or pages == _MOST_PAGES:
                break
    # What was made before the create began is there only because clocks differ: it comes last.
    began = _EPOCH if since is None else since + _MARGIN
    moments = [(job.created_at or _EPOCH, job) for job in found]
    moments.sort(key=lambda moment: (moment[0] < began, moment[0]))
    return [job for _, job in moments]
