"""Uploads: traces that clients bring. Nothing a client sends is stored: it is read in a process of its own, which a
hostile file may take down, checked in full, and written anew under its content hash. The name it had does not count.
"""

import contextlib
import multiprocessing
import resource
import secrets
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from simulator.service.problems import RefusalError
from simulator.service.requests import UPLOAD_NAME
from simulator.service.settings import Settings
from traces.errors import TraceError
from traces.store import list_traces, load_trace, save_trace

CHECK_S: Final = 60.0
"""A file that takes longer to read is refused."""
CHECK_BYTES: Final = 6_000_000_000
"""Address space of the process that reads it; a Parquet file may unfold into that at most."""
AT_A_TIME: Final = 2

_KIND_FILE: Final = ".kind"


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """A trace that scenarios may name."""

    name: str
    """As a scenario names it."""
    kind: str
    is_uploaded: bool
    title: str
    """The name that its maker gave it."""


class Uploads:
    """The folder of uploaded traces. Any thread may call."""

    def __init__(self, settings: Settings) -> None:
        self._folder, self._limits = settings.trace_folder, settings.limits
        self._slots = threading.BoundedSemaphore(AT_A_TIME)
        self._incoming = settings.folder / "incoming"
        for folder in (self._folder, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():
            left.unlink()

    def add(self, data: bytes, suffix: str) -> tuple[StoredTrace, bool]:
        """Check and keep a trace; return it, and whether it is new.

        Raises:
            RefusalError: No trace (422), too many at a time (429), no room for another one (507).
            OSError: The disk is full.
        """
        held = sum(path.stat().st_size for path in self._folder.iterdir())
        if held + len(data) > self._limits.trace_bytes:
            raise RefusalError(
                507,
                "no-room",
                f"uploaded traces take {held} bytes, with this one more than the limit; delete some",
                limit=self._limits.trace_bytes,
                value=held + len(data),
            )
        if not self._slots.acquire(timeout=CHECK_S):
            raise RefusalError(429, "busy", "other uploads are being checked; try again", headers={"Retry-After": "10"})
        path = self._incoming / f"{secrets.token_hex(16)}{suffix}"
        try:
            path.write_bytes(data)
            name, title, kind, is_new = self._check(path)
        finally:
            path.unlink(missing_ok=True)
            self._slots.release()
        return StoredTrace(name, kind, is_uploaded=True, title=title), is_new

    def all(self) -> list[StoredTrace]:
        """Return shipped and uploaded traces, by kind and name."""
        found = [StoredTrace(entry.name, entry.kind, False, entry.name) for entry in list_traces()]
        for path in self._folder.glob(f"*{_KIND_FILE}"):
            name = path.name.removesuffix(_KIND_FILE)
            kind, _, title = path.read_text().partition(" ")
            if (self._folder / name).is_file():
                found.append(StoredTrace(name, kind, True, title))
        return sorted(found, key=lambda trace: (trace.kind, trace.is_uploaded, trace.name))

    def delete(self, name: str) -> bool:
        """Forget an uploaded trace; False if there is none of this name."""
        if not UPLOAD_NAME.fullmatch(name) or not (self._folder / name).is_file():
            return False
        (self._folder / name).unlink()
        (self._folder / f"{name}{_KIND_FILE}").unlink(missing_ok=True)
        return True

    def _check(self, path: Path) -> tuple[str, str, str, bool]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_keep, args=(theirs, path, self._folder), daemon=True)
        process.start()
        theirs.close()
        found: tuple[str, str, str, bool] | TraceError | OSError | None = None
        with contextlib.suppress(EOFError):
            found = ours.recv() if ours.poll(CHECK_S) else None
        process.kill()
        process.join()
        ours.close()
        if isinstance(found, TraceError):
            raise RefusalError(422, "not-a-trace", str(found).replace(str(path), "upload"))
        if isinstance(found, OSError):
            raise found
        if found is None:
            said = "upload: took down, or held up, the process that read it; make the file again with save_trace"
            raise RefusalError(422, "not-a-trace", said)
        return found


def _keep(connection: Connection, path: Path, folder: Path) -> None:
    """Read a file and write what it holds into the folder, in a process that may die of it."""
    resource.setrlimit(resource.RLIMIT_AS, (CHECK_BYTES, CHECK_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        trace = load_trace(path)
        stem, kind = trace.content_hash(), str(type(trace).model_fields["kind"].default)
        for known in (folder / f"{stem}.json", folder / f"{stem}.parquet"):
            if known.is_file():
                connection.send((known.name, trace.name, kind, False))
                return
        target = folder / f"{stem}.json"
        try:
            save_trace(trace, target)
        except TraceError:  # too long for JSON
            target = folder / f"{stem}.parquet"
            save_trace(trace, target)
        (folder / f"{target.name}{_KIND_FILE}").write_text(f"{kind} {trace.name}")
        connection.send((target.name, trace.name, kind, True))
    except (TraceError, OSError) as error:
        connection.send(error)
    except MemoryError:
        connection.send(TraceError("upload: unfolds into more memory than there is for it; split the trace"))
