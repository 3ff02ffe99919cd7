"""Replicate's HTTP API on loopback, with Python functions as models.

```python
with Emulator() as emulator:
    @emulator.model("acme/shout")
    def shout(text: str) -> str:
        return text.upper()
    ...  # any client with base URL `emulator.url` and token `emulator.token`
```
"""

from __future__ import annotations

import base64
import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlencode

from ._api_files import download_signature
from ._api_predictions import ExpiredAnswers, SyncAnswers
from ._certificates import Authority
from ._clock import NANOSECONDS, Clock
from ._execution import Code
from ._faults import Injected, Injections
from ._hosts import is_loopback
from ._ledger import Ledger
from ._limits import AccountLimits, RateLimits
from ._models import add_built_in
from ._proxy import Proxy
from ._retention import MEMORY, RECORDS, Retention
from ._runner import Runner
from ._server import Behaviour, Middleware, Server
from ._store import (
    Account,
    Credit,
    Prediction,
    Status,
    Store,
    Visibility,
    nanoseconds,
    new_id,
)
from ._webhooks import Delivery
from ._wire import Wire

F = TypeVar("F", bound=Callable[..., object])

TOKEN = "r8_" + "Emulator".ljust(37, "0")
"""Default API token of the emulator's account. It is not valid anywhere else."""
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"emulator-webhook-secret!").decode()
"""Default signing secret of the webhooks of the emulator's account."""
PAGE_SIZES: Mapping[str, int] = {
    "predictions": 100,
    "trainings": 100,
    "models": 25,
    "search": 25,
    "versions": 25,
    "examples": 25,
    "deployments": 25,
    "files": 100,
    "collections": 100,
}
"""Number of items on a page; see :api:`pagination`."""


class Emulator:
    """A local server of Replicate's API, output files and streams, each on its own origin.

    As ``async with``, it runs in the current event loop. As ``with``, it runs in a thread. An emulator
    can be started once. Its methods may be called from any thread. Its `Ledger` tells what happened:
    ``emulator.ledger.created()`` lists the predictions, and ``emulator.ledger.requests()`` the requests.

    Args:
        host: Address to listen on. Defaults to ``127.0.0.1``. Requests whose ``Host`` is neither this nor a name
            of this machine are refused.
        port: Port of the API. Defaults to 0, a free one. The other two origins always use free ports.
        token: API token of the account. Defaults to `TOKEN` on loopback, and to a random one on any other *host*.
        account: User name of the account. Defaults to ``acme``.
        built_in: Whether to add the built-in models, for example ``replicate/hello-world``. Defaults to
            True.
        rate_limits: Limits of each account: `RateLimits`, True (the default) for those of the service, or
            False for none.
        latency: Real seconds to delay each request by, half before and half after it is handled. Defaults
            to 0.
        clock: Clock of the emulator, to share or to set up. Defaults to a new one.
        page_sizes: Number of items on a page, by the keys ``predictions``, ``trainings``, ``models``,
            ``search``, ``versions``, ``examples``, ``deployments``, ``files`` and ``collections``.
            Defaults to those of the service.
        sync_answers: Response to a create with ``Prefer: wait`` that ended in time: ``final``
            (``succeeded`` with files as URLs, as documented) or ``recorded`` (``processing`` with files
            as data URIs, as the service was seen to answer, see :api:`sync-mode`). Defaults to
            ``final`` with *tls*, and else to ``recorded``: the official clients make file objects of
            ``https:`` and ``data:`` URLs only.
        expired_waits: Response to a create with ``Prefer: wait`` whose wait expired: ``starting`` (the
            default; without output) or ``actual`` (the status and output so far).
        list_lag: Emulated seconds before a new prediction appears in the list. Defaults to 0.
        local_webhooks: Whether webhooks may have ``http:`` URLs of this machine, such as
            ``http://localhost:8000/hook``, and deliveries to its own names and addresses are sent. On the
            service, webhooks must be ``https:``. Defaults to False; see also `webhook_hosts`.
        wire: Whether faults can be injected with `Emulator.wire`. Adds a proxy in front of the three
            origins. Defaults to False.
        tls: Whether to serve HTTPS: True, with certificates of an authority that is made for this
            emulator (needs the extra ``tls``), or an `ssl.SSLContext` with your own certificate.
            `Emulator.env` makes clients trust the authority. Defaults to False: HTTP.
        records: Number of requests in the ledger, finished predictions and trainings, webhook deliveries
            and faults to remember, each. The oldest are forgotten first. Defaults to 100,000.
        memory: Bytes of content to remember: bodies of requests and deliveries, inputs, outputs and logs.
            Beyond it, the oldest content is dropped: finished predictions lose their data, as they do after
            an hour. Uploaded files do not count; they are kept until they expire. Defaults to 1 GiB.

    Raises:
        ModuleNotFoundError: *tls* is True, and trustme is not installed.
        ValueError: An argument is not valid.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        account: str = "acme",
        built_in: bool = True,
        rate_limits: bool | RateLimits = True,
        latency: float = 0.0,
        clock: Clock | None = None,
        page_sizes: Mapping[str, int] | None = None,
        sync_answers: SyncAnswers | None = None,
        expired_waits: ExpiredAnswers = "starting",
        list_lag: float = 0.0,
        local_webhooks: bool = False,
        wire: bool = False,
        tls: bool | ssl.SSLContext | None = False,
        records: int = RECORDS,
        memory: int = MEMORY,
    ) -> None:
        unknown = set(page_sizes or ()) - set(PAGE_SIZES)
        if unknown:
            raise ValueError(f"page_sizes: unknown {', '.join(sorted(unknown))}")
        if records < 1 or memory < 1:
            raise ValueError("records and memory must be positive")
        self.local_webhooks: bool = local_webhooks
        """Whether webhooks may have ``http:`` URLs of this machine."""
        self._authority: Authority | None = None
        context: ssl.SSLContext | None
        if tls is True:
            self._authority = Authority(host)
            context = self._authority.context
        else:
            context = tls or None
        is_private = is_loopback(host)
        if token is None:
            token = TOKEN if is_private else f"r8_{secrets.token_hex(20)[:37]}"
        self.token: str = token
        """API token of the account."""
        self.account: str = account
        """User name of the account."""
        self.webhook_secret: str = (
            WEBHOOK_SECRET
            if is_private
            else f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        )
        """Signing secret of the account's webhooks."""
        self.clock: Clock = Clock() if clock is None else clock
        """Clock of the emulator."""
        self.ledger: Ledger = Ledger(records)
        """Record of the requests and predictions: a `Ledger`."""
        self.deliveries: list[Delivery] = []
        """Attempts to deliver webhooks, oldest first, also those that were not sent."""
        if rate_limits is True:
            limits: RateLimits | None = RateLimits()
        else:
            limits = rate_limits or None
        self._store: Store = Store(self.clock, limits)
        self.web_files: dict[str, bytes] = self._store.web_files
        """Content by URL, for URLs of other hosts that models fetch as inputs."""
        self._account: Account = self._store.add_account(
            Account(account, "user", account.capitalize(), self.token, self.webhook_secret)
        )
        retention = Retention(records, memory)
        injections, log = Injections(records), list[Injected]()
        if sync_answers is None:
            sync_answers = "recorded" if context is None else "final"
        # With TLS, too: it ends in the proxy, where faults can still be told apart.
        proxy = Proxy(injections, log, retention, context) if wire or context else None
        sizes = {**PAGE_SIZES, **(page_sizes or {})}
        self._server: Server = Server(
            self._store,
            self._account,
            self.ledger,
            self.deliveries,
            Behaviour(sizes, sync_answers, expired_waits, list_lag, local_webhooks),
            retention,
            proxy,
        )
        self._server.latency = latency
        self._wire: Wire | None = None
        if proxy is not None and wire:
            self._wire = Wire(proxy, injections, log, self._server.on_loop)
        scheme = "http" if context is None else "https"
        self._runner: Runner = Runner(self._server, host, port, scheme, self._authority)
        if built_in:
            add_built_in(self._store, account)
            self.add_example(
                "replicate/hello-world", {"text": "Alice"}, "hello Alice", is_default=True
            )

    def __repr__(self) -> str:
        state = "running" if self._server.is_running else "stopped"
        return f"<Emulator {self.url if self._server.is_bound else 'not started'}, {state}>"

    # --- where it is

    @property
    def url(self) -> str:
        """Base URL of the API, without ``/v1``.

        Raises:
            RuntimeError: The emulator was not started.
        """
        return self._server.urls[0]

    @property
    def files_url(self) -> str:
        """Origin of output files.

        Raises:
            RuntimeError: The emulator was not started.
        """
        return self._server.urls[1]

    @property
    def stream_url(self) -> str:
        """Origin of streams.

        Raises:
            RuntimeError: The emulator was not started.
        """
        return self._server.urls[2]

    @property
    def middlewares(self) -> list[Middleware]:
        """Functions that wrap the handling of every request on every origin, outermost first."""
        return self._server.middlewares

    @middlewares.setter
    def middlewares(self, middlewares: list[Middleware]) -> None:
        self._server.middlewares = middlewares

    @property
    def webhook_hosts(self) -> dict[str, str]:
        """Local origins by the host of webhook URLs.

        For example ``{"example.com": "http://127.0.0.1:8000"}``. Deliveries to other hosts are only
        recorded.
        """
        return self._server.webhook_hosts

    @webhook_hosts.setter
    def webhook_hosts(self, hosts: dict[str, str]) -> None:
        self._server.webhook_hosts = hosts

    @property
    def latency(self) -> float:
        """Real seconds that each request is delayed by."""
        return self._server.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._server.latency = seconds

    @property
    def wire(self) -> Wire:
        """The wire, to inject faults.

        Raises:
            RuntimeError: The emulator was created without `wire=True`.
        """
        if self._wire is None:
            raise RuntimeError("there is no wire: create the emulator with Emulator(wire=True)")
        return self._wire

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that make clients use this emulator.

        With ``tls=True``, they also make Python, requests, Node.js and what uses OpenSSL trust its
        certificates: Python and OpenSSL then trust no others.
        """
        env = {"REPLICATE_API_TOKEN": self.token, "REPLICATE_BASE_URL": self.url}
        if self._authority is not None:
            names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
            env |= dict.fromkeys(names, str(self._authority.path))
        return env

    @property
    def ca_file(self) -> Path | None:
        """File with the certificate of the authority, in PEM format, until the emulator stops.

        None without ``tls=True``.
        """
        return None if self._authority is None else self._authority.path

    # --- models

    def model(
        self,
        name: str,
        *,
        official: bool = False,
        cog_version: str = "0.16.7",
        description: str | None = None,
        train: Callable[..., object] | None = None,
        streams: bool | None = None,
        setup: float = 0.0,
        visibility: Visibility = "public",
        readme: str | None = None,
        stream_logs: bool = False,
        stream_retry: int | None = None,
        version_id: str | None = None,
        any_version: bool = False,
    ) -> Callable[[F], F]:
        """Add a function as a model.

        Its type hints become the schemas of input and output. The function may be plain, async, a
        generator or an async generator. A second function with the same name adds a version. ``**inputs``
        take what the function does not name.

        Args:
            name: ``owner/name``.
            official: Whether the model is official: runs by its name alone, and shows no versions.
                Defaults to False.
            cog_version: Version of Cog that the schema appears to come from.
            description: Description of the model.
            train: Function that trains a version of the model. Defaults to None: not trainable.
            streams: Whether predictions have a stream. Defaults to True for iterators and file outputs.
            setup: Emulated seconds that predictions stay in ``starting``. Defaults to 0.
            visibility: ``public`` (the default) or ``private``.
            readme: README in Markdown.
            stream_logs: Whether streams contain ``logs`` events, which some official clients cannot
                read. Defaults to False.
            stream_retry: Milliseconds in a ``retry:`` field at the start of streams. Defaults to no
                such field.
            version_id: ID of the version, to run code that names it; 64 hex digits on the service.
                Defaults to a new one.
            any_version: Whether every ID of a version that the emulator does not know is one of this
                model, and runs its newest version. An ID without a model's name is so only if no other
                model takes any. Defaults to False.

        Returns:
            A decorator that returns the function unchanged.

        Raises:
            TypeError: A type hint or a limit cannot be expressed in the schema.
            ValueError: *name* is not ``owner/name``, a default is not a valid input, or *version_id* is
                taken or cannot be an ID.
        """

        def register(function: F) -> F:
            self.add_model(
                name,
                function,
                official=official,
                cog_version=cog_version,
                description=description,
                train=train,
                streams=streams,
                setup=setup,
                visibility=visibility,
                readme=readme,
                stream_logs=stream_logs,
                stream_retry=stream_retry,
                version_id=version_id,
                any_version=any_version,
            )
            return function

        return register

    def add_model(
        self,
        name: str,
        predict: Callable[..., object] | None = None,
        *,
        official: bool = False,
        cog_version: str = "0.16.7",
        description: str | None = None,
        train: Callable[..., object] | None = None,
        streams: bool | None = None,
        setup: float = 0.0,
        visibility: Visibility = "public",
        readme: str | None = None,
        stream_logs: bool = False,
        stream_retry: int | None = None,
        version_id: str | None = None,
        any_version: bool = False,
    ) -> str | None:
        """Add a model, or a version of a model, as `model` does.

        Args:
            name: ``owner/name``.
            predict: The function. None for a model without versions.
            official: See `model`.
            cog_version: See `model`.
            description: See `model`.
            train: See `model`.
            streams: See `model`.
            setup: See `model`.
            visibility: See `model`.
            readme: See `model`.
            stream_logs: See `model`.
            stream_retry: See `model`.
            version_id: See `model`.
            any_version: See `model`.

        Returns:
            ID of the new version. None without a function.

        Raises:
            TypeError: A type hint or a limit cannot be expressed in the schema.
            ValueError: *name* is not ``owner/name``, a default is not a valid input, or *version_id* is
                taken or cannot be an ID.
        """
        if version_id is not None:
            self._check_version_id(version_id)
        model = self._store.model(name, visibility)
        model.official = model.official or official
        model.any_version = model.any_version or any_version
        model.description = description or model.description
        model.readme = readme or model.readme
        if predict is None:
            return None
        code = Code(predict, train=train, cog_version=cog_version)
        version = self._store.add_version(
            model,
            code,
            id=version_id,
            cog_version=cog_version,
            streams=streams,
            setup=setup,
            stream_logs=stream_logs,
            stream_retry=stream_retry,
        )
        return version.id

    def _check_version_id(self, id: str) -> None:
        if not re.fullmatch(r"[\w.-]+", id, re.ASCII):
            raise ValueError(
                f"version_id: {id!r} cannot be an ID; on the service it has 64 hex digits"
            )
        if (known := self._store.versions.get(id)) is not None:
            raise ValueError(f"version_id: {id} is a version of {known.model.full_name} already")

    def models(self) -> list[tuple[str, str]]:
        """Return pairs of name and description of all models."""
        return [(m.full_name, m.description or "") for m in list(self._store.models.values())]

    # --- records

    def add_account(
        self,
        username: str,
        *,
        token: str | None = None,
        type: Literal["user", "organization"] = "user",
    ) -> str:
        """Add another account.

        Args:
            username: User name.
            token: API token. Defaults to a new one.
            type: ``user`` (the default) or ``organization``.

        Returns:
            The API token of the account.
        """
        token = f"r8_{username}{new_id()}{new_id()}"[:40] if token is None else token
        secret = "whsec_" + base64.b64encode(new_id()[:24].encode()).decode()
        account = Account(username, type, username.capitalize(), token, secret)
        self._server.on_loop(lambda: self._store.add_account(account))
        return token

    @property
    def credit(self) -> Credit:
        """Credit of the account: ``ample``, ``low`` (6 creates a minute), ``none`` or ``no-billing``.

        With ``none`` and ``no-billing``, creates are answered with a 402; see :api:`known-errors`.
        """
        return self._account.credit

    @credit.setter
    def credit(self, credit: Credit) -> None:
        self._account.credit = credit

    def set_rate_limits(self, limits: RateLimits | None) -> None:
        """Replace the rate limits of the account, and start counting from zero.

        Args:
            limits: The limits. None for no limits.
        """
        self._account.limits = None if limits is None else AccountLimits(self.clock, limits)

    def add_prediction(
        self,
        model: str,
        input: dict[str, Any],
        output: object = None,
        *,
        status: Status = "succeeded",
        logs: str = "",
        error: str | None = None,
        source: Literal["api", "web"] = "api",
        created_at: datetime | None = None,
    ) -> str:
        """Add a prediction to the account's list without running a model.

        Args:
            model: ``owner/name`` of a model with a version.
            input: The input.
            output: The output, as a JSON value.
            status: The status, which does not change. Defaults to ``succeeded``.
            logs: The logs.
            error: The error of a failed prediction.
            source: ``api`` (the default) or ``web``.
            created_at: Time of creation. Defaults to now.

        Returns:
            The ID of the prediction.

        Raises:
            ValueError: There is no such model, or it has no version.
        """
        prediction = self._made(model, input, output, logs, created_at)
        prediction.status = status
        prediction.error = error
        prediction.source = source
        if not prediction.terminal:
            prediction.completed = None
            prediction.metrics = {}
        self._server.on_loop(lambda: self._store.insert(prediction))
        return prediction.id

    def add_example(
        self,
        model: str,
        input: dict[str, Any],
        output: object,
        *,
        logs: str = "",
        is_default: bool = False,
    ) -> str:
        """Add an example to a model. The data of examples is never removed.

        Args:
            model: ``owner/name`` of a model with a version.
            input: The input.
            output: The output, as a JSON value.
            logs: The logs.
            is_default: Whether it is the default example of the model. Defaults to False.

        Returns:
            The ID of the prediction.

        Raises:
            ValueError: There is no such model, or it has no version.
        """
        prediction = self._made(model, input, output, logs, None)

        def add() -> None:
            self._store.predictions[prediction.id] = prediction
            record = prediction.version.model
            record.examples.append(prediction)
            if is_default:
                record.default_example = prediction

        self._server.on_loop(add)
        return prediction.id

    def _made(
        self,
        model: str,
        input: dict[str, Any],
        output: object,
        logs: str,
        created_at: datetime | None,
    ) -> Prediction:
        record = self._store.models.get(model)
        if record is None or record.latest is None:
            raise ValueError(f"{model!r} is not a model with a version")
        created = self._store.tick() if created_at is None else nanoseconds(created_at)
        prediction = Prediction(
            id=new_id(),
            kind="prediction",
            account=self._account,
            version=record.latest,
            shown_version="hidden" if record.official else record.latest.id,
            input=input,
            created=created,
            model_name=model,
            status="succeeded",
            started=created + NANOSECONDS // 100,
            completed=created + NANOSECONDS // 10,
            output=output,
            metrics={"predict_time": 0.09, "total_time": 0.1},
            kept=True,
        )
        if logs:
            prediction.add_logs(logs)
        return prediction

    def file_content(self, id: str) -> bytes:
        """Return the content of an uploaded file.

        Args:
            id: ID of the file.

        Raises:
            KeyError: There is no such file.
        """
        for account in list(self._store.accounts.values()):
            if id in account.files:
                return account.files[id].content
        raise KeyError(id)

    def download_url(self, id: str, *, expires_in: float = 3600.0) -> str:
        """Return a signed download URL for an uploaded file; see :api:`files.download`.

        Args:
            id: ID of the file.
            expires_in: Emulated seconds until the URL expires. Defaults to an hour.
        """
        expiry = int(self.clock.time() + expires_in)
        signature = download_signature(self.account, id, expiry)
        query = urlencode({"expiry": expiry, "owner": self.account, "signature": signature})
        return f"{self.url}/v1/files/{id}/download?{query}"

    # --- starting and stopping

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self._runner.start_task()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.stop_task()

    def start(self) -> None:
        """Start in a thread, and return when requests are served.

        Raises:
            OSError: The port is in use.
            RuntimeError: The emulator was started before.
        """
        self._runner.start_thread()

    def stop(self) -> None:
        """Stop the thread started by `start`, within seconds, whatever models and clients do.

        Raises:
            RuntimeError: The thread did not stop.
        """
        self._runner.stop_thread()
