"""Trainings (:api:`training-object`)."""

from __future__ import annotations

from typing import ClassVar

import attrs

from .._codec import structure_part
from ..types import TrainingOutput
from .job import LiveJob


@attrs.define(eq=False)
class Training(LiveJob):
    """A run that makes a new version of a model (:api:`training-object`).

    `reload()`, `wait()` and `cancel()` write what they learn into the object itself.
    """

    _path: ClassVar[str] = "/trainings"

    @property
    def output(self) -> TrainingOutput | None:
        """The new version and its weights; None before the end."""
        raw = self._raw.get("output")
        return None if raw is None else structure_part(raw, TrainingOutput)
