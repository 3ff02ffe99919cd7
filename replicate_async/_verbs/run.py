"""`run` and `stream`: check the arguments, and hand over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs

from .. import _arguments, exceptions
from .._files.disk import ready_directory
from .._jobs import running
from .._jobs.context import Context
from .._jobs.prediction import EventStream, Output
from .._jobs.request import CreateOptions, CreateRequest, CreateTarget, prepare
from .._jobs.running import OnAbandon
from .._references import parse_reference
from ..resources.deployments import Deployment
from ..resources.models import Model
from ..resources.versions import Version


async def run(
    context: Context,
    ref: str | Model | Version | Deployment,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: CreateOptions,
    on_abandon: OnAbandon,
    retry_failed: int,
    save_to: str | os.PathLike[str] | None = None,
) -> Output:
    """Run a model and return its output."""
    _arguments.timeout_seconds(timeout)
    _arguments.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    if isinstance(retry_failed, bool) or not isinstance(retry_failed, int) or retry_failed < 0:
        raise exceptions.ArgumentError("retry_failed", f"{retry_failed!r} is no number of times")
    target = target_of(ref)
    directory = None
    if save_to is not None:
        if options.use_file_output is False:
            raise exceptions.ArgumentError(
                "save_to", "without `use_file_output` there are no files"
            )
        options = attrs.evolve(options, use_file_output=True)
        directory = await ready_directory(save_to)  # before anything costs
    return await running.run(
        context,
        target,
        input,
        timeout=timeout,
        options=options,
        on_abandon=on_abandon,
        retry_failed=retry_failed,
        directory=directory,
    )


def stream(
    context: Context,
    ref: str | Model | Version | Deployment,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: CreateOptions,
    on_abandon: OnAbandon,
) -> EventStream:
    """Return the stream of a prediction that is created when its first event is requested."""
    seconds = _arguments.timeout_seconds(timeout)

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


def target_of(ref: object) -> CreateTarget | str:
    """Return what to run, or the `owner/name` of a model that may not be an official one."""
    match ref:
        case str():
            return CreateTarget.version(ref) if parse_reference(ref).version else ref
        case Deployment():
            return CreateTarget.deployment(ref.owner, ref.name)
        case Version():
            return CreateTarget.version(ref.id)
        case Model():
            return ref.full_name
    raise exceptions.ArgumentTypeError(
        "ref",
        f"expected 'owner/name', a version id, a Model, Version or Deployment, got {ref!r}",
    )
