"""Account of the API token (:api:`account`)."""

from __future__ import annotations

from .._http.call import Call
from ..types import Account
from ._base import Namespace

__all__ = ("Accounts",)


class Accounts(Namespace):
    """Account of the API token (:api:`account`)."""

    async def current(self) -> Account:
        """Fetch the account that the API token belongs to. Calls :api:`account.get`.

        Returns:
            The account.

        Raises:
            ReplicateError: The API returned an error.
            TransportError: No usable response was received.
        """
        return await self._context.fetch(Account, Call("GET", "/account"))
