"""Settings of a service: how much it takes, from whom, and how fast. Every limit of it stands here."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """What one service takes on; whatever is above is refused with the limit and the number."""

    body_bytes: int = 1_000_000
    """Of a job: a scenario is a short text."""
    upload_bytes: int = 16_000_000
    """Of a trace."""
    buffered_bytes: int = 64_000_000
    """Bodies that are being received, all together."""
    body_s: float = 20.0
    """A request that has not arrived in whole by then is refused."""
    head_s: float = 10.0
    """A connection that has not sent a request's head by then is closed."""
    connections: int = 256
    streams: int = 64
    """Streams of events open at a time."""
    queued: int = 100
    """Jobs that wait."""
    queued_per_token: int = 50
    """Of them, jobs that one token has submitted: nobody fills the queue alone."""
    kept: int = 2_000
    """Jobs in the ledger; the oldest finished ones make room."""
    requests_per_s: float = 20.0
    """Of one token (of one address, where a token is missing or wrong), on average."""
    burst: int = 200
    """Requests that may come at once."""
    sequences: int = 100_000_000
    """Simulated sequences of one job, all runs of it together."""
    points: int = 20_000
    """Of one sweep."""
    plans: int = 1_000
    """Of one search."""
    trace_bytes: int = 1_000_000_000
    """Uploaded traces, all together."""
    job_s: float = 3_600.0
    """A job that takes longer is ended."""
    worker_bytes: int = 8_000_000_000
    """A worker that holds more memory is ended."""
    attempts: int = 3
    """A job under which a worker or the service died so often is failed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One service."""

    folder: Path
    """Ledger, uploaded traces, sweeps."""
    num_workers: int = 2
    """Jobs at a time, each in a process of its own."""
    ray_address: str | None = None
    """Cluster on which sweeps run; None: processes of this machine."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """What a request's Host may be: a page that rebinds its name to this address is refused."""
    limits: Limits = field(default_factory=Limits)

    @property
    def trace_folder(self) -> Path:
        return self.folder / "traces"

    @property
    def sweep_folder(self) -> Path:
        return self.folder / "sweeps"
