"""Work that ends when the browser leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, TypeVar, cast

from .. import exceptions
from .._concurrency import WatchEnded, watched

__all__ = ("while_connected",)

T = TypeVar("T")
Receive: TypeAlias = Callable[[], Awaitable[Any]]


async def while_connected(request: object, work: Awaitable[T]) -> T:
    """Await some work, and cancel it if the client of a web request disconnects.

    Starlette, FastAPI and Litestar do not cancel a handler when the browser leaves; a run in it would go on, and
    be paid for. Read the body of the request before you call this: what arrives meanwhile is dropped, also the messages of a
    WebSocket.

    ```python
    @app.post("/paint")
    async def paint(request: Request, prompt: str):
        return await while_connected(request, client.run("acme/painter", {"prompt": prompt}))
    ```

    Args:
        request: The request or WebSocket of Starlette, FastAPI or Litestar, or the function `receive` of an ASGI app.
        work: The coroutine, task or future to await. A run that is cancelled cancels its prediction.

    Returns:
        The result of the work.

    Raises:
        RequestDisconnected: The client has disconnected before; nobody waits for a response.
        ArgumentTypeError: The request is not an ASGI request.
        Exception: The work raised it.
    """
    try:
        receive = _receive_of(request)
    except exceptions.ArgumentTypeError:
        if isinstance(work, Coroutine):
            work.close()  # it is not awaited
        raise

    async def client_leaves() -> None:
        while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
            pass

    try:
        return await watched(work, client_leaves)
    except WatchEnded:
        raise exceptions.RequestDisconnected from None


def _receive_of(request: object) -> Receive:
    """Return the function that receives the messages of a request.

    Raises:
        ArgumentTypeError: The request has none.
    """
    receive = getattr(request, "receive", None)
    if receive is None and type(request).__module__.partition(".")[0] in ("aiohttp", "quart"):
        hint = "; Quart cancels handlers itself"
        if type(request).__module__.startswith("aiohttp"):
            hint = "; aiohttp cancels handlers itself with `handler_cancellation=True`"
        raise exceptions.ArgumentTypeError("request", f"not a request of ASGI{hint}")
    found = receive if receive is not None else request
    if not callable(found):
        raise exceptions.ArgumentTypeError(
            "request", f"expected a request of ASGI, or its `receive`, got {type(request).__name__}"
        )
    return cast("Receive", found)
