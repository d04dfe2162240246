"""The frameworks whose logs are read, by name."""

from traces.importers.areal import AREAL
from traces.importers.nemo_rl import NEMO_RL
from traces.importers.openrlhf import OPENRLHF
from traces.importers.prime_rl import PRIME_RL
from traces.importers.roll import ROLL
from traces.importers.rules import Framework
from traces.importers.skyrl import SKYRL
from traces.importers.slime import SLIME
from traces.importers.trl import TRL
from traces.importers.verl import VERL

FRAMEWORKS: dict[str, Framework] = {
    framework.name: framework for framework in (VERL, SLIME, NEMO_RL, SKYRL, AREAL, PRIME_RL, ROLL, OPENRLHF, TRL)
}
