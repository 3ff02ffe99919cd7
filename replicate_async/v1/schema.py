"""Schemas of versions that old releases of Cog have made."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ("make_schema_backwards_compatible", "version_has_no_array_type")

_VERSION: Final = re.compile(
    r"\s*v?(\d{1,9}(?:\.\d{1,9})*)([-_.]?(?:a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?\d*)?"
    r"(?:[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[\w.-]+)?\s*",
    re.IGNORECASE,
)

_FIRST: Final = (0, 3, 9)
"""The first release of Cog that marks outputs which are iterators."""


def version_has_no_array_type(cog_version: str) -> bool | None:
    """Return whether a release of Cog does not mark outputs that are iterators.

    Args:
        cog_version: The release.

    Returns:
        Whether it does not; None if this is not a version.
    """
    found = _VERSION.fullmatch(cog_version)
    if found is None:
        return None
    numbers = tuple(map(int, found[1].split(".")))
    numbers += (0,) * (len(_FIRST) - len(numbers))
    return numbers < _FIRST or (
        found[2] is not None and not any(numbers[3:]) and numbers[:3] == _FIRST
    )


def make_schema_backwards_compatible(schema: dict[str, Any], cog_version: str) -> dict[str, Any]:
    """Mark an array of an old schema as an iterator.

    Args:
        schema: The OpenAPI schema of a version, which is changed.
        cog_version: The release of Cog that made it.

    Returns:
        The schema.
    """
    if version_has_no_array_type(cog_version):
        output = schema["components"]["schemas"]["Output"]
        if output.get("type") == "array":
            output["x-cog-array-type"] = "iterator"
    return schema
