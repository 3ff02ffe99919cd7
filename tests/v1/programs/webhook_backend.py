"""A backend that gets webhooks: their signatures, and the predictions in them."""

import base64
import hashlib
import hmac
import json
import time

import replicate
from replicate.prediction import Prediction
from replicate.webhook import (
    InvalidSignatureError,
    InvalidTimestampError,
    MissingWebhookHeaderError,
    Webhooks,
    WebhookSigningSecret,
    WebhookValidationError,
)

secret = replicate.webhooks.default.secret()
print(type(secret).__name__, secret.key.startswith("whsec_"))

version = replicate.models.get("replicate/hello-world").latest_version
prediction = replicate.predictions.create(
    version=version,
    input={"text": "hook"},
    webhook="https://example.com/hook",
    webhook_events_filter=["completed"],
)
prediction.wait()
body = prediction.json()
payload = Prediction(**{**json.loads(body), "unknown": 1})
print(payload.status, payload.output, payload == prediction, hasattr(payload, "unknown"))


def headers(text: str, when: float) -> dict:
    stamp = str(int(when))
    key = base64.b64decode(secret.key.split("_")[1])
    digest = hmac.new(key, f"msg_1.{stamp}.{text}".encode(), hashlib.sha256).digest()
    return {
        "Webhook-Id": "msg_1",
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


print(Webhooks.validate(headers=headers(body, time.time()), body=body, secret=secret))
print(replicate.webhooks.validate(headers=headers(body, 0), body=body, secret=secret))
for name, arguments in {
    "other body": {"headers": headers("x", time.time()), "body": body},
    "old": {"headers": headers(body, 0), "body": body, "tolerance": 300},
    "no headers": {"headers": {}, "body": body},
}.items():
    try:
        Webhooks.validate(secret=secret, **arguments)
    except (InvalidSignatureError, InvalidTimestampError, MissingWebhookHeaderError) as error:
        print(name, type(error).__name__, isinstance(error, (WebhookValidationError, ValueError)))
print(WebhookSigningSecret(key="whsec_x").key)
