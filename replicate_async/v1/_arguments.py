"""Arguments of 1.x, as those of `replicate_async`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..exceptions import ArgumentError, ArgumentTypeError, InvalidReference
from ._backend import Operation
from ._objects import Resource
from .file import File
from .helpers import FileOutput
from .identifier import ModelVersionIdentifier


class Named(Protocol):
    """A model or deployment."""

    owner: str
    name: str


def full_name(value: str | tuple[str, str] | Named, argument: str) -> str:
    """Return `owner/name` of a model or deployment, in any of the forms that 1.x accepts."""
    if isinstance(value, str):
        owner, slash, name = value.partition("/")
        if not slash or not owner or not name or ":" in name:
            raise InvalidReference(argument, value, "'owner/name'")
        return value
    if isinstance(value, tuple) and len(value) >= 2:
        return f"{value[0]}/{value[1]}"
    owner_of, name_of = getattr(value, "owner", None), getattr(value, "name", None)
    if owner_of is None or name_of is None:
        raise InvalidReference(
            argument, repr(value), f"a {argument}, (owner, name) or 'owner/name'"
        )
    return f"{owner_of}/{name_of}"


def version_id(value: Any) -> str:
    """Return the ID of a version, or the reference that stands for it."""
    return str(getattr(value, "id", value))


def with_urls(value: Any, path: str = "input") -> Any:
    """Return an input with the URL in the place of each `FileOutput` and `File`, and with the keys that JSON has.

    Args:
        value: The input, or a part of it.
        path: Its place, for messages.

    Raises:
        ArgumentTypeError: It has an object of the API that is no file.
    """
    if isinstance(value, FileOutput):
        return value.url
    if isinstance(value, File) and (value.urls or {}).get("get"):
        return value.urls["get"]
    if isinstance(value, Resource):
        raise ArgumentTypeError(
            path,
            f"a {type(value).__name__} cannot be sent (pass one of its fields, such as its output)",
        )
    if isinstance(value, Mapping):
        return {_key(key): with_urls(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_urls(item, f"{path}[{index}]") for index, item in enumerate(value)]
    return value


def _key(key: Any) -> Any:
    """Return a key of a mapping as `json` writes it, which takes numbers, bools and None for keys."""
    return json.dumps(key) if key is None or isinstance(key, (int, float)) else key


class Target(NamedTuple):
    """What to run."""

    model: str | None
    """The model, `owner/name`."""
    version: str | None
    """The ID of its version."""

    def __str__(self) -> str:
        return ":".join(filter(None, self))


def target_of(ref: Any) -> Target:
    """Return what a reference, model or version stands for."""
    if isinstance(ref, str):
        ref = ModelVersionIdentifier.parse(ref)
    if isinstance(ref, ModelVersionIdentifier):
        return Target(f"{ref.owner}/{ref.name}", ref.version)
    if hasattr(ref, "openapi_schema"):
        return Target(None, str(ref.id))
    if hasattr(ref, "owner"):
        return Target(full_name(ref, "ref"), None)
    raise ArgumentError(
        "ref",
        f"expected a model, a version, 'owner/name' or 'owner/name:version', got {type(ref).__name__}",
    )


def create_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a create, by their names in `replicate_async`. Unknown ones are ignored, as in 1.x."""
    webhook, events = params.get("webhook"), params.get("webhook_events_filter")
    if webhook is None and (completed := params.get("webhook_completed")) is not None:
        webhook, events = completed, ["completed"]
    return {
        "webhook": webhook,
        "webhook_events_filter": events,
        "file_encoding_strategy": params.get("file_encoding_strategy"),
    }


def create_on_version(version: str, input: Any, params: Mapping[str, Any]) -> Operation:
    """Return the create of a prediction by a version."""
    options, wait = create_options(params), params.get("wait") or None
    return lambda api: api.predictions.create(version, with_urls(input), wait=wait, **options)


def create_on_model(model: Any, input: Any, params: Mapping[str, Any]) -> Operation:
    """Return the create of a prediction by an official model."""
    name, options, wait = full_name(model, "model"), create_options(params), params.get("wait")
    return lambda api: api.models.predictions.create(
        name, with_urls(input or {}), wait=wait or None, **options
    )


def create_on_deployment(deployment: Any, input: Any, params: Mapping[str, Any]) -> Operation:
    """Return the create of a prediction by a deployment."""
    name, options = full_name(deployment, "deployment"), create_options(params)
    wait = params.get("wait")
    return lambda api: api.deployments.predictions.create(
        name, with_urls(input or {}), wait=wait or None, **options
    )
