"""The journal of a fan-out: an SQLite file that tells, after any interruption, what has been paid for.

For each input it holds a hash, the intention to create a prediction before the request is sent, the
prediction's id after it, how the prediction ended, and which files were saved. What is awaited here is on the
disk when the await returns (write-ahead log, `synchronous=FULL`); what several tasks write at the same time is
committed at once. The file is locked until it is closed or the process is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import anyio
import anyio.to_thread
import attrs

from .. import exceptions

T = TypeVar("T")


State = Literal["new", "intended", "running", "ended", "saved"]


_APPLICATION: Final = 0x5265706C


_VERSION: Final = 1


_MOST_TEXT: Final = 64 * 1024


_SCHEMA: Final = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    number INTEGER PRIMARY KEY,  -- of the input, from 0
    hash TEXT NOT NULL,          -- of the input, with the contents of its files
    input TEXT,                  -- the input itself, unless it is large
    state TEXT NOT NULL,         -- new, intended, running, ended, saved
    attempt INTEGER NOT NULL,    -- predictions of it before this one, which failed
    sent TEXT,                   -- hash of what was sent
    intended REAL,               -- when, in seconds since 1970 by the clock of this machine
    prediction TEXT,             -- the id
    record TEXT,                 -- the prediction as it ended
    files TEXT                   -- names of the saved files
);
CREATE INDEX uncertain ON items (state) WHERE state = 'intended';
CREATE TABLE predictions (id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
"""


@attrs.frozen
class Entry:
    """What the journal knows of one input."""

    state: State = "new"
    """`new`: nothing was created; `intended`: perhaps; `running`: its id is known; `ended`: its end
    is; `saved`: its files are on the disk, too."""
    attempt: int = 0
    """How many predictions of it have failed before."""
    sent: str | None = None
    """The hash of what was sent."""
    intended: float = 0.0
    """When it was sent, in seconds since 1970."""
    prediction: str | None = None
    """The id."""
    record: dict[str, Any] | None = None
    """The prediction as it ended."""
    files: tuple[str, ...] = ()
    """The names of its saved files."""


@attrs.frozen
class Fingerprint:
    """What tells inputs apart."""

    hash: str
    """Of the input, with the contents of its files."""
    text: str | None
    """The input as JSON, unless it is large."""


@attrs.define(eq=False)
class _Step:
    """Something to read or write in the file, and its result."""

    work: Callable[[], Any]
    is_done: bool = False
    result: Any = None
    error: exceptions.JournalError | None = None


class Journal:
    """The journal of one fan-out, open in one process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store = _Store(self.path)
        self._steps: deque[_Step] = deque()
        """What is to be committed next."""
        self._turn = anyio.Lock()

    async def open(self, target: str) -> None:
        """Open or make the file, and lock it.

        Args:
            target: What is run: a model, version or deployment.

        Raises:
            JournalError: Another process has it, it is of another model, or it cannot be read.
        """
        await anyio.to_thread.run_sync(self._store.open, target)

    async def aclose(self) -> None:
        """Write what was not awaited to its end, and close the file."""
        await anyio.to_thread.run_sync(self._store.close, self._steps)

    async def find(self, number: int, fingerprint: Fingerprint) -> Entry:
        """Return what is known of an input.

        Raises:
            JournalError: It was another input before.
        """
        return await self._do(lambda: self._store.find(number, fingerprint))

    async def intend(self, number: int, fingerprint: Fingerprint, sent: str, attempt: int) -> None:
        """Note that a prediction will be created now."""
        now = time.time()
        await self._do(lambda: self._store.intend(number, fingerprint, sent, attempt, now))

    async def created(self, number: int, id: str) -> None:
        """Note the id of the prediction that was created, or found."""
        await self._do(lambda: self._store.created(number, id))

    async def refused(self, number: int) -> None:
        """Note that nothing was created after all, or nothing that counts."""
        await self._do(lambda: self._store.refused(number))

    async def ended(self, number: int, record: Mapping[str, Any]) -> None:
        """Note how the prediction ended."""
        text = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
        await self._do(lambda: self._store.ended(number, text))

    async def saved(self, number: int, files: tuple[str, ...]) -> None:
        """Note that all of its files are on the disk."""
        await self._do(lambda: self._store.saved(number, files))

    async def owns(self, id: str) -> bool:
        """Tell whether a prediction belongs to one of the inputs."""
        return await self._do(lambda: self._store.owns(id))

    async def uncertain(self) -> list[tuple[int, str, float]]:
        """Return number, hash of what was sent, and time of all that may have been created."""
        return await self._do(self._store.uncertain)

    async def _do(self, work: Callable[[], T]) -> T:
        step = _Step(work)
        self._steps.append(step)
        async with self._turn:
            if not step.is_done:
                # With everything else that has come together meanwhile.
                await anyio.to_thread.run_sync(self._store.commit, self._steps)
        if step.error is not None:
            raise step.error
        done: T = step.result
        return done


class _Store:
    """The file. Its public methods are called in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        """Two threads can be at work if a task that awaits the first one is cancelled by asyncio."""

    def open(self, target: str) -> None:
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(
                    self._path,
                    timeout=0.0,
                    isolation_level=None,
                    check_same_thread=False,  # since they are locked
                )
                self._prepare(self._database, target)
            except (sqlite3.Error, OSError) as error:
                self._close()
                raise self._problem(error) from error
            except BaseException:
                self._close()
                raise

    def close(self, steps: deque[_Step]) -> None:
        """Commit the steps that are left, and close the file."""
        if steps:
            self.commit(steps)
        with self._lock:
            self._close()

    def commit(self, steps: deque[_Step]) -> None:
        """Take all steps out of a queue, and do them in one transaction."""
        with self._lock:
            batch = [steps.popleft() for _ in range(len(steps))]
            problem: exceptions.JournalError | None = None
            try:
                self._query("BEGIN")
                for step in batch:
                    try:
                        step.result = step.work()
                    except exceptions.JournalError as error:
                        step.error = error
                self._query("COMMIT")
            except sqlite3.Error as error:
                problem = self._problem(error)
                with suppress(sqlite3.Error):
                    self._query("ROLLBACK")
            except exceptions.JournalError as error:  # it is closed
                problem = error
            for step in batch:
                step.error = problem or step.error
                step.is_done = True

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _prepare(self, database: sqlite3.Connection, target: str) -> None:
        # Locked as long as the process lives, and not longer, whatever ends it.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        [application] = database.execute("PRAGMA application_id").fetchone()
        [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION:
            raise exceptions.JournalError(
                "unreadable", str(self._path), "it is a database, but no journal"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        [version] = database.execute("PRAGMA user_version").fetchone()
        if not tables:
            for statement in _SCHEMA.split(";\n"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_VERSION}")
            database.execute("INSERT INTO facts VALUES ('target', ?)", (target,))
        elif version != _VERSION:
            raise exceptions.JournalError(
                "unreadable", str(self._path), f"it is of version {version}, and this is {_VERSION}"
            )
        else:
            [known] = database.execute("SELECT value FROM facts WHERE name = 'target'").fetchone()
            if known != target:
                raise exceptions.JournalError(
                    "mismatch",
                    str(self._path),
                    f"it belongs to {known}, not to {target}. Use another journal for another model",
                )
        database.execute("COMMIT")

    def find(self, number: int, fingerprint: Fingerprint) -> Entry:
        row = self._query(
            "SELECT hash, state, attempt, sent, intended, prediction, record, files FROM items"
            " WHERE number = ?",
            number,
        ).fetchone()
        if row is None:
            return Entry()
        known, state, attempt, sent, intended, prediction, record, files = row
        if known != fingerprint.hash:
            raise exceptions.JournalError(
                "mismatch",
                str(self._path),
                f"input {number} is not what it was in the run before. Use another journal for other"
                " inputs; to go on with this one, give the same inputs in the same order (more may"
                " follow)",
            )
        return Entry(
            state,
            attempt,
            sent,
            intended or 0.0,
            prediction,
            None if record is None else json.loads(record),
            tuple(json.loads(files)) if files else (),
        )

    def intend(
        self, number: int, fingerprint: Fingerprint, sent: str, attempt: int, now: float
    ) -> None:
        self._query(
            "INSERT INTO items (number, hash, input, state, attempt, sent, intended)"
            " VALUES (?, ?, ?, 'intended', ?, ?, ?) ON CONFLICT (number) DO UPDATE SET"
            " state = 'intended', attempt = excluded.attempt, sent = excluded.sent,"
            " intended = excluded.intended, prediction = NULL, record = NULL, files = NULL",
            *(number, fingerprint.hash, fingerprint.text, attempt, sent, now),
        )

    def created(self, number: int, id: str) -> None:
        self._query(
            "UPDATE items SET state = 'running', prediction = ? WHERE number = ?", id, number
        )
        self._query("INSERT OR REPLACE INTO predictions VALUES (?, ?)", id, number)

    def refused(self, number: int) -> None:
        self._query(
            "UPDATE items SET state = 'new', prediction = NULL, record = NULL WHERE number = ?",
            number,
        )

    def ended(self, number: int, record: str) -> None:
        self._query(
            "UPDATE items SET state = 'ended', record = ?, files = NULL WHERE number = ?",
            record,
            number,
        )

    def saved(self, number: int, files: tuple[str, ...]) -> None:
        self._query(
            "UPDATE items SET state = 'saved', files = ? WHERE number = ?",
            json.dumps(files),
            number,
        )

    def owns(self, id: str) -> bool:
        return self._query("SELECT 1 FROM predictions WHERE id = ?", id).fetchone() is not None

    def uncertain(self) -> list[tuple[int, str, float]]:
        return self._query(
            "SELECT number, sent, intended FROM items WHERE state = 'intended' ORDER BY number"
        ).fetchall()

    def _query(self, statement: str, *values: object) -> sqlite3.Cursor:
        if self._database is None:
            raise exceptions.JournalError("failed", str(self._path), "it is closed")
        return self._database.execute(statement, values)

    def _problem(self, error: Exception) -> exceptions.JournalError:
        path = str(self._path)
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return exceptions.JournalError(
                "in_use", path, "another process is using it. Wait for it, or use another journal"
            )
        if getattr(error, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return exceptions.JournalError("unreadable", path, f"it is no journal ({error})")
        return exceptions.JournalError("failed", path, str(error))


def fingerprint(value: Mapping[str, Any], is_file: Callable[[Any], bool]) -> Fingerprint:
    """Return the fingerprint of an input. It reads the files in it: not on the event loop.

    Args:
        value: The input.
        is_file: Tells what in it is a file.

    Raises:
        ArgumentError: A file in it cannot be read.
        ArgumentTypeError: It cannot be written down.
    """
    text = _canonical(value, "input", is_file)
    return Fingerprint(digest(text), text if len(text) <= _MOST_TEXT else None)


def sent_hash(value: Mapping[str, Any]) -> str:
    """Return the hash of an input as it is sent, or as the list shows it."""
    return digest(_canonical(value, "input", lambda _: False))


def digest(text: str) -> str:
    """Return a hash of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: Any, path: str, is_file: Callable[[Any], bool]) -> str:
    try:
        return json.dumps(
            _plain(value, path, is_file), ensure_ascii=True, sort_keys=True, separators=(",", ":")
        )
    except RecursionError:
        raise exceptions.ArgumentError(
            path, "it is nested too deeply, or contains itself"
        ) from None


def _plain(value: Any, path: str, is_file: Callable[[Any], bool]) -> Any:
    kind = value.__class__
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is float:
        # JSON does not tell 1.0 from 1, and services that keep it need not either.
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {key: _plain(item, f"{path}.{key}", is_file) for key, item in value.items()}
    if isinstance(value, Enum):
        return _plain(value.value, path, is_file)
    if is_file(value):
        return {"$file": _content_hash(value, path)}
    match value:
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return _plain(float(value), path, is_file)
        case datetime() | date():
            return value.isoformat()
        case Mapping():
            return {str(key): _plain(item, f"{path}.{key}", is_file) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, f"{path}[{index}]", is_file) for index, item in enumerate(value)]
        case set() | frozenset():
            items = [_plain(item, path, is_file) for item in value]
            return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(url := getattr(value, "url", None), str):
        return url  # a file that a model made
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), path, is_file)
    raise exceptions.ArgumentTypeError(
        path, f"a {type(value).__name__} cannot be written into a journal"
    )


def _content_hash(file: Any, path: str) -> str:
    if isinstance(file, (bytes, bytearray, memoryview)):
        return hashlib.sha256(file).hexdigest()
    try:
        if isinstance(file, (str, os.PathLike)):
            with Path(file).open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
        if not (callable(getattr(file, "seekable", None)) and file.seekable()):
            raise exceptions.ArgumentTypeError(
                path,
                "a file that can be read only once cannot be written into a journal: pass a path",
            )
        position = file.tell()
        file.seek(0)
        try:
            made = hashlib.sha256()
            while chunk := file.read(2**20):
                made.update(chunk)
        finally:
            file.seek(position)
        return made.hexdigest()
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, exceptions.ReplicateException):
            raise
        reason = getattr(error, "strerror", None) or error
        raise exceptions.ArgumentError(path, f"{file!r} cannot be read ({reason})") from error
