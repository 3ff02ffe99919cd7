"""The client: options, namespaces and verbs."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar, overload

from ._http.call import ClientSession, TraceConfig
from ._jobs.context import Context, changed_context, default_context, make_context
from ._jobs.prediction import EventStream, Output
from ._jobs.request import CreateOptions
from ._unpicklable import Unpicklable
from ._verbs.interface import FunctionOptions
from ._verbs.map import Outcomes, end_fan_outs
from ._verbs.map_plan import make_plan
from ._verbs.run import run, stream
from ._verbs.use import ModelFunction, StreamingFunction
from .resources import _pages
from .resources._pages import Listing, Page
from .resources.accounts import Accounts
from .resources.collections import Collections
from .resources.deployments import Deployment, Deployments
from .resources.files import Files
from .resources.hardware import HardwareNamespace
from .resources.models import Model, Models
from .resources.predictions import Predictions
from .resources.search import SearchResults, search
from .resources.trainings import Trainings
from .resources.versions import Version
from .resources.webhooks import Webhooks
from .types import FileEncodingStrategy, Limits, RateLimit, Retry, Stats, Timeout, WebhookEvent

__all__ = ("Client",)


T = TypeVar("T")


class Client(Unpicklable):
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
        mark_creates: bool = True,
        poll_interval: float | None = None,
        use_file_output: bool = True,
        file_encoding_strategy: FileEncodingStrategy = "url",
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        trace_configs: Sequence[TraceConfig] | None = None,
        session: ClientSession | None = None,
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
            mark_creates: Whether each prediction gets a deadline of its own, by which it is recognised if its
                create gets no answer: about a day if you give none, else a few seconds more than you
                give (:api:`deadline`). Pass `False` to send deadlines exactly as given; then a create
                without an answer is never adopted or cancelled.
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
        self._context = make_context(
            api_token,
            base_url=base_url,
            timeout=timeout,
            headers=headers,
            user_agent=user_agent,
            retry=retry,
            limits=limits,
            rate_limit=rate_limit,
            on_ambiguous=on_ambiguous,
            mark_creates=mark_creates,
            poll_interval=poll_interval,
            use_file_output=use_file_output,
            file_encoding_strategy=file_encoding_strategy,
            proxy=proxy,
            ssl=ssl,
            trace_configs=trace_configs,
            session=session,
        )

    @classmethod
    def _over(cls, context: Context) -> Self:
        """Return a client with this state."""
        made = object.__new__(cls)
        made._context = context
        return made

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
        return self._over(
            changed_context(
                self._context,
                api_token=api_token,
                timeout=timeout,
                headers=headers,
                user_agent=user_agent,
                retry=retry,
                on_ambiguous=on_ambiguous,
                poll_interval=poll_interval,
                use_file_output=use_file_output,
                file_encoding_strategy=file_encoding_strategy,
            )
        )

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the client cannot be used any more.

        Connections of other loops are closed by their loops when they end. It may be called twice. What `map`
        has in flight is given up first, as if its loop were left.
        """
        if self._context.fan_outs:
            await end_fan_outs(self._context, self._context.fan_outs)
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
        Polls are repeated until they succeed, so that what has been paid for is not lost. Calls :api:`models.predictions.create`, :api:`predictions.create`, :api:`deployments.predictions.create` and :api:`predictions.get`.

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
        return await run(
            self._context,
            ref,
            input,
            timeout=timeout,
            on_abandon=on_abandon,
            retry_failed=retry_failed,
            save_to=save_to,
            options=CreateOptions(
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
        prediction (:api:`streaming`).

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
        return stream(
            self._context,
            ref,
            input,
            timeout=timeout,
            on_abandon=on_abandon,
            options=CreateOptions(
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
        what is a file, and what inputs there are (:api:`version-schema`).

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
        options = FunctionOptions(
            validate=validate,
            timeout=timeout,
            on_abandon=on_abandon,
            retry_failed=retry_failed,
            create=CreateOptions(
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
        many there are. Operations: those of `run`, and predictions.list (:api:`predictions`).

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
        options = CreateOptions(
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
        )
        plan = make_plan(
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
        return Outcomes(self._context, plan, inputs)

    async def search(self, query: str, *, limit: int | None = None) -> SearchResults:
        """Search models, collections and documentation. Calls :api:`search`.

        Args:
            query: What to look for.
            limit: How many models to return at most, 1 to 50; 20 by default.
        """
        return await search(self._context, query, limit)

    async def paginate(
        self, listing: Listing[T] | Callable[[], Listing[T]]
    ) -> AsyncIterator[Page[T]]:
        """Yield the pages of a listing: `paginate(client.models.list)`, or of `client.models.list()`."""
        async for page in _pages.paginate(listing):
            yield page

    # Namespaces. Their modules are imported when they are first used, which keeps the start quick.

    @property
    def accounts(self) -> Accounts:
        """The account that the token belongs to."""
        return Accounts(self._context)

    @property
    def collections(self) -> Collections:
        """Curated collections of models."""
        return Collections(self._context)

    @property
    def deployments(self) -> Deployments:
        """Models on machines of one's own."""
        return Deployments(self._context)

    @property
    def files(self) -> Files:
        """Uploaded files."""
        return Files(self._context)

    @property
    def hardware(self) -> HardwareNamespace:
        """The kinds of machines that models run on."""
        return HardwareNamespace(self._context)

    @property
    def models(self) -> Models:
        """Models, their versions, examples and readmes."""
        return Models(self._context)

    @property
    def predictions(self) -> Predictions:
        """Runs of models."""
        return Predictions(self._context)

    @property
    def trainings(self) -> Trainings:
        """Runs that make new versions of models."""
        return Trainings(self._context)

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks' secret, and whether a delivery is genuine."""
        return Webhooks(self._context)


def default_client() -> Client:
    """Return the client of the module-level verbs and namespaces, which the environment configures."""
    return Client._over(default_context())
