"""Operations on predictions and trainings (:api:`predictions` and :api:`trainings`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from aiohttp import web

from ._authoring import OutputFile
from ._clock import NANOSECONDS
from ._http import Call, answer, page_answer, reject, wrong_type
from ._lifecycle import Engine, data_uri
from ._problems import (
    invalid_version,
    no_credit,
    not_found_django,
    not_found_service,
    refused,
    validation_failed,
)
from ._store import (
    Account,
    Deployment,
    Model,
    Prediction,
    Store,
    Version,
    by_created,
    nanoseconds,
    new_id,
)
from ._validation import Violation
from ._views import Views
from ._webhooks import EVENTS, is_loopback_url

SyncAnswers = Literal["recorded", "final"]
ExpiredAnswers = Literal["starting", "actual"]

RECENT = 5
"""Seconds after completion for which the prediction service, not Django, answers a GET."""
MAX_WAIT = 60
MIN_CANCEL_AFTER = 5
MAX_CANCEL_AFTER = 24 * 3600
WEB_LISTED = 14 * 86400

_PREFER = re.compile(r"wait(?:=([1-9][0-9]?))?")
_CANCEL_AFTER = re.compile(r"(?=.)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_HTTPS_URL = re.compile(r"https://[^\s/?#]+\S*")
_KEYS: dict[str, tuple[type[Any], str]] = {
    "version": (str, "string"),
    "input": (dict, "object"),
    "webhook": (str, "string"),
    "webhook_events_filter": (list, "array"),
    "destination": (str, "string"),
}


_IGNORED = ("stream", "webhook_completed")
"""Old keys, which clients still send."""


class PredictionsApi:
    """Handlers of the namespaces ``predictions`` and ``trainings``.

    Args:
        sync: ``recorded``: a sync create that ends in time answers ``processing`` with files as
            data URIs. ``final``: it answers ``succeeded`` with URLs.
        expired: The status in an answer to a sync create whose wait expired: ``starting`` without
            output, or the ``actual`` one with the output so far.
        list_lag: Seconds before a new prediction appears in the list.
        local_webhooks: Whether webhooks may have ``http:`` URLs of this machine.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        views: Views,
        url: str,
        page_sizes: Mapping[str, int],
        *,
        sync: SyncAnswers,
        expired: ExpiredAnswers,
        list_lag: float,
        local_webhooks: bool,
    ) -> None:
        self._store = store
        self._engine = engine
        self._views = views
        self._url = url
        self._sizes = page_sizes
        self._sync = sync
        self._expired = expired
        self.list_lag = list_lag
        self._local_webhooks = local_webhooks

    # --- creating

    async def create(self, call: Call) -> web.StreamResponse:
        """Run any version, or an official model (:api:`predictions.create`)."""
        body = await call.json()
        reject(self._violations(body, ("version", "input")))
        version, hidden = self._resolve(body["version"], call.account)
        return await self._run(call, body, version, hidden=hidden)

    async def create_on_model(self, call: Call) -> web.StreamResponse:
        """Run an official model (:api:`models.predictions.create`)."""
        owner, name = call.parameters
        body = await call.json()
        model = self._store.visible_model(owner, name, call.account)
        if model is None or not model.official or model.latest is None:
            raise not_found_service()
        reject(self._violations(body, ("input",)))
        return await self._run(call, body, model.latest, hidden=True)

    async def create_on_deployment(self, call: Call) -> web.StreamResponse:
        """Run what a deployment releases (:api:`deployments.predictions.create`)."""
        owner, name = call.parameters
        body = await call.json()
        deployment = call.account.deployments.get(name)
        if deployment is None or owner != call.account.username:
            raise not_found_service()
        reject(self._violations(body, ("input",)))
        if not deployment.enabled:
            raise refused(
                "This deployment is disabled. Set min_instances or max_instances to use it."
            )
        return await self._run(
            call, body, deployment.release.version, hidden=False, deployment=deployment
        )

    def _violations(
        self, body: Any, required: tuple[str, ...], *, closed: bool = True
    ) -> list[Violation]:
        """Check the body of a create (:api:`input-validation` and :api:`create-body`)."""
        if not isinstance(body, dict):
            return [wrong_type("", "object", body)]
        known = {*required, "input", "webhook", "webhook_events_filter"}
        found = [
            Violation("required", "", f"{name} is required")
            for name in required
            if name not in body
        ]
        for name, value in body.items():
            if name not in known:
                if closed and name not in _IGNORED:
                    found.append(
                        Violation(
                            "additional_property_not_allowed",
                            "",
                            f"Additional property {name} is not allowed",
                        )
                    )
                continue
            kind, expected = _KEYS[name]
            if not isinstance(value, kind):
                found.append(wrong_type(name, expected, value))
            elif name == "webhook" and not self._is_webhook(str(value)):
                found.append(Violation("format", name, "Not a valid HTTPS URL"))
            elif name == "webhook_events_filter":
                found.extend(_event_violations(list(value)))
        return found

    def _is_webhook(self, url: str) -> bool:
        if _HTTPS_URL.fullmatch(url):
            return True
        if not (self._local_webhooks and re.fullmatch(r"http://[^\s/?#]+\S*", url)):
            return False
        return is_loopback_url(url)

    def _resolve(self, reference: str, account: Account) -> tuple[Version, bool]:
        """Return the version that a ``version`` field names, and whether its id is hidden."""
        path, colon, version_id = reference.rpartition(":")
        if not colon and "/" in reference:
            model = self._store.visible_model(*_owner_and_name(reference), account)
            if model is None or not model.official or model.latest is None:
                raise invalid_version()
            return model.latest, True
        model = self._store.models.get(path) if colon else None
        if colon and model is None:
            raise invalid_version()
        version = self._store.find_version(version_id, model)
        if version is None:
            raise invalid_version()
        owner, name = version.model.owner, version.model.name
        if self._store.visible_model(owner, name, account) is None:
            raise invalid_version()
        return version, False

    async def _run(
        self,
        call: Call,
        body: dict[str, Any],
        version: Version,
        *,
        hidden: bool,
        deployment: Deployment | None = None,
    ) -> web.StreamResponse:
        headers = call.request.headers
        preference, wait = _preference(headers.getall("Prefer", ()))
        lifetime = _lifetime(headers.get("Cancel-After"))
        _require_credit(call.account)
        reject(version.code.violations(body["input"]))
        prediction = self._new(call.account, version, body)
        prediction.shown_version = "hidden" if hidden else version.id
        prediction.deployment = deployment
        if version.streams:
            prediction.stream_token = new_id() + new_id()
            prediction.events = []
        if lifetime is not None:
            prediction.deadline = prediction.created + lifetime * NANOSECONDS
        self._engine.create(prediction)
        if wait is None:
            return answer(self._views.prediction_bytes(prediction, "service"), 201, service=True)
        response = await self._wait(prediction, wait)
        response.headers["preference-applied"] = preference
        return response

    def _new(self, account: Account, version: Version, body: dict[str, Any]) -> Prediction:
        return Prediction(
            id=new_id(),
            kind="prediction",
            account=account,
            version=version,
            shown_version=version.id,
            input=body["input"],
            created=self._store.tick(),
            model_name=version.model.full_name,
            webhook=body.get("webhook"),
            webhook_events=body.get("webhook_events_filter"),
        )

    async def _wait(self, prediction: Prediction, wait: int) -> web.Response:
        views = self._views
        if not await self._engine.finished(prediction, wait):
            if self._expired == "actual":
                view = views.answer(prediction, status=prediction.status, output=prediction.output)
            else:
                view = views.answer(prediction, status="starting", output=None, logs="")
            return answer(view, 202, service=True)
        self._engine.fetched(prediction)
        if (
            self._sync == "recorded"
            and prediction.status == "succeeded"
            and prediction.output is not None
        ):
            output = _with_data_uris(prediction.output, prediction.files)
            view = views.answer(prediction, status="processing", output=output, logs="")
            return answer(view, 201, service=True)
        return answer(views.prediction_bytes(prediction, "service"), 201, service=True)

    # --- the rest of predictions

    async def get(self, call: Call) -> web.StreamResponse:
        """Return one prediction, in the style that fits its age (:api:`predictions.get`)."""
        prediction = self._mine(call)
        recent = self._views.recent(prediction, RECENT)
        if prediction.kind == "training":
            return answer(self._views.prediction(prediction, "django"))
        if prediction.terminal:
            self._engine.fetched(prediction)
        raw = self._views.prediction_bytes(prediction, "service" if recent else "django")
        return answer(raw, service=recent)

    async def list(self, call: Call) -> web.StreamResponse:
        """Return a page of predictions (:api:`predictions.list`)."""
        query = call.query
        errors: list[tuple[str, str]] = []
        bounds: dict[str, int | None] = {}
        for name in ("created_after", "created_before"):
            text = query.get(name)
            try:
                moment = None if text is None else datetime.fromisoformat(text)
                bounds[name] = None if moment is None else nanoseconds(moment)
            except ValueError:
                errors.append((name, "Enter a valid date/time."))
        source = query.get("source")
        if source not in (None, "web"):
            errors.append(("source", f'"{source}" is not a valid choice.'))
        if errors:
            raise validation_failed(errors)
        items = call.account.predictions
        after, before = bounds["created_after"], bounds["created_before"]
        if self.list_lag:
            visible = self._store.clock.time_ns() - int(self.list_lag * NANOSECONDS)
            before = visible if before is None else min(before, visible)
        if source == "web":
            items = [prediction for prediction in items if prediction.source == "web"]
            oldest = self._store.clock.time_ns() - WEB_LISTED * NANOSECONDS
            after = oldest if after is None else max(after, oldest)
        return page_answer(
            call,
            self._url,
            items,
            by_created,
            lambda prediction: self._views.prediction_bytes(prediction, "list"),
            size=self._sizes["predictions"],
            after=after,
            before=before,
        )

    async def cancel(self, call: Call) -> web.StreamResponse:
        """Cancel a prediction; a terminal one is returned as it is (:api:`predictions.cancel`)."""
        await call.body()
        prediction = self._mine(call)
        self._engine.cancel(prediction)
        self._engine.fetched(prediction)
        return answer(self._views.prediction(prediction, "django"))

    def _mine(self, call: Call, kind: str | None = None) -> Prediction:
        prediction = self._store.predictions.get(call.parameters[0])
        if (
            prediction is None
            or prediction.account is not call.account
            or (kind is not None and prediction.kind != kind)
        ):
            raise not_found_service() if kind is None else not_found_django()
        return prediction

    # --- trainings

    async def create_training(self, call: Call) -> web.StreamResponse:
        """Train a version into a destination model (:api:`trainings.create`)."""
        owner, name, version_id = call.parameters
        body = await call.json()
        model = self._store.visible_model(owner, name, call.account)
        version = None if model is None else self._store.find_version(version_id, model)
        if version is None:
            raise not_found_service()
        reject(self._violations(body, ("destination", "input"), closed=False))
        destination = self._destination(body["destination"], call.account)
        _require_credit(call.account)
        if not version.code.trainable:
            reject([Violation("training", "version", "The version does not support training")])
        reject(version.code.violations(body["input"], component="TrainingInput"))
        training = self._new(call.account, version, body)
        training.kind = "training"
        training.destination = destination
        self._engine.create(training)
        return answer(self._views.prediction(training, "service"), 201, service=True)

    def _destination(self, reference: str, account: Account) -> Model:
        model = self._store.models.get(reference)
        if model is None or model.owner != account.username:
            raise refused("The specified training destination does not exist", status=404)
        return model

    async def list_trainings(self, call: Call) -> web.StreamResponse:
        """Return a page of trainings (:api:`trainings.list`)."""
        return page_answer(
            call,
            self._url,
            call.account.trainings,
            by_created,
            lambda training: self._views.prediction(training, "list"),
            size=self._sizes["trainings"],
        )

    async def get_training(self, call: Call) -> web.StreamResponse:
        """Return one training (:api:`trainings.get`)."""
        return answer(self._views.prediction(self._mine(call, "training"), "django"))

    async def cancel_training(self, call: Call) -> web.StreamResponse:
        """Cancel a training; its URLs then point at predictions (:api:`trainings.cancel`)."""
        await call.body()
        training = self._mine(call, "training")
        self._engine.cancel(training)
        view = self._views.prediction(training, "django")
        view["urls"] = self._views.training_urls(training, "predictions")
        return answer(view)


def _owner_and_name(reference: str) -> tuple[str, str]:
    owner, _, name = reference.partition("/")
    return owner, name


def _require_credit(account: Account) -> None:
    if account.credit in ("none", "no-billing"):
        raise no_credit(billing=account.credit == "none")


def _event_violations(events: list[Any]) -> list[Violation]:
    choices = ", ".join(f'"{event}"' for event in EVENTS)
    return [
        Violation(
            "enum",
            f"webhook_events_filter.{index}",
            f"webhook_events_filter.{index} must be one of the following: {choices}",
        )
        for index, event in enumerate(events)
        if event not in EVENTS
    ]


def _preference(headers: list[str] | tuple[()]) -> tuple[str, int | None]:
    """Return the preference to echo and the seconds to wait; None without one."""
    for header in headers:
        for part in header.split(","):
            preference = part.strip()
            if not preference.startswith("wait"):
                continue
            found = _PREFER.fullmatch(preference)
            if found is None:
                reject([Violation("pattern", "Prefer", f"Not a valid preference: {preference}")])
                continue
            return preference, min(int(found[1] or MAX_WAIT), MAX_WAIT)
    return "", None


def _lifetime(header: str | None) -> int | None:
    """Read ``Cancel-After`` (:api:`deadline`)."""
    if header is None:
        return None
    text = header.strip()
    found = _CANCEL_AFTER.fullmatch(f"{text}s" if text.isdecimal() else text)
    problem = None
    seconds = 0
    if found is None:
        problem = Violation("pattern", "Cancel-After", f"Not a valid duration: {text}")
    else:
        hours, minutes, rest = (int(part or 0) for part in found.groups())
        seconds = hours * 3600 + minutes * 60 + rest
        if seconds < MIN_CANCEL_AFTER:
            problem = Violation(
                "number_gte",
                "Cancel-After",
                f"Must be greater than or equal to {MIN_CANCEL_AFTER}",
            )
        elif seconds > MAX_CANCEL_AFTER:
            problem = Violation(
                "number_lte", "Cancel-After", f"Must be less than or equal to {MAX_CANCEL_AFTER}"
            )
    if problem is not None:
        reject([problem])
    return seconds


def _with_data_uris(output: Any, files: Mapping[str, OutputFile]) -> Any:
    if not files:
        return output
    if isinstance(output, str):
        file = files.get(output)
        return output if file is None else data_uri(file)
    if isinstance(output, list):
        return [_with_data_uris(item, files) for item in output]
    if isinstance(output, dict):
        return {key: _with_data_uris(item, files) for key, item in output.items()}
    return output
