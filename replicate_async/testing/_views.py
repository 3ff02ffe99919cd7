"""JSON representations of records, in both styles of the API.

They rest on :api:`json-styles`, :api:`prediction-object`, :api:`webhook-delivery`, :api:`file-object`, :api:`model-object`, :api:`version-object`, :api:`deployment-object` and :api:`training-object`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from ._clock import NANOSECONDS
from ._store import (
    RETENTION,
    Account,
    Collection,
    Deployment,
    File,
    Model,
    Prediction,
    Status,
    Version,
)

Style = Literal["service", "django", "list", "webhook"]
JSON = dict[str, Any]

_WEB = "https://replicate.com"
_MILLISECOND = 1_000_000
_MAX_STYLE_SHIFT = 33
"""The two styles were recorded 33 ms apart for one prediction."""


_MOST_LEVELS = 400
"""Levels of nesting in JSON, far below what the interpreter can handle."""


def check_depth(value: object) -> None:
    """Check that a JSON value is not nested too deep.

    Raises:
        ValueError: It is.
    """
    level = [value]
    for _ in range(_MOST_LEVELS + 1):
        level = [
            item
            for each in level
            if isinstance(each, (list, dict))
            for item in (each if isinstance(each, list) else each.values())
        ]
        if not level:
            return
    raise ValueError(f"JSON that is nested deeper than {_MOST_LEVELS} levels")


def encode(value: object) -> bytes:
    """Return JSON as the service sends it: compact UTF-8.

    Raises:
        ValueError: The value holds a number that JSON cannot express.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates can only be sent escaped
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


@lru_cache(maxsize=4096)
def _seconds(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(time: int, digits: int, *, trim: bool = False) -> str:
    """Return a time in nanoseconds as RFC 3339.

    Args:
        time: Nanoseconds since the epoch.
        digits: Fraction digits, at most 9.
        trim: Drop trailing zeros.
    """
    seconds, rest = divmod(time, NANOSECONDS)
    fraction = f"{rest:09d}"[:digits]
    if trim:
        fraction = fraction.rstrip("0")
    return f"{_seconds(seconds)}.{fraction}Z" if fraction else f"{_seconds(seconds)}Z"


def stamp_or_null(time: int | None, digits: int) -> str | None:
    """Return `stamp`, or None."""
    return None if time is None else stamp(time, digits)


class Views:
    """Makes JSON objects with the URLs of one emulator.

    Args:
        url: Base URL of the API, without ``/v1``.
        stream_url: Origin of streams.
        now: Returns the emulated time in nanoseconds.
    """

    def __init__(self, url: str, stream_url: str, now: Callable[[], int]) -> None:
        self.api = f"{url}/v1"
        self.stream_url = stream_url
        self._now = now

    # --- predictions and trainings

    def prediction_bytes(self, prediction: Prediction, style: Style) -> bytes:
        """Return the encoded prediction, which is made once for each of its states."""
        known = prediction.encoded.get(style)
        if known is not None and known[0] == prediction.revision:
            return known[1]
        raw = encode(self.prediction(prediction, style))
        prediction.encoded[style] = (prediction.revision, raw)
        return raw

    def prediction(self, prediction: Prediction, style: Style) -> JSON:
        """Return a prediction or training in one of the styles."""
        if prediction.kind == "training":
            return self._training(prediction, style)
        if style == "service":
            return self._service(prediction)
        return self._django(prediction, style)

    def answer(
        self, prediction: Prediction, *, status: Status, output: Any, logs: str | None = None
    ) -> JSON:
        """Return the answer to a sync create: unfinished, whatever the prediction is by now."""
        view = self._service(prediction)
        view.update(status=status, output=output)
        if logs is not None:
            view["logs"] = logs
        for key in ("completed_at", "metrics"):
            view.pop(key, None)
        if status == "starting":
            view.pop("started_at", None)
        return view

    def _service(self, prediction: Prediction) -> JSON:
        p = prediction
        view: JSON = {"id": p.id, "model": p.model_name, "version": p.shown_version}
        if p.deployment is not None:
            view["deployment"] = p.deployment.name
        view["input"] = {key: p.input[key] for key in sorted(p.input)}
        view["logs"] = p.logs
        view["output"] = p.output
        view["data_removed"] = p.data_removed
        view["error"] = p.error
        view["source"] = p.source
        view["status"] = p.status
        view["created_at"] = stamp(self._service_created(p), 3, trim=True)
        if p.deadline is not None:
            view["deadline"] = stamp(p.deadline, 3, trim=True)
        if p.started is not None:
            view["started_at"] = stamp(p.started, 9, trim=True)
        if p.completed is not None:
            view["completed_at"] = stamp(p.completed, 9, trim=True)
            view["metrics"] = p.metrics
        view["urls"] = self._urls(p, stream=True)
        if p.webhook is not None:
            view["webhook"] = p.webhook
        if p.webhook_events is not None:
            view["webhook_events_filter"] = p.webhook_events
        return view

    def _django(self, prediction: Prediction, style: Style) -> JSON:
        p = prediction
        digits = 9 if style == "webhook" else 6
        view: JSON = {
            "completed_at": stamp_or_null(p.completed, digits),
            "created_at": stamp(p.created, 6),
            "data_removed": p.data_removed,
        }
        if p.deadline is not None:
            view["deadline"] = stamp(p.deadline, 6)
        if p.deployment is not None:
            view["deployment"] = p.deployment.name
        view["error"] = p.error
        view["id"] = p.id
        view["input"] = p.input
        if style != "list":
            view["logs"] = "" if p.data_removed else p.logs or None
        view["metrics"] = p.metrics
        if style == "webhook":
            view["model"] = p.model_name
        view["output"] = p.output
        view["started_at"] = stamp_or_null(p.started, digits)
        if style != "webhook":
            view["source"] = p.source
        view["status"] = p.status
        view["urls"] = self._urls(p, stream=style != "list")
        if style != "webhook":
            view["model"] = p.model_name
        view["version"] = p.shown_version
        if style != "list":
            view["webhook"] = p.webhook
        if p.webhook_events is not None:
            view["webhook_events_filter"] = p.webhook_events
        return view

    def _training(self, prediction: Prediction, style: Style) -> JSON:
        p = prediction
        if style == "service":
            return {
                "id": p.id,
                "model": p.model_name,
                "version": p.shown_version,
                "input": {key: p.input[key] for key in sorted(p.input)},
                "logs": p.logs,
                "error": p.error,
                "status": p.status,
                "created_at": stamp(self._service_created(p), 3, trim=True),
                "urls": self.training_urls(p, "predictions"),
                **({} if p.webhook is None else {"webhook": p.webhook}),
            }
        view: JSON = {
            "completed_at": stamp_or_null(p.completed, 6),
            "created_at": stamp(p.created, 6),
            "error": p.error,
            "id": p.id,
            "input": p.input,
            "logs": p.logs or None,
            "metrics": p.metrics,
            "output": p.output,
            "started_at": stamp_or_null(p.started, 6),
            "source": p.source,
            "status": p.status,
            "urls": self.training_urls(p, "trainings"),
            "model": p.model_name,
            "version": p.shown_version,
        }
        if style == "list":
            del view["logs"]
        if p.webhook is not None:
            view["webhook"] = p.webhook
        return view

    def training_urls(self, prediction: Prediction, resource: str) -> dict[str, str]:
        """Return a training's URLs; create and cancel answers point at ``predictions``."""
        get = f"{self.api}/{resource}/{prediction.id}"
        return {"get": get, "cancel": f"{get}/cancel", "web": f"{_WEB}/p/{prediction.id}"}

    def _service_created(self, prediction: Prediction) -> int:
        shift = hash_of(prediction.id) % (_MAX_STYLE_SHIFT + 1)
        return prediction.created - shift * _MILLISECOND

    def _urls(self, p: Prediction, *, stream: bool) -> dict[str, str]:
        get = f"{self.api}/predictions/{p.id}"
        urls = {"cancel": f"{get}/cancel", "get": get}
        if stream and p.stream_token is not None:
            kind = "files" if p.version.code.output_is_file else "streams"
            urls["stream"] = f"{self.stream_url}/v1/{kind}/{p.stream_token}"
        urls["web"] = f"{_WEB}/p/{p.id}"
        return urls

    def recent(self, prediction: Prediction, seconds: float) -> bool:
        """Return whether the prediction service still answers for a prediction."""
        completed = prediction.completed
        return completed is None or self._now() < completed + int(seconds * NANOSECONDS)

    # --- the rest

    def version(self, version: Version) -> JSON:
        """Return a version."""
        return {
            "id": version.id,
            "created_at": stamp(version.created, 6),
            "cog_version": version.cog_version,
            "openapi_schema": version.schema,
        }

    def model(self, model: Model, *, official: bool = True) -> JSON:
        """Return a model; *official* says whether the key ``is_official`` is there."""
        example, latest = model.default_example, model.latest
        view: JSON = {
            "url": f"{_WEB}/{model.full_name}",
            "owner": model.owner,
            "name": model.name,
            "description": model.description,
            "visibility": model.visibility,
            "is_official": model.official,
            "github_url": model.github_url,
            "paper_url": model.paper_url,
            "license_url": model.license_url,
            "run_count": model.run_count,
            "cover_image_url": model.cover_image_url,
            "default_example": None if example is None else self.prediction(example, "django"),
            "latest_version": None if latest is None else self.version(latest),
            "created_at": stamp(model.created, 6),
            "weights_url": model.weights_url,
        }
        if not official:
            del view["is_official"]
        return view

    def account(self, account: Account) -> JSON:
        """Return an account."""
        return {
            "type": account.type,
            "username": account.username,
            "name": account.name,
            "github_url": f"https://github.com/{account.username}",
        }

    def deployment(self, deployment: Deployment) -> JSON:
        """Return a deployment with its current release."""
        release = deployment.release
        return {
            "owner": deployment.account.username,
            "name": deployment.name,
            "current_release": {
                "number": release.number,
                "model": release.model.full_name,
                "version": release.version.id,
                "created_at": stamp(release.created, 6),
                "created_by": self.account(deployment.account),
                "configuration": {
                    "hardware": release.hardware,
                    "min_instances": release.min_instances,
                    "max_instances": release.max_instances,
                },
            },
        }

    def file(self, file: File) -> JSON:
        """Return the metadata of an uploaded file."""
        return {
            "id": file.id,
            "name": file.name,
            "content_type": file.content_type,
            "size": len(file.content),
            "etag": file.md5,
            "checksums": {"sha256": file.sha256, "md5": file.md5},
            "metadata": file.metadata,
            "created_at": stamp(file.created, 3),
            "expires_at": stamp(file.expires, 3),
            "urls": {"get": f"{self.api}/files/{file.id}"},
        }

    def collection(self, collection: Collection, *, models: list[Model] | None = None) -> JSON:
        """Return a collection, with its models if they are given."""
        view: JSON = {
            "name": collection.name,
            "slug": collection.slug,
            "description": collection.description,
        }
        if models is not None:
            view["full_description"] = collection.full_description
            view["models"] = [self.model(model) for model in models]
        return view


def hash_of(text: str) -> int:
    """Return a number that depends on *text* alone."""
    return int.from_bytes(text.encode()[-4:], "big")


def streamable(prediction: Prediction, now: int) -> bool:
    """Return whether a prediction's stream still exists."""
    return prediction.events is not None and now < prediction.created + RETENTION * NANOSECONDS
