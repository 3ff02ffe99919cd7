"""The client: options, namespaces and verbs."""

from __future__ import annotations

import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

import attrs

from . import _policy, _runs, exceptions
from ._codec import structure
from ._transport import (
    DEFAULT_BASE_URL,
    USER_AGENT,
    Config,
    Pool,
    Transport,
    check_base_url,
    check_headers,
    check_token,
)
from .resources import _base
from .resources._base import Context, Listing, Page
from .resources.predictions import Options, Output, Predictions
from .types import FileEncodingStrategy, Limits, RateLimit, Retry, Stats, Timeout, WebhookEvent

if TYPE_CHECKING:
    import ssl as ssl_module

    import aiohttp

    from ._functions import ModelFunction, StreamingFunction
    from ._map import Outcomes
    from ._streams import EventStream
    from .resources.accounts import Accounts
    from .resources.collections import Collections
    from .resources.deployments import Deployment, Deployments
    from .resources.files import Files
    from .resources.hardware import HardwareNamespace
    from .resources.models import Model, Models, Version
    from .resources.search import SearchResults
    from .resources.trainings import Trainings
    from .resources.webhooks import Webhooks

__all__ = ("Client",)

T = TypeVar("T")


class Client:
    """A client of Replicate's HTTP API.

    It may be used from several event loops, one after the other or at a time: each has a session of its
    own, which is opened at the first request. Close it with `aclose()` or `async with`.

    ```python
    async with Client() as client:
        output = await client.run("owner/name", {"prompt": "a red square"})
    ```
    """

    def __init__(
        self,
        api_token: str | Callable[[], str] | None = None,
        *,
        base_url: str | None = None,
        timeout: float | Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        rate_limit: RateLimit | Literal[False] | None = None,
        on_ambiguous: Literal["raise", "repeat"] = "raise",
        poll_interval: float | None = None,
        use_file_output: bool = True,
        file_encoding_strategy: FileEncodingStrategy = "url",
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        """Make a client; nothing is opened and nothing is sent.

        Args:
            api_token: The token, or a function that returns it for each request. By default the token
                of the current Cog scope, else the environment variable REPLICATE_API_TOKEN.
            base_url: Where the API is, without `/v1`; by default the environment variable
                REPLICATE_BASE_URL, else `https://api.replicate.com`.
            timeout: How long to wait for the network: a `Timeout`, or the seconds of silence that it
                calls `read`. It does not bound runs: that is `run(timeout=...)`.
            headers: Further headers for each request to the API.
            user_agent: Another `User-Agent`.
            retry: How requests that may be repeated are repeated.
            limits: What may be held in memory, and how many connections there may be.
            rate_limit: The account's limits, which all clients of this process with the same token
                share; by default 600 creates and 3000 other requests per minute. False: nobody counts.
            on_ambiguous: What to do about a create that got no answer and is not found in the list
                either: `"raise"` AmbiguousCreateError, or `"repeat"` it at the risk of a second bill.
            poll_interval: Seconds between two looks at a running prediction; by default they follow its
                age, or the environment variable REPLICATE_POLL_INTERVAL.
            use_file_output: Whether file URLs in outputs become `FileOutput` objects.
            file_encoding_strategy: `"url"` uploads files in inputs, `"base64"` sends them inside of
                the request.
            proxy: The URL of a proxy; by default those of the environment (`HTTPS_PROXY`,
                `NO_PROXY`, ...).
            ssl: An SSL context, or False for no verification.
            trace_configs: Of aiohttp, to observe the requests.
            session: An aiohttp session of your own, for one event loop. You close it.

        Raises:
            ArgumentError: An argument has an impossible value.
        """
        if session is not None and (proxy is not None or ssl is not None or trace_configs):
            raise exceptions.ArgumentError(
                "session", "`proxy`, `ssl` and `trace_configs` belong to the session you bring"
            )
        if isinstance(api_token, str):
            check_token(api_token)
        elif api_token is not None and not callable(api_token):
            raise exceptions.ArgumentTypeError("api_token", "expected a string or a function")
        where = base_url or os.environ.get("REPLICATE_BASE_URL") or DEFAULT_BASE_URL
        limits = limits or Limits()
        config = Config(
            base_url=check_base_url(where),
            token=api_token,
            headers=_headers(headers, user_agent),
            timeout=_timeout(timeout),
            retry=retry or Retry(),
            limits=limits,
            rate_limit=None if rate_limit is False else rate_limit or RateLimit(),
        )
        pool = Pool(
            proxy=proxy,
            ssl=ssl,
            trace_configs=trace_configs,
            session=session,
            connections=limits.connections,
        )
        self._context = Context(
            transport=Transport(config, pool),
            use_file_output=use_file_output,
            file_encoding_strategy=_strategy(file_encoding_strategy),
            poll_interval=_poll_interval(poll_interval),
            rebind=_rebind,
            run=_run,
            on_ambiguous=_ambiguous(on_ambiguous),
        )

    def with_options(
        self,
        *,
        api_token: str | Callable[[], str] | None = None,
        timeout: float | Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
        retry: Retry | None = None,
        on_ambiguous: Literal["raise", "repeat"] | None = None,
        poll_interval: float | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
    ) -> Client:
        """Return a view with other options over the same connections; what is None stays as it is.

        Closing either closes both.

        Args:
            api_token: The token, or a function that returns it.
            timeout: How long to wait for the network.
            headers: Headers to add to those of this client.
            user_agent: Another `User-Agent`.
            retry: How requests that may be repeated are repeated.
            on_ambiguous: `"raise"` or `"repeat"`.
            poll_interval: Seconds between two looks at a running prediction.
            use_file_output: Whether file URLs in outputs become `FileOutput` objects.
            file_encoding_strategy: `"url"` or `"base64"`.
        """
        context = self._context
        config = context.transport.config
        if isinstance(api_token, str):
            check_token(api_token)
        elif api_token is not None and not callable(api_token):
            raise exceptions.ArgumentTypeError("api_token", "expected a string or a function")
        config = attrs.evolve(
            config,
            token=config.token if api_token is None else api_token,
            timeout=config.timeout if timeout is None else _timeout(timeout),
            headers={
                **config.headers,
                **check_headers(headers or {}),
                **({} if user_agent is None else _headers(None, user_agent)),
            },
            retry=retry or config.retry,
        )
        view = object.__new__(type(self))
        view._context = Context(
            transport=context.transport.with_config(config),
            use_file_output=context.use_file_output if use_file_output is None else use_file_output,
            file_encoding_strategy=_strategy(
                file_encoding_strategy or context.file_encoding_strategy
            ),
            poll_interval=context.poll_interval
            if poll_interval is None
            else _poll_interval(poll_interval),
            rebind=_rebind,
            run=_run,
            on_ambiguous=_ambiguous(on_ambiguous or context.on_ambiguous),
            creations=context.creations,
            latest_versions=context.latest_versions,
            shared_uploads=context.shared_uploads,
            schemas=context.schemas,
            shared_pollers=context.shared_pollers,
            tasks=context.tasks,
        )
        return view

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the client cannot be used any more.

        Connections of other loops are closed by their loops when they end. It may be called twice. What `map`
        has in flight is given up first, as if its loop were left.
        """
        if self._context.tasks:
            from ._map import end

            await end(self._context.tasks)
        await self._context.transport.pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def stats(self) -> Stats:
        """What this client and its views have done so far."""
        return self._context.transport.pool.stats

    def __repr__(self) -> str:
        return f"Client(base_url={self._context.transport.config.base_url!r})"

    # Verbs

    async def run(
        self,
        ref: str | Model | Version | Deployment,
        input: Mapping[str, Any] | None = None,
        *,
        wait: bool | float = True,
        timeout: float | timedelta | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        cancel_after: float | str | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "cancel",
        retry_failed: int = 0,
        save_to: str | os.PathLike[str] | None = None,
    ) -> Output:
        """Run a model and return its final output.

        The create is sent once; without an answer, the prediction is looked for in the account's list.
        Polls are repeated until they succeed, so that what has been paid for is not lost. Operations: models.predictions.create, predictions.create,
        deployments.predictions.create and predictions.get (HTTP API, section 4).

        ```python
        output = await client.run("owner/name", {"prompt": "a red square"}, timeout=120)
        ```

        Args:
            ref: `"owner/name"`, `"owner/name:version"`, a version's id, or a `Model`, `Version` or
                `Deployment`.
            input: What the model takes. Files anywhere in it are uploaded.
            wait: Let the server hold its answer until there is a result: True for 60 s, seconds from
                1 to 60, or False to poll from the start. Either way this returns only at the end.
            timeout: Seconds, or a timedelta, for all of it. Then the prediction is cancelled. None:
                24 hours.
            use_file_output: Whether files become `FileOutput`; the client's by default.
            file_encoding_strategy: `"url"` or `"base64"`; the client's by default.
            webhook: An HTTPS URL to tell of it.
            webhook_events_filter: What to tell: `start`, `output`, `logs`, `completed`.
            cancel_after: Let the server cancel it after so many seconds (5 or more), after a
                timedelta, or after a duration such as `"1h30m"`; `timeout` implies it.
            on_abandon: What becomes of the prediction when this call is cancelled, interrupted or out
                of time: `"cancel"` stops it at the other end, within 5 seconds; `"leave"` lets it run.
            retry_failed: How many times to create a further prediction, and pay for it, after a failure
                that is `retryable`.
            save_to: A directory, made if it does not exist, for the files of the output. They are on the
                disk when this returns, and know their `path`.

        Raises:
            PredictionFailed: The model failed.
            PredictionCanceled: Somebody cancelled it, or its deadline has passed.
            PredictionAborted: It ended before it started.
            RunTimeout: The timeout has passed.
            OutputNotSaved: It succeeded, but not all of its files could be put into `save_to`.
            ContactLost: It could not be followed to its end, and may still be running.
            AmbiguousCreateError: The create got no answer, and the list of predictions does not show
                it: it may exist all the same.
            ReplicateError: The API refuses.
            ArgumentError: An argument is impossible; nothing was sent.
        """
        return await _runs.run(
            self._context,
            ref,
            input,
            timeout=timeout,
            on_abandon=on_abandon,
            retry_failed=retry_failed,
            save_to=save_to,
            options=Options(
                wait=wait,
                cancel_after=cancel_after,
                webhook=webhook,
                webhook_events_filter=webhook_events_filter,
                file_encoding_strategy=file_encoding_strategy,
                use_file_output=use_file_output,
            ),
        )

    def stream(
        self,
        ref: str | Model | Version | Deployment,
        input: Mapping[str, Any] | None = None,
        *,
        timeout: float | timedelta | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        cancel_after: float | str | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "cancel",
    ) -> EventStream:
        """Run a model and return its events, as they arrive: an async iterator and async context manager.

        Nothing is sent before the first event is asked for. Lost connections are resumed, and models that
        cannot stream are polled: the events are the same. Leaving early closes the connection and cancels the
        prediction (HTTP API, section 5).

        ```python
        async for event in client.stream("owner/name", {"prompt": "a poem"}):
            print(event, end="")
        ```

        Args:
            ref: As for `run`.
            input: What the model takes. Files anywhere in it are uploaded.
            timeout: Seconds, or a timedelta, from the first event asked for to the last. Then the
                prediction is cancelled. None: 24 hours.
            use_file_output: Whether files become `FileOutput`; the client's by default.
            file_encoding_strategy: `"url"` or `"base64"`; the client's by default.
            webhook: An HTTPS URL to tell of it.
            webhook_events_filter: What to tell: `start`, `output`, `logs`, `completed`.
            cancel_after: As for `run`; `timeout` implies it.
            on_abandon: What becomes of the prediction when the stream is left before its end, cancelled
                or out of time: `"cancel"` or `"leave"`.

        Raises, from the iteration:
            StreamError: The model failed; the error has the text so far.
            RunTimeout: The timeout has passed.
            ContactLost: The prediction could not be followed to its end.
            AmbiguousCreateError: As for `run`.
            StreamInUse: Another task is waiting for the next event.
        """
        return _runs.stream(
            self._context,
            ref,
            input,
            timeout=timeout,
            on_abandon=on_abandon,
            options=Options(
                cancel_after=cancel_after,
                webhook=webhook,
                webhook_events_filter=webhook_events_filter,
                file_encoding_strategy=file_encoding_strategy,
                use_file_output=use_file_output,
            ),
        )

    @overload
    def use(
        self,
        ref: str | Model | Version | Deployment,
        *,
        streaming: Literal[False] = False,
        validate: bool = True,
        wait: bool | float = True,
        timeout: float | timedelta | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        cancel_after: float | str | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "cancel",
        retry_failed: int = 0,
    ) -> ModelFunction: ...
    @overload
    def use(
        self,
        ref: str | Model | Version | Deployment,
        *,
        streaming: Literal[True],
        validate: bool = True,
        wait: bool | float = True,
        timeout: float | timedelta | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        cancel_after: float | str | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "cancel",
        retry_failed: int = 0,
    ) -> StreamingFunction: ...
    def use(
        self,
        ref: str | Model | Version | Deployment,
        *,
        streaming: bool = False,
        validate: bool = True,
        wait: bool | float = True,
        timeout: float | timedelta | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        cancel_after: float | str | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "cancel",
        retry_failed: int = 0,
    ) -> ModelFunction | StreamingFunction:
        """Return a model as a function; nothing is sent before it is called.

        Its schema is fetched once, before the first call's prediction is created. It decides what is text and
        what is a file, and what inputs there are (HTTP API, section 9.5).

        ```python
        painter = client.use("owner/painter")
        image = await painter(prompt="a red square")
        ```

        Args:
            ref: As for `run`.
            streaming: Whether its calls are streams of pieces instead of coroutines.
            validate: Whether inputs are checked before anything is sent.
            wait: As for `run`.
            timeout: As for `run`, for each call.
            use_file_output: As for `run`.
            file_encoding_strategy: As for `run`.
            cancel_after: As for `run`.
            on_abandon: As for `run`.
            retry_failed: As for `run`; not for streams.
        """
        from ._functions import FunctionOptions, ModelFunction, StreamingFunction

        options = FunctionOptions(
            validate=validate,
            timeout=timeout,
            on_abandon=on_abandon,
            retry_failed=retry_failed,
            create=Options(
                wait=wait,
                cancel_after=cancel_after,
                file_encoding_strategy=file_encoding_strategy,
                use_file_output=use_file_output,
            ),
        )
        return (StreamingFunction if streaming else ModelFunction)(self._context, ref, options)

    def map(
        self,
        ref: str | Model | Version | Deployment | ModelFunction,
        inputs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        concurrency: int | None = None,
        ordered: bool = False,
        save_to: str | os.PathLike[str] | None = None,
        journal: str | os.PathLike[str] | None = None,
        timeout: float | timedelta | None = None,
        retry_failed: int = 0,
        on_abandon: Literal["cancel", "leave"] | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        cancel_after: float | str | timedelta | None = None,
    ) -> Outcomes:
        """Run a model on many inputs, and yield what became of each: no failure harms another one.

        Predictions are created within the account's limits, and their ends are seen with few requests, however
        many there are. Operations: those of `run`, and predictions.list (HTTP API, section 4).

        ```python
        async for outcome in client.map("owner/name", inputs, save_to="out/", journal="run.db"):
            print(outcome.index, outcome.error or outcome.saved)
        ```

        Args:
            ref: As for `run`; or a function of `use`, with its options.
            inputs: The inputs, read as they are needed: any iterable, which may block, or asynchronous one.
            concurrency: How many predictions may be in flight; 64 by default.
            ordered: Whether to yield in the order of the inputs; else in that of the ends.
            save_to: A directory, made if it does not exist, for outputs: files, `output.txt`, `output.json`,
                and the record `prediction.json`, each with the index in front (`000042-out.png`). They are
                complete before the outcome is yielded. What is there already is not fetched again.
            journal: An SQLite file, made if it does not exist. With it, an interrupted fan-out can be run
                again with the same inputs: what has been paid for is not created again.
            timeout: Seconds, or a timedelta, for each prediction once it is created. Then it is
                cancelled. None: 24 hours.
            retry_failed: How many times to create a further prediction of an input, and pay for it, after
                failures that are `retryable`. With a journal, those of the runs before count.
            on_abandon: What becomes of the predictions in flight when the loop is left, cancelled or
                interrupted: `"cancel"` stops them, `"leave"` lets them run. By default they are cancelled;
                with a journal they are left, and collected by the next run.
            use_file_output: As for `run`.
            file_encoding_strategy: As for `run`.
            webhook: As for `run`.
            webhook_events_filter: As for `run`.
            cancel_after: As for `run`; `timeout` implies it.

        Raises:
            ArgumentError: An argument is impossible; nothing was sent.

        Iterating raises `JournalError` if the journal cannot be used, and what reading the inputs raises,
        after all that was in flight has been yielded.
        """
        from . import _map

        options = Options(
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
        )
        plan = _map.plan(
            ref,
            options=options,
            concurrency=concurrency,
            ordered=ordered,
            save_to=save_to,
            journal=journal,
            timeout=timeout,
            retry_failed=retry_failed,
            on_abandon=on_abandon,
        )
        return _map.Outcomes(self._context, plan, inputs)

    async def search(self, query: str, *, limit: int | None = None) -> SearchResults:
        """Search models, collections and documentation. Operation: search (HTTP API, section 13.1).

        Args:
            query: What to look for.
            limit: How many models to return at most, 1 to 50; 20 by default.
        """
        from .resources.search import search

        return await search(self._context, query, limit)

    async def paginate(
        self, listing: Listing[T] | Callable[[], Listing[T]]
    ) -> AsyncIterator[Page[T]]:
        """Yield the pages of a listing: `paginate(client.models.list)`, or of `client.models.list()`."""
        async for page in _base.paginate(listing):
            yield page

    # Namespaces. Their modules are imported when they are first used, which keeps the start quick.

    @property
    def accounts(self) -> Accounts:
        """The account that the token belongs to."""
        from .resources.accounts import Accounts

        return Accounts(self._context)

    @property
    def collections(self) -> Collections:
        """Curated collections of models."""
        from .resources.collections import Collections

        return Collections(self._context)

    @property
    def deployments(self) -> Deployments:
        """Models on machines of one's own."""
        from .resources.deployments import Deployments

        return Deployments(self._context)

    @property
    def files(self) -> Files:
        """Uploaded files."""
        from .resources.files import Files

        return Files(self._context)

    @property
    def hardware(self) -> HardwareNamespace:
        """The kinds of machines that models run on."""
        from .resources.hardware import HardwareNamespace

        return HardwareNamespace(self._context)

    @property
    def models(self) -> Models:
        """Models, their versions, examples and readmes."""
        from .resources.models import Models

        return Models(self._context)

    @property
    def predictions(self) -> Predictions:
        """Runs of models."""
        return Predictions(self._context)

    @property
    def trainings(self) -> Trainings:
        """Runs that make new versions of models."""
        from .resources.trainings import Trainings

        return Trainings(self._context)

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks' secret, and whether a delivery is genuine."""
        from .resources.webhooks import Webhooks

        return Webhooks(self._context)


_default: Client | None = None


def default_client() -> Client:
    """Return the client of the module-level verbs and namespaces, configured by the environment."""
    global _default
    if _default is None:
        _default = Client()
    return _default


async def _run(context: Context, ref: Any, input: Mapping[str, Any]) -> Any:
    """Run with the options of `Client.run` as they are by default."""
    return await _runs.run(
        context,
        ref,
        input,
        timeout=None,
        options=Options(wait=True),
        on_abandon="cancel",
        retry_failed=0,
    )


def _rebind(kind: type[T], raw: dict[str, Any]) -> T:
    """Make an unpickled object one of the default client's."""
    return default_client()._context.bind(structure(raw, kind))


def _headers(headers: Mapping[str, str] | None, user_agent: str | None) -> dict[str, str]:
    further = {} if headers is None else check_headers(headers)
    return check_headers({"User-Agent": user_agent or USER_AGENT, **further})


def _timeout(timeout: float | Timeout | None) -> Timeout:
    if timeout is None:
        return Timeout()
    if isinstance(timeout, Timeout):
        return timeout
    seconds = _policy.timeout_seconds(timeout)
    assert seconds is not None
    return Timeout(read=seconds)


def _strategy(strategy: FileEncodingStrategy) -> FileEncodingStrategy:
    _policy.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    return strategy


def _ambiguous(choice: Literal["raise", "repeat"]) -> Literal["raise", "repeat"]:
    _policy.one_of(choice, ("raise", "repeat"), "on_ambiguous")
    return choice


def _poll_interval(seconds: float | None) -> float | None:
    if seconds is None:
        said = os.environ.get("REPLICATE_POLL_INTERVAL")
        if not said:
            return None
        try:
            seconds = float(said)
        except ValueError:
            raise exceptions.ArgumentError(
                "REPLICATE_POLL_INTERVAL", f"{said!r} is no number of seconds"
            ) from None
    return _policy.timeout_seconds(seconds, "poll_interval")
