"""Plain data: the API's objects, and the options of a client.

Objects of the API keep the JSON that they are made of (`to_dict()`), including fields that this version of
the package does not know (`extra`). A field that is missing, `null` or of an unexpected type has its
default; only the fields that identify an object are required.
"""

from __future__ import annotations

from ._catalog import (
    Account,
    CollectionSummary,
    DeploymentConfiguration,
    DeploymentRelease,
    DocumentationPage,
    Hardware,
    ModelMatchMetadata,
    SearchCollection,
)
from ._files import File, FileStat, FileUrls
from ._jobs import Job
from ._options import FileEncodingStrategy, Limits, RateLimit, Retry, Timeout
from ._plain import to_json
from ._predictions import (
    ForwardedDelivery,
    PredictionUrls,
    Progress,
    ServerSentEvent,
    Status,
    TrainingOutput,
    Update,
    WebhookEvent,
)
from ._queues import QueueState, RateLimitState
from ._record import Record
from ._response import JSONObject, Response
from ._stats import Stats

__all__ = (
    "Account",
    "CollectionSummary",
    "DeploymentConfiguration",
    "DeploymentRelease",
    "DocumentationPage",
    "File",
    "FileEncodingStrategy",
    "FileStat",
    "FileUrls",
    "ForwardedDelivery",
    "Hardware",
    "JSONObject",
    "Job",
    "Limits",
    "ModelMatchMetadata",
    "PredictionUrls",
    "Progress",
    "QueueState",
    "RateLimit",
    "RateLimitState",
    "Record",
    "Response",
    "Retry",
    "SearchCollection",
    "ServerSentEvent",
    "Stats",
    "Status",
    "Timeout",
    "TrainingOutput",
    "Update",
    "WebhookEvent",
    "to_json",
)
