"""The verbs: create, wait, and turn the end into an output or an error."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from . import _policy, exceptions
from ._concurrency import surely
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
    prepare,
)

if TYPE_CHECKING:
    from ._streams import EventStream, Feed
    from .resources.deployments import Deployment
    from .resources.models import Model, Version

_logger = logging.getLogger("replicate_async")


@attrs.define(eq=False, repr=False)
class Begun:
    """A run under way: what is known of it when it is given up."""

    context: Context
    on_abandon: Literal["cancel", "leave"]
    prediction: Prediction | None = None
    """The prediction, once its create was answered."""
    creation: Creation = attrs.field(factory=Creation)
    """Its create."""
    failed: tuple[Prediction, ...] = ()
    """The predictions before it, which failed."""
    directory: Path | None = None
    """Where the files of its output go."""


async def run(
    context: Context,
    ref: str | Model | Version | Deployment,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: Options,
    on_abandon: Literal["cancel", "leave"],
    retry_failed: int,
    save_to: str | os.PathLike[str] | None = None,
) -> Output:
    """Create a prediction, wait for its end, and return its output."""
    seconds = None if timeout is None else _policy.timeout_seconds(timeout)
    if on_abandon != "cancel":
        _policy.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    if isinstance(retry_failed, bool) or not isinstance(retry_failed, int) or retry_failed < 0:
        raise exceptions.ArgumentError("retry_failed", f"{retry_failed!r} is no number of times")
    target = target_of(ref)
    begun = Begun(context, on_abandon)
    if save_to is not None:
        options = _with_files(options)
        from ._files import ready_directory

        begun.directory = await ready_directory(save_to)  # before anything costs
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
    raise _late(begun, seconds)


def _late(begun: Begun, seconds: float) -> exceptions.ReplicateException:
    """Return the error for a run whose time is over."""
    if begun.prediction is not None:
        if begun.directory is not None and begun.prediction.status == "succeeded":
            return exceptions.OutputNotSaved(
                begun.prediction, f"the {seconds:g} s for the run were over"
            )
        canceled = begun.prediction.status in ("canceled", "aborted")
        return exceptions.RunTimeout(begun.prediction, seconds, canceled=canceled)
    fact = (
        f"no answer to the create within {seconds:g} s, and the list does not show the prediction;"
        " if there is one, its deadline ends it"
        if begun.creation.lost
        else f"nothing was created within {seconds:g} s"
    )
    return exceptions.TransportTimeout("POST", begun.context.transport.config.base_url, fact)


async def _result(begun: Begun, target: Target | str, order: Order, retry_failed: int) -> Output:
    """Return the output; create again after failures that may pass, as often as was asked for."""
    while True:
        prediction = await _once(begun, target, order)
        error = _jobs.failure(prediction)
        if error is None:
            if begun.failed:
                _logger.info("prediction %s succeeded, %s", prediction.id, _costs(begun.failed))
            if begun.directory is not None:
                await _save(prediction, begun.directory)
            return prediction.output
        if not error.retryable or len(begun.failed) >= retry_failed:
            if begun.failed:
                error.add_note(f"This was the last try, {_costs(begun.failed)}.")
            raise error
        begun.failed = (*begun.failed, prediction)
        begun.context.stats.retried += 1
        _logger.warning("%s; it is created again", error)
        begun.prediction, begun.creation = None, Creation()


def _with_files(options: Options) -> Options:
    """Return the options of a run whose files are to be saved."""
    if options.use_file_output is False:
        raise exceptions.ArgumentError("save_to", "without `use_file_output` there are no files")
    return attrs.evolve(options, use_file_output=True)


async def _save(prediction: Prediction, directory: Path) -> None:
    """Save the files of an output, as many as can be."""
    from ._files import save_all

    failures = await save_all(prediction.output, directory)
    if failures:
        _logger.warning("prediction %s: its files could not be saved", prediction.id)
        raise exceptions.OutputNotSaved(prediction, str(failures[0]), failures) from failures[0]


async def _once(begun: Begun, target: Target | str, order: Order) -> Prediction:
    """Create one prediction and wait for its end, whatever it is."""
    context = begun.context
    try:
        begun.prediction = prediction = await create(context, target, order, begun.creation)
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


async def _abandon(begun: Begun) -> None:
    """Cancel a prediction that nobody waits for any more, also if its id is not known yet."""
    creation = begun.creation
    if begun.prediction is None:
        begun.prediction = creation.found
    prediction = begun.prediction
    if prediction is None and not creation.lost:
        return  # nothing was created
    name = prediction.id if prediction else f"of {creation.wanted and creation.wanted.shown}"
    _logger.info("prediction %s abandoned", name)
    if begun.on_abandon == "leave" or (prediction is not None and _jobs.is_over(prediction)):
        return
    await surely(_cancel_abandoned(begun, name))


async def _cancel_abandoned(begun: Begun, name: str) -> None:
    """Find a prediction, if need be, and cancel it; within `CANCEL_GRACE`, whatever the network does."""
    await load_anyio()
    import anyio

    prediction = begun.prediction
    try:
        with anyio.fail_after(_policy.CANCEL_GRACE):
            for pause in () if prediction is not None else _policy.LAST_LOOKS:
                # No single answer that stalls may use up the time.
                with anyio.move_on_after(pause + _policy.LAST_TRY):
                    prediction = await find(
                        begun.context, begun.creation, Prediction, (pause,), running_first=True
                    )
                if prediction is not None:
                    begun.prediction = prediction
                    break
            if prediction is None:
                _logger.warning("prediction %s lost: the list does not show it", name)
            while prediction is not None and not _jobs.is_over(prediction):
                with anyio.move_on_after(_policy.LAST_TRY):
                    await prediction.cancel()
                    break
    except TimeoutError:
        _logger.warning("prediction %s lost: it could not be cancelled in time", name)
    except exceptions.ReplicateException as error:
        _logger.warning("prediction %s lost: it could not be cancelled (%s)", name, error)


# -- Streams, and what is only created ----------------------------------------------------------


async def start(begun: Begun, target: Target | str, order: Order) -> Prediction:
    """Create a prediction whose end somebody else awaits; given up before its answer, it is cancelled."""
    try:
        made = await create(begun.context, target, order, begun.creation)
    except Exception:
        raise
    except BaseException:
        await _abandon(begun)
        raise
    begun.prediction = made
    return made


def stream(
    context: Context,
    ref: str | Model | Version | Deployment,
    input: Mapping[str, Any] | None,
    *,
    timeout: float | timedelta | None,
    options: Options,
    on_abandon: Literal["cancel", "leave"],
) -> EventStream:
    """Return the stream of a prediction that is created when its first event is asked for."""
    from ._streams import EventStream

    async def order() -> Order:
        return await prepare(context, input, with_deadline(options, seconds, on_abandon))

    seconds = _policy.timeout_seconds(timeout)
    return EventStream(
        feed(
            context,
            target_of(ref),
            order,
            timeout=seconds,
            on_abandon=on_abandon,
            use_file_output=options.use_file_output,
        )
    )


def with_deadline(options: Options, seconds: float | None, on_abandon: str) -> Options:
    """Return options that tell the server, too, when the time is over."""
    _policy.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    if seconds is None or options.cancel_after is not None or on_abandon == "leave":
        return options
    return attrs.evolve(options, cancel_after=max(5, math.ceil(seconds)))


def feed(
    context: Context,
    target: Target | str,
    order: Callable[[], Awaitable[Order]],
    *,
    timeout: float | None,
    on_abandon: Literal["cancel", "leave"],
    use_file_output: bool | None,
) -> Feed:
    """Return the feed of a prediction that it creates, and cancels if it is given up."""
    from ._streams import Feed

    _policy.one_of(on_abandon, ("cancel", "leave"), "on_abandon")
    begun = Begun(context, on_abandon)

    async def create_it() -> Prediction:
        prepared = await order()
        return await start(begun, target, prepared)

    async def abandon() -> None:
        await _abandon(begun)

    def late(seconds: float) -> exceptions.ReplicateException:
        return _late(begun, seconds)

    files = context.use_file_output if use_file_output is None else use_file_output
    return Feed(
        context.transport,
        create=create_it,
        abandon=abandon,
        late=late,
        timeout=timeout,
        files=files,
    )


def _costs(failed: tuple[Prediction, ...]) -> str:
    spent = sum(
        time
        for prediction in failed
        if isinstance(time := prediction.metrics.get("predict_time"), (int, float))
    )
    ids = ", ".join(prediction.id for prediction in failed)
    times = "once" if len(failed) == 1 else f"{len(failed)} times"
    return f"after it had failed {times} ({ids}) at a cost of {spent:.2f} predict seconds"


def target_of(ref: object) -> Target | str:
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
