"""The state of a client, and the objects that are bound to it."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Self, TypeAlias, TypeGuard, TypeVar, get_args

import attrs

from .. import _arguments, exceptions
from .._codec import structure
from .._files.uploads import Uploads
from .._http.call import (
    USER_AGENT,
    Answer,
    Call,
    ClientSession,
    Config,
    TraceConfig,
)
from .._http.checks import (
    DEFAULT_BASE_URL,
    check_base_url,
    check_headers,
    check_prefix,
    check_token,
)
from .._http.hosts import check_hosts
from .._http.proxies import SSL, check_proxy, check_ssl
from .._http.retry import Kind
from .._http.session import Pool
from .._http.transport import Transport
from .._redaction import Secret
from .._telemetry import log_extra, set_up_logging
from ..types import FileEncodingStrategy, Job, Limits, RateLimit, Record, Retry, Stats, Timeout
from ..types._response import ResponseHolder
from .pending import PendingCreates
from .policy import Timings
from .poller import Pollers
from .versions import KnownModels
from .viewers import Viewers

T = TypeVar("T")
R = TypeVar("R", bound=Record)
Token: TypeAlias = str | Callable[[], str]
OnAmbiguous: TypeAlias = Literal["raise", "repeat"]


@attrs.define(eq=False, repr=False)
class Marking:
    """Whether creates are marked: the option `mark_creates`, until the API refuses a mark. Views share it."""

    is_on: bool = True


@attrs.define(eq=False, repr=False)
class Context:
    """The state of a client, which its namespaces and objects share."""

    transport: Transport
    use_file_output: bool
    """Whether file URLs in outputs become `FileOutput`."""
    file_encoding_strategy: FileEncodingStrategy
    """How files in inputs are sent."""
    poll_interval: float | None
    """Seconds between two polls of a prediction; None: adaptive."""
    on_ambiguous: OnAmbiguous
    """What to do about a create without an answer whose result is not found."""
    secrets: frozenset[str] | None = None
    """Names of the inputs that the `repr` of jobs does not show; None if they are not known: then it shows no texts."""
    is_fallback: bool = False
    """Whether `secrets` are those of another model, so that the `repr` of jobs must not rely on them."""
    # All views of a client share the rest:
    timings: Timings = attrs.field(factory=Timings)
    marking: Marking = attrs.field(factory=Marking)
    creates: PendingCreates = attrs.field(factory=PendingCreates)
    models: KnownModels = attrs.field(factory=KnownModels)
    uploads: Uploads = attrs.field(factory=Uploads)
    schemas: dict[object, Any] = attrs.field(factory=dict)
    """For each account and model or version: what is known of its schema."""
    pollers: Pollers = attrs.field(factory=Pollers)
    viewers: Viewers = attrs.field(factory=Viewers)
    fan_outs: set[asyncio.Task[None]] = attrs.field(factory=set)
    """The tasks of `map`, which belong to no task group. They end before the connections are closed."""

    async def fetch(self, result: type[R], call: Call, patience: float = _arguments.MAX_WAIT) -> R:
        """Send a call, and return the object in its answer, bound to this client.

        Args:
            result: Class of the object.
            call: The call.
            patience: Seconds after which no further attempt begins.
        """
        answer = await self.transport.send(call, result, patience)
        fetched: R = answer.data
        return self.bind(with_answer(fetched, answer))

    def with_file_output(self, use_file_output: bool | None) -> Context:
        """Return a view with another choice of `use_file_output`; this context if that is None."""
        if use_file_output is None or use_file_output == self.use_file_output:
            return self
        return attrs.evolve(self, use_file_output=use_file_output)

    def without_max_queue(self) -> Context:
        """Return a view whose requests wait for the rate limits however long it takes, and never raise `QueueFull`."""
        config = self.transport.config
        limits = [
            limit and attrs.evolve(limit, max_queue=math.inf)
            for limit in (config.rate_limit, config.tag_limit)
        ]
        if limits == [config.rate_limit, config.tag_limit]:
            return self
        config = attrs.evolve(config, rate_limit=limits[0], tag_limit=limits[1])
        return attrs.evolve(self, transport=self.transport.with_config(config))

    def with_secrets(self, secrets: frozenset[str] | None) -> Context:
        """Return a view for jobs whose secret inputs are known; this context if they are not."""
        return self if secrets is None else attrs.evolve(self, secrets=secrets)

    @property
    def stats(self) -> Stats:
        """What this client and its views have done so far."""
        return self.transport.counters.own

    def log_extra(self, job: Job | None = None) -> dict[str, Any]:
        """Return the `extra` of a log record."""
        return log_extra(job, self.transport.config.tags)

    def count(self, **amounts: int) -> None:
        """Add to the counters of this client, and of the clients that it is a view of."""
        self.transport.counters.add(**amounts)

    def next_call(self, call: Call, link: object) -> Call | None:
        """Return the call for the next page of a list; None if there is none, or if the link leads to the same page.

        A link to the API is used as it is. Of another link, which a gateway may send, only the query is used, so
        that the token is sent to the API only (:api:`pagination`).
        """
        if not is_link(link):
            return None
        if not self.transport.routes.is_api(link):
            path = call.path.partition("?")[0]
            link = f"{path}?{link.partition('#')[0].partition('?')[2]}"
        if link == call.path:
            return None  # a server that returns the same link again would be asked forever
        return attrs.evolve(call, path=link, params=None)

    async def command(self, method: str, path: str) -> None:
        """Send a call that changes something, and expects nothing in the answer."""
        await self.transport.send(Call(method, path, Kind.WRITE, expects="nothing"))

    def bind(self, value: T) -> T:
        """Bind an object to this client, and return it; plain data is returned as it is."""
        if isinstance(value, Bound):
            value._bind(self)
        return value


def with_answer(record: R, answer: Answer) -> R:
    """Give a record, and the records within it, the response that they were made of; return the record."""
    return with_response(record, ResponseHolder(answer.response))


def with_response(record: R, holder: ResponseHolder) -> R:
    """Give a record, and the records within it, the holder of their response; return the record."""
    records: list[Record] = [record]
    for each in records:  # the list grows meanwhile
        each._held = holder
        record_type: Any = type(each)  # which is hashable, although records are not
        for name in _names_of_records(record_type):
            value = getattr(each, name)
            if isinstance(value, list):
                records += value
            elif value is not None:
                records.append(value)
    return record


@cache
def _names_of_records(record_type: type[Record]) -> tuple[str, ...]:
    """Return the names of the fields that hold a record, or a list of records."""
    fields = attrs.fields(attrs.resolve_types(record_type))
    return tuple(field.name for field in fields if _holds_records(field.type))


def _holds_records(kind: object) -> bool:
    if isinstance(kind, type) and issubclass(kind, Record):
        return True
    return any(_holds_records(argument) for argument in get_args(kind))


def is_link(value: object) -> TypeGuard[str]:
    """Return whether the `next` or `previous` of a page is a link."""
    return isinstance(value, str) and value not in ("", "null")


@attrs.define(eq=False)
class Bound(Record):
    """An object of the API that is bound to a client."""

    _client: Context | None = attrs.field(default=None, repr=False, init=False)

    def _bind(self, context: Context) -> None:
        self._client = context

    @property
    def _context(self) -> Context:
        if self._client is None:
            raise exceptions.ArgumentError("self", f"this {type(self).__name__} has no client")
        return self._client

    def _replace(self, fresh: Bound) -> None:
        """Take over what the API sent from another object of the same class."""
        self._raw, self._held = fresh._raw, fresh._held
        for field in attrs.fields(type(self)):
            if field.init:
                setattr(self, field.name, getattr(fresh, field.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._raw)

    def __copy__(self) -> Self:
        return self._context.bind(structure(self._raw, type(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._context.bind(structure(self.to_dict(), type(self)))


def _restore(kind: type[T], raw: dict[str, Any]) -> T:
    """Return an unpickled object, bound to the default client."""
    return default_context().bind(structure(raw, kind))


# -- From options to a context -----------------------------------------------------------------


def make_context(
    api_token: Token | None = None,
    *,
    base_url: str | None = None,
    api_prefix: str | None = None,
    timeout: float | Timeout | None = None,
    headers: Mapping[str, str] | None = None,
    user_agent: str | None = None,
    retry: Retry | None = None,
    limits: Limits | None = None,
    rate_limit: RateLimit | Literal[False] | None = None,
    on_ambiguous: OnAmbiguous = "raise",
    mark_creates: bool = True,
    poll_interval: float | None = None,
    use_file_output: bool = True,
    file_encoding_strategy: FileEncodingStrategy = "url",
    proxy: str | None = None,
    ssl: SSL | None = None,
    trace_configs: Sequence[TraceConfig] | None = None,
    session: ClientSession | None = None,
    output_hosts: Sequence[str] | None = None,
) -> Context:
    """Return the context of a client with these options, which are those of `Client`.

    Raises:
        ArgumentError: An option has an impossible value.
    """
    if session is not None and (proxy is not None or ssl is not None or trace_configs):
        raise exceptions.ArgumentError(
            "session",
            "it cannot be combined with `proxy`, `ssl` or `trace_configs`: set them on the session itself",
        )
    _check_kind(session, ClientSession, "session", "an aiohttp ClientSession")
    if trace_configs is not None and (
        not isinstance(trace_configs, Sequence)
        or not all(isinstance(each, TraceConfig) for each in trace_configs)
    ):
        raise exceptions.ArgumentTypeError(
            "trace_configs", f"expected a list of aiohttp TraceConfigs, got {trace_configs!r}"
        )
    _check_kind(retry, Retry, "retry", "a Retry")
    _check_kind(limits, Limits, "limits", "a Limits")
    if rate_limit is not False:
        _check_kind(rate_limit, RateLimit, "rate_limit", "a RateLimit or False")
    set_up_logging()
    limits = limits or Limits()
    if api_prefix is None:
        api_prefix = os.environ.get("REPLICATE_API_PREFIX", "/v1")
    prefix = check_prefix(api_prefix)
    config = Config(
        base_url=check_base_url(
            base_url or os.environ.get("REPLICATE_BASE_URL") or DEFAULT_BASE_URL, prefix
        ),
        prefix=prefix,
        token=_checked_token(api_token),
        headers=_headers(headers, user_agent),
        timeout=_timeout(timeout),
        retry=retry or Retry(),
        limits=limits,
        rate_limit=_rate_limit(rate_limit),
        output_hosts=check_hosts(output_hosts),
    )
    pool = Pool(
        proxy=None if proxy is None else check_proxy(proxy),
        ssl=check_ssl(ssl),
        trace_configs=trace_configs,
        session=session,
        connections=limits.connections,
    )
    return Context(
        transport=Transport(config, pool),
        use_file_output=_arguments.flag(use_file_output, "use_file_output"),
        file_encoding_strategy=_strategy(file_encoding_strategy),
        poll_interval=_poll_interval(poll_interval),
        on_ambiguous=_on_ambiguous(on_ambiguous),
        marking=Marking(_arguments.flag(mark_creates, "mark_creates")),
    )


def changed_context(
    context: Context,
    *,
    api_token: Token | None,
    timeout: float | Timeout | None,
    headers: Mapping[str, str] | None,
    user_agent: str | None,
    retry: Retry | None,
    on_ambiguous: OnAmbiguous | None,
    poll_interval: float | None,
    use_file_output: bool | None,
    file_encoding_strategy: FileEncodingStrategy | None,
    output_hosts: Sequence[str] | None,
    rate_limit: RateLimit | Literal[False] | None,
    tags: Mapping[str, str] | None,
) -> Context:
    """Return a view of a context with other options; those that are None do not change."""
    _check_kind(retry, Retry, "retry", "a Retry")
    config = context.transport.config
    if tags is not None:
        config = attrs.evolve(config, tags={**config.tags, **_checked_tags(tags)})
    if rate_limit is not None:
        # The tags of one account share its limit, and have theirs within it.
        if config.tags and api_token is None:
            config = attrs.evolve(config, tag_limit=_rate_limit(rate_limit))
        else:
            config = attrs.evolve(config, rate_limit=_rate_limit(rate_limit), tag_limit=None)
    config = attrs.evolve(
        config,
        token=config.token if api_token is None else _checked_token(api_token),
        timeout=config.timeout if timeout is None else _timeout(timeout),
        headers={
            **config.headers,
            **check_headers(headers or {}),
            **({} if user_agent is None else _headers(None, user_agent)),
        },
        retry=retry or config.retry,
        output_hosts=config.output_hosts if output_hosts is None else check_hosts(output_hosts),
    )
    return attrs.evolve(
        context,
        transport=context.transport.with_config(config),
        use_file_output=context.use_file_output
        if use_file_output is None
        else _arguments.flag(use_file_output, "use_file_output"),
        file_encoding_strategy=context.file_encoding_strategy
        if file_encoding_strategy is None
        else _strategy(file_encoding_strategy),
        poll_interval=context.poll_interval
        if poll_interval is None
        else _poll_interval(poll_interval),
        on_ambiguous=context.on_ambiguous if on_ambiguous is None else _on_ambiguous(on_ambiguous),
    )


_default: Context | None = None


def default_context() -> Context:
    """Return the context of the default client, which is configured by the environment."""
    global _default
    if _default is None:
        _default = make_context()
    return _default


def has_default_context() -> bool:
    """Return whether the default client has been made."""
    return _default is not None


def reset_default_context() -> None:
    """Make the default client like a new one, if there is one. See `reset`."""
    if _default is not None:
        reset(_default)


def reset(context: Context) -> None:
    """Make a context that is configured by the environment like a new one, also for those who hold it.

    Connections that are open stay so: they end with their event loops.
    """
    fresh = make_context()
    pool = context.transport.pool
    if not pool.is_closed:
        pool.forget_servers()
        fresh.transport = Transport(fresh.transport.config, pool)
    for field in attrs.fields(Context):
        setattr(context, field.name, getattr(fresh, field.name))


def _check_kind(value: object, kind: type, argument: str, expected: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise exceptions.ArgumentTypeError(argument, f"expected {expected}, got {value!r}")


def _checked_token(token: Token | None) -> Token | None:
    if isinstance(token, str):
        return Secret(check_token(token))
    elif token is not None and not callable(token):
        raise exceptions.ArgumentTypeError(
            "api_token", f"expected a string or a function, got {type(token).__name__}"
        )
    return token


def _checked_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(tags, Mapping):
        raise exceptions.ArgumentTypeError("tags", f"expected a mapping, got {type(tags).__name__}")
    for name, value in tags.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise exceptions.ArgumentTypeError("tags", f"{name!r} and its value must be strings")
    return tags


def _headers(headers: Mapping[str, str] | None, user_agent: str | None) -> dict[str, str]:
    checked = {} if headers is None else check_headers(headers)
    return check_headers({"User-Agent": user_agent or USER_AGENT, **checked})


def _timeout(timeout: float | Timeout | None) -> Timeout:
    if timeout is None:
        return Timeout()
    if isinstance(timeout, Timeout):
        return timeout
    seconds = _arguments.timeout_seconds(timeout)
    assert seconds is not None
    return Timeout(read=seconds)


def _strategy(strategy: FileEncodingStrategy) -> FileEncodingStrategy:
    _arguments.one_of(strategy, ("url", "base64"), "file_encoding_strategy")
    return strategy


def _on_ambiguous(choice: OnAmbiguous) -> OnAmbiguous:
    _arguments.one_of(choice, ("raise", "repeat"), "on_ambiguous")
    return choice


def _rate_limit(limit: RateLimit | Literal[False] | None) -> RateLimit | None:
    if limit is not None:
        return limit or None
    text = os.environ.get("REPLICATE_RATE_LIMIT")
    if not text:
        return RateLimit()
    try:
        return RateLimit.parse(text)
    except ValueError as error:
        raise exceptions.ArgumentError("REPLICATE_RATE_LIMIT", str(error)) from None


def _poll_interval(seconds: float | None) -> float | None:
    if seconds is None:
        text = os.environ.get("REPLICATE_POLL_INTERVAL")
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            raise exceptions.ArgumentError(
                "REPLICATE_POLL_INTERVAL", f"expected a number of seconds, got {text!r}"
            ) from None
    return _arguments.interval_seconds(seconds, "poll_interval")
