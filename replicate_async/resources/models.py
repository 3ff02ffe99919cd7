"""Models, their versions, examples and readmes (:api:`models` and :api:`versions`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

import attrs

from .. import _arguments
from .._arguments import given
from .._http.call import Call
from .._http.retry import Kind
from .._jobs.context import Bound, Context
from .._jobs.creating import create
from .._jobs.prediction import Output, Prediction
from .._jobs.request import CreateOptions, CreateTarget, prepare
from .._jobs.running import run
from .._references import full_name, identifier, named, parse_name, parse_reference
from ..types import FileEncodingStrategy, Hardware, WebhookEvent
from ._base import Namespace
from ._pages import Listing, pages

__all__ = (
    "Model",
    "ModelExamples",
    "ModelPredictions",
    "ModelReadme",
    "ModelVersions",
    "Models",
    "OwnExamples",
    "OwnPredictions",
    "OwnReadme",
    "OwnVersions",
    "Version",
)


@attrs.define(eq=False)
class Version(Bound):
    """A version of a model (:api:`version-object`)."""

    id: str
    """What identifies it: 64 hex digits."""
    created_at: datetime | None = None
    """When it was pushed."""
    cog_version: str | None = None
    """The version of Cog that built it."""
    openapi_schema: dict[str, Any] = attrs.field(factory=dict, repr=False)
    """What it takes and makes, as an OpenAPI document (:api:`version-schema`)."""

    @property
    def predictions(self) -> OwnPredictions:
        """Predictions with this version."""
        return OwnPredictions(self._context, CreateTarget.version(self.id))

    async def predict(self, /, **inputs: Any) -> Output:
        """Run it and return its output, as `run` does. `use` makes a function of a model that knows more.

        Raises:
            ReplicateException: As `run`.
        """
        return await run(self._context, CreateTarget.version(self.id), inputs)


@attrs.define(eq=False)
class Model(Bound):
    """A model (:api:`model-object`)."""

    owner: str
    """The account that it belongs to."""
    name: str
    """Its name within the account."""
    url: str | None = None
    """Its page for people."""
    description: str | None = None
    """What it does."""
    visibility: str | None = None
    """`"public"` or `"private"`."""
    is_official: bool | None = None
    """Whether it is always on, with a stable interface, and run without a version."""
    github_url: str | None = None
    """Its source."""
    paper_url: str | None = None
    """Its paper."""
    license_url: str | None = None
    """Its license."""
    weights_url: str | None = None
    """Its weights."""
    cover_image_url: str | None = None
    """A picture for it."""
    run_count: int | None = None
    """How often it was run."""
    created_at: datetime | None = None
    """When it was made."""
    default_example: Prediction | None = attrs.field(default=None, repr=False)
    """A prediction that shows what it does."""
    latest_version: Version | None = None
    """Its newest version; None for models without versions."""

    def _bind(self, context: Context) -> None:
        self._client = context
        if self.latest_version is not None:
            self.latest_version._bind(context)
        if self.default_example is not None:
            self.default_example._bind(context)

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def versions(self) -> OwnVersions:
        """Its versions."""
        return OwnVersions(self._context, self.owner, self.name)

    @property
    def examples(self) -> OwnExamples:
        """Its examples."""
        return OwnExamples(self._context, self.owner, self.name)

    @property
    def readme(self) -> OwnReadme:
        """Its readme."""
        return OwnReadme(self._context, self.owner, self.name)

    @property
    def predictions(self) -> OwnPredictions:
        """Predictions with this model, which must be official."""
        return OwnPredictions(self._context, CreateTarget.model(self.full_name))

    async def reload(self) -> Self:
        """Fetch it again, and return the model itself."""
        self._replace(await _get(self._context, self.owner, self.name))
        return self


class Models(Namespace):
    """Models, their versions, examples and readmes (:api:`models` and :api:`versions`)."""

    @property
    def versions(self) -> ModelVersions:
        """Versions of models."""
        return ModelVersions(self._context)

    @property
    def examples(self) -> ModelExamples:
        """Examples of models."""
        return ModelExamples(self._context)

    @property
    def readme(self) -> ModelReadme:
        """Readmes of models."""
        return ModelReadme(self._context)

    @property
    def predictions(self) -> ModelPredictions:
        """Predictions with official models."""
        return ModelPredictions(self._context)

    async def get(self, owner: str, name: str | None = None) -> Model:
        """Fetch a model. Calls :api:`models.get`.

        Args:
            owner: `"owner/name"`, or the owner.
            name: The name, if `owner` is only the owner.
        """
        return await _get(self._context, *parse_name(owner, name, "model"))

    def list(
        self,
        cursor: str | None = None,
        *,
        sort_by: str | None = None,
        sort_direction: str | None = None,
    ) -> Listing[Model]:
        """List the public models. Calls :api:`models.list`.

        Args:
            cursor: The `next` or `previous` of a page, to begin there; it keeps the order.
            sort_by: `"latest_version_created_at"` (the API's default) or `"model_created_at"`.
            sort_direction: `"desc"` (the API's default) or `"asc"`.
        """
        by = ("latest_version_created_at", "model_created_at")
        parameters = {
            "sort_by": None if sort_by is None else _arguments.one_of(sort_by, by, "sort_by"),
            "sort_direction": None
            if sort_direction is None
            else _arguments.one_of(sort_direction, ("asc", "desc"), "sort_direction"),
        }
        return pages(self._context, Call("GET", "/models", params=parameters), Model, cursor)

    def search(self, query: str) -> Listing[Model]:
        """Search the public models. Calls :api:`models.search`.

        The newer `search` of the client also finds collections and pages.
        """
        content = _arguments.text(query, "query").encode()
        call = Call("QUERY", "/models", content=content, headers={"Content-Type": "text/plain"})
        return pages(self._context, call, Model)

    async def create(
        self,
        owner: str,
        name: str,
        *,
        visibility: str,
        hardware: str | Hardware,
        description: str | None = None,
        github_url: str | None = None,
        paper_url: str | None = None,
        license_url: str | None = None,
        cover_image_url: str | None = None,
    ) -> Model:
        """Create a model. Calls :api:`models.create`.

        Args:
            owner: The token's account.
            name: A name that it has not used.
            visibility: `"public"` or `"private"`.
            hardware: What it runs on: a SKU of `hardware.list()`.
            description: What it does.
            github_url: Its source.
            paper_url: Its paper.
            license_url: Its license.
            cover_image_url: A picture for it.
        """
        parse_name(owner, name, "model")
        body = given(
            owner=owner,
            name=name,
            visibility=_arguments.one_of(visibility, ("public", "private"), "visibility"),
            hardware=named(hardware, "sku", "hardware"),
            description=description,
            github_url=github_url,
            paper_url=paper_url,
            license_url=license_url,
            cover_image_url=cover_image_url,
        )
        return await self._context.fetch(Model, Call("POST", "/models", Kind.WRITE, json=body))

    async def update(
        self,
        owner: str,
        name: str | None = None,
        *,
        description: str | None = None,
        readme: str | None = None,
        github_url: str | None = None,
        paper_url: str | None = None,
        weights_url: str | None = None,
        license_url: str | None = None,
    ) -> Model:
        """Change a model. Calls :api:`models.update`.

        Args:
            owner: `"owner/name"`, or the owner.
            name: The name, if `owner` is only the owner.
            description: What it does.
            readme: Its readme, in Markdown.
            github_url: Its source.
            paper_url: Its paper.
            weights_url: Its weights.
            license_url: Its license.
        """
        path = _path(*parse_name(owner, name, "model"))
        body = given(
            description=description,
            readme=readme,
            github_url=github_url,
            paper_url=paper_url,
            weights_url=weights_url,
            license_url=license_url,
        )
        return await self._context.fetch(Model, Call("PATCH", path, Kind.WRITE, json=body))

    async def delete(self, owner: str, name: str | None = None) -> None:
        """Delete a private model without versions. Calls :api:`models.delete`.

        Args:
            owner: `"owner/name"`, or the owner.
            name: The name, if `owner` is only the owner.
        """
        await self._context.command("DELETE", _path(*parse_name(owner, name, "model")))


class ModelVersions(Namespace):
    """Versions of models (:api:`versions`)."""

    async def get(self, model: str | Model, id: str) -> Version:
        """Fetch a version. Calls :api:`models.versions.get`."""
        return await OwnVersions(self._context, *_names(model)).get(id)

    def list(self, model: str | Model) -> Listing[Version]:
        """List a model's versions, newest first. Calls :api:`models.versions.list`."""
        return OwnVersions(self._context, *_names(model)).list()

    async def delete(self, model: str | Model, id: str) -> None:
        """Delete a version with its predictions. Calls :api:`models.versions.delete`."""
        await OwnVersions(self._context, *_names(model)).delete(id)


class _Own(Namespace):
    """What belongs to one model."""

    def __init__(self, context: Context, owner: str, name: str) -> None:
        super().__init__(context)
        self._path = _path(owner, name)


class OwnVersions(_Own):
    """The versions of one model (:api:`versions`)."""

    async def get(self, id: str) -> Version:
        """Fetch a version. Calls :api:`models.versions.get`."""
        call = Call("GET", f"{self._path}/versions/{_version_id(id)}")
        return await self._context.fetch(Version, call)

    def list(self) -> Listing[Version]:
        """List the versions, newest first. Calls :api:`models.versions.list`."""
        return pages(self._context, Call("GET", f"{self._path}/versions"), Version)

    async def delete(self, id: str) -> None:
        """Delete a version with its predictions. Calls :api:`models.versions.delete`."""
        await self._context.command("DELETE", f"{self._path}/versions/{_version_id(id)}")


class ModelExamples(Namespace):
    """Predictions that show what models do (:api:`models.examples.list`)."""

    def list(self, model: str | Model) -> Listing[Prediction]:
        """List a model's examples. Calls :api:`models.examples.list`."""
        return OwnExamples(self._context, *_names(model)).list()


class OwnExamples(_Own):
    """Predictions that show what one model does (:api:`models.examples.list`)."""

    def list(self) -> Listing[Prediction]:
        """List the examples. Calls :api:`models.examples.list`."""
        return pages(self._context, Call("GET", f"{self._path}/examples"), Prediction)


class ModelReadme(Namespace):
    """Readmes of models (:api:`models.readme.get`)."""

    async def get(self, model: str | Model) -> str:
        """Fetch a model's readme, in Markdown. Calls :api:`models.readme.get`."""
        return await OwnReadme(self._context, *_names(model)).get()


class OwnReadme(_Own):
    """The readme of one model (:api:`models.readme.get`)."""

    async def get(self) -> str:
        """Fetch the readme, in Markdown. Calls :api:`models.readme.get`."""
        call = Call("GET", f"{self._path}/readme", expects="text")
        text: str = (await self._context.transport.send(call)).data
        return text


class ModelPredictions(Namespace):
    """Predictions with official models (:api:`models.predictions.create`)."""

    async def create(
        self,
        model: str | tuple[str, str] | Model,
        input: Mapping[str, Any] | None = None,
        *,
        wait: bool | float | None = None,
        cancel_after: float | str | timedelta | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction with an official model.

        Calls :api:`models.predictions.create`. The options are those of
        `predictions.create`.
        """
        return await OwnPredictions(
            self._context, CreateTarget.model("/".join(_names(model)))
        ).create(
            input,
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )


class OwnPredictions(Namespace):
    """Predictions with one model, version or deployment."""

    def __init__(self, context: Context, target: CreateTarget) -> None:
        super().__init__(context)
        self._target = target

    async def create(
        self,
        input: Mapping[str, Any] | None = None,
        *,
        wait: bool | float | None = None,
        cancel_after: float | str | timedelta | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction. The options are those of `predictions.create`."""
        options = CreateOptions(
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )
        order = await prepare(self._context, input, options)
        return await create(self._context, self._target, order)


async def _get(context: Context, owner: str, name: str) -> Model:
    return await context.fetch(Model, Call("GET", _path(owner, name)))


def _names(model: str | tuple[str, str] | Model) -> tuple[str, str]:
    return parse_name(*full_name(model, "model"), "model")


def _path(owner: str, name: str) -> str:
    return f"/models/{identifier(owner, 'model')}/{identifier(name, 'model')}"


def _version_id(id: str) -> str:
    """Return a version's id, also of `owner/name:id`."""
    text = (parse_reference(id, "id").version or "") if "/" in id else id
    return identifier(text, "id")
