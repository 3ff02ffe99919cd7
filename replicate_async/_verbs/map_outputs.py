"""The outputs of a fan-out on the disk.

The names of all files begin with the index of the input. The record of a prediction is written first: from then on,
the files that are there under the names of its output are complete, and belong to it.
"""

from __future__ import annotations

import glob
import logging
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from .. import exceptions
from .._codec import decode_json
from .._concurrency import gather_limited
from .._files.disk import UniqueNames, write_file
from .._files.media import has_suffix, safe_name
from .._files.output import FileOutput, stamp_of
from .._files.output_trees import files_in, replace_files
from .._jobs.prediction import Output, Prediction
from .._json import to_text
from .._threads import in_thread

_logger = logging.getLogger("replicate_async")

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
    """Return whether files are in a directory, with their sizes if these are known."""
    return all(_is_saved(directory / name, size) for name, size in files.items())


def _is_saved(path: Path, size: int | None) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and size in (None, found.st_size)


async def save_output(
    directory: Path,
    index: int,
    prediction: Prediction,
    output: Output,
    tree: Any,
    *,
    record: Mapping[str, Any],
    known: Mapping[str, int | None],
    durable: bool,
) -> dict[str, int | None]:
    """Save an output and the record of its prediction. Files that are there already are not fetched again.

    Args:
        directory: An existing directory.
        index: Zero-based index of the input.
        prediction: The prediction.
        output: Its output as users see it; None after a failure.
        tree: Its output with all its files, even if users see their URLs.
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
    files = await in_thread(_files_of, output, raw, tree, _name_prefix(index))
    saved: dict[FileOutput, str] = {}

    def is_complete(path: Path) -> bool:
        if path.name in known:
            return _is_saved(path, known[path.name])
        # An empty one may be what a power cut has left of a file that was not durable.
        return _is_saved(path, None) and path.stat().st_size > 0

    def is_known(path: Path) -> bool:
        return path.name in known and is_complete(path)

    await _save_record(directory, index, record, files.names, is_known, durable=durable)

    def find(path: Path) -> Path | None:
        """Return the path where the file is already, also with the suffix that it has got."""
        return next(filter(is_complete, (path, *_with_suffixes(path))), None)

    async def save(entry: tuple[str, FileOutput]) -> None:
        name, file = entry
        path = directory / name
        found = await in_thread(find, path)
        if found is not None and (found.name in known or await _has_size_of(file, found)):
            file._saved_at(found, await in_thread(stamp_of, found))
        elif await in_thread(path.is_dir):
            raise exceptions.FileNotSaved(
                file.url,
                str(path),
                IsADirectoryError("it is a directory"),
                prediction_id=prediction.id,
            )
        else:
            found = await file._save_as(path, durable=durable)
        saved[file] = found.name

    await gather_limited(save, list(files.downloads.items()), at_once=_SAVED_AT_ONCE)
    names = [saved[file] for file in files.downloads.values()]
    if files.rest is not None:
        content = await in_thread(files.rest_with, saved)
        await write_file(directory / files.rest, content, durable=durable)
        names.append(files.rest)
    return await in_thread(_sizes, directory, (*names, record_name(index)))


async def _has_size_of(file: FileOutput, path: Path) -> bool:
    """Return whether a file on the disk has the size of an output, as far as its server still knows that."""
    try:
        stated = (await file.stat()).size
    except exceptions.ReplicateException as error:
        _logger.debug("the size of %s cannot be known: %s", path.name, error)
        return True
    return stated is None or await in_thread(_is_saved, path, stated)


def _with_suffixes(path: Path) -> Iterable[Path]:
    """Return the paths of files that may be this one, with the suffix of its type."""
    if has_suffix(path.name):
        return ()
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.*"))


def _sizes(directory: Path, names: Iterable[str]) -> dict[str, int | None]:
    return {name: (directory / name).stat().st_size for name in names}


@attrs.frozen
class _Files:
    """The files that an output is saved as."""

    downloads: Mapping[str, FileOutput]
    """The files in it, by name. A name without suffix gets one when the type is known."""
    rest: str | None
    """Name of the file for the rest of the output: all but its files. None if it consists of files."""
    _text: str | None
    """The rest, if it is text."""
    _tree: Any
    """The output with its files."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.downloads, *(() if self.rest is None else (self.rest,)))

    def rest_with(self, saved: Mapping[FileOutput, str]) -> bytes:
        """Return the rest of the output, in which the names of its files stand for them."""
        text = self._text
        if text is None:
            named = replace_files(self._tree, lambda file: saved.get(file, file.url))
            text = to_text(named, separators=(",", ":"), ascii_only=False)
        return _encoded(text)


def _files_of(output: Output, raw: Any, tree: Any, prefix: str) -> _Files:
    """Return the files for an output: its own files, and one for the rest."""
    unique = UniqueNames()
    unique.add("prediction.json")
    found = dict.fromkeys([*files_in(output)] or files_in(tree))
    names = {file: safe_name(file.name) for file in found}
    # Those without suffix last: they must not get the name of another one with it.
    for file in found:
        if has_suffix(names[file]):
            names[file] = prefix + unique.add(names[file])
    rest, text = None, None
    if raw is not None and not _is_files(tree):
        text = _text_of(output, raw)
        rest = prefix + unique.add("output.json" if text is None else "output.txt")
    for file in found:
        if not has_suffix(names[file]):
            names[file] = prefix + unique.add(names[file])
    return _Files({names[file]: file for file in found}, rest, text, tree)


def _encoded(text: str) -> bytes:
    """Return a text in UTF-8, with its lone surrogates as the escapes that JSON has for them."""
    return text.encode("utf-8", "backslashreplace")


def _text_of(output: Output, raw: Any) -> str | None:
    """Return an output as text; None if it is something else."""
    for value in (output, raw):
        if isinstance(value, str):
            return value
    if isinstance(raw, list) and raw and all(isinstance(item, str) for item in raw):
        return "".join(raw)  # the pieces of a language model; the record has them one by one
    return None


def _is_files(tree: Any) -> bool:
    """Return whether a tree consists of files only."""
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
            stale += [other for path in stale for other in _with_suffixes(path)]
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
        content = _encoded(text)
        await write_file(record, content, private=True, durable=durable)  # it holds the input
