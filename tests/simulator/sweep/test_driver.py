"""The same results whoever runs the points and whatever happens on the way."""

import errno
import hashlib
import json
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from simulator.errors import ScenarioError, SweepError
from simulator.run import simulate
from simulator.scenario_file import parse_scenario
from simulator.sweep import LocalExecutor, Sweep, parse_design, run_sweep
from simulator.sweep.executor import Broken, Event, Returned
from simulator.sweep.ledger import FILE, locked
from simulator.sweep.point import Base, evaluate, task_text
from tests.simulator import made_up
from tests.simulator.sweep import tasks
from tests.simulator.sweep.in_process import InProcess
from traces.store import save_trace

SEEDS = ["run.seed=0..11"]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    save_trace(made_up.trace(), tmp_path / "trace.json")
    return Base(made_up.SCENARIO.format(trace=str(tmp_path / "trace.json")), "made-up.toml")


def swept(base: Base, folder: Path, executor: Any = None, grid: Sequence[str] = SEEDS, **options: Any) -> Sweep:
    return run_sweep(base, parse_design(grid), executor or InProcess(), folder, **options)


def results_of(folder: Path) -> str:
    return hashlib.sha256((folder / "results.parquet").read_bytes()).hexdigest()


# ---------------------------------------------------------------- the same bytes


def test_the_order_of_the_answers_does_not_matter(base: Base, tmp_path: Path) -> None:
    orders = (lambda n: 0, lambda n: n - 1, lambda n: n // 2)
    sweeps = [swept(base, tmp_path / str(i), InProcess(pick=pick)) for i, pick in enumerate(orders)]
    assert len({sweep.digest for sweep in sweeps}) == 1
    assert len({results_of(tmp_path / str(i)) for i in range(3)}) == 1
    assert swept(base, tmp_path / "echo", InProcess(echo=True)).digest == sweeps[0].digest


def test_one_worker_and_three_give_the_same_bytes(base: Base, tmp_path: Path) -> None:
    grid = ["speculation.k=0..3", "engine.max_running_seqs=4,8"]
    sweeps = [swept(base, tmp_path / str(n), LocalExecutor(n), grid) for n in (1, 3)]
    assert sweeps[0].digest == sweeps[1].digest
    assert sweeps[0].num_failed == 0
    assert results_of(tmp_path / "1") == results_of(tmp_path / "3")
    table = pq.read_table(tmp_path / "1" / "results.parquet")
    rows = table.to_pylist()
    assert [(row["point"], row["arm"]) for row in rows] == [(i, arm) for i in range(8) for arm in ("baseline", "spec")]
    assert {row["k"] for row in rows if row["arm"] == "spec"} == {0, 1, 2, 3}
    assert all(row["end_to_end_speedup"] == 1 for row in rows if row["k"] == 0)


def test_a_point_has_the_numbers_of_the_report(base: Base) -> None:
    changes = ["run.replications=3", "uncertainty.latency=0.1", "engine.max_running_seqs=8"]
    report = simulate(parse_scenario(base.text, base.name, changes))
    for _ in range(2):  # the second time from what is remembered
        numbers = json.loads(evaluate(task_text(base, changes)))
        for name, arm in (("baseline", report.baseline), *report.arms.items()):
            mine = numbers[name]
            whole = arm.end_to_end_speedup
            assert (mine["end_to_end_speedup"], mine["end_to_end_low"], mine["end_to_end_high"]) == (
                whole.mean,
                whole.low,
                whole.high,
            )
            for quantity in ("step_s", "rollout_s", "train_s", "accept_length", "tokens_per_s_per_gpu", "gpu_hours"):
                assert mine[quantity] == getattr(arm, quantity)


def test_what_is_remembered_of_an_arm_is_what_it_would_do(base: Base) -> None:
    texts = [task_text(base, [f"arms.spec.k={k}", f"engine.max_running_seqs={n}"]) for k in (0, 2, 3) for n in (4, 8)]
    assert [evaluate(text) for text in texts] == [evaluate(text) for text in reversed(texts)][::-1]


def test_equal_points_are_run_once(base: Base, tmp_path: Path) -> None:
    executor = InProcess()
    sweep = swept(base, tmp_path / "out", executor, ["arms.spec.k=1,2", "arms.*.k=3,2"])
    assert (len(sweep.outcomes), executor.ran) == (4, 2)


# ---------------------------------------------------------------- again and again


def test_a_finished_sweep_is_not_run_again(base: Base, tmp_path: Path) -> None:
    first = swept(base, tmp_path / "out")
    with pytest.raises(SweepError, match=r"holds a sweep already; --resume goes on with it"):
        swept(base, tmp_path / "out")
    executor = InProcess()
    again = swept(base, tmp_path / "out", executor, resume=True)
    assert (again.digest, again.num_reused, executor.ran) == (first.digest, 12, 0)


def test_more_points_run_only_what_is_new(base: Base, tmp_path: Path) -> None:
    swept(base, tmp_path / "out", grid=["run.seed=0..5"])
    executor = InProcess()
    wider = swept(base, tmp_path / "out", executor, resume=True)
    assert (wider.num_reused, executor.ran) == (6, 6)
    assert wider.digest == swept(base, tmp_path / "whole").digest


def test_another_trace_is_another_point(base: Base, tmp_path: Path) -> None:
    keys = {outcome.key for outcome in swept(base, tmp_path / "a").outcomes}
    save_trace(made_up.trace(made_up.rows(made_up.constant)), tmp_path / "other.json")
    other = Base(base.text.replace("trace.json", "other.json"), base.name)
    assert not keys & {outcome.key for outcome in swept(other, tmp_path / "b").outcomes}


def test_an_interrupted_sweep_loses_nothing(base: Base, tmp_path: Path) -> None:
    class Stops(InProcess):
        def wait(self, timeout_s: float) -> list[Event]:
            if self.ran >= 5:
                raise KeyboardInterrupt
            return super().wait(timeout_s)

    with pytest.raises(KeyboardInterrupt):
        swept(base, tmp_path / "out", Stops())
    executor = InProcess()
    resumed = swept(base, tmp_path / "out", executor, resume=True)
    assert resumed.num_reused >= 5
    assert resumed.num_reused + executor.ran == 12
    assert resumed.digest == swept(base, tmp_path / "whole").digest


# ---------------------------------------------------------------- workers that fail


def test_poison_fails_alone_and_says_why(base: Base, tmp_path: Path) -> None:
    sweep = swept(base, tmp_path / "out", LocalExecutor(2, function=tasks.poison))
    failed = {index: outcome for index, outcome in enumerate(sweep.outcomes) if outcome.status == "failed"}
    assert {index: (outcome.reason, outcome.attempts) for index, outcome in failed.items()} == {
        3: ("its worker ended with exit code 9", 2),
        5: ("run.seed: 5 is not welcome; take another", 1),
        7: ("ZeroDivisionError: seven", 2),
    }
    again = swept(base, tmp_path / "out", resume=True)  # failed points are tried again
    assert (again.num_failed, again.num_reused) == (0, 9)
    assert again.digest == swept(base, tmp_path / "whole").digest


def test_a_killed_worker_costs_a_try_and_no_result(base: Base, tmp_path: Path) -> None:
    fragile = Base(base.text, str(tmp_path / "mark"))
    sweep = swept(fragile, tmp_path / "out", LocalExecutor(2, function=tasks.killed_once))
    assert (tmp_path / "mark").exists()
    assert sweep.num_failed == 0
    assert sweep.outcomes[4].attempts == 2
    assert sweep.digest == swept(fragile, tmp_path / "calm").digest


def test_a_hung_point_fails_after_its_time(base: Base, tmp_path: Path) -> None:
    sweep = swept(base, tmp_path / "out", LocalExecutor(2, function=tasks.hung, timeout_s=3.0))
    assert [index for index, outcome in enumerate(sweep.outcomes) if outcome.status == "failed"] == [3]
    assert sweep.outcomes[3].reason == "no answer within 3 s; raise --timeout if it needs longer"


def test_a_point_that_asks_for_too_much_memory_fails_alone(base: Base, tmp_path: Path) -> None:
    sweep = swept(base, tmp_path / "out", LocalExecutor(2, function=tasks.hungry))
    failed = {index: outcome for index, outcome in enumerate(sweep.outcomes) if outcome.status == "failed"}
    assert {index: outcome.attempts for index, outcome in failed.items()} == {3: 2}
    assert str(failed[3].reason).startswith("out of memory")


def test_a_point_that_holds_too_much_memory_is_ended(base: Base, tmp_path: Path) -> None:
    limit = 800_000_000  # a worker with its kernels holds 200 MB
    executor = LocalExecutor(2, function=tasks.swollen, memory_bytes=limit)
    sweep = swept(base, tmp_path / "out", executor)
    failed = {index: outcome for index, outcome in enumerate(sweep.outcomes) if outcome.status == "failed"}
    assert {index: outcome.attempts for index, outcome in failed.items()} == {3: 1}
    assert re.fullmatch(
        rf"out of memory: its worker held \d+ bytes, the limit is {limit}; raise --memory", str(failed[3].reason)
    )


def test_a_lost_batch_is_tried_point_by_point(base: Base, tmp_path: Path) -> None:
    class Loses(InProcess):
        def wait(self, timeout_s: float) -> list[Event]:
            batch = self._batches.pop()
            if len(batch) > 1:
                return [Returned(index, alone=True) for index, _ in batch]
            self._batches.append(batch)
            if '"run\\".\\"seed\\"=3' in batch[0][1]:
                self._batches.pop()
                return [Broken(batch[0][0], "lost")]
            return super().wait(timeout_s)

    sweep = swept(base, tmp_path / "out", Loses(pick=lambda n: n - 1))
    assert [outcome.reason for outcome in sweep.outcomes if outcome.status == "failed"] == ["lost"]
    assert len([outcome for outcome in sweep.outcomes if outcome.status == "done"]) == 11


# ---------------------------------------------------------------- scenarios that fail


def test_points_that_are_no_scenario_fail_with_their_complaint(base: Base, tmp_path: Path) -> None:
    sweep = swept(base, tmp_path / "out", grid=["engine.max_running_seqs=0,4"])
    assert [outcome.status for outcome in sweep.outcomes] == ["failed", "done"]
    assert "engine.max_running_seqs: 0 is not" in str(sweep.outcomes[0].reason)
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [(row["status"], row["arm"]) for row in rows] == [("failed", None), ("done", "spec")]


@pytest.mark.parametrize("grid", [["engine.max_runing_seqs=1,2"], ["arms.other.k=1..3"]])
def test_a_sweep_of_a_field_that_is_not_there_is_refused(base: Base, tmp_path: Path, grid: list[str]) -> None:
    with pytest.raises(ScenarioError, match=r"none of . points can be run: made-up.toml: "):
        swept(base, tmp_path / "out", grid=grid)


def test_arms_can_be_left_out(base: Base, tmp_path: Path) -> None:
    two = Base(base.text + '\n[arms.more]\nk = 1\nacceptance = { kind = "fixed", cumulative = [0.5] }\n', base.name)
    one = Base(two.text, two.name, arms=("spec",))
    changes = ["engine.max_running_seqs=8"]
    both, alone = (json.loads(evaluate(task_text(each, changes))) for each in (two, one))
    assert list(alone) == ["baseline", "spec"]
    assert alone["spec"] == both["spec"]
    with pytest.raises(ScenarioError, match=r"--arm mtp: made-up.toml has no such arm; it has spec, more"):
        swept(Base(two.text, two.name, arms=("mtp",)), tmp_path / "out")


# ---------------------------------------------------------------- the store


def test_two_sweeps_do_not_share_a_folder(base: Base, tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(SweepError, match=r"another sweep is at work there \(process \d+\)"):
        swept(base, tmp_path / "out")
    swept(base, tmp_path / "out")


def test_a_changed_row_is_not_believed(base: Base, tmp_path: Path) -> None:
    whole = swept(base, tmp_path / "out")
    database = sqlite3.connect(tmp_path / "out" / FILE)
    with database:
        database.execute("UPDATE points SET result = '{}' WHERE key = ?", (whole.outcomes[2].key,))
        database.execute("UPDATE points SET status = 'odd' WHERE key = ?", (whole.outcomes[3].key,))
    database.close()
    executor = InProcess()
    again = swept(base, tmp_path / "out", executor, resume=True)
    assert (executor.ran, again.digest) == (2, whole.digest)
    assert again.notes == ("2 results in the ledger were damaged and are worked out again",)


@pytest.mark.parametrize(
    "damage", [b"no database at all" * 300, b"SQLite format 3\x00" + b"\xff" * 5000, b"\x00" * 4096]
)
def test_a_damaged_ledger_is_put_aside(base: Base, tmp_path: Path, damage: bytes) -> None:
    whole = swept(base, tmp_path / "out")
    (tmp_path / "out" / FILE).write_bytes(damage)
    again = swept(base, tmp_path / "out", resume=True)
    assert again.digest == whole.digest
    assert "ledger.sqlite.damaged-1" in again.notes[0]
    assert (tmp_path / "out" / f"{FILE}.damaged-1").read_bytes() == damage


def test_a_cut_ledger_never_gives_a_wrong_number(base: Base, tmp_path: Path) -> None:
    whole = swept(base, tmp_path / "out")
    content = (tmp_path / "out" / FILE).read_bytes()
    for size in range(0, len(content), 1500):
        for stale in (tmp_path / "out").glob("ledger.sqlite*"):
            stale.unlink()
        (tmp_path / "out" / FILE).write_bytes(content[:size])
        assert swept(base, tmp_path / "out", resume=True).digest == whole.digest


def test_a_full_disk_stops_the_sweep_and_keeps_what_was_stored(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulator.sweep import driver

    monkeypatch.setattr(driver, "STORE_EVERY_S", 0.0)
    real = driver.Ledger

    class Small(real):  # type: ignore[misc, valid-type]
        """A ledger on a disk of a few pages: SQLite itself says that it is full."""

        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self._database.execute("PRAGMA max_page_count=4")

    monkeypatch.setattr(driver, "Ledger", Small)
    with pytest.raises(OSError, match="No space left") as full:
        swept(base, tmp_path / "out", grid=["run.seed=0..99"])
    assert full.value.errno == errno.ENOSPC
    monkeypatch.setattr(driver, "Ledger", real)
    resumed = swept(base, tmp_path / "out", grid=["run.seed=0..99"], resume=True)
    assert 0 < resumed.num_reused < 100
    assert resumed.digest == swept(base, tmp_path / "whole", grid=["run.seed=0..99"]).digest
