"""The shapes of `replicate` 1.0.7, for code that was written for it.

```python
import replicate_async.v1 as replicate

output = replicate.run("owner/name", input={"prompt": "a red square"})
```

Modules, classes, arguments, attributes and iterators are those of 1.0.7. What differs keeps money, results or the
token safe:

- A create is sent once. If it gets no answer, the prediction is looked for in the account's list, and adopted; else
  `AmbiguousCreateError` is raised. Requests wait for the rate limits instead of failing.
- A `run`, a stream, or an iterator that `run` has returned cancels its prediction if it is left before its end:
  by an exception, Ctrl-C, the cancellation of a task, or `break`.
- `run` fetches the schema of a version before it creates a prediction, so that a failure loses nothing. If the output is
  an iterator, `run` returns it when the output is complete; with `wait=False`, it yields items as they appear.
- A stream that breaks off is resumed. A model that cannot stream is polled; 1.x raises after the create.
- `run` and `stream` of a model that is not official take its latest version; 1.x raises a 404.
- Waits end when a prediction was aborted, and after 24 hours.
- Fields that are missing in a response are None.
- The token is sent to the API only, not with downloads of outputs. Without a token, nothing is sent; the error is that of 1.x, with
  status 401. The `repr` of a signing secret does not show it.
- `webhook_completed`, which the API has forgotten, is a `webhook` with the filter `completed`.

Neither httpx nor pydantic is used. Network errors are a `ReplicateException`. `RetryTransport`, `EventSource` and options of
httpx such as `transport` have no equivalent; objects have no `schema`, `from_orm` and `Config`.

Libraries that import `replicate` themselves get this package after `install()`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from . import client as client
from . import exceptions as exceptions
from .client import Client
from .pagination import async_paginate, paginate

__all__ = (
    "Client",
    "async_paginate",
    "async_run",
    "async_stream",
    "collections",
    "default_client",
    "deployments",
    "files",
    "hardware",
    "install",
    "models",
    "paginate",
    "predictions",
    "run",
    "stream",
    "trainings",
    "webhooks",
)

default_client: Client = Client()
"""The client of the functions and namespaces of this module."""

run: Final = default_client.run
async_run: Final = default_client.async_run
stream: Final = default_client.stream
async_stream: Final = default_client.async_stream

collections: Final = default_client.collections
deployments: Final = default_client.deployments
files: Final = default_client.files
hardware: Final = default_client.hardware
models: Final = default_client.models
predictions: Final = default_client.predictions
trainings: Final = default_client.trainings
webhooks: Final = default_client.webhooks


def install() -> None:
    """Let `import replicate` import this package, with all of its submodules.

    For libraries that import `replicate` themselves. Call it before they do: names that they have imported from
    the official client stay those of the official client.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "replicate"]:
        del sys.modules[name]
    sys.modules["replicate"] = sys.modules[__name__]
    for module in iter_modules(__path__):
        sys.modules[f"replicate.{module.name}"] = import_module(f"{__name__}.{module.name}")
