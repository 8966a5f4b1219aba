"""The controller's records in `controller.d/controller.sqlite3`, one generic table of (table, key, JSON text).

A commit that returned survives a crash of the machine: configurations are handed out on the strength of it (vl2 §7, architecture).
Directory 0700, file 0600: records hold join tokens. Blocking; one caller at a time, from any thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from netcon.controller.errors import CorruptStore, StoreFailed

FILE_NAME = "controller.sqlite3"
SCHEMA_VERSION = 1
#: Marks the file as ours in its header ("ncCT").
APPLICATION_ID = 0x6E634354
BUSY_SECONDS = 5.0
CREATE_TABLE = """CREATE TABLE records (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key))
    WITHOUT ROWID"""


class SqliteStore:
    def __init__(self, directory: Path) -> None:
        """Open or create the store in `directory`. CorruptStore names the file; StoreFailed if it cannot be made."""
        self.path = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self.path.chmod(0o600)
            _sync(directory)
        except OSError as problem:
            raise StoreFailed(f"cannot create {self.path}: {problem.strerror}; is the home folder writable?") from problem
        # Transactions are begun and ended here, not by the module.
        self._connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except sqlite3.OperationalError as problem:
            self._connection.close()
            raise StoreFailed(f"cannot open {self.path}: {problem}; does another service use this home folder?") from problem
        except sqlite3.DatabaseError as problem:
            self._connection.close()
            raise self._corrupt(str(problem)) from problem
        except CorruptStore:
            self._connection.close()
            raise

    def _open(self) -> None:
        run = self._connection.execute
        (problem,) = run("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise self._corrupt(problem)
        (application,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0 and application == 0:
            run("BEGIN IMMEDIATE")
            run(CREATE_TABLE)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")
            run("COMMIT")
        elif application != APPLICATION_ID:
            raise self._corrupt("it is a database of another program")
        elif version != SCHEMA_VERSION:
            raise CorruptStore(
                f"{self.path} has schema version {version}, this program knows version {SCHEMA_VERSION}; "
                "run the version of netcon that wrote it, or move the file away to start with no networks"
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")  # with a write-ahead log: durable when COMMIT returns

    def _corrupt(self, problem: str) -> CorruptStore:
        return CorruptStore(
            f"{self.path} is corrupt ({problem}); restore it from a backup, or move it away to start with no networks"
        )

    def load(self) -> list[tuple[str, str, str]]:
        """All records as (table, key, JSON text)."""
        try:
            return self._connection.execute("SELECT kind, key, value FROM records ORDER BY kind, key").fetchall()
        except sqlite3.DatabaseError as problem:
            raise self._corrupt(str(problem)) from problem

    def commit(self, changes: Sequence[tuple[str, str, str | None]]) -> None:
        """Apply (table, key, JSON text or None to delete) in one transaction, durably. StoreFailed: nothing was kept."""
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            for table, key, text in changes:
                if text is None:
                    run("DELETE FROM records WHERE kind = ? AND key = ?", (table, key))
                else:
                    run("INSERT OR REPLACE INTO records (kind, key, value) VALUES (?, ?, ?)", (table, key, text))
            run("COMMIT")
        except sqlite3.Error as problem:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise StoreFailed(f"cannot write {self.path}: {problem}; is the disk full or read-only?") from problem

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _sync(directory: Path) -> None:
    """Make a file's existence durable; SQLite cares for its content and its logs."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
