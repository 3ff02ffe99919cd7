"""Make forks wait until no other thread is importing this package or what it needs.

A child has only the thread that forked. If another thread was in the middle of an import, nothing releases
the lock of that module in the child, and importing it there never ends. This is in force from the first import
of `replicate_async.sync` on: all else is imported at first use, which may be in any thread.
"""

from __future__ import annotations

import contextlib
import importlib
import logging  # noqa: F401 - for its hook, as explained below
import os
import sys
from typing import Final

_PACKAGES: Final = frozenset(
    {
        "replicate_async",
        "aiofiles",
        "aiohttp",
        "anyio",
        "attr",
        "attrs",
        "cattrs",
        "encodings",  # for host names, at the first look-up
    }
)


def _await_imports() -> None:
    awaited: set[str] = set()
    # More may begin while one is awaited.
    while names := {name for name in list(sys.modules) if name not in awaited}:
        awaited |= names
        for name in names:
            if name.partition(".")[0] in _PACKAGES:
                # Returns at once, unless another thread is importing it. If that fails, so does this.
                with contextlib.suppress(Exception):
                    importlib.import_module(name)


# Before a fork, the hooks that were registered last are called first. That of logging acquires a lock which
# imports may need, so logging has to be imported, and its hook registered, before this.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_await_imports)
