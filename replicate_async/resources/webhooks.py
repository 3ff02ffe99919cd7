"""Webhooks: their secret, and whether a delivery is genuine (:api:`webhooks`)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import attrs

from .. import _signatures
from .._codec import decode_json, structure
from .._http.call import Call
from .._jobs.prediction import Prediction
from .._jobs.training import Training
from ..exceptions import ArgumentError, ArgumentTypeError
from ..types import Record
from ._base import Namespace

__all__ = ("DefaultWebhook", "WebhookSigningSecret", "Webhooks")


@attrs.define(eq=False)
class WebhookSigningSecret(Record):
    """The secret that webhooks are signed with (:api:`webhooks.default.secret.get`)."""

    key: str = attrs.field(repr=False)
    """The secret, `whsec_...`."""


class DefaultWebhook(Namespace):
    """What all webhooks of the account share."""

    async def secret(self) -> WebhookSigningSecret:
        """Fetch the signing secret; keep it. Calls :api:`webhooks.default.secret.get`."""
        return await self._context.fetch(
            WebhookSigningSecret, Call("GET", "/webhooks/default/secret")
        )


class Webhooks(Namespace):
    """Webhooks: their secret, and whether a delivery is genuine (:api:`webhooks`)."""

    @property
    def default(self) -> DefaultWebhook:
        """What all webhooks of the account share."""
        return DefaultWebhook(self._context)

    def validate(
        self,
        headers: Mapping[str, str],
        body: bytes | str,
        secret: str | WebhookSigningSecret,
        tolerance: float | None = 300,
    ) -> None:
        """Return if a delivery comes from Replicate (:api:`webhook-signature`).

        Args:
            headers: The request's headers, in any case.
            body: The request's body, byte for byte as it came.
            secret: The signing secret.
            tolerance: How many seconds old, or ahead, it may be; None: any.

        Raises:
            InvalidSignature: It does not come from Replicate, or it is a replay.
        """
        if not isinstance(body, (bytes, bytearray, memoryview, str)):
            raise ArgumentTypeError(
                "body", f"expected the bytes as they came, got {type(body).__name__}"
            )
        key = secret if isinstance(secret, str) else secret.key
        _signatures.verify(
            headers,
            body if isinstance(body, str) else bytes(body),
            key,
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
        """Return what a delivery is about, after `validate`.

        Deliveries may be repeated and may overtake each other: go by the id and the status.

        Raises:
            InvalidSignature: It does not come from Replicate, or it is a replay.
            ArgumentError: The body is no prediction and no training.
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
    """Tell a training from a prediction: only its URLs, or what it made, differ (:api:`training-object`)."""
    if not isinstance(data, dict):
        return False
    urls, output = data.get("urls"), data.get("output")
    if isinstance(urls, dict) and "/trainings/" in str(urls.get("get", "")):
        return True
    return isinstance(output, dict) and {"version", "weights"} >= output.keys() > set()
