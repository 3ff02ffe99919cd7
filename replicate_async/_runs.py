"""The verbs: create, wait, and turn the end into an output or an error."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import attrs

from . import _policy, exceptions
from ._references import parse_reference
from ._transport import load_anyio
from .resources import _jobs
from .resources._base import Context
from .resources._creates import Creation, find
from .resources.predictions import (
    Options,
    Order,
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


@attrs.define(eq=False)
class _Run:
    """A run under way: what is known of it when it is given up."""

    context: Context
    on_abandon: Literal["cancel", "leave"]
    prediction: Prediction | None = None
    """The prediction, once its create was answered."""
    creation: Creation = attrs.field(factory=Creation)
    """Its create."""
    failed: list[Prediction] = attrs.field(factory=list[Prediction])
    """The predictions before it, which failed."""


async def run(
    context: Context,
    ref: str | Model | Version | Deployment,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: Options,
    on_abandon: Literal["cancel", "leave"],
    retry_failed: int,
) -> Output:
    """Create a prediction, wait for its end, and return its output."""
    seconds = None if timeout is None else _policy.timeout_seconds(timeout)
    if on_abandon != "cancel":
        _policy.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    if isinstance(retry_failed, bool) or not isinstance(retry_failed, int) or retry_failed < 0:
        raise exceptions.ArgumentError("retry_failed", f"{retry_failed!r} is no number of times")
    target = _target(ref)
    begun = _Run(context, on_abandon)
    if seconds is None:
        return await _result(begun, target, await prepare(context, input, options), retry_failed)
    if options.cancel_after is None and on_abandon == "cancel":
        # So that a process that is killed stops paying, too.
        options = attrs.evolve(options, cancel_after=max(5, math.ceil(seconds)))
    if options.wait is True:
        held = min(60, math.floor(seconds))
        options = attrs.evolve(options, wait=held if held >= 1 else False)
    await load_anyio()
    import anyio

    with anyio.move_on_after(seconds):
        return await _result(begun, target, await prepare(context, input, options), retry_failed)
    if begun.prediction is not None:
        canceled = begun.prediction.status in ("canceled", "aborted")
        raise exceptions.RunTimeout(begun.prediction, seconds, canceled=canceled)
    fact = (
        f"no answer to the create within {seconds:g} s, and the list does not show the prediction;"
        " if there is one, its deadline ends it"
        if begun.creation.lost
        else f"nothing was created within {seconds:g} s"
    )
    raise exceptions.TransportTimeout("POST", context.transport.config.base_url, fact)


async def _result(begun: _Run, target: Target | str, order: Order, retry_failed: int) -> Output:
    """Return the output; create again after failures that may pass, as often as was asked for."""
    while True:
        prediction = await _once(begun, target, order)
        error = _jobs.failure(prediction)
        if error is None:
            if begun.failed:
                _logger.info("prediction %s succeeded, %s", prediction.id, _costs(begun.failed))
            return prediction.output
        if not error.retryable or len(begun.failed) >= retry_failed:
            if begun.failed:
                error.add_note(f"This was the last try, {_costs(begun.failed)}.")
            raise error
        begun.failed.append(prediction)
        begun.context.stats.retried += 1
        _logger.warning("%s; it is created again", error)
        begun.prediction, begun.creation = None, Creation()


async def _once(begun: _Run, target: Target | str, order: Order) -> Prediction:
    """Create one prediction and wait for its end, whatever it is."""
    context = begun.context
    try:
        if isinstance(target, str):
            prediction = await create_with_model(context, target, order, begun.creation)
        else:
            prediction = await create(context, target, order, begun.creation)
        begun.prediction = prediction
        if not _jobs.is_over(prediction):
            # Sync mode may answer `processing` with all outputs in place (HTTP API, section 4.4):
            # look again at once, since it has mostly ended by then.
            at_once = prediction.status == "processing"
            await _jobs.wait(prediction, prediction._poll, None, at_once=at_once)
        return prediction
    except exceptions.ReplicateException as error:
        if begun.prediction is None or isinstance(error, exceptions.ModelError):
            raise
        _logger.warning("prediction %s lost: %s", begun.prediction.id, error)
        raise exceptions.ContactLost(begun.prediction, str(error)) from error
    except Exception:
        raise
    except BaseException:
        # Cancelled, or interrupted: the caller has given it up.
        await _abandon(begun)
        raise


async def _abandon(begun: _Run) -> None:
    """Cancel a prediction that nobody waits for any more, also if its id is not known yet."""
    prediction, creation = begun.prediction, begun.creation
    if prediction is None and not creation.lost:
        return  # nothing was created
    name = prediction.id if prediction else f"of {creation.wanted and creation.wanted.shown}"
    _logger.info("prediction %s abandoned", name)
    if begun.on_abandon == "leave" or (prediction is not None and _jobs.is_over(prediction)):
        return
    import anyio

    try:
        with anyio.fail_after(_policy.CANCEL_GRACE, shield=True):
            if prediction is None:
                prediction = await find(begun.context, creation, Prediction, _policy.LAST_LOOKS)
                begun.prediction = prediction
            if prediction is None:
                _logger.warning("prediction %s lost: the list does not show it", name)
            elif not _jobs.is_over(prediction):
                await prediction.cancel()
    except (exceptions.ReplicateException, TimeoutError) as error:
        _logger.warning("prediction %s lost: it could not be cancelled (%s)", name, error)


def _costs(failed: list[Prediction]) -> str:
    spent = sum(
        time
        for prediction in failed
        if isinstance(time := prediction.metrics.get("predict_time"), (int, float))
    )
    ids = ", ".join(prediction.id for prediction in failed)
    times = "once" if len(failed) == 1 else f"{len(failed)} times"
    return f"after it had failed {times} ({ids}) at a cost of {spent:.2f} predict seconds"


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
