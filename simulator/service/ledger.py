"""Ledger of a service: every job, what became of it, and its answer. SQLite with a write-ahead log, one owner.

An answer is believed only with its own sha256; a job whose answer is damaged is worked out again.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from simulator.database import open_database, storage_error
from simulator.service.problems import Problem
from simulator.service.requests import Estimate, Kind, Request

Status = Literal["queued", "running", "done", "failed", "cancelled"]

FINISHED: Final = ("done", "failed", "cancelled")

FILE: Final = "ledger.sqlite"

_JOB: Final = (
    "number",
    "id",
    "kind",
    "label",
    "caller",
    "status",
    "attempts",
    "estimate",
    "problem",
    "submitted_s",
    "started_s",
    "finished_s",
    "body",
)
_ANSWER: Final = ("id", "answer", "sha256")
_SHOWN: Final = ", ".join(_JOB[:-1])

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    caller TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    estimate TEXT NOT NULL,
    problem TEXT,
    submitted_s REAL NOT NULL,
    started_s REAL,
    finished_s REAL,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS answers (id TEXT PRIMARY KEY, answer TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number);
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the ledger without its body."""

    number: int
    """Order of submission."""
    id: str
    kind: Kind
    label: str
    caller: str
    """Name of the token that asked first."""
    status: Status
    attempts: int
    estimate: Estimate
    problem: Problem | None
    submitted_s: float
    """Unix time, as the two below."""
    started_s: float | None
    finished_s: float | None


class Ledger:
    """What is known of each job; nothing is lost once a method has returned. Any thread may call."""

    def __init__(self, folder: Path) -> None:
        """Open or begin the ledger of a folder that this process has locked.

        Raises:
            OSError: The disk is full, or the folder cannot be written to.
        """
        self.path = folder / FILE
        self._lock = threading.RLock()
        self._database, self.set_aside = open_database(
            self.path, _SCHEMA, {"jobs": _JOB, "answers": _ANSWER}, check_same_thread=False
        )

    def add(self, request: Request, caller: str) -> None:
        """Queue a job behind all others; one of the same id, with its answer, is replaced."""
        estimate = request.estimate.model_dump_json()
        row = (request.id, request.kind, request.label, caller, estimate, time.time(), request.body)
        with self._change() as database:
            self._delete(database, request.id)
            database.execute(
                "INSERT INTO jobs (id, kind, label, caller, status, attempts, estimate, submitted_s, body) "
                "VALUES (?, ?, ?, ?, 'queued', 0, ?, ?, ?)",
                row,
            )

    def take(self) -> tuple[Job, str] | None:
        """Mark the first queued job as running and return it with its body; None if none waits."""
        with self._change() as database:
            found = database.execute(
                f"SELECT {_SHOWN}, body FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1"
            ).fetchone()
            if found is None:
                return None
            database.execute(
                "UPDATE jobs SET status = 'running', attempts = attempts + 1, started_s = ? WHERE number = ?",
                (time.time(), found[0]),
            )
        return _job(found[:-1]), found[-1]

    def finish(self, job_id: str, status: Status, *, answer: str | None = None, problem: Problem | None = None) -> None:
        """Write what became of a job; one that was deleted meanwhile stays deleted."""
        with self._change() as database:
            changed = database.execute(
                "UPDATE jobs SET status = ?, problem = ?, finished_s = ? WHERE id = ?",
                (status, None if problem is None else problem.model_dump_json(), time.time(), job_id),
            ).rowcount
            if changed and answer is not None:
                database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (job_id, answer, _sha256(answer)))

    def requeue(self, job_id: str, *, undo_attempt: bool = False) -> None:
        """Put a running job back to its place in the queue."""
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET status = 'queued', attempts = attempts - ? WHERE id = ? AND status = 'running'",
                (int(undo_attempt), job_id),
            )

    def delete(self, job_id: str) -> None:
        """Forget a job and its answer."""
        with self._change() as database:
            self._delete(database, job_id)

    def job(self, job_id: str, kind: Kind | None = None) -> Job | None:
        """Return a job; None if there is none of this id (and kind)."""
        with self._reading() as database:
            row = database.execute(f"SELECT {_SHOWN} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        found = None if row is None else _job(row)
        return None if found is None or kind not in (None, found.kind) else found

    def jobs(self, kind: Kind, status: Status | None, limit: int, before: int | None) -> list[Job]:
        """Return jobs, the newest first, from the one after `before` on."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT {_SHOWN} FROM jobs WHERE kind = ? AND (? IS NULL OR status = ?) AND number < ? "
                "ORDER BY number DESC LIMIT ?",
                (kind, status, status, 2**62 if before is None else before, limit),
            ).fetchall()
        return [_job(row) for row in rows]

    def answer(self, job_id: str) -> str | None:
        """Return the answer of a job; None if there is none, or it is not what was written."""
        with self._reading() as database:
            row = database.execute("SELECT answer, sha256 FROM answers WHERE id = ?", (job_id,)).fetchone()
        return row[0] if row is not None and _sha256(row[0]) == row[1] else None

    def count(self, status: Status, caller: str | None = None) -> int:
        """Return how many jobs, of a caller or of all, have a status."""
        with self._reading() as database:
            (number,) = database.execute(
                "SELECT count(*) FROM jobs WHERE status = ? AND (? IS NULL OR caller = ?)", (status, caller, caller)
            ).fetchone()
        return int(number)

    def running(self) -> list[Job]:
        """Return the jobs that are, or were when the service ended, being worked on."""
        with self._reading() as database:
            rows = database.execute(f"SELECT {_SHOWN} FROM jobs WHERE status = 'running'").fetchall()
        return [_job(row) for row in rows]

    def forget_oldest(self, kept: int) -> list[str]:
        """Delete the oldest finished jobs until only `kept` are left, and return their ids."""
        with self._change() as database:
            (number,) = database.execute("SELECT count(*) FROM jobs").fetchone()
            rows = database.execute(
                f"SELECT id FROM jobs WHERE status IN {FINISHED} ORDER BY number LIMIT ?", (max(0, number - kept),)
            ).fetchall()
            for (job_id,) in rows:
                self._delete(database, job_id)
        return [job_id for (job_id,) in rows]

    def check_writable(self) -> None:
        """Raise OSError if nothing can be written now."""
        with self._change() as database:
            database.execute("CREATE TABLE IF NOT EXISTS probe (at_s REAL)")
            database.execute("DELETE FROM probe")
            database.execute("INSERT INTO probe VALUES (?)", (time.time(),))

    def close(self) -> None:
        """Close the file; what was written stays."""
        with self._lock:
            self._database.close()

    def _delete(self, database: sqlite3.Connection, job_id: str) -> None:
        database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        database.execute("DELETE FROM answers WHERE id = ?", (job_id,))

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as database, database:
            yield database

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.DatabaseError as error:
                raise storage_error(error, self.path) or error from None


def _job(row: tuple[object, ...]) -> Job:
    content = dict(zip(_JOB, row, strict=False))
    content["estimate"] = Estimate.model_validate_json(str(content["estimate"]))
    problem = content["problem"]
    content["problem"] = None if problem is None else Problem.model_validate_json(str(problem))
    return Job(**content)  # type: ignore[arg-type]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
