"""The kinds of machines that models run on (:api:`hardware`)."""

from __future__ import annotations

import builtins

from .._http.call import Call
from ..types import Hardware
from ._base import Namespace
from ._pages import objects

__all__ = ("HardwareNamespace",)


class HardwareNamespace(Namespace):
    """The kinds of machines that models run on (:api:`hardware`)."""

    async def list(self) -> builtins.list[Hardware]:
        """List them all. Calls :api:`hardware.list`."""
        return await objects(self._context, Call("GET", "/hardware"), Hardware)
