"""Outputs of the command line: printed, or saved in a directory."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from replicate_async import FileOutput, Prediction, exceptions

_MAX_URL: Final = 200
"""Characters of a URL that are printed: data URIs can have millions."""


def printed(output: object) -> str:
    """Return an output as text: strings as they are, files as their URLs, anything else as JSON."""
    match output:
        case str():
            return output
        case FileOutput(url=url):
            return url if len(url) <= _MAX_URL else f"{url[:60]}…"
        case [FileOutput(), *_] if all(isinstance(item, FileOutput) for item in output):
            return "\n".join(map(printed, output))
    return to_json(output)


def to_json(
    value: object,
    *,
    compact: bool = False,
    ascii_only: bool = False,
    default: Callable[[Any], str] = str,
) -> str:
    """Return a value as JSON; files are their URLs, or what *default* says."""
    separators = (",", ":") if compact else (", ", ": ")
    encoder = json.JSONEncoder(ensure_ascii=ascii_only, separators=separators, default=default)
    try:
        return encoder.encode(value)
    except RecursionError:
        return _deep_json(value, encoder)


def _deep_json(value: object, encoder: json.JSONEncoder) -> str:
    """Return a value as JSON, however deep it is nested."""
    pieces: list[str] = []
    rest: list[tuple[bool, Any]] = [(False, value)]
    while rest:
        is_text, item = rest.pop()
        if is_text:
            pieces.append(item)
        elif isinstance(item, (dict, list)):
            rest += reversed([*_parts(item, encoder)])
        else:
            pieces.append(encoder.encode(item))
    return "".join(pieces)


def _parts(
    container: dict[Any, Any] | list[Any], encoder: json.JSONEncoder
) -> Iterator[tuple[bool, Any]]:
    """Yield the parts of a list or dict: texts, and the values between them."""
    is_dict = isinstance(container, dict)
    yield True, "{" if is_dict else "["
    for index, entry in enumerate(container):
        if index:
            yield True, encoder.item_separator
        if isinstance(container, dict):
            yield True, encoder.encode(str(entry)) + encoder.key_separator
            yield False, container[entry]
        else:
            yield False, entry
    yield True, "}" if is_dict else "]"


def prepare_directory(directory: Path) -> None:
    """Create a directory unless it exists.

    Raises:
        ArgumentError: It cannot be created or written to.
    """
    try:
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        for each in missing:
            _sync_directory(each.parent)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError("it cannot be written to")
    except OSError as error:
        raise exceptions.ArgumentError("--output", f"{directory}: {error}") from error


def _sync_directory(directory: Path) -> None:
    """Have the system write the names in a directory to the disk, if it can."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def save_output(prediction: Prediction, output: object, directory: Path) -> list[Path]:
    """Save an output in a directory, and return the paths; existing files are not replaced.

    Files keep their names. Text becomes `output.txt`, and anything else `output.json`.

    Args:
        prediction: The prediction.
        output: Its output, as the schema of the model describes it.
        directory: An existing directory.

    Raises:
        OutputNotSaved: Not all of it could be saved; the rest was.
    """
    found = dict.fromkeys([*_files_in(output)] or [*_files_in(prediction.output)])
    saved: dict[FileOutput, Path] = {}
    failures: list[exceptions.ReplicateException] = []
    for file in found:
        try:
            saved[file] = await file.save(f"{directory}{os.sep}")
        except exceptions.ReplicateException as error:
            failures.append(error)
    paths = [*saved.values()]
    try:
        paths += await _save_rest(prediction.output, output, saved, directory)
    except exceptions.ReplicateException as error:
        failures.append(error)
    if failures:
        reasons = ["; ".join(map(str, failures[:3]))]
        if len(failures) > 3:
            reasons.append(f"and {len(failures) - 3} more")
        if paths:
            reasons.append(f"saved: {', '.join(map(str, paths))}")
        raise exceptions.OutputNotSaved(prediction, "; ".join(reasons), failures) from failures[0]
    return paths


async def _save_rest(
    tree: Any, output: object, saved: Mapping[FileOutput, Path], directory: Path
) -> list[Path]:
    """Save what is not a file, if there is anything, and return its path."""
    if tree is None or _is_files(tree):
        return []
    match output, tree:
        case (str(text), _) | (_, str(text)):
            media_type, content = "text/plain", text
        case _, [str(), *_] if all(isinstance(item, str) for item in tree):
            media_type, content = "text/plain", "".join(tree)
        case _:
            media_type = "application/json"
            content = to_json(
                tree, default=lambda file: saved[file].name if file in saved else str(file)
            )
    encoded = base64.b64encode(content.encode("utf-8", "surrogatepass")).decode()
    # Saved as files are: visible only when complete, safe from a power cut, and without replacing another file.
    file = FileOutput(f"data:{media_type};base64,{encoded}")
    try:
        return [await file.save(f"{directory}{os.sep}")]
    except exceptions.FileNotSaved as error:  # named without the data URI
        reason = error.__cause__ or error
        raise exceptions.ReplicateException(f"{error.path}: {reason}") from error


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
