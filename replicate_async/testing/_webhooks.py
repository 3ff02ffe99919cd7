"""Signed webhook deliveries (:api:`webhooks`).

Connections are made to loopback addresses only. Since the API takes only HTTPS URLs, hosts are mapped
to local servers with `Emulator.webhook_hosts`; a delivery to any other host is recorded, not sent. With
`local_webhooks`, URLs of this machine are taken and served as they are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import secrets
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
import attrs
from aiohttp.abc import AbstractResolver, ResolveResult

from ._clock import NANOSECONDS, Clock, Timers
from ._hosts import is_loopback
from ._retention import Retention, remove_first
from ._store import Prediction
from ._views import Views

USER_AGENT = "replicate-emulator-webhooks"
THROTTLE = 0.5
"""Seconds between two ``output`` or two ``logs`` deliveries."""
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 29.0)
"""Seconds between the attempts of a terminal delivery; the last one is a minute after the first."""

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_MAX_DOWNLOAD = 256 * 1024 * 1024
_log = logging.getLogger("replicate_async.testing")

EVENTS = ("start", "output", "logs", "completed")


@attrs.frozen
class Delivery:
    """One attempt to deliver a webhook; see :api:`webhook-delivery`."""

    url: str
    """URL of the webhook, as given when the prediction was created."""
    event: str
    """``start``, ``output``, ``logs`` or ``completed``."""
    prediction: str
    """ID of the prediction or training."""
    headers: dict[str, str]
    """Headers of the request, with the signature."""
    body: bytes
    """Body of the request."""
    attempt: int
    """Number of the attempt, from 1."""
    at: float
    """Time of the attempt: seconds since the epoch, by the emulator's clock."""
    status: int | None = None
    """Status of the response. None if there was no response, or nothing was sent."""
    error: str | None = None
    """Reason why there was no response. None if there was one."""

    def json(self) -> Any:
        """Return the decoded JSON body.

        Returns:
            The prediction, as a dict.
        """
        return json.loads(self.body)


def sign(secret: str, id: str, timestamp: str, body: bytes) -> str:
    """Return the ``webhook-signature`` header (:api:`webhook-signature`)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class LoopbackResolver(AbstractResolver):
    """Resolves ``localhost`` and names below it only."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the loopback addresses, both: servers may listen on one of them only."""
        del family
        if not is_loopback(host):
            raise OSError(f"the emulator connects to loopback addresses only, not to {host!r}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=its_family,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address, its_family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))
        ]

    async def close(self) -> None:
        """Do nothing."""


def is_loopback_url(url: str) -> bool:
    """Tell whether a URL leads to this machine."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:  # an address in brackets that is none
        return False


def require_loopback(url: str) -> None:
    """Refuse a URL that does not lead to this machine.

    Raises:
        OSError: Its host is not a loopback address.
    """
    if not is_loopback_url(url):
        host = urlsplit(url).netloc.rpartition("@")[2]
        raise OSError(f"the emulator connects to loopback addresses only, not to {host!r}")


class Outside:
    """HTTP client for other servers on this machine."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=LoopbackResolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_TIMEOUT,
            )
        return self._session

    async def fetch(self, url: str) -> bytes:
        """Return what a loopback URL serves.

        Raises:
            OSError: It cannot be read.
        """
        require_loopback(url)
        try:
            async with self._open().get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise OSError(f"{response.status} {response.reason} for url: {url}")
                content = await response.content.read(_MAX_DOWNLOAD)
                while chunk := await response.content.read(_MAX_DOWNLOAD - len(content)):
                    content += chunk
                return content
        except (aiohttp.ClientError, ValueError, TimeoutError) as error:
            raise OSError(f"could not fetch {url}: {error}") from error

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Post to a loopback URL and return the status; redirects are not followed.

        Raises:
            OSError: There was no response.
        """
        require_loopback(url)
        try:
            async with self._open().post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return response.status
        except (aiohttp.ClientError, ValueError, TimeoutError) as error:
            raise OSError(str(error) or type(error).__name__) from error

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


@attrs.define(eq=False)
class _Feed:
    """The deliveries of one prediction, in order."""

    queue: asyncio.Queue[tuple[str, bytes]]
    last: dict[str, int] = attrs.Factory(dict)


class Webhooks:
    """Turns what happens to predictions into deliveries.

    Args:
        hosts: Host (with port, if the URL has one) to local origin.
        local: Whether deliveries to this machine are sent without being mapped.
        deliveries: Every attempt is appended here.
        retention: Bounds the deliveries.
        spawn: Runs a coroutine in a task of the emulator's.
    """

    def __init__(
        self,
        clock: Clock,
        timers: Timers,
        views: Views,
        outside: Outside,
        *,
        hosts: dict[str, str],
        local: bool,
        deliveries: list[Delivery],
        retention: Retention,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._clock = clock
        self._timers = timers
        self._views = views
        self._outside = outside
        self._hosts = hosts
        self._local = local
        self._deliveries = deliveries
        self._retention = retention
        self._spawn = spawn
        self._feeds: dict[str, _Feed] = {}

    def happened(self, prediction: Prediction, event: str) -> None:
        """Queue a delivery if the prediction asked for this event and it is not throttled."""
        if prediction.webhook is None:
            return
        feed = self._feeds.get(prediction.id)
        if feed is None:
            feed = self._feeds[prediction.id] = _Feed(asyncio.Queue())
            self._spawn(self._deliver_all(prediction, feed))
        now = self._clock.time_ns()
        wanted = not prediction.webhook_events or event in prediction.webhook_events
        if event in ("output", "logs"):
            last = feed.last.get(event)
            if last is not None and now < last + int(THROTTLE * NANOSECONDS):
                wanted = False
            elif wanted:
                feed.last[event] = now
        if wanted:
            feed.queue.put_nowait((event, self._views.prediction_bytes(prediction, "webhook")))
        elif event == "completed":
            feed.queue.put_nowait(("", b""))

    async def _deliver_all(self, prediction: Prediction, feed: _Feed) -> None:
        try:
            while True:
                event, body = await feed.queue.get()
                if event:
                    await self._deliver(prediction, event, body)
                if event in ("", "completed"):
                    return
        finally:
            self._feeds.pop(prediction.id, None)

    async def _deliver(self, prediction: Prediction, event: str, body: bytes) -> None:
        message = f"msg_{secrets.token_urlsafe(20).replace('-', '0').replace('_', '1')}"
        attempt = 1
        while True:
            again = await self._attempt(prediction, event, body, message, attempt)
            if not again or event != "completed" or attempt > len(RETRY_DELAYS):
                return
            await self._timers.sleep(RETRY_DELAYS[attempt - 1])
            attempt += 1

    async def _attempt(
        self, prediction: Prediction, event: str, body: bytes, id: str, attempt: int
    ) -> bool:
        """Deliver once; return whether it is worth another attempt."""
        url = prediction.webhook or ""
        try:
            parts = urlsplit(url)
        except ValueError:  # an address in brackets that is none
            parts = urlsplit("https:")
        at = self._clock.time()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": id,
            "webhook-timestamp": str(int(at)),
            "webhook-signature": sign(prediction.account.webhook_secret, id, str(int(at)), body),
        }
        status: int | None = None
        error: str | None = None
        target = self._target(url, parts)
        if target is None:
            error = f"no local server is mapped to {parts.netloc}"
        else:
            try:
                status = await self._outside.post(target, body, headers)
            except OSError as failure:
                error = str(failure)
        delivery = Delivery(url, event, prediction.id, headers, body, attempt, at, status, error)
        self._deliveries.append(delivery)
        forget = partial(remove_first, self._deliveries, delivery)
        self._retention.content(len(body), forget)
        self._retention.record("deliveries", forget)
        _say(delivery, is_sent=target is not None)
        return target is not None and (status is None or status >= 400)

    def _target(self, url: str, parts: SplitResult) -> str | None:
        """Return the URL of a local server to deliver to; None if there is none."""
        origin = self._hosts.get(parts.netloc.lower()) or self._hosts.get(parts.hostname or "")
        if origin is None:
            return url if self._local and is_loopback_url(url) else None
        return f"{origin.rstrip('/')}{parts.path}{f'?{parts.query}' if parts.query else ''}"


def _say(delivery: Delivery, *, is_sent: bool) -> None:
    """Log what has become of a delivery. The query of its URL may be secret."""
    what = (
        f"webhook {delivery.event!r} of {delivery.prediction} to {delivery.url.partition('?')[0]!r}"
    )
    if not is_sent:
        _log.info("%s: recorded, not sent: %s", what, delivery.error)
    elif delivery.status is None:
        _log.info("%s: attempt %d got no answer: %s", what, delivery.attempt, delivery.error)
    else:
        _log.info("%s: attempt %d was answered with %d", what, delivery.attempt, delivery.status)
