"""The account that the token belongs to (:api:`account`)."""

from __future__ import annotations

from .._http.call import Call
from ..types import Account
from ._base import Namespace

__all__ = ("Accounts",)


class Accounts(Namespace):
    """The account that the token belongs to (:api:`account`)."""

    async def current(self) -> Account:
        """Fetch the account. Calls :api:`account.get`."""
        return await self._context.fetch(Account, Call("GET", "/account"))
