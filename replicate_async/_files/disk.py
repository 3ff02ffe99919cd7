"""Files on the disk: opened and closed under cancellation, complete when they appear, named uniquely."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePath
from typing import IO, Final, Literal

import attrs
from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncBufferedIOBase

from .. import exceptions
from .._concurrency import in_thread, shielded_in_thread

_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.part")
"""The names of files that are being written."""


_PARTIAL_LIFETIME: Final = 3600.0
"""Seconds after which such a file was left behind by a process that is gone."""


@asynccontextmanager
async def opened(path: Path, mode: Literal["rb", "xb"]) -> AsyncIterator[AsyncBufferedIOBase]:
    """Open a file for aiofiles, and close it at the end of the block.

    A thread that opens a file outlasts a task that is cancelled meanwhile. `aiofiles.open` would lose
    the file then, which nobody would close; here it is kept, and closed.
    """
    files: list[IO[bytes]] = []
    try:
        await shielded_in_thread(lambda: files.append(path.open(mode)))
        yield wrap(files[0])
    finally:
        for file in files:
            if not file.closed:
                await shielded_in_thread(_close, file)


def _close(file: IO[bytes]) -> None:
    """Close a file, after a read or write that is under way in another thread: it holds the file's lock."""
    with suppress(OSError):
        file.close()


@attrs.define(eq=False, repr=False)
class NewFile:
    """A file that is being written."""

    path: Path
    """Where it is to be; after the end of the block, where it is."""
    _file: AsyncBufferedIOBase

    async def write(self, content: bytes) -> None:
        """Append content; 1 MiB or more at once, since each write is made in a thread."""
        await self._file.write(content)

    async def clear(self) -> None:
        """Remove what was written so far."""
        await self._file.seek(0)
        await self._file.truncate()


@asynccontextmanager
async def new_file(path: Path, *, replace: bool) -> AsyncIterator[NewFile]:
    """Write a file that appears under its name at the end of the block, when it is complete.

    If the block fails or is cancelled, nothing is left behind.

    Args:
        path: The name. Its directory exists.
        replace: Whether it replaces a file of that name; else it gets a number if the name is taken.

    Raises:
        OSError: It could not be written.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.part")  # as in _PARTIAL
    try:
        async with opened(partial, "xb") as file:
            new = NewFile(path, file)
            yield new
            await file.close()  # says if something could not be written
        new.path = await shielded_in_thread(_replaced if replace else _moved, partial, path)
    except BaseException:
        await shielded_in_thread(_remove, partial)
        raise


async def write_file(path: Path, content: bytes) -> None:
    """Write or replace a file; it appears under its name when it is complete.

    Raises:
        OSError: It could not be written.
    """
    async with new_file(path, replace=True) as file:
        await file.write(content)


# aiofiles has no equal for what follows: it happens in threads, by the functions of `os`.


def _replaced(partial: Path, path: Path) -> Path:
    return partial.replace(path)


def _moved(partial: Path, path: Path) -> Path:
    """Rename a file without replacing another: if the name is taken, it gets a number."""
    for candidate in numbered(path):
        try:
            os.link(partial, candidate)
        except FileExistsError:
            continue
        except OSError:  # this file system has no hard links
            if os.path.lexists(candidate):
                continue
            partial.replace(candidate)
        else:
            partial.unlink()
        return candidate
    raise AssertionError("unreachable: there is always a further number")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_partial_files(directory: Path) -> None:
    """Remove the unfinished files that a killed process has left behind."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - _PARTIAL_LIFETIME:
                        Path(entry.path).unlink()


async def destination(path: object, name: str) -> tuple[Path, bool]:
    """Return the path of a new file, and whether a directory was given in which it has to find its place.

    Args:
        path: A file; or a directory, which exists or ends with a slash, and is made.
        name: The name of the file in a directory.

    Raises:
        ArgumentError: It is not a path.
        OSError: The directory cannot be made.
    """
    try:
        given = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        given = None
    if not isinstance(given, str):
        raise exceptions.ArgumentTypeError("path", f"expected a path, got {path!r}")
    if not given or "\0" in given:
        raise exceptions.ArgumentError("path", f"{given!r} is not a path")

    def find() -> tuple[Path, bool]:
        target = Path(given)
        if not given.endswith(("/", os.sep)) and not target.is_dir():
            return target, False
        target.mkdir(parents=True, exist_ok=True)
        return target / name, True

    return await in_thread(find)


def numbered(path: Path) -> Iterator[Path]:
    """Yield a path, and then others for the same content if it is taken: `a.png`, `a-2.png`, ..."""
    yield path
    for number in range(2, 100):
        yield path.with_name(_with_number(path, number))
    while True:  # there are many: to count on would take longer and longer
        yield path.with_name(_with_number(path, secrets.token_hex(4)))


def _with_number(path: PurePath, number: int | str) -> str:
    return f"{path.stem}-{number}{path.suffix}"


@attrs.define(eq=False, repr=False)
class UniqueNames:
    """Makes file names that differ, also where the case of letters makes no difference."""

    _numbers: dict[str, int] = attrs.field(factory=dict, init=False)
    """Names that are in use, and the last number for each."""

    def add(self, name: str) -> str:
        """Return a name, with a number if it is taken."""
        path, found = PurePath(name), name
        number = self._numbers.get(name.lower(), 0)
        while found.lower() in self._numbers:
            number += 1
            found = _with_number(path, number)
        self._numbers[name.lower()] = max(number, 1)
        self._numbers.setdefault(found.lower(), 1)
        return found


async def ready_directory(path: str | os.PathLike[str]) -> Path:
    """Return a directory that can be written to; it is made if it does not exist.

    Raises:
        ArgumentError: It cannot be made, or not be written to.
    """

    def ready() -> Path:
        try:
            directory = Path(path)
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError("it cannot be written to")
        except TypeError:
            raise exceptions.ArgumentTypeError(
                "save_to", f"expected a path, got {path!r}"
            ) from None
        except (OSError, ValueError) as error:
            raise exceptions.ArgumentError("save_to", f"{path!s}: {error}") from error
        return directory

    return await in_thread(ready)
