"""Files on the disk: written under another name until they are complete."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from .. import exceptions
from .._concurrency import in_thread


class _Partial:
    """A file that is being written, under another name until it is complete.

    Its methods are called in threads, and may outlast the task that called them: after `discard`, none
    of them leaves anything behind.
    """

    def __init__(self, path: str | os.PathLike[str], name: str, before: Path | None = None) -> None:
        try:
            given = os.fspath(path)
        except TypeError:
            given = None
        if not isinstance(given, str):
            raise exceptions.ArgumentTypeError("path", f"expected a path, got {path!r}")
        if not given or "\0" in given:
            raise exceptions.ArgumentError("path", f"{given!r} is no path")
        self.target = Path(given)
        self._is_directory = given.endswith(("/", os.sep))
        self._name = name
        self._before = before
        self._lock = threading.Lock()
        self._partial: Path | None = None
        self._descriptor: int | None = None
        self._discarded = False

    def open(self) -> None:
        """Make the file under its other name, and the directory if it is to be one."""
        with self._lock:
            if self._discarded:
                return
            if self._is_directory or self.target.is_dir():
                self._is_directory = True
                self.target.mkdir(parents=True, exist_ok=True)
                self.target /= self._name
            partial = self.target.with_name(f".{secrets.token_hex(8)}.part")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(partial, flags, 0o666)
            self._partial = partial

    def write(self, chunks: list[bytes]) -> None:
        """Append chunks; an empty one means that all before it is void."""
        with self._lock:
            if self._descriptor is None:
                return
            if not chunks[-1]:
                os.ftruncate(self._descriptor, 0)
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                return
            _write_all(self._descriptor, chunks)

    def publish(self) -> Path:
        """Give the file its name, and return where it is."""
        with self._lock:
            partial = self._partial
            if partial is None:
                raise InterruptedError("it was discarded")
            self._close()
            if not self._is_directory or self.target == self._before:
                partial.replace(self.target)
            else:
                self.target = _moved(partial, self.target)
            self._partial = None
            return self.target

    def discard(self) -> None:
        """Remove what there is of it, unless it is complete."""
        with self._lock:
            self._discarded = True
            with suppress(OSError):
                self._close()
            if self._partial is not None:
                with suppress(OSError):
                    self._partial.unlink(missing_ok=True)
                self._partial = None

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


_MOST_BUFFERS: Final = 256


def _write_all(descriptor: int, chunks: list[bytes]) -> None:
    if not hasattr(os, "writev"):
        chunks = [b"".join(chunks)]
    while chunks:
        some = chunks[:_MOST_BUFFERS]
        if hasattr(os, "writev"):
            # Without a copy, which would be made with the interpreter's lock.
            written = os.writev(descriptor, some)
        else:
            written = os.write(descriptor, some[0])
        while chunks and written >= len(chunks[0]):
            written -= len(chunks[0])
            chunks = chunks[1:]
        if written:
            chunks = [chunks[0][written:], *chunks[1:]]


def _moved(partial: Path, target: Path) -> Path:
    """Rename a file without replacing another: if the name is taken, it gets a number."""
    for candidate in _numbered(target):
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


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in range(2, 100):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
    while True:  # there are many: to count on would take longer and longer
        yield path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")


async def ready_directory(path: str | os.PathLike[str]) -> Path:
    """Return a directory that can be written to; it is made if it does not exist.

    Raises:
        ArgumentError: It cannot be had.
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
