"""Warnings of a run: what happened in it that its numbers alone do not say."""

from simulator.config import Scenario
from simulator.results import Results, mean
from simulator.workload import Workload

MAX_TRUNCATED_FRACTION = 0.2
"""Share of responses cut at the longest length above which the run warns."""

LIVELOCK_USEFUL_FRACTION, LIVELOCK_RESTARTS = 0.5, 10
"""Useful over generated tokens below, and restarts of one sample above, which a run counts as a live-lock."""


def workload_warnings(workload: Workload) -> list[str]:
    """Say when many responses are cut."""
    share = workload.truncated_fraction or 0.0
    if share <= MAX_TRUNCATED_FRACTION:
        return []
    return [
        f"workload.response_tokens: {100 * share:.0f} % of responses are cut at the longest length, above "
        f"{100 * MAX_TRUNCATED_FRACTION:.0f} %, so most groups wait for the cut and not for their own tail; compare it "
        "with the share that the run itself cuts, or raise the longest length"
    ]


def run_warnings(scenario: Scenario, results: Results) -> list[str]:
    """Say what a reader must know before believing the numbers."""
    warnings = []
    if scenario.run.replications == 1:
        warnings.append("run.replications: one replication gives no interval; raise run.replications")
    if not any(scenario.uncertainty.model_dump().values()):
        warnings.append(
            "uncertainty: none stated, so intervals show only how much runs differ, not how wrong the inputs may be"
        )
    late = results.per_arm(lambda outcome: float(outcome.staleness[scenario.max_staleness + 1 :].sum()))
    if max(late.values()) > 0.001:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in late.items())
        warnings.append(
            f"policy: groups trained on at a staleness above {scenario.max_staleness}: {shares}; admission "
            "bounds what starts, stragglers finish later"
        )
    warnings += _livelock_warnings(results)
    dropped = results.per_arm(lambda outcome: outcome.num_dropped)
    if max(dropped.values()) > 0:
        warnings.append(
            f"policy: finished groups dropped per run, older than {scenario.max_staleness} when fetched: "
            f"{_counts(dropped)}; their tokens are counted as wasted"
        )
    preempted = results.per_arm(lambda outcome: outcome.preemptions)
    if max(preempted.values()) > 0:
        warnings.append(
            f"engine: the KV cache overflows; preemptions per run, each prefilled again: {_counts(preempted)}; lower "
            "engine.max_running_seqs or add GPUs"
        )
    return warnings


def _livelock_warnings(results: Results) -> list[str]:
    """Say which arms begin the same sequences again and again, and how much of their tokens is of use."""
    stuck = {}
    for name, outcomes in results.outcomes.items():
        useful = 1.0 - mean(outcome.lost.restarted_tokens_fraction for outcome in outcomes)
        most = max(outcome.lost.max_restarts for outcome in outcomes)
        if useful < LIVELOCK_USEFUL_FRACTION or most > LIVELOCK_RESTARTS:
            stuck[name] = f"{name} {100 * useful:.0f} % of tokens useful, one sample restarted {most} times"
    if not stuck:
        return []
    return [
        f"policy: live-lock: {'; '.join(stuck.values())}; sync less often (policy.fetches_per_sync) or resume "
        '(policy.in_flight = "abort_resume")'
    ]


def _counts(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {count:.0f}" for name, count in numbers.items())
