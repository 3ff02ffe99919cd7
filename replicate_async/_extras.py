"""Optional dependencies, which are imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import exceptions


def import_extra(module: str, extra: str) -> Any:
    """Return a module of an optional dependency.

    Args:
        module: Name of the module.
        extra: The extra of this package that installs it.

    Raises:
        MissingDependency: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise exceptions.MissingDependency(package, extra) from None
