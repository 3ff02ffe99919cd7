"""Python files whose functions become models of the emulator."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType

from replicate_async.testing import Emulator


class ModelFileError(Exception):
    """A file cannot be used."""


def load_models(emulator: Emulator, path: Path) -> None:
    """Add the functions of a file to an emulator.

    Each public function that the file defines becomes the model `ACCOUNT/function`. If there is a function
    `setup_emulator`, it is called with the emulator instead, to add models with other names and options.

    Raises:
        ModelFileError: The file cannot be read or run, has no functions, or one that cannot be a model.
    """
    module = _imported(path)
    setup = getattr(module, "setup_emulator", None)
    if callable(setup):
        with _named_in_errors(path, "setup_emulator"):
            setup(emulator)
        return
    functions = _functions_of(module)
    if not functions:
        raise ModelFileError(f"{path}: it defines no public functions")
    for function in functions:
        about = (inspect.getdoc(function) or "").partition("\n")[0]
        with _named_in_errors(path, function.__name__):
            emulator.add_model(
                f"{emulator.account}/{function.__name__}", function, description=about
            )


@contextmanager
def _named_in_errors(path: Path, name: str) -> Iterator[None]:
    """Turn errors into a `ModelFileError` that names the file and the function."""
    try:
        yield
    except Exception as error:
        raise ModelFileError(f"{path}: {name}: {_text(error)}") from error


def _imported(path: Path) -> ModuleType:
    name = f"_replicate_models_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelFileError(f"{path}: expected a Python file, NAME.py")
    module = module_from_spec(spec)
    # As for a script: it can import modules in its folder, and its classes can be pickled.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ModelFileError(f"{path}: {_text(error)}") from error
    return module


def _functions_of(module: ModuleType) -> list[FunctionType]:
    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _text(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"
