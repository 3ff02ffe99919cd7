"""The outputs of a fan-out on the disk.

The names of all files begin with the index of the input. The record of a prediction is written first: from then on,
the files that are there under the names of its output are complete, and belong to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs

from .. import exceptions
from .._codec import encode_json
from .._concurrency import gather_limited, in_thread
from .._files.disk import UniqueNames, write_file
from .._files.media import safe_name
from .._files.output import FileOutput, files_in, replace_files, to_output
from .._jobs.context import Context
from .._jobs.prediction import Output, Prediction

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
    await _save_record(directory, index, prediction._raw, files.names)

    async def save(entry: tuple[str, FileOutput]) -> None:
        name, file = entry
        path = directory / name
        if await in_thread(path.is_file):
            file._saved_at(path)
        elif await in_thread(path.is_dir):
            raise exceptions.FileNotSaved(
                file.url, str(path), IsADirectoryError("it is a directory")
            )
        else:
            await file.save(path)

    await gather_limited(save, list(files.downloads.items()), at_once=_SAVED_AT_ONCE)
    for name, content in files.texts.items():
        await write_file(directory / name, content)
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
            texts[prefix + unique.add("output.txt")] = text.encode()
        else:
            named = replace_files(tree, lambda file: names.get(file, file.url))
            texts[prefix + unique.add("output.json")] = encode_json(named)
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
    if isinstance(tree, list):
        return bool(tree) and all(map(_is_files, tree))
    return isinstance(tree, FileOutput)


async def _save_record(
    directory: Path, index: int, raw: Mapping[str, Any], names: Iterable[str]
) -> None:
    """Write the record of a prediction, and remove the files of another one."""
    record = directory / record_name(index)

    def prepare() -> bool:
        """Remove the files of another prediction, and tell whether the record is there already."""
        known: object = None
        with suppress(OSError, ValueError):
            known = json.loads(record.read_bytes())
        if not (isinstance(known, dict) and known.get("id") == raw.get("id")):
            stale = [directory / name for name in names]
            if known is not None:
                stale += directory.glob(f"{_name_prefix(index)}*")
            for path in stale:
                with suppress(OSError):
                    path.unlink()
        return known == raw

    if not await in_thread(prepare):
        text = json.dumps(raw, ensure_ascii=False, indent=1)
        await write_file(record, text.encode("utf-8", "surrogatepass"))
