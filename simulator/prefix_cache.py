"""Prompts that the responses of a group share on a replica: prefilled once while they are cached, and held once.

A sequence shares the whole blocks of its prompt but for the last token, whose logits have to be computed (vLLM
v1/core/kv_cache_manager.py, `get_computed_blocks`). A prompt that nobody holds any more is found until its place in the
table is needed, the KV cache overflows, or a weight sync empties it; engines evict the least recently used block, which
comes to the same unless prompts outlive their groups for long. Only the memory is shared: every sequence still reads
its whole context in every step (no cascade attention). Does not know who runs, or what a prefill costs.
"""

import numpy as np

from simulator.compiled import private
from simulator.rng import mix
from simulator.rollout_state import Record, RolloutState

_NONE = -1
_WAYS = 8
"""Places of the table at which a group may lie."""


@private
def held_prompt(state: RolloutState, r: int, sequence: int) -> int:
    """Return the prompt tokens that replica r need not store again for this sequence: others of its group hold them."""
    places = state.limits[0].prefix_places
    place = _find(state, r, sequence)
    if place == _NONE or state.prefixes[r * places + place].holders == 0:
        return 0
    return state.prefixes[r * places + place].tokens


@private
def hold_prompt(state: RolloutState, r: int, record: Record) -> int:
    """Let a sequence that is admitted hold its prompt; return the tokens that were found in the cache."""
    places, replica = state.limits[0].prefix_places, state.replicas[r]
    if places == 0:
        return 0
    found = 0
    place = _find(state, r, record.sequence)
    if place != _NONE:
        found = state.prefixes[r * places + place].tokens
    else:
        place = _make_place(state, r, record.sequence)
    record.prefix = place
    if place != _NONE:
        entry = state.prefixes[r * places + place]
        entry.holders += 1
        entry.epoch = replica.prefix_epoch
    return found


@private
def share_prompt(state: RolloutState, r: int, record: Record) -> None:
    """Count the prompt once when a sequence that holds it begins to run."""
    if record.prefix == _NONE:
        return
    entry = state.prefixes[r * state.limits[0].prefix_places + record.prefix]
    entry.running += 1
    if entry.running > 1:
        state.replicas[r].shared_tokens += entry.tokens


@private
def release_prompt(state: RolloutState, r: int, record: Record, was_running: bool) -> None:
    """Let go of a prompt; it stays in the cache for the time being."""
    if record.prefix == _NONE:
        return
    entry = state.prefixes[r * state.limits[0].prefix_places + record.prefix]
    record.prefix = _NONE
    entry.holders -= 1
    entry.epoch = state.replicas[r].prefix_epoch
    if was_running:
        entry.running -= 1
        if entry.running > 0:
            state.replicas[r].shared_tokens -= entry.tokens


@private
def forget_prompts(replica: Record) -> None:
    """Prompts that nobody holds are no longer in the cache."""
    replica.prefix_epoch += 1


@private
def _shared_tokens(state: RolloutState, sequence: int) -> int:
    """Return the tokens of a prompt that may be shared."""
    block = state.limits[0].block_tokens
    return max(state.input_tokens[state.first_turn[sequence]] - 1, 0) // block * block


@private
def _home(group: int, places: int) -> int:
    """Return where to look first: mixed, because a router may deal groups to a replica at regular distances."""
    return int(mix(np.uint64(group)) & np.uint64(places - 1))


@private
def _find(state: RolloutState, r: int, sequence: int) -> int:
    """Return the place of the prompt of a sequence's group if it is cached on replica r."""
    places = state.limits[0].prefix_places
    if places == 0:
        return _NONE
    group, tokens = state.group_of[sequence], _shared_tokens(state, sequence)
    home = _home(group, places)
    for way in range(min(_WAYS, places)):
        place = (home + way) & (places - 1)
        entry = state.prefixes[r * places + place]
        cached = entry.holders > 0 or entry.epoch == state.replicas[r].prefix_epoch
        if cached and entry.group == group and entry.tokens == tokens:
            return place
    return _NONE


@private
def _make_place(state: RolloutState, r: int, sequence: int) -> int:
    """Return a place for a prompt that is about to be computed: the oldest group's that nobody holds; or none."""
    places, tokens = state.limits[0].prefix_places, _shared_tokens(state, sequence)
    group = state.group_of[sequence]
    home = _home(group, places)
    oldest = _NONE
    for way in range(min(_WAYS, places)):
        place = (home + way) & (places - 1)
        entry = state.prefixes[r * places + place]
        if entry.holders == 0 and (oldest == _NONE or entry.group < state.prefixes[r * places + oldest].group):
            oldest = place
    if tokens == 0 or oldest == _NONE:
        return _NONE
    entry = state.prefixes[r * places + oldest]
    entry.group, entry.tokens, entry.running = group, tokens, 0
    return oldest
