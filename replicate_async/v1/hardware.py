"""Hardware that models run on."""

from __future__ import annotations

import builtins
import warnings

import attrs

from ._objects import Namespace, Resource, received

__all__ = ("Hardware", "HardwareNamespace")


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Hardware(Resource):
    """A type of hardware."""

    sku: str
    """Unique ID."""
    name: str
    """Display name."""

    @property
    def id(self) -> str:
        """Deprecated: use `sku`."""
        warnings.warn("Use `sku` instead of `id`", DeprecationWarning, stacklevel=2)
        return self.sku


class HardwareNamespace(Namespace):
    """Hardware that models run on."""

    def list(self) -> builtins.list[Hardware]:
        """List the types of hardware. Calls :api:`hardware.list`."""
        found = self._client.call(lambda api: api.hardware.list())
        return [received(Hardware, item) for item in found]

    async def async_list(self) -> builtins.list[Hardware]:
        """List the types of hardware. Calls :api:`hardware.list`."""
        found = await self._client.async_call(lambda api: api.hardware.list())
        return [received(Hardware, item) for item in found]
