"""The client, where code written for `replicate` 1.x looks for it."""

from __future__ import annotations

from . import default_client
from ._facade import Client

__all__ = ("Client", "default_client")
