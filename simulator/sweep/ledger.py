"""Ledger of a sweep: SQLite with a write-ahead log, one row per point under its content hash. One writer at a time.

A row is believed only with its own sha256: a damaged one is worked out again, a damaged file is put aside.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from simulator import database
from simulator.database import open_database, storage_error
from simulator.errors import SweepError
from simulator.sweep.results import Outcome

FILE: Final = "ledger.sqlite"

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
_COLUMNS: Final = ("key", "status", "result", "reason", "attempts", "sha256")


class Ledger:
    """What is known of each point; nothing is lost once `store` has returned."""

    def __init__(self, folder: Path) -> None:
        """Open or begin the ledger of a folder that this process has locked.

        Raises:
            OSError: The disk is full, or the folder cannot be written to.
        """
        self.path = folder / FILE
        self.num_damaged = 0
        """Rows whose content was not what was written."""
        self._database, self.set_aside = open_database(self.path, _SCHEMA, {"points": _COLUMNS})
        """`set_aside`: where a damaged ledger was put, if there was one."""

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
            raise storage_error(error, self.path) or error from None

    def close(self) -> None:
        """Close the file; what was stored stays."""
        self._database.close()


def locked(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder for one sweep while the block runs.

    Raises:
        SweepError: Another sweep has it, or it is a file.
        OSError: The folder cannot be made or written to.
    """
    return database.locked(folder, SweepError, "sweep", "choose another --out")


def _sha256(outcome: Outcome) -> str:
    parts = (outcome.key, outcome.status, outcome.result or "", outcome.reason or "", str(outcome.attempts))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
