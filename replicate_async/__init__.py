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
    from ._web.files import file_response as file_response
    from ._web.receiver import Receiver as Receiver
    from ._web.receiver import Reply as Reply
    from ._web.redis import RedisBackplane as RedisBackplane
    from ._web.sse import sse as sse
    from .client import Client as Client
    from .client import aclose as aclose
    from .exceptions import AmbiguousCreateError as AmbiguousCreateError
    from .exceptions import AnswerTooLarge as AnswerTooLarge
    from .exceptions import ArgumentError as ArgumentError
    from .exceptions import ArgumentTypeError as ArgumentTypeError
    from .exceptions import AuthenticationError as AuthenticationError
    from .exceptions import BadRequestError as BadRequestError
    from .exceptions import CertificateError as CertificateError
    from .exceptions import ClientClosed as ClientClosed
    from .exceptions import ConflictError as ConflictError
    from .exceptions import ConnectError as ConnectError
    from .exceptions import ConnectionLost as ConnectionLost
    from .exceptions import ContactLost as ContactLost
    from .exceptions import DirectoryNotWritable as DirectoryNotWritable
    from .exceptions import FileExpired as FileExpired
    from .exceptions import FileNotSaved as FileNotSaved
    from .exceptions import FileOutputError as FileOutputError
    from .exceptions import FileTooLarge as FileTooLarge
    from .exceptions import HostNotAllowed as HostNotAllowed
    from .exceptions import IncompleteFile as IncompleteFile
    from .exceptions import InvalidReference as InvalidReference
    from .exceptions import InvalidSignature as InvalidSignature
    from .exceptions import JournalError as JournalError
    from .exceptions import LoopClosed as LoopClosed
    from .exceptions import MissingDependency as MissingDependency
    from .exceptions import MissingToken as MissingToken
    from .exceptions import ModelError as ModelError
    from .exceptions import NotFoundError as NotFoundError
    from .exceptions import OutputNotSaved as OutputNotSaved
    from .exceptions import OutputRemoved as OutputRemoved
    from .exceptions import PayloadTooLargeError as PayloadTooLargeError
    from .exceptions import PaymentRequiredError as PaymentRequiredError
    from .exceptions import PermissionDeniedError as PermissionDeniedError
    from .exceptions import PredictionAborted as PredictionAborted
    from .exceptions import PredictionCanceled as PredictionCanceled
    from .exceptions import PredictionFailed as PredictionFailed
    from .exceptions import QueueFull as QueueFull
    from .exceptions import RateLimitError as RateLimitError
    from .exceptions import RefusedRedirect as RefusedRedirect
    from .exceptions import ReplicateError as ReplicateError
    from .exceptions import ReplicateException as ReplicateException
    from .exceptions import RequestDisconnected as RequestDisconnected
    from .exceptions import RunTimeout as RunTimeout
    from .exceptions import ServerError as ServerError
    from .exceptions import StartTimeout as StartTimeout
    from .exceptions import StreamAbandoned as StreamAbandoned
    from .exceptions import StreamError as StreamError
    from .exceptions import StreamInUse as StreamInUse
    from .exceptions import TransportError as TransportError
    from .exceptions import TransportTimeout as TransportTimeout
    from .exceptions import UnreadableAnswer as UnreadableAnswer
    from .exceptions import ValidationError as ValidationError
    from .exceptions import WouldDeadlock as WouldDeadlock
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
    "AmbiguousCreateError",
    "AnswerTooLarge",
    "ArgumentError",
    "ArgumentTypeError",
    "AuthenticationError",
    "Backplane",
    "BadRequestError",
    "CertificateError",
    "Client",
    "ClientClosed",
    "Collection",
    "ConflictError",
    "ConnectError",
    "ConnectionLost",
    "ContactLost",
    "Deployment",
    "DirectoryNotWritable",
    "EventStream",
    "File",
    "FileExpired",
    "FileNotSaved",
    "FileOutput",
    "FileOutputError",
    "FileTooLarge",
    "Hardware",
    "HostNotAllowed",
    "IncompleteFile",
    "InvalidReference",
    "InvalidSignature",
    "JournalError",
    "Limits",
    "Listing",
    "LocalBackplane",
    "LoopClosed",
    "MissingDependency",
    "MissingToken",
    "Model",
    "ModelError",
    "ModelFunction",
    "NotFoundError",
    "Outcome",
    "Outcomes",
    "OutputNotSaved",
    "OutputRemoved",
    "OutputStream",
    "Page",
    "PayloadTooLargeError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "Prediction",
    "PredictionAborted",
    "PredictionCanceled",
    "PredictionFailed",
    "Progress",
    "QueueFull",
    "RateLimit",
    "RateLimitError",
    "Receiver",
    "RedisBackplane",
    "RefusedRedirect",
    "ReplicateError",
    "ReplicateException",
    "Reply",
    "RequestDisconnected",
    "Retry",
    "Run",
    "RunTimeout",
    "SearchResults",
    "ServerError",
    "ServerSentEvent",
    "StartTimeout",
    "Stats",
    "StreamAbandoned",
    "StreamError",
    "StreamInUse",
    "StreamingFunction",
    "Timeout",
    "Training",
    "TransportError",
    "TransportTimeout",
    "UnreadableAnswer",
    "Update",
    "ValidationError",
    "Version",
    "WouldDeadlock",
    "__version__",
    "accounts",
    "aclose",
    "collections",
    "deployments",
    "exceptions",
    "file_response",
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
    "aclose": "client",
    "file_response": "_web.files",
    "sse": "_web.sse",
    "while_connected": "_web.connected",
    "AmbiguousCreateError": "exceptions",
    "AnswerTooLarge": "exceptions",
    "ArgumentError": "exceptions",
    "ArgumentTypeError": "exceptions",
    "AuthenticationError": "exceptions",
    "BadRequestError": "exceptions",
    "CertificateError": "exceptions",
    "ClientClosed": "exceptions",
    "ConflictError": "exceptions",
    "ConnectError": "exceptions",
    "ConnectionLost": "exceptions",
    "ContactLost": "exceptions",
    "DirectoryNotWritable": "exceptions",
    "FileExpired": "exceptions",
    "FileNotSaved": "exceptions",
    "FileOutputError": "exceptions",
    "FileTooLarge": "exceptions",
    "HostNotAllowed": "exceptions",
    "IncompleteFile": "exceptions",
    "InvalidReference": "exceptions",
    "InvalidSignature": "exceptions",
    "JournalError": "exceptions",
    "LoopClosed": "exceptions",
    "MissingDependency": "exceptions",
    "MissingToken": "exceptions",
    "NotFoundError": "exceptions",
    "OutputNotSaved": "exceptions",
    "OutputRemoved": "exceptions",
    "PayloadTooLargeError": "exceptions",
    "PaymentRequiredError": "exceptions",
    "PermissionDeniedError": "exceptions",
    "PredictionAborted": "exceptions",
    "PredictionCanceled": "exceptions",
    "PredictionFailed": "exceptions",
    "QueueFull": "exceptions",
    "RateLimitError": "exceptions",
    "RefusedRedirect": "exceptions",
    "RequestDisconnected": "exceptions",
    "RunTimeout": "exceptions",
    "ServerError": "exceptions",
    "StartTimeout": "exceptions",
    "StreamAbandoned": "exceptions",
    "StreamError": "exceptions",
    "StreamInUse": "exceptions",
    "TransportError": "exceptions",
    "TransportTimeout": "exceptions",
    "UnreadableAnswer": "exceptions",
    "ValidationError": "exceptions",
    "WouldDeadlock": "exceptions",
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
