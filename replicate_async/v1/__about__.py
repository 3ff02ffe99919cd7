"""The version of `replicate` whose shapes this package has."""

from __future__ import annotations

__all__ = ("__version__",)

__version__ = "1.0.7"
