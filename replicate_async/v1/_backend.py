"""What all objects of `replicate_async.v1` share: the clients that do the work, and their errors."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import replicate_async

from .. import exceptions, sync
from ..types import Timeout
from .exceptions import ReplicateError

Operation: TypeAlias = Callable[[Any], Any]
"""A call of the public API. The clients of both worlds have the same names, so one function serves both."""

_FOREVER: Final = 86_400.0
"""Seconds that stand for a timeout of None."""

_OF_NO_EFFECT: Final = frozenset(
    {"default_encoding", "follow_redirects", "http1", "http2", "limits", "max_redirects"}
)
"""Options of httpx clients that change nothing about what a program gets."""


class Backend:
    """The options of a client, and the clients of `replicate_async` that carry out its calls.

    Clients with the same network options share connections: programs for 1.x make many and close none.
    """

    poll_interval: float
    """Seconds between two polls of a running prediction. Can be changed at any time."""

    def __init__(
        self,
        api_token: str | None = None,
        *,
        base_url: str | None = None,
        timeout: Any = None,
        **kwargs: Any,
    ) -> None:
        self._api_token = api_token
        self._base_url = base_url
        self._timeout = _timeout(timeout)
        headers = {
            str(name): str(value) for name, value in (kwargs.pop("headers", None) or {}).items()
        }
        names = {name.lower(): name for name in headers}
        self._user_agent = headers.pop(names.get("user-agent", ""), None)
        authorization = headers.pop(names.get("authorization", ""), None)
        if authorization is not None:
            self._api_token = authorization.removeprefix("Bearer ").removeprefix("Token ")
        self._headers = headers
        self._proxy, self._verify = _network(kwargs)
        self.poll_interval = float(os.environ.get("REPLICATE_POLL_INTERVAL") or 0.5)
        self._iterates: dict[str, bool] = {}

    def call(self, operation: Operation) -> Any:
        """Carry out an operation, and return its result."""
        with api_errors():
            return operation(_sync_client(*self._connection()).with_options(**self._options()))

    async def async_call(self, operation: Operation) -> Any:
        """Carry out an operation on the running event loop, and return its result."""
        with api_errors():
            return await operation(self.async_client())

    def async_client(self) -> replicate_async.Client:
        """Return the client for event loops."""
        with api_errors():
            return _async_client(*self._connection()).with_options(**self._options())

    def known_to_iterate(self, version: str) -> bool | None:
        """Return whether the output of a version is an iterator; None if that is not known."""
        return self._iterates.get(version)

    def learn(self, version: str, *, iterates: bool) -> None:
        """Remember whether the output of a version is an iterator, which never changes."""
        self._iterates[version] = iterates

    def _connection(self) -> tuple[str | None, str | None, ssl.SSLContext | str | bool | None]:
        return self._base_url or os.environ.get("REPLICATE_BASE_URL"), self._proxy, self._verify

    def _options(self) -> dict[str, Any]:
        """Return the options of a view; those that are None are taken from the environment."""
        return {
            "api_token": self._api_token or None,
            "timeout": self._timeout,
            "headers": self._headers,
            "user_agent": self._user_agent,
            "poll_interval": self.poll_interval,
            "use_file_output": False,
        }


@cache
def _sync_client(
    base_url: str | None, proxy: str | None, verify: ssl.SSLContext | str | bool | None
) -> sync.Client:
    return sync.Client(base_url=base_url, proxy=proxy, ssl=_ssl(verify))


@cache
def _async_client(
    base_url: str | None, proxy: str | None, verify: ssl.SSLContext | str | bool | None
) -> replicate_async.Client:
    return replicate_async.Client(base_url=base_url, proxy=proxy, ssl=_ssl(verify))


@contextmanager
def api_errors() -> Iterator[None]:
    """Raise errors of the API as 1.x does."""
    try:
        yield
    except exceptions.ReplicateError as error:
        raise ReplicateError(
            type=error.type,
            title=error.title,
            status=error.status,
            detail=error.detail,
            instance=error.instance,
        ) from error
    except exceptions.MissingToken as error:
        # 1.x sends the request without a token, and this is what the API answers.
        raise ReplicateError(title="Unauthenticated", status=401, detail=str(error)) from error


# -- Options of httpx --------------------------------------------------------------------------


def _timeout(value: Any) -> Timeout | None:
    """Return the timeouts of an `httpx.Timeout`, a number, or a tuple of them."""
    if value is None or isinstance(value, Timeout):
        return value
    connect: Any = getattr(value, "connect", value)
    read: Any = getattr(value, "read", value)
    if isinstance(value, tuple) and len(value) >= 2:
        connect, read = value[:2]
    if not all(part is None or isinstance(part, (int, float)) for part in (connect, read)):
        raise exceptions.ArgumentTypeError(
            "timeout", f"expected seconds or an httpx.Timeout, got {type(value).__name__}"
        )
    return Timeout(
        connect=_FOREVER if connect is None else connect,
        read=_FOREVER if read is None else read,
    )


def _network(options: Mapping[str, Any]) -> tuple[str | None, ssl.SSLContext | str | bool | None]:
    """Return the proxy, and how certificates are verified."""
    proxy: str | None = None
    verify: ssl.SSLContext | str | bool | None = None
    for name, value in options.items():
        if name == "proxy" and value is not None:
            proxy = str(getattr(value, "url", value))
        elif name == "verify":
            verify = _verified(value)
        elif (
            name not in _OF_NO_EFFECT
            and value is not None
            and not (name == "trust_env" and value is True)
        ):
            raise exceptions.ArgumentTypeError(
                name,
                "this option of httpx has no equivalent here. To test without the network, set"
                " `base_url` to that of replicate_async.testing.Emulator",
            )
    return proxy, verify


def _verified(value: Any) -> ssl.SSLContext | str | bool | None:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, ssl.SSLContext) or value is False:
        return value
    if value is None or value is True:
        return None
    raise exceptions.ArgumentTypeError(
        "verify", f"expected a bool, a path or an SSLContext, got {type(value).__name__}"
    )


def _ssl(verify: ssl.SSLContext | str | bool | None) -> ssl.SSLContext | bool | None:
    if not isinstance(verify, str):
        return verify
    place = Path(verify)
    return ssl.create_default_context(
        cafile=None if place.is_dir() else verify, capath=verify if place.is_dir() else None
    )
