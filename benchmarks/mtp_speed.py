"""How fast verification and the end-to-end TV loss are, against the least that they could take.

`python benchmarks/mtp_speed.py` on the CPU, on one thread; `--json` prints one JSON object. Verification of B = 64,
k = 3, V = 151,936 against reading its probabilities twice; the loss, forward and backward, against a cross-entropy that
is fused in the same way (its gradient made on the way, rows at a time). Seconds are of processor time,
and rounds take turns, so that a busy machine slows all alike; a ratio is that of medians.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from profiler.mtp.chunked import chunked_divergences
from profiler.mtp.fused import VALUES_AT_ONCE, fused_divergences
from profiler.mtp.losses import LOSSES, READS
from profiler.mtp.rejection import VERIFIERS

BATCH, NUM_DRAFTS, VOCAB = 64, 3, 151_936
POSITIONS, STEPS, HIDDEN = 64, 5, 1024
"""Of the losses: as many chains, unrolled so often, on a small model's hidden size."""


def verification() -> dict[str, Callable[[], object]]:
    """Return what is timed: verify rules, and reading what they read."""
    target = torch.empty(BATCH, NUM_DRAFTS + 1, VOCAB).exponential_()
    proposal = torch.empty(BATCH, NUM_DRAFTS, VOCAB).exponential_()
    target, proposal = (x.div_(x.sum(-1, keepdim=True)) for x in (target, proposal))
    drafts = torch.randint(VOCAB, (BATCH, NUM_DRAFTS))
    parts: dict[str, Callable[[], object]] = {
        "read twice": lambda: [x.sum() for x in (target, proposal, target, proposal)]
    }
    for name, rule in VERIFIERS.items():
        parts[name] = lambda rule=rule: rule(target, drafts, proposal)
    return parts


def losses() -> dict[str, Callable[[], object]]:
    """Return what is timed, forward and backward: a fused cross-entropy, losses that are fused in the same way, and
    end-to-end TV as it is made where the lm_head is trained too.
    """
    head, target = torch.randn(VOCAB, HIDDEN) * HIDDEN**-0.5, torch.randn(POSITIONS, STEPS, HIDDEN)
    draft = (target + 0.3 * torch.randn_like(target)).requires_grad_()
    labels = torch.randint(VOCAB, (POSITIONS, STEPS))

    def fused(name: str) -> None:
        LOSSES[name](fused_divergences(target, draft, head, labels, READS[name]), None).backward()

    def in_pieces() -> None:
        LOSSES["e2e_tv"](chunked_divergences(target, draft, head, labels), None).backward()

    return {
        "fused cross-entropy": lambda: _fused_cross_entropy(draft, head, labels),
        **{
            f"{name}, fused": lambda name=name: fused(name)
            for name in ("ce", "kl", "reverse_kl", "e2e_tv", "lk_hybrid")
        },
        "e2e_tv, pieces of the vocabulary": in_pieces,
    }


def _fused_cross_entropy(draft: Tensor, head_VH: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the mean cross-entropy, with as many rows at once as `fused_divergences` takes."""
    rows, found = VALUES_AT_ONCE // head_VH.shape[0], []
    flat, labels_N = draft.detach().reshape(-1, HIDDEN), labels.reshape(-1)
    for part, label in zip(flat.split(rows), labels_N.split(rows), strict=True):
        logits = part @ head_VH.T
        logits.sub_(logits.amax(-1, keepdim=True)).exp_()
        logits.div_(logits.sum(-1, keepdim=True))
        logits[torch.arange(len(label)), label] -= 1.0
        found.append(logits @ head_VH)
    return torch.cat(found).div_(len(labels_N))


def timed(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median processor time of each part, s; parts take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, part in parts.items():
            began = time.process_time()
            part()
            if turn > 0:
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> None:
    """Time both groups and print each part beside the first of its group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds of verification (default 9)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report: dict[str, Any] = {"load": os.getloadavg()[0]}
    for group, rounds in ((verification(), arguments.rounds), (losses(), max(1, arguments.rounds // 3))):
        seconds = timed(group, rounds)
        least = next(iter(seconds.values()))
        report |= {name: {"s": round(value, 4), "ratio": round(value / least, 2)} for name, value in seconds.items()}
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"load {report.pop('load'):.1f}")
    for name, row in report.items():
        print(f"{name:34} {1e3 * row['s']:9.1f} ms  {row['ratio']:5.2f}")


if __name__ == "__main__":
    main()
