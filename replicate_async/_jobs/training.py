"""Trainings (:api:`training-object`)."""

from __future__ import annotations

from typing import ClassVar

import attrs

from .._codec import structure_part
from ..types import TrainingOutput
from .job import LiveJob


@attrs.define(eq=False, repr=False)
class Training(LiveJob):
    """One run that trains a new version of a model (:api:`training-object`).

    `reload()`, `wait()` and `cancel()` update the object in place.
    """

    _path: ClassVar[str] = "/trainings"

    @property
    def output(self) -> TrainingOutput | None:
        """New version and its weights, or `None` before the end."""
        raw = self._raw.get("output")
        return None if raw is None else structure_part(raw, TrainingOutput)
