"""References to models and versions."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..exceptions import InvalidReference

__all__ = ("ModelVersionIdentifier",)

_REFERENCE: Final = re.compile(r"([^/]+)/([^/:]+)(?::(.+))?")


class ModelVersionIdentifier(NamedTuple):
    """A model, or a version of it: `owner/name` or `owner/name:version`."""

    owner: str
    """Owner of the model."""
    name: str
    """Name of the model."""
    version: str | None = None
    """ID of the version, or None."""

    @classmethod
    def parse(cls, ref: str) -> ModelVersionIdentifier:
        """Read `owner/name` or `owner/name:version`.

        Args:
            ref: The reference.

        Returns:
            Its parts.

        Raises:
            InvalidReference: It is neither. This is a `ValueError`, too.
        """
        found = _REFERENCE.fullmatch(ref)
        if found is None:
            raise InvalidReference("ref", ref, "'owner/name' or 'owner/name:version'")
        return cls(*found.groups())
