"""Compilation of the token kernels: ahead of their first call, to machine code, cached on disk.

Kernels touch only arrays that their caller owns, so they are compiled without reference counting, which would cost
more than the work itself (17 ms instead of 1.7 ms for the rollout of benchmarks/rollout.py). A kernel may therefore
allocate nothing. numba's cache looks at the file of a function, not at those it calls: after a change in a file that
others inline, remove the cache (`make clean`).
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile an entry point: called from Python, calls `inlined` functions."""
    return cast(F, numba.njit(cache=True, _nrt=False)(function))  # type: ignore[call-overload]


def inlined(function: F) -> F:
    """Compile a piece of a kernel into each kernel that uses it; also callable from Python."""
    return cast(F, numba.njit(cache=True, forceinline=True, _nrt=False)(function))  # type: ignore[call-overload]


def compiled(function: F) -> F:
    """Compile a function that may allocate."""
    return cast(F, numba.njit(cache=True)(function))
