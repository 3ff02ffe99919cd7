"""Files on the disk: closed even if tasks are cancelled, visible only when complete, with unique names."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Final, Literal, TypeVar

import anyio
import attrs
from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncBufferedIOBase
from anyio.lowlevel import RunVar

from .. import exceptions
from .._concurrency import share_of_descriptors
from .._threads import in_thread, shielded_in_thread
from .media import has_suffix

T = TypeVar("T")

_PARTIAL: Final = re.compile(r"\.[0-9a-f]{16}\.part")
"""The names of unfinished files."""

_PARTIAL_LIFETIME: Final = 3600.0
"""Seconds after the last write when an unfinished file belongs to no process any more."""


_PRIVATE: Final = 0o600
"""Permissions of files that may hold secrets."""

_ORDINARY: Final = 0o666
"""Permissions of other files, from which the system removes those in the umask."""


class NamedSpool(tempfile.SpooledTemporaryFile[bytes]):
    """A temporary file with the name of the file that it holds, which HTTP libraries send when they upload it."""

    def __init__(self, name: str, in_memory: int) -> None:
        super().__init__(in_memory)
        self._file_name = name

    @property
    def name(self) -> str:
        """The name, which is not a path."""
        return self._file_name


@asynccontextmanager
async def opened(
    path: Path, mode: Literal["rb", "xb"], permissions: int = _ORDINARY
) -> AsyncIterator[AsyncBufferedIOBase]:
    """Open a file with aiofiles, and close it at the end of the block.

    A new file gets the permissions, except those in the umask.
    """
    async with _opened(path, mode, permissions) as file:
        yield wrap(file)


@asynccontextmanager
async def _opened(
    path: Path, mode: Literal["rb", "xb"], permissions: int
) -> AsyncIterator[IO[bytes]]:
    """Open a file in a thread, and close it at the end of the block.

    If the task is cancelled while a thread opens the file, `aiofiles.open()` loses the file and leaves it
    open. Here the thread is awaited, and its file is closed.
    """
    files: list[IO[bytes]] = []
    try:
        await _with_descriptor(
            lambda: shielded_in_thread(lambda: files.append(_open(path, mode, permissions)))
        )
        yield files[0]
    finally:
        for file in files:
            if not file.closed:
                await shielded_in_thread(_close, file)


_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
"""Errors if the process, or the system, has no file descriptor left."""

_DESCRIPTOR_TIMEOUT: Final = 20.0
"""Seconds to wait for a descriptor. The idle connections of this package are closed after 15."""


async def _with_descriptor(work: Callable[[], Awaitable[T]]) -> T:
    """Do work that needs a file descriptor. If there is none, wait for one, since what was paid for has to be saved."""
    until = time.monotonic() + _DESCRIPTOR_TIMEOUT
    while True:
        try:
            return await work()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR or time.monotonic() > until:
                raise
        await anyio.sleep(0.1)


def _open(path: Path, mode: Literal["rb", "xb"], permissions: int) -> IO[bytes]:
    return open(path, mode, opener=partial(os.open, mode=permissions))


def _close(file: IO[bytes]) -> None:
    # Another thread may still read or write: closing waits for the lock of the file.
    with suppress(OSError):
        file.close()


_write_slots_of_loop: Final = RunVar[anyio.Semaphore]("replicate_async.files.write_slots")


def _write_slots() -> anyio.Semaphore:
    """Return the semaphore that limits how many files are written at a time on this event loop."""
    try:
        return _write_slots_of_loop.get()
    except LookupError:
        _write_slots_of_loop.set(anyio.Semaphore(min(share_of_descriptors(), 2**16)))
        return _write_slots_of_loop.get()


@attrs.define(eq=False, repr=False)
class NewFile:
    """A file that is being written."""

    path: Path
    """The path that it will get, which may be changed within the block; after the block, its actual path."""
    replace: bool
    """Whether it replaces an existing file."""
    _file: IO[bytes]
    # Not a file of aiofiles, which cannot write when the system has no thread left. What was paid for would be lost.

    async def write(self, content: bytes) -> None:
        """Append content. Each call uses a thread, so pass 1 MiB or more at once."""
        await shielded_in_thread(self._file.write, content)

    async def clear(self) -> None:
        """Remove the content written so far."""
        await shielded_in_thread(self._file.seek, 0)
        await shielded_in_thread(self._file.truncate)


@asynccontextmanager
async def new_file(
    path: Path, *, replace: bool, private: bool = False, durable: bool = True
) -> AsyncIterator[NewFile]:
    """Write a file that appears under its name at the end of the block, when it is complete.

    If the block fails or is cancelled, nothing is left behind.

    Args:
        path: Path of the file, in an existing directory.
        replace: Whether to replace an existing file, whose permissions the new one keeps. If not, and the name is
            taken, the new file gets a number.
        private: Whether only the owner may read the file, unless it replaces one.
        durable: Whether the file survives a power cut once the block has ended.

    Raises:
        OSError: The file could not be written.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    kept = await in_thread(_permissions, path) if replace else None
    try:
        permissions = (_PRIVATE if private else _ORDINARY) if kept is None else kept
        async with _write_slots():
            async with _opened(part, "xb", permissions) as file:
                new = NewFile(path, replace, file)
                yield new
                if durable:
                    await shielded_in_thread(file.flush)
                    # Before it gets its name: a file system may keep the name, and lose the content.
                    await _sync(file)
                await shielded_in_thread(file.close)  # raises if something could not be written
            new.path = await shielded_in_thread(_publish, part, new.path, new.replace)
            if durable:
                # Within the slot of the file, which is closed by now: opening the directory takes its descriptor.
                await _with_descriptor(lambda: in_thread(sync_directory, path.parent))
    except BaseException:
        await shielded_in_thread(_remove, part)
        raise


async def write_file(
    path: Path, content: bytes, *, private: bool = False, durable: bool = True
) -> None:
    """Write or replace a file, which appears under its name only when it is complete.

    Args:
        path: Path of the file, in an existing directory.
        content: The content.
        private: Whether only the owner may read the file, unless it replaces one.
        durable: Whether the file survives a power cut once this returns.

    Raises:
        OSError: The file could not be written.
    """
    async with new_file(path, replace=True, private=private, durable=durable) as file:
        await file.write(content)


def _permissions(path: Path) -> int | None:
    """Return the permissions of a regular file; None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else None


def _publish(part: Path, path: Path, replace: bool) -> Path:
    """Give a complete file its name."""
    if replace:
        if (kept := _permissions(path)) is not None:
            with suppress(OSError):  # not on every file system
                part.chmod(kept)
        return part.replace(path)
    for candidate in numbered(path):
        try:
            os.link(part, candidate)
        except FileExistsError:
            continue
        except OSError:  # this file system has no hard links
            if os.path.lexists(candidate):
                continue
            return part.replace(candidate)
        part.unlink()
        return candidate
    raise AssertionError("unreachable: there is always another number")


# -- Surviving a power cut ---------------------------------------------------------------------

_NOT_SUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems that cannot sync."""


async def _sync(file: IO[bytes]) -> None:
    """Have the system write a file to the disk."""
    try:
        descriptor = os.dup(file.fileno())
    except OSError as error:
        if error.errno not in _NO_DESCRIPTOR:
            raise
        # The file must not be closed meanwhile, so this is awaited even if it takes long and the task is cancelled.
        await shielded_in_thread(_sync_descriptor, file.fileno())
    else:
        await in_thread(_sync_and_close, descriptor)


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def _sync_and_close(descriptor: int) -> None:
    """Have the system write a file or directory to the disk, and close its descriptor."""
    try:
        _sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


@attrs.define(eq=False)
class _DirectorySync:
    """The syncs of one directory. One sync serves all requests that were made before it began."""

    users: int = 0
    """Number of threads that are in `sync_directory`."""
    requested: int = 0
    """Number of the last request."""
    done: int = 0
    """Number of the last request that a sync has served."""
    lock: threading.Lock = attrs.field(factory=threading.Lock)


_syncs: Final[dict[Path, _DirectorySync]] = {}

_syncs_lock: Final = threading.Lock()


def sync_directory(directory: Path) -> None:
    """Have the system write the names in a directory to the disk, once for all threads that ask at the same time."""
    if os.name == "nt":
        return  # directories cannot be opened there
    with _syncs_lock:
        sync = _syncs.setdefault(directory, _DirectorySync())
        sync.users += 1
        sync.requested += 1
        number = sync.requested
    try:
        with sync.lock:
            if sync.done < number:
                served = sync.requested
                _sync_and_close(os.open(directory, os.O_RDONLY))
                sync.done = served
    finally:
        with _syncs_lock:
            sync.users -= 1
            if not sync.users:
                del _syncs[directory]


def make_directory(directory: Path) -> None:
    """Create a directory and its parents, unless they exist. They survive a power cut."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        with suppress(OSError):  # it may not be readable
            sync_directory(each.parent)


_UNUSABLE: Final = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ENODEV)
    if os.name != "nt"
    else (errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENOENT, errno.ENOTDIR)
)
"""Errors that any other file in the same directory would have, too."""


def is_unusable(directory: Path, number: int | None) -> bool:
    """Return whether no more files can be written in a directory, judging by the error number of a failed write."""
    if number in (errno.EACCES, errno.EPERM):
        return not os.access(directory, os.W_OK | os.X_OK)
    return number in _UNUSABLE


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_partial_files(directory: Path) -> None:
    """Remove the unfinished files of processes that were killed."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - _PARTIAL_LIFETIME:
                        Path(entry.path).unlink()


async def destination(path: object, name: str) -> tuple[Path, bool]:
    """Return the path for a new file, and whether it is in a directory that was passed as *path*.

    Args:
        path: Path of the file. Or a directory: an existing one, or a path that ends with a slash, which is
            created.
        name: Name of the file in a directory.

    Raises:
        ArgumentError: *path* is not a path.
        OSError: The directory could not be created.
    """
    try:
        given = os.fspath(path)  # type: ignore[call-overload]  # may be anything, see below
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
        make_directory(target)
        return target / name, True

    return await in_thread(find)


async def ready_directory(path: str | os.PathLike[str]) -> Path:
    """Return a writable directory, which is created if it does not exist.

    Raises:
        ArgumentError: It could not be created, or is not writable.
    """

    def ready() -> Path:
        try:
            directory = Path(path)
            make_directory(directory)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError("it is not writable")
        except TypeError:
            raise exceptions.ArgumentTypeError(
                "save_to", f"expected a path, got {path!r}"
            ) from None
        except (OSError, ValueError) as error:
            raise exceptions.ArgumentError("save_to", f"{path!s}: {error}") from error
        return directory

    return await in_thread(ready)


# -- Names -------------------------------------------------------------------------------------


def numbered(path: Path) -> Iterator[Path]:
    """Yield a path, and then alternatives for the case that it is taken: `a.png`, `a-2.png`, ..."""
    yield path
    for number in range(2, 100):
        yield path.with_name(_with_number(path, number))
    while True:  # a random number is found sooner than the next free one
        yield path.with_name(_with_number(path, secrets.token_hex(4)))


def _with_number(path: PurePath, number: int | str) -> str:
    return f"{path.stem}-{number}{path.suffix}"


@attrs.define(eq=False, repr=False)
class UniqueNames:
    """Makes file names unique, also on file systems that ignore case."""

    _numbers: dict[str, int] = attrs.field(factory=dict, init=False)
    """The names so far in lower case, with the last number of each."""
    _stems: set[str] = attrs.field(factory=set, init=False)
    """The names so far in lower case, without their suffixes."""

    def add(self, name: str) -> str:
        """Return a name, with a number if it was added before.

        A name without suffix, which may get one later, gets a number if one with a suffix was added before.
        """
        path, found = PurePath(name), name
        number = self._numbers.get(name.lower(), 1)
        taken = self._numbers if has_suffix(name) else self._numbers.keys() | self._stems
        while found.lower() in taken:
            number += 1
            found = _with_number(path, number)
        self._numbers[name.lower()] = max(number, 1)
        self._numbers.setdefault(found.lower(), 1)
        self._stems.add((PurePath(found).stem if has_suffix(found) else found).lower())
        return found
