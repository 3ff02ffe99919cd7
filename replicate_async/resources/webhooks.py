"""Webhooks: signing secret, and verification of deliveries (:api:`webhooks`)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import attrs

from .. import _signatures
from .._codec import decode_json, structure
from .._http.call import Call
from .._jobs.prediction import Prediction
from .._jobs.training import Training
from ..exceptions import ArgumentError
from ..types import Record
from ._base import Namespace

__all__ = ("DefaultWebhook", "WebhookSigningSecret", "Webhooks")


@attrs.define(eq=False)
class WebhookSigningSecret(Record):
    """Secret that webhooks are signed with (:api:`webhooks.default.secret.get`)."""

    key: str = attrs.field(repr=False)
    """The secret, starting with `whsec_`."""


class DefaultWebhook(Namespace):
    """Settings shared by all webhooks of the account."""

    async def secret(self) -> WebhookSigningSecret:
        """Fetch the signing secret. Calls :api:`webhooks.default.secret.get`.

        All webhooks of the account share one secret; fetch it once and keep it.

        Returns:
            The signing secret.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return await self._context.fetch(
            WebhookSigningSecret, Call("GET", "/webhooks/default/secret")
        )


class Webhooks(Namespace):
    """Webhooks: signing secret, and verification of deliveries (:api:`webhooks`)."""

    @property
    def default(self) -> DefaultWebhook:
        """Settings shared by all webhooks of the account."""
        return DefaultWebhook(self._context)

    def validate(
        self,
        headers: Mapping[str, str],
        body: bytes | str,
        secret: str | WebhookSigningSecret,
        tolerance: float | None = 300,
    ) -> None:
        """Verify the signature of a webhook delivery (:api:`webhook-signature`).

        Returns if it is valid, and raises if it is not.

        Args:
            headers: Headers of the delivery; the case of their names does not matter.
            body: Body of the delivery, exactly as received. Do not decode and re-encode the JSON.
            secret: Signing secret of the account: `whsec_...`, or the result of `webhooks.default.secret()`.
            tolerance: Maximum difference between the signed timestamp and the current time, in seconds;
                `None` for no limit.

        Raises:
            InvalidSignature: The delivery is not signed with the secret, or its timestamp is out of tolerance.
            ArgumentError: The secret is malformed, or the tolerance is negative, infinite or NaN.
            ArgumentTypeError: An argument has a wrong type.
        """
        _signatures.verify(
            headers,
            body,
            secret.key if isinstance(secret, WebhookSigningSecret) else secret,
            tolerance=tolerance,
            now=time.time(),
        )

    def unwrap(
        self,
        headers: Mapping[str, str],
        body: bytes | str,
        secret: str | WebhookSigningSecret,
        tolerance: float | None = 300,
    ) -> Prediction | Training:
        """Verify the signature of a webhook delivery, and return the prediction or training in it.

        Deliveries can arrive more than once and out of order; compare `id` and `status` with what is already known
        (:api:`webhook-delivery`).

        Args:
            headers: Headers of the delivery; the case of their names does not matter.
            body: Body of the delivery, exactly as received. Do not decode and re-encode the JSON.
            secret: Signing secret of the account: `whsec_...`, or the result of `webhooks.default.secret()`.
            tolerance: Maximum difference between the signed timestamp and the current time, in seconds;
                `None` for no limit.

        Returns:
            The prediction or training, as of the time of the delivery.

        Raises:
            InvalidSignature: The delivery is not signed with the secret, or its timestamp is out of tolerance.
            ArgumentError: The body is not a prediction or training, the secret is malformed, or the tolerance is
                negative, infinite or NaN.
            ArgumentTypeError: An argument has a wrong type.
        """
        self.validate(headers, body, secret, tolerance)
        try:
            data = decode_json(body.encode() if isinstance(body, str) else bytes(body))
            made: Prediction | Training = (
                structure(data, Training) if _is_training(data) else structure(data, Prediction)
            )
        except ValueError as error:
            raise ArgumentError("body", str(error)) from error
        return self._context.bind(made)


def _is_training(data: object) -> bool:
    """Tell a training from a prediction: they differ only in their URLs and output (:api:`training-object`)."""
    if not isinstance(data, dict):
        return False
    urls, output = data.get("urls"), data.get("output")
    if isinstance(urls, dict) and "/trainings/" in str(urls.get("get", "")):
        return True
    return isinstance(output, dict) and {"version", "weights"} >= output.keys() > set()
