"""The attempts of a call: slots, gates, and when to try again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any, Final, Literal

import aiohttp
import anyio
import anyio.lowlevel
import attrs

from .. import _arguments, exceptions
from .._concurrency import has_stack
from .._redaction import Secret
from .._telemetry import count_throttled, record_wait
from ..types import RateLimit, RateLimitState
from ..types._stats import Counters
from .call import Answer, Body, Call, Config, SendState, redacted
from .checks import check_token, environment_token
from .errors import NETWORK_ERRORS, cause_of, translated
from .exchange import NO_MEMORY, READ_BUFFER, TOTAL_PER_SILENCE, Exchange, TimeLimit
from .limits import Gate, Gates, Slots
from .obstacles import note_failure, note_queue
from .retry import Kind, retry_delay
from .routes import Routes
from .session import Pool

_logger = logging.getLogger("replicate_async")


@attrs.define(eq=False, repr=False)
class Account:
    """A token, and what depends on it."""

    given: str | None
    """The token as it was given."""
    token: str
    """The token as it is sent."""
    headers: Mapping[str, str]
    """Headers of all requests to the API, including the token."""
    gates: Gates | None
    """Gates of the account; None if client-side rate limiting is disabled."""
    tag_gates: Gates | None
    """Gates of the tags, to be passed before those of the account; None if they have no limits of their own."""


class Transport:
    """Makes the requests of a client, or of a view of it."""

    def __init__(self, config: Config, pool: Pool, counters: Counters | None = None) -> None:
        self.config = config
        self.pool = pool
        self.counters: Counters = counters or Counters()
        self.routes: Routes = Routes(config)
        scheme, host, _ = self.routes.api_origin
        self.http_host: str | None = host if scheme == "http" else None
        """Host of an API without TLS, such as an emulator: its files have `http:` URLs, too."""
        self._account: Account | None = None

    def with_config(self, config: Config) -> Transport:
        """Return a view with another configuration over the same connections."""
        return Transport(config, self.pool, self.counters.view())

    def rate_limit_state(self) -> RateLimitState | None:
        """Return the state of the rate limit, of the account or of the tags, that creates wait longer for.

        Returns:
            The state; None if both limits are disabled.

        Raises:
            MissingToken: There is no token.
        """
        account = self._account_now()
        states = [
            gates.state() for gates in (account.tag_gates, account.gates) if gates is not None
        ]
        return max(states, key=lambda state: state.creates.wait, default=None)

    async def send(
        self,
        call: Call,
        result: type[Any] | None = None,
        patience: float = _arguments.MAX_WAIT,
    ) -> Answer:
        """Make the attempts of a call until one succeeds.

        Args:
            call: The call.
            result: Class of the object in a JSON answer; None for plain JSON.
            patience: Seconds after which no further attempt begins.

        Raises:
            ReplicateError: The API answered with an error.
            TransportError: No usable response was received.
            MissingToken: There is no token.
            ArgumentError: The token contains characters that a header cannot hold.
            QueueFull: The wait for the rate limit would be longer than `max_queue`.
            ClientClosed: The client is closed.
            ReplicateException: The stack is too deep, or there is not enough memory.
        """
        send_state = call.send_state or SendState()
        send_state.sent = False
        _check_stack(
            call.method, call.path, _CREATE_FRAMES if call.kind is Kind.CREATE else _FRAMES
        )
        started = time.monotonic()
        attempt = 1
        throttled = False
        while True:
            try:
                answer = await self._attempt(call, result, throttled)
            except exceptions.ReplicateException as error:
                elapsed = time.monotonic() - started
                delay = self._delay_after(call, error, attempt, elapsed, patience)
                if delay is None:
                    raise
                if not call.urgent:
                    note_failure(error)
                throttled = isinstance(error, exceptions.RateLimitError)
                if throttled:
                    count_throttled(call.rate_class, self.config.tags)
                    if self.config.rate_limit is not None and not call.urgent:
                        delay = 0.0  # the gate makes the pause, for all requests of its class
                self._log_failure(error, attempt, delay)
            else:
                if attempt > 1 and not call.urgent:
                    note_failure(None)
                return answer
            # A create is repeated only if nothing was sent, or it was refused.
            send_state.sent = False
            attempt += 1
            self.counters.add(retried=1)
            if delay:
                await anyio.sleep(delay)

    def _delay_after(
        self,
        call: Call,
        error: exceptions.ReplicateException,
        attempt: int,
        elapsed: float,
        patience: float,
    ) -> float | None:
        """Return the number of seconds before the next attempt of a call; None to give up."""
        if isinstance(call.content, Body) and not call.content.repeatable:
            return None
        delay = retry_delay(
            call.kind,
            error,
            attempt,
            elapsed,
            self.config.retry,
            random.random(),
            is_new=call.is_new,
        )
        if delay is not None and call.urgent and elapsed < patience:
            return min(delay, patience - elapsed)  # a last attempt when its time is over
        return None if delay is None or elapsed + delay > patience else delay

    def _log_failure(
        self, error: exceptions.ReplicateException, attempt: int, delay: float
    ) -> None:
        """Log a failure that is followed by another attempt: as a warning if it is the third, the 13th, and so on.

        The first failures are often over soon.
        """
        level = logging.DEBUG
        if attempt % 10 == 3 and (
            not isinstance(error, exceptions.RateLimitError) or self.pool.may_warn_of_throttling()
        ):
            level = logging.WARNING
        _logger.log(
            level,
            "%s; attempt %d in %.2f s",
            error,
            attempt + 1,
            delay,
            extra={"tags": dict(self.config.tags)},
        )

    @asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        method: Literal["GET", "HEAD"] = "GET",
        silence: float | None = None,
        buffer: int = READ_BUFFER,
        accepted: Collection[int] = (),
        is_relayed: bool = False,
        check_host: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Make one request, and let the caller read the body of its answer, whose duration is not limited.

        Args:
            url: URL; what is illegal in it is encoded. It may come from a model or a server, so the token is never sent,
                whatever its origin.
            headers: Additional headers.
            method: HTTP method.
            silence: Seconds for which the server may be silent; the `read` timeout by default.
            buffer: Bytes of the body to hold in memory before the server has to wait.
            accepted: Error statuses that are not raised.
            is_relayed: Whether the answer is passed on to a browser, which reads at its own pace: such requests leave
                some slots free.
            check_host: Called with the host, and with that of each redirect, before anything is sent there; may raise.

        Raises:
            ReplicateError: The answer has an error status.
            TransportError: There was no answer, or the connection broke while the body was read.
        """
        _check_stack(method, url, _FRAMES)
        session = await self.pool.session()
        exchange = Exchange(
            Call(method, url, headers=headers),
            self.config,
            self.pool,
            session,
            self.routes,
            self.routes.to(url),
            silence=silence or self.config.timeout.read,
            buffer=buffer,
            check_host=check_host,
        )
        async with AsyncExitStack() as slots:
            for each in (session.relays, session.slots) if is_relayed else (session.slots,):
                await each.acquire()
                slots.callback(each.release)
            async with TimeLimit(exchange.call, url, TOTAL_PER_SILENCE * self.config.timeout.read):
                response = await exchange.send()
            with closing(response):
                if response.status not in (200, 203, 206) and response.status not in accepted:
                    raise await exchange.error_of(response)
                try:
                    yield response
                except exceptions.ReplicateException:
                    raise
                except NETWORK_ERRORS as error:
                    raise translated(error, method, url, exchange.silence) from cause_of(error)
                except MemoryError as error:
                    raise exceptions.ConnectionLost(method, redacted(url), NO_MEMORY) from error

    async def _attempt(self, call: Call, result: type[Any] | None, throttled: bool) -> Answer:
        """Wait for slots and for the gates, make a request, and return its answer.

        Args:
            call: The call.
            result: Class of the object in a JSON answer; None for plain JSON.
            throttled: Whether the last attempt was refused by the rate limit: it goes to the front of the queues.
        """
        session = await self.pool.session()
        route = self.routes.to(self.routes.url_of(call))
        send_state = call.send_state or SendState()
        send_state.is_queued = True
        taken: list[Slots] = []
        try:
            # The slots come before the gates: a request that has passed them is sent at once.
            if call.held and call.rate_class == "creates":
                call = await _take_hold(call, session.holds, taken, first=throttled)
            send_state.is_held = call.held > 0
            if not call.urgent:
                slots = session.creates if call.rate_class == "creates" else session.slots
                await slots.acquire(first=throttled)
                taken.append(slots)
            headers, gate = None, None
            if route.is_api:
                headers, gate = await self._pass_gates(call, throttled)
            send_state.is_queued = False
            if session.is_given and call.kind in (Kind.CREATE, Kind.WRITE):
                await _notice_closed_connections()
            exchange = Exchange(
                call,
                self.config,
                self.pool,
                session,
                self.routes,
                route,
                silence=self.config.timeout.read + call.held,
                api_headers=headers,
                gate=gate,
            )
            return await exchange.answer(result)
        except MemoryError as error:
            raise exceptions.ConnectionLost(call.method, redacted(route.url), NO_MEMORY) from error
        finally:
            for each in reversed(taken):
                each.release()

    async def _pass_gates(
        self, call: Call, throttled: bool
    ) -> tuple[Mapping[str, str], Gate | None]:
        """Wait at the gates of the tags and of the account; return the headers of the account, and its gate."""
        account = self._account_now()
        # A throttled call has passed the gate of its tags before.
        if account.tag_gates is not None and not throttled:
            tag_gate = account.tag_gates.of(call.rate_class)
            if call.urgent:
                tag_gate.force()
            elif not tag_gate.try_pass():
                await self._wait_at(tag_gate, call, self.config.tag_limit)
                account = self._account_now()  # the token may have been renewed meanwhile
        if account.gates is None:
            return account.headers, None
        gate = account.gates.of(call.rate_class)
        if call.urgent:
            gate.force()
        elif throttled or not gate.try_pass():
            await self._wait_at(gate, call, self.config.rate_limit, first=throttled)
            account = self._account_now()  # the token may have been renewed meanwhile
        return account.headers, gate

    async def _wait_at(
        self, gate: Gate, call: Call, limit: RateLimit | None, *, first: bool = False
    ) -> None:
        """Wait at a gate for up to `max_queue` seconds, or without a limit if the request is about a job that is paid for."""
        longest = limit.max_queue if limit is not None else None
        if call.waits or call.kind is Kind.POLL:
            longest = None
        self.counters.add(waited=1, waiting=1)
        began = time.monotonic()
        try:
            note_queue(gate.state().wait)
            await gate.wait(first=first, longest=longest)
            note_queue(None)
        finally:
            waited = time.monotonic() - began
            self.counters.add(waiting=-1, waited_seconds=waited)
            record_wait(waited, call.rate_class, self.config.tags)

    def token(self) -> str:
        """Return the API token that a request would be sent with now.

        Raises:
            MissingToken: There is no token.
            ArgumentError: The token contains characters that a header cannot hold.
        """
        return self._account_now().token

    def _account_now(self) -> Account:
        """Return the account of the token that a request would be sent with now."""
        config = self.config
        given = config.token() if callable(config.token) else config.token or environment_token()
        account = self._account
        if account is not None and account.given == given:
            return account
        if given is None:
            raise exceptions.MissingToken
        token = Secret(check_token(given))
        key = self.routes.api_origin, token
        gates = tag_gates = None
        if config.rate_limit is not None:
            gates = self.pool.gates.of(key, config.rate_limit)
        if config.tag_limit is not None:
            tag_gates = self.pool.gates.of((*key, *sorted(config.tags.items())), config.tag_limit)
        headers = {**config.headers, "Authorization": Secret(f"Bearer {token}")}
        account = self._account = Account(given, token, headers, gates, tag_gates)
        return account


_ITERATIONS: Final = 4
"""Iterations of the event loop until aiohttp's pool drops a connection that the server has closed: its end is read in one,
TLS closes in the next, and the pool is notified in another."""


async def _notice_closed_connections() -> None:
    """Let the event loop read which connections of a session that the caller brought were closed while it stood still.

    Our own connector looks for itself (`_Connector` in `session.py`).
    """
    for _ in range(_ITERATIONS):
        await anyio.lowlevel.checkpoint()


async def _take_hold(call: Call, holds: Slots, taken: list[Slots], *, first: bool) -> Call:
    """Take a slot for a request whose answer the server holds back, and return the call.

    If no slot is free, return a call that does not ask for that, if it may be changed; otherwise wait for a slot.
    """
    if holds.try_acquire():
        taken.append(holds)
    elif call.may_skip_hold:
        headers = {name: value for name, value in (call.headers or {}).items() if name != "Prefer"}
        return attrs.evolve(call, headers=headers, held=0.0)
    elif holds.number:  # zero if there is a single connection, since none would remain free
        await holds.acquire(first=first)
        taken.append(holds)
    return call


_FRAMES: Final = 40
"""Nested calls that a request needs. With less room it would fail half way, and leave a connection half closed."""

_CREATE_FRAMES: Final = 60
"""Nested calls that a create needs, including the search of the list if its answer is lost."""


def _check_stack(method: str, target: str, frames: int) -> None:
    """Check that the stack has room for a request, before anything is sent.

    Raises:
        ReplicateException: The stack is too deep.
    """
    if not has_stack(frames):
        raise exceptions.ReplicateException(
            f"{method} {redacted(target)} was not sent: the stack is too deep, there would be a RecursionError."
            " Send it from a task of its own, or raise the recursion limit"
        )
