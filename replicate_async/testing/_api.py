"""The API's origin: authentication, rate limits, and the way to the handler of an operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from ._api_catalog import CatalogApi
from ._api_files import FilesApi
from ._api_predictions import PredictionsApi
from ._http import PREDICTION_CREATES, Call, Match
from ._ledger import Request
from ._limits import Verdict, throttled_text
from ._problems import Problem, not_allowed, not_found_django, throttled, unauthenticated
from ._store import Account, Store

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

_OPEN = frozenset({"search", "files.download"})
"""Operations that need no token (:api:`authentication`)."""


class Api:
    """Answers requests to ``/v1/…``."""

    def __init__(
        self,
        store: Store,
        default_account: Account,
        catalog: CatalogApi,
        files: FilesApi,
        predictions: PredictionsApi,
    ) -> None:
        self._store = store
        self._default_account = default_account
        self._handlers: dict[str, Handler] = {
            "account.get": catalog.account,
            "collections.list": catalog.list_collections,
            "collections.get": catalog.get_collection,
            "deployments.list": catalog.list_deployments,
            "deployments.create": catalog.create_deployment,
            "deployments.get": catalog.get_deployment,
            "deployments.update": catalog.update_deployment,
            "deployments.delete": catalog.delete_deployment,
            "deployments.predictions.create": predictions.create_on_deployment,
            "files.list": files.list,
            "files.create": files.create,
            "files.get": files.get,
            "files.delete": files.delete,
            "files.download": files.download,
            "hardware.list": catalog.hardware,
            "models.list": catalog.list_models,
            "models.search": catalog.search_models,
            "models.create": catalog.create_model,
            "models.get": catalog.get_model,
            "models.update": catalog.update_model,
            "models.delete": catalog.delete_model,
            "models.examples.list": catalog.list_examples,
            "models.predictions.create": predictions.create_on_model,
            "models.readme.get": catalog.readme,
            "models.versions.list": catalog.list_versions,
            "models.versions.get": catalog.get_version,
            "models.versions.delete": catalog.delete_version,
            "trainings.create": predictions.create_training,
            "predictions.list": predictions.list,
            "predictions.create": predictions.create,
            "predictions.get": predictions.get,
            "predictions.cancel": predictions.cancel,
            "search": catalog.search,
            "trainings.list": predictions.list_trainings,
            "trainings.get": predictions.get_training,
            "trainings.cancel": predictions.cancel_training,
            "webhooks.default.secret.get": catalog.webhook_secret,
        }

    async def handle(
        self, request: web.BaseRequest, record: Request, match: Match
    ) -> web.StreamResponse:
        """Answer one request.

        Raises:
            Problem: The answer is an error.
        """
        account = self._authenticate(request, match.operation)
        verdict = self._count(account, match.operation)
        headers = _limit_headers(verdict)
        try:
            if not match.allow:
                raise not_found_django()
            if not match.operation:
                raise not_allowed(request.method, match.allow)
            call = Call(request, record, account, match.parameters)
            response = await self._handlers[match.operation](call)
        except Problem as problem:
            problem.headers = {**headers, **problem.headers}
            raise
        response.headers.update(headers)
        return response

    def _authenticate(self, request: web.BaseRequest, operation: str) -> Account:
        header = request.headers.get("Authorization", "")
        scheme, _, token = header.partition(" ")
        account = self._store.accounts.get(token.strip())
        if account is not None and scheme.lower() in ("bearer", "token"):
            return account
        if operation in _OPEN:
            return self._default_account
        raise unauthenticated(token_sent=bool(header))

    def _count(self, account: Account, operation: str) -> Verdict | None:
        """Count the request.

        Raises:
            Problem: There were too many.
        """
        if account.limits is None:
            return None
        low = account.credit == "low"
        creates = operation in PREDICTION_CREATES
        verdict = account.limits.take("creates" if creates else "others", low_credit=low)
        if not verdict.allowed:
            problem = throttled(
                throttled_text(verdict.retry_after, low_credit=low and creates),
                verdict.retry_after,
            )
            problem.headers = {**_limit_headers(verdict), **problem.headers}
            raise problem
        return verdict


def _limit_headers(verdict: Verdict | None) -> dict[str, str]:
    if verdict is None:
        return {}
    return {
        "ratelimit-remaining": str(verdict.remaining),
        "ratelimit-reset": str(verdict.reset),
    }
