"""The outputs of a fan-out on the disk.

The names of all files begin with the index of the input. The record of a prediction is written first: from then on,
the files that are there under the names of its output are complete, and belong to it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from .. import exceptions
from .._codec import decode_json
from .._concurrency import gather_limited, in_thread
from .._files.disk import UniqueNames, write_file
from .._files.media import safe_name
from .._files.output import FileOutput, files_in, replace_files, to_output
from .._jobs.context import Context
from .._jobs.prediction import Output, Prediction
from .._json import to_text

_SAVED_AT_ONCE: Final = 4


def record_name(index: int) -> str:
    """Return the name of the file for the record of a prediction."""
    return f"{_name_prefix(index)}prediction.json"


def _name_prefix(index: int) -> str:
    return f"{index:06d}-"


def saved_names(index: int, files: Mapping[str, int | None]) -> tuple[str, ...]:
    """Return the names of an output's files, of all that were saved."""
    return tuple(name for name in files if name != record_name(index))


def are_saved(directory: Path, files: Mapping[str, int | None]) -> bool:
    """Tell whether files are in a directory, with their sizes if these are known."""
    return all(_is_saved(directory / name, size) for name, size in files.items())


def _is_saved(path: Path, size: int | None) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and size in (None, found.st_size)


async def save_output(
    context: Context,
    directory: Path,
    index: int,
    prediction: Prediction,
    output: Output,
    *,
    record: Mapping[str, Any],
    known: Mapping[str, int | None],
    durable: bool,
) -> dict[str, int | None]:
    """Save an output and the record of its prediction. Files that are there already are not fetched again.

    Args:
        context: The client.
        directory: An existing directory.
        index: Zero-based index of the input.
        prediction: The prediction.
        output: Its output as users see it; None after a failure.
        record: The record to save.
        known: The files that the journal says are there, with their sizes.
        durable: Whether the files must survive a power cut.

    Returns:
        All files, with their sizes.

    Raises:
        FileOutputError: A file could not be retrieved or written.
        OSError: The record or a text could not be written.
    """
    raw = prediction._raw.get("output")
    files = await in_thread(_files_of, output, raw, context, _name_prefix(index), prediction.id)

    def is_complete(path: Path) -> bool:
        if path.name in known:
            return _is_saved(path, known[path.name])
        # An empty one may be what a power cut has left of a file that was not durable.
        return _is_saved(path, None) and path.stat().st_size > 0

    def is_known(path: Path) -> bool:
        return path.name in known and is_complete(path)

    await _save_record(directory, index, record, files.names, is_known, durable=durable)

    async def save(entry: tuple[str, FileOutput]) -> None:
        name, file = entry
        path = directory / name
        if await in_thread(is_complete, path):
            file._saved_at(path)
        elif await in_thread(path.is_dir):
            raise exceptions.FileNotSaved(
                file.url,
                str(path),
                IsADirectoryError("it is a directory"),
                prediction_id=prediction.id,
            )
        else:
            await file.save(path, durable=durable)

    await gather_limited(save, list(files.downloads.items()), at_once=_SAVED_AT_ONCE)
    for name, content in files.texts.items():
        await write_file(directory / name, content, durable=durable)
    return await in_thread(_sizes, directory, (*files.names, record_name(index)))


def _sizes(directory: Path, names: Iterable[str]) -> dict[str, int | None]:
    return {name: (directory / name).stat().st_size for name in names}


@attrs.frozen
class _Files:
    """The files that an output is saved as, by name."""

    downloads: Mapping[str, FileOutput]
    texts: Mapping[str, bytes]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.downloads, *self.texts)


def _files_of(output: Output, raw: Any, context: Context, prefix: str, prediction: str) -> _Files:
    """Return the files for an output: its own files, and one for what else there is of it."""
    tree = to_output(raw, context.transport, files=True, prediction=prediction)
    unique = UniqueNames()
    unique.add("prediction.json")
    names: dict[FileOutput, str] = {}
    for file in [*files_in(output)] or files_in(tree):
        if file not in names:
            names[file] = prefix + unique.add(safe_name(file.name))
    texts: dict[str, bytes] = {}
    if raw is not None and not _is_files(tree):
        text = _text_of(output, raw)
        if text is not None:
            texts[prefix + unique.add("output.txt")] = text.encode("utf-8", "surrogatepass")
        else:
            named = replace_files(tree, lambda file: names.get(file, file.url))
            texts[prefix + unique.add("output.json")] = to_text(
                named, separators=(",", ":"), ascii_only=False
            ).encode("utf-8", "surrogatepass")
    return _Files({name: file for file, name in names.items()}, texts)


def _text_of(output: Output, raw: Any) -> str | None:
    """Return an output as text; None if it is something else."""
    for value in (output, raw):
        if isinstance(value, str):
            return value
    if isinstance(raw, list) and raw and all(isinstance(item, str) for item in raw):
        return "".join(raw)  # the pieces of a language model; the record has them one by one
    return None


def _is_files(tree: Any) -> bool:
    """Tell whether a tree consists of files only."""
    rest = [tree]
    while rest:  # models may nest lists deeper than Python can recurse
        item = rest.pop()
        if isinstance(item, list) and item:
            rest += item
        elif not isinstance(item, FileOutput):
            return False
    return True


async def _save_record(
    directory: Path,
    index: int,
    raw: Mapping[str, Any],
    names: Iterable[str],
    is_known: Callable[[Path], bool],
    *,
    durable: bool,
) -> None:
    """Write the record of a prediction, and remove the files of another one."""
    record = directory / record_name(index)

    def prepare() -> bool:
        """Remove the files of another prediction, and tell whether the record is there already."""
        known: object = None
        with suppress(OSError, ValueError):
            known = decode_json(record.read_bytes())
        if not (isinstance(known, dict) and known.get("id") == raw.get("id")):
            stale = [directory / name for name in names]
            if known is not None:
                stale += directory.glob(f"{_name_prefix(index)}*")
            for path in stale:
                if not is_known(path):
                    with suppress(OSError):
                        path.unlink()
        try:
            return known == raw
        except RecursionError:
            return False

    if not await in_thread(prepare):
        text = await in_thread(partial(to_text, raw, ascii_only=False, indent=1))
        content = text.encode("utf-8", "surrogatepass")
        await write_file(record, content, private=True, durable=durable)  # it holds the input
