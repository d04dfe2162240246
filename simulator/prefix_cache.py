"""Prompts that the responses of a group share on a replica: prefilled once while they are cached, and held once.

A sequence shares the whole blocks of its prompt but for the last token, whose logits have to be computed (vLLM
v1/core/kv_cache_manager.py, `get_computed_blocks`). A prompt that nobody holds any more is found until its place in the
table is needed, the KV cache overflows, or a weight sync empties it; engines evict the least recently used block, which
comes to the same unless prompts outlive their groups for long. Only the memory is shared: every sequence still reads
its whole context in every step (no cascade attention). Does not know who runs, or what a prefill costs.
"""

import numpy as np

from simulator.compiled import called, private
from simulator.rng import mix
from simulator.rollout_state import Record, Records, RolloutState

_NONE = -1
_WAYS = 8
"""Places of the table at which a group may lie."""


@private
def held_prompt(state: RolloutState, r: int, sequence: int) -> int:
    """Return the prompt tokens that replica r need not store again for this sequence: others of its group hold them."""
    places = state.limits[0].prefix_places
    if places == 0:
        return 0
    group, tokens = state.group_of[sequence], _shared_tokens(state, sequence)
    return _held_tokens(state.replicas[r], state.prefixes, r * places, places, group, tokens)


@private
def hold_prompt(state: RolloutState, r: int, record: Record) -> int:
    """Let a sequence that is admitted hold its prompt; return the tokens that were found in the cache."""
    places, sequence = state.limits[0].prefix_places, record.sequence
    if places == 0:
        return 0
    group, tokens = state.group_of[sequence], _shared_tokens(state, sequence)
    return _hold(state.replicas[r], state.prefixes, r * places, places, record, group, tokens)


@private
def share_prompt(state: RolloutState, r: int, record: Record) -> None:
    """Count the prompt once when a sequence that holds it begins to run."""
    if record.prefix != _NONE:
        _share(state.replicas[r], state.prefixes[r * state.limits[0].prefix_places + record.prefix])


@private
def release_prompt(state: RolloutState, r: int, record: Record, was_running: bool) -> None:
    """Let go of a prompt; it stays in the cache for the time being."""
    if record.prefix != _NONE:
        _release(state.replicas[r], state.prefixes[r * state.limits[0].prefix_places + record.prefix], was_running)
        record.prefix = _NONE


@private
def forget_prompts(replica: Record) -> None:
    """Prompts that nobody holds are no longer in the cache."""
    replica.prefix_epoch += 1


@private
def _shared_tokens(state: RolloutState, sequence: int) -> int:
    """Return the tokens of a prompt that may be shared."""
    block = state.limits[0].block_tokens
    return max(state.input_tokens[state.first_turn[sequence]] - 1, 0) // block * block


@called
def _held_tokens(replica: Record, table: Records, first: int, places: int, group: int, tokens: int) -> int:
    prefixes = table[first : first + places]
    place = _find(replica, prefixes, group, tokens)
    return tokens if place != _NONE and prefixes[place].holders > 0 else 0


@called
def _hold(replica: Record, table: Records, first: int, places: int, record: Record, group: int, tokens: int) -> int:
    prefixes = table[first : first + places]
    found = tokens
    place = _find(replica, prefixes, group, tokens)
    if place == _NONE:
        found = 0
        place = _make_place(prefixes, group, tokens)
    record.prefix = place
    if place != _NONE:
        prefixes[place].holders += 1
        prefixes[place].epoch = replica.prefix_epoch
    return found


@called
def _share(replica: Record, prefix: Record) -> None:
    prefix.running += 1
    if prefix.running > 1:
        replica.shared_tokens += prefix.tokens


@called
def _release(replica: Record, prefix: Record, was_running: bool) -> None:
    prefix.holders -= 1
    prefix.epoch = replica.prefix_epoch
    if was_running:
        prefix.running -= 1
        if prefix.running > 0:
            replica.shared_tokens -= prefix.tokens


@private
def _home(group: int, places: int) -> int:
    """Return where to look first: mixed, because a router may deal groups to a replica at regular distances."""
    return int(mix(np.uint64(group)) & np.uint64(places - 1))


@private
def _find(replica: Record, prefixes: Records, group: int, tokens: int) -> int:
    """Return the place of a group's prompt if it is cached."""
    places = prefixes.shape[0]
    home = _home(group, places)
    for way in range(min(_WAYS, places)):
        entry = prefixes[(home + way) & (places - 1)]
        cached = entry.holders > 0 or entry.epoch == replica.prefix_epoch
        if cached and entry.group == group and entry.tokens == tokens:
            return (home + way) & (places - 1)
    return _NONE


@private
def _make_place(prefixes: Records, group: int, tokens: int) -> int:
    """Return a place for a prompt that is about to be computed: the oldest group's that nobody holds; or none."""
    places = prefixes.shape[0]
    home = _home(group, places)
    oldest = _NONE
    for way in range(min(_WAYS, places)):
        place = (home + way) & (places - 1)
        if prefixes[place].holders == 0 and (oldest == _NONE or prefixes[place].group < prefixes[oldest].group):
            oldest = place
    if tokens == 0 or oldest == _NONE:
        return _NONE
    entry = prefixes[oldest]
    entry.group, entry.tokens, entry.running = group, tokens, 0
    return oldest
