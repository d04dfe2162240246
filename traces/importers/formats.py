"""The frameworks and engines whose logs are read, by name."""

from traces.importers.areal import AREAL
from traces.importers.llama_cpp import LLAMA_CPP
from traces.importers.nemo_rl import NEMO_RL
from traces.importers.openrlhf import OPENRLHF
from traces.importers.prime_rl import PRIME_RL
from traces.importers.roll import ROLL
from traces.importers.rules import Framework
from traces.importers.sglang import SGLANG
from traces.importers.skyrl import SKYRL
from traces.importers.slime import SLIME
from traces.importers.trl import TRL
from traces.importers.verl import VERL
from traces.importers.vllm import VLLM

TRAINERS = (VERL, SLIME, NEMO_RL, SKYRL, AREAL, PRIME_RL, ROLL, OPENRLHF, TRL)

FRAMEWORKS: dict[str, Framework] = {each.name: each for each in (*TRAINERS, VLLM, SGLANG, LLAMA_CPP)}

ENGINES = (VLLM.name, SGLANG.name, LLAMA_CPP.name)
"""Their readings are numbered in the order of the log: an engine knows no RL step."""
