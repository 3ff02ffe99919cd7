"""Plain data that a run does not need, so that a start need not make its classes; part of `types`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from . import Record

__all__ = (
    "Account",
    "CollectionSummary",
    "DeploymentConfiguration",
    "DeploymentRelease",
    "DocumentationPage",
    "File",
    "FileUrls",
    "Hardware",
    "ModelMatchMetadata",
    "SearchCollection",
    "TrainingOutput",
)


# -- Account, hardware, collections, search ----------------------------------------------------


@attrs.define(eq=False)
class Account(Record):
    """A user or an organization (HTTP API, section 15)."""

    username: str
    """The name in URLs and model references."""
    type: str | None = None
    """`"user"` or `"organization"`."""
    name: str | None = None
    """The name for people."""
    github_url: str | None = None
    """Its page on GitHub."""
    avatar_url: str | None = None
    """Its picture."""


@attrs.define(eq=False)
class Hardware(Record):
    """A kind of machine that models run on (HTTP API, section 14)."""

    sku: str
    """What `hardware=` of models and deployments takes."""
    name: str | None = None
    """The name for people."""


@attrs.define(eq=False)
class CollectionSummary(Record):
    """A curated collection of models, without the models (HTTP API, section 12.1)."""

    slug: str
    """What `collections.get` takes."""
    name: str | None = None
    """The name for people."""
    description: str | None = None
    """What is in it."""


@attrs.define(eq=False)
class SearchCollection(Record):
    """A collection that matches a search (HTTP API, section 13)."""

    slug: str
    """What `collections.get` takes."""
    name: str | None = None
    """The name for people."""
    description: str | None = None
    """What is in it."""
    models: list[str] = attrs.field(factory=list[str])
    """The names of its models, `owner/name`."""


@attrs.define(eq=False)
class DocumentationPage(Record):
    """A page of the documentation that matches a search (HTTP API, section 13)."""

    href: str
    """Its path, such as `/docs/guides/...`."""
    name: str | None = None
    """Its title."""


@attrs.define
class ModelMatchMetadata:
    """Why a model matches a search (HTTP API, section 13)."""

    generated_description: str | None = None
    """A description made by a language model."""
    score: float | None = None
    """How well it matches; more is better."""
    tags: list[str] = attrs.field(factory=list[str])
    """What the model is for."""


# -- Files -------------------------------------------------------------------------------------


@attrs.define
class FileUrls:
    """Where an uploaded file can be reached."""

    get: str | None = None
    """The file's record; as an input of a model it stands for the content."""


@attrs.define(eq=False)
class File(Record):
    """An uploaded file (HTTP API, section 7.1)."""

    id: str
    """What identifies it."""
    name: str | None = None
    """The name that it was uploaded with."""
    content_type: str | None = None
    """Its media type."""
    size: int | None = None
    """Its size in bytes."""
    etag: str | None = None
    """A tag of the content."""
    checksums: dict[str, Any] = attrs.field(factory=dict[str, Any])
    """Hashes of the content, as hex digits: `sha256` and perhaps `md5`."""
    metadata: dict[str, Any] = attrs.field(factory=dict[str, Any])
    """What was given at the upload."""
    created_at: datetime | None = None
    """When it was uploaded."""
    expires_at: datetime | None = None
    """When it will be deleted."""
    urls: FileUrls = attrs.field(factory=FileUrls)
    """Where it can be reached."""


# -- Deployments and trainings -----------------------------------------------------------------


@attrs.define
class DeploymentConfiguration:
    """What a deployment runs on (HTTP API, section 10.1)."""

    hardware: str | None = None
    """The SKU of the machines."""
    min_instances: int | None = None
    """Instances that are always on, 0 to 5."""
    max_instances: int | None = None
    """Instances at most, 0 to 20."""


@attrs.define
class DeploymentRelease:
    """What a deployment runs at present (HTTP API, section 10.1)."""

    number: int | None = None
    """Counts the changes, from 1."""
    model: str | None = None
    """The model, `owner/name`."""
    version: str | None = None
    """The id of its version."""
    created_at: datetime | None = None
    """When the release was made."""
    created_by: Account | None = None
    """Who made it."""
    configuration: DeploymentConfiguration = attrs.field(factory=DeploymentConfiguration)
    """What it runs on."""


@attrs.define
class TrainingOutput:
    """What a training made (HTTP API, section 11.1)."""

    version: str | None = None
    """The new version, `owner/name:id`."""
    weights: str | None = None
    """Where the weights are."""
