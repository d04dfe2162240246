"""A fleet measures what one device measures, whatever becomes of its workers; nothing of it stays behind."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("ray") is None:  # not imported here: the fleet sets it up first
    pytest.skip("needs ray", allow_module_level=True)

from bebop import main as bebop  # noqa: E402
from profiler.device import Device  # noqa: E402
from profiler.errors import DeviceError  # noqa: E402
from profiler.fleet import LEASE_TASKS, MAX_DEATHS_ALONE, Fleet  # noqa: E402
from profiler.ledger import GRID, Ledger, Sample  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.point import Point  # noqa: E402
from profiler.result import make_trace  # noqa: E402
from profiler.runner import Runner  # noqa: E402
from profiler.sampler import Sampler  # noqa: E402
from profiler.sweeps import Crew, Task  # noqa: E402
from tests.profiler.test_profile import REQUEST, CountingTimer  # noqa: E402
from traces.latency import LatencyTrace, Operation  # noqa: E402
from traces.store import load_trace  # noqa: E402

OPTIONS = ["--batches", "1,4", "--contexts", "16,64", "--prefills", "16", "--max-draft-tokens", "1", "--sweeps", "2"]
OPTIONS += ["--held-out", "4", "--threads", "1", "--budget-s", "300"]
RANK = slice_rank(REQUEST.model)


class Fragile(Sampler):
    """A sampler whose process is killed by some points, once or always."""

    deadly: frozenset[Point] = frozenset()
    once: Path | None = None

    def sample(self, task: Task) -> Sample:
        if task.point in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.once is not None and not self.once.exists() and task.point.operation is Operation.DRAFT:
            self.once.write_text("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        return Sampler.sample(self, task)


@dataclass(frozen=True)
class OpenFragile:
    """What a worker opens: a clock that always says one millisecond."""

    once: Path | None = None
    deadly: frozenset[Point] = frozenset()
    refused: int | None = None
    """Number of a worker whose device cannot be opened."""

    def __call__(self, number: int) -> Sampler:
        if number == self.refused:
            raise DeviceError("another process computes on the GPU")
        device = Device(torch.device("cpu"), "test CPU", None, CountingTimer(), {"torch": "test"})
        sampler = Fragile(REQUEST, RANK, device)
        sampler.once, sampler.deadly = self.once, self.deadly
        return sampler


def profile(path: Path, device: Device, crew: Crew | None) -> tuple[LatencyTrace, Ledger]:
    ledger = Ledger.open(path, REQUEST.identity())
    Runner(REQUEST, RANK, device, ledger, crew=crew).run()
    return make_trace(REQUEST, RANK, device, ledger), ledger


def test_a_fleet_with_dying_workers_brings_the_trace_of_one_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, ledger = profile(tmp_path / "alone", OpenFragile()(0).device, None)
    with Fleet(OpenFragile(once=tmp_path / "once"), 2, on_gpus=False) as fleet:
        together, common = profile(tmp_path / "fleet", fleet.device, fleet)
    assert together == alone

    def keys(samples: list[Sample]) -> list[tuple[str, Point, int]]:
        return sorted((sample.purpose, sample.point, sample.sweep) for sample in samples)

    assert keys(common.samples) == keys(ledger.samples)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("died (Worker unexpectedly exits") == 1
    assert f"{LEASE_TASKS} samples are taken again" in err


def test_a_point_that_kills_every_worker_is_infeasible_and_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    poison = Point(Operation.VERIFY, 2, 4, 32)
    points = [poison, *(Point(Operation.DECODE, 1, batch, 8) for batch in range(1, 7))]
    with Fleet(OpenFragile(deadly=frozenset({poison}), refused=0), 2, on_gpus=False) as fleet:
        samples = list(fleet.measure(iter([Task(GRID, point, 0) for point in points])))
    assert sorted(sample.point for sample in samples) == sorted(points)
    (lost,) = [sample for sample in samples if sample.latency_s is None]
    assert lost.point == poison
    assert (lost.reason or "").startswith(f"killed its worker {MAX_DEATHS_ALONE} times: Worker unexpectedly exits")
    # One worker was enough: the other never had a device.
    assert "worker 0 is given up: another process computes on the GPU" in capsys.readouterr().err


def test_gpus_of_two_kinds_make_no_fleet() -> None:
    fleet = Fleet(OpenFragile(), 2, on_gpus=True)
    device = OpenFragile()(0).device
    fleet._meet(device)
    fleet._meet(device)
    assert fleet.device == device
    with pytest.raises(DeviceError, match="GPUs of one kind, here are test CPU and another"):
        fleet._meet(dataclasses.replace(device, name="another"))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def start(path: Path, started: list["subprocess.Popen[str]"], *options: str) -> "subprocess.Popen[str]":
    code = "import sys; from bebop import main; sys.exit(main(sys.argv[1:]))"
    argv = ["profile", "--device", "cpu", "--fleet", "--fleet-workers", "2", *OPTIONS, "-o", str(path), *options]
    process = subprocess.Popen([sys.executable, "-c", code, *argv], stderr=subprocess.PIPE, text=True)
    started.append(process)
    return process


def children(pid: int) -> dict[int, str]:
    """Return the command lines of all processes under one, by their numbers."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return {child: names[child] for child in found - {pid}}


def wait_for_samples(ledger: Path, count: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not ledger.exists() or len(ledger.read_text().splitlines()) <= count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers in /proc")
def test_two_fleets_at_once_one_loses_a_worker_the_other_is_interrupted(
    tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    hurt = start(tmp_path / "hurt.json", started)
    stopped = start(tmp_path / "stopped.json", started, "--sweeps", "50")
    wait_for_samples(tmp_path / "hurt.samples.jsonl", 3, hurt)
    victims = [pid for pid, name in children(hurt.pid).items() if name.startswith("ray::Worker")]
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    wait_for_samples(tmp_path / "stopped.samples.jsonl", 3, stopped)
    offspring = children(hurt.pid) | children(stopped.pid)
    stopped.send_signal(signal.SIGINT)
    assert "repeat the command to go on" in stopped.communicate(timeout=120)[1]
    assert stopped.returncode == 130
    assert hurt.communicate(timeout=120)[1].count("fleet: worker") == 1
    assert hurt.returncode == 0
    assert [pid for pid, name in offspring.items() if is_same(pid, name)] == []
    trace = load_trace(tmp_path / "hurt.json", LatencyTrace)
    assert "2 workers at once, which disturbed each other" in (trace.provenance.notes or "")
    # Every sample of the plan, and each once.
    content = (tmp_path / "hurt.samples.jsonl").read_text()
    keys = [(line["purpose"], str(line["point"]), line["sweep"]) for line in map(json.loads, content.splitlines()[1:])]
    assert len(set(keys)) == len(keys)
    assert {sweep for purpose, _, sweep in keys if purpose == GRID} >= {0, 1}
    planned = {point for purpose, point, sweep in keys if (purpose, sweep) == (GRID, 0)}
    assert planned == {point for purpose, point, sweep in keys if (purpose, sweep) == (GRID, 1)}
    # Two batches and two contexts: decode, verify and drafts of q 1 and 2 at each; draws of q 1 and 2, lm_head;
    # prefill behind 0 and 512 tokens; the weight sync.
    assert len(planned) == len(trace.rows) == 4 * 4 + 2 * 3 + 2 + 1


def is_same(pid: int, name: str) -> bool:
    try:
        return name != "" and Path(f"/proc/{pid}/cmdline").read_text() == name
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fleet"], "--fleet on a CPU needs --fleet-workers"),
        (["--fleet-workers", "2"], "--fleet-workers 2 belongs to --fleet"),
        (["--fleet", "--fleet-workers", "0"], "--fleet-workers 0 is outside 1..64"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop(["profile", "--device", "cpu", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_fleet_is_no_part_of_what_is_measured() -> None:
    assert dataclasses.replace(REQUEST, num_workers=8).identity() == REQUEST.identity()
