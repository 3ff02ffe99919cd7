"""What predictions and trainings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, Self

from ._predictions import PredictionUrls, Progress, Status


class Job(Protocol):
    """A prediction or a training: something that runs at Replicate and is paid for."""

    @property
    def id(self) -> str:
        """Unique ID."""
        ...

    @property
    def status(self) -> Status:
        """Current status (:api:`status`)."""
        ...

    @property
    def model(self) -> str | None:
        """The model, `owner/name`."""
        ...

    @property
    def version(self) -> str | None:
        """The ID of the version."""
        ...

    @property
    def input(self) -> Mapping[str, Any]:
        """The input."""
        ...

    @property
    def output(self) -> Any:
        """The output so far; None if there is none."""
        ...

    @property
    def logs(self) -> str:
        """The logs so far."""
        ...

    @property
    def error(self) -> str | None:
        """The error text of a failure."""
        ...

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Measurements, such as `predict_time` in seconds."""
        ...

    @property
    def urls(self) -> PredictionUrls:
        """URLs of the API and of the web page."""
        ...

    @property
    def progress(self) -> Progress | None:
        """The progress that the logs report."""
        ...

    @property
    def created_at(self) -> datetime | None:
        """When it was created."""
        ...

    @property
    def started_at(self) -> datetime | None:
        """When it started."""
        ...

    @property
    def completed_at(self) -> datetime | None:
        """When it ended."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the JSON object that the API sent."""
        ...

    async def reload(self) -> Self:
        """Fetch the current state."""
        ...

    async def wait(self) -> Self:
        """Wait until it has ended."""
        ...

    async def cancel(self) -> Self:
        """Cancel it."""
        ...
