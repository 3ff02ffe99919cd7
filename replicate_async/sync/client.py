"""The default client."""

from __future__ import annotations

from ._facade import Client

__all__ = ("Client", "default_client")

_default: Client | None = None


def default_client() -> Client:
    """Return the client of the module-level verbs and namespaces, configured by the environment."""
    global _default
    if _default is None:
        _default = Client()
    return _default
