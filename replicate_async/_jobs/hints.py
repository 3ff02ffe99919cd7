"""What may help when the API refuses an input: a string that is the path of a file was meant as the file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from .. import exceptions
from .._threads import in_thread

_MAX_STRINGS: Final = 100
"""Strings of an input that are looked at."""

_MAX_PATH: Final = 1000


async def with_hint(
    error: exceptions.ValidationError, input: Mapping[str, Any]
) -> exceptions.ValidationError:
    """Return an error that says which strings of an input are paths of files, if the API refused them."""
    said = f"{error.title} {error.detail} {list(error.invalid_fields)}"
    found = await in_thread(_paths_in, {key: input[key] for key in input if key in said})
    if not found:
        return error
    hints = [
        f"{place}: {path!r} is the path of a file on this machine; to send the file, pass {_as_path(path)}"
        for place, path in found
    ]
    return exceptions.ValidationError(
        error.method,
        error.url,
        error.status,
        title=error.title,
        detail=error.detail,
        type=error.type,
        instance=error.instance,
        invalid_fields=error.invalid_fields,
        retry_after=error.retry_after,
        headers=error.headers,
        hint="\n".join(hints),
    )


def _as_path(path: str) -> str:
    """Return the Python expression for a path. `pathlib` does not expand `~` by itself."""
    return f"pathlib.Path({path!r}){'.expanduser()' if path.startswith('~') else ''}"


def _paths_in(input: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the strings of an input that are paths of existing files, with their places."""
    found: list[tuple[str, str]] = []
    left = [(f"input.{key}", value) for key, value in input.items()]
    looked_at = 0
    while left and looked_at < _MAX_STRINGS:
        place, value = left.pop(0)
        if isinstance(value, list):
            left += [(f"{place}[{index}]", item) for index, item in enumerate(value[:_MAX_STRINGS])]
        elif isinstance(value, dict):
            parts = islice(value.items(), _MAX_STRINGS)
            left += [(f"{place}.{key}", item) for key, item in parts]
        elif isinstance(value, str) and 0 < len(value) <= _MAX_PATH and "://" not in value:
            looked_at += 1
            with suppress(OSError, ValueError, RuntimeError):
                if Path(value).expanduser().is_file():
                    found.append((place, value))
    return found
