"""Webhooks: the signing secret, and the verification of deliveries."""

from __future__ import annotations

import time
from typing import Any

import attrs

import replicate_async

from ..exceptions import ArgumentError, InvalidSignature
from ..exceptions import ReplicateException as _ReplicateException
from ._objects import Namespace, Resource, received

__all__ = (
    "InvalidSecretKeyError",
    "InvalidSignatureError",
    "InvalidTimestampError",
    "MissingWebhookBodyError",
    "MissingWebhookHeaderError",
    "WebhookSigningSecret",
    "WebhookValidationError",
    "Webhooks",
)


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class WebhookSigningSecret(Resource):
    """The secret that webhooks are signed with."""

    key: str = attrs.field(repr=False)
    """The secret, `whsec_...`."""


class WebhookValidationError(_ReplicateException, ValueError):
    """A delivery is not genuine, or cannot be verified."""


class MissingWebhookHeaderError(WebhookValidationError):
    """A header of the delivery is missing."""


class InvalidSecretKeyError(WebhookValidationError):
    """The secret is malformed."""


class MissingWebhookBodyError(WebhookValidationError):
    """The delivery has no body."""


class InvalidTimestampError(WebhookValidationError):
    """The timestamp is malformed or out of tolerance."""


class InvalidSignatureError(WebhookValidationError):
    """The signature is not that of the delivery."""


class Webhooks(Namespace):
    """Webhooks: the signing secret, and the verification of deliveries."""

    @property
    def default(self) -> Webhooks.Default:
        """The webhooks of the account."""
        return self.Default(self._client)

    class Default(Namespace):
        """The webhooks of the account."""

        def secret(self) -> WebhookSigningSecret:
            """Fetch the signing secret. Calls :api:`webhooks.default.secret.get`."""
            found = self._client.call(lambda api: api.webhooks.default.secret())
            return received(WebhookSigningSecret, found)

        async def async_secret(self) -> WebhookSigningSecret:
            """Fetch the signing secret. Calls :api:`webhooks.default.secret.get`."""
            found = await self._client.async_call(lambda api: api.webhooks.default.secret())
            return received(WebhookSigningSecret, found)

    @staticmethod
    def validate(
        request: Any = None,
        headers: Any = None,
        body: str | bytes | None = None,
        secret: WebhookSigningSecret | None = None,
        tolerance: int | None = None,
    ) -> None:
        """Verify the signature of a delivery.

        Args:
            request: The request: anything with `headers` and `content`, such as an `httpx.Request`.
            headers: Instead of it, the headers,
            body: and the body, exactly as received.
            secret: The signing secret.
            tolerance: Maximum age of the delivery in seconds; None for no limit.

        Raises:
            MissingWebhookHeaderError: A header is missing.
            MissingWebhookBodyError: The body is empty.
            InvalidSecretKeyError: The secret is malformed.
            InvalidTimestampError: The timestamp is malformed or out of tolerance.
            InvalidSignatureError: The delivery is not signed with the secret.
        """
        if not secret:
            raise ArgumentError("secret", "there is no signing secret")
        if request is not None and (headers or body):
            raise ArgumentError("request", "expected a request, or headers and a body, got both")
        if request is not None:
            headers, body = request.headers, request.content
        if not headers:
            raise MissingWebhookHeaderError("Missing webhook headers")
        known = {str(name).lower(): value for name, value in dict(headers).items()}
        for name in ("id", "timestamp", "signature"):
            if not known.get(f"webhook-{name}"):
                raise MissingWebhookHeaderError(f"Missing webhook {name}")
        if not body:
            raise MissingWebhookBodyError("Missing webhook body")
        _check_time(str(known["webhook-timestamp"]), tolerance)
        _check_signature(known, body, secret.key)


def _check_time(timestamp: str, tolerance: int | None) -> None:
    if tolerance is None:
        return
    try:
        age = abs(int(time.time()) - int(timestamp))
    except ValueError:
        raise InvalidTimestampError(f"Webhook timestamp {timestamp!r} is not a number") from None
    if age > tolerance:
        raise InvalidTimestampError(
            f"Webhook timestamp is outside the allowed tolerance of {tolerance} seconds"
        )


def _check_signature(headers: dict[str, Any], body: str | bytes, key: str) -> None:
    if len(key.split("_")) != 2:
        raise InvalidSecretKeyError("Invalid secret key format")
    try:
        replicate_async.webhooks.validate(headers, body, key, None)
    except InvalidSignature as error:
        raise InvalidSignatureError(f"Webhook signature is invalid ({error})") from error
    except ArgumentError as error:
        raise InvalidSecretKeyError(str(error)) from error
