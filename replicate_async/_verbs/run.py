"""`run` and `stream`: check the arguments, and hand over to the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import attrs

from .. import _arguments, exceptions
from .._bars import RunBar
from .._files.disk import ready_directory
from .._jobs import running
from .._jobs.context import Context
from .._jobs.prediction import EventStream, Output
from .._jobs.request import CreateOptions, CreateRequest, CreateTarget, prepare
from .._jobs.run_state import OnAbandon, RunState
from .._references import parse_reference
from .._web.receiver import Receiver
from .._web.waiting import wait_for_delivery
from ..resources.deployments import Deployment
from ..resources.models import Model
from ..resources.versions import Version
from .schema import ModelSchema, read_schema

Ref: TypeAlias = str | Model | Version | Deployment
"""The forms in which users name what to run."""


async def run(
    context: Context,
    ref: Ref,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: CreateOptions,
    on_abandon: OnAbandon,
    retry_failed: int,
    start_timeout: float | timedelta | None = None,
    fallback: Sequence[str] = (),
    save_to: str | os.PathLike[str] | None = None,
    durable: bool = True,
    convert: Callable[[Any, str], Output] | None = None,
    via: Receiver | None = None,
    progress: bool = False,
) -> Output:
    """Run a model and return its output, as `Client.run`; *convert* as in `RunState`."""
    seconds = _arguments.timeout_seconds(timeout)
    _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    check_retries(retry_failed)
    _arguments.flag(durable, "durable")
    _arguments.flag(progress, "progress")
    state = RunState(
        context,
        target_of(ref),
        on_abandon,
        retry_failed=retry_failed,
        start_timeout=_arguments.timeout_seconds(start_timeout, "start_timeout"),
        fallback=fallbacks_of(fallback),
        durable=durable,
        convert=convert,
    )
    if save_to is not None:
        if options.use_file_output is False:
            raise exceptions.ArgumentError(
                "save_to", "without `use_file_output` there are no files"
            )
        options = attrs.evolve(options, use_file_output=True)
    options = with_schema_of(ref, options, has_fallback=bool(fallback))
    if save_to is not None:
        state.directory = await ready_directory(save_to)  # before anything costs
    if via is not None:
        options = _with_webhook(via, options)
        state.wait = partial(wait_for_delivery, via)
        await via._inbox.listen()
    if not progress:
        return await running.run(state, input, options, seconds)
    if options.wait is True:  # an answer that is held back would not show the states
        options = attrs.evolve(options, wait=False)
    state.shows_progress = True
    bar = RunBar(_label(ref), lambda: state.prediction)
    return await bar.during(partial(running.run, state, input, options, seconds))


def _label(ref: Ref) -> str:
    """Return the name of a model for a bar, with the beginning of its version."""
    name, colon, version = str(
        getattr(ref, "full_name", None) or getattr(ref, "id", ref)
    ).partition(":")
    return f"{name[:60]}{colon}{version[:7]}"


def _with_webhook(via: object, options: CreateOptions) -> CreateOptions:
    """Return options with which a webhook reports the end of the prediction, and its create is not held back.

    Raises:
        ArgumentError: The options have another webhook.
        ArgumentTypeError: There is no receiver.
    """
    if not isinstance(via, Receiver):
        raise exceptions.ArgumentTypeError(
            "via", f"expected what `webhooks.receiver()` returns, got {via!r}"
        )
    if options.webhook is not None or options.webhook_events_filter is not None:
        raise exceptions.ArgumentError(
            "via", "it sets `webhook` and `webhook_events_filter` itself: give one or the other"
        )
    return attrs.evolve(options, wait=False, webhook=via.url, webhook_events_filter=["completed"])


def stream(
    context: Context,
    ref: Ref,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: CreateOptions,
    on_abandon: OnAbandon,
) -> EventStream:
    """Return the stream of a prediction that is created when its first event is requested, as `Client.stream`."""
    seconds = _arguments.timeout_seconds(timeout)
    options = with_schema_of(ref, options)

    async def make_request() -> CreateRequest:
        return await prepare(context, input, running.with_deadline(options, seconds, on_abandon))

    return EventStream(
        running.follow(
            context,
            target_of(ref),
            make_request,
            timeout=seconds,
            on_abandon=on_abandon,
            use_file_output=options.use_file_output,
        )
    )


def plain_ref(ref: Ref) -> Ref:
    """Return a reference without white space around it, and without the site that its URL names."""
    return str(parse_reference(ref)) if isinstance(ref, str) else ref


def with_schema_of(
    ref: Ref, options: CreateOptions, *, has_fallback: bool = False
) -> CreateOptions:
    """Return options that follow from the schema of an object to run, if it has one.

    The inputs that the schema marks as secret are not shown. If it says that the output is text, URLs in it are no files;
    not with a fallback, since other models return other outputs.
    """
    schema = _schema_of(ref)
    if schema is None:
        return options
    files = options.use_file_output
    if files is not False and schema.makes_text and not has_fallback:
        files = False
    return attrs.evolve(options, secrets=schema.secrets, use_file_output=files)


def makes_text(ref: Ref) -> bool:
    """Return whether an object has a schema by which the output is text."""
    schema = _schema_of(ref)
    return schema is not None and schema.makes_text


def _schema_of(ref: Ref) -> ModelSchema | None:
    """Return the schema that an object has; None for names, and for objects without one."""
    version = ref.latest_version if isinstance(ref, Model) else ref
    if not isinstance(version, Version):
        return None
    return read_schema(version.openapi_schema, version.cog_version)


def check_retries(retry_failed: int) -> None:
    """Raise an ArgumentError if *retry_failed* is not a number of times."""
    if isinstance(retry_failed, bool) or not isinstance(retry_failed, int) or retry_failed < 0:
        raise exceptions.ArgumentError("retry_failed", f"{retry_failed!r} is not a number of times")


def fallbacks_of(fallback: Sequence[str]) -> tuple[CreateTarget | str, ...]:
    """Return what to run if a model is out of service.

    Raises:
        ArgumentTypeError: It is not a sequence of references.
        InvalidReference: One of the texts is not a reference.
    """
    if fallback == ():
        return ()
    if isinstance(fallback, str) or not isinstance(fallback, Sequence):
        raise exceptions.ArgumentTypeError(
            "fallback", f"expected a list of models such as ['owner/name'], got {fallback!r}"
        )
    return tuple(target_of(ref, "fallback") for ref in fallback)


def target_of(ref: object, argument: str = "ref") -> CreateTarget | str:
    """Return what to run, or the `owner/name` of a model that may not be an official one.

    Raises:
        ArgumentTypeError: It is none of the forms in which a model can be named.
        InvalidReference: The text is not a reference.
    """
    match ref:
        case str():
            reference = parse_reference(ref)
            return CreateTarget.version(str(reference)) if reference.version else str(reference)
        case Deployment():
            return CreateTarget.deployment(ref.owner, ref.name)
        case Version():
            return CreateTarget.version_id(ref.id)
        case Model():
            return ref.full_name
    raise exceptions.ArgumentTypeError(
        argument,
        f"expected 'owner/name', a version id, a Model, Version or Deployment, got {ref!r}",
    )
