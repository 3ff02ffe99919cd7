"""Operations on models, versions, deployments, collections, hardware, account and search.

See :api:`models`, :api:`versions`, :api:`deployments`, :api:`collections`, :api:`search-results`,
:api:`hardware`, :api:`account` and :api:`webhooks.default.secret.get`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web

from ._clock import NANOSECONDS
from ._http import Call, Fields, answer, page_answer
from ._lifecycle import Engine
from ._problems import Problem, forbidden, not_found_django, refused
from ._store import Deployment, Model, Release, Store, Version, by_created
from ._views import Views

HARDWARE: Mapping[str, str] = {
    "cpu": "CPU",
    "gpu-a100-large": "Nvidia A100 (80GB) GPU",
    "gpu-a100-large-2x": "2x Nvidia A100 (80GB) GPU",
    "gpu-h100": "Nvidia H100 GPU",
    "gpu-l40s": "Nvidia L40S GPU",
    "gpu-l40s-2x": "2x Nvidia L40S GPU",
}
"""Names of the SKUs that models and deployments can have."""
MAX_MIN_INSTANCES = 5
MAX_MAX_INSTANCES = 20
UNUSED = 15 * 60
"""Seconds that a deployment must have been unused before it can be deleted."""
PAGES = (
    ("Getting started with Python", "/docs/get-started/python"),
    ("Streaming output", "/docs/topics/predictions/streaming"),
    ("Fine-tune an image model", "/docs/guides/fine-tune-an-image-model"),
    ("Webhooks", "/docs/topics/webhooks"),
)

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_VISIBILITY = ("public", "private")
_SORT_KEYS = ("latest_version_created_at", "model_created_at")
_URLS = ("github_url", "paper_url", "license_url", "cover_image_url")
_MICROSECOND = 1000


class CatalogApi:
    """Handlers of everything that is neither a prediction nor a file."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        views: Views,
        url: str,
        page_sizes: Mapping[str, int],
    ) -> None:
        self._store = store
        self._engine = engine
        self._views = views
        self._url = url
        self._sizes = page_sizes

    # --- account, hardware, webhook secret

    async def account(self, call: Call) -> web.StreamResponse:
        """Return the account of the token (:api:`account.get`)."""
        return answer(self._views.account(call.account))

    async def hardware(self, call: Call) -> web.StreamResponse:
        """Return the SKUs as a bare array (:api:`hardware.list`)."""
        del call
        return answer([{"sku": sku, "name": name} for sku, name in HARDWARE.items()])

    async def webhook_secret(self, call: Call) -> web.StreamResponse:
        """Return the key of webhook signatures (:api:`webhooks.default.secret.get`)."""
        return answer({"key": call.account.webhook_secret})

    # --- collections and search

    async def list_collections(self, call: Call) -> web.StreamResponse:
        """Return a page of collections (:api:`collections.list`)."""
        return self._ranked(
            call, list(self._store.collections.values()), self._views.collection, "collections"
        )

    async def get_collection(self, call: Call) -> web.StreamResponse:
        """Return a collection with its models (:api:`collections.get`)."""
        collection = self._store.collections.get(call.parameters[0])
        if collection is None:
            raise not_found_django()
        models = [model for model in collection.models if model.visibility == "public"]
        return answer(self._views.collection(collection, models=models))

    async def search(self, call: Call) -> web.StreamResponse:
        """Search models, collections and pages (:api:`search`)."""
        text, limit = call.query.get("query", ""), call.query.get("limit", "20")
        if not text.strip():
            raise Problem(400, {"detail": 'Query parameter "query" is required'})
        if not limit.isdecimal() or not 1 <= int(limit) <= 50:
            raise Problem(400, {"detail": 'Query parameter "limit" must be between 1 and 50'})
        words = _words(text)
        return answer(
            {
                "query": text,
                "models": [
                    {
                        "model": self._views.model(model),
                        "metadata": {
                            "generated_description": model.description,
                            "score": score,
                            "tags": list(model.tags),
                        },
                    }
                    for score, model in self._found(text)[: int(limit)]
                ],
                "collections": [
                    {
                        **self._views.collection(collection),
                        "models": [model.full_name for model in collection.models],
                    }
                    for collection in list(self._store.collections.values())
                    if words & _words(f"{collection.name} {collection.description}")
                ],
                "pages": [
                    {"name": name, "href": href} for name, href in PAGES if words & _words(name)
                ],
            }
        )

    def _found(self, text: str) -> list[tuple[float, Model]]:
        """Return public models that share a word with *text* or contain it, best first."""
        words = _words(text)
        found: list[tuple[float, Model]] = []
        for model in self._public():
            known = _words(f"{model.owner} {model.name} {model.description or ''}")
            known.update(model.tags)
            score = len(words & known) / max(len(words), 1)
            if text.strip().lower() in f"{model.full_name} {model.description or ''}".lower():
                score += 1.0
            if score:
                found.append((score, model))
        found.sort(key=lambda pair: -pair[0])
        return found

    # --- models

    async def list_models(self, call: Call) -> web.StreamResponse:
        """Return a page of public models (:api:`models.list`)."""
        fields = Fields(dict(call.query))
        by = fields.text("sort_by", choices=_SORT_KEYS) or _SORT_KEYS[0]
        direction = fields.text("sort_direction", choices=("asc", "desc")) or "desc"
        fields.done()

        def key(model: Model) -> int:
            latest = model.latest
            return model.created if by == "model_created_at" or latest is None else latest.created

        return page_answer(
            call,
            self._url,
            sorted(self._public(), key=key),
            key,
            self._views.model,
            size=self._sizes["models"],
            descending=direction == "desc",
        )

    async def search_models(self, call: Call) -> web.StreamResponse:
        """Search models; the text comes bare or JSON-encoded (:api:`models.search`)."""
        text = (await call.body()).decode(errors="replace")
        if text[:1] == '"':
            with suppress(ValueError):
                text = str(json.loads(text))
        models = [model for _, model in self._found(text)] if text.strip() else self._public()
        return self._ranked(
            call, models, lambda model: self._views.model(model, official=False), "search"
        )

    async def create_model(self, call: Call) -> web.StreamResponse:
        """Create a model without versions (:api:`models.create`)."""
        fields = Fields(await call.object())
        owner = fields.text("owner", required=True)
        name = fields.text("name", required=True)
        visibility = fields.text("visibility", required=True, choices=_VISIBILITY)
        hardware = fields.hardware([*HARDWARE], required=True)
        description = fields.text("description")
        for link in _URLS:
            fields.text(link, url=True)
        if name and not _NAME.fullmatch(name):
            fields.errors.append(("name", "Enter a valid model name."))
        fields.done()
        if owner != call.account.username:
            raise forbidden()
        if f"{owner}/{name}" in self._store.models:
            fields.errors.append(("name", "A model with that name and owner already exists."))
            fields.fail(status=409)
        model = Model(
            owner=call.account.username,
            name=name or "",
            created=self._store.tick(),
            visibility="private" if visibility == "private" else "public",
            description=description,
            hardware=hardware or "",
            github_url=fields.text("github_url"),
            paper_url=fields.text("paper_url"),
            license_url=fields.text("license_url"),
            cover_image_url=fields.text("cover_image_url"),
        )
        self._store.models[model.full_name] = model
        return answer(self._views.model(model), 201)

    async def get_model(self, call: Call) -> web.StreamResponse:
        """Return a model (:api:`models.get`)."""
        return answer(self._views.model(self._model(call)))

    async def update_model(self, call: Call) -> web.StreamResponse:
        """Change a model's texts and links (:api:`models.update`)."""
        model = self._own_model(call)
        fields = Fields(await call.object())
        texts = {name: fields.text(name) for name in ("description", "readme")}
        links = ("github_url", "paper_url", "weights_url", "license_url")
        texts.update((name, fields.text(name, url=True)) for name in links)
        fields.done()
        for name, text in texts.items():
            if text is not None:
                setattr(model, name, text)
        return answer(self._views.model(model))

    async def delete_model(self, call: Call) -> web.StreamResponse:
        """Remove a private model without versions (:api:`models.delete`)."""
        model = self._own_model(call)
        if model.visibility != "private":
            raise refused("You can only delete private models.")
        if model.versions:
            raise refused("You can only delete models without versions.")
        del self._store.models[model.full_name]
        return web.Response(status=204)

    async def list_examples(self, call: Call) -> web.StreamResponse:
        """Return a page of a model's examples (:api:`models.examples.list`)."""
        model = self._model(call)
        return page_answer(
            call,
            self._url,
            model.examples,
            by_created,
            lambda example: self._views.prediction_bytes(example, "django"),
            size=self._sizes["examples"],
        )

    async def readme(self, call: Call) -> web.StreamResponse:
        """Return a model's README as plain text (:api:`models.readme.get`)."""
        model = self._model(call)
        if model.readme is None:
            raise not_found_django()
        return web.Response(
            body=model.readme.encode(), headers={"Content-Type": "text/plain; charset=utf-8"}
        )

    # --- versions

    async def list_versions(self, call: Call) -> web.StreamResponse:
        """Return a page of versions; official models show none (:api:`models.versions.list`)."""
        model = self._model(call)
        return page_answer(
            call,
            self._url,
            [] if model.official else list(model.versions),
            by_created,
            self._views.version,
            size=self._sizes["versions"],
        )

    async def get_version(self, call: Call) -> web.StreamResponse:
        """Return a version (:api:`models.versions.get`)."""
        return answer(self._views.version(self._version(call)))

    async def delete_version(self, call: Call) -> web.StreamResponse:
        """Remove a version and its predictions (:api:`models.versions.delete`)."""
        model, version = self._own_model(call), self._version(call)
        if model.visibility != "private":
            raise refused("You can only delete versions of private models.")
        if version.runners - {call.account.username}:
            raise refused("Somebody else has run this version.")
        if version.trained_from:
            raise refused("This version is the base of a training.")
        if any(d.release.version is version for d in call.account.deployments.values()):
            raise refused("A deployment uses this version.")
        for prediction in self._store.forget_version(version):
            self._engine.cancel(prediction)
        return web.Response(status=202)

    # --- deployments

    async def list_deployments(self, call: Call) -> web.StreamResponse:
        """Return a page of deployments (:api:`deployments.list`)."""
        return page_answer(
            call,
            self._url,
            list(call.account.deployments.values()),
            by_created,
            self._views.deployment,
            size=self._sizes["deployments"],
        )

    async def create_deployment(self, call: Call) -> web.StreamResponse:
        """Create a deployment; the answer is a 200 (:api:`deployments.create`)."""
        fields = Fields(await call.object())
        name = fields.text("name", required=True)
        full_name = fields.text("model", required=True) or ""
        version_id = fields.text("version", required=True)
        hardware = fields.hardware([*HARDWARE], required=True)
        least = fields.number("min_instances", 0, MAX_MIN_INSTANCES, required=True)
        most = fields.number("max_instances", 0, MAX_MAX_INSTANCES, required=True)
        fields.done()
        owner, _, model_name = full_name.partition("/")
        model = self._store.visible_model(owner, model_name, call.account)
        version = None if model is None else self._store.find_version(version_id or "", model)
        if name in call.account.deployments:
            fields.errors.append(("name", "A deployment with that name already exists."))
        if model is None:
            fields.errors.append(("model", "The specified model does not exist."))
        elif version is None:
            fields.errors.append(("version", "The specified version does not exist."))
        fields.done()
        if name is None or model is None or version is None:  # unreachable: checked above
            raise not_found_django()
        created = self._store.tick()
        deployment = Deployment(
            account=call.account,
            name=name,
            created=created,
            release=Release(1, model, version, created, hardware or "", least or 0, most or 0),
        )
        call.account.deployments[name] = deployment
        return answer(self._views.deployment(deployment))

    async def get_deployment(self, call: Call) -> web.StreamResponse:
        """Return a deployment (:api:`deployments.get`)."""
        return answer(self._views.deployment(self._deployment(call)))

    async def update_deployment(self, call: Call) -> web.StreamResponse:
        """Make a new release; with both limits 0 it is disabled (:api:`deployments.update`)."""
        deployment = self._deployment(call)
        old = deployment.release
        fields = Fields(await call.object())
        version_id = fields.text("version")
        hardware = fields.hardware([*HARDWARE], required=False)
        least = fields.number("min_instances", 0, MAX_MIN_INSTANCES, required=False)
        most = fields.number("max_instances", 0, MAX_MAX_INSTANCES, required=False)
        version: Version | None = old.version
        if version_id is not None:
            version = self._store.find_version(version_id, old.model)
        if version is None:
            fields.errors.append(("version", "The specified version does not exist."))
            version = old.version
        fields.done()
        deployment.release = Release(
            old.number + 1,
            old.model,
            version,
            self._store.tick(),
            hardware or old.hardware,
            old.min_instances if least is None else least,
            old.max_instances if most is None else most,
        )
        if not deployment.enabled:
            for prediction in list(call.account.predictions):
                if prediction.deployment is deployment:
                    self._engine.cancel(prediction)
        return answer(self._views.deployment(deployment))

    async def delete_deployment(self, call: Call) -> web.StreamResponse:
        """Remove a deployment that is offline and unused (:api:`deployments.delete`)."""
        deployment = self._deployment(call)
        used = deployment.last_used
        recently = used is not None and (self._store.clock.time_ns() < used + UNUSED * NANOSECONDS)
        if recently or deployment.release.min_instances > 0:
            raise refused(
                "Deployments must be offline and unused for at least 15 minutes before they can"
                " be deleted."
            )
        del call.account.deployments[deployment.name]
        return web.Response(status=204)

    # --- look-ups

    def _public(self) -> list[Model]:
        return [m for m in list(self._store.models.values()) if m.visibility == "public"]

    def _model(self, call: Call) -> Model:
        model = self._store.visible_model(call.parameters[0], call.parameters[1], call.account)
        if model is None:
            raise not_found_django()
        return model

    def _own_model(self, call: Call) -> Model:
        model = self._model(call)
        if model.owner != call.account.username:
            raise forbidden()
        return model

    def _version(self, call: Call) -> Version:
        version = self._store.find_version(call.parameters[2], self._model(call))
        if version is None:
            raise not_found_django()
        return version

    def _deployment(self, call: Call) -> Deployment:
        owner, name = call.parameters
        deployment = call.account.deployments.get(name)
        if deployment is None or owner != call.account.username:
            raise not_found_django()
        return deployment

    def _ranked(
        self, call: Call, items: Sequence[Any], view: Any, sizes: str
    ) -> web.StreamResponse:
        """Return a page of items that stand in an order of their own."""
        return page_answer(
            call,
            self._url,
            list(enumerate(items)),
            lambda pair: pair[0] * _MICROSECOND,
            lambda pair: view(pair[1]),
            size=self._sizes[sizes],
            descending=False,
        )


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))
