"""The options of `map`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import attrs

from .. import _arguments, exceptions
from .._arguments import check_events, check_webhook
from .._jobs.pending import ListMatch
from .._jobs.request import CreateOptions, CreateTarget
from .._jobs.run_state import OnAbandon
from .._jobs.running import with_deadline
from .interface import ModelInterface
from .run import Ref, makes_text, target_of, with_schema_of
from .use import ModelFunction, StreamingFunction

CONCURRENCY: Final = 64
"""The default number of predictions in flight."""


RedoReason: TypeAlias = Literal["failed", "canceled", "timeout", "expired", "lost"]
"""Why a prediction of an earlier run has no output that is of use."""


@attrs.frozen
class Plan:
    """The checked options of `map`."""

    target: CreateTarget | str
    """What to run, or the name of a model that may not be an official one."""
    match: ListMatch
    """How to recognise its predictions in the list. The label stands for the target in the journal."""
    options: CreateOptions
    concurrency: int
    """Number of predictions in flight at a time."""
    ordered: bool
    """Whether the outcomes come in the order of the inputs."""
    save_to: Path | None
    """Directory for the outputs, if they are saved."""
    durable: bool
    """Whether files in it must survive a power cut."""
    journal: Path | None
    """File of the journal, if there is one."""
    timeout: float | None
    """Seconds that each prediction has; None for no limit."""
    retry_failed: int
    """How often to create a new prediction for an input after a transient failure."""
    redo: frozenset[RedoReason]
    """The predictions of earlier runs that are created again."""
    on_abandon: OnAbandon
    """What to do with the predictions in flight if the fan-out is abandoned."""
    cancels_late: bool
    """Whether a prediction is cancelled when its time is over. Not the same as `on_abandon`: by default, a fan-out with
    a journal cancels what is late, and leaves what is in flight to the next run."""
    ref: Ref
    """What was given to run."""
    interface: ModelInterface | None = None
    """The interface of a function, which checks inputs and converts outputs."""
    makes_text: bool = False
    """Whether the output is text, as the object that was given says."""

    @property
    def left_behind(self) -> str:
        """What becomes of the predictions that are in flight when the fan-out is abandoned, for messages."""
        if self.on_abandon == "cancel":
            return "The predictions in flight were cancelled"
        if self.journal is None:
            return "The predictions in flight may still be running"
        return f"The predictions in flight go on; map(..., journal={str(self.journal)!r}) collects them"


def make_plan(
    ref: Ref | ModelFunction | StreamingFunction,
    *,
    options: CreateOptions,
    concurrency: int | None,
    ordered: bool,
    save_to: str | os.PathLike[str] | None,
    durable: bool,
    journal: str | os.PathLike[str] | None,
    timeout: float | timedelta | None,
    retry_failed: int,
    redo: Iterable[RedoReason],
    on_abandon: OnAbandon | None,
) -> Plan:
    """Check the options of `map`.

    Raises:
        ArgumentError: An option has an invalid value.
    """
    interface: ModelInterface | None = None
    if isinstance(ref, StreamingFunction):
        raise exceptions.ArgumentTypeError("ref", "a streaming function has no final output to map")
    if isinstance(ref, ModelFunction):
        interface = ref._interface
        ref, defaults = interface.ref, interface.options
        options = _merged(options, defaults.create)
        timeout = defaults.timeout if timeout is None else timeout
        retry_failed = retry_failed or defaults.retry_failed
    else:
        options = with_schema_of(ref, options)
    target = target_of(ref)
    seconds = _arguments.timeout_seconds(timeout)
    if concurrency is None:
        concurrency = CONCURRENCY
    for name, number, least in (("concurrency", concurrency, 1), ("retry_failed", retry_failed, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise exceptions.ArgumentError(
                name, f"{number!r} is not a whole number of at least {least}"
            )
    check_webhook(options.webhook)
    check_events(options.webhook_events_filter)
    if options.cancel_after is not None:
        _arguments.cancel_after_seconds(options.cancel_after)
    _arguments.one_of(on_abandon or "cancel", ("cancel", "leave"), "on_abandon")
    options = with_deadline(options, seconds, on_abandon or "cancel")
    return Plan(
        target=target,
        match=ListMatch(target, model=target) if isinstance(target, str) else target.match,
        options=attrs.evolve(options, wait=None),
        concurrency=concurrency,
        ordered=_arguments.flag(ordered, "ordered"),
        save_to=_checked_path(save_to, "save_to"),
        durable=_arguments.flag(durable, "durable"),
        journal=_checked_path(journal, "journal"),
        timeout=seconds,
        retry_failed=retry_failed,
        redo=_checked_reasons(redo, journal),
        on_abandon=on_abandon or ("cancel" if journal is None else "leave"),
        cancels_late=on_abandon != "leave",
        ref=ref,
        interface=interface,
        makes_text=interface is None and makes_text(ref),
    )


def _merged(options: CreateOptions, defaults: CreateOptions) -> CreateOptions:
    """Return options, with the defaults for those that were not given."""
    names = [field.name for field in attrs.fields(CreateOptions)]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return attrs.evolve(defaults, **given)


def _checked_reasons(redo: Iterable[RedoReason], journal: object) -> frozenset[RedoReason]:
    if not isinstance(redo, Iterable):
        raise exceptions.ArgumentTypeError("redo", f"expected a set of reasons, got {redo!r}")
    reasons: frozenset[RedoReason] = frozenset() if isinstance(redo, str) else frozenset(redo)
    known = get_args(RedoReason)
    if isinstance(redo, str) or not reasons.issubset(known):
        raise exceptions.ArgumentError(
            "redo", f"expected a set of {', '.join(known)}, got {redo!r}"
        )
    if reasons and journal is None:
        raise exceptions.ArgumentError("redo", "only a journal knows of earlier runs: pass one")
    return reasons


def _checked_path(value: str | os.PathLike[str] | None, argument: str) -> Path | None:
    if value is None:
        return None
    try:
        return Path(value)
    except TypeError:
        raise exceptions.ArgumentTypeError(argument, f"expected a path, got {value!r}") from None
