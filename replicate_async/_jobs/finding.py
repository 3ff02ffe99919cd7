"""Searches the list of predictions or trainings for what a create without an answer has created."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import anyio

from .._codec import structure
from .._http.call import Answer, Call
from .._http.retry import Kind
from .context import Context
from .job import LiveJob
from .marks import carries
from .pending import ListMatch, PendingCreate
from .prediction import Prediction

J = TypeVar("J", bound=LiveJob)

_MARGIN: Final = timedelta(seconds=2)
"""The difference that is allowed between the clocks of the API's machines."""

_MOST_PAGES: Final = 10


async def find(
    context: Context, pending: PendingCreate, kind: type[J], pauses: Iterable[float]
) -> J | None:
    """Look for what a create has created after each of the pauses, and claim it.

    Only what is provably its own is claimed. Where that is not known, the IDs of all that may be its own are
    noted in `pending.candidates`.

    Args:
        context: The client.
        pending: The create.
        kind: The class of what it creates.
        pauses: Seconds before each look at the list.

    Returns:
        What it created; None if the list does not show it, or nothing proves which one it is.

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
            continue  # one was sent while the list was read, and the list may show its training
        pending.candidates = tuple(job.id for job in found)
        own = [job for job in found if _is_own(job, pending)]
        if len(own) == 1 and context.creates.own(own[0].id):
            return own[0]
        if len(own) > 1:
            return None
    return None


def _is_own(job: LiveJob, pending: PendingCreate) -> bool:
    """Tell whether a candidate is that of a create, as far as the list shows it."""
    if pending.proof == "mark":
        assert pending.deadline is not None
        return isinstance(job, Prediction) and carries(job, pending.deadline)
    return pending.proof == "input"


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


async def _candidates(context: Context, pending: PendingCreate, kind: type[J]) -> list[J]:
    """Return the jobs in the list that a create may have created, and that no other call owns."""
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
                since = (answer.server_time or datetime.now(UTC)) - elapsed - _MARGIN
            recent = True
            for job in jobs_of(entries, kind):
                recent = job.created_at is None or job.created_at >= since
                if (
                    recent
                    and job.created_at is not None
                    and job.input == pending.input
                    and wanted.matches(job)
                    and not context.creates.is_owned(job.id)
                ):
                    found.append(context.bind(job))
            if not recent or pages == _MOST_PAGES:
                break
    return found
