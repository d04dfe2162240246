"""EngineHabits: what an engine adds to its kernels: host work between passes, launches, one kernel's efficiency.

Few numbers per engine, each fitted on the published rows that its file names and checked on others
(`simulator/scorecard/fit.py`). Does not know models, cards or traces.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from traces.base import Strict

Software = Literal["vllm", "vllm_early", "vllm_piecewise", "sglang", "sglang_no_overlap", "llama_cpp"]
"""vLLM from 0.11 on; before, when draft passes were launched piece by piece; vLLM whose CUDA graphs speculation
downgrades to PIECEWISE (an attention backend without graphs for drafts, vllm-project/vllm #35387); SGLang with its
overlap scheduler ("spec v2"), and SGLang whose speculation runs without it; llama.cpp."""


class EngineHabits(Strict):
    """Seconds that the GPU waits for an engine's host, and what a kernel of its reaches."""

    step_s: NonNegativeFloat = 0.0
    """Per engine step, whatever its batch."""
    step_s_per_seq: NonNegativeFloat = 0.0
    """Per engine step and running sequence: scheduling, inputs, outputs."""
    speculative_step_s: NonNegativeFloat = 0.0
    """Added to a step that drafts and verifies."""
    speculative_step_s_per_seq: NonNegativeFloat = 0.0
    """Added to such a step per running sequence."""
    draft_launch_s: NonNegativeFloat = 0.0
    """A draft pass with its projection takes no less: its launches come from the host."""
    piecewise_layer_s: NonNegativeFloat = 0.0
    """Per layer of a verify pass of a model with recurrent layers, whose graphs leave them out. Assumed, not fitted."""
    recurrence_efficiency: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the memory peak at which the gated-DeltaNet decode kernel reads states; None: as GEMM."""
    fp8_bandwidth_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of bf16 products' bandwidth that block-scaled fp8 products reach."""
    draft_expert_reuse: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the experts of a sequence's next token in a verify pass, the share that its first one visits anyway."""

    fitted_on: tuple[str, ...] = ()
    """Names of the fits in `simulator/scorecard/fit.py` whose rows decided these numbers."""

    @property
    def of_kernels(self) -> "EngineHabits":
        """The same without host work: what a roofline is made with."""
        return EngineHabits(
            recurrence_efficiency=self.recurrence_efficiency,
            fp8_bandwidth_factor=self.fp8_bandwidth_factor,
            draft_expert_reuse=self.draft_expert_reuse,
        )


@cache
def load_habits() -> dict[str, EngineHabits]:
    """Return the stored habits by engine (`traces/data/kernels/engine_habits.json`)."""
    text = files("traces").joinpath("data", "kernels", "engine_habits.json").read_text(encoding="utf-8")
    content = json.loads(text)
    return {name: EngineHabits.model_validate(habits) for name, habits in content["habits"].items()}
