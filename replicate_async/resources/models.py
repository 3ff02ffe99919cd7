"""Models, their examples and READMEs (:api:`models`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

import attrs

from .. import _arguments
from .._display import Html, card, link, short_repr
from .._http.call import Call
from .._http.retry import Kind
from .._jobs.context import Bound, Context
from .._jobs.prediction import Prediction
from .._jobs.request import CreateOptions, CreateTarget
from .._jobs.unfollowed import create_prediction
from .._references import full_name, named, parse_name
from ..types import FileEncodingStrategy, Hardware, WebhookEvent
from ._base import ModelNamespace, Namespace, model_path
from ._own_predictions import OwnPredictions
from ._pages import Listing, pages
from .versions import OwnVersions, Version

__all__ = (
    "Model",
    "ModelExamples",
    "ModelPredictions",
    "ModelReadme",
    "ModelVersions",
    "Models",
    "OwnExamples",
    "OwnReadme",
)


@attrs.define(eq=False, repr=False)
class Model(Bound):
    """A model (:api:`model-object`)."""

    owner: str
    """Owner of the model: the username of a user or organization."""
    name: str
    """Name of the model, unique among the models of its owner."""
    url: str | None = None
    """URL of the model's page on the web site."""
    description: str | None = None
    """Short description of the model."""
    visibility: str | None = None
    """Visibility of the model: `"public"` or `"private"`."""
    is_official: bool | None = None
    """Whether the model is official: always on, with a stable interface, and run without a version."""
    github_url: str | None = None
    """URL of the model's source code on GitHub."""
    paper_url: str | None = None
    """URL of the model's paper."""
    license_url: str | None = None
    """URL of the model's license."""
    weights_url: str | None = None
    """URL of the model's weights."""
    cover_image_url: str | None = None
    """URL of the model's cover image."""
    run_count: int | None = None
    """Number of times that the model was run."""
    created_at: datetime | None = None
    """Time at which the model was created."""
    default_example: Prediction | None = attrs.field(default=None, repr=False)
    """Prediction that shows what the model does, or `None`."""
    latest_version: Version | None = None
    """Latest version, or `None` for a model without versions."""

    def _bind(self, context: Context) -> None:
        self._client = context
        if self.latest_version is not None:
            self.latest_version._bind(context)
        if self.default_example is not None:
            self.default_example._bind(context)

    def __repr__(self) -> str:
        version = self.latest_version
        return short_repr(
            "Model",
            {
                "owner": self.owner,
                "name": self.name,
                "description": self.description,
                "visibility": self.visibility,
                "is_official": self.is_official,
                "run_count": self.run_count,
                "latest_version": None if version is None else version.id,
            },
        )

    def _repr_html_(self) -> str:
        """Return what a notebook displays: a table of what is known."""
        version = self.latest_version
        return card(
            link(self.url, self.full_name),
            [
                ("description", self.description),
                ("visibility", self.visibility),
                ("official", "yes" if self.is_official else ""),
                ("runs", f"{self.run_count:,}" if self.run_count else ""),
                ("latest version", None if version is None else version.id),
                ("created", self.created_at),
                ("links", Html(" · ".join(self._links()))),
            ],
        )

    def _links(self) -> Iterator[str]:
        urls = ("code", self.github_url), ("paper", self.paper_url), ("license", self.license_url)
        for name, url in urls:
            if url:
                yield link(url, name)

    @property
    def full_name(self) -> str:
        """Owner and name of the model: `owner/name`."""
        return f"{self.owner}/{self.name}"

    @property
    def versions(self) -> OwnVersions:
        """Versions of this model."""
        return OwnVersions(self._context, self.owner, self.name)

    @property
    def examples(self) -> OwnExamples:
        """Example predictions of this model."""
        return OwnExamples(self._context, self.owner, self.name)

    @property
    def readme(self) -> OwnReadme:
        """README of this model."""
        return OwnReadme(self._context, self.owner, self.name)

    @property
    def predictions(self) -> OwnPredictions:
        """Predictions with this model, which must be official."""
        return OwnPredictions(self._context, CreateTarget.model(self.full_name))

    async def reload(self) -> Self:
        """Fetch the current state of the model into this object. Calls :api:`models.get`.

        Returns:
            This object.

        Raises:
            NotFoundError: The model does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        self._replace(await _get(self._context, self.owner, self.name))
        return self


class Models(Namespace):
    """Models, their versions, examples and READMEs (:api:`models` and :api:`versions`)."""

    @property
    def versions(self) -> ModelVersions:
        """Versions of models."""
        return ModelVersions(self._context)

    @property
    def examples(self) -> ModelExamples:
        """Example predictions of models."""
        return ModelExamples(self._context)

    @property
    def readme(self) -> ModelReadme:
        """READMEs of models."""
        return ModelReadme(self._context)

    @property
    def predictions(self) -> ModelPredictions:
        """Predictions with official models."""
        return ModelPredictions(self._context)

    async def get(self, owner: str, name: str | None = None) -> Model:
        """Fetch a model. Calls :api:`models.get`.

        Args:
            owner: `"owner/name"`, or the owner alone.
            name: Name of the model; required if `owner` is the owner alone.

        Returns:
            The model.

        Raises:
            NotFoundError: The model does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        return await _get(self._context, *parse_name(owner, name, "model", ignore_version=True))

    def list(
        self,
        cursor: str | None = None,
        *,
        sort_by: str | None = None,
        sort_direction: str | None = None,
    ) -> Listing[Model]:
        """List all public models. Calls :api:`models.list`.

        Args:
            cursor: `next` or `previous` of another page, to start there instead of at the first page. It
                includes the order.
            sort_by: `"latest_version_created_at"` (default) or `"model_created_at"`.
            sort_direction: `"desc"` (default) or `"asc"`.

        Returns:
            Models, in pages.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
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

        `Client.search` is newer, and also finds collections and documentation pages.

        Args:
            query: Text to search for.

        Returns:
            Matching models, in pages.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
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
        """Create a model, without versions. Calls :api:`models.create`.

        Args:
            owner: Owner of the model, which must be the account of the API token.
            name: Name of the model, which must not be in use by the owner.
            visibility: `"public"` or `"private"`.
            hardware: Hardware to run the model on: the `sku` of an item of `hardware.list()`, or the item.
            description: Short description of the model.
            github_url: URL of the source code on GitHub.
            paper_url: URL of the paper.
            license_url: URL of the license.
            cover_image_url: URL of the cover image.

        Returns:
            The new model.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            ConflictError: The name is already in use.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the model may exist.
        """
        parse_name(owner, name, "model")
        body = _arguments.texts(
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
        """Change a model; arguments that are not given leave it as it is. Calls :api:`models.update`.

        Args:
            owner: `"owner/name"`, or the owner alone.
            name: Name of the model; required if `owner` is the owner alone.
            description: Short description of the model.
            readme: README of the model, in Markdown.
            github_url: URL of the source code on GitHub.
            paper_url: URL of the paper.
            weights_url: URL of the weights.
            license_url: URL of the license.

        Returns:
            The changed model.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            NotFoundError: The model does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the change may have been made.
        """
        path = model_path(*parse_name(owner, name, "model"))
        body = _arguments.texts(
            description=description,
            readme=readme,
            github_url=github_url,
            paper_url=paper_url,
            weights_url=weights_url,
            license_url=license_url,
        )
        return await self._context.fetch(Model, Call("PATCH", path, Kind.WRITE, json=body))

    async def delete(self, owner: str, name: str | None = None) -> None:
        """Delete a model, which must be private and without versions. Calls :api:`models.delete`.

        Args:
            owner: `"owner/name"`, or the owner alone.
            name: Name of the model; required if `owner` is the owner alone.

        Raises:
            NotFoundError: The model does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the model may have been deleted.
        """
        await self._context.command("DELETE", model_path(*parse_name(owner, name, "model")))


class ModelVersions(Namespace):
    """Versions of models (:api:`versions`)."""

    async def get(self, model: str | Model, id: str) -> Version:
        """Fetch a version of a model. Calls :api:`models.versions.get`.

        Args:
            model: The model: `"owner/name"` or a `Model`.
            id: ID of the version.

        Returns:
            The version.

        Raises:
            NotFoundError: The version does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        return await OwnVersions(self._context, *_names(model)).get(id)

    def list(self, model: str | Model) -> Listing[Version]:
        """List the versions of a model, newest first. Calls :api:`models.versions.list`.

        Args:
            model: The model: `"owner/name"` or a `Model`.

        Returns:
            Versions, in pages.

        Raises:
            NotFoundError: The model does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        return OwnVersions(self._context, *_names(model)).list()

    async def delete(self, model: str | Model, id: str) -> None:
        """Delete a version and all of its predictions. Calls :api:`models.versions.delete`.

        Args:
            model: The model: `"owner/name"` or a `Model`.
            id: ID of the version.

        Raises:
            NotFoundError: The version does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received; the version may have been deleted.
        """
        await OwnVersions(self._context, *_names(model)).delete(id)


class ModelExamples(Namespace):
    """Example predictions of models (:api:`models.examples.list`)."""

    def list(self, model: str | Model) -> Listing[Prediction]:
        """List the example predictions of a model. Calls :api:`models.examples.list`.

        Args:
            model: The model: `"owner/name"` or a `Model`.

        Returns:
            Predictions, in pages.

        Raises:
            NotFoundError: The model does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        return OwnExamples(self._context, *_names(model)).list()


class OwnExamples(ModelNamespace):
    """Example predictions of one model (:api:`models.examples.list`)."""

    def list(self) -> Listing[Prediction]:
        """List the example predictions. Calls :api:`models.examples.list`.

        Returns:
            Predictions, in pages.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return pages(self._context, Call("GET", f"{self._path}/examples"), Prediction)


class ModelReadme(Namespace):
    """READMEs of models (:api:`models.readme.get`)."""

    async def get(self, model: str | Model) -> str:
        """Fetch the README of a model. Calls :api:`models.readme.get`.

        Args:
            model: The model: `"owner/name"` or a `Model`.

        Returns:
            The README, in Markdown.

        Raises:
            NotFoundError: The model does not exist, or has no README.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        return await OwnReadme(self._context, *_names(model)).get()


class OwnReadme(ModelNamespace):
    """README of one model (:api:`models.readme.get`)."""

    async def get(self) -> str:
        """Fetch the README. Calls :api:`models.readme.get`.

        Returns:
            The README, in Markdown.

        Raises:
            NotFoundError: The model has no README.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
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
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction with an official model, and return it without waiting for its end.

        The prediction runs, and is billed, whether or not anything waits for it. The request is sent once, and
        repeated only if it certainly created nothing. Calls :api:`models.predictions.create`.

        Args:
            model: The model, which must be official: `"owner/name"`, a pair of owner and name, or a `Model`.
            input: Input of the model. Files anywhere in it are uploaded.
            wait: How long the server may hold its response back until the prediction has ended: seconds
                up to 60, of which the API takes whole ones, or `True` for 60. By default, or with 0, it responds at once.
            cancel_after: Time after which the server cancels the prediction: seconds (at least 5), a
                timedelta, or a duration such as `"1h30m"`. The server gets up to a tenth (at least up to 3 seconds)
                more, by which the prediction is recognised. Defaults to about a day. With
                `Client(mark_creates=False)`, it is exact, and there is no default.
            webhook: HTTPS URL that receives webhooks about the prediction.
            webhook_events_filter: Events that trigger the webhook: `"start"`, `"output"`, `"logs"`,
                `"completed"`.
            file_encoding_strategy: How to send files in the input: `"url"` uploads them first,
                `"base64"` encodes them into the request. The client's setting by default.
            use_file_output: Whether files in the output become `FileOutput` objects. The client's
                setting by default.
            stream: Deprecated by the API; has no effect.

        Returns:
            The prediction as the server reported it, which may or may not have ended.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            NotFoundError: The model does not exist, or is not official; nothing was created.
            ReplicateError: The API returned another error; nothing was created.
            ConnectError: No connection could be made; nothing was created.
            AmbiguousCreateError: No usable response was received, and the prediction could not be identified in
                the account's list. It may exist, and be billed.
        """
        # Not a version, either: the model would run whatever its latest one is.
        target = CreateTarget.model("/".join(parse_name(*full_name(model, "model"), "model")))
        options = CreateOptions(
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )
        return await create_prediction(self._context, target, input, options)


async def _get(context: Context, owner: str, name: str) -> Model:
    return await context.fetch(Model, Call("GET", model_path(owner, name)))


def _names(model: str | tuple[str, str] | Model) -> tuple[str, str]:
    return parse_name(*full_name(model, "model"), "model", ignore_version=True)
