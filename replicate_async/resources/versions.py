"""Versions of models (:api:`versions`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from .._display import card, input_html
from .._http.call import Call
from .._jobs.context import Bound
from .._jobs.prediction import Output
from .._jobs.request import CreateOptions, CreateTarget
from .._jobs.run_state import RunState
from .._jobs.running import run
from .._references import identifier, parse_version
from ._base import ModelNamespace
from ._own_predictions import OwnPredictions
from ._pages import Listing, pages

__all__ = ("OwnVersions", "Version")


@attrs.define(eq=False)
class Version(Bound):
    """A version of a model (:api:`version-object`)."""

    id: str
    """Unique ID of the version; usually 64 hexadecimal digits."""
    created_at: datetime | None = None
    """Time at which the version was pushed."""
    cog_version: str | None = None
    """Version of Cog that built this version."""
    openapi_schema: dict[str, Any] = attrs.field(factory=dict, repr=False)
    """OpenAPI document that describes input and output of the version (:api:`version-schema`)."""

    def _repr_html_(self) -> str:
        """Return what a notebook displays: a table of what is known, with the inputs of the model."""
        return card(
            f"Version {self.id}",
            [
                ("created", self.created_at),
                ("cog version", self.cog_version),
                ("inputs", input_html(_inputs_of(self.openapi_schema))),
            ],
        )

    @property
    def predictions(self) -> OwnPredictions:
        """Predictions with this version."""
        return OwnPredictions(self._context, CreateTarget.version_id(self.id))

    async def predict(self, /, **inputs: Any) -> Output:
        """Run the version and return its output, as `Client.run` does.

        `Client.use` returns a function that also checks the inputs. Calls :api:`predictions.create` and
        :api:`predictions.get`.

        Args:
            **inputs: Input of the model, by name.

        Returns:
            The output of the prediction.

        Raises:
            ReplicateException: The same errors as `Client.run`.
        """
        state = RunState(self._context, CreateTarget.version_id(self.id), "cancel")
        return await run(state, inputs, CreateOptions(wait=True))


class OwnVersions(ModelNamespace):
    """Versions of one model (:api:`versions`)."""

    async def get(self, id: str) -> Version:
        """Fetch a version. Calls :api:`models.versions.get`.

        Args:
            id: ID of the version.

        Returns:
            The version.

        Raises:
            NotFoundError: The version does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        call = Call("GET", f"{self._path}/versions/{_version_id(id)}", id=_version_id(id))
        return await self._context.fetch(Version, call)

    def list(self) -> Listing[Version]:
        """List the versions, newest first. Calls :api:`models.versions.list`.

        Returns:
            Versions, in pages.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return pages(self._context, Call("GET", f"{self._path}/versions"), Version)

    async def delete(self, id: str) -> None:
        """Delete a version and all of its predictions. Calls :api:`models.versions.delete`.

        Args:
            id: ID of the version.

        Raises:
            NotFoundError: The version does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the version may have been deleted.
        """
        await self._context.command("DELETE", f"{self._path}/versions/{_version_id(id)}")


def _inputs_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the inputs in an OpenAPI document, with their types and descriptions; those that can be read."""
    found: Any = document
    for key in ("components", "schemas", "Input", "properties"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name): ": ".join(
            text for key in ("type", "description") if isinstance(text := field.get(key), str)
        )
        for name, field in found.items()
        if isinstance(field, Mapping)
    }


def _version_id(id: str) -> str:
    """Return the ID of a version, given as `id` or `owner/name:id`, for a path."""
    return identifier(str(parse_version(id, "id").version), "id")
