"""The account of the API token."""

from __future__ import annotations

import attrs

from ._objects import Namespace, Resource, received

__all__ = ("Account", "Accounts")


@attrs.define(slots=False, kw_only=True, init=False, eq=False, repr=False)
class Account(Resource):
    """A user or an organization."""

    type: str
    """`"user"` or `"organization"`."""
    username: str
    """Unique name."""
    name: str
    """Display name."""
    github_url: str | None = None
    """URL of the account's GitHub page."""


class Accounts(Namespace):
    """The account of the API token."""

    def current(self) -> Account:
        """Fetch the account of the API token. Calls :api:`account.get`."""
        return received(Account, self._client.call(lambda api: api.accounts.current()))

    async def async_current(self) -> Account:
        """Fetch the account of the API token. Calls :api:`account.get`."""
        found = await self._client.async_call(lambda api: api.accounts.current())
        return received(Account, found)
