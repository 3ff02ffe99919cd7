"""An asyncio-first client for Replicate's HTTP API.

```python
import replicate_async as replicate

output = await replicate.run("owner/name", {"prompt": "a red square"})
```

The verbs and namespaces of this module are those of a default client, which is made at first use and
configured by the environment. Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ._version import __version__

if TYPE_CHECKING:
    from . import exceptions as exceptions
    from . import sync as sync
    from . import types as types
    from ._files.output import FileOutput as FileOutput
    from ._jobs.prediction import EventStream as EventStream
    from ._jobs.prediction import OutputStream as OutputStream
    from ._jobs.prediction import Prediction as Prediction
    from ._jobs.training import Training as Training
    from ._verbs.map import Outcomes as Outcomes
    from ._verbs.outcome import Outcome as Outcome
    from ._verbs.start import Run as Run
    from ._verbs.use import ModelFunction as ModelFunction
    from ._verbs.use import StreamingFunction as StreamingFunction
    from ._web.backplane import Backplane as Backplane
    from ._web.backplane import LocalBackplane as LocalBackplane
    from ._web.connected import while_connected as while_connected
    from ._web.receiver import Receiver as Receiver
    from ._web.receiver import Reply as Reply
    from ._web.redis import RedisBackplane as RedisBackplane
    from ._web.sse import sse as sse
    from .client import Client as Client
    from .exceptions import (
        ModelError as ModelError,
    )
    from .exceptions import (
        ReplicateError as ReplicateError,
    )
    from .exceptions import (
        ReplicateException as ReplicateException,
    )
    from .resources._pages import Listing as Listing
    from .resources._pages import Page as Page
    from .resources.accounts import Accounts
    from .resources.collections import Collection as Collection
    from .resources.collections import Collections
    from .resources.deployments import Deployment as Deployment
    from .resources.deployments import Deployments
    from .resources.files import Files
    from .resources.hardware import HardwareNamespace
    from .resources.models import Model as Model
    from .resources.models import Models
    from .resources.predictions import Predictions
    from .resources.search import SearchResults as SearchResults
    from .resources.trainings import Trainings
    from .resources.versions import Version as Version
    from .resources.webhooks import Webhooks
    from .types import (
        Account as Account,
    )
    from .types import (
        File as File,
    )
    from .types import (
        Hardware as Hardware,
    )
    from .types import (
        Limits as Limits,
    )
    from .types import (
        Progress as Progress,
    )
    from .types import (
        RateLimit as RateLimit,
    )
    from .types import (
        Retry as Retry,
    )
    from .types import (
        ServerSentEvent as ServerSentEvent,
    )
    from .types import (
        Stats as Stats,
    )
    from .types import (
        Timeout as Timeout,
    )
    from .types import (
        Update as Update,
    )
    from .types import (
        to_json as to_json,
    )

    run: Final = Client().run
    start: Final = Client().start
    stream: Final = Client().stream
    use: Final = Client().use
    search: Final = Client().search
    map: Final = Client().map  # noqa: A001  (a verb of ours)
    output: Final = Client().output
    paginate: Final = Client().paginate
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
    "Backplane",
    "Client",
    "Collection",
    "Deployment",
    "EventStream",
    "File",
    "FileOutput",
    "Hardware",
    "Limits",
    "Listing",
    "LocalBackplane",
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
    "Receiver",
    "RedisBackplane",
    "ReplicateError",
    "ReplicateException",
    "Reply",
    "Retry",
    "Run",
    "SearchResults",
    "ServerSentEvent",
    "Stats",
    "StreamingFunction",
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
    "output",
    "paginate",
    "predictions",
    "run",
    "search",
    "sse",
    "start",
    "stream",
    "to_json",
    "trainings",
    "types",
    "use",
    "webhooks",
    "while_connected",
)

_HOMES = {
    "Account": "types",
    "Backplane": "_web.backplane",
    "Client": "client",
    "Collection": "resources.collections",
    "Deployment": "resources.deployments",
    "EventStream": "_jobs.prediction",
    "File": "types",
    "FileOutput": "_files.output",
    "Hardware": "types",
    "Limits": "types",
    "Listing": "resources._pages",
    "LocalBackplane": "_web.backplane",
    "Model": "resources.models",
    "ModelError": "exceptions",
    "ModelFunction": "_verbs.use",
    "OutputStream": "_jobs.prediction",
    "Outcome": "_verbs.outcome",
    "Outcomes": "_verbs.map",
    "Page": "resources._pages",
    "Prediction": "_jobs.prediction",
    "Progress": "types",
    "ReplicateError": "exceptions",
    "ReplicateException": "exceptions",
    "Reply": "_web.receiver",
    "RateLimit": "types",
    "Receiver": "_web.receiver",
    "RedisBackplane": "_web.redis",
    "Retry": "types",
    "Run": "_verbs.start",
    "SearchResults": "resources.search",
    "ServerSentEvent": "types",
    "StreamingFunction": "_verbs.use",
    "Stats": "types",
    "Timeout": "types",
    "Training": "_jobs.training",
    "Update": "types",
    "to_json": "types",
    "Version": "resources.versions",
    "sse": "_web.sse",
    "while_connected": "_web.connected",
}

_OF_THE_DEFAULT_CLIENT = frozenset(
    {
        "accounts",
        "collections",
        "deployments",
        "files",
        "hardware",
        "map",
        "models",
        "output",
        "paginate",
        "predictions",
        "run",
        "search",
        "start",
        "stream",
        "trainings",
        "use",
        "webhooks",
    }
)


def __getattr__(name: str) -> Any:
    if name in _OF_THE_DEFAULT_CLIENT:
        from .client import default_client  # it imports everything

        return getattr(default_client(), name)
    if name in ("exceptions", "sync", "types"):
        return import_module(f".{name}", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
