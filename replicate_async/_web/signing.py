"""The signing secrets of webhooks: given, in the environment, or fetched."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import anyio

from .. import _signatures
from ..exceptions import ArgumentError, ArgumentTypeError, InvalidSignature

_REFETCH_INTERVAL: Final = 60.0
"""Seconds between two fetches: forged deliveries must not cause many requests."""

Fetch = Callable[[], Awaitable[str]]


class SigningSecrets:
    """The secrets of which one must have signed a delivery."""

    def __init__(self, given: str | Sequence[str] | None, fetch: Fetch) -> None:
        """Check the secrets.

        Args:
            given: The secrets; None for those of the environment, or else that of the account.
            fetch: Fetches the secret of the account.

        Raises:
            ArgumentError: A secret is malformed.
            ArgumentTypeError: It is not a string.
        """
        argument = "secrets"
        if given is None:
            argument = "REPLICATE_WEBHOOK_SECRET"
            given = re.split(r"[\s,]+", os.environ.get(argument, "").strip(" ,"))
            given = [secret for secret in given if secret]
        elif isinstance(given, str):
            given = [given]
        elif not isinstance(given, Sequence):
            raise ArgumentTypeError(argument, f"expected strings, got {type(given).__name__}")
        elif not given:
            raise ArgumentError(argument, "expected at least one secret, or None to fetch it")
        for secret in given:
            _signatures.check_secret(secret, argument)
        self._known = tuple(given)
        self._fetch = None if self._known else fetch
        self._fetched_at = -_REFETCH_INTERVAL
        self._fetching: anyio.Lock | None = None

    async def verify(self, headers: Mapping[str, str], body: bytes, tolerance: float) -> None:
        """Verify the signature of a delivery; fetch the account's secret, again if it seems to have changed.

        Raises:
            InvalidSignature: No secret matches, or the timestamp is out of tolerance.
            ReplicateException: The secret cannot be fetched.
        """
        before = self._known
        try:
            self._verify(before, headers, body, tolerance)
        except InvalidSignature:
            await self._refetch()
            if self._known == before:
                raise
            self._verify(self._known, headers, body, tolerance)

    @staticmethod
    def _verify(
        secrets: tuple[str, ...], headers: Mapping[str, str], body: bytes, tolerance: float
    ) -> None:
        failure = InvalidSignature("the signing secret is not known")
        for secret in secrets:
            try:
                _signatures.verify(headers, body, secret, tolerance=tolerance, now=time.time())
            except InvalidSignature as error:
                failure = error
            else:
                return
        raise failure

    async def _refetch(self) -> None:
        if self._fetch is None:
            return
        if self._fetching is None:
            self._fetching = anyio.Lock()
        async with self._fetching:
            if time.monotonic() - self._fetched_at >= _REFETCH_INTERVAL:
                self._known = (await self._fetch(),)
                self._fetched_at = time.monotonic()
