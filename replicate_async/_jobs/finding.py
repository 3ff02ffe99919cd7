"""Searches the list of predictions or trainings for the result of a create without an answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import anyio
import attrs

from .._codec import structure
from .._http.call import Answer, Call
from .._http.retry import Kind
from .context import Context
from .job import LiveJob
from .marks import carries
from .pending import PendingCreate
from .prediction import Prediction

J = TypeVar("J", bound=LiveJob)

_CLOCK_ERROR: Final = timedelta(seconds=2)
"""Difference between the clocks of the API's machines."""

_MAX_PAGES: Final = 10


async def find(
    context: Context, pending: PendingCreate, job_type: type[J], pauses: Iterable[float]
) -> J | None:
    """Search the list for the result of a create, once after each pause, and claim it.

    A job is claimed only if it is provably the result. The IDs of all jobs that may be the result are kept in
    `pending.candidates`.

    Args:
        context: The client.
        pending: The create.
        job_type: Class of what it creates.
        pauses: Seconds to wait before each search.

    Returns:
        What it created; None if the list does not show it, or nothing proves which job it is.

    Raises:
        ReplicateError: The API returned an error.
        TransportError: The list could not be read.
    """
    for pause in pauses:
        if pause:
            await anyio.sleep(pause)
        if context.creates.has_rivals(pending):
            continue
        found = await _candidates(context, pending, job_type)
        if context.creates.has_rivals(pending):
            continue  # one was sent while the list was read, and may be what the list shows
        pending.was_searched = True
        pending.candidates = tuple(job.id for job in found)
        proven = [job for job in found if _is_proven(job, pending)]
        if len(proven) == 1 and context.creates.own(proven[0].id):
            return proven[0]
        if len(proven) > 1:
            return None  # further searches would show no fewer
    return None


def _is_proven(job: LiveJob, pending: PendingCreate) -> bool:
    """Return whether a candidate is provably the result of a create."""
    if pending.proof == "mark":
        assert pending.deadline is not None
        return isinstance(job, Prediction) and carries(job, pending.deadline)
    return pending.proof == "input"  # all candidates have the input


async def list_pages(
    context: Context, call: Call, *, patience: float
) -> AsyncGenerator[tuple[Answer, list[Any]], None]:
    """Yield the pages of a list as JSON, up to an empty one: the answers, and their entries.

    Args:
        context: The client.
        call: Call for the first page.
        patience: Seconds for which a failed request is repeated.
    """
    next_page: Call | None = call
    while next_page is not None:
        page = next_page
        # Anything but a page is an error, and no empty list, which would mean that nothing was created.
        answer = await context.transport.send(attrs.evolve(page, is_page=True), patience=patience)
        entries = answer.data["results"]
        yield answer, entries
        next_page = context.next_call(page, answer.data.get("next")) if entries else None


def jobs_of(entries: Iterable[Any], job_type: type[J]) -> Iterator[J]:
    """Yield the entries of a list as objects, without those that are not readable."""
    for entry in entries:
        with suppress(ValueError):
            yield structure(entry, job_type)


async def _candidates(context: Context, pending: PendingCreate, job_type: type[J]) -> list[J]:
    """Return the jobs in the list that may be the result of a create, and that no other call owns."""
    match = pending.match
    assert match is not None
    found: list[J] = []
    since: datetime | None = None
    pages = 0
    call = Call("GET", match.list_path, Kind.POLL, urgent=True)
    patience = context.timings.search_patience
    async with aclosing(list_pages(context, call, patience=patience)) as listed:
        async for answer, entries in listed:
            pages += 1
            if since is None:
                # By the clock of the server, since that of this machine may be wrong.
                elapsed = timedelta(seconds=time.monotonic() - pending.began)
                since = (answer.server_time or datetime.now(UTC)) - elapsed - _CLOCK_ERROR
            recent = True
            for job in jobs_of(entries, job_type):
                recent = job.created_at is None or job.created_at >= since
                if (
                    recent
                    and job.created_at is not None
                    and job.input == pending.input
                    and match.matches(job)
                    and not context.creates.is_owned(job.id)
                ):
                    found.append(context.bind(job))
            if not recent or pages == _MAX_PAGES:
                break
    return found
