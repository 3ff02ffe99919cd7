"""Accounts, hardware, collections, search results and deployments."""

from __future__ import annotations

from datetime import datetime

import attrs

from ._record import Record


@attrs.define(eq=False)
class Account(Record):
    """A user or an organization (:api:`account`)."""

    username: str
    """Unique name, used in URLs and in `owner/name`."""
    type: str | None = None
    """`"user"` or `"organization"`."""
    name: str | None = None
    """Display name."""
    github_url: str | None = None
    """URL of the account's GitHub page."""
    avatar_url: str | None = None
    """URL of the account's picture."""


@attrs.define(eq=False)
class Hardware(Record):
    """A type of hardware that models can run on (:api:`hardware`)."""

    sku: str
    """Unique ID, passed as `hardware=` when creating a model or deployment."""
    name: str | None = None
    """Display name."""


@attrs.define(eq=False)
class CollectionSummary(Record):
    """A curated collection of models, without its models (:api:`collections.list`)."""

    slug: str
    """Unique ID, accepted by `collections.get`."""
    name: str | None = None
    """Display name."""
    description: str | None = None
    """Short description."""


@attrs.define(eq=False)
class SearchCollection(Record):
    """A collection that matches a search (:api:`search-results`)."""

    slug: str
    """Unique ID, accepted by `collections.get`."""
    name: str | None = None
    """Display name."""
    description: str | None = None
    """Short description."""
    models: list[str] = attrs.field(factory=list)
    """Names of the collection's models, `owner/name`."""


@attrs.define(eq=False)
class DocumentationPage(Record):
    """A page of the documentation that matches a search (:api:`search-results`)."""

    href: str
    """Path of the page, such as `/docs/guides/...`."""
    name: str | None = None
    """Title of the page."""


@attrs.define
class ModelMatchMetadata:
    """Details about a model that matches a search (:api:`search-results`)."""

    generated_description: str | None = None
    """Description written by a language model."""
    score: float | None = None
    """Relevance; higher is better."""
    tags: list[str] = attrs.field(factory=list)
    """Uses of the model, such as `text-to-image`."""


@attrs.define
class DeploymentConfiguration:
    """Hardware and scaling of a deployment (:api:`deployment-object`)."""

    hardware: str | None = None
    """SKU of the hardware."""
    min_instances: int | None = None
    """Minimum number of instances, 0 to 5."""
    max_instances: int | None = None
    """Maximum number of instances, 0 to 20."""


@attrs.define
class DeploymentRelease:
    """Current release of a deployment (:api:`deployment-object`)."""

    number: int | None = None
    """Number of the release, starting at 1."""
    model: str | None = None
    """The model, `owner/name`."""
    version: str | None = None
    """ID of the model's version."""
    created_at: datetime | None = None
    """Time of the release."""
    created_by: Account | None = None
    """Account that made the release."""
    configuration: DeploymentConfiguration = attrs.field(factory=DeploymentConfiguration)
    """Hardware and scaling."""
