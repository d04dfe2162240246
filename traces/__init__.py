"""The contract: every file format that the profiler, the simulator and the dashboard share."""

from traces.acceptance import AcceptanceLaw, AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import SCHEMA_VERSION, Origin, Provenance, Trace
from traces.errors import TraceError, TraceFormatError, TraceIntegrityError
from traces.latency import LatencyRow, LatencyTrace, Operation
from traces.measured import MeasuredRun, MeasuredStep
from traces.report import RunReport
from traces.store import CatalogueEntry, find_trace, list_traces, load_trace, save_trace
from traces.workload import EntropyPoint, SequenceRow, Turn, WorkloadTrace

__all__ = [
    "SCHEMA_VERSION",
    "AcceptanceLaw",
    "AcceptanceRow",
    "AcceptanceTrace",
    "CatalogueEntry",
    "EntropyPoint",
    "LatencyRow",
    "LatencyTrace",
    "MeasuredRun",
    "MeasuredStep",
    "Operation",
    "Origin",
    "Provenance",
    "RunReport",
    "SequenceRow",
    "Trace",
    "TraceError",
    "TraceFormatError",
    "TraceIntegrityError",
    "Turn",
    "VerifyRule",
    "WorkloadTrace",
    "find_trace",
    "list_traces",
    "load_trace",
    "save_trace",
]
