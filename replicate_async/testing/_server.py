"""The servers of one emulator: three origins on their sockets, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, TypeVar

import anyio
import attrs
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from ._api import Api
from ._api_catalog import CatalogApi
from ._api_files import FilesApi
from ._api_predictions import ExpiredAnswers, PredictionsApi, SyncAnswers
from ._clock import Timers
from ._delivery import DeliveryServer
from ._hosts import is_served
from ._http import Match, match
from ._ledger import Ledger, Origin, Request
from ._lifecycle import Engine
from ._problems import PROBLEM_JSON, Problem, foreign_host, refused
from ._proxy import Proxy, stop_accepting
from ._retention import Retention
from ._store import Account, Store
from ._streams import StreamServer
from ._views import Views, encode
from ._webhooks import Delivery, Outside, Webhooks

T = TypeVar("T")

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.BaseRequest, Request, Answer], Awaitable[web.StreamResponse]]
"""A function that wraps the handling of requests. It gets the request, its entry in the ledger (with
``origin`` and ``operation``) and the function that handles it, and returns the response."""

_Handler = Callable[[web.BaseRequest, Request, Match], Awaitable[web.StreamResponse]]

_ORIGINS: tuple[Origin, Origin, Origin] = ("api", "files", "stream")
_MAX_BODY = 1024**3
_BACKLOG = 1024
_SHUTDOWN_SECONDS = 0.5
_CALL_SECONDS = 10.0

_log = logging.getLogger("replicate_async.testing")


@attrs.frozen
class Behaviour:
    """Options for what the API leaves open; see `Emulator`."""

    page_sizes: Mapping[str, int]
    sync_answers: SyncAnswers
    expired_waits: ExpiredAnswers
    list_lag: float
    local_webhooks: bool


class Server:
    """The servers of the three origins.

    Args:
        store: The records.
        account: The account of requests without a token.
        ledger: Where requests and predictions are noted.
        deliveries: Where webhook deliveries are noted.
        behaviour: Options for what the API leaves open.
        retention: Bounds what is remembered.
        proxy: The proxy in front of the origins, if there is one.
    """

    def __init__(
        self,
        store: Store,
        account: Account,
        ledger: Ledger,
        deliveries: list[Delivery],
        behaviour: Behaviour,
        retention: Retention,
        proxy: Proxy | None,
    ) -> None:
        self.middlewares: list[Middleware] = []
        self.webhook_hosts: dict[str, str] = {}
        self.latency: float = 0.0
        self._store = store
        self._account = account
        self._ledger = ledger
        self._deliveries = deliveries
        self._behaviour = behaviour
        self._retention = retention
        self._proxy = proxy
        self._sockets: list[socket.socket] = []
        self._urls: tuple[str, str, str] | None = None
        self._host = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._stopping: anyio.Event | None = None
        self._handling: set[asyncio.Task[Any]] = set()

    @property
    def is_running(self) -> bool:
        """Whether it serves."""
        return self._loop is not None

    @property
    def is_bound(self) -> bool:
        """Whether it has, or had, ports."""
        return self._urls is not None

    @property
    def urls(self) -> tuple[str, str, str]:
        """URLs of API, files and streams.

        Raises:
            RuntimeError: It was not started.
        """
        if self._urls is None:
            raise RuntimeError("the emulator was not started: use it in a `with` block")
        return self._urls

    def on_loop(self, work: Callable[[], T]) -> T:
        """Do something in the thread of the event loop, or here if there is no loop elsewhere."""
        loop = self._loop
        if loop is None or threading.get_ident() == self._thread:
            return work()
        result: ThreadFuture[T] = ThreadFuture()

        def do() -> None:
            try:
                result.set_result(work())
            except Exception as error:  # noqa: BLE001 - carried to the caller
                result.set_exception(error)

        loop.call_soon_threadsafe(do)
        return result.result(_CALL_SECONDS)

    # --- starting and stopping

    def bind(self, host: str, port: int, scheme: str) -> None:
        """Take the ports.

        Args:
            host: Address to listen on.
            port: Port of the API; 0 for a free one.
            scheme: ``http`` or ``https``.

        Raises:
            OSError: The port is taken.
            RuntimeError: It was started before.
        """
        if self._urls is not None:
            raise RuntimeError("an emulator can be started once; make another")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        shown = f"[{shown}]" if ":" in shown else shown
        try:
            for number in (port if self._proxy is None else 0, 0, 0):
                self._sockets.append(
                    socket.create_server((host, number), family=family, backlog=_BACKLOG)
                )
            ports = [sock.getsockname()[1] for sock in self._sockets]
            if self._proxy is not None:
                ports = self._proxy.bind(host, family, port)
        except OSError:
            self._close_sockets()
            raise
        self._host = host
        api, files, stream = (f"{scheme}://{shown}:{number}" for number in ports)
        self._urls = (api, files, stream)

    def stop(self) -> bool:
        """Let `serve` end, from any thread. Return whether it had begun."""
        loop, stopping = self._loop, self._stopping
        if stopping is None:
            return False
        if loop is not None:
            with suppress(RuntimeError):  # the loop ended by itself
                loop.call_soon_threadsafe(stopping.set)
        return True

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve until `stop` is called.

        Args:
            ready: Called when requests are answered.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stopping = stopping = anyio.Event()
        timers = Timers(self._store.clock)
        outside = Outside()
        engine, handlers = self._parts(timers, outside)
        runners: list[web.ServerRunner] = []
        try:
            for sock, origin, answer in zip(self._sockets, _ORIGINS, handlers, strict=True):
                server = web.Server(
                    partial(self._handle, origin, answer),
                    request_factory=_request,
                    handler_cancellation=True,
                    access_log=None,
                    lingering_time=2.0,
                )
                runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECONDS)
                runners.append(runner)
                await runner.setup()
                await web.SockSite(runner, sock, backlog=_BACKLOG).start()
            if self._proxy is not None:
                await self._proxy.start([sock.getsockname()[:2] for sock in self._sockets])
            ready()
            await stopping.wait()
        finally:
            self._loop = None
            if self._proxy is not None:
                await self._proxy.aclose()
            for sock in self._sockets:
                stop_accepting(asyncio.get_running_loop(), sock)
            for _ in range(3):  # what was accepted a moment ago gets its transport
                await asyncio.sleep(0)
            for runner in runners:
                for site in runner.sites:
                    await site.stop()
            for task in list(self._handling):
                task.cancel()
            await engine.aclose()
            await outside.aclose()
            await asyncio.gather(*(runner.cleanup() for runner in runners))
            timers.close()
            await engine.aclose()  # of what the last requests have begun
            self._close_sockets()
            await asyncio.sleep(0)  # lets closed transports go

    def _close_sockets(self) -> None:
        while self._sockets:
            self._sockets.pop().close()

    def _parts(self, timers: Timers, outside: Outside) -> tuple[Engine, list[_Handler]]:
        """Put the parts together."""
        url, files_url, stream_url = self.urls
        clock = self._store.clock
        views = Views(url, stream_url, clock.time_ns)
        webhooks = Webhooks(
            clock,
            timers,
            views,
            outside,
            hosts=self.webhook_hosts,
            local=self._behaviour.local_webhooks,
            deliveries=self._deliveries,
            retention=self._retention,
            spawn=lambda work: engine.spawn(work),
        )
        engine = Engine(
            self._store,
            self._ledger,
            timers,
            webhooks,
            outside,
            self._retention,
            api_url=url,
            files_url=files_url,
        )
        sizes = self._behaviour.page_sizes
        api = Api(
            self._store,
            self._account,
            CatalogApi(self._store, engine, views, url, sizes),
            FilesApi(self._store, views, url, sizes),
            PredictionsApi(
                self._store,
                engine,
                views,
                url,
                sizes,
                sync=self._behaviour.sync_answers,
                expired=self._behaviour.expired_waits,
                list_lag=self._behaviour.list_lag,
                local_webhooks=self._behaviour.local_webhooks,
            ),
        )
        delivery = DeliveryServer(self._store)
        streams = StreamServer(self._store, clock, timers)
        return engine, [
            api.handle,
            lambda request, *_: delivery.handle(request),
            lambda request, *_: streams.handle(request),
        ]

    # --- requests

    async def _handle(
        self, origin: Origin, handler: _Handler, request: web.BaseRequest
    ) -> web.StreamResponse:
        """Answer a request to any origin."""
        url = request.rel_url
        found = match(request.method, url.raw_path) if origin == "api" else Match()
        record = Request(
            origin,
            request.method,
            url.raw_path,
            url.raw_query_string,
            request.headers,
            self._store.clock.time(),
            operation=found.operation,
        )
        self._ledger._request(record)
        task = asyncio.current_task()
        if task is not None:
            self._handling.add(task)
        try:
            if self.latency:
                await anyio.sleep(self.latency / 2)
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0
            if not is_served(request.headers.getall("Host", ()), self._host):
                handler = _refuse_host
            answer: Answer = partial(_answer, handler, record, found)
            for middleware in reversed(self.middlewares):
                answer = partial(_through, middleware, record, answer)
            response = await answer(request)
            record.status = response.status
            if not response.prepared:
                response.headers["Date"] = _date(int(self._store.clock.time()))
            if self.latency:
                await anyio.sleep(self.latency / 2)
            return response
        finally:
            self._retention.content(len(record.body), partial(_drop_body, record))
            if task is not None:
                self._handling.discard(task)


def _drop_body(record: Request) -> None:
    record.body = b""


async def _through(
    middleware: Middleware, record: Request, answer: Answer, request: web.BaseRequest
) -> web.StreamResponse:
    return await middleware(request, record, answer)


async def _refuse_host(request: web.BaseRequest, *_: object) -> web.StreamResponse:
    raise foreign_host(request.headers["Host"])


async def _answer(
    handler: _Handler, record: Request, found: Match, request: web.BaseRequest
) -> web.StreamResponse:
    """Answer a request; errors become answers."""
    try:
        return await handler(request, record, found)
    except Problem as problem:
        return _refusal(problem)
    except (web.RequestPayloadError, HttpProcessingError) as error:
        # Its encoding is not what its headers say, or a part of a form is broken.
        return _refusal(
            refused(f"The request body cannot be read ({' '.join(str(error).split())[:200]})")
        )
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:  # noqa: BLE001 - a bug here must not look like a lost connection
        _log.exception("the emulator failed to answer %s %s", record.method, record.path)
        return web.Response(
            body=encode({"detail": "Internal server error", "status": 500}),
            status=500,
            headers={"Content-Type": PROBLEM_JSON},
        )


def _refusal(problem: Problem) -> web.Response:
    return web.Response(
        body=encode(problem.body),
        status=problem.status,
        headers={"Content-Type": PROBLEM_JSON, **problem.headers},
    )


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """Make a request object whose body may be large."""
    return web.BaseRequest(
        message, payload, protocol, writer, task, task.get_loop(), client_max_size=_MAX_BODY
    )


@lru_cache(maxsize=16)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
