"""The client: options, namespaces and verbs."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar, overload

from . import _arguments
from ._bars import Bar
from ._files.output import FileOutput, output_of_url
from ._http.call import ClientSession, TraceConfig
from ._jobs.context import (
    Context,
    changed_context,
    default_context,
    has_default_context,
    make_context,
    reset_default_context,
)
from ._jobs.prediction import EventStream, Output
from ._jobs.request import CreateOptions
from ._redaction import without_user
from ._unpicklable import Unpicklable
from ._verbs.interface import FunctionOptions
from ._verbs.map import Outcomes, end_fan_outs
from ._verbs.map_plan import make_plan
from ._verbs.run import run, stream
from ._verbs.start import Run, start, started
from ._verbs.use import ModelFunction, StreamingFunction
from ._web.receiver import Receiver
from .resources import _pages
from .resources._pages import Listing, Page
from .resources._raw import request
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
from .types import (
    FileEncodingStrategy,
    Limits,
    RateLimit,
    RateLimitState,
    Retry,
    Stats,
    Timeout,
    WebhookEvent,
)

__all__ = ("Client", "aclose")


T = TypeVar("T")


class Client(Unpicklable):
    """A client for Replicate's HTTP API.

    Can be used from several event loops, one after the other or at the same time: each has its own session,
    which is opened at the first request. Close the client with `aclose()` or `async with`.

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
        api_prefix: str | None = None,
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
        output_hosts: Sequence[str] | None = None,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool | str | os.PathLike[str] | None = None,
        trace_configs: Sequence[TraceConfig] | None = None,
        session: ClientSession | None = None,
    ) -> None:
        """Create a client. Nothing is opened or sent before the first request.

        Args:
            api_token: API token, or a function that returns it for each request. Defaults to the token of the
                current Cog scope, then to the environment variable `REPLICATE_API_TOKEN`.
            base_url: URL of the API, with or without `/v1`. Defaults to the environment variable
                `REPLICATE_BASE_URL`, then to `https://api.replicate.com`.
            api_prefix: Path below `base_url` that all paths of the API begin with. Defaults to the environment
                variable `REPLICATE_API_PREFIX`, then to `/v1`. Pass `""` for a gateway that has no `/v1`, such as
                `https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/replicate`.
            timeout: Timeouts for the network: a `Timeout`, or its `read` timeout in seconds. Does not limit how
                long a model may run; `run(timeout=...)` does.
            headers: Additional headers for each request to the API.
            user_agent: Value of the `User-Agent` header.
            retry: Retry policy for the requests that are safe to repeat.
            limits: Limits on memory and on connections.
            rate_limit: Client-side rate limits, which all clients of this process with the same token share.
                Defaults to `REPLICATE_RATE_LIMIT` (such as `150/60`: 150 creates in 60 seconds), then to 600
                creates and 3000 other requests per minute. Pass `False` to disable client-side rate
                limiting.
            on_ambiguous: What to do if a create got no response and its prediction is not found in the list:
                `"raise"` an AmbiguousCreateError, or `"repeat"` the create at the risk of paying twice.
            mark_creates: Whether the deadlines of predictions are varied, so that a prediction can be recognised if its
                create gets no response: about a day if you pass no deadline, or else up to a tenth (at least
                up to 3 seconds) more than you pass (:api:`deadline`). Pass `False` to send deadlines exactly as given; then a create
                without a response is never adopted or cancelled.
            poll_interval: Seconds between two polls of a running prediction; 0 means as often as the account's rate
                limit allows. Defaults to the environment
                variable `REPLICATE_POLL_INTERVAL`; without it, the interval grows with the prediction's age.
            use_file_output: Whether file URLs in outputs become `FileOutput` objects.
            file_encoding_strategy: How to send files in inputs: `"url"` uploads them, `"base64"` encodes them
                into the request.
            output_hosts: Hosts that output files may be fetched from, such as `"replicate.delivery"`, or
                `"*.example.com"` for all below `example.com`. Redirects to other hosts are not followed either.
                Defaults to any host.
            proxy: URL of an HTTP proxy. Defaults to the proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`, ...).
            ssl: SSL context, or the path of a PEM file with certificate authorities to trust in addition to those of
                the system; `False` disables the verification of certificates.
            trace_configs: aiohttp `TraceConfig` objects to attach to the session.
            session: aiohttp session to use instead of the client's own, for one event loop. It is not closed
                with the client.

        Raises:
            ArgumentError: An argument has an invalid value.
        """
        self._is_view: bool = False
        self._context = make_context(
            api_token,
            base_url=base_url,
            api_prefix=api_prefix,
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
            output_hosts=output_hosts,
            proxy=proxy,
            ssl=ssl,
            trace_configs=trace_configs,
            session=session,
        )

    @classmethod
    def _over(cls, context: Context) -> Self:
        """Return a client over existing state."""
        made = object.__new__(cls)
        made._context = context
        made._is_view = False
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
        output_hosts: Sequence[str] | None = None,
        rate_limit: RateLimit | Literal[False] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Client:
        """Return a view of this client with other options, which shares its connections.

        Options that are None stay as they are. A view is cheap, so each request of a web app can have its own. It has
        `stats` of its own. Leaving `async with` on the view does not close anything; `aclose()` of the view or of
        the client closes both.

        ```python
        view = client.with_options(tags={"tenant": "acme"}, rate_limit=RateLimit(creates=10, max_queue=2.0))
        ```

        Args:
            api_token: API token, or a function that returns it for each request.
            timeout: Timeouts for the network: a `Timeout`, or its `read` timeout in seconds.
            headers: Headers to add to those of this client.
            user_agent: Value of the `User-Agent` header.
            retry: Retry policy for the requests that are safe to repeat.
            on_ambiguous: `"raise"` or `"repeat"`.
            poll_interval: Seconds between two polls of a running prediction.
            use_file_output: Whether file URLs in outputs become `FileOutput` objects.
            file_encoding_strategy: `"url"` or `"base64"`.
            output_hosts: Hosts that output files may be fetched from.
            rate_limit: Client-side rate limits. For a view with `tags` and the same token, they apply to all
                requests with these tags, within the limits of the account. `False` disables them.
            tags: Names and values to add to those of this client, such as a tenant. They are in the `extra` of log
                records, and are not sent.

        Returns:
            The view.

        Raises:
            ArgumentError: An argument has an invalid value.
        """
        view = self._over(
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
                output_hosts=output_hosts,
                rate_limit=rate_limit,
                tags=tags,
            )
        )
        view._is_view = True
        return view

    @property
    def is_view(self) -> bool:
        """Whether this client is a view, which `with_options` returned."""
        return self._is_view

    @property
    def rate_limit(self) -> RateLimitState | None:
        """State of the rate limits: what is left now, and the lengths of the queues; `None` if they are disabled."""
        return self._context.transport.rate_limit_state()

    async def aclose(self) -> None:
        """Close the connections of the running event loop. The client cannot be used afterwards.

        Calls of `map` that are running are ended first, as if you had left their loops. Connections of other event loops are
        closed when those end. May be called more than once.
        """
        if self._context.fan_outs:
            await end_fan_outs(self._context, self._context.fan_outs)
        await self._context.transport.pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if not self._is_view:
            await self.aclose()

    @property
    def stats(self) -> Stats:
        """Counters of what this client and its views have done; those of a view count what it has done."""
        return self._context.stats

    def __repr__(self) -> str:
        return f"Client(base_url={without_user(self._context.transport.config.base_url)!r})"

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
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        cancel_after: float | str | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "cancel",
        retry_failed: int = 0,
        start_timeout: float | timedelta | None = None,
        fallback: Sequence[str] = (),
        save_to: str | os.PathLike[str] | None = None,
        durable: bool = True,
        progress: bool = False,
        via: Receiver | None = None,
    ) -> Output:
        """Run a model and wait for its final output.

        The create is sent once. If it gets no response, the prediction is looked for in the account's list. Polls
        are repeated until they succeed, so that nothing that has been paid for is lost. Calls
        :api:`models.predictions.create`, :api:`predictions.create`, :api:`deployments.predictions.create` and
        :api:`predictions.get`.

        ```python
        output = await client.run("owner/name", {"prompt": "a red square"}, timeout=120)
        ```

        Args:
            ref: `"owner/name"`, `"owner/name:version"`, the ID of a version, or a `Model`, `Version` or
                `Deployment`.
            input: Inputs of the model. Files anywhere in them are uploaded.
            wait: Whether the server holds its response until there is a result: `True` for up to 60 seconds, a
                number of whole seconds up to 60, or `False` or 0 to poll from the start. In each case,
                `run` returns when the prediction has ended.
            timeout: Seconds, or a timedelta, for the whole run; then the prediction is cancelled. None means
                24 hours.
            use_file_output: Whether file URLs in the output become `FileOutput` objects. Defaults to the
                client's setting.
            file_encoding_strategy: `"url"` or `"base64"`. Defaults to the client's setting.
            webhook: HTTPS URL that receives webhooks.
            webhook_events_filter: Events that trigger the webhook: `start`, `output`, `logs`, `completed`.
            cancel_after: Deadline after which the server cancels the prediction: seconds (at least 5), a
                timedelta, or a duration such as `"1h30m"`. The server gets up to a tenth (at least up to 3 seconds)
                more, by which the prediction is recognised: see `mark_creates`. `timeout` implies a deadline.
            on_abandon: What happens to the prediction if the call is cancelled, interrupted or out of time:
                `"cancel"` cancels it, within 5 seconds; `"leave"` leaves it running.
            retry_failed: Number of further predictions to create, and pay for, after transient failures (those
                that are `retryable`).
            start_timeout: Seconds, or a timedelta, after which a prediction that is still `starting` is cancelled
                and given up. The prediction is then polled from the start (`wait`). `None` for no limit.
            fallback: Other models to run with the same input, one after the other: `"owner/name"`,
                `"owner/name:version"` or the ID of a version. The next one is tried if a prediction does not start
                in time, if the API fails with a server error and nothing was created as far as the list of
                predictions shows, or if a model fails for lack of capacity or is interrupted, after
                `retry_failed`; never after a failure that the input may have caused. `stats.fell_back` counts it.
            save_to: Directory for the files of the output, which is created if necessary. The files are fully
                written when `run` returns; their `path` is set.
            durable: Whether files in `save_to` must survive a power cut: `run` waits until the system has written
                them to the disk.
            progress: Whether to show progress bars (needs the extra `progress`): the status, the percentage that
                the model logs, and the bytes of the files in `save_to`. The prediction is then polled from the
                start, unless `wait` is a number.
            via: Receiver to wait with, which `webhooks.receiver()` returns: the end of the prediction is delivered
                to it, and polls are rare. Neither `wait` nor `webhook` applies then.

        Returns:
            The final output: JSON in which files are `FileOutput` objects.

        Raises:
            PredictionFailed: The model failed.
            PredictionCanceled: The prediction was cancelled, or its deadline has passed.
            PredictionAborted: The prediction ended before it started.
            RunTimeout: The timeout has passed.
            StartTimeout: The prediction did not start in time, and there is no further `fallback`.
            OutputNotSaved: The prediction succeeded, but not all files could be saved in `save_to`.
            ContactLost: The prediction could not be followed to its end; it may still be running.
            AmbiguousCreateError: The create got no response, and the list of predictions does not show the
                prediction. It may exist.
            ReplicateError: The API returned an error.
            ArgumentError: An argument has an invalid value; nothing was sent.
        """
        return await run(
            self._context,
            ref,
            input,
            timeout=timeout,
            on_abandon=on_abandon,
            retry_failed=retry_failed,
            start_timeout=start_timeout,
            fallback=fallback,
            save_to=save_to,
            durable=durable,
            progress=progress,
            via=via,
            options=CreateOptions(
                wait=wait,
                cancel_after=cancel_after,
                webhook=webhook,
                webhook_events_filter=webhook_events_filter,
                file_encoding_strategy=file_encoding_strategy,
                use_file_output=use_file_output,
            ),
        )

    def start(
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
        retry_failed: int = 0,
        start_timeout: float | timedelta | None = None,
        fallback: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[Run]:
        """Run a model, with access to its prediction, progress and logs meanwhile.

        Entering the block creates the prediction, without waiting for its end. Leaving it without a result
        cancels the prediction, as a cancelled `run` does. Calls the operations of `run`.

        ```python
        async with client.start("owner/name", {"prompt": "a red square"}, timeout=60) as run:
            async for update in run.updates():
                print(run.id, update.status, update.progress)
            output = await run.result()
        ```

        Args:
            ref: As for `run`.
            input: Inputs of the model. Files anywhere in them are uploaded.
            timeout: Seconds, or a timedelta, from entering the block to the end of the run; then the prediction is
                cancelled. None means 24 hours.
            use_file_output: As for `run`.
            file_encoding_strategy: As for `run`.
            webhook: As for `run`.
            webhook_events_filter: As for `run`.
            cancel_after: As for `run`.
            on_abandon: What happens to the prediction if the block is left before its end, or the time is over:
                `"cancel"` cancels it, within 5 seconds; `"leave"` leaves it running.
            retry_failed: As for `run`.
            start_timeout: As for `run`.
            fallback: As for `run`.

        Returns:
            An async context manager, which gives a `Run`.

        Raises, when the block is entered:
            AmbiguousCreateError: As for `run`.
            ReplicateError: The API returned an error.
            TransportError: The prediction could not be created.

        Raises:
            ArgumentError: An argument has an invalid value; nothing was sent.
        """
        return started(
            start(
                self._context,
                ref,
                input,
                timeout=timeout,
                start_timeout=start_timeout,
                fallback=fallback,
                on_abandon=on_abandon,
                retry_failed=retry_failed,
                options=CreateOptions(
                    cancel_after=cancel_after,
                    webhook=webhook,
                    webhook_events_filter=webhook_events_filter,
                    file_encoding_strategy=file_encoding_strategy,
                    use_file_output=use_file_output,
                ),
            )
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
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        cancel_after: float | str | timedelta | None = None,
        on_abandon: Literal["cancel", "leave"] = "cancel",
    ) -> EventStream:
        """Run a model and return its events as they arrive: an async iterator and async context manager.

        Nothing is sent before the first event is requested. Lost connections are resumed, and models that
        cannot stream are polled: the events are the same. Leaving early closes the connection and cancels the
        prediction (:api:`streaming`).

        ```python
        async for event in client.stream("owner/name", {"prompt": "a poem"}):
            print(event, end="")
        ```

        Args:
            ref: As for `run`.
            input: Inputs of the model. Files anywhere in them are uploaded.
            timeout: Seconds, or a timedelta, from the request for the first event to the last event; then the
                prediction is cancelled. None means 24 hours.
            use_file_output: As for `run`.
            file_encoding_strategy: As for `run`.
            webhook: As for `run`.
            webhook_events_filter: As for `run`.
            cancel_after: As for `run`.
            on_abandon: What happens to the prediction if the stream is left before its end, cancelled or out
                of time: `"cancel"` or `"leave"`.

        Returns:
            The stream.

        Raises, from the iteration:
            StreamError: The model failed; the error holds the text so far.
            RunTimeout: The timeout has passed.
            ContactLost: The prediction could not be followed to its end.
            AmbiguousCreateError: As for `run`.
            StreamInUse: Another task is waiting for the next event.
            StreamAbandoned: The stream ended before, when waiting for an event was cancelled or interrupted.
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
        start_timeout: float | timedelta | None = None,
        fallback: Sequence[str] = (),
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
        start_timeout: float | timedelta | None = None,
        fallback: Sequence[str] = (),
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
        start_timeout: float | timedelta | None = None,
        fallback: Sequence[str] = (),
    ) -> ModelFunction | StreamingFunction:
        """Return a model as a function. Nothing is sent before it is called.

        The schema of the model is fetched once, before the first call creates a prediction. Inputs are checked
        by it, and it decides what in an output is text and what is a file (:api:`version-schema`).

        ```python
        painter = client.use("owner/painter")
        image = await painter(prompt="a red square")
        ```

        Args:
            ref: As for `run`.
            streaming: Whether calls return streams of pieces instead of the final output.
            validate: Whether inputs are checked before anything is sent.
            wait: As for `run`.
            timeout: As for `run`, for each call.
            use_file_output: As for `run`.
            file_encoding_strategy: As for `run`.
            cancel_after: As for `run`.
            on_abandon: As for `run`.
            retry_failed: As for `run`; not for streams.
            start_timeout: As for `run`; not for streams.
            fallback: As for `run`; not for streams. The inputs are checked, and the output is converted, by the
                schema of `ref`.

        Returns:
            A `ModelFunction`, or a `StreamingFunction` if `streaming` is true.

        Raises:
            ArgumentError: An argument has an invalid value.
        """
        options = FunctionOptions(
            validate=validate,
            timeout=timeout,
            on_abandon=on_abandon,
            retry_failed=retry_failed,
            start_timeout=start_timeout,
            fallback=fallback,
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
        durable: bool = True,
        progress: bool = False,
        journal: str | os.PathLike[str] | None = None,
        timeout: float | timedelta | None = None,
        retry_failed: int = 0,
        redo: Iterable[Literal["failed", "canceled", "timeout", "expired", "lost"]] = (),
        on_abandon: Literal["cancel", "leave"] | None = None,
        use_file_output: bool | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent | str] | None = None,
        cancel_after: float | str | timedelta | None = None,
    ) -> Outcomes:
        """Run a model on many inputs. A failure of one input does not affect the others.

        Predictions are created within the account's rate limits. Many of them are polled with few requests, by pages
        of the account's list. Calls the operations of `run`, and :api:`predictions.list`.

        ```python
        async for outcome in client.map("owner/name", inputs, save_to="out/", journal="run.db"):
            print(outcome.index, outcome.error or outcome.saved)
        ```

        Args:
            ref: As for `run`; or a function that `use` returned, whose options apply.
            inputs: Inputs, which are read as they are needed: an iterable, which may block, or an async
                iterable.
            concurrency: Maximum number of predictions in flight. Defaults to 64.
            ordered: Whether to yield the outcomes in the order of the inputs, rather than as they arrive.
            save_to: Directory for the outputs, which is created if necessary: files, `output.txt`,
                `output.json`, and the record `prediction.json`, each with the index in front
                (`000042-out.png`). Files are fully written before their outcome is yielded. Files that are
                there already are not fetched again.
            durable: Whether files in `save_to` must survive a power cut: the system writes them to the disk before
                the journal notes them, and before their outcome is yielded.
            progress: Whether to show the outcomes in a progress bar (needs the extra `progress`).
            journal: SQLite file, which is created if necessary. With it, an interrupted batch can be repeated
                with the same inputs: nothing that has been paid for is created again.
            timeout: Seconds, or a timedelta, for each prediction after its create; then it is cancelled. None
                means 24 hours.
            retry_failed: Number of further predictions to create for an input, and pay for, after transient
                failures. With a journal, failures in earlier runs count.
            redo: Which predictions of earlier runs in the journal to create, and pay for, once more: those that
                `"failed"`, were `"canceled"`, or were cancelled after a `"timeout"`; those whose output has
                `"expired"` before it was saved; and those that were `"lost"`: the create got no response and its
                prediction was not found, or the prediction no longer exists.
            on_abandon: What happens to the predictions in flight if the loop is left, cancelled or
                interrupted: `"cancel"` cancels them, `"leave"` leaves them running. Defaults to `"cancel"`;
                with a journal to `"leave"`, so that the next run collects them.
            use_file_output: As for `run`.
            file_encoding_strategy: As for `run`.
            webhook: As for `run`.
            webhook_events_filter: As for `run`.
            cancel_after: As for `run`.

        Returns:
            The outcomes: an async iterator and async context manager.

        Raises:
            ArgumentError: An argument has an invalid value; nothing was sent.

        Iterating raises `JournalError` if the journal cannot be used. If reading the inputs fails, that error is
        raised after the outcomes of all predictions in flight.
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
            durable=durable,
            journal=journal,
            timeout=timeout,
            retry_failed=retry_failed,
            redo=redo,
            on_abandon=on_abandon,
        )
        bar = None
        if _arguments.flag(progress, "progress"):
            total = len(inputs) if isinstance(inputs, Sized) else None
            bar = Bar(desc=plan.match.label, total=total, unit="run")
        return Outcomes(self._context, plan, inputs, bar)

    def output(self, url: str) -> FileOutput:
        """Return an output file by its URL, such as one from a database. Nothing is sent.

        ```python
        image = client.output(row["url"])
        await image.save("pictures/")
        ```

        Args:
            url: URL of the file: `https:`, `http:` or `data:`. The API token is never sent to it.

        Returns:
            The file, which is downloaded when it is read or saved. Output files are deleted after one hour
            (:api:`retention`).

        Raises:
            ArgumentError: It is not a URL with one of these schemes.
        """
        return output_of_url(self._context.transport, url)

    async def search(self, query: str, *, limit: int | None = None) -> SearchResults:
        """Search models, collections and documentation. Calls :api:`search`.

        Args:
            query: Text to search for.
            limit: Maximum number of models to return, from 1 to 50; the server defaults to 20.

        Returns:
            The models, collections and pages of documentation that match.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
            ArgumentError: An argument has an invalid value; nothing was sent.
        """
        return await search(self._context, query, limit)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | bool | None] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a request to any endpoint of the API, with the same token, retries and errors as other requests.

        A POST, PUT, PATCH or DELETE is repeated only if the first one certainly had no effect. To create a prediction,
        use `run` or `predictions.create`, which find it again if its response is lost.

        ```python
        model = await client.request("GET", "/models/owner/name")
        print(model["description"], model.response.status)
        ```

        Args:
            method: HTTP method.
            path: Path below `/v1`, percent-encoded, such as `"/models/owner/name"`. A URL is refused, so that the
                token is sent to the API only.
            params: Query parameters; those that are `None` are left out.
            json: Value to send as JSON; `None` for no body.
            headers: Additional headers.

        Returns:
            The JSON of the response: an object is a dictionary with its `response`. Text if it is not JSON, `None` if
            it is empty.

        Raises:
            ArgumentError: An argument is invalid; nothing was sent.
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return await request(self._context, method, path, params=params, json=json, headers=headers)

    def paginate(self, listing: Listing[T] | Callable[[], Listing[T]]) -> AsyncIterator[Page[T]]:
        """Iterate over the pages of a listing.

        If a page cannot be fetched, the next step of the iteration fetches the same page again.

        ```python
        async for page in client.paginate(client.models.list):
            print(len(page))
        ```

        Args:
            listing: A `list` method, or what it returns.

        Returns:
            An iterator over the pages, which are fetched as they are needed.

        Raises, from the iteration:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return _pages.paginate(listing)

    # Namespaces

    @property
    def accounts(self) -> Accounts:
        """The account of the API token."""
        return Accounts(self._context)

    @property
    def collections(self) -> Collections:
        """Curated collections of models."""
        return Collections(self._context)

    @property
    def deployments(self) -> Deployments:
        """Models on dedicated hardware."""
        return Deployments(self._context)

    @property
    def files(self) -> Files:
        """Uploaded files."""
        return Files(self._context)

    @property
    def hardware(self) -> HardwareNamespace:
        """The hardware that models run on."""
        return HardwareNamespace(self._context)

    @property
    def models(self) -> Models:
        """Models, their versions, examples and READMEs."""
        return Models(self._context)

    @property
    def predictions(self) -> Predictions:
        """Runs of models."""
        return Predictions(self._context)

    @property
    def trainings(self) -> Trainings:
        """Trainings, which create new versions of models."""
        return Trainings(self._context)

    @property
    def webhooks(self) -> Webhooks:
        """The signing secret of webhooks, and the verification of deliveries."""
        return Webhooks(self._context)


def default_client() -> Client:
    """Return the client of the functions and namespaces of the package, configured by the environment."""
    return Client._over(default_context())


async def aclose() -> None:
    """Close the default client, that of the functions and namespaces of the package.

    What it is running is settled as by `Client.aclose`. When one of the names is used again, the default client begins
    anew, as the environment configures it then: so an app can be started more than once, as in tests.
    """
    if has_default_context():
        await default_client().aclose()
        reset_default_context()
