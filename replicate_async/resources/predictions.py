"""Predictions: runs of models (:api:`predictions`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from .. import _arguments, exceptions
from .._codec import structure
from .._http.call import Call
from .._jobs.creating import create
from .._jobs.prediction import Output, Prediction
from .._jobs.request import CreateOptions, CreateTarget, prepare
from .._references import full_name, identifier, named, parse_name
from ..types import FileEncodingStrategy, WebhookEvent
from ._base import Namespace
from ._pages import Listing, pages
from .deployments import Deployment
from .models import Model, Version

__all__ = ("Output", "Prediction", "Predictions")


class Predictions(Namespace):
    """Predictions: runs of models (:api:`predictions`)."""

    async def create(
        self,
        version: str | Version | None = None,
        input: Mapping[str, Any] | None = None,
        *,
        model: str | Model | None = None,
        deployment: str | Deployment | None = None,
        wait: bool | float | None = None,
        cancel_after: float | str | timedelta | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction and return it as the server describes it, finished or not.

        It runs, and costs, from now on. Calls :api:`predictions`.create (:api:`predictions.create`),
        models.predictions.create and deployments.predictions.create.

        Args:
            version: What to run: a version's id, `owner/name:version`, or `owner/name` of an
                official model. Exactly one of `version`, `model` and `deployment` is given.
            input: What the model takes. Files anywhere in it are uploaded.
            model: Or an official model, `owner/name`.
            deployment: Or a deployment, `owner/name`.
            wait: Let the server wait for the result: True for 60 s, or seconds from 1 to 60.
            cancel_after: Let the server cancel it after so many seconds (5 or more), after a
                timedelta, or after a duration such as `"1h30m"`.
            webhook: An HTTPS URL to tell of it.
            webhook_events_filter: What to tell: `start`, `output`, `logs`, `completed`.
            file_encoding_strategy: `"url"` uploads files, `"base64"` sends them inside of the
                request; the client's by default.
            use_file_output: Whether files in the output become `FileOutput`; the client's by
                default.
            stream: Deprecated by the API, without effect.

        Raises:
            ArgumentError: An argument is impossible; nothing was sent.
            ReplicateError: The API refuses; nothing was created.
            AmbiguousCreateError: No answer came: the prediction may exist.
        """
        if sum(target is not None for target in (version, model, deployment)) != 1:
            raise exceptions.ArgumentError(
                "version", "give exactly one of `version`, `model` and `deployment`"
            )
        options = CreateOptions(
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )
        if model is not None:
            owner, name = parse_name(*full_name(model, "model"), "model")
            request = await prepare(self._context, input, options)
            return await create(self._context, f"{owner}/{name}", request)
        if version is not None:
            target = CreateTarget.version(named(version, "id", "version"))
        else:
            assert deployment is not None
            names = parse_name(*full_name(deployment, "deployment"), "deployment")
            target = CreateTarget.deployment(*names)
        return await create(self._context, target, await prepare(self._context, input, options))

    async def get(self, id: str) -> Prediction:
        """Fetch a prediction. Calls :api:`predictions.get`."""
        call = Call("GET", f"/predictions/{identifier(id, 'id')}")
        return await self._context.fetch(Prediction, call)

    def list(
        self,
        cursor: str | None = None,
        *,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        source: str | None = None,
    ) -> Listing[Prediction]:
        """List the account's predictions, newest first. Calls :api:`predictions.list`.

        Args:
            cursor: The `next` or `previous` of a page, to begin there; it keeps the filters.
            created_after: Only those made at this time or later: a datetime or ISO 8601.
            created_before: Only those made before.
            source: `"web"` for those made on the web site in the last 14 days; all by default.
        """
        parameters = {
            "created_after": None
            if created_after is None
            else _arguments.timestamp(created_after, "created_after"),
            "created_before": None
            if created_before is None
            else _arguments.timestamp(created_before, "created_before"),
            "source": None if source is None else _arguments.one_of(source, ("web",), "source"),
        }
        call = Call("GET", "/predictions", params=parameters)
        return pages(self._context, call, Prediction, cursor)

    async def cancel(self, id: str) -> Prediction:
        """Cancel a prediction. Calls :api:`predictions.cancel`.

        Args:
            id: The ID of the prediction.

        Returns:
            The prediction as it is after that.

        Raises:
            ReplicateError: The API refuses.
            TransportError: There was no usable answer.
        """
        return await self._by_id(id, "id").cancel()

    async def wait(
        self, prediction: Prediction | str, *, timeout: float | timedelta | None = None
    ) -> Prediction:
        """Wait until a prediction has ended, and return it. A failure is no error here.

        With an id, it picks up a prediction that another process began.

        Args:
            prediction: The prediction, or its id.
            timeout: Seconds, or a timedelta; None: 24 hours.

        Raises:
            RunTimeout: The time was over first. The prediction goes on.
            ReplicateError: The API refuses.
        """
        if isinstance(prediction, Prediction):
            return await prediction.wait(timeout=timeout)
        found = self._by_id(prediction, "prediction")
        await found._wait(timeout, at_once=True)
        return found

    def _by_id(self, id: str, argument: str) -> Prediction:
        identifier(id, argument)
        return self._context.bind(structure({"id": id}, Prediction))
