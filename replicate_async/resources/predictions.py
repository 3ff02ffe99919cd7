"""Predictions: runs of models (:api:`predictions`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from .. import _arguments, exceptions
from .._http.call import Call
from .._jobs.job import job_by_id, job_from, wait_for_end
from .._jobs.prediction import Output, Prediction
from .._jobs.request import CreateOptions, CreateTarget
from .._jobs.unfollowed import create_prediction
from .._references import full_name, named, parse_name, plain_identifier
from ..types import FileEncodingStrategy, WebhookEvent
from ._base import Namespace
from ._pages import Listing, pages
from .deployments import Deployment
from .models import Model
from .versions import Version

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
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction, and return it without waiting for its end.

        Exactly one of `version`, `model` and `deployment` is required.

        The prediction runs, and is billed, whether or not anything waits for it. The request is sent once, and
        repeated only if it certainly created nothing. Calls :api:`predictions.create`,
        :api:`models.predictions.create` or :api:`deployments.predictions.create`.

        Args:
            version: Version to run: its ID, `"owner/name:version"` or a `Version`; or `"owner/name"` of an
                official model.
            input: Input of the model. Files anywhere in it are uploaded.
            model: Model to run: `"owner/name"` or a `Model`. If it is not official, its latest version is run.
            deployment: Deployment to run: `"owner/name"` or a `Deployment`.
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
            ReplicateError: The API returned an error; nothing was created.
            ConnectError: No connection could be made; nothing was created.
            AmbiguousCreateError: No usable response was received, and the prediction could not be identified in
                the account's list. It may exist, and be billed.
            ClientClosed: The client was closed; nothing was created.
        """
        given = sum(target is not None for target in (version, model, deployment))
        if given != 1:
            raise exceptions.ArgumentError(
                "version",
                f"expected exactly one of `version`, `model` and `deployment`, got {given}",
            )
        target: CreateTarget | str
        if model is not None:
            # Not a `CreateTarget`: if the model is not official, its latest version is run.
            target = "/".join(parse_name(*full_name(model, "model"), "model"))
        elif version is not None:
            target = (
                CreateTarget.version(version)
                if isinstance(version, str)
                else CreateTarget.version_id(named(version, "id", "version"))
            )
        else:
            names = parse_name(*full_name(deployment, "deployment"), "deployment")
            target = CreateTarget.deployment(*names)
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

    async def get(self, id: str) -> Prediction:
        """Fetch a prediction. Calls :api:`predictions.get`.

        Args:
            id: ID of the prediction.

        Returns:
            The prediction in its current state.

        Raises:
            NotFoundError: The prediction does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        call = Call("GET", f"/predictions/{plain_identifier(id, 'id')}", id=id)
        return await self._context.fetch(Prediction, call)

    def from_dict(self, data: Mapping[str, Any]) -> Prediction:
        """Make a prediction from its JSON, such as that of a webhook delivery or of a database. Sends nothing.

        ```python
        prediction = client.predictions.from_dict(row["prediction"])
        await prediction.wait()
        ```

        Args:
            data: The JSON object, decoded: what `to_dict()` returned, or what a webhook has delivered after its
                signature was verified.

        Returns:
            The prediction, which `reload()` and `wait()` update.

        Raises:
            ArgumentTypeError: `data` is not a mapping.
            ArgumentError: `data` is not the JSON of a prediction: it has no `id`.
        """
        return job_from(self._context, Prediction, data)

    def list(
        self,
        cursor: str | None = None,
        *,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        source: str | None = None,
    ) -> Listing[Prediction]:
        """List the predictions of the account, newest first. Calls :api:`predictions.list`.

        Args:
            cursor: `next` or `previous` of another page, to start there instead of at the first page. It
                includes the filters.
            created_after: Earliest time of creation, inclusive: a datetime, or a string in ISO 8601. A
                datetime without a time zone is local time.
            created_before: Latest time of creation, exclusive: a datetime, or a string in ISO 8601.
            source: `"web"` for the predictions created on the web site in the last 14 days. By default,
                all predictions are listed.

        Returns:
            Predictions, in pages.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
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
        """Cancel a prediction. One that has ended stays as it is. Calls :api:`predictions.cancel`.

        Args:
            id: ID of the prediction.

        Returns:
            The prediction in the state after the cancellation.

        Raises:
            NotFoundError: The prediction does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
            TransportError: No usable response was received.
        """
        return await job_by_id(self._context, Prediction, id).cancel()

    async def wait(
        self, prediction: Prediction | str, *, timeout: float | timedelta | None = None
    ) -> Prediction:
        """Wait until a prediction has ended. Does not raise if it failed; check `status`.

        An ID picks up a prediction that another process created. Failed requests are repeated until the timeout.
        Calls :api:`predictions.get` or :api:`predictions.list`.

        Args:
            prediction: The prediction, or its ID.
            timeout: Maximum time to wait: seconds, or a timedelta; `None` for 24 hours.

        Returns:
            The prediction in its final state; the same object, if one was given.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            RunTimeout: The prediction did not end in time, and is still running.
            NotFoundError: The prediction does not exist, or is not visible to this account.
            ReplicateError: The API returned another error.
        """
        if isinstance(prediction, Prediction):
            return await prediction.wait(timeout=timeout)
        found = job_by_id(self._context, Prediction, prediction, "prediction")
        await wait_for_end(found, timeout, poll_first=True)
        return found
