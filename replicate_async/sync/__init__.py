"""The same client for code that is not asynchronous.

```python
from replicate_async import sync as replicate

output = replicate.run("owner/name", {"prompt": "a red square"})
```

The names are those of `replicate_async`, without `await`. Data and errors are the same classes in both;
what makes requests has a twin here, which runs the same coroutines on an event loop in a thread of its own.
The verbs and namespaces of this module are those of a default client, which is made at first use and
configured by the environment. Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import _HOMES, _OF_THE_DEFAULT_CLIENT
from .. import __version__ as __version__
from . import _forks as _forks  # for its hook

if TYPE_CHECKING:
    from .. import exceptions as exceptions
    from .. import types as types
    from ..exceptions import ModelError as ModelError
    from ..exceptions import ReplicateError as ReplicateError
    from ..exceptions import ReplicateException as ReplicateException
    from ..types import Account as Account
    from ..types import File as File
    from ..types import Hardware as Hardware
    from ..types import Limits as Limits
    from ..types import Progress as Progress
    from ..types import RateLimit as RateLimit
    from ..types import Retry as Retry
    from ..types import ServerSentEvent as ServerSentEvent
    from ..types import Stats as Stats
    from ..types import Timeout as Timeout
    from ..types import Update as Update
    from ._facade import (
        Accounts,
        Collections,
        Deployments,
        Files,
        HardwareNamespace,
        Models,
        Predictions,
        Trainings,
        Webhooks,
    )
    from ._facade import Client as Client
    from ._facade import Collection as Collection
    from ._facade import Deployment as Deployment
    from ._facade import EventStream as EventStream
    from ._facade import FileOutput as FileOutput
    from ._facade import Model as Model
    from ._facade import ModelFunction as ModelFunction
    from ._facade import Outcome as Outcome
    from ._facade import Outcomes as Outcomes
    from ._facade import OutputStream as OutputStream
    from ._facade import Page as Page
    from ._facade import Prediction as Prediction
    from ._facade import SearchResults as SearchResults
    from ._facade import StreamingFunction as StreamingFunction
    from ._facade import Training as Training
    from ._facade import Version as Version
    from ._loop import SyncInAsyncWarning as SyncInAsyncWarning
    from ._portal import Stream as Stream

    run = Client().run
    stream = Client().stream
    use = Client().use
    map = Client().map  # noqa: A001
    search = Client().search
    paginate = Client().paginate
    accounts: Accounts
    collections: Collections
    deployments: Deployments
    files: Files
    hardware: HardwareNamespace
    models: Models
    predictions: Predictions
    trainings: Trainings
    webhooks: Webhooks

__all__ = (
    "Account",
    "Client",
    "Collection",
    "Deployment",
    "EventStream",
    "File",
    "FileOutput",
    "Hardware",
    "Limits",
    "Model",
    "ModelError",
    "ModelFunction",
    "Outcome",
    "Outcomes",
    "OutputStream",
    "Page",
    "Prediction",
    "Progress",
    "RateLimit",
    "ReplicateError",
    "ReplicateException",
    "Retry",
    "SearchResults",
    "ServerSentEvent",
    "Stats",
    "Stream",
    "StreamingFunction",
    "SyncInAsyncWarning",
    "Timeout",
    "Training",
    "Update",
    "Version",
    "__version__",
    "accounts",
    "collections",
    "deployments",
    "exceptions",
    "files",
    "hardware",
    "map",
    "models",
    "paginate",
    "predictions",
    "run",
    "search",
    "stream",
    "trainings",
    "types",
    "use",
    "webhooks",
)

_SYNC_ONLY = {"Stream": "._portal", "SyncInAsyncWarning": "._loop"}

_default: Client | None = None


def default_client() -> Client:
    """Return the client of the module-level verbs and namespaces, configured by the environment."""
    global _default
    if _default is None:
        from ._facade import Client

        _default = Client()
    return _default


def __getattr__(name: str) -> Any:
    if name in _OF_THE_DEFAULT_CLIENT:
        return getattr(default_client(), name)
    if name in ("exceptions", "types"):
        return import_module(f"..{name}", __name__)
    if name.startswith("async_") and name[6:] in _OF_THE_DEFAULT_CLIENT:
        return getattr(default_client(), name)  # as in `replicate` 1.x
    if name in _SYNC_ONLY:
        home = _SYNC_ONLY[name]
    elif name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        home = f"..{_HOMES[name]}" if _HOMES[name] in ("exceptions", "types") else "._facade"
    found = globals()[name] = getattr(import_module(home, __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
