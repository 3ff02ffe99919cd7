"""The kinds of machines that models run on (HTTP API, section 14)."""

from __future__ import annotations

import builtins

from .._transport import Call
from ..types import Hardware
from ._base import Namespace, objects

__all__ = ("HardwareNamespace",)


class HardwareNamespace(Namespace):
    """The kinds of machines that models run on (HTTP API, section 14)."""

    async def list(self) -> builtins.list[Hardware]:
        """List them all. Operation: hardware.list (HTTP API, section 14.1)."""
        return await objects(self._context, Call("GET", "/hardware"), Hardware)
