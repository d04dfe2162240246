"""Ledger of a sweep: SQLite with a write-ahead log, one row per point under its content hash. One writer at a time.

A row is believed only with its own sha256: a damaged one is worked out again, a damaged file is put aside.
"""

import errno
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from simulator.errors import SweepError
from simulator.sweep.results import Outcome

FILE: Final = "ledger.sqlite"
_LOCK: Final = "lock"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS points (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    result TEXT,
    reason TEXT,
    attempts INTEGER NOT NULL,
    sha256 TEXT NOT NULL
) WITHOUT ROWID
"""


class Ledger:
    """What is known of each point; nothing is lost once `store` has returned."""

    def __init__(self, folder: Path) -> None:
        """Open or begin the ledger of a folder that this process has locked.

        Raises:
            OSError: The disk is full, or the folder cannot be written to.
        """
        self.path = folder / FILE
        self.set_aside: Path | None = None
        """Where a damaged ledger was put."""
        self.num_damaged = 0
        """Rows whose content was not what was written."""
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            if _storage_error(error, self.path) is not None:
                raise _storage_error(error, self.path) or error from None
            self.set_aside = _put_aside(self.path)
            self._database = self._open()

    def known(self) -> dict[str, Outcome]:
        """Return every point that can be believed, by key."""
        found: dict[str, Outcome] = {}
        rows = self._database.execute("SELECT key, status, result, reason, attempts, sha256 FROM points")
        for key, status, result, reason, attempts, sha256 in rows:
            outcome = Outcome(key, status, result, reason, attempts)
            if status in ("done", "failed") and _sha256(outcome) == sha256:
                found[key] = outcome
            else:
                self.num_damaged += 1
        return found

    def store(self, outcomes: Iterable[Outcome]) -> None:
        """Write what became of some points; all of them or none.

        Raises:
            OSError: The disk is full or not writable.
        """
        rows = [(o.key, o.status, o.result, o.reason, o.attempts, _sha256(o)) for o in outcomes]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise _storage_error(error, self.path) or error from None

    def close(self) -> None:
        """Close the file; what was stored stays."""
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=10.0)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state)
            database.execute(_SCHEMA)
            columns = [row[1] for row in database.execute("PRAGMA table_info(points)")]
            if columns != ["key", "status", "result", "reason", "attempts", "sha256"]:
                raise sqlite3.DatabaseError(f"other columns: {columns}")
        except BaseException:
            database.close()
            raise
        return database


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one sweep while the block runs; the lock goes with the process, however it ends.

    Raises:
        SweepError: Another sweep has it, or it is a file.
        OSError: The folder cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise SweepError(f"{folder}: is a file, not a folder; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as file:
        _take(file, folder)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _take(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise SweepError(
            f"{folder}: another sweep is at work there (process {owner}); wait for it, or choose another --out"
        ) from None


def _put_aside(path: Path) -> Path:
    """Rename a damaged ledger, its log included, to the first free name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm"):
        side_file = path.with_name(path.name + suffix)
        if side_file.exists():
            side_file.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside


def _sha256(outcome: Outcome) -> str:
    parts = (outcome.key, outcome.status, outcome.result or "", outcome.reason or "", str(outcome.attempts))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _storage_error(error: sqlite3.Error, path: Path) -> OSError | None:
    """Return what the command says of a disk, where that is what SQLite complains of."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    known = {
        sqlite3.SQLITE_FULL: errno.ENOSPC,
        sqlite3.SQLITE_IOERR: errno.EIO,
        sqlite3.SQLITE_READONLY: errno.EROFS,
        sqlite3.SQLITE_CANTOPEN: errno.EACCES,
        sqlite3.SQLITE_PERM: errno.EACCES,
    }
    return OSError(known[code], os.strerror(known[code]), str(path)) if code in known else None
