"""Types of hardware that models can run on (:api:`hardware`)."""

from __future__ import annotations

import builtins

from .._http.call import Call
from ..types import Hardware
from ._base import Namespace
from ._pages import objects

__all__ = ("HardwareNamespace",)


class HardwareNamespace(Namespace):
    """Types of hardware that models can run on (:api:`hardware`)."""

    async def list(self) -> builtins.list[Hardware]:
        """List all types of hardware. Calls :api:`hardware.list`.

        Returns:
            All types of hardware.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return await objects(self._context, Call("GET", "/hardware"), Hardware)
