"""The account that the token belongs to (HTTP API, section 15)."""

from __future__ import annotations

from .._transport import Call
from ..types import Account
from ._base import Namespace

__all__ = ("Accounts",)


class Accounts(Namespace):
    """The account that the token belongs to (HTTP API, section 15)."""

    async def current(self) -> Account:
        """Fetch the account. Operation: account.get (HTTP API, section 15.1)."""
        return await self._context.fetch(Account, Call("GET", "/account"))
