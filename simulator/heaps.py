"""Heaps of the token kernels: finishing steps, answers of tools, and the tree that finds the next event of all.

Does not know what an event does.
"""

import numpy as np

from simulator.compiled import private
from simulator.rollout_state import RolloutState

SLOT_BITS = 20
SLOT_MASK = (1 << SLOT_BITS) - 1
"""A finish key is step << SLOT_BITS | slot."""


@private
def set_next(state: RolloutState, r: int, time_s: float) -> None:
    """Set replica r's next event and replay its matches in the winner tree."""
    next_s, tree = state.next_s, state.tree
    next_s[r] = time_s
    node = next_s.shape[0] + r
    best, best_s = r, time_s
    while node > 1:
        # Only the other side is loaded, and no match waits for the one below it to be stored.
        other = tree[node ^ 1]
        other_s = next_s[other]
        wins = other_s < best_s or (other_s == best_s and other < best)
        best, best_s = (other, other_s) if wins else (best, best_s)
        node >>= 1
        tree[node] = best


@private
def heap_sift_up(heap: np.ndarray, i: int) -> None:
    key = heap[i]
    while i > 0:
        parent = (i - 1) >> 1
        if heap[parent] <= key:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = key


@private
def heap_sift_down(heap: np.ndarray, i: int, size: int) -> None:
    key = heap[i]
    child = 2 * i + 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
        child = 2 * i + 1
    heap[i] = key


@private
def heap_push(heap: np.ndarray, size: int, key: int) -> None:
    heap[size] = key
    heap_sift_up(heap, size)


@private
def heap_pop(heap: np.ndarray, size: int) -> int:
    """Remove the smallest key; return its slot."""
    top = heap[0]
    heap[0] = heap[size - 1]
    if size > 1:
        heap_sift_down(heap, 0, size - 1)
    return int(top & SLOT_MASK)


@private
def return_push(state: RolloutState, r: int, slot: int, time_s: float) -> None:
    times, slots, replica = state.returns_s[r], state.returns_slot[r], state.replicas[r]
    i = replica.num_returns
    replica.num_returns += 1
    while i > 0:
        parent = (i - 1) >> 1
        if times[parent] < time_s or (times[parent] == time_s and slots[parent] < slot):
            break
        times[i], slots[i] = times[parent], slots[parent]
        i = parent
    times[i], slots[i] = time_s, slot


@private
def return_pop(state: RolloutState, r: int) -> int:
    times, slots, replica = state.returns_s[r], state.returns_slot[r], state.replicas[r]
    top = slots[0]
    replica.num_returns -= 1
    size = replica.num_returns
    time_s, slot = times[size], slots[size]
    i, child = 0, 1
    while child < size:
        if child + 1 < size and (
            times[child + 1] < times[child] or (times[child + 1] == times[child] and slots[child + 1] < slots[child])
        ):
            child += 1
        if times[child] > time_s or (times[child] == time_s and slots[child] >= slot):
            break
        times[i], slots[i] = times[child], slots[child]
        i = child
        child = 2 * i + 1
    times[i], slots[i] = time_s, slot
    return top
