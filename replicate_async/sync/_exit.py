"""Prepare for the end of the interpreter, at the import of `replicate_async.sync`.

Exit handlers are called in the reverse order of their registration. Handlers that are registered after this import can
still use the facade, even if its first call comes later.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Final

try:
    # Imported here, because that is impossible once the main thread has ended.
    import concurrent.futures.thread as _thread  # noqa: F401
except RuntimeError as error:
    from ..exceptions import LoopClosed

    raise LoopClosed(
        "the main thread has ended; import `replicate_async.sync` before that, or let the main thread wait"
        f" for its threads ({error})"
    ) from error

handlers: Final[list[Callable[[], object]]] = []
"""The functions to call at the exit."""


def _call_handlers() -> None:
    for handler in handlers:
        handler()


atexit.register(_call_handlers)
