"""The default client."""

from __future__ import annotations

from .._jobs.context import reset

# Results that are files need it: by then, there may be no free descriptor to import with.
from . import _saved  # noqa: F401  (see above)
from ._facade import Client

__all__ = ("Client", "close", "default_client")

_default: Client | None = None


def default_client() -> Client:
    """Return the client of the module-level verbs and namespaces, configured by the environment."""
    global _default
    if _default is None:
        _default = Client()
    return _default


def close() -> None:
    """Close the default client, that of the functions and namespaces of this module, and end its thread.

    What it is running is settled as by `Client.close`. When one of the names is used again, the default client begins
    anew, as the environment configures it then. It is also closed when the program ends.
    """
    if _default is not None:
        _default.close()
        reset(_default._async._context)
        _default._lease.renew(_default._async.aclose)
