"""The verbs: create, wait, and turn the end into an output or an error."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from . import _policy, exceptions
from ._references import parse_reference
from ._transport import load_anyio
from .resources import _jobs
from .resources._base import Context
from .resources.predictions import (
    Options,
    Output,
    Prediction,
    Target,
    create,
    create_with_model,
    prepare,
)

if TYPE_CHECKING:
    from .resources.deployments import Deployment
    from .resources.models import Model, Version

_logger = logging.getLogger("replicate_async")


async def run(
    context: Context,
    ref: str | Model | Version | Deployment,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: Options,
) -> Output:
    """Create a prediction, wait for its end, and return its output."""
    seconds = _policy.timeout_seconds(timeout)
    if seconds is None:
        prediction = await _start(context, ref, input, options)
        await _finish(prediction, None)
        return prediction.output
    if options.cancel_after is None:
        # So that a process that is killed stops paying, too.
        options = attrs.evolve(options, cancel_after=max(5, math.ceil(seconds)))
    await load_anyio()
    import anyio

    started = time.monotonic()
    begun: Prediction | None = None
    with anyio.move_on_after(seconds) as scope:
        # A wait that outlasts the timeout would leave the id unknown when it strikes.
        if options.wait is True:
            held = min(60, math.floor(seconds))
            options = attrs.evolve(options, wait=held if held >= 1 else False)
        begun = await _start(context, ref, input, options)
        await _finish(begun, None)
        return begun.output
    assert scope.cancelled_caught
    raise await _timed_out(context, begun, seconds, time.monotonic() - started)


async def _timed_out(
    context: Context, prediction: Prediction | None, seconds: float, elapsed: float
) -> exceptions.ReplicateException:
    import anyio

    if prediction is None:
        return exceptions.TransportTimeout(
            "POST",
            context.transport.config.base_url,
            f"no answer to the create within {elapsed:.1f} s; its deadline ends the prediction, if"
            " there is one",
        )
    with anyio.move_on_after(_policy.CANCEL_GRACE, shield=True):
        try:
            await prediction.cancel()
        except exceptions.ReplicateException as error:
            _logger.warning("prediction %s could not be cancelled: %s", prediction.id, error)
    return exceptions.RunTimeout(prediction, seconds, canceled=_jobs.is_over(prediction))


async def _finish(prediction: Prediction, timeout: float | None) -> None:
    if not _jobs.is_over(prediction):
        # Sync mode may answer `processing` with all outputs in place (HTTP API, section 4.4): look
        # again at once, since it has mostly ended by then.
        at_once = prediction.status == "processing"
        await _jobs.wait(prediction, prediction._poll, timeout, at_once=at_once)
    if (error := _jobs.failure(prediction)) is not None:
        raise error


async def _start(
    context: Context,
    ref: str | Model | Version | Deployment,
    input: Mapping[str, Any] | None,
    options: Options,
) -> Prediction:
    """Create the prediction that a reference asks for."""
    target = _target(ref)
    order = await prepare(context, input, options)
    if isinstance(target, str):
        return await create_with_model(context, target, order)
    return await create(context, target, order)


def _target(ref: object) -> Target | str:
    """Return what to run, or the `owner/name` of a model that may have to be looked up."""
    if isinstance(ref, str):
        return Target.version(ref) if parse_reference(ref).version else ref
    from .resources.deployments import Deployment
    from .resources.models import Model, Version

    match ref:
        case Deployment():
            return Target.deployment(ref.owner, ref.name)
        case Version():
            return Target.version(ref.id)
        case Model():
            return ref.full_name
    raise exceptions.ArgumentTypeError(
        "ref",
        f"expected 'owner/name', a version id, a Model, Version or Deployment, got {ref!r}",
    )
