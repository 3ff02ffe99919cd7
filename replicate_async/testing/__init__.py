"""A local emulator of Replicate's API, for tests, demos and work without a network.

Names are imported when they are used: the pytest plugin makes every test run import this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._authoring import AsyncConcatenateIterator, ConcatenateIterator, Input, OutputFile, log
    from ._clock import Clock
    from ._emulator import TOKEN, WEBHOOK_SECRET, Emulator
    from ._faults import Fault, Injected, Injection, Reply, WireRequest
    from ._ledger import Ledger, Life, Request
    from ._limits import RateLimits
    from ._server import Middleware
    from ._webhooks import Delivery
    from ._wire import Wire

__all__ = (
    "TOKEN",
    "WEBHOOK_SECRET",
    "AsyncConcatenateIterator",
    "Clock",
    "ConcatenateIterator",
    "Delivery",
    "Emulator",
    "Fault",
    "Injected",
    "Injection",
    "Input",
    "Ledger",
    "Life",
    "Middleware",
    "OutputFile",
    "RateLimits",
    "Reply",
    "Request",
    "Wire",
    "WireRequest",
    "log",
)

_HOMES = {
    "_authoring": ("AsyncConcatenateIterator", "ConcatenateIterator", "Input", "OutputFile", "log"),
    "_clock": ("Clock",),
    "_emulator": ("TOKEN", "WEBHOOK_SECRET", "Emulator"),
    "_faults": ("Fault", "Injected", "Injection", "Reply", "WireRequest"),
    "_ledger": ("Ledger", "Life", "Request"),
    "_limits": ("RateLimits",),
    "_server": ("Middleware",),
    "_webhooks": ("Delivery",),
    "_wire": ("Wire",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
