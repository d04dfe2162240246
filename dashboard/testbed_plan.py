"""Plan of a testbed's comparison: which profiles and runs its rows need, where they lie, and what is still missing.

Profiles and runs are made by the command itself in processes of their own; what a folder holds already is not made
again, so an interrupted comparison goes on. Does not know what is made of them.
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
from traces.measured import MeasuredRun
from traces.store import load_trace, write_atomically
from traces.testbed import TestbedConfig

MAX_S: Final = 900
"""Seconds that one profile or run may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of a comparison in a folder."""

    rows: tuple[TestbedConfig, ...]
    """Configs that draft, their own plain decoding beside each."""
    folder: Path
    num_pairs: int
    """Runs of every row, with drafts and without, that there are to be at least."""
    num_sweeps: int | None = None
    """Of a profile; None: as many as it takes by itself."""

    def make(self, say: Callable[[str], None]) -> None:
        """Profile and run whatever is missing; all profiles before the first run, and pairs side by side in time.

        Raises:
            RunError: One of them failed.
        """
        for config in {self.profile_folder(row): _most_demanding(self._alike(row)) for row in self.rows}.values():
            folder = self.profile_folder(config)
            if not (folder / "profile.json").exists():
                options = [] if self.num_sweeps is None else ["--sweeps", str(self.num_sweeps)]
                self._command("profile", config, folder, say, options)
        for pair in range(self.num_pairs):
            order = self.in_turn()
            for config in order if pair % 2 == 0 else reversed(order):
                if self._run_file(config, pair) is None:
                    self._command("run", config, self.run_folder(config, pair), say)

    def is_measured(self, row: TestbedConfig) -> bool:
        """Return whether the folder holds all that a row needs."""
        runs = (self._run_file(config, pair) for config in (row, twin(row)) for pair in range(self.num_pairs))
        return (self.profile_folder(row) / "profile.json").exists() and all(path is not None for path in runs)

    def runs(self, config: TestbedConfig) -> list[MeasuredRun]:
        """Return all runs of a config that the folder holds, in the order of the pairs."""
        paths = takewhile(lambda path: path is not None, (self._run_file(config, pair) for pair in count()))
        return [load_trace(path, MeasuredRun) for path in paths if path is not None]

    def profile_folder(self, config: TestbedConfig) -> Path:
        """Return where the profile lies that a config shares with others."""
        return self.folder / "profiles" / f"{config.engine}-{canonical_hash(profile_key(config))[:8]}"

    def run_folder(self, config: TestbedConfig, pair: int) -> Path:
        """Return where one run of a config lies."""
        return self.folder / "runs" / config.name / str(pair + 1)

    def _run_file(self, config: TestbedConfig, pair: int) -> Path | None:
        """Return what a run measured, in either format; None where there is none."""
        paths = (self.run_folder(config, pair) / f"measured{suffix}" for suffix in (".json", ".parquet"))
        return next((path for path in paths if path.exists()), None)

    def _alike(self, row: TestbedConfig) -> list[TestbedConfig]:
        return [other for other in self.rows if self.profile_folder(other) == self.profile_folder(row)]

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
