"""Databases: a SQLite file with a write-ahead log that is set aside when it is damaged, in a folder with one owner.

Does not know what is kept in it.
"""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from simulator.errors import SimulatorError

_LOCK: Final = "lock"


def open_database(
    path: Path, schema: str, columns: Mapping[str, Sequence[str]], *, check_same_thread: bool = True
) -> tuple[sqlite3.Connection, Path | None]:
    """Open or begin a database; return it, and where a damaged one was put, if this was one.

    Args:
        path: The file, in a folder that this process has locked.
        schema: Statements that make the tables where they are not there.
        columns: Table -> its columns; a file with others counts as damaged.
        check_same_thread: False: the caller sees to it that one thread uses it at a time.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    try:
        return _open(path, schema, columns, check_same_thread), None
    except sqlite3.DatabaseError as error:
        if (found := storage_error(error, path)) is not None:
            raise found from None
        set_aside = _put_aside(path)
        return _open(path, schema, columns, check_same_thread), set_aside


@contextmanager
def locked(folder: Path, complaint: type[SimulatorError], work: str, next_step: str) -> Iterator[None]:
    """Hold a folder while the block runs; the lock goes with the process, however it ends.

    Args:
        folder: Made if it is not there.
        complaint: What to raise.
        work: Who holds it, in a word: "sweep".
        next_step: What else to do: "choose another --out".

    Raises:
        SimulatorError: Another process has it, or it is a file; of the class `complaint`.
        OSError: The folder cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise complaint(f"{folder}: is a file, not a folder; {next_step}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise complaint(
                f"{folder}: another {work} is at work there (process {_owner(file)}); wait for it, or {next_step}"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def storage_error(error: sqlite3.Error, path: Path) -> OSError | None:
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


def _open(path: Path, schema: str, columns: Mapping[str, Sequence[str]], check_same_thread: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10.0, check_same_thread=check_same_thread)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        database.executescript(schema)
        for table, wanted in columns.items():
            found = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            if found != list(wanted):
                raise sqlite3.DatabaseError(f"{table} has other columns: {found}")
    except BaseException:
        database.close()
        raise
    return database


def _owner(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "unknown"


def _put_aside(path: Path) -> Path:
    """Rename a damaged file, its log included, to the first free name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm"):
        side_file = path.with_name(path.name + suffix)
        if side_file.exists():
            side_file.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside
