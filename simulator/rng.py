"""Random numbers by name: a draw is a function of (seed, stream, sequence, counter), never of what was drawn before.

Adding a part, a replica or an arm therefore cannot shift anybody else's numbers, and arms that ask for the same
sequence's prompt get the same prompt.
"""

import hashlib
from typing import Final

import numpy as np

from simulator.compiled import inlined

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_A: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B: Final = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT: Final = 1.0 / 9007199254740992.0  # 2**-53


def stream_key(*parts: str | int) -> np.uint64:
    """Return the key of a named stream: 64 bits of the sha256 of its name's parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def generator(*parts: str | int) -> np.random.Generator:
    """Return a numpy generator of a named stream, for draws that are made in bulk."""
    return np.random.Generator(np.random.Philox(key=int(stream_key(*parts))))


@inlined
def mix(value: np.uint64) -> np.uint64:
    """Return 64 well-mixed bits (splitmix64's finalizer, Steele et al. 2014)."""
    value = (value ^ (value >> _S30)) * _MIX_A
    value = (value ^ (value >> _S27)) * _MIX_B
    return value ^ (value >> _S31)


@inlined
def sequence_key(stream: np.uint64, sequence: int) -> np.uint64:
    """Return the key of one sequence's own stream; hashed, so that two streams are never shifted copies."""
    return mix(stream ^ mix(np.uint64(sequence) * _GOLDEN + _GOLDEN))


@inlined
def uniform(key: np.uint64, counter: int) -> float:
    """Return draw number `counter` of a stream, in [0, 1) with 53 bits."""
    return (mix(key + np.uint64(counter) * _GOLDEN) >> _S11) * _TO_UNIT
