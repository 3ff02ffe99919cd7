"""Creates predictions and trainings. Each create is sent once.

A create whose answer is missing may have succeeded on the server. Then the account's list is searched, and a job
that is provably the result of this create is adopted. Nothing is created a second time unless the caller has opted
in.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import nullcontext, suppress
from typing import Final, TypeVar

import anyio

from .. import exceptions
from .._http.call import Call, redacted
from .._http.obstacles import note_failure
from .._http.retry import Kind
from .._http.transport import Transport
from .._telemetry import count_create
from . import policy
from .context import Context
from .finding import find
from .hints import with_hint
from .job import LiveJob, log_end, name_of, poll
from .marks import carries, marked_deadline
from .pending import PendingCreate
from .prediction import Prediction
from .request import CreateRequest, CreateTarget
from .versions import KnownModel, ModelKey, key_of, latest_version

J = TypeVar("J", bound=LiveJob)

_logger = logging.getLogger("replicate_async")

_ABOUT_DEADLINES: Final = re.compile(
    r"cancel.?after|deadline|lifetime|\bheader|duration|time.?out|\b(?:hours?|days?)\b|\b24 ?h\b",
    re.IGNORECASE,
)
"""Words in the error of a create whose deadline the API refuses. How it says so is not known (:api:`deadline`)."""


async def send_create(context: Context, call: Call, job_type: type[J], pending: PendingCreate) -> J:
    """Send a create, and return what it created, even if its answer is missing.

    Args:
        context: The client.
        call: The create, whose send state is `pending`.
        job_type: Class of what it creates.
        pending: The create, with all that recognises its result.

    Raises:
        AmbiguousCreateError: There was no answer, and the list does not show what was created.
        ReplicateError: The API refused; nothing was created.
        ConnectError: Nothing was sent.
    """
    attempt = 1
    while True:
        try:
            return await _send_once(context, call, job_type, pending)
        except (exceptions.TransportError, exceptions.ReplicateError) as error:
            if not pending.lost:
                raise
            note_failure(error)
            _logger.warning(
                "create of %s: no response (%s); searching the list",
                pending.label,
                error,
                extra=context.log_extra(),
            )
            found = await _adopt_lost(context, pending, job_type)
            if found is not None:
                pending.lost = False
                note_failure(None)
                return found
            ambiguous = pending.ambiguous(error.url, str(error))
            if (
                context.on_ambiguous == "raise"
                or attempt >= context.transport.config.retry.attempts
            ):
                raise ambiguous from error
            attempt += 1
            _logger.warning('%s; creating it again, since `on_ambiguous` is "repeat"', ambiguous)
            context.count(retried=1)


async def _send_once(context: Context, call: Call, job_type: type[J], pending: PendingCreate) -> J:
    """Send a create, and return what it created according to the answer. If this raises, `pending.lost` is set."""
    creates = context.creates
    pending.began = time.monotonic()
    pending.lost = False
    creates.begin(pending)
    try:
        created = await context.fetch(job_type, call)
        if reason := _claim(context, created, pending):
            # The answer to another request, which a server or a proxy has mixed up with this one.
            (await context.transport.pool.session()).distrust()
            raise _no_answer(context, call, f"the response is about {created.id[:100]!r}, {reason}")
    except BaseException as error:
        pending.lost = pending.sent and policy.may_have_created(error)
        is_known = isinstance(error, exceptions.ReplicateException)
        if is_known or not pending.lost or not isinstance(error, Exception):
            raise
        # Unexpected, such as an error of a trace config: the list is searched as after a lost connection.
        raise _no_answer(context, call, repr(error)[:500]) from error
    else:
        note_failure(None)  # whatever failed before it does not matter any more
        context.count(created=1)
        label = pending.label
        count_create(label, context.transport.config.tags)
        if _logger.isEnabledFor(logging.INFO):
            extra = context.log_extra(created)
            _logger.info("%s %s of %s created", name_of(job_type), created.id, label, extra=extra)
        return created
    finally:
        creates.end(pending)


def _no_answer(context: Context, call: Call, fact: str) -> exceptions.ConnectionLost:
    """Return the exception for a create that was sent, and got no answer of use."""
    url = redacted(context.transport.routes.url_of(call))
    return exceptions.ConnectionLost(call.method, url, fact)


def _claim(context: Context, created: LiveJob, pending: PendingCreate) -> str | None:
    """Claim the job in the answer to a create; return why not, if it is the result of another one."""
    if not context.creates.own(created.id):
        if not _may_be_stub(created, pending):
            return "which another call has created"
        _logger.warning("%s %s belongs to another call, too", name_of(type(created)), created.id)
    elif _is_mismatch(created, pending):
        context.creates.disown(created.id)
        return "which has neither the input nor the deadline of this create"
    return None


def _is_mismatch(created: LiveJob, pending: PendingCreate) -> bool:
    """Return whether a job has neither the input nor the mark of a create, so that it is the result of another one."""
    if pending.proof != "mark" or not isinstance(created, Prediction) or created.deadline is None:
        return False
    assert pending.deadline is not None
    return created.input != pending.input and not carries(created, pending.deadline)


def _may_be_stub(created: LiveJob, pending: PendingCreate) -> bool:
    """Return whether an answer may be that of a test stub, which answers each create with the same job.

    The API shows the deadline of a marked prediction; a stub does not.
    """
    is_marked = isinstance(created, Prediction) and created.deadline is not None
    return pending.proof == "mark" and not is_marked and created.input == pending.input


async def _adopt_lost(context: Context, pending: PendingCreate, job_type: type[J]) -> J | None:
    """Return what a create without an answer has created; None if the list does not show it."""
    limit = time.monotonic() + context.timings.rivals
    try:
        # The rivals may be on other event loops, which an anyio event cannot cross.
        while context.creates.has_rivals(pending) and time.monotonic() < limit:  # noqa: ASYNC110  (see above)
            await anyio.sleep(0.25)
        found = await find(context, pending, job_type, context.timings.searches)
    except Exception as error:  # noqa: BLE001  (also an unexpected one: the caller says what is lost)
        _logger.warning("the list cannot be read: %s", error)
        return None
    if found is None:
        return None
    context.count(created=1, adopted=1)
    pending.found = found
    name = name_of(job_type)
    extra = context.log_extra(found)
    _logger.warning("%s %s of %s adopted", name, found.id, pending.label, extra=extra)
    try:
        # An entry of a list may be incomplete.
        await poll(found, context.timings.cancel)
    except (exceptions.TransportError, exceptions.ReplicateError) as error:
        _logger.debug("%s %s cannot be read now: %s", name, found.id, error)
    return found


async def create(
    context: Context,
    target: CreateTarget | str,
    request: CreateRequest,
    pending: PendingCreate,
) -> Prediction:
    """Create a prediction.

    A name, `owner/name`, is run as an official model or, if it is none, with the latest version of the model.

    Args:
        context: The client.
        target: What to run, or the name of a model.
        request: The request.
        pending: Records how far the create has come.

    Raises:
        AmbiguousCreateError: There was no answer, and the list does not show what was created.
        ReplicateError: The API refused; nothing was created.
        ConnectError: Nothing was sent.
    """
    choose_deadline(context, request, pending)
    try:
        if isinstance(target, CreateTarget):
            return await _create_on(context, target, request, pending)
        return await _create_by_name(context, target, request, pending)
    except exceptions.ValidationError as error:
        visible = {
            name: value
            for name, value in request.input.items()
            if name not in (request.secrets or ())
        }
        raise await with_hint(error, visible) from error.__cause__


async def _create_by_name(
    context: Context, name: str, request: CreateRequest, pending: PendingCreate
) -> Prediction:
    """Create a prediction of an official model or, if it is none, of the latest version of the model."""
    models, transport = context.models, context.transport
    key = key_of(transport, name)
    known = models.get(key)
    if known is None:
        pending.awaits_first_run = True
        known = await models.found_by_another(key)
        pending.awaits_first_run = False
    version = None if known is None else known.version
    patience = context.timings.first_run
    with nullcontext() if known else models.finding_out(key, patience):
        if known is not None and known.is_stale:
            version = await _refreshed(context, key, known)
        try:
            if version is not None:
                return await _create_on(context, _version_of(name, version), request, pending)
            # While other calls wait for this answer, the server must not hold it back.
            may_hold = known is not None or not request.held or await models.may_hold(key)
            target = CreateTarget.model(name)
            prediction = await _create_on(context, target, request, pending, may_hold=may_hold)
        except (exceptions.NotFoundError, exceptions.ValidationError) as error:
            # Not an official model, or a version that was deleted: nothing was created, nothing is billed.
            if error.status == 422 and (version is None or "version" not in str(error)):
                raise
            latest = await _latest_or_raise(transport, name, error)
            if latest == version:
                raise
            models.learn(key, latest)
        else:
            if known is None:
                models.learn(key, None)
            return prediction
    # Outside the context: other calls know the version by now, and need not wait for this create.
    return await _create_on(context, _version_of(name, latest), request, pending)


async def _refreshed(context: Context, key: ModelKey, known: KnownModel) -> str | None:
    """Look up the latest version of a model again; return the known one if that fails."""
    version = known.version
    with suppress(exceptions.ReplicateError, exceptions.TransportError):
        version = await latest_version(context.transport, key.name) or version
    context.models.learn(key, version)
    return version


def _version_of(name: str, version: str) -> CreateTarget:
    return CreateTarget.version(f"{name}:{version}")


async def _latest_or_raise(
    transport: Transport, name: str, refused: exceptions.ReplicateError
) -> str:
    """Return the latest version of a model that could not be run as it was known.

    Raises:
        NotFoundError: There is no such model, or it has no version.
    """
    title = "Nothing to run"
    detail = f"the model {name} exists, but it is not official and has no version"
    try:
        version = await latest_version(transport, name)
    except exceptions.NotFoundError:
        version, title = None, "No such model"
        detail = (
            f"there is no model {name}, or it is not visible to this account (to run a deployment,"
            " use predictions.create(deployment=...), or pass a Deployment)"
        )
    if version is None:
        # A 404 of the endpoint for official models says nothing more than this one.
        raise exceptions.NotFoundError(
            refused.method, refused.url, 404, title=title, detail=detail
        ) from (None if refused.status == 404 else refused)
    return version


async def _create_on(
    context: Context,
    target: CreateTarget,
    request: CreateRequest,
    pending: PendingCreate,
    *,
    may_hold: bool = True,
) -> Prediction:
    """Create a prediction on one of the three endpoints; the server may hold its answer, if the request says so."""
    context = context.with_file_output(request.use_file_output).with_secrets(request.secrets)
    pending.match, pending.input = target.match, request.input
    refused: exceptions.ReplicateError | None = None
    while True:
        headers = {**request.headers}
        if not may_hold:
            headers.pop("Prefer", None)
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
            held=request.held if may_hold else 0.0,
            may_skip_hold=True,
        )
        try:
            prediction = await send_create(context, call, Prediction, pending)
        except (exceptions.BadRequestError, exceptions.ValidationError) as error:
            if pending.proof != "mark" or not _is_about_deadline(error):
                raise
            # The API seems to refuse the marked deadline; in any case, nothing was created.
            refused = error
            pending.deadline, pending.proof = request.cancel_after, None
        else:
            if refused is not None and context.marking.is_on:
                _logger.warning("%s; creates are not marked any more", refused)
                context.marking.is_on = False
            log_end(prediction)
            return prediction


def choose_deadline(context: Context, request: CreateRequest, pending: PendingCreate) -> None:
    """Choose the deadline of a create, with a mark if possible, unless that was done."""
    if pending.is_deadline_chosen:
        return
    marked = None
    if context.marking.is_on:
        marked = marked_deadline(request.cancel_after, is_backup=request.is_backup)
    pending.is_deadline_chosen = True
    pending.deadline = request.cancel_after if marked is None else marked
    pending.proof = None if marked is None else "mark"


def _is_about_deadline(error: exceptions.ReplicateError) -> bool:
    """Return whether the API seems to have refused a create because of its deadline, and not of its input."""
    fields = [str(invalid.get("field", "")).partition(".")[0] for invalid in error.invalid_fields]
    if fields and all(field == "input" for field in fields):
        return False
    text = f"{error.title} {error.detail} {list(error.invalid_fields)}"
    return bool(_ABOUT_DEADLINES.search(text[:10_000]))
