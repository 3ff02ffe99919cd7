"""Predictions with one model, version or deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from .._jobs.context import Context
from .._jobs.prediction import Prediction
from .._jobs.request import CreateOptions, CreateTarget
from .._jobs.unfollowed import create_prediction
from ..types import FileEncodingStrategy, WebhookEvent
from ._base import Namespace

__all__ = ("OwnPredictions",)


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
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction, and return it without waiting for its end.

        The prediction runs, and is billed, whether or not anything waits for it. The request is sent once, and
        repeated only if it certainly created nothing. Calls :api:`predictions.create`,
        :api:`models.predictions.create` or :api:`deployments.predictions.create`.

        Args:
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
            ReplicateError: The API returned an error; nothing was created.
            ConnectError: No connection could be made; nothing was created.
            AmbiguousCreateError: No usable response was received, and the prediction could not be identified in
                the account's list. It may exist, and be billed.
        """
        options = CreateOptions(
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )
        return await create_prediction(self._context, self._target, input, options)
