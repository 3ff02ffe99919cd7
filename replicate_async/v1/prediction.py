"""Predictions: runs of models."""

from __future__ import annotations

import builtins
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, Final, TypedDict, Unpack, overload

import attrs

from .. import exceptions
from ..exceptions import ArgumentError
from ._arguments import Named, create_on_deployment, create_on_model, create_on_version, version_id
from ._backend import Backend, Operation
from ._events import ServerSentEvent, event_of, stream_errors
from ._objects import Namespace, Resource, has_ended, received
from ._pages import page_of, start
from .exceptions import ModelError
from .exceptions import ReplicateError as ReplicateError  # users look for it here, too
from .file import FileEncodingStrategy
from .pagination import Cursor, Page
from .version import Version

__all__ = ("Prediction", "Predictions")


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Prediction(Resource):
    """One run of a model. Its methods update it in place."""

    id: str
    """Unique ID."""
    model: str
    """The model, `owner/name`."""
    version: str
    """ID of the version."""
    status: str
    """`"starting"`, `"processing"`, `"succeeded"`, `"failed"`, `"canceled"` or `"aborted"`."""
    input: dict[str, Any] | None = None
    """The input."""
    output: Any = None
    """The output as JSON: files are strings. `run` makes `FileOutput` objects of them."""
    logs: str | None = None
    """The logs so far."""
    error: str | None = None
    """Text of the failure."""
    metrics: dict[str, Any] | None = None
    """Measurements, such as `predict_time` in seconds."""
    created_at: str | None = None
    """When it was created, in ISO 8601."""
    started_at: str | None = None
    """When it started."""
    completed_at: str | None = None
    """When it ended."""
    urls: dict[str, str] | None = None
    """URLs: `get`, `cancel`, and `stream` if the model can stream."""

    @attrs.define
    class Progress:
        """Progress that the logs report."""

        percentage: float
        """Fraction done, from 0.0 to 1.0."""
        current: int
        """Number of steps done."""
        total: int
        """Total number of steps."""

        @classmethod
        def parse(cls, logs: str) -> Prediction.Progress | None:
            """Read the last progress bar in logs.

            Args:
                logs: The logs.

            Returns:
                The progress; None if there is no progress bar.
            """
            for line in reversed(logs.split("\n")):
                if found := _PROGRESS.match(line):
                    percentage, current, total = map(int, found.groups())
                    return cls(percentage / 100, current, total)
            return None

    @property
    def progress(self) -> Prediction.Progress | None:
        """The progress that the logs report, or None."""
        logs: object = self.logs
        return Prediction.Progress.parse(logs) if isinstance(logs, str) else None

    def wait(self) -> None:
        """Wait until the prediction has ended. Calls :api:`predictions.get` or :api:`predictions.list`."""
        if not has_ended(self):
            found = self._client.call(lambda api: _live(api, self).wait())
            self._update(_prediction(found))

    async def async_wait(self) -> None:
        """Wait until the prediction has ended. Calls :api:`predictions.get` or :api:`predictions.list`."""
        if not has_ended(self):
            found = await self._client.async_call(lambda api: _live(api, self).wait())
            self._update(_prediction(found))

    def stream(self, use_file_output: bool | None = None) -> Iterator[ServerSentEvent]:
        """Yield the events of the prediction as they arrive (:api:`streaming`).

        Args:
            use_file_output: Pass `False` to get files as URLs.

        Yields:
            The events; the last one is `done`.
        """
        found = self._client.call(lambda api: _live(api, self))
        with stream_errors(), found.stream() as events:
            for event in events:
                if (made := event_of(self._client, event, use_file_output)) is not None:
                    yield made

    async def async_stream(
        self, use_file_output: bool | None = None
    ) -> AsyncIterator[ServerSentEvent]:
        """Yield the events of the prediction as they arrive (:api:`streaming`).

        Args:
            use_file_output: Pass `False` to get files as URLs.

        Yields:
            The events; the last one is `done`.
        """
        found = _live(self._client.async_client(), self)
        with stream_errors():
            async with found.stream() as events:
                async for event in events:
                    if (made := event_of(self._client, event, use_file_output)) is not None:
                        yield made

    def cancel(self) -> None:
        """Cancel the prediction. Calls :api:`predictions.cancel`."""
        self._update(Predictions(self._client).cancel(self.id))

    async def async_cancel(self) -> None:
        """Cancel the prediction. Calls :api:`predictions.cancel`."""
        self._update(await Predictions(self._client).async_cancel(self.id))

    def reload(self) -> None:
        """Fetch the current state. Calls :api:`predictions.get`."""
        self._update(Predictions(self._client).get(self.id))

    async def async_reload(self) -> None:
        """Fetch the current state. Calls :api:`predictions.get`."""
        self._update(await Predictions(self._client).async_get(self.id))

    def output_iterator(self) -> Iterator[Any]:
        """Yield the items of the output as they appear. Calls :api:`predictions.get`.

        Yields:
            The items, as JSON.

        Raises:
            ModelError: The model failed; raised after the last item.
        """
        found = self._client.call(lambda api: _live(api, self))
        try:
            with closing(found.output_iterator()) as items:
                for item in items:
                    self._update(_prediction(found))
                    yield item
        except exceptions.PredictionCanceled:
            pass  # no error in 1.x
        except exceptions.ModelError as error:
            self._fail(found, error)
        self._update(_prediction(found))

    async def async_output_iterator(self) -> AsyncIterator[Any]:
        """Yield the items of the output as they appear. Calls :api:`predictions.get`.

        Yields:
            The items, as JSON.

        Raises:
            ModelError: The model failed; raised after the last item.
        """
        found = _live(self._client.async_client(), self)
        try:
            async with aclosing(found.output_iterator()) as items:
                async for item in items:
                    self._update(_prediction(found))
                    yield item
        except exceptions.PredictionCanceled:
            pass  # no error in 1.x
        except exceptions.ModelError as error:
            self._fail(found, error)
        self._update(_prediction(found))

    def _fail(self, found: Any, error: exceptions.ModelError) -> None:
        """Raise the error of a prediction that failed as 1.x does; any other as it is."""
        self._update(_prediction(found))
        if not has_ended(self):
            raise error
        raise ModelError(self) from error


_PROGRESS: Final = re.compile(r"\s*(\d{1,12})%\s*\|.+?\|\s*(\d{1,12})/(\d{1,12})")


class Predictions(Namespace):
    """Predictions: runs of models."""

    def list(self, cursor: Cursor = ...) -> Page[Prediction]:
        """List the predictions of the account, newest first. Calls :api:`predictions.list`.

        Args:
            cursor: `next` or `previous` of another page. By default, the first page is fetched.

        Returns:
            A page of predictions.
        """
        page = self._client.call(_list(cursor))
        return page_of(page, Prediction, self._client)

    async def async_list(self, cursor: Cursor = ...) -> Page[Prediction]:
        """List the predictions of the account, as `list` does. Calls :api:`predictions.list`."""
        page = await self._client.async_call(_list(cursor))
        return page_of(page, Prediction, self._client)

    def get(self, id: str) -> Prediction:
        """Fetch a prediction. Calls :api:`predictions.get`."""
        return _prediction(self._client.call(lambda api: api.predictions.get(id)), self._client)

    async def async_get(self, id: str) -> Prediction:
        """Fetch a prediction. Calls :api:`predictions.get`."""
        found = await self._client.async_call(lambda api: api.predictions.get(id))
        return _prediction(found, self._client)

    class CreatePredictionParams(TypedDict, total=False):
        """Options of a prediction."""

        webhook: str
        """URL that receives webhooks."""
        webhook_completed: str
        """URL that receives a webhook at the end; not together with `webhook`."""
        webhook_events_filter: builtins.list[str]
        """Events that trigger the webhook: `start`, `output`, `logs`, `completed`."""
        stream: bool
        """No effect: models that can stream always do."""
        wait: int | bool
        """How long the server may hold its response: seconds from 1 to 60, `True` for 60, or `False`."""
        file_encoding_strategy: FileEncodingStrategy
        """How to send files in the input: `"url"` or `"base64"`."""

    @overload
    def create(
        self,
        version: Version | str,
        input: dict[str, Any] | None,
        /,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    def create(
        self,
        version: Version | str,
        /,
        *,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    def create(
        self,
        *,
        version: Version | str,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    def create(
        self,
        *,
        model: str | tuple[str, str] | Named,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    def create(
        self,
        *,
        deployment: str | tuple[str, str] | Named,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    def create(
        self,
        *args: Any,
        model: str | tuple[str, str] | Named | None = None,
        version: Version | str | None = None,
        deployment: str | tuple[str, str] | Named | None = None,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction:
        """Create a prediction, and return it without waiting for its end. Calls :api:`predictions.create`.

        Args:
            args: `version` and `input`.
            model: Official model to run.
            version: Version to run.
            deployment: Deployment to run.
            input: Input of the model.
            params: Options, see `CreatePredictionParams`. With `model` or `deployment`, `wait` has no effect,
                as in 1.x.

        Returns:
            The prediction.
        """
        operation = _create(args, model, version, deployment, input, params)
        return _prediction(self._client.call(operation), self._client)

    @overload
    async def async_create(
        self,
        version: Version | str,
        input: dict[str, Any] | None,
        /,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    async def async_create(
        self,
        version: Version | str,
        /,
        *,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    async def async_create(
        self,
        *,
        version: Version | str,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    async def async_create(
        self,
        *,
        model: str | tuple[str, str] | Named,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    @overload
    async def async_create(
        self,
        *,
        deployment: str | tuple[str, str] | Named,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction: ...
    async def async_create(
        self,
        *args: Any,
        model: str | tuple[str, str] | Named | None = None,
        version: Version | str | None = None,
        deployment: str | tuple[str, str] | Named | None = None,
        input: dict[str, Any] | None = None,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Prediction:
        """Create a prediction, as `create` does. Calls :api:`predictions.create`."""
        operation = _create(args, model, version, deployment, input, params)
        return _prediction(await self._client.async_call(operation), self._client)

    def cancel(self, id: str) -> Prediction:
        """Cancel a prediction. Calls :api:`predictions.cancel`."""
        return _prediction(self._client.call(lambda api: api.predictions.cancel(id)), self._client)

    async def async_cancel(self, id: str) -> Prediction:
        """Cancel a prediction. Calls :api:`predictions.cancel`."""
        found = await self._client.async_call(lambda api: api.predictions.cancel(id))
        return _prediction(found, self._client)


def _list(cursor: Cursor) -> Operation:
    begin = start(cursor)
    return lambda api: api.predictions.list(begin)


def _live(api: Any, prediction: Prediction) -> Any:
    """Return a prediction as an object of a client of `replicate_async`."""
    return api.predictions.from_dict(prediction.dict())


def _prediction(found: Any, client: Backend | None = None) -> Prediction:
    return received(Prediction, found, client)


def _create(
    args: tuple[Any, ...],
    model: Any,
    version: Any,
    deployment: Any,
    input: Any,
    params: Mapping[str, Any],
) -> Operation:
    if args:
        version, given = args[0], args[1] if len(args) > 1 else input
    else:
        given = input
    if sum(bool(target) for target in (model, version, deployment)) != 1:
        raise ArgumentError(
            "version", "expected exactly one of `model`, `version` and `deployment`"
        )
    if model:
        return create_on_model(model, given, {**params, "wait": None})
    if deployment:
        return create_on_deployment(deployment, given, {**params, "wait": None})
    return create_on_version(version_id(version), given, params)
