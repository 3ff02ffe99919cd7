"""Base classes of the objects and namespaces of 1.x."""

from __future__ import annotations

from ._objects import Namespace, Resource

__all__ = ("Namespace", "Resource")
