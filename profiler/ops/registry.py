"""Which function prepares which operation."""

from profiler.ops.bench import Prepare
from profiler.ops.forward import decode, draft, lm_head, prefill, verify
from profiler.ops.sample import sample
from profiler.ops.training import train_step
from profiler.ops.transfer import weight_sync
from traces.latency import Operation

PREPARE: dict[Operation, Prepare] = {
    Operation.PREFILL: prefill,
    Operation.DECODE: decode,
    Operation.VERIFY: verify,
    Operation.DRAFT: draft,
    Operation.LM_HEAD: lm_head,
    Operation.SAMPLE: sample,
    Operation.TRAIN_STEP: train_step,
    Operation.WEIGHT_SYNC: weight_sync,
}
"""HOST_GAP is not prepared: it is a by-product of timing the others on a GPU."""
UNGRAPHED = frozenset({Operation.TRAIN_STEP, Operation.WEIGHT_SYNC})
"""Run as they stand: trainers do not replay graphs."""
