"""Outputs of the command line: printed, or saved in a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from replicate_async import FileOutput, Prediction, exceptions

_LONGEST_URL: Final = 200
"""Characters of a URL that are printed: data URIs can have millions."""


def printed(output: object) -> str:
    """Return an output as text: strings as they are, files as their URLs, anything else as JSON."""
    match output:
        case str():
            return output
        case FileOutput(url=url):
            return url if len(url) <= _LONGEST_URL else f"{url[:60]}…"
        case [FileOutput(), *_] if all(isinstance(item, FileOutput) for item in output):
            return "\n".join(map(printed, output))
    return to_json(output)


def to_json(value: object, *, compact: bool = False, ascii_only: bool = False) -> str:
    """Return a value as JSON; files are their URLs."""
    separators = (",", ":") if compact else None
    return json.dumps(value, ensure_ascii=ascii_only, separators=separators, default=str)


def prepare_directory(directory: Path) -> None:
    """Create a directory unless it exists.

    Raises:
        ArgumentError: It cannot be created or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError("it cannot be written to")
    except OSError as error:
        raise exceptions.ArgumentError("--output", f"{directory}: {error}") from error


async def save_output(prediction: Prediction, output: object, directory: Path) -> list[Path]:
    """Save an output in a directory, and return the paths; existing files are not replaced.

    Files keep their names. Text becomes `output.txt`, and anything else `output.json`.

    Args:
        prediction: The prediction.
        output: Its output, as the schema of the model describes it.
        directory: An existing directory.
    """
    tree = prediction.output
    found = dict.fromkeys([*_files_in(output)] or [*_files_in(tree)])
    saved = {file: await file.save(f"{directory}{os.sep}") for file in found}
    paths = [*saved.values()]
    if tree is None or _is_files(tree):
        return paths
    match output, tree:
        case (str(text), _) | (_, str(text)):
            name, content = "output.txt", text
        case _, [str(), *_] if all(isinstance(item, str) for item in tree):
            name, content = "output.txt", "".join(tree)
        case _:
            name = "output.json"
            content = json.dumps(
                tree,
                ensure_ascii=False,
                default=lambda file: saved[file].name if file in saved else str(file),
            )
    path = _unused(directory / name)
    path.write_text(content, "utf-8", "surrogatepass", newline="")
    return [*paths, path]


def _files_in(tree: object) -> Iterator[FileOutput]:
    rest = [tree]
    while rest:  # models may nest outputs deeper than Python can recurse
        match rest.pop():
            case FileOutput() as file:
                yield file
            case list() as items:
                rest += reversed(items)
            case dict() as items:
                rest += reversed(items.values())


def _is_files(tree: Any) -> bool:
    """Tell whether a tree consists of files only."""
    rest = [tree]
    while rest:
        match rest.pop():
            case [*items] if items:
                rest += items
            case FileOutput():
                pass
            case _:
                return False
    return True


def _unused(path: Path) -> Path:
    found, number = path, 2
    while found.exists():
        found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return found
