"""Plan of a testbed's comparison: which profiles and runs its rows need, where they lie, and what is still missing.

A comparison is made in sittings, each whole: every row is profiled, and run with drafts and without, within minutes,
because a machine is another one an hour later. Profiles and runs are made by the command itself in processes of their
own; what a folder holds already is not made again, so an interrupted comparison goes on. Does not know what is made of
them.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Final

from dashboard.errors import RunError
from simulator.calibration.toml import to_toml
from simulator.testbed_scenario import profile_key
from traces.base import canonical_hash
from traces.store import write_atomically
from traces.testbed import TestbedConfig

MAX_S: Final = 900
"""Seconds that one profile or run may take."""
MIN_SWEEPS: Final = 4
"""Of a profile."""


@dataclass(frozen=True, slots=True)
class Sitting:
    """What lies in a folder of one row: its profile, and the runs that this predicts."""

    profile: Path
    """Folder."""
    plain: Path
    """File of the run without drafts."""
    drafting: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of a comparison in a folder."""

    rows: tuple[TestbedConfig, ...]
    """Configs that draft, their own plain decoding beside each."""
    folder: Path
    num_sittings: int
    """That there are to be at least."""
    num_sweeps: int = 16
    """Of the profiles of all sittings together: how often each step is visited."""

    def make(self, say: Callable[[str], None]) -> None:
        """Profile and run whatever is missing, sitting by sitting; a profile just before the first row that needs it.

        Raises:
            RunError: One of them failed.
        """
        order = self.in_turn()
        sweeps = max(MIN_SWEEPS, -(-self.num_sweeps // self.num_sittings))
        for sitting in range(self.num_sittings):
            for config in order if sitting % 2 == 0 else reversed(order):
                folder = self.profile_folder(config, sitting)
                if config.k > 0 and not (folder / "profile.json").exists():
                    demanding = _most_demanding(self._alike(config))
                    self._command("profile", demanding, folder, say, ("--sweeps", str(sweeps)))
                if self._run_file(config, sitting) is None:
                    self._command("run", config, self.run_folder(config, sitting), say)

    def is_measured(self, row: TestbedConfig) -> bool:
        """Return whether the folder holds all that a row needs."""
        return len(self.sittings(row)) >= self.num_sittings

    def sittings(self, row: TestbedConfig) -> list["Sitting"]:
        """Return the sittings of a row that the folder holds whole, up to the first that it does not."""
        found = (self._sitting(row, number) for number in count())
        return [sitting for sitting in takewhile(lambda sitting: sitting is not None, found) if sitting is not None]

    def profile_folder(self, config: TestbedConfig, sitting: int) -> Path:
        """Return where the profile of a sitting lies that a config shares with others."""
        key = f"{config.engine}-{canonical_hash(profile_key(config))[:8]}"
        return self.folder / "profiles" / key / str(sitting + 1)

    def run_folder(self, config: TestbedConfig, sitting: int) -> Path:
        """Return where the run of a config in a sitting lies."""
        return self.folder / "runs" / config.name / str(sitting + 1)

    def _sitting(self, row: TestbedConfig, number: int) -> "Sitting | None":
        profile = self.profile_folder(row, number)
        plain, drafting = (self._run_file(config, number) for config in (twin(row), row))
        if plain is None or drafting is None or not (profile / "profile.json").exists():
            return None
        return Sitting(profile, plain, drafting)

    def _run_file(self, config: TestbedConfig, sitting: int) -> Path | None:
        """Return what a run measured, in either format; None where there is none."""
        paths = (self.run_folder(config, sitting) / f"measured{suffix}" for suffix in (".json", ".parquet"))
        return next((path for path in paths if path.exists()), None)

    def _alike(self, row: TestbedConfig) -> list[TestbedConfig]:
        return [other for other in self.rows if self.profile_folder(other, 0) == self.profile_folder(row, 0)]

    def in_turn(self) -> list[TestbedConfig]:
        """Return every config once, each plain one between the drafting ones that it is compared with."""
        order: list[TestbedConfig] = []
        for plain in dict.fromkeys(twin(row) for row in self.rows):
            drafting = [row for row in self.rows if twin(row) == plain]
            order += [*drafting[: len(drafting) // 2], plain, *drafting[len(drafting) // 2 :]]
        return order

    def _command(
        self,
        subverb: str,
        config: TestbedConfig,
        folder: Path,
        say: Callable[[str], None],
        options: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.toml"
        write_config(config, path)
        say(f"{subverb} {config.name}")
        command = [sys.executable, "-m", "bebop", "testbed", subverb, str(path), "-o", str(folder), *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_S, check=False)
        except subprocess.TimeoutExpired:
            raise RunError(f"testbed {subverb} {config.name}: not done after {MAX_S} s; make it smaller") from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("bebop: ")
            raise RunError(f"testbed {subverb} {config.name}: exit code {done.returncode}: {last}")


def twin(config: TestbedConfig) -> TestbedConfig:
    """Return the plain decoding that a config is compared with: what its drafts are made of does not matter there."""
    policy = config.policy
    said = [policy.kind.replace("_", "-")]
    if policy.max_staleness is not None and policy.in_flight is not None:
        said += [f"s{policy.max_staleness}", policy.in_flight.replace("_", "-")]
    plain = config.model_copy(
        update={
            "k": 0,
            "verify_rule": "rejection",
            "head_batches": 0,
            "head_update": "frozen",
            "forced_acceptance": None,
            "name": "plain",
        }
    )
    digest = canonical_hash(plain.model_dump(mode="json"))[:6]
    return plain.model_copy(update={"name": "-".join(["plain", config.engine, *said, digest])})


def write_config(config: TestbedConfig, path: Path) -> None:
    """Write a config as TOML."""
    write_atomically(path, to_toml(config.model_dump(mode="json", exclude_defaults=True)).encode())


def _most_demanding(configs: Sequence[TestbedConfig]) -> TestbedConfig:
    """Return the config whose profile serves all of them: the largest k, of one that overlaps if any does."""
    return max(configs, key=lambda config: (config.policy.kind != "synchronous", config.k))
