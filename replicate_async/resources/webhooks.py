"""Webhooks: signing secret, and verification of deliveries (:api:`webhooks`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import attrs

from .. import _signatures
from .._arguments import check_http_url, check_webhook, timeout_seconds
from .._codec import decode_json
from .._http.call import Call
from .._jobs.prediction import Prediction
from .._jobs.training import Training
from .._web.backplane import Backplane
from .._web.deliveries import job_in
from .._web.forwarding import Forwarder
from .._web.receiver import Receiver
from ..exceptions import ArgumentError, ArgumentTypeError
from ..types import ForwardedDelivery, Record
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
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]],
        body: bytes | str,
        secret: str | WebhookSigningSecret,
        tolerance: float | timedelta | None = 300,
    ) -> None:
        """Verify the signature of a webhook delivery (:api:`webhook-signature`).

        Returns if it is valid, and raises if it is not.

        Args:
            headers: Headers of the delivery: a mapping, or the pairs of bytes of ASGI. The case of their names does not
                matter.
            body: Body of the delivery, exactly as received. Do not decode and re-encode the JSON.
            secret: Signing secret of the account: `whsec_...`, or the result of `webhooks.default.secret()`.
            tolerance: Maximum difference between the signed timestamp and the current time, in seconds or as a
                timedelta; `None` for no limit.

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
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]],
        body: bytes | str,
        secret: str | WebhookSigningSecret,
        tolerance: float | timedelta | None = 300,
    ) -> Prediction | Training:
        """Verify the signature of a webhook delivery, and return the prediction or training in it.

        Deliveries can arrive more than once and out of order; compare `id` and `status` with what is already known
        (:api:`webhook-delivery`).

        Args:
            headers: Headers of the delivery: a mapping, or the pairs of bytes of ASGI. The case of their names does not
                matter.
            body: Body of the delivery, exactly as received. Do not decode and re-encode the JSON.
            secret: Signing secret of the account: `whsec_...`, or the result of `webhooks.default.secret()`.
            tolerance: Maximum difference between the signed timestamp and the current time, in seconds or as a
                timedelta; `None` for no limit.

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
            return job_in(self._context, data)
        except ValueError as error:
            raise ArgumentError("body", str(error)) from error

    def receiver(
        self,
        *,
        url: str,
        secrets: str | Sequence[str] | None = None,
        backplane: Backplane | None = None,
        tolerance: float = 300,
        poll_interval: float = 10,
    ) -> Receiver:
        """Create a receiver of webhooks, to mount in a web app.

        ```python
        receiver = client.webhooks.receiver(url="https://app.example/replicate")
        app.add_route("/replicate", receiver.asgi)  # FastAPI, Starlette
        output = await client.run("owner/name", {"prompt": "a red square"}, via=receiver)
        ```

        Args:
            url: HTTPS URL at which the receiver is mounted, as seen by the service.
            secrets: Signing secrets; with several, as while one replaces the other, any may match. Defaults to the
                environment variable `REPLICATE_WEBHOOK_SECRET`, then to the secret of the account, which is
                fetched once, and again if no signature matches.
            backplane: What the processes of the app share, such as a `RedisBackplane`. With one, a delivery
                reaches the process that waits for it, and duplicates are dropped in all. Without one, runs whose
                delivery went to another process end at their next poll.
            tolerance: Maximum age of a delivery in seconds.
            poll_interval: Seconds between two polls of a run that waits for its delivery: deliveries are repeated
                for about a minute only.

        Returns:
            The receiver. It ends with the client.

        Raises:
            ArgumentError: The URL is not an HTTPS URL, a secret is malformed, or a number is out of range.
            ArgumentTypeError: An argument has a wrong type.
        """
        if not isinstance(url, str):
            raise ArgumentTypeError("url", f"expected an HTTPS URL, got {url!r}")
        if not url.lower().startswith("https://"):
            raise ArgumentError("url", f"expected an HTTPS URL, got {url!r}")
        check_webhook(url, "url")

        async def fetch_secret() -> str:
            return (await self.default.secret()).key

        return Receiver(
            self._context,
            url,
            secrets=secrets,
            fetch_secret=fetch_secret,
            backplane=backplane,
            tolerance=timeout_seconds(tolerance, "tolerance") or 300.0,
            poll_interval=timeout_seconds(poll_interval, "poll_interval") or 10.0,
        )

    async def forward(
        self,
        url: str,
        *,
        interval: float = 2,
        everything: bool = False,
        report: Callable[[ForwardedDelivery], object] | None = None,
    ) -> None:
        """Deliver the account's webhooks to a server of this machine, until cancelled; no tunnel is needed.

        Predictions and trainings that run now or begin later are polled, and what the service would deliver for
        them is posted, signed with the secret of the account. Final states are repeated for about a minute, until
        they are accepted. Calls :api:`webhooks.default.secret.get`, :api:`predictions.list`,
        :api:`predictions.get`, :api:`trainings.list` and :api:`trainings.get`.

        Args:
            url: URL of the server, such as `http://localhost:8000/replicate`.
            interval: Seconds between two looks.
            everything: Whether to deliver for predictions and trainings that have no webhook, too.
            report: Function to call after each attempt.

        Raises:
            ArgumentError: An argument has an invalid value; nothing was sent.
            ReplicateError: The API returned an error.
        """
        check_http_url(url, "url")
        pause = timeout_seconds(interval, "interval") or 2.0
        secret = (await self.default.secret()).key
        forwarder = Forwarder(self._context, url, secret, everything=everything, report=report)
        await forwarder.run(pause)
