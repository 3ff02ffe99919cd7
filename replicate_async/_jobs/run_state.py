"""The state of a run: what was asked for, and what it takes at any moment to go on with it, or to abandon it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import attrs

from .. import _telemetry
from .._http.obstacles import Obstacles
from .._telemetry import RunSpan
from .context import Context
from .pending import PendingCreate
from .prediction import Output, Prediction
from .request import CreateTarget

OnAbandon: TypeAlias = Literal["cancel", "leave"]
"""What to do with the prediction of an abandoned run."""


@attrs.define(eq=False, repr=False)
class RunState:
    """A run: what was asked for, and how far it has come."""

    # What was asked for:
    context: Context
    target: CreateTarget | str
    """What to run, or the name of a model. A fallback takes its place."""
    on_abandon: OnAbandon
    retry_failed: int = 0
    """How often to create a new prediction after a transient failure."""
    fallback: tuple[CreateTarget | str, ...] = ()
    """What to run, one after the other, if a model is out of service; those that have not been tried."""
    start_timeout: float | None = None
    """Seconds after which a prediction that has not started is given up; None: never."""
    wait: Callable[[Prediction], Awaitable[None]] | None = None
    """Waits for the end of a prediction; None: it is polled."""
    convert: Callable[[Any, str], Output] | None = None
    """Makes the output of its JSON and the ID of the prediction; None: `Prediction.output`."""
    directory: Path | None = None
    """Existing directory to save the files of the output in."""
    durable: bool = True
    """Whether these files must survive a power cut."""
    shows_progress: bool = False
    """Whether bars show how far the run, and the download of its files, are."""
    # How far it has come:
    prediction: Prediction | None = None
    """The prediction, or None before the create was answered."""
    pending: PendingCreate = attrs.field(factory=PendingCreate)
    """The create of the prediction."""
    obstacles: Obstacles = attrs.field(factory=Obstacles)
    """What keeps its requests from being answered."""
    failed: tuple[Prediction, ...] = ()
    """Earlier predictions of this run, which failed."""
    failed_before: int = 0
    """Number of predictions of the same input that failed in an earlier run."""
    given_up: int = 0
    """Number of those in `failed` that belong to models which were given up for a fallback."""
    late: Prediction | None = None
    """The last prediction that was given up because it had not started."""
    span: RunSpan | None = None
    """The span of the run, if it has one."""
    abandoning: anyio.Lock | None = None
    """Held while the run is abandoned: by its own task, by one that closes the client, or by both. None before that."""
    is_abandoned: bool = False
    """Whether the run was abandoned, as far as possible."""

    @property
    def attempt(self) -> int:
        """Number of predictions of the current model and the same input that have failed."""
        return self.failed_before + len(self.failed) - self.given_up


def begin_span(state: RunState) -> None:
    """Begin the span of a run, if OpenTelemetry is installed."""
    if not _telemetry.is_installed:
        return
    target = state.target
    name = target if isinstance(target, str) else target.match.label
    state.span = RunSpan(name, state.context.transport.config.tags)


def end_span(state: RunState, error: BaseException | None = None) -> None:
    """End the span of a run, if it has one."""
    if state.span is not None:
        state.span.end(state.prediction, error)


def part_of(state: RunState, name: str) -> AbstractContextManager[None]:
    """Make a child span of a part of a run, if it has a span."""
    return nullcontext() if state.span is None else state.span.part(name)


def spanned(state: RunState) -> AbstractContextManager[None]:
    """Make the span of a run that is awaited as a whole, if OpenTelemetry is installed."""
    return _spanned(state) if _telemetry.is_installed else nullcontext()


@contextmanager
def _spanned(state: RunState) -> Iterator[None]:
    begin_span(state)
    try:
        yield
    except BaseException as error:
        end_span(state, error)
        raise
    end_span(state)
