"""The journal of a fan-out: an SQLite file that records what has been paid for, and survives any interruption.

For each input it holds a hash, the intention to create a prediction before the request is sent, the ID of the
prediction after it, how the prediction ended, and which files were saved. An awaited write is on the disk when the
await returns (write-ahead log, `synchronous=FULL`); the writes of several tasks are committed together. The file is
locked until it is closed or the process is gone.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import attrs

from .. import exceptions
from .._files.disk import make_directory, sync_directory
from .._json import to_text
from .._threads import awaited_in_thread
from .map_fingerprint import Fingerprint
from .map_rows import Entry, check_sent, check_time, entry_of

T = TypeVar("T")

_APPLICATION: Final = 0x5265706C
"""Identifies journals among SQLite files."""

_VERSION: Final = 1
"""The version of the format."""

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
    files TEXT                   -- names of the saved files, with their sizes
);
CREATE INDEX uncertain ON items (state) WHERE state = 'intended';
CREATE TABLE predictions (id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
"""

_TIMEOUTS: Final = """
CREATE TABLE IF NOT EXISTS timeouts (number INTEGER PRIMARY KEY, seconds REAL NOT NULL)
"""
"""The predictions that were cancelled because their time was over; older journals have no such table."""

_SERVER_TIMES: Final = """
CREATE TABLE IF NOT EXISTS server_times (number INTEGER PRIMARY KEY, seconds REAL NOT NULL)
"""
"""When creates were intended by the server's clock, if it was known; older journals have no such table."""


_UNFIT: Final = (OverflowError, UnicodeError)
"""What the values of a row can raise, in addition to errors of SQLite: too large, or a lone surrogate."""


@attrs.define(eq=False)
class _Step:
    """A read or write, and its result."""

    work: Callable[[], Any]
    number: int | None = None
    """The input that it is about."""
    is_done: bool = False
    result: Any = None
    error: exceptions.JournalError | None = None


class Journal:
    """The journal of one fan-out, open in one process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store = _Store(self.path)
        self._steps: deque[_Step] = deque()
        """The steps of the next transaction."""
        self._turn = anyio.Lock()

    async def open(self, target: str) -> None:
        """Open the file, or create it, and lock it.

        Args:
            target: The name of the model, version or deployment.

        Raises:
            JournalError: Another process uses it, it belongs to another model, or it cannot be read.
        """
        await awaited_in_thread(self._store.open, target)

    async def aclose(self) -> None:
        """Close the file, after the writes whose tasks were cancelled."""
        await awaited_in_thread(self._store.close, self._steps)

    async def find(self, number: int, fingerprint: Fingerprint) -> Entry:
        """Return the state of an input.

        Raises:
            JournalError: The input was another one in an earlier run.
        """
        return await self._do(lambda: self._store.find(number, fingerprint), number)

    async def intend(
        self,
        number: int,
        fingerprint: Fingerprint,
        sent: str,
        attempt: int,
        server_time: float | None = None,
    ) -> None:
        """Record that a prediction is about to be created, and when by the server's clock if that is known."""
        times = time.time(), server_time
        await self._do(
            lambda: self._store.intend(number, fingerprint, sent, attempt, *times), number
        )

    async def created(self, number: int, id: str) -> None:
        """Record the ID of the prediction that was created or found."""
        await self._do(lambda: self._store.created(number, id), number)

    async def refused(self, number: int) -> None:
        """Record that no prediction was created after all, or none that counts."""
        await self._do(lambda: self._store.refused(number), number)

    async def ended(
        self, number: int, record: Mapping[str, Any], timeout: float | None = None
    ) -> None:
        """Record how the prediction ended, and the timeout in seconds if it was cancelled for it."""
        text = to_text(record, separators=(",", ":"))
        await self._do(lambda: self._store.ended(number, text, timeout), number)

    async def saved(self, number: int, files: Mapping[str, int | None]) -> None:
        """Record that the files of the output are on the disk, with their sizes."""
        await self._do(lambda: self._store.saved(number, files), number)

    async def owns(self, id: str) -> bool:
        """Return whether a prediction belongs to one of the inputs."""
        return await self._do(lambda: self._store.owns(id))

    async def uncertain(self) -> list[tuple[int, str, float]]:
        """Return the creates whose answers are not known: index, hash of what was sent, and time."""
        return await self._do(self._store.uncertain)

    async def server_times(self) -> dict[int, float]:
        """Return when the creates whose answers are not known were intended, by the server's clock if it was known."""
        return await self._do(self._store.server_times)

    async def _do(self, work: Callable[[], T], number: int | None = None) -> T:
        step = _Step(work, number)
        self._steps.append(step)
        async with self._turn:
            if not step.is_done:
                # With everything else that has come together meanwhile.
                await awaited_in_thread(self._store.commit, self._steps)
        if step.error is not None:
            raise step.error
        done: T = step.result
        return done


class _Store:
    """The file. Its methods run in threads, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._files: dict[Path, tuple[int, int, bool]] = {}
        """The files of the database, with what identifies each, and whether it has had content."""
        self._lock = threading.Lock()
        """Held by a thread at work. There may be two, since a thread goes on when `Task.cancel` ends the wait for it."""

    def open(self, target: str) -> None:
        with self._lock:
            try:
                make_directory(self._path.parent)
                # It holds inputs and outputs: only its owner may read it. SQLite gives its other files the same mode.
                with suppress(FileExistsError):
                    os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                self._database = sqlite3.connect(
                    self._path,
                    timeout=0.0,
                    isolation_level=None,
                    check_same_thread=False,  # since they are locked
                )
                self._prepare(self._database, target)
                sync_directory(self._path.parent)
                self._files = {path: _identity(path) for path in (self._path, self._log)}
            except (sqlite3.Error, OSError, MemoryError) as error:
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
        """Take all steps out of the queue, and do them in one transaction."""
        with self._lock:
            batch = [steps.popleft() for _ in range(len(steps))]
            problem: exceptions.JournalError | None = None
            try:
                self._check_files()  # before this fills again what was emptied
                self._query("BEGIN")
                for step in batch:
                    try:
                        step.result = step.work()
                    except exceptions.JournalError as error:
                        step.error = error
                    except (sqlite3.DataError, sqlite3.InterfaceError, *_UNFIT) as error:
                        step.error = self._misfit(step.number, error)
                self._query("COMMIT")
                self._check_files()
            except exceptions.JournalError as error:  # it is closed, or gone
                problem = error
            except Exception as error:  # noqa: BLE001  (also an unexpected one: others wait for their steps)
                problem = self._problem(error)
                with suppress(sqlite3.Error):
                    self._query("ROLLBACK")
            for step in batch:
                step.error = problem or step.error
                step.is_done = True

    @property
    def _log(self) -> Path:
        """The write-ahead log."""
        return self._path.with_name(f"{self._path.name}-wal")

    def _check_files(self) -> None:
        """Check that what was written can be found: the system keeps deleted files as long as they are open."""
        for path, known in list(self._files.items()):
            try:
                found = self._files[path] = _identity(path)
                is_same = found[:2] == known[:2] and found[2] >= known[2]
            except OSError:
                is_same = False
            if not is_same:
                raise exceptions.JournalError(
                    "failed",
                    str(self._path),
                    f"{path.name} was deleted, emptied or replaced while it was used",
                )

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database, self._files = None, {}

    def _prepare(self, database: sqlite3.Connection, target: str) -> None:
        # Locked as long as the process lives, and not longer, whatever ends it.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        [application] = database.execute("PRAGMA application_id").fetchone()
        [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION:
            raise exceptions.JournalError(
                "unreadable", str(self._path), "it is a database, but not a journal"
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
            facts = database.execute("SELECT value FROM facts WHERE name = 'target'").fetchone()
            [known] = facts or ["another model"]
            if known != target:
                raise exceptions.JournalError(
                    "mismatch",
                    str(self._path),
                    f"it belongs to {known}, not to {target}. Use another journal for another model",
                )
        database.execute(_TIMEOUTS)
        database.execute(_SERVER_TIMES)
        database.execute("COMMIT")

    def find(self, number: int, fingerprint: Fingerprint) -> Entry:
        found = self._rows(
            number,
            "SELECT hash, state, attempt, sent, intended, prediction, record, files, seconds"
            " FROM items LEFT JOIN timeouts USING (number) WHERE number = ?",
            number,
        )
        if not found:
            return Entry()
        [[known, *columns]] = found
        if known != fingerprint.hash:
            raise exceptions.JournalError(
                "mismatch",
                str(self._path),
                f"input {number} is not what it was in the run before. Use another journal for other"
                " inputs; to go on with this one, give the same inputs in the same order (more may"
                " follow)",
            )
        try:
            return entry_of(columns)
        except ValueError as error:
            raise self._damaged(number, error) from None

    def intend(
        self,
        number: int,
        fingerprint: Fingerprint,
        sent: str,
        attempt: int,
        now: float,
        server_time: float | None,
    ) -> None:
        self._query(
            "INSERT INTO items (number, hash, input, state, attempt, sent, intended)"
            " VALUES (?, ?, ?, 'intended', ?, ?, ?) ON CONFLICT (number) DO UPDATE SET"
            " state = 'intended', attempt = excluded.attempt, sent = excluded.sent,"
            " intended = excluded.intended, prediction = NULL, record = NULL, files = NULL",
            *(number, fingerprint.hash, fingerprint.text, attempt, sent, now),
        )
        self._query("DELETE FROM timeouts WHERE number = ?", number)
        self._query("DELETE FROM server_times WHERE number = ?", number)
        if server_time is not None:
            self._query("INSERT INTO server_times VALUES (?, ?)", number, server_time)

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

    def ended(self, number: int, record: str, timeout: float | None) -> None:
        if timeout is not None:
            self._query("INSERT OR REPLACE INTO timeouts VALUES (?, ?)", number, timeout)
        self._query(
            "UPDATE items SET state = 'ended', record = ?, files = NULL WHERE number = ?",
            record,
            number,
        )

    def saved(self, number: int, files: Mapping[str, int | None]) -> None:
        self._query(
            "UPDATE items SET state = 'saved', files = ? WHERE number = ?",
            json.dumps(dict(files)),
            number,
        )

    def owns(self, id: str) -> bool:
        return self._query("SELECT 1 FROM predictions WHERE id = ?", id).fetchone() is not None

    def uncertain(self) -> list[tuple[int, str, float]]:
        rows: list[tuple[int, str, float]] = []
        for number, sent, intended in self._rows(
            None,
            "SELECT number, sent, intended FROM items WHERE state = 'intended' ORDER BY number",
        ):
            try:
                rows.append((number, check_sent(sent), check_time(intended)))
            except ValueError as error:
                raise self._damaged(number, error) from None
        return rows

    def server_times(self) -> dict[int, float]:
        times: dict[int, float] = {}
        for number, seconds in self._rows(
            None,
            "SELECT number, seconds FROM server_times JOIN items USING (number) WHERE state = 'intended'",
        ):
            try:
                times[number] = check_time(seconds)
            except ValueError as error:
                raise self._damaged(number, error) from None
        return times

    def _rows(self, number: int | None, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        try:
            return self._query(statement, *values).fetchall()
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) is not None:
                raise
            raise self._damaged(number, error) from error  # a text is not UTF-8

    def _damaged(self, number: int | None, error: Exception) -> exceptions.JournalError:
        which = "a row" if number is None else f"the row of input {number}"
        fact = (
            f"{which} is damaged: {error}. Its prediction, if there is one, is in predictions.list()."
            " Use another journal, or delete the row to have the input run again"
        )
        return exceptions.JournalError("unreadable", str(self._path), fact)

    def _misfit(self, number: int | None, error: Exception) -> exceptions.JournalError:
        which = "a row" if number is None else f"the row of input {number}"
        return exceptions.JournalError(
            "failed", str(self._path), f"{which} cannot be written: {error}"
        )

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
            return exceptions.JournalError("unreadable", path, f"it is not a journal ({error})")
        reason = "there is not enough memory" if isinstance(error, MemoryError) else str(error)
        return exceptions.JournalError("failed", path, reason)


def _identity(path: Path) -> tuple[int, int, bool]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size > 0
