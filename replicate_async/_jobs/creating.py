"""Creating predictions and trainings: sent once, and found again where the answer is missing.

A create that was sent and got no answer may have happened. Then the account's list tells: what was created
since, of the same model and with the same input, and belongs to no other call of this client, is adopted.
Nothing is created a second time unless the caller has opted in.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import anyio

from .. import exceptions
from .._http.call import Call
from .._http.retry import Kind
from .._http.transport import Transport
from . import policy
from .context import Context
from .finding import find
from .job import LiveJob, log_end, name_of, poll
from .marks import marked_deadline
from .pending import ListMatch, PendingCreate
from .prediction import Prediction
from .request import CreateRequest, CreateTarget
from .versions import latest_version

J = TypeVar("J", bound=LiveJob)


_logger = logging.getLogger("replicate_async")


async def send_create(
    context: Context,
    call: Call,
    kind: type[J],
    wanted: ListMatch,
    input: Mapping[str, Any],
    pending: PendingCreate,
) -> J:
    """Send a create once, and return what it created.

    Args:
        context: The client.
        call: The create; its send state is `pending`.
        kind: What it creates.
        wanted: What it asks for.
        input: The input as it is sent.
        pending: Where to note how far it came.

    Raises:
        AmbiguousCreateError: There was no answer, and the list does not show it.
        ReplicateError: The API refuses; nothing was created.
        ConnectError: Nothing was sent.
    """
    pending.wanted = wanted
    pending.input = input
    transport, creates = context.transport, context.creates
    attempt = 1
    while True:
        pending.began = time.monotonic()
        creates.begin(pending)
        try:
            created: J = (await transport.send(call, kind)).data
        except (exceptions.TransportError, exceptions.ReplicateError) as error:
            creates.end(pending)
            if not pending.sent or not policy.is_ambiguous(error):
                raise
            pending.lost = True
            found = await _look_for(context, pending, kind, error)
            if found is not None:
                pending.lost = False
                return found
            began = datetime.now(UTC) - timedelta(seconds=time.monotonic() - pending.began)
            ambiguous = exceptions.AmbiguousCreateError(
                error.method, error.url, wanted.shown, str(error), began, pending.candidates
            )
            if context.on_ambiguous == "raise" or attempt >= transport.config.retry.attempts:
                raise ambiguous from error
            attempt += 1
            _logger.warning("%s; creating it again, as `on_ambiguous` asks for", ambiguous)
            context.stats.retried += 1
            pending.lost = False
        except BaseException:
            pending.lost = pending.sent
            raise
        else:
            created._bind(context)
            if not creates.own(created.id):
                _logger.warning("%s %s is another call's, too", name_of(kind), created.id)
            transport.pool.stats.created += 1
            if _logger.isEnabledFor(logging.INFO):
                _logger.info("%s %s of %s created", name_of(kind), created.id, wanted.shown)
            return created
        finally:
            creates.end(pending)


async def _look_for(
    context: Context, pending: PendingCreate, kind: type[J], error: exceptions.ReplicateException
) -> J | None:
    """Find what a create without an answer has created; None if the list does not show it."""
    assert pending.wanted is not None
    shown = pending.wanted.shown
    _logger.warning("the create of %s got no answer (%s); looking for it in the list", shown, error)
    patience = time.monotonic() + context.timings.rivals
    try:
        # Rivals may be on other event loops, so no event of anyio can tell.
        while (  # noqa: ASYNC110
            context.creates.has_rivals(pending) and time.monotonic() < patience
        ):
            await anyio.sleep(0.25)
        found = await find(context, pending, kind, context.timings.searches)
    except (exceptions.TransportError, exceptions.ReplicateError) as failure:
        _logger.warning("the list cannot be read: %s", failure)
        return None
    if found is None:
        return None
    context.stats.created += 1
    context.stats.adopted += 1
    pending.found = found
    _logger.warning("%s %s of %s adopted", name_of(kind), found.id, shown)
    try:
        # Lists may leave things out.
        await poll(found, context.timings.cancel)
    except (exceptions.TransportError, exceptions.ReplicateError) as failure:
        _logger.debug("the adopted one cannot be read now: %s", failure)
    return found


async def create(
    context: Context,
    target: CreateTarget | str,
    request: CreateRequest,
    pending: PendingCreate | None = None,
) -> Prediction:
    """Create a prediction.

    A name, `owner/name`, is run as an official model or, on a 404, with the model's latest version.

    Args:
        context: The client.
        target: What to run, or the name of a model.
        request: What is sent.
        pending: Where to note how far the create comes.

    Raises:
        AmbiguousCreateError: There was no answer, and the list does not show what it created.
        ReplicateError: The API refuses; nothing was created.
        ConnectError: Nothing was sent.
    """
    pending = pending or PendingCreate()
    if not pending.is_decided:
        mark(context, request, pending)
    if isinstance(target, CreateTarget):
        return await _create_on(context, target, request, pending)
    return await _create_by_name(context, target, request, pending)


async def _create_by_name(
    context: Context, name: str, request: CreateRequest, pending: PendingCreate
) -> Prediction:
    models, transport = context.models, context.transport
    async with models.probing(transport, name) as known:
        version = None if known is None else known.version
        if known is not None and known.is_stale:
            with suppress(exceptions.ReplicateError, exceptions.TransportError):
                version = await latest_version(transport, name) or version
            models.learn(transport, name, version)
        try:
            if version is not None:
                return await _create_on(context, _version_of(name, version), request, pending)
            made = await _create_on(context, CreateTarget.model(name), request, pending)
        except (exceptions.NotFoundError, exceptions.ValidationError) as error:
            # Not official, or a version that is gone: nothing was created, nothing was billed.
            if error.status == 422 and (version is None or "version" not in str(error)):
                raise
            latest = await _latest_or_raise(transport, name, error)
            if latest == version:
                raise
            models.learn(transport, name, latest)
        else:
            models.learn(transport, name, None)
            return made
    return await _create_on(context, _version_of(name, latest), request, pending)


def _version_of(name: str, version: str) -> CreateTarget:
    return CreateTarget.version(f"{name}:{version}")


async def _latest_or_raise(
    transport: Transport, name: str, refused: exceptions.ReplicateError
) -> str:
    """Look up the latest version of a model that could not be run, or raise what is wrong with the model."""
    title = "Nothing to run"
    detail = f"the model {name} exists, but it is not official and has no version"
    try:
        version = await latest_version(transport, name)
    except exceptions.NotFoundError:
        version, title = None, "No such model"
        detail = (
            f"there is no model {name}, or it is not visible to this account. (A deployment is run with"
            " predictions.create(deployment=...), or by passing the Deployment)"
        )
    if version is None:
        raise exceptions.NotFoundError(
            refused.method, refused.url, 404, title=title, detail=detail
        ) from refused
    return version


async def _create_on(
    context: Context, target: CreateTarget, request: CreateRequest, pending: PendingCreate
) -> Prediction:
    """Create a prediction on one of the three endpoints."""
    context = context.with_file_output(request.use_file_output)
    while True:
        headers = {**request.headers}
        if pending.deadline is not None:
            headers["Cancel-After"] = f"{pending.deadline}s"
        call = Call(
            "POST",
            target.path,
            Kind.CREATE,
            send_state=pending,
            rate_class="creates",
            json={**target.fields, **request.body},
            large=request.large,
            headers=headers,
            held=request.held,
            may_skip_hold=request.may_skip_hold,
        )
        try:
            prediction = await send_create(
                context, call, Prediction, target.wanted, request.input, pending
            )
        except (exceptions.BadRequestError, exceptions.ValidationError) as error:
            if pending.proof != "mark" or not _refuses_deadline(error):
                raise
            # Refused, so nothing was created: it is sent as it was meant.
            _logger.warning("%s; creates are not marked any more", error)
            context.marking.is_refused = True
            mark(context, request, pending)
        else:
            log_end(prediction)
            return prediction


def mark(context: Context, request: CreateRequest, pending: PendingCreate) -> None:
    """Choose the deadline of a create, with a mark if it may have one."""
    marked = None
    if context.marking.is_on and not context.marking.is_refused:
        marked = marked_deadline(request.cancel_after, is_net=request.is_net)
    pending.is_decided = True
    pending.deadline = request.cancel_after if marked is None else marked
    pending.proof = None if marked is None else "mark"


def _refuses_deadline(error: exceptions.ReplicateError) -> bool:
    """Tell whether the API has refused a create because of its deadline."""
    said = f"{error.title} {error.detail} {list(error.invalid_fields)}"
    return bool(_OF_DEADLINES.search(said[:10_000]))


_OF_DEADLINES: Final = re.compile(r"cancel.?after|deadline|lifetime", re.IGNORECASE)
