"""Outputs of a fan-out on the disk."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .._codec import encode_json
from .._files.media import safe_name
from .._files.output import FileOutput, to_output
from .._jobs.context import Context
from ..resources.predictions import Output

_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.part")


_PARTIAL_LIVES: Final = 3600.0


def _prefix(index: int) -> str:
    return f"{index:06d}-"


def _record_name(index: int) -> str:
    return f"{_prefix(index)}prediction.json"


def planned(
    output: Output, raw: Any, context: Context, prefix: str
) -> tuple[dict[str, FileOutput], dict[str, bytes]]:
    """Return what is to be downloaded, and what is to be written, by file name."""
    found: list[FileOutput] = []
    tree = to_output(raw, context.transport, files=True)

    def walk(value: Any) -> None:
        if isinstance(value, FileOutput):
            found.append(value)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)

    walk(output)
    if not found:
        walk(tree)
    names: dict[FileOutput, str] = {}
    taken = {"prediction.json"}
    for file in found:
        if file not in names:
            names[file] = prefix + _free(safe_name(file.name), taken)
    files = {name: file for file, name in names.items()}
    if raw is None or _is_files(tree):
        return files, {}
    if output is not None and isinstance(output, str):
        return files, {prefix + _free("output.txt", taken): output.encode()}
    if isinstance(raw, str) or (
        isinstance(raw, list) and raw and all(isinstance(i, str) for i in raw)
    ):
        # The pieces that language models write; the record has them as they came.
        text = raw if isinstance(raw, str) else "".join(raw)
        return files, {prefix + _free("output.txt", taken): text.encode()}

    def named(value: Any) -> Any:
        if isinstance(value, FileOutput):
            return names.get(value, value.url)
        if isinstance(value, list):
            return [named(item) for item in value]
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        return value

    return files, {prefix + _free("output.json", taken): encode_json(named(tree))}


def _is_files(tree: Any) -> bool:
    """Tell whether there is nothing but files in it."""
    if isinstance(tree, list):
        return bool(tree) and all(_is_files(item) for item in tree)
    return isinstance(tree, FileOutput)


def _free(name: str, taken: set[str]) -> str:
    path, number, found = Path(name), 2, name
    while found.lower() in taken:
        found, number = f"{path.stem}-{number}{path.suffix}", number + 1
    taken.add(found.lower())
    return found


def _begin_saving(
    directory: Path, index: int, raw: Mapping[str, Any], names: tuple[str, ...]
) -> None:
    """Write the record; from then on, what is there under these names is complete, and belongs to it."""
    record = directory / _record_name(index)
    known: object = None
    with suppress(OSError, ValueError):
        known = json.loads(record.read_bytes())
    if known == raw:
        return
    if not (isinstance(known, dict) and known.get("id") == raw.get("id")):
        stale = [directory / name for name in names]
        if known is not None:
            stale += directory.glob(f"{_prefix(index)}*")
        for path in stale:
            with suppress(OSError):
                path.unlink()
    _write(record, json.dumps(raw, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))


def _sweep(directory: Path) -> None:
    """Remove the beginnings of files that a process has left behind when it was killed."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - _PARTIAL_LIVES:
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
