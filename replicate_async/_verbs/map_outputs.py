"""The outputs of a fan-out on the disk.

The names of all files begin with the index of the input. The record of a prediction is written first: from then on,
the files that are there under the names of its output are complete, and belong to it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs

from .. import exceptions
from .._codec import encode_json
from .._concurrency import gather_limited, in_thread
from .._files.media import safe_name
from .._files.output import FileOutput, to_output
from .._jobs.context import Context
from .._jobs.prediction import Output, Prediction

_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.part")
"""The names of files that are being written."""

_PARTIAL_LIFETIME: Final = 3600.0
"""Seconds after which such a file was left behind by a process that is gone."""

_SAVED_AT_ONCE: Final = 4


def record_name(index: int) -> str:
    """Return the name of the file for the record of a prediction."""
    return f"{_name_prefix(index)}prediction.json"


def _name_prefix(index: int) -> str:
    return f"{index:06d}-"


async def save_output(
    context: Context, directory: Path, index: int, prediction: Prediction, output: Output
) -> tuple[str, ...]:
    """Save an output and the record of its prediction. Files that are there already are not fetched again.

    Args:
        context: The client.
        directory: An existing directory.
        index: Zero-based index of the input.
        prediction: The prediction.
        output: Its output as users see it; None after a failure.

    Returns:
        The names of the output's files.

    Raises:
        FileOutputError: A file could not be retrieved or written.
        OSError: The record or a text could not be written.
    """
    raw = prediction._raw.get("output")
    files = await in_thread(_files_of, output, raw, context, _name_prefix(index))
    await in_thread(_write_record, directory, index, prediction._raw, files.names)

    async def save(entry: tuple[str, FileOutput]) -> None:
        name, file = entry
        path = directory / name
        if await in_thread(path.is_file):
            file._path = path
        elif await in_thread(path.is_dir):
            raise exceptions.FileNotSaved(
                file.url, str(path), IsADirectoryError("it is a directory")
            )
        else:
            await file.save(path)

    await gather_limited(save, list(files.downloads.items()), at_once=_SAVED_AT_ONCE)
    for name, content in files.texts.items():
        await in_thread(_write, directory / name, content)
    return files.names


@attrs.frozen
class _Files:
    """The files that an output is saved as, by name."""

    downloads: Mapping[str, FileOutput]
    texts: Mapping[str, bytes]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.downloads, *self.texts)


def _files_of(output: Output, raw: Any, context: Context, prefix: str) -> _Files:
    """Return the files for an output: its own files, and one for what else there is of it."""
    tree = to_output(raw, context.transport, files=True)
    taken = {"prediction.json"}
    names: dict[FileOutput, str] = {}
    for file in [*_files_in(output)] or _files_in(tree):
        if file not in names:
            names[file] = prefix + _unused_name(safe_name(file.name), taken)
    texts: dict[str, bytes] = {}
    if raw is not None and not _is_files(tree):
        text = _text_of(output, raw)
        name = prefix + _unused_name("output.json" if text is None else "output.txt", taken)
        texts[name] = encode_json(_with_names(tree, names)) if text is None else text.encode()
    return _Files({name: file for file, name in names.items()}, texts)


def _text_of(output: Output, raw: Any) -> str | None:
    """Return an output as text; None if it is something else."""
    for value in (output, raw):
        if isinstance(value, str):
            return value
    if isinstance(raw, list) and raw and all(isinstance(item, str) for item in raw):
        return "".join(raw)  # the pieces of a language model; the record has them one by one
    return None


def _files_in(tree: Any) -> Iterator[FileOutput]:
    if isinstance(tree, FileOutput):
        yield tree
    elif isinstance(tree, (list, dict)):
        for item in tree if isinstance(tree, list) else tree.values():
            yield from _files_in(item)


def _is_files(tree: Any) -> bool:
    """Tell whether a tree consists of files only."""
    if isinstance(tree, list):
        return bool(tree) and all(map(_is_files, tree))
    return isinstance(tree, FileOutput)


def _with_names(tree: Any, names: Mapping[FileOutput, str]) -> Any:
    """Return a tree with the names of its files in their places."""
    if isinstance(tree, FileOutput):
        return names.get(tree, tree.url)
    if isinstance(tree, list):
        return [_with_names(item, names) for item in tree]
    if isinstance(tree, dict):
        return {key: _with_names(item, names) for key, item in tree.items()}
    return tree


def _unused_name(name: str, taken: set[str]) -> str:
    path, number, found = Path(name), 2, name
    while found.lower() in taken:
        found, number = f"{path.stem}-{number}{path.suffix}", number + 1
    taken.add(found.lower())
    return found


def _write_record(
    directory: Path, index: int, raw: Mapping[str, Any], names: Iterable[str]
) -> None:
    """Write the record of a prediction, and remove the files of another one."""
    record = directory / record_name(index)
    known: object = None
    with suppress(OSError, ValueError):
        known = json.loads(record.read_bytes())
    if known == raw:
        return
    if not (isinstance(known, dict) and known.get("id") == raw.get("id")):
        stale = [directory / name for name in names]
        if known is not None:
            stale += directory.glob(f"{_name_prefix(index)}*")
        for path in stale:
            with suppress(OSError):
                path.unlink()
    _write(record, json.dumps(raw, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))


def remove_partial_files(directory: Path) -> None:
    """Remove the unfinished files that a killed process has left behind."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - _PARTIAL_LIFETIME:
                        Path(entry.path).unlink()


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears when it is complete."""
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
