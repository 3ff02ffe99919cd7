"""Predictions: runs of models (HTTP API, section 4)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import attrs

from .. import _policy, exceptions, types
from .._codec import flat_size, structure, structure_part
from .._policy import Kind
from .._references import identifier, named, parse_name, parse_reference, quoted_name
from .._transport import LARGE, Call, sleep
from ..types import FileEncodingStrategy, Status, WebhookEvent
from . import _jobs
from ._base import Bound, Context, Listing, Namespace, pages, query
from ._creates import Creation, Wanted, send_create

if TYPE_CHECKING:
    from .._streams import EventStream
    from ..types import PredictionUrls, Progress, Update
    from .deployments import Deployment
    from .models import Model, Version

__all__ = ("Output", "Prediction", "Predictions")

_logger = logging.getLogger("replicate_async")

Output: TypeAlias = Any
"""JSON in which files are `FileOutput` objects."""


@attrs.define(eq=False)
class Prediction(Bound):
    """One run of a model (HTTP API, section 4.1).

    What `reload()` and `wait()` learn is written into the object itself.
    """

    _computed: ClassVar[frozenset[str]] = frozenset({"output", "urls"})

    id: str
    """What identifies it."""
    status: Status = ""
    """Where it is."""
    model: str | None = None
    """The model, `owner/name`."""
    version: str | None = None
    """The id of the version; `"hidden"` for official models."""
    deployment: str | None = None
    """The deployment that ran it."""
    input: dict[str, Any] = attrs.field(factory=dict)
    """What the model was given."""
    logs: str = ""
    """What the model has logged so far."""
    error: str | None = None
    """Why it failed."""
    metrics: dict[str, Any] = attrs.field(factory=dict)
    """Measurements: `predict_time` and `total_time` in seconds, counts of tokens and images."""
    data_removed: bool = False
    """Whether input, output and logs have been deleted, as they are after one hour."""
    source: str | None = None
    """`"api"` or `"web"`."""
    created_at: datetime | None = None
    """When it was created."""
    started_at: datetime | None = None
    """When the model started."""
    completed_at: datetime | None = None
    """When it ended."""
    deadline: datetime | None = None
    """When it will be cancelled, if `cancel_after` was given."""
    webhook: str | None = None
    """The URL that is told of it."""
    webhook_events_filter: list[str] = attrs.field(factory=list)
    """What the webhook is called for."""
    _since: float = attrs.field(factory=time.monotonic, repr=False, init=False)
    _files: bool | None = attrs.field(default=None, repr=False, init=False)
    _output: tuple[Any, Any] | None = attrs.field(default=None, repr=False, init=False)

    @property
    def output(self) -> Output:
        """What the model made so far; None if nothing. File URLs are `FileOutput` objects."""
        raw = self._raw.get("output")
        if self._output is None or self._output[0] is not raw:
            context = self._context
            files = context.use_file_output if self._files is None else self._files
            if files and not (raw is None or (raw.__class__ is str and ":" not in raw[:6])):
                from .._files import to_output

                self._output = raw, to_output(raw, context.transport, files=True)
            else:
                self._output = raw, raw  # no URL, as can be seen without loading what reads files
        return self._output[1]

    @property
    def urls(self) -> PredictionUrls:
        """Where it can be reached."""
        return structure_part(self._raw.get("urls"), types.PredictionUrls)

    @property
    def progress(self) -> Progress | None:
        """How far it is, if its logs tell (HTTP API, section 4.14)."""
        return _policy.progress(self.logs)

    async def reload(self) -> Self:
        """Fetch the state that it has now, and return the prediction itself.

        Operation: predictions.get.

        Raises:
            ReplicateError: The API refuses.
            TransportError: There was no usable answer.
        """
        await self._look(Kind.READ)
        return self

    async def wait(self, *, timeout: float | timedelta | None = None) -> Self:
        """Wait until it has ended, and return the prediction itself. A failure is no error here.

        Failed requests are repeated until the time is over.

        Args:
            timeout: Seconds, or a timedelta; None: 24 hours.

        Raises:
            RunTimeout: The time was over first. The prediction goes on.
            ReplicateError: The API refuses.
        """
        return await _jobs.wait(self, self._poll, timeout)

    async def cancel(self) -> Self:
        """Stop it, and return the prediction itself. One that has ended stays as it is.

        Operation: predictions.cancel.
        """
        fresh = await _cancel(self._context, self.id)
        self._adopt(fresh)
        return self

    async def updates(self) -> AsyncIterator[Update]:
        """Yield its status, new log text and progress: at first as they are, then whenever they change.

        It ends with the prediction. To stop early, leave the loop: the prediction goes on.

        Raises:
            PredictionFailed: It failed; likewise PredictionCanceled and PredictionAborted. This comes
                after the last update.
            ReplicateError: The API refuses.
        """
        async for update in _jobs.updates(self, self._poll):
            yield update

    async def output_iterator(self) -> AsyncIterator[Output]:
        """Yield the items of its output as they appear, none twice, up to its end.

        Output that is no list is one item, yielded when it is complete. To stop early, leave the loop: the
        prediction goes on.

        Raises:
            PredictionFailed: It failed; likewise PredictionCanceled and PredictionAborted. This comes
                after the items that there are.
            ReplicateError: The API refuses.
        """
        count = 0
        limit = time.monotonic() + _policy.LONGEST_WAIT
        # Of a list that still grows it cannot be told by its first items whether all are files; that
        # of a model that streams text has none (HTTP API, section 5.1).
        text = "/v1/streams/" in (self.urls.stream or "")
        while True:
            over = _jobs.is_over(self)
            output = self._raw.get("output") if text else self.output
            if isinstance(output, list):
                for item in output[count:]:
                    count += 1
                    yield item
            elif over and output is not None and not count:
                count = 1
                yield output
            if over:
                break
            if time.monotonic() > limit:
                raise exceptions.RunTimeout(self, _policy.LONGEST_WAIT)
            await sleep(_jobs.pause(self))
            await self._poll()
        error = _jobs.failure(self)
        if error is not None:
            raise error

    def stream(self, *, use_file_output: bool | None = None) -> EventStream:
        """Return its events, as they arrive: an async iterator and async context manager.

        Nothing is sent before the first event is asked for. A prediction that cannot be streamed, or no
        more, is polled, and the events are the same. Leaving early leaves the prediction running.

        Args:
            use_file_output: Whether files become `FileOutput`; as for the prediction by default.

        Raises, from the iteration:
            StreamError: It failed; the error has the text so far.
            ContactLost: It cannot be followed to its end.
            StreamInUse: Another task is waiting for the next event.
        """
        from .._streams import EventStream, Feed

        context = self._context
        files = context.use_file_output if self._files is None else self._files
        if use_file_output is not None:
            files = use_file_output
        return EventStream(Feed(context.transport, prediction=self, files=files))

    # What `_streams` needs, which stands below this module.

    @property
    def _is_over(self) -> bool:
        return _jobs.is_over(self)

    def _pause(self) -> float:
        return _jobs.pause(self)

    def _failure(self) -> exceptions.ModelError | None:
        return _jobs.failure(self)

    async def _poll(self, patience: float = _policy.LONGEST_WAIT) -> None:
        await self._look(Kind.POLL, patience)
        _jobs.log_end(self)

    async def _look(self, kind: Kind, patience: float = _policy.LONGEST_WAIT) -> None:
        call = Call("GET", f"/predictions/{identifier(self.id, 'id')}", kind)
        self._adopt(await self._context.fetch(Prediction, call, patience))

    def _adopt(self, fresh: Prediction) -> None:
        since, files = self._since, self._files
        self._replace(fresh)
        self._since, self._files = since, files


class Predictions(Namespace):
    """Predictions: runs of models (HTTP API, section 4)."""

    async def create(
        self,
        version: str | Version | None = None,
        input: Mapping[str, Any] | None = None,
        *,
        model: str | Model | None = None,
        deployment: str | Deployment | None = None,
        wait: bool | float | None = None,
        cancel_after: float | str | timedelta | None = None,
        webhook: str | None = None,
        webhook_events_filter: Sequence[WebhookEvent] | None = None,
        file_encoding_strategy: FileEncodingStrategy | None = None,
        use_file_output: bool | None = None,
        stream: bool | None = None,
    ) -> Prediction:
        """Create a prediction and return it as the server describes it, finished or not.

        It runs, and costs, from now on. Operations: predictions.create (HTTP API, section 4.7),
        models.predictions.create and deployments.predictions.create.

        Args:
            version: What to run: a version's id, `owner/name:version`, or `owner/name` of an
                official model. Exactly one of `version`, `model` and `deployment` is given.
            input: What the model takes. Files anywhere in it are uploaded.
            model: Or an official model, `owner/name`.
            deployment: Or a deployment, `owner/name`.
            wait: Let the server wait for the result: True for 60 s, or seconds from 1 to 60.
            cancel_after: Let the server cancel it after so many seconds (5 or more), after a
                timedelta, or after a duration such as `"1h30m"`.
            webhook: An HTTPS URL to tell of it.
            webhook_events_filter: What to tell: `start`, `output`, `logs`, `completed`.
            file_encoding_strategy: `"url"` uploads files, `"base64"` sends them inside of the
                request; the client's by default.
            use_file_output: Whether files in the output become `FileOutput`; the client's by
                default.
            stream: Deprecated by the API, without effect.

        Raises:
            ArgumentError: An argument is impossible; nothing was sent.
            ReplicateError: The API refuses; nothing was created.
            AmbiguousCreateError: No answer came: the prediction may exist.
        """
        if sum(target is not None for target in (version, model, deployment)) != 1:
            raise exceptions.ArgumentError(
                "version", "give exactly one of `version`, `model` and `deployment`"
            )
        options = Options(
            wait=wait,
            cancel_after=cancel_after,
            webhook=webhook,
            webhook_events_filter=webhook_events_filter,
            file_encoding_strategy=file_encoding_strategy,
            use_file_output=use_file_output,
            stream=stream,
        )
        if model is not None:
            owner, name = parse_name(*full_name(model, "model"), "model")
            order = await prepare(self._context, input, options)
            return await create(self._context, f"{owner}/{name}", order)
        if version is not None:
            target = Target.version(named(version, "id", "version"))
        else:
            assert deployment is not None
            names = parse_name(*full_name(deployment, "deployment"), "deployment")
            target = Target.deployment(*names)
        return await create(self._context, target, await prepare(self._context, input, options))

    async def get(self, id: str) -> Prediction:
        """Fetch a prediction. Operation: predictions.get (HTTP API, section 4.10)."""
        call = Call("GET", f"/predictions/{identifier(id, 'id')}")
        return await self._context.fetch(Prediction, call)

    def list(
        self,
        cursor: str | None = None,
        *,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        source: str | None = None,
    ) -> Listing[Prediction]:
        """List the account's predictions, newest first. Operation: predictions.list (section 4.11).

        Args:
            cursor: The `next` or `previous` of a page, to begin there; it keeps the filters.
            created_after: Only those made at this time or later: a datetime or ISO 8601.
            created_before: Only those made before.
            source: `"web"` for those made on the web site in the last 14 days; all by default.
        """
        parameters = query(
            created_after=None
            if created_after is None
            else _policy.timestamp(created_after, "created_after"),
            created_before=None
            if created_before is None
            else _policy.timestamp(created_before, "created_before"),
            source=None if source is None else _policy.one_of(source, ("web",), "source"),
        )
        call = Call("GET", "/predictions", params=parameters)
        return pages(self._context, call, Prediction, cursor)

    async def cancel(self, id: str) -> Prediction:
        """Stop a prediction. Operation: predictions.cancel (HTTP API, section 4.12)."""
        return await _cancel(self._context, id)

    async def wait(
        self, prediction: Prediction | str, *, timeout: float | timedelta | None = None
    ) -> Prediction:
        """Wait until a prediction has ended, and return it. A failure is no error here.

        With an id, it picks up a prediction that another process began.

        Args:
            prediction: The prediction, or its id.
            timeout: Seconds, or a timedelta; None: 24 hours.

        Raises:
            RunTimeout: The time was over first. The prediction goes on.
            ReplicateError: The API refuses.
        """
        if isinstance(prediction, Prediction):
            return await prediction.wait(timeout=timeout)
        identifier(prediction, "prediction")
        _policy.timeout_seconds(timeout)
        found = self._context.bind(structure({"id": prediction}, Prediction))
        return await _jobs.wait(found, found._poll, timeout, at_once=True)


@attrs.frozen(eq=False, repr=False)
class Target:
    """What is to be run: one of the three endpoints that create predictions."""

    path: str
    """The path of the endpoint."""
    fields: Mapping[str, Any]
    """What its body has beside the input."""
    wanted: Wanted
    """How to recognise its predictions."""

    @classmethod
    @lru_cache(maxsize=256)
    def version(cls, text: str) -> Target:
        """A version: its id, `owner/name:version`, or `owner/name` of an official model."""
        reference = parse_reference(text, "version")
        return cls(
            "/predictions",
            {"version": reference.version or str(reference)},
            Wanted(str(reference), model=reference.full_name, version=reference.version),
        )

    @classmethod
    @lru_cache(maxsize=256)
    def model(cls, full_name: str) -> Target:
        """An official model, `owner/name`."""
        path = f"/models/{quoted_name(full_name, 'model')}/predictions"
        return cls(path, {}, Wanted(full_name, model=full_name))

    @classmethod
    def deployment(cls, owner: str, name: str) -> Target:
        """A deployment."""
        full_name = f"{owner}/{name}"
        return cls(
            f"/deployments/{quoted_name(full_name, 'deployment')}/predictions",
            {},
            Wanted(f"deployment {full_name}", deployment=full_name),
        )


@attrs.define(eq=False, repr=False)
class Options:
    """What a prediction is created with, beside its target and input."""

    wait: bool | float | None = None
    cancel_after: float | str | timedelta | None = None
    webhook: str | None = None
    webhook_events_filter: Sequence[WebhookEvent] | None = None
    file_encoding_strategy: FileEncodingStrategy | None = None
    use_file_output: bool | None = None
    stream: bool | None = None


@attrs.define(eq=False, repr=False)
class Order:
    """What is sent to create a prediction, except for where it is sent."""

    body: Mapping[str, Any]
    input: Mapping[str, Any]
    large: bool
    headers: Mapping[str, str]
    held: float
    """Seconds for which the server may hold its answer back."""
    use_file_output: bool | None


async def prepare(context: Context, input: Mapping[str, Any] | None, options: Options) -> Order:
    """Check what is to be sent, and upload the files in the input."""
    preference, held = _policy.wait_preference(options.wait)
    headers: dict[str, str] = {}
    if preference is not None:
        headers["Prefer"] = preference
    if options.cancel_after is not None:
        headers["Cancel-After"] = f"{_policy.cancel_after_seconds(options.cancel_after)}s"
    body: dict[str, Any] = {}
    if options.webhook is not None:
        body["webhook"] = check_webhook(options.webhook)
    if options.webhook_events_filter is not None:
        body["webhook_events_filter"] = check_events(options.webhook_events_filter)
    if options.stream is not None:
        body["stream"] = options.stream
    strategy = options.file_encoding_strategy or context.file_encoding_strategy
    if strategy != "url":
        _policy.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    size = flat_size(input)
    if size is not None:
        body["input"], large = dict(input or {}), size > LARGE
    else:
        from .._inputs import encode_input

        body["input"], large = await encode_input(
            input, context.transport, strategy, context.uploads
        )
    return Order(body, body["input"], large, headers, held, options.use_file_output)


_LATEST_VERSION_LIVES = 300.0
"""Seconds for which the latest version of a model that is not official is remembered."""


async def create(
    context: Context, target: Target | str, order: Order, creation: Creation | None = None
) -> Prediction:
    """Create a prediction: what the three endpoints have in common.

    A name, `owner/name`, is run as an official model or, on a 404, with the model's latest version.
    """
    creation = creation or Creation()
    name = None
    if isinstance(target, str):
        known = context.latest_versions.get(target)
        if known is None or time.monotonic() - known[0] > _LATEST_VERSION_LIVES:
            name, target = target, Target.model(target)
        else:
            target = Target.version(f"{target}:{known[1]}")
    while True:
        call = Call(
            "POST",
            target.path,
            Kind.CREATE,
            trail=creation,
            rate_class="creates",
            json={**target.fields, **order.body},
            large=order.large,
            headers=order.headers,
            held=order.held,
        )
        try:
            prediction = await send_create(
                context, call, Prediction, target.wanted, order.input, creation
            )
        except exceptions.NotFoundError as error:
            if name is None:
                raise
            # Not official: nothing was created, nothing was billed.
            version = await _latest_version(context, name, error)
            context.latest_versions[name] = time.monotonic(), version
            name, target = None, Target.version(f"{name}:{version}")
        else:
            prediction._files = order.use_file_output
            _jobs.log_end(prediction)
            return prediction


async def _latest_version(
    context: Context, full_name: str, refused: exceptions.NotFoundError
) -> str:
    try:
        model = (
            await context.transport.send(Call("GET", f"/models/{quoted_name(full_name, 'model')}"))
        ).data
    except exceptions.NotFoundError as error:
        raise exceptions.NotFoundError(
            refused.method,
            refused.url,
            404,
            title="No such model",
            detail=f"there is no model {full_name}, or it is not visible to this account. (A"
            " deployment is run with predictions.create(deployment=...), or by passing the Deployment)",
        ) from error
    match model:
        case {"latest_version": {"id": str(version)}}:
            return version
    raise exceptions.NotFoundError(
        refused.method,
        refused.url,
        404,
        title="Nothing to run",
        detail=f"the model {full_name} exists, but it is not official and has no version",
    ) from refused


def full_name(
    value: str | tuple[str, str] | Model | Deployment, argument: str
) -> tuple[str, str | None]:
    """Return owner and name of what users pass for a model or deployment."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, tuple) and len(value) == 2:
        return value
    owner, name = getattr(value, "owner", None), getattr(value, "name", None)
    if isinstance(owner, str) and isinstance(name, str):
        return owner, name
    raise exceptions.ArgumentTypeError(
        argument, f"expected 'owner/name', got a {type(value).__name__}"
    )


def check_webhook(url: str | None) -> str | None:
    """Return a webhook's URL, which must be of HTTPS (HTTP API, section 6.1)."""
    if url is not None and not (isinstance(url, str) and url.lower().startswith("https://")):
        raise exceptions.ArgumentError("webhook", f"{url!r} is no https URL")
    return url


def check_events(events: Sequence[WebhookEvent] | None) -> list[str] | None:
    """Return the events that a webhook shall be called for."""
    if events is None:
        return None
    if isinstance(events, str) or not isinstance(events, Iterable):
        raise exceptions.ArgumentTypeError(
            "webhook_events_filter", f"expected a list of events, got {events!r}"
        )
    allowed = ("start", "output", "logs", "completed")
    return [_policy.one_of(event, allowed, "webhook_events_filter") for event in events]


async def _cancel(context: Context, id: str) -> Prediction:
    # Cancelling twice is cancelling once, so it is repeated as a read is.
    call = Call("POST", f"/predictions/{identifier(id, 'id')}/cancel", Kind.POLL, urgent=True)
    cancelled = await context.fetch(Prediction, call, _policy.LOOK_PATIENCE)
    context.stats.cancelled += 1
    _logger.info("prediction %s cancelled", cancelled.id)
    return cancelled
