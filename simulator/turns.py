"""Turns: responses split into the turns of agentic trajectories. Does not know where lengths and delays come from."""

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import kernel

I32 = NDArray[np.int32]
F64 = NDArray[np.float64]


@kernel
def split_into_turns(
    prompt_tokens: I32,
    response_tokens: I32,
    num_turns: I32,
    observation_tokens: F64,
    delay_s: F64,
    max_context_tokens: int,
    first_turn: NDArray[np.int64],
    inputs: I32,
    outputs: I32,
    delays: NDArray[np.float32],
) -> None:
    """Write the turns of some sequences behind those of the sequences before them.

    A response is split evenly; a trajectory ends before the turn that would exceed the longest context, but its first
    turn always stays.

    Args:
        prompt_tokens: [sequences], read in the first turn.
        response_tokens: [sequences], at least as many as turns.
        num_turns: [sequences], at least 1.
        observation_tokens: [sum of num_turns]: whole numbers, read in all turns but first ones.
        delay_s: [sum of num_turns]: tool time before all turns but first ones.
        max_context_tokens: Longest context.
        first_turn: [sequences + 1]: its first entry is given, the others are written.
        inputs: Tokens to prefill of all turns of the workload, from its beginning.
        outputs: Tokens to generate, likewise.
        delays: Tool time, likewise.
    """
    drawn, kept = 0, int(first_turn[0])
    for s in range(num_turns.shape[0]):
        total, count = int(response_tokens[s]), int(num_turns[s])
        context, before = 0, 0
        for turn in range(count):
            up_to = total * (turn + 1) // count
            read = int(prompt_tokens[s]) if turn == 0 else int(observation_tokens[drawn + turn])
            context += read + (up_to - before)
            if turn > 0 and context > max_context_tokens:
                break
            inputs[kept], outputs[kept] = read, up_to - before
            delays[kept] = delay_s[drawn + turn] if turn > 0 else 0.0
            before = up_to
            kept += 1
        drawn += count
        first_turn[s + 1] = kept
